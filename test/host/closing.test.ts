/** Closes that a peer may make long, and that neither this thread nor other peers wait for. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  closeElsewhere,
  closingCountOf,
  closingElsewhere,
  closingElsewhereCount,
  hangOf,
  isClosingElsewhere,
} from '../../src/host/closing.ts';
import { closeFd, createEventFd, describeFd } from '../../src/host/descriptor.ts';
import { libc } from '../../src/host/libc.ts';
import { NativeThread } from '../../src/host/native-thread.ts';
import { LingeringPeers } from './lingering.ts';

const EAGAIN = 11;

let peers: LingeringPeers;
beforeEach(async () => {
  peers = await LingeringPeers.listen();
});
afterEach(async () => {
  await peers.close();
  await vi.waitUntil(() => closingElsewhereCount() === 0 && !isClosingElsewhere());
});

/** An owner, and when it is told that a close of its hangs, or no longer does. */
function owner(): { onHang(): void; told(): Promise<void> } {
  let tell = Promise.withResolvers<void>();
  return {
    onHang: () => {
      tell.resolve();
      tell = Promise.withResolvers();
    },
    told: () => tell.promise,
  };
}

function isClosed(fd: number): Promise<boolean> {
  return vi.waitUntil(() => describeFd(fd) === `descriptor ${fd}`);
}

describe('closeElsewhere', () => {
  it('closes', async () => {
    const fd = createEventFd();
    closeElsewhere(fd, {});
    expect(closingElsewhere()).toEqual([fd]);
    await isClosed(fd);
    await vi.waitUntil(() => closingElsewhereCount() === 0);
    expect(closingElsewhere()).toEqual([]);
  });

  it('closes one descriptor of an owner at a time, so that he holds up his own', async () => {
    const hostile = {};
    const held = [await peers.connect(), createEventFd(), createEventFd()];
    for (const fd of held) closeElsewhere(fd, hostile);
    const event = createEventFd();
    closeElsewhere(event, {});
    await isClosed(event);
    await vi.waitUntil(() => closingElsewhereCount() === 3);
    expect([closingElsewhere(), closingCountOf(hostile)]).toEqual([held, 3]);
    // It is as it was, and still a number that nobody else gets.
    expect(describeFd(held[1]!)).toMatch(/eventfd/);
    const other = createEventFd();
    expect(held.slice(1)).not.toContain(other);
    closeFd(other);
    peers.release();
    await vi.waitUntil(() => closingElsewhereCount() === 0);
  });

  it('goes on however many hang: more than Node has threads', async () => {
    const held: number[] = [];
    for (let i = 0; i < 12; i++) held.push(await peers.connect());
    for (const fd of held) closeElsewhere(fd, {});
    const decent = {};
    for (let i = 0; i < 5; i++) closeElsewhere(createEventFd(), decent);
    await vi.waitUntil(() => closingCountOf(decent) === 0);
    expect(closingElsewhere()).toEqual(held);
    expect(isClosingElsewhere()).toBe(true);
  });

  it('tells whose close hangs, and when it does no longer', async () => {
    const hostile = owner();
    closeElsewhere(await peers.connect(), hostile);
    closeElsewhere(createEventFd(), hostile);
    expect(hangOf(hostile)).toBeNull();
    await hostile.told();
    expect(hangOf(hostile)).toEqual({ forMs: expect.any(Number), isAtWork: true });
    expect(hangOf({})).toBeNull();
    const over = hostile.told();
    peers.release();
    await over;
    expect(hangOf(hostile)).toBeNull();
  });

  it('has others wait where the system allows no more threads, tells them so, and goes on when it does', async () => {
    const create = vi.spyOn(libc, 'pthread_create').mockReturnValue(EAGAIN);
    for (let i = 0; i < 2; i++) closeElsewhere(await peers.connect(), {});
    const decent = owner();
    // Until both threads of the pool are taken by those.
    while (hangOf(decent) === null) {
      if (closingCountOf(decent) === 0) closeElsewhere(createEventFd(), decent);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(hangOf(decent)).toMatchObject({ isAtWork: false });
    expect(create).toHaveBeenCalled();
    const over = decent.told();
    create.mockRestore();
    await over;
    expect([hangOf(decent), closingCountOf(decent)]).toEqual([null, 0]);
  });

  it('does not say so of what nobody can hold up', async () => {
    const [slow, hostile] = [owner(), owner()];
    closeElsewhere(await peers.connect(), slow, true);
    closeElsewhere(await peers.connect(), hostile);
    await hostile.told();
    expect(hangOf(slow)).toBeNull();
    expect(closingCountOf(slow)).toBe(1);
  });
});

describe('NativeThread', () => {
  it('makes a call, and can be asked whether that has ended', async () => {
    const [quick, slow] = [createEventFd(), await peers.connect()];
    const threads = [quick, slow].map((fd) => NativeThread.start(libc.closeAddress, fd));
    await vi.waitUntil(() => threads[0]!.isOver());
    expect(describeFd(quick)).toBe(`descriptor ${quick}`);
    expect(threads[1]!.isOver()).toBe(false);
    peers.release();
    await vi.waitUntil(() => threads[1]!.isOver());
  });
});
