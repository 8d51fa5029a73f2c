/** How a ring is enabled and disabled: by features or by message, and what is waited for before the answer. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { QueueState, STATE_AVAIL_NEXT } from '../../src/queue/state.ts';
import { bit, F, NEED_REPLY, state, u64 } from '../vhost-user/scripted-front-end.ts';
import { FEATURES, ringOffsets, World } from './world.ts';

let world: World;
beforeEach(() => {
  world = new World();
});
afterEach(() => world.dispose());

const words = (index: number): Int32Array => new QueueState(world.states, index).words;

describe('a ring is enabled', () => {
  const isAttached = (index: number): boolean => world.dataPath.attached.has(index);

  it('by SET_FEATURES without bit 30, and stays so when bit 30 comes later', async () => {
    await world.negotiate(bit(F.VERSION_1), 0n);
    await world.shareMemory();
    world.sendRing(0);
    await world.front.settle();
    expect(isAttached(0)).toBe(true);
    world.front.send('SET_FEATURES', u64(FEATURES));
    await world.front.settle();
    expect(isAttached(0)).toBe(true);
  });

  it('by SET_FEATURES without bit 30 also after it was started', async () => {
    await world.negotiate();
    await world.shareMemory();
    world.sendRing(0);
    await world.front.settle();
    expect(isAttached(0)).toBe(false);
    world.front.send('SET_FEATURES', u64(bit(F.VERSION_1)));
    await world.front.settle();
    expect(isAttached(0)).toBe(true);
  });

  it('not before SET_VRING_ENABLE when bit 30 is negotiated, although it was named before SET_FEATURES', async () => {
    // QEMU and virtio-user send SET_VRING_CALL before SET_FEATURES.
    world.front.send('SET_VRING_CALL', u64(0), [world.front.eventFd()]);
    await world.negotiate();
    await world.shareMemory();
    world.sendRing(0);
    await world.front.settle();
    expect([isAttached(0), world.ring(0).reason]).toEqual([false, null]);
    world.front.send('SET_VRING_ENABLE', state(0, 1));
    await world.front.settle();
    expect(isAttached(0)).toBe(true);
  });

  it('and stays so when SET_FEATURES with bit 30 is repeated while it runs', async () => {
    await world.run();
    world.front.send('SET_FEATURES', u64(FEATURES));
    await world.front.settle();
    expect(world.dataPath.takeLog()).toEqual([]);
    world.front.send('SET_FEATURES', u64(FEATURES | bit(F.EVENT_IDX)));
    await world.front.settle();
    expect([...world.dataPath.attached.values()].map(({ eventIdx }) => eventIdx)).toEqual([true, true]);
  });

  it('and left alone when it is disabled, before that is acknowledged', async () => {
    await world.run();
    const { front, dataPath } = world;
    const hold = dataPath.hold('detach');
    front.send('SET_VRING_ENABLE', state(1, 0), [], NEED_REPLY);
    await hold.called;
    for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
    expect(front.repliesNow()).toEqual([]);
    hold.release();
    expect((await front.reply()).u64).toBe(0n);
    expect(dataPath.takeLog()).toEqual(['detach 1']);
    expect(world.ring(1)).toMatchObject({ started: true, enabled: false, reason: null, user: 'none' });
    words(1)[STATE_AVAIL_NEXT] = 12;
    front.send('SET_VRING_ENABLE', state(1, 1));
    front.send('SET_VRING_ENABLE', state(1, 1));
    await front.settle();
    // It goes on where it was.
    expect(dataPath.takeLog()).toEqual(['attach 1']);
    expect(words(1)[STATE_AVAIL_NEXT]).toBe(12);
  });

  it('or not, whatever changes about it meanwhile: it is attached by nothing else', async () => {
    await world.run();
    const { front, dataPath } = world;
    front.send('SET_VRING_ENABLE', state(0, 0));
    await front.settle();
    dataPath.takeLog();
    world.sendRing(0);
    front.send('SET_FEATURES', u64(FEATURES | bit(F.EVENT_IDX)));
    await world.addMemory({ gpa: 1n << 32n, uva: 1n << 32n });
    expect(dataPath.takeLog()).toEqual(['detach 1', 'attach 1', 'memory']);
  });

  it.each([2, 0xffff_ffff])('not by the value %i', async (value) => {
    await world.run();
    expect(await world.front.ack('SET_VRING_ENABLE', state(0, value))).toBe(1n);
    expect(world.dataPath.takeLog()).toEqual([]);
  });

  it('in reverse order to 0 and then GET_FEATURES (User-Mode Linux stops so), and starts again', async () => {
    await world.run();
    const { front, dataPath } = world;
    for (const index of [1, 0]) front.send('SET_VRING_ENABLE', state(index, 0));
    await front.request('GET_FEATURES');
    expect(dataPath.takeLog()).toEqual(['detach 1', 'detach 0']);
    words(0)[STATE_AVAIL_NEXT] = 77;
    world.guest.write16(ringOffsets(0).used + 2, 0);
    // The base comes before the addresses: nothing is attached until it is enabled.
    await world.startRings(0, 1);
    expect(words(0)[STATE_AVAIL_NEXT]).toBe(0);
    expect(dataPath.takeLog()).toEqual(['attach 0', 'attach 1']);
  });
});
