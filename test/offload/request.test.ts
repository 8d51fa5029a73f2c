/** What a guest may ask for: every field of the header and of the frame that matters, right and wrong. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NET_HDR_F, NET_HDR_GSO, type NetHeader, netHeaderWords } from '../../protocol/virtio/net.ts';
import type { Window } from '../../src/memory/window.ts';
import {
  asksNothing,
  REQUEST_BAD_CHECKSUM,
  REQUEST_BAD_SEGMENTS,
  REQUEST_TAKEN,
  REQUEST_TOO_MANY_SEGMENTS,
  REQUEST_TOO_SCATTERED,
  SEGMENTS_MAX,
  takeRequest,
} from '../../src/offload/request.ts';
import { Batch, FRAME_PIECES_MAX } from '../../src/queue/batch.ts';
import {
  OFFLOAD_CHECKSUM,
  OFFLOAD_ECN,
  OFFLOAD_TSO4,
  OFFLOAD_TSO6,
  OFFLOAD_USO4,
  OFFLOAD_USO6,
  REQUEST_HEADER_BYTES_MAX,
} from '../../src/queue/requests.ts';
import { Random, seeds } from '../vring/random.ts';
import { slotPlace } from '../vring/scratch.ts';
import { judge, type Verdict } from './naive-offload.ts';
import { ALL_OFFLOADS, OffloadWorld } from './offload-world.ts';
import { ASKS_NOTHING, makeFrame, oddRequest, type Request, type Shape } from './random-requests.ts';

const REQUESTS = 20;
const PLAIN: Shape = {
  version: 4,
  protocol: 6,
  tags: 0,
  optionBytes: 0,
  tcpOptionBytes: 0,
  payloadBytes: 3000,
};

const ANSWER: Readonly<Record<Verdict, number>> = {
  nothing: REQUEST_TAKEN,
  checksum: REQUEST_TAKEN,
  segments: REQUEST_TAKEN,
  'bad checksum': REQUEST_BAD_CHECKSUM,
  'bad segments': REQUEST_BAD_SEGMENTS,
  'too many segments': REQUEST_TOO_MANY_SEGMENTS,
};

describe('a request', () => {
  let world: OffloadWorld;
  beforeAll(() => {
    world = new OffloadWorld();
  });
  afterAll(() => world.release());

  type Changed = {
    readonly shape?: Partial<Shape>;
    readonly header?: Partial<NetHeader>;
    readonly change?: (frame: Uint8Array, data: DataView) => void;
    readonly agreed?: number;
  };

  /** What is answered to a good request for segments of 1,000 bytes with something changed about it. */
  function answerTo({ shape = {}, header = {}, change, agreed }: Changed): number {
    const { frame, csumStart } = makeFrame(new Random(7), { ...PLAIN, ...shape });
    const { version, protocol } = { ...PLAIN, ...shape };
    const tcp = version === 4 ? NET_HDR_GSO.TCPV4 : NET_HDR_GSO.TCPV6;
    const good: NetHeader = {
      flags: NET_HDR_F.NEEDS_CSUM,
      gsoType: protocol === 6 ? tcp : NET_HDR_GSO.UDP_L4,
      hdrLen: 0,
      gsoSize: 1000,
      csumStart,
      csumOffset: protocol === 6 ? 16 : 6,
    };
    change?.(frame, new DataView(frame.buffer));
    return world.take([{ frame, header: { ...good, ...header } }], null, agreed)[0];
  }

  const needs = (): number => world.batch.needsOf(0);

  it('that asks for nothing is nothing', () => {
    expect(asksNothing(0)).toBe(true);
    expect(asksNothing(NET_HDR_F.DATA_VALID | NET_HDR_F.RSC_INFO | (54 << 16))).toBe(true);
    expect(asksNothing(NET_HDR_F.NEEDS_CSUM)).toBe(false);
    expect(asksNothing(NET_HDR_GSO.TCPV4 << 8)).toBe(false);
    expect(answerTo({ header: ASKS_NOTHING })).toBe(REQUEST_TAKEN);
    expect(world.batch.asks).toBe(false);
    expect(needs()).toBe(0);
  });

  it('for segments says what the receiver must be able to do', () => {
    const ecn = { gsoType: NET_HDR_GSO.TCPV4 | NET_HDR_GSO.ECN };
    const rows: [Changed, number][] = [
      [{}, OFFLOAD_CHECKSUM | OFFLOAD_TSO4],
      [{ header: ecn }, OFFLOAD_CHECKSUM | OFFLOAD_TSO4 | OFFLOAD_ECN],
      [{ shape: { version: 6 } }, OFFLOAD_CHECKSUM | OFFLOAD_TSO6],
      [{ shape: { protocol: 17 } }, OFFLOAD_CHECKSUM | OFFLOAD_USO4],
      [{ shape: { version: 6, protocol: 17 } }, OFFLOAD_CHECKSUM | OFFLOAD_USO6],
      [{ shape: { tags: 2, optionBytes: 8, tcpOptionBytes: 40 } }, OFFLOAD_CHECKSUM | OFFLOAD_TSO4],
    ];
    for (const [changed, expected] of rows) {
      expect(answerTo(changed)).toBe(REQUEST_TAKEN);
      expect(needs()).toBe(expected);
    }
  });

  it('of a frame that is one segment asks for its checksum only', () => {
    expect(answerTo({ header: { gsoSize: 3000 } })).toBe(REQUEST_TAKEN);
    expect(needs()).toBe(OFFLOAD_CHECKSUM);
    expect(answerTo({ header: { gsoSize: 2999 } })).toBe(REQUEST_TAKEN);
    expect(needs()).toBe(OFFLOAD_CHECKSUM | OFFLOAD_TSO4);
    expect(answerTo({ shape: { payloadBytes: 0 } })).toBe(REQUEST_TAKEN);
    expect(needs()).toBe(OFFLOAD_CHECKSUM);
  });

  it('does not have hdr_len believed', () => {
    for (const hdrLen of [0, 1, 53, 54, 55, 0xffff]) {
      expect(answerTo({ header: { hdrLen } })).toBe(REQUEST_TAKEN);
      expect(world.batch.requests.headerBytesOf(0)).toBe(54);
    }
  });

  it.for<[string, Changed]>([
    ['without NEEDS_CSUM', { header: { flags: 0 } }],
    ['with DATA_VALID in its place', { header: { flags: NET_HDR_F.DATA_VALID } }],
    ['of no kind that there is', { header: { gsoType: 2 } }],
    ['of UFO', { shape: { protocol: 17 }, header: { gsoType: NET_HDR_GSO.UDP } }],
    ['of nothing but ECN', { header: { gsoType: NET_HDR_GSO.ECN } }],
    [
      'of UDP with ECN',
      { shape: { protocol: 17 }, header: { gsoType: NET_HDR_GSO.UDP_L4 | NET_HDR_GSO.ECN } },
    ],
    ['of 0 bytes', { header: { gsoSize: 0 } }],
    [
      'of TCP that is UDP',
      { shape: { protocol: 17 }, header: { gsoType: NET_HDR_GSO.TCPV4, csumOffset: 16 } },
    ],
    ['of UDP that is TCP', { header: { gsoType: NET_HDR_GSO.UDP_L4, csumOffset: 6 } }],
    ['of IPv6 that is IPv4', { header: { gsoType: NET_HDR_GSO.TCPV6 } }],
    ['of IPv4 that is IPv6', { shape: { version: 6 }, header: { gsoType: NET_HDR_GSO.TCPV4 } }],
    ['that begin in the Ethernet header', { header: { csumStart: 13 } }],
    ['that begin before TCP', { header: { csumStart: 33 } }],
    ['that begin behind TCP', { header: { csumStart: 35 } }],
    ['that begin at the end', { header: { csumStart: 3052 } }],
    ['that begin behind the end', { header: { csumStart: 3055 } }],
    ['that begin far behind the end', { header: { csumStart: 0xffff, csumOffset: 0xffff } }],
    ['with the checksum elsewhere', { header: { csumOffset: 18 } }],
    ['of what is not IP', { change: (_, data) => data.setUint16(12, 0x0806) }],
    ['with IPv6 in the ethertype and IPv4 behind it', { change: (_, data) => data.setUint16(12, 0x86dd) }],
    ['of three tags', { shape: { tags: 2 }, change: (_, data) => data.setUint16(20, 0x8100) }],
    ['of IP version 5', { change: (frame) => (frame[14] = 0x55) }],
    ['of an IPv4 header that is too short', { change: (frame) => (frame[14] = 0x44) }],
    ['of an IPv4 header that ends elsewhere', { change: (frame) => (frame[14] = 0x46) }],
    ['of the first fragment', { change: (frame) => (frame[20] = 0x20) }],
    ['of a later fragment', { change: (frame) => (frame[21] = 1) }],
    ['of an IPv4 packet that is shorter', { change: (_, data) => data.setUint16(16, 3039) }],
    ['of an IPv4 packet that is longer', { change: (_, data) => data.setUint16(16, 3041) }],
    [
      'of an IPv6 packet that is longer',
      { shape: { version: 6 }, change: (_, data) => data.setUint16(18, 3021) },
    ],
    ['of a TCP header that is too short', { change: (frame) => (frame[46] = 0x40) }],
    [
      'of a TCP header longer than the frame',
      { shape: { payloadBytes: 2 }, change: (frame) => (frame[46] = 0xf0) },
    ],
    [
      'of a UDP length that is another',
      { shape: { protocol: 17 }, change: (_, data) => data.setUint16(38, 3007) },
    ],
    [
      'of IPv6 with a fragment header',
      { shape: { version: 6, optionBytes: 8 }, change: (frame) => (frame[20] = 44) },
    ],
    [
      'of IPv6 with a header of no kind',
      { shape: { version: 6, optionBytes: 8 }, change: (frame) => (frame[20] = 59) },
    ],
    [
      'of an extension header that ends elsewhere',
      { shape: { version: 6, optionBytes: 8 }, change: (f) => (f[55] = 1) },
    ],
    ['of headers that are too long', { shape: { version: 6, optionBytes: 184 } }],
  ])('is refused for segments %s', ([, changed]) => {
    expect(answerTo(changed)).toBe(REQUEST_BAD_SEGMENTS);
    expect(needs()).toBe(0);
  });

  it('takes headers up to what is kept of them', () => {
    const optionBytes = REQUEST_HEADER_BYTES_MAX - 80;
    expect(answerTo({ shape: { version: 6, optionBytes, tcpOptionBytes: 8 } })).toBe(REQUEST_BAD_SEGMENTS);
    expect(answerTo({ shape: { version: 6, optionBytes, tcpOptionBytes: 4 } })).toBe(REQUEST_TAKEN);
    expect(world.batch.requests.headerBytesOf(0)).toBe(REQUEST_HEADER_BYTES_MAX - 2);
  });

  it('may leave the length of the IP packet out', () => {
    expect(answerTo({ change: (_, data) => data.setUint16(16, 0) })).toBe(REQUEST_TAKEN);
    expect(answerTo({ shape: { version: 6 }, change: (_, data) => data.setUint16(18, 0) })).toBe(
      REQUEST_TAKEN,
    );
  });

  it('is for so many segments and no more', () => {
    const payloadBytes = 10 * SEGMENTS_MAX;
    expect(answerTo({ shape: { payloadBytes }, header: { gsoSize: 10 } })).toBe(REQUEST_TAKEN);
    expect(answerTo({ shape: { payloadBytes: payloadBytes + 1 }, header: { gsoSize: 10 } })).toBe(
      REQUEST_TOO_MANY_SEGMENTS,
    );
    expect(needs()).toBe(0);
  });

  it('for a checksum may stand in any frame, behind the Ethernet header and within it', () => {
    const frame = new Uint8Array(60).fill(0xab);
    const ask = (csumStart: number, csumOffset: number): number => {
      const header = { ...ASKS_NOTHING, flags: NET_HDR_F.NEEDS_CSUM, csumStart, csumOffset };
      return world.take([{ frame, header }], null)[0];
    };
    for (const [csumStart, csumOffset] of [
      [14, 0],
      [15, 1],
      [58, 0],
      [14, 44],
    ]) {
      expect(ask(csumStart, csumOffset)).toBe(REQUEST_TAKEN);
      expect(needs()).toBe(OFFLOAD_CHECKSUM);
      expect(world.batch.requests.csumStartOf(0)).toBe(csumStart);
      expect(world.batch.requests.csumOffsetOf(0)).toBe(csumOffset);
    }
    for (const [csumStart, csumOffset] of [
      [0, 0],
      [13, 10],
      [59, 0],
      [14, 45],
      [60, 0],
      [0xffff, 0xffff],
      [14, 0xffff],
    ]) {
      expect(ask(csumStart, csumOffset)).toBe(REQUEST_BAD_CHECKSUM);
      expect(needs()).toBe(0);
    }
  });

  it('may ask for what was agreed on only', () => {
    const csum = { header: { gsoType: NET_HDR_GSO.NONE } };
    expect(answerTo({ ...csum, agreed: OFFLOAD_CHECKSUM })).toBe(REQUEST_TAKEN);
    expect(answerTo({ ...csum, agreed: 0 })).toBe(REQUEST_BAD_CHECKSUM);
    expect(answerTo({ agreed: OFFLOAD_CHECKSUM | OFFLOAD_TSO6 })).toBe(REQUEST_BAD_SEGMENTS);
    expect(answerTo({ agreed: OFFLOAD_CHECKSUM | OFFLOAD_TSO4 })).toBe(REQUEST_TAKEN);
    const ecn = { gsoType: NET_HDR_GSO.TCPV4 | NET_HDR_GSO.ECN };
    expect(answerTo({ header: ecn, agreed: OFFLOAD_CHECKSUM | OFFLOAD_TSO4 })).toBe(REQUEST_BAD_SEGMENTS);
    // Also where a frame turns out to be one segment.
    expect(answerTo({ header: { gsoSize: 9000 }, agreed: OFFLOAD_CHECKSUM })).toBe(REQUEST_BAD_SEGMENTS);
  });

  it('of a frame in so many pieces that completing it would add too many is refused', () => {
    const { window, index } = slotPlace(0, 0);
    const header = { ...ASKS_NOTHING, flags: NET_HDR_F.NEEDS_CSUM, csumStart: 34, csumOffset: 6 };
    for (const [pieces, answer] of [
      [FRAME_PIECES_MAX - 2, REQUEST_TAKEN],
      [FRAME_PIECES_MAX - 1, REQUEST_TOO_SCATTERED],
    ]) {
      world.batch.clear();
      world.batch.beginPieces();
      for (let i = 0; i < pieces; i++) world.batch.addPiece(window, index + 10 * i, 10);
      world.batch.addPieces(10 * pieces);
      expect(world.takeHeader(0, header)).toBe(answer);
    }
  });

  it('of one frame leaves the others of the batch without any', () => {
    const { frame, csumStart } = makeFrame(new Random(1), PLAIN);
    const ask: NetHeader = { ...ASKS_NOTHING, flags: NET_HDR_F.NEEDS_CSUM, csumStart, csumOffset: 16 };
    const wrong = { ...ask, csumStart: 1 };
    const nothing = ASKS_NOTHING;
    expect(
      world.take(
        [ask, ask, ask].map((header) => ({ frame, header })),
        null,
      ),
    ).toEqual([0, 0, 0]);
    const headers = [nothing, ask, wrong, nothing];
    const answers = world.take(
      headers.map((header) => ({ frame, header })),
      null,
    );
    expect(answers).toEqual([REQUEST_TAKEN, REQUEST_TAKEN, REQUEST_BAD_CHECKSUM, REQUEST_TAKEN]);
    expect(headers.map((_, i) => world.batch.needsOf(i))).toEqual([0, OFFLOAD_CHECKSUM, 0, 0]);
    world.batch.clear();
    expect(world.batch.asks).toBe(false);
  });

  for (const seed of seeds(25)) {
    it(`is judged as the naive twin judges it, seed ${seed}`, () => {
      const random = new Random(seed);
      for (let i = 0; i < REQUESTS; i++) {
        const request = oddRequest(random, SEGMENTS_MAX);
        const verdict = judge(request.frame, request.header, SEGMENTS_MAX);
        const context = { header: request.header, verdict };
        expect({ ...context, answer: world.take([request], random)[0] }).toEqual({
          ...context,
          answer: ANSWER[verdict],
        });
        expect((needs() & ~OFFLOAD_CHECKSUM) !== 0).toBe(verdict === 'segments');
        expect((needs() & OFFLOAD_CHECKSUM) !== 0).toBe(verdict === 'segments' || verdict === 'checksum');
      }
    });

    it(`of any bytes is answered, and little is read for it and nothing beside the frame, seed ${seed}`, () => {
      const random = new Random(seed);
      for (let i = 0; i < REQUESTS; i++) {
        const request = random.chance(50) ? oddRequest(random, SEGMENTS_MAX) : garbage(random);
        const reads = readsOf(request);
        expect(reads.length).toBeLessThanOrEqual(REQUEST_HEADER_BYTES_MAX);
        expect(new Set(reads).size).toBe(reads.length);
        expect(reads.every((at) => at >= 0 && at < request.frame.length)).toBe(true);
      }
    });
  }
});

function garbage(random: Random): Request {
  const header: NetHeader = {
    flags: random.between(0, 255) | 1,
    gsoType: random.pick([0, 1, 4, 5, random.between(0, 255)]),
    hdrLen: random.between(0, 0xffff),
    gsoSize: random.between(0, 0xffff),
    csumStart: random.pick([random.between(0, 300), random.between(0, 0xffff)]),
    csumOffset: random.pick([6, 16, random.between(0, 0xffff)]),
  };
  return { frame: random.bytes(random.between(14, 400)), header };
}

/** Offsets in the frame of the bytes that are read of it, each once; a frame that lies in a window of its own. */
function readsOf({ frame, header }: Request): number[] {
  const reads: number[] = [];
  const start = 1000;
  const memory = new Uint8Array(start + frame.length + 1000);
  memory.set(frame, start);
  const u8 = new Proxy(memory, {
    get: (bytes, at) => {
      reads.push(Number(at) - start);
      return bytes[Number(at)];
    },
  });
  const batch = new Batch();
  batch.add(0, start, frame.length);
  const [word0, word1, word2] = netHeaderWords(header, 0);
  takeRequest(batch, 0, [{ u8 } as unknown as Window], word0, word1, word2, ALL_OFFLOADS);
  return reads;
}
