/**
 * The driver of one virtio network card behind QEMU (VIRTIO 1.3, section 5.1): what a guest's kernel would do, with the
 * rings of src/frontend/. They lie in the guest's memory, which this process maps too, so frames pass without QEMU; it is
 * asked for registers only, among them the notification, when the device wants to be told. Owned by guest.ts.
 */
import { hasBit, maskOf } from '../../../protocol/bits.ts';
import { VIRTIO_FEATURE } from '../../../protocol/virtio/features.ts';
import {
  CTRL_ACK_OK,
  CTRL_ANNOUNCE,
  CTRL_CLASS,
  CTRL_MQ,
  NET_CONFIG,
  NET_STATUS_LINK_UP,
  netHeaderBytes,
} from '../../../protocol/virtio/net.ts';
import type { DriverRing, Shape } from '../../../src/frontend/driver-ring.ts';
import type { MemoryPart } from '../../../src/frontend/guest-memory.ts';
import { QueuePair } from '../../../src/frontend/net-device.ts';
import { ReceiveQueue } from '../../../src/frontend/receive-queue.ts';
import { SendQueue } from '../../../src/frontend/send-queue.ts';
import type { RingLayoutKind } from '../../../src/vring/attachment.ts';
import { CommandQueue } from './command-queue.ts';
import type { Interrupts } from './interrupts.ts';
import { ISR, STATUS, type VirtioPci } from './virtio-pci.ts';

const F = VIRTIO_FEATURE;
/** What the driver takes of what is offered, unless it is told otherwise; the layout comes by itself. */
export const NET_DRIVER_FEATURES = maskOf(
  ...[F.NET_MTU, F.NET_MAC, F.NET_MRG_RXBUF, F.NET_STATUS, F.NET_CTRL_VQ, F.NET_MQ, F.NET_GUEST_ANNOUNCE],
  ...[F.INDIRECT_DESC, F.EVENT_IDX, F.VERSION_1, F.RING_RESET],
);
/** `status` of the configuration (section 5.1.4). */
const NET_STATUS_ANNOUNCE = 2;
const CONTROL_RING_SIZE_MAX = 64;
const PAGE_BYTES = 4096;

export type NetDriverChoice = {
  /** Taken of what is offered, default NET_DRIVER_FEATURES; `layout` is said apart. */
  readonly features?: bigint;
  /** Default split. */
  readonly layout?: RingLayoutKind;
  /** Default: as many as the card has. */
  readonly queuePairs?: number;
  /** Descriptors of a ring; default: as many as the card allows. */
  readonly ringSize?: number;
  /** Of each buffer, the header with them; default 2,048. */
  readonly bufferBytes?: number;
  /** Of each receive buffer; default: one piece. */
  readonly receiveShape?: () => Shape;
  /** Where rings and buffers lie, which is cleared first; default: the card's own part. */
  readonly memory?: MemoryPart;
};

type Waiter = { resolve(): void; reject(error: Error): void };

export class NetDriver {
  readonly id: string;
  /** Found anew after each reset of the machine. */
  device: VirtioPci;
  /** Set by `initialise`. */
  offered = 0n;
  features = 0n;
  mac: Uint8Array = new Uint8Array(6);
  /** The guest stands still, as for a moment of its migration. */
  isFrozen = false;
  memory: MemoryPart;
  readonly #ownMemory: MemoryPart;
  readonly #interrupts: Interrupts;
  #pairs: readonly QueuePair[] = [];
  /** Rings whose kicks are held back; null: none are. */
  #heldKicks: Set<number> | null = null;
  #control: CommandQueue | null = null;
  #waiters: Waiter[] = [];
  #configWaiters: Waiter[] = [];

  constructor(id: string, device: VirtioPci, memory: MemoryPart, interrupts: Interrupts) {
    this.id = id;
    this.device = device;
    this.memory = memory;
    this.#ownMemory = memory;
    this.#interrupts = interrupts;
  }

  has(feature: number): boolean {
    return hasBit(this.features, feature);
  }

  get layout(): RingLayoutKind {
    return this.has(F.RING_PACKED) ? 'packed' : 'split';
  }

  /** None while the device is out of use, or the guest stands still. */
  get pairs(): readonly QueuePair[] {
    return this.isFrozen ? [] : this.#pairs;
  }

  /** Every data ring in the order of its index. */
  get rings(): DriverRing[] {
    return this.#pairs.flatMap(({ toGuest, fromGuest }) => [toGuest.ring, fromGuest.ring]);
  }

