/**
 * Ports of other kinds than vhost-user that are handed over, each from one port object to the next with descriptors of its
 * own: UNIX sockets with frames that are half read and half sent, and capture files that are written and read on.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { closeFd, duplicateFd } from '../../src/host/descriptor.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { libc } from '../../src/host/libc.ts';
import {
  bindDatagram,
  connectUnix,
  isHungUp,
  receive,
  send,
  socketAddress,
} from '../../src/host/unix-socket.ts';
import type { Port } from '../../src/port/contract.ts';
import { type HandedPort, movable, type PortPositions, withDescriptors } from '../../src/port/hand-over.ts';
import { PcapPort, type PcapPortOptions } from '../../src/port/pcap/port.ts';
import { UnixDatagramPort } from '../../src/port/unix/dgram.ts';
import { UnixStreamPort } from '../../src/port/unix/stream.ts';
import { naiveRead, pcapFile } from '../protocol/naive-capture.ts';
import { framed, UnixWorld, unframed } from './unix-world.ts';

descriptorLoop();
let folder: string;
let worlds: UnixWorld[];
let fds: number[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-test-'));
  worlds = [];
  fds = [];
});
afterEach(async () => {
  for (const fd of fds) closeFd(fd);
  for (const world of worlds.reverse()) {
    const port = movable(world.port!);
    await port.freeze();
    port.thaw();
    await world.stop();
  }
  rmSync(folder, { recursive: true });
});

/** As after its way through a socket. */
const sent = <Value>(value: Value): Value => JSON.parse(JSON.stringify(value)) as Value;

/** All of it fits into the socket. */
function sendAll(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) done += send(fd, bytes.subarray(done));
}

type Make = (world: UnixWorld) => Port;

async function start(make: Make): Promise<UnixWorld> {
  const world = new UnixWorld();
  worlds.push(world);
  world.port = make(world);
  await world.port.start();
  return world;
}

/** `meanwhile`: when nobody uses the queues. */
async function takeOver(before: UnixWorld, make: Make, meanwhile: () => void = () => {}): Promise<UnixWorld> {
  const old = movable(before.port!);
  await old.freeze();
  const handed: HandedPort = withDescriptors(sent(old.handOver()), duplicateFd);
  const next = new UnixWorld();
  worlds.push(next);
  next.port = make(next);
  const port = movable(next.port);
  port.takeOver(handed);
  await port.start();
  await port.freeze();
  await old.setResting(true);
  expect([before.ingress, before.egress, next.ingress, next.egress]).toEqual([null, null, null, null]);
  const positions: PortPositions = sent(old.positions());
  await port.goOnAt(positions);
  meanwhile();
  await port.setResting(false);
  port.thaw();
  return next;
}

const frame = (number: number, bytes = 100): Buffer => Buffer.alloc(bytes, number);
const numbers = (frames: readonly Uint8Array[]): number[] => frames.map((bytes) => bytes[20]);

/** Stops it before the workers have answered that it rests; answers whether it waited for them. */
async function stopsAfterRest(world: UnixWorld): Promise<boolean> {
  const workers = Promise.withResolvers<void>();
  world.answers = workers.promise;
  const resting = movable(world.port!).setResting(true);
  let isStopped = false;
  const stopped = world.port!.stop().then(() => {
    isStopped = true;
  });
  // More than it takes, were nothing waited for.
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
  const hasWaited = !isStopped && world.attachments.length > 0;
  workers.resolve();
  await Promise.all([resting, stopped]);
  return hasWaited;
}

