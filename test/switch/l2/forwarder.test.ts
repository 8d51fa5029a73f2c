/**
 * Who gets which frame: a test for each rule, with queues that have no guests, and a seeded fuzz against a
 * naive switch made of a Map.
 */
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  type EgressQueue,
  type IngressQueue,
  TAKE_FAULT,
  TAKE_TOO_LONG,
  TAKE_TOO_SCATTERED,
  TAKE_TOO_SHORT,
} from '../../../src/queue/contract.ts';
import { DROP, DROP_REASONS, type DropReason } from '../../../switch/l2/drop-reasons.ts';
import { createFdbMemory, Fdb } from '../../../switch/l2/fdb/fdb.ts';
import { BURST_FRAMES_MAX, Forwarder, ForwardingPort } from '../../../switch/l2/forwarder.ts';
import { Random } from '../../vring/random.ts';
import { FakeEgressQueue, FakeIngressQueue, QueueLog, type Waiting } from './fake-queues.ts';
import { arena, arenaView, ethernet, type Flow, ipPacket, type Mac, macBytes } from './frames.ts';

const BROADCAST: Mac = [255, 255, 255, 255, 255, 255];
const MULTICAST: Mac = [1, 0, 0x5e, 0, 0, 1];

afterAll(() => arena.release());

/** One port of the test's switch: its forwarding state and its fake queues. */
class TestPort {
  readonly state: ForwardingPort;
  readonly from: FakeIngressQueue;
  readonly to: FakeEgressQueue[];

  constructor(id: number, queueCount: number, log: QueueLog) {
    this.state = new ForwardingPort(id, new Float64Array(DROP_REASONS.length));
    this.from = new FakeIngressQueue(id, log);
    this.to = Array.from({ length: queueCount }, (_, pair) => new FakeEgressQueue(id, 2 * pair, log));
    this.state.queues = [...this.to];
    this.state.queueCount = queueCount;
  }

  /** Drop counters that are not zero. */
  get drops(): Partial<Record<DropReason, number>> {
    const counted = DROP_REASONS.map(({ name }) => [name, this.state.drops[DROP[name]]] as const);
    return Object.fromEntries(counted.filter(([, count]) => count !== 0));
  }

  get received(): Uint8Array[] {
    return this.to.flatMap((queue) => queue.received);
  }
}

let log: QueueLog;
let fdb: Fdb;
let forwarder: Forwarder;
let faults: (IngressQueue | EgressQueue)[];
let ports: TestPort[];

/** A switch whose ports have this many receive queues each. */
function makeSwitch(...queueCounts: number[]): void {
  log = new QueueLog();
  fdb = new Fdb(createFdbMemory({ capacity: 256, maxPorts: 64, seed: [1, 2] }));
  faults = [];
  forwarder = new Forwarder(arenaView, fdb, (queue) => faults.push(queue));
  ports = queueCounts.map((count, id) => new TestPort(id, count, log));
  for (const port of ports) forwarder.addPort(port.state);
}

beforeEach(() => makeSwitch(1, 1, 1, 1));
afterEach(() => {
  expect(log.violations).toEqual([]);
  expect(log.open.size).toBe(0);
});

/** Port `id` sends frames in one burst. Answers how many were taken. */
function send(id: number, ...frames: readonly (Uint8Array | Waiting)[]): number {
  ports[id].from.fill(...frames);
  return forwarder.forwardBurst(ports[id].from);
}

const counts = (): number[] => ports.map((port) => port.received.length);
const noDrops = (): void => expect(ports.map((port) => port.drops)).toEqual(ports.map(() => ({})));

