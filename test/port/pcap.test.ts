/**
 * The port that is a capture file, with real files and queues that the test itself turns: what is written and
 * read again, every reason for which a file cannot be used, and how the port goes on afterwards. At the end whole
 * switches with workers.
 */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { closeFd } from '../../src/host/descriptor.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import { connectUnix, listenUnix, receive, send } from '../../src/host/unix-socket.ts';
import { openEgress, openIngress, type QueueAttachment } from '../../src/port/kinds.ts';
import { PcapPort, type PcapPortOptions } from '../../src/port/pcap/port.ts';
import { INTERFACE_PORTS_MAX, InterfaceTable } from '../../src/port/pcap/queues.ts';
import { AS_THEY_CAME, Batch, REFUSED_FAULT } from '../../src/queue/batch.ts';
import type { EgressQueue, IngressQueue } from '../../src/queue/contract.ts';
import type { DataPath } from '../../src/queue/data-path.ts';
import { readHeads } from '../../src/queue/heads.ts';
import { COUNT_LOST, QueueState, STATE_FAULT } from '../../src/queue/state.ts';
import { settingsOf } from '../../switch/cli/options.ts';
import { resolveConfig, resolvePort } from '../../switch/config/resolve.ts';
import { createLogger } from '../../switch/log.ts';
import { PORTS_MAX } from '../../switch/ports-max.ts';
import { Switch } from '../../switch/switch.ts';
import { type OpenFds, openedSince, openFds } from '../host/open-fds.ts';
import { Bytes, naiveRead, pcapFile } from '../protocol/naive-capture.ts';
import { arena, arenaView, bytesOfFrame, ethernet, FrameBench } from '../switch/l2/frames.ts';
import { Random } from '../vring/random.ts';
import { framed, unframed } from './unix-world.ts';

const PORT_ID = 3;

afterAll(() => arena.release());

// FrameBench lays its frames at the arena's beginning; ports must not get that part.
const benchMemory = createMemoryFile('frames', 2 ** 25);
arena.map({ fd: benchMemory, fileOffset: 0, sizeBytes: 2 ** 25, pageBytes: 4096, preferredOffset: null });
closeSync(benchMemory);

/** Opens queues in the test's own thread. */
class TestDataPath implements DataPath {
  attachment: QueueAttachment | null = null;
  ingress: IngressQueue | null = null;
  egress: EgressQueue | null = null;

  async attach(queue: QueueAttachment): Promise<void> {
    this.attachment = queue;
    if (queue.direction === 'ingress') this.ingress = openIngress(arenaView, queue);
    else this.egress = openEgress(arenaView, queue, true);
  }

  async detach(): Promise<void> {
    this.ingress = null;
    this.egress = null;
  }

  async setCallFd(): Promise<void> {}
  async setMemory(): Promise<void> {}
  async setLog(): Promise<void> {}
  async announce(): Promise<void> {}
  async setPolicy(): Promise<void> {}
}

let before: OpenFds;
let folder: string;
let file: string;
let dataPath: TestDataPath;
let said: string[];
let port: PcapPort;
const batch = new Batch();
const bench = new FrameBench();

beforeEach(() => {
  descriptorLoop();
  before = openFds();
  folder = mkdtempSync(join(tmpdir(), 'ringway-pcap-'));
  file = join(folder, 'a.pcap');
  dataPath = new TestDataPath();
  said = [];
});

afterEach(async () => {
  await port?.stop();
  rmSync(folder, { recursive: true, force: true });
  expect(openedSince(before)).toEqual([]);
});

async function startPort(options: Partial<PcapPortOptions> = {}): Promise<PcapPort> {
  port = new PcapPort(
    { file, direction: 'write', snapBytes: 0, mirror: null, repeat: 'once', pace: 'full', ...options },
    {
      id: PORT_ID,
      name: 'cap0',
      arena,
      arenaView,
      dataPath,
      events: {
        info: (text) => said.push(text),
        warn: (text) => said.push(`warning: ${text}`),
        disconnected: () => said.push('disconnected'),
      },
    },
  );
  await port.start();
  return port;
}

