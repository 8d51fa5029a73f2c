/**
 * The layout of a forwarding table's shared memory: which words live where, and how the memory is made.
 *
 * Owns the offsets and the header; the other fdb files get their views from here and from nowhere else.
 * `createFdbMemory` is called once by the main thread; every thread then opens the same buffer with `new
 * Fdb`. Fresh memory is all zeros and zeros mean "empty" in every section, so nothing but the header is
 * written.
 */
import { randomBytes } from '../../../src/host/random.ts';

export const MAX_FDB_CAPACITY = 1_048_576;
export const DEFAULT_FDB_CAPACITY = 8_192;
export const MAX_FDB_PORTS = 32_767;

/** Int32 words of one slot: macLo, macHi | vlan << 16, (version << 16) | static << 15 | (port + 1), last-seen tick. */
export const SLOT_WORDS = 4;

const MAGIC = 0x52464442;
const HEADER_WORDS = 64;

/** Header words. The lock and the words written under it stand on cache lines of their own. */
export const HEADER = {
  magic: 0,
  capacity: 1,
  maxPorts: 2,
  slotBits: 3,
  seed0: 4,
  seed1: 5,
  lock: 16,
  size: 32,
  heaviestCount: 33,
  /** Static entries, and how often there came to be one or one less: whoever keeps them looks whether it changed. */
  statics: 42,
  staticChanges: 43,
  /** Float64 × 4 from here on: learned, moved, evicted, aged. Doubles: a flood wraps an int32 in minutes. */
  counters: 34,
} as const;

/** Indices into `FdbViews.counters`. */
export const COUNTER = { learned: 0, moved: 1, evicted: 2, aged: 3 } as const;

export interface FdbMemoryOptions {
  /** Addresses the table holds at most, 1 to 1,048,576; 8,192 when absent. */
  readonly capacity?: number;
  /** Ports are numbered 0 to maxPorts − 1; 1 to 32,767. */
  readonly maxPorts: number;
  /** The hash's secret, two int32. Random when absent; give one only where a run must repeat exactly. */
  readonly seed?: readonly [number, number];
}

/** Typed views of every section of one table's memory. */
export interface FdbViews {
  readonly header: Int32Array<SharedArrayBuffer>;
  readonly counters: Float64Array<SharedArrayBuffer>;
  readonly slots: Int32Array<SharedArrayBuffer>;
  /** Ring links of slots on their port's list: next + 1 and previous + 1 for each slot. */
  readonly slotLinks: Int32Array<SharedArrayBuffer>;
  /** Head of each port's list of slots, + 1. */
  readonly portHeads: Int32Array<SharedArrayBuffer>;
  readonly portCounts: Int32Array<SharedArrayBuffer>;
  /** Static entries of each port; they are on no list. */
  readonly portStatics: Int32Array<SharedArrayBuffer>;
  /** Addresses that were known elsewhere and then seen on each port. */
  readonly portMoves: Int32Array<SharedArrayBuffer>;
  /** Ring links of ports on the list of ports that own equally many entries. */
  readonly portLinks: Int32Array<SharedArrayBuffer>;
  /** Head of the list of ports that own `index` entries, + 1. */
  readonly countHeads: Int32Array<SharedArrayBuffer>;
}

/**
 * Makes the shared memory of an empty table.
 * @throws RangeError when capacity or maxPorts lies outside its range.
 */
export function createFdbMemory(options: FdbMemoryOptions): SharedArrayBuffer {
  const capacity = options.capacity ?? DEFAULT_FDB_CAPACITY;
  requireInteger('capacity', capacity, MAX_FDB_CAPACITY);
  requireInteger('maxPorts', options.maxPorts, MAX_FDB_PORTS);
  const slotBits = 32 - Math.clz32(2 * capacity - 1);
  const words = sectionOffsets(capacity, options.maxPorts, slotBits).end;
  const memory = new SharedArrayBuffer(words * 4);
  const header = new Int32Array(memory, 0, HEADER_WORDS);
  const secret = options.seed ?? randomSeed();
  header[HEADER.capacity] = capacity;
  header[HEADER.maxPorts] = options.maxPorts;
  header[HEADER.slotBits] = slotBits;
  header[HEADER.seed0] = secret[0];
  header[HEADER.seed1] = secret[1];
  Atomics.store(header, HEADER.magic, MAGIC);
  return memory;
}

/**
 * Views over memory that `createFdbMemory` made.
 * @throws TypeError when the memory is something else.
 */
export function openFdbMemory(memory: SharedArrayBuffer): FdbViews {
  if (memory.byteLength < HEADER_WORDS * 4) throw new TypeError('not the memory of a forwarding table');
  const header = new Int32Array(memory, 0, HEADER_WORDS);
  const [capacity, maxPorts, slotBits] = [
    header[HEADER.capacity],
    header[HEADER.maxPorts],
    header[HEADER.slotBits],
  ];
  const at = sectionOffsets(capacity, maxPorts, slotBits);
  if (Atomics.load(header, HEADER.magic) !== MAGIC || memory.byteLength !== at.end * 4) {
    throw new TypeError('not the memory of a forwarding table');
  }
  const view = (from: number, to: number) => new Int32Array(memory, from * 4, to - from);
  return {
    header,
    counters: new Float64Array(memory, HEADER.counters * 4, 4),
    slots: view(at.slots, at.slotLinks),
    slotLinks: view(at.slotLinks, at.portHeads),
    portHeads: view(at.portHeads, at.portCounts),
    portCounts: view(at.portCounts, at.portStatics),
    portStatics: view(at.portStatics, at.portMoves),
    portMoves: view(at.portMoves, at.portLinks),
    portLinks: view(at.portLinks, at.countHeads),
    countHeads: view(at.countHeads, at.end),
  };
}

/** Word offsets of the sections, in the order in which they lie. */
function sectionOffsets(capacity: number, maxPorts: number, slotBits: number) {
  const slotCount = 2 ** slotBits;
  const slots = HEADER_WORDS;
  const slotLinks = slots + slotCount * SLOT_WORDS;
  const portHeads = slotLinks + slotCount * 2;
  const portCounts = portHeads + maxPorts;
  const portStatics = portCounts + maxPorts;
  const portMoves = portStatics + maxPorts;
  const portLinks = portMoves + maxPorts;
  const countHeads = portLinks + maxPorts * 2;
  const end = countHeads + capacity + 1;
  return { slots, slotLinks, portHeads, portCounts, portStatics, portMoves, portLinks, countHeads, end };
}

function requireInteger(name: string, value: number, max: number): void {
  if (!Number.isInteger(value) || value < 1 || value > max) {
    throw new RangeError(`${name} is ${value}, must be an integer from 1 to ${max}`);
  }
}

function randomSeed(): readonly [number, number] {
  const bytes = randomBytes(8);
  return [bytes.readInt32LE(0), bytes.readInt32LE(4)];
}