describe('a port on a stream socket', () => {
  const path = (): string => join(folder, 'u.sock');
  const make: Make = ({ context }) =>
    new UnixStreamPort({ socketPath: path(), role: 'server', listen: {}, mtu: 1500 }, context);

  async function connected(): Promise<{ world: UnixWorld; fd: number }> {
    const world = await start(make);
    const fd = connectUnix(path());
    fds.push(fd);
    await world.turnUntil(() => world.port!.status.state === 'running');
    return { world, fd };
  }

  it('goes on in the middle of a frame, and with what it had read beyond it', async () => {
    const { world, fd } = await connected();
    const bytes = framed(Array.from({ length: 200 }, (_, i) => frame(i)));
    const cut = bytes.length - 2 * 104 - 30;
    sendAll(fd, bytes.subarray(0, cut));
    const frames = world.takeBurst();
    expect(frames.length).toBeLessThan(100);
    const next = await takeOver(world, make, () => send(fd, bytes.subarray(cut, cut + 7)));
    sendAll(fd, bytes.subarray(cut + 7));
    frames.push(...(await next.receiveCount(200 - frames.length)));
    expect(numbers(frames)).toEqual(Array.from({ length: 200 }, (_, i) => i));
    expect(next.port!.counters.ingressFrames).toBe(200);
    expect(isHungUp(fd)).toBe(false);
  });

  it('goes on as before when the other one comes to nothing', async () => {
    const { world, fd } = await connected();
    const bytes = framed([frame(1), frame(2)]);
    send(fd, bytes.subarray(0, 130));
    const frames = await world.receiveCount(1);
    const port = movable(world.port!);
    await port.freeze();
    port.handOver();
    for (const isResting of [true, false]) await port.setResting(isResting);
    port.thaw();
    send(fd, bytes.subarray(130));
    frames.push(...(await world.receiveCount(1)));
    expect(numbers(frames)).toEqual([1, 2]);
  });

  it('keeps what workers use when it stops while they are told to let go of it', async () => {
    const { world } = await connected();
    expect(await stopsAfterRest(world)).toBe(true);
  });

  it('leaves no timer when it stops while workers are told to use it again', async () => {
    const { world } = await connected();
    const port = movable(world.port!);
    await port.setResting(true);
    const workers = Promise.withResolvers<void>();
    world.answers = workers.promise;
    const begun = vi.spyOn(globalThis, 'setInterval');
    const ended = vi.spyOn(globalThis, 'clearInterval');
    onTestFinished(() => {
      vi.restoreAllMocks();
    });
    const goesOn = port.setResting(false);
    const stopped = world.port!.stop();
    await new Promise(setImmediate);
    workers.resolve();
    await Promise.all([goesOn, stopped]);
    const timers = begun.mock.results.map(({ value }) => value);
    expect(timers.filter((timer) => !ended.mock.calls.flat().includes(timer))).toEqual([]);
  });

  it('sends the rest of a frame that its socket took a part of', async () => {
    const { world, fd } = await connected();
    let count = 0;
    while (world.lostCount === 0) world.send([frame(count++ & 0xff, 1400)]);
    const placed = world.sentCount;
    const next = await takeOver(world, make);
    expect(next.sentCount).toBe(placed);
    let bytes: Buffer = Buffer.alloc(0);
    const frames: Buffer[] = [];
    await next.turnUntil(() => {
      bytes = Buffer.concat([bytes, receive(fd, 2 ** 16).bytes]);
      const { frames: whole, usedBytes } = unframed(bytes);
      frames.push(...whole.map((each) => Buffer.from(each)));
      bytes = bytes.subarray(usedBytes);
      return frames.length === placed;
    });
    expect(numbers(frames)).toEqual(Array.from({ length: placed }, (_, i) => i & 0xff));
    next.send([frame(7)]);
    expect(unframed(Buffer.concat([bytes, receive(fd, 2 ** 16).bytes])).frames).toEqual([frame(7)]);
  });

  it('that nobody is connected to lets the next one in afterwards', async () => {
    const next = await takeOver(await start(make), make);
    const fd = connectUnix(path());
    fds.push(fd);
    await next.turnUntil(() => next.port!.status.state === 'running');
    send(fd, framed([frame(3)]));
    expect(numbers(await next.receiveCount(1))).toEqual([3]);
  });

  it('is not taken over as one of datagrams', async () => {
    const world = await start(make);
    const port = movable(world.port!);
    await port.freeze();
    const options = { socketPath: path(), peerPath: join(folder, 'p'), listen: {}, mtu: 1500 };
    const next = new UnixDatagramPort(options, world.context);
    expect(() => next.takeOver(sent(port.handOver()))).toThrow(
      'its transport is stream in the running Ringway, and dgram in the settings',
    );
  });
});