/** Describes frames in the batch, every other one in pieces. */
function describeFrames(frames: readonly Uint8Array[]): void {
  batch.clear();
  for (const [i, bytes] of frames.entries()) {
    if (i % 2 === 0) bench.single(batch, bytes, i & 3);
    else bench.pieces(batch, bytes, [14, 3]);
  }
  readHeads(batch, arenaView.windows);
}

/** One burst; why frames were refused. */
function place(...frames: readonly Uint8Array[]): number[] {
  const queue = dataPath.egress!;
  describeFrames(frames);
  queue.begin();
  queue.place(batch, AS_THEY_CAME, frames.length);
  queue.end();
  return [...batch.refusedWhy.subarray(0, batch.refusedCount)];
}

/** A copy of one frame, as a burst of its own. */
function placeCopy(queue: EgressQueue, bytes: Uint8Array, portId: number, isIngress: boolean): void {
  describeFrames([bytes]);
  queue.begin();
  queue.placeCopies(batch, AS_THEY_CAME, 1, portId, isIngress);
  queue.end();
  expect(batch.refusedCount).toBe(0);
}

/** Everything that comes in until the queue stops or has nothing for many turns. */
function takeAll(framesMax = Number.POSITIVE_INFINITY): Uint8Array[] {
  const queue = dataPath.ingress!;
  const frames: Uint8Array[] = [];
  for (let idle = 0; queue.fault === 0 && idle < 100 && frames.length < framesMax; idle++) {
    if (queue.gather(batch) === 0) continue;
    for (let i = 0; i < batch.count; i++) frames.push(bytesOfFrame(batch, i));
    queue.finish();
    idle = 0;
  }
  return frames;
}

/** As the switch does when a worker met the fault. Resolves when the port has let go. */
async function fail(): Promise<void> {
  port.queueFailed();
  await vi.waitUntil(
    () => dataPath.ingress === null && dataPath.egress === null && port.status.state !== 'running',
    {
      interval: 1,
    },
  );
}

const randomFrames = (count: number, seed: number): Uint8Array[] => {
  const random = new Random(seed);
  return Array.from({ length: count }, () => random.bytes(random.between(14, 1600)));
};

