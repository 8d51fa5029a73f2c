/**
 * The stream of messages: cut, joined, lying about its size, of another version, unknown, with descriptors
 * where there must be none. Whatever comes, the connection ends with a reason or goes on, and nothing leaks.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeFds, createEventFd } from '../../src/host/descriptor.ts';
import { PROTOCOL_FEATURES, ringPlace, World } from '../device/world.ts';
import {
  bit,
  config,
  F,
  ID,
  iotlb,
  message,
  NEED_REPLY,
  none,
  P,
  type Request,
  region,
  ringAddress,
  state,
  table,
  u64,
} from './scripted-front-end.ts';

let world: World;
beforeEach(() => {
  world = new World({ configSpace: true });
});
afterEach(() => world.dispose());

const REPLY_FLAGS = 5;

describe('framing', () => {
  it('puts a message together that comes byte by byte', async () => {
    const bytes = message(ID.GET_QUEUE_NUM, none());
    await world.negotiate();
    for (const byte of bytes.subarray(0, -1)) {
      world.front.sendBytes(Uint8Array.of(byte));
      await new Promise(setImmediate);
    }
    expect(world.front.repliesNow()).toEqual([]);
    world.front.sendBytes(bytes.subarray(-1));
    expect((await world.front.reply()).u64).toBe(9n);
  });

  it('puts a payload together that comes byte by byte, with its descriptor at the first byte', async () => {
    await world.negotiate();
    const bytes = message(ID.SET_VRING_CALL, u64(0), NEED_REPLY);
    world.front.sendBytes(bytes.subarray(0, 1), [world.front.eventFd()]);
    for (const byte of bytes.subarray(1)) world.front.sendBytes(Uint8Array.of(byte));
    expect((await world.front.reply()).u64).toBe(0n);
    expect(world.ring(0).callFd).toBeGreaterThanOrEqual(0);
  });

  it('answers messages that come in one piece, in order', async () => {
    await world.negotiate();
    const requests: Request[] = [
      'GET_FEATURES',
      'GET_QUEUE_NUM',
      'GET_PROTOCOL_FEATURES',
      'GET_MAX_MEM_SLOTS',
    ];
    world.front.sendBytes(Buffer.concat(requests.map((name) => message(ID[name], none()))));
    for (const name of requests) expect((await world.front.reply()).request).toBe(ID[name]);
  });

  it('keeps the descriptors of messages that come in one go with their messages', async () => {
    await world.negotiate();
    const { front } = world;
    const fds = [front.eventFd(), front.eventFd(), front.eventFd()];
    front.send('SET_VRING_CALL', u64(0), [fds[0]]);
    front.send('SET_VRING_ERR', u64(1), [fds[1]]);
    front.send('SET_VRING_CALL', u64(2), [fds[2]]);
    expect(await front.settle()).toEqual([]);
    expect(
      world.device.rings.map(({ index, callFd, errorFd }) => [index, callFd >= 0, errorFd >= 0]),
    ).toEqual([
      [0, true, false],
      [1, false, true],
      [2, true, false],
    ]);
  });

  it.each([4097, 8192, 0x7fff_ffff, 0xffff_ffff])(
    'ends at a header that announces %i bytes',
    async (sizeBytes) => {
      world.front.sendBytes(message(ID.SET_MEM_TABLE, none(), 0, sizeBytes), [world.guest.fd]);
      expect(await world.ended).toBe(`message 5 announces a payload of ${sizeBytes} bytes`);
      await world.front.closed;
    },
  );

  it('reads a payload of the longest kind before it refuses it', async () => {
    world.front.sendBytes(message(ID.SET_MEM_TABLE, new Uint8Array(4096)));
    expect(await world.ended).toMatch(
      /^SET_MEM_TABLE: payload of 4096 bytes is longer than a memory table can be$/,
    );
  });

  it.each([0, 2, 3])('ends at version %i', async (version) => {
    const bytes = message(ID.GET_FEATURES, none());
    bytes[4] = version;
    world.front.sendBytes(bytes);
    expect(await world.ended).toBe(`message 1 is of protocol version ${version}, not 1`);
  });

  it('ends at a message that is marked as a reply', async () => {
    world.front.send('GET_FEATURES', none(), [], 4);
    expect(await world.ended).toBe('message 1 is marked as a reply');
  });

  it.each([
    ['nothing', none(), 'the front-end closed the connection'],
    ['part of a header', message(1, none()).subarray(0, 11), 'the connection ended within a message'],
    ['a header without its payload', message(2, none(), 0, 8), 'the connection ended within a message'],
    ['part of a payload', message(2, u64(0)).subarray(0, 19), 'the connection ended within a message'],
  ])('ends when the front-end hangs up after %s', async (_what, bytes, reason) => {
    if (bytes.length > 0) world.front.sendBytes(bytes);
    world.front.close();
    expect(await world.ended).toBe(reason);
  });

  it('closes the descriptors of a message that never ends', async () => {
    const fds = [createEventFd(), createEventFd()];
    world.front.sendBytes(message(ID.SET_MEM_TABLE, none(), 0, 72), fds);
    closeFds(fds);
    world.front.close();
    await world.ended;
  });

  it('ends when the front-end does not read its replies', async () => {
    world.front.deaf = true;
    for (let i = 0; i < 5000 && world.endReason === null; i++) {
      try {
        world.front.send('GET_FEATURES');
      } catch {
        // The session has not come to read yet.
      }
      if (i % 100 === 0) await new Promise(setImmediate);
    }
    expect(await world.ended).toBe('the front-end does not read its replies');
    world.front.deaf = false;
  });
});

describe('descriptors', () => {
  it.each([
    ['in the middle of the header', 5],
    ['with the payload', 12],
    ['in the middle of the payload', 15],
  ])('end the connection when they come %s', async (_where, at) => {
    const bytes = message(ID.SET_VRING_CALL, u64(0));
    world.front.sendBytes(bytes.subarray(0, at));
    await new Promise(setImmediate);
    world.front.sendBytes(bytes.subarray(at), [world.front.eventFd()]);
    expect(await world.ended).toMatch(/descriptors came with the middle of a message/);
  });

  it.each([33, 100, 253])('end the connection when %i come with one message', async (count) => {
    const fd = world.front.eventFd();
    world.front.sendBytes(message(ID.SET_MEM_TABLE, none()), new Array<number>(count).fill(fd));
    expect(await world.ended).toBe('a message carried more than 32 descriptors');
  });

  const ONE = [1];
  const NO = [0];
  /** Every message with a good payload and how many descriptors it may carry. */
  const CARRIED: Record<Request, readonly [Uint8Array, readonly number[]]> = {
    GET_FEATURES: [none(), NO],
    SET_FEATURES: [u64(0), NO],
    SET_OWNER: [none(), NO],
    RESET_OWNER: [none(), NO],
    SET_MEM_TABLE: [table([{ gpa: 0n, sizeBytes: 4096n, uva: 0n, mmapOffset: 0n }]), ONE],
    SET_LOG_BASE: [new Uint8Array(16), ONE],
    SET_LOG_FD: [none(), ONE],
    SET_VRING_NUM: [state(0, 256), NO],
    SET_VRING_ADDR: [ringAddress(0, ringPlace(0)), NO],
    SET_VRING_BASE: [state(0, 0), NO],
    GET_VRING_BASE: [state(0, 0), NO],
    SET_VRING_KICK: [u64(0), ONE],
    SET_VRING_CALL: [u64(0), ONE],
    SET_VRING_ERR: [u64(0), ONE],
    GET_PROTOCOL_FEATURES: [none(), NO],
    SET_PROTOCOL_FEATURES: [u64(PROTOCOL_FEATURES), NO],
    GET_QUEUE_NUM: [none(), NO],
    SET_VRING_ENABLE: [state(0, 1), NO],
    SEND_RARP: [u64(0x5634_1200_5452), NO],
    NET_SET_MTU: [u64(1500), NO],
    SET_BACKEND_REQ_FD: [none(), ONE],
    IOTLB_MSG: [iotlb({ type: 3 }), NO],
    GET_CONFIG: [config(0, new Uint8Array(6)), NO],
    SET_CONFIG: [config(0, new Uint8Array(6)), NO],
    GET_INFLIGHT_FD: [new Uint8Array(24), NO],
    SET_INFLIGHT_FD: [new Uint8Array(24), ONE],
    RESET_DEVICE: [none(), NO],
    VRING_KICK: [state(0, 0), NO],
    GET_MAX_MEM_SLOTS: [none(), NO],
    ADD_MEM_REG: [region({ gpa: 0n, sizeBytes: 4096n, uva: 0n, mmapOffset: 0n }), ONE],
    REM_MEM_REG: [region({ gpa: 0n, sizeBytes: 4096n, uva: 0n, mmapOffset: 0n }), [0, 1]],
    SET_STATUS: [u64(1), NO],
    GET_STATUS: [none(), NO],
    GET_VRING_BASE_SKIP_DRAIN: [state(0, 0), NO],
  };
  const NAMES = Object.keys(CARRIED) as Request[];

  it.each(NAMES)('end the connection when %s carries another number than it must', async (name) => {
    const [payload, good] = CARRIED[name];
    for (const count of [0, 1, 2, 3, 8]) {
      if (good.includes(count)) continue;
      const each = new World({ configSpace: true });
      await each.negotiate(bit(F.VERSION_1, F.PROTOCOL), PROTOCOL_FEATURES | bit(P.CONFIG));
      const fds = Array.from({ length: count }, () => createEventFd());
      each.front.send(name, payload, fds);
      closeFds(fds);
      // One that is never negotiated says that instead.
      expect(await each.ended).toMatch(
        new RegExp(
          `^${name}.*(descriptors came|(ACCESS_PLATFORM|LOG_SHMFD|RARP|BACKEND_REQ|INFLIGHT_SHMFD|RESET_DEVICE|INBAND_NOTIFICATIONS|STATUS|SKIP_DRAIN) was not negotiated)`,
        ),
      );
      await each.dispose();
    }
  });

  it.each(NAMES)('do not matter to the size of %s, which must be right', async (name) => {
    const [payload, good] = CARRIED[name];
    for (const sizeBytes of [0, 1, payload.length - 1, payload.length + 1, payload.length + 4, 600, 4096]) {
      if (sizeBytes < 0 || sizeBytes === payload.length) continue;
      const each = new World({ configSpace: true });
      await each.negotiate(bit(F.VERSION_1, F.PROTOCOL), PROTOCOL_FEATURES | bit(P.CONFIG));
      const wrong = new Uint8Array(sizeBytes);
      wrong.set(payload.subarray(0, sizeBytes));
      const fds = Array.from({ length: good[0] }, () => createEventFd());
      each.front.send(name, wrong, fds, NEED_REPLY);
      closeFds(fds);
      // Either it is refused with an acknowledgement, once, or the connection ends. Room for further regions
      // is no fault; then the eventfd is none of the memory files.
      const replies = await each.front.settle();
      if (replies === null) expect(each.endReason).not.toBeNull();
      else
        expect(replies.map(({ request, flags, u64: value }) => [request, flags, value])).toEqual([
          [ID[name], 5, 1n],
        ]);
      await each.dispose();
    }
  });

  it('may be none when bit 8 says so, and must then be none', async () => {
    await world.negotiate();
    for (const name of ['SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR'] as const) {
      expect(await world.front.ack(name, u64(0x100))).toBe(0n);
      expect(await world.front.ack(name, u64(0x100), [world.front.eventFd()])).toBe(1n);
      expect(await world.front.ack(name, u64(0))).toBe(1n);
    }
    expect(world.refused).toHaveLength(6);
  });
});

