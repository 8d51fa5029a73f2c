/**
 * The forwarding table: a test for each rule, a seeded fuzz against the naive twin, and threads that read
 * while others write.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { createFdbMemory, Fdb, type FdbMemoryOptions, PROBE_LIMIT } from '../../../../switch/l2/fdb/fdb.ts';
import { FdbHash } from '../../../../switch/l2/fdb/hash.ts';
import { HEADER, openFdbMemory, SLOT_WORDS } from '../../../../switch/l2/fdb/layout.ts';
import { type Address, randomAddresses, seededRandom } from './fdb-addresses.ts';
import { type ChurnOrder, churn, type ReaderReport } from './fdb-churn-worker.ts';
import { NaiveFdb } from './naive-fdb.ts';

const SEED: readonly [number, number] = [0x1234567, -0x7654321];

function makeFdb(options: Partial<FdbMemoryOptions> = {}): Fdb {
  return new Fdb(createFdbMemory({ capacity: 64, maxPorts: 16, seed: SEED, ...options }));
}

/** The n-th unicast address of a row that counts up in the last byte, as a hypervisor assigns them. */
function macHiAt(n: number): number {
  return ((n & 0xff) << 8) | (n >>> 8);
}

const MAC_LO = 0x00005452;

/** Every entry is found, counts agree, and nothing else is owned. */
function expectConsistent(fdb: Fdb, maxPorts: number): void {
  const entries = fdb.entries();
  const counts = new Array<number>(maxPorts).fill(0);
  for (const { macLo, macHi, vlan, port } of entries) {
    expect(fdb.lookup(macLo, macHi, vlan)).toBe(port);
    counts[port]++;
  }
  expect(fdb.size).toBe(entries.length);
  expect(counts.map((_, port) => fdb.countOf(port))).toEqual(counts);
}

