/**
 * Bursts through the forwarder between real rings, split and packed, against the naive rings (test/vring) and the naive
 * switch: guests' memories must be the same byte by byte, so what each guest receives and the used lengths with it,
 * and counters, drops and books must agree. Guests keep to the rules here; forwarder-hostile.test.ts has the others.
 */
import { afterAll, describe, expect, it } from 'vitest';
import type { DriverRing } from '../../../src/frontend/driver-ring.ts';
import { DEFAULT_POLICY, DEFAULT_VLAN, type VlanPolicy } from '../../../src/queue/policy.ts';
import { COUNT_BYTES, COUNT_CALLS, COUNT_FRAMES } from '../../../src/queue/state.ts';
import type { RingLayoutKind } from '../../../src/vring/attachment.ts';
import { FromGuest } from '../../../src/vring/from-guest.ts';
import { ToGuest } from '../../../src/vring/to-guest.ts';
import type { DropReason } from '../../../switch/l2/drop-reasons.ts';
import { createFdbMemory, Fdb } from '../../../switch/l2/fdb/fdb.ts';
import { Forwarder } from '../../../switch/l2/forwarder.ts';
import { NaivePackedRing } from '../../vring/naive-packed-ring.ts';
import type { NaiveRing, NaiveRingOptions } from '../../vring/naive-ring.ts';
import { NaiveSplitRing } from '../../vring/naive-split-ring.ts';
import { Random } from '../../vring/random.ts';
import { booksOfPort, imbalancesOf } from './conservation.ts';
import { arena, arenaView, SCRATCH_OFFSET } from './frames.ts';
import { NaiveSwitch } from './naive-switch.ts';
import { bytesBesideTags } from './naive-vlan.ts';
import { randomTagged, randomVlan } from './random-vlans.ts';
import {
  GuestDriver,
  type GuestPlan,
  GuestPort,
  randomBufferShape,
  randomGuestFrame,
  randomGuestPlan,
  randomSendShape,
} from './ring-guests.ts';

const STEPS = 30;
const BURST_FRAMES_MAX = 64;
const FRAME_BYTES_MIN = 14;

afterAll(() => arena.release());

const NAIVE_RINGS: Readonly<Record<RingLayoutKind, (options: NaiveRingOptions) => NaiveRing>> = {
  split: (options) => new NaiveSplitRing(options),
  packed: (options) => new NaivePackedRing(options),
};

const NAMES = { noBuffer: 'noBuffer', tooSmall: 'bufferTooSmall', done: null } as const;

/** One guest as the twin serves it. */
class TwinPort {
  readonly from: NaiveRing;
  readonly to: NaiveRing;
  /** Bytes of the frames that could be forwarded. */
  fromBytes = 0;

  constructor({ memory, toGuest, fromGuest }: GuestDriver, plan: GuestPlan) {
    const naive = ({ layout }: DriverRing): NaiveRing =>
      NAIVE_RINGS[plan.layout]({
        ...plan,
        file: memory.u8,
        regions: memory.regions,
        descGpa: BigInt(memory.gpaOf(layout.descOffset)),
        driverGpa: BigInt(memory.gpaOf(layout.driverOffset)),
        deviceGpa: BigInt(memory.gpaOf(layout.deviceOffset)),
      });
    this.to = naive(toGuest.ring);
    this.from = naive(fromGuest.ring);
  }
}

/** Both worlds, and the guests' drivers in each, which do the same. */
class Worlds {
  readonly plans: GuestPlan[];
  readonly drivers: (readonly [ours: GuestDriver, twins: GuestDriver])[];
  readonly ports: GuestPort[];
  readonly twins: TwinPort[];
  readonly fdb = new Fdb(createFdbMemory({ capacity: 4096, maxPorts: 16, seed: [1, 2] }));
  readonly forwarder: Forwarder;
  readonly naive: NaiveSwitch;
  readonly hasVlans: boolean;
  framesReceived = 0;
  readonly #random: Random;

