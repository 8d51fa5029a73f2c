/**
 * The hostile front-end of peers.ts, and a partner that sends to it: does what its case says (CASES), tells what it saw
 * of it, and goes on sending until it is ended. A process of its own: `peer-guest.ts CASE SOCKET PARTNER_SOCKET
 * FOLDER`, where FOLDER is what peers.ts prepared for this case.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { maskOf } from '../../protocol/bits.ts';
import { PROTOCOL_FEATURE } from '../../protocol/vhost-user/features.ts';
import { NET_HEADER_BYTES } from '../../protocol/virtio/net.ts';
import { DESC_F_AVAIL, DESC_F_USED } from '../../protocol/virtio/packed-ring.ts';
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import {
  DeviceError,
  type DriverRing,
  EmbeddedGuest,
  type EmbeddedGuestOptions,
} from '../../src/frontend/index.ts';
import { libc } from '../../src/host/libc.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import { BackEndError, FrontEndSession } from '../../src/vhost-user/front-end.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import { CHAIN_DESCRIPTORS_MAX } from '../../src/vring/descriptor-list.ts';
import { fillAndBlock } from '../../test/host/shared-descriptors.ts';

export type CaseName = keyof typeof CASES;

const [caseName, socketPath, partnerSocket, folder] = process.argv.slice(2);
const WAIT_MS = 10_000;
const PAGE_BYTES = 4096;
const FRAME_BYTES = 100;
/** A burst of this many frames each millisecond goes to the hostile guest. */
const BURST_FRAMES = 4;
const ARRIVE_MS = 2000;
const FIRST_MS = 50;
const FIRST_TRIES = 100;
const SENDING_QUEUES = 16;
/** Of the hostile guest, where it names tables. */
const RING_SIZE = 1024;

const partner = await EmbeddedGuest.connect({
  socketPath: partnerSocket,
  waitMs: WAIT_MS,
  mac: '52:54:00:00:02:02',
});
let sent = 0;

function connect(options: Partial<EmbeddedGuestOptions> = {}): Promise<EmbeddedGuest> {
  return EmbeddedGuest.connect({ socketPath, waitMs: WAIT_MS, mac: '52:54:00:00:02:01', ...options });
}

function frame(from: EmbeddedGuest): Uint8Array {
  const bytes = new Uint8Array(FRAME_BYTES).fill(0xff, 0, 6);
  bytes.set(from.mac, 6);
  new DataView(bytes.buffer).setUint32(20, sent++);
  return bytes;
}

/** Numbers of the frames that came from `from` and wait at `to`. */
function numbersAt(to: EmbeddedGuest, from: EmbeddedGuest): number[] {
  const numbers: number[] = [];
  for (let bytes = to.receive(); bytes !== null; bytes = to.receive()) {
    if (Buffer.compare(bytes.subarray(6, 12), from.mac) !== 0) continue;
    numbers.push(new DataView(bytes.buffer, bytes.byteOffset).getUint32(20));
  }
  return numbers;
}

async function pause(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 1));
}

/** Collects until frame `last` came, or nothing more does. */
async function arrived(
  to: EmbeddedGuest,
  from: EmbeddedGuest,
  last: number,
  waitMs = ARRIVE_MS,
): Promise<number[]> {
  const numbers: number[] = [];
  const endMs = performance.now() + waitMs;
  while (!numbers.includes(last) && performance.now() < endMs) {
    numbers.push(...numbersAt(to, from));
    await pause();
  }
  return numbers;
}

/**
 * Sends frames one after another, once the first has come through; tells how many arrived, and how many that had been
 * sent before. A switch may still be setting up a port whose front-end was answered, so what is sent until then may go.
 */
