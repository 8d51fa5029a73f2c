/**
 * Single rings that are stopped and started anew while the others run (RING_RESET, VIRTIO 1.3, section 2.6.1), and the
 * stop that waits for nothing (GET_VRING_BASE_SKIP_DRAIN). Both are offered by configuration only.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { STATE_AVAIL_NEXT, STATE_FAULT, STATE_USED_NEXT } from '../../src/queue/state.ts';
import { RING_FAULT } from '../../src/vring/faults.ts';
import { bit, F, P, ringAddress, state, u64 } from '../vhost-user/scripted-front-end.ts';
import { FEATURES, PROTOCOL_FEATURES, ringOffsets, ringPlace, World } from './world.ts';

let world: World;
beforeEach(() => {
  world = new World({ features: { ringReset: true, skipDrain: true } });
});
afterEach(() => world.dispose());

const LAYOUTS = [
  { layout: 'split', more: 0n, base: 0, stood: 5, answered: 5 },
  { layout: 'packed', more: bit(F.PACKED), base: 0x8000_8000, stood: 0x8005, answered: 0x8005_8005 },
] as const;
const STOPS = ['GET_VRING_BASE', 'GET_VRING_BASE_SKIP_DRAIN'] as const;

describe.each(LAYOUTS)('a single $layout ring', ({ more, base, stood, answered }) => {
  async function run(): Promise<void> {
    await world.negotiate(FEATURES | bit(F.RING_RESET) | more, PROTOCOL_FEATURES | bit(P.SKIP_DRAIN));
    await world.shareMemory();
    for (const index of [0, 1, 2, 3]) {
      world.sendRing(index, { base });
      world.front.send('SET_VRING_ENABLE', state(index, 1));
    }
    expect(await world.front.settle()).toEqual([]);
    expect([...world.dataPath.attached.keys()]).toEqual([0, 1, 2, 3]);
    world.dataPath.takeLog();
  }

  it.each(STOPS)(
    'stops by %s, and comes back elsewhere and with another size, while the others run',
    async (stop) => {
      await run();
      const { front, dataPath } = world;
      const { words } = world.ring(1).state;
      for (const size of [64, 256, 16]) {
        words[STATE_AVAIL_NEXT] = stood;
        words[STATE_USED_NEXT] = stood;
        expect((await front.request(stop, state(1, 0))).payload).toEqual(state(1, answered));
        expect([...dataPath.attached.keys()].sort()).toEqual([0, 2, 3]);
        // The driver made it anew, at a place where no ring was.
        front.send('SET_VRING_NUM', state(1, size));
        front.send('SET_VRING_BASE', state(1, base));
        front.send('SET_VRING_ADDR', ringAddress(1, ringPlace(8)));
        front.send('SET_VRING_KICK', u64(1), [front.eventFd()]);
        expect(await front.settle()).toEqual([]);
        expect(dataPath.attached.get(1)).toMatchObject({ size });
        expect(words[STATE_AVAIL_NEXT]).toBe(base & 0xffff);
        expect(dataPath.takeLog()).toEqual(['detach 1', 'attach 1']);
      }
    },
  );

  it('is mended so when it had a fault', async () => {
    await run();
    const { words } = world.ring(1).state;
    words[STATE_FAULT] = RING_FAULT.BUFFER_ADDRESS;
    world.device.queueFailed(1);
    await world.front.request('GET_VRING_BASE', state(1, 0));
    world.sendRing(1, { base });
    expect(await world.front.settle()).toEqual([]);
    expect([words[STATE_FAULT], world.ring(1).reason]).toEqual([RING_FAULT.NONE, null]);
    expect(world.dataPath.takeLog()).toEqual(['detach 1', 'attach 1']);
  });
});

describe('GET_VRING_BASE_SKIP_DRAIN', () => {
  it('answers where the used ring stands only after the workers let go', async () => {
    await world.negotiate(FEATURES, PROTOCOL_FEATURES | bit(P.SKIP_DRAIN));
    await world.shareMemory();
    world.guest.write16(ringOffsets(0).used + 2, 9);
    world.sendRing(0, { base: 9 });
    world.front.send('SET_VRING_ENABLE', state(0, 1));
    await world.front.settle();
    const hold = world.dataPath.hold('detach');
    world.front.send('GET_VRING_BASE_SKIP_DRAIN', state(0, 0));
    await hold.called;
    expect(world.front.repliesNow()).toEqual([]);
    hold.release();
    const reply = await world.front.reply();
    expect([reply.request, reply.payload]).toEqual([45, state(0, 9)]);
  });

  it('names a ring that was never heard of, and none that is not there', async () => {
    await world.negotiate(FEATURES, PROTOCOL_FEATURES | bit(P.SKIP_DRAIN));
    expect((await world.front.request('GET_VRING_BASE_SKIP_DRAIN', state(3, 0))).payload).toEqual(
      state(3, 0),
    );
    world.front.send('GET_VRING_BASE_SKIP_DRAIN', state(70_000, 0));
    expect(await world.ended).toMatch(/^GET_VRING_BASE_SKIP_DRAIN: ring 70000 does not exist/);
  });
});
