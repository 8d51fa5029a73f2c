/**
 * The system calls of a capture file's queues (src/port/pcap/ingress.ts, egress.ts): bytes between a file and
 * memory at an address, and the clock. They allocate nothing and may block for as long as the disk does. Worker
 * thread.
 */
import { ERRNO } from '../../host/errors.ts';
import { lastErrno, libc } from '../../host/libc.ts';

export const CLOCK_REALTIME = 0;
export const CLOCK_MONOTONIC = 1;
const ATTEMPTS_MAX = 100;

/** Puts the clock's time at an address: seconds and nanoseconds, 64 bits each. */
export function readClock(clock: number, address: number): void {
  libc.clock_gettime(clock, address);
}

/** Reads at most `sizeBytes`. Answers how many, 0 behind the file's end, or an errno below zero. */
export function readFileAt(fd: number, address: number, sizeBytes: number, fileOffset: number): number {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const count = libc.pread(fd, address, sizeBytes, fileOffset);
    if (count >= 0) return count;
    if (lastErrno() !== ERRNO.EINTR) break;
  }
  return -lastErrno();
}

/** Writes all of `sizeBytes`. Answers 0, or the errno because of which a part may be missing. */
export function writeAll(fd: number, address: number, sizeBytes: number): number {
  let done = 0;
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const count = libc.writeAt(fd, address + done, sizeBytes - done);
    if (count < 0 && lastErrno() !== ERRNO.EINTR) return lastErrno();
    if (count > 0) done += count;
    if (done === sizeBytes) return 0;
  }
  return ERRNO.EIO;
}

/** Cuts a file back to whole blocks after a failed write; what is no file stays as it is. */
export function cutFile(fd: number, sizeBytes: number): void {
  libc.ftruncate(fd, sizeBytes);
}