describe('writing', () => {
  it('keeps every frame as it was given, with the name of the port, for the owner alone', async () => {
    await startPort();
    expect(port.status).toEqual({ state: 'running', reason: null });
    expect(naiveRead(readFileSync(file))).toEqual({ packets: [], end: 'end' });
    const frames = randomFrames(300, 1);
    const startedNs = BigInt(Date.now()) * 1_000_000n;
    for (let i = 0; i < frames.length; i += 30) {
      expect(place(...frames.slice(i, i + 30))).toEqual([]);
      // After each burst the file ends with a whole block.
      expect(naiveRead(readFileSync(file)).packets).toHaveLength(i + 30);
    }
    const { packets, end } = naiveRead(readFileSync(file));
    expect(end).toBe('end');
    expect(packets.map(({ data }) => data)).toEqual(frames);
    for (const { timeNs } of packets) {
      expect(timeNs! >= startedNs - 1_000_000n && timeNs! <= BigInt(Date.now() + 1) * 1_000_000n).toBe(true);
    }
    expect(readFileSync(file).includes('cap0')).toBe(true);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(port.counters.egressFrames).toBe(300);
    expect(port.details).toMatchObject({ bytesWritten: statSync(file).size, interfaces: 1 });
  });

  it('writes more than its memory holds in one burst', async () => {
    await startPort();
    const frames = Array.from({ length: 40 }, (_, i) => new Uint8Array(65_000).fill(i));
    place(...frames);
    const { packets } = naiveRead(readFileSync(file));
    expect(packets).toHaveLength(40);
    // `toEqual` takes 20 s for 2.6 MB where there is much else to do.
    for (const [i, { data }] of packets.entries())
      expect(Buffer.compare(data, frames[i]!), `frame ${i}`).toBe(0);
  });

  it('cuts frames where it is told to, and remembers how long they were', async () => {
    await startPort({ snapBytes: 33 });
    const frames = [...randomFrames(20, 2), ethernet(1, 2, { sizeBytes: 20 })];
    place(...frames);
    const { packets } = naiveRead(readFileSync(file));
    expect(packets.map(({ data }) => data)).toEqual(frames.map((bytes) => bytes.slice(0, 33)));
    expect(packets.map(({ originalBytes }) => originalBytes)).toEqual(frames.map(({ length }) => length));
  });

  it('empties a file that is there, and says so', async () => {
    writeFileSync(file, 'something else');
    await startPort();
    expect(said).toContain(`writes frames to ${file}, which held 14 bytes and was emptied`);
    expect(naiveRead(readFileSync(file)).end).toBe('end');
  });

  it('describes an interface for each mirrored port when its first frame comes, once for all workers', async () => {
    await startPort({ mirror: 'all' });
    const sources = [
      { portId: 0, name: 'vm0' },
      { portId: 9, name: 'vm9' },
    ];
    const queues = [dataPath.egress!, openEgress(arenaView, dataPath.attachment!, true)];
    const steps = [
      [0, 9, true],
      [1, 0, false],
      [1, 9, false],
      [0, 0, true],
    ] as const;
    for (const queue of queues) queue.nameSources(sources);
    for (const [worker, portId, isIngress] of steps) {
      placeCopy(queues[worker], ethernet(1, portId), portId, isIngress);
    }
    // The number of a port that left went to another one.
    for (const queue of queues) queue.nameSources([{ portId: 9, name: 'other' }]);
    for (const queue of queues) placeCopy(queue, ethernet(1, 9), 9, true);
    const bytes = readFileSync(file);
    const { packets, end } = naiveRead(bytes);
    expect(end).toBe('end');
    expect(packets.map(({ interfaceIndex }) => interfaceIndex)).toEqual([0, 1, 0, 1, 2, 2]);
    const at = ['vm9', 'vm0', 'other'].map((name) => bytes.indexOf(name));
    expect(at.every((place, i) => place > (at[i - 1] ?? 0))).toBe(true);
    expect(bytes.includes('cap0')).toBe(false);
    const flags = [...bytes.toString('hex').matchAll(/02000400(0[12])0000000{8}/g)].map(([, way]) => way);
    expect(flags).toEqual(['01', '02', '02', '01', '01', '01']);
  });

  it('waits by name while the disk is full', async () => {
    file = '/dev/full';
    await startPort();
    expect(port.status.state).toBe('waiting');
    expect(port.status.reason).toMatch(/^cannot write \/dev\/full: ENOSPC.*; tried again every 2 s$/);
  });

  it('waits for a folder that is missing, and starts when it is there', async () => {
    file = join(folder, 'later', 'a.pcapng');
    await startPort();
    expect(port.status.state).toBe('waiting');
    expect(port.status.reason).toBe(
      `cannot open ${file}: ENOENT (no such file or directory); tried again every 2 s`,
    );
    mkdirSync(join(folder, 'later'));
    await vi.waitUntil(() => port.status.state === 'running', { timeout: 10_000, interval: 10 });
    expect(existsSync(file)).toBe(true);
  });

  it.each([
    ['a folder', 'read', () => mkdirSync(file)],
    ['a folder', 'write', () => mkdirSync(file)],
    // A pipe that nobody reads and a socket cannot be opened at all.
    ['a named pipe', 'read', () => execFileSync('mkfifo', [file])],
    ['a named pipe', 'write', () => execFileSync('mkfifo', [file])],
    ['a socket', 'read', () => closeFd(listenUnix(file))],
    ['a socket', 'write', () => closeFd(listenUnix(file))],
  ] as const)('refuses %s by name (%s)', async (what, direction, make) => {
    make();
    await startPort({ direction });
    expect(port.status).toEqual({
      state: 'waiting',
      reason: `${file} is ${what}: name a file; tried again every 2 s`,
    });
  });

  it('loses no whole block when a write fails in the middle, and goes on with the same file', async () => {
    await startPort();
    const [first, second, third] = randomFrames(3, 3);
    place(first!);
    const size = statSync(file).size;
    // A worker whose disk is full.
    const full = openSync('/dev/full', 'w');
    const attachment = dataPath.attachment!;
    const broken = openEgress(arenaView, { ...attachment, fd: full } as QueueAttachment, true);
    describeFrames([second!]);
    broken.begin();
    broken.place(batch, AS_THEY_CAME, 1);
    expect(batch.refusedCount).toBe(0);
    broken.end();
    closeSync(full);
    expect(new QueueState(port.states, 0).counts[COUNT_LOST]).toBe(1);
    // The other worker sees the fault.
    expect(place(second!)).toEqual([REFUSED_FAULT]);
    expect(statSync(file).size).toBe(size);
    await fail();
    expect(port.status).toEqual({
      state: 'stopped',
      reason: `no space is left for ${file}: make room, the capture then goes on; tried again every 2 s`,
    });
    await vi.waitUntil(() => port.status.state === 'running', { timeout: 10_000, interval: 10 });
    place(third!);
    const { packets, end } = naiveRead(readFileSync(file));
    expect([end, packets.map(({ data }) => data)]).toEqual(['end', [first, third]]);
  });

  it('keeps its file open while it waits for room, and closes it when it is stopped then', async () => {
    await startPort();
    const open = () => openedSince(before).filter((opened) => opened.includes(file));
    new QueueState(port.states, 0).words[STATE_FAULT] = constants.errno.ENOSPC;
    await fail();
    expect(port.status.state).toBe('stopped');
    expect(open()).toHaveLength(1);
    await port.stop();
    expect(open()).toEqual([]);
  });
});

