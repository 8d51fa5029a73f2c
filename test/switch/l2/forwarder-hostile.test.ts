/**
 * Bursts through the forwarder between rings of guests that write anything anywhere between two bursts and in the
 * middle of one. The twin has the same rings, but without the layouts' tight loops (split/, packed/): every chain
 * takes the general way, and a naive switch places frame by frame. Both must leave the same memories, counters, drops
 * and faults, so what the tight loops check and write is what the general way does; and the books must balance.
 */
import { afterAll, describe, expect, it } from 'vitest';
import { DeviceError } from '../../../src/frontend/driver-layout.ts';
import { BATCH_FRAMES_MAX, Batch } from '../../../src/queue/batch.ts';
import { readHeads } from '../../../src/queue/heads.ts';
import { COUNT_FRAMES, QueueState, STATE_WORK_SPENT } from '../../../src/queue/state.ts';
import type { RingAttachment, RingLayoutKind } from '../../../src/vring/attachment.ts';
import { FromGuest } from '../../../src/vring/from-guest.ts';
import { ToGuest } from '../../../src/vring/to-guest.ts';
import type { DropReason } from '../../../switch/l2/drop-reasons.ts';
import { createFdbMemory, Fdb } from '../../../switch/l2/fdb/fdb.ts';
import { Forwarder } from '../../../switch/l2/forwarder.ts';
import { Random, seeds } from '../../vring/random.ts';
import { booksOfPort, imbalancesOf } from './conservation.ts';
import { arena, arenaView, placedBytesOfFrame, SCRATCH_OFFSET } from './frames.ts';
import { NaiveSwitch } from './naive-switch.ts';
import {
  GuestDriver,
  type GuestPlan,
  GuestPort,
  randomBufferShape,
  randomGuestFrame,
  randomGuestPlan,
  randomSendShape,
} from './ring-guests.ts';

const STEPS = 25;
const REFUSALS: readonly (DropReason | null)[] = [null, 'noBuffer', 'bufferTooSmall', 'queueStopped'];

afterAll(() => arena.release());

/** What a guest writes to its memory; the same in both worlds. */
type Write = { readonly guest: number; readonly at: number; readonly bytes: Uint8Array };

/** When the guests write in the middle of a burst: after it was described, and after its addresses were read. */
class Moments {
  gathered: readonly Write[] = [];
  decided: readonly Write[] = [];
  readonly #drivers: readonly GuestDriver[];

  constructor(drivers: readonly GuestDriver[]) {
    this.#drivers = drivers;
  }

  afterGather(): void {
    this.#write(this.gathered);
    this.gathered = [];
  }

  beforePlacing(): void {
    this.#write(this.decided);
    this.decided = [];
  }

  #write(writes: readonly Write[]): void {
    for (const { guest, at, bytes } of writes) this.#drivers[guest].memory.u8.set(bytes, at);
  }
}

class OurFromGuest extends FromGuest {
  readonly #moments: Moments;

  constructor(ring: RingAttachment, moments: Moments) {
    super(arenaView, ring);
    this.#moments = moments;
  }

  override gather(batch: Batch): number {
    const taken = super.gather(batch);
    this.#moments.afterGather();
    return taken;
  }

  override finish(): void {
    // Nothing was placed.
    this.#moments.beforePlacing();
    super.finish();
  }
}

class OurToGuest extends ToGuest {
  readonly #moments: Moments;

  constructor(ring: RingAttachment, moments: Moments) {
    super(arenaView, ring, false);
    this.#moments = moments;
  }

  override tryBegin(): boolean {
    this.#moments.beforePlacing();
    return super.tryBegin();
  }
}

/** Takes every chain the general way. */
class GeneralFromGuest extends OurFromGuest {
  constructor(ring: RingAttachment, moments: Moments) {
    super(ring, moments);
    const { layout } = this;
    layout.gatherPlain = (from, batch) => {
      let taken = 0;
      // As many as were there at the first look.
      const waiting = ring.layout === 'split' ? layout.waiting() : BATCH_FRAMES_MAX;
      while (taken < Math.min(waiting, BATCH_FRAMES_MAX) && from.hasWaiting() && from.takeChain(batch))
        taken++;
      return taken;
    };
  }
}

class GeneralToGuest extends OurToGuest {
  constructor(ring: RingAttachment, moments: Moments) {
    super(ring, moments);
    this.layout.placePlain = (_to, _batch, _order, from) => from;
  }
}

/** One side of the comparison: guests, their rings as it serves them. */
class World {
  readonly drivers: GuestDriver[];
  readonly moments: Moments;
  readonly ports: GuestPort[];

  constructor(
    plans: readonly GuestPlan[],
    shapes: Random,
    frameBytesMax: number,
    From: new (ring: RingAttachment, moments: Moments) => OurFromGuest,
    To: new (ring: RingAttachment, moments: Moments) => OurToGuest,
  ) {
    this.drivers = plans.map((plan) => new GuestDriver(plan, () => randomBufferShape(shapes, plan)));
    this.moments = new Moments(this.drivers);
    this.ports = plans.map((plan, id) => {
      const port = new GuestPort(id, this.drivers[id], plan, {
        from: (ring) => new From(ring, this.moments),
        to: (ring) => new To(ring, this.moments),
      });
      port.state.frameBytesMax = frameBytesMax;
      return port;
    });
  }

