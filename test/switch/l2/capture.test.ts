/**
 * The stage that copies frames for captures: what came in, what was placed, and what was dropped with its reason, as the
 * ports' own counters have it; and what a full ring loses. Queues without guests.
 */
import { afterAll, describe, expect, it } from 'vitest';
import type { BpfProgram } from '../../../src/filter/program.ts';
import { WINDOW_BYTES } from '../../../src/memory/window.ts';
import { DEFAULT_VLAN } from '../../../src/queue/policy.ts';
import { CHUNK_BYTES_MIN, RingReader } from '../../../switch/capture/blocks.ts';
import {
  CAPTURE_AREA_BYTES,
  CAPTURE_COUNTS,
  CAPTURE_IN,
  CAPTURE_LOST,
  CAPTURE_OUT,
  CAPTURE_RING_BYTES,
  CAPTURE_RING_OFFSET,
  CAPTURE_WANTED,
  type CaptureSetup,
  RING_WORDS,
} from '../../../switch/l2/capture-ring.ts';
import { Random, seeds } from '../../vring/random.ts';
import { type Packet, packetsOf } from '../capture/packets.ts';
import type { Waiting } from './fake-queues.ts';
import { type FakePort, FakeSwitch } from './fake-switch.ts';
import { arena, arenaView, ethernet, type Mac } from './frames.ts';
import { randomTagged, randomVlan } from './random-vlans.ts';

const BROADCAST: Mac = [255, 255, 255, 255, 255, 255];
const LINK_LOCAL: Mac = [1, 0x80, 0xc2, 0, 0, 0];
/** Far from where the frames of tests lie. */
const AREA_OFFSET = WINDOW_BYTES;

afterAll(() => arena.release());

/** A capture of some ports of a switch, in the place of the main thread. */
class Captured {
  readonly setup: CaptureSetup;
  readonly #reader: RingReader;
  readonly #counts: Float64Array;
  readonly #chunk = new Uint8Array(CHUNK_BYTES_MIN * 40);

  constructor(world: FakeSwitch, portIds: readonly number[], wanted: Partial<CaptureSetup> = {}, id = 0) {
    const offset = AREA_OFFSET + id * 2 ** 23;
    arenaView.u8.fill(0xee, offset, offset + CAPTURE_AREA_BYTES);
    const indices = new SharedArrayBuffer(4 * RING_WORDS);
    this.setup = {
      id,
      portIds,
      directions: CAPTURE_IN | CAPTURE_OUT,
      vlan: null,
      snapBytes: 262_144,
      program: null,
      areaOffsets: [offset],
      areaAddresses: [arena.location.address + offset],
      indices,
      counts: new SharedArrayBuffer(8 * CAPTURE_COUNTS * portIds.length),
      ...wanted,
    };
    this.#counts = new Float64Array(this.setup.counts);
    const start = offset + CAPTURE_RING_OFFSET;
    this.#reader = new RingReader(
      arenaView.u8.subarray(start, start + CAPTURE_RING_BYTES),
      new Int32Array(indices),
    );
    world.forwarder.startCapture(this.setup, 0);
  }

  /** What was captured since. */
  read(): Packet[] {
    return packetsOf(
      this.#chunk.slice(
        0,
        this.#reader.take(this.#chunk, 0, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY),
      ),
    );
  }

  counts(interfaceIndex: number): { wanted: number; lost: number } {
    const at = interfaceIndex * CAPTURE_COUNTS;
    return { wanted: this.#counts[at + CAPTURE_WANTED], lost: this.#counts[at + CAPTURE_LOST] };
  }
}

