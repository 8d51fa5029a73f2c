/**
 * Ports on UNIX sockets, with real sockets in a folder of the test's own: framing cut at every byte against a naive
 * twin, sockets that are full, peers that come, go and lie, and datagrams of all sizes.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeFd } from '../../src/host/descriptor.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { libc } from '../../src/host/libc.ts';
import {
  acceptUnix,
  bindDatagram,
  connectUnix,
  listenUnix,
  receive,
  SocketPathError,
  send,
  socketAddress,
} from '../../src/host/unix-socket.ts';
import { UnixDatagramPort } from '../../src/port/unix/dgram.ts';
import { sendBytes, setSocketBuffers } from '../../src/port/unix/frame-socket.ts';
import { sendRest } from '../../src/port/unix/queues.ts';
import { UnixStreamPort } from '../../src/port/unix/stream.ts';
import { type OpenFds, openedSince, openFds } from '../host/open-fds.ts';
import { Random } from '../vring/random.ts';
import { arena, framed, UnixWorld, unframed } from './unix-world.ts';

const FRAME_MAX = 65_535 + 22;
const NO_LIMIT = 8192;

let before: OpenFds;
let folder: string;
let path: string;
let world: UnixWorld;
let open: number[] = [];

beforeEach(() => {
  descriptorLoop();
  before = openFds();
  folder = mkdtempSync(join(tmpdir(), 'ringway-unix-'));
  path = join(folder, 'u.sock');
  world = new UnixWorld();
});

afterEach(async () => {
  for (const fd of open) closeFd(fd);
  open = [];
  await world.stop();
  rmSync(folder, { recursive: true, force: true });
  expect(arena.mappedBytes).toBe(0);
  expect(openedSince(before)).toEqual([]);
});

/** Closed at the end of the test. */
function owned(fd: number): number {
  open.push(fd);
  return fd;
}

function close(fd: number): void {
  open = open.filter((other) => other !== fd);
  closeFd(fd);
}

function streamPort(
  options: { role?: 'server' | 'client'; mtu?: number; mode?: number } = {},
): UnixStreamPort {
  const { role = 'server', mtu = 9000, mode } = options;
  const listen = mode === undefined ? {} : { mode };
  const port = new UnixStreamPort({ socketPath: path, role, mtu, listen }, world.context);
  world.port = port;
  void port.start();
  return port;
}

/** A stream port with a peer; answers the peer's descriptor. */
async function streamPeer(options: { mtu?: number } = {}): Promise<number> {
  streamPort(options);
  const fd = owned(connectUnix(path));
  await world.untilState('running');
  return fd;
}

/** Sends all of it, taking in what arrives meanwhile. */
function sendAll(fd: number, bytes: Uint8Array, onFrames: (frames: Buffer[]) => void): void {
  for (let at = 0; at < bytes.length; ) {
    const sent = send(fd, bytes.subarray(at));
    at += sent;
    if (sent === 0) onFrames(world.receive());
  }
}

/** What waits, up to a size. */
function receiveAll(fd: number, maxBytes = 2 ** 30): Buffer {
  const chunks: Uint8Array[] = [];
  for (let left = maxBytes; left > 0; ) {
    const { bytes } = receive(fd, Math.min(left, NO_LIMIT));
    if (bytes.length === 0) break;
    chunks.push(bytes);
    left -= bytes.length;
  }
  return Buffer.concat(chunks);
}

function randomFrame(random: Random, maxBytes: number): Uint8Array {
  return random.bytes(random.between(14, random.chance(80) ? Math.min(200, maxBytes) : maxBytes));
}

