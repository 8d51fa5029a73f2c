/**
 * Finds pages of a guest that were changed and not marked in its log, in the plainest way: a copy from before, and each
 * page compared. The oracle for src/vring/dirty-log.ts; and `differingPages` for whoever has two guests that must be equal,
 * as after a migration. Knows nothing of Ringway: memory and log are bytes.
 */

const PAGE_BYTES = 4096;

/** Guest memory from a guest-physical address on, as the test sees it (not through what is tested). */
export type GuestPart = { readonly gpa: number; readonly bytes: Uint8Array };

/** Pages, by number from the beginning, in which the two differ; they are of one length. */
export function differingPages(a: Uint8Array, b: Uint8Array): number[] {
  if (a.length !== b.length) throw new RangeError(`${a.length} bytes and ${b.length}`);
  if (Buffer.compare(a, b) === 0) return [];
  const pages: number[] = [];
  for (let at = 0; at < a.length; at += PAGE_BYTES) {
    if (Buffer.compare(a.subarray(at, at + PAGE_BYTES), b.subarray(at, at + PAGE_BYTES)) !== 0)
      pages.push(at / PAGE_BYTES);
  }
  return pages;
}

/** Pages by guest-physical address. */
export class ChangedPages {
  readonly #parts: readonly GuestPart[];
  readonly #before: readonly Buffer[];

  constructor(parts: readonly GuestPart[]) {
    this.#parts = parts;
    this.#before = parts.map(({ bytes }) => Buffer.alloc(bytes.length));
  }

  /** From here on changes count. The driver writes too; so this is called when it has. */
  begin(): void {
    for (const [i, { bytes }] of this.#parts.entries()) this.#before[i].set(bytes);
  }

  /** Pages in which anything is different from what it was at `begin`. */
  changed(): Set<number> {
    const pages = new Set<number>();
    for (const [i, { gpa, bytes }] of this.#parts.entries()) {
      if (Buffer.compare(this.#before[i], bytes) === 0) continue;
      for (let page = Math.floor(gpa / PAGE_BYTES); page * PAGE_BYTES < gpa + bytes.length; page++) {
        const from = Math.max(0, page * PAGE_BYTES - gpa);
        const to = Math.min(bytes.length, (page + 1) * PAGE_BYTES - gpa);
        if (Buffer.compare(this.#before[i].subarray(from, to), bytes.subarray(from, to)) !== 0)
          pages.add(page);
      }
    }
    return pages;
  }
}

/** Takes the marks out of a log, as a front-end does. Answers their pages. */
export function takeMarks(log: Uint8Array): Set<number> {
  const pages = new Set<number>();
  for (let at = 0; at < log.length; at++) {
    if (log[at] === 0) continue;
    for (let bit = 0; bit < 8; bit++) if ((log[at] & (1 << bit)) !== 0) pages.add(8 * at + bit);
    log[at] = 0;
  }
  return pages;
}

/** Bytes of a log with a bit for each page of these parts. */
export function logBytesFor(parts: readonly GuestPart[]): number {
  const end = Math.max(...parts.map(({ gpa, bytes }) => gpa + bytes.length));
  return Math.ceil(end / PAGE_BYTES / 8);
}
