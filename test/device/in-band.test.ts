/**
 * INBAND_NOTIFICATIONS: a front-end that kicks by message and wants to be told by message, over the channel that it hands
 * over, of used buffers and of rings that stand still; also one that does not read, does not answer, or hangs up.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { closeFd, createEventFd, drainFd, setSocketOption, signalFd } from '../../src/host/descriptor.ts';
import { socketPair } from '../../src/host/unix-socket.ts';
import { STATE_FAULT } from '../../src/queue/state.ts';
import { RING_FAULT } from '../../src/vring/faults.ts';
import {
  bit,
  message,
  none,
  P,
  type Reply,
  ringAddress,
  ScriptedFrontEnd,
  state,
  u64,
} from '../vhost-user/scripted-front-end.ts';
import { FEATURES, PROTOCOL_FEATURES, ringPlace, World } from './world.ts';

const PROTOCOL = PROTOCOL_FEATURES | bit(P.BACKEND_REQ, P.IN_BAND);
const [CALL, ERR] = [4, 5];
const REPLY = 4;

let world: World;
/** The front-end's ends of the channels that it handed over. */
let channels: ScriptedFrontEnd[];
beforeEach(() => {
  world = new World({ features: { inBand: true } });
  channels = [];
});
afterEach(async () => {
  for (const channel of channels) channel.close();
  await world.dispose();
});

/** Hands a channel over; `prepare` gets the end that goes. */
async function handOver(prepare: (theirs: number) => void = () => {}): Promise<ScriptedFrontEnd> {
  const [ours, theirs] = socketPair();
  prepare(theirs);
  expect(await world.front.ack('SET_BACKEND_REQ_FD', none(), [theirs])).toBe(0n);
  closeFd(theirs);
  const channel = new ScriptedFrontEnd(ours);
  channels.push(channel);
  return channel;
}

/** All that makes a ring, but kick and call descriptors. */
function describeRing(index: number): void {
  const { front } = world;
  front.send('SET_VRING_NUM', state(index, 256));
  front.send('SET_VRING_BASE', state(index, 0));
  front.send('SET_VRING_ADDR', ringAddress(index, ringPlace(index)));
  front.send('SET_VRING_ENABLE', state(index, 1));
}

/** Rings 0 and 1, started by message. */
async function run(): Promise<void> {
  await world.negotiate(FEATURES, PROTOCOL);
  await world.shareMemory();
  for (const index of [0, 1]) {
    describeRing(index);
    expect(await world.front.ack('VRING_KICK', state(index, 0))).toBe(0n);
  }
  world.dataPath.expectSound();
  expect([...world.dataPath.attached.keys()]).toEqual([0, 1]);
}

/** As a worker does. */
const interrupt = (index: number): void => {
  expect(signalFd(world.dataPath.attached.get(index)!.callFd)).toBe(true);
};
const answer = (channel: ScriptedFrontEnd, { request }: Reply, status = 0): void =>
  channel.sendBytes(message(request, u64(status), REPLY));
const shape = ({ request, flags, payload }: Reply): unknown => [request, flags, payload];
/** Version 1, and a reply is asked for. */
const asked = (request: number, index: number): unknown => [request, 9, state(index, 0)];

