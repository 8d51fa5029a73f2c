/**
 * Where the areas of a ring may lie, what sizes and bases each layout has, and whether a ring runs at all: the pure
 * half of what rings.test.ts and packed-rings.test.ts see from outside.
 */

import { beforeEach, describe, expect, it } from 'vitest';
import { DESC_F_AVAIL, DESC_F_USED } from '../../protocol/virtio/packed-ring.ts';
import type { RingPlaces } from '../../src/device/ring-places.ts';
import {
  baseToAnswer,
  decideStart,
  type LastRun,
  type RingFacts,
  type RingStart,
  type RingSurroundings,
  whereItWasLeft,
} from '../../src/device/ring-start.ts';
import type { ArenaView } from '../../src/memory/arena-view.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import {
  FIRST_BYTES,
  FIRST_WORD,
  OPEN,
  OPEN_BIT,
  STAND,
  StandingWords,
  standWord,
} from '../../src/vring/ring-record.ts';

const GUEST_BYTES = 0x10_0000;
/** Where the guest's memory begins in the arena; user addresses begin at 0. */
const ARENA_OFFSET = 0x4000_0000;
const USED_IDX = 0x1234;
const ADDRESSES = { index: 0, flags: 0, descUva: 0x1000n, availUva: 0x9000n, usedUva: 0xa000n, logGpa: 0n };

const READY: RingFacts = {
  size: 256,
  addresses: ADDRESSES,
  addressesAreOld: false,
  base: null,
  ranAs: null,
  goesOn: false,
  indices: { availNext: 0x8012, usedNext: 0x0010 },
  started: true,
  enabled: true,
};

const surroundings = (layout: RingLayoutKind, isActive = true): RingSurroundings => ({
  layout,
  isActive,
  memory: {
    sizeBytes: GUEST_BYTES,
    offsetOfUva: (uva, sizeBytes) =>
      uva + BigInt(sizeBytes) <= BigInt(GUEST_BYTES) ? ARENA_OFFSET + Number(uva) : null,
  },
  lastRun: null,
  place: '1:2:4096',
  word16At: (offset) => (offset === ARENA_OFFSET + 0xa002 ? USED_IDX : 0),
});

const start = (layout: RingLayoutKind, but: Partial<RingFacts> = {}) =>
  decideStart({ ...READY, ...but }, surroundings(layout));
const places = (desc: number, driver: number, device: number): RingPlaces => ({
  descOffset: ARENA_OFFSET + desc,
  driverOffset: ARENA_OFFSET + driver,
  deviceOffset: ARENA_OFFSET + device,
});

describe.each(['split', 'packed'] as const)('a %s ring', (layout) => {
  it.each([
    ['is not started', { started: false }, null],
    ['is not enabled', { enabled: false }, null],
    ['has no size', { size: 0 }, /before its size and addresses/],
    ['has no addresses', { addresses: null }, /before its size and addresses/],
    ['has addresses of before its base', { addressesAreOld: true }, /base was set anew/],
  ] as const)('does not run when it %s', (_what, but, reason) => {
    const decided = start(layout, but);
    expect(decided).toMatchObject({ runs: false });
    if (reason === null) expect(decided).toEqual({ runs: false, reason: null });
    else expect(decided).toEqual({ runs: false, reason: expect.stringMatching(reason) });
  });

  it('does not run when its pair is not in use', () => {
    expect(decideStart(READY, surroundings(layout, false))).toEqual({ runs: false, reason: null });
  });

  it('does not run without memory', () => {
    const bare = { ...surroundings(layout), memory: { sizeBytes: 0, offsetOfUva: () => null } };
    const reason = expect.stringMatching(/^the front-end shared no memory/);
    expect(decideStart(READY, bare)).toEqual({ runs: false, reason });
  });

  it('goes on as its state says when it ran in the same layout', () => {
    const went = { goesOn: true, ranAs: layout, base: 0xffff_ffff };
    expect(start(layout, went)).toMatchObject({ runs: true, indices: null });
  });
});