/** Longer than two looks at the file. */
const NOTICED = { timeout: 10_000, interval: 10 };

describe('a file that is written', () => {
  const [first, second] = randomFrames(2, 11);
  const framesIn = (path: string) => {
    const { packets, end } = naiveRead(readFileSync(path));
    expect(end).toBe('end');
    return packets.map(({ data }) => data);
  };
  const untilAnew = () => vi.waitUntil(() => said.filter((text) => text === 'running').length === 2, NOTICED);

  it.each<[string, () => void, string, number]>([
    ['moved away', () => renameSync(file, `${file}.1`), 'was moved away or removed', 1],
    ['removed', () => rmSync(file), 'was moved away or removed', 0],
    [
      'moved away with an empty one in its place',
      () => {
        renameSync(file, `${file}.1`);
        writeFileSync(file, '');
      },
      'was moved away and an empty file put there',
      1,
    ],
    ['copied and emptied', () => truncateSync(file), 'was cut to 0 bytes', 0],
  ])('and then %s is begun anew', async (_, change, why, kept) => {
    await startPort();
    place(first!);
    change();
    await untilAnew();
    expect(said).toContain(`${file} ${why}: begun anew`);
    place(second!);
    expect(framesIn(file)).toEqual([second]);
    if (kept === 1) expect(framesIn(`${file}.1`)).toEqual([first]);
    expect(port.status).toEqual({ state: 'running', reason: null });
  });

  it('is begun anew when it is as long as it may be, and so many are kept', async () => {
    await startPort({ rotateBytes: 10_000, files: 3 });
    const frames = Array.from({ length: 4 }, (_, i) => new Uint8Array(10_000).fill(i + 1));
    for (const [i, frame] of frames.entries()) {
      place(frame);
      if (i < 3)
        await vi.waitUntil(() => said.filter((text) => text === 'running').length === i + 2, NOTICED);
    }
    expect([file, `${file}.1`, `${file}.2`].map(framesIn)).toEqual([[frames[3]], [frames[2]], [frames[1]]]);
    expect(existsSync(`${file}.3`)).toBe(false);
    expect(port.status).toEqual({ state: 'running', reason: null });
  });

  it('is begun anew when it is old, if there are frames in it', async () => {
    await startPort({ rotateSeconds: 1 });
    place(first!);
    await untilAnew();
    expect([framesIn(file), framesIn(`${file}.1`)]).toEqual([[], [first]]);
  });

  it('is written on where it was moved to while another stands in its place, and that is said', async () => {
    await startPort();
    renameSync(file, `${file}.1`);
    writeFileSync(file, 'theirs');
    await vi.waitUntil(() => port.status.reason !== null, NOTICED);
    expect(port.status).toEqual({
      state: 'running',
      reason: `at ${file} stands what another program made: frames are written to the file that was there before`,
    });
    place(first!);
    expect([framesIn(`${file}.1`), readFileSync(file, 'utf8')]).toEqual([[first], 'theirs']);
    rmSync(file);
    await untilAnew();
    expect([framesIn(file), port.status.reason]).toEqual([[], null]);
  });

  it('and removed to make room, when the disk was full, is begun anew', async () => {
    await startPort();
    new QueueState(port.states, 0).words[STATE_FAULT] = constants.errno.ENOSPC;
    port.queueFailed();
    rmSync(file);
    await untilAnew();
    place(first!);
    expect(framesIn(file)).toEqual([first]);
  });
});

