/**
 * RESET_DEVICE and the device's status: every ring stops, the driver's part is forgotten, the connection's part stays;
 * then the same connection brings the device up again.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { STATE_AVAIL_NEXT, STATE_FAULT, STATE_USED_NEXT } from '../../src/queue/state.ts';
import { RING_FAULT } from '../../src/vring/faults.ts';
import { bit, F, NEED_REPLY, none, P, state, u64 } from '../vhost-user/scripted-front-end.ts';
import { FEATURES, PROTOCOL_FEATURES, ringOffsets, World } from './world.ts';

const PROTOCOL = PROTOCOL_FEATURES | bit(P.RESET, P.STATUS, P.LOG_SHMFD);
const [ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK] = [1, 2, 4, 8];
const RUNNING = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK;

let world: World;
beforeEach(async () => {
  world = new World();
  await world.negotiate(FEATURES, PROTOCOL);
  await world.shareMemory();
  await world.startRings(0, 1);
  world.dataPath.takeLog();
});
afterEach(() => world.dispose());

const status = async (): Promise<bigint> => (await world.front.request('GET_STATUS')).u64;

const WAYS = [
  { how: 'RESET_DEVICE', reset: () => world.front.ack('RESET_DEVICE') },
  { how: 'status 0', reset: () => world.front.ack('SET_STATUS', u64(0)) },
] as const;

describe.each(WAYS)('a reset by $how', ({ reset }) => {
  it('stops and disables every ring before it is acknowledged', async () => {
    const hold = world.dataPath.hold('detach');
    const done = reset();
    await hold.called;
    expect(world.front.repliesNow()).toEqual([]);
    hold.release();
    expect(await done).toBe(0n);
    expect(world.dataPath.takeLog()).toEqual(['detach 0', 'detach 1']);
    for (const ring of world.device.rings) {
      expect(ring).toMatchObject({ started: false, enabled: false, size: 0, addresses: null, reason: null });
      expect(ring.kick.fd).toBe(-1);
    }
    expect(await status()).toBe(0n);
  });

  it('forgets features, and keeps memory, protocol features and MTU', async () => {
    expect(await world.front.ack('NET_SET_MTU', u64(9000))).toBe(0n);
    expect(await reset()).toBe(0n);
    expect(world.device).toMatchObject({ features: 0n, protocolFeatures: PROTOCOL });
    expect(world.device.memoryBytes).toBe(4 * 2 ** 20);
    expect(world.net.mtu).toBe(9000);
  });

  it.each([FEATURES, FEATURES | bit(F.PACKED), bit(F.VERSION_1)])(
    'lets the device begin anew with features 0x%x, and with the calls that came once a connection',
    async (features) => {
      const calls = world.device.rings.map(({ callFd }) => callFd);
      expect(await reset()).toBe(0n);
      const { front, dataPath } = world;
      front.send('SET_FEATURES', u64(features));
      for (const index of [0, 1]) {
        front.send('SET_VRING_NUM', state(index, 64));
        front.send('SET_VRING_BASE', state(index, (features & bit(F.PACKED)) === 0n ? 0 : 0x8000_8000));
        world.sendRing(index, { size: 64, base: (features & bit(F.PACKED)) === 0n ? 0 : 0x8000_8000 });
      }
      // Without bit 30 there is no such message, and rings are enabled from the start.
      if ((features & bit(F.PROTOCOL)) !== 0n)
        for (const index of [0, 1]) front.send('SET_VRING_ENABLE', state(index, 1));
      expect(await front.settle()).toEqual([]);
      expect([...dataPath.attached.keys()]).toEqual([0, 1]);
      expect(calls.every((fd) => fd >= 0)).toBe(true);
      expect(world.refused).toEqual([]);
    },
  );

  it('keeps call descriptors, which QEMU sends once a connection', async () => {
    const before = world.device.rings.map(({ callFd }) => callFd);
    expect(await reset()).toBe(0n);
    expect(world.device.rings.map(({ callFd }) => callFd)).toEqual(before);
  });

  it('takes a fault away, and where the ring stood, but for who asks', async () => {
    const { words } = world.ring(1).state;
    words[STATE_AVAIL_NEXT] = 77;
    words[STATE_USED_NEXT] = 77;
    words[STATE_FAULT] = RING_FAULT.CHAIN_LOOP;
    world.device.queueFailed(1);
    expect(world.ring(1).reason).not.toBeNull();
    expect(await reset()).toBe(0n);
    expect(world.ring(1).reason).toBeNull();
    // As QEMU does, which resets the status before it has asked for all rings, and may reset it twice.
    for (let times = 0; times < 2; times++) {
      expect((await world.front.request('GET_VRING_BASE', state(1, 0))).payload).toEqual(state(1, 77));
      expect(await reset()).toBe(0n);
    }
    world.front.send('SET_FEATURES', u64(FEATURES));
    world.guest.write16(ringOffsets(1).used + 2, 0);
    await world.startRings(1);
    expect([words[STATE_AVAIL_NEXT], words[STATE_FAULT]]).toEqual([0, RING_FAULT.NONE]);
  });

  it('may come again and again, before anything else, and without an answer being asked for', async () => {
    for (let i = 0; i < 5; i++) expect(await reset()).toBe(0n);
    world.front.send('RESET_DEVICE');
    world.front.send('SET_STATUS', u64(0));
    expect(await world.front.settle()).toEqual([]);
    await world.dispose();
    world = new World();
    world.front.send('SET_PROTOCOL_FEATURES', u64(PROTOCOL));
    expect(await reset()).toBe(0n);
  });
});

describe('the status', () => {
  it('is what the front-end wrote, as QEMU reads, modifies and writes it', async () => {
    expect(await status()).toBe(0n);
    for (const bits of [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK]) {
      const before = await status();
      expect(await world.front.ack('SET_STATUS', u64(before | BigInt(bits)))).toBe(0n);
      expect(await status()).toBe(before | BigInt(bits));
    }
    expect(await status()).toBe(BigInt(RUNNING));
    expect(world.dataPath.takeLog()).toEqual([]);
  });

  it('has no FEATURES_OK after features that were refused, until others are accepted', async () => {
    expect(await world.front.ack('SET_FEATURES', u64(FEATURES | bit(63)))).toBe(1n);
    expect(await world.front.ack('SET_STATUS', u64(ACKNOWLEDGE | DRIVER | FEATURES_OK))).toBe(0n);
    expect(await status()).toBe(BigInt(ACKNOWLEDGE | DRIVER));
    expect(await world.front.ack('SET_FEATURES', u64(FEATURES))).toBe(0n);
    expect(await world.front.ack('SET_STATUS', u64(ACKNOWLEDGE | DRIVER | FEATURES_OK))).toBe(0n);
    expect(await status()).toBe(BigInt(ACKNOWLEDGE | DRIVER | FEATURES_OK));
  });

  it('has no more than eight bits', async () => {
    for (const value of [256n, 2n ** 63n, 2n ** 64n - 1n]) {
      expect(await world.front.ack('SET_STATUS', u64(value))).toBe(1n);
    }
    expect(world.refused[0]).toBe('SET_STATUS: status 0x100 has more than 8 bits');
    expect(await status()).toBe(0n);
    expect(world.dataPath.takeLog()).toEqual([]);
  });

  it('is answered once, also where an acknowledgement is asked for', async () => {
    const reply = await world.front.request('GET_STATUS', none(), [], NEED_REPLY);
    expect([reply.request, reply.payload.length]).toEqual([40, 8]);
    expect(await world.front.settle()).toEqual([]);
  });
});
