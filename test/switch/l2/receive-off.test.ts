/**
 * A port that the switch takes nothing from: what it sends is dropped by that name before anything is done with it, it
 * is sent to as any other, and the books balance. Queues without guests.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { FRAME_BYTES_MAX, FRAME_BYTES_MIN } from '../../../protocol/ethernet.ts';
import type { Batch } from '../../../src/queue/batch.ts';
import type { EgressQueue, IngressQueue } from '../../../src/queue/contract.ts';
import { DEFAULT_POLICY, type PortPolicy } from '../../../src/queue/policy.ts';
import { queueStates } from '../../../src/queue/state.ts';
import { type Books, booksOf, imbalances, sumBooks } from '../../../switch/control/books.ts';
import { createFdbMemory, Fdb } from '../../../switch/l2/fdb/fdb.ts';
import { Forwarder } from '../../../switch/l2/forwarder.ts';
import { ForwardingPort } from '../../../switch/l2/forwarding-port.ts';
import { PORT_COUNTS } from '../../../switch/l2/port-counts.ts';
import { Random } from '../../vring/random.ts';
import { bytesOfFrame, describeFrames, sharedArenaView } from '../../vring/scratch.ts';

/** A port's queues of both directions: gives what it was filled with, keeps what it gets. */
class FakeQueues implements IngressQueue, EgressQueue {
  readonly portId: number;
  readonly queueIndex = 0;
  readonly wakeFd = -1;
  fault = 0;
  open = false;
  readonly waiting: Uint8Array[] = [];
  readonly received: Uint8Array[] = [];
  gathered = 0;
  finished = 0;

  constructor(portId: number) {
    this.portId = portId;
  }

  gather(batch: Batch): number {
    const burst = this.waiting.splice(0);
    const isGood = ({ length }: Uint8Array): boolean =>
      length >= FRAME_BYTES_MIN && length <= FRAME_BYTES_MAX;
    describeFrames(batch, burst.filter(isGood), null);
    batch.tooShort = burst.filter(({ length }) => length < FRAME_BYTES_MIN).length;
    batch.tooLong = burst.filter(({ length }) => length > FRAME_BYTES_MAX).length;
    this.gathered += burst.length;
    return burst.length;
  }

  finish(): void {
    this.finished = this.gathered;
  }

  place(batch: Batch, order: Int32Array, count: number): void {
    batch.refusedCount = 0;
    for (const frame of order.subarray(0, count)) this.received.push(bytesOfFrame(batch, frame));
  }

  placeCopies(batch: Batch, order: Int32Array, count: number): void {
    this.place(batch, order, count);
  }

  begin(): void {
    this.open = true;
  }

  tryBegin(): boolean {
    this.begin();
    return true;
  }

  end(): void {
    this.open = false;
  }

  armWake(): boolean {
    return true;
  }

  acknowledgeWake(): boolean {
    return true;
  }

  disarmWake(): void {}
  setCallFd(): void {}
  nameSources(): void {}
}

class TestPort {
  readonly state: ForwardingPort;
  readonly queues: FakeQueues;

  constructor(id: number) {
    this.state = new ForwardingPort(id, new Float64Array(PORT_COUNTS));
    this.queues = new FakeQueues(id);
    this.state.setQueues([this.queues]);
  }

  /** As a worker follows a policy that was posted to it. */
  follow(change: Partial<PortPolicy>): void {
    const policy = { ...DEFAULT_POLICY, ...change };
    this.state.follow(policy);
    const sourceIds = policy.copiesOf?.map((source) => source.portId) ?? null;
    forwarder.setCopies(this.state.id, sourceIds);
  }

  /** One burst; answers how many frames were taken. */
  send(...frames: readonly Uint8Array[]): number {
    this.queues.waiting.push(...frames);
    return forwarder.forwardBurst(this.queues);
  }

  get received(): number {
    return this.queues.received.length;
  }

  get books(): Books {
    const counters = {
      ingressFrames: this.queues.finished,
      ingressBytes: 0,
      egressFrames: this.received,
      egressBytes: 0,
    };
    return booksOf(counters, queueStates(2), this.state.counts);
  }

  /** Drops that are not 0. */
  get drops(): Record<string, number> {
    return Object.fromEntries(Object.entries(this.books.drops).filter(([, frames]) => frames !== 0));
  }
}

/** Each port has the address of its number; 9 is nobody's. */
const ETHER_TYPE = [0x08, 0x00];
const station = (address: number): number[] => [2, 0, 0, 0, 0, address];

function frameTo(dst: number | 'all', src: number, sizeBytes = 60): Uint8Array {
  const head = [...(dst === 'all' ? station(0).fill(255) : station(dst)), ...station(src), ...ETHER_TYPE];
  const frame = new Uint8Array(sizeBytes);
  frame.set(head.slice(0, sizeBytes));
  return frame;
}

let fdb: Fdb;
let forwarder: Forwarder;
let ports: [muted: TestPort, second: TestPort, third: TestPort, mirror: TestPort];