  constructor(random: Random, layouts: readonly RingLayoutKind[], hasVlans: boolean) {
    this.#random = random;
    this.hasVlans = hasVlans;
    const vlanLimit = hasVlans ? random.pick([1, 2]) : 1;
    const failed = ({ portId, fault }: { portId: number; fault: number }): never => {
      throw new Error(`a queue of port ${portId} stopped with fault ${fault}`);
    };
    this.forwarder = new Forwarder(arenaView, this.fdb, failed, SCRATCH_OFFSET, vlanLimit);
    this.plans = layouts.map((layout) => randomGuestPlan(random, layout));
    this.drivers = this.plans.map((plan) => {
      // Two sources of the same shapes.
      const seed = random.next();
      const make = (): GuestDriver => {
        const shapes = new Random(seed);
        return new GuestDriver(plan, () => randomBufferShape(shapes, plan));
      };
      return [make(), make()];
    });
    const vlans = new Map<number, VlanPolicy>();
    this.ports = this.drivers.map(([driver], id) => {
      const port = new GuestPort(id, driver, this.plans[id], {
        from: (ring) => new FromGuest(arenaView, ring),
        to: (ring) => new ToGuest(arenaView, ring, random.chance(50)),
      });
      const vlan = this.hasVlans ? randomVlan(random) : DEFAULT_VLAN;
      port.state.follow({ ...DEFAULT_POLICY, mtu: random.pick([1000, 2000]) - 14, vlan });
      vlans.set(id, vlan);
      this.forwarder.addPort(port.state);
      return port;
    });
    this.twins = this.drivers.map(([, driver], id) => new TwinPort(driver, this.plans[id]));
    this.naive = new NaiveSwitch(layouts.length, {
      place: (port, frame) => this.#placeNaively(port, frame),
      placeCopy: () => null,
    });
    for (const [id, vlan] of vlans) this.naive.vlans.set(id, vlan);
    this.naive.vlanLimit = vlanLimit;
  }

  /** Guests receive what came, offer buffers, and send. */
  drive(): void {
    const random = this.#random;
    for (const [id, both] of this.drivers.entries()) {
      const offers = random.chance(70);
      const [ours, twins] = both.map(({ toGuest }) => {
        const frames: Uint8Array[] = [];
        for (let frame = toGuest.receive(); frame !== null; frame = toGuest.receive()) frames.push(frame);
        if (offers) toGuest.fill();
        return frames;
      });
      expect(ours, `guest ${id}`).toEqual(twins);
      this.framesReceived += ours.length;
      for (let count = random.pick([0, 1, 10, 70]); count > 0; count--) {
        const plain = randomGuestFrame(random, this.drivers.length, id);
        const frame = this.hasVlans ? tagged(random, plain) : plain;
        const shape = randomSendShape(random, this.plans[id], frame.length);
        for (const { fromGuest } of both) fromGuest.post(frame, shape);
      }
      for (const { fromGuest } of both) fromGuest.flush();
    }
  }

  /** One burst of a guest, in both worlds. */
  forward(id: number): void {
    const taken = this.forwarder.forwardBurst(this.ports[id].from);
    const { from } = this.twins[id];
    const frames: Uint8Array[] = [];
    // Ringway looks for more only when it has taken all that it knows of; the twin takes as many.
    const waiting = from.waiting();
    expect(taken).toBeLessThanOrEqual(Math.min(BURST_FRAMES_MAX, waiting));
    expect(taken === 0).toBe(waiting === 0);
    for (let i = 0; i < taken; i++) {
      const frame = from.take();
      if (frame.length >= FRAME_BYTES_MIN) frames.push(frame);
      else this.naive.count(id, 'tooShort');
    }
    this.twins[id].fromBytes += frames.reduce((sum, { length }) => sum + length, 0);
    this.naive.burst(id, frames);
    for (const { to } of this.twins) to.publish();
    from.publish();
  }

