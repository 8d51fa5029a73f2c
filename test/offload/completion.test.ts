/**
 * What the batches look like that frames with requests are replaced by: their order, what they were made of, the room
 * before them, what is left to receivers that do a part themselves; and guests that change their memory meanwhile.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NET_HDR_F, NET_HDR_GSO, type NetHeader } from '../../protocol/virtio/net.ts';
import { COMPLETION_ROOM_BYTES } from '../../src/offload/completion.ts';
import { REQUEST_TAKEN, SEGMENTS_MAX } from '../../src/offload/request.ts';
import {
  ADDRESSES_BYTES,
  AS_THEY_CAME,
  AT_WORD3,
  BATCH_FRAMES_MAX,
  FRAME_PIECES_MAX,
  IN_PIECES,
} from '../../src/queue/batch.ts';
import { readHeads, readWord3 } from '../../src/queue/heads.ts';
import {
  OFFLOAD_CHECKSUM,
  OFFLOAD_ECN,
  OFFLOAD_TSO4,
  OFFLOAD_TSO6,
  OFFLOAD_USO4,
  OFFLOAD_USO6,
} from '../../src/queue/requests.ts';
import { Random, seeds } from '../vring/random.ts';
import { piecesOfFrame, readAt, sharedArenaView, slotPlace, spoilHeads, writeAt } from '../vring/scratch.ts';
import { completed, naiveSum, segmentsOf } from './naive-offload.ts';
import { ALL_OFFLOADS, type Made, OffloadWorld } from './offload-world.ts';
import {
  ASKS_NOTHING,
  checksumRequest,
  makeFrame,
  type Request,
  type Shape,
  segmentRequest,
} from './random-requests.ts';

const PLAIN: Shape = {
  version: 4,
  protocol: 6,
  tags: 0,
  optionBytes: 0,
  tcpOptionBytes: 0,
  payloadBytes: 3000,
};
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const hexOf = (made: readonly Made[]): string[] => made.map(({ bytes }) => hex(bytes));

/** A request for segments of 1,000 bytes. */
function requestOf(shape: Partial<Shape>, fields: Partial<NetHeader> = {}): Request {
  const { frame, csumStart } = makeFrame(new Random(3), { ...PLAIN, ...shape });
  const { version, protocol } = { ...PLAIN, ...shape };
  const gsoType =
    protocol === 17 ? NET_HDR_GSO.UDP_L4 : version === 4 ? NET_HDR_GSO.TCPV4 : NET_HDR_GSO.TCPV6;
  const csumOffset = protocol === 17 ? 6 : 16;
  const header = { flags: NET_HDR_F.NEEDS_CSUM, gsoType, hdrLen: 0, gsoSize: 1000, csumStart, csumOffset };
  return { frame, header: { ...header, ...fields } };
}

const plainFrame = (random: Random, sizeBytes: number): Request => ({
  frame: random.bytes(sizeBytes),
  header: ASKS_NOTHING,
});

