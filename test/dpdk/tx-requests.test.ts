/**
 * What the egress queue of a DPDK port asks of its device, by the mbufs that come out of net_ring as they went in: flags,
 * lengths of headers, and every byte, against a twin that builds them from the frame. And checksums that it puts in
 * itself, where a device cannot.
 */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { NET_HDR_GSO } from '../../protocol/virtio/net.ts';
import { type DpdkQueueLocation, RxBurst, TxBurst } from '../../src/dpdk/burst.ts';
import { Eal } from '../../src/dpdk/eal.ts';
import { EthPort } from '../../src/dpdk/ethdev.ts';
import { MBUF_TX_HIGH, TX_OFFLOAD } from '../../src/dpdk/layout.ts';
import { chooseTxOffloads, takenBy, txOffloadNames } from '../../src/dpdk/tx-offloads.ts';
import { SharedLibrary } from '../../src/host/shared-library.ts';
import { DpdkEgress } from '../../src/port/dpdk/queues.ts';
import { type RequestTaker, TxRequests } from '../../src/port/dpdk/tx-requests.ts';
import { AS_THEY_CAME, AT_WORD3, REFUSED_NO_BUFFER, REFUSED_TOO_SMALL } from '../../src/queue/batch.ts';
import { TPID_8021AD, TPID_8021Q, tagOf } from '../../src/queue/frame-tags.ts';
import { readHeads, readWord3 } from '../../src/queue/heads.ts';
import {
  OFFLOAD_CHECKSUM,
  OFFLOAD_ECN,
  OFFLOAD_TSO4,
  OFFLOAD_TSO6,
  OFFLOAD_UNCOMMON,
} from '../../src/queue/requests.ts';
import { COUNT_BYTES, COUNT_FRAMES, COUNT_LOST, QueueState, queueStates } from '../../src/queue/state.ts';
import { completed, naiveSum, parse, pseudoSum } from '../offload/naive-offload.ts';
import { ALL_OFFLOADS, OffloadWorld } from '../offload/offload-world.ts';
import {
  ASKS_NOTHING,
  checksumRequest,
  makeFrame,
  oddRequest,
  type Request,
  segmentRequest,
} from '../offload/random-requests.ts';
import { Random, seeds } from '../vring/random.ts';
import { sharedArena, sharedArenaView } from '../vring/scratch.ts';
import { whyNoDpdk } from './dpdk-here.ts';

const why = whyNoDpdk();
const { IPV4_CKSUM, UDP_CKSUM, TCP_CKSUM, TCP_TSO, MULTI_SEGS } = TX_OFFLOAD;
const ALL = IPV4_CKSUM | UDP_CKSUM | TCP_CKSUM | TCP_TSO | MULTI_SEGS;
const TCP = 6;
const UDP = 17;
const RING_FRAMES = 1023;

type Mbuf = {
  readonly flags: number;
  readonly l2: number;
  readonly l3: number;
  readonly l4: number;
  readonly segmentBytes: number;
  readonly bytes: string;
};

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const plain = (bytes: Uint8Array): Mbuf => ({
  flags: 0,
  l2: 0,
  l3: 0,
  l4: 0,
  segmentBytes: 0,
  bytes: hex(bytes),
});

/** What a device that was set up with such offloads should get for a request, with these tags pushed. */
function expectedMbuf({ frame, header }: Request, tags: readonly number[], offloads: number): Mbuf {
  const pushed = Buffer.concat([
    frame.subarray(0, 12),
    new Uint8Array(Int32Array.from(tags).buffer),
    frame.subarray(12),
  ]);
  const made = Uint8Array.from(pushed);
  const data = new DataView(made.buffer);
  const pushBytes = 4 * tags.length;
  const parsed = parse(frame);
  const csumStart = header.csumStart + pushBytes;
  const asksSegments = header.gsoType !== NET_HDR_GSO.NONE;
  const undone = (): Mbuf => plain(completed(made, csumStart, header.csumOffset));
  if (parsed === null) return undone();
  const { version, protocol, isFragment, packetBytes } = parsed;
  const network = parsed.network + pushBytes;
  const isWhole = packetBytes === made.length - network;
  const isPlain = version === 4 || parsed.transport === parsed.network + 40;
  if (!isWhole || isFragment || !isPlain || parsed.transport !== header.csumStart) return undone();
  const known = protocol === TCP ? TCP_CKSUM : protocol === UDP ? UDP_CKSUM : 0;
  if ((offloads & known) === 0 || header.csumOffset !== (protocol === TCP ? 16 : 6)) return undone();
  const restBytes = made.length - csumStart;
  if (restBytes < (protocol === TCP ? 20 : 8)) return undone();
  const l4 = protocol === TCP ? (made[csumStart + 12] >> 4) * 4 : 8;
  if (protocol === TCP ? l4 < 20 || l4 > restBytes : data.getUint16(csumStart + 4) !== restBytes)
    return undone();

  let flags = version === 4 ? MBUF_TX_HIGH.IPV4 : MBUF_TX_HIGH.IPV6;
  data.setUint16(csumStart + header.csumOffset, pseudoSum(parsed, asksSegments ? 0 : restBytes));
  if (asksSegments) {
    flags |= MBUF_TX_HIGH.TCP_SEG;
    if (version === 4) {
      data.setUint16(network + 10, 0);
      if ((offloads & IPV4_CKSUM) !== 0) flags |= MBUF_TX_HIGH.IP_CKSUM;
      else data.setUint16(network + 10, ~naiveSum(made.subarray(network, csumStart)));
    }
  } else flags |= protocol === TCP ? MBUF_TX_HIGH.TCP_CKSUM : MBUF_TX_HIGH.UDP_CKSUM;
  return {
    flags,
    l2: network,
    l3: csumStart - network,
    l4,
    segmentBytes: asksSegments ? header.gsoSize : 0,
    bytes: hex(made),
  };
}