describe('reading', () => {
  const packets = (frames: readonly Uint8Array[], stepUs = 0) =>
    frames.map((data, i) => ({
      seconds: 100 + Math.floor((i * stepUs) / 1e6),
      fraction: (i * stepUs) % 1e6,
      data,
    }));

  it.each([
    [true, 0xa1b2c3d4],
    [false, 0xa1b23c4d],
  ])('gives every frame, then stops with their number (%s)', async (little, magic) => {
    // Several parts of the file, so that packets lie across their borders.
    const frames = randomFrames(1500, 4);
    writeFileSync(file, pcapFile(little, magic, packets(frames)));
    await startPort({ direction: 'read' });
    expect(port.status).toEqual({ state: 'running', reason: null });
    expect(takeAll()).toEqual(frames);
    await fail();
    expect(port.status).toEqual({ state: 'stopped', reason: 'capture read to its end: 1500 frames' });
    expect(said).toContain('disconnected');
    expect(port.counters.ingressFrames).toBe(1500);
  });

  it('reads what such a port wrote', async () => {
    await startPort({ mirror: 'all' });
    const frames = randomFrames(200, 5);
    for (const [i, bytes] of frames.entries()) placeCopy(dataPath.egress!, bytes, i % 7, true);
    await port.stop();
    await startPort({ direction: 'read', snapBytes: 700 });
    expect(takeAll()).toEqual(frames.map((bytes) => bytes.slice(0, 700)));
  });

  it('gives the frames before a broken place, then says where it is', async () => {
    const frames = randomFrames(10, 6);
    const good = pcapFile(true, 0xa1b2c3d4, packets(frames));
    writeFileSync(file, Buffer.concat([good, Buffer.alloc(16, 0xff)]));
    await startPort({ direction: 'read' });
    expect(takeAll()).toEqual(frames);
    await fail();
    expect(port.status.reason).toBe(
      `the capture is broken or not supported at byte ${good.length}, after 10 frames: a packet is said to have 4294967295 bytes`,
    );
  });

  it.each([
    ['', 'the capture file is empty'],
    [
      'GIF89a',
      /^the capture is broken or not supported at byte 0, after 0 frames: this is no pcap or pcapng file/,
    ],
    [
      pcapFile(true, 0xa1b2c3d4, [], 113),
      /at byte 0, after 0 frames: packets of link type 113 cannot be read/,
    ],
    [
      pcapFile(true, 0xa1b2c3d4, packets([new Uint8Array(60)])).slice(0, -1),
      'the capture ends in the middle of a packet or block that begins at byte 24, after 0 frames',
    ],
    [pcapFile(true, 0xa1b2c3d4, []), 'capture read to its end: 0 frames'],
  ])('says why nothing comes (%#)', async (content, reason) => {
    writeFileSync(file, content);
    await startPort({ direction: 'read', repeat: 'loop' });
    expect(takeAll()).toEqual([]);
    await fail();
    expect(port.status.state).toBe('stopped');
    if (typeof reason === 'string') expect(port.status.reason).toBe(reason);
    else expect(port.status.reason).toMatch(reason);
  });

  it.each([
    [0, 'capture read to its end: 0 frames'],
    [1, /ends in the middle/],
  ])(
    'passes over a block that is longer than its memory, also at the end (%i bytes missing)',
    async (missing, reason) => {
      const section = Buffer.alloc(28);
      section.writeUInt32LE(0x0a0d0d0a, 0);
      section.writeUInt32LE(28, 4);
      section.writeUInt32LE(0x1a2b3c4d, 8);
      section.writeUInt16LE(1, 12);
      section.writeUInt32LE(28, 24);
      const long = Buffer.alloc(2 ** 20);
      long.writeUInt32LE(0xbad, 0);
      long.writeUInt32LE(long.length, 4);
      const content = Buffer.concat([section, long, long]);
      writeFileSync(file, content.subarray(0, content.length - missing));
      await startPort({ direction: 'read' });
      expect(takeAll()).toEqual([]);
      await fail();
      if (typeof reason === 'string') expect(port.status.reason).toBe(reason);
      else expect(port.status.reason).toMatch(reason);
    },
  );

  it('begins again at the end when told to', async () => {
    const frames = randomFrames(5, 7);
    writeFileSync(file, pcapFile(true, 0xa1b2c3d4, packets(frames)));
    await startPort({ direction: 'read', repeat: 'loop' });
    expect(takeAll(15)).toEqual([...frames, ...frames, ...frames]);
    expect(port.status.state).toBe('running');
  });

  it('keeps the pauses of the capture', async () => {
    const frames = randomFrames(4, 8);
    // 1 ms apart, and the last after an hour.
    const content = packets(frames, 1000);
    content[3].seconds += 3600;
    writeFileSync(file, pcapFile(true, 0xa1b2c3d4, content));
    await startPort({ direction: 'read', pace: 'recorded' });
    const startedMs = performance.now();
    const taken: Uint8Array[] = [];
    while (taken.length < 3) taken.push(...takeAll());
    expect(performance.now() - startedMs).toBeGreaterThanOrEqual(2);
    expect(taken).toEqual(frames.slice(0, 3));
    expect(takeAll()).toEqual([]);
    expect(port.status.state).toBe('running');
  });

  it('says how long nothing comes, and what to do about it', async () => {
    const frames = randomFrames(2, 9);
    const content = packets(frames);
    content[1].seconds += 365 * 86_400;
    writeFileSync(file, pcapFile(true, 0xa1b2c3d4, content));
    await startPort({ direction: 'read', pace: 'recorded' });
    expect(takeAll()).toEqual([frames[0]]);
    const reason = 'the next frame is due in 365 days, as it was captured (pace=full does not wait)';
    expect(port.status).toEqual({ state: 'running', reason });
    expect(port.details.nextDueSeconds).toBe(365 * 86_400);
    await vi.waitUntil(() => said.includes(reason), NOTICED);
  });

  it('sends frames without their check sequences', async () => {
    const frame = ethernet(1, 2, { sizeBytes: 60 });
    const withFcs = Buffer.concat([frame, Buffer.from([1, 2, 3, 4])]);
    writeFileSync(file, pcapFile(true, 0xa1b2c3d4, packets([withFcs, withFcs]), 1 + 0x2400_0000));
    await startPort({ direction: 'read' });
    expect(takeAll()).toEqual([frame, frame]);
    await fail();
    expect(port.details.withoutCheckSequence).toBe(2);
    expect(port.status.reason).toBe('capture read to its end: 2 frames');
  });

  it('counts what is to be doubted, and says it while it runs and at the end', async () => {
    const frame = ethernet(1, 2, { sizeBytes: 60 });
    const content = new Bytes(true)
      .block(0x0a0d0d0a, (body) => body.u32(0x1a2b3c4d).u16(1, 0).i64(-1n))
      .block(1, (body) => body.u16(1, 0).u32(0))
      .block(0xabc, (body) => body.u32(0))
      .block(6, (body) => body.u32(0, 0, 0, 60, 1514).raw(frame, true))
      .block(6, (body) => body.u32(0, 0, 0, 60, 1514).raw(frame, true))
      .block(2, (body) => body.u16(0, 0).u32(0, 0, 60, 42).raw(frame, true))
      .block(3, (body) => body.u32(60).raw(frame, true))
      // The queue waits here.
      .block(6, (body) => body.u32(0, 2 ** 20, 0, 60, 60).raw(frame, true));
    writeFileSync(file, content.done());
    await startPort({ direction: 'read', pace: 'recorded' });
    expect(takeAll().map(({ length }) => length)).toEqual([60, 60, 42, 60]);
    const found =
      '2 frames held only in part by the capture and sent so; 1 frame said to hold more bytes than they had, ' +
      'which were left out; 1 frame without a time and sent at once; 1 block of unknown kind passed over';
    expect(port.status.state).toBe('running');
    expect(port.status.reason).toContain(`${found}; the next frame is due in `);
    expect(port.details).toMatchObject({ cut: 2, overlong: 1, untimed: 1, unknownBlocks: 1, packets: 4 });
    await vi.waitUntil(() => said.includes(`warning: ${found}`), NOTICED);
    await port.stop();
    await startPort({ direction: 'read' });
    takeAll();
    await fail();
    expect(port.status.reason).toBe(
      'capture read to its end: 5 frames; 2 frames held only in part by the capture and sent so; 1 frame said to ' +
        'hold more bytes than they had, which were left out; 1 block of unknown kind passed over',
    );
    expect(said).toContain(`warning: ${port.status.reason}`);
  });

  it('waits for a file that is missing', async () => {
    await startPort({ direction: 'read' });
    expect(port.status).toEqual({
      state: 'waiting',
      reason: `cannot open ${file}: ENOENT (no such file or directory); tried again every 2 s`,
    });
    writeFileSync(file, pcapFile(true, 0xa1b2c3d4, []));
    await vi.waitUntil(() => port.status.state === 'running', { timeout: 10_000, interval: 10 });
  });
});

