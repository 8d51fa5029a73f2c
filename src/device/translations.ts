/**
 * A device behind an IOMMU (ACCESS_PLATFORM): what its front-end has told of translations, which rings wait for one, and
 * asking for it by the back-end's channel. vhost-user.rst, "IOMMU support". Main thread.
 *
 * Nobody is waited for. What a ring needs is asked for once, however many rings need it and however often they say so, and again
 * each second while the ring waits: a front-end need not answer what it has no translation for, and its channel may be full. No
 * reply is asked for; the update itself is the answer, so nothing of the channel is to be handed over. A ring asks for
 * a few pages at a time, so what is kept is bounded by the rings.
 */
import type { IotlbMessage } from '../../protocol/vhost-user/codec.ts';
import { IOTLB_TYPE } from '../../protocol/vhost-user/messages.ts';
import type { IovaMap } from '../memory/gpa-translator.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import {
  ACCESS_READ,
  ACCESS_WRITE,
  type Access,
  type AddressMiss,
  IOMMU_PAGE_BYTES,
  Iotlb,
  type IovaPlace,
} from '../memory/iotlb.ts';
import { ADDRESS_MAX } from '../memory/peer-mapping.ts';
import { PeerError } from '../vhost-user/peer-error.ts';

const ASK_AGAIN_MS = 1000;

/** What became of a message to the front-end: `full`, it does not read; `none`, there is no channel, or it has ended. */
export type Sent = 'sent' | 'full' | 'none';

/** A ring that cannot go on, or not begin. */
type Wait = {
  readonly misses: readonly AddressMiss[];
  /** What was told did not allow it. */
  isDenied: boolean;
  /** Long enough for the user to be told. */
  isLong: boolean;
  /** The front-end was told that it is denied. */
  isReported: boolean;
};

/** What an update changed. */
export type Updated = {
  /** Something that was allowed is not any more, or lies elsewhere: nobody may use it when the update is acknowledged. */
  readonly isLost: boolean;
};

export class Translations {
  readonly #iotlb: Iotlb;
  readonly #waits = new Map<number, Wait>();
  /** By page and access. */
  readonly #asked = new Map<string, AddressMiss>();
  readonly #send: (message: IotlbMessage) => Sent;
  readonly #onChange: () => void;
  #timer: NodeJS.Timeout | null = null;
  #lastSent: Sent = 'sent';
  /** Something was forgotten that workers may still know. */
  #mayBeKnown = false;

  /** `onChange`: the user should see that a ring waits, or why. */
  constructor(send: (message: IotlbMessage) => Sent, onChange: () => void, iotlb = new Iotlb()) {
    this.#send = send;
    this.#onChange = onChange;
    this.#iotlb = iotlb;
  }

  get rangeCount(): number {
    return this.#iotlb.rangeCount;
  }

