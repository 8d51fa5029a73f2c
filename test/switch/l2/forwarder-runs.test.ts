/**
 * Runs of frames (src/vring/split-run.ts) against the general path: two worlds of the same guests, rings and
 * frames, one whose queues know runs and one whose queues do not, must come out alike byte for byte. The
 * general path has a naive twin of its own (test/vring).
 */
import { afterAll, describe, expect, test } from 'vitest';
import { closeFd } from '../../../src/host/descriptor.ts';
import { createMemoryFile } from '../../../src/host/mapping.ts';
import { Arena } from '../../../src/memory/arena.ts';
import { ArenaView } from '../../../src/memory/arena-view.ts';
import { queueStates } from '../../../src/queue/state.ts';
import type { RingAttachment } from '../../../src/vring/attachment.ts';
import { SplitFromGuest } from '../../../src/vring/split-from-guest.ts';
import { SplitToGuest } from '../../../src/vring/split-to-guest.ts';
import { DROP_REASONS } from '../../../switch/l2/drop-reasons.ts';
import { createFdbMemory, Fdb } from '../../../switch/l2/fdb/fdb.ts';
import { Forwarder, ForwardingPort } from '../../../switch/l2/forwarder.ts';
import { Random } from '../../vring/random.ts';

const GUEST_BYTES = 2 ** 21;
const RING_BYTES = 2 ** 14;
const BUFFERS_OFFSET = 2 ** 17;
const BUFFER_BYTES = 2048;
const HEADER_BYTES = 12;
const TURNS = 60;

const arena = Arena.reserve(2 ** 32);
const view = new ArenaView(arena.location);

/** As SplitToGuest, but every frame takes the general path. */
class WithoutRuns extends SplitToGuest {
  runsAsked = 0;
  override giveRun(): number {
    this.runsAsked++;
    return 0;
  }
}

class CountsRuns extends SplitToGuest {
  framesInRuns = 0;
  /** Of one source, to several destinations. */
  framesInMixedRuns = 0;
  override giveRun(...args: Parameters<SplitToGuest['giveRun']>): number {
    const moved = super.giveRun(...args);
    const destinationMask = args[5];
    if (destinationMask === 0) this.framesInMixedRuns += moved;
    else this.framesInRuns += moved;
    return moved;
  }
}

/** Two guests on a switch. Guest memory: receive ring, transmit ring, then buffers. */
class World<Target extends SplitToGuest> {
  readonly guests: { readonly offset: number; readonly memory: Uint8Array }[] = [];
  readonly from: SplitFromGuest[] = [];
  readonly to: Target[] = [];
  readonly ports: ForwardingPort[] = [];
  readonly forwarder: Forwarder;
  readonly fdb: Fdb;
  readonly faults: number[] = [];

  constructor(size: number, frameBytesMax: number, makeTarget: (ring: RingAttachment) => Target) {
    this.fdb = new Fdb(createFdbMemory({ capacity: 64, maxPorts: 4, seed: [1, 2] }));
    this.forwarder = new Forwarder(view, this.fdb, (queue) => this.faults.push(queue.portId, queue.fault));
    for (let portId = 0; portId < 2; portId++) {
      const offset = mapGuest();
      this.guests.push({ offset, memory: view.u8.subarray(offset, offset + GUEST_BYTES) });
      const states = queueStates(2);
      const ring = (queueIndex: number): RingAttachment => ({
        kind: 'ring',
        layout: 'split',
        portId,
        queueIndex,
        direction: queueIndex === 0 ? 'egress' : 'ingress',
        size,
        descOffset: offset + queueIndex * RING_BYTES * 3,
        driverOffset: offset + queueIndex * RING_BYTES * 3 + RING_BYTES,
        deviceOffset: offset + queueIndex * RING_BYTES * 3 + 2 * RING_BYTES,
        eventIdx: false,
        indirect: true,
        inOrder: false,
        mergeable: true,
        headerBytes: HEADER_BYTES,
        kickFd: -1,
        callFd: -1,
        states,
        map: [{ start: 0, end: GUEST_BYTES, arenaOffset: offset }],
      });
      this.from.push(new SplitFromGuest(view, ring(1)));
      this.to.push(makeTarget(ring(0)));
      const port = new ForwardingPort(portId, new Float64Array(DROP_REASONS.length));
      port.queues = [this.to[portId]];
      port.queueCount = 1;
      port.frameBytesMax = frameBytesMax;
      this.ports.push(port);
      this.forwarder.addPort(port);
    }
  }
}

const mapped: number[] = [];
function mapGuest(): number {
  const fd = createMemoryFile('guest', GUEST_BYTES);
  const offset = arena.map({
    fd,
    fileOffset: 0,
    sizeBytes: GUEST_BYTES,
    pageBytes: 4096,
    preferredOffset: null,
  });
  closeFd(fd);
  mapped.push(offset);
  return offset;
}

afterAll(() => {
  for (const offset of mapped) arena.unmap(offset);
});

/** What the drivers of both guests do before a turn, as a list of writes that each world repeats. */
type Write = { readonly guest: number; readonly at: number; readonly bytes: Uint8Array };

