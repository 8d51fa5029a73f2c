/** Signals to descriptors that a peer shares: they come, and nothing that the peer does makes us wait. */
import { readSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeFd, createEventFd } from '../../src/host/descriptor.ts';
import { libc } from '../../src/host/libc.ts';
import { closePeerSignals, PeerSignal, peerSignalsNeverWait } from '../../src/host/peer-signal.ts';
import { socketPair } from '../../src/host/unix-socket.ts';
import { type OpenFds, openedSince, openFds } from './open-fds.ts';
import { fillAndBlock, makeBlocking } from './shared-descriptors.ts';

let before: OpenFds;
beforeEach(() => {
  before = openFds();
});
afterEach(() => {
  closePeerSignals();
  expect(openedSince(before)).toEqual([]);
});

const EFD_NONBLOCK = 0o4000;

/** The counter, which is 0 afterwards. */
function countOf(eventFd: number): bigint {
  const count = new BigUint64Array(1);
  readSync(eventFd, count);
  return count[0];
}

describe('a signal to an eventfd', () => {
  it('comes, each of many', () => {
    expect(peerSignalsNeverWait()).toBe(true);
    const fd = createEventFd();
    const signal = new PeerSignal(fd);
    for (let i = 0; i < 1000; i++) expect(signal.send()).toBe(true);
    expect(countOf(fd)).toBe(1000n);
    closeFd(fd);
  });

  it('does not wait where the counter is full and O_NONBLOCK was taken off, nor do those that come after', () => {
    const fds = [createEventFd(), createEventFd()];
    const [toHostile, toOther] = fds.map((fd) => new PeerSignal(fd));
    fillAndBlock(fds[0]);
    for (let i = 0; i < 1000; i++) {
      toHostile.send();
      expect(toOther.send()).toBe(true);
    }
    expect(countOf(fds[0])).toBe(2n ** 64n - 1n);
    expect(countOf(fds[1])).toBe(1000n);
    expect([toHostile.send(), countOf(fds[0])]).toEqual([true, 1n]);
    for (const fd of fds) closeFd(fd);
  });

  it('says false where the descriptor is gone', () => {
    const fd = createEventFd();
    const signal = new PeerSignal(fd);
    closeFd(fd);
    expect(signal.send()).toBe(false);
  });

  it('reaches the peer through any descriptor of the open file', () => {
    const fd = libc.eventfd(0, EFD_NONBLOCK);
    const [ours, theirs] = [libc.fcntl(fd, 0, 0), fd];
    new PeerSignal(ours).send();
    expect(countOf(theirs)).toBe(1n);
    for (const each of [ours, theirs]) closeFd(each);
  });
});

describe('a signal to a UNIX socket', () => {
  it('comes, and says false instead of waiting where the socket is full and was made blocking', () => {
    const [ours, theirs] = socketPair();
    const signal = new PeerSignal(ours);
    makeBlocking(ours);
    let sent = 0;
    while (signal.send()) sent++;
    expect(sent).toBeGreaterThan(16);
    expect(countOf(theirs)).toBe(1n);
    while (readSomething(theirs));
    expect(signal.send()).toBe(true);
    expect(countOf(theirs)).toBe(1n);
    closeFd(theirs);
    expect(signal.send()).toBe(false);
    closeFd(ours);
  });
});

function readSomething(fd: number): boolean {
  return libc.read(fd, new Uint8Array(4096), 4096) > 0;
}
