/**
 * Negotiation: what is offered with which options, the whole conversations of QEMU and of DPDK's virtio-user,
 * acknowledgements, MTU and configuration space.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  bit,
  config,
  F,
  ID,
  NEED_REPLY,
  none,
  P,
  region,
  ringAddress,
  state,
  table,
  u64,
} from '../vhost-user/scripted-front-end.ts';
import { FEATURES, type OPTIONS, PROTOCOL_FEATURES, ringPlace, World } from './world.ts';

let world: World;
const use = (options: Partial<typeof OPTIONS> = {}): World => {
  world = new World(options);
  return world;
};
afterEach(() => world.dispose());

describe('offers', () => {
  it('are what can be served, for one pair', async () => {
    const { front } = use({ queuePairsMax: 1 });
    const offloads = bit(0, 1, 2, 7, 8, 9, 11, 12, 13, 54, 55, 56);
    expect((await front.request('GET_FEATURES')).u64).toBe(
      offloads | bit(3, 15, 17, 18, 19, 20, 21, 23, 26, 27, 28, 29, 30, 32, 34, 35),
    );
    expect((await front.request('GET_PROTOCOL_FEATURES')).u64).toBe(bit(0, 1, 2, 3, 4, 5, 12, 13, 15, 16));
  });

  it('name MQ for several pairs and count rings, the control queue among them', async () => {
    const { front } = use({ queuePairsMax: 127 });
    expect((await front.request('GET_FEATURES')).u64 & bit(F.MQ)).toBe(bit(F.MQ));
    await world.negotiate();
    expect((await front.request('GET_QUEUE_NUM')).u64).toBe(255n);
  });

  it('name the configuration space, MAC and status only as the port says (QEMU warns otherwise)', async () => {
    const { front } = use({ configSpace: true, mac: Uint8Array.of(2, 0, 0, 0, 0, 1) });
    expect((await front.request('GET_FEATURES')).u64 & bit(5, 16)).toBe(bit(5, 16));
    expect((await front.request('GET_PROTOCOL_FEATURES')).u64).toBe(bit(0, 1, 2, 3, 4, 5, 9, 12, 13, 15, 16));
    const other = new World({ configSpace: false, mac: Uint8Array.of(2, 0, 0, 0, 0, 1) });
    expect((await other.front.request('GET_FEATURES')).u64 & bit(5, 16)).toBe(0n);
    await other.dispose();
  });

  it('leave out what the port switched off, and nothing else', async () => {
    const bits = { packed: 34, inOrder: 35, mergeable: 15, indirect: 28, eventIdx: 29 } as const;
    const all = (await use().front.request('GET_FEATURES')).u64;
    for (const [name, number] of Object.entries(bits)) {
      const other = new World({ features: { [name]: false } });
      expect((await other.front.request('GET_FEATURES')).u64).toBe(all & ~bit(number));
      other.front.send('SET_FEATURES', u64(bit(number)));
      expect(await other.ended).toMatch(/were not offered/);
      await other.dispose();
    }
    const same = new World({ features: { packed: true, inOrder: true } });
    expect((await same.front.request('GET_FEATURES')).u64).toBe(all);
    await same.dispose();
  });

  it('name what may do harm only where the port says so', async () => {
    const all = (await use().front.request('GET_FEATURES')).u64;
    const protocol = (await world.front.request('GET_PROTOCOL_FEATURES')).u64;
    const other = new World({ features: { ringReset: true, iommu: true, inBand: true, skipDrain: true } });
    expect((await other.front.request('GET_FEATURES')).u64).toBe(all | bit(F.RING_RESET, F.ACCESS_PLATFORM));
    expect((await other.front.request('GET_PROTOCOL_FEATURES')).u64).toBe(
      protocol | bit(P.IN_BAND, P.SKIP_DRAIN),
    );
    await other.dispose();
    const off = new World({ features: { ringReset: false, iommu: false, inBand: false, skipDrain: false } });
    expect((await off.front.request('GET_FEATURES')).u64).toBe(all);
    expect((await off.front.request('GET_PROTOCOL_FEATURES')).u64).toBe(protocol);
    await off.dispose();
  });

  it.each([
    ['csum', [0, 1, 2, 7, 8, 9, 11, 12, 13, 54, 55, 56]],
    ['tso', [7, 8, 9, 11, 12, 13]],
    ['ecn', [9, 13]],
    ['uso', [54, 55, 56]],
  ] as const)('leave out %s and what needs it where the port has it off', async (name, bits) => {
    const all = (await use().front.request('GET_FEATURES')).u64;
    const other = new World({ offloads: { [name]: false } });
    expect((await other.front.request('GET_FEATURES')).u64).toBe(all & ~bit(...bits));
    await other.dispose();
  });

  it.each([10, 14, 24, 33, 36, 37, 38, 40, 57, 59, 60, 61, 62, 63])(
    'refuse feature bit %i, which is not among them',
    async (number) => {
      const { front } = use();
      await world.negotiate();
      expect(await front.ack('SET_FEATURES', u64(FEATURES | bit(number)))).toBe(1n);
      expect(world.refused[0]).toMatch(/SET_FEATURES: features 0x[0-9a-f]+ were not offered/);
      expect(world.device.features).toBe(FEATURES);
    },
  );

  it.each([6, 7, 8, 9, 10, 11, 14, 17, 18, 19, 20, 21, 22, 23, 24, 63])(
    'refuse protocol feature bit %i, which is not among them',
    async (number) => {
      const { front } = use();
      front.send('SET_PROTOCOL_FEATURES', u64(bit(P.MQ, number)));
      expect(await world.ended).toMatch(/protocol features 0x[0-9a-f]+ were not offered/);
    },
  );
});

describe('the conversation of QEMU', () => {
  /** What QEMU sends for one queue pair when the net back-end comes up (the whole, again for every pair). */
  async function initialise(pair: number): Promise<void> {
    const { front } = world;
    const features = (await front.request('GET_FEATURES')).u64;
    expect(features & bit(F.PROTOCOL)).toBe(bit(F.PROTOCOL));
    const offered = (await front.request('GET_PROTOCOL_FEATURES')).u64;
    front.send('SET_PROTOCOL_FEATURES', u64(offered));
    expect((await front.request('GET_QUEUE_NUM')).u64).toBe(9n);
    expect((await front.request('GET_MAX_MEM_SLOTS')).u64).toBe(509n);
    if (pair === 0) front.send('SET_OWNER');
    await front.request('GET_FEATURES');
    for (const index of [2 * pair, 2 * pair + 1]) front.send('SET_VRING_CALL', u64(index), [front.eventFd()]);
  }

  async function start(pair: number): Promise<void> {
    const { front } = world;
    front.send('SET_FEATURES', u64(FEATURES));
    if (pair === 0) {
      const low = { gpa: 0n, sizeBytes: 0x20_0000n, uva: 0x7f00_0000_0000n, mmapOffset: 0n };
      const high = {
        gpa: 0x1_0000_0000n,
        sizeBytes: 0x20_0000n,
        uva: 0x7f00_0020_0000n,
        mmapOffset: 0x20_0000n,
      };
      for (const each of [low, high])
        expect(await front.ack('ADD_MEM_REG', region(each), [world.guest.fd])).toBe(0n);
    }
    for (const index of [2 * pair, 2 * pair + 1]) {
      front.send('SET_VRING_NUM', state(index, 256));
      front.send('SET_VRING_BASE', state(index, 0));
      expect(await front.ack('SET_VRING_ADDR', ringAddress(index, ringPlace(index)))).toBe(0n);
      front.send('SET_VRING_KICK', u64(index), [front.eventFd()]);
      front.send('SET_VRING_CALL', u64(index), [front.eventFd()]);
    }
    expect(await front.settle()).toEqual([]);
  }

  it('ends with every ring attached and enabled, and is undone by GET_VRING_BASE', async () => {
    const { front, dataPath } = use();
    for (const pair of [0, 1]) await initialise(pair);
    expect(dataPath.log).toEqual([]);
    for (const pair of [0, 1]) {
      await start(pair);
      for (const index of [2 * pair, 2 * pair + 1]) front.send('SET_VRING_ENABLE', state(index, 1));
    }
    expect(await front.settle()).toEqual([]);
    expect([...dataPath.attached.values()].map((ring) => [ring.queueIndex, ring.direction])).toEqual([
      [0, 'egress'],
      [1, 'ingress'],
      [2, 'egress'],
      [3, 'ingress'],
    ]);
    expect(dataPath.attached.get(0)).toMatchObject({
      size: 256,
      headerBytes: 12,
      mergeable: true,
      eventIdx: false,
    });
    expect(dataPath.attached.get(0)!.map.map(({ start: from, end }) => [from, end])).toEqual([
      [0, 0x20_0000],
      [0x1_0000_0000, 0x1_0020_0000],
    ]);
    for (const index of [0, 1, 2, 3]) {
      front.send('SET_VRING_ENABLE', state(index, 0));
      const reply = await front.request('GET_VRING_BASE', state(index, 0));
      expect(reply.payload).toEqual(state(index, 0));
    }
    expect(dataPath.attached.size).toBe(0);
    expect(world.refused).toEqual([]);
  });
});

