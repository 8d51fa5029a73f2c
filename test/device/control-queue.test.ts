/**
 * The control virtqueue, driven as a driver does: every command, and how Ringway tells it from a receive queue
 * (no message says which ring it is). Malformed chains: control-chains.test.ts; turns and pairs:
 * control-serving.test.ts.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { drainFd } from '../../src/host/descriptor.ts';
import { EpollSet } from '../../src/host/epoll.ts';
import { OFFLOAD_CHECKSUM, OFFLOAD_TSO4, OFFLOAD_TSO6, OFFLOAD_UNCOMMON } from '../../src/queue/requests.ts';
import { STATE_AVAIL_NEXT } from '../../src/queue/state.ts';
import { bit, F, state, u64 } from '../vhost-user/scripted-front-end.ts';
import { ControlDriver, signalled } from './control-driver.ts';
import { FEATURES, ringOffsets, World } from './world.ts';

const OK = 0;
const ERROR = 1;
const WRITE = 2;
/** What comes with any segmentation. */
const SEGMENTS = OFFLOAD_CHECKSUM | OFFLOAD_UNCOMMON;
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
    expect([...receiveFilter.unicastMacs]).toEqual([...mac(1), ...mac(2)]);
    expect([...receiveFilter.multicastMacs]).toEqual(mac(3));
    // What the guest does to its buffers later changes nothing.
    expect(await control.command([1, 0], le32(0), le32(0))).toBe(OK);
    expect([receiveFilter.unicastMacs.length, receiveFilter.multicastMacs.length]).toEqual([0, 0]);
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
    expect(world.net.receiveFilter.unicastMacs).toHaveLength(6);
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
    expect([...world.net.receiveFilter.unicastMacs]).toEqual(mac(7));
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

  it('of class GUEST_OFFLOADS change what is handed to the guest, within what was agreed on', async () => {
    const offload = (...bits: number[]): number[] => {
      const word = new DataView(new ArrayBuffer(8));
      word.setBigUint64(0, bit(...bits), true);
      return [...new Uint8Array(word.buffer)];
    };
    await world.dispose();
    await useControl(CONTROL_FEATURES | bit(1, 2, 7, 8));
    expect(world.dataPath.takes).toBe(SEGMENTS | OFFLOAD_TSO4 | OFFLOAD_TSO6);
    expect(await control.command([5, 0, ...offload(1, 7)])).toBe(OK);
    expect(world.dataPath.takes).toBe(SEGMENTS | OFFLOAD_TSO4);
    expect(await control.command([5, 0, ...offload(7)])).toBe(OK);
    expect(world.dataPath.takes).toBe(0);
    expect(await control.command([5, 0, ...offload(1, 9)])).toBe(ERROR);
    expect(await control.command([5, 1, ...offload(1)])).toBe(ERROR);
    expect(await control.command([5, 0, 2, 0, 0, 0, 0, 0, 0])).toBe(ERROR);
    expect(world.dataPath.takes).toBe(0);
    // A driver that begins anew has what it agreed on.
    world.front.send('SET_FEATURES', u64(CONTROL_FEATURES | bit(1, 2, 8)));
    await world.front.settle();
    expect(world.dataPath.takes).toBe(SEGMENTS | OFFLOAD_TSO6);
  });

  it('that are 65,536 bytes long are taken', async () => {
    const macs = Array.from({ length: 10_920 }, (_, i) => [2, 0, 0, 0, i >> 8, i & 255]).flat();
    const command = [1, 0, ...le32(10_920), ...macs, ...le32(0)];
    command.push(...new Array<number>(65_536 - command.length).fill(0));
    expect(await control.command(command)).toBe(OK);
    expect(world.net.receiveFilter.unicastMacs).toHaveLength(6 * 10_920);
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