/** The far side of a port of kind unix. */
class Station {
  readonly frames: Uint8Array[] = [];
  readonly #fd: number;
  #rest = Buffer.alloc(0);

  constructor(path: string) {
    this.#fd = connectUnix(path);
  }

  say(...frames: Uint8Array[]): void {
    send(this.#fd, framed(frames));
  }

  async hears(count: number): Promise<Uint8Array[]> {
    await vi.waitUntil(
      () => {
        const bytes = Buffer.concat([this.#rest, receive(this.#fd, 8192).bytes]);
        const { frames, usedBytes } = unframed(bytes);
        this.#rest = bytes.subarray(usedBytes);
        this.frames.push(...frames.map((frame) => new Uint8Array(frame)));
        return this.frames.length >= count;
      },
      { timeout: 10_000, interval: 1 },
    );
    return this.frames.splice(0);
  }

  close(): void {
    closeFd(this.#fd);
  }
}

describe('in a switch', () => {
  it('replays to every other port, and takes no live station that speaks in the capture off the net', async () => {
    const ALL = [255, 255, 255, 255, 255, 255];
    const names = ['a', 'b', 'c'];
    const ports = names.map((name) => `${name}=unix:${join(folder, `${name}.sock`)}`);
    const config = resolveConfig([settingsOf({ port: ports, control: 'none' })]);
    const running = await Switch.start(config, createLogger('silent'));
    const stations = names.map((name) => new Station(join(folder, `${name}.sock`)));
    const [a, b, c] = stations;
    const homes = () => running.fdb().entries.map(({ mac, port }) => [Number(mac.slice(-2)), port]);
    try {
      await vi.waitUntil(() => running.ports().every(({ state }) => state === 'running'), NOTICED);
      for (const [i, station] of stations.entries()) {
        const hello = ethernet(ALL, i + 1);
        station!.say(hello);
        for (const other of stations) if (other !== station) expect(await other.hears(1)).toEqual([hello]);
      }
      // Station 2, which is behind port b, speaks to all and to station 3, and a stranger to nobody known.
      const recorded = [ethernet(ALL, 2), ethernet(3, 2), ethernet(9, 8)];
      // And an hour later.
      const later = { seconds: 3600, fraction: 0, data: ethernet(ALL, 2) };
      const packets = recorded.map((data) => ({ seconds: 0, fraction: 0, data }));
      writeFileSync(file, pcapFile(true, 0xa1b2c3d4, [...packets, later]));
      await running.addPort(resolvePort('replay', { kind: 'pcap', file, direction: 'read' }));
      const [toAll, toThree, flooded] = recorded;
      expect(await a!.hears(2)).toEqual([toAll, flooded]);
      expect(await b!.hears(2)).toEqual([toAll, flooded]);
      expect(await c!.hears(3)).toEqual([toAll, toThree, flooded]);
      expect(homes().sort()).toEqual([
        [1, 'a'],
        [2, 'b'],
        [3, 'c'],
      ]);
      const during = Array.from({ length: 10 }, (_, i) => ethernet(2, 1, { payload: [i] }));
      a!.say(...during);
      expect(await b!.hears(10)).toEqual(during);
      expect(running.ports().find(({ name }) => name === 'replay')?.reason).toMatch(
        /^the next frame is due in/,
      );
      const drops = running.ports().flatMap((each) => Object.values(each.drops));
      expect(drops.every((count) => count === 0)).toBe(true);
    } finally {
      for (const station of stations) station.close();
      await running.stop();
    }
  });

  it('replays, writes and mirrors, also ports that are added later', async () => {
    const frames = Array.from({ length: 300 }, (_, i) => ethernet(9, 1, { payload: [i & 255, i >> 8] }));
    writeFileSync(
      file,
      pcapFile(
        true,
        0xa1b2c3d4,
        frames.map((data) => ({ seconds: 0, fraction: 0, data })),
      ),
    );
    const [out, mirror] = [join(folder, 'out.pcapng'), join(folder, 'mirror.pcapng')];
    const ports = [`mirror=pcap:${mirror},mirror=replay+out`, `all=pcap:${join(folder, 'all')},mirror=all`];
    const config = resolveConfig([settingsOf({ port: ports, control: 'none' })]);
    const running = await Switch.start(config, createLogger('silent'));
    try {
      await running.addPort(resolvePort('out', { kind: 'pcap', file: out }));
      await running.addPort(resolvePort('replay', { kind: 'pcap', file, direction: 'read', pace: 'full' }));
      const stateOf = (name: string) => running.ports().find((each) => each.name === name)!;
      await vi.waitUntil(() => stateOf('replay').state === 'stopped', { timeout: 10_000, interval: 5 });
      expect(stateOf('replay').reason).toBe('capture read to its end: 300 frames');
      for (const name of ['mirror', 'all', 'out', 'replay']) {
        expect(
          Object.values(stateOf(name).drops).every((count) => count === 0),
          name,
        ).toBe(true);
      }
      expect(running.fdb().entries.map((entry) => entry.port)).toEqual([]);
    } finally {
      await running.stop();
    }
    const read = (path: string) => naiveRead(readFileSync(path));
    expect(read(out).packets.map(({ data }) => data)).toEqual(frames);
    for (const path of [mirror, join(folder, 'all')]) {
      const { packets: copies, end } = read(path);
      expect(end).toBe('end');
      for (const index of [0, 1]) {
        const ofOne = copies.filter(({ interfaceIndex }) => interfaceIndex === index);
        expect(ofOne.map(({ data }) => data)).toEqual(frames);
      }
      expect(copies).toHaveLength(600);
    }
  });

  it('has room in a file for the interfaces of all its ports', () => {
    expect(INTERFACE_PORTS_MAX).toBe(PORTS_MAX);
    const table = new InterfaceTable(InterfaceTable.create());
    expect([table.add(7, 1), table.add(PORTS_MAX - 1, 2)]).toEqual([0, 1]);
    expect([table.find(7, 1), table.find(7, 2), table.find(PORTS_MAX - 1, 2)]).toEqual([0, -1, 1]);
    table.cutTo(1);
    expect([table.find(7, 1), table.find(PORTS_MAX - 1, 2), table.count]).toEqual([0, -1, 1]);
  });
});