  /** Resets the device and takes it into use (section 3.1.1). @throws Error: it does not agree */
  async initialise(choice: NetDriverChoice = {}): Promise<void> {
    const { device } = this;
    await this.reset();
    Object.assign(this, await device.negotiate(wantedFeatures(choice)));
    if (choice.layout !== undefined && this.layout !== choice.layout) {
      throw new Error(`${this.id}: ${choice.layout} rings are not offered`);
    }
    this.memory = choice.memory ?? this.#ownMemory;
    this.memory.clear();
    this.mac = new Uint8Array((await device.config(NET_CONFIG.MAC_OFFSET, 6)).buffer);
    const pairsMax = await this.queuePairsMax();
    const pairCount = choice.queuePairs ?? pairsMax;
    const pairs = await this.#makePairs(pairCount, choice);
    if (this.has(F.NET_CTRL_VQ)) this.#control = await this.#makeControl(2 * pairsMax);
    // What is offered before the device runs it finds by itself; it is told of it below all the same.
    for (const { toGuest } of pairs) toGuest.fill();
    await device.addStatus(STATUS.DRIVER_OK);
    this.#pairs = pairs;
    this.#heldKicks = null;
    for (const [index, ring] of this.rings.entries()) ring.doorbell = { send: () => this.#kick(index) };
    this.#interrupts.add(device, (isr) => this.#interrupted(isr));
    if (pairsMax > 1 && this.has(F.NET_MQ)) await this.setQueuePairs(pairCount);
    for (const ring of this.rings) ring.kick();
  }

  /** Ends all use of the device. Frames that it had are lost; whoever waits is told. */
  async reset(): Promise<void> {
    await this.device.reset();
    this.forget(`${this.id} was reset`);
  }

  /** Whoever waits for a frame may have missed the interrupt: the guest was migrated. */
  thaw(): void {
    this.isFrozen = false;
    this.#wakeIfReceived();
  }

  /**
   * From now on QEMU is not told of what is sent. While a card's back-end is away, QEMU itself empties a ring that it is
   * told of and throws the frames away, and a test could not tell where they went. It tells itself at once when the
   * back-end goes, unless the card has `ioeventfd: false` among its properties.
   */
  holdKicks(): void {
    this.#heldKicks ??= new Set();
  }

  /** Tells of all that was held back. */
  releaseKicks(): void {
    const held = this.#heldKicks ?? [];
    this.#heldKicks = null;
    for (const index of held) this.#kick(index);
  }

  /** What `reset` does to the driver, where the device was reset or has gone otherwise. */
  forget(why: string): void {
    this.#interrupts.remove(this.device);
    this.#pairs = [];
    this.#control = null;
    for (const { reject } of [...this.#waiters.splice(0), ...this.#configWaiters.splice(0)])
      reject(new Error(why));
  }

  /** As many as the card has; 1 unless MQ was agreed on. */
  async queuePairsMax(): Promise<number> {
    if (!this.has(F.NET_MQ)) return 1;
    return (await this.device.config(NET_CONFIG.MAX_QUEUE_PAIRS_OFFSET, 2)).getUint16(0, true);
  }

  /** Says how many pairs are in use, of those that were set up. */
  setQueuePairs(count: number): Promise<void> {
    return this.control(CTRL_CLASS.MQ, CTRL_MQ.VQ_PAIRS_SET, [count & 0xff, count >> 8]);
  }

  /** A command on the control queue (section 5.1.6.5). @throws Error: the device refused it */
  async control(commandClass: number, command: number, data: readonly number[]): Promise<void> {
    if (this.#control === null) throw new Error(`${this.id} has no control queue`);
    const parts = data.length === 0 ? [[commandClass, command]] : [[commandClass, command], data];
    const [ack] = await this.#control.command(parts, 1);
    if (ack !== CTRL_ACK_OK)
      throw new Error(`${this.id}: control command ${commandClass}.${command}: ${ack}`);
  }

  /** Null: not told, or not agreed on. */
  async mtu(): Promise<number | null> {
    if (!this.has(F.NET_MTU)) return null;
    return (await this.device.config(NET_CONFIG.MTU_OFFSET, 2)).getUint16(0, true);
  }

  async isLinkUp(): Promise<boolean> {
    return ((await this.#netStatus()) & NET_STATUS_LINK_UP) !== 0;
  }

  /** Whether the guest is asked to announce itself, as after a migration. */
  async isAskedToAnnounce(): Promise<boolean> {
    return ((await this.#netStatus()) & NET_STATUS_ANNOUNCE) !== 0;
  }

  acknowledgeAnnounce(): Promise<void> {
    return this.control(CTRL_CLASS.ANNOUNCE, CTRL_ANNOUNCE.ACK, []);
  }

  /** Asks for an interrupt at the next frame, of any pair; resolves when one is there. Rejects when the device is reset. */
  untilReceived(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#wakeIfReceived();
    });
  }

  /** Resolves once `holds` does, asked now and at each interrupt for a change of the configuration. */
  async untilConfig(holds: () => Promise<boolean>): Promise<void> {
    for (;;) {
      const changed = new Promise<void>((resolve, reject) => this.#configWaiters.push({ resolve, reject }));
      // Nobody waits for it any more if it holds now.
      changed.catch(() => {});
      if (await holds()) return;
      await changed;
    }
  }

  /**
   * Guest-physical addresses of one byte in each page that the driver writes: descriptors and indirect tables, its own
   * area of each ring, what it sends. Pages that the device alone writes are not among them (the part gives each buffer
   * pages of its own), a packed ring's descriptors are, which both write; `isAlone` leaves those out.
   */
  driverPageGpas({ isAlone = false } = {}): number[] {
    const pages = new Set<number>();
    const note = (startOffset: number, sizeBytes: number): void => {
      for (
        let at = startOffset;
        at < startOffset + sizeBytes;
        at = (Math.floor(at / PAGE_BYTES) + 1) * PAGE_BYTES
      ) {
        pages.add(at);
      }
    };
    for (const { layout, size, tables } of this.rings) {
      if (!isAlone || this.layout === 'split') note(layout.descOffset, size * 16);
      note(layout.driverOffset, this.layout === 'split' ? 6 + 2 * size : 4);
      if (tables !== null) note(tables.offset, tables.sizeBytes);
    }
    for (const { fromGuest } of this.#pairs) {
      for (const offset of fromGuest.ring.bufferOffsets) note(offset, fromGuest.ring.bufferBytes);
    }
    return [...pages].map((offset) => this.memory.gpaOf(offset));
  }

  #kick(index: number): void {
    if (this.#heldKicks === null) this.device.notify(index);
    else this.#heldKicks.add(index);
  }

  async #netStatus(): Promise<number> {
    return (await this.device.config(NET_CONFIG.STATUS_OFFSET, 2)).getUint16(0, true);
  }

  #interrupted(isr: number): void {
    if ((isr & ISR.CONFIG) !== 0) for (const { resolve } of this.#configWaiters.splice(0)) resolve();
    if ((isr & ISR.QUEUE) !== 0) this.#wakeIfReceived();
  }

  #wakeIfReceived(): void {
    if (this.#waiters.length === 0) return;
    const rings = this.pairs.map(({ toGuest }) => toGuest.ring);
    if (rings.length === 0) return;
    // All of them are armed before it is decided that none has anything.
    const isSomethingThere = rings.map((ring) => !ring.arm()).includes(true);
    if (!isSomethingThere) return;
    for (const ring of rings) ring.disarm();
    for (const { resolve } of this.#waiters.splice(0)) resolve();
  }

  async #makePairs(count: number, choice: NetDriverChoice): Promise<QueuePair[]> {
    const mergeable = this.has(F.NET_MRG_RXBUF);
    const pairs: QueuePair[] = [];
    for (let pair = 0; pair < count; pair++) {
      const options = async (index: number) => ({
        memory: this.memory,
        layout: this.layout,
        size: choice.ringSize ?? (await this.device.queueSizeMax(index)),
        headerBytes: netHeaderBytes(this.has(F.VERSION_1), mergeable),
        eventIdx: this.has(F.EVENT_IDX),
        indirect: this.has(F.INDIRECT_DESC),
        inOrder: this.has(F.IN_ORDER),
        mergeable,
        bufferBytes: choice.bufferBytes ?? 2048,
      });
      const made = new QueuePair(
        new ReceiveQueue({ ...(await options(2 * pair)), shape: choice.receiveShape }),
        new SendQueue(await options(2 * pair + 1)),
      );
      pairs.push(made);
      for (const [i, { ring }] of [made.toGuest, made.fromGuest].entries()) {
        await this.device.enableQueue(2 * pair + i, {
          size: ring.size,
          descGpa: this.memory.gpaOf(ring.layout.descOffset),
          driverGpa: this.memory.gpaOf(ring.layout.driverOffset),
          deviceGpa: this.memory.gpaOf(ring.layout.deviceOffset),
        });
      }
    }
    return pairs;
  }

  async #makeControl(index: number): Promise<CommandQueue> {
    const { device, layout } = this;
    const size = Math.min(CONTROL_RING_SIZE_MAX, await device.queueSizeMax(index));
    const eventIdx = this.has(F.EVENT_IDX);
    const queue = new CommandQueue({ device, index, memory: this.#ownMemory, layout, size, eventIdx });
    await queue.enable();
    return queue;
  }
}

function wantedFeatures({ features = NET_DRIVER_FEATURES, layout = 'split' }: NetDriverChoice): bigint {
  const packed = maskOf(F.RING_PACKED);
  return (features & ~packed) | (layout === 'packed' ? packed : 0n);
}