describe('a stream, inwards', () => {
  it('finds frames cut at every byte', async () => {
    const fd = await streamPeer();
    const random = new Random(1);
    const frames = [14, 60, 97].map((length) => random.bytes(length));
    const bytes = framed(frames);
    for (let cut = 0; cut <= bytes.length; cut++) {
      const got: Buffer[] = [];
      send(fd, bytes.subarray(0, cut));
      got.push(...world.receive());
      expect(got.length, `cut at ${cut}`).toBe(unframed(bytes.subarray(0, cut)).frames.length);
      send(fd, bytes.subarray(cut));
      got.push(...world.receive());
      expect(got.map(String), `cut at ${cut}`).toEqual(frames.map((frame) => String(Buffer.from(frame))));
    }
  });

  it.each([1, 2, 3, 4])('agrees with the naive twin on whatever pieces come (seed %i)', async (seed) => {
    const random = new Random(seed);
    const fd = await streamPeer({ mtu: random.pick([1500, 9000, 65_535]) });
    const given: Uint8Array[] = [];
    const got: Buffer[] = [];
    let unsent = Buffer.alloc(0);
    for (let round = 0; round < 300; round++) {
      const some = Array.from({ length: random.between(1, 90) }, () =>
        randomFrame(random, random.chance(5) ? FRAME_MAX : 1514),
      );
      given.push(...some);
      unsent = Buffer.concat([unsent, framed(some)]);
      const count = random.chance(30) ? random.between(0, 9) : random.between(0, unsent.length);
      sendAll(fd, unsent.subarray(0, count), (frames) => got.push(...frames));
      unsent = unsent.subarray(count);
      if (random.chance(70)) got.push(...world.receive());
    }
    sendAll(fd, unsent, (frames) => got.push(...frames));
    got.push(...world.receive());
    expect(got.length).toBe(given.length);
    expect(got.findIndex((frame, i) => !frame.equals(given[i]))).toBe(-1);
    expect([world.tooShort, world.tooLong]).toEqual([0, 0]);
    expect(world.port!.counters.ingressFrames).toBe(given.length);
  });

  it('drops a frame without room for addresses by name, and goes on', async () => {
    const fd = await streamPeer();
    const good = new Uint8Array(60).fill(7);
    send(fd, framed([new Uint8Array(1), good, new Uint8Array(13), good]));
    expect((await world.receiveCount(2)).length).toBe(2);
    expect([world.tooShort, world.tooLong]).toEqual([2, 0]);
    // They came in all the same, or the books would not balance.
    expect(world.port!.counters.ingressFrames).toBe(4);
    expect(world.port!.status.state).toBe('running');
  });

  it.each([
    [0, 'a frame of 0 bytes'],
    [FRAME_MAX + 1, `a frame of ${FRAME_MAX + 1} bytes`],
    [0x474554, 'a frame of 4670804 bytes'],
    [0xffff_ffff, 'a frame of 4294967295 bytes'],
  ])('ends a connection that sends the length %i, after the frames before it', async (length, reason) => {
    const fd = await streamPeer();
    const prefix = Buffer.alloc(4);
    prefix.writeUInt32BE(length);
    send(fd, Buffer.concat([framed([new Uint8Array(60)]), prefix]));
    expect((await world.receiveCount(1)).length).toBe(1);
    world.receive();
    await world.events.said(/^disconnected$/);
    expect(world.port!.status.state).toBe('waiting');
    expect(world.port!.status.reason).toContain(reason);
    expect(world.port!.status.reason).toContain('four bytes');
    expect(receive(fd, 1).closed).toBe(true);
    const again = owned(connectUnix(path));
    await world.untilState('running');
    send(again, framed([new Uint8Array(99)]));
    expect((await world.receiveCount(1))[0].length).toBe(99);
  });
});

