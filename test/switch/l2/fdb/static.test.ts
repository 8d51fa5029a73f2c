/**
 * Static addresses, limits and what is removed by hand, against a map; and a port that sends from ever new addresses: it
 * displaces none of another port's. RINGWAY_SEARCH=100 has it send from 10^7.
 */
import { describe, expect, it } from 'vitest';
import { createFdbMemory, Fdb, LEARNED, LEARNED_NOT } from '../../../../switch/l2/fdb/fdb.ts';
import { Random, seeds } from '../../../vring/random.ts';

const makeFdb = (capacity = 64, maxPorts = 16): Fdb =>
  new Fdb(createFdbMemory({ capacity, maxPorts, seed: [3, 5] }));
/** Unicast addresses, by number. */
const lo = (number: number): number => (number << 8) | 2;

describe('a static address', () => {
  it('is where it was set, whatever was learned before or is sent afterwards', () => {
    const fdb = makeFdb();
    fdb.learn(lo(1), 7, 5, 3, 0);
    expect(fdb.setStatic(lo(1), 7, 5, 4, 0)).toBe(true);
    fdb.learn(lo(1), 7, 5, 3, 1);
    expect(fdb.lookup(lo(1), 7, 5)).toBe(4);
    expect(fdb.lookup(lo(1), 7, 6)).toBe(-1);
    expect([fdb.countOf(3), fdb.countOf(4), fdb.staticsOf(4), fdb.size]).toEqual([0, 0, 1, 1]);
    expect(fdb.counters.moved).toBe(0);
  });

  it('stays when others age, are flushed or make room', () => {
    const fdb = makeFdb();
    fdb.setStatic(lo(1), 0, 0, 4, 0);
    fdb.learn(lo(2), 0, 0, 4, 0);
    expect(fdb.age(1000, 10)).toBe(1);
    for (let i = 0; i < 1000; i++) fdb.learn(lo(100 + i), 0, 0, 5, 1000);
    expect(fdb.flushPort(4)).toBe(0);
    expect(fdb.flush()).toBe(63);
    expect(fdb.entries().map(({ macLo, isStatic }) => [macLo, isStatic])).toEqual([[lo(1), true]]);
  });

  it('is removed by hand, or with its port', () => {
    const fdb = makeFdb();
    fdb.setStatic(lo(1), 0, 0, 4, 0);
    fdb.setStatic(lo(2), 0, 0, 4, 0);
    fdb.learn(lo(3), 0, 0, 4, 0);
    fdb.learn(lo(3), 0, 0, 5, 0);
    fdb.learn(lo(3), 0, 0, 4, 0);
    expect(fdb.movesTo(4)).toBe(1);
    expect(fdb.remove(lo(1), 0, 0)).toMatchObject({ port: 4, isStatic: true });
    expect(fdb.remove(lo(1), 0, 0)).toBe(null);
    const { staticChanges } = fdb;
    fdb.forgetPort(4);
    expect(fdb.staticChanges).not.toBe(staticChanges);
    expect([fdb.size, fdb.staticsOf(4), fdb.countOf(4), fdb.movesTo(4)]).toEqual([0, 0, 0, 0]);
  });

  it('is refused when half of the table is static', () => {
    const fdb = makeFdb(8);
    expect([1, 2, 3, 4, 5].map((n) => fdb.setStatic(lo(n), 0, 0, 1, 0))).toEqual([
      true,
      true,
      true,
      true,
      false,
    ]);
    for (let i = 0; i < 100; i++) fdb.learn(lo(100 + i), 0, 0, 2, 0);
    expect([fdb.size, fdb.countOf(2)]).toEqual([8, 4]);
  });

  it('is no group address', () => {
    expect(() => makeFdb().setStatic(1, 0, 0, 1, 0)).toThrow(RangeError);
    expect(() => makeFdb().setStatic(0, 0, 0, 1, 0)).toThrow(RangeError);
  });
});

describe('flushOf', () => {
  it('removes what was learned of a port, a VLAN, or both', () => {
    const filled = (): Fdb => {
      const fdb = makeFdb();
      for (const [number, vlan, port] of [
        [1, 1, 1],
        [2, 1, 2],
        [3, 2, 1],
        [4, 2, 2],
      ])
        fdb.learn(lo(number), 0, vlan, port, 0);
      fdb.setStatic(lo(5), 0, 1, 1, 0);
      return fdb;
    };
    expect(filled().flushOf(null, null)).toBe(4);
    expect(filled().flushOf(1, null)).toBe(2);
    expect(filled().flushOf(null, 1)).toBe(2);
    expect(filled().flushOf(1, 1)).toBe(1);
    const fdb = filled();
    fdb.flushOf(1, 1);
    expect(
      fdb
        .entries()
        .map(({ macLo }) => macLo >> 8)
        .sort(),
    ).toEqual([2, 3, 4, 5]);
  });
});

