/**
 * What a driver makes of requests: net_tap, whose segments are cut by DPDK's own library and whose checksums by its
 * driver, on the way to an interface of the kernel from which they are read by net_af_packet. The same bytes as the
 * naive twin's must come out. Ports of the switch do without its segments; the second test says why.
 */
import { spawnSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { RxBurst, TxBurst } from '../../src/dpdk/burst.ts';
import { Eal } from '../../src/dpdk/eal.ts';
import { EthPort } from '../../src/dpdk/ethdev.ts';
import { TX_OFFLOAD } from '../../src/dpdk/layout.ts';
import { DpdkEgress } from '../../src/port/dpdk/queues.ts';
import { AS_THEY_CAME } from '../../src/queue/batch.ts';
import { readHeads } from '../../src/queue/heads.ts';
import { queueStates } from '../../src/queue/state.ts';
import { completed, segmentsOf } from '../offload/naive-offload.ts';
import { OffloadWorld } from '../offload/offload-world.ts';
import { ASKS_NOTHING, makeFrame, type Request, type Shape } from '../offload/random-requests.ts';
import { Random } from '../vring/random.ts';
import { sharedArena, sharedArenaView } from '../vring/scratch.ts';
import { whyNoDpdk } from './dpdk-here.ts';

const why = whyNoDpdk() ?? (process.getuid?.() !== 0 ? 'needs root' : null);
const ALL = Object.values(TX_OFFLOAD).reduce((bits, bit) => bits | bit, 0);
const OPTIONS = { queueCount: 1, mtu: null, promiscuous: true, threadCount: 1 };
const TCP = 6;
const UDP = 17;
/** For what must not come. */
const LOOKS_MAX = 1000;
/** The kernel hands frames on in a thread of its own where it has much to do. */
const WAIT_MS = 20_000;

describe.skipIf(why !== null)(`a net_tap device (${why ?? 'DPDK is here'})`, () => {
  const eal = why === null ? Eal.start({ hugepages: 'never' }) : null!;
  const name = `rwg${process.pid}`;
  let world: OffloadWorld;
  let port: EthPort;
  let listener: EthPort;
  let rx: RxBurst;
  let egress: DpdkEgress;
  let freeMbufs = 0;

  beforeAll(() => {
    const { functions, layout } = eal.dpdk;
    world = new OffloadWorld();
    const configure = functions.ethConfigure;
    // By itself a port does not ask net_tap for segments.
    vi.spyOn(functions, 'ethConfigure').mockImplementation((portId, rxQueues, txQueues, conf) => {
      new DataView(conf.buffer).setBigUint64(layout.ethConf.txOffloads, BigInt(ALL), true);
      return configure(portId, rxQueues, txQueues, conf);
    });
    port = EthPort.open(eal, sharedArena, `net_tap0,iface=${name}`, OPTIONS);
    vi.restoreAllMocks();
    // Its kernel says nothing of its own.
    spawnSync('sysctl', ['-qw', `net.ipv6.conf.${name}.disable_ipv6=1`]);
    listener = EthPort.open(eal, sharedArena, `net_af_packet0,iface=${name}`, OPTIONS);
    freeMbufs = port.pool.availableCount;
    rx = new RxBurst(sharedArenaView, listener.rxQueues[0]);
    egress = new DpdkEgress(
      sharedArenaView,
      {
        kind: 'dpdk',
        portId: 1,
        states: queueStates(2),
        queueIndex: 0,
        direction: 'egress',
        location: { ...port.txQueues[0], txOffloads: ALL },
      },
      false,
    );
  });
  afterAll(() => {
    new TxBurst(sharedArenaView, port.txQueues[0]).release();
    listener.close();
    expect(port.pool.availableCount).toBe(freeMbufs);
    port.close();
    world.release();
  });

  const requestOf = (seed: number, shape: Partial<Shape>, gsoSize: number): Request => {
    const whole = {
      version: 4,
      protocol: TCP,
      tags: 0,
      optionBytes: 0,
      tcpOptionBytes: 12,
      payloadBytes: 900,
    } as const;
    const { frame, csumStart } = makeFrame(new Random(seed), { ...whole, ...shape });
    // CWR, which that library leaves on all segments, and the flag beside it.
    if (shape.protocol !== UDP) frame[csumStart + 13] &= 0x3f;
    // The kernel hands on any tag it takes out as this one.
    if (shape.tags !== undefined) frame.set([0x81, 0x00], 12);
    const csumOffset = shape.protocol === UDP ? 6 : 16;
    const gsoType = gsoSize === 0 ? 0 : shape.version === 6 ? 4 : 1;
    return { frame, header: { ...ASKS_NOTHING, flags: 1, csumStart, csumOffset, gsoType, gsoSize } };
  };

  /** Sends one frame, and answers what frames came of it: `count` are waited for, and up to `most` would be noticed. */
  function through(request: Request, count: number, most = count): string[] {
    expect(world.take([request], null)).toEqual([0]);
    const { batch } = world;
    readHeads(batch, sharedArenaView.windows);
    egress.begin();
    egress.place(batch, AS_THEY_CAME, 1);
    egress.end();
    expect(batch.refusedCount).toBe(0);
    const addresses = Buffer.from(request.frame.subarray(0, 12)).toString('hex');
    const got: string[] = [];
    const endMs = performance.now() + WAIT_MS;
    const isAwaited = (): boolean => got.length < count && performance.now() < endMs;
    for (let look = 0; isAwaited() || (look < LOOKS_MAX && got.length < most); look += isAwaited() ? 0 : 1) {
      const received = rx.receive();
      for (let slot = 0; slot < received; slot++) {
        const index = rx.indexOf(slot);
        const { u8 } = sharedArenaView.windows[rx.windowNumber];
        const text = Buffer.from(u8.subarray(index, index + rx.bytesOf(slot))).toString('hex');
        // A packet socket has frames of all interfaces until it is bound.
        if (text.startsWith(addresses)) got.push(text);
      }
      rx.free(0, received);
    }
    return got;
  }
  const hex = (frames: readonly Uint8Array[]): string[] =>
    frames.map((frame) => Buffer.from(frame).toString('hex'));

  it.each([
    ['64 KiB', { payloadBytes: 64_000 }, 1400],
    ['with IP options', { payloadBytes: 10_000, optionBytes: 20 }, 1400],
    ['with many TCP options', { payloadBytes: 10_000, tcpOptionBytes: 40 }, 1400],
    ['in one mbuf', { payloadBytes: 1600 }, 700],
    ['of 256 bytes', { payloadBytes: 12_345 }, 256],
  ] as const)('cuts frames into the segments that were meant: %s', (_, shape, gsoSize) => {
    for (let seed = 0; seed < 5; seed++) {
      const request = requestOf(seed, shape, gsoSize);
      const expected = segmentsOf(request.frame, gsoSize);
      expect(through(request, expected.length)).toEqual(hex(expected));
    }
  });

  it.each([
    ['TCP over IPv4', {}],
    ['TCP over IPv6', { version: 6 }],
    ['UDP over IPv4', { protocol: UDP }],
    ['UDP over IPv6', { protocol: UDP, version: 6 }],
    ['with options', { optionBytes: 8, tcpOptionBytes: 24 }],
    ['with a tag', { tags: 1 }],
    ['with extension headers, put in by Ringway', { version: 6, optionBytes: 24 }],
  ] as const)('puts in the checksum that was meant: %s', (_, shape) => {
    for (let seed = 0; seed < 5; seed++) {
      for (const payloadBytes of [0, 1, 700, 1400]) {
        const request = requestOf(seed, { ...shape, payloadBytes }, 0);
        const { csumStart, csumOffset } = request.header;
        const expected = completed(request.frame, csumStart, csumOffset);
        expect(through(request, 1)).toEqual(hex([expected]));
      }
    }
  });

  it('segments no IPv6, and nothing that fills its MTU', () => {
    const ipv6 = requestOf(1, { version: 6, payloadBytes: 9000 }, 1400);
    expect(through(ipv6, 1, 7)).toHaveLength(1);
    expect(through(requestOf(1, { payloadBytes: 9000 }, 1448), 0, 7)).toEqual([]);
    expect(port.statistics.oerrors).toBeGreaterThan(0);
  });
});