describe('a frame', () => {
  it('to an unknown address goes to all other ports, byte by byte as it was sent', () => {
    const frame = ethernet(9, 1, { sizeBytes: 1514, payload: [1, 2, 3] });
    expect(send(0, frame)).toBe(1);
    expect(counts()).toEqual([0, 1, 1, 1]);
    for (const port of ports.slice(1)) expect(port.received[0]).toEqual(frame);
    noDrops();
  });

  it('to an address that was seen goes to its port only', () => {
    send(2, ethernet(9, 7));
    send(0, ethernet(7, 1));
    expect(counts()).toEqual([1, 1, 1, 1]);
    send(2, ethernet(1, 7));
    expect(counts()).toEqual([2, 1, 1, 1]);
    noDrops();
  });

  it.each([
    ['broadcast', BROADCAST],
    ['multicast', MULTICAST],
    ['multicast', [3, 0, 0, 0, 0, 7] as const],
  ])('to a %s address goes to all other ports, although something claims to have it', (_kind, dst) => {
    send(1, ethernet(9, dst));
    send(0, ethernet(dst, 1));
    expect(counts()).toEqual([1, 1, 2, 2]);
    expect(fdb.lookup(0xffff_ffff | 0, 0xffff, 0)).toBe(-1);
  });

  it('to an address on its own port is dropped', () => {
    send(0, ethernet(9, 1));
    send(0, ethernet(1, 2));
    expect(counts()).toEqual([0, 1, 1, 1]);
    expect(ports[0].drops).toEqual({ samePort: 1 });
  });

  it('follows an address that moved to another port', () => {
    send(1, ethernet(9, 7));
    send(2, ethernet(9, 7));
    send(0, ethernet(7, 1));
    expect(counts()).toEqual([2, 1, 2, 2]);
  });

  it('to an address of a port that is gone goes to all others', () => {
    send(1, ethernet(9, 7));
    forwarder.removePort(1);
    expect(forwarder.port(1)).toBeUndefined();
    send(0, ethernet(7, 1));
    expect(counts()).toEqual([1, 0, 2, 2]);
  });

  it('reaches a port that was added later', () => {
    const late = new TestPort(9, 1, log);
    forwarder.addPort(late.state);
    expect(forwarder.port(9)).toBe(late.state);
    send(0, ethernet(8, 1));
    expect(late.received).toHaveLength(1);
  });

  it('with VLAN tags goes by its addresses and stays tagged', () => {
    send(1, ethernet(9, 7, { tags: [100] }));
    const tagged = ethernet(7, 1, { tags: [200, 300] });
    send(0, tagged);
    expect(ports[1].received).toEqual([tagged]);
  });

  it.each([0, 1, 2, 3])('may lie at any address (misaligned by %i)', (misalignment) => {
    const mac = [0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54];
    send(2, { bytes: ethernet(9, mac), misalignment });
    send(0, { bytes: ethernet(mac, 1), misalignment });
    expect(counts()).toEqual([1, 1, 1, 1]);
    expect(fdb.entries()).toContainEqual(
      expect.objectContaining({ macLo: 0x98ba_dcfe | 0, macHi: 0x5476, port: 2, vlan: 0 }),
    );
  });

  it.each([[[6, 6]], [[1, 1, 1, 1, 1]], [[13]], [[14, 1]]])('may be cut anywhere (%o)', (pieces) => {
    send(2, ethernet(9, 7));
    const frame = ethernet(7, 1, { payload: [1, 2, 3, 4, 5], sizeBytes: 300 });
    send(0, { bytes: frame, pieces });
    expect(ports[2].received).toEqual([frame]);
    expect(counts()).toEqual([1, 1, 1, 1]);
  });

  it('sets the age of its source address', () => {
    forwarder.nowTick = 41;
    send(0, ethernet(9, 1));
    forwarder.nowTick = 42;
    send(0, ethernet(9, 1));
    expect(fdb.entries().map(({ lastSeenTick }) => lastSeenTick)).toEqual([42]);
  });

  it('from the addresses 0 and multicast teaches nothing', () => {
    send(0, ethernet(9, [0, 0, 0, 0, 0, 0]), ethernet(9, MULTICAST), ethernet(9, BROADCAST));
    expect(fdb.entries()).toEqual([]);
    expect(counts()).toEqual([0, 3, 3, 3]);
  });
});

