/**
 * The memory of one device as the front-end shares it by message: the whole table, or slot by slot. Nothing is taken
 * away before those who use it have let go (`letGo`), and a message that is refused changes nothing. What an IOMMU
 * translates and what migration logs belongs here too, once it is offered. Main thread; messages reach it one at a
 * time. vhost-user.rst, "Memory region description".
 */
import type { MemRegion } from '../../protocol/vhost-user/codec.ts';
import type { Arena } from '../memory/arena.ts';
import type { GpaMap } from '../memory/gpa-translator.ts';
import { GuestMemory } from '../memory/guest-memory.ts';
import { sharingOfFile } from '../memory/sharing.ts';
import type { IncomingFds } from '../vhost-user/incoming-fds.ts';
import { PeerError } from '../vhost-user/peer-error.ts';

/** As many as the kernel's vhost has; must not shrink while a guest lives. */
export const MEMORY_SLOTS_MAX = 509;

const LOSS_CAUSES =
  'its file was shortened or got a hole, or the tmpfs or the hugepages that it is made of are used up';

/** Resolves when nobody uses the memory any more. */
export type LetGo = () => Promise<void>;

export class MemoryMap {
  readonly #arena: Arena;
  /** Process id of the front-end, or null. */
  readonly #peerPid: number | null;
  #memory: GuestMemory;
  #warning: string | null = null;

  constructor(arena: Arena, peerPid: number | null) {
    this.#arena = arena;
    this.#peerPid = peerPid;
    this.#memory = new GuestMemory(arena);
  }

  get sizeBytes(): number {
    return this.#memory.sizeBytes;
  }

  /** Why the guest's memory cannot work although it was accepted, with the fix; otherwise null. */
  get warning(): string | null {
    return this.#warning;
  }

  /** Why the guest's memory is gone although it was accepted; otherwise null. */
  get loss(): string | null {
    const lost = this.#memory.lostRegion;
    if (lost === null) return null;
    return `the guest's memory of ${lost.sizeBytes} bytes at 0x${lost.gpa.toString(16)} is not there when it is touched: ${LOSS_CAUSES}`;
  }

  /** What the users of rings translate descriptors with. */
  gpaMap(): GpaMap {
    return this.#memory.gpaMap();
  }

  /** Arena offset of a front-end-virtual range, or null when not all of it is shared contiguously. */
  offsetOfUva(uva: bigint, sizeBytes: number): number | null {
    return this.#memory.offsetOfUva(uva, sizeBytes);
  }

  /** SET_MEM_TABLE: maps the new table whole, and only then lets go of the old one. @throws as GuestMemory.add */
  async replace(regions: readonly MemRegion[], fds: IncomingFds, letGo: LetGo): Promise<void> {
    const memory = new GuestMemory(this.#arena);
    try {
      for (const region of regions) memory.add(region, takeFd(fds));
    } catch (error) {
      memory.clear();
      throw error;
    }
    await letGo();
    this.#memory.clear();
    this.#memory = memory;
    this.#warning = this.#findUnsharedMemory();
  }

  /** ADD_MEM_REG. Lets go only because users need the longer map. @throws PeerError, and as GuestMemory.add */
  async add(region: MemRegion, fds: IncomingFds, letGo: LetGo): Promise<void> {
    const before = this.#memory.regions.length;
    if (before >= MEMORY_SLOTS_MAX) throw new PeerError(`all ${MEMORY_SLOTS_MAX} memory slots are in use`);
    this.#memory.add(region, takeFd(fds));
    // QEMU before 8.1 adds each region once for each queue pair.
    if (this.#memory.regions.length === before) return;
    await letGo();
    this.#warning = this.#findUnsharedMemory();
  }

  /** REM_MEM_REG. @throws MemoryError when there is no such region */
  async remove(region: MemRegion, letGo: LetGo): Promise<void> {
    this.#memory.find(region);
    await letGo();
    this.#memory.remove(region);
    this.#warning = this.#findUnsharedMemory();
  }

  /** Unmaps everything. Nobody may use any of it. */
  clear(): void {
    this.#memory.clear();
  }

  #findUnsharedMemory(): string | null {
    const peerPid = this.#peerPid;
    if (peerPid === null) return null;
    const isPrivate = this.#memory.regions.some(
      (region) => sharingOfFile(peerPid, region.device, region.inode) === 'private',
    );
    return isPrivate
      ? 'the guest writes to a private copy of its memory: add share=on to its memory-backend object'
      : null;
  }
}

function takeFd(fds: IncomingFds): number {
  const fd = fds.take();
  if (fd === null) throw new PeerError('a memory region came without its descriptor');
  return fd;
}
