/**
 * Which descriptors this process holds, so that a test can tell a leak. Tests of everything that handles
 * descriptors use it: take a snapshot before, ask what is new after.
 */
import { readdirSync, readlinkSync } from 'node:fs';
import { getCACertificates } from 'node:tls';
import { closingElsewhere } from '../../src/host/closing.ts';
import { peerSignalsNeverWait } from '../../src/host/peer-signal.ts';

/** Descriptor number to what lies behind it. */
export type OpenFds = ReadonlyMap<number, string>;

export function openFds(): OpenFds {
  // Where NODE_EXTRA_CA_CERTS is set, Node reads that file in a thread of its own once anything loads TLS, when the machine lets it:
  // it is read to its end here, and never again.
  getCACertificates('extra');
  // Opens a file of the thread at its first signal: not a leak of the test that happens to be first.
  peerSignalsNeverWait();
  const open = new Map<number, string>();
  const closing = new Set(closingElsewhere());
  for (const name of readdirSync('/proc/self/fd')) {
    if (closing.has(Number(name))) continue;
    try {
      open.set(Number(name), readlinkSync(`/proc/self/fd/${name}`));
    } catch {
      // The descriptor of this very listing.
    }
  }
  return open;
}

/** Descriptors opened since `before`, as `number: what`; empty when nothing leaked. */
export function openedSince(before: OpenFds): string[] {
  return [...openFds()].filter(([fd, what]) => before.get(fd) !== what).map(([fd, what]) => `${fd}: ${what}`);
}
