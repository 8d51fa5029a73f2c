/**
 * The IOMMU before an embedded guest's device: its driver writes down addresses that only this translates, and the back-end asks
 * for each page as it comes to need it (vhost-user.rst, "IOMMU support"). Pages of 4 KiB, of which the guest may take
 * permissions away again. The thread that plays the guest.
 */
import type { IotlbMessage, MemRegion } from '../../protocol/vhost-user/codec.ts';
import { decodeBody } from '../../protocol/vhost-user/codec.ts';
import { BACK_END_MESSAGES, IOTLB_ACCESS, IOTLB_TYPE } from '../../protocol/vhost-user/messages.ts';
import { closeFd } from '../host/descriptor.ts';
import { socketPair } from '../host/unix-socket.ts';
import { Channel, type ChannelRole, type Message } from '../vhost-user/channel.ts';
import type { FrontEndSession } from '../vhost-user/front-end.ts';
import { type DriverMemory, type EmbeddedMemory, roundUp } from './guest-memory.ts';

const PAGE_BYTES = 4096;
/** Where the guest's memory begins for its devices; no address of it is a guest-physical one. */
export const IOVA_BASE = 0x12_3456_0000;
const ROLE: ChannelRole = { peer: 'back-end', accepts: 'requests', unsentBytesMax: 0 };

export class EmbeddedIommu {
  /** What the back-end asked for and said, in order. */
  readonly asked: IotlbMessage[] = [];
  /** Answered with an update, as far as it is allowed; otherwise not at all. */
  answers = true;
  readonly #memory: EmbeddedMemory;
  /** By page of the memory; all may be read and written at first. */
  readonly #access: Uint8Array;
  #session: FrontEndSession | null = null;
  #channel: Channel | null = null;
  #onAsked: (() => void) | null = null;

  constructor(memory: EmbeddedMemory) {
    this.#memory = memory;
    this.#access = new Uint8Array(Math.ceil(memory.sizeBytes / PAGE_BYTES)).fill(IOTLB_ACCESS.BOTH);
  }

  /** Hands the back-end a channel by which it can ask. */
  async connect(session: FrontEndSession): Promise<void> {
    this.#channel?.end('the guest connects anew');
    this.#session = session;
    const [ours, theirs] = socketPair();
    this.#channel = new Channel(
      ours,
      ROLE,
      (message) => this.#answer(message),
      () => {},
    );
    try {
      await session.request('SET_BACKEND_REQ_FD', null, { fds: [theirs] });
    } finally {
      closeFd(theirs);
    }
  }

  /** Resolves when the back-end asks for something more. */
  nextAsked(): Promise<void> {
    return new Promise((resolve) => {
      this.#onAsked = resolve;
    });
  }

  /** What the device may do with a part of the memory from now on; resolves when it does nothing else any more. */
  async allow(offset: number, sizeBytes: number, access: number): Promise<void> {
    const first = Math.floor(offset / PAGE_BYTES);
    const end = roundUp(offset + sizeBytes, PAGE_BYTES) / PAGE_BYTES;
    this.#access.fill(access, first, end);
    await this.invalidate(first * PAGE_BYTES, (end - first) * PAGE_BYTES);
  }

  /** Has the back-end forget a part of the memory; resolves when it has. */
  async invalidate(offset: number, sizeBytes: number): Promise<void> {
    await this.#session?.request('IOTLB_MSG', {
      iova: BigInt(IOVA_BASE + offset),
      sizeBytes: BigInt(sizeBytes),
      uva: 0n,
      access: 0,
      type: IOTLB_TYPE.INVALIDATE,
    });
  }

  /** Tells of the page that holds an offset, asked or not. */
  async update(offset: number): Promise<void> {
    const page = Math.floor(offset / PAGE_BYTES);
    const access = this.#access[page];
    if (access === undefined || access === 0) return;
    await this.#session?.request('IOTLB_MSG', {
      iova: BigInt(IOVA_BASE + page * PAGE_BYTES),
      sizeBytes: BigInt(PAGE_BYTES),
      uva: this.#memory.uvaOf(page * PAGE_BYTES),
      access,
      type: IOTLB_TYPE.UPDATE,
    });
  }

  close(): void {
    this.#channel?.end('the guest was closed');
    this.#channel = null;
    this.#session = null;
  }

  #answer({ header, payload }: Message): void {
    if (header.request !== BACK_END_MESSAGES.IOTLB_MSG.id) return;
    const message = decodeBody('iotlb', payload);
    this.asked.push(message);
    this.#onAsked?.();
    this.#onAsked = null;
    if (message.type !== IOTLB_TYPE.MISS || !this.answers) return;
    // A connection that ends meanwhile needs no answer.
    this.update(Number(message.iova) - IOVA_BASE).catch(() => {});
  }
}

/** The guest's memory as its driver uses it then. */
export class IommuMemory implements DriverMemory {
  readonly buffer: ArrayBuffer;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly #whole: EmbeddedMemory;

  constructor(whole: EmbeddedMemory) {
    this.#whole = whole;
    this.buffer = whole.buffer;
    this.u8 = whole.u8;
    this.u16 = whole.u16;
  }

  get regions(): readonly MemRegion[] {
    return this.#whole.regions;
  }

  allocate(sizeBytes: number, alignBytes?: number): number {
    return this.#whole.allocate(sizeBytes, alignBytes);
  }

  /** As the device is told it. */
  gpaOf(offset: number): number {
    return IOVA_BASE + offset;
  }

  /** Ring addresses in messages are the IOMMU's too. */
  uvaOf(offset: number): bigint {
    return BigInt(IOVA_BASE + offset);
  }
}
