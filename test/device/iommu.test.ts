/**
 * A device behind an IOMMU (ACCESS_PLATFORM; vhost-user.rst, "IOMMU support"): rings that wait for translations of where they
 * lie, or of buffers, what is asked for, and when an update or an invalidation is acknowledged; also a front-end that tells too much or
 * nonsense, does not answer, does not read, or hangs up.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { closeFd, setSocketOption } from '../../src/host/descriptor.ts';
import { socketPair } from '../../src/host/unix-socket.ts';
import { GpaTranslator } from '../../src/memory/gpa-translator.ts';
import { type AddressMiss, IOTLB_RANGES_MAX } from '../../src/memory/iotlb.ts';
import { QueueState, STATE_AVAIL_NEXT, STATE_USED_NEXT } from '../../src/queue/state.ts';
import { UVA_BASE } from '../memory/guest-file.ts';
import {
  bit,
  F,
  type Iotlb,
  iotlb,
  none,
  P,
  region,
  ScriptedFrontEnd,
  state,
  u64,
} from '../vhost-user/scripted-front-end.ts';
import { FEATURES, GUEST_BYTES, PROTOCOL_FEATURES, ringOffsets, World } from './world.ts';

const BEHIND_ONE = FEATURES | bit(F.ACCESS_PLATFORM);
const PROTOCOL = PROTOCOL_FEATURES | bit(P.BACKEND_REQ);
const [MISS, UPDATE, INVALIDATE, ACCESS_FAIL] = [1, 2, 3, 4];
const [READ, WRITE, BOTH] = [1, 2, 3];
const PAGE = 4096n;
/** Where the guest's memory begins for its devices. */
const IOVA = 0x12_3456_0000n;
const iovaOf = (offset: number): bigint => IOVA + BigInt(offset);
const SO_SNDBUF = 7;

const LAYOUTS = [
  { layout: 'split', more: 0n, base: 0, areas: [READ, READ, BOTH] },
  { layout: 'packed', more: bit(F.PACKED), base: 0x8000_8000, areas: [BOTH, READ, WRITE] },
] as const;

let world: World;
/** The front-end's end of the channel that it handed over. */
let channel: ScriptedFrontEnd | null;

beforeEach(() => {
  world = new World({ features: { iommu: true } });
  channel = null;
});
afterEach(async () => {
  channel?.close();
  vi.useRealTimers();
  await world.dispose();
});

async function handOver(prepare: (theirs: number) => void = () => {}): Promise<ScriptedFrontEnd> {
  const [ours, theirs] = socketPair();
  prepare(theirs);
  expect(await world.front.ack('SET_BACKEND_REQ_FD', none(), [theirs])).toBe(0n);
  closeFd(theirs);
  channel?.close();
  channel = new ScriptedFrontEnd(ours);
  return channel;
}

/** Negotiated, memory shared; no ring runs. */
async function begin(features = BEHIND_ONE, protocol = PROTOCOL): Promise<void> {
  await world.negotiate(features, protocol);
  await world.shareMemory();
}

/** A ring that is enabled, at addresses of the IOMMU. */
async function start(index: number, base = 0, size = 256): Promise<void> {
  world.sendRing(index, { base, size, uva: IOVA });
  world.front.send('SET_VRING_ENABLE', state(index, 1));
  expect(await world.front.settle()).toEqual([]);
}

/** The messages that have come by the channel. */
async function asked(): Promise<{ type: number; iova: bigint; access: number }[]> {
  await world.front.settle();
  return (channel as ScriptedFrontEnd).repliesNow().map(({ request, flags, payload }) => {
    // No reply is asked for.
    expect([request, flags, payload.length]).toEqual([1, 1, 32]);
    const view = new DataView(payload.buffer, payload.byteOffset);
    return { iova: view.getBigUint64(0, true), access: view.getUint8(24), type: view.getUint8(25) };
  });
}

const tell = async (message: Partial<Iotlb> & Pick<Iotlb, 'type'>): Promise<bigint> =>
  (await world.front.request('IOTLB_MSG', iotlb(message))).u64;
