/**
 * A guest in qtest mode that goes from one QEMU to another and back, between two Ringways, under frames of random shape,
 * and what its back-end writes to its memory meanwhile. QEMU's own log of dirty pages is held against a comparison of all
 * of the guest's memory, step by step; then, after QEMU has taken that log and copied, the memories of both machines are
 * compared. No page may be missing. The long form, 10^6 frames a layout: RINGWAY_SEARCH=10.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { maskOf } from '../../protocol/bits.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import { EmbeddedGuest } from '../../src/frontend/index.ts';
import { ChangedPages, differingPages } from '../memory/changed-pages.ts';
import { peersForTests } from '../peers/index.ts';
import {
  NET_DRIVER_FEATURES,
  type NetDriver,
  type NetDriverChoice,
  type NicOptions,
  PciCard,
  QtestGuest,
  QtestMachine,
} from '../peers/qtest/index.ts';
import { Random } from '../vring/random.ts';
import { randomPieces, randomReceiveShape } from '../vring/random-rings.ts';
import { RingwayProcess } from './ringway-process.ts';
import { VhostLog } from './vhost-log.ts';

const peers = await peersForTests(['qemu']);
const SEARCH = Number(process.env.RINGWAY_SEARCH ?? 1);
/** RINGWAY_SEARCH=10: forty migrations of 25,000 frames each. */
const ROUNDS = SEARCH > 1 ? Math.round(4 * SEARCH) : 2;
const FRAMES_OF_ROUND = SEARCH > 1 ? 25_000 : 2000;
const LAYOUTS = ['split', 'packed'] as const;
/** After so many of a hundred steps. */
const EXCHANGES_PERCENT = 3;

const MEMORY_MIB = 24;
const PAGE_BYTES = 4096;
const FRAME_BYTES_MAX = 3500;
const HEADERS_BYTES = 14;
const BROADCAST = Uint8Array.of(255, 255, 255, 255, 255, 255);
const F = VIRTIO_FEATURE;
const without = (...bits: number[]): bigint => NET_DRIVER_FEATURES & ~maskOf(...bits);
const FEATURE_SETS = [
  NET_DRIVER_FEATURES,
  without(F.EVENT_IDX),
  without(F.NET_MRG_RXBUF),
  without(F.INDIRECT_DESC, F.EVENT_IDX),
];

/** So slow that its first pass over all memory takes some minutes: the log is left alone as long. */
const STANDING_BYTES_PER_SECOND = 300;
/** A pass over what the processor writes (BUSY_BYTES) takes half a second. */
const FAST_BYTES_PER_SECOND = 16 * 2 ** 20;
/** QEMU stops the guest when less is left than it copies in this time: here 8 pages. */
const DOWNTIME_MS = 1;
/** What the processor writes to again and again, so that QEMU goes on and on. */
const BUSY_BYTES = 8 * 2 ** 20;
/** A busy machine lets QEMU make a pass in some seconds. */
const DEADLINE_MS = 120_000;
const MIGRATION_TIMEOUT_MS = 400_000;
/** On a machine that was held up; then there was nothing to look at, and it begins anew. */
const TOO_EARLY = 'QEMU has stopped the guest too early';
const AGAIN = { count: 2, condition: new RegExp(TOO_EARLY) };

/** A card with memory of its own: where it lies decides how long QEMU's log is, which it exchanges for another one then. */
const SHARED_SLOT = 20;
const SHARED_BAR = 2;
const SHARED_ARGS = [
  ...['-object', 'memory-backend-memfd,id=shared,size=1M,share=on'],
  ...['-device', `ivshmem-plain,memdev=shared,master=on,addr=0x${SHARED_SLOT.toString(16)}`],
];
const SHARED_GPAS = [0xb000_0000, 0xe150_0000];

