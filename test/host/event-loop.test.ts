/** The descriptor loop: who is called, how often, and that a closed watch is silent. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { closeFd, closeFds, createEventFd, drainFd, signalFd } from '../../src/host/descriptor.ts';
import { DescriptorLoop, descriptorLoop } from '../../src/host/event-loop.ts';
import { socketPair } from '../../src/host/unix-socket.ts';
import { semaphore } from './shared-descriptors.ts';

/** Long enough for Node's loop to look at the set several times. */
async function fewTurns(): Promise<void> {
  for (let i = 0; i < 5; i++) await nextTurn();
}

/** Resolves at the first call; counts all of them. */
function counter(onCall: () => void = () => {}): { calls: number; called: Promise<void>; call(): void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  const self = {
    calls: 0,
    called: promise,
    call: () => {
      self.calls++;
      onCall();
      resolve();
    },
  };
  return self;
}

describe('DescriptorLoop', () => {
  it('is one a thread', () => expect(descriptorLoop()).toBe(descriptorLoop()));

  it('calls when there is something to read, and again while there is', async () => {
    const fd = createEventFd();
    const { promise: threeCalls, resolve } = Promise.withResolvers<void>();
    let calls = 0;
    const watch = descriptorLoop().watch(fd, () => {
      calls++;
      if (calls === 3) {
        drainFd(fd);
        resolve();
      }
    });
    await fewTurns();
    expect(calls).toBe(0);
    signalFd(fd);
    await threeCalls;
    await fewTurns();
    expect(calls).toBe(3);
    watch.close();
    closeFd(fd);
  });

  it('calls once for the signals of an eventfd that nobody reads, however it counts', async () => {
    for (const fd of [createEventFd(), semaphore(2 ** 31)]) {
      let next = Promise.withResolvers<void>();
      const counted = counter(() => next.resolve());
      const watch = descriptorLoop().watchSignals(fd, counted.call);
      for (let signals = 1; signals <= 3; signals++) {
        signalFd(fd);
        await next.promise;
        next = Promise.withResolvers<void>();
        const { calls } = counted;
        await fewTurns();
        expect(counted.calls).toBe(calls);
      }
      watch.close();
      closeFd(fd);
    }
  });

  it('calls when the other end closed', async () => {
    const [a, b] = socketPair();
    const { called, call } = counter(() => watch.close());
    const watch = descriptorLoop().watch(a, call);
    closeFd(b);
    await called;
    closeFd(a);
  });

  it('is silent after close, which may be called twice', async () => {
    const fd = createEventFd();
    const other = createEventFd();
    const silent = counter();
    const heard = counter(() => drainFd(other));
    const watch = descriptorLoop().watch(fd, silent.call);
    const otherWatch = descriptorLoop().watch(other, heard.call);
    watch.close();
    watch.close();
    signalFd(fd);
    signalFd(other);
    await heard.called;
    await fewTurns();
    expect(silent.calls).toBe(0);
    otherWatch.close();
    closeFds([fd, other]);
  });

  it('forgets a watch that an earlier callback of the same turn closed', async () => {
    const fds = [createEventFd(), createEventFd()];
    const order: number[] = [];
    const { promise, resolve } = Promise.withResolvers<void>();
    const watches = fds.map((fd, i) =>
      descriptorLoop().watch(fd, () => {
        order.push(i);
        for (const watch of watches) watch.close();
        resolve();
      }),
    );
    for (const fd of fds) signalFd(fd);
    await promise;
    await fewTurns();
    expect(order).toHaveLength(1);
    closeFds(fds);
  });

  it('can be used again after its last watch was closed', async () => {
    const loop = new DescriptorLoop();
    for (let round = 0; round < 3; round++) {
      const fd = createEventFd();
      const { called, call } = counter(() => watch.close());
      const watch = loop.watch(fd, call);
      signalFd(fd);
      await called;
      closeFd(fd);
    }
  });

  it('serves more descriptors than one look at the set returns', async () => {
    const fds = Array.from({ length: 150 }, () => createEventFd());
    const seen = new Set<number>();
    const { promise, resolve } = Promise.withResolvers<void>();
    const watches = fds.map((fd) =>
      descriptorLoop().watch(fd, () => {
        drainFd(fd);
        seen.add(fd);
        if (seen.size === fds.length) resolve();
      }),
    );
    for (const fd of fds) signalFd(fd);
    await promise;
    for (const watch of watches) watch.close();
    closeFds(fds);
  });

  it('refuses a file that cannot be watched, without forgetting the others', () => {
    const fd = createEventFd();
    closeFd(fd);
    expect(() => descriptorLoop().watch(fd, () => {})).toThrow(/EBADF/);
  });
});
