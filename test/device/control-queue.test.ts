/**
 * The control virtqueue, driven as a driver does: every command, and how Ringway tells it from a receive queue
 * (no message says which ring it is). Malformed chains: control-chains.test.ts.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { COMMANDS_PER_TURN, ControlQueue } from '../../src/device/net/control-queue.ts';
import { drainFd } from '../../src/host/descriptor.ts';
import { EpollSet } from '../../src/host/epoll.ts';
import {
  COUNT_BYTES,
  COUNT_FRAMES,
  QueueState,
  STATE_AVAIL_NEXT,
  STATE_FAULT,
} from '../../src/queue/state.ts';
import type { GuestFile } from '../memory/guest-file.ts';
import { bit, F, NEED_REPLY, state, u64 } from '../vhost-user/scripted-front-end.ts';
import { ControlDriver, signalled } from './control-driver.ts';
import { arenaView, FEATURES, GUEST_BYTES, ringOffsets, World } from './world.ts';

const OK = 0;
const ERROR = 1;
const WRITE = 2;
const CONTROL_FEATURES = FEATURES | bit(F.CTRL_VQ, F.MQ, F.INDIRECT);

let world: World;
let control: ControlDriver;

/** A device of two pairs whose control queue, ring 4, runs. */
async function useControl(features = CONTROL_FEATURES): Promise<void> {
  world = new World({ queuePairsMax: 2 });
  await world.negotiate(features);
  await world.shareMemory();
  control = new ControlDriver(world, 4);
  await control.start();
  world.dataPath.takeLog();
}
afterEach(() => world.dispose());

const mac = (last: number): number[] => [0x52, 0x54, 0, 0, 0, last];
const le32 = (value: number): number[] => [
  value & 255,
  (value >> 8) & 255,
  (value >> 16) & 255,
  value >>> 24,
];