  close(): void {
    for (const port of this.ports) port.close();
    for (const driver of this.drivers) driver.close();
  }
}

/** Serves the twin's rings: one frame at a time, whose targets the naive switch knows. */
class FrameByFrame {
  readonly naive: NaiveSwitch;
  readonly #world: World;
  readonly #batch = new Batch();
  readonly #one = new Int32Array(1);
  /** Frame of the batch that holds these bytes. */
  #frames: Uint8Array[] = [];

  constructor(world: World) {
    this.#world = world;
    this.naive = new NaiveSwitch(world.ports.length, {
      place: (port, frame) => this.#place(port, this.#frames.indexOf(frame)),
      placeCopy: () => null,
    });
  }

  forwardBurst(id: number): number {
    const { ports, moments } = this.#world;
    const { from } = ports[id];
    const batch = this.#batch;
    const taken = from.gather(batch);
    if (taken === 0) return 0;
    if (batch.count > 0) readHeads(batch, arenaView.windows);
    // Only the addresses count here; the bytes are copied when they are placed.
    this.#frames = Array.from({ length: batch.count }, (_, frame) => placedBytesOfFrame(batch, frame));
    for (const name of ['tooLong', 'tooShort', 'tooScattered'] as const) {
      for (let i = 0; i < batch[name]; i++) this.naive.count(id, name);
    }
    moments.beforePlacing();
    this.naive.burst(id, this.#frames);
    for (const { to } of ports) if (to.open) to.end();
    from.finish();
    return taken;
  }

  #place(port: number, frame: number): DropReason | null {
    const { state, to } = this.#world.ports[port];
    const batch = this.#batch;
    if (batch.bytesOf(frame) > state.frameBytesMax) return 'overMtu';
    if (!to.open) to.begin();
    batch.refusedCount = 0;
    this.#one[0] = frame;
    to.place(batch, this.#one, 1);
    return REFUSALS[batch.refusedCount === 0 ? 0 : batch.refusedWhy[0]];
  }
}

/** What a guest may write where it does harm: a descriptor's fields, an index, flags, a frame's bytes. */
function randomWrite(random: Random, guest: number, { memory, toGuest, fromGuest }: GuestDriver): Write {
  const { layout, size, bufferOffsets } = random.pick([toGuest, fromGuest]).ring;
  const slot = random.between(0, size - 1);
  const desc = layout.descOffset + 16 * slot;
  const { driverOffset, deviceOffset } = layout;
  const u16 = (value: number): Uint8Array => Uint8Array.of(value & 0xff, (value >> 8) & 0xff);
  const at16 = (at: number): number => memory.u8[at] | (memory.u8[at + 1] << 8);
  const near = (at: number): Omit<Write, 'guest'> => ({ at, bytes: u16(at16(at) + random.between(-3, 3)) });
  const flipped = (at: number): Omit<Write, 'guest'> => ({
    at,
    bytes: u16(at16(at) ^ (1 << random.pick([0, 1, 2, 7, 15]))),
  });
  const writes: readonly (() => Omit<Write, 'guest'>)[] = [
    () => ({ at: bufferOffsets[slot] + random.between(0, 40), bytes: random.bytes(random.between(1, 8)) }),
    // Length: none, a short one, too much.
    () => ({ at: desc + 8, bytes: u16(random.pick([0, 5, 11, 12, 25, 26, 70, 100, 1600, 60_000])) }),
    () => ({ at: desc + 10, bytes: u16(random.pick([1, 0x7fff, 0x8000])) }),
    // Address: off by some bytes, or somewhere else.
    () => near(desc),
    () => ({ at: desc + random.between(2, 7), bytes: random.bytes(1) }),
    // Flags, and next or id beside them; which comes first depends on the layout.
    () => flipped(desc + random.pick([12, 14])),
    () => near(desc + random.pick([12, 14])),
    // The driver's area: flags, index, entries; and the device's.
    () => near(driverOffset + random.pick([0, 2, 4])),
    () => ({ at: driverOffset + 2, bytes: u16(random.between(0, 65_535)) }),
    () => ({ at: deviceOffset + random.between(0, 3), bytes: random.bytes(1) }),
  ];
  return { guest, ...random.pick(writes)() };
}

/** A driver that was confused by what its own guest wrote; it does no more. */
function isLost(error: unknown): boolean {
  return error instanceof DeviceError || error instanceof RangeError;
}

class Duel {
  readonly ours: World;
  readonly twins: World;
  readonly twin: FrameByFrame;
  readonly #random: Random;
  readonly #plans: GuestPlan[];
  readonly #forwarder: Forwarder;
  readonly #lost = new Set<number>();