describe('a split ring', () => {
  it('lies at three places and begins where its used ring stands', () => {
    expect(start('split', { base: USED_IDX })).toEqual({
      runs: true,
      places: places(0x1000, 0x9000, 0xa000),
      indices: { availNext: USED_IDX, usedNext: USED_IDX },
      remark: null,
      recovery: null,
    });
  });

  it.each([null, 0, 0xffff])('does so also when its base %s says otherwise, with a remark', (base) => {
    const remark = `its base named ${base ?? 0}, but it was used up to ${USED_IDX}: it goes on from there`;
    const indices = { availNext: USED_IDX, usedNext: USED_IDX };
    expect(start('split', { base })).toMatchObject({ runs: true, indices, remark });
  });

  it.each([2, 4, 256, 1024])('may have %i entries', (size) => {
    expect(start('split', { size }).runs).toBe(true);
  });

  it.each([1, 3, 100, 257, 32_767])('may not have %i entries', (size) => {
    const reason = `ring size ${size} is no power of two from 2 to 32,768`;
    expect(start('split', { size })).toEqual({ runs: false, reason });
  });

  it('begins anew after it ran as a packed one, whatever it answered then', () => {
    const ran = { base: 0x8003_8003, ranAs: 'packed', goesOn: true } as const;
    expect(start('split', ran)).toMatchObject({ runs: true, indices: { availNext: USED_IDX } });
  });

  it('is answered with its avail index', () => {
    const indices = { availNext: 0xabcd, usedNext: 7 };
    expect(baseToAnswer({ ...READY, indices, goesOn: true, ranAs: 'split' }, 'split')).toBe(0xabcd);
    expect(baseToAnswer({ ...READY, base: 9 }, 'split')).toBe(9);
    expect(baseToAnswer(READY, 'split')).toBe(0);
  });
});

