/**
 * Frames between two guests of this process's own, before it takes up the rings of others: V8 has then compiled what the
 * workers run for each frame, and what the main thread does to take rings up has been done before. Otherwise the first
 * frames after a takeover would wait for all of that. Main thread.
 */
import { resolve } from 'node:path';
import { maskOf } from '../../protocol/bits.ts';
import { decodeBody } from '../../protocol/vhost-user/codec.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import { EmbeddedGuest, type QueuePair } from '../../src/frontend/net-device.ts';
import { collectGarbage } from '../../src/host/collect-garbage.ts';
import { socketPair } from '../../src/host/unix-socket.ts';
import type { PortContext } from '../../src/port/contract.ts';
import type { HandedVhostUserPort } from '../../src/port/hand-over.ts';
import { VhostUserPort } from '../../src/port/vhost-user/port.ts';
import { NO_BOOKS } from '../control/books.ts';
import type { Fdb } from '../l2/fdb/fdb.ts';
import type { WorkerPool } from '../worker/pool.ts';
import { RECORDS, type SwitchState } from './format.ts';

export type WarmUpHost = Pick<PortContext, 'arena' | 'arenaView'> & {
  readonly workers: WorkerPool;
  readonly workerCount: number;
  readonly fdb: Fdb;
  /** Two that no port has. */
  readonly portIds: readonly number[];
};

/** What of a guest's features another program is run for. */
const SHAPE = maskOf(
  VIRTIO_FEATURE.RING_PACKED,
  VIRTIO_FEATURE.IN_ORDER,
  VIRTIO_FEATURE.NET_MRG_RXBUF,
  VIRTIO_FEATURE.EVENT_IDX,
  VIRTIO_FEATURE.VERSION_1,
);
const ALWAYS = maskOf(VIRTIO_FEATURE.PROTOCOL_FEATURES);
/** Of guests that differ more, the others are like one of these. */
const SHAPES_MAX = 3;
const ROUNDS = 10;
const FRAMES_PER_ROUND = 3000;
const BURST_FRAMES = 32;
const FRAME_BYTES = [64, 590, 1514];
/** Of all shapes together; messages of front-ends wait meanwhile. */
const TIME_MS = 1500;
/** Nothing is looked for there. */
const NOWHERE = 'none';
const MACS = ['06:77:61:72:6d:00', '06:77:61:72:6d:01'] as const;

/** Runs the shapes of the guests that are taken over; none: there are none. */
export async function warmUp(host: WarmUpHost, state: SwitchState): Promise<void> {
  const deadlineMs = performance.now() + TIME_MS;
  for (const features of shapesOf(state)) await warmUpFor(host, features, deadlineMs);
  collectGarbage();
}

function shapesOf({ ports }: SwitchState): bigint[] {
  const shapes = new Set<bigint>();
  for (const port of Object.values(ports)) {
    if (port.kind !== 'vhost-user') continue;
    const message = port.connection?.messages.find(({ name }) => name === 'SET_FEATURES');
    if (message === undefined) continue;
    shapes.add(decodeBody('u64', Buffer.from(message.payload, 'base64')) & SHAPE);
  }
  return [...shapes].slice(0, SHAPES_MAX);
}

async function warmUpFor(host: WarmUpHost, features: bigint, deadlineMs: number): Promise<void> {
  const queuePairs = Math.ceil(host.workerCount / 2);
  const ends = [socketPair(), socketPair()];
  const ports = ends.map(([fd], i) => warmUpPort(host, host.portIds[i], fd, queuePairs));
  const guests: EmbeddedGuest[] = [];
  try {
    for (const port of ports) {
      await host.workers.addPort(port.id, '');
      await port.start();
      await port.setResting(false);
      port.thaw();
    }
    for (const [i, [, fd]] of ends.entries()) {
      const options = { socketPath: '', fd, queuePairs, mac: MACS[i] };
      guests.push(await EmbeddedGuest.connect({ ...options, features: features | ALWAYS }));
      // Otherwise the first frame would go to every port.
      host.fdb.learn(guests[i].macLo, guests[i].macHi, 0, ports[i].id, 0);
    }
    for (let round = 0; round < ROUNDS && performance.now() < deadlineMs; round++) {
      await exchange(guests, FRAME_BYTES[round % FRAME_BYTES.length], deadlineMs);
      await rehearse(host.workers, ports);
    }
  } finally {
    for (const port of ports) {
      await port.stop();
      await host.workers.removePort(port.id);
      host.fdb.flushPort(port.id);
    }
    for (const guest of guests) guest.close();
  }
}