describe('Fdb', () => {
  it('finds a learned address on its port and nothing else', () => {
    const fdb = makeFdb();
    expect(fdb.lookup(2, 3, 0)).toBe(-1);
    fdb.learn(2, 3, 0, 5, 100);
    expect(fdb.lookup(2, 3, 0)).toBe(5);
    expect(fdb.lookup(2, 4, 0)).toBe(-1);
    expect(fdb.lookup(4, 3, 0)).toBe(-1);
    expect(fdb.size).toBe(1);
    expect(fdb.entries()).toEqual([
      { macLo: 2, macHi: 3, vlan: 0, port: 5, lastSeenTick: 100, isStatic: false },
    ]);
  });

  it('keeps the same address in two VLANs apart', () => {
    const fdb = makeFdb();
    fdb.learn(-2, 0xffff, 0, 1, 0);
    fdb.learn(-2, 0xffff, 4095, 2, 0);
    expect(fdb.lookup(-2, 0xffff, 0)).toBe(1);
    expect(fdb.lookup(-2, 0xffff, 4095)).toBe(2);
    expect(fdb.lookup(-2, 0xffff, 1)).toBe(-1);
    expect(fdb.entries().map(({ vlan }) => vlan)).toEqual(expect.arrayContaining([0, 4095]));
  });

  it('never learns multicast, broadcast or the zero address', () => {
    const fdb = makeFdb();
    fdb.learn(0x005e0001, 5, 0, 1, 0);
    fdb.learn(-1, 0xffff, 0, 1, 0);
    fdb.learn(0, 0, 0, 1, 0);
    expect(fdb.size).toBe(0);
    fdb.learn(0, 1, 0, 1, 0);
    expect(fdb.lookup(0, 1, 0)).toBe(1);
  });

  it('moves an address, its tick and its ownership to the port where it was seen last', () => {
    const fdb = makeFdb();
    fdb.learn(2, 3, 0, 5, 1);
    fdb.learn(2, 3, 0, 6, 2);
    expect(fdb.lookup(2, 3, 0)).toBe(6);
    expect([fdb.countOf(5), fdb.countOf(6), fdb.size]).toEqual([0, 1, 1]);
    expect(fdb.entries()[0].lastSeenTick).toBe(2);
    expect(fdb.counters).toEqual({ learned: 1, moved: 1, evicted: 0, aged: 0 });
  });

  it('accepts the highest port and refuses the one after it', () => {
    const fdb = makeFdb({ maxPorts: 32_767 });
    fdb.learn(2, 3, 0, 32_766, 1);
    expect(fdb.lookup(2, 3, 0)).toBe(32_766);
    expect(() => fdb.learn(4, 3, 0, 32_767, 1)).toThrow(RangeError);
    expect(() => fdb.learn(4, 3, 0, -1, 1)).toThrow(RangeError);
    expect(() => fdb.flushPort(32_767)).toThrow(RangeError);
    fdb.learn(4, 3, 0, 0, 1);
    expect(fdb.lookup(4, 3, 0)).toBe(0);
  });

  it('ages by the time last seen, and a frame makes an address young again', () => {
    const fdb = makeFdb();
    fdb.learn(2, 1, 0, 1, 10);
    fdb.learn(2, 2, 0, 1, 10);
    fdb.learn(2, 1, 0, 1, 200);
    expect(fdb.age(310, 300)).toBe(0);
    expect(fdb.age(311, 300)).toBe(1);
    expect(fdb.lookup(2, 1, 0)).toBe(1);
    expect(fdb.lookup(2, 2, 0)).toBe(-1);
    expect(fdb.counters.aged).toBe(1);
  });

  it('ages across the wrap of the clock, and spares an entry from the future', () => {
    const fdb = makeFdb();
    fdb.learn(2, 1, 0, 1, 0x7ffffff0);
    fdb.learn(2, 2, 0, 1, -0x7fffff00);
    expect(fdb.age(-0x7ffffff0, 300)).toBe(0);
    expect(fdb.age(-0x7ffffff0, 10)).toBe(1);
    expect(fdb.lookup(2, 2, 0)).toBe(1);
  });

  it('flushes one port, or everything', () => {
    const fdb = makeFdb({ capacity: 1_000 });
    for (let n = 0; n < 900; n++) fdb.learn(MAC_LO, n, 0, n % 3, 0);
    expect(fdb.flushPort(1)).toBe(300);
    expect(fdb.flushPort(1)).toBe(0);
    expect([fdb.countOf(0), fdb.countOf(1), fdb.countOf(2)]).toEqual([300, 0, 300]);
    expectConsistent(fdb, 16);
    expect(fdb.flush()).toBe(600);
    expect(fdb.entries()).toEqual([]);
    expect(fdb.counters.aged).toBe(0);
    expectConsistent(fdb, 16);
  });

  it('gives every thread that opens the memory the same table', () => {
    const memory = createFdbMemory({ maxPorts: 4 });
    const [one, other] = [new Fdb(memory), new Fdb(memory)];
    one.learn(2, 3, 0, 1, 7);
    expect(other.lookup(2, 3, 0)).toBe(1);
    expect(other.counters.learned).toBe(1);
    expect(other.capacity).toBe(8_192);
  });

  it('uses another secret in every table unless told one', () => {
    const seedOf = (memory: SharedArrayBuffer) => [...new Int32Array(memory, HEADER.seed0 * 4, 2)];
    expect(seedOf(createFdbMemory({ maxPorts: 1 }))).not.toEqual(seedOf(createFdbMemory({ maxPorts: 1 })));
    expect(seedOf(createFdbMemory({ maxPorts: 1, seed: [3, -4] }))).toEqual([3, -4]);
  });

  it('refuses impossible sizes and foreign memory', () => {
    for (const capacity of [0, -1, 1.5, Number.NaN, 1_048_577]) {
      expect(() => createFdbMemory({ capacity, maxPorts: 1 })).toThrow(RangeError);
    }
    for (const maxPorts of [0, 65_536, 2.5]) expect(() => createFdbMemory({ maxPorts })).toThrow(RangeError);
    expect(() => new Fdb(new SharedArrayBuffer(16))).toThrow(TypeError);
    expect(() => new Fdb(new SharedArrayBuffer(1 << 16))).toThrow(TypeError);
  });

  it('says so instead of hanging when the lock is never let go', () => {
    const memory = createFdbMemory({ maxPorts: 4 });
    const fdb = new Fdb(memory);
    new Int32Array(memory)[HEADER.lock] = 1;
    fdb.learn(2, 3, 0, 1, 0);
    expect(fdb.size).toBe(0);
    expect(() => fdb.entries()).toThrow('does not let go');
    new Int32Array(memory)[HEADER.lock] = 0;
    fdb.learn(2, 3, 0, 1, 0);
    expect(fdb.size).toBe(1);
  });
});

describe('a rewritten slot', () => {
  it('never looks as it did before, or a slow lock-free reader would pair two entries', () => {
    const hash = new FdbHash(SEED[0], SEED[1], 7);
    const memory = createFdbMemory({ capacity: 64, maxPorts: 16, seed: SEED });
    const { slots } = openFdbMemory(memory);
    const fdb = new Fdb(memory);
    const valueAt = hash.homeOf(2, 3) * SLOT_WORDS + 2;
    const seen = new Set<number>();
    for (let n = 0; n < 1_000; n++) {
      fdb.learn(2, 3, 0, n % 2, n);
      expect(seen.has(slots[valueAt])).toBe(false);
      seen.add(slots[valueAt]);
      fdb.learn(2, 3, 0, 2, n);
      expect(seen.has(slots[valueAt])).toBe(false);
      seen.add(slots[valueAt]);
      fdb.flush();
      expect(seen.has(slots[valueAt])).toBe(false);
      seen.add(slots[valueAt]);
    }
  });
});