describe('a front-end that negotiates INBAND_NOTIFICATIONS', () => {
  it.each([
    ['REPLY_ACK', P.REPLY_ACK],
    ['BACKEND_REQ', P.BACKEND_REQ],
  ])('without %s is hung up on', async (_, lacking) => {
    world.front.send('SET_PROTOCOL_FEATURES', u64(PROTOCOL & ~bit(lacking)));
    expect(await world.ended).toBe(
      'SET_PROTOCOL_FEATURES: INBAND_NOTIFICATIONS without BACKEND_REQ and REPLY_ACK',
    );
  });

  it('starts rings by VRING_KICK, and kicks them by it', async () => {
    await run();
    const { kickFd } = world.dataPath.attached.get(1)!;
    expect(kickFd).toBeGreaterThanOrEqual(0);
    expect(drainFd(kickFd)).toBe(false);
    expect(await world.front.ack('VRING_KICK', state(1, 0))).toBe(0n);
    expect(drainFd(kickFd)).toBe(true);
    expect(drainFd(world.dataPath.attached.get(0)!.kickFd)).toBe(false);
  });

  it('stops them by GET_VRING_BASE and starts them again by a kick', async () => {
    await run();
    world.dataPath.takeLog();
    for (let i = 0; i < 3; i++) {
      await world.front.request('GET_VRING_BASE', state(1, 0));
      expect(world.dataPath.attached.has(1)).toBe(false);
      expect(await world.front.ack('VRING_KICK', state(1, 0))).toBe(0n);
      expect(world.dataPath.attached.has(1)).toBe(true);
    }
    expect(world.dataPath.takeLog()).toEqual(Array(3).fill(['detach 1', 'attach 1']).flat());
  });

  it('may give descriptors all the same, which hold then, or say that it wants neither', async () => {
    const { front, dataPath } = world;
    await world.negotiate(FEATURES, PROTOCOL);
    await world.shareMemory();
    const kick = front.eventFd();
    describeRing(0);
    front.send('SET_VRING_KICK', u64(0), [kick]);
    front.send('SET_VRING_CALL', u64(0), [front.eventFd()]);
    describeRing(1);
    front.send('SET_VRING_CALL', u64(0x101));
    front.send('SET_VRING_KICK', u64(0x101));
    for (const index of [0, 1]) expect(await front.ack('VRING_KICK', state(index, 0))).toBe(0n);
    expect(drainFd(kick)).toBe(false);
    expect(dataPath.attached.get(0)!.callFd).toBe(world.ring(0).callFd);
    expect(dataPath.attached.get(1)).toMatchObject({ kickFd: -1, callFd: -1 });
    const channel = await handOver();
    signalFd(dataPath.attached.get(0)!.callFd);
    await front.settle();
    expect(channel.repliesNow()).toEqual([]);
  });

  it('is refused a kick that says more, and one of a ring that is not there', async () => {
    await run();
    expect(await world.front.ack('VRING_KICK', state(1, 1))).toBe(1n);
    expect(await world.front.ack('VRING_KICK', state(9, 0))).toBe(1n);
    expect(await world.front.ack('VRING_KICK', state(0xffff_ffff, 0))).toBe(1n);
    expect(world.refused[0]).toBe('VRING_KICK: ring 1 is kicked with 1, and only 0 means something');
  });
});

describe('the back-end', () => {
  it('tells of used buffers by VRING_CALL, one at a time for each ring', async () => {
    await run();
    const channel = await handOver();
    interrupt(1);
    const first = await channel.reply();
    expect(shape(first)).toEqual(asked(CALL, 1));
    // While that is not answered, more of the same ring waits, and becomes one; another ring does not wait.
    for (let i = 0; i < 5; i++) interrupt(1);
    interrupt(0);
    expect(shape(await channel.reply())).toEqual(asked(CALL, 0));
    await world.front.settle();
    expect(channel.repliesNow()).toEqual([]);
    answer(channel, first);
    expect(shape(await channel.reply())).toEqual(asked(CALL, 1));
    answer(channel, first);
    answer(channel, first);
    interrupt(0);
    expect(shape(await channel.reply())).toEqual(asked(CALL, 0));
    expect(world.device.channelWarning).toBeNull();
  });

  it('tells by VRING_ERR that a ring stands still, where there is no descriptor for it', async () => {
    await run();
    const channel = await handOver();
    const fail = (index: number): void => {
      world.ring(index).state.words[STATE_FAULT] = RING_FAULT.CHAIN_LOOP;
      world.device.queueFailed(index);
    };
    for (let i = 0; i < 3; i++) fail(1);
    const told = await channel.reply();
    expect(shape(told)).toEqual(asked(ERR, 1));
    await world.front.settle();
    expect(channel.repliesNow()).toEqual([]);
    // What came before the answer is told by one more.
    answer(channel, told);
    expect(shape(await channel.reply())).toEqual(asked(ERR, 1));
    answer(channel, told);
    const error = world.front.own(createEventFd());
    world.front.send('SET_VRING_ERR', u64(0), [error]);
    await world.front.settle();
    fail(0);
    expect(drainFd(error)).toBe(true);
    await world.front.settle();
    expect(channel.repliesNow()).toEqual([]);
  });

  it('tells what happened before there was a channel, and again on another one what was not answered', async () => {
    await run();
    interrupt(0);
    interrupt(1);
    await world.front.settle();
    const first = await handOver();
    const told = [await first.reply(), await first.reply()];
    expect(told.map(shape)).toEqual([asked(CALL, 0), asked(CALL, 1)]);
    answer(first, told[0]);
    // The next request is behind the answer in nobody's queue but the device's: wait until it took the answer.
    interrupt(0);
    expect(shape(await first.reply())).toEqual(asked(CALL, 0));
    const second = await handOver();
    await first.closed;
    expect([shape(await second.reply()), shape(await second.reply())]).toEqual([
      asked(CALL, 0),
      asked(CALL, 1),
    ]);
  });

  it('goes back to a descriptor when one comes', async () => {
    await run();
    const channel = await handOver();
    const ours = world.dataPath.attached.get(1)!.callFd;
    world.front.send('SET_VRING_CALL', u64(1), [world.front.eventFd()]);
    await world.front.settle();
    const theirs = world.dataPath.attached.get(1)!.callFd;
    expect([theirs, theirs === ours]).toEqual([world.ring(1).callFd, false]);
    signalFd(theirs);
    await world.front.settle();
    expect(channel.repliesNow()).toEqual([]);
  });

  it('counts what is refused, and goes on', async () => {
    await run();
    const channel = await handOver();
    for (let i = 0; i < 2; i++) {
      interrupt(1);
      answer(channel, await channel.reply(), 1);
    }
    await vi.waitUntil(() => world.device.channelWarning === 'the front-end refused 2 notifications');
    interrupt(1);
    expect(shape(await channel.reply())).toEqual(asked(CALL, 1));
  });

  it('keeps its channel through a reset of the device', async () => {
    world = await withReset();
    const channel = await handOver();
    expect(await world.front.ack('RESET_DEVICE')).toBe(0n);
    world.front.send('SET_FEATURES', u64(FEATURES));
    describeRing(1);
    expect(await world.front.ack('VRING_KICK', state(1, 0))).toBe(0n);
    interrupt(1);
    expect(shape(await channel.reply())).toEqual(asked(CALL, 1));
  });

  async function withReset(): Promise<World> {
    await world.negotiate(FEATURES, PROTOCOL | bit(P.RESET));
    await world.shareMemory();
    return world;
  }
});