describe('a packed ring', () => {
  it('lies at a descriptor ring and two event suppressions of four bytes, and begins with wrap counters 1', () => {
    expect(start('packed')).toEqual({
      runs: true,
      places: places(0x1000, 0x9000, 0xa000),
      indices: { availNext: 0x8000, usedNext: 0x8000 },
      remark: null,
      recovery: null,
    });
  });

  it.each([1, 2, 3, 100, 257])('may have %i entries', (size) => {
    expect(start('packed', { size }).runs).toBe(true);
  });

  it('may have 32,768 entries where there is room', () => {
    expect(start('packed', { size: 32_768 }).runs).toBe(true);
    expect(start('packed', { size: 32_768, addresses: { ...ADDRESSES, descUva: 0x8_0010n } })).toEqual({
      runs: false,
      reason: 'its descriptor ring (524288 bytes) does not lie in the shared memory',
    });
  });

  it.each([
    ['descUva', 0x1008n, 'its descriptor ring is not aligned to 16 bytes'],
    ['descUva', 0xf_f001n, 'its descriptor ring (4096 bytes) does not lie in the shared memory'],
    ['availUva', 0x9002n, 'its driver event suppression is not aligned to 4 bytes'],
    ['availUva', 0xf_fffdn, 'its driver event suppression (4 bytes) does not lie in the shared memory'],
    ['usedUva', 0xa001n, 'its device event suppression is not aligned to 4 bytes'],
    ['usedUva', 0x10_0000n, 'its device event suppression (4 bytes) does not lie in the shared memory'],
  ])('does not run with %s %i', (field, uva, reason) => {
    expect(start('packed', { addresses: { ...ADDRESSES, [field]: uva } })).toEqual({ runs: false, reason });
  });

  it.each([
    // Both halves, as the specification has them.
    [0x8005_8005, 0x8005, 0x8005],
    [0x0005_0005, 0x0005, 0x0005],
    [0x8003_0005, 0x0005, 0x8003],
    // Only the lower half, as DPDK's virtio-user sends it.
    [0x0000_8000, 0x8000, 0x8000],
    [0x0000_0007, 0x0007, 0x0007],
    [0x80ff_80ff, 0x80ff, 0x80ff],
  ])('begins at base 0x%s', (base, availNext, usedNext) => {
    expect(start('packed', { base })).toMatchObject({
      runs: true,
      indices: { availNext, usedNext },
      remark: null,
    });
  });

  it.each([
    // User-Mode Linux names 0 for a new ring: nothing was used, or made available again, in any round before.
    ['new', 0, 0x8000],
    ['new, with descriptors available in the first round', DESC_F_AVAIL, 0x8000],
    ['at its second round, used in the first', DESC_F_AVAIL | DESC_F_USED, 0x0000],
    ['at its second round, and available again', DESC_F_USED, 0x0000],
  ])('with base 0 begins where its descriptors say: %s', (_what, flags, position) => {
    const around = surroundings('packed');
    const flagsOffset = ARENA_OFFSET + Number(ADDRESSES.descUva) + 16 * 200 + 14;
    const word16At = (offset: number): number => (offset === flagsOffset ? flags : 0);
    expect(decideStart({ ...READY, base: 0 }, { ...around, word16At })).toMatchObject({
      runs: true,
      indices: { availNext: position, usedNext: position },
    });
  });

  it.each([
    [0x8100_8000, 256],
    [0x8000_8100, 256],
    [0x0000_ffff, 32_767],
    [0xffff_ffff, 32_767],
  ])('does not run from base %i, which lies outside', (base, position) => {
    const reason = `its base names position ${position} of a packed ring of 256`;
    expect(start('packed', { base })).toEqual({ runs: false, reason });
  });

  it.each([
    // What is used in this round, before and behind the base.
    [0x8000_8000, 0, 0x8080, false],
    [0x8000_8000, 255, 0x8080, false],
    [0x8005_8005, 5, 0x8080, false],
    [0x8005_8005, 4, 0x8080, true],
    // Available in this round or left from the one before, as in any ring at work.
    [0x8000_8000, 0, 0x0080, true],
    [0x8000_8000, 7, 0x8000, true],
    // In a round with wrap counter 0 it is what was used in the round before.
    [0x0005_0005, 9, 0x8080, true],
  ])('with base 0x%s and flags at descriptor %i of 0x%s: runs %s', (base, position, flags, runs) => {
    const flagsOffset = ARENA_OFFSET + Number(ADDRESSES.descUva) + 16 * position + 14;
    const around = surroundings('packed');
    const decided = decideStart(
      { ...READY, base },
      { ...around, word16At: (offset) => (offset === flagsOffset ? flags : 0) },
    );
    expect(decided.runs).toBe(runs);
    if (!runs) expect(decided).toMatchObject({ reason: expect.stringMatching(/must start it anew/) });
  });

  describe('whose connection was lost', () => {
    const stood = { availNext: 0x0007, usedNext: 0x0007 };
    const lastRun: LastRun = {
      layout: 'packed',
      size: 256,
      place: '1:2:4096',
      base: 0x8003_8003,
      indices: stood,
      interrupted: null,
    };
    /** Descriptors up to 7 were used in the second round, the others in the first. */
    const rings = (flagsAt: (position: number) => number): RingSurroundings => ({
      ...surroundings('packed'),
      lastRun,
      word16At: (offset) => flagsAt((offset - ARENA_OFFSET - Number(ADDRESSES.descUva) - 14) / 16),
    });
    const used = (position: number): number => (position < 7 ? 0 : 0x8080);
    const begins = { availNext: 0x8000, usedNext: 0x8000 };

    it.each([null, 0x8000_8000, 0x8003_8003])(
      'goes on where it stood when its base is %s once more',
      (base) => {
        expect(decideStart({ ...READY, base }, rings(used))).toMatchObject({
          runs: true,
          indices: stood,
          remark: expect.stringMatching(/it was used up to 7: it goes on from there/),
        });
      },
    );

    it('goes on where its front-end says when that is anywhere else', () => {
      expect(decideStart({ ...READY, base: 0x0009_0009 }, rings(used))).toMatchObject({
        indices: { availNext: 0x0009, usedNext: 0x0009 },
      });
    });

    it('begins when its driver made it anew', () => {
      const isNew = (position: number): number => (position < 100 ? 0x0080 : 0);
      expect(decideStart(READY, rings(isNew))).toMatchObject({ runs: true, indices: begins, remark: null });
    });

    it.each([
      ['another file or place', { place: '1:3:4096' }],
      ['no place that is known', { place: null }],
      ['another size', { size: 128 }],
      ['another layout', { layout: 'split' as const }],
    ])('is not taken for one of %s', (_what, but) => {
      const other = { ...rings(used), lastRun: { ...lastRun, ...but } };
      expect(decideStart(READY, other)).toMatchObject({
        runs: false,
        reason: expect.stringMatching(/must start it anew/),
      });
    });
  });

  describe('whose process was killed', () => {
    /** A burst to the guest from descriptor 5 on, of which 6 and 7 are marked in the second round. */
    const standing = new StandingWords({ buffer: new ArrayBuffer(0) } as ArenaView, undefined);
    beforeEach(() => {
      standing.words[STAND] = 5;
      standing.words[OPEN] = 5 | OPEN_BIT;
      standing.words[FIRST_WORD] = 99;
      standing.words[FIRST_BYTES] = 76;
    });
    const lastRun: LastRun = {
      layout: 'packed',
      size: 256,
      place: '1:2:4096',
      base: 0x8003_8003,
      indices: null,
      interrupted: { size: 256, isFromGuest: false, inOrder: false, standing },
    };
    /** Used before 5, marked after it, then available, then of the round before. */
    const flagsOf = (position: number): number => {
      if (position < 5 || position === 6 || position === 7) return 0;
      return position < 20 ? DESC_F_USED : DESC_F_AVAIL | DESC_F_USED;
    };
    const decide = (base: number | null, flagsAt = flagsOf): RingStart =>
      decideStart(
        { ...READY, base },
        {
          ...surroundings('packed'),
          lastRun,
          word16At: (offset) => flagsAt((offset - ARENA_OFFSET - Number(ADDRESSES.descUva) - 14) / 16),
        },
      );
    const stood = { availNext: 8, usedNext: 8 };

    it.each([null, 0x8000_8000, 0x8003_8003, 0, 0x0005_0005])(
      'goes on behind the burst that is brought to its end when its base is %s',
      (base) => {
        expect(decide(base)).toMatchObject({
          runs: true,
          indices: stood,
          recovery: { position: 8, seen: 5, marks: [], first: { at: 5, bytes: 76, word: 99 } },
        });
      },
    );

    describe('and its front-end stayed connected', () => {
      const left = (but: Partial<LastRun> | null, flagsAt = flagsOf) =>
        whereItWasLeft(
          { ...READY, base: 0x8003_8003 },
          {
            ...surroundings('packed'),
            lastRun: but === null ? null : { ...lastRun, ...but },
            place: '1:2:4096',
            word16At: (offset) => flagsAt((offset - ARENA_OFFSET - Number(ADDRESSES.descUva) - 14) / 16),
          },
        );

      it('goes on behind the burst that is brought to its end', () => {
        expect(left({})).toMatchObject({ indices: stood, recovery: { position: 8, seen: 5 } });
      });

      it.each<[string, Partial<LastRun> | null]>([
        ['nothing', null],
        ['another base', { base: 0x8000_8000 }],
        ['another size', { size: 128 }],
        ['another place', { place: '1:2:8192' }],
        ['another layout', { layout: 'split' }],
        ['what another process did not interrupt', { interrupted: null, indices: stood }],
      ])('is not taken up where %s was noted', (_what, but) => {
        expect(left(but)).toBe('nobody noted where it stands');
      });

      it('is not taken up where it cannot stand', () => {
        standing.words[OPEN] = 30 | OPEN_BIT;
        expect(left({})).toBe('it cannot stand where it was noted');
      });
    });

    it('goes on where its front-end says when that is anywhere else', () => {
      expect(decide(0x0009_0009)).toMatchObject({
        indices: { availNext: 9, usedNext: 9 },
        recovery: null,
      });
    });

    it('begins when its driver made it anew', () => {
      const begins = { availNext: 0x8000, usedNext: 0x8000 };
      expect(decide(null, () => 0)).toMatchObject({ indices: begins, recovery: null });
    });

    it.each<[string, () => unknown]>([
      ['names a position beyond the ring', () => (standing.words[STAND] = 256)],
      ['names chains beyond its list', () => (standing.words[STAND] = standWord(5, 96, 1))],
      ['has chains that are longer than the ring', () => (standing.words[STAND] = standWord(5, 1, 0))],
      ['names a descriptor that is neither used nor available', () => (standing.words[OPEN] = 30 | OPEN_BIT)],
    ])('is not believed when it %s', (_what, spoil) => {
      standing.slots.fill(1000);
      spoil();
      const reason = expect.stringMatching(/must start it anew/);
      expect(decide(null)).toEqual({ runs: false, reason });
    });
  });

  it('begins anew after it ran as a split one', () => {
    const ran = { base: 300, ranAs: 'split', goesOn: true } as const;
    expect(start('packed', ran)).toMatchObject({ indices: { availNext: 0x8000, usedNext: 0x8000 } });
  });

  it('is answered with both positions, or with where it would begin', () => {
    expect(baseToAnswer({ ...READY, goesOn: true, ranAs: 'packed' }, 'packed')).toBe(0x0010_8012);
    expect(baseToAnswer({ ...READY, base: 0x8007 }, 'packed')).toBe(0x8007);
    expect(baseToAnswer(READY, 'packed')).toBe(0x8000_8000);
  });

  it('does not go on where it stands when its size no longer reaches there', () => {
    const went = { goesOn: true, ranAs: 'packed' } as const;
    expect(start('packed', { ...went, size: 19 })).toMatchObject({ runs: true, indices: null });
    const reason = 'its base names position 18 of a packed ring of 18';
    expect(start('packed', { ...went, size: 18 })).toEqual({ runs: false, reason });
  });
});