/** Tells of whole pages as they lie in the memory. */
const update = (offset: number, pages = 1, access = BOTH): Promise<bigint> =>
  tell({
    type: UPDATE,
    iova: iovaOf(offset),
    sizeBytes: PAGE * BigInt(pages),
    uva: UVA_BASE + BigInt(offset),
    access,
  });
const invalidate = (offset: number, pages = 1): Promise<bigint> =>
  tell({ type: INVALIDATE, iova: iovaOf(offset), sizeBytes: PAGE * BigInt(pages) });

/** All of the memory is translated. */
async function updateAll(): Promise<void> {
  expect(await update(0, GUEST_BYTES / 4096)).toBe(0n);
}

/** Rings 0 and 1 run, and all is translated. */
async function run(more = 0n, base = 0): Promise<void> {
  await begin(BEHIND_ONE | more);
  await handOver();
  await updateAll();
  for (const index of [0, 1]) await start(index, base);
  expect([...world.dataPath.attached.keys()]).toEqual([0, 1]);
  expect(await asked()).toEqual([]);
  world.dataPath.takeLog();
}

/** What the user is shown. */
function waitReason(): string | null {
  const ring = world.device.waitingRing;
  return ring === null ? null : `queue ${ring.index}: ${world.device.waitReasonOf(ring)}`;
}

/** A worker parks a ring. */
function park(index: number, ...misses: AddressMiss[]): void {
  world.device.queueWaits(index, misses);
}

/** Whether a worker would find a byte of the memory. */
function isKnown(index: number, offset: number, isForWriting = false): boolean {
  const translator = new GpaTranslator(world.dataPath.attached.get(index)!.map, isForWriting);
  const iova = Number(iovaOf(offset));
  return translator.locate(iova | 0, Math.floor(iova / 2 ** 32), 1) >= 0;
}

describe('ACCESS_PLATFORM', () => {
  it('is refused where it is not offered, as is an IOTLB message without it', async () => {
    const other = new World();
    try {
      other.front.send('SET_FEATURES', u64(BEHIND_ONE));
      expect(await other.ended).toMatch(/features 0x200000000 were not offered/);
    } finally {
      await other.dispose();
    }
    await begin(FEATURES);
    expect(await world.front.ack('IOTLB_MSG', iotlb({ type: UPDATE }))).toBe(1n);
    expect(world.refused).toEqual(['IOTLB_MSG although ACCESS_PLATFORM was not negotiated']);
    world.front.send('IOTLB_MSG', iotlb({ type: UPDATE }));
    expect(await world.ended).toBe('IOTLB_MSG although ACCESS_PLATFORM was not negotiated');
  });

  it.each([
    ['REPLY_ACK', P.REPLY_ACK],
    ['BACKEND_REQ', P.BACKEND_REQ],
  ])('needs %s', async (_, lacking) => {
    world.front.send('SET_PROTOCOL_FEATURES', u64(PROTOCOL & ~bit(lacking)));
    world.front.send('SET_FEATURES', u64(BEHIND_ONE));
    expect(await world.ended).toBe('SET_FEATURES: ACCESS_PLATFORM without BACKEND_REQ and REPLY_ACK');
  });

  it('keeps them needed', async () => {
    await begin();
    world.front.send('SET_PROTOCOL_FEATURES', u64(PROTOCOL_FEATURES));
    expect(await world.ended).toBe(
      'SET_PROTOCOL_FEATURES: ACCESS_PLATFORM without BACKEND_REQ and REPLY_ACK',
    );
  });
});