describe('a front-end harms only itself that', () => {
  it('hangs its channel up: rings run on, the port says why', async () => {
    await run();
    const channel = await handOver();
    channel.close();
    await vi.waitUntil(() => world.device.channelWarning !== null);
    expect(world.device.channelWarning).toBe(
      'the connection by which the front-end wants to be notified has ended: the front-end closed the connection',
    );
    interrupt(1);
    expect(await world.front.settle()).toEqual([]);
    expect([...world.dataPath.attached.keys()]).toEqual([0, 1]);
    const next = await handOver();
    expect(world.device.channelWarning).toBeNull();
    expect(shape(await next.reply())).toEqual(asked(CALL, 1));
  });

  it.each([
    ['answers what nothing asked for', () => message(CALL, u64(0), REPLY), /nothing asked for/],
    ['asks there', () => message(CALL, u64(0)), /not marked as a reply/],
    ['sends noise there', () => new Uint8Array(64).fill(0xa6), /version/],
  ])('%s', async (_, bytes, reason) => {
    await run();
    const channel = await handOver();
    channel.sendBytes(bytes());
    await channel.closed;
    expect(world.device.channelWarning).toMatch(reason);
    expect(await world.front.settle()).toEqual([]);
  });

  it('sends descriptors with its answers: they are closed', async () => {
    await run();
    const channel = await handOver();
    interrupt(1);
    const call = await channel.reply();
    channel.sendBytes(message(CALL, u64(0), REPLY), [world.guest.fd, world.front.eventFd()]);
    interrupt(1);
    expect(shape(await channel.reply())).toEqual(shape(call));
    // That nothing stays open is checked at the end of each test.
  });

  it('does not read: everything is tried again, nobody waits, and the port says so', async () => {
    world.front.close();
    await world.dispose();
    world = new World({ features: { inBand: true }, queuePairsMax: 127 });
    await world.negotiate(FEATURES, PROTOCOL);
    await world.shareMemory();
    const rings = Array.from({ length: 254 }, (_, index) => index);
    for (const index of rings) {
      // Rings may lie at the same place: nobody uses them here.
      world.front.send('SET_VRING_NUM', state(index, 256));
      world.front.send('SET_VRING_ADDR', ringAddress(index, ringPlace(index % 8)));
      world.front.send('SET_VRING_ENABLE', state(index, 1));
      world.front.send('VRING_KICK', state(index, 0));
      if (index % 32 === 31) expect(await world.front.settle()).toEqual([]);
    }
    expect(await world.front.settle()).toEqual([]);
    expect(world.dataPath.attached.size).toBe(254);
    // The kernel makes it as large as the least that it allows: room for a few messages.
    const SO_SNDBUF = 7;
    const channel = await handOver((theirs) => setSocketOption(theirs, SO_SNDBUF, 1));
    channel.deaf = true;
    for (const index of rings) interrupt(index);
    await vi.waitUntil(() => world.device.channelWarning !== null);
    expect(world.device.channelWarning).toMatch(
      /^the front-end does not read its notifications \(\d+ wait\)$/,
    );
    expect(await world.front.settle()).toEqual([]);
    channel.deaf = false;
    const told = new Set<number>();
    while (told.size < 254) told.add(new DataView((await channel.reply()).payload.buffer).getUint32(0, true));
    await vi.waitUntil(() => world.device.channelWarning === null);
  });
});
