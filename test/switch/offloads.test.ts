/**
 * A whole switch with guests that agreed on different offloads: each frame that one sends with a header comes to each of the
 * others as it takes it, as the naive twin has it. What reaches whom is in test/switch/l2, what becomes of a frame in
 * test/offload; here are the headers of both sides, negotiation, and the guest's own wish.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { maskOf } from '../../protocol/bits.ts';
import { VIRTIO_FEATURE as F } from '../../protocol/virtio/features.ts';
import { NET_HDR_GSO, type NetHeader, netHeaderOf, netHeaderWords } from '../../protocol/virtio/net.ts';
import { EmbeddedGuest, type EmbeddedGuestOptions, GUEST_FEATURES } from '../../src/frontend/index.ts';
import { SEGMENTS_MAX } from '../../src/offload/request.ts';
import { settingsOf } from '../../switch/cli/options.ts';
import { resolveConfig } from '../../switch/config/resolve.ts';
import type { DropReason } from '../../switch/l2/drop-reasons.ts';
import { createLogger } from '../../switch/log.ts';
import { Switch } from '../../switch/switch.ts';
import { completed, judge, segmentsOf } from '../offload/naive-offload.ts';
import { ASKS_NOTHING, checksumRequest, type Request, segmentRequest } from '../offload/random-requests.ts';
import { Random, seeds } from '../vring/random.ts';

const ASKED = maskOf(F.NET_CSUM, F.NET_HOST_TSO4, F.NET_HOST_TSO6, F.NET_HOST_ECN, F.NET_HOST_USO);
const CSUM = maskOf(F.NET_GUEST_CSUM);
const TSO = CSUM | maskOf(F.NET_GUEST_TSO4, F.NET_GUEST_TSO6, F.NET_GUEST_ECN);
const ALL = TSO | maskOf(F.NET_GUEST_USO4, F.NET_GUEST_USO6);
const WITHOUT_MERGING = GUEST_FEATURES & ~maskOf(F.NET_MRG_RXBUF);
const SMALL = { bufferBytes: 2048, ringSize: 256 };
const LARGE = { bufferBytes: 70_000, ringSize: 256 };

/** What guests take, and how their buffers are. */
const RECEIVERS: Readonly<Record<string, Partial<EmbeddedGuestOptions> & { features: bigint }>> = {
  all: { features: GUEST_FEATURES | ALL, ...SMALL },
  allPacked: { features: GUEST_FEATURES | ALL, layout: 'packed', ...SMALL },
  allUnmerged: { features: WITHOUT_MERGING | ALL, ...LARGE },
  tso: { features: GUEST_FEATURES | TSO, ...SMALL },
  csum: { features: GUEST_FEATURES | CSUM, ...SMALL },
  none: { features: GUEST_FEATURES, ...SMALL },
  nonePacked: { features: WITHOUT_MERGING, layout: 'packed', ...LARGE },
};
/** What a guest must take to get a frame of that kind unsegmented. */
const NEEDED: Readonly<Record<number, readonly number[]>> = {
  [NET_HDR_GSO.TCPV4]: [F.NET_GUEST_TSO4],
  [NET_HDR_GSO.TCPV6]: [F.NET_GUEST_TSO6],
  [NET_HDR_GSO.UDP_L4]: [F.NET_GUEST_USO4, F.NET_GUEST_USO6],
};
const REQUESTS = 60;

let folder: string;
let running: Switch;
const guests = new Map<string, EmbeddedGuest>();

async function start(senderOptions = ''): Promise<void> {
  folder = mkdtempSync(join(tmpdir(), 'ringway-offloads-'));
  const receivers = Object.keys(RECEIVERS).map((name) => `${name}=${join(folder, name)}.sock`);
  const port = [`sender=${join(folder, 'sender')}.sock${senderOptions}`, ...receivers];
  running = await Switch.start(
    resolveConfig([settingsOf({ port, control: 'none' })]),
    createLogger('silent'),
  );
}

afterEach(async () => {
  for (const guest of guests.values()) guest.close();
  guests.clear();
  await running.stop();
  rmSync(folder, { recursive: true });
});

async function connect(name: string, options: Partial<EmbeddedGuestOptions>): Promise<EmbeddedGuest> {
  const socketPath = `${join(folder, name)}.sock`;
  const guest = await EmbeddedGuest.connect({ socketPath, waitMs: 10_000, ...options });
  guests.set(name, guest);
  return guest;
}

const dropsOfSender = (reason: DropReason): number =>
  running.ports().find(({ name }) => name === 'sender')!.drops[reason];

function randomRequest(random: Random): Request {
  const { frame, header } = random.chance(60)
    ? segmentRequest(random, SEGMENTS_MAX)
    : checksumRequest(random);
  // For everybody.
  frame.fill(0xff, 0, 6);
  if (random.chance(15)) return { frame, header: { ...header, flags: 0, gsoType: 0 } };
  if (random.chance(15)) return { frame, header: spoilt(random, header) };
  return { frame, header };
}

function spoilt(random: Random, header: NetHeader): NetHeader {
  const field = random.pick(['flags', 'gsoType', 'gsoSize', 'csumStart', 'csumOffset'] as const);
  const bits = field === 'flags' || field === 'gsoType' ? 8 : 16;
  return { ...header, [field]: random.next() % 2 ** random.between(1, bits) };
}

const headerBytes = (header: NetHeader): Uint8Array =>
  new Uint8Array(Int32Array.from(netHeaderWords(header, 0)).buffer);

function netHeaderIn(bytes: Uint8Array): NetHeader {
  const [word0, word1, word2] = new Int32Array(bytes.slice(0, 12).buffer);
  return netHeaderOf(word0, word1, word2);
}