describe('the conversation of DPDK virtio-user', () => {
  it('has user addresses for guest addresses and its calls before its memory', async () => {
    const { front, dataPath } = use();
    const uva = 0x1_0020_0000n;
    front.send('SET_OWNER');
    await front.request('GET_FEATURES');
    await front.request('GET_PROTOCOL_FEATURES');
    front.send('SET_PROTOCOL_FEATURES', u64(bit(P.MQ, P.REPLY_ACK)));
    expect((await front.request('GET_QUEUE_NUM')).u64).toBe(9n);
    for (const index of [0, 1]) front.send('SET_VRING_CALL', u64(index), [front.eventFd()]);
    front.send('SET_FEATURES', u64(FEATURES));
    front.send('SET_MEM_TABLE', table([world.guest.region({ gpa: uva, uva })]), [world.guest.fd]);
    for (const index of [0, 1]) {
      front.send('SET_VRING_NUM', state(index, 256));
      front.send('SET_VRING_BASE', state(index, 0));
      front.send('SET_VRING_ADDR', ringAddress(index, ringPlace(index, uva)));
      front.send('SET_VRING_KICK', u64(index), [front.eventFd()]);
    }
    for (const index of [0, 1]) front.send('SET_VRING_ENABLE', state(index, 1));
    expect(await front.settle()).toEqual([]);
    expect([...dataPath.attached.keys()]).toEqual([0, 1]);
    const toGuest = dataPath.attached.get(0)!;
    expect(toGuest.callFd).toBeGreaterThanOrEqual(0);
    expect(toGuest.map).toHaveLength(1);
    expect(toGuest.map[0].start).toBe(Number(uva));
  });
});

