/** What a peer does to the descriptors that it shares, when it means harm. */
import { writeSync } from 'node:fs';
import { libc } from '../../src/host/libc.ts';

const F_SETFL = 4;
const EFD_SEMAPHORE = 1;
/** The highest count that a write can reach: after it no write gets through. */
const FULL = new BigUint64Array([0xffff_ffff_ffff_fffen]);

/** Takes O_NONBLOCK off the open file, for everybody who has it. */
export function makeBlocking(fd: number): void {
  libc.fcntl(fd, F_SETFL, 0);
}

/** Leaves an eventfd whose counter was 0 so that a plain write to it waits for ever. */
export function fillAndBlock(eventFd: number): void {
  writeSync(eventFd, FULL);
  makeBlocking(eventFd);
}

/** An eventfd that a read does not empty: it takes 1 off the count. */
export function semaphore(count: number): number {
  return libc.eventfd(count, EFD_SEMAPHORE);
}
