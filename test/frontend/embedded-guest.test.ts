/** The embedded guest against Ringway's own vhost-user port: handshake, traffic, stop and start, both roles. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { hasBit, maskOf } from '../../protocol/bits.ts';
import { encodeMessage } from '../../protocol/vhost-user/codec.ts';
import { PROTOCOL_FEATURE } from '../../protocol/vhost-user/features.ts';
import { FLAG_REPLY, FLAG_VERSION, MESSAGES } from '../../protocol/vhost-user/messages.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import {
  BackEndError,
  EmbeddedGuest,
  type EmbeddedGuestOptions,
  FrontEndSession,
  GUEST_FEATURES,
  GUEST_PROTOCOL_FEATURES,
} from '../../src/frontend/index.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import { GuestFile } from '../memory/guest-file.ts';
import { Random } from '../vring/random.ts';
import { LocalSwitch } from './local-switch.ts';

const { EVENT_IDX, IN_ORDER, INDIRECT_DESC, NET_MRG_RXBUF, PROTOCOL_FEATURES, RING_PACKED, VERSION_1 } =
  VIRTIO_FEATURE;
const { CONFIGURE_MEM_SLOTS, MQ, REPLY_ACK } = PROTOCOL_FEATURE;
const WAIT_MS = 20_000;
const GIB = 2 ** 30;

/** What the guest's rings are. */
const KINDS = [
  ['split', false],
  ['split', true],
  ['packed', false],
  ['packed', true],
] as const;
/** The base of a ring that was used by so many buffers of one descriptor, fewer than it has. */
const BASES: Readonly<Record<RingLayoutKind, (count: number) => number>> = {
  split: (count) => count,
  packed: (count) => (0x8000 + count) * 0x1_0001,
};

let folder: string;
let sockets: [string, string];
const closing: (() => void | Promise<void>)[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-frontend-'));
  sockets = [join(folder, 'a.sock'), join(folder, 'b.sock')];
});

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
  rmSync(folder, { recursive: true });
});

function startSwitch(): LocalSwitch {
  const made = new LocalSwitch(sockets.map((socketPath) => ({ socketPath })));
  closing.push(() => made.stop());
  return made;
}

async function connect(
  socketPath: string,
  options: Partial<EmbeddedGuestOptions> = {},
): Promise<EmbeddedGuest> {
  const guest = await EmbeddedGuest.connect({ socketPath, waitMs: WAIT_MS, ...options });
  closing.push(() => guest.close());
  return guest;
}

async function connectBoth(
  options: Partial<EmbeddedGuestOptions> = {},
): Promise<[EmbeddedGuest, EmbeddedGuest]> {
  return [await connect(sockets[0], options), await connect(sockets[1], options)];
}

function frame(seed: number, sizeBytes = 100): Uint8Array {
  return new Random(seed).bytes(sizeBytes);
}

const FRAME = frame(9);
/** Of the `i`-th memory device of two pages. */
const addressOf = (i: number): bigint => (1n << 40n) + BigInt(i * 8192);

describe('the handshake', () => {
  it('accepts what both sides can do', async () => {
    startSwitch();
    const guest = await connect(sockets[0]);
    for (const bit of [VERSION_1, NET_MRG_RXBUF, EVENT_IDX, INDIRECT_DESC, PROTOCOL_FEATURES]) {
      expect(hasBit(guest.features, bit)).toBe(true);
    }
    for (const bit of [MQ, REPLY_ACK, CONFIGURE_MEM_SLOTS])
      expect(hasBit(guest.protocolFeatures, bit)).toBe(true);
  });
});

