/**
 * The log of dirty pages that a QEMU shares with its vhost-user back-ends while it migrates its guest, seen from outside:
 * its marks, taken out and put back as QEMU takes them. It is QEMU's as long as QEMU does not look at it: a test must know
 * that by the count of its passes (`query-migrate`). Owns a mapping. Called by qtest-migration.test.ts.
 */
import { closeSync, fstatSync, openSync, readdirSync, readlinkSync } from 'node:fs';
import { mapFile, mapZeroPagesAt, viewMemory } from '../../src/host/mapping.ts';

const LOG_FILE = '/memfd:vhost-log';
const WORD_BITS = 32;

export class VhostLog {
  readonly #address: number;
  readonly #words: Int32Array;

  private constructor(address: number, sizeBytes: number) {
    this.#address = address;
    this.#words = new Int32Array(viewMemory(address, sizeBytes));
  }

  /** The one that this QEMU has now; null: none. */
  static of(pid: number): VhostLog | null {
    const folder = `/proc/${pid}/fd`;
    // QEMU keeps those that it had before open, so the newest has the highest number.
    const [newest] = readdirSync(folder)
      .filter((fd) => linkOf(`${folder}/${fd}`).startsWith(LOG_FILE))
      .sort((a, b) => Number(b) - Number(a));
    if (newest === undefined) return null;
    const path = `${folder}/${newest}`;
    const fd = openSync(path, 'r+');
    const { size } = fstatSync(fd);
    const address = mapFile(size, fd, 'mapping the log of QEMU');
    closeSync(fd);
    return new VhostLog(address, size);
  }

  /** Pages that are marked, by number; from now on they are not. */
  take(): number[] {
    const pages: number[] = [];
    const words = this.#words;
    for (let word = 0; word < words.length; word++) {
      if (words[word] === 0) continue;
      const marks = Atomics.exchange(words, word, 0);
      for (let bit = 0; bit < WORD_BITS; bit++)
        if ((marks & (1 << bit)) !== 0) pages.push(word * WORD_BITS + bit);
    }
    return pages;
  }

  giveBack(pages: Iterable<number>): void {
    for (const page of pages) Atomics.or(this.#words, Math.floor(page / WORD_BITS), 1 << (page % WORD_BITS));
  }

  close(): void {
    mapZeroPagesAt(this.#address, this.#words.byteLength);
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    // Closed meanwhile.
    return '';
  }
}
