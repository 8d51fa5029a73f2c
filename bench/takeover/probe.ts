/**
 * Two guests that send each other numbered frames at a steady pace, and know of each when it came: what an outage is to a
 * guest. A process of its own, favoured by the scheduler, so that what is measured is the switch and not its turn on the
 * processor: `probe.ts SOCKET_A SOCKET_B PERIOD_US`. Told by its parent when a window begins and ends.
 */
import { EmbeddedGuest } from '../../src/frontend/index.ts';
import { favour } from '../../src/host/favour.ts';
import type { ProbeOrder, ProbeWindow } from './contract.ts';

const FRAME_BYTES = 64;
const ETHERTYPE_AT = 12;
const NUMBER_AT = 14;
const ETHERTYPE = 0x88b5;
/** Fewer than a guest has buffers: none is dropped because we were not run. */
const UNDERWAY_MAX = 128;
const NAP_MS = 0.05;

const [socketA, socketB, periodUs] = process.argv.slice(2);
const periodMs = Number(periodUs) / 1000;

class Flow {
  sent = 0;
  distinct = 0;
  twice = 0;
  /** Not sent, because too many were under way. */
  withheld = 0;
  longestGapMs = 0;
  longestEndMs = 0;
  #lastMs = performance.now();
  #nextMs = performance.now();
  /** Numbers that did not come yet, below the highest that did. */
  readonly #missing = new Set<number>();
  #highest = -1;
  readonly #from: EmbeddedGuest;
  readonly #to: EmbeddedGuest;
  readonly #frame = new Uint8Array(FRAME_BYTES);
  readonly #view = new DataView(this.#frame.buffer);

  constructor(from: EmbeddedGuest, to: EmbeddedGuest) {
    this.#from = from;
    this.#to = to;
    this.#frame.set(to.mac);
    this.#frame.set(from.mac, 6);
    this.#view.setUint16(ETHERTYPE_AT, ETHERTYPE);
  }

  step(nowMs: number): void {
    if (nowMs >= this.#nextMs) {
      this.#nextMs = Math.max(this.#nextMs + periodMs, nowMs);
      this.#view.setUint32(NUMBER_AT, this.sent);
      if (this.sent - this.distinct < UNDERWAY_MAX && this.#from.send(this.#frame)) this.sent++;
      else this.withheld++;
    }
    this.take();
  }

  take(): void {
    for (let frame = this.#to.receive(); frame !== null; frame = this.#to.receive()) {
      const view = new DataView(frame.buffer, frame.byteOffset);
      // Until it has learned addresses, the switch gives us the load's frames too.
      if (view.getUint16(ETHERTYPE_AT) !== ETHERTYPE) continue;
      const nowMs = performance.now();
      this.noteGap(nowMs);
      this.#lastMs = nowMs;
      this.#note(view.getUint32(NUMBER_AT));
    }
  }

  begin(): void {
    this.longestGapMs = 0;
    this.withheld = 0;
  }

  /** How long nothing came until now. */
  noteGap(nowMs: number): void {
    if (nowMs - this.#lastMs <= this.longestGapMs) return;
    this.longestGapMs = nowMs - this.#lastMs;
    this.longestEndMs = nowMs;
  }

  #note(number: number): void {
    if (number > this.#highest) {
      for (let i = this.#highest + 1; i < number; i++) this.#missing.add(i);
      this.#highest = number;
      this.distinct++;
    } else if (this.#missing.delete(number)) this.distinct++;
    else this.twice++;
  }
}

// Also V8's own threads: while they wait for their turn in a collection, so does everything here.
favour();
const guests = await Promise.all([
  EmbeddedGuest.connect({ socketPath: socketA, mac: '02:00:00:00:02:0a', waitMs: 20_000 }),
  EmbeddedGuest.connect({ socketPath: socketB, mac: '02:00:00:00:02:0b', waitMs: 20_000 }),
]);
const flows = [new Flow(guests[0], guests[1]), new Flow(guests[1], guests[0])];
const cell = new Int32Array(new SharedArrayBuffer(4));
let isRunning = true;
let isSending = true;
process.on('disconnect', () => process.exit(0));
process.on('message', (order: ProbeOrder) => {
  if (order === 'begin') for (const flow of flows) flow.begin();
  if (order === 'rest') isSending = false;
  if (order === 'end') isRunning = false;
  process.send?.(windowNow());
});

function windowNow(): ProbeWindow {
  const nowMs = performance.now();
  for (const flow of flows) flow.noteGap(nowMs);
  const [longest] = [...flows].sort((a, b) => b.longestGapMs - a.longestGapMs);
  return {
    gapMs: longest.longestGapMs,
    gapEndEpochMs: performance.timeOrigin + longest.longestEndMs,
    sent: sum(flows.map((flow) => flow.sent)),
    received: sum(flows.map((flow) => flow.distinct)),
    twice: sum(flows.map((flow) => flow.twice)),
    withheld: sum(flows.map((flow) => flow.withheld)),
    disconnects: guests.filter((guest) => guest.session.isClosed).length,
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

while (isRunning) {
  const nowMs = performance.now();
  for (const flow of flows) {
    if (isSending) flow.step(nowMs);
    else flow.take();
  }
  await new Promise(setImmediate);
  Atomics.wait(cell, 0, 0, NAP_MS);
}
for (const guest of guests) guest.close();