describe('a batch for receivers without offloads', () => {
  let world: OffloadWorld;
  beforeAll(() => {
    world = new OffloadWorld();
  });
  afterAll(() => world.release());

  function take(requests: readonly Request[], scatter: Random | null = null): void {
    expect(world.take(requests, scatter).every((answer) => answer === REQUEST_TAKEN)).toBe(true);
  }

  function expected({ frame, header }: Request): Uint8Array[] {
    if (header.flags === 0) return [frame];
    const { gsoType, gsoSize, csumStart, csumOffset } = header;
    return gsoType === NET_HDR_GSO.NONE
      ? [completed(frame, csumStart, csumOffset)]
      : segmentsOf(frame, gsoSize);
  }

  for (const seed of seeds(30)) {
    it(`has all frames in their order, and says what each was made of, seed ${seed}`, () => {
      const random = new Random(seed);
      const requests = Array.from({ length: random.between(1, BATCH_FRAMES_MAX) }, () =>
        random.pick([
          (): Request => plainFrame(random, random.between(14, 3000)),
          (): Request => fitting(random, () => checksumRequest(random)),
          (): Request => fitting(random, () => segmentRequest(random, SEGMENTS_MAX)),
        ])(),
      );
      take(requests, random);
      const made = world.complete(0);
      const frames = requests.map(expected);
      expect(hexOf(made)).toEqual(frames.flat().map(hex));
      expect(made.map(({ source }) => source)).toEqual(frames.flatMap((each, i) => each.map(() => i)));
      expect(made.every(({ header }) => header.flags === 0)).toBe(true);
    });
  }

  /** One that the places of a batch of frames have room for. */
  function fitting(random: Random, make: () => Request): Request {
    for (;;) {
      const request = make();
      if (request.frame.length <= 3000) return request;
      random.next();
    }
  }

  it('is made of the frames that are named, in the order in which they are named', () => {
    const random = new Random(1);
    const requests = [plainFrame(random, 60), requestOf({}), plainFrame(random, 70), plainFrame(random, 80)];
    take(requests);
    const { batch, completion } = world;
    readHeads(batch, sharedArenaView.windows);
    completion.begin(batch, Int32Array.from([2, 1, 99]), 2, 0);
    expect(completion.next()).toBe(true);
    expect(Array.from(completion.sourceOf.subarray(0, completion.batch.count))).toEqual([2, 1, 1, 1]);
    expect(completion.next()).toBe(false);
    expect(completion.next()).toBe(false);
    completion.begin(batch, AS_THEY_CAME, 0, 0);
    expect(completion.next()).toBe(false);
  });

  it('is cut where it is full, also within a frame', () => {
    const random = new Random(1);
    const long = requestOf({ payloadBytes: 100 * SEGMENTS_MAX }, { gsoSize: 100 });
    take([plainFrame(random, 60), long]);
    expect(hexOf(world.complete(0))).toEqual(
      [plainFrame(new Random(1), 60), long].flatMap(expected).map(hex),
    );
    expect(world.batchCount).toBe(3);
    take([long]);
    world.complete(0);
    expect(world.batchCount).toBe(2);
  });

  it('has room for frames of as many pieces as there may be', () => {
    const { window, index } = slotPlace(0, 0);
    const { batch } = world;
    const pieceCount = FRAME_PIECES_MAX - 2;
    const request = requestOf({ payloadBytes: 50 * pieceCount - 54 }, { gsoSize: 49 });
    const fields = [{}, { gsoSize: 1500 }, { gsoType: NET_HDR_GSO.NONE, csumOffset: 1001 }];
    for (const each of fields) {
      const header = { ...request.header, ...each };
      writeAt({ window, index }, request.frame);
      batch.clear();
      const frameCount = 8;
      for (let frame = 0; frame < frameCount; frame++) {
        batch.beginPieces();
        for (let i = 0; i < pieceCount; i++) batch.addPiece(window, index + 50 * i, 50);
        batch.addPieces(50 * pieceCount);
        expect(world.takeHeader(frame, header)).toBe(REQUEST_TAKEN);
      }
      const one = expected({ frame: request.frame, header }).map(hex);
      expect(hexOf(world.complete(0))).toEqual(Array.from({ length: frameCount }, () => one).flat());
    }
  });

  it('has a place for a tag before each frame that it made, and nothing else lies there', () => {
    const random = new Random(5);
    take([requestOf({}), { ...requestOf({}), header: { ...requestOf({}).header, gsoType: 0 } }]);
    const { batch, completion } = world;
    readHeads(batch, sharedArenaView.windows);
    completion.begin(batch, AS_THEY_CAME, batch.count, 0);
    expect(completion.next()).toBe(true);
    const firsts = Array.from(
      { length: completion.batch.count },
      (_, frame) => piecesOfFrame(completion.batch, frame)[0],
    );
    const before = firsts.map(({ place, sizeBytes }) => readAt(place, sizeBytes));
    for (const { place } of firsts) {
      expect(place.index % 8).toBe(4);
      writeAt({ ...place, index: place.index - COMPLETION_ROOM_BYTES }, random.bytes(COMPLETION_ROOM_BYTES));
    }
    expect(firsts.map(({ place, sizeBytes }) => readAt(place, sizeBytes))).toEqual(before);
  });

  it('leaves the payload of long segments where the sender has it, and puts what is shorter together', () => {
    take([requestOf({ payloadBytes: 9000 }, { gsoSize: 4000 })]);
    readHeads(world.batch, sharedArenaView.windows);
    world.completion.begin(world.batch, AS_THEY_CAME, 1, 0);
    world.completion.next();
    const { place } = piecesOfFrame(world.batch, 0)[0];
    const made = piecesOfFrame(world.completion.batch, 1);
    expect(made.map(({ sizeBytes }) => sizeBytes)).toEqual([54, 4000]);
    expect(made[1].place).toEqual({ ...place, index: place.index + 54 + 4000 });
    take([requestOf({})]);
    readHeads(world.batch, sharedArenaView.windows);
    world.completion.begin(world.batch, AS_THEY_CAME, 1, 0);
    world.completion.next();
    expect(world.completion.batch.windowOf(1)).not.toBe(IN_PIECES);
    take([requestOf({ payloadBytes: 100 }, { gsoType: 0 })]);
    readHeads(world.batch, sharedArenaView.windows);
    world.completion.begin(world.batch, AS_THEY_CAME, 1, 0);
    world.completion.next();
    expect(world.completion.batch.windowOf(0)).not.toBe(IN_PIECES);
  });

  it("never changes the sender's memory", () => {
    const requests = [
      requestOf({}),
      requestOf({}, { gsoType: 0 }),
      requestOf({ payloadBytes: 20 }, { gsoType: 0 }),
    ];
    take(requests);
    world.complete(0);
    const frames = requests.map((_, frame) => piecesOfFrame(world.batch, frame)[0]);
    expect(frames.map(({ place, sizeBytes }) => hex(readAt(place, sizeBytes)))).toEqual(
      requests.map(({ frame }) => hex(frame)),
    );
  });

  it('has the addresses that were read, whatever the guest writes there meanwhile', () => {
    const requests = [
      requestOf({}),
      requestOf({ payloadBytes: 10 }, { gsoType: 0 }),
      plainFrame(new Random(2), 60),
    ];
    take(requests);
    readHeads(world.batch, sharedArenaView.windows);
    spoilHeads(world.batch);
    expect(hexOf(world.completeRead(0))).toEqual(requests.flatMap(expected).map(hex));
  });

  it('has the headers that were checked, whatever the guest writes there meanwhile', () => {
    const request = requestOf({});
    take([request]);
    readHeads(world.batch, sharedArenaView.windows);
    writeAt(slotPlace(0, 0), new Uint8Array(54).fill(0xff));
    expect(hexOf(world.completeRead(0))).toEqual(expected(request).map(hex));
  });

  it('has a good checksum of 0 as 0xffff in UDP, and as 0 in segments of TCP', () => {
    for (const protocol of [6, 17] as const) {
      const { frame, header } = requestOf({ protocol, payloadBytes: 2000 });
      // The last two bytes of each segment's payload bring its sum to 0xffff.
      const payload = frame.length - 2000;
      for (const end of [payload + 1000, payload + 2000]) {
        new DataView(frame.buffer).setUint16(end - 2, 0);
        const at = end === payload + 1000 ? 0 : 1;
        const segment = segmentsOf(frame, 1000)[at];
        const field = new DataView(segment.buffer).getUint16(header.csumStart + header.csumOffset);
        new DataView(frame.buffer).setUint16(end - 2, field);
      }
      const { frame: _, ...rest } = { frame, header };
      take([{ frame, ...rest }]);
      const made = world.complete(0);
      expect(hexOf(made)).toEqual(segmentsOf(frame, 1000).map(hex));
      const fields = made.map(({ bytes }) =>
        new DataView(bytes.buffer).getUint16(header.csumStart + header.csumOffset),
      );
      expect(fields).toEqual(protocol === 6 ? [0, 0] : [0xffff, 0xffff]);
    }
  });

  it('has a checksum of 0 as 0xffff where no segments were asked for', () => {
    for (const protocol of [6, 17] as const) {
      const { frame, header } = requestOf({ protocol, payloadBytes: 600 }, { gsoType: NET_HDR_GSO.NONE });
      const data = new DataView(frame.buffer);
      data.setUint16(frame.length - 2, 0);
      data.setUint16(frame.length - 2, ~naiveSum(frame.subarray(header.csumStart)));
      take([{ frame, header }]);
      const [{ bytes }] = world.complete(0);
      expect(new DataView(bytes.buffer).getUint16(header.csumStart + header.csumOffset)).toBe(0xffff);
    }
  });

  it('has identifications that begin again behind the last one', () => {
    const { frame, header } = requestOf({});
    new DataView(frame.buffer).setUint16(18, 0xffff);
    take([{ frame, header }]);
    const made = world.complete(0);
    expect(made.map(({ bytes }) => new DataView(bytes.buffer).getUint16(18))).toEqual([0xffff, 0, 1]);
    expect(hexOf(made)).toEqual(segmentsOf(frame, 1000).map(hex));
  });

  it('has sequence numbers that begin again behind the last one', () => {
    const { frame, header } = requestOf({});
    new DataView(frame.buffer).setUint32(38, 0xffff_fff0);
    take([{ frame, header }]);
    const made = world.complete(0);
    expect(made.map(({ bytes }) => new DataView(bytes.buffer).getUint32(38))).toEqual([
      0xffff_fff0, 984, 1984,
    ]);
  });

  it('has frames without the tag that was taken out of them in the meantime', () => {
    for (const shape of [
      { tags: 1 },
      { tags: 2, version: 6, optionBytes: 16 },
      { tags: 1, protocol: 17 },
    ] as const) {
      for (const fields of [{}, { gsoType: 0 }]) {
        const request = requestOf(shape, fields);
        take([request]);
        const { batch } = world;
        readHeads(batch, sharedArenaView.windows);
        // As the stage for tags does it.
        batch.cut(0, 4);
        batch.records[AT_WORD3] = readWord3(batch, 0, sharedArenaView.windows);
        expect(batch.dropRequestFront(0, 4)).toBe(true);
        const frame = request.frame.filter((_, i) => i < ADDRESSES_BYTES || i >= ADDRESSES_BYTES + 4);
        const { header } = request;
        const untagged = { frame, header: { ...header, csumStart: header.csumStart - 4 } };
        expect(hexOf(world.completeRead(0))).toEqual(expected(untagged).map(hex));
        const [{ header: left }] = world.completeRead(ALL_OFFLOADS);
        expect(left.csumStart).toBe(header.csumStart - 4);
      }
    }
  });

  it('has no frame whose checksum began within the tag that was taken out', () => {
    take([
      { frame: new Uint8Array(60), header: { ...ASKS_NOTHING, flags: 1, csumStart: 17, csumOffset: 6 } },
    ]);
    expect(world.batch.dropRequestFront(0, 4)).toBe(false);
    take([
      { frame: new Uint8Array(60), header: { ...ASKS_NOTHING, flags: 1, csumStart: 18, csumOffset: 6 } },
    ]);
    expect(world.batch.dropRequestFront(0, 4)).toBe(true);
    take([plainFrame(new Random(1), 60)]);
    expect(world.batch.dropRequestFront(0, 4)).toBe(true);
  });
});

