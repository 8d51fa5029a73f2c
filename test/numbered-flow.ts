/** Numbered frames between embedded guests: which came, how often, and whether whole. */
import type { EmbeddedGuest } from '../src/frontend/index.ts';
import { withDeadline } from './peers/deadline.ts';

/** Fewer than a guest has buffers, so that none is dropped for want of them. */
const WINDOW_FRAMES = 128;
const TEST_ETHERTYPE = 0x88b5;
/** Without a frame: longer than any switch is away, also where there is much else to do; a test may take longer. */
const STALLED_MS = 25_000;

/** Frames both ways until `isEnough`; sleeps where nothing moves, so each lost interrupt shows. Rejects as `anyInterrupt` does. */
export async function flowUntil(
  flows: readonly NumberedFlow[],
  isEnough: () => boolean,
  seen: () => string,
  stalledMs = STALLED_MS,
): Promise<void> {
  while (!isEnough()) {
    const moved = flows.map((flow) => flow.step());
    if (!moved.includes(true)) await anyInterrupt(flows, seen, stalledMs);
    else await new Promise(setImmediate);
  }
}

/** Resolves when every buffer that the guests sent in is back. Rejects where one does not come. */
export async function reclaimAll(guests: readonly EmbeddedGuest[], seen: () => string): Promise<void> {
  for (const { fromGuest } of guests.map(({ pairs }) => pairs[0])) {
    while (fromGuest.reclaim() < fromGuest.ring.size) {
      const told = (): string =>
        `${fromGuest.reclaim()} of ${fromGuest.ring.size} buffers came back\n${seen()}`;
      await withDeadline(fromGuest.ring.interrupt(), STALLED_MS, told);
    }
  }
}

/** Resolves when one of these may have a frame. Rejects with what was sent and came where none does, and what `seen` tells. */
async function anyInterrupt(
  flows: readonly NumberedFlow[],
  seen: () => string,
  stalledMs = STALLED_MS,
): Promise<void> {
  const told = (): string => {
    const counts = flows.map(({ sent, distinct, twice }) => ({ sent, distinct, twice }));
    return `no frame came in ${stalledMs} ms: ${JSON.stringify(counts)}\n${seen()}`;
  };
  await withDeadline(Promise.race(flows.map((flow) => flow.interrupt())), stalledMs, told);
}

/** Takes what is on its way, of one flow after the other. Rejects as `anyInterrupt` does. */
export async function takeAll(
  flows: readonly NumberedFlow[],
  seen: () => string,
  stalledMs = STALLED_MS,
): Promise<void> {
  for (const flow of flows)
    for (flow.take(); !flow.isDone; flow.take()) await anyInterrupt([flow], seen, stalledMs);
}

/** Numbered frames from one guest to the other. */
export class NumberedFlow {
  sent = 0;
  /** How often each came. */
  readonly times: number[] = [];
  distinct = 0;
  /** Frames that came, those that came twice with them. */
  came = 0;
  /** Others to the same guest: whoever takes frames of it takes them for all. */
  beside: readonly NumberedFlow[] = [];
  readonly #from: EmbeddedGuest;
  readonly #to: EmbeddedGuest;

  readonly #windowFrames: number;

  constructor(from: EmbeddedGuest, to: EmbeddedGuest, windowFrames = WINDOW_FRAMES) {
    this.#from = from;
    this.#to = to;
    this.#windowFrames = windowFrames;
  }

  /** Whether anything moved. */
  step(): boolean {
    const before = this.sent + this.distinct;
    while (this.sent - this.distinct < this.#windowFrames && this.#from.send(this.#frame(this.sent)))
      this.sent++;
    this.take();
    return this.sent + this.distinct > before;
  }

  take(): void {
    for (let frame = this.#to.receive(); frame !== null; frame = this.#to.receive()) {
      const source = Buffer.from(frame.subarray(6, 12));
      (this.beside.find((flow) => source.equals(flow.#from.mac)) ?? this).#accept(frame);
    }
  }

  #accept(frame: Uint8Array): void {
    const number = new DataView(frame.buffer).getUint32(14);
    if (!Buffer.from(frame).equals(this.#frame(number))) throw new Error(`frame ${number} was damaged`);
    if (this.times[number] === undefined) this.distinct++;
    this.times[number] = (this.times[number] ?? 0) + 1;
    this.came++;
  }

  interrupt(): Promise<void> {
    return this.#to.pairs[0].toGuest.ring.interrupt();
  }

  get isDone(): boolean {
    return this.distinct === this.sent;
  }

  get twice(): number {
    return this.came - this.distinct;
  }

  #frame(number: number): Uint8Array {
    const frame = new Uint8Array(60 + ((number * 37) % 900)).fill(number);
    frame.set(this.#to.mac);
    frame.set(this.#from.mac, 6);
    const view = new DataView(frame.buffer);
    view.setUint16(12, TEST_ETHERTYPE);
    view.setUint32(14, number);
    return frame;
  }
}