async function flow(from: EmbeddedGuest, to: EmbeddedGuest, count: number): Promise<string> {
  const newNumber = sent;
  let [came, old] = [0, 0];
  const passes = async (waitMs: number): Promise<boolean> => {
    const number = sent;
    from.send(frame(from));
    const numbers = await arrived(to, from, number, waitMs);
    old += numbers.filter((each) => each < newNumber).length;
    return numbers.includes(number);
  };
  try {
    for (let tries = 0; !(await passes(FIRST_MS)); tries++) if (tries === FIRST_TRIES) return `0 of ${count}`;
    while (came < count && (await passes(ARRIVE_MS))) came++;
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
    return `${came} of ${count}, then its driver sees: ${error.message}`;
  }
  return `${came} of ${count}${old > 0 ? ` (and ${old} old ones)` : ''}`;
}

async function flowBothWays(guest: EmbeddedGuest, count: number): Promise<string> {
  return `frames to it: ${await flow(partner, guest, count)}; from it: ${await flow(guest, partner, count)}`;
}

function keepSending(): void {
  setInterval(() => {
    for (let i = 0; i < BURST_FRAMES; i++) partner.send(frame(partner));
  }, 1);
}

function rings(guest: EmbeddedGuest): DriverRing[] {
  return guest.pairs.flatMap(({ toGuest, fromGuest }) => [toGuest.ring, fromGuest.ring]);
}

/** Buffers so large that most of them lie in other pages than the rings. */
function inFile(path: string): Promise<EmbeddedGuest> {
  return connect({
    bufferBytes: 32_768,
    makeMemoryFile: (sizeBytes) => {
      const fd = openSync(path, 'w+');
      ftruncateSync(fd, sizeBytes);
      return fd;
    },
  });
}

/**
 * Makes every receive descriptor name the same table of so many entries, empty but for the first: in a packed ring all of them are one
 * chain, in a split one each is a chain by itself.
 */
async function namesTables(layout: RingLayoutKind, entries: number, firstBytes = 0): Promise<string> {
  const guest = await connect({ ringSize: RING_SIZE, memoryBytes: 2 ** 24, layout });
  const table = guest.memory.allocate(entries * 16, PAGE_BYTES);
  const view = new DataView(guest.memory.buffer);
  const isPacked = layout === 'packed';
  const [flagsAt, wordAt] = isPacked ? [14, 12] : [12, 14];
  const describe = (at: number, gpa: number, sizeBytes: number): void => {
    view.setBigUint64(at, BigInt(gpa), true);
    view.setUint32(at + 8, sizeBytes, true);
  };
  for (let i = 0; i < entries; i++) {
    const at = table + 16 * i;
    describe(at, guest.memory.gpaOf(0), i === 0 ? firstBytes : 0);
    view.setUint16(at + flagsAt, DESC_F_WRITE | (!isPacked && i < entries - 1 ? DESC_F_NEXT : 0), true);
    view.setUint16(at + wordAt, i + 1, true);
  }
  const { descOffset } = rings(guest)[0].layout;
  for (let i = 0; i < RING_SIZE; i++) {
    const at = descOffset + 16 * i;
    describe(at, guest.memory.gpaOf(table), entries * 16);
    const whose = isPacked ? view.getUint16(at + flagsAt, true) & (DESC_F_AVAIL | DESC_F_USED) : 0;
    const next = isPacked && i < RING_SIZE - 1 ? DESC_F_NEXT : 0;
    view.setUint16(at + flagsAt, DESC_F_INDIRECT | next | whose, true);
  }
  keepSending();
  return '';
}

/**
 * Sixteen queues that offer a full ring of sent chains again and again: each chain the longest that is taken, a header, a
 * frame for the partner and otherwise empty buffers.
 */