describe.skipIf(why !== null)(`requests of a DPDK device (${why ?? 'DPDK is here'})`, () => {
  const eal = why === null ? Eal.start({ hugepages: 'never' }) : null!;
  let world: OffloadWorld;
  let port: EthPort;
  let rx: RxBurst;
  const states = queueStates(2);
  const counts = new QueueState(states, 0).counts;

  beforeAll(() => {
    world = new OffloadWorld();
    port = EthPort.open(eal, sharedArena, 'net_ring0', {
      queueCount: 1,
      mtu: null,
      promiscuous: true,
      threadCount: 1,
    });
    rx = new RxBurst(sharedArenaView, port.rxQueues[0]);
  });
  afterAll(() => {
    new TxBurst(sharedArenaView, port.txQueues[0]).release();
    // All came back, of chains too.
    expect(port.pool.availableCount).toBe(port.pool.mbufCount);
    port.close();
    world.release();
  });

  const egressWith = (txOffloads: number, location: Partial<DpdkQueueLocation> = {}): DpdkEgress =>
    new DpdkEgress(
      sharedArenaView,
      {
        kind: 'dpdk',
        portId: 3,
        states,
        queueIndex: 0,
        direction: 'egress',
        location: { ...port.txQueues[0], txOffloads, ...location },
      },
      false,
    );

  /** Takes what is in the ring: up to 64 frames. */
  function receive(): Mbuf[] {
    const { mbuf } = eal.dpdk.layout;
    const { pool, list } = port.rxQueues[0];
    const data = new DataView(sharedArenaView.u8.buffer);
    const offsetOf = (pointer: bigint): number => Number(pointer) - pool.address + pool.offset;
    const count = rx.receive();
    const frames = Array.from({ length: count }, (_, slot) => {
      const first = offsetOf(data.getBigUint64(pool.offset + 4096 * list + 8 * slot, true));
      const lengths = data.getBigUint64(first + mbuf.txOffload, true);
      const parts: Uint8Array[] = [];
      for (let at = first; ; ) {
        const from =
          offsetOf(data.getBigUint64(at + mbuf.bufAddr, true)) + data.getUint16(at + mbuf.dataOff, true);
        parts.push(sharedArenaView.bytesAt(from, data.getUint16(at + mbuf.dataLen, true)));
        const next = data.getBigUint64(at + mbuf.next, true);
        if (next === 0n) break;
        at = offsetOf(next);
      }
      expect(data.getUint16(first + mbuf.nbSegs, true)).toBe(parts.length);
      const bytes = Buffer.concat(parts);
      expect(data.getUint32(first + mbuf.pktLen, true)).toBe(bytes.length);
      expect(data.getUint32(first + mbuf.olFlags, true)).toBe(0);
      return {
        flags: data.getUint32(first + mbuf.olFlags + 4, true),
        l2: Number(lengths & 0x7fn),
        l3: Number((lengths >> 7n) & 0x1ffn),
        l4: Number((lengths >> 16n) & 0xffn),
        segmentBytes: Number(lengths >> 24n),
        bytes: hex(bytes),
      };
    });
    rx.free(0, count);
    return frames;
  }

  /** Sends the batch's frames with some tags pushed. */
  function send(egress: DpdkEgress, tags: readonly number[] = []): void {
    const { batch } = world;
    readHeads(batch, sharedArenaView.windows);
    batch.tags.isPushUniform = true;
    batch.tags.push0 = tags[0] ?? 0;
    batch.tags.push1 = tags[1] ?? 0;
    batch.makeRoomForAll(4 * tags.length);
    egress.begin();
    egress.place(batch, AS_THEY_CAME, batch.count);
    egress.end();
  }

  const requestOf = (
    shape: Partial<Parameters<typeof makeFrame>[1]>,
    gsoType: number,
    gsoSize: number,
  ): Request => {
    const whole = {
      version: 4,
      protocol: 6,
      tags: 0,
      optionBytes: 0,
      tcpOptionBytes: 12,
      payloadBytes: 5000,
    } as const;
    const { frame, csumStart } = makeFrame(new Random(7), { ...whole, ...shape });
    const csumOffset = shape.protocol === UDP ? 6 : 16;
    return { frame, header: { ...ASKS_NOTHING, flags: 1, csumStart, csumOffset, gsoType, gsoSize } };
  };
  const take = (request: Request): number => world.take([request], null)[0];
  const Q = tagOf(TPID_8021Q, 0x60 << 16, 77);
  const AD = tagOf(TPID_8021AD, 0, 4000);

  it.each(seeds(40))('have the checksums that are asked for (seed %i)', (seed) => {
    const random = new Random(seed);
    const offloads = random.pick([ALL, TCP_CKSUM, UDP_CKSUM, TCP_CKSUM | UDP_CKSUM, 0]);
    const egress = egressWith(offloads);
    for (let round = 0; round < 20; round++) {
      const requests = Array.from({ length: random.between(1, 16) }, () => {
        for (;;) {
          const request = random.chance(80) ? checksumRequest(random) : oddRequest(random, 128);
          if (request.header.gsoType === 0 && request.frame.length <= 1518) return request;
        }
      });
      const verdicts = world.take(requests, random.chance(50) ? random : null);
      const good = requests.filter((_, i) => verdicts[i] === 0);
      // The others a queue takes out; here they stay and ask for nothing.
      const tags = random.pick([[], [], [Q], [AD, Q]]);
      send(egress, tags);
      const got = receive();
      expect(got.length).toBe(requests.length);
      for (const [i, request] of requests.entries()) {
        if (!good.includes(request) || (request.header.flags & 1) === 0) continue;
        expect(got[i]).toEqual(expectedMbuf(request, tags, offloads));
      }
    }
  });

  it.each(seeds(40))('have the segments that are asked for (seed %i)', (seed) => {
    const random = new Random(1000 + seed);
    const offloads = random.pick([ALL, ALL & ~IPV4_CKSUM]);
    const takes = takenBy(offloads);
    const egress = egressWith(offloads);
    let seen = 0;
    for (let round = 0; round < 30; round++) {
      const request = segmentRequest(random, 128);
      world.take([request], random.chance(50) ? random : null);
      const needs = world.batch.needsOf(0);
      const parsed = parse(request.frame)!;
      const isPlain = parsed.version === 4 || parsed.transport === parsed.network + 40;
      const isTcp = parsed.protocol === TCP && (request.header.gsoType & NET_HDR_GSO.ECN) === 0;
      expect((needs & ~takes) === 0).toBe(isPlain && isTcp && request.header.gsoSize >= 256);
      if ((needs & ~takes) !== 0) continue;
      const tags = random.pick([[], [], [Q], [AD, Q]]);
      send(egress, tags);
      const got = receive();
      expect(got).toEqual([expectedMbuf(request, tags, offloads)]);
      seen++;
    }
    expect(seen).toBeGreaterThan(0);
  });

  it.each([
    ['TCP over IPv4', {}, 1],
    ['TCP over IPv6', { version: 6 }, 4],
    ['with options', { optionBytes: 12, tcpOptionBytes: 40 }, 1],
    ['64 KiB', { payloadBytes: 65_400 }, 1],
    ['with a tag of its own', { tags: 1 }, 1],
  ] as const)('have it from the headers that were checked, whatever became of them: %s', (_, shape, type) => {
    const request = requestOf(shape, type, 1448);
    take(request);
    const { batch } = world;
    const at = batch.indexOf(0);
    // Not the addresses and the EtherType, which are read after that.
    const { u8 } = sharedArenaView.windows[batch.windowOf(0)];
    const end = request.header.csumStart + 20;
    u8.fill(0xff, at + parse(request.frame)!.network + 2, at + end);
    send(egressWith(ALL), [Q]);
    expect(receive()).toEqual([expectedMbuf(request, [Q], ALL)]);
  });

  it('count from where a frame begins whose tag was taken out', () => {
    for (const gsoType of [0, 1]) {
      const request = requestOf({ tags: 1, payloadBytes: 1200 }, gsoType, gsoType === 0 ? 0 : 500);
      take(request);
      const { batch } = world;
      readHeads(batch, sharedArenaView.windows);
      batch.cut(0, 4);
      batch.records[AT_WORD3] = readWord3(batch, 0, sharedArenaView.windows);
      expect(batch.dropRequestFront(0, 4)).toBe(true);
      const egress = egressWith(ALL);
      egress.begin();
      egress.place(batch, AS_THEY_CAME, 1);
      egress.end();
      const { frame, header } = request;
      const untagged = frame.filter((_, i) => i < 12 || i >= 16);
      const there = { frame: untagged, header: { ...header, csumStart: header.csumStart - 4 } };
      expect(receive()).toEqual([expectedMbuf(there, [], ALL)]);
    }
  });

  it('stand among frames that ask for nothing, which have no trace of those before them', () => {
    const egress = egressWith(ALL);
    const long = requestOf({ payloadBytes: 9000 }, 1, 1448);
    const nothing = { frame: requestOf({ payloadBytes: 100 }, 0, 0).frame, header: ASKS_NOTHING };
    const checksum = requestOf({ payloadBytes: 300, protocol: 17 }, 0, 0);
    for (let round = 0; round < 3; round++) {
      const requests = [long, nothing, checksum, nothing];
      // Each in a slot of its own, of 16 KiB.
      world.take(requests, null);
      send(egress);
      expect(receive()).toEqual([
        expectedMbuf(long, [], ALL),
        plain(nothing.frame),
        expectedMbuf(checksum, [], ALL),
        plain(nothing.frame),
      ]);
      world.take([nothing, nothing], null);
      send(egress);
      expect(receive()).toEqual([plain(nothing.frame), plain(nothing.frame)]);
    }
  });

  it('are given up with the frames that the device has no room for, and no mbuf with them', () => {
    const egress = egressWith(ALL);
    const long = requestOf({ payloadBytes: 9000 }, 1, 1448);
    const before = counts[COUNT_FRAMES];
    const [bytesBefore, lostBefore] = [counts[COUNT_BYTES], counts[COUNT_LOST]];
    // More than all mbufs of the pool, each of these has five.
    let refused = 0;
    const wanted = 400;
    for (let i = 0; i < wanted; i++) {
      take(long);
      send(egress);
      refused += world.batch.refusedCount;
      if (world.batch.refusedCount > 0) expect(world.batch.refusedWhy[0]).toBe(REFUSED_NO_BUFFER);
    }
    const sent = counts[COUNT_FRAMES] - before;
    expect(refused).toBeGreaterThan(0);
    expect(sent + refused).toBe(wanted);
    expect(counts[COUNT_BYTES] - bytesBefore).toBe(sent * long.frame.length);
    for (let left = sent; left > 0; ) {
      const got = receive();
      for (const frame of got) expect(frame).toEqual(expectedMbuf(long, [], ALL));
      left -= got.length;
    }

    // A ring that is full of short frames takes no long ones; their mbufs are free again.
    const short = requestOf({ payloadBytes: 20 }, 0, 0);
    for (let i = 0; i < RING_FRAMES; i++) {
      take(short);
      send(egress);
    }
    for (let i = 0; i < 3; i++) {
      take(long);
      send(egress);
    }
    expect(counts[COUNT_LOST] - lostBefore).toBe(3);
    for (let left = RING_FRAMES; left > 0; ) left -= receive().length;
  });

  it('that a driver refuses are done without it, or the frame is refused', () => {
    const asked: number[] = [];
    const taker: RequestTaker = {
      offloads: ALL,
      request: (flags) => {
        asked.push(flags);
        return false;
      },
    };
    const checksum = requestOf({ payloadBytes: 33, version: 6 }, 0, 0);
    take(checksum);
    const { batch } = world;
    const window = sharedArenaView.windows[batch.windowOf(0)];
    const at = batch.indexOf(0);
    new TxRequests(taker, window).askChecksum(batch, 0, at, checksum.frame.length);
    expect(asked).toEqual([MBUF_TX_HIGH.IPV6 | MBUF_TX_HIGH.TCP_CKSUM]);
    const { csumStart, csumOffset } = checksum.header;
    expect(hex(window.u8.slice(at, at + checksum.frame.length))).toBe(
      hex(completed(checksum.frame, csumStart, csumOffset)),
    );
    const segments = requestOf({}, 1, 1448);
    take(segments);
    expect(new TxRequests(taker, window).askSegments(batch, 0, at)).toBe(false);
  });

  it('whose frame the driver refuses leave nothing of it behind', () => {
    // Any function that does not answer 1: the absolute value of a pointer.
    const egress = egressWith(ALL, { prepare: SharedLibrary.open('libc.so.6').addressOf('abs') });
    const long = requestOf({ payloadBytes: 9000 }, 1, 1448);
    const checksum = requestOf({ payloadBytes: 300 }, 0, 0);
    world.take([long, checksum, long], null);
    send(egress);
    const { batch } = world;
    expect([...batch.refused.subarray(0, batch.refusedCount)]).toEqual([0, 2]);
    expect(batch.refusedWhy[0]).toBe(REFUSED_TOO_SMALL);
    const { csumStart, csumOffset } = checksum.header;
    expect(receive()).toEqual([plain(completed(checksum.frame, csumStart, csumOffset))]);
  });

  it('are not made of a device that refuses to be set up with what it says it can', () => {
    const { functions, layout } = eal.dpdk;
    const real = { info: functions.ethInfo, configure: functions.ethConfigure };
    const { devInfo, ethConf } = layout;
    const asked: number[] = [];
    vi.spyOn(functions, 'ethInfo').mockImplementation((portId, bytes) => {
      const result = real.info(portId, bytes);
      new DataView(bytes.buffer).setBigUint64(devInfo.txOffloadCapa, BigInt(ALL), true);
      return result;
    });
    vi.spyOn(functions, 'ethConfigure').mockImplementation((portId, rxQueues, txQueues, conf) => {
      const view = new DataView(conf.buffer);
      const offloads = Number(view.getBigUint64(ethConf.txOffloads, true));
      asked.push(offloads);
      return offloads === 0 ? real.configure(portId, rxQueues, txQueues, conf) : -22;
    });
    const options = { queueCount: 1, mtu: null, promiscuous: true, threadCount: 1, offloads: {} };
    const second = EthPort.open(eal, sharedArena, 'net_ring1', options);
    try {
      expect(asked).toEqual([ALL, 0]);
      expect(second.txOffloads).toBe(0);
      expect(second.txQueues[0].txOffloads).toBe(0);
      expect(second.warnings).toEqual([
        expect.stringMatching(
          /^the device's checksums and segmentation are not used, since with them: net_ring1 cannot be configured/,
        ),
      ]);
    } finally {
      second.close();
      vi.restoreAllMocks();
    }
  });
});