/** `in rep`, or `out rep: dropped: NAME`. */
const short = ({ isIn, interface: index, comment }: Packet): string =>
  `${isIn ? 'in' : 'out'} ${index}${comment === null ? '' : `: ${comment.replace(/ \(.*/, '')}`}`;

function learnt(...queueCounts: number[]): FakeSwitch {
  const world = new FakeSwitch(...queueCounts);
  for (const [i, port] of world.ports.entries()) world.send(port, ethernet(BROADCAST, i + 1));
  for (const { to } of world.ports) for (const queue of to) queue.received.length = 0;
  return world;
}

describe('captured', () => {
  it('are frames as they come in and as they go out, each once for a port', () => {
    const world = learnt(1, 1, 1);
    const captured = new Captured(world, [0, 1]);
    const frame = ethernet(2, 1, { sizeBytes: 61, payload: [1, 2, 3] });
    world.send(world.ports[0], frame);
    world.send(world.ports[1], ethernet(3, 2));
    const packets = captured.read();
    expect(packets.map(short)).toEqual(['in 0', 'out 1', 'in 1']);
    expect([packets[0].bytes, packets[1].bytes]).toEqual([frame, frame]);
    expect(packets[0].originalBytes).toBe(61);
    expect(Math.abs(Number(packets[0].timeNs / 1_000_000n) - Date.now())).toBeLessThan(60_000);
    expect(captured.counts(1)).toEqual({ wanted: 2, lost: 0 });
  });

  it('are only those of one direction, or of one VLAN, if so asked', () => {
    const world = learnt(1, 1);
    world.follow(world.ports[1], { vlan: { ...DEFAULT_VLAN, mode: 'access', tag: 5 } });
    const all = new Captured(world, [0, 1], {}, 0);
    const inwards = new Captured(world, [0, 1], { directions: CAPTURE_IN }, 1);
    const vlan = new Captured(world, [0, 1], { vlan: 5 }, 2);
    world.send(world.ports[0], ethernet(9, 1, { tags: [5] }), ethernet(9, 1, { tags: [6] }), ethernet(9, 1));
    world.send(world.ports[1], ethernet(8, 2));
    expect(all.read().map(short)).toEqual([
      'in 0',
      'in 0: dropped: noReceiver',
      'in 0: dropped: noReceiver',
      'out 1',
      'in 1',
      'out 0',
    ]);
    expect(inwards.read()).toHaveLength(4);
    // The access port's frame has its VLAN without a tag.
    expect(vlan.read().map(({ isIn, interface: index, bytes }) => [isIn, index, bytes.length])).toEqual([
      [true, 0, 60],
      [false, 1, 56],
      [true, 1, 60],
      [false, 0, 64],
    ]);
  });

  it('are asked of a filter as they are shown, and cut afterwards', () => {
    const world = learnt(1, 1);
    // ether[12:2] = 0x8100 and ether[14:2] & 0xfff = 5 and ether[62] = 7: vlan 5, and a byte behind what is kept.
    const program: BpfProgram = [
      { code: 0x28, jt: 0, jf: 0, k: 12 },
      { code: 0x15, jt: 0, jf: 6, k: 0x8100 },
      { code: 0x28, jt: 0, jf: 0, k: 14 },
      { code: 0x54, jt: 0, jf: 0, k: 0xfff },
      { code: 0x15, jt: 0, jf: 3, k: 5 },
      { code: 0x30, jt: 0, jf: 0, k: 62 },
      { code: 0x15, jt: 0, jf: 1, k: 7 },
      { code: 0x06, jt: 0, jf: 0, k: 262_144 },
      { code: 0x06, jt: 0, jf: 0, k: 0 },
    ];
    const captured = new Captured(world, [0, 1], { program, snapBytes: 19 });
    const of = (tags: readonly number[], last: number): Uint8Array => {
      const frame = ethernet(2, 1, { tags, sizeBytes: 64 });
      frame[62] = last;
      return frame;
    };
    world.send(world.ports[0], of([5], 7), of([5], 8), of([6], 7), of([], 7));
    const packets = captured.read();
    expect(packets.map(short)).toEqual(['in 0', 'out 1']);
    expect(packets[1].bytes).toEqual(of([5], 7).slice(0, 19));
    expect(packets[1].originalBytes).toBe(64);
    expect(captured.counts(0)).toEqual({ wanted: 1, lost: 0 });
  });

  it('are frames that a port with receive=off sends, and those that its policy refuses', () => {
    const world = learnt(1, 1);
    world.follow(world.ports[0], { receives: false });
    const captured = new Captured(world, [0, 1]);
    world.send(world.ports[0], ethernet(2, 1), ethernet(LINK_LOCAL, 1));
    world.follow(world.ports[0], {});
    world.send(world.ports[0], ethernet(LINK_LOCAL, 1), ethernet(2, 1), ethernet(1, 1));
    world.follow(world.ports[1], { vlan: { ...DEFAULT_VLAN, trunks: [7] } });
    world.send(world.ports[0], ethernet(2, 1));
    expect(captured.read().map(short)).toEqual([
      'in 0: dropped: receiveOff',
      'in 0: dropped: receiveOff',
      'in 0: dropped: linkLocal',
      'in 0',
      'in 0: dropped: samePort',
      'out 1',
      'in 0',
      'out 1: dropped: vlanNotCarried',
    ]);
  });

  it('end with the capture, and when its port is no more one of it', () => {
    const world = learnt(1, 1);
    const captured = new Captured(world, [0, 1]);
    world.forwarder.startCapture({ ...captured.setup, portIds: [-1, 1] }, 0);
    world.send(world.ports[0], ethernet(2, 1));
    expect(captured.read().map(short)).toEqual(['out 1']);
    world.forwarder.endCapture(0);
    world.send(world.ports[0], ethernet(2, 1));
    expect(captured.read()).toEqual([]);
    expect(world.ports.map(({ state }) => state.stages & (2 ** 16))).toEqual([0, 0]);
  });

  it('are lost by number while nobody reads, and again what comes first once somebody does', () => {
    const world = learnt(1, 1);
    const captured = new Captured(world, [0, 1]);
    let sent = 0;
    const send = (): void => {
      sent += 64;
      world.send(world.ports[0], ...Array.from({ length: 64 }, () => ethernet(2, 1, { sizeBytes: 1514 })));
    };
    while (captured.counts(0).lost === 0) send();
    for (let burst = 0; burst < 10; burst++) send();
    let kept = 0;
    for (let packets = captured.read(); packets.length > 0; packets = captured.read()) kept += packets.length;
    const [first, second] = [captured.counts(0), captured.counts(1)];
    expect([first.wanted, second.wanted]).toEqual([sent, sent]);
    expect(first.lost + second.lost + kept).toBe(2 * sent);
    expect(kept).toBeGreaterThan(2500);
    // The ring's end is passed.
    for (let burst = 0; burst < 60; burst++) {
      send();
      expect(captured.read()).toHaveLength(128);
    }
  });

  it.each(seeds(20))('is what the counters say, seed %i', (seed) => {
    const random = new Random(seed);
    const world = new FakeSwitch(1, 1, 1, 1);
    for (const port of world.ports)
      world.follow(port, { vlan: randomVlan(random), floods: random.chance(80) });
    const captured = new Captured(world, [0, 1, 2, 3]);
    const sent: Uint8Array[][] = world.ports.map(() => []);
    const packets: Packet[] = [];
    for (let burst = 0; burst < 60; burst++) {
      const from = random.between(0, 3);
      const same = random.chance(40) ? randomTagged(random, 5) : null;
      const frames = Array.from({ length: random.between(1, 64) }, (_, i): Uint8Array => {
        const dst = random.pick<Mac>([1, 2, 3, 4, 5, BROADCAST, LINK_LOCAL]);
        const tags = same ?? randomTagged(random, 5);
        const head = ethernet(dst, from + 1, { sizeBytes: 12 }).subarray(0, 12);
        const body = [...tags, 8, 0, i, burst, ...random.bytes(random.between(0, 60))];
        return Uint8Array.from([...head, ...body]).slice(0, random.chance(3) ? 15 : 2000);
      });
      for (const { to } of world.ports) {
        to[0].bufferCount = random.chance(80) ? 1000 : random.between(0, 20);
        to[0].bufferBytes = random.chance(80) ? 1000 : 60;
      }
      sent[from].push(...frames);
      world.send(world.ports[from], ...frames.map((bytes) => describing(random, bytes)));
      packets.push(...captured.read());
    }
    for (const [i, port] of world.ports.entries()) {
      const own = packets.filter(({ interface: index }) => index === i);
      expect(own.filter(({ isIn }) => isIn).map(({ bytes }) => bytes)).toEqual(sent[i]);
      const placed = own.filter(({ isIn, comment }) => !isIn && comment === null);
      expect(placed.map(({ bytes }) => bytes)).toEqual(port.received);
      expect(reasonsIn(own)).toEqual(dropsOf(port));
      expect(captured.counts(i)).toEqual({ wanted: own.length, lost: 0 });
    }
  });
});

function describing(random: Random, bytes: Uint8Array): Waiting {
  if (random.chance(70)) return { bytes, misalignment: random.between(0, 3) };
  return { bytes, pieces: [random.between(1, 30), random.between(1, 30)] };
}

function reasonsIn(packets: readonly Packet[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { comment } of packets) {
    if (comment === null) continue;
    const name = /^dropped: (\w+) \(/.exec(comment)?.[1] ?? comment;
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}

function dropsOf({ drops }: FakePort): Record<string, number> {
  return { ...drops };
}
