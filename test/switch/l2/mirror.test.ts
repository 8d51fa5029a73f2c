/**
 * Copies of frames for mirror ports: who gets which, that a mirror port gets nothing else, that what it loses is
 * its own loss, and that frames go in runs only where nobody wants copies. Queues without guests.
 */
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GIVE_DONE, type IngressQueue, TAKE_FRAME } from '../../../src/queue/contract.ts';
import { Frame } from '../../../src/queue/frame.ts';
import { isMirrorQueue, type MirrorQueue } from '../../../src/queue/mirror.ts';
import { DROP, DROP_REASONS, type DropReason } from '../../../switch/l2/drop-reasons.ts';
import { createFdbMemory, Fdb } from '../../../switch/l2/fdb/fdb.ts';
import { Forwarder, ForwardingPort } from '../../../switch/l2/forwarder.ts';
import { Random } from '../../vring/random.ts';
import { FakeEgressQueue, FakeIngressQueue, QueueLog } from './fake-queues.ts';
import { arena, arenaView, ethernet, type Mac } from './frames.ts';

const BROADCAST: Mac = [255, 255, 255, 255, 255, 255];

afterAll(() => arena.release());

class FakeMirrorQueue extends FakeEgressQueue implements MirrorQueue {
  /** As `vm1>` for a frame that came in from port 1, `vm1<` for one that was given to it. */
  readonly ways: string[] = [];

  nameSources(): void {}

  mirror(frame: Frame, portId: number, isIngress: boolean): number {
    const result = this.give(frame);
    if (result === GIVE_DONE) this.ways.push(`vm${portId}${isIngress ? '>' : '<'}`);
    return result;
  }
}

/** Takes runs, frame by frame. */
class RunQueue extends FakeEgressQueue {
  framesInRuns = 0;
  readonly #frame = new Frame(arenaView);