function warmUpPort(host: WarmUpHost, id: number, fd: number, queuePairsMax: number): VhostUserPort {
  const { arena, arenaView, workers } = host;
  const nothing = (): void => {};
  const port = new VhostUserPort(
    {
      socketPath: NOWHERE,
      role: 'client',
      listen: {},
      device: { queuePairsMax, configSpace: false, mac: null, mtu: null },
    },
    {
      id,
      name: `warm-up ${id}`,
      arena,
      arenaView,
      dataPath: workers,
      events: { info: nothing, warn: nothing, disconnected: nothing },
    },
  );
  port.takeOver(connectedBy(fd));
  return port;
}

function connectedBy(fd: number): HandedVhostUserPort {
  const halfRead = { bytes: '', fds: [] };
  return {
    kind: 'vhost-user',
    endpoint: resolve(NOWHERE),
    role: 'client',
    listener: null,
    connection: { fd, isSilent: true, halfRead, offered: '0', messages: [], refusal: null },
    lastServed: null,
    mayInsist: null,
    lastToAsk: null,
    lastWhy: null,
    lastRuns: [],
  };
}

/** Both ways, on all queues, in bursts. */
async function exchange(
  guests: readonly EmbeddedGuest[],
  frameBytes: number,
  deadlineMs: number,
): Promise<void> {
  const [a, b] = guests;
  const flows = a.pairs.flatMap((pair, i) => [
    { from: pair, to: b.pairs[i], frame: frameOf(a, b, frameBytes) },
    { from: b.pairs[i], to: pair, frame: frameOf(b, a, frameBytes) },
  ]);
  for (let sent = 0; sent < FRAMES_PER_ROUND && performance.now() < deadlineMs; ) {
    for (const { from, to, frame } of flows) {
      sent += sendBurst(from, frame);
      takeAll(to);
    }
    await new Promise(setImmediate);
  }
}

function frameOf(from: EmbeddedGuest, to: EmbeddedGuest, frameBytes: number): Uint8Array {
  const frame = new Uint8Array(frameBytes);
  frame.set(to.mac);
  frame.set(from.mac, 6);
  return frame;
}

function sendBurst({ fromGuest }: QueuePair, frame: Uint8Array): number {
  let count = 0;
  while (count < BURST_FRAMES && fromGuest.post(frame)) count++;
  fromGuest.flush();
  return count;
}

function takeAll({ toGuest }: QueuePair): void {
  while (toGuest.receive() !== null);
}

/** Lets go of rings and takes them up, as both sides of a takeover do. */
async function rehearse(workers: WorkerPool, ports: readonly VhostUserPort[]): Promise<void> {
  const setResting = (isResting: boolean): Promise<unknown> =>
    workers.together(() => Promise.all(ports.map((port) => port.setResting(isResting))));
  await Promise.all(ports.map((port) => port.freeze()));
  for (const port of ports) port.handOver();
  await setResting(true);
  const positions = ports.map((port) => [port.name, { positions: port.positions(), workerCounts: {} }]);
  const switching = { ports: Object.fromEntries(positions), gone: NO_BOOKS, restNs: '0' };
  const sent = JSON.stringify({ record: 'positions', ...switching });
  const handed = RECORDS.positions.parse(JSON.parse(sent)).ports;
  for (const port of ports) await port.goOnAt(handed[port.name].positions);
  await setResting(false);
  for (const port of ports) port.thaw();
  for (const record of ['done', 'go'] as const)
    RECORDS[record].safeParse(JSON.parse(JSON.stringify({ record })));
}
