/**
 * The order of memory that rings need (docs/architecture.md, "Memory order"), on the machine's own terms: whoever has
 * published something, or asked to be told, looks at the other side next, and by a load that keeps its place behind
 * the store. On x86-64 a plain load would do and no test could tell; so what is checked is which accesses are made.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { LogFile } from './logged-guest.ts';
import { DriverEnd, LAYOUT_KINDS, plainPlan, RingwayEnd } from './ring-worlds.ts';
import { sharedArena, sharedArenaView } from './scratch.ts';

type Access = { readonly kind: 'store' | 'ordered load'; readonly buffer: ArrayBufferLike };

const { accesses } = vi.hoisted(() => ({ accesses: [] as Access[] }));

vi.mock('../../src/memory/ordered.ts', () => {
  const load = (words: Uint16Array | Int32Array, at: number): number => {
    accesses.push({ kind: 'ordered load', buffer: words.buffer });
    return Atomics.load(words, at);
  };
  return { loadOrdered16: load, loadOrdered32: load };
});

const FRAME = Uint8Array.from({ length: 60 }, (_, i) => i);
const closing: (() => void)[] = [];

beforeEach(() => {
  const store = Atomics.store.bind(Atomics) as typeof Atomics.store;
  vi.spyOn(Atomics, 'store').mockImplementation(((words: Int32Array, at: number, value: number) => {
    accesses.push({ kind: 'store', buffer: words.buffer });
    return store(words, at, value);
  }) as typeof Atomics.store);
});

afterEach(() => {
  vi.restoreAllMocks();
  for (const close of closing.splice(0)) close();
});

/** What `act` did to the memory of the rings, in order. */
function during(act: () => unknown): string[] {
  accesses.length = 0;
  act();
  return accesses.filter(({ buffer }) => !(buffer instanceof SharedArrayBuffer)).map(({ kind }) => kind);
}

/** Every store is followed at once by an ordered load; and there is one at least. */
function expectLooksAfterStores(did: readonly string[]): void {
  expect(did).toContain('store');
  for (const [i, kind] of did.entries())
    if (kind === 'store') expect(did[i + 1], did.join()).toBe('ordered load');
}

const SETUPS = LAYOUT_KINDS.flatMap((layout) => [true, false].map((eventIdx) => ({ layout, eventIdx })));

describe.each(SETUPS)('a $layout ring, event index $eventIdx', ({ layout, eventIdx }) => {
  function connect(): { driver: DriverEnd; device: RingwayEnd } {
    const plan = { ...plainPlan(layout), eventIdx };
    const driver = new DriverEnd(plan);
    const device = new RingwayEnd(driver, plan);
    closing.push(() => {
      device.close();
      driver.memory.close();
    });
    return { driver, device };
  }

  it('is looked at by the driver after it offered buffers, and after it asked for an interrupt', () => {
    const { driver } = connect();
    expectLooksAfterStores(during(() => driver.toGuest.fill()));
    expectLooksAfterStores(during(() => driver.fromGuest.send(FRAME)));
    for (const { ring } of [driver.toGuest, driver.fromGuest]) {
      expectLooksAfterStores(during(() => ring.arm()));
    }
  });

  it('is looked at by the device after it used buffers, and after it asked for a kick', () => {
    const { driver, device } = connect();
    driver.toGuest.fill();
    driver.fromGuest.send(FRAME);
    expectLooksAfterStores(during(() => device.loop()));
    expectLooksAfterStores(during(() => device.from.armWake()));
  });

  it('that is logged has its marks looked at behind what was written', () => {
    const { driver, device } = connect();
    const log = new LogFile(sharedArena, sharedArenaView.u8, 2 ** 18);
    closing.unshift(() => log.close());
    driver.toGuest.fill();
    device.logIn(log.memory);
    // Other threads and the front-end change the same words.
    const or = vi.spyOn(Atomics, 'or');
    const looks = during(() => device.give([FRAME]));
    expect(or).toHaveBeenCalled();
    // For the frame, for what was published, and for the ring's own pages.
    expect(looks.filter((kind) => kind === 'store')).toHaveLength(3);
    expectLooksAfterStores(looks);
    expectLooksAfterStores(during(() => device.from.disarmWake()));
  });

  it('is taken from by ordered loads alone: what is waiting, and what was used', () => {
    const { driver, device } = connect();
    expect(during(() => device.from.hasWaiting())).toEqual(['ordered load']);
    expect(during(() => driver.toGuest.ring.usedWaiting())).toEqual(['ordered load']);
  });
});
