/**
 * What of a device no frame shows when its port is handed over: a scripted front-end says something to one port, and finds
 * it so at the next one, which has its own descriptors, connection and data path.
 */
import { mkdtempSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { DeviceOptions } from '../../src/device/net/options.ts';
import { closeFd, drainFd, duplicateFd, setSocketOption, signalFd } from '../../src/host/descriptor.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import { connectUnix, receive, socketPair } from '../../src/host/unix-socket.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { type HandedPort, type PortPositions, withDescriptors } from '../../src/port/hand-over.ts';
import { VhostUserPort } from '../../src/port/vhost-user/port.ts';
import { QueueState, STATE_FAULT } from '../../src/queue/state.ts';
import { faultMessage, RING_FAULT } from '../../src/vring/faults.ts';
import { ControlDriver } from '../device/control-driver.ts';
import { FakeDataPath } from '../device/fake-data-path.ts';
import { FEATURES, GUEST_BYTES, PROTOCOL_FEATURES, ringPlace } from '../device/world.ts';
import { GuestFile } from '../memory/guest-file.ts';
import {
  bit,
  bytesOf,
  F,
  ID,
  log,
  message,
  NEED_REPLY,
  none,
  P,
  type Reply,
  ringAddress,
  ScriptedFrontEnd,
  state,
  table,
  u64,
} from '../vhost-user/scripted-front-end.ts';

const PORT_ID = 3;
const OPTIONS: DeviceOptions = {
  queuePairsMax: 4,
  configSpace: false,
  mac: null,
  mtu: null,
  features: { inBand: true, ringReset: true },
};
const IN_BAND = PROTOCOL_FEATURES | bit(P.BACKEND_REQ, P.IN_BAND);
const [CALL, ERR] = [4, 5];
const REPLY = 4;
const PAGE_BYTES = 4096;

const arena = Arena.reserve(2 ** 34);
const arenaView = new ArenaView(arena.location);
descriptorLoop();

/** As after its way through a socket. */
const sent = <Value>(value: Value): Value => JSON.parse(JSON.stringify(value)) as Value;

class World {
  readonly folder = mkdtempSync(join(tmpdir(), 'ringway-test-'));
  readonly guest = new GuestFile(GUEST_BYTES);
  readonly #ports: VhostUserPort[] = [];
  readonly #paths: FakeDataPath[] = [];
  declare front: ScriptedFrontEnd;

  static async start(): Promise<World> {
    const world = new World();
    const port = world.#make();
    await port.start();
    world.front = new ScriptedFrontEnd(connectUnix(world.#socketPath));
    return world;
  }

  get #socketPath(): string {
    return join(this.folder, 'vm.sock');
  }

  /** The one that serves now. */
  get port(): VhostUserPort {
    return this.#ports[this.#ports.length - 1];
  }

  get dataPath(): FakeDataPath {
    return this.#paths[this.#paths.length - 1];
  }

  async negotiate(features = FEATURES, protocolFeatures = PROTOCOL_FEATURES): Promise<void> {
    const { front, guest } = this;
    front.send('SET_OWNER');
    front.send('SET_PROTOCOL_FEATURES', u64(protocolFeatures));
    front.send('SET_FEATURES', u64(features));
    front.send('SET_MEM_TABLE', table([guest.region()]), [guest.fd]);
    expect(await front.settle()).toEqual([]);
  }

  /** All that makes a ring, but kick and call descriptors. */
  describeRing(index: number, flags = 0, logGpa = 0n): void {
    const { front } = this;
    front.send('SET_VRING_NUM', state(index, 256));
    front.send('SET_VRING_BASE', state(index, 0));
    front.send('SET_VRING_ADDR', ringAddress(index, ringPlace(index), flags, logGpa));
    front.send('SET_VRING_ENABLE', state(index, 1));
  }

  async startRings(...indices: number[]): Promise<void> {
    for (const index of indices) {
      this.describeRing(index);
      this.front.send('SET_VRING_CALL', u64(index), [this.front.eventFd()]);
      this.front.send('SET_VRING_KICK', u64(index), [this.front.eventFd()]);
    }
    expect(await this.front.settle()).toEqual([]);
    expect(this.attached).toEqual(expect.arrayContaining(indices));
  }

  get attached(): number[] {
    return [...this.dataPath.attached.keys()].sort();
  }

  fail(index: number): void {
    new QueueState(this.port.states, index).words[STATE_FAULT] = RING_FAULT.CHAIN_LOOP;
    this.port.queueFailed(index);
  }

  /** `meanwhile`: once the successor has all but the positions, and before anybody lets go. */
  async takeOver(meanwhile: (() => unknown) | null = () => {}): Promise<void> {
    const before = this.port;
    await before.freeze();
    const handed = sent(before.handOver());
    const own: HandedPort = withDescriptors(handed, duplicateFd);
    const beforePath = this.dataPath;
    const next = this.#make();
    next.takeOver(own);
    await next.start();
    await next.freeze();
    await meanwhile?.();
    await before.setResting(true);
    expect(beforePath.attached.size).toBe(0);
    const positions: PortPositions = sent(before.positions());
    await next.goOnAt(positions);
    await next.setResting(false);
    next.thaw();
    // Otherwise half a message was sent.
    if (meanwhile !== null) expect(await this.front.settle()).toEqual([]);
    this.dataPath.expectSound();
  }

  async close(): Promise<void> {
    this.front.close();
    for (const port of this.#ports.reverse()) {
      // One that was handed over reads nothing until then, and learns here that its connection is gone.
      await port.freeze();
      port.thaw();
      await port.stop();
    }
    this.guest.close();
    rmSync(this.folder, { recursive: true });
  }

  #make(): VhostUserPort {
    const dataPath = new FakeDataPath(arena, PORT_ID);
    const port = new VhostUserPort(
      { socketPath: this.#socketPath, role: 'server', listen: {}, device: OPTIONS },
      {
        id: PORT_ID,
        name: 'vm0',
        arena,
        arenaView,
        dataPath,
        events: { info: () => {}, warn: () => {}, disconnected: () => {} },
      },
    );
    this.#ports.push(port);
    this.#paths.push(dataPath);
    return port;
  }
}

let world: World;
let channels: ScriptedFrontEnd[];
beforeEach(async () => {
  world = await World.start();
  channels = [];
});
afterEach(async () => {
  for (const channel of channels) channel.close();
  await world.close();
});

/** Hands a back-end's channel over; `prepare` gets the end that goes. */
async function giveChannel(prepare: (theirs: number) => void = () => {}): Promise<ScriptedFrontEnd> {
  const [ours, theirs] = socketPair();
  prepare(theirs);
  expect(await world.front.ack('SET_BACKEND_REQ_FD', none(), [theirs])).toBe(0n);
  closeFd(theirs);
  const channel = new ScriptedFrontEnd(ours);
  channels.push(channel);
  return channel;
}

describe('the device', () => {
  it('has the status that it had', async () => {
    await world.negotiate(FEATURES, PROTOCOL_FEATURES | bit(P.STATUS));
    expect(await world.front.ack('SET_STATUS', u64(0b1011))).toBe(0n);
    await world.takeOver();
    expect((await world.front.request('GET_STATUS')).u64).toBe(0b1011n);
  });

  it('does not take FEATURES_OK after features that it refused', async () => {
    await world.negotiate(FEATURES, PROTOCOL_FEATURES | bit(P.STATUS));
    expect(await world.front.ack('SET_FEATURES', u64(FEATURES | bit(63)))).toBe(1n);
    await world.takeOver();
    world.front.send('SET_STATUS', u64(0b1011));
    expect((await world.front.request('GET_STATUS')).u64).toBe(0b0011n);
    expect(world.port.status.reason).toMatch(/^refused: SET_FEATURES/);
  });

  it('goes on with a message of which half had come, with its descriptor', async () => {
    await world.negotiate();
    await world.startRings(0, 1);
    const call = world.front.eventFd();
    const whole = message(ID.SET_VRING_CALL, u64(1), NEED_REPLY);
    world.front.sendBytes(whole.slice(0, 15), [call]);
    await vi.waitUntil(async () => {
      await world.port.freeze();
      const { connection } = world.port.handOver();
      world.port.thaw();
      return connection!.halfRead.bytes !== '' && connection!.halfRead.fds.length === 1;
    });
    await world.takeOver(null);
    world.front.sendBytes(whole.slice(15));
    expect((await world.front.reply()).u64).toBe(0n);
    signalFd(world.dataPath.attached.get(1)!.callFd);
    expect(drainFd(call)).toBe(true);
  });
});

describe('rings', () => {
  it('that were reset alone wait for their driver, and start with another size', async () => {
    await world.negotiate(FEATURES | bit(F.RING_RESET));
    await world.startRings(0, 1);
    expect((await world.front.request('GET_VRING_BASE', state(1, 0))).request).toBe(ID.GET_VRING_BASE);
    await world.takeOver();
    expect(world.attached).toEqual([0]);
    world.front.send('SET_VRING_NUM', state(1, 64));
    world.front.send('SET_VRING_ADDR', ringAddress(1, ringPlace(1)));
    world.front.send('SET_VRING_BASE', state(1, 0));
    world.front.send('SET_VRING_KICK', u64(1), [world.front.eventFd()]);
    world.front.send('SET_VRING_ENABLE', state(1, 1));
    await world.front.settle();
    expect(world.dataPath.attached.get(1)!.size).toBe(64);
  });

  it('signal their error descriptors when they fail there', async () => {
    await world.negotiate();
    await world.startRings(0, 1);
    const error = world.front.eventFd();
    world.front.send('SET_VRING_ERR', u64(1), [error]);
    await world.takeOver();
    expect(drainFd(error)).toBe(false);
    world.fail(1);
    expect(drainFd(error)).toBe(true);
  });

  it('that stand still do so with their reason, and are not told of again', async () => {
    await world.negotiate();
    const error = world.front.eventFd();
    world.front.send('SET_VRING_ERR', u64(0), [error]);
    world.describeRing(0);
    // Beyond the guest's memory.
    world.front.send('SET_VRING_ADDR', ringAddress(0, ringPlace(0, 0x1000n)));
    world.front.send('SET_VRING_KICK', u64(0), [world.front.eventFd()]);
    await world.startRings(1, 3);
    world.fail(3);
    expect(drainFd(error)).toBe(true);
    const before = world.port.queues;
    expect(before.map(({ reason }) => reason)).toEqual([
      expect.stringContaining('does not lie in the shared memory'),
      null,
      faultMessage(RING_FAULT.CHAIN_LOOP),
    ]);
    await world.takeOver();
    expect(world.port.queues).toEqual(before);
    expect(drainFd(error)).toBe(false);
  });

  it('are called by a socket where that is what came', async () => {
    await world.negotiate(FEATURES, PROTOCOL_FEATURES | bit(P.BACKEND_REQ));
    await world.startRings(0, 1);
    const [ours, theirs] = socketPair();
    world.front.own(ours);
    world.front.send('SET_VRING_CALL', u64(1), [theirs]);
    await world.front.settle();
    closeFd(theirs);
    const channel = await giveChannel();
    await world.takeOver();
    const { callFd } = world.dataPath.attached.get(1)!;
    expect(signalFd(callFd)).toBe(true);
    expect(receive(ours, 64).bytes.length).toBeGreaterThan(0);
    expect(channel.isClosed).toBe(false);
  });

  it('note in the in-flight buffer that the front-end keeps', async () => {
    const packed = FEATURES | bit(F.PACKED);
    await world.negotiate(packed, PROTOCOL_FEATURES | bit(P.INFLIGHT));
    const fd = world.front.own(createMemoryFile('inflight', 2 ** 20));
    const body = bytesOf(24, (view) => {
      view.setBigUint64(0, BigInt(2 ** 20), true);
      view.setUint16(16, 2, true);
      view.setUint16(18, 256, true);
    });
    expect(await world.front.ack('SET_INFLIGHT_FD', body, [fd])).toBe(0n);
    await world.startRings(0, 1);
    const distance = (): number => {
      const [a, b] = [0, 1].map((index) => world.dataPath.attached.get(index)!.inflightOffset!);
      return b - a;
    };
    const before = distance();
    expect(before).toBeGreaterThan(0);
    await world.takeOver();
    expect(distance()).toBe(before);
  });

  it("that are the device's own serve on, with what their driver chose", async () => {
    await world.negotiate(FEATURES | bit(F.CTRL_VQ, F.MQ));
    const control = new ControlDriver(world, 8);
    await control.start();
    await world.startRings(0, 1);
    for (const index of [2, 3, 4, 5, 6, 7]) {
      world.describeRing(index);
      world.front.send('SET_VRING_KICK', u64(index), [world.front.eventFd()]);
    }
    await world.front.settle();
    expect(await control.command([4, 0], [2, 0])).toBe(0);
    expect(world.attached).toEqual([0, 1, 2, 3]);
    await world.takeOver();
    expect(world.attached).toEqual([0, 1, 2, 3]);
    expect(await control.command([4, 0], [3, 0])).toBe(0);
    expect(world.attached).toEqual([0, 1, 2, 3, 4, 5]);
    // A command that came while nobody served is served afterwards.
    const hold = Promise.withResolvers<void>();
    const answered = Promise.withResolvers<number>();
    await world.takeOver(async () => {
      await world.port.setResting(true);
      void control.command([4, 0], [1, 0]).then(answered.resolve);
      hold.resolve();
    });
    await hold.promise;
    expect(await answered.promise).toBe(0);
    expect(world.attached).toEqual([0, 1]);
  });
});

describe('a migration that is logged', () => {
  it('is logged on, in the same file, with the same signal', async () => {
    await world.negotiate(FEATURES | bit(F.LOG_ALL), PROTOCOL_FEATURES | bit(P.LOG_SHMFD));
    await world.startRings(0, 1);
    const logBytes = GUEST_BYTES / PAGE_BYTES / 8;
    const fd = world.front.own(createMemoryFile('log', PAGE_BYTES));
    expect((await world.front.request('SET_LOG_BASE', log(logBytes), [fd])).payload).toHaveLength(16);
    const signal = world.front.eventFd();
    world.front.send('SET_LOG_FD', none(), [signal]);
    await world.front.settle();
    expect(world.dataPath.attached.get(0)!.log!.sizeBytes).toBe(logBytes);
    await world.takeOver();
    const { log: next } = world.dataPath.attached.get(0)!;
    expect(next!.sizeBytes).toBe(logBytes);
    expect(signalFd(next!.signalFd)).toBe(true);
    expect(drainFd(signal)).toBe(true);
    new Uint8Array(arenaView.buffer, next!.offset, 1)[0] = 0xa5;
    const marked = new Uint8Array(1);
    readSync(fd, marked, 0, 1, 0);
    expect(marked[0]).toBe(0xa5);
    // It ends with the migration, as it would have.
    world.front.send('SET_FEATURES', u64(FEATURES));
    await world.front.settle();
    expect(world.dataPath.attached.get(0)!.log).toBeNull();
  });
});

describe('notifications in band', () => {
  const interrupt = (index: number): void => {
    expect(signalFd(world.dataPath.attached.get(index)!.callFd)).toBe(true);
  };
  const answer = (channel: ScriptedFrontEnd, { request }: Reply): void =>
    channel.sendBytes(message(request, u64(0), REPLY));
  const shape = ({ request, flags, payload }: Reply): unknown => [request, flags, payload];
  const asked = (request: number, index: number): unknown => [request, 9, state(index, 0)];

  async function run(count = 2): Promise<void> {
    await world.negotiate(FEATURES, IN_BAND);
    for (let index = 0; index < count; index++) {
      world.describeRing(index);
      expect(await world.front.ack('VRING_KICK', state(index, 0))).toBe(0n);
    }
  }

  it('go on: kicks by message, calls and errors', async () => {
    await run();
    const channel = await giveChannel();
    await world.takeOver();
    const { kickFd } = world.dataPath.attached.get(1)!;
    expect(drainFd(kickFd)).toBe(false);
    expect(await world.front.ack('VRING_KICK', state(1, 0))).toBe(0n);
    expect(drainFd(kickFd)).toBe(true);
    interrupt(1);
    const call = await channel.reply();
    expect(shape(call)).toEqual(asked(CALL, 1));
    answer(channel, call);
    world.fail(0);
    expect(shape(await channel.reply())).toEqual(asked(ERR, 0));
  });

  it('are not made for a ring whose driver looks by itself', async () => {
    await run();
    world.front.send('SET_VRING_CALL', u64(1 | 0x100));
    await world.takeOver();
    expect(world.dataPath.attached.get(1)!.callFd).toBe(-1);
    expect(world.dataPath.attached.get(0)!.callFd).toBeGreaterThanOrEqual(0);
  });

  it('that were not answered are awaited, and what came meanwhile is told after that', async () => {
    await run();
    const channel = await giveChannel();
    interrupt(0);
    const first = await channel.reply();
    expect(shape(first)).toEqual(asked(CALL, 0));
    const old = world.dataPath;
    await world.takeOver(() => {
      // The one of ring 0 waits for the answer; ring 1's is signalled when nobody looks any more.
      for (const index of [0, 1]) expect(signalFd(old.attached.get(index)!.callFd)).toBe(true);
    });
    expect(shape(await channel.reply())).toEqual(asked(CALL, 1));
    expect(channel.repliesNow()).toEqual([]);
    answer(channel, first);
    expect(shape(await channel.reply())).toEqual(asked(CALL, 0));
    answer(channel, first);
    answer(channel, first);
    interrupt(0);
    expect(shape(await channel.reply())).toEqual(asked(CALL, 0));
    expect(world.port.status.reason).toBeNull();
  });

  it('of which half an answer had come go on with the other half', async () => {
    await run();
    const channel = await giveChannel();
    interrupt(0);
    const { request } = await channel.reply();
    const bytes = message(request, u64(0), REPLY);
    channel.sendBytes(bytes.slice(0, 13));
    await world.front.settle();
    await world.takeOver();
    channel.sendBytes(bytes.slice(13));
    interrupt(0);
    expect(shape(await channel.reply())).toEqual(asked(CALL, 0));
  });

  it('whose channel was full or has ended are told when there is room, or another one', async () => {
    await run(8);
    const SO_SNDBUF = 7;
    const full = await giveChannel((theirs) => setSocketOption(theirs, SO_SNDBUF, 1));
    full.deaf = true;
    for (let index = 0; index < 8; index++) interrupt(index);
    await vi.waitUntil(() => world.port.status.reason?.includes('does not read its notifications'));
    await world.takeOver();
    full.deaf = false;
    const told = new Set<number>();
    while (told.size < 8) told.add(new DataView((await full.reply()).payload.buffer).getUint32(0, true));
    full.close();
    await vi.waitUntil(() => world.port.status.reason?.includes('has ended'));
    const reason = world.port.status.reason;
    await world.takeOver();
    expect(world.port.status.reason).toBe(reason);
    const next = await giveChannel();
    const again = new Set<number>();
    while (again.size < 8) again.add(new DataView((await next.reply()).payload.buffer).getUint32(0, true));
    expect(world.port.status.reason).toBeNull();
  });
});