async function sendsLongChains(): Promise<string> {
  const guest = await connect({ queuePairs: SENDING_QUEUES, ringSize: RING_SIZE, memoryBytes: 2 ** 27 });
  await flowBothWays(guest, 20);
  const entries = CHAIN_DESCRIPTORS_MAX;
  const table = guest.memory.allocate(entries * 16, PAGE_BYTES);
  const bytes = guest.memory.allocate(PAGE_BYTES, PAGE_BYTES);
  const view = new DataView(guest.memory.buffer);
  const buffer = new Uint8Array(guest.memory.buffer, bytes + NET_HEADER_BYTES, FRAME_BYTES);
  buffer.set(frame(guest));
  buffer.set(partner.mac);
  for (let i = 0; i < entries; i++) {
    const at = table + 16 * i;
    view.setBigUint64(at, BigInt(guest.memory.gpaOf(bytes)), true);
    view.setUint32(at + 8, i === 0 ? NET_HEADER_BYTES + FRAME_BYTES : 0, true);
    view.setUint16(at + 12, i < entries - 1 ? DESC_F_NEXT : 0, true);
    view.setUint16(at + 14, i + 1, true);
  }
  const sending = guest.pairs.map(({ fromGuest }) => fromGuest.ring);
  for (const { layout } of sending) {
    view.setBigUint64(layout.descOffset, BigInt(guest.memory.gpaOf(table)), true);
    view.setUint32(layout.descOffset + 8, entries * 16, true);
    view.setUint16(layout.descOffset + 12, DESC_F_INDIRECT, true);
    // Every entry of the avail ring names descriptor 0, and its index runs ahead of the used index by the whole ring.
    guest.memory.u16.fill(0, layout.driverOffset / 2 + 2, layout.driverOffset / 2 + 2 + RING_SIZE);
  }
  const offer = (): void => {
    for (const { driverOffset, deviceOffset } of sending.map(({ layout }) => layout)) {
      guest.memory.u16[driverOffset / 2 + 1] = guest.memory.u16[deviceOffset / 2 + 1] + RING_SIZE;
    }
    for (const ring of sending) ring.kick();
    setTimeout(offer, 1);
  };
  offer();
  return '';
}

/** Connects anew and names these bases. */
async function reconnectAt(guest: EmbeddedGuest, baseOf: (ring: DriverRing) => number): Promise<void> {
  for (const ring of rings(guest)) ring.layout.base = () => baseOf(ring);
  await guest.reconnect({ waitMs: WAIT_MS });
}

/** A connection on which refusals are told. */
async function bareSession(): Promise<FrontEndSession> {
  const session = await FrontEndSession.connect(socketPath, { waitMs: WAIT_MS });
  await session.request('SET_OWNER', null);
  await session.request('SET_PROTOCOL_FEATURES', maskOf(PROTOCOL_FEATURE.REPLY_ACK));
  session.replyAck = true;
  return session;
}

/** What became of one message with such a descriptor as a memory file. */
async function sharesFile(fd: number): Promise<string> {
  const session = await bareSession();
  const region = { gpa: 0n, uva: 0x7f00_0000_0000n, sizeBytes: BigInt(PAGE_BYTES), mmapOffset: 0n };
  const answered = session.request('SET_MEM_TABLE', [region], { fds: [fd] }).then(
    () => 'it is taken',
    (error: Error) => error.message,
  );
  const silent = new Promise<string>((resolve) => setTimeout(resolve, ARRIVE_MS, 'no answer'));
  return Promise.race([answered, silent]);
}

/** Adds regions although the back-end did not say that it takes any. */
async function addsRegions(plan: readonly { sizeBytes: number; gpa: number }[]): Promise<string> {
  const session = await bareSession();
  const fd = createMemoryFile('regions', PAGE_BYTES);
  for (const [i, { sizeBytes, gpa }] of plan.entries()) {
    const region = { gpa: BigInt(gpa), uva: BigInt(gpa), sizeBytes: BigInt(sizeBytes), mmapOffset: 0n };
    try {
      await session.request('ADD_MEM_REG', region, { fds: [fd] });
    } catch (error) {
      return `CONFIGURE_MEM_SLOTS is not offered; region ${i + 1} all the same: ${(error as Error).message}`;
    }
  }
  return 'CONFIGURE_MEM_SLOTS is not offered; all are taken all the same';
}