describe('commands', () => {
  beforeEach(() => useControl());

  it('are answered with one byte, used and signalled', async () => {
    expect(await control.command([0, 0], [1])).toBe(OK);
    expect(control.takeUsed()).toEqual([[0, 1]]);
    expect(world.ring(4)).toMatchObject({ user: 'control', reason: null });
    expect(world.device.directionOf(world.ring(4))).toBe('control');
    expect(world.dataPath.log).toEqual([]);
  });

  it.each([
    [0, 'promiscuous'],
    [1, 'allMulticast'],
    [2, 'allUnicast'],
    [3, 'noMulticast'],
    [4, 'noUnicast'],
    [5, 'noBroadcast'],
  ] as const)('of class RX, %i, set %s', async (code, field) => {
    expect(await control.command([0, code, 1])).toBe(OK);
    expect(world.net.receiveFilter[field]).toBe(true);
    expect(await control.command([0, code], [0])).toBe(OK);
    expect(world.net.receiveFilter[field]).toBe(false);
    expect(await control.command([0, code, 2])).toBe(ERROR);
    expect(await control.command([0, code])).toBe(ERROR);
    expect(world.net.receiveFilter[field]).toBe(false);
  });

  it('of class MAC set the address and the tables', async () => {
    const { receiveFilter } = world.net;
    expect(await control.command([1, 1], mac(9))).toBe(OK);
    expect([...receiveFilter.mac!]).toEqual(mac(9));
    expect(await control.command([1, 1], mac(8).slice(0, 5))).toBe(ERROR);
    expect([...receiveFilter.mac!]).toEqual(mac(9));
    const unicast = [...le32(2), ...mac(1), ...mac(2)];
    const multicast = [...le32(1), ...mac(3)];
    expect(await control.command([1, 0], unicast, multicast)).toBe(OK);
    expect(receiveFilter.unicastMacs.map((bytes) => [...bytes])).toEqual([mac(1), mac(2)]);
    expect(receiveFilter.multicastMacs.map((bytes) => [...bytes])).toEqual([mac(3)]);
    // What the guest does to its buffers later changes nothing.
    expect(await control.command([1, 0], le32(0), le32(0))).toBe(OK);
    expect([receiveFilter.unicastMacs, receiveFilter.multicastMacs]).toEqual([[], []]);
  });

  it.each([
    ['no table', []],
    ['half a count', [0, 0]],
    ['one table only', le32(0)],
    ['a count that is too large', [...le32(3), ...mac(1), ...mac(2), ...le32(0)]],
    ['a count of 2^32 - 1', [...le32(0xffff_ffff), ...mac(1)]],
    ['a second count of 2^32 - 1', [...le32(0), ...le32(0xffff_ffff), ...mac(1)]],
    ['a table cut short', [...le32(0), ...le32(1), ...mac(1).slice(0, 5)]],
  ])('of class MAC with %s are refused and change nothing', async (_what, data) => {
    expect(await control.command([1, 0], le32(1), mac(1), le32(0))).toBe(OK);
    expect(await control.command([1, 0], ...(data.length === 0 ? [] : [data]))).toBe(ERROR);
    expect(world.net.receiveFilter.unicastMacs).toHaveLength(1);
    expect(await control.command([1, 2], mac(1))).toBe(ERROR);
  });

  it('of class VLAN add and delete', async () => {
    const { vlans } = world.net.receiveFilter;
    expect(await control.command([2, 0], [0xff, 0x0f])).toBe(OK);
    expect(await control.command([2, 0], [1, 0])).toBe(OK);
    expect([...vlans]).toEqual([4095, 1]);
    expect(await control.command([2, 1], [0xff, 0x0f])).toBe(OK);
    expect([...vlans]).toEqual([1]);
    for (const bad of [[0, 0x10], [1]]) expect(await control.command([2, 0], bad)).toBe(ERROR);
    expect(await control.command([2, 2], [1, 0])).toBe(ERROR);
    expect([...vlans]).toEqual([1]);
  });

  it('of class ANNOUNCE are acknowledged', async () => {
    expect(await control.command([3, 0])).toBe(OK);
    expect(await control.command([3, 1])).toBe(ERROR);
  });

  it.each([
    [0, 0],
    [0, 3],
    [0, 0xffff],
    [1, 1],
    [2, 1],
  ])('of class MQ, %i, do not take %i pairs', async (code, pairs) => {
    expect(await control.command([4, code], [pairs & 255, pairs >> 8])).toBe(ERROR);
    expect(world.dataPath.log).toEqual([]);
  });

  it('that are unknown or empty are refused, and the queue goes on', async () => {
    for (const parts of [[[5, 0], [0]], [[6, 0]], [[255, 255]], [[0]], [[4, 0], [1]]]) {
      expect(await control.command(...parts)).toBe(ERROR);
    }
    const chain = control.commandChain([[]]);
    control.setChain(0, chain.descriptors);
    control.offer(0);
    const called = control.called();
    control.kick();
    await called;
    expect(world.guest.read(chain.answerGpa, 1)[0]).toBe(ERROR);
    expect(await control.command([3, 0])).toBe(OK);
  });

  it('may be cut into any parts, and lie in an indirect table', async () => {
    expect(await control.command([1], [0], le32(1).slice(0, 1), le32(1).slice(1), mac(7), le32(0))).toBe(OK);
    expect([...world.net.receiveFilter.unicastMacs[0]]).toEqual(mac(7));
    const { descriptors, answerGpa } = control.commandChain([
      [2, 0],
      [5, 0],
    ]);
    control.setChain(3, [control.indirect(descriptors)]);
    control.takeUsed();
    control.offer(3);
    const called = control.called();
    control.kick();
    await called;
    expect(world.guest.read(answerGpa, 1)[0]).toBe(OK);
    expect(control.takeUsed()).toEqual([[3, 1]]);
    expect([...world.net.receiveFilter.vlans]).toEqual([5]);
  });

  it('may be many at one kick, and wrap around the ring', async () => {
    for (let round = 0; round < 5; round++) {
      const answers: number[] = [];
      for (let i = 0; i < 7; i++) {
        const { descriptors, answerGpa } = control.commandChain([[2, 0, round * 7 + i, 0]]);
        control.setChain(2 * i, descriptors);
        control.offer(2 * i);
        answers.push(answerGpa);
      }
      const called = control.called();
      control.kick();
      await called;
      expect(answers.map((gpa) => world.guest.read(gpa, 1)[0])).toEqual([0, 0, 0, 0, 0, 0, 0]);
      expect(control.takeUsed().map(([head]) => head)).toEqual([0, 2, 4, 6, 8, 10, 12]);
    }
    expect(world.net.receiveFilter.vlans.size).toBe(35);
    expect(control.usedIndex).toBe(35);
  });

  it('ask to be kicked for the next one', async () => {
    expect(control.usedFlags).toBe(0);
    await control.command([3, 0]);
    expect(control.usedFlags).toBe(0);
  });

  it('that are 65,536 bytes long are taken', async () => {
    const macs = Array.from({ length: 10_920 }, (_, i) => [2, 0, 0, 0, i >> 8, i & 255]).flat();
    const command = [1, 0, ...le32(10_920), ...macs, ...le32(0)];
    command.push(...new Array<number>(65_536 - command.length).fill(0));
    expect(await control.command(command)).toBe(OK);
    expect(world.net.receiveFilter.unicastMacs).toHaveLength(10_920);
  });
});