describe.each(LAYOUTS)('a $layout ring', ({ more, base, areas }) => {
  const { desc, avail, used } = ringOffsets(1);
  const places = [desc, avail, used];

  it('starts when all of where it lies is translated, which is asked for once', async () => {
    await begin(BEHIND_ONE | more);
    await handOver();
    await start(1, base);
    expect(world.dataPath.attached.size).toBe(0);
    const misses = areas.map((access, i) => ({ type: MISS, iova: iovaOf(places[i]), access }));
    expect(await asked()).toEqual(misses);
    // What the front-end says of other rings, or again of this one, asks for nothing more.
    await start(0, base);
    await asked();
    world.front.send('SET_VRING_ENABLE', state(1, 1));
    expect(await asked()).toEqual([]);
    for (const [i, offset] of places.entries()) {
      expect(world.dataPath.attached.has(1)).toBe(false);
      expect(await update(offset, 1, areas[i])).toBe(0n);
    }
    await world.front.settle();
    const attached = world.dataPath.attached.get(1)!;
    expect(attached.driverOffset - attached.descOffset).toBe(avail - desc);
    expect(attached.deviceOffset - attached.descOffset).toBe(used - desc);
    expect(await asked()).toEqual([]);
  });

  it('waits on where only some of it may be used as it must', async () => {
    await begin(BEHIND_ONE | more);
    await handOver();
    await start(1, base);
    await asked();
    for (const offset of places) await update(offset, 1, READ);
    const lacking = areas.flatMap((access, i) =>
      access === BOTH ? [{ iova: iovaOf(places[i]), access }] : [],
    );
    expect(await asked()).toEqual([{ ...lacking[0], type: ACCESS_FAIL }]);
    expect(world.dataPath.attached.size).toBe(0);
    expect(waitReason()).toMatch(
      /queue 1: its IOMMU does not allow address 0x[0-9a-f]+, to be read and written/,
    );
    for (const offset of places) await update(offset);
    await world.front.settle();
    expect(world.dataPath.attached.size).toBe(1);
    expect(waitReason()).toBeNull();
  });

  it('is stopped, disabled and reset while it waits, and asks no more', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    await begin(BEHIND_ONE | more);
    await handOver();
    await start(1, base);
    expect(await asked()).toHaveLength(3);
    expect((await world.front.request('GET_VRING_BASE', state(1, 0))).payload).toEqual(state(1, base));
    vi.advanceTimersByTime(5000);
    expect(await asked()).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
    await start(1, base);
    expect(await asked()).toHaveLength(3);
    world.front.send('SET_VRING_ENABLE', state(1, 0));
    await world.front.settle();
    vi.advanceTimersByTime(5000);
    expect(await asked()).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('is not touched any more when the invalidation of where it lies is acknowledged, and waits for it anew', async () => {
    await run(more, base);
    const hold = world.dataPath.hold('setMemory');
    const acknowledged = invalidate(used);
    await hold.called;
    expect(world.front.repliesNow()).toEqual([]);
    hold.release();
    expect(await acknowledged).toBe(0n);
    expect(world.dataPath.takeLog()).toEqual(['memory 1']);
    expect(world.dataPath.paused).toEqual([1]);
    expect(await asked()).toEqual([{ type: MISS, iova: iovaOf(used), access: areas[2] }]);
    const { words } = new QueueState(world.states, 1);
    words[STATE_AVAIL_NEXT] = 5;
    words[STATE_USED_NEXT] = 5;
    await update(used, 1, areas[2]);
    await world.front.settle();
    // It goes on where it stood.
    expect(world.dataPath.takeLog()).toEqual(['memory']);
    expect(world.dataPath.paused).toEqual([]);
    expect([words[STATE_AVAIL_NEXT], words[STATE_USED_NEXT]]).toEqual([5, 5]);
  });

  it('begins elsewhere where it comes back there, and is stopped, disabled or loses its memory while it is not there', async () => {
    await run(more, base);
    await invalidate(desc);
    expect(world.dataPath.takeLog()).toEqual(['memory 1']);
    await tell({
      type: UPDATE,
      iova: iovaOf(desc),
      sizeBytes: PAGE,
      uva: UVA_BASE + BigInt(desc) + 0x1000n,
      access: BOTH,
    });
    await world.front.settle();
    expect(world.dataPath.takeLog()).toEqual(['detach 1', 'memory', 'attach 1']);
    await invalidate(desc);
    world.front.send('SET_VRING_ENABLE', state(1, 0));
    await world.front.settle();
    expect(world.dataPath.takeLog()).toEqual(['memory 1', 'detach 1']);
    world.front.send('SET_VRING_ENABLE', state(1, 1));
    await updateAll();
    await world.front.settle();
    await invalidate(desc);
    expect((await world.front.request('GET_VRING_BASE', state(1, 0))).payload).toEqual(state(1, base));
    expect(world.dataPath.attached.has(1)).toBe(false);
    await invalidate(ringOffsets(0).desc);
    expect(world.dataPath.paused).toEqual([0]);
    expect(await world.front.ack('REM_MEM_REG', region(world.guest.region()))).toBe(0n);
    expect(world.dataPath.attached.size).toBe(0);
  });

  it('stops when where it lies is translated otherwise', async () => {
    await run(more, base);
    expect(
      await tell({
        type: UPDATE,
        iova: iovaOf(desc),
        sizeBytes: PAGE,
        uva: UVA_BASE + BigInt(desc) + 0x1000n,
        access: BOTH,
      }),
    ).toBe(0n);
    await world.front.settle();
    expect(world.dataPath.takeLog().slice(0, 2)).toEqual(['detach 1', 'memory']);
    // It runs there.
    expect(world.dataPath.attached.has(1)).toBe(true);
  });

  it('is known by where it lies in its file, whatever its addresses', async () => {
    await run(more, base);
    const { size, addresses } = world.ring(1);
    expect(size).toBe(256);
    expect(addresses!.descUva).toBe(iovaOf(desc));
    await world.device.setResting(true);
    await world.device.setResting(false);
    expect([...world.dataPath.attached.keys()].sort()).toEqual([0, 1]);
  });
});

describe('a ring of several pages', () => {
  it('runs only where they are neighbours in the shared memory', async () => {
    await begin();
    await handOver();
    await start(1, 0, 512);
    const { desc, avail, used } = ringOffsets(1);
    expect(await asked()).toHaveLength(5);
    for (const offset of [avail, used]) await update(offset, 2);
    await update(desc);
    expect(
      await tell({ type: UPDATE, iova: iovaOf(desc) + PAGE, sizeBytes: PAGE, uva: UVA_BASE, access: BOTH }),
    ).toBe(0n);
    await world.front.settle();
    expect(world.dataPath.attached.size).toBe(0);
    expect(world.ring(1).reason).toMatch(/descriptor table \(8192 bytes\)/);
    await update(desc + 4096);
    world.front.send('SET_VRING_ENABLE', state(1, 1));
    await world.front.settle();
    expect(world.dataPath.attached.size).toBe(1);
  });
});

describe('a buffer that has no translation', () => {
  const BUFFER = 0x8000;
  const FIRST = { iova: iovaOf(BUFFER) + 5n, access: READ };

  beforeEach(() => run());

  it('is asked for once, however often and by whomever, until it is answered', async () => {
    expect(await invalidate(BUFFER, 2)).toBe(0n);
    expect(world.dataPath.takeLog()).toEqual(['memory']);
    expect(isKnown(1, BUFFER)).toBe(false);
    park(1, FIRST, { iova: iovaOf(BUFFER + 4096), access: READ });
    expect(await asked()).toEqual([
      { type: MISS, ...FIRST },
      { type: MISS, iova: iovaOf(BUFFER + 4096), access: READ },
    ]);
    for (let i = 0; i < 100; i++) {
      park(1, FIRST);
      park(0, { iova: iovaOf(BUFFER) + 77n, access: READ });
    }
    expect(await asked()).toEqual([]);
    // To be written is another question.
    park(0, { iova: iovaOf(BUFFER) + 77n, access: WRITE });
    expect(await asked()).toEqual([{ type: MISS, iova: iovaOf(BUFFER) + 77n, access: WRITE }]);
    expect(await update(BUFFER)).toBe(0n);
    await world.front.settle();
    expect(world.dataPath.takeLog()).toEqual(['memory']);
    expect(isKnown(1, BUFFER)).toBe(true);
    expect(isKnown(1, BUFFER + 4096)).toBe(false);
    // It needs the next page, which was asked for and not answered yet.
    park(1, { iova: iovaOf(BUFFER + 4096), access: READ });
    expect(await asked()).toEqual([]);
    expect(await update(BUFFER + 4096)).toBe(0n);
    await world.front.settle();
    expect(isKnown(1, BUFFER + 4096)).toBe(true);
  });

  it('that is known by now has the workers told, without a question', async () => {
    park(1, FIRST);
    await world.front.settle();
    expect(world.dataPath.takeLog()).toEqual(['memory']);
    expect(await asked()).toEqual([]);
  });

  it('has one order for several updates', async () => {
    await invalidate(BUFFER, 2);
    world.dataPath.takeLog();
    park(1, FIRST);
    park(0, { iova: iovaOf(BUFFER + 4096), access: WRITE });
    const hold = world.dataPath.hold('setMemory');
    await update(BUFFER);
    await hold.called;
    const second = update(BUFFER + 4096);
    hold.release();
    await second;
    await world.front.settle();
    expect(world.dataPath.takeLog()).toEqual(['memory', 'memory']);
    expect(isKnown(0, BUFFER + 4096, true)).toBe(true);
  });

  it('that is forgotten before its ring was told is asked for at once', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    await invalidate(0xa000);
    park(0, { iova: iovaOf(0xa000), access: WRITE });
    await asked();
    const hold = world.dataPath.hold('setMemory');
    await update(0xa000);
    await hold.called;
    // Its turn comes after this one, and before that of a ring that parks only now.
    const forgotten = world.device.followIotlb({
      iova: iovaOf(BUFFER),
      sizeBytes: PAGE,
      uva: 0n,
      access: 0,
      type: INVALIDATE,
    });
    park(1, FIRST);
    hold.release();
    await forgotten;
    expect(isKnown(1, BUFFER)).toBe(false);
    expect(await asked()).toEqual([{ type: MISS, ...FIRST }]);
  });

  it('is not what a ring waits for that was paused meanwhile', async () => {
    expect(await tell({ type: INVALIDATE, iova: 0n, sizeBytes: 0n })).toBe(0n);
    expect(world.dataPath.paused).toEqual([0, 1]);
    // On its way before the worker obeyed.
    park(1, FIRST);
    await updateAll();
    await invalidate(BUFFER);
    await world.front.settle();
    expect(world.dataPath.paused).toEqual([]);
    expect(await asked()).not.toContainEqual({ type: MISS, ...FIRST });
  });

  it('is denied where it may not be used so, which the front-end and the user are told once', async () => {
    await invalidate(BUFFER);
    park(0, { ...FIRST, access: WRITE });
    await asked();
    world.dataPath.takeLog();
    expect(waitReason()).toBeNull();
    for (let i = 0; i < 3; i++) await update(BUFFER, 1, READ);
    expect(await asked()).toEqual([{ type: ACCESS_FAIL, ...FIRST, access: WRITE }]);
    expect(waitReason()).toBe(
      `queue 0: its IOMMU does not allow address 0x${FIRST.iova.toString(16)}, to be written`,
    );
    expect(world.dataPath.takeLog()).toEqual([]);
    await update(BUFFER);
    await world.front.settle();
    expect(waitReason()).toBeNull();
    expect(isKnown(0, BUFFER, true)).toBe(true);
  });

  it('may be read where it may not be written', async () => {
    await update(BUFFER, 1, READ);
    await world.front.settle();
    expect(world.dataPath.takeLog()).toEqual(['memory']);
    expect([isKnown(1, BUFFER), isKnown(0, BUFFER, true)]).toEqual([true, false]);
    await update(BUFFER, 1, WRITE);
    expect([isKnown(1, BUFFER), isKnown(0, BUFFER, true)]).toEqual([false, true]);
  });

  it('that is never answered is a reason that the user sees after two seconds, and is asked for again', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    await invalidate(BUFFER);
    park(1, FIRST);
    expect(await asked()).toHaveLength(1);
    expect(waitReason()).toBeNull();
    const { changes } = world;
    vi.advanceTimersByTime(1000);
    expect(await asked()).toEqual([{ type: MISS, ...FIRST }]);
    expect(waitReason()).toBeNull();
    for (let time = 0; time < 3; time++) {
      vi.advanceTimersByTime(1000);
      expect(await asked()).toEqual([{ type: MISS, ...FIRST }]);
      expect(waitReason()).toBe(
        `queue 1: waits for its IOMMU's translation of address 0x${FIRST.iova.toString(16)}, to be read, which its front-end does not give`,
      );
    }
    expect(world.changes).toBe(changes + 1);
    // Everything goes on working on it.
    world.front.send('SET_VRING_ENABLE', state(1, 0));
    expect(await world.front.settle()).toEqual([]);
    expect(waitReason()).toBeNull();
    vi.advanceTimersByTime(3000);
    expect(vi.getTimerCount()).toBe(0);
    expect((await world.front.request('GET_VRING_BASE', state(1, 0))).payload).toEqual(state(1, 0));
  });

  it('is forgotten with its ring', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    await invalidate(BUFFER);
    park(1, FIRST);
    await world.front.request('GET_VRING_BASE', state(1, 0));
    // Too late, of a ring that nobody uses; and of one that there is not.
    park(1, FIRST);
    park(77, FIRST);
    vi.advanceTimersByTime(3000);
    expect((await asked()).length).toBe(1);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('an invalidation', () => {
  beforeEach(() => run());

  it('is acknowledged only when no worker knows the page any more', async () => {
    const hold = world.dataPath.hold('setMemory');
    const acknowledged = invalidate(0x8000);
    await hold.called;
    expect(world.front.repliesNow()).toEqual([]);
    // Nobody was told yet, so a worker may still use it.
    expect(isKnown(1, 0x8000)).toBe(true);
    hold.release();
    expect(await acknowledged).toBe(0n);
    expect([isKnown(1, 0x8000), isKnown(1, 0x7fff), isKnown(1, 0x9000)]).toEqual([false, true, true]);
  });

  it('of what is not known disturbs nobody', async () => {
    await invalidate(0x8000);
    world.dataPath.takeLog();
    for (let i = 0; i < 10; i++) expect(await invalidate(0x8000)).toBe(0n);
    expect(await tell({ type: INVALIDATE, iova: 0xffff_ffff_ffff_f000n, sizeBytes: PAGE })).toBe(0n);
    expect(world.dataPath.takeLog()).toEqual([]);
  });

  it.each([
    ['of everything', 0n, 2n ** 63n],
    ['of length 0, as 2^64 becomes', 0n, 0n],
    ['that runs over the end', 4096n, 2n ** 64n - 1n],
  ])('%s has all rings wait', async (_, iova, sizeBytes) => {
    expect(await tell({ type: INVALIDATE, iova, sizeBytes })).toBe(0n);
    expect(world.dataPath.takeLog()).toEqual(['memory 0 1']);
    expect(await asked()).toHaveLength(6);
    await updateAll();
    await world.front.settle();
    expect(world.dataPath.takeLog()).toEqual(['memory']);
    expect(world.dataPath.paused).toEqual([]);
  });
});

describe('an update', () => {
  const LENGTH = BigInt(GUEST_BYTES);
  beforeEach(() => run());

  it.each([
    ['is empty', { sizeBytes: 0n }, /is empty/],
    ['begins before the shared memory', { uva: UVA_BASE - 1n }, /does not lie in the shared memory/],
    ['ends behind it', { sizeBytes: LENGTH + 1n }, /does not lie in the shared memory/],
    ['lies outside of it', { uva: 4096n }, /does not lie in the shared memory/],
    ['is giant', { sizeBytes: 2n ** 52n }, /does not lie in the shared memory/],
    ['is too long for an address', { sizeBytes: 2n ** 64n - 1n }, /is out of range/],
    ['is where no address is exact', { iova: 2n ** 53n }, /is out of range/],
    ['overflows', { iova: 2n ** 64n - 1n, sizeBytes: 2n ** 64n - 1n }, /is out of range/],
    ['names user addresses that overflow', { uva: 2n ** 64n - 1n }, /is out of range/],
    ['allows nothing', { access: 0 }, /neither reading nor writing/],
    ['allows what there is not', { access: 4 }, /neither reading nor writing/],
  ])('that %s is refused, and changes nothing', async (_, change, reason) => {
    const message = { type: UPDATE, iova: IOVA, sizeBytes: PAGE, uva: UVA_BASE, access: BOTH, ...change };
    expect(await tell(message)).toBe(1n);
    expect(world.refused.at(-1)).toMatch(reason);
    expect(world.dataPath.takeLog()).toEqual([]);
    expect(isKnown(1, 0x8000)).toBe(true);
  });

  it.each([0, 1, 4, 5, 255])('of type %i is refused', async (type) => {
    expect(await tell({ type, iova: IOVA, sizeBytes: PAGE, uva: UVA_BASE, access: BOTH })).toBe(1n);
    expect(world.refused.at(-1)).toMatch(/which front-ends do not send/);
  });

  it('may have no padding, but no other length', async () => {
    const { front } = world;
    expect((await front.request('IOTLB_MSG', iotlb({ type: INVALIDATE, iova: 1n }, 0))).u64).toBe(0n);
    expect((await front.request('IOTLB_MSG', iotlb({ type: INVALIDATE }, 5))).u64).toBe(1n);
    expect(world.refused.at(-1)).toMatch(/payload of 31 bytes/);
  });

  it('is acknowledged once, asked for or not', async () => {
    expect(await world.front.ack('IOTLB_MSG', iotlb({ type: INVALIDATE, iova: 1n, sizeBytes: 1n }))).toBe(0n);
    expect(await world.front.settle()).toEqual([]);
  });

  it('may come without end: there are no more than so many, and rings run on', async () => {
    // No two join.
    const count = IOTLB_RANGES_MAX + 508;
    let replies = 0;
    for (let sent = 0; sent < count; ) {
      for (let i = 0; i < 20; i++, sent++)
        world.front.send(
          'IOTLB_MSG',
          iotlb({
            type: UPDATE,
            iova: 2n ** 40n + 2n * PAGE * BigInt(sent),
            sizeBytes: PAGE,
            uva: UVA_BASE,
            access: BOTH,
          }),
        );
      replies += (await world.front.settle())!.length;
    }
    expect(replies).toBe(count);
    expect([...world.dataPath.attached.keys()]).toEqual([0, 1]);
    expect(world.device.handOverMessages().filter(({ name }) => name === 'IOTLB_MSG').length).toBeLessThan(
      IOTLB_RANGES_MAX,
    );
    world.dataPath.takeLog();
    // A worker may still know what was forgotten here, so it is told although nothing is known here.
    expect(await tell({ type: INVALIDATE, iova: 1n, sizeBytes: 1n })).toBe(0n);
    expect(world.dataPath.takeLog()).toContain('memory');
    expect(await tell({ type: INVALIDATE, iova: 1n, sizeBytes: 1n })).toBe(0n);
    expect(world.dataPath.takeLog()).toEqual([]);
  });
});

describe('memory that goes away', () => {
  it('takes its translations with it', async () => {
    await run();
    const more = await world.addMemory({
      gpa: 2n ** 32n,
      uva: UVA_BASE + 2n ** 32n,
      sizeBytes: PAGE,
      mmapOffset: 0n,
    });
    expect(more).toBe(0n);
    const other = { iova: 2n ** 44n, sizeBytes: PAGE, uva: UVA_BASE + 2n ** 32n, access: BOTH };
    expect(await tell({ type: UPDATE, ...other })).toBe(0n);
    const count = (): number =>
      world.device.handOverMessages().filter(({ name }) => name === 'IOTLB_MSG').length;
    expect(count()).toBe(2);
    const gone = { gpa: 2n ** 32n, uva: UVA_BASE + 2n ** 32n, sizeBytes: PAGE, mmapOffset: 0n };
    expect(await world.front.ack('REM_MEM_REG', region(gone))).toBe(0n);
    expect(count()).toBe(1);
    expect([...world.dataPath.attached.keys()]).toEqual([0, 1]);
    // What is asked for now is not known, although it was told once.
    park(1, { iova: 2n ** 44n, access: READ });
    expect(await asked()).toEqual([{ type: MISS, iova: 2n ** 44n, access: READ }]);
    expect(await tell({ type: UPDATE, ...other })).toBe(1n);
  });
});

describe('translations', () => {
  const count = (): number =>
    world.device.handOverMessages().filter(({ name }) => name === 'IOTLB_MSG').length;

  it('are forgotten when the last ring has stopped, since nobody tells what goes then', async () => {
    await run();
    await world.front.request('GET_VRING_BASE', state(0, 0));
    expect(count()).toBe(1);
    await world.front.request('GET_VRING_BASE', state(1, 0));
    expect(count()).toBe(0);
    await start(0);
    expect(await asked()).toHaveLength(3);
  });

  it('are forgotten by a reset, and without the feature', async () => {
    const reset = PROTOCOL | bit(P.RESET);
    await begin(BEHIND_ONE, reset);
    await handOver();
    await updateAll();
    await start(0);
    expect(world.dataPath.attached.size).toBe(1);
    expect(await world.front.ack('RESET_DEVICE')).toBe(0n);
    expect(count()).toBe(0);
    world.front.send('SET_FEATURES', u64(BEHIND_ONE));
    await world.front.settle();
    await updateAll();
    expect(count()).toBe(1);
    world.front.send('SET_FEATURES', u64(FEATURES));
    await world.front.settle();
    expect(count()).toBe(0);
    // Its addresses are the front-end's now.
    await start(0);
    expect(world.ring(0).reason).toMatch(/does not lie in the shared memory/);
  });

  it('stay when features are said again while rings run, as QEMU does for each queue pair', async () => {
    await run();
    world.front.send('SET_FEATURES', u64(BEHIND_ONE));
    await world.front.settle();
    expect(count()).toBe(1);
    expect(world.dataPath.takeLog()).toEqual([]);
  });

  it('come along when the device is handed over, with the channel, behind the memory that they lie in', async () => {
    await run();
    await world.device.setResting(true);
    const names = world.net.handOverMessages().map(({ name }) => name);
    const places = [
      'SET_PROTOCOL_FEATURES',
      'SET_FEATURES',
      'ADD_MEM_REG',
      'IOTLB_MSG',
      'SET_VRING_ADDR',
    ].map((name) => names.indexOf(name));
    expect(places).toEqual(places.toSorted((a, b) => a - b));
    expect(places[0]).toBe(0);
    expect(names).toContain('SET_BACKEND_REQ_FD');
    expect(world.device.obstacle).toBeNull();
    await world.device.setResting(false);
    expect([...world.dataPath.attached.keys()].sort()).toEqual([0, 1]);
  });
});

describe('the channel', () => {
  it('that never came is named, and what is asked comes by it when it does', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    await begin();
    await start(1);
    expect(waitReason()).toMatch(/there is no connection by which its front-end could be asked/);
    await handOver();
    vi.advanceTimersByTime(1000);
    expect(await asked()).toHaveLength(3);
  });

  it('that has ended is named', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    await begin();
    (await handOver()).close();
    await start(1);
    expect(waitReason()).toMatch(/there is no connection/);
    vi.advanceTimersByTime(3000);
    expect(await world.front.settle()).toEqual([]);
  });

  it('that is not read makes nobody wait, is named, and told again when it is read', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    await begin();
    const theirs = await handOver((fd) => setSocketOption(fd, SO_SNDBUF, 1));
    theirs.deaf = true;
    await start(1);
    for (let i = 0; i < 2000 && waitReason()?.includes('does not read') !== true; i++)
      vi.advanceTimersByTime(1000);
    expect(waitReason()).toMatch(/its front-end does not read what it is asked/);
    await updateAll();
    await world.front.settle();
    expect(world.dataPath.attached.size).toBe(1);
    expect(waitReason()).toBeNull();
  });

  it('carries notifications besides, where they are in band', async () => {
    await world.dispose();
    world = new World({ features: { iommu: true, inBand: true } });
    await begin(BEHIND_ONE, PROTOCOL | bit(P.IN_BAND));
    await handOver();
    await start(1);
    expect(await asked()).toHaveLength(3);
    await updateAll();
    await world.front.settle();
    expect(world.dataPath.attached.size).toBe(1);
  });
});
