/** A guest's memory with a log of its dirty pages beside it, for the tests of what is marked there. */
import type { EmbeddedMemory } from '../../src/frontend/guest-memory.ts';
import { closeFd } from '../../src/host/descriptor.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import type { Arena } from '../../src/memory/arena.ts';
import { LogMemory } from '../../src/memory/log-memory.ts';
import { ChangedPages, type GuestPart, logBytesFor, takeMarks } from '../memory/changed-pages.ts';

/** Before and behind the log in its file, and looked at by `close`. */
const GUARD_BYTES = 64;

export class LogFile {
  readonly memory: LogMemory;
  readonly #bytes: Uint8Array;
  readonly #around: Uint8Array;

  /** `offset` of the log in its file: GUARD_BYTES and so many more. */
  constructor(arena: Arena, u8: Uint8Array, sizeBytes: number, shiftBytes = 0) {
    const offset = GUARD_BYTES + shiftBytes;
    const fileBytes = offset + sizeBytes + GUARD_BYTES;
    const fd = createMemoryFile('log', fileBytes);
    this.memory = new LogMemory(arena, { sizeBytes: BigInt(sizeBytes), offset: BigInt(offset) }, fd, 0);
    closeFd(fd);
    this.#bytes = u8.subarray(this.memory.offset, this.memory.offset + sizeBytes);
    this.#around = u8.subarray(this.memory.offset - offset, this.memory.offset - offset + fileBytes);
  }

  take(): Set<number> {
    return takeMarks(this.#bytes);
  }

  /** @throws where something was written to beside the log. */
  close(): void {
    this.take();
    if (this.#around.some((byte) => byte !== 0)) throw new Error('marked beside the log');
    this.memory.release();
  }
}

export function partsOf(memory: EmbeddedMemory): GuestPart[] {
  return memory.regions.map(({ gpa, sizeBytes, mmapOffset }) => ({
    gpa: Number(gpa),
    bytes: memory.u8.subarray(Number(mmapOffset), Number(mmapOffset + sizeBytes)),
  }));
}

/** Watches one guest: what is done to it must be found in its log. */
export class LoggedGuest {
  log: LogFile;
  readonly #watch: ChangedPages;
  readonly #logBytes: number;
  /** Pages that were changed, in all. */
  changedCount = 0;
  /** Marked, in all. */
  markedCount = 0;
  readonly #arena: Arena;
  readonly #u8: Uint8Array;

  constructor(arena: Arena, u8: Uint8Array, memory: EmbeddedMemory, shiftBytes = 0) {
    const parts = partsOf(memory);
    this.#arena = arena;
    this.#u8 = u8;
    this.#watch = new ChangedPages(parts);
    this.#logBytes = logBytesFor(parts);
    this.log = new LogFile(arena, u8, this.#logBytes, shiftBytes);
  }

  /** The driver has written what it wanted. */
  begin(): void {
    this.log.take();
    this.#watch.begin();
  }

  /** Pages that were changed since `begin` and are not marked. */
  unmarked(): number[] {
    const changed = this.#watch.changed();
    const marks = this.log.take();
    this.changedCount += changed.size;
    this.markedCount += marks.size;
    return [...changed].filter((page) => !marks.has(page));
  }

  /** Another log, in another place. `follow` makes the rings use it; the old one is gone then. */
  swap(shiftBytes: number, follow: (log: LogMemory) => void): void {
    const before = this.log;
    this.log = new LogFile(this.#arena, this.#u8, this.#logBytes, shiftBytes);
    follow(this.log.memory);
    before.close();
  }

  close(): void {
    this.log.close();
  }
}