const CASES = {
  /** For comparison. */
  nothing: async () => {
    const guest = await connect();
    const note = await flowBothWays(guest, 20);
    keepSending();
    return note;
  },
  truncated: async () => {
    const guest = await connect({
      makeMemoryFile: (sizeBytes) => {
        const fd = libc.memfd_create('unsealed', 0);
        ftruncateSync(fd, sizeBytes);
        return fd;
      },
    });
    await flowBothWays(guest, 20);
    ftruncateSync(guest.memory.fd, 0);
    keepSending();
    return '';
  },
  'tmpfs full': async () => {
    await inFile(join(folder, 'ram'));
    const filler = openSync(join(folder, 'filler'), 'w');
    try {
      for (;;) writeSync(filler, new Uint8Array(PAGE_BYTES));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    }
    closeSync(filler);
    keepSending();
    return '';
  },
  hole: async () => {
    const path = join(folder, 'ram');
    const guest = await inFile(path);
    const bytes = String(2 ** 22);
    execFileSync('fallocate', ['--length', String(guest.memory.sizeBytes), path]);
    execFileSync('fallocate', ['--punch-hole', '--offset', bytes, '--length', bytes, path]);
    execFileSync('fallocate', ['--length', bytes, join(folder, 'other')]);
    keepSending();
    return '';
  },
  'call blocks': async () => {
    const guest = await connect();
    await flowBothWays(guest, 20);
    const { ring } = guest.pairs[0].toGuest;
    try {
      readSync(ring.callFd, new Uint8Array(8));
    } catch (error) {
      // It was empty already.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
    fillAndBlock(ring.callFd);
    setInterval(() => {
      numbersAt(guest, partner);
      ring.arm();
    }, 1);
    keepSending();
    return '';
  },
  'one chain of tables': () => namesTables('packed', RING_SIZE - 1),
  'chains of empty buffers': () => namesTables('split', RING_SIZE - 1),
  'longest chains': () => namesTables('split', 65_535, NET_HEADER_BYTES),
  '16 sending queues': sendsLongChains,
  'base 0': async () => {
    const guest = await connect();
    await flowBothWays(guest, 300);
    await reconnectAt(guest, () => 0);
    return flowBothWays(guest, 20);
  },
  'base is avail': async () => {
    const guest = await connect();
    await flowBothWays(guest, 20);
    guest.session.close();
    const firstNumber = sent;
    for (let i = 0; i < 8; i++) guest.send(frame(guest));
    await reconnectAt(guest, ({ memory, layout }) => memory.u16[layout.driverOffset / 2 + 1]);
    const came = (await arrived(partner, guest, sent - 1)).filter((number) => number >= firstNumber);
    return `frames that waited: ${came.length} of 8; ${await flowBothWays(guest, 20)}`;
  },
  '509 regions': async () => {
    const regions = Array.from({ length: 509 }, (_, i) => ({
      sizeBytes: PAGE_BYTES,
      gpa: 2 ** 32 + 2 * i * PAGE_BYTES,
    }));
    try {
      return await flowBothWays(await connect({ ringSize: 64, regions, bufferBytes: 1024 }), 20);
    } catch (error) {
      if (error instanceof RangeError) return addsRegions(regions);
      if (!(error instanceof BackEndError)) throw error;
      return error.message;
    }
  },
  'dead file': async () => {
    const child = spawn('sleep', ['1000'], { stdio: 'ignore' });
    const fd = openSync(`/proc/${child.pid}/fd`, 'r');
    child.kill('SIGKILL');
    await once(child, 'exit');
    return sharesFile(fd);
  },
  'file never answers': () => sharesFile(openSync(join(folder, 'ram'), 'r+')),
} as const;

process.once('disconnect', () => process.exit());
try {
  process.send?.(await CASES[caseName as CaseName]());
} catch (error) {
  process.send?.(`the front-end failed: ${(error as Error).message}`);
}
