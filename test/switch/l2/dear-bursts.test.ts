/**
 * Bursts of frames that each become many for a receiver without segmentation offload: they go over several turns, in
 * which other guests have theirs, and what they cost is paid for by turns that are sat out.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { NET_HDR_F, NET_HDR_GSO, netHeaderWords } from '../../../protocol/virtio/net.ts';
import type { SendOptions } from '../../../src/frontend/send-queue.ts';
import { allocateScratch } from '../../../src/memory/scratch.ts';
import { SEGMENTS_MAX } from '../../../src/offload/request.ts';
import type { FromGuest } from '../../../src/vring/from-guest.ts';
import { DROP } from '../../../switch/l2/drop-reasons.ts';
import { createFdbMemory, Fdb } from '../../../switch/l2/fdb/fdb.ts';
import { FORWARDER_SCRATCH_BYTES, Forwarder } from '../../../switch/l2/forwarder.ts';
import { ForwardingPort } from '../../../switch/l2/forwarding-port.ts';
import { COUNT_FORWARDED, PORT_COUNTS } from '../../../switch/l2/port-counts.ts';
import { completed, segmentsOf } from '../../offload/naive-offload.ts';
import { ALL_OFFLOADS } from '../../offload/offload-world.ts';
import {
  ASKS_NOTHING,
  checksumRequest,
  makeFrame,
  PLAIN_TCP,
  type Request,
  segmentRequest,
} from '../../offload/random-requests.ts';
import { Random, seeds } from '../../vring/random.ts';
import { randomPieces } from '../../vring/random-rings.ts';
import { DriverEnd, LAYOUT_KINDS, plainPlan, type RingPlan, RingwayEnd } from '../../vring/ring-worlds.ts';
import { sharedArena, sharedArenaView } from '../../vring/scratch.ts';

/** As many frames as one frame may become, or a burst of frames. */
const TURN_FRAMES_MAX = SEGMENTS_MAX;
const TURN_WORK = 64;
const WORK_RESERVE = 512;
/** From the second port's guest to everybody. */
const CALL = frameTo(0xff, 1);