describe('drops', () => {
  it('count frames to a port without an enabled queue', () => {
    send(1, ethernet(9, 7));
    ports[1].state.queues = [];
    ports[1].state.queueCount = 0;
    send(0, ethernet(7, 1), ethernet(BROADCAST, 1));
    expect(ports[1].drops).toEqual({ notReady: 2 });
    expect(counts()).toEqual([1, 0, 2, 2]);
  });

  it('count frames longer than the MTU of the target, and only there', () => {
    ports[1].state.frameBytesMax = 1522;
    send(0, ethernet(BROADCAST, 1, { sizeBytes: 1522 }), ethernet(BROADCAST, 1, { sizeBytes: 1523 }));
    expect(counts()).toEqual([0, 1, 2, 2]);
    expect(ports.map(({ drops }) => drops)).toEqual([{}, { overMtu: 1 }, {}, {}]);
  });

  it('count frames that are no frames, and take the next ones all the same', () => {
    const bad = [TAKE_TOO_LONG, TAKE_TOO_SHORT, TAKE_TOO_SHORT, TAKE_TOO_SCATTERED].map((result) => ({
      result,
    }));
    expect(send(0, ...bad, ethernet(9, 1))).toBe(5);
    expect(ports[0].drops).toEqual({ tooLong: 1, tooShort: 2, tooScattered: 1 });
    expect(ports[0].from.publishedCount).toBe(5);
    expect(counts()).toEqual([0, 1, 1, 1]);
  });

  it('count frames for which a guest has no buffer or none large enough', () => {
    ports[1].to[0].bufferCount = 1;
    ports[2].to[0].bufferBytes = 100;
    send(0, ethernet(9, 1), ethernet(9, 1, { sizeBytes: 101 }), ethernet(9, 1));
    expect(counts()).toEqual([0, 1, 2, 3]);
    expect(ports.map(({ drops }) => drops)).toEqual([{}, { noBuffer: 2 }, { bufferTooSmall: 1 }, {}]);
  });

  it('count frames to a queue that stopped, which is told of', () => {
    ports[1].to[0].failsNext = true;
    send(0, ethernet(9, 1), ethernet(9, 1));
    expect(ports[1].drops).toEqual({ queueStopped: 2 });
    expect(new Set(faults)).toEqual(new Set([ports[1].to[0]]));
    expect(counts()).toEqual([0, 0, 2, 2]);
  });

  it('have a name each and an index of their own', () => {
    expect(Object.keys(DROP)).toEqual(DROP_REASONS.map(({ name }) => name));
    expect(new Set(Object.values(DROP)).size).toBe(DROP_REASONS.length);
  });
});

