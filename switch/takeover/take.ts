/** The successor's side of a takeover: asks the running Ringway, gets everything, and goes on. Main thread. */
import { rmSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { closeFd } from '../../src/host/descriptor.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { acceptUnix, datagramObstacle, listenUnix } from '../../src/host/unix-socket.ts';
import { askControl } from '../control/client.ts';
import { FORMAT, type SwitchPositions, type SwitchState } from './format.ts';
import { withStateDescriptors } from './give.ts';
import { TakeoverLink } from './link.ts';
import { TakeoverError } from './takeover-error.ts';

const CONNECT_MS = 10_000;
const STATE_MS = 30_000;
const POSITIONS_MS = 30_000;
const GO_MS = 10_000;
const UNSERVED_MS = 10_000;
const LOOK_AGAIN_MS = 5;
const SOCKET_MODE = 0o600;

/** A takeover at work, on this side. */
export type Takeover = {
  readonly state: SwitchState;
  /** Every port is there, at rest. Resolves with the positions when the other process has let go of the rings. */
  ready(): Promise<SwitchPositions>;
  /** All rings can go on here. Resolves when the other process ends, and they are ours. */
  done(): Promise<void>;
  /** Resolves when the other process is gone, and its control socket with it. */
  ended(): Promise<void>;
  /** It comes to nothing: the other process goes on. */
  abandon(): void;
};

/** @throws ControlError, TakeoverError, SocketPathError, HostError */
export async function beginTakeover(controlSocket: string): Promise<Takeover> {
  const link = await linkFrom(controlSocket);
  const { value, fds } = await link.next('state', STATE_MS);
  const { record: _, format: __, ...sent } = value;
  const state = withStateDescriptors(sent, (at) => {
    if (at >= fds.length) throw new TakeoverError(`descriptor ${at} of ${fds.length} was named`);
    return fds[at];
  });
  return {
    state,
    ready: async () => {
      await link.send<'ready'>({ record: 'ready' });
      return (await link.next('positions', POSITIONS_MS)).value;
    },
    done: async () => {
      await link.send<'done'>({ record: 'done' });
      await link.next('go', GO_MS);
    },
    ended: async () => {
      await link.ended();
      await untilUnserved(controlSocket);
    },
    abandon: () => link.close(),
  };
}

/** The descriptors of a process that ends are closed one after the other. */
async function untilUnserved(socketPath: string): Promise<void> {
  const deadline = AbortSignal.timeout(UNSERVED_MS);
  const isServed = (): boolean =>
    !['ECONNREFUSED', 'ENOENT'].includes(datagramObstacle(socketPath)?.code ?? '');
  while (isServed() && !deadline.aborted) await sleep(LOOK_AGAIN_MS);
}

async function linkFrom(controlSocket: string): Promise<TakeoverLink> {
  const path = `${controlSocket}.${process.pid}`;
  const listenFd = listenUnix(path, { mode: SOCKET_MODE });
  try {
    const accepted = Promise.withResolvers<number>();
    const watch = descriptorLoop().watch(listenFd, () => {
      const fd = acceptUnix(listenFd);
      if (fd !== null) accepted.resolve(fd);
    });
    const timer = setTimeout(
      () => accepted.reject(new TakeoverError('the running Ringway did not connect')),
      CONNECT_MS,
    );
    try {
      await askControl(controlSocket, '/v1/takeover', {
        method: 'POST',
        body: { socket: basename(path), formats: [FORMAT] },
      });
      return new TakeoverLink(await accepted.promise);
    } finally {
      clearTimeout(timer);
      watch.close();
    }
  } finally {
    rmSync(path, { force: true });
    closeFd(listenFd);
  }
}