describe('a full table', () => {
  it('takes from the port that owns most', () => {
    const fdb = makeFdb({ capacity: 10 });
    for (let n = 0; n < 4; n++) fdb.learn(MAC_LO, n, 0, 1, 0);
    for (let n = 4; n < 10; n++) fdb.learn(MAC_LO, n, 0, 2, 0);
    fdb.learn(MAC_LO, 100, 0, 3, 0);
    expect([fdb.countOf(1), fdb.countOf(2), fdb.countOf(3)]).toEqual([4, 5, 1]);
    expect(fdb.lookup(MAC_LO, 100, 0)).toBe(3);
    expect(fdb.counters.evicted).toBe(1);
  });

  it('lets a flood displace its own addresses only', () => {
    const fdb = makeFdb({ capacity: 100 });
    for (let n = 0; n < 50; n++) fdb.learn(MAC_LO, n, 0, n % 5, 0);
    for (let n = 1_000; n < 9_000; n++) fdb.learn(MAC_LO, n, 0, 7, 0);
    for (let n = 0; n < 50; n++) expect(fdb.lookup(MAC_LO, n, 0)).toBe(n % 5);
    expect([fdb.countOf(7), fdb.size]).toEqual([50, 100]);
    expectConsistent(fdb, 16);
  });

  it('takes from the learning port when that is among those that own most', () => {
    for (const learner of [1, 2, 3]) {
      const fdb = makeFdb({ capacity: 9 });
      for (let n = 0; n < 9; n++) fdb.learn(MAC_LO, n, 0, 1 + (n % 3), 0);
      fdb.learn(MAC_LO, 100, 0, learner, 0);
      expect([fdb.countOf(1), fdb.countOf(2), fdb.countOf(3)]).toEqual([3, 3, 3]);
      expect(fdb.lookup(MAC_LO, 100, 0)).toBe(learner);
    }
  });

  it('prefers an address that has been silent to one that keeps sending', () => {
    const fdb = makeFdb({ capacity: 8 });
    for (let n = 0; n < 8; n++) fdb.learn(MAC_LO, n, 0, 1, 0);
    for (const n of [0, 1, 3, 4, 5, 6, 7]) fdb.learn(MAC_LO, n, 0, 1, 50);
    fdb.learn(MAC_LO, 100, 0, 1, 50);
    expect(fdb.lookup(MAC_LO, 2, 0)).toBe(-1);
    expect(fdb.size).toBe(8);
  });

  it('counts what moved at its new port when it looks for the one that owns most', () => {
    const fdb = makeFdb({ capacity: 6 });
    for (let n = 0; n < 6; n++) fdb.learn(MAC_LO, n, 0, 1, 0);
    for (let n = 0; n < 4; n++) fdb.learn(MAC_LO, n, 0, 2, 0);
    fdb.learn(MAC_LO, 100, 0, 1, 0);
    expect([fdb.countOf(1), fdb.countOf(2)]).toEqual([3, 3]);
  });
});

