/**
 * Guests that are slow for a moment: long frames for which they have no buffers wait, with all that follow, in order and
 * with what they ask for; those of a guest that has stopped taking frames are dropped, and nobody waits with them.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { netHeaderOf, netHeaderWords } from '../../../protocol/virtio/net.ts';
import { DESC_F_WRITE } from '../../../protocol/virtio/split-ring.ts';
import { ACCESS_WRITE } from '../../../src/memory/iotlb.ts';
import { allocateScratch } from '../../../src/memory/scratch.ts';
import { DEFAULT_POLICY, DEFAULT_VLAN } from '../../../src/queue/policy.ts';
import { PARKED } from '../../../src/vring/faults.ts';
import { LONG_FRAME_BYTES } from '../../../switch/l2/backlog.ts';
import { DROP } from '../../../switch/l2/drop-reasons.ts';
import { createFdbMemory, Fdb } from '../../../switch/l2/fdb/fdb.ts';
import { FORWARDER_SCRATCH_BYTES, Forwarder } from '../../../switch/l2/forwarder.ts';
import { ForwardingPort } from '../../../switch/l2/forwarding-port.ts';
import { COUNT_OFFERED, PORT_COUNTS } from '../../../switch/l2/port-counts.ts';
import { ALL_OFFLOADS } from '../../offload/offload-world.ts';
import { ASKS_NOTHING, type Request, segmentRequest } from '../../offload/random-requests.ts';
import { Random, seeds } from '../../vring/random.ts';
import { DriverEnd, LAYOUT_KINDS, plainPlan, type RingPlan, RingwayEnd } from '../../vring/ring-worlds.ts';
import { sharedArena, sharedArenaView } from '../../vring/scratch.ts';

const SENDER = 0;
/** A receiver has so many buffers, of 2,048 bytes with the header. */
const BUFFERS = 64;
const BACKLOGS_MAX = 8;
const STALE_TICKS = 2;
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

let world: World;
afterEach(() => world.close());

class World {
  readonly forwarder: Forwarder;
  readonly guests: readonly { readonly driver: DriverEnd; readonly device: RingwayEnd }[];
  readonly ports: readonly ForwardingPort[];
  readonly #scratch = allocateScratch(sharedArena, { name: 'forwarder', sizeBytes: FORWARDER_SCRATCH_BYTES });
  #sent = 0;