  compare(): void {
    expect(imbalancesOf(this.ports)).toEqual([]);
    for (const [id, both] of this.drivers.entries()) {
      const { from, to } = this.ports[id];
      const twin = this.twins[id];
      expect(countsOf(from), `from ${id}`).toEqual([twin.from.frames, twin.fromBytes, twin.from.signals]);
      expect(countsOf(to), `to ${id}`).toEqual([twin.to.frames, twin.to.bytes, twin.to.signals]);
      const drops = Object.entries(booksOfPort(this.ports[id]).drops).filter(([, count]) => count !== 0);
      expect(Object.fromEntries(drops)).toEqual(this.naive.drops[id]);
      const [our, twins] = both.map((driver) => comparable(driver, this.plans[id]));
      if (our.equals(twins)) continue;
      const at = our.findIndex((byte, i) => byte !== twins[i]);
      expect.fail(`guest ${id} has byte ${at} otherwise (${JSON.stringify(this.plans[id])})`);
    }
  }

  close(): void {
    for (const port of this.ports) port.close();
    for (const both of this.drivers) for (const driver of both) driver.close();
  }

  #placeNaively(port: number, frame: Uint8Array): DropReason | null {
    if (bytesBesideTags(frame) > this.ports[port].state.frameBytesMax) return 'overMtu';
    return NAMES[this.twins[port].to.give(frame)];
  }
}

/** The frame with VLAN tags, or with none, now and then cut off within them. */
function tagged(random: Random, frame: Uint8Array): Uint8Array {
  const bytes = [...frame.subarray(0, 12), ...randomTagged(random, 5), ...frame.subarray(12)];
  return Uint8Array.from(random.chance(10) ? bytes.slice(0, random.between(14, 26)) : bytes);
}

function countsOf({ state: { counts } }: FromGuest | ToGuest): number[] {
  return [counts[COUNT_FRAMES], counts[COUNT_BYTES], counts[COUNT_CALLS]];
}

/**
 * A guest's memory without what means nothing to it: the length of a used descriptor to which nothing was written, and
 * in order the used entries before the last one of a burst, which the twin leaves out and Ringway does not.
 */
function comparable(
  { memory, fromGuest: { ring } }: GuestDriver,
  { layout, inOrder, size }: GuestPlan,
): Buffer {
  const bytes = Buffer.from(memory.u8);
  const { descOffset, deviceOffset } = ring.layout;
  const lengths = layout === 'packed' ? size : 0;
  for (let i = 0; i < lengths; i++) bytes.writeUInt32LE(0, descOffset + 16 * i + 8);
  if (layout === 'split' && inOrder) bytes.fill(0, deviceOffset + 4, deviceOffset + 4 + 8 * size);
  return bytes;
}

const LAYOUTS: readonly RingLayoutKind[] = ['split', 'packed'];
const PAIRS = LAYOUTS.flatMap((one) => LAYOUTS.map((two) => [one, two] as const));
const CASES = PAIRS.flatMap(([one, two]) =>
  [2, 3, 8].flatMap((guests) =>
    [1, 2, 3, 4, 5, 6].map((seed) => ({ one, two, guests, seed, hasVlans: seed > 3 })),
  ),
);

describe('between real rings', () => {
  let framesReceived = 0;

  it.each(CASES)(
    '$guests guests, $one and $two, get what the twin gives (seed $seed, VLANs: $hasVlans)',
    ({ one, two, guests, seed, hasVlans }) => {
      const random = new Random(seed * 100 + guests);
      const layouts = Array.from({ length: guests }, (_, id) => [one, two][id % 2]);
      const worlds = new Worlds(random, layouts, hasVlans);
      for (let step = 0; step < STEPS; step++) {
        worlds.drive();
        for (let burst = 0; burst < 2 * guests; burst++) worlds.forward(random.between(0, guests - 1));
        worlds.compare();
      }
      framesReceived += worlds.framesReceived;
      worlds.close();
    },
  );

  it('and it was many', () => expect(framesReceived).toBeGreaterThan(10_000));
});
