/** Packed rings by message: negotiated, placed, stopped and started again, and changed for split ones. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { QueueState, STATE_AVAIL_NEXT, STATE_USED_NEXT } from '../../src/queue/state.ts';
import { bit, F, ringAddress, state, u64 } from '../vhost-user/scripted-front-end.ts';
import { arenaView, FEATURES, ringOffsets, ringPlace, World } from './world.ts';

const PACKED = FEATURES | bit(F.PACKED);

let world: World;
beforeEach(() => {
  world = new World();
});
afterEach(() => world.dispose());

const words = (index: number): Int32Array => new QueueState(world.states, index).words;
const indices = (index: number): number[] => [words(index)[STATE_AVAIL_NEXT], words(index)[STATE_USED_NEXT]];
const baseOf = async (index: number): Promise<Uint8Array> =>
  (await world.front.request('GET_VRING_BASE', state(index, 0))).payload;

describe('packed rings', () => {
  it('are attached with the layout, at any size, with the features of the driver', async () => {
    await world.negotiate(PACKED | bit(F.IN_ORDER));
    await world.shareMemory();
    world.sendRing(0, { size: 100, base: 0x8000_8000 });
    world.front.send('SET_VRING_ENABLE', state(0, 1));
    expect(await world.front.settle()).toEqual([]);
    expect(world.dataPath.attached.get(0)).toMatchObject({ layout: 'packed', size: 100, inOrder: true });
    expect(indices(0)).toEqual([0x8000, 0x8000]);
  });

  it('take their size before SET_FEATURES says that they are packed', async () => {
    world.front.send('SET_VRING_NUM', state(0, 3));
    world.front.send('SET_VRING_BASE', state(0, 0x8001));
    await world.negotiate(PACKED);
    await world.shareMemory();
    world.front.send('SET_VRING_ADDR', ringAddress(0, ringPlace(0)));
    world.front.send('SET_VRING_KICK', u64(0), [world.front.eventFd()]);
    world.front.send('SET_VRING_ENABLE', state(0, 1));
    expect(await world.front.settle()).toEqual([]);
    expect(world.dataPath.attached.get(0)).toMatchObject({ layout: 'packed', size: 3 });
    expect(indices(0)).toEqual([0x8001, 0x8001]);
  });

  it('give their base and take it back', async () => {
    await world.run(PACKED);
    words(0)[STATE_AVAIL_NEXT] = 0x0012;
    words(0)[STATE_USED_NEXT] = 0x0012;
    expect(await baseOf(0)).toEqual(state(0, 0x0012_0012));
    words(0).fill(0);
    world.sendRing(0, { base: 0x0012_0012 });
    await world.front.settle();
    expect(indices(0)).toEqual([0x0012, 0x0012]);
    // And without a base, where they stopped.
    words(0)[STATE_AVAIL_NEXT] = 0x80ff;
    words(0)[STATE_USED_NEXT] = 0x80ff;
    expect(await baseOf(0)).toEqual(state(0, 0x80ff_80ff));
    words(0).fill(0);
    world.front.send('SET_VRING_KICK', u64(0), [world.front.eventFd()]);
    await world.front.settle();
    expect(indices(0)).toEqual([0x80ff, 0x80ff]);
  });

  it('that were never heard of are answered with wrap counters 1, so that they begin right', async () => {
    await world.negotiate(PACKED);
    expect(await baseOf(3)).toEqual(state(3, 0x8000_8000));
  });

  it('become split rings that begin anew when the features say so, and back', async () => {
    await world.run(PACKED);
    words(0)[STATE_AVAIL_NEXT] = 0x8011;
    world.front.send('SET_FEATURES', u64(FEATURES));
    await world.front.settle();
    expect(world.dataPath.attached.get(0)).toMatchObject({ layout: 'split' });
    expect(indices(0)).toEqual([0, 0]);
    words(0)[STATE_AVAIL_NEXT] = 17;
    world.front.send('SET_FEATURES', u64(PACKED));
    await world.front.settle();
    expect(world.dataPath.attached.get(0)).toMatchObject({ layout: 'packed' });
    expect(indices(0)).toEqual([0x8000, 0x8000]);
    expect(world.dataPath.takeLog()).toEqual(
      ['detach', 'detach', 'attach', 'attach', 'detach', 'detach', 'attach', 'attach'].map(
        (order, i) => `${order} ${i % 2}`,
      ),
    );
  });

  it('that cannot stand where their base says are not looked through for messages about others', async () => {
    await world.run(PACKED);
    const flagsAt = ringOffsets(2).desc + 16 * 200 + 14;
    world.guest.write16(flagsAt, 0x8080);
    world.sendRing(2, { base: 0x8000_8000 });
    world.front.send('SET_VRING_ENABLE', state(2, 1));
    await world.front.settle();
    expect(world.ring(2).reason).toMatch(/must start it anew/);
    const looked = vi.spyOn(arenaView, 'word16At');
    world.front.send('SET_VRING_NUM', state(3, 256));
    world.front.send('SET_VRING_ENABLE', state(3, 1));
    await world.front.settle();
    expect(looked).not.toHaveBeenCalled();
    expect(world.ring(2).reason).toMatch(/must start it anew/);
    looked.mockRestore();
    // Its own messages, and another table, count.
    world.guest.write16(flagsAt, 0);
    await world.shareMemory();
    expect(world.ring(2)).toMatchObject({ reason: null, user: 'workers' });
  });

  it('are not negotiated when the port does not offer them', async () => {
    const other = new World({ features: { packed: false } });
    other.front.send('SET_FEATURES', u64(PACKED));
    expect(await other.ended).toMatch(/features 0x400000000 were not offered/);
    await other.dispose();
  });
});
