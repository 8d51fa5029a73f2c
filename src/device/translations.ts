/**
 * A device behind an IOMMU (ACCESS_PLATFORM): what its front-end has told of translations, which rings wait for one, and
 * asking for it by the back-end's channel. vhost-user.rst, "IOMMU support". Main thread.
 *
 * Nobody is waited for. What a ring needs is asked for once, however many rings need it and however often they say so, until it is
 * answered or for a second or two, and then again while a ring waits for it: a front-end need not answer what it has no translation
 * for, and its channel may be full. No reply is asked for; the update itself is the answer, so nothing of the channel is to be handed
 * over. A ring asks for a few pages at a time, and all together for so many, so what is kept is bounded.
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

const TICK_MS = 1000;
/** Pages that were asked for and not answered: beyond these only what a ring cannot go on without. */
const ASKED_MAX = 1024;

/** What became of a message to the front-end: `full`, it does not read; `none`, there is no channel, or it has ended. */
export type Sent = 'sent' | 'full' | 'none';

/** A ring that cannot go on, or not begin. */
type Wait = {
  readonly misses: readonly AddressMiss[];
  /** What was told did not allow it. */
  isDenied: boolean;
  /** Ticks since it began: with the second one it is long enough for the user to be told. */
  ticks: number;
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
  /** By page and access; `ticks` since it was asked for. */
  readonly #asked = new Map<string, { readonly miss: AddressMiss; ticks: number }>();
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
    // That of a ring which was about to go on.
    for (const { misses } of this.#waits.values())
      if (misses[0].iova >= iova && misses[0].iova < end) this.#askFor(misses.slice(0, 1));
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
    const fresh = { isDenied: false, ticks: 0, isReported: false };
    const wait = { ...(isSame ? before : fresh), misses };
    this.#waits.set(ringIndex, wait);
    this.#askFor(wait.misses);
    this.#timer ??= setInterval(() => this.#tick(), TICK_MS);
  }

  /** The ring goes on, or is stopped. */
  forget(ringIndex: number): void {
    this.#waits.delete(ringIndex);
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
    if (wait.ticks < 2 && this.#lastSent !== 'none') return null;
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

  #askFor(misses: readonly AddressMiss[]): void {
    for (const [i, miss] of misses.entries()) {
      if (this.#isKnown(miss)) continue;
      const asked = this.#asked.get(keyOf(miss));
      // Without the first one it stands still.
      if (asked !== undefined && (i > 0 || asked.ticks === 0)) continue;
      if (i > 0 && this.#asked.size >= ASKED_MAX) return;
      const before = this.#lastSent;
      this.#lastSent = this.#send({ ...miss, sizeBytes: 0n, uva: 0n, type: IOTLB_TYPE.MISS });
      if ((before === 'none') !== (this.#lastSent === 'none')) this.#onChange();
      if (this.#lastSent !== 'sent') return;
      this.#asked.set(keyOf(miss), { miss, ticks: 0 });
    }
  }

  #tick(): void {
    for (const [key, asked] of this.#asked) if (++asked.ticks >= 2) this.#asked.delete(key);
    let isNews = false;
    for (const wait of this.#waits.values()) {
      wait.ticks++;
      isNews ||= wait.ticks === 2;
      this.#askFor(wait.misses);
    }
    if (isNews) this.#onChange();
    if (this.#waits.size > 0 || this.#asked.size > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }

  /** What was asked for in this range is not asked for any more, whatever the answer was. */
  #noteAnswered(start: bigint, end: bigint): void {
    const isIn = ({ iova }: AddressMiss): boolean => iova >= start && iova < end;
    for (const [key, { miss }] of this.#asked) if (isIn(miss)) this.#asked.delete(key);
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
    // It reads again.
    if (this.#lastSent === 'full') for (const wait of this.#waits.values()) this.#askFor(wait.misses);
  }
}

function keyOf({ iova, access }: AddressMiss): string {
  return `${iova / BigInt(IOMMU_PAGE_BYTES)}:${access}`;
}

function wordOf(access: Access): string {
  if (access === ACCESS_READ) return 'read';
  return access === ACCESS_WRITE ? 'written' : 'read and written';
}