describe('learnUpTo', () => {
  it('learns so many addresses and no more, static ones counted; those that left make room', () => {
    const fdb = makeFdb();
    fdb.setStatic(lo(9), 0, 0, 1, 0);
    const learn = (number: number, tick = 0): number => fdb.learnUpTo(lo(number), 0, 0, 1, tick, 3, false);
    expect([9, 1, 2, 3, 1, 2, 3].map((number) => learn(number))).toEqual([
      LEARNED,
      LEARNED,
      LEARNED,
      LEARNED_NOT,
      LEARNED,
      LEARNED,
      LEARNED_NOT,
    ]);
    expect(fdb.lookup(lo(3), 0, 0)).toBe(-1);
    fdb.learn(lo(2), 0, 0, 5, 0);
    expect([learn(3), learn(2)]).toEqual([LEARNED, LEARNED_NOT]);
    expect(fdb.lookup(lo(2), 0, 0)).toBe(5);
  });

  it('refuses what is static elsewhere, and what is no station', () => {
    const fdb = makeFdb();
    fdb.setStatic(lo(9), 0, 0, 2, 0);
    expect(fdb.learnUpTo(lo(9), 0, 0, 1, 0, 3, false)).toBe(LEARNED_NOT);
    expect(fdb.learnUpTo(lo(9) | 1, 0, 0, 1, 0, 3, false)).toBe(LEARNED_NOT);
    expect(fdb.learnUpTo(0, 0, 0, 1, 0, 3, false)).toBe(LEARNED_NOT);
    expect(fdb.lookup(lo(9), 0, 0)).toBe(2);
  });

  it('makes addresses stay that are to stick', () => {
    const fdb = makeFdb();
    expect(fdb.learnUpTo(lo(1), 0, 0, 1, 0, 2, true)).toBe(LEARNED);
    fdb.learn(lo(1), 0, 0, 2, 0);
    fdb.age(5000, 1);
    expect([fdb.lookup(lo(1), 0, 0), fdb.staticsOf(1)]).toEqual([1, 1]);
  });
});

describe('any sequence', () => {
  it.each(seeds(40))('is as with a map (seed %i)', (seed) => {
    const random = new Random(seed);
    const fdb = makeFdb(512);
    const twin = new Map<number, { port: number; isStatic: boolean; tick: number }>();
    for (let tick = 0; tick < 3000; tick++) {
      const number = random.between(1, 200);
      const port = random.between(0, 3);
      const was = twin.get(number);
      const owned = [...twin.values()].filter((entry) => entry.port === port);
      switch (random.between(0, 12)) {
        case 0:
          fdb.setStatic(lo(number), 0, 0, port, tick);
          twin.set(number, { port, isStatic: true, tick });
          break;
        case 1:
          expect(fdb.remove(lo(number), 0, 0)?.port).toBe(was?.port);
          twin.delete(number);
          break;
        case 2: {
          const max = random.between(1, 60);
          const sticks = random.chance(30);
          const may = was?.port === port || (owned.length < max && was?.isStatic !== true);
          expect(fdb.learnUpTo(lo(number), 0, 0, port, tick, max, sticks)).toBe(may ? LEARNED : LEARNED_NOT);
          const isStatic = was === undefined ? sticks : was.port === port && was.isStatic;
          if (may) twin.set(number, { port, isStatic, tick });
          break;
        }
        case 3:
          if (!random.chance(10)) break;
          for (const [key, entry] of [...twin]) if (!entry.isStatic && entry.port === port) twin.delete(key);
          fdb.flushOf(port, random.pick([null, 0]));
          break;
        case 4:
          for (const [key, entry] of [...twin])
            if (!entry.isStatic && tick - entry.tick > 100) twin.delete(key);
          fdb.age(tick, 100);
          break;
        case 5:
          if (!random.chance(5)) break;
          for (const [key, entry] of [...twin]) if (entry.isStatic && entry.port === port) twin.delete(key);
          fdb.removeStatics(port);
          break;
        default:
          fdb.learn(lo(number), 0, 0, port, tick);
          if (was?.isStatic === true && was.port !== port) break;
          twin.set(number, { port, isStatic: was?.isStatic === true, tick });
      }
    }
    const found = fdb.entries().map((entry) => [entry.macLo >> 8, entry.port, entry.isStatic]);
    const expected = [...twin].map(([number, { port, isStatic }]) => [number, port, isStatic]);
    expect(found.sort()).toEqual(expected.sort());
    for (let port = 0; port < 4; port++) {
      const mine = [...twin.values()].filter((entry) => entry.port === port);
      expect(fdb.staticsOf(port)).toBe(mine.filter(({ isStatic }) => isStatic).length);
      expect(fdb.countOf(port)).toBe(mine.filter(({ isStatic }) => !isStatic).length);
    }
  });
});

describe('a flood of random sources from one port', () => {
  it('displaces no address of another port', { timeout: 600_000 }, () => {
    const random = new Random(7);
    const fdb = makeFdb(8192, 64);
    const others: [number, number, number][] = [];
    for (let port = 1; port < 33; port++) {
      for (let i = 0; i < 100; i++) others.push([(random.next() & ~1) | 2, random.next() & 0xffff, port]);
    }
    for (const [macLo, macHi, port] of others) fdb.learn(macLo, macHi, 0, port, 0);
    fdb.setStatic(lo(1), 1, 0, 40, 0);
    const sources = Math.round(1e5 * Number(process.env.RINGWAY_SEARCH ?? 1));
    for (let i = 0; i < sources; i++) fdb.learn((random.next() & ~1) | 2, random.next() & 0xffff, 0, 0, 1);
    const displaced = others.filter(([macLo, macHi, port]) => fdb.lookup(macLo, macHi, 0) !== port);
    expect(displaced).toEqual([]);
    expect(fdb.lookup(lo(1), 1, 0)).toBe(40);
    expect(fdb.counters.moved).toBe(0);
    expect([fdb.size, fdb.countOf(0)]).toEqual([8192, 8192 - others.length - 1]);
  });
});
