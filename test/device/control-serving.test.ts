/**
 * How the control virtqueue is served: the number of pairs that its driver chooses, and what one turn of the event
 * loop may take. Its commands: control-queue.test.ts.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { COMMANDS_PER_TURN, ControlQueue } from '../../src/device/net/control-queue.ts';
import {
  COUNT_BYTES,
  COUNT_FRAMES,
  QueueState,
  STATE_AVAIL_NEXT,
  STATE_FAULT,
} from '../../src/queue/state.ts';
import type { GuestFile } from '../memory/guest-file.ts';
import { bit, F, NEED_REPLY, region, state, u64 } from '../vhost-user/scripted-front-end.ts';
import { ControlDriver } from './control-driver.ts';
import { arenaView, FEATURES, GUEST_BYTES, ringOffsets, World } from './world.ts';

const OK = 0;
const CONTROL_FEATURES = FEATURES | bit(F.CTRL_VQ, F.MQ, F.INDIRECT);

let world: World;
let control: ControlDriver;

/** A device of two pairs whose control queue, ring 4, runs; its driver says that it uses `pairs` (1: it says nothing). */
async function useControl(pairs = 1): Promise<void> {
  world = new World({ queuePairsMax: 2 });
  await world.negotiate(CONTROL_FEATURES);
  await world.shareMemory();
  control = new ControlDriver(world, 4);
  await control.start();
  if (pairs > 1) expect(await control.command([4, 0], [pairs, 0])).toBe(OK);
}
afterEach(() => world.dispose());

