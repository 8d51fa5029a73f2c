/**
 * Frames between guests that are numbered, so that each that is lost, comes twice, comes late or is changed shows. Each
 * queue pair of each guest has a flow to each other guest; a flow has few frames under way at a time, so that a receiver
 * that takes them has room for all. In the test's own process; guests may be of any kind and may be reset meanwhile.
 * Owns its counts.
 */
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises';
import type { QueuePair, SendOptions, SendQueue } from '../../src/frontend/index.ts';

/** What sends and receives: an embedded guest, or a card's driver behind QEMU. */
export type Station = {
  readonly mac: Uint8Array;
  /** Empty while it is out of use. */
  readonly pairs: readonly QueuePair[];
};

export type TrafficOptions = {
  /** Frames of a flow under way at a time; default: so many that all flows to a guest fill half a ring of 256. */
  readonly window?: number;
  /** Of a frame, default 60 to 1,514 bytes. */
  readonly bytesMin?: number;
  readonly bytesMax?: number;
  /** Some frames lie in several parts, others in indirect tables, where stations allow that; default true. */
  readonly isShaped?: boolean;
};

export type Tally = {
  readonly sent: number;
  /** Each frame once. */
  readonly received: number;
  /** Written off, and not come since. */
  readonly lost: number;
  readonly doubled: number;
  /** Came after a later one of its flow. */
  readonly disordered: number;
  /** Not as any that was sent. */
  readonly damaged: number;
  readonly underWay: number;
};

/** Ethernet, IPv4 and UDP, whose ports tell flows apart for whoever spreads them over queues; then flow and number. */
const HEADERS_BYTES = 42;
const FLOW_AT = HEADERS_BYTES;
const NUMBER_AT = FLOW_AT + 4;
const CONTENT_AT = NUMBER_AT + 4;
const PATTERN_BYTES = 4096;
const UNDER_WAY_TO_STATION = 128;
const BURST = 16;
const IDLE_MS = 1;
const DRAIN_TIMEOUT_MS = 30_000;

const SENT = 1;
const RECEIVED = 2;
const WRITTEN_OFF = 3;

class Flow {
  readonly from: Station;
  readonly pair: number;
  readonly to: Station;
  sent = 0;
  underWay = 0;
  /** The number expected next, were nothing lost. */
  next = 0;
  /** What became of each number. */
  #states = new Uint8Array(1 << 12);

  constructor(from: Station, pair: number, to: Station) {
    this.from = from;
    this.pair = pair;
    this.to = to;
  }

