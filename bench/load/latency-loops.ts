/**
 * One frame at a time between two embedded guests, with the time that it took: round trips while the switch
 * is busy, and single frames to a switch that has gone to sleep. Guest process, its one thread, which spins.
 */
import type { EmbeddedGuest, QueuePair } from '../../src/frontend/index.ts';
import { type LatencyFigures, latencyFiguresOf } from '../statistics.ts';
import { fillBuffers } from './frames.ts';

/** A frame that takes longer is lost. */
const LOST_MS = 200;
const SPINS_PER_CLOCK = 4096;
const LOST_MAX = 50;
const WARM_UP_SAMPLES = 20_000;
/** Where a frame carries its number: in the payload, at a multiple of 4 in guest memory. */
const NUMBER_OFFSET = 44;

/** One guest, ready to send and receive numbered frames. */
class Station {
  readonly pair: QueuePair;
  readonly i32: Int32Array;
  readonly frameBytes: number;

  constructor(guest: EmbeddedGuest, frameBytes: number) {
    this.pair = guest.pairs[0];
    this.i32 = guest.memory.i32;
    this.frameBytes = frameBytes;
  }
}

export function measureRoundTrips(
  guests: readonly [EmbeddedGuest, EmbeddedGuest],
  samples: number,
  frameBytes: number,
): LatencyFigures {
  const [a, b] = stations(guests, frameBytes);
  const warmUp = Math.min(samples, WARM_UP_SAMPLES);
  const timesMs = new Float64Array(samples);
  let lost = 0;
  let lostEarly = 0;
  let number = 0;
  for (let i = -warmUp; i < samples; ) {
    a.pair.fromGuest.reclaim();
    b.pair.fromGuest.reclaim();
    number = (number + 1) & 0xffffff;
    const startMs = performance.now();
    send(a, number);
    let arrived = awaitFrame(b, number);
    if (arrived) {
      send(b, number);
      arrived = awaitFrame(a, number);
    }
    const endMs = performance.now();
    if (arrived) {
      if (i >= 0) timesMs[i] = endMs - startMs;
      i++;
    } else if (i >= 0) lost++;
    // A switch may take a moment until a new port forwards.
    else lostEarly++;
    if (lost + lostEarly > LOST_MAX) throw new Error(`${lost + lostEarly} frames were lost`);
  }
  return latencyFiguresOf(timesMs, lost);
}

export function measureFirstFrames(
  guests: readonly [EmbeddedGuest, EmbeddedGuest],
  samples: number,
  gapMs: number,
): LatencyFigures {
  const frameBytes = 64;
  // Both addresses are learned, and the loop is compiled.
  measureRoundTrips(guests, WARM_UP_SAMPLES, frameBytes);
  const [a, b] = stations(guests, frameBytes);
  const timesMs = new Float64Array(samples);
  let lost = 0;
  let number = 0;
  for (let i = 0; i < samples; ) {
    a.pair.fromGuest.reclaim();
    number = (number + 1) & 0xffffff;
    const nextMs = performance.now() + gapMs;
    while (performance.now() < nextMs);
    const startMs = performance.now();
    send(a, number);
    if (awaitFrame(b, number)) timesMs[i++] = performance.now() - startMs;
    else if (++lost > LOST_MAX) throw new Error(`${lost} frames were lost`);
  }
  return latencyFiguresOf(timesMs, lost);
}

function stations(
  guests: readonly [EmbeddedGuest, EmbeddedGuest],
  frameBytes: number,
): readonly [Station, Station] {
  for (const [index, guest] of guests.entries()) fillBuffers(guest, index, frameBytes);
  return [new Station(guests[0], frameBytes), new Station(guests[1], frameBytes)];
}

function send({ pair, i32, frameBytes }: Station, number: number): void {
  const offset = pair.fromGuest.reserve();
  if (offset < 0) throw new Error('the switch keeps every transmit buffer');
  i32[(offset + NUMBER_OFFSET) >> 2] = number;
  pair.fromGuest.commit(frameBytes);
  pair.fromGuest.flush();
}

/** Waits for the frame of that number; late ones that were given up are passed over. False: none in time. */
function awaitFrame({ pair, i32 }: Station, number: number): boolean {
  const { toGuest } = pair;
  let deadlineMs = -1;
  for (;;) {
    for (let spin = 0; spin < SPINS_PER_CLOCK; spin++) {
      if (toGuest.usedWaiting() === 0) continue;
      const offset = toGuest.take();
      const arrived = i32[(offset + NUMBER_OFFSET) >> 2];
      toGuest.recycle();
      toGuest.flush();
      if (arrived === number) return true;
    }
    if (deadlineMs < 0) deadlineMs = performance.now() + LOST_MS;
    else if (performance.now() > deadlineMs) return false;
  }
}
