/**
 * When a ring starts, runs, stops and fails, and what is waited for. The traps are those of
 * docs/architecture.md: front-ends that start and stop rings in every way that the specification allows.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EpollSet } from '../../src/host/epoll.ts';
import { QueueState, STATE_AVAIL_NEXT, STATE_FAULT, STATE_USED_NEXT } from '../../src/queue/state.ts';
import { faultMessage, RING_FAULT } from '../../src/vring/faults.ts';
import { GuestFile } from '../memory/guest-file.ts';
import {
  bit,
  F,
  NEED_REPLY,
  none,
  ringAddress,
  state,
  table,
  u64,
} from '../vhost-user/scripted-front-end.ts';
import { FEATURES, GUEST_BYTES, ringOffsets, ringPlace, World } from './world.ts';

let world: World;
beforeEach(() => {
  world = new World();
});
afterEach(() => world.dispose());

const words = (index: number): Int32Array => new QueueState(world.states, index).words;

describe('a ring starts', () => {
  it('at SET_VRING_KICK, without waiting for a kick', async () => {
    await world.negotiate();
    await world.shareMemory();
    const { front, dataPath } = world;
    front.send('SET_VRING_NUM', state(1, 64));
    front.send('SET_VRING_BASE', state(1, 5));
    front.send('SET_VRING_ADDR', ringAddress(1, ringPlace(1)));
    expect(await front.settle()).toEqual([]);
    expect(dataPath.log).toEqual([]);
    front.send('SET_VRING_KICK', u64(1), [front.eventFd()]);
    front.send('SET_VRING_ENABLE', state(1, 1));
    await front.settle();
    expect(dataPath.log).toEqual(['attach 1']);
    expect(dataPath.attached.get(1)).toMatchObject({ size: 64, direction: 'ingress', layout: 'split' });
  });

  it.each([0, 5, 0xffff])('at its base %i, where its used ring stands there too', async (base) => {
    await world.negotiate();
    await world.shareMemory();
    world.guest.write16(ringOffsets(0).used + 2, base);
    world.sendRing(0, { base });
    world.front.send('SET_VRING_ENABLE', state(0, 1));
    await world.front.settle();
    expect([words(0)[STATE_AVAIL_NEXT], words(0)[STATE_USED_NEXT]]).toEqual([base, base]);
    expect(world.remarks).toEqual([]);
  });

  it.each([
    // virtio-user after a back-end's sudden end; cloud-hypervisor, whose driver made more available; the wrap.
    [0, 1000],
    [1256, 1000],
    [0x0003, 0xfffe],
    [0xfffe, 0x0003],
  ])('where its used ring stands when its base %i is not %i, and says so once', async (base, used) => {
    await world.negotiate();
    await world.shareMemory();
    world.guest.write16(ringOffsets(0).used + 2, used);
    const remark = `queue 0: its base named ${base}, but it was used up to ${used}: it goes on from there`;
    for (let round = 0; round < 2; round++) {
      world.sendRing(0, { base });
      world.front.send('SET_VRING_ENABLE', state(0, 1));
      await world.front.settle();
      expect([words(0)[STATE_AVAIL_NEXT], words(0)[STATE_USED_NEXT]]).toEqual([used, used]);
      expect(world.remarks).toEqual([remark]);
      expect((await world.front.request('GET_VRING_BASE', state(0, 0))).payload).toEqual(state(0, used));
    }
  });

  it('from nothing after its guest was rebooted, whatever was used before', async () => {
    await world.run();
    words(0)[STATE_AVAIL_NEXT] = 700;
    words(0)[STATE_USED_NEXT] = 700;
    world.guest.write16(ringOffsets(0).used + 2, 700);
    expect((await world.front.request('GET_VRING_BASE', state(0, 0))).payload).toEqual(state(0, 700));
    world.guest.write16(ringOffsets(0).used + 2, 0);
    world.sendRing(0, { base: 0 });
    await world.front.settle();
    expect([words(0)[STATE_AVAIL_NEXT], words(0)[STATE_USED_NEXT]]).toEqual([0, 0]);
    expect(world.remarks).toEqual([]);
  });

  it('polled when no kick descriptor comes (bit 8)', async () => {
    await world.negotiate();
    await world.shareMemory();
    const { front, dataPath } = world;
    front.send('SET_VRING_NUM', state(1, 64));
    front.send('SET_VRING_ADDR', ringAddress(1, ringPlace(1)));
    front.send('SET_VRING_CALL', u64(0x101));
    front.send('SET_VRING_KICK', u64(0x101));
    front.send('SET_VRING_ENABLE', state(1, 1));
    await front.settle();
    expect(dataPath.attached.get(1)).toMatchObject({ kickFd: -1, callFd: -1 });
  });

  it('later, when its kick came before size, addresses or memory', async () => {
    await world.negotiate();
    const { front, dataPath } = world;
    front.send('SET_VRING_ENABLE', state(0, 1));
    front.send('SET_VRING_KICK', u64(0), [front.eventFd()]);
    await front.settle();
    expect(world.ring(0).reason).toBe('started before its size and addresses were set');
    front.send('SET_VRING_NUM', state(0, 256));
    front.send('SET_VRING_ADDR', ringAddress(0, ringPlace(0)));
    await front.settle();
    expect(world.ring(0).reason).toMatch(/^the front-end shared no memory/);
    expect(dataPath.log).toEqual([]);
    await world.shareMemory();
    expect(world.ring(0).reason).toBeNull();
    expect(dataPath.log).toEqual(['attach 0']);
  });

  it.each([
    ['descriptor table', { descUva: 0x7f00_003f_f010n }, /descriptor table \(4096 bytes\) does not lie/],
    ['avail ring', { availUva: 0x7f00_003f_fffen }, /avail ring \(518 bytes\) does not lie/],
    ['used ring', { usedUva: 0x7f00_0040_0000n }, /used ring \(2054 bytes\) does not lie/],
    ['descriptor table', { descUva: 0x7f00_0010_0008n }, /descriptor table is not aligned to 16 bytes/],
    ['avail ring', { availUva: 0x7f00_0010_2001n }, /avail ring is not aligned to 2 bytes/],
    ['used ring', { usedUva: 0x7f00_0010_3002n }, /used ring is not aligned to 4 bytes/],
    ['used ring', { usedUva: 2n ** 64n - 4n }, /used ring \(2054 bytes\) does not lie/],
  ])('not when its %s is where it cannot be (%o)', async (_part, but, reason) => {
    await world.negotiate();
    await world.shareMemory();
    const { front, dataPath } = world;
    front.send('SET_VRING_NUM', state(0, 256));
    front.send('SET_VRING_ADDR', ringAddress(0, { ...ringPlace(0), ...but }));
    front.send('SET_VRING_KICK', u64(0), [front.eventFd()]);
    front.send('SET_VRING_ENABLE', state(0, 1));
    expect(await front.settle()).toEqual([]);
    expect(world.ring(0).reason).toMatch(reason);
    expect(dataPath.log).toEqual([]);
  });

  it('with the features of the driver', async () => {
    await world.negotiate(bit(F.PROTOCOL, F.EVENT_IDX, F.INDIRECT));
    await world.shareMemory();
    await world.startRings(0);
    expect(world.dataPath.attached.get(0)).toMatchObject({
      eventIdx: true,
      indirect: true,
      mergeable: false,
      headerBytes: 10,
    });
  });
});

describe('GET_VRING_BASE', () => {
  it('stops the ring and answers its index', async () => {
    await world.run();
    words(1)[STATE_AVAIL_NEXT] = 0xabcd;
    const reply = await world.front.request('GET_VRING_BASE', state(1, 0));
    expect(reply.payload).toEqual(state(1, 0xabcd));
    expect(world.dataPath.takeLog()).toEqual(['detach 1']);
    expect(world.ring(1)).toMatchObject({ started: false, watchedKickFd: -1, base: 0xabcd });
  });

  it('answers only after the workers let go, and with the index that they left', async () => {
    await world.run();
    const { front, dataPath } = world;
    const hold = dataPath.hold('detach');
    front.send('GET_VRING_BASE', state(1, 0));
    front.send('GET_FEATURES');
    await hold.called;
    for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
    expect(front.repliesNow()).toEqual([]);
    words(1)[STATE_AVAIL_NEXT] = 42;
    hold.release();
    expect((await front.reply()).payload).toEqual(state(1, 42));
    expect((await front.reply()).request).toBe(1);
  });

  it('may come for a ring that was never configured, and twice', async () => {
    await world.negotiate();
    expect((await world.front.request('GET_VRING_BASE', state(6, 0))).payload).toEqual(state(6, 0));
    world.front.send('SET_VRING_BASE', state(6, 9));
    expect((await world.front.request('GET_VRING_BASE', state(6, 0))).payload).toEqual(state(6, 9));
    expect((await world.front.request('GET_VRING_BASE', state(6, 0))).payload).toEqual(state(6, 9));
  });

  it('keeps the index for a start without SET_VRING_BASE', async () => {
    await world.run();
    words(0)[STATE_AVAIL_NEXT] = 300;
    world.guest.write16(ringOffsets(0).used + 2, 300);
    await world.front.request('GET_VRING_BASE', state(0, 0));
    world.front.send('SET_VRING_KICK', u64(0), [world.front.eventFd()]);
    await world.front.settle();
    expect(world.dataPath.attached.has(0)).toBe(true);
    expect(words(0)[STATE_AVAIL_NEXT]).toBe(300);
  });

  it('is followed by no attach of that ring when memory changes', async () => {
    await world.run();
    await world.front.request('GET_VRING_BASE', state(1, 0));
    world.dataPath.takeLog();
    const other = new GuestFile(GUEST_BYTES);
    expect(await world.front.ack('SET_MEM_TABLE', table([other.region()]), [other.fd])).toBe(0n);
    other.close();
    expect(world.dataPath.takeLog()).toEqual(['detach 0', 'attach 0']);
  });

  it('waits in vain for no one when the connection ends meanwhile', async () => {
    await world.run();
    const hold = world.dataPath.hold('detach');
    world.front.send('GET_VRING_BASE', state(1, 0));
    await hold.called;
    world.front.close();
    let settled = false;
    const ending = world.session.end('the port was stopped').then(() => {
      settled = true;
    });
    for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
    // The socket is closed at once; the handler is still at work with the ring.
    expect([world.endReason, settled]).toEqual(['the port was stopped', false]);
    hold.release();
    await ending;
    expect(world.dataPath.attached.has(1)).toBe(false);
  });
});

describe('index and size', () => {
  it.each([9, 100, 255, 65_535, 65_536, 65_537, 0x1_0001, 0x8000_0000, 0xffff_ffff])(
    'of a ring %i that does not exist are refused in every message',
    async (index) => {
      await world.negotiate();
      const { front } = world;
      const acks = [
        await front.ack('SET_VRING_NUM', state(index, 256)),
        await front.ack('SET_VRING_BASE', state(index, 0)),
        await front.ack('SET_VRING_ENABLE', state(index, 1)),
        await front.ack('SET_VRING_ADDR', ringAddress(index, ringPlace(0))),
      ];
      expect(acks).toEqual([1n, 1n, 1n, 1n]);
      expect(world.device.rings).toEqual([]);
      front.send('GET_VRING_BASE', state(index, 0));
      expect(await world.ended).toBe(
        `GET_VRING_BASE: ring ${index} does not exist; the device has 9 ` +
          "(the port has 4 queue pairs: raise its queues=, or lower the front-end's)",
      );
    },
  );

  it.each([9, 100, 255])(
    'of a ring %i that does not exist are refused with its descriptor',
    async (index) => {
      await world.negotiate();
      const { front } = world;
      for (const name of ['SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR'] as const) {
        expect(await front.ack(name, u64(index), [front.eventFd()])).toBe(1n);
        expect(await front.ack(name, u64(index | 0x100))).toBe(1n);
      }
      expect(world.device.rings).toEqual([]);
    },
  );

  it.each([0, 32_769, 65_535, 65_536, 0x8000_0000, 0xffff_ffff])(
    'of %i descriptors are refused',
    async (size) => {
      await world.negotiate();
      expect(await world.front.ack('SET_VRING_NUM', state(0, size))).toBe(1n);
    },
  );

  it.each([1, 3, 255, 257, 32_767])('of %i descriptors keep a split ring from running', async (size) => {
    await world.negotiate();
    await world.shareMemory();
    world.sendRing(0, { size });
    world.front.send('SET_VRING_ENABLE', state(0, 1));
    expect(await world.front.settle()).toEqual([]);
    expect(world.dataPath.log).toEqual([]);
    expect(world.ring(0).reason).toBe(`ring size ${size} is no power of two from 2 to 32,768`);
    world.front.send('SET_VRING_NUM', state(0, 256));
    await world.front.settle();
    expect(world.dataPath.log).toEqual(['attach 0']);
  });

  it.each([2, 1024, 32_768])('of %i descriptors are taken, as often as they come', async (size) => {
    await world.negotiate();
    for (let i = 0; i < 20; i++) expect(await world.front.ack('SET_VRING_NUM', state(0, size))).toBe(0n);
    expect(world.ring(0).size).toBe(size);
  });

  it('may change while the ring runs, and the ring runs on with it', async () => {
    await world.run();
    words(0)[STATE_AVAIL_NEXT] = 17;
    world.front.send('SET_VRING_NUM', state(0, 128));
    world.front.send('SET_VRING_ADDR', ringAddress(0, ringPlace(5)));
    await world.front.settle();
    expect(world.dataPath.takeLog()).toEqual(['detach 0', 'attach 0', 'detach 0', 'attach 0']);
    expect(world.dataPath.attached.get(0)!.size).toBe(128);
    expect(words(0)[STATE_AVAIL_NEXT]).toBe(17);
  });

  it.each([65_536, 0xffff_ffff])('of a split ring do not run from a base of %i', async (base) => {
    await world.negotiate();
    await world.shareMemory();
    world.sendRing(0, { base });
    world.front.send('SET_VRING_ENABLE', state(0, 1));
    await world.front.settle();
    expect(world.ring(0).reason).toBe(`base ${base} of a split ring is above 65,535`);
    expect(world.dataPath.log).toEqual([]);
  });

  it('that are set anew while it runs stop it until its addresses come too', async () => {
    await world.run();
    const { front, dataPath } = world;
    words(0)[STATE_AVAIL_NEXT] = 77;
    world.guest.write16(ringOffsets(6).used + 2, 5);
    front.send('SET_VRING_BASE', state(0, 5));
    await front.settle();
    expect(dataPath.takeLog()).toEqual(['detach 0']);
    expect(world.ring(0).reason).toBe('its base was set anew, but not its addresses');
    front.send('SET_VRING_ADDR', ringAddress(0, ringPlace(6)));
    await front.settle();
    expect(dataPath.takeLog()).toEqual(['attach 0']);
    expect(words(0)[STATE_AVAIL_NEXT]).toBe(5);
  });

  it('may come in any order before the start (cloud-hypervisor sends addresses before the base)', async () => {
    await world.negotiate();
    await world.shareMemory();
    const { front, dataPath } = world;
    world.guest.write16(ringOffsets(0).used + 2, 9);
    front.send('SET_VRING_NUM', state(0, 256));
    front.send('SET_VRING_ADDR', ringAddress(0, ringPlace(0)));
    front.send('SET_VRING_BASE', state(0, 9));
    front.send('SET_VRING_ENABLE', state(0, 1));
    front.send('SET_VRING_KICK', u64(0), [front.eventFd()]);
    await front.settle();
    expect(dataPath.takeLog()).toEqual(['attach 0']);
    expect(words(0)[STATE_AVAIL_NEXT]).toBe(9);
  });
});

describe('a fault', () => {
  it('is told by the error descriptor and in the ring, until the ring starts anew', async () => {
    await world.run();
    const { front, dataPath, device } = world;
    const error = front.eventFd();
    const epoll = new EpollSet();
    epoll.add(error);
    front.send('SET_VRING_ERR', u64(1), [error]);
    await front.settle();
    device.queueFailed(1);
    expect(epoll.wait(0)).toBe(0);
    expect(world.ring(1).reason).toBeNull();
    words(1)[STATE_FAULT] = RING_FAULT.CHAIN_LOOP;
    const changes = world.changes;
    device.queueFailed(1);
    expect(epoll.wait(0)).toBe(1);
    expect(world.ring(1).reason).toBe(faultMessage(RING_FAULT.CHAIN_LOOP));
    expect(world.changes).toBe(changes + 1);
    await front.request('GET_VRING_BASE', state(1, 0));
    expect(world.ring(1).reason).toBeNull();
    await world.startRings(1);
    expect(words(1)[STATE_FAULT]).toBe(RING_FAULT.NONE);
    expect(dataPath.attached.has(1)).toBe(true);
    epoll.close();
  });

  it('is still told after memory or features changed, for the ring is still stopped', async () => {
    await world.run();
    words(0)[STATE_FAULT] = RING_FAULT.BUFFER_ADDRESS;
    world.device.queueFailed(0);
    expect(world.ring(0).reason).toBe(faultMessage(RING_FAULT.BUFFER_ADDRESS));
    await world.shareMemory();
    expect(words(0)[STATE_FAULT]).toBe(RING_FAULT.BUFFER_ADDRESS);
    expect(world.ring(0).reason).toBe(faultMessage(RING_FAULT.BUFFER_ADDRESS));
  });

  it('of a ring that nobody heard of is no news', () => {
    world.device.queueFailed(3);
    world.device.queueFailed(300);
    expect(world.device.rings).toEqual([]);
  });

  it('ends no connection and stops no other ring', async () => {
    await world.run();
    words(1)[STATE_FAULT] = RING_FAULT.AVAIL_JUMP;
    world.device.queueFailed(1);
    expect(await world.front.settle()).toEqual([]);
    expect(world.ring(0)).toMatchObject({ reason: null, user: 'workers' });
  });
});

describe('messages that name no ring of a started device', () => {
  it('are without effect on it: SET_OWNER, RESET_OWNER, SET_LOG_FD', async () => {
    await world.run();
    world.front.send('SET_OWNER');
    world.front.send('RESET_OWNER');
    world.front.send('SET_LOG_FD', none(), [world.front.eventFd()]);
    expect(await world.front.settle()).toEqual([]);
    expect(world.dataPath.takeLog()).toEqual([]);
  });

  it('are refused whole: SET_FEATURES with what was not offered', async () => {
    await world.run();
    world.front.send('SET_FEATURES', u64(FEATURES | bit(40)), [], NEED_REPLY);
    expect((await world.front.reply()).u64).toBe(1n);
    expect(world.dataPath.takeLog()).toEqual([]);
  });

  it('take the memory away: rings are let go of and say why', async () => {
    await world.run();
    world.front.send('SET_MEM_TABLE', table([]));
    expect(await world.front.settle()).toEqual([]);
    expect(world.dataPath.attached.size).toBe(0);
    expect(world.ring(0).reason).toMatch(/^the front-end shared no memory/);
    await world.shareMemory();
    expect([...world.dataPath.attached.keys()]).toEqual([0, 1]);
  });
});