class World {
  readonly random: Random;
  readonly layout: (typeof LAYOUTS)[number];
  readonly ringways: readonly RingwayProcess[];
  readonly stations: readonly EmbeddedGuest[];
  readonly guest: QtestGuest;
  readonly #shared: PciCard;
  readonly #busyGpa: number;
  /** Which Ringway the guest is at. */
  at = 0;
  frames = 0;
  dropped = 0;
  logs = 0;
  marked = 0;
  /** Where `enable` puts it. */
  #sharedAt = 1;
  #number = 0;

  private constructor(
    layout: (typeof LAYOUTS)[number],
    parts: Pick<World, 'ringways' | 'stations' | 'guest'>,
    shared: PciCard,
  ) {
    this.layout = layout;
    this.random = new Random(LAYOUTS.indexOf(layout));
    this.ringways = parts.ringways;
    this.stations = parts.stations;
    this.guest = parts.guest;
    this.#shared = shared;
    this.#busyGpa = this.guest.memory.gpaOf(this.guest.memory.allocate(BUSY_BYTES, PAGE_BYTES));
  }

  static async start(layout: (typeof LAYOUTS)[number]): Promise<World> {
    const ringways = await Promise.all(
      [0, 1].map(() => RingwayProcess.start({ ports: ['station', 'guest'] })),
    );
    const stations = await Promise.all(
      ringways.map((ringway, i) =>
        EmbeddedGuest.connect({
          socketPath: ringway.socket('station'),
          mac: `52:54:00:00:01:0${i}`,
          bufferBytes: 4096,
          waitMs: DEADLINE_MS,
        }),
      ),
    );
    const guest = await QtestGuest.start(machineOptions(ringways[0], []));
    const shared = await PciCard.at(guest, SHARED_SLOT);
    if (shared === null) throw new Error('the card with memory is not there');
    await shared.enable();
    return new World(layout, { ringways, stations, guest }, shared);
  }

  get driver(): NetDriver {
    return this.guest.nic('nic');
  }

  get station(): EmbeddedGuest {
    return this.stations[this.at];
  }