  markSent(): void {
    if (this.sent === this.#states.length) {
      const states = new Uint8Array(2 * this.sent);
      states.set(this.#states);
      this.#states = states;
    }
    this.#states[this.sent++] = SENT;
    this.underWay++;
  }

  /** Answers what it was before. */
  markReceived(number: number): number {
    const before = this.#states[number];
    this.#states[number] = RECEIVED;
    if (before === SENT) this.underWay--;
    return before;
  }

  writeOff(): number {
    const count = this.underWay;
    for (let number = this.sent - 1; this.underWay > 0; number--) {
      if (this.#states[number] !== SENT) continue;
      this.#states[number] = WRITTEN_OFF;
      this.underWay--;
    }
    return count;
  }
}

export class NumberedTraffic {
  readonly #stations: readonly Station[];
  readonly #options: Required<Omit<TrafficOptions, 'window'>> & { readonly window: number };
  readonly #flows: Flow[] = [];
  readonly #pattern = Uint8Array.from({ length: PATTERN_BYTES }, (_, i) => (i * 2_654_435_761) >>> 13);
  readonly #taken = new Map<Station, number>();
  #lost = 0;
  #received = 0;
  #doubled = 0;
  #disordered = 0;
  #damaged = 0;
  #turns = 0;

  /** Flows are made for the pairs that the stations have now. */
  constructor(stations: readonly Station[], options: TrafficOptions = {}) {
    this.#stations = stations;
    for (const from of stations) {
      for (const to of stations) {
        if (to !== from) for (const pair of from.pairs.keys()) this.#flows.push(new Flow(from, pair, to));
      }
    }
    const toOne = Math.max(
      ...stations.map((station) => this.#flows.filter(({ to }) => to === station).length),
    );
    this.#options = {
      window: options.window ?? Math.max(1, Math.floor(UNDER_WAY_TO_STATION / toOne)),
      bytesMin: options.bytesMin ?? 60,
      bytesMax: options.bytesMax ?? 1514,
      isShaped: options.isShaped ?? true,
    };
  }

  get tally(): Tally {
    const sum = (of: (flow: Flow) => number): number =>
      this.#flows.reduce((total, flow) => total + of(flow), 0);
    return {
      sent: sum(({ sent }) => sent),
      received: this.#received,
      lost: this.#lost,
      doubled: this.#doubled,
      disordered: this.#disordered,
      damaged: this.#damaged,
      underWay: sum(({ underWay }) => underWay),
    };
  }

  /** Frames that this station has sent. */
  sentBy(station: Station): number {
    return this.#flows.reduce((total, { from, sent }) => total + (from === station ? sent : 0), 0);
  }

  /** Frames that this station took from its receive queues, whoever they were for. */
  takenBy(station: Station): number {
    return this.#taken.get(station) ?? 0;
  }

  /**
   * Sends and receives until `work` is done, and answers its result; then frames may still be under way.
   * Default `senders`: all stations.
   */
  async during<T>(work: Promise<T>, senders: readonly Station[] = this.#stations): Promise<T> {
    let isOver = false;
    const watched = work.finally(() => {
      isOver = true;
    });
    watched.catch(() => {});
    while (!isOver) await this.#turn(({ from }) => (senders.includes(from) ? Number.POSITIVE_INFINITY : 0));
    return watched;
  }

  /** Sends `frames` more of each flow, and drains. */
  async exchange(frames: number): Promise<void> {
    const targets = new Map(this.#flows.map((flow) => [flow, flow.sent + frames]));
    const left = (flow: Flow): number => targets.get(flow)! - flow.sent;
    const deadline = AbortSignal.timeout(DRAIN_TIMEOUT_MS + frames);
    while (this.#flows.some((flow) => left(flow) > 0)) {
      await this.#turn(left);
      if (deadline.aborted) throw new Error(`the guests cannot send: ${JSON.stringify(this.tally)}`);
    }
    await this.drain();
  }

  /** Receives until `isOver`; default: until nothing is under way. @throws Error after 30 s */
  async drain(isOver: () => boolean | Promise<boolean> = () => this.tally.underWay === 0): Promise<void> {
    const deadline = AbortSignal.timeout(DRAIN_TIMEOUT_MS);
    while (!(await isOver())) {
      await this.#turn(() => 0);
      if (deadline.aborted) throw new Error(`frames do not arrive: ${JSON.stringify(this.tally)}`);
    }
  }

  /**
   * Receives until the switch has done with all that was sent, and all that it delivered is taken; what is under way
   * then does not come any more. @throws Error after 30 s
   */
  async settle(): Promise<void> {
    const queues = (): SendQueue[] =>
      this.#stations.flatMap(({ pairs }) => pairs.map(({ fromGuest }) => fromGuest));
    // The switch gives a frame back to its sender once it has been delivered.
    await this.drain(() => queues().every((queue) => queue.reclaim() === queue.ring.size));
    while (this.#stations.map((station) => this.#receive(station)).some((count) => count > 0));
  }

  /** Counts what is under way as lost; answers how many frames that are. */
  writeOff(): number {
    const count = this.#flows.reduce((total, flow) => total + flow.writeOff(), 0);
    this.#lost += count;
    return count;
  }

  /** `mayStill`: how many frames a flow may still send. */
  async #turn(mayStill: (flow: Flow) => number): Promise<void> {
    let moved = 0;
    for (const flow of this.#flows) moved += this.#send(flow, Math.min(BURST, mayStill(flow)));
    for (const station of this.#stations) moved += this.#receive(station);
    // A guest that has nothing to do lets others work.
    if (moved === 0) await delay(IDLE_MS);
    else if (++this.#turns % 4 === 0) await nextTurn();
  }

  #send(flow: Flow, framesMax: number): number {
    const { from, to, pair } = flow;
    const queues = from.pairs[pair];
    if (queues === undefined) return 0;
    let count = 0;
    while (count < framesMax && flow.underWay < this.#options.window) {
      const frame = this.#frame(this.#flows.indexOf(flow), flow.sent, from, to);
      if (!queues.send(frame, this.#shape(flow.sent))) break;
      flow.markSent();
      count++;
    }
    return count;
  }

  #shape(number: number): SendOptions {
    if (!this.#options.isShaped) return {};
    if (number % 8 === 3) return { pieces: [12] };
    return number % 8 === 5 ? { pieces: [12, 14, 20] } : {};
  }

  #frame(flow: number, number: number, from: Station, to: Station): Uint8Array {
    const { bytesMin, bytesMax } = this.#options;
    const sizeBytes = Math.max(CONTENT_AT, bytesMin + ((number * 97) % (bytesMax - bytesMin + 1)));
    const frame = new Uint8Array(sizeBytes);
    const view = new DataView(frame.buffer);
    frame.set(to.mac);
    frame.set(from.mac, 6);
    view.setUint16(12, 0x0800);
    view.setUint8(14, 0x45);
    view.setUint16(16, sizeBytes - 14);
    view.setUint8(22, 64);
    view.setUint8(23, 17);
    view.setUint32(26, 0x0a000001 + flow);
    view.setUint32(30, 0x0a010001 + flow);
    view.setUint16(34, 10_000 + flow);
    view.setUint16(36, 20_000 + flow);
    view.setUint16(38, sizeBytes - 34);
    view.setUint32(FLOW_AT, flow);
    view.setUint32(NUMBER_AT, number);
    const start = number % (PATTERN_BYTES / 2);
    frame.set(this.#pattern.subarray(start, start + sizeBytes - CONTENT_AT), CONTENT_AT);
    return frame;
  }

  #receive(station: Station): number {
    let count = 0;
    for (const pair of station.pairs) {
      for (let left = BURST * 4; left > 0; left--) {
        const frame = pair.receive();
        if (frame === null) break;
        this.#account(station, frame);
        count++;
      }
    }
    this.#taken.set(station, this.takenBy(station) + count);
    return count;
  }

  #account(station: Station, frame: Uint8Array): void {
    // Flooded to all before the switch knew where its receiver is.
    if (frame.length >= 6 && !station.mac.every((byte, i) => frame[i] === byte)) return;
    const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
    const index = frame.length < CONTENT_AT ? -1 : view.getUint32(FLOW_AT);
    const flow = this.#flows[index];
    const number = flow === undefined ? 0 : view.getUint32(NUMBER_AT);
    if (flow?.to !== station || number >= flow.sent) {
      this.#damaged++;
      return;
    }
    if (Buffer.compare(frame, this.#frame(index, number, flow.from, flow.to)) !== 0) this.#damaged++;
    const before = flow.markReceived(number);
    if (before === RECEIVED) {
      this.#doubled++;
      return;
    }
    this.#received++;
    if (before === WRITTEN_OFF) this.#lost--;
    if (number < flow.next) this.#disordered++;
    else flow.next = number + 1;
  }
}
