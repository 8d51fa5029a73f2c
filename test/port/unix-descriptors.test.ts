/** Descriptors sent along with frames: the kernel is asked to take none, where it can (Linux 6.16). */
import { expect, it } from 'vitest';
import { closeFd, createEventFd } from '../../src/host/descriptor.ts';
import { HostError } from '../../src/host/errors.ts';
import { receive, send, socketPair } from '../../src/host/unix-socket.ts';
import { refuseDescriptors } from '../../src/port/unix/frame-socket.ts';

it('are refused, and frames go on', (context) => {
  const [peer, own] = socketPair();
  const event = createEventFd();
  const isRefused = refuseDescriptors(own);
  if (isRefused) {
    expect(() => send(peer, Uint8Array.of(1), [event])).toThrow(HostError);
    expect(send(peer, Uint8Array.of(2))).toBe(1);
    expect([...receive(own, 10).bytes]).toEqual([2]);
  }
  for (const fd of [peer, own, event]) closeFd(fd);
  context.skip(!isRefused, 'this kernel cannot refuse descriptors');
});
