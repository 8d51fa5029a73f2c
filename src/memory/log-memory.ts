/**
 * The memory in which a front-end has its guest's dirty pages marked while it migrates it, as it lies in the arena: one bit
 * for each page of 4 KiB from guest address 0 on (vhost-user.rst, "Migration"). Marking: src/vring/dirty-log.ts. Main
 * thread only.
 */
import assert from 'node:assert/strict';
import type { LogDescription } from '../../protocol/vhost-user/codec.ts';
import type { Arena } from './arena.ts';
import { ADDRESS_MAX, MemoryError, mapPeerFile, type PeerMapping } from './peer-mapping.ts';

export const LOG_PAGE_BYTES = 4096;
const PAGES_PER_BYTE = 8;
/** For 4 TiB of guest addresses: page numbers stay small integers in the workers. */
export const LOG_BYTES_MAX = 2 ** 27;

export class LogMemory {
  /** Of the log's first byte, in the arena. */
  readonly offset: number;
  readonly sizeBytes: number;
  readonly #arena: Arena;
  readonly #description: LogDescription;
  readonly #mapping: PeerMapping;
  #isReleased = false;

  /**
   * Maps it. `fd` stays the caller's, who may close it afterwards. `ownerParts`: regions that its owner has already.
   * @throws MemoryError, NoRoomError, HostError
   */
  constructor(arena: Arena, description: LogDescription, fd: number, ownerParts: number) {
    const { sizeBytes, offset } = description;
    if (sizeBytes === 0n) throw new MemoryError('the log is empty');
    if (sizeBytes > BigInt(LOG_BYTES_MAX))
      throw new MemoryError(`the log of ${sizeBytes} bytes is longer than ${LOG_BYTES_MAX}`);
    if (offset + sizeBytes > ADDRESS_MAX)
      throw new MemoryError(`the log's offset 0x${offset.toString(16)} + ${sizeBytes} bytes is out of range`);
    this.#arena = arena;
    this.#description = description;
    this.sizeBytes = Number(sizeBytes);
    this.#mapping = mapPeerFile(arena, {
      what: 'the log',
      fd,
      fileOffset: Number(offset),
      sizeBytes: this.sizeBytes,
      preferredOffset: null,
      ownerParts,
    });
    this.offset = this.#mapping.arenaOffset;
  }

  /** As the front-end named it. */
  get description(): LogDescription {
    return this.#description;
  }

  /** Which file it lies in. */
  get file(): { readonly device: number; readonly inode: number } {
    return this.#mapping;
  }

  /** The first guest address whose page has no bit. */
  get gpaEnd(): number {
    return this.sizeBytes * PAGES_PER_BYTE * LOG_PAGE_BYTES;
  }

  /** Some of it was not there when it was touched. */
  get wasLost(): boolean {
    return this.#arena.wasLost(this.offset, this.sizeBytes);
  }

  /** Unmaps it. Nobody marks anything in it any more. */
  release(): void {
    assert(!this.#isReleased, 'a log is unmapped once');
    this.#isReleased = true;
    this.#arena.unmap(this.#mapping.mappingOffset);
  }
}
