/** The error descriptor (SET_VRING_ERR): signalled once for each time that a ring stands still and should not. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createEventFd, drainFd } from '../../src/host/descriptor.ts';
import { STATE_FAULT } from '../../src/queue/state.ts';
import { RING_FAULT } from '../../src/vring/faults.ts';
import { bit, F, region, ringAddress, state, u64 } from '../vhost-user/scripted-front-end.ts';
import { FEATURES, ringPlace, World } from './world.ts';

let world: World;
let error: number;
beforeEach(async () => {
  world = new World();
  error = world.front.own(createEventFd());
});
afterEach(() => world.dispose());

async function withErrorFd(index: number): Promise<void> {
  world.front.send('SET_VRING_ERR', u64(index), [error]);
  expect(await world.front.settle()).toEqual([]);
}

function failRing(index: number): void {
  world.ring(index).state.words[STATE_FAULT] = RING_FAULT.CHAIN_LOOP;
  world.device.queueFailed(index);
}

describe('the error descriptor is signalled', () => {
  it('when a driver broke its ring', async () => {
    await world.run();
    await withErrorFd(1);
    expect(drainFd(error)).toBe(false);
    failRing(1);
    expect(drainFd(error)).toBe(true);
  });

  it('when it comes after that', async () => {
    await world.run();
    failRing(1);
    await withErrorFd(1);
    expect(drainFd(error)).toBe(true);
  });

  it('when the memory goes in which the ring lies, and not again for what has nothing to do with it', async () => {
    await world.negotiate();
    expect(await world.addMemory()).toBe(0n);
    await world.startRings(0, 1);
    await withErrorFd(1);
    expect(await world.front.ack('REM_MEM_REG', region(world.guest.region()))).toBe(0n);
    expect(world.ring(1).reason).not.toBeNull();
    expect(drainFd(error)).toBe(true);
    world.front.send('SET_VRING_ENABLE', state(0, 0));
    await world.front.settle();
    expect(drainFd(error)).toBe(false);
    expect(await world.addMemory()).toBe(0n);
    expect(world.ring(1).reason).toBeNull();
    expect(drainFd(error)).toBe(false);
  });

  it.each([
    ['a size that its layout does not have', { size: 3 }],
    ['a base that no ring has', { base: 0x1_0000 }],
    ['addresses outside the memory', { uva: 0x1000n }],
  ])('when a ring is started with %s', async (_, wrong) => {
    await world.negotiate();
    await world.shareMemory();
    await withErrorFd(1);
    world.sendRing(1, wrong);
    world.front.send('SET_VRING_ENABLE', state(1, 1));
    await world.front.settle();
    expect(world.ring(1).reason).not.toBeNull();
    expect(drainFd(error)).toBe(true);
    await world.startRings(1);
    expect(drainFd(error)).toBe(false);
  });

  it('when a packed ring was used beyond its base', async () => {
    await world.negotiate(FEATURES | bit(F.PACKED));
    await world.shareMemory();
    await withErrorFd(1);
    world.guest.write16(Number(ringPlace(1).descUva - ringPlace(0).descUva) + 0x10_0000 + 14, 0x8080);
    world.sendRing(1, { base: 0x8000_8000 });
    world.front.send('SET_VRING_ENABLE', state(1, 1));
    await world.front.settle();
    expect(world.ring(1).reason).toMatch(/^its base names position 0/);
    expect(drainFd(error)).toBe(true);
  });
});

describe('the error descriptor is left alone', () => {
  it('while a front-end has not said all of a ring, in whatever order it does', async () => {
    await world.negotiate();
    await world.shareMemory();
    await withErrorFd(1);
    const { front } = world;
    front.send('SET_VRING_ENABLE', state(1, 1));
    front.send('SET_VRING_KICK', u64(1), [front.eventFd()]);
    front.send('SET_VRING_BASE', state(1, 0));
    front.send('SET_VRING_NUM', state(1, 256));
    await front.settle();
    expect(world.ring(1).reason).toBe('started before its size and addresses were set');
    front.send('SET_VRING_ADDR', ringAddress(1, ringPlace(1)));
    // As User-Mode Linux does when it begins anew: the base before the addresses.
    front.send('SET_VRING_BASE', state(1, 0));
    await front.settle();
    expect(world.ring(1).reason).toBe('its base was set anew, but not its addresses');
    front.send('SET_VRING_ADDR', ringAddress(1, ringPlace(1)));
    await front.settle();
    expect(world.ring(1).reason).toBeNull();
    expect(drainFd(error)).toBe(false);
  });

  it('when the front-end stops or disables a ring, and when it goes', async () => {
    await world.run();
    await withErrorFd(1);
    world.front.send('SET_VRING_ENABLE', state(1, 0));
    await world.front.request('GET_VRING_BASE', state(1, 0));
    expect(drainFd(error)).toBe(false);
  });
});