  /** As messages tell them. */
  get messages(): IotlbMessage[] {
    return this.#iotlb.ranges.map(({ iova, sizeBytes, uva, access }) => ({
      iova: BigInt(iova),
      sizeBytes: BigInt(sizeBytes),
      uva: BigInt(uva),
      access,
      type: IOTLB_TYPE.UPDATE,
    }));
  }

  /** What workers translate by. */
  mapIn(memory: GuestMemory): IovaMap {
    return this.#iotlb.mapIn(memory.uvaMap);
  }

  place(iova: bigint, sizeBytes: number, access: Access, memory: GuestMemory): IovaPlace {
    return this.#iotlb.place(iova, sizeBytes, access, memory.uvaMap);
  }

  uvaOf(iova: bigint): bigint | null {
    return this.#iotlb.uvaOf(iova);
  }

  /**
   * UPDATE. `isNeeded`: a range may not be forgotten, where there are too many. @throws PeerError for what cannot be
   */
  update(
    { iova, sizeBytes, uva, access }: IotlbMessage,
    memory: GuestMemory,
    isNeeded: (iova: number, end: number) => boolean,
  ): Updated {
    const what = `translation of 0x${iova.toString(16)}`;
    if (sizeBytes === 0n) throw new PeerError(`the ${what} is empty`);
    if (iova + sizeBytes > ADDRESS_MAX || uva + sizeBytes > ADDRESS_MAX)
      throw new PeerError(`the ${what}, ${sizeBytes} bytes at 0x${uva.toString(16)}, is out of range`);
    if (access < 1 || access > (ACCESS_READ | ACCESS_WRITE))
      throw new PeerError(`the ${what} allows ${access}, which is neither reading nor writing`);
    if (!memory.holdsUva(uva, sizeBytes))
      throw new PeerError(
        `the ${what}, ${sizeBytes} bytes at 0x${uva.toString(16)}, does not lie in the shared memory`,
      );
    while (this.#iotlb.isFull) {
      this.#iotlb.forgetOne((start, end) => !isNeeded(start, end));
      this.#mayBeKnown = true;
    }
    const isLost = this.#iotlb.update(Number(iova), Number(sizeBytes), Number(uva), access);
    this.#noteAnswered(iova, iova + sizeBytes);
    return { isLost };
  }

  /** INVALIDATE; a length that runs over the end, or is 0, is all from there on. Answers whether workers may know any of it. */
  invalidate({ iova, sizeBytes }: IotlbMessage): boolean {
    const end = sizeBytes === 0n || iova + sizeBytes > ADDRESS_MAX ? ADDRESS_MAX : iova + sizeBytes;
    const wasThere = iova < ADDRESS_MAX && this.#iotlb.invalidate(Number(iova), Number(end));
    return wasThere || this.#mayBeKnown;
  }

  /** The workers know no more than what is here. */
  noteFollowed(): void {
    this.#mayBeKnown = false;
  }

  /** Forgets all; who waits asks anew. */
  clear(): void {
    this.#iotlb.clear();
  }

  /** Forgets what does not lie in `memory`. */
  keepIn(memory: GuestMemory): void {
    for (const { iova, sizeBytes, uva } of this.#iotlb.ranges)
      if (!memory.holdsUva(BigInt(uva), BigInt(sizeBytes))) this.#iotlb.invalidate(iova, iova + sizeBytes);
  }

  /** The ring cannot go on without the first of these; the others it will need soon. */
  wait(ringIndex: number, misses: readonly AddressMiss[]): void {
    const before = this.#waits.get(ringIndex);
    const isSame = before?.misses[0].iova === misses[0].iova && before.misses[0].access === misses[0].access;
    const fresh = { isDenied: false, isLong: false, isReported: false };
    this.#waits.set(ringIndex, { ...(isSame ? before : fresh), misses });
    this.#dropUnneeded();
    for (const miss of misses) {
      if (this.#isKnown(miss)) continue;
      const key = keyOf(miss);
      if (!this.#asked.has(key)) this.#ask(key, miss);
    }
    this.#timer ??= setInterval(() => this.#askAgain(), ASK_AGAIN_MS);
  }

  /** The ring goes on, or is stopped. */
  forget(ringIndex: number): void {
    if (!this.#waits.delete(ringIndex)) return;
    this.#dropUnneeded();
    if (this.#waits.size > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }

  /** Rings of which what they wait for is known now. */
  get ready(): number[] {
    return [...this.#waits].flatMap(([index, { misses }]) => (this.#isKnown(misses[0]) ? [index] : []));
  }

  /** Why a ring waits when it has waited for long; null: it does not. */
  reasonOf(ringIndex: number): string | null {
    const wait = this.#waits.get(ringIndex);
    if (wait === undefined) return null;
    const { iova, access } = wait.misses[0];
    const what = `address 0x${iova.toString(16)}, to be ${wordOf(access)}`;
    if (wait.isDenied) return `its IOMMU does not allow ${what}`;
    if (!wait.isLong && this.#lastSent === 'sent') return null;
    const why = {
      sent: 'which its front-end does not give',
      full: 'and its front-end does not read what it is asked',
      none: 'and there is no connection by which its front-end could be asked',
    };
    return `waits for its IOMMU's translation of ${what}, ${why[this.#lastSent]}`;
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    this.#waits.clear();
    this.#asked.clear();
  }

  #isKnown({ iova, access }: AddressMiss): boolean {
    return (this.#iotlb.accessAt(iova) & access) === access;
  }

  #ask(key: string, miss: AddressMiss): void {
    const before = this.#lastSent;
    this.#lastSent = this.#send({ ...miss, sizeBytes: 0n, uva: 0n, type: IOTLB_TYPE.MISS });
    if (this.#lastSent === 'sent') this.#asked.set(key, miss);
    if (this.#lastSent !== before) this.#onChange();
  }

  #askAgain(): void {
    let isNews = false;
    for (const wait of this.#waits.values()) {
      isNews ||= !wait.isLong;
      wait.isLong = true;
      for (const miss of wait.misses) if (!this.#isKnown(miss)) this.#ask(keyOf(miss), miss);
    }
    if (isNews) this.#onChange();
  }

  /** What was asked for in this range is not asked for any more, whatever the answer was. */
  #noteAnswered(start: bigint, end: bigint): void {
    const isIn = ({ iova }: AddressMiss): boolean => iova >= start && iova < end;
    for (const [key, miss] of this.#asked) if (isIn(miss)) this.#asked.delete(key);
    for (const wait of this.#waits.values()) {
      const [first] = wait.misses;
      if (!isIn(first)) continue;
      const wasDenied = wait.isDenied;
      wait.isDenied = !this.#isKnown(first);
      if (wait.isDenied && !wait.isReported) {
        wait.isReported = true;
        this.#send({ ...first, sizeBytes: 0n, uva: 0n, type: IOTLB_TYPE.ACCESS_FAIL });
      }
      if (wait.isDenied !== wasDenied) this.#onChange();
    }
  }

  #dropUnneeded(): void {
    if (this.#asked.size === 0) return;
    const needed = new Set([...this.#waits.values()].flatMap(({ misses }) => misses.map(keyOf)));
    for (const key of this.#asked.keys()) if (!needed.has(key)) this.#asked.delete(key);
  }
}

function keyOf({ iova, access }: AddressMiss): string {
  return `${iova / BigInt(IOMMU_PAGE_BYTES)}:${access}`;
}

function wordOf(access: Access): string {
  if (access === ACCESS_READ) return 'read';
  return access === ACCESS_WRITE ? 'written' : 'read and written';
}