describe('a stream, outwards', () => {
  it('writes a burst whole, each frame after its length', async () => {
    const fd = await streamPeer();
    const random = new Random(2);
    const frames = Array.from({ length: 200 }, () => randomFrame(random, 9022));
    expect(world.send(frames)).toBe(0);
    expect(receiveAll(fd).equals(framed(frames))).toBe(true);
    expect(world.sentCount).toBe(200);
    expect(world.lostCount).toBe(0);
  });

  it('carries the longest frames there are', async () => {
    const fd = await streamPeer({ mtu: 65_535 });
    expect(world.linkMtu).toBe(65_535);
    const frames = [FRAME_MAX, 14, FRAME_MAX].map((length) => new Random(length).bytes(length));
    world.send(frames);
    expect(receiveAll(fd).equals(framed(frames))).toBe(true);
  });

  it.each([1, 2, 3, 4, 5])(
    'loses whole frames when the socket is full, never parts (seed %i)',
    async (seed) => {
      const random = new Random(seed);
      const fd = await streamPeer();
      const egress = world.attachments.find(({ direction }) => direction === 'egress')!;
      setSocketBuffers(egress.fd, random.pick([1, 6000, 20_000]), 1);
      const expected: Uint8Array[] = [];
      const got: Buffer[] = [];
      let given = 0;
      for (let round = 0; round < 400; round++) {
        const frames = Array.from({ length: random.between(1, egress.slots.slotCount) }, () =>
          randomFrame(random, 9022),
        );
        const sentBefore = world.sentCount;
        world.send(frames);
        expected.push(...frames.slice(0, world.sentCount - sentBefore));
        given += frames.length;
        if (random.chance(20)) sendRest(egress);
        if (random.chance(60)) got.push(receiveAll(fd, random.pick([1, 100, 5000, 2 ** 20])));
      }
      for (let more = receiveAll(fd); more.length > 0; more = receiveAll(fd)) {
        got.push(more);
        sendRest(egress);
      }
      const all = Buffer.concat(got);
      const { frames, usedBytes } = unframed(all);
      expect(usedBytes).toBe(all.length);
      expect(frames.length).toBe(expected.length);
      expect(frames.findIndex((frame, i) => !frame.equals(expected[i]))).toBe(-1);
      expect(world.sentCount + world.lostCount).toBe(given);
      expect(world.lostCount).toBeGreaterThan(0);
    },
  );

  it('sends what is left of a frame although no other follows', async () => {
    const fd = await streamPeer();
    setSocketBuffers(world.attachments[0].fd, 1, 1);
    const frames = Array.from({ length: 40 }, (_, i) => new Random(i).bytes(9000));
    world.send(frames);
    const sentFrames = frames.slice(0, world.sentCount);
    expect(sentFrames.length).toBeLessThan(40);
    const wanted = framed(sentFrames);
    let got = receiveAll(fd);
    expect(got.length).toBeLessThan(wanted.length);
    await world.turnUntil(() => {
      got = Buffer.concat([got, receiveAll(fd)]);
      return got.length >= wanted.length;
    });
    expect(got.equals(wanted)).toBe(true);
  });
});

describe('a stream port', () => {
  it('waits again when its peer is gone, and takes the next one', async () => {
    const port = streamPort({ mode: 0o640 });
    expect(port.status).toEqual({ state: 'waiting', reason: expect.stringContaining('-netdev stream') });
    expect(statSync(path).mode & 0o777).toBe(0o640);
    for (let turn = 1; turn <= 3; turn++) {
      const fd = owned(connectUnix(path));
      await world.untilState('running');
      send(fd, framed([new Uint8Array(60)]));
      close(fd);
      // What was sent before the end still comes.
      expect((await world.receiveCount(1)).length).toBe(1);
      await world.untilState('waiting');
      await world.events.said(/^disconnected$/, turn);
      expect(port.status.reason).toContain('the other side closed the connection');
    }
    expect(port.counters.ingressFrames).toBe(3);
  });

  it('ends on the egress side too when the peer is gone', async () => {
    const fd = await streamPeer();
    close(fd);
    world.send([new Uint8Array(60)]);
    await world.events.said(/^disconnected$/);
    expect(world.port!.status.state).toBe('waiting');
    expect(world.lostCount).toBe(1);
  });

  it('refuses a second peer and keeps the first', async () => {
    const fd = await streamPeer();
    const second = owned(connectUnix(path));
    await world.events.said(/^warning: refused a second connection/);
    expect(receive(second, 1).closed).toBe(true);
    send(fd, framed([new Uint8Array(60)]));
    expect((await world.receiveCount(1)).length).toBe(1);
  });

  it('takes a peer that connects while the one before is just leaving', async () => {
    const fd = await streamPeer();
    close(fd);
    const next = owned(connectUnix(path));
    // The port sees the second connection before any worker has seen the end of the first.
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    expect(world.port!.status.state).toBe('running');
    await world.untilState('waiting');
    await world.untilState('running');
    send(next, framed([new Uint8Array(77)]));
    expect((await world.receiveCount(1))[0].length).toBe(77);
    expect(world.events.all.filter((text) => text.includes('second'))).toEqual([]);
  });

  it('connects as client, and again when the other side is back', async () => {
    const port = streamPort({ role: 'client' });
    expect(port.status.reason).toContain('server=on');
    for (let turn = 0; turn < 2; turn++) {
      const listenFd = owned(listenUnix(path));
      let fd: number | null = null;
      await world.turnUntil(() => {
        fd ??= acceptUnix(listenFd);
        return fd !== null;
      });
      owned(fd!);
      await world.untilState('running');
      const frame = new Random(turn).bytes(1000);
      world.send([frame]);
      expect(receiveAll(fd!).equals(framed([frame]))).toBe(true);
      close(listenFd);
      rmSync(path);
      close(fd!);
      await world.untilState('waiting');
    }
  });

  it('removes its socket when stopped, and lets go of its peer', async () => {
    const fd = await streamPeer();
    await world.port!.stop();
    expect(existsSync(path)).toBe(false);
    expect(receive(fd, 1).closed).toBe(true);
    expect(world.port!.status.state).toBe('stopped');
  });

  it('says while nobody can reach it, waiting or with a peer, and listens again', async () => {
    const inner = join(folder, 'f');
    mkdirSync(inner);
    path = join(inner, 'u.sock');
    const port = streamPort();
    const gone = `nobody can connect: its file is gone: folder ${inner} of socket ${path} does not exist`;
    for (const state of ['waiting', 'running']) {
      const fd = state === 'running' ? owned(connectUnix(path)) : -1;
      await world.untilState(state);
      rmSync(inner, { recursive: true });
      await world.turnUntil(() => port.status.reason === gone);
      expect(port.status.state).toBe(state);
      mkdirSync(inner);
      await world.turnUntil(() => existsSync(path));
      await world.turnUntil(() => port.status.reason !== gone);
      expect(port.status.state).toBe(state);
      if (fd >= 0) expect(receive(fd, 1).closed).toBe(false);
    }
  });

  it('says what it cannot listen at', async () => {
    writeFileSync(path, '');
    const options = { socketPath: path, role: 'server', mtu: 9000, listen: {} } as const;
    await expect(new UnixStreamPort(options, world.context).start()).rejects.toThrow(SocketPathError);
  });

  it('shows its two queues', async () => {
    await streamPeer();
    expect(
      world.port!.queues.map(({ index, direction, size, started }) => [index, direction, size, started]),
    ).toEqual([
      [0, 'egress', 64, true],
      [1, 'ingress', 64, true],
    ]);
  });
});

