/**
 * The memory of one device as the front-end shares it by message: the whole table, or slot by slot. Nothing is taken
 * away before those who use it know (`follow`), what stays lies where it lay, and a message that is refused changes
 * nothing. The log of migration is memory that comes and goes in the same way. Main thread; messages reach it one at a time. vhost-user.rst, "Memory region description".
 */

import type { LogDescription, MemRegion } from '../../protocol/vhost-user/codec.ts';
import { ADVICE } from '../advice.ts';
import type { DescriptorShare } from '../host/budgets.ts';
import { knowsSeals } from '../host/descriptor.ts';
import type { PeerFds } from '../host/peer-fds.ts';
import type { Arena } from '../memory/arena.ts';
import type { GpaMap } from '../memory/gpa-translator.ts';
import { GuestMemory, type MappedRegion } from '../memory/guest-memory.ts';
import { LogMemory } from '../memory/log-memory.ts';
import { NoRoomError } from '../memory/peer-mapping.ts';
import { mapsPrivately } from '../memory/sharing.ts';
import type { IncomingFds } from '../vhost-user/incoming-fds.ts';
import { PeerError } from '../vhost-user/peer-error.ts';
import { type HandedMessage, HandOverError, handedMessage } from './hand-over.ts';
import { type FileIdentity, HeldFiles } from './held-files.ts';

/** As many as the kernel's vhost has; must not shrink while a guest lives. */
export const MEMORY_SLOTS_MAX = 509;

/**
 * Resolves when nobody uses memory that is not part of `next` any more, and everybody knows what is. `isLonger`: all
 * that was there before is still there.
 */
export type FollowMemory = (next: GuestMemory, isLonger: boolean) => Promise<void>;

const PRIVATE_MEMORY = ADVICE.notShared.reason;
const LOSS_CAUSES =
  'its file was shortened or got a hole, or the tmpfs or the hugepages that it is made of are used up';

export class MemoryMap {
  readonly #arena: Arena;
  readonly #peerFds: PeerFds;
  readonly #onWarning: () => void;
  readonly #files: HeldFiles;
  #memory: GuestMemory;
  #log: LogMemory | null = null;
  #warning: string | null = null;
  /** Why the message at work waits; null: it does not. */
  #delay: string | null = null;
  /** The look at how the front-end maps its memory that is under way; null: none. */
  #look: Promise<void> | null = null;
  readonly #released = new AbortController();
  /** The memory changed since that look began. */
  #looksAgain = false;

  /**
   * `peerFds`: closes what the front-end sent. `share`: what it may have of descriptors; null: as many as it likes.
   * `onWarning` is called when `warning` is another one.
   */
  constructor(arena: Arena, peerFds: PeerFds, share: DescriptorShare | null, onWarning: () => void) {
    this.#arena = arena;
    this.#peerFds = peerFds;
    this.#onWarning = onWarning;
    this.#memory = new GuestMemory(arena);
    this.#files = new HeldFiles(peerFds, share);
  }

  get sizeBytes(): number {
    return this.#memory.sizeBytes;
  }

  /** Why the guest's memory cannot work although it was accepted, with the fix, or is not there yet; otherwise null. */
  get warning(): string | null {
    return this.#delay ?? this.#warning;
  }