describe('a receiver that does a part itself', () => {
  let world: OffloadWorld;
  beforeAll(() => {
    world = new OffloadWorld();
  });
  afterAll(() => world.release());

  function made(request: Request, takes: number): Made[] {
    expect(world.take([request], null)).toEqual([REQUEST_TAKEN]);
    return world.complete(takes);
  }

  it('gets whole what it takes, with a header made anew', () => {
    const ecn = NET_HDR_GSO.TCPV4 | NET_HDR_GSO.ECN;
    const rows: [Request, number][] = [
      [requestOf({}), OFFLOAD_CHECKSUM | OFFLOAD_TSO4],
      [requestOf({}, { gsoType: ecn }), OFFLOAD_CHECKSUM | OFFLOAD_TSO4 | OFFLOAD_ECN],
      [requestOf({ version: 6 }), OFFLOAD_CHECKSUM | OFFLOAD_TSO6],
      [requestOf({ protocol: 17 }), OFFLOAD_CHECKSUM | OFFLOAD_USO4],
      [requestOf({ version: 6, protocol: 17 }), OFFLOAD_CHECKSUM | OFFLOAD_USO6],
      [requestOf({}, { gsoType: 0, gsoSize: 0 }), OFFLOAD_CHECKSUM],
    ];
    for (const [request, takes] of rows) {
      const isSegments = request.header.gsoType !== 0;
      const hdrLen = isSegments ? request.frame.length - 3000 : 0;
      expect(made(request, takes)).toEqual([
        { bytes: request.frame, header: { ...request.header, hdrLen }, source: 0 },
      ]);
      for (let bit = 1; bit <= takes; bit *= 2) {
        if ((takes & bit) === 0) continue;
        const without = made(request, takes & ~bit);
        expect(without.length).toBe(isSegments ? 3 : 1);
        expect(without.every(({ header }) => header.gsoType === 0)).toBe(true);
      }
    }
  });

  it('of checksums gets segments that ask for theirs, which then are right', () => {
    for (const shape of [
      {},
      { version: 6, optionBytes: 24 },
      { protocol: 17 },
      { tags: 2, tcpOptionBytes: 12 },
    ] as const) {
      const request = requestOf(shape);
      const { csumStart, csumOffset } = request.header;
      const segments = made(request, OFFLOAD_CHECKSUM | OFFLOAD_ECN);
      for (const { header } of segments)
        expect(header).toEqual({ ...ASKS_NOTHING, flags: 1, csumStart, csumOffset });
      const whole = segments.map(({ bytes }) => completed(bytes, csumStart, csumOffset));
      expect(whole.map(hex)).toEqual(segmentsOf(request.frame, 1000).map(hex));
    }
  });

  it('has every kind of frame in one burst', () => {
    const random = new Random(1);
    const requests = [
      requestOf({}),
      requestOf({ version: 6 }),
      requestOf({}, { gsoType: 0, gsoSize: 0 }),
      plainFrame(random, 60),
    ];
    expect(world.take(requests, random).every((answer) => answer === REQUEST_TAKEN)).toBe(true);
    const frames = world.complete(OFFLOAD_CHECKSUM | OFFLOAD_TSO4);
    expect(frames.map(({ source }) => source)).toEqual([0, 1, 1, 1, 2, 3]);
    expect(frames.map(({ header }) => [header.flags, header.gsoType])).toEqual([
      [1, 1],
      [1, 0],
      [1, 0],
      [1, 0],
      [1, 0],
      [0, 0],
    ]);
  });

  it('that takes what the first one left can be the next one to be completed for', () => {
    const request = requestOf({ payloadBytes: 5000 });
    expect(world.take([request], null)).toEqual([REQUEST_TAKEN]);
    const whole = segmentsOf(request.frame, 1000).map(hex);
    const { completion } = world;
    completion.begin(world.batch, AS_THEY_CAME, 1, ALL_OFFLOADS);
    expect(completion.next()).toBe(true);
    // A frame that was passed on, with its request and its headers, is as good as the first one.
    const other = new OffloadWorld();
    expect(hexOf(other.completeRead(0, completion.batch))).toEqual(whole);
    other.release();
  });
});

describe('the naive twin', () => {
  it('makes checksums that add up to 0xffff', () => {
    const request = requestOf({ payloadBytes: 2500 });
    const sums = segmentsOf(request.frame, 1000).map((segment) => {
      const pseudo = Uint8Array.from([...segment.subarray(26, 34), 0, 6, 0, 0]);
      new DataView(pseudo.buffer).setUint16(10, segment.length - 34);
      return naiveSum(pseudo, segment.subarray(34));
    });
    expect(sums).toEqual([0xffff, 0xffff, 0xffff]);
  });
});