  /** A driver of other features, whose buffers have other shapes. */
  async beginAnew(): Promise<void> {
    const { random, driver } = this;
    const features = random.pick(FEATURE_SETS);
    const bufferBytes = 4096;
    const choice: NetDriverChoice = { features, layout: this.layout, bufferBytes };
    await driver.initialise({
      ...choice,
      receiveShape: randomReceiveShape(random, {
        ...{ layout: this.layout, inOrder: false, size: 256, base: 0, memory: 0, bufferBytes },
        ...{ eventIdx: false, headerBytes: 12, mergeable: (features & maskOf(F.NET_MRG_RXBUF)) !== 0n },
        indirect: (features & maskOf(F.INDIRECT_DESC)) !== 0n,
      }),
    });
    await this.ringways[this.at].untilState('guest', 'running', 1);
    // Both addresses are learned, and both rings have been used.
    driver.pairs[0].send(this.#frame(driver.mac, BROADCAST));
    this.station.send(this.#frame(this.station.mac, BROADCAST));
    await this.quiet();
    this.drain();
  }

  /** Sends random frames to the guest; answers how many. The guest's driver does nothing. */
  toGuest(framesMax: number): number {
    const { random, station, driver } = this;
    let count = 0;
    while (count < framesMax) {
      const frame = this.#frame(station.mac, driver.mac);
      if (!station.pairs[0].send(frame, this.#cut(frame, 12, true))) break;
      count++;
      if (random.chance(5)) break;
    }
    this.frames += count;
    return count;
  }

  /** Offers random frames from the guest, which the device sees after `flush`. */
  post(framesMax: number): void {
    const { fromGuest } = this.driver.pairs[0];
    for (let count = 0; count < framesMax; count++) {
      const frame = this.#frame(this.driver.mac, this.station.mac);
      const shape = this.#cut(frame, fromGuest.ring.headerBytes, this.driver.has(F.INDIRECT_DESC));
      if (!fromGuest.post(frame, shape)) break;
      this.frames++;
    }
  }

  /** Resolves when the switch has done with all frames that were sent. */
  async quiet(): Promise<void> {
    const deadline = AbortSignal.timeout(DEADLINE_MS);
    if (this.driver.isFrozen) throw new Error(TOO_EARLY);
    const [own, other] = [this.driver.pairs[0].fromGuest, this.station.pairs[0].fromGuest];
    while (own.reclaim() < own.ring.size || other.reclaim() < other.ring.size) {
      while (this.station.receive() !== null);
      if (deadline.aborted) throw new Error('the switch does not give frames back');
      await nextTurn();
    }
    while (this.station.receive() !== null);
  }

  /** The driver takes all that has come, and offers its buffers again. */
  drain(): void {
    while (this.driver.pairs[0].receive() !== null);
  }

  /** Has QEMU exchange its log for one of another length. */
  async exchangeLog(): Promise<void> {
    this.#sharedAt = 1 - this.#sharedAt;
    await this.#shared.moveBar(SHARED_BAR, SHARED_GPAS[this.#sharedAt]);
    this.logs++;
  }

  /** The processor writes to its memory until `work` is done. */
  async busyDuring<T>(work: Promise<T>): Promise<T> {
    let isOver = false;
    const watched = work.finally(() => {
      isOver = true;
    });
    watched.catch(() => {});
    for (let byte = 1; !isOver; byte++) await this.guest.qtest.fill(this.#busyGpa, BUSY_BYTES, byte & 0xff);
    return watched;
  }

  /** Passes of QEMU over what was written; at the beginning of each it takes the marks out of the log. */
  async passes(): Promise<number> {
    const migration = await this.guest.machine.qmp('query-migrate');
    const { ram, status } = migration as { ram?: Record<string, number>; status?: string };
    // A machine that was a target says of that time that it is completed.
    return status === 'active' ? (ram?.['dirty-sync-count'] ?? 0) : 0;
  }

  async setSpeed(bytesPerSecond: number): Promise<void> {
    await this.guest.machine.qmp('migrate-set-parameters', {
      'max-bandwidth': bytesPerSecond,
      'downtime-limit': DOWNTIME_MS,
    });
  }

  /** A machine at the other Ringway that waits for the guest. */
  target(): Promise<QtestMachine> {
    return QtestMachine.start(machineOptions(this.ringways[1 - this.at], ['-S'], true));
  }

  async close(): Promise<void> {
    try {
      await this.guest.close();
    } finally {
      for (const station of this.stations) station.close();
      const codes = await Promise.all(this.ringways.map((ringway) => ringway.stop()));
      expect(codes).toEqual([0, 0]);
    }
  }

  #cut(
    frame: Uint8Array,
    headerBytes: number,
    mayBeIndirect: boolean,
  ): { pieces: number[]; indirect: boolean } {
    const { random } = this;
    const piecesMax = random.pick([1, 1, 3, 12]);
    return {
      pieces: randomPieces(random, frame.length + headerBytes, piecesMax),
      indirect: mayBeIndirect && random.chance(30),
    };
  }

  #frame(from: Uint8Array, to: Uint8Array): Uint8Array {
    const { random } = this;
    const frame = new Uint8Array(random.between(60, random.pick([60, 200, 1514, FRAME_BYTES_MAX])));
    frame.fill(this.#number & 0xff, HEADERS_BYTES);
    frame.set(to);
    frame.set(from, 6);
    const view = new DataView(frame.buffer);
    view.setUint16(12, 0x88b5);
    view.setUint32(HEADERS_BYTES, this.#number++);
    return frame;
  }
}

/** What the back-end writes from `begin` on, held against the log. */
class Watch {
  readonly #world: World;
  readonly #pages: ChangedPages;
  #log: VhostLog;
  /** To be given back. */
  readonly #taken = new Set<number>();

  constructor(world: World) {
    this.#world = world;
    this.#pages = new ChangedPages([{ gpa: 0, bytes: world.guest.memory.u8 }]);
    this.#log = logOf(world);
  }

  begin(): void {
    for (const page of this.#log.take()) this.#taken.add(page);
    this.#pages.begin();
  }

  /** Pages that were changed since `begin`, not by the driver alone, and are not marked. */
  async unmarked(isSpoiled = false): Promise<number[]> {
    await this.#world.quiet();
    const own = new Set(this.#world.driver.driverPageGpas({ isAlone: true }).map((gpa) => gpa / PAGE_BYTES));
    const missing = [...this.#pages.changed()].filter((page) => !own.has(Math.floor(page)));
    if (isSpoiled) this.#log.take();
    const marks = new Set<number>();
    // A page is marked after it was written, a moment later.
    const deadline = AbortSignal.timeout(isSpoiled ? 100 : DEADLINE_MS);
    let unmarked = missing;
    do {
      for (const page of this.#log.take()) marks.add(page);
      unmarked = missing.filter((page) => !marks.has(page));
      if (unmarked.length > 0) await nextTurn();
    } while (unmarked.length > 0 && !deadline.aborted);
    for (const page of marks) this.#taken.add(page);
    this.#world.marked += missing.length;
    return unmarked;
  }

  /** QEMU has another log; what it found in the old one it knows. */
  follow(): void {
    const before = this.#log;
    this.#log = logOf(this.#world);
    // Nobody writes there any more.
    expect(before.take()).toEqual([]);
    before.close();
  }

  close(): void {
    this.#log.giveBack(this.#taken);
    this.#log.close();
  }
}

function logOf({ guest }: World): VhostLog {
  const log = VhostLog.of(guest.machine.pid);
  if (log === null) throw new Error('QEMU has no log');
  return log;
}

/** One step in which both sides write; answers pages that are not marked. */
async function step(world: World, watch: Watch, isSpoiled = false): Promise<number[]> {
  const { random } = world;
  world.drain();
  const isFromGuest = random.chance(50);
  // Written before; what the device sees only then is where it goes on.
  if (isFromGuest) world.post(random.pick([1, 8, 100]));
  watch.begin();
  if (isFromGuest) world.driver.pairs[0].fromGuest.flush();
  if (!isFromGuest || random.chance(50)) {
    for (let left = random.between(1, 12); left > 0; left--) {
      world.toGuest(random.pick([1, 16, 64]));
      if (random.chance(20)) await nextTurn();
    }
  }
  return watch.unmarked(isSpoiled);
}

/** Frames to the guest in small bursts while QEMU exchanges its log; the driver does nothing. */
async function sendWhileLogChanges(world: World, between: () => void = () => {}): Promise<void> {
  let exchange: Promise<void> = Promise.resolve();
  for (let burst = 0; burst < 24; burst++) {
    if (burst === 8) exchange = world.exchangeLog();
    world.toGuest(4);
    await nextTurn();
    between();
  }
  await exchange;
  for (let burst = 0; burst < 8; burst++) {
    world.toGuest(4);
    between();
  }
  await world.quiet();
  between();
}

/**
 * Migrates the guest to the other Ringway. `whileSlow` is called when QEMU logs and leaves the log alone; then QEMU makes
 * pass after pass until what was written before is over there, and only then `last` is called, after which the driver does
 * nothing. Answers pages that are not the same on both sides; `goesOn` false: and there it ends, with a guest on neither.
 */
async function migrate(
  world: World,
  whileSlow: () => Promise<void>,
  last: () => Promise<void>,
  goesOn = true,
): Promise<number[]> {
  const { guest } = world;
  const target = await world.target();
  let differing: number[] | null = null;
  await world.setSpeed(STANDING_BYTES_PER_SECOND);
  const migration = guest.migrateTo(target, {
    isMarked: true,
    timeoutMs: MIGRATION_TIMEOUT_MS,
    whileHeld: async (source) => {
      differing = differingPages(source.memory.u8, target.memory.u8);
      if (!goesOn) throw new Error('the guest is not whole');
    },
  });
  migration.catch(() => {});
  const until = async (holds: () => Promise<boolean>): Promise<void> => {
    const deadline = AbortSignal.timeout(DEADLINE_MS);
    while (!(await holds())) {
      // It makes no pass any more.
      if (world.driver.isFrozen) throw new Error(TOO_EARLY);
      if (deadline.aborted) throw new Error('QEMU does not come to what is awaited');
      await nextTurn();
    }
  };
  await until(async () => (await world.passes()) > 0 && VhostLog.of(guest.machine.pid) !== null);
  await whileSlow();
  await world.quiet();
  world.drain();
  await guest.markDriverPages();
  const settled = async (): Promise<void> => {
    const passes = await world.passes();
    await world.setSpeed(FAST_BYTES_PER_SECOND);
    await until(async () => (await world.passes()) >= passes + 3);
    // In the middle of a pass, which does not end meanwhile.
    await world.setSpeed(STANDING_BYTES_PER_SECOND);
    await last();
    if ((await world.passes()) === 0) throw new Error(TOO_EARLY);
    await world.setSpeed(FAST_BYTES_PER_SECOND);
  };
  await world.busyDuring(settled());
  if (!goesOn) {
    await expect(migration).rejects.toThrow('the guest is not whole');
    await target.stop();
    return differing!;
  }
  const source = await migration;
  await source.stop();
  world.at = 1 - world.at;
  await world.ringways[world.at].untilState('guest', 'running', 1);
  world.drain();
  return differing!;
}

describe.skipIf(peers.skip).each(LAYOUTS)(
  peers.title('a migration between two QEMUs, %s rings'),
  (layout) => {
    let world: World;

    beforeEach(async () => {
      world = await World.start(layout);
      await world.beginAnew();
    });

    afterEach(() => world.close());

    test(`of ${ROUNDS} times ${FRAMES_OF_ROUND} frames: every page that changes is in the log, and over there`, {
      timeout: 120_000 * ROUNDS,
      retry: AGAIN,
    }, async ({ annotate }) => {
      for (let round = 0; round < ROUNDS; round++) {
        if (round > 0) await world.beginAnew();
        const whileSlow = async (): Promise<void> => {
          const passes = await world.passes();
          const watch = new Watch(world);
          const end = world.frames + FRAMES_OF_ROUND;
          while (world.frames < end) {
            expect(await step(world, watch), `round ${round}`).toEqual([]);
            if (!world.random.chance(EXCHANGES_PERCENT)) continue;
            world.drain();
            await sendWhileLogChanges(world);
            watch.follow();
          }
          // Else QEMU has taken marks that this test did not see.
          expect(await world.passes()).toBe(passes);
          watch.close();
        };
        expect(await migrate(world, whileSlow, () => sendWhileLogChanges(world)), `round ${round}`).toEqual(
          [],
        );
      }
      expect((await world.ringways[world.at].ports()).map(({ reason }) => reason)).toEqual([null, null]);
      await annotate(
        `${world.frames} frames, ${ROUNDS} migrations, ${world.logs} exchanges of the log, ${world.marked} changes of pages looked at`,
      );
    });

    test('would not be whole if marks were lost', async () => {
      let unmarked: number[] = [];
      const whileSlow = async (): Promise<void> => {
        const watch = new Watch(world);
        unmarked = await step(world, watch, true);
        watch.close();
      };
      const takeMarks = (): void => {
        const log = VhostLog.of(world.guest.machine.pid);
        log?.take();
        log?.close();
      };
      const differing = await migrate(world, whileSlow, () => sendWhileLogChanges(world, takeMarks), false);
      expect(unmarked.length).toBeGreaterThan(0);
      expect(differing.length).toBeGreaterThan(0);
    });
  },
);

function machineOptions(ringway: RingwayProcess, more: readonly string[], incoming = false) {
  const nic: NicOptions = {
    id: 'nic',
    slot: 4,
    socketPath: ringway.socket('guest'),
    mac: '52:54:00:00:00:01',
  };
  return {
    name: incoming ? 'target' : 'source',
    memoryMiB: MEMORY_MIB,
    nics: [nic],
    incoming,
    qemuArgs: [...SHARED_ARGS, ...more],
  };
}