type Came = { readonly frame: Uint8Array; readonly header: NetHeader };

/** What a guest that agreed on `features` should get of a frame that is not bad. */
function isAsDue({ frame, header }: Request, features: bigint, came: readonly Came[]): void {
  const verdict = judge(frame, header, SEGMENTS_MAX);
  const has = (...bits: number[]): boolean => (features & maskOf(...bits)) === maskOf(...bits);
  const one = (expected: Uint8Array, left: Partial<NetHeader>): void => {
    expect(came.map(({ header }) => header)).toMatchObject([left]);
    expectSame(came[0].frame, expected);
  };
  const asksNothing = { flags: 0, gsoType: 0 };
  const { csumStart, csumOffset, gsoSize, gsoType } = header;
  if (verdict === 'nothing') one(frame, asksNothing);
  if (verdict === 'checksum') {
    if (has(F.NET_GUEST_CSUM)) one(frame, { flags: 1, gsoType: 0, csumStart, csumOffset });
    else one(completed(frame, csumStart, csumOffset), asksNothing);
  }
  if (verdict !== 'segments') return;
  const needed = NEEDED[gsoType & ~NET_HDR_GSO.ECN];
  const segments = segmentsOf(frame, gsoSize);
  if (came.length === 1 && came[0].header.gsoType !== 0) {
    expect(has(...needed)).toBe(true);
    one(frame, { flags: 1, gsoType, gsoSize, csumStart, csumOffset });
    return;
  }
  expect(segments.length === 1 || !has(...needed)).toBe(true);
  expect(came).toHaveLength(segments.length);
  for (const [i, { frame: bytes, header: left }] of came.entries()) {
    expect(left.flags).toBe(has(F.NET_GUEST_CSUM) ? 1 : 0);
    const whole = left.flags === 1 ? completed(bytes, left.csumStart, left.csumOffset) : bytes;
    const at = csumStart + csumOffset;
    expectSame(oneZero(whole, at), oneZero(segments[i], at));
  }
}

function expectSame(frame: Uint8Array, expected: Uint8Array): void {
  expect(Buffer.from(frame).toString('latin1') === Buffer.from(expected).toString('latin1')).toBe(true);
}

/** Ones' complement has two zeros. */
function oneZero(frame: Uint8Array, at: number): Uint8Array {
  const same = frame.slice();
  if (same[at] === 0xff && same[at + 1] === 0xff) same.fill(0, at, at + 2);
  return same;
}

async function framesAt(guest: EmbeddedGuest, mark: Uint8Array): Promise<Came[]> {
  const came: Came[] = [];
  for (;;) {
    const bytes = await guest.received();
    if (Buffer.compare(bytes, mark) === 0) return came;
    came.push({ frame: bytes, header: netHeaderIn(guest.pairs[0].toGuest.header) });
  }
}

describe('frames with headers', () => {
  it.each(seeds(3))('come to each as it takes them, seed %d', { timeout: 120_000 }, async (seed) => {
    await start();
    await exchange(new Random(seed), (request) => request);
  });

  it.each(seeds(3))(
    'get a tag on the way from an access port, seed %d',
    { timeout: 120_000 },
    async (seed) => {
      await start(',tag=10');
      await exchange(new Random(seed), withTag);
    },
  );

  /** `arrivalOf`: what a request is behind the switch; null: such a one is not sent. */
  async function exchange(random: Random, arrivalOf: (request: Request) => Request | null): Promise<void> {
    const layout = random.pick(['split', 'packed'] as const);
    const sender = await connect('sender', {
      features: GUEST_FEATURES | ASKED,
      layout,
      ...LARGE,
      ringSize: 64,
    });
    for (const [name, options] of Object.entries(RECEIVERS)) await connect(name, options);
    const bad: Partial<Record<DropReason, number>> = {};
    for (let i = 0; i < REQUESTS; i++) {
      const request = randomRequest(random);
      const arrival = arrivalOf(request);
      if (arrival === null) continue;
      const { frame, header } = request;
      const verdict = judge(frame, header, SEGMENTS_MAX);
      const pieces = random.chance(50) ? [random.between(1, 40), random.between(0, 20)] : [];
      expect(sender.send(frame, { header: headerBytes(header), pieces, indirect: random.chance(30) })).toBe(
        true,
      );
      const mark = Uint8Array.from({ length: 60 }, (_, at) => (at < 6 ? 0xff : at + i));
      expect(sender.send(mark)).toBe(true);
      const arrivedMark = arrivalOf({ frame: mark, header: ASKS_NOTHING })!.frame;
      const name = BAD[verdict];
      if (name !== undefined) bad[name] = (bad[name] ?? 0) + 1;
      for (const [receiver, { features }] of Object.entries(RECEIVERS)) {
        const came = await framesAt(guests.get(receiver)!, arrivedMark);
        if (name !== undefined) expect(came).toEqual([]);
        else isAsDue(arrival, features, came);
      }
    }
    for (const [name, count] of Object.entries(bad)) expect(dropsOfSender(name as DropReason)).toBe(count);
  }
});

/** Null for a frame that has a tag already. */
function withTag({ frame, header }: Request): Request | null {
  if ([0x8100, 0x88a8].includes((frame[12] << 8) | frame[13])) return null;
  const tagged = Uint8Array.from([...frame.subarray(0, 12), 0x81, 0, 0, 10, ...frame.subarray(12)]);
  return { frame: tagged, header: { ...header, csumStart: header.csumStart + 4 } };
}

const BAD: Readonly<Record<string, DropReason>> = {
  'bad checksum': 'badChecksumRequest',
  'bad segments': 'badSegmentRequest',
  'too many segments': 'tooManySegments',
};