describe('which ring it is', () => {
  /** Receive buffers, as a driver offers them before the ring is started. */
  function offerReceiveBuffers(index: number): void {
    const driver = new ControlDriver(world, index);
    for (let slot = 0; slot < 8; slot++) {
      driver.setDescriptor(slot, { gpa: 0x30_0000 + 2048 * slot, sizeBytes: 2048, flags: WRITE });
      driver.offer(slot);
    }
  }

  it('is told by no message: an even ring becomes a receive queue when its partner starts', async () => {
    world = new World();
    await world.negotiate(CONTROL_FEATURES);
    await world.shareMemory();
    await world.startRings(0, 1);
    const { dataPath, front } = world;
    dataPath.takeLog();
    offerReceiveBuffers(2);
    world.sendRing(2);
    front.send('SET_VRING_ENABLE', state(2, 1));
    await front.settle();
    expect(world.ring(2)).toMatchObject({ user: 'control', reason: null });
    expect(world.guest.read16(ringOffsets(2).used + 2)).toBe(0);
    world.sendRing(3);
    await front.settle();
    expect(dataPath.takeLog()).toEqual(['attach 2']);
    front.send('SET_VRING_ENABLE', state(3, 1));
    await front.settle();
    expect(dataPath.takeLog()).toEqual(['attach 3']);
    expect(dataPath.attached.get(2)).toMatchObject({ direction: 'egress' });
    expect(new Int32Array(world.states, 2 * 128, 16)[STATE_AVAIL_NEXT]).toBe(0);
    // And is one no more when the partner stops.
    await front.request('GET_VRING_BASE', state(3, 0));
    expect(dataPath.takeLog()).toEqual(['detach 3', 'detach 2']);
    expect(world.ring(2).user).toBe('control');
  });

  it('is none when CTRL_VQ was not negotiated', async () => {
    world = new World();
    await world.negotiate(FEATURES);
    await world.shareMemory();
    await world.startRings(2);
    expect(world.dataPath.attached.has(2)).toBe(true);
  });

  it('is never ring 0, nor an odd one', async () => {
    world = new World();
    await world.negotiate(CONTROL_FEATURES);
    await world.shareMemory();
    await world.startRings(0, 1, 3);
    expect([...world.dataPath.attached.keys()]).toEqual([0, 1, 3]);
  });

  it('is ring 2 for a front-end of one pair', async () => {
    world = new World({ queuePairsMax: 1 });
    await world.negotiate(FEATURES | bit(F.CTRL_VQ));
    await world.shareMemory();
    await world.startRings(0, 1);
    control = new ControlDriver(world, 2);
    await control.start();
    expect(await control.command([3, 0])).toBe(OK);
  });

  it('is served when its command was kicked before the ring was started', async () => {
    world = new World({ queuePairsMax: 1 });
    await world.negotiate(FEATURES | bit(F.CTRL_VQ));
    await world.shareMemory();
    control = new ControlDriver(world, 2);
    const { descriptors, answerGpa } = control.commandChain([[3, 0]]);
    control.setChain(0, descriptors);
    control.offer(0);
    await control.start();
    expect(world.guest.read(answerGpa, 1)[0]).toBe(OK);
  });

  it('is looked at without kicks when it has no kick descriptor', async () => {
    world = new World({ queuePairsMax: 1 });
    await world.negotiate(FEATURES | bit(F.CTRL_VQ));
    await world.shareMemory();
    control = new ControlDriver(world, 2);
    await control.start({ polled: true });
    expect(await control.command([3, 0])).toBe(OK);
  });

  it('signals once when its call is swapped, and then only the new descriptor', async () => {
    await useControl();
    const epoll = new EpollSet();
    const fd = world.front.eventFd();
    drainFd(control.callFd);
    for (const each of [fd, control.callFd]) epoll.add(each);
    world.front.send('SET_VRING_CALL', u64(4), [fd]);
    await world.front.settle();
    expect([epoll.wait(0), epoll.readyFd(0)]).toEqual([1, fd]);
    drainFd(fd);
    control.setChain(0, control.commandChain([[3, 0]]).descriptors);
    control.offer(0);
    const called = signalled(fd);
    control.kick();
    await called;
    expect(epoll.wait(0)).toBe(0);
    expect(control.usedIndex).toBe(1);
    expect(world.dataPath.log).toEqual([]);
    epoll.close();
  });
});