  constructor(
    layout: RingPlan['layout'],
    receivers = 1,
    { buffers = BUFFERS, isShared = false, iommu = false } = {},
  ) {
    const fdb = new Fdb(createFdbMemory({ capacity: 4096, maxPorts: 16, seed: [1, 2] }));
    const onFault = ({ fault }: { fault: number }): void => {
      if (fault !== PARKED) throw new Error('a queue stopped');
    };
    this.forwarder = new Forwarder(sharedArenaView, fdb, onFault, this.#scratch.offset);
    const plain = { ...plainPlan(layout), size: buffers, mergeable: true };
    this.guests = Array.from({ length: 1 + receivers }, (_, portId) => {
      const own = { ...plain, portId, asks: ALL_OFFLOADS };
      const plan =
        portId === SENDER
          ? { ...own, size: BUFFERS, bufferBytes: 2 ** 16 + 64, memory: 2 ** 24 }
          : { ...own, iommu };
      const driver = new DriverEnd(plan);
      return { driver, device: new RingwayEnd(driver, plan) };
    });
    this.ports = this.guests.map(({ device }, id) => {
      const port = new ForwardingPort(id, new Float64Array(PORT_COUNTS));
      port.follow({ ...DEFAULT_POLICY, takes: ALL_OFFLOADS });
      port.setQueues([isShared ? device.openTo(true) : device.to]);
      this.forwarder.addPort(port);
      return port;
    });
    for (let id = 0; id <= receivers; id++) fdb.learn(2, id << 8, 0, id, 0);
    for (const { driver } of this.guests.slice(1)) {
      driver.toGuest.refills = false;
      driver.toGuest.fill();
    }
  }

  /** Numbers a frame, by its source, and sends it. Answers it as it was sent. */
  send(receiver: number, { frame, header }: Request): Request {
    const sent = frame.slice();
    sent.set([2, 0, 0, 0, 0, receiver, 2, 1]);
    new DataView(sent.buffer).setUint32(8, ++this.#sent);
    const bytes = new Uint8Array(Int32Array.from(netHeaderWords(header, 0)).buffer);
    expect(this.guests[SENDER]!.driver.fromGuest.send(sent, { header: bytes })).toBe(true);
    return { frame: sent, header };
  }

  /** As many as it takes to take all that was sent. */
  turn(count = 1): void {
    for (let turn = 0; turn < count; turn++) this.#turn();
  }

  #turn(): void {
    this.forwarder.forwardTurn([this.guests[SENDER]!.device.from]);
  }

  /** The next frame of a receiver, which keeps its buffers. */
  receive(receiver: number): Request | null {
    const { toGuest } = this.guests[receiver]!.driver;
    const frame = toGuest.receive();
    if (frame === null) return null;
    const { buffer } = toGuest.header;
    const header = netHeaderOf(...([...new Int32Array(buffer)] as [number, number, number]));
    return { frame, header };
  }

  /** Has a receiver offer so many of its free buffers. */
  offer(receiver: number, count: number): void {
    const { ring } = this.guests[receiver]!.driver.toGuest;
    for (let left = count; left > 0; left--) ring.offer(ring.takeId(), ring.bufferBytes, DESC_F_WRITE);
    ring.publish();
  }

  /** Sends frames that ask for nothing in one burst. */
  burst(receiver: number, ...sizes: number[]): void {
    this.guests[SENDER]!.driver.fromGuest.reclaim();
    for (const bytes of sizes) this.send(receiver, frameOf(bytes));
    this.turn(5);
  }

  fill(receiver: number): void {
    this.guests[receiver]!.driver.toGuest.fill();
  }

  /** Has a receiver take everything. */
  drain(receiver: number): Request[] {
    const received: Request[] = [];
    for (let idle = 0; idle < 200; idle++) {
      for (let got = this.receive(receiver); got !== null; got = this.receive(receiver)) {
        received.push(got);
        idle = 0;
      }
      this.fill(receiver);
      this.turn();
    }
    return received;
  }

  drops(receiver: number): number {
    return this.ports[receiver]!.counts[DROP.noBuffer]!;
  }

  close(): void {
    for (const { driver, device } of this.guests) {
      device.close();
      driver.memory.close();
    }
    this.#scratch.release();
  }
}

/** A frame that asks for nothing. */
function frameOf(sizeBytes: number): Request {
  const frame = new Uint8Array(sizeBytes).fill(0x5a);
  frame.set([0x88, 0xb5], 12);
  return { frame, header: ASKS_NOTHING };
}

/** What its receiver is to find, where a request needs no more to be known of it. */
function same({ frame, header }: Request, pushedBytes = 0): object {
  const { hdrLen, csumStart, ...rest } = header;
  return { frame: hex(frame), ...rest, csumStart: csumStart === 0 ? 0 : csumStart + pushedBytes };
}

describe.for(LAYOUT_KINDS)('frames to a guest that has no buffers for them (%s ring)', (layout) => {
  it('wait for it, in order, and short ones behind long ones', () => {
    world = new World(layout);
    const sizes = [40_000, 40_000, 40_000, 40_000, 60, 40_000, 60, 1500, 40_000];
    const sent = sizes.map((bytes) => world.send(1, frameOf(bytes)));
    world.turn(20);
    expect(world.forwarder.hasBacklogs).toBe(true);
    expect(world.guests[SENDER]!.driver.fromGuest.reclaim(), 'the sender waits').toBe(BUFFERS);
    expect(world.drain(1).map((got) => same(got))).toEqual(sent.map((one) => same(one)));
    expect(world.forwarder.hasBacklogs).toBe(false);
    expect([world.drops(1), world.ports[1]!.counts[COUNT_OFFERED]]).toEqual([0, sizes.length]);
  });

  it('do not when they are short: of those a ring holds enough', () => {
    world = new World(layout);
    for (let i = 0; i < BUFFERS - 4; i++) world.send(1, frameOf(60));
    world.turn();
    for (let i = 0; i < 10; i++) world.send(1, frameOf(LONG_FRAME_BYTES));
    world.turn();
    expect(world.forwarder.hasBacklogs).toBe(false);
    expect(world.drops(1)).toBe(9);
  });

  it.each(seeds(10))('ask for the same, and none is lost without a name (seed %i)', (seed) => {
    world = new World(layout);
    const random = new Random(seed);
    const isTagged = random.chance(50);
    if (isTagged) {
      const [sender, receiver] = world.ports;
      sender!.follow({
        ...DEFAULT_POLICY,
        takes: ALL_OFFLOADS,
        vlan: { ...DEFAULT_VLAN, mode: 'access', tag: 7 },
      });
      receiver!.follow({ ...DEFAULT_POLICY, takes: ALL_OFFLOADS });
    }
    const sent = new Map<string, Request>();
    const received: Request[] = [];
    const nameOf = ({ frame }: Request): string => hex(frame.subarray(8, 12));
    for (let step = 0; step < 300; step++) {
      for (let left = random.pick([0, 1, 3, 20]); left > 0; left--) {
        if (world.guests[SENDER]!.driver.fromGuest.reclaim() === 0) break;
        const one = random.chance(50) ? segmentRequest(random, 40) : frameOf(random.pick([60, 1500, 9000]));
        if (one.frame[12] === 0x81 || one.frame[12] === 0x88) one.frame.set([0x08, 0x06], 12);
        const isSane = one.header.flags === 0 || one.frame[12] !== 0x08 || one.frame[13] !== 0x06;
        if (!isSane) continue;
        const made = world.send(1, one);
        sent.set(nameOf(made), made);
      }
      world.turn();
      for (let left = random.pick([0, 0, 2, 30]); left > 0; left--) {
        const got = world.receive(1);
        if (got !== null) received.push(got);
      }
      if (random.chance(60)) world.fill(1);
    }
    received.push(...world.drain(1));
    const names = received.map(nameOf);
    expect(names).toEqual([...sent.keys()].filter((name) => names.includes(name)));
    for (const got of received) {
      const one = sent.get(nameOf(got))!;
      const frame = isTagged
        ? Uint8Array.from([...one.frame.subarray(0, 12), 0x81, 0, 0, 7, ...one.frame.subarray(12)])
        : one.frame;
      expect(same(got)).toEqual(same({ frame, header: one.header }, isTagged ? 4 : 0));
    }
    const { counts } = world.ports[1]!;
    const { badSegmentRequest, tooManySegments } = DROP;
    const refused =
      world.ports[SENDER]!.counts[badSegmentRequest]! + world.ports[SENDER]!.counts[tooManySegments]!;
    expect(refused).toBe(0);
    expect(counts[COUNT_OFFERED]).toBe(sent.size);
    expect(counts[DROP.noBuffer]! + counts[DROP.bufferTooSmall]!).toBe(sent.size - received.length);
    expect(counts[DROP.bufferTooSmall]).toBe(0);
  });

  it('are dropped when it has stopped taking frames, and wait again when it takes some', () => {
    world = new World(layout);
    for (let i = 0; i < 10; i++) world.send(1, frameOf(40_000));
    world.turn(20);
    const inRing = 3;
    expect(world.forwarder.hasBacklogs).toBe(true);
    for (const tick of [1, STALE_TICKS, 2 * STALE_TICKS]) {
      world.forwarder.nowTick = tick;
      world.turn(100);
    }
    expect(world.forwarder.hasBacklogs).toBe(false);
    expect(world.drops(1)).toBe(10 - inRing);
    world.send(1, frameOf(40_000));
    world.turn(20);
    expect(world.forwarder.hasBacklogs, 'of a guest that takes nothing').toBe(false);
    for (let i = 0; i < inRing; i++) expect(world.receive(1)).not.toBeNull();
    world.fill(1);
    for (let i = 0; i < 5; i++) world.send(1, frameOf(40_000));
    world.turn(20);
    expect(world.forwarder.hasBacklogs).toBe(true);
    expect(world.drain(1)).toHaveLength(5);
  });

  it('are dropped by the name of what lacks when its IOMMU translates nothing', () => {
    world = new World(layout, 1, { iommu: true });
    const { counts } = world.ports[1]!;
    world.burst(1, 60, 5000, 60);
    expect([counts[DROP.notTranslated], counts[DROP.noBuffer]]).toEqual([0, 0]);
    for (const tick of [1, STALE_TICKS, 2 * STALE_TICKS]) {
      world.forwarder.nowTick = tick;
      world.turn(100);
    }
    expect([counts[DROP.notTranslated], counts[DROP.noBuffer]]).toEqual([3, 0]);
    world.burst(1, 60, 5000);
    expect([counts[DROP.notTranslated], counts[DROP.noBuffer]]).toEqual([5, 0]);
    // Also those whose queue is closed.
    const { device } = world.guests[1]!;
    for (const miss of device.to.misses) device.translate(miss, ACCESS_WRITE);
    device.follow();
    world.burst(1, 60);
    device.iotlb.clear();
    device.follow();
    world.burst(1, 60);
    expect(world.forwarder.hasBacklogs).toBe(true);
    world.forwarder.forget(device.to);
    expect([counts[DROP.notTranslated], counts[DROP.noBuffer]]).toEqual([6, 0]);
  });

  it('are dropped when its queue is closed', () => {
    world = new World(layout);
    for (let i = 0; i < 10; i++) world.send(1, frameOf(40_000));
    world.turn(20);
    world.forwarder.forget(world.guests[1]!.device.to);
    expect(world.forwarder.hasBacklogs).toBe(false);
    expect(world.drops(1)).toBe(7);
    expect(world.drain(1)).toHaveLength(3);
  });

  it('are as many as their memory takes, of so many guests; others get theirs meanwhile', () => {
    const receivers = BACKLOGS_MAX + 2;
    world = new World(layout, receivers);
    for (let round = 0; round < 3; round++) {
      for (let to = 1; to < receivers; to++) {
        for (let i = 0; i < 6; i++) world.send(to, frameOf(60_000));
      }
      world.turn(300);
      world.send(receivers, frameOf(60_000));
      world.turn(20);
      expect(world.receive(receivers)?.frame.length).toBe(60_000);
      world.fill(receivers);
    }
    const lost = Array.from({ length: receivers - 1 }, (_, i) => world.drops(i + 1));
    // Two in the ring, the one that is to be given next, and eight in half a mebibyte; one guest has no backlog.
    const kept = 2 + 1 + 8;
    expect(lost.sort((a, b) => a - b)).toEqual([...Array(BACKLOGS_MAX).fill(18 - kept), 18 - 2]);
    for (let to = 1; to < receivers; to++) expect(world.drain(to).length).toBe(18 - world.drops(to));
    expect(world.forwarder.hasBacklogs).toBe(false);
  });

  it('wait as long as others although their guest has room for a part of one', () => {
    world = new World(layout);
    // 25 buffers each: two are placed, 14 buffers are left.
    world.burst(1, ...Array(8).fill(50_000));
    world.turn(60_000);
    expect(world.drain(1)).toHaveLength(8);
    expect(world.ports[1]!.counts[DROP.bufferTooSmall]).toBe(0);
  });

  it('wait in order also when they are short and take several buffers', () => {
    world = new World(layout);
    const sizes = [40_000, 40_000, 40_000, 9000, 3000, 60, 60];
    world.burst(1, ...sizes);
    world.turn(20);
    const got = [world.receive(1)!];
    // Four are left: with two more there are five for 9,000 bytes, and one for 3,000, which take two.
    world.offer(1, 2);
    world.turn(300);
    got.push(...world.drain(1));
    expect(got.map(({ frame }) => frame.length)).toEqual(sizes);
  });

  it('do not wait when the whole ring cannot hold them', () => {
    world = new World(layout, 1, { buffers: 16 });
    world.burst(1, 50_000, 60, 60);
    expect(world.forwarder.hasBacklogs).toBe(false);
    expect(world.drain(1).map(({ frame }) => frame.length)).toEqual([60, 60]);
    expect(world.ports[1]!.counts[DROP.bufferTooSmall]).toBe(1);
  });

  it('give way to those behind them after some time when their guest offers less than they need', () => {
    world = new World(layout);
    for (let taken = 0; taken < 3; taken++) world.burst(1, 40_000);
    while (world.receive(1) !== null);
    world.offer(1, 10);
    world.burst(1, 60_000, 60, 60);
    expect(world.receive(1)).toBeNull();
    for (const tick of [1, STALE_TICKS + 1]) {
      world.forwarder.nowTick = tick;
      world.turn(100);
    }
    expect([world.receive(1), world.receive(1)].map((got) => got?.frame.length)).toEqual([60, 60]);
    expect([world.drops(1), world.forwarder.hasBacklogs]).toEqual([1, false]);
  });

  it('take no others with them where there is no backlog for them', () => {
    world = new World(layout, BACKLOGS_MAX + 1);
    for (let to = 1; to <= BACKLOGS_MAX; to++) world.burst(to, 60_000, 60_000, 60_000);
    world.turn(300);
    world.burst(BACKLOGS_MAX + 1, 50_000, 50_000);
    world.turn(300);
    // 14 buffers are left.
    world.burst(BACKLOGS_MAX + 1, 50_000, ...Array(10).fill(60));
    expect(world.drops(BACKLOGS_MAX + 1)).toBe(1);
  });

  it('are helped again as soon as a guest that had stopped takes a short one', () => {
    world = new World(layout);
    world.burst(1, 50_000, 50_000, 50_000);
    for (const tick of [1, STALE_TICKS + 1]) {
      world.forwarder.nowTick = tick;
      world.turn(100);
    }
    expect(world.drops(1)).toBe(1);
    world.burst(1, 50_000, 60, 60);
    expect([world.drops(1), world.forwarder.hasBacklogs]).toEqual([2, false]);
    world.burst(1, 50_000, 60, 60);
    expect(world.forwarder.hasBacklogs).toBe(true);
    expect(world.drain(1).map(({ frame }) => frame.length)).toEqual([50_000, 50_000, 60, 60, 50_000, 60, 60]);
  });

  it('do not reach a port that has left their VLAN, and none whose MTU or offloads were lowered', () => {
    const vlan = (tag: number) => ({ ...DEFAULT_VLAN, mode: 'access', tag }) as const;
    const before = { ...DEFAULT_POLICY, takes: ALL_OFFLOADS, vlan: vlan(7) };
    for (const after of [{ vlan: vlan(8) }, { takes: 0 }, { mtu: 1500 }, { linkMtu: 1500 }]) {
      world = new World(layout);
      for (const port of world.ports) world.forwarder.follow(port, before);
      world.burst(1, ...Array(6).fill(40_000));
      world.turn(20);
      world.forwarder.follow(world.ports[1]!, { ...before, floods: false });
      expect(world.forwarder.hasBacklogs).toBe(true);
      world.forwarder.follow(world.ports[1]!, { ...before, ...after });
      expect(world.drain(1), 'what was in the ring').toHaveLength(3);
      expect(world.drops(1)).toBe(3);
      if (after !== null && 'linkMtu' in after) break;
      world.close();
    }
  });

  it('do not wait for a port that is mirrored: a mirror shows what was placed', () => {
    world = new World(layout, 2);
    world.forwarder.follow(world.ports[2]!, { ...DEFAULT_POLICY, takes: ALL_OFFLOADS, copiesOf: [] });
    world.burst(1, 40_000, 40_000, 40_000, 40_000);
    world.turn(20);
    expect(world.forwarder.hasBacklogs).toBe(true);
    world.forwarder.setCopies(2, [1]);
    expect([world.forwarder.hasBacklogs, world.drops(1)]).toEqual([false, 1]);
    world.burst(1, 40_000);
    expect([world.forwarder.hasBacklogs, world.drops(1)]).toEqual([false, 2]);
    expect(world.receive(2)).toBeNull();
  });

  it('are placed with one shared ring held at a time', () => {
    world = new World(layout, BACKLOGS_MAX, { isShared: true });
    for (let to = 1; to <= BACKLOGS_MAX; to++) world.burst(to, 60_000, 60_000, 60_000);
    world.turn(300);
    const queues = world.ports.map((port) => port.queues[0]!);
    let held = 0;
    for (const queue of queues.slice(1)) {
      const place = queue.place.bind(queue);
      queue.place = (batch, order, count) => {
        held = Math.max(held, queues.filter(({ open }) => open).length);
        place(batch, order, count);
      };
    }
    world.turn(100);
    expect(held).toBe(1);
  });
});