  constructor(random: Random, layouts: readonly RingLayoutKind[]) {
    this.#random = random;
    this.#plans = layouts.map((layout) => randomGuestPlan(random, layout));
    const frameBytesMax = random.pick([1000, 2000]);
    this.ours = new World(this.#plans, random, frameBytesMax, OurFromGuest, OurToGuest);
    this.twins = new World(this.#plans, random, frameBytesMax, GeneralFromGuest, GeneralToGuest);
    this.twin = new FrameByFrame(this.twins);
    const fdb = new Fdb(createFdbMemory({ capacity: 4096, maxPorts: 16, seed: [1, 2] }));
    this.#forwarder = new Forwarder(arenaView, fdb, () => {}, SCRATCH_OFFSET);
    for (const { state } of this.ours.ports) this.#forwarder.addPort(state);
  }

  /** The drivers of one world act, guests write what they like, and the other world's memories become the same. */
  drive(): void {
    for (const [id, driver] of this.ours.drivers.entries()) {
      if (!this.#lost.has(id)) this.#act(id, driver);
      const write = randomWrite(this.#random, id, driver);
      if (this.#random.chance(10)) driver.memory.u8.set(write.bytes, write.at);
      this.twins.drivers[id].memory.u8.set(driver.memory.u8);
    }
  }

  #act(id: number, { toGuest, fromGuest }: GuestDriver): void {
    const random = this.#random;
    try {
      while (toGuest.receive() !== null);
      toGuest.fill();
      for (let count = random.pick([0, 1, 10, 70]); count > 0; count--) {
        const frame = randomGuestFrame(random, this.#plans.length, id);
        fromGuest.post(frame, randomSendShape(random, this.#plans[id], frame.length));
      }
      fromGuest.flush();
    } catch (error) {
      if (!isLost(error)) throw error;
      this.#lost.add(id);
    }
  }

  /** One burst of a guest in both worlds, with the same writes in the middle of it. */
  forward(id: number): void {
    const writes = (): Write[] =>
      this.ours.drivers.flatMap((driver, guest) =>
        this.#random.chance(2) ? [randomWrite(this.#random, guest, driver)] : [],
      );
    const [gathered, decided] = [writes(), writes()];
    for (const { moments } of [this.ours, this.twins]) Object.assign(moments, { gathered, decided });
    const taken = this.#forwarder.forwardBurst(this.ours.ports[id].from);
    expect(this.twin.forwardBurst(id)).toBe(taken);
    for (const { moments } of [this.ours, this.twins]) moments.beforePlacing();
  }

  compare(): void {
    expect(imbalancesOf(this.ours.ports)).toEqual([]);
    for (const [id, port] of this.ours.ports.entries()) {
      const twins = this.twins.ports[id];
      expect([port.from.fault, port.to.fault], `faults of ${id}`).toEqual([twins.from.fault, twins.to.fault]);
      for (const queueIndex of [0, 1]) {
        const [ourState, twinState] = [port, twins].map(({ states }) => new QueueState(states, queueIndex));
        // The ways differ in what they count as work.
        for (const { words } of [ourState, twinState]) words[STATE_WORK_SPENT] = 0;
        expect([...ourState.words], `state of ${id}.${queueIndex}`).toEqual([...twinState.words]);
        expect([...ourState.counts], `counts of ${id}.${queueIndex}`).toEqual([...twinState.counts]);
      }
      const drops = Object.entries(booksOfPort(port).drops).filter(([, count]) => count !== 0);
      expect(Object.fromEntries(drops), `drops of ${id}`).toEqual(this.twin.naive.drops[id]);
      const [ourBytes, twinBytes] = [this.ours, this.twins].map(({ drivers }) => drivers[id].memory.u8);
      if (Buffer.compare(ourBytes, twinBytes) === 0) continue;
      const at = ourBytes.findIndex((byte, i) => byte !== twinBytes[i]);
      expect.fail(`guest ${id} has byte ${at} otherwise (${JSON.stringify(this.#plans[id])})`);
    }
  }

  close(): void {
    this.ours.close();
    this.twins.close();
  }
}

const LAYOUTS: readonly RingLayoutKind[] = ['split', 'packed'];

describe('guests that write anything', () => {
  const faults = new Set<number>();
  let frames = 0;

  it.each(seeds(80))('are served as the general way serves them (seed %i)', (seed) => {
    const random = new Random(seed);
    const layouts = Array.from({ length: random.pick([2, 3, 8]) }, () => random.pick(LAYOUTS));
    const duel = new Duel(random, layouts);
    for (let step = 0; step < STEPS; step++) {
      duel.drive();
      for (let burst = 0; burst < 2 * layouts.length; burst++) {
        duel.forward(random.between(0, layouts.length - 1));
        duel.compare();
      }
    }
    for (const { from, to } of duel.ours.ports) {
      for (const { fault } of [from, to]) faults.add(fault);
      frames += to.state.counts[COUNT_FRAMES];
    }
    duel.close();
  });

  it('and had most faults that there are, and frames all the same', () => {
    expect(faults.size).toBeGreaterThanOrEqual(8);
    expect(frames).toBeGreaterThan(10_000);
  });
});
