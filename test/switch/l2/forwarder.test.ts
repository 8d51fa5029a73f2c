/**
 * Who gets which frame: a test for each rule, with queues that have no guests (forwarder-fuzz.test.ts goes beyond
 * them at random).
 */
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { BATCH_FRAMES_MAX } from '../../../src/queue/batch.ts';
import { DROP, DROP_REASONS } from '../../../switch/l2/drop-reasons.ts';
import type { Fdb } from '../../../switch/l2/fdb/fdb.ts';
import type { Forwarder } from '../../../switch/l2/forwarder.ts';
import type { QueueLog, Waiting } from './fake-queues.ts';
import { type FakePort, FakeSwitch } from './fake-switch.ts';
import { arena, arenaView, ethernet, type Flow, ipPacket, type Mac, piecesOfFrame } from './frames.ts';

const BROADCAST: Mac = [255, 255, 255, 255, 255, 255];
const MULTICAST: Mac = [1, 0, 0x5e, 0, 0, 1];

afterAll(() => arena.release());

let world: FakeSwitch;
let log: QueueLog;
let fdb: Fdb;
let forwarder: Forwarder;
let faults: FakeSwitch['faults'];
let ports: FakePort[];

/** A switch whose ports have this many receive queues each. */
function makeSwitch(...queueCounts: number[]): void {
  world = new FakeSwitch(...queueCounts);
  ({ log, fdb, forwarder, faults, ports } = world);
}

beforeEach(() => makeSwitch(1, 1, 1, 1));

/** Port `id` sends frames in one burst. Answers how many were taken. */
function send(id: number, ...frames: readonly (Uint8Array | Waiting)[]): number {
  return world.send(ports[id], ...frames);
}