class Drivers {
  readonly #random: Random;
  readonly #size: number;
  readonly #availIdx = [
    [0, 0],
    [0, 0],
  ];
  readonly #shiftBytes: number;
  /** Whether each guest has many addresses, which the other sends to in no order. */
  readonly #hasManyAddresses: boolean;

  constructor(random: Random, size: number) {
    this.#random = random;
    this.#size = size;
    // Where frames lie modulo 8 decides how they are copied.
    this.#shiftBytes = random.pick([4, 4, 0, 6, 2, 1]);
    this.#hasManyAddresses = random.chance(50);
  }

  nextWrites(memories: readonly Uint8Array[]): Write[] {
    return memories.flatMap((memory, guest) => [
      ...this.#offer(guest, 0, usedIdx(memory, 0)),
      ...this.#offer(guest, 1, usedIdx(memory, 1)),
    ]);
  }

  /** Offers some more chains on a ring, which never holds more than fit. */
  #offer(guest: number, queueIndex: number, used: number): Write[] {
    const base = queueIndex * RING_BYTES * 3;
    const idx = this.#availIdx[guest];
    const room = this.#size - ((idx[queueIndex] - used) & 0xffff);
    const count = Math.min(room, this.#random.between(0, this.#size / 2));
    const writes: Write[] = [];
    for (let i = 0; i < count; i++) {
      const slot = (idx[queueIndex] + i) % this.#size;
      const buffer = BUFFERS_OFFSET + (queueIndex * this.#size + slot) * BUFFER_BYTES + this.#shiftBytes;
      const isSend = queueIndex === 1;
      const frame = isSend ? this.#frame(guest) : null;
      const sizeBytes =
        frame === null ? this.#random.pick([1600, 1600, 1600, 100]) : HEADER_BYTES + frame.length;
      writes.push({ guest, at: base + slot * 16, bytes: descriptor(buffer, sizeBytes, isSend ? 0 : 2) });
      writes.push({
        guest,
        at: base + RING_BYTES + 4 + slot * 2,
        bytes: u16(this.#random.between(0, 9999) === 0 ? 0xffff : slot),
      });
      if (frame !== null) writes.push({ guest, at: buffer + HEADER_BYTES, bytes: frame });
    }
    idx[queueIndex] = (idx[queueIndex] + count) & 0xffff;
    writes.push({ guest, at: base + RING_BYTES + 2, bytes: u16(idx[queueIndex]) });
    return writes;
  }

  /** Mostly long runs of one flow to the other guest; now and then another flow, a broadcast or an odd size. */
  #frame(guest: number): Uint8Array {
    const random = this.#random;
    const frameBytes = random.chance(3)
      ? random.between(0, 13)
      : random.pick([60, 64, 64, 65, 66, 67, 200, 1514]);
    const frame = Uint8Array.from({ length: frameBytes }, () => random.between(0, 255));
    const address = this.#hasManyAddresses ? random.between(0, 12) : 0;
    const flow = random.chance(10) ? random.between(1, 3) : address;
    frame.set([2, 0, 0, 0, flow, 1 - guest].slice(0, frameBytes));
    if (random.chance(3)) frame.fill(0xff, 0, Math.min(6, frameBytes));
    if (frameBytes >= 12)
      frame.set([2, 0, 0, 0, random.chance(5) ? 9 : random.chance(6) ? address : 0, guest], 6);
    return frame;
  }
}

function descriptor(gpa: number, sizeBytes: number, flags: number): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(16));
  bytes.setBigUint64(0, BigInt(gpa), true);
  bytes.setUint32(8, sizeBytes, true);
  bytes.setUint16(12, flags, true);
  return new Uint8Array(bytes.buffer);
}

function u16(value: number): Uint8Array {
  return Uint8Array.of(value & 0xff, value >> 8);
}

/** What the device published in a ring's used index. */
function usedIdx(memory: Uint8Array, queueIndex: number): number {
  const at = queueIndex * RING_BYTES * 3 + 2 * RING_BYTES + 2;
  return memory[at] | (memory[at + 1] << 8);
}

describe('runs come out like the general path', () => {
  let framesInRuns = 0;
  let framesInMixedRuns = 0;

  test.each(Array.from({ length: 40 }, (_, seed) => seed))('seed %i', (seed) => {
    const random = new Random(seed);
    const size = random.pick([8, 64, 256]);
    const frameBytesMax = random.pick([1000, 2000]);
    const fast = new World(size, frameBytesMax, (ring) => new CountsRuns(view, ring, false));
    const plain = new World(size, frameBytesMax, (ring) => new WithoutRuns(view, ring, false));
    const drivers = new Drivers(random, size);
    for (let turn = 0; turn < TURNS; turn++) {
      const writes = drivers.nextWrites(fast.guests.map(({ memory }) => memory));
      for (const world of [fast, plain]) {
        for (const { guest, at, bytes } of writes) world.guests[guest].memory.set(bytes, at);
        for (let pass = 0; pass < 4; pass++) {
          for (const queue of world.from) world.forwarder.forwardBurst(queue);
        }
      }
      for (const guest of [0, 1]) {
        const [ours, twins] = [fast, plain].map((world) => Buffer.from(world.guests[guest].memory));
        if (!ours!.equals(twins!)) expect(ours).toEqual(twins);
        expect(fast.from[guest].state.counts).toEqual(plain.from[guest].state.counts);
        expect(fast.to[guest].state.counts).toEqual(plain.to[guest].state.counts);
        expect(fast.to[guest].state.words).toEqual(plain.to[guest].state.words);
        expect(fast.ports[guest].drops).toEqual(plain.ports[guest].drops);
      }
      expect(fast.fdb.entries()).toEqual(plain.fdb.entries());
      expect(fast.faults).toEqual(plain.faults);
    }
    framesInRuns += fast.to[0].framesInRuns + fast.to[1].framesInRuns;
    framesInMixedRuns += fast.to[0].framesInMixedRuns + fast.to[1].framesInMixedRuns;
  });

  test('and there were runs', () => {
    expect(framesInRuns).toBeGreaterThan(1000);
    expect(framesInMixedRuns).toBeGreaterThan(1000);
  });
});