describe('a datagram port', () => {
  let peerPath: string;

  async function datagramPort(mtu = 9000): Promise<UnixDatagramPort> {
    peerPath = join(folder, 'peer.sock');
    const port = new UnixDatagramPort(
      { socketPath: path, peerPath, mtu, listen: { mode: 0o600 } },
      world.context,
    );
    world.port = port;
    await port.start();
    return port;
  }

  /** QEMU's socket: bound at the peer's path and, like one handed over to QEMU, connected to the port's. */
  function peer(): number {
    const fd = owned(bindDatagram(peerPath));
    const address = socketAddress(path);
    expect(libc.connect(fd, address, address.length)).toBe(0);
    return fd;
  }

  it('carries a frame in each datagram, both ways', async () => {
    const port = await datagramPort();
    const fd = peer();
    await world.untilState('running');
    expect(port.status.reason).toBeNull();
    const random = new Random(3);
    for (let round = 0; round < 100; round++) {
      const frames = Array.from({ length: random.between(1, 8) }, () => randomFrame(random, 8000));
      for (const frame of frames) expect(send(fd, frame)).toBe(frame.length);
      const got = world.receive();
      expect(got.map(hex)).toEqual(frames.map(hex));
      expect(world.send(frames)).toBe(0);
      expect(frames.map(() => hex(receive(fd, NO_LIMIT).bytes))).toEqual(frames.map(hex));
    }
    expect(world.lostCount).toBe(0);
    expect([world.tooShort, world.tooLong]).toEqual([0, 0]);
  });

  it('drops datagrams that are no frames or too long, by name', async () => {
    await datagramPort(1500);
    const fd = peer();
    const slotBytes = world.attachments[0].slots.slotBytes;
    for (const length of [60, 13, slotBytes - 3, 61]) {
      expect(send(fd, new Uint8Array(length))).toBe(length);
    }
    const address = world.attachments[0].slots.address;
    expect(sendBytes(fd, address, 100_000)).toBe(100_000);
    expect(send(fd, new Uint8Array(62))).toBe(62);
    expect(world.receive().map(({ length }) => length)).toEqual([60, 61, 62]);
    expect([world.tooShort, world.tooLong]).toEqual([1, 2]);
    expect(world.port!.counters.ingressFrames).toBe(6);
  });

  it('loses frames while nobody is at the other path, says so, and recovers by itself', async () => {
    const port = await datagramPort();
    expect(port.status).toEqual({ state: 'waiting', reason: expect.stringContaining('does not exist') });
    const inUse = (): boolean[] => port.queues.map((queue) => queue.inUse);
    expect(inUse()).toEqual([false, false]);
    world.send([new Uint8Array(60), new Uint8Array(60)]);
    expect(world.lostCount).toBe(2);
    for (let turn = 1; turn <= 2; turn++) {
      const fd = peer();
      world.send([new Uint8Array(60 + turn)]);
      expect(receive(fd, NO_LIMIT).bytes.length).toBe(60 + turn);
      await world.untilState('running');
      expect(inUse()).toEqual([true, true]);
      close(fd);
      world.send([new Uint8Array(60)]);
      expect(world.lostCount).toBe(2 + turn);
      await world.events.said(/^disconnected$/, turn);
      expect(port.status).toEqual({ state: 'waiting', reason: expect.stringContaining('no process') });
      rmSync(peerPath);
    }
    expect(world.egress!.fault).toBe(0);
  });

  it('binds its path anew when the file was removed, and loses no frame to its peer', async () => {
    const port = await datagramPort();
    let fd = peer();
    await world.untilState('running');
    rmSync(path);
    await world.events.said(/was gone and was made anew$/);
    await world.untilState('running');
    // The old connection led to the old socket.
    rmSync(peerPath);
    close(fd);
    fd = peer();
    await world.untilState('running');
    expect(send(fd, new Uint8Array(60))).toBe(60);
    expect((await world.receiveCount(1)).map(({ length }) => length)).toEqual([60]);
    expect(world.send([new Uint8Array(61)])).toBe(0);
    expect(receive(fd, NO_LIMIT).bytes.length).toBe(61);
    expect([statSync(path).mode & 0o777, port.status.reason]).toEqual([0o600, null]);
  });

  it('goes on sending while its own folder is gone, and says that nothing can come in', async () => {
    const inner = join(folder, 'f');
    mkdirSync(inner);
    path = join(inner, 'u.sock');
    const port = await datagramPort();
    const fd = peer();
    await world.untilState('running');
    rmSync(inner, { recursive: true });
    await world.events.said(/^warning: nobody can reach the socket: its file is gone: folder/);
    expect(port.status.state).toBe('running');
    expect(port.status.reason).toMatch(
      /^nothing can be received: its file is gone: folder .* does not exist$/,
    );
    expect(world.send([new Uint8Array(61)])).toBe(0);
    expect(receive(fd, NO_LIMIT).bytes.length).toBe(61);
    mkdirSync(inner);
    await world.events.said(/was gone and was made anew$/);
    await world.untilState('running');
    expect([existsSync(path), port.status.reason]).toEqual([true, null]);
  });

  it('says that the other path is a stream socket', async () => {
    const port = await datagramPort();
    owned(listenUnix(peerPath));
    await world.turnUntil(() => port.status.reason?.includes('transport stream') === true);
    world.send([new Uint8Array(60)]);
    expect(world.lostCount).toBe(1);
  });

  it('loses what a full receiver does not take', async () => {
    await datagramPort();
    // Not connected, so that the system bounds how many datagrams wait (net.unix.max_dgram_qlen).
    const fd = owned(bindDatagram(peerPath));
    const frames = Array.from({ length: 3000 }, (_, i) => Buffer.alloc(60, i));
    world.send(frames);
    let got = 0;
    while (receive(fd, NO_LIMIT).bytes.length > 0) got++;
    expect(got).toBe(world.sentCount);
    expect(world.sentCount + world.lostCount).toBe(3000);
    expect(world.lostCount).toBeGreaterThan(0);
    world.send(frames.slice(0, 1));
    expect(receive(fd, NO_LIMIT).bytes.length).toBe(60);
  });

  it('takes over a socket file that nobody has open, but not one in use', async () => {
    closeFd(bindDatagram(path));
    expect(existsSync(path)).toBe(true);
    await datagramPort();
    expect(() => bindDatagram(path)).toThrow('in use');
    await world.port!.stop();
    expect(existsSync(path)).toBe(false);
  });
});

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