const flowOf = (srcPort: number): Flow => ({
  version: 4,
  src: [10, 0, 0, 1],
  dst: [10, 0, 0, 2],
  protocol: 17,
  srcPort,
  dstPort: 53,
});

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
    send(0, ethernet(7, 1), ethernet(7, 2));
    expect(counts()).toEqual([1, 0, 3, 3]);
  });

  it('reaches a port that was added later', () => {
    const late = world.addPort(9);
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
  it('count frames to a port without an attached queue', () => {
    send(1, ethernet(9, 7));
    ports[1].state.setQueues([]);
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
    const bad = (['tooLong', 'tooShort', 'tooShort', 'tooScattered'] as const).map((untaken) => ({
      untaken,
    }));
    expect(send(0, ...bad, ethernet(9, 1))).toBe(5);
    expect(ports[0].drops).toEqual({ tooLong: 1, tooShort: 2, tooScattered: 1 });
    expect(ports[0].from.finishedCount).toBe(5);
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

  it('count a frame that no other port takes', () => {
    makeSwitch(1);
    send(0, ethernet(9, 1), ethernet(BROADCAST, 1), ethernet(9, 2));
    expect(ports[0].drops).toEqual({ noReceiver: 3 });
  });

  it('have a name each and an index of their own', () => {
    expect(Object.keys(DROP)).toEqual(DROP_REASONS.map(({ name }) => name));
    expect(new Set(Object.values(DROP)).size).toBe(DROP_REASONS.length);
  });
});

describe('a turn of several queues', () => {
  /** Everybody has sent a frame, so that everybody is known. */
  const learn = (): void => {
    for (const [id, port] of ports.entries()) world.send(port, ethernet(BROADCAST, 10 + id));
    log.entries.length = 0;
  };
  const fill = (id: number, ...targets: readonly number[]): void =>
    ports[id].from.fill(...targets.map((target) => ethernet(10 + target, 10 + id)));

  it('keeps queues open for the next burst after a scattered one, and then finishes all senders', () => {
    learn();
    fill(0, 1, 2);
    fill(1, 2, 3);
    expect(world.turn()).toBe(4);
    expect(log.entries).toEqual([
      'try 1.0',
      'try 2.0',
      'try 3.0',
      'end 1.0',
      'end 2.0',
      'end 3.0',
      'finish 0',
      'finish 1',
    ]);
  });

  it('hands over at once what a burst to one queue brought', () => {
    learn();
    fill(0, 1, 1);
    fill(1, 0);
    world.turn();
    expect(log.entries).toEqual(['try 1.0', 'end 1.0', 'finish 0', 'try 0.0', 'end 0.0', 'finish 1']);
  });

  it('keeps no queue from other workers for longer than a burst', () => {
    learn();
    ports[2].to[0].shared = true;
    fill(0, 1, 2);
    fill(1, 0, 3);
    fill(2, 0, 3);
    world.turn();
    expect(log.entries).toEqual([
      'try 1.0',
      'try 2.0',
      'end 1.0',
      'end 2.0',
      'finish 0',
      'try 0.0',
      'try 3.0',
      'end 0.0',
      'end 3.0',
      'finish 1',
      'finish 2',
    ]);
  });

  it('finishes a sender of which nothing was placed', () => {
    learn();
    fill(0, 0);
    expect(world.turn()).toBe(1);
    expect(log.entries).toEqual(['finish 0']);
  });
});

describe('a burst', () => {
  it('is of 64 frames at most', () => {
    const frames = Array.from({ length: 150 }, () => ethernet(9, 1));
    expect(BATCH_FRAMES_MAX).toBe(64);
    expect(send(0, ...frames)).toBe(64);
    expect([counts()[1], ports[0].from.finishedCount]).toEqual([64, 64]);
    expect([forwarder.forwardBurst(ports[0].from), forwarder.forwardBurst(ports[0].from)]).toEqual([64, 22]);
    expect(forwarder.forwardBurst(ports[0].from)).toBe(0);
    expect(counts()).toEqual([0, 150, 150, 150]);
  });

  it('opens each queue once and finishes the sender last', () => {
    send(0, ethernet(9, 1), ethernet(9, 1), ethernet(9, 1));
    expect(log.entries).toEqual([
      'try 1.0',
      'try 2.0',
      'try 3.0',
      'end 1.0',
      'end 2.0',
      'end 3.0',
      'finish 0',
    ]);
  });

  it('of nothing does nothing', () => {
    expect(forwarder.forwardBurst(ports[0].from)).toBe(0);
    expect([log.entries, faults]).toEqual([[], []]);
  });

  it('stops at a fault of the sender: what came before is delivered and finished', () => {
    send(0, ethernet(9, 1), ethernet(9, 1), { fault: 5 }, ethernet(9, 1));
    expect(counts()).toEqual([0, 2, 2, 2]);
    expect(ports[0].from.finishedCount).toBe(2);
    expect(faults).toEqual([ports[0].from]);
  });

  it('tells of a queue that is found stopped', () => {
    ports[0].from.fault = 1;
    expect(send(0, ethernet(9, 1))).toBe(0);
    expect(faults).toEqual([ports[0].from]);
  });

  it('ends every open queue before it waits for one that another worker has (no deadlock)', () => {
    send(1, ethernet(9, 11));
    log.entries.length = 0;
    ports[2].to[0].isBusy = true;
    send(0, ethernet(11, 1), ethernet(9, 1), ethernet(BROADCAST, 1));
    expect(log.entries).toEqual([
      'try 1.0',
      'end 1.0',
      'wait 2.0',
      'try 3.0',
      'end 2.0',
      'end 3.0',
      'finish 0',
    ]);
    expect(counts()).toEqual([1, 3, 3, 3]);
  });

  it('opens a queue again that it ended to wait for another', () => {
    makeSwitch(1, 2);
    ports[1].to[1].isBusy = true;
    world.setMirror(world.addPort(5), [0, 1]);
    const flows = Array.from({ length: 8 }, (_, i) => ethernet(9, 1, { payload: ipPacket(flowOf(i)) }));
    send(0, ...flows);
    expect(log.entries).toEqual([
      'try 5.0',
      'try 1.0',
      'end 5.0',
      'end 1.0',
      'wait 1.2',
      'try 5.0',
      'end 1.2',
      'end 5.0',
      'finish 0',
    ]);
    expect(ports[1].received).toHaveLength(8);
    expect(ports[2].received).toHaveLength(16);
  });

  it('ends every open queue each time, when other workers have all of them', () => {
    for (const port of ports) port.to[0].isBusy = true;
    send(0, ethernet(9, 1), ethernet(9, 1));
    expect(counts()).toEqual([0, 2, 2, 2]);
    noDrops();
  });
});

describe('a port with several queues', () => {
  it('gets a flow on one queue, and flows on all', () => {
    makeSwitch(1, 4, 3);
    for (let srcPort = 0; srcPort < 200; srcPort++) {
      for (let id = 0; id < 3; id++) send(0, ethernet(9, 1, { payload: ipPacket(flowOf(srcPort), { id }) }));
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
    ports[1].state.setQueues(ports[1].to.slice(0, 2));
    for (let srcPort = 0; srcPort < 100; srcPort++)
      send(0, ethernet(9, 1, { payload: ipPacket(flowOf(srcPort)) }));
    expect(ports[1].to.map((queue) => queue.received.length > 0)).toEqual([true, true, false, false]);
  });
});

describe('addresses of a burst', () => {
  it('are learned before any frame is looked up, so that the last port an address sent from is the one', () => {
    send(0, ethernet(2, 1), ethernet(9, 2));
    expect(ports[0].drops).toEqual({ samePort: 1 });
    expect(counts()).toEqual([0, 1, 1, 1]);
  });

  it('are not taken for alike where words that lie across them are', () => {
    makeSwitch(1, 1);
    // The second frame lies two bytes off a word, behind zeros.
    arenaView.u8.fill(0, 0, 4096);
    const zeros: Mac = [0, 0, 0, 0, 0, 0];
    const [one, two] = [ethernet(zeros, zeros), ethernet(zeros, [0, 0, 0, 0, 5, 5])];
    send(0, one, { bytes: two, misalignment: 2 });
    expect(ports[1].received).toEqual([one, two]);
  });

  it('are written as they were decided upon, whatever the sender does to its memory meanwhile', () => {
    send(1, ethernet(9, 7));
    send(2, ethernet(9, 8));
    log.onPlace = (batch) => {
      for (let frame = 0; frame < batch.count; frame++) {
        const [{ offset }] = piecesOfFrame(batch, frame);
        arenaView.u8.fill(0xee, offset, offset + 6);
      }
    };
    const [one, two] = [ethernet(7, 1, { payload: [1] }), ethernet(8, 2, { payload: [2] })];
    send(0, one, one, { bytes: one, pieces: [6, 5] });
    send(0, one, two, { bytes: one, misalignment: 3 }, { bytes: two, pieces: [6, 5] });
    expect(ports[1].received.slice(1)).toEqual([one, one, one, one, one]);
    expect(ports[2].received.slice(1)).toEqual([two, two]);
    expect(counts()).toEqual([2, 6, 3, 2]);
  });
});