describe('acknowledgements (REPLY_ACK)', () => {
  it('come once, with zero, for each message without a reply of its own', async () => {
    const { front } = use();
    await world.negotiate();
    const messages: readonly [keyof typeof ID, Uint8Array, readonly number[]][] = [
      ['SET_OWNER', none(), []],
      ['RESET_OWNER', none(), []],
      ['SET_FEATURES', u64(FEATURES), []],
      ['SET_PROTOCOL_FEATURES', u64(PROTOCOL_FEATURES), []],
      ['SET_MEM_TABLE', table([world.guest.region()]), [world.guest.fd]],
      ['SET_VRING_NUM', state(0, 128), []],
      ['SET_VRING_BASE', state(0, 3), []],
      ['SET_VRING_ADDR', ringAddress(0, ringPlace(0)), []],
      ['SET_VRING_CALL', u64(0), [front.eventFd()]],
      ['SET_VRING_ERR', u64(0), [front.eventFd()]],
      ['SET_VRING_KICK', u64(0), [front.eventFd()]],
      ['SET_VRING_ENABLE', state(0, 1), []],
      ['NET_SET_MTU', u64(1500), []],
      ['SET_LOG_FD', none(), [front.eventFd()]],
      ['REM_MEM_REG', region(world.guest.region()), []],
      ['ADD_MEM_REG', region(world.guest.region()), [world.guest.fd]],
    ];
    for (const [name, payload, fds] of messages) {
      front.send(name, payload, fds, NEED_REPLY);
      const replies = await front.settle();
      expect(replies!.map(({ request, flags, payload: bytes }) => [request, flags, bytes])).toEqual([
        [ID[name], 5, u64(0)],
      ]);
    }
  });

  it('never add to the reply that a message has', async () => {
    const { front } = use({ configSpace: true });
    await world.negotiate(FEATURES, PROTOCOL_FEATURES | bit(P.CONFIG));
    const messages: readonly [keyof typeof ID, Uint8Array][] = [
      ['GET_PROTOCOL_FEATURES', none()],
      ['GET_QUEUE_NUM', none()],
      ['GET_MAX_MEM_SLOTS', none()],
      ['GET_VRING_BASE', state(0, 0)],
      ['GET_CONFIG', config(0, new Uint8Array(6))],
    ];
    for (const [name, payload] of messages) {
      front.send(name, payload, [], NEED_REPLY);
      expect((await front.settle())!.map(({ request, flags }) => [request, flags])).toEqual([[ID[name], 5]]);
    }
  });

  it('do not come when they were not negotiated, although asked for', async () => {
    const { front } = use();
    await world.negotiate(FEATURES, bit(P.MQ));
    front.send('SET_OWNER', none(), [], NEED_REPLY);
    front.send('SET_VRING_NUM', state(0, 256), [], NEED_REPLY);
    expect(await front.settle()).toEqual([]);
  });

  it('do not come when not asked for', async () => {
    const { front } = use();
    await world.negotiate();
    front.send('SET_VRING_NUM', state(0, 256));
    expect(await front.settle()).toEqual([]);
  });

  it('are not zero for what was refused, and the connection goes on as before', async () => {
    const { front } = use();
    await world.run();
    expect(await front.ack('SET_VRING_NUM', state(0, 0))).not.toBe(0n);
    expect(await front.ack('SET_VRING_ENABLE', state(99, 1))).not.toBe(0n);
    expect(world.refused).toEqual([
      'SET_VRING_NUM: ring size 0 is not between 1 and 32,768',
      "SET_VRING_ENABLE: ring 99 does not exist; the device has 9 (the port has 4 queue pairs: raise its queues=, or lower the front-end's)",
    ]);
    expect([...world.dataPath.attached.keys()]).toEqual([0, 1]);
    expect(world.endReason).toBeNull();
  });

  it('cannot be given for a message with its own reply: the connection ends', async () => {
    const { front } = use();
    await world.negotiate();
    front.send('GET_VRING_BASE', state(9, 0), [], NEED_REPLY);
    expect(await world.ended).toBe(
      "GET_VRING_BASE: ring 9 does not exist; the device has 9 (the port has 4 queue pairs: raise its queues=, or lower the front-end's)",
    );
    expect(await front.replyOrEnd()).toBeNull();
  });

  it('not asked for: what is refused ends the connection', async () => {
    const { front } = use();
    await world.negotiate();
    front.send('SET_VRING_NUM', state(0, 0));
    expect(await world.ended).toBe('SET_VRING_NUM: ring size 0 is not between 1 and 32,768');
    await front.closed;
  });
});