describe('the offloads that a device is set up with', () => {
  const device = { driver: 'net_mlx5', offloads: ALL | 1, segmentsMax: 65_535 };
  const chosen = (abilities: Partial<typeof device>, settings = {}): string[] =>
    txOffloadNames(chooseTxOffloads({ ...device, ...abilities }, settings, 33));
  const CHECKSUMS = ['UDP_CKSUM', 'TCP_CKSUM'];

  it('are those of use that it has', () => {
    expect(chosen({})).toEqual(['IPV4_CKSUM', ...CHECKSUMS, 'TCP_TSO', 'MULTI_SEGS']);
    expect(chosen({ offloads: ALL & ~IPV4_CKSUM })).toEqual([...CHECKSUMS, 'TCP_TSO', 'MULTI_SEGS']);
    expect(chosen({ offloads: UDP_CKSUM | TCP_TSO | MULTI_SEGS })).toEqual(['UDP_CKSUM']);
    expect(chosen({ offloads: ALL & ~MULTI_SEGS })).toEqual(CHECKSUMS);
    expect(chosen({ offloads: MULTI_SEGS })).toEqual([]);
    expect(chosen({ segmentsMax: 32 })).toEqual(CHECKSUMS);
    expect(chosen({ driver: 'net_tap' })).toEqual(CHECKSUMS);
  });

  it('are those that the settings leave', () => {
    expect(chosen({}, { tso: false })).toEqual(CHECKSUMS);
    expect(chosen({}, { csum: false })).toEqual([]);
  });

  it('say what frames may ask for', () => {
    expect(takenBy(0)).toBe(0);
    expect(takenBy(UDP_CKSUM)).toBe(OFFLOAD_CHECKSUM);
    expect(takenBy(ALL)).toBe(OFFLOAD_CHECKSUM | OFFLOAD_TSO4 | OFFLOAD_TSO6);
    expect(ALL_OFFLOADS & (OFFLOAD_ECN | OFFLOAD_UNCOMMON)).toBe(OFFLOAD_ECN | OFFLOAD_UNCOMMON);
  });
});