function frameTo(byte: number, from: number): Uint8Array {
  const frame = new Uint8Array(60).fill(byte, 0, 6);
  frame.set([2, 0, 0, 0, 0, from], 6);
  return frame;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

function completedFrames({ frame, header }: Request): Uint8Array[] {
  const { gsoType, gsoSize, csumStart, csumOffset, flags } = header;
  if (flags === 0) return [frame];
  return gsoType === 0 ? [completed(frame, csumStart, csumOffset)] : segmentsOf(frame, gsoSize);
}

class World {
  readonly guests: readonly { readonly driver: DriverEnd; readonly device: RingwayEnd }[];
  readonly ports: readonly ForwardingPort[];
  readonly forwarder: Forwarder;
  /** Queues that guests send by. */
  readonly polled: FromGuest[];
  readonly received: string[][];
  readonly #scratch = allocateScratch(sharedArena, { name: 'forwarder', sizeBytes: FORWARDER_SCRATCH_BYTES });

  /** Guest 0 sends what is dear; the others take nothing but complete frames. */
  constructor(plan: RingPlan, guestCount: number) {
    const fdb = new Fdb(createFdbMemory({ capacity: 64, maxPorts: 16, seed: [1, 2] }));
    const onFault = (): never => {
      throw new Error('a queue stopped');
    };
    this.forwarder = new Forwarder(sharedArenaView, fdb, onFault, this.#scratch.offset);
    this.guests = Array.from({ length: guestCount }, (_, portId) => {
      const own = { ...plan, portId };
      const driver = new DriverEnd(own);
      return { driver, device: new RingwayEnd(driver, own) };
    });
    this.ports = this.guests.map(({ device }, id) => {
      const port = new ForwardingPort(id, new Float64Array(PORT_COUNTS));
      port.setQueues([device.to]);
      this.forwarder.addPort(port);
      return port;
    });
    this.polled = this.guests.map(({ device }) => device.from);
    this.received = this.guests.map(() => []);
    this.fill();
  }

  /** Nothing is on its way, and nothing was received or counted. */
  begin(): void {
    while (this.free < this.guests[0].driver.fromGuest.ring.size) this.turn();
    for (const frames of this.received) frames.length = 0;
    for (const port of this.ports) port.counts.fill(0);
  }

  fill(): void {
    for (const { driver } of this.guests) driver.toGuest.fill();
  }

  send(guest: number, { frame, header }: Request, shape: SendOptions = {}): void {
    const bytes = new Uint8Array(Int32Array.from(netHeaderWords(header, 0)).buffer);
    expect(this.guests[guest].driver.fromGuest.send(frame, { ...shape, header: bytes })).toBe(true);
  }

  turn(): void {
    this.forwarder.forwardTurn(this.polled);
    this.collect();
  }

  collect(): void {
    for (const [i, { driver }] of this.guests.entries()) {
      for (let frame = driver.toGuest.receive(); frame !== null; frame = driver.toGuest.receive())
        this.received[i].push(hex(frame));
    }
    this.fill();
  }

  /** How many descriptors the first guest has. */
  get free(): number {
    return this.guests[0].driver.fromGuest.reclaim();
  }

  close(): void {
    for (const { driver, device } of this.guests) {
      device.close();
      driver.memory.close();
    }
    this.#scratch.release();
  }
}

const PLANS = LAYOUT_KINDS.map((layout) => ({
  ...plainPlan(layout),
  size: 256,
  bufferBytes: 2 ** 16 + 64,
  memory: 64 * 2 ** 20,
  asks: ALL_OFFLOADS,
}));

/** To be cut into so many segments of 8 bytes. */
function dearRequest(random: Random, segments: number): Request {
  const { frame, csumStart } = makeFrame(random, { ...PLAIN_TCP, payloadBytes: 8 * segments });
  const header = { flags: NET_HDR_F.NEEDS_CSUM, gsoType: NET_HDR_GSO.TCPV4, hdrLen: 0, gsoSize: 8 };
  return { frame, header: { ...header, csumStart, csumOffset: 16 } };
}

describe.for(PLANS)('in a $layout ring', (plan) => {
  let world: World;
  beforeAll(() => {
    world = new World(plan, 3);
  });
  beforeEach(() => world.begin());
  afterAll(() => world.close());

  it('a burst of them goes over several turns, with what others send in between', () => {
    const random = new Random(1);
    const requests = Array.from({ length: 20 }, () => dearRequest(random, 100));
    for (const request of requests) world.send(0, request);
    const expected = requests.flatMap(completedFrames).map(hex);
    const freeBefore = world.free;
    for (let turn = 0; world.received[1].length < expected.length; turn++) {
      const [, before] = world.received.map((frames) => frames.length);
      expect(world.free, 'given back while frames of the burst wait').toBe(freeBefore);
      world.send(1, { frame: CALL, header: ASKS_NOTHING });
      world.turn();
      expect(world.received[1].length - before).toBeLessThanOrEqual(TURN_FRAMES_MAX);
      expect(world.received[2].filter((frame) => frame === hex(CALL))).toHaveLength(turn + 1);
    }
    expect(world.received[1]).toEqual(expected);
    expect(world.received[2].filter((frame) => frame !== hex(CALL))).toEqual(expected);
    expect(world.free).toBe(plan.size);
  });

  it('turns are sat out for what they cost all receivers together', () => {
    const random = new Random(2);
    for (let i = 0; i < 64; i++) world.send(0, dearRequest(random, 128));
    const turns = 100;
    for (let turn = 0; turn < turns; turn++) world.turn();
    // The last one may have been dear: 128 segments to two.
    const most = WORK_RESERVE + turns * TURN_WORK + 2 * 128;
    expect(world.ports[0].counts[COUNT_FORWARDED]).toBeLessThanOrEqual(most);
    expect(world.ports[0].counts[COUNT_FORWARDED]).toBeGreaterThan(most / 2);
  });

  it('what waits is forwarded before the queue is closed or its memory changes', () => {
    const random = new Random(3);
    const requests = Array.from({ length: 3 }, () => dearRequest(random, 80));
    for (const request of requests) world.send(0, request);
    // What the test before cost is still owed.
    while (world.received[1].length === 0) world.turn();
    const [from] = world.polled;
    expect(from.holdsFrames).toBe(true);
    expect(from.armWake(), 'the worker may sleep').toBe(false);
    world.forwarder.drain(from);
    world.collect();
    expect(from.holdsFrames).toBe(false);
    expect(world.received[1]).toEqual(requests.flatMap(completedFrames).map(hex));
    expect(world.free).toBe(plan.size);
    expect(from.armWake()).toBe(true);
  });

  it('what waits beyond two bursts is dropped then, and what was owed is owed by the queue that is opened next', () => {
    const random = new Random(4);
    for (let i = 0; i < 30; i++) world.send(0, dearRequest(random, 128));
    while (world.received[1].length === 0) world.turn();
    const before = world.received[1].length;
    world.forwarder.drain(world.polled[0]);
    world.collect();
    expect(world.received[1].length - before).toBe(2 * 128);
    expect(world.ports[0].counts[DROP.heldBack]).toBe(30 - 1 - 2);
    expect(world.free).toBe(plan.size);
    world.polled[0] = world.guests[0].device.openFrom();
    world.send(0, dearRequest(random, 128));
    const received = world.received[1].length;
    let turns = 0;
    for (; world.received[1].length === received; turns++) world.turn();
    // Three times 128 segments to two receivers, less the reserve and what two turns bring.
    expect(turns).toBeGreaterThan((3 * 255 - WORK_RESERVE - 2 * TURN_WORK) / TURN_WORK);
    expect(turns).toBeGreaterThan(2);
  });

  it.for(seeds(10))('any frames come as they were sent, in order and once, seed %i', (seed) => {
    const random = new Random(seed);
    const expected: string[] = [];
    for (let round = 0; round < 4; round++) {
      for (let frames = random.between(1, 40); frames > 0; frames--) {
        const request = random.pick([
          () => segmentRequest(random, random.pick([4, SEGMENTS_MAX])),
          () => checksumRequest(random),
          () => ({ frame: random.bytes(random.between(60, 1500)), header: ASKS_NOTHING }),
        ])();
        request.frame.set([2, 9], 0);
        request.frame.set([2, 8], 6);
        const { length } = request.frame;
        const pieces = random.chance(50) ? [] : randomPieces(random, 12 + length, 6);
        world.send(0, request, { pieces, indirect: random.chance(30) });
        expected.push(...completedFrames(request).map(hex));
      }
      while (world.free < plan.size) world.turn();
      expect(world.received[1]).toEqual(expected);
      expect(world.received[2]).toEqual(expected);
    }
  });
});