  override giveRun(from?: IngressQueue, framesMax = 0): number {
    let moved = 0;
    for (; moved < framesMax && from!.take(this.#frame) === TAKE_FRAME; moved++) {
      this.give(this.#frame);
      from!.release();
    }
    this.framesInRuns += moved;
    return moved;
  }
}

class TestPort {
  readonly state: ForwardingPort;
  readonly from: FakeIngressQueue;
  readonly to: RunQueue;
  readonly sent: Uint8Array[] = [];

  constructor(id: number, log: QueueLog) {
    this.state = new ForwardingPort(id, new Float64Array(DROP_REASONS.length));
    this.from = new FakeIngressQueue(id, log);
    this.to = new RunQueue(id, 0, log);
    this.state.queues = [this.to];
    this.state.queueCount = 1;
  }

  send(...frames: Uint8Array[]): void {
    this.sent.push(...frames);
    this.from.fill(...frames);
    forwarder.forwardBurst(this.from);
  }

  get drops(): Partial<Record<DropReason, number>> {
    return dropsOf(this.state);
  }
}

function dropsOf(port: ForwardingPort): Partial<Record<DropReason, number>> {
  const counted = DROP_REASONS.map(({ name }) => [name, port.drops[DROP[name]]] as const);
  return Object.fromEntries(counted.filter(([, count]) => count !== 0));
}

let log: QueueLog;
let forwarder: Forwarder;
let faults: unknown[];
let ports: TestPort[];

/** A port that gets copies of the frames of these ports. */
function addMirror(id: number, sourceIds: readonly number[]): { state: ForwardingPort; to: FakeMirrorQueue } {
  const state = new ForwardingPort(id, new Float64Array(DROP_REASONS.length));
  const to = new FakeMirrorQueue(id, 0, log);
  forwarder.addPort(state);
  forwarder.setCopied(id, sourceIds);
  state.mirrorQueue = to;
  return { state, to };
}

beforeEach(() => {
  log = new QueueLog();
  faults = [];
  const fdb = new Fdb(createFdbMemory({ capacity: 256, maxPorts: 64, seed: [1, 2] }));
  forwarder = new Forwarder(arenaView, fdb, (queue) => faults.push(queue));
  ports = [0, 1, 2].map((id) => new TestPort(id, log));
  for (const port of ports) forwarder.addPort(port.state);
  // Where everyone is: addresses 1, 2 and 3.
  for (const [i, port] of ports.entries()) port.send(ethernet(BROADCAST, i + 1));
  for (const port of ports) {
    port.to.received.length = 0;
    port.sent.length = 0;
    port.to.framesInRuns = 0;
  }
});

afterEach(() => {
  expect(log.violations).toEqual([]);
  expect(log.open.size).toBe(0);
});

describe('copies', () => {
  it('are made of frames that come in from a mirrored port, before they are delivered, and of those to it', () => {
    const mirror = addMirror(5, [0]);
    const there = ethernet(2, 1);
    const back = ethernet(1, 2);
    ports[0].send(there);
    ports[1].send(back);
    ports[1].send(ethernet(3, 2));
    expect(mirror.to.ways).toEqual(['vm0>', 'vm0<']);
    expect(mirror.to.received).toEqual([there, back]);
    expect(ports[1].to.received).toEqual([there]);
  });

  it('come twice of a frame between two mirrored ports, once for each', () => {
    const mirror = addMirror(5, [0, 1]);
    ports[0].send(ethernet(2, 1));
    expect(mirror.to.ways).toEqual(['vm0>', 'vm1<']);
  });

  it('come to every port that mirrors, and a flooded frame comes to none of them otherwise', () => {
    const first = addMirror(5, [0]);
    const second = addMirror(6, [0, 2]);
    const frame = ethernet(BROADCAST, 1);
    ports[0].send(frame);
    expect(first.to.ways).toEqual(['vm0>']);
    expect(second.to.ways).toEqual(['vm0>', 'vm2<']);
    expect(first.to.received).toEqual([frame]);
  });

  it('are not made of frames that were not delivered', () => {
    const mirror = addMirror(5, [1]);
    ports[1].to.bufferCount = 0;
    ports[0].send(ethernet(2, 1));
    expect(mirror.to.ways).toEqual([]);
    expect(ports[1].drops).toEqual({ noBuffer: 1 });
  });

  it('do not keep two other ports from being each other’s only one', () => {
    forwarder.removePort(2);
    const mirror = addMirror(5, []);
    ports[0].send(...Array.from({ length: 8 }, () => ethernet(9, 1)));
    expect(ports[1].to.received).toHaveLength(8);
    expect(ports[1].to.framesInRuns).toBe(7);
    expect(mirror.to.received).toEqual([]);
    expect(dropsOf(mirror.state)).toEqual({});
  });

  it('end when the mirror port goes', () => {
    const mirror = addMirror(5, [0, 1]);
    forwarder.removePort(5);
    ports[0].send(...Array.from({ length: 4 }, () => ethernet(2, 1)));
    expect(mirror.to.ways).toEqual([]);
    expect(ports[1].to.framesInRuns).toBe(3);
  });

  it('begin for a port that is added later, once it is named again', () => {
    const mirror = addMirror(5, [0, 7]);
    const late = new TestPort(7, log);
    forwarder.addPort(late.state);
    forwarder.setCopied(5, [0, 7]);
    late.send(ethernet(1, 8));
    expect(mirror.to.ways).toEqual(['vm7>', 'vm0<']);
  });
});

describe('what a mirror port loses', () => {
  it('is counted as its own drop: no room, not ready, stopped', () => {
    const mirror = addMirror(5, [0]);
    mirror.to.bufferCount = 0;
    ports[0].send(ethernet(2, 1));
    expect(dropsOf(mirror.state)).toEqual({ noBuffer: 1 });
    mirror.state.mirrorQueue = null;
    ports[0].send(ethernet(2, 1));
    expect(dropsOf(mirror.state)).toEqual({ noBuffer: 1, notReady: 1 });
    mirror.state.mirrorQueue = mirror.to;
    mirror.to.failsNext = true;
    ports[0].send(ethernet(2, 1));
    expect(dropsOf(mirror.state)).toEqual({ noBuffer: 1, notReady: 1, queueStopped: 1 });
    expect(faults).toEqual([mirror.to]);
    expect(ports[1].to.received).toHaveLength(3);
    expect([ports[0].drops, ports[1].drops]).toEqual([{}, {}]);
  });

  it('is nothing while another worker writes: it is waited for with no other queue open', () => {
    const mirror = addMirror(5, [1]);
    mirror.to.isBusy = true;
    ports[0].send(ethernet(2, 1), ethernet(2, 1));
    expect(mirror.to.ways).toEqual(['vm1<', 'vm1<']);
    expect(ports[1].to.received).toHaveLength(2);
  });
});

describe('runs', () => {
  const burst = (): Uint8Array[] => Array.from({ length: 10 }, () => ethernet(2, 1));

  it('are moved where nobody wants copies, although others do', () => {
    addMirror(5, [2]);
    ports[0].send(...burst());
    expect(ports[1].to.framesInRuns).toBe(9);
  });

  it.each([
    ['sender', 0],
    ['receiver', 1],
  ])('are not moved when the %s is mirrored', (_, id) => {
    const mirror = addMirror(5, [id]);
    ports[0].send(...burst());
    expect(ports[1].to.framesInRuns).toBe(0);
    expect(mirror.to.received).toEqual(burst());
    expect(ports[1].to.received).toEqual(burst());
  });
});

describe('any traffic', () => {
  it('shows each mirror, for each of its ports, what that port sent and got, in order', () => {
    for (let seed = 0; seed < 60; seed++) {
      const random = new Random(seed);
      const all = [0, 1, 2];
      const mirrors = [5, 6].map((id) => {
        const sources = all.filter(() => random.chance(50));
        return { ...addMirror(id, sources), sources };
      });
      for (const port of ports) {
        port.to.received.length = 0;
        port.sent.length = 0;
      }
      for (let turn = 0; turn < 12; turn++) {
        const sender = random.pick(ports);
        const frames = Array.from({ length: random.between(1, 6) }, () =>
          ethernet(random.pick([1, 2, 3, 9, BROADCAST]), sender.state.id + 1, {
            payload: [random.between(0, 255)],
          }),
        );
        sender.send(...frames);
      }
      for (const { to, sources } of mirrors) {
        expect(new Set(to.ways.map((way) => Number(way[2])))).toEqual(
          new Set(
            sources.filter((id) => {
              return ports[id].sent.length + ports[id].to.received.length > 0;
            }),
          ),
        );
        for (const id of sources) {
          const seen = (way: string) => to.received.filter((_, i) => to.ways[i] === way);
          expect(seen(`vm${id}>`), `seed ${seed}`).toEqual(ports[id].sent);
          expect(seen(`vm${id}<`), `seed ${seed}`).toEqual(ports[id].to.received);
        }
      }
      for (const id of [5, 6]) forwarder.removePort(id);
    }
  });
});

it('knows a queue that takes copies', () => {
  expect(isMirrorQueue(new FakeMirrorQueue(1, 0, log))).toBe(true);
  expect(isMirrorQueue(new FakeEgressQueue(1, 0, log))).toBe(false);
});