describe.each(KINDS)('a guest with %s rings, in order: %s', (layout, inOrder) => {
  const kind = { layout, inOrder };

  it('has what it asked for', async () => {
    const made = startSwitch();
    const guest = await connect(sockets[0], kind);
    expect(guest.layout).toBe(layout);
    expect(hasBit(guest.features, RING_PACKED)).toBe(layout === 'packed');
    expect(hasBit(guest.features, IN_ORDER)).toBe(inOrder);
    for (const queueIndex of [0, 1]) expect(made.ring(0, queueIndex)).toMatchObject(kind);
  });

  const without = (...bits: number[]): bigint => GUEST_FEATURES & ~maskOf(...bits);
  it.each<[string, Partial<EmbeddedGuestOptions>]>([
    ['all features', {}],
    ['no features at all', { features: 0n }],
    ['legacy headers', { features: without(VERSION_1, NET_MRG_RXBUF) }],
    ['flags instead of event indices', { features: without(EVENT_IDX) }],
    ['a memory table', { protocolFeatures: GUEST_PROTOCOL_FEATURES & ~maskOf(CONFIGURE_MEM_SLOTS) }],
    ['no acknowledgements', { protocolFeatures: GUEST_PROTOCOL_FEATURES & ~maskOf(REPLY_ACK) }],
    ['a ring that is polled', { polledKick: true }],
    ['the smallest ring', { ringSize: 2 }],
    [
      'memory below and above a hole',
      {
        regions: [
          { sizeBytes: 2 ** 21, gpa: 0, uva: 0x7f00_0000_0000 },
          { sizeBytes: 2 ** 21, gpa: 4 * GIB, uva: 0x1_0000 },
        ],
      },
    ],
    ['receive buffers in pieces', { receiveShape: () => ({ pieces: [7, 100, 1900], indirect: true }) }],
  ])('works with %s, and frames go both ways', async (_what, options) => {
    startSwitch();
    const [a, b] = await connectBoth({ ...options, ...kind });
    for (let i = 0; i < 20; i++) {
      expect(a.send(frame(i))).toBe(true);
      expect(await b.received()).toEqual(frame(i));
      expect(b.send(frame(1000 + i, 1500), { pieces: [5] })).toBe(true);
      expect(await a.received()).toEqual(frame(1000 + i, 1500));
    }
    expect(a.receive()).toBeNull();
    expect(b.receive()).toBeNull();
  });

  it('reaches the same queue pair on the other side', async () => {
    startSwitch();
    const [a, b] = await connectBoth({ queuePairs: 3, ...kind });
    for (const [i, pair] of a.pairs.entries()) pair.send(frame(i));
    for (const [i, pair] of b.pairs.entries()) expect(await pair.received()).toEqual(frame(i));
  });

  it('keeps every frame and the order under random sizes and shapes', async () => {
    startSwitch();
    const options = { ringSize: 64, bufferBytes: 10_000, ...kind };
    const random = new Random(4);
    const a = await connect(sockets[0], options);
    const b = await connect(sockets[1], {
      ...options,
      receiveShape: () => ({
        pieces: [random.between(20, 4000), random.between(0, 4000)],
        indirect: random.chance(50),
      }),
    });
    for (let i = 0; i < 400; i++) {
      const sizeBytes = random.between(14, 9000);
      const pieces = random.chance(50) ? [random.between(1, 12), random.between(0, sizeBytes)] : [];
      while (!a.send(frame(i, sizeBytes), { pieces, indirect: random.chance(50) })) await nextTurn();
      expect(Buffer.compare(await b.received(), frame(i, sizeBytes))).toBe(0);
    }
  });

  it('in place: what is reserved, filled and committed arrives, and buffers come round again', async () => {
    startSwitch();
    const [a, b] = await connectBoth({ ringSize: 8, ...kind });
    const { fromGuest } = a.pairs[0];
    const { toGuest } = b.pairs[0];
    for (let i = 0; i < 100; i++) {
      const offset = fromGuest.reserve();
      expect(offset).toBeGreaterThan(0);
      a.memory.u8.set(frame(i, 64), offset);
      fromGuest.commit(64);
      fromGuest.flush();
      await toGuest.ring.interrupt();
      while (toGuest.usedWaiting() === 0) await nextTurn();
      const at = toGuest.take();
      expect(b.memory.u8.slice(at, at + toGuest.frameBytes)).toEqual(frame(i, 64));
      toGuest.recycle();
      toGuest.flush();
    }
  });

  it('stops at a ring that is full', async () => {
    const made = startSwitch();
    const guest = await connect(sockets[0], kind);
    // Without a data path nothing is taken from the ring.
    await made.ports[0].stop();
    const { fromGuest } = guest.pairs[0];
    let sent = 0;
    while (fromGuest.post(frame(sent))) sent++;
    expect(sent).toBe(256);
    expect(fromGuest.reserve()).toBe(-1);
  });

  it('goes on where it stopped', async () => {
    startSwitch();
    const [a, b] = await connectBoth({ queuePairs: 2, ...kind });
    for (let i = 0; i < 3; i++) a.pairs[1].send(frame(i));
    for (let i = 0; i < 3; i++) expect(await b.pairs[1].received()).toEqual(frame(i));
    const bases = await a.stop();
    expect(bases).toEqual([0, 0, 0, 3].map(BASES[layout]));
    a.pairs[1].send(frame(7));
    await a.restart(bases);
    expect(await b.pairs[1].received()).toEqual(frame(7));
  });

  it('loses no frame while ten regions of memory are added and removed', async () => {
    const made = startSwitch();
    const [a, b] = await connectBoth(kind);
    const dimm = new GuestFile(8192);
    closing.push(() => dimm.close());
    const regions = Array.from({ length: 10 }, (_, i) =>
      dimm.region({ gpa: addressOf(i), uva: addressOf(i) }),
    );
    let sent = 0;
    let received = 0;
    let isOver = false;
    const traffic = async (): Promise<void> => {
      while (!isOver || received < sent) {
        if (!isOver && sent - received < 64) for (const guest of [a, b]) if (guest.send(FRAME)) sent++;
        for (const guest of [a, b]) while (guest.receive() !== null) received++;
        await nextTurn();
      }
    };
    const someMore = async (): Promise<void> => {
      const before = received;
      while (received === before) await nextTurn();
    };
    const going = traffic();
    for (const region of regions) {
      for (const { session } of [a, b]) await session.request('ADD_MEM_REG', region, { fds: [dimm.fd] });
      await someMore();
    }
    for (const region of regions) {
      for (const { session } of [a, b]) await session.request('REM_MEM_REG', region);
      await someMore();
    }
    isOver = true;
    await going;
    expect([received, made.drops]).toEqual([sent, 0]);
  });

  it('a disabled queue pair gets nothing, and what it sends waits until it is enabled', async () => {
    const made = startSwitch();
    const [a, b] = await connectBoth(kind);
    await a.setQueueEnabled(0, false);
    a.send(frame(1));
    b.send(frame(2));
    // What the other side sends is seen to, so this one's frame would have been too.
    while (made.drops === 0) await nextTurn();
    expect(a.pairs[0].fromGuest.ring.usedWaiting()).toBe(0);
    await a.setQueueEnabled(0, true);
    b.send(frame(3));
    expect(await b.received()).toEqual(frame(1));
    expect(await a.received()).toEqual(frame(3));
  });

  it('goes on after its connection alone was lost, whatever base it names', async () => {
    const made = startSwitch();
    const [a, b] = await connectBoth({ ringSize: 16, ...kind });
    // Past the rings' end and into the next round, to no special place.
    for (let i = 0; i < 21; i++) {
      a.send(frame(i));
      expect(await b.received()).toEqual(frame(i));
    }
    a.session.close();
    await a.closed;
    a.send(frame(50));
    for (const { layout: ring } of [a.pairs[0].toGuest.ring, a.pairs[0].fromGuest.ring]) {
      vi.spyOn(ring, 'base').mockReturnValue(BASES[layout](0));
    }
    await a.reconnect();
    expect(await b.received()).toEqual(frame(50));
    for (let i = 0; i < 40; i++) {
      a.send(frame(i));
      expect(await b.received()).toEqual(frame(i));
      b.send(frame(1000 + i));
      expect(await a.received()).toEqual(frame(1000 + i));
    }
    expect(made.ports[0].status).toEqual({ state: 'running', reason: null });
  });

  it('connects again to a back-end that went away, with the same memory', async () => {
    const first = startSwitch();
    const [a, b] = await connectBoth(kind);
    a.send(frame(1));
    expect(await b.received()).toEqual(frame(1));
    const lost = Promise.all([a.closed, b.closed]);
    await first.stop();
    await lost;
    a.send(frame(2));
    startSwitch();
    // The receiver first: what waits in the other's ring goes out at once.
    await b.reconnect();
    await a.reconnect();
    expect(await b.received()).toEqual(frame(2));
    b.send(frame(3));
    expect(await a.received()).toEqual(frame(3));
  });
});