describe('the number of pairs', () => {
  const attached = (): number[] => [...world.dataPath.attached.keys()].sort();

  it('decides which rings are attached, as far as the front-end enabled them', async () => {
    await useControl();
    const { front } = world;
    await world.startRings(0, 1, 2, 3);
    front.send('SET_VRING_ENABLE', state(3, 0));
    await front.settle();
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
    await useControl();
    await world.startRings(0, 1, 2, 3);
    const hold = world.dataPath.hold('detach');
    const answer = control.command([4, 0], [1, 0]);
    await hold.called;
    for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
    expect(control.usedIndex).toBe(0);
    hold.release();
    expect(await answer).toBe(OK);
    expect(attached()).toEqual([0, 1]);
  });

  it('that comes while a message waits for the workers waits too', async () => {
    await useControl();
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

  it.each([
    ['GET_VRING_BASE stops the control queue', () => world.front.send('GET_VRING_BASE', state(4, 0))],
    ['the control queue is disabled', () => world.front.send('SET_VRING_ENABLE', state(4, 0))],
    ['features are set anew', () => world.front.send('SET_FEATURES', u64(CONTROL_FEATURES))],
  ])('is forgotten when %s: the driver was reset', async (_what, reset) => {
    await useControl();
    await world.startRings(0, 1, 2, 3);
    expect(await control.command([4, 0], [1, 0])).toBe(OK);
    // New memory alone forgets nothing, although the queue is opened anew.
    await world.shareMemory();
    expect(attached()).toEqual([0, 1]);
    reset();
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
        kickFd: -1,
        callFd: -1,
        states: world.states,
        map: [{ start: 0, end: GUEST_BYTES, arenaOffset }],
      },
      { commands: { execute }, onFault: () => {} },
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
