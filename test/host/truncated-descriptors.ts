/**
 * A process of its own for unix-socket.test.ts: with a low limit of open descriptors it receives more than it
 * may hold, so that the kernel truncates them (MSG_CTRUNC). Prints what happened as JSON. Started with
 * `ulimit -n` set.
 */
import { closeFd, closeFds, createEventFd, duplicateFd } from '../../src/host/descriptor.ts';
import { HostError } from '../../src/host/errors.ts';
import { receive, send, socketPair } from '../../src/host/unix-socket.ts';
import { openedSince, openFds } from './open-fds.ts';

const SENT = 8;
const ROOM = 3;

const [a, b] = socketPair();
const sent = Array.from({ length: SENT }, () => createEventFd());
const before = openFds();
const fillers: number[] = [];
try {
  for (;;) fillers.push(duplicateFd(a));
} catch (error) {
  if (!(error instanceof HostError) || error.code !== 'EMFILE') throw error;
}
for (let i = 0; i < ROOM; i++) closeFd(fillers.pop()!);
send(a, Uint8Array.of(1, 2, 3), sent);
const received = receive(b, 100);
closeFds(received.fds);
closeFds(fillers);
console.log(
  JSON.stringify({
    bytes: [...received.bytes],
    fdCount: received.fds.length,
    truncated: received.truncated,
    closed: received.closed,
    leaked: openedSince(before),
  }),
);