  /** Why the guest's memory is gone although it was accepted; otherwise null. */
  get loss(): string | null {
    if (this.#log?.wasLost === true)
      return `the log of dirty pages, ${this.#log.sizeBytes} bytes, is not there when it is touched: ${LOSS_CAUSES}`;
    const lost = this.#memory.lostRegion;
    if (lost === null) return null;
    return `the guest's memory of ${lost.sizeBytes} bytes at 0x${lost.gpa.toString(16)} is not there when it is touched: ${LOSS_CAUSES}`;
  }

  /** Where pages are marked while migration is logged; null: none came. */
  get log(): LogMemory | null {
    return this.#log;
  }

  /** Why not all that is written can be marked in the log; otherwise null. */
  get logWarning(): string | null {
    const { regions } = this.#memory;
    const end = regions.reduce((max, { gpa, sizeBytes }) => Math.max(max, gpa + sizeBytes), 0);
    if (this.#log === null || end <= this.#log.gpaEnd) return null;
    return `its log of dirty pages ends at guest address 0x${this.#log.gpaEnd.toString(16)}, and its memory at 0x${end.toString(16)}: what is written beyond is lost when it is migrated`;
  }

  /** As it is until the next message. */
  get current(): GuestMemory {
    return this.#memory;
  }

  /** What the users of rings translate descriptors with. */
  gpaMap(): GpaMap {
    return this.#memory.gpaMap();
  }

  /** Arena offset of a front-end-virtual range, or null when not all of it is shared contiguously. */
  offsetOfUva(uva: bigint, sizeBytes: number): number | null {
    return this.#memory.offsetOfUva(uva, sizeBytes);
  }

  /** As of GuestMemory. */
  fileByteAt(uva: bigint): string | null {
    return this.#memory.fileByteAt(uva);
  }

  /**
   * SET_MEM_TABLE: maps the new table whole, and only then lets go of the old one. Waits while there is no room only
   * because others' memory is still being unmapped. @throws as GuestMemory.add
   */
  async replace(regions: readonly MemRegion[], fds: IncomingFds, follow: FollowMemory): Promise<void> {
    const next = new GuestMemory(this.#arena);
    try {
      for (const region of regions) await this.#add(next, region, fds);
    } catch (error) {
      next.unmapBut(this.#memory);
      this.#closeUnused();
      throw error;
    }
    await this.#become(next, follow);
  }

  /** ADD_MEM_REG. Waits as `replace` does. @throws PeerError, and as GuestMemory.add */
  async add(region: MemRegion, fds: IncomingFds, follow: FollowMemory): Promise<void> {
    const before = this.#memory.regions.length;
    if (before >= MEMORY_SLOTS_MAX) throw new PeerError(`all ${MEMORY_SLOTS_MAX} memory slots are in use`);
    await this.#add(this.#memory, region, fds);
    // QEMU before 8.1 adds each region once for each queue pair.
    if (this.#memory.regions.length === before) return;
    await follow(this.#memory, true);
    this.#lookHowItIsMapped();
  }

  /** REM_MEM_REG. @throws MemoryError when there is no such region */
  async remove(region: MemRegion, follow: FollowMemory): Promise<void> {
    await this.#become(this.#memory.without(region), follow);
  }

  /**
   * SET_LOG_BASE. `follow` resolves when nobody marks anything in the log before, which is unmapped then. Waits as
   * `replace` does. @throws PeerError, and as LogMemory
   */
  async setLog(description: LogDescription, fds: IncomingFds, follow: () => Promise<void>): Promise<void> {
    const fd = fds.take((one) => (knowsSeals(one) ? null : 'the descriptor of the log is no shared memory'));
    if (fd === null) throw new PeerError('the log came without its descriptor');
    const before = this.#log;
    // With those of the guest's own memory.
    const ownerParts = this.#memory.regions.length;
    await this.#whenRoom(fd, fds.gone, () => {
      this.#log = new LogMemory(this.#arena, description, fd, ownerParts);
    });
    await follow();
    before?.release();
    this.#closeUnused();
  }

  /** What brings another one to the same memory and log: messages with their descriptors, which stay this one's. */
  messages(): HandedMessage[] {
    const regions = this.#memory.additions.map((region) =>
      handedMessage('ADD_MEM_REG', toMessage(region), [this.#fdOf(region)]),
    );
    if (this.#log === null) return regions;
    return [...regions, handedMessage('SET_LOG_BASE', this.#log.description, [this.#fdOf(this.#log.file)])];
  }

  /** Unmaps everything. Nobody may use any of it, and this object is not used again. */
  async release(): Promise<void> {
    this.#memory.clear();
    this.#log?.release();
    this.#log = null;
    this.#files.keepOnly([]);
    this.#released.abort();
    await this.looked();
  }

  /** Resolves when `warning` holds for the memory as it is. */
  async looked(): Promise<void> {
    while (this.#look !== null) await this.#look;
  }

  async #add(memory: GuestMemory, region: MemRegion, fds: IncomingFds): Promise<void> {
    const fd = fds.take();
    if (fd === null) throw new PeerError('a memory region came without its descriptor');
    const before = memory === this.#memory ? null : this.#memory;
    await this.#whenRoom(fd, fds.gone, () => memory.add(region, fd, before));
  }

  /** @throws HandOverError: it was not kept */
  #fdOf(file: FileIdentity): number {
    const fd = this.#files.fdOf(file);
    if (fd === null) throw new HandOverError('there were too few descriptors to keep those of its memory');
    return fd;
  }

  #closeUnused(): void {
    this.#files.keepOnly([...this.#memory.regions, ...(this.#log === null ? [] : [this.#log.file])]);
  }

  /** Maps the file that `fd` is, and takes it over. */
  async #whenRoom(fd: number, gone: AbortSignal, map: () => void): Promise<void> {
    let isMapped = false;
    try {
      const tryOnce = (): Promise<void> | null => this.#tryMap(map, gone);
      for (let room = tryOnce(); room !== null; room = tryOnce()) await unlessGone(room, gone);
      isMapped = true;
    } finally {
      this.#delay = null;
      if (isMapped) this.#files.take(fd);
      else this.#peerFds.close([fd]);
    }
  }

  /** Null: it is mapped; otherwise when to try again, because there may be room then. */
  #tryMap(map: () => void, gone: AbortSignal): Promise<void> | null {
    try {
      map();
      return null;
    } catch (error) {
      const departure = error instanceof NoRoomError ? this.#arena.nextDeparture() : null;
      if (departure === null || gone.aborted) throw error;
      const delay = `waits for the memory of guests that have gone to be unmapped: ${(error as Error).message}`;
      if (delay !== this.#delay) {
        this.#delay = delay;
        this.#onWarning();
      }
      return departure;
    }
  }

  async #become(next: GuestMemory, follow: FollowMemory): Promise<void> {
    const before = this.#memory;
    const isLonger = before.regions.every((region) => next.regions.includes(region));
    const isSame = isLonger && next.regions.length === before.regions.length;
    if (!isSame) await follow(next, isLonger);
    before.unmapBut(next);
    this.#memory = next;
    this.#closeUnused();
    if (!isSame) this.#lookHowItIsMapped();
  }

  /** Waited for by nobody: it takes as long as the front-end has mappings. One look at a time, however much changes. */
  #lookHowItIsMapped(): void {
    const { peerPid } = this.#peerFds;
    if (peerPid === null) return;
    if (this.#memory.regions.length === 0) this.#warn(null);
    this.#looksAgain = true;
    this.#look ??= this.#keepLooking(peerPid).finally(() => {
      this.#look = null;
    });
  }

  async #keepLooking(peerPid: number): Promise<void> {
    while (this.#looksAgain) {
      this.#looksAgain = false;
      const isPrivate = await mapsPrivately(peerPid, this.#memory.regions, this.#released.signal);
      // Of what was replaced or cleared meanwhile nobody wants to know.
      if (!this.#looksAgain) this.#warn(isPrivate && this.#memory.regions.length > 0 ? PRIVATE_MEMORY : null);
    }
  }

  #warn(warning: string | null): void {
    if (warning === this.#warning) return;
    this.#warning = warning;
    this.#onWarning();
  }
}

function toMessage({ gpa, sizeBytes, uva, mmapOffset }: MappedRegion): MemRegion {
  return {
    gpa: BigInt(gpa),
    sizeBytes: BigInt(sizeBytes),
    uva: BigInt(uva),
    mmapOffset: BigInt(mmapOffset),
  };
}

function unlessGone(room: Promise<void>, gone: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      gone.removeEventListener('abort', end);
      resolve();
    };
    gone.addEventListener('abort', end);
    void room.then(end);
  });
}