describe('MTU', () => {
  it.each([68, 1500, 9000, 65_535])('%i limits frames until the front-end is gone', async (mtu) => {
    const { front, dataPath, net } = use();
    await world.negotiate();
    expect(await front.ack('NET_SET_MTU', u64(mtu))).toBe(0n);
    expect([net.mtu, dataPath.linkMtu]).toEqual([mtu, mtu]);
    front.close();
    await world.ended;
    await net.release();
    expect(dataPath.linkMtu).toBe(65_535);
  });

  it.each([0n, 67n, 65_536n, 2n ** 32n + 1500n, 2n ** 64n - 1n])('%i is refused', async (mtu) => {
    const { front, dataPath } = use();
    await world.negotiate();
    expect(await front.ack('NET_SET_MTU', u64(mtu))).toBe(1n);
    expect(dataPath.linkMtu).toBeNull();
  });
});

describe('configuration space', () => {
  const MAC = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
  beforeEach(async () => {
    use({ configSpace: true, mac: MAC, mtu: 9000, queuePairsMax: 3 });
    await world.negotiate(FEATURES, PROTOCOL_FEATURES | bit(P.CONFIG));
  });

  it('holds MAC, status, pairs and MTU (User-Mode Linux reads them)', async () => {
    const reply = await world.front.request('GET_CONFIG', config(0, new Uint8Array(12)));
    expect(reply.payload).toEqual(config(0, Uint8Array.of(...MAC, 1, 0, 3, 0, 0x28, 0x23)));
    const rest = await world.front.request('GET_CONFIG', config(12, new Uint8Array(12)));
    expect(rest.payload).toEqual(config(12, Uint8Array.of(255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0)));
  });

  it.each([
    [0, 24, 24],
    [23, 1, 1],
    [24, 0, 0],
    [0, 25, 0],
    [24, 1, 0],
    [256, 0, 0],
    [0xffff_ffff, 1, 0],
    [0xffff_fff0, 256, 0],
  ])('answers offset %i, %i bytes with %i bytes', async (offset, sizeBytes, expected) => {
    const reply = await world.front.request('GET_CONFIG', config(offset, new Uint8Array(sizeBytes)));
    expect(reply.payload.length).toBe(12 + expected);
    expect(await world.front.settle()).toEqual([]);
  });

  it('cannot be written', async () => {
    expect(await world.front.ack('SET_CONFIG', config(0, MAC))).toBe(1n);
    expect(world.refused[0]).toMatch(/read-only/);
  });

  it('is not longer than 256 bytes', async () => {
    world.front.send('GET_CONFIG', config(0, new Uint8Array(257)));
    expect(await world.ended).toMatch(/configuration of 257 bytes; at most 256 are allowed/);
  });
});
