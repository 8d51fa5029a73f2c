/**
 * The captures of a switch: each has a ring in the arena for every worker, which copy frames to it, and a reader that gets
 * them as a stream of pcapng. Begins and ends them. Main thread; what the workers do is switch/l2/capture.ts.
 *
 * A capture ends when its reader has enough or is gone, when it has as many frames as were asked for, when the last of its
 * ports is removed, when somebody ends it by its number, and with the switch; the stream then ends with statistics of each
 * interface, and why.
 */
import {
  encodeInterface,
  encodeSection,
  encodeStatistics,
  nanosecondWords,
} from '../../protocol/pcapng-blocks.ts';
import type { Arena } from '../../src/memory/arena.ts';
import type { ArenaView } from '../../src/memory/arena-view.ts';
import { allocateScratch, type ScratchArea } from '../../src/memory/scratch.ts';
import { WINDOW_BYTES } from '../../src/memory/window.ts';
import type { Port } from '../../src/port/contract.ts';
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
} from '../l2/capture-ring.ts';
import { NoSuchPortError, PortConflictError } from '../port-errors.ts';
import { CHUNK_BYTES_MIN, RingReader } from './blocks.ts';
import type { CaptureRequest } from './request.ts';

/** At once: each looks at every frame of its ports. */
const CAPTURES_MAX = 8;
/** Given to the reader at once. */
const CHUNK_BYTES = 2 ** 18;
/** How often is looked for frames while there are none: soon for who looks on, and seldom enough to cost nothing. */
const LOOK_PERIOD_MS = 5;
/** How often statistics are told meanwhile, by which a reader that is gone is noticed where no frame passes. */
const STATISTICS_PERIOD_MS = 10_000;
const DIRECTIONS = { in: CAPTURE_IN, out: CAPTURE_OUT, both: CAPTURE_IN | CAPTURE_OUT } as const;

/** The workers, as far as captures need them. */
export type CaptureWorkers = {
  startCapture(capture: CaptureSetup): Promise<void>;
  endCapture(id: number): Promise<void>;
};

export type CapturesOptions = {
  readonly arena: Arena;
  readonly arenaView: ArenaView;
  readonly workers: CaptureWorkers;
  readonly workerCount: number;
  /** Those that there are. */
  readonly ports: () => readonly Port[];
};

/** Of GET /v1/captures. */
export type CaptureReport = {
  readonly id: number;
  readonly ports: readonly string[];
  /** Frames given to the reader, and those that were lost because it was too slow. */
  readonly delivered: number;
  readonly lost: number;
};

export type StartedCapture = { readonly id: number; readonly stream: ReadableStream<Uint8Array> };

export class Captures {
  readonly #options: CapturesOptions;
  readonly #captures = new Map<number, Capture>();
  #lastId = 0;

  constructor(options: CapturesOptions) {
    this.#options = options;
  }

