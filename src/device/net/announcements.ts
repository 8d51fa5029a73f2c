/**
 * How often a front-end may have its guest announced (SEND_RARP): each time is a frame to every port, and costs a worker
 * what a flooded frame costs, whereas a message costs the front-end next to nothing. QEMU sends five within a second, and
 * again at each migration. Main thread.
 */

/** At once; and so many a second, on average. */
export const ANNOUNCEMENTS_MAX = 16;

export class AnnouncementLimit {
  #left = ANNOUNCEMENTS_MAX;
  #sinceMs: number;

  /** Times are of any clock that only goes forward. */
  constructor(nowMs: number) {
    this.#sinceMs = nowMs;
  }

  /** Whether one more may be made now, which then counts. */
  take(nowMs: number): boolean {
    const gained = ((nowMs - this.#sinceMs) / 1000) * ANNOUNCEMENTS_MAX;
    this.#left = Math.min(ANNOUNCEMENTS_MAX, this.#left + gained);
    this.#sinceMs = nowMs;
    if (this.#left < 1) return false;
    this.#left--;
    return true;
  }
}