beforeEach(() => {
  fdb = new Fdb(createFdbMemory({ capacity: 256, maxPorts: 64, seed: [1, 2] }));
  forwarder = new Forwarder(sharedArenaView, fdb, () => {});
  ports = [new TestPort(0), new TestPort(1), new TestPort(2), new TestPort(3)];
  for (const port of ports) forwarder.addPort(port.state);
  const [muted, second, third, mirror] = ports;
  muted.follow({ receives: false });
  second.send(frameTo(9, 1));
  third.send(frameTo(9, 2));
  mirror.follow({ copiesOf: [{ portId: 0, name: 'muted' }] });
  for (const { queues } of ports) queues.received.length = 0;
  for (const { state, queues } of ports) {
    state.counts.fill(0);
    queues.gathered = 0;
    queues.finished = 0;
  }
});

function expectBalance(): void {
  const all = ports.map(({ books }) => books);
  expect(all.flatMap((books, id) => imbalances(`port ${id}`, books, false))).toEqual([]);
  expect(imbalances('the switch', sumBooks(all), true)).toEqual([]);
}

describe('what a port with receive=off sends', () => {
  it.each([
    ['to an address behind another port', [frameTo(1, 0), frameTo(1, 0)]],
    ['to addresses behind several ports', [frameTo(1, 0), frameTo(2, 0), frameTo(1, 0)]],
    ['to nobody known, and to all', [frameTo(9, 0), frameTo('all', 0)]],
    ['to itself', [frameTo(0, 0)]],
  ])('%s is dropped by that name, and nobody gets it', (_, frames) => {
    const [muted, ...others] = ports;
    expect(muted.send(...frames)).toBe(frames.length);
    expect(others.map(({ received }) => received)).toEqual([0, 0, 0]);
    expect(muted.drops).toEqual({ receiveOff: frames.length });
    expect(others.map(({ drops }) => drops)).toEqual([{}, {}, {}]);
    expectBalance();
  });

  it('is dropped by no other name, although it could not have been forwarded', () => {
    const [muted] = ports;
    expect(muted.send(frameTo(1, 0), frameTo(1, 0, 13), frameTo(1, 0, FRAME_BYTES_MAX + 1))).toBe(3);
    expect(muted.send(frameTo(1, 0, 13))).toBe(1);
    expect(muted.drops).toEqual({ receiveOff: 4 });
    expectBalance();
  });

  it('is not learned, also where the address is known elsewhere', () => {
    const [muted, second, third] = ports;
    muted.send(frameTo('all', 0), frameTo('all', 2));
    expect(fdb.entries().map(({ port }) => port)).toEqual([1, 2]);
    second.send(frameTo(2, 1));
    expect([muted.received, third.received]).toEqual([0, 1]);
  });

  it('is not mirrored', () => {
    const [muted, second, , mirror] = ports;
    muted.send(frameTo(1, 0), frameTo('all', 0));
    expect(mirror.received).toBe(0);
    second.send(frameTo('all', 1));
    expect(mirror.received).toBe(1);
  });

  it('is given back to it', () => {
    const [muted] = ports;
    muted.send(frameTo(1, 0), frameTo(2, 0));
    expect(muted.queues.finished).toBe(2);
  });

  it('is forwarded as soon as the port may send again', () => {
    const [muted, second] = ports;
    muted.send(frameTo(1, 0));
    muted.follow({ receives: true });
    muted.send(frameTo(1, 0));
    expect(second.received).toBe(1);
    second.send(frameTo(0, 1));
    expect(muted.received).toBe(1);
    expect(muted.drops).toEqual({ receiveOff: 1 });
    expectBalance();
  });
});

it('is sent what is flooded, and what is for an address that was seen there before', () => {
  const [muted, second, third] = ports;
  muted.follow({});
  muted.send(frameTo(9, 0));
  muted.follow({ receives: false });
  const [atSecond, atThird] = [second.received, third.received];
  const frames = [frameTo(0, 1), frameTo('all', 1), frameTo(0, 1)];
  second.send(...frames);
  expect(muted.queues.received).toEqual(frames);
  expect([second.received, third.received]).toEqual([atSecond, atThird + 1]);
  expectBalance();
});

it.each(Array.from({ length: 20 }, (_, seed) => seed))('keeps the books in any traffic, seed %i', (seed) => {
  const random = new Random(seed);
  const muted = ports.slice(0, 3).filter((port) => {
    const receives = random.chance(50);
    port.follow({ receives });
    return !receives;
  });
  for (let turn = 0; turn < 40; turn++) {
    const from = random.between(0, 2);
    const burst = Array.from({ length: random.between(1, 8) }, () =>
      frameTo(random.pick([0, 1, 2, 9, 'all'] as const), from, random.pick([13, 60, 1514])),
    );
    ports[from].send(...burst);
  }
  expectBalance();
  for (const { books } of muted) {
    expect(books.drops.receiveOff).toBe(books.counters.ingressFrames);
    expect(books.counters.forwarded).toBe(0);
  }
});