describe('requests', () => {
  it.each([0, 23, 26, 27, 28, 29, 30, 33, 41, 42, 43, 44, 46, 1000, 0x7fff_ffff, 0xffff_ffff])(
    'that are unknown (%i) end the connection, with their descriptors closed',
    async (id) => {
      world.front.sendBytes(message(id, u64(0)), [world.front.eventFd()]);
      expect(await world.ended).toBe(`message ${id} is unknown`);
    },
  );

  it('that are unknown are refused when an acknowledgement is asked for', async () => {
    await world.negotiate();
    world.front.sendBytes(message(41, none(), NEED_REPLY));
    const reply = await world.front.reply();
    expect([reply.request, reply.flags, reply.u64]).toEqual([41, REPLY_FLAGS, 1n]);
    expect(await world.front.settle()).toEqual([]);
    expect(world.refused).toEqual(['message 41 is unknown']);
  });

  it.each([
    ['GET_QUEUE_NUM', none(), 0, 'MQ'],
    ['SEND_RARP', u64(0x5634_1200_5452), 0, 'RARP'],
    ['NET_SET_MTU', u64(1500), 0, 'MTU'],
    ['SET_BACKEND_REQ_FD', none(), 1, 'BACKEND_REQ'],
    ['SET_CONFIG', config(0, new Uint8Array(6)), 0, 'CONFIG'],
    ['GET_MAX_MEM_SLOTS', none(), 0, 'CONFIGURE_MEM_SLOTS'],
    ['ADD_MEM_REG', new Uint8Array(40), 1, 'CONFIGURE_MEM_SLOTS'],
    ['REM_MEM_REG', new Uint8Array(40), 0, 'CONFIGURE_MEM_SLOTS'],
    ['SET_LOG_BASE', new Uint8Array(16), 1, 'LOG_SHMFD'],
    ['RESET_DEVICE', none(), 0, 'RESET_DEVICE'],
    ['VRING_KICK', state(0, 0), 0, 'INBAND_NOTIFICATIONS'],
    ['SET_STATUS', u64(1), 0, 'STATUS'],
    ['GET_STATUS', none(), 0, 'STATUS'],
    ['GET_VRING_BASE_SKIP_DRAIN', state(0, 0), 0, 'SKIP_DRAIN'],
  ] as const)(
    '%s end the connection when their feature was not negotiated',
    async (name, payload, fdCount, gate) => {
      world.front.send(name, payload, fdCount === 1 ? [world.guest.fd] : []);
      expect(await world.ended).toBe(`${name} although ${gate} was not negotiated`);
    },
  );

  it('are answered with exactly version 1 and the reply bit, whatever the request had set', async () => {
    await world.negotiate();
    for (const flags of [0, NEED_REPLY, 0xffff_fff0 & ~4, 0x8000_0000]) {
      const reply = await world.front.request('GET_FEATURES', none(), [], flags);
      expect([reply.request, reply.flags, reply.payload.length]).toEqual([1, REPLY_FLAGS, 8]);
    }
    const ack = await world.front.request('SET_OWNER', none(), [], 0x7fff_fff8 & ~4);
    expect([ack.request, ack.flags, ack.payload.length]).toEqual([3, REPLY_FLAGS, 8]);
  });
});
