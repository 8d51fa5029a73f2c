/** Malformed chains on the control virtqueue: each stops the queue with its reason, and nothing else. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { drainFd } from '../../src/host/descriptor.ts';
import { CHAIN_DESCRIPTORS_MAX } from '../../src/vring/descriptor-list.ts';
import { faultMessage, RING_FAULT } from '../../src/vring/faults.ts';
import { bit, F, state } from '../vhost-user/scripted-front-end.ts';
import { Random } from '../vring/random.ts';
import { ControlDriver, type Descriptor, UNANSWERED } from './control-driver.ts';
import { FEATURES, GUEST_BYTES, ringOffsets, World } from './world.ts';

const OK = 0;
const WRITE = 2;

let world: World;
let control: ControlDriver;

/** A device of two pairs whose control queue, ring 4, runs. */
async function useControl(features = FEATURES | bit(F.CTRL_VQ, F.INDIRECT)): Promise<void> {
  world = new World({ queuePairsMax: 2 });
  await world.negotiate(features);
  await world.shareMemory();
  control = new ControlDriver(world, 4);
  await control.start();
}
afterEach(() => world.dispose());

describe('chains', () => {
  beforeEach(() => useControl());

  const good = (): Omit<Descriptor, 'next'> => ({ ...control.buffer([3, 0]), flags: 0 });
  const answer = (): Omit<Descriptor, 'next'> => ({ ...control.buffer([UNANSWERED]), flags: WRITE });
  const BAD: readonly [string, number, () => number][] = [
    [
      'a command outside the memory',
      RING_FAULT.BUFFER_ADDRESS,
      () => {
        control.setChain(0, [{ gpa: GUEST_BYTES - 1, sizeBytes: 2, flags: 0 }, answer()]);
        return 0;
      },
    ],
    [
      'a command at an address over 64 bits',
      RING_FAULT.BUFFER_ADDRESS,
      () => {
        control.setChain(0, [{ gpa: 2n ** 64n - 1n, sizeBytes: 2, flags: 0 }, answer()]);
        return 0;
      },
    ],
    [
      'an empty part at the end of memory',
      RING_FAULT.BUFFER_ADDRESS,
      () => {
        control.setChain(0, [good(), { gpa: GUEST_BYTES, sizeBytes: 0, flags: 0 }, answer()]);
        return 0;
      },
    ],
    [
      'an empty part outside the memory',
      RING_FAULT.BUFFER_ADDRESS,
      () => {
        control.setChain(0, [good(), { gpa: 2n ** 40n, sizeBytes: 0, flags: 0 }, answer()]);
        return 0;
      },
    ],
    [
      'an answer outside the memory',
      RING_FAULT.BUFFER_ADDRESS,
      () => {
        control.setChain(0, [good(), { gpa: GUEST_BYTES, sizeBytes: 1, flags: WRITE }]);
        return 0;
      },
    ],
    [
      'no answer',
      RING_FAULT.COMMAND_WITHOUT_ANSWER,
      () => {
        control.setChain(0, [good()]);
        return 0;
      },
    ],
    [
      'an answer of no bytes',
      RING_FAULT.COMMAND_WITHOUT_ANSWER,
      () => {
        control.setChain(0, [good(), { ...answer(), sizeBytes: 0 }]);
        return 0;
      },
    ],
    [
      'a readable buffer behind the answer',
      RING_FAULT.COMMAND_WITHOUT_ANSWER,
      () => {
        control.setChain(0, [good(), answer(), good()]);
        return 0;
      },
    ],
    [
      'a command of 65,537 bytes',
      RING_FAULT.COMMAND_TOO_LONG,
      () => {
        control.setChain(0, [good(), { gpa: 0, sizeBytes: 65_535, flags: 0 }, answer()]);
        return 0;
      },
    ],
    [
      'a command of 4 GiB',
      RING_FAULT.COMMAND_TOO_LONG,
      () => {
        control.setChain(0, [{ gpa: 0, sizeBytes: 0xffff_ffff, flags: 0 }, answer()]);
        return 0;
      },
    ],
    ['a head outside the table', RING_FAULT.HEAD_OUT_OF_RANGE, () => 16],
    [
      'a next outside the table',
      RING_FAULT.NEXT_OUT_OF_RANGE,
      () => {
        control.setDescriptor(0, { ...good(), flags: 1, next: 16 });
        return 0;
      },
    ],
    [
      'a loop',
      RING_FAULT.CHAIN_LOOP,
      () => {
        control.setDescriptor(0, { ...good(), flags: 1, next: 1 });
        control.setDescriptor(1, { ...good(), flags: 1, next: 0 });
        return 0;
      },
    ],
    [
      'more descriptors than a chain may have',
      RING_FAULT.CHAIN_TOO_LONG,
      () => {
        const parts = Array.from({ length: CHAIN_DESCRIPTORS_MAX }, () => ({ ...good(), sizeBytes: 0 }));
        control.setChain(0, [control.indirect([...parts, answer()])]);
        return 0;
      },
    ],
    [
      'an indirect table of no whole descriptors',
      RING_FAULT.INDIRECT_LENGTH,
      () => {
        control.setChain(0, [{ ...control.indirect([good(), answer()]), sizeBytes: 31 }]);
        return 0;
      },
    ],
    [
      'an indirect table outside the memory',
      RING_FAULT.INDIRECT_ADDRESS,
      () => {
        control.setChain(0, [{ gpa: GUEST_BYTES - 16, sizeBytes: 32, flags: 4 }]);
        return 0;
      },
    ],
    [
      'an indirect table in an indirect table',
      RING_FAULT.INDIRECT_NESTED,
      () => {
        control.setChain(0, [control.indirect([control.indirect([good(), answer()])])]);
        return 0;
      },
    ],
  ];

  it.each(BAD)('with %s stop the queue', async (_what, fault, prepare) => {
    // One good command first, which leaves the translator with a range that it remembers.
    expect(await control.command([3, 0])).toBe(OK);
    const usedBefore = control.usedIndex;
    control.offer(prepare());
    const failed = control.failed();
    control.kick();
    await failed;
    expect(world.ring(4).reason).toBe(faultMessage(fault));
    expect(world.ring(4).fault).toBe(fault);
    expect(control.usedIndex).toBe(usedBefore);
    // It stays stopped, ends nothing else, and starts anew after GET_VRING_BASE.
    control.kick();
    expect(await world.front.settle()).toEqual([]);
    await world.front.request('GET_VRING_BASE', state(4, 0));
    expect(world.ring(4).reason).toBeNull();
  });

  it('that do not come but are announced stop the queue', async () => {
    control.setAvailIndex(17);
    const failed = control.failed();
    control.kick();
    await failed;
    expect(world.ring(4).reason).toBe(faultMessage(RING_FAULT.AVAIL_JUMP));
  });

  it('without INDIRECT_DESC may not be indirect', async () => {
    await world.dispose();
    await useControl(FEATURES | bit(F.CTRL_VQ));
    control.setChain(0, [control.indirect([good(), answer()])]);
    control.offer(0);
    const failed = control.failed();
    control.kick();
    await failed;
    expect(world.ring(4).reason).toBe(faultMessage(RING_FAULT.INDIRECT_NOT_NEGOTIATED));
  });

  it('of random bytes never do more than stop the queue (seeded)', async () => {
    for (let seed = 0; seed < 60; seed++) {
      const random = new Random(seed);
      const { desc, avail } = ringOffsets(4);
      world.guest.write(desc, random.bytes(16 * 16));
      for (let slot = 0; slot < 16; slot++) {
        if (random.chance(30)) continue;
        const descriptor = {
          gpa: random.pick([0, GUEST_BYTES - 8, GUEST_BYTES, 0x20_0000 + random.between(0, 4000)]),
          sizeBytes: random.pick([0, 1, 2, 6, 32, 64, 65_536, 0xffff_fff0]),
          flags: random.between(0, 7),
          next: random.between(0, 17),
        };
        control.setDescriptor(slot, descriptor);
      }
      world.guest.write(avail + 4, Array.from({ length: 16 }, () => [random.between(0, 16), 0]).flat());
      control.setAvailIndex(random.between(0, 17));
      control.kick();
      expect(await world.front.settle()).toEqual([]);
      await world.front.request('GET_VRING_BASE', state(4, 0));
      expect(await world.front.settle()).toEqual([]);
      await control.start();
      drainFd(control.callFd);
      drainFd(control.errorFd);
      control.setAvailIndex(0);
    }
  });
});
