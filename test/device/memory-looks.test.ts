/** How often a device looks at how its front-end maps the memory, whose text may be long: /proc/PID/maps. */
import { afterEach, expect, it, vi } from 'vitest';
import { mapsPrivately } from '../../src/memory/sharing.ts';
import { UVA_BASE } from '../memory/guest-file.ts';
import { region } from '../vhost-user/scripted-front-end.ts';
import { World } from './world.ts';

vi.mock('../../src/memory/sharing.ts', () => ({ mapsPrivately: vi.fn() }));

let world: World;
afterEach(() => world.dispose());

it('one look at a time, waited for by no message, however many regions come meanwhile', async () => {
  const looks = vi.mocked(mapsPrivately);
  const first = Promise.withResolvers<boolean>();
  looks.mockImplementationOnce(() => first.promise).mockImplementation(async () => true);
  world = new World({}, process.pid);
  await world.negotiate();
  const { front, guest } = world;
  for (let i = 0; i < 300; i++) {
    const at = BigInt(i * 4096);
    const page = { gpa: at, uva: UVA_BASE + at, sizeBytes: 4096n, mmapOffset: at };
    expect(await front.ack('ADD_MEM_REG', region(page), [guest.fd])).toBe(0n);
  }
  expect(looks).toHaveBeenCalledTimes(1);
  const changes = world.changes;
  first.resolve(false);
  await world.device.memoryLooked();
  expect(looks).toHaveBeenCalledTimes(2);
  expect(looks.mock.lastCall![1]).toHaveLength(300);
  expect(world.changes).toBe(changes + 1);
  expect(world.device.memoryWarning).toMatch(/share=on/);
});

it('a look is broken off when the front-end is gone, and says nothing', async () => {
  const looks = vi.mocked(mapsPrivately);
  const held = Promise.withResolvers<boolean>();
  looks.mockImplementationOnce((_pid, _files, signal) => {
    signal.addEventListener('abort', () => held.resolve(true));
    return held.promise;
  });
  world = new World({}, process.pid);
  await world.negotiate();
  expect(await world.addMemory()).toBe(0n);
  world.front.close();
  await world.ended;
  const changes = world.changes;
  await world.net.release();
  expect([world.changes, world.device.memoryWarning]).toEqual([changes, null]);
});