describe('the number of pairs', () => {
  const attached = (): number[] => [...world.dataPath.attached.keys()].sort();

  it('decides which rings are attached, as far as the front-end enabled them', async () => {
    await useControl();
    const { front } = world;
    await world.startRings(0, 1, 2, 3);
    front.send('SET_VRING_ENABLE', state(3, 0));
    await front.settle();
    // One pair until the driver says otherwise.
    expect(attached()).toEqual([0, 1]);
    expect(await control.command([4, 0], [2, 0])).toBe(OK);
    expect(attached()).toEqual([0, 1, 2]);
    expect(await control.command([4, 0], [1, 0])).toBe(OK);
    expect(attached()).toEqual([0, 1]);
    expect(world.ring(2)).toMatchObject({ started: true, enabled: true, reason: null });
    expect(await control.command([4, 0], [2, 0])).toBe(OK);
    expect(attached()).toEqual([0, 1, 2]);
    front.send('SET_VRING_ENABLE', state(3, 1));
    await front.settle();
    expect(attached()).toEqual([0, 1, 2, 3]);
  });

  it('counts for rings that are started or enabled later', async () => {
    await useControl();
    expect(await control.command([4, 0], [1, 0])).toBe(OK);
    await world.startRings(0, 1, 2, 3);
    expect(attached()).toEqual([0, 1]);
    world.front.send('SET_VRING_ENABLE', state(2, 1));
    await world.shareMemory();
    expect(attached()).toEqual([0, 1]);
  });

  it('is answered only after the workers let go', async () => {
    await useControl(2);
    await world.startRings(0, 1, 2, 3);
    const hold = world.dataPath.hold('detach');
    const answer = control.command([4, 0], [1, 0]);
    await hold.called;
    for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
    expect(control.usedIndex).toBe(1);
    hold.release();
    expect(await answer).toBe(OK);
    expect(attached()).toEqual([0, 1]);
  });

  it('that comes while a message waits for the workers waits too', async () => {
    await useControl(2);
    await world.startRings(0, 1, 2, 3);
    const { front, dataPath } = world;
    const hold = dataPath.hold('detach');
    front.send('SET_VRING_ENABLE', state(2, 0), [], NEED_REPLY);
    await hold.called;
    const answer = control.command([4, 0], [1, 0]);
    for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
    hold.release();
    expect((await front.reply()).u64).toBe(0n);
    expect(await answer).toBe(OK);
    dataPath.expectSound();
    expect(attached()).toEqual([0, 1]);
  });

  it('is forgotten when features are set anew: the driver was reset', async () => {
    await useControl(2);
    await world.startRings(0, 1, 2, 3);
    expect(await control.command([4, 0], [1, 0])).toBe(OK);
    // New memory alone forgets nothing, although the queue is opened anew.
    await world.addMemory({ gpa: 1n << 32n, uva: 1n << 32n });
    expect(
      await world.front.ack('REM_MEM_REG', region(world.guest.region({ gpa: 1n << 32n, uva: 1n << 32n }))),
    ).toBe(0n);
    expect(attached()).toEqual([0, 1]);
    world.front.send('SET_FEATURES', u64(CONTROL_FEATURES));
    await world.front.settle();
    expect(attached()).toEqual([0, 1, 2, 3]);
  });

  it.each([
    ['GET_VRING_BASE', () => world.front.send('GET_VRING_BASE', state(4, 0))],
    ['being disabled', () => world.front.send('SET_VRING_ENABLE', state(4, 0))],
  ])('outlives a pause of the control queue by %s, but not its start from nothing', async (_what, pause) => {
    await useControl(2);
    await world.startRings(0, 1, 2, 3);
    pause();
    await world.front.settle();
    expect(attached()).toEqual([0, 1, 2, 3]);
    world.sendRing(4, { base: 1 });
    world.front.send('SET_VRING_ENABLE', state(4, 1));
    await world.front.settle();
    expect(attached()).toEqual([0, 1, 2, 3]);
    pause();
    world.guest.write16(ringOffsets(4).used + 2, 0);
    world.guest.write16(ringOffsets(4).avail + 2, 0);
    world.sendRing(4, { base: 0 });
    world.front.send('SET_VRING_ENABLE', state(4, 1));
    await world.front.settle();
    expect(attached()).toEqual([0, 1]);
  });

  it('is not taken from a receive queue that was started before its partner', async () => {
    world = new World({ queuePairsMax: 2 });
    await world.negotiate(CONTROL_FEATURES);
    await world.shareMemory();
    for (const index of [0, 1, 2]) {
      await world.startRings(index);
      if (index === 2) expect(world.ring(2).user).toBe('control');
    }
    world.front.send('SET_VRING_ENABLE', state(2, 0));
    await world.startRings(3);
    world.front.send('SET_VRING_ENABLE', state(2, 1));
    await world.front.settle();
    expect(attached()).toEqual([0, 1, 2, 3]);
  });
});