describe('probing', () => {
  it('spreads addresses that count up, with any secret', () => {
    const random = seededRandom(77);
    for (let round = 0; round < 20; round++) {
      const hash = new FdbHash(random(2 ** 32) | 0, random(2 ** 32) | 0, 14);
      const perHome = new Uint8Array(1 << 14);
      for (let n = 0; n < 8_192; n++) perHome[hash.homeOf(MAC_LO, macHiAt(n))]++;
      // 8,192 random picks of 16,384 homes: about 39 % of the homes taken, and hardly ever 8 on one.
      expect(perHome.filter((count) => count > 0).length).toBeGreaterThan(5_800);
      expect(Math.max(...perHome)).toBeLessThan(16);
    }
  });

  it('spreads addresses that differ in their high bits only', () => {
    const random = seededRandom(78);
    for (let round = 0; round < 20; round++) {
      const hash = new FdbHash(random(2 ** 32) | 0, random(2 ** 32) | 0, 14);
      const perHome = new Uint8Array(1 << 14);
      for (let n = 0; n < 8_192; n++) perHome[hash.homeOf((n & 0x7f) << 25, (n >>> 7) << 10)]++;
      expect(Math.max(...perHome)).toBeLessThan(64);
    }
  });

  it('gives way near home when an attack fills every slot within reach', () => {
    const hash = new FdbHash(SEED[0], SEED[1], 14);
    const sameHome: number[] = [];
    for (let macLo = 2; sameHome.length < PROBE_LIMIT + 1; macLo += 2) {
      if (hash.homeOf(macLo, 0) === 9_000) sameHome.push(macLo);
    }
    const fdb = makeFdb({ capacity: 8_192 });
    for (let n = 0; n < PROBE_LIMIT; n++) fdb.learn(sameHome[n], 0, 0, n < 5 ? 1 : 2, n === 70 ? 5 : 9);
    expect(fdb.counters.evicted).toBe(0);
    fdb.learn(sameHome[PROBE_LIMIT], 0, 0, 3, 9);
    expect(fdb.lookup(sameHome[PROBE_LIMIT], 0, 0)).toBe(3);
    expect(fdb.lookup(sameHome[70], 0, 0)).toBe(-1);
    expect(fdb.counters).toEqual({ learned: PROBE_LIMIT + 1, moved: 0, evicted: 1, aged: 0 });
    expectConsistent(fdb, 16);
  });

  it('closes gaps across the end of the slots', () => {
    const hash = new FdbHash(SEED[0], SEED[1], 7);
    const fdb = makeFdb({ capacity: 64 });
    const atTheEnd: number[] = [];
    for (let macLo = 2; atTheEnd.length < 12; macLo += 2) {
      if (hash.homeOf(macLo, 0) >= 126) atTheEnd.push(macLo);
    }
    for (const macLo of atTheEnd) fdb.learn(macLo, 0, 0, macLo % 3, macLo);
    for (const macLo of atTheEnd) {
      expect(fdb.age(macLo + 1, 0)).toBe(1);
      expect(fdb.lookup(macLo, 0, 0)).toBe(-1);
      expectConsistent(fdb, 16);
    }
  });
});

describe('against the naive twin', () => {
  const shapes = [
    { capacity: 1, maxPorts: 3, addressCount: 6, operationCount: 10_000 },
    { capacity: 48, maxPorts: 8, addressCount: 160, operationCount: 40_000 },
    { capacity: 64, maxPorts: 1, addressCount: 100, operationCount: 10_000 },
    { capacity: 300, maxPorts: 400, addressCount: 700, operationCount: 20_000 },
  ];
  for (const shape of shapes) {
    it(`${shape.operationCount} operations, ${shape.capacity} entries, ${shape.maxPorts} ports`, () => {
      for (const seed of [11, 12]) fuzz(shape, seed);
    });
  }
});

interface FuzzShape {
  readonly capacity: number;
  readonly maxPorts: number;
  readonly addressCount: number;
  readonly operationCount: number;
}

function fuzz(shape: FuzzShape, seed: number): void {
  const random = seededRandom(seed);
  const fdb = new Fdb(createFdbMemory({ ...shape, seed: [random(2 ** 32) | 0, random(2 ** 32) | 0] }));
  // The real table has learned already when the twin must choose: exactly one candidate is gone from it.
  const naive = new NaiveFdb(shape.capacity, (candidates) => {
    const gone = candidates.filter(({ macLo, macHi, vlan }) => fdb.lookup(macLo, macHi, vlan) < 0);
    expect(gone).toHaveLength(1);
    return gone[0];
  });
  const addresses = randomAddresses(shape.addressCount, seed + 1, 3);
  // Ports come in phases that favour a few, so that one port owns most for a while.
  for (let n = 0; n < shape.operationCount; n++) {
    const favoured = Math.floor(n / 500) % shape.maxPorts;
    operate(fdb, naive, addresses, random, random(3) === 0 ? favoured : random(shape.maxPorts), n >> 4);
    if (n % 64 === 63) expectEqual(fdb, naive, shape.maxPorts);
  }
  expect(fdb.counters.evicted).toBeGreaterThan(100);
  if (shape.maxPorts > 1) expect(fdb.counters.moved).toBeGreaterThan(100);
}

