/** INFLIGHT_SHMFD by message: the buffer that is made, the one that comes back, and what is wrong with either. */
import { readSync, writeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { INFLIGHT_BYTES_MAX } from '../../src/device/inflight.ts';
import { fileFacts } from '../../src/host/descriptor.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import { bit, bytesOf, F, P, type Reply, state } from '../vhost-user/scripted-front-end.ts';
import { arena, FEATURES, PROTOCOL_FEATURES, ringOffsets, World } from './world.ts';

const PACKED = FEATURES | bit(F.PACKED);
const INFLIGHT = PROTOCOL_FEATURES | bit(P.INFLIGHT);
/** Four pairs and the control queue. */
const RINGS = 9;
const SPLIT_STRIDE = 16 + 256 * 16 + 48;
const PACKED_STRIDE = 32 + 256 * 32 + 32;

let world: World;
beforeEach(() => {
  world = new World();
});
afterEach(() => world.dispose());

type Shape = { sizeBytes?: bigint | number; offset?: bigint; queueCount?: number; queueSize?: number };

const inflight = (
  { sizeBytes = 0, offset = 0n, queueCount = 2, queueSize = 256 }: Shape,
  bytes = 24,
): Uint8Array =>
  bytesOf(bytes, (view) => {
    view.setBigUint64(0, BigInt(sizeBytes), true);
    view.setBigUint64(8, offset, true);
    view.setUint16(16, queueCount, true);
    view.setUint16(18, queueSize, true);
  });

/** Of a buffer of the front-end's, of that many bytes. */
const bufferFile = (sizeBytes: number): number => world.front.own(createMemoryFile('inflight', sizeBytes));

async function get(shape: Shape = {}, bytes = 24): Promise<{ reply: Reply; fd: number }> {
  world.front.receivedFds = [];
  const reply = await world.front.request('GET_INFLIGHT_FD', inflight(shape, bytes));
  expect(world.front.receivedFds).toHaveLength(1);
  return { reply, fd: world.front.receivedFds[0] };
}

function contentOf(fd: number): DataView {
  const bytes = new Uint8Array(fileFacts(fd).sizeBytes);
  readSync(fd, bytes, 0, bytes.length, 0);
  return new DataView(bytes.buffer);
}

describe('GET_INFLIGHT_FD', () => {
  it('answers a region for each queue, begun in the layout that was agreed on', async () => {
    await world.negotiate(FEATURES, INFLIGHT);
    const { reply, fd } = await get({ queueCount: 3 });
    expect(reply.payload).toEqual(inflight({ sizeBytes: 3 * SPLIT_STRIDE, queueCount: 3 }));
    const content = contentOf(fd);
    expect(content.byteLength).toBe(3 * SPLIT_STRIDE);
    for (const at of [0, SPLIT_STRIDE, 2 * SPLIT_STRIDE])
      expect([content.getUint16(at + 8, true), content.getUint16(at + 10, true)]).toEqual([1, 256]);
  });

  it('of packed rings has a list of free states, and as much padding as the request', async () => {
    await world.negotiate(PACKED, INFLIGHT);
    const { reply, fd } = await get({}, 20);
    expect(reply.payload).toEqual(inflight({ sizeBytes: 2 * PACKED_STRIDE }, 20));
    const content = contentOf(fd);
    expect([content.getUint8(20), content.getUint8(21)]).toEqual([1, 1]);
    for (const i of [0, 1, 255]) expect(content.getUint16(32 + 32 * i + 2, true)).toBe(i + 1);
  });

  it('leaves nothing behind, however often it is asked', async () => {
    await world.negotiate(FEATURES, INFLIGHT);
    const mappedBytes = arena.mappedBytes;
    // That no descriptor is left is seen when the world ends.
    for (let i = 0; i < 300; i++) await get();
    expect(arena.mappedBytes).toBe(mappedBytes);
  });

  it.each<[Shape, RegExp]>([
    [{ queueCount: 0 }, /0 queues are not between 1 and 9/],
    [{ queueCount: RINGS + 1 }, /10 queues are not between 1 and 9/],
    [{ queueCount: 65_535 }, /65535 queues are not between 1 and 9/],
    [{ queueSize: 0 }, /queue size 0 is not between 1 and 32,768/],
    [{ queueSize: 32_769 }, /queue size 32769 is not/],
  ])('of %j is refused', async (shape, why) => {
    await world.negotiate(FEATURES, INFLIGHT);
    world.front.send('GET_INFLIGHT_FD', inflight(shape));
    expect(await world.ended).toMatch(why);
  });

  it('is refused where it was not negotiated', async () => {
    await world.negotiate();
    world.front.send('GET_INFLIGHT_FD', inflight({}));
    expect(await world.ended).toMatch(/although INFLIGHT_SHMFD was not negotiated/);
  });
});

describe('SET_INFLIGHT_FD', () => {
  const set = (shape: Shape, fd: number): Promise<bigint> =>
    world.front.ack('SET_INFLIGHT_FD', inflight(shape), [fd]);

  it.each<[string, Shape, RegExp]>([
    [
      'more queues than there are',
      { sizeBytes: 2 ** 20, queueCount: 10 },
      /10 queues are not between 1 and 9/,
    ],
    ['no queue size', { sizeBytes: 2 ** 20, queueSize: 0 }, /queue size 0/],
    ['too few bytes', { sizeBytes: 2 * SPLIT_STRIDE - 1 }, /it needs 8320 at least/],
    ['too many bytes', { sizeBytes: INFLIGHT_BYTES_MAX + 1 }, /and may have 67108864/],
    ['a size without end', { sizeBytes: 2n ** 64n - 1n }, /a buffer of 18446744073709551615 bytes/],
    [
      'an offset without end',
      { sizeBytes: 2 ** 16, offset: 2n ** 64n - 8n },
      /it ends at byte \d+; its file has/,
    ],
    [
      'an end beyond its file',
      { sizeBytes: 2 ** 20, offset: 8n },
      /it ends at byte 1048584; its file has 1048576/,
    ],
    ['an odd offset', { sizeBytes: 2 ** 16, offset: 3n }, /not aligned/],
  ])('with %s is refused', async (_what, shape, why) => {
    await world.negotiate(FEATURES, INFLIGHT);
    expect(await set(shape, bufferFile(2 ** 20))).toBe(1n);
    expect(world.refused.join()).toMatch(why);
    expect(arena.mappedBytes).toBe(0);
  });

  it('with something that is no memory is refused', async () => {
    await world.negotiate(FEATURES, INFLIGHT);
    expect(await set({ sizeBytes: 2 ** 16 }, world.front.eventFd())).toBe(1n);
    expect(world.refused).toHaveLength(1);
  });

  it('takes the place of the one before, again and again, while rings run', async () => {
    await world.negotiate(PACKED, INFLIGHT);
    await world.shareMemory();
    const { fd } = await get();
    expect(await set({ sizeBytes: 2 * PACKED_STRIDE }, fd)).toBe(0n);
    const mappedBytes = arena.mappedBytes;
    await world.startRings(0, 1);
    for (let i = 0; i < 20; i++) expect(await set({ sizeBytes: 2 * PACKED_STRIDE }, fd)).toBe(0n);
    expect(arena.mappedBytes).toBe(mappedBytes);
    for (const index of [0, 1]) expect(world.dataPath.attached.get(index)?.inflightOffset).toBeGreaterThan(0);
    expect(world.ring(0).reason).toBeNull();
  });

  it('has no region for rings beyond its queues, or larger than they', async () => {
    await world.negotiate(PACKED, INFLIGHT);
    await world.shareMemory();
    const { fd } = await get({ queueCount: 1, queueSize: 100 });
    await set({ sizeBytes: fileFacts(fd).sizeBytes, queueCount: 1, queueSize: 100 }, fd);
    await world.startRings(0, 1);
    for (const index of [0, 1])
      expect(world.dataPath.attached.get(index)).not.toHaveProperty('inflightOffset');
  });
});

/** What a region says, and how its ring starts. */
type Case = { readonly what: string; readonly put: (view: DataView) => void; readonly why: RegExp | null };

async function startWith(features: bigint, put: (view: DataView) => void, base: number): Promise<DataView> {
  await world.negotiate(features, INFLIGHT);
  await world.shareMemory();
  const { fd, reply } = await get();
  const content = contentOf(fd);
  put(content);
  writeSync(fd, new Uint8Array(content.buffer), 0, content.byteLength, 0);
  expect(await world.front.ack('SET_INFLIGHT_FD', reply.payload, [fd])).toBe(0n);
  world.sendRing(0, { base });
  world.front.send('SET_VRING_ENABLE', state(0, 1));
  expect(await world.front.settle()).toEqual([]);
  return contentOf(fd);
}

describe('a split ring whose region comes back', () => {
  const USED = 5;
  beforeEach(() => {
    const { avail, used } = ringOffsets(0);
    world.guest.write16(used + 2, USED);
    // The driver offers descriptors 7, 8, 9 … next.
    for (let i = 0; i < 256; i++) world.guest.write16(avail + 4 + 2 * ((USED + i) & 255), 7 + i);
  });
  const flag = (view: DataView, head: number): void => view.setUint8(16 + 16 * head, 1);
  const cases: readonly Case[] = [
    { what: 'with nothing in flight', put: () => {}, why: null },
    { what: 'that was never begun', put: (view) => view.setUint16(8, 0, true), why: null },
    {
      what: 'with what comes next in flight',
      put: (view) => [7, 8].map((head) => flag(view, head)),
      why: null,
    },
    {
      what: 'with something else in flight',
      put: (view) => flag(view, 9),
      why: /1 of its buffers are in flight/,
    },
    {
      what: 'whose last batch was used, though it is noted as in flight',
      put: (view) => {
        view.setUint16(14, USED - 2, true);
        view.setUint16(12, 200, true);
        view.setUint16(16 + 16 * 200 + 6, 201, true);
        for (const head of [200, 201, 7]) flag(view, head);
      },
      why: null,
    },
    {
      what: 'whose last batch leads nowhere',
      put: (view) => {
        view.setUint16(14, USED - 1, true);
        view.setUint16(12, 256, true);
        flag(view, 7);
      },
      why: /names descriptor 256 of 256/,
    },
    {
      what: 'of another version',
      put: (view) => view.setUint16(8, 2, true),
      why: /of version 2, and this is 1/,
    },
    {
      what: 'for other descriptors',
      put: (view) => view.setUint16(10, 999, true),
      why: /is for 999 descriptors/,
    },
  ];

  it.each(cases)('$what', async ({ put, why }) => {
    const content = await startWith(FEATURES, put, 0);
    if (why !== null) {
      expect(world.ring(0).reason).toMatch(why);
      return;
    }
    expect(world.ring(0)).toMatchObject({ reason: null, user: 'workers' });
    expect(world.ring(0).indices).toEqual({ availNext: USED, usedNext: USED });
    expect(content.getUint16(14, true)).toBe(USED);
    for (let head = 0; head < 256; head++) expect(content.getUint8(16 + 16 * head)).toBe(0);
  });
});

describe('a packed ring whose region comes back', () => {
  const USED_FLAGS = 0x8080;
  beforeEach(() => {
    const { desc } = ringOffsets(0);
    for (let at = 0; at < 5; at++) world.guest.write16(desc + 16 * at + 14, USED_FLAGS);
    // Available, with addresses of their own.
    for (let at = 5; at < 20; at++)
      world.guest.write(desc + 16 * at, [at, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, at, 0, 0x80, 0]);
  });
  const positions = (view: DataView, next: number, old: number): void => {
    view.setUint16(16, next, true);
    view.setUint16(18, old, true);
  };
  const entry = (view: DataView, i: number, counter: number, at: number, num: number): void => {
    const state = 32 + 32 * i;
    view.setUint8(state, 1);
    view.setUint16(state + 6, num, true);
    view.setBigUint64(state + 8, BigInt(counter), true);
    view.setBigUint64(state + 24, BigInt(at), true);
  };
  const cases: readonly (Case & { readonly at: number })[] = [
    { what: 'goes on there', put: (view) => positions(view, 5, 5), why: null, at: 5 },
    { what: 'with a burst that became visible', put: (view) => positions(view, 5, 2), why: null, at: 5 },
    { what: 'with a burst that did not', put: (view) => positions(view, 9, 5), why: null, at: 5 },
    {
      what: 'with what comes next in flight',
      put: (view) => {
        positions(view, 5, 5);
        entry(view, 3, 2, 7, 1);
        entry(view, 9, 1, 5, 2);
      },
      why: null,
      at: 5,
    },
    {
      what: 'with something else in flight',
      put: (view) => {
        positions(view, 5, 5);
        entry(view, 3, 1, 7, 1);
      },
      why: /1 of its buffers are in flight/,
      at: 0,
    },
    {
      what: 'that stands nowhere',
      put: (view) => positions(view, 256, 5),
      why: /names position 256 of 256/,
      at: 0,
    },
    { what: 'of another version', put: (view) => view.setUint16(8, 7, true), why: /of version 7/, at: 0 },
  ];

  it.each(cases)('$what', async ({ put, why, at }) => {
    const content = await startWith(PACKED, put, 0x8000_8000);
    if (why !== null) {
      expect(world.ring(0).reason).toMatch(why);
      return;
    }
    expect(world.ring(0)).toMatchObject({ reason: null, user: 'workers' });
    const position = 0x8000 | at;
    expect(world.ring(0).indices).toEqual({ availNext: position, usedNext: position });
    expect([16, 18].map((offset) => content.getUint16(offset, true))).toEqual([at, at]);
    expect([20, 21].map((offset) => content.getUint8(offset))).toEqual([1, 1]);
    for (let i = 0; i < 256; i++) expect(content.getUint8(32 + 32 * i)).toBe(0);
  });

  it('stands where its front-end names another position', async () => {
    await startWith(PACKED, (view) => positions(view, 5, 5), 0x8006_8006);
    expect(world.ring(0).indices.usedNext).toBe(0x8006);
  });
});
