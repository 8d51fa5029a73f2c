/**
 * Mapping a part of a file that a front-end sent into the arena: checked against the file's size, page by page, and with a
 * name for what is wrong. Main thread only.
 */
import { BudgetError } from '../host/budgets.ts';
import { busFaults } from '../host/bus-faults.ts';
import { fileFacts, sealAgainstShrinking } from '../host/descriptor.ts';
import { type Arena, ArenaFullError, roundDown, roundUp } from './arena.ts';

/** A memory message that cannot be followed; the message says which region and why. */
export class MemoryError extends Error {
  override name = 'MemoryError';
}

/** A region that would be fine if there was room for it. */
export class NoRoomError extends MemoryError {
  override name = 'NoRoomError';
}

/** Addresses and offsets stay exact as JavaScript numbers below this. */
export const ADDRESS_MAX = 2n ** 53n;

/** All in bytes. */
export type PeerMapping = {
  /** Where the part's first byte lies in the arena. */
  readonly arenaOffset: number;
  /** Where its mapping starts: a page boundary at or before `arenaOffset`. */
  readonly mappingOffset: number;
  readonly pageBytes: number;
  readonly device: number;
  readonly inode: number;
};

export type FilePart = {
  /** What it is, as the beginning of a sentence. */
  readonly what: string;
  readonly fd: number;
  readonly fileOffset: number;
  readonly sizeBytes: number;
  /** Where in the arena it should begin if that is free. */
  readonly preferredOffset: number | null;
  /** How many parts its owner has already. */
  readonly ownerParts: number;
};

/** The file may be closed afterwards. @throws MemoryError, NoRoomError, HostError */
export function mapPeerFile(arena: Arena, part: FilePart): PeerMapping {
  const { what, fd, sizeBytes, preferredOffset, ownerParts } = part;
  const file = fileFacts(fd);
  if (!file.isRegularFile) throw new MemoryError(`${what}: its descriptor is no memory file`);
  // Where it can be survived that the file shrinks, it is not kept from it: sealing waits for who writes to the file.
  if (busFaults() === null) sealAgainstShrinking(fd);
  // After that: only then can it no longer shrink under the check.
  const { sizeBytes: fileBytes } = fileFacts(fd);
  if (part.fileOffset + sizeBytes > fileBytes) {
    throw new MemoryError(`${what} needs ${part.fileOffset + sizeBytes} bytes; its file has ${fileBytes}`);
  }
  const { pageBytes, device, inode } = file;
  const fileOffset = roundDown(part.fileOffset, pageBytes);
  const leadBytes = part.fileOffset - fileOffset;
  const mappingOffset = mapIn(arena, {
    fd,
    fileOffset,
    sizeBytes: roundUp(leadBytes + sizeBytes, pageBytes),
    pageBytes,
    preferredOffset: preferredOffset === null ? null : preferredOffset - leadBytes,
    mayBeLost: true,
    ownerParts,
  });
  return { arenaOffset: mappingOffset + leadBytes, mappingOffset, pageBytes, device, inode };
}

function mapIn(arena: Arena, placement: Parameters<Arena['map']>[0]): number {
  try {
    return arena.map(placement);
  } catch (error) {
    if (error instanceof ArenaFullError || error instanceof BudgetError) throw new NoRoomError(error.message);
    throw error;
  }
}