function operate(
  fdb: Fdb,
  naive: NaiveFdb,
  addresses: Address[],
  random: (limit: number) => number,
  port: number,
  nowTick: number,
): void {
  const { macLo, macHi, vlan } = addresses[random(addresses.length)];
  const dice = random(2_000);
  if (dice === 0) {
    expect(fdb.flush()).toBe(naive.flush());
  } else if (dice < 6) {
    expect(fdb.flushPort(port)).toBe(naive.flushPort(port));
  } else if (dice < 16) {
    const maxAgeTicks = 8 + random(40);
    expect(fdb.age(nowTick, maxAgeTicks)).toBe(naive.age(nowTick, maxAgeTicks));
  } else if (dice < 500) {
    expect(fdb.lookup(macLo, macHi, vlan)).toBe(naive.lookup(macLo, macHi, vlan));
  } else if (dice < 510) {
    fdb.learn(macLo | 1, macHi, vlan, port, nowTick);
    naive.learn(macLo | 1, macHi, vlan, port, nowTick);
  } else {
    // Two times in three where it was last seen, so that refreshes are as common as moves.
    const known = naive.lookup(macLo, macHi, vlan);
    const chosen = known >= 0 && random(3) > 0 ? known : port;
    fdb.learn(macLo, macHi, vlan, chosen, nowTick);
    naive.learn(macLo, macHi, vlan, chosen, nowTick);
  }
}

function expectEqual(fdb: Fdb, naive: NaiveFdb, maxPorts: number): void {
  const text = (entries: readonly object[]) => entries.map((entry) => JSON.stringify(entry)).sort();
  expect(text(fdb.entries())).toEqual(text(naive.entries()));
  expect(fdb.counters).toEqual({
    learned: naive.learned,
    moved: naive.moved,
    evicted: naive.evicted,
    aged: naive.aged,
  });
  const counts = new Array<number>(maxPorts).fill(0);
  for (const { port } of naive.entries()) counts[port]++;
  expect(counts.map((_, port) => fdb.countOf(port))).toEqual(counts);
  expect(fdb.size).toBe(naive.size);
  for (const { macLo, macHi, vlan, port } of naive.entries()) {
    if (fdb.lookup(macLo, macHi, vlan) !== port) expect.unreachable(`${macLo} ${macHi} ${vlan} is lost`);
  }
}

describe('several threads', () => {
  const workerUrl = new URL('./fdb-churn-worker.ts', import.meta.url);
  const startWorker = (order: ChurnOrder) => new Worker(workerUrl, { workerData: order });

  // Few slots: a reader is on the slot that a writer rewrites nearly all the time.
  for (const shape of [
    { capacity: 4, addressCount: 24, portCount: 3 },
    { capacity: 64, addressCount: 200, portCount: 7 },
  ]) {
    it(`no wrong port is seen: ${shape.addressCount} addresses, ${shape.capacity} entries`, async () => {
      const memory = createFdbMemory({ capacity: shape.capacity, maxPorts: shape.portCount, seed: SEED });
      const stop = new Int32Array(new SharedArrayBuffer(8));
      const common = { memory, stop, ...shape, operationCount: 1_000_000 };
      const reader = startWorker({ ...common, role: 'reader', seed: 0 });
      const workers = [reader];
      try {
        const reported = once(reader, 'message') as Promise<[ReaderReport]>;
        // The writer begins once the reader reads: both run at the same time.
        await Atomics.waitAsync(stop, 1, 0).value;
        const writer = startWorker({ ...common, role: 'writer', seed: 5 });
        workers.push(writer);
        await once(writer, 'exit');
        Atomics.store(stop, 0, 1);
        const [report] = await reported;
        expect(report.wrong).toBe(0);
        expect(report.hits).toBeGreaterThan(1_000);
        expect(report.lookups).toBeGreaterThan(report.hits);
        expectConsistent(new Fdb(memory), shape.portCount);
      } finally {
        await Promise.all(workers.map((worker) => worker.terminate()));
      }
    });
  }

  it('writers on three threads, the main thread among them, leave a whole table', async () => {
    const shape = { capacity: 100, addressCount: 300, portCount: 5, operationCount: 300_000 };
    const memory = createFdbMemory({ capacity: shape.capacity, maxPorts: shape.portCount, seed: SEED });
    const stop = new Int32Array(new SharedArrayBuffer(8));
    const writers = [21, 22].map((seed) => startWorker({ ...shape, memory, stop, role: 'writer', seed }));
    // One may be over before the other one has begun.
    const ended = writers.map((writer) => once(writer, 'exit'));
    await Promise.all(writers.map((writer) => once(writer, 'online')));
    churn({ ...shape, memory, seed: 23 });
    const codes = await Promise.all(ended);
    expect(codes.map(([code]) => code)).toEqual([0, 0]);
    const fdb = new Fdb(memory);
    expectConsistent(fdb, shape.portCount);
    const { learned, evicted } = fdb.counters;
    expect(learned).toBeGreaterThan(10_000);
    expect(evicted).toBeLessThan(learned);
    for (let port = 0; port < shape.portCount; port++) fdb.flushPort(port);
    expect(fdb.entries()).toEqual([]);
  });
});