  /** Resolves when every worker copies frames. @throws NoSuchPortError, PortConflictError, HostError, ArenaFullError */
  async start(request: CaptureRequest): Promise<StartedCapture> {
    const ports = this.#portsOf(request.ports);
    if (this.#captures.size >= CAPTURES_MAX)
      throw new PortConflictError(`there are ${CAPTURES_MAX} captures already`);
    const id = ++this.#lastId;
    const capture = new Capture(id, request, ports, this.#options);
    this.#captures.set(id, capture);
    void capture.ended.then(() => this.#captures.delete(id));
    await capture.start();
    return { id, stream: capture.stream };
  }

  #portsOf(names: readonly string[]): readonly Port[] {
    const there = this.#options.ports();
    const named =
      names.includes('all') && there.every(({ name }) => name !== 'all')
        ? there.map(({ name }) => name)
        : names;
    return [...new Set(named)].map((name) => {
      const port = there.find((each) => each.name === name);
      if (port === undefined) throw new NoSuchPortError(name);
      return port;
    });
  }

  reports(): CaptureReport[] {
    return [...this.#captures.values()].map((capture) => capture.report());
  }

  /** False: there is none of that number. */
  end(id: number, why: string): boolean {
    const capture = this.#captures.get(id);
    capture?.end(why);
    return capture !== undefined;
  }

  endAll(why: string): void {
    for (const capture of this.#captures.values()) capture.end(why);
  }

  /** Resolves when none has memory any more. Nobody need read what is left. */
  async close(): Promise<void> {
    await Promise.all([...this.#captures.values()].map((capture) => capture.abandon()));
  }

  /** No worker knows the port any more, and its number may go to another one. */
  forgetPort(id: number): void {
    for (const capture of this.#captures.values()) capture.forgetPort(id);
  }
}

class Capture {
  readonly stream: ReadableStream<Uint8Array>;
  /** Resolves when it has no memory any more. */
  readonly ended: Promise<void>;
  readonly #id: number;
  readonly #request: CaptureRequest;
  readonly #names: readonly string[];
  readonly #kinds: readonly string[];
  readonly #workers: CaptureWorkers;
  readonly #areas: readonly ScratchArea[];
  readonly #rings: readonly RingReader[];
  readonly #counts: Float64Array;
  #setup: CaptureSetup;
  readonly #whenReleased = Promise.withResolvers<void>();
  /** Frames given to the reader. */
  #delivered = 0;
  /** Why it ends; null: it goes on. */
  #why: string | null = null;
  #isDetached = false;
  #isReleased = false;
  #statisticsMs = performance.now();
  #isBegun = false;
  /** Ends the pause between two looks. */
  #wake: () => void = () => {};

  constructor(id: number, request: CaptureRequest, ports: readonly Port[], options: CapturesOptions) {
    const { arena, arenaView, workers, workerCount } = options;
    this.#id = id;
    this.#request = request;
    this.#names = ports.map(({ name }) => name);
    this.#kinds = ports.map(({ kind, endpoint }) => `${kind}: ${endpoint}`);
    this.#workers = workers;
    this.ended = this.#whenReleased.promise;
    const areas: ScratchArea[] = [];
    try {
      while (areas.length < workerCount)
        areas.push(allocateScratch(arena, { name: 'ringway-capture', sizeBytes: CAPTURE_AREA_BYTES }));
    } catch (error) {
      for (const area of areas) area.release();
      this.#whenReleased.resolve();
      throw error;
    }
    this.#areas = areas;
    const indices = new SharedArrayBuffer(4 * RING_WORDS * workerCount);
    const counts = new SharedArrayBuffer(8 * CAPTURE_COUNTS * ports.length * workerCount);
    this.#counts = new Float64Array(counts);
    this.#rings = areas.map(({ offset }, worker) => {
      const window = arenaView.windows[Math.floor(offset / WINDOW_BYTES)].u8;
      const start = (offset % WINDOW_BYTES) + CAPTURE_RING_OFFSET;
      const words = new Int32Array(indices, 4 * RING_WORDS * worker, RING_WORDS);
      return new RingReader(window.subarray(start, start + CAPTURE_RING_BYTES), words);
    });
    this.#setup = {
      id,
      portIds: ports.map((port) => port.id),
      directions: DIRECTIONS[request.direction],
      vlan: request.vlan,
      snapBytes: request.snapBytes,
      program: request.program,
      areaOffsets: areas.map(({ offset }) => offset),
      areaAddresses: areas.map(({ address }) => address),
      indices,
      counts,
    };
    this.stream = new ReadableStream<Uint8Array>(
      {
        pull: (controller) => this.#pull(controller),
        cancel: () => this.abandon(),
      },
      { highWaterMark: 0 },
    );
  }

  start(): Promise<void> {
    return this.#workers.startCapture(this.#setup);
  }

  report(): CaptureReport {
    const lost = this.#names.reduce((sum, _, i) => sum + this.#sumOf(i, CAPTURE_LOST), 0);
    return { id: this.#id, ports: this.#names, delivered: this.#delivered, lost };
  }

  /** What was copied so far is still given to the reader. */
  end(why: string): void {
    this.#why ??= why;
    this.#wake();
  }

  /** Nobody reads on. */
  async abandon(): Promise<void> {
    this.end('its reader is gone');
    await this.#detach();
    this.#release();
  }

  forgetPort(portId: number): void {
    if (!this.#setup.portIds.includes(portId)) return;
    const portIds = this.#setup.portIds.map((id) => (id === portId ? -1 : id));
    this.#setup = { ...this.#setup, portIds };
    if (portIds.every((id) => id < 0)) this.end('its ports were removed');
    else if (!this.#isDetached) void this.#workers.startCapture(this.#setup);
  }

  async #pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    if (!this.#isBegun) {
      this.#isBegun = true;
      controller.enqueue(this.#beginning());
      return;
    }
    for (;;) {
      if (this.#isReleased) return;
      // Frames that are copied until every worker has let go are given out, too.
      if (this.#why !== null) await this.#detach();
      if (this.#isReleased) return;
      const chunk = this.#read();
      if (chunk !== null) {
        controller.enqueue(chunk);
        return;
      }
      if (this.#why !== null) {
        controller.enqueue(this.#statistics(this.#why));
        controller.close();
        this.#release();
        return;
      }
      if (performance.now() - this.#statisticsMs > STATISTICS_PERIOD_MS) {
        controller.enqueue(this.#statistics(null));
        return;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, LOOK_PERIOD_MS);
      });
    }
  }

  #beginning(): Uint8Array {
    const { snapBytes } = this.#request;
    const interfaces = this.#names.map((name, i) => encodeInterface(name, snapBytes, this.#kinds[i]));
    return Buffer.concat([encodeSection('Ringway'), ...interfaces]);
  }

  /** Frames that wait, in the order of their times as far as they are there; null: none do. */
  #read(): Uint8Array | null {
    const chunk = new Uint8Array(Math.max(CHUNK_BYTES, CHUNK_BYTES_MIN));
    const { count } = this.#request;
    let end = 0;
    for (;;) {
      const left = count === null ? Number.POSITIVE_INFINITY : count - this.#delivered;
      const [first, second] = this.#byTime();
      if (left === 0 || first.nextTime === Number.POSITIVE_INFINITY) break;
      const before = end;
      end = first.take(chunk, end, left, second?.nextTime ?? Number.POSITIVE_INFINITY);
      this.#delivered += first.packets;
      if (end === before) break;
    }
    if (count !== null && this.#delivered >= count) this.end('it has as many frames as were asked for');
    return end === 0 ? null : chunk.subarray(0, end);
  }

  #byTime(): readonly RingReader[] {
    return this.#rings.length === 1 ? this.#rings : this.#rings.toSorted((a, b) => a.nextTime - b.nextTime);
  }

  #sumOf(interfaceIndex: number, which: number): number {
    const countsOfWorker = CAPTURE_COUNTS * this.#names.length;
    let sum = 0;
    for (let at = interfaceIndex * CAPTURE_COUNTS + which; at < this.#counts.length; at += countsOfWorker)
      sum += this.#counts[at];
    return sum;
  }

  /** `why`: it ends. */
  #statistics(why: string | null): Uint8Array {
    this.#statisticsMs = performance.now();
    const time = new Int32Array(2);
    const nowMs = Date.now();
    nanosecondWords(Math.floor(nowMs / 1000), (nowMs % 1000) * 1_000_000, time);
    const blocks = this.#names.map((_, i) => {
      const received = this.#sumOf(i, CAPTURE_WANTED);
      const lost = this.#sumOf(i, CAPTURE_LOST);
      const texts = [
        ...(lost === 0
          ? []
          : [`captureLost: ${lost} frames were not captured because the reader was too slow`]),
        ...(why === null ? [] : [`the capture ended: ${why}`]),
      ];
      return encodeStatistics(i, time, { received, lost, delivered: received - lost }, texts.join('; '));
    });
    return Buffer.concat(blocks);
  }

  async #detach(): Promise<void> {
    if (!this.#isDetached) {
      this.#isDetached = true;
      this.#whenDetached = this.#workers.endCapture(this.#id);
    }
    await this.#whenDetached;
  }

  #whenDetached: Promise<void> = Promise.resolve();

  #release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    for (const area of this.#areas) area.release();
    this.#whenReleased.resolve();
  }
}