describe('a queue', () => {
  /** A queue of its own over the guest's memory, whose commands do what `execute` says. */
  function openQueue(size: number, execute: (command: Uint8Array) => number | Promise<number>): ControlQueue {
    const arenaOffset = memoryOffset(world.guest);
    const { desc, avail, used } = ringOffsets(4);
    return new ControlQueue(
      arenaView,
      {
        kind: 'ring',
        layout: 'split',
        portId: 7,
        queueIndex: 4,
        direction: 'egress',
        size,
        descOffset: arenaOffset + desc,
        driverOffset: arenaOffset + avail,
        deviceOffset: arenaOffset + used,
        eventIdx: false,
        indirect: true,
        inOrder: false,
        mergeable: false,
        headerBytes: 12,
        asks: 0,
        kickFd: -1,
        callFd: -1,
        states: world.states,
        map: [{ start: 0, end: GUEST_BYTES, arenaOffset }],
        log: null,
      },
      { commands: { execute }, onFault: () => {}, onMiss: () => {} },
    );
  }

  /** Offers commands that lie in one indirect table, as often as wanted. */
  function offerCommands(
    driver: ControlDriver,
    count: number,
    bytes: readonly number[] = [4, 0, 1, 0],
  ): void {
    const { descriptors } = driver.commandChain([bytes]);
    driver.setChain(0, [driver.indirect(descriptors)]);
    for (let i = 0; i < count; i++) driver.offer(0);
  }

  beforeEach(async () => {
    world = new World();
    await world.negotiate(CONTROL_FEATURES);
    await world.shareMemory();
  });

  it('touches nothing after it was closed, also when a command was being carried out', async () => {
    offerCommands(new ControlDriver(world, 4, 2), 2);
    const { used } = ringOffsets(4);
    const answer = Promise.withResolvers<number>();
    let begun = 0;
    const queue = openQueue(2, () => {
      begun++;
      return answer.promise;
    });
    expect(begun).toBe(1);
    queue.close();
    const words = new Int32Array(world.states, 4 * 128, 16);
    words[STATE_AVAIL_NEXT] = 1234;
    world.guest.write(used, new Array<number>(22).fill(0x77));
    answer.resolve(OK);
    for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
    expect(begun).toBe(1);
    expect(world.guest.read(used, 22)).toEqual(new Uint8Array(22).fill(0x77));
    expect([words[STATE_AVAIL_NEXT], words[STATE_FAULT]]).toEqual([1234, 0]);
  });

  it('gives the event loop its turn after so many commands', async () => {
    const size = 1024;
    offerCommands(new ControlDriver(world, 4, size), size);
    let done = 0;
    const queue = openQueue(size, () => {
      done++;
      return OK;
    });
    const doneAtTurns: number[] = [];
    while (done < size) {
      await new Promise(setImmediate);
      doneAtTurns.push(done);
    }
    const steps = doneAtTurns.map((count, i) => count - (doneAtTurns[i - 1] ?? 0));
    expect(Math.max(...steps)).toBeLessThanOrEqual(2 * COMMANDS_PER_TURN);
    expect(doneAtTurns.length).toBeGreaterThan(size / COMMANDS_PER_TURN / 2);
    queue.close();
  });

  it('gives the event loop its turn after so many bytes', async () => {
    const size = 32;
    const command = [1, 0, ...new Array<number>(65_534).fill(0)];
    offerCommands(new ControlDriver(world, 4, size), size, command);
    let done = 0;
    const queue = openQueue(size, () => {
      done++;
      return OK;
    });
    await new Promise(setImmediate);
    expect(done).toBeGreaterThan(0);
    expect(done).toBeLessThanOrEqual(8);
    while (done < size) await new Promise(setImmediate);
    queue.close();
  });

  it('gives the event loop its turn when commands take long, after one at least', async () => {
    const size = 16;
    offerCommands(new ControlDriver(world, 4, size), size);
    let done = 0;
    let nowMs = performance.now();
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => nowMs);
    const queue = openQueue(size, () => {
      done++;
      nowMs += 100;
      return OK;
    });
    for (let before = 0; done < size; before = done) {
      await new Promise(setImmediate);
      // A turn of the loop may end one of the queue's turns and begin the next.
      expect(done - before).toBeLessThanOrEqual(2);
      expect(done).toBeGreaterThan(before);
    }
    clock.mockRestore();
    queue.close();
  });

  it('counts no frames', async () => {
    offerCommands(new ControlDriver(world, 4, 16), 7);
    let done = 0;
    const queue = openQueue(16, () => {
      done++;
      return OK;
    });
    while (done < 7) await new Promise(setImmediate);
    await new Promise(setImmediate);
    const { counts, words } = new QueueState(world.states, 4);
    expect([counts[COUNT_FRAMES], counts[COUNT_BYTES], words[STATE_AVAIL_NEXT]]).toEqual([0, 0, 7]);
    queue.close();
  });
});

/** Where the guest's file lies in the arena: a mark is written to the file and looked for. */
function memoryOffset(guest: GuestFile): number {
  const mark = [0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4];
  guest.write(0, mark);
  for (let offset = 0; offset < 2 ** 30; offset += 2 ** 21) {
    if (mark.every((byte, i) => arenaView.u8[offset + i] === byte)) return offset;
  }
  throw new Error('the guest is not mapped');
}