describe('reaching the back-end', () => {
  it('waits for a back-end that is not there yet', async () => {
    const connecting = connect(sockets[0]);
    startSwitch();
    expect((await connecting).pairs.length).toBe(1);
  });

  it('fails at once when it is not to wait', async () => {
    await expect(EmbeddedGuest.connect({ socketPath: sockets[0] })).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('lets the back-end connect in server role', async () => {
    const connecting = [connect(sockets[0], { role: 'server' }), connect(sockets[1], { role: 'server' })];
    const made = new LocalSwitch(sockets.map((socketPath) => ({ socketPath, role: 'client' as const })));
    closing.push(() => made.stop());
    const [a, b] = await Promise.all(connecting);
    a!.send(frame(1));
    expect(await b!.received()).toEqual(frame(1));
  });

  it('refuses more queue pairs than the back-end serves', async () => {
    startSwitch();
    await expect(connect(sockets[0], { queuePairs: 5 })).rejects.toThrow(/the back-end refused SET_VRING_/);
  });

  it('a wait for a frame ends when the guest is closed', async () => {
    startSwitch();
    const guest = await connect(sockets[0]);
    const waiting = guest.received();
    guest.close();
    await expect(waiting).rejects.toThrow(/closed/);
    await guest.closed;
  });
});

describe('the session', () => {
  async function session(): Promise<FrontEndSession> {
    startSwitch();
    const made = await FrontEndSession.connect(sockets[0], { waitMs: WAIT_MS });
    closing.push(() => made.close());
    return made;
  }

  it('sends bytes as they are and shows the answer as it came', async () => {
    const made = await session();
    made.sendRaw(encodeMessage(MESSAGES.GET_FEATURES.id, 0, new Uint8Array(0)));
    const reply = await made.rawReply();
    expect(reply).toMatchObject({ request: 1, flags: FLAG_VERSION | FLAG_REPLY, fds: [] });
    expect(reply.payload.length).toBe(8);
  });

  it('takes a message that goes out in pieces for one', async () => {
    const made = await session();
    for (const byte of encodeMessage(MESSAGES.GET_FEATURES.id, 0, new Uint8Array(0)))
      made.sendRaw(Uint8Array.of(byte));
    expect((await made.rawReply()).request).toBe(1);
  });

  it('says that it is closed when the back-end hangs up', async () => {
    const made = await session();
    made.sendRaw(new Uint8Array(12).fill(0xff));
    await expect(made.rawReply()).rejects.toThrow(BackEndError);
    await made.closed;
    expect(made.isClosed).toBe(true);
    await expect(made.request('GET_FEATURES', null)).rejects.toThrow(BackEndError);
  });
});

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