describe('a burst', () => {
  it('is of 64 frames at most', () => {
    const frames = Array.from({ length: 150 }, () => ethernet(9, 1));
    expect(BURST_FRAMES_MAX).toBe(64);
    expect(send(0, ...frames)).toBe(64);
    expect([counts()[1], ports[0].from.publishedCount]).toEqual([64, 64]);
    expect([forwarder.forwardBurst(ports[0].from), forwarder.forwardBurst(ports[0].from)]).toEqual([64, 22]);
    expect(forwarder.forwardBurst(ports[0].from)).toBe(0);
    expect(counts()).toEqual([0, 150, 150, 150]);
  });

  it('opens each queue once and publishes the sender last', () => {
    send(0, ethernet(9, 1), ethernet(9, 1), ethernet(9, 1));
    expect(log.entries).toEqual([
      'try 1.0',
      'try 2.0',
      'try 3.0',
      'end 1.0',
      'end 2.0',
      'end 3.0',
      'publish 0',
    ]);
  });

  it('of nothing does nothing', () => {
    expect(forwarder.forwardBurst(ports[0].from)).toBe(0);
    expect([log.entries, faults]).toEqual([[], []]);
  });

  it('stops at a fault of the sender: what came before is delivered and published', () => {
    send(0, ethernet(9, 1), ethernet(9, 1), { result: TAKE_FAULT }, ethernet(9, 1));
    expect(counts()).toEqual([0, 2, 2, 2]);
    expect(ports[0].from.publishedCount).toBe(2);
    expect(faults).toEqual([ports[0].from]);
  });

  it('tells of a queue that is found stopped', () => {
    ports[0].from.fault = 1;
    expect(send(0, ethernet(9, 1))).toBe(0);
    expect(faults).toEqual([ports[0].from]);
  });

  it('ends every open queue before it waits for one that another worker has (no deadlock)', () => {
    ports[2].to[0].isBusy = true;
    send(0, ethernet(9, 1), ethernet(9, 1));
    // Port 2 is waited for with nothing open; port 1 is opened again for the second frame.
    expect(log.entries).toEqual([
      'try 1.0',
      'end 1.0',
      'wait 2.0',
      'try 3.0',
      'try 1.0',
      'end 2.0',
      'end 3.0',
      'end 1.0',
      'publish 0',
    ]);
    expect(counts()).toEqual([0, 2, 2, 2]);
  });

  it('ends every open queue each time, when other workers have all of them', () => {
    for (const port of ports) port.to[0].isBusy = true;
    send(0, ethernet(9, 1), ethernet(9, 1));
    expect(counts()).toEqual([0, 2, 2, 2]);
    noDrops();
  });
});

describe('a port with several queues', () => {
  const flow = (srcPort: number): Flow => ({
    version: 4,
    src: [10, 0, 0, 1],
    dst: [10, 0, 0, 2],
    protocol: 17,
    srcPort,
    dstPort: 53,
  });

  it('gets a flow on one queue, and flows on all', () => {
    makeSwitch(1, 4, 3);
    for (let srcPort = 0; srcPort < 200; srcPort++) {
      for (let id = 0; id < 3; id++) send(0, ethernet(9, 1, { payload: ipPacket(flow(srcPort), { id }) }));
    }
    for (const port of ports.slice(1)) {
      for (const queue of port.to) {
        expect(queue.received.length).toBeGreaterThan(60);
        const perPort = new Map<number, number>();
        for (const bytes of queue.received) {
          const srcPort = (bytes[34] << 8) | bytes[35];
          perPort.set(srcPort, (perPort.get(srcPort) ?? 0) + 1);
        }
        expect([...new Set(perPort.values())]).toEqual([3]);
      }
    }
    expect(counts()).toEqual([0, 600, 600]);
  });

  it('gets frames only on those of its queues that are in use', () => {
    makeSwitch(1, 4);
    ports[1].state.queueCount = 2;
    for (let srcPort = 0; srcPort < 100; srcPort++)
      send(0, ethernet(9, 1, { payload: ipPacket(flow(srcPort)) }));
    expect(ports[1].to.map((queue) => queue.received.length > 0)).toEqual([true, true, false, false]);
  });
});

/** The naive switch: a Map from address to port, and for each port what it should have got. */
class NaiveSwitch {
  readonly expected: number[][];
  readonly drops: Partial<Record<DropReason, number>>[];
  readonly #portOf = new Map<string, number>();

  constructor(portCount: number) {
    this.expected = Array.from({ length: portCount }, () => []);
    this.drops = Array.from({ length: portCount }, () => ({}));
  }

  count(port: number, reason: DropReason): void {
    this.drops[port][reason] = (this.drops[port][reason] ?? 0) + 1;
  }