describe('a port of datagrams', () => {
  const own = (): string => join(folder, 'u.sock');
  const peer = (): string => join(folder, 'peer.sock');
  const make: Make = ({ context }) =>
    new UnixDatagramPort({ socketPath: own(), peerPath: peer(), listen: {}, mtu: 1500 }, context);

  it('receives and sends on at the same socket', async () => {
    const peerFd = bindDatagram(peer());
    fds.push(peerFd);
    const world = await start(make);
    const address = socketAddress(own());
    expect(libc.connect(peerFd, address, address.length)).toBe(0);
    send(peerFd, frame(1));
    expect(numbers(await world.receiveCount(1))).toEqual([1]);
    const next = await takeOver(world, make, () => send(peerFd, frame(2)));
    expect(numbers(await next.receiveCount(1))).toEqual([2]);
    next.send([frame(3)]);
    expect(receive(peerFd, 2000).bytes).toEqual(new Uint8Array(frame(3)));
    expect(next.port!.counters).toMatchObject({ ingressFrames: 2, egressFrames: 1 });
  });
});

describe('a capture file', () => {
  const file = (): string => join(folder, 'c.pcapng');
  const options = (more: Partial<PcapPortOptions>): PcapPortOptions => ({
    file: file(),
    direction: 'write',
    snapBytes: 0,
    mirror: null,
    repeat: 'once',
    pace: 'full',
    ...more,
  });

  it('is written on, with each interface once', async () => {
    const make: Make = ({ context }) => new PcapPort(options({}), context);
    const world = await start(make);
    world.send([frame(1), frame(2)]);
    const next = await takeOver(
      world,
      (other) =>
        // A port has another number there.
        new PcapPort(options({}), { ...other.context, id: 9 }),
    );
    next.send([frame(3)]);
    const { packets, end } = naiveRead(readFileSync(file()));
    expect(packets.map(({ data, interfaceIndex }) => [data[20], interfaceIndex])).toEqual([
      [1, 0],
      [2, 0],
      [3, 0],
    ]);
    expect(end).toBe('end');
    expect(next.port!.status).toEqual({ state: 'running', reason: null });
    expect(next.port!.counters.egressFrames).toBe(3);
  });

  it.each(['once', 'loop'] as const)('is read on where it was read to, %s', async (repeat) => {
    const packets = Array.from({ length: 300 }, (_, i) => ({
      seconds: i,
      fraction: 0,
      data: frame(i & 0xff),
    }));
    writeFileSync(file(), pcapFile(true, 0xa1b2c3d4, packets));
    const make: Make = ({ context }) => new PcapPort(options({ direction: 'read', repeat }), context);
    const world = await start(make);
    const frames: Buffer[] = [];
    while (frames.length < 100) frames.push(...world.takeBurst());
    expect(frames.length).toBeLessThan(300);
    const next = await takeOver(world, make);
    for (let turn = 0; turn < 1000 && frames.length < 600; turn++) frames.push(...next.takeBurst());
    const wanted = Array.from({ length: 300 }, (_, i) => i & 0xff);
    expect(numbers(frames.slice(0, 300))).toEqual(wanted);
    if (repeat === 'loop') expect(numbers(frames.slice(300, 600))).toEqual(wanted);
    else {
      expect(frames.length).toBe(300);
      await next.turnUntil(() => next.ingress === null);
      // And one that was read to its end is not read again.
      const last = await takeOver(next, make);
      expect(last.ingress).toBeNull();
      expect(last.port!.status.reason).toBe('capture read to its end: 300 frames');
    }
  });

  it('stays open when it stops while workers are told to let go of it', async () => {
    const world = await start(({ context }) => new PcapPort(options({}), context));
    expect(await stopsAfterRest(world)).toBe(true);
  });

  it('of another name is not the same', async () => {
    const world = await start(({ context }) => new PcapPort(options({}), context));
    const port = movable(world.port!);
    await port.freeze();
    const next = new PcapPort(options({ file: join(folder, 'other') }), world.context);
    expect(() => next.takeOver(sent(port.handOver()))).toThrow(
      /^its place is .*c.pcapng in the running Ringway, and .*other in the settings$/,
    );
  });
});
