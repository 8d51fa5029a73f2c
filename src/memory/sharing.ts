/**
 * Finds out whether a front-end really shares the memory whose files it sends. With QEMU's `share=off` the
 * descriptors come, but the guest writes to private copies, and the back-end would see zeros for ever.
 * The text of /proc/PID/maps is as long as the front-end has mappings, tens of thousands maybe; so it is read piece by
 * piece outside the main thread's turns, once for all files, and no further than needed. Main thread.
 */
import { type FileHandle, open } from 'node:fs/promises';

/** A file as fstat gives it. */
export type FileId = { readonly device: number; readonly inode: number };

/** More text than the most mappings that a process may have by default make, with paths of usual length. */
const MAPS_BYTES_MAX = 16 * 2 ** 20;
/** The kernel gives a page at most. */
const READ_BYTES = 4096;

/**
 * Whether process `pid` maps any of the files copy-on-write and not shared as well. False, too, when /proc does not
 * let us see or shows too much, and when the signal comes.
 */
export async function mapsPrivately(
  pid: number,
  files: readonly FileId[],
  signal: AbortSignal,
): Promise<boolean> {
  const scan = new SharingScan(files);
  let handle: FileHandle;
  try {
    handle = await open(`/proc/${pid}/maps`, 'r');
  } catch {
    return false;
  }
  try {
    const piece = Buffer.allocUnsafe(READ_BYTES);
    for (let leftBytes = MAPS_BYTES_MAX; leftBytes > 0 && !scan.isDone && !signal.aborted; ) {
      const pieceBytes = await readPiece(handle, piece);
      // The process ended.
      if (pieceBytes === null) return false;
      if (pieceBytes === 0) return scan.finish();
      scan.feed(piece.toString('latin1', 0, pieceBytes));
      leftBytes -= pieceBytes;
    }
    return false;
  } finally {
    await handle.close();
  }
}

/** Bytes read; 0 at the end, null when there is nothing to read any more. */
async function readPiece(handle: FileHandle, piece: Buffer): Promise<number | null> {
  try {
    return (await handle.read(piece, 0, READ_BYTES, null)).bytesRead;
  } catch {
    return null;
  }
}

/** The text of /proc/PID/maps in pieces of any length: lines of `start-end perms offset major:minor inode path`. */
export class SharingScan {
  /** Files not seen shared yet, as the text names them, and whether they were seen copy-on-write. */
  readonly #isPrivate: Map<string, boolean>;
  /** What came of the line that is not whole yet. */
  #rest = '';

  constructor(files: readonly FileId[]) {
    this.#isPrivate = new Map(files.map((file) => [nameOf(file), false]));
  }

  /** All files were seen shared. */
  get isDone(): boolean {
    return this.#isPrivate.size === 0;
  }

  feed(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#see(line);
  }

  /** There is no more: answers whether a file is mapped copy-on-write only. */
  finish(): boolean {
    this.#see(this.#rest);
    return [...this.#isPrivate.values()].includes(true);
  }

  #see(line: string): void {
    const [, perms, file] = /^\S+ (\S{4}) \S+ (\S+ \d+)/.exec(line) ?? [];
    if (file === undefined || !this.#isPrivate.has(file)) return;
    if (perms[3] === 's') this.#isPrivate.delete(file);
    else this.#isPrivate.set(file, true);
  }
}

/** Device and inode as the text has them. */
function nameOf({ device, inode }: FileId): string {
  const major = Math.floor(device / 256) & 0xfff;
  const minor = (device & 0xff) | (Math.floor(device / 4096) & 0xfff00);
  return `${major.toString(16).padStart(2, '0')}:${minor.toString(16).padStart(2, '0')} ${inode}`;
}