  /** Frame number `sequence` from a port; `limits` says what each port can take. */
  send(
    port: number,
    sequence: number,
    [dst, src]: readonly [Mac, Mac],
    sizeBytes: number,
    canTake: (port: number, sizeBytes: number) => DropReason | null,
  ): void {
    const isGroup = (mac: Mac): boolean => (macBytes(mac)[0] & 1) === 1;
    const name = (mac: Mac): string => macBytes(mac).join(':');
    if (!isGroup(src) && name(src) !== '0:0:0:0:0:0') this.#portOf.set(name(src), port);
    const owner = isGroup(dst) ? undefined : this.#portOf.get(name(dst));
    if (owner === port) {
      this.count(port, 'samePort');
      return;
    }
    for (let target = 0; target < this.expected.length; target++) {
      if (target === port || (owner !== undefined && target !== owner)) continue;
      const reason = canTake(target, sizeBytes);
      if (reason === null) this.expected[target].push(sequence);
      else this.count(target, reason);
    }
  }
}

/** The number that the fuzz wrote behind a frame's type, tagged or not. */
function sequenceOf(bytes: Uint8Array): number {
  const at = bytes[12] === 0x81 ? 18 : 14;
  return bytes[at] | (bytes[at + 1] << 8);
}

describe('random traffic', () => {
  it.each([1, 2, 3, 4, 5, 6])('goes where the naive switch sends it (seed %i)', (seed) => {
    const random = new Random(seed);
    // Ports with several queues have room without end: which queue a flow is on is not the twin's business.
    makeSwitch(1, 1, 2, 0, 3, 1);
    const twin = new NaiveSwitch(ports.length);
    const macs: Mac[] = [
      ...Array.from({ length: 12 }, (_, i) => i + 1),
      BROADCAST,
      MULTICAST,
      [0, 0, 0, 0, 0, 0],
    ];
    for (const port of ports) port.state.frameBytesMax = random.pick([200, 400, 100_000]);
    let sequence = 0;
    const canTake = (id: number, sizeBytes: number): DropReason | null => {
      const { state, to } = ports[id];
      if (state.queueCount === 0) return 'notReady';
      if (sizeBytes > state.frameBytesMax) return 'overMtu';
      return to.length === 1 && room[id]-- <= 0 ? 'noBuffer' : null;
    };
    const room = ports.map(() => 0);
    for (let burst = 0; burst < 250; burst++) {
      const id = random.between(0, ports.length - 1);
      for (const [i, port] of ports.entries()) {
        if (port.to.length !== 1) continue;
        room[i] = random.between(0, 40);
        port.to[0].bufferCount = room[i];
        port.to[0].isBusy = random.chance(20);
      }
      const { from } = ports[id];
      const count = random.between(0, 30);
      for (let i = 0; i < count; i++) {
        const dst = random.pick(macs);
        let src = random.pick(macs);
        // A frame to itself may or may not find itself learned already; nobody sends such.
        if (src === dst) src = 77;
        const sizeBytes = random.pick([60, 64, 199, 200, 201, 401, 1514]);
        const payload = [sequence & 255, sequence >> 8];
        const bytes = ethernet(dst, src, { tags: random.pick([[], [5]]), payload, sizeBytes });
        from.fill(
          random.chance(30)
            ? { bytes, pieces: [random.between(1, 30), random.between(1, 30)] }
            : { bytes, misalignment: random.between(0, 3) },
        );
        twin.send(id, sequence, [dst, src], sizeBytes, canTake);
        sequence++;
      }
      expect(forwarder.forwardBurst(from)).toBe(count);
    }
    for (const [id, port] of ports.entries()) {
      const perQueue = port.to.map((queue) => queue.received.map(sequenceOf));
      const ascending = (numbers: readonly number[]): number[] => [...numbers].sort((x, y) => x - y);
      // In order on each queue, and over all queues what the twin says.
      for (const numbers of perQueue) expect(numbers).toEqual(ascending(numbers));
      expect(ascending(perQueue.flat())).toEqual(twin.expected[id]);
      expect(port.drops).toEqual(twin.drops[id]);
    }
    expect(sequence).toBeGreaterThan(1000);
    expect(twin.drops.flatMap((drops) => Object.keys(drops))).toEqual(
      expect.arrayContaining(['samePort', 'noBuffer', 'notReady', 'overMtu', 'senderDisabled']),
    );
  });
});
