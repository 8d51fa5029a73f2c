/**
 * Frames in flight between two embedded guests: for every frame that a guest receives it sends one, so that
 * the number in flight stays. The counterpart of testpmd's io mode, which needs no DPDK and can vary the
 * targets. Guest process, its one thread; the loop allocates nothing.
 */
import type { EmbeddedGuest, QueuePair, ReceiveQueue, SendQueue } from '../../src/frontend/index.ts';
import { addressOf, fillBuffers, targetHigh, targetLow } from './frames.ts';
import type { GuestAnswers } from './guest-orders.ts';

export type CirculationOptions = {
  readonly frameBytes: number;
  /** Each way. */
  readonly inFlight: number;
  readonly warmUpMs: number;
  readonly windowMs: number;
  /** Frames go to random ones of so many addresses; 0: to the other guest's first one, never rewritten. */
  readonly addressesPerGuest: number;
};

const BURST = 32;
const TURNS_PER_CLOCK = 64;
/** After the window, frames on their way are waited for until none came for so long. */
const QUIET_MS = 20;
const DRAIN_MS_MAX = 1000;
const FIRST_FRAME_MS_MAX = 2000;

/** One guest's side: what it owes, and where its next frame goes. */
class Side {
  readonly pairs: readonly QueuePair[];
  readonly i32: Int32Array;
  readonly u16: Uint16Array;
  readonly frameBytes: number;
  readonly targetGuest: number;
  readonly targetCount: number;
  received = 0;
  sent = 0;
  /** Frames that this side may still send. */
  owed: number;
  nextPair = 0;
  /** State of a xorshift generator, never 0. */
  random: number;

  constructor(embedded: EmbeddedGuest, guest: number, options: CirculationOptions) {
    this.pairs = embedded.pairs;
    this.i32 = embedded.memory.i32;
    this.u16 = embedded.memory.u16;
    this.frameBytes = options.frameBytes;
    this.targetGuest = 1 - guest;
    this.targetCount = options.addressesPerGuest;
    this.owed = options.inFlight;
    this.random = 0x9e3779b9 ^ (guest + 1);
    fillBuffers(embedded, guest, options.frameBytes);
  }
}

export function circulate(
  guests: readonly [EmbeddedGuest, EmbeddedGuest],
  options: CirculationOptions,
): GuestAnswers['circulate'] {
  introduce(guests, options.frameBytes);
  const a = new Side(guests[0], 0, options);
  const b = new Side(guests[1], 1, options);
  runUntil(a, b, performance.now() + options.warmUpMs);
  const framesBefore = a.received + b.received;
  const startMs = performance.now();
  const endMs = runUntil(a, b, startMs + options.windowMs);
  const frames = a.received + b.received - framesBefore;
  drain(a, b);
  return {
    framesPerSecond: (frames * 1000) / (endMs - startMs),
    framesLost: a.sent + b.sent - a.received - b.received,
  };
}

/** Each guest sends a frame to the other, so that both addresses are learned before the load starts. */
function introduce(guests: readonly [EmbeddedGuest, EmbeddedGuest], frameBytes: number): void {
  for (const [index, guest] of guests.entries()) {
    fillBuffers(guest, index, frameBytes);
    const { fromGuest } = guest.pairs[0];
    fromGuest.reserve();
    fromGuest.commit(frameBytes);
    fromGuest.flush();
    const other = guests[1 - index];
    const deadlineMs = performance.now() + FIRST_FRAME_MS_MAX;
    while (receiveAll(other.pairs) === 0) {
      if (performance.now() > deadlineMs) throw new Error(`no frame came from guest ${index} to the other`);
    }
  }
}

/** Answers when it stopped. */
function runUntil(a: Side, b: Side, endMs: number): number {
  for (;;) {
    for (let turn = 0; turn < TURNS_PER_CLOCK; turn++) {
      pump(a);
      pump(b);
    }
    const nowMs = performance.now();
    if (nowMs >= endMs) return nowMs;
  }
}

/** Receives what came to this side and sends as many frames. */
function pump(side: Side): void {
  const { pairs } = side;
  let received = 0;
  for (let i = 0; i < pairs.length; i++) received += receiveBurst(pairs[i].toGuest);
  side.received += received;
  side.owed += received;
  // Round about: the queue that a flow's frames leave by has nothing to do with the queue they come in by.
  for (let i = 0; i < pairs.length && side.owed > 0; i++) {
    side.nextPair = side.nextPair + 1 < pairs.length ? side.nextPair + 1 : 0;
    sendBurst(side, pairs[side.nextPair].fromGuest);
  }
}

function receiveBurst(queue: ReceiveQueue): number {
  const count = Math.min(queue.usedWaiting(), BURST);
  if (count === 0) return 0;
  for (let i = 0; i < count; i++) {
    queue.take();
    queue.recycle();
  }
  queue.flush();
  return count;
}

function receiveAll(pairs: readonly QueuePair[]): number {
  let received = 0;
  for (const { toGuest } of pairs) received += receiveBurst(toGuest);
  return received;
}

function sendBurst(side: Side, queue: SendQueue): void {
  const wanted = Math.min(side.owed, BURST);
  let sent = 0;
  while (sent < wanted) {
    const offset = queue.reserve();
    if (offset < 0) break;
    if (side.targetCount !== 0) writeTarget(side, offset);
    queue.commit(side.frameBytes);
    sent++;
  }
  if (sent === 0) return;
  queue.flush();
  side.owed -= sent;
  side.sent += sent;
}

/** A frame starts at a multiple of 4: buffers at one of 64, and the header has 12 bytes. */
function writeTarget(side: Side, offset: number): void {
  let random = side.random;
  random ^= random << 13;
  random ^= random >>> 17;
  random ^= random << 5;
  side.random = random;
  // 16 bits of fraction are too few for a million targets; 30 bits times 2^20 stay exact in a double.
  const number = Math.floor(((random >>> 2) * side.targetCount) / 2 ** 30);
  side.i32[offset >> 2] = targetLow(side.targetGuest, number);
  side.u16[(offset + 4) >> 1] = targetHigh(number);
}

/** Takes what is still on its way, so that the next order starts with empty rings. */
function drain(a: Side, b: Side): void {
  const endMs = performance.now() + DRAIN_MS_MAX;
  let quietSinceMs = performance.now();
  while (performance.now() < endMs && performance.now() - quietSinceMs < QUIET_MS) {
    const fromB = receiveAll(a.pairs);
    const fromA = receiveAll(b.pairs);
    a.received += fromB;
    b.received += fromA;
    if (fromA + fromB > 0) quietSinceMs = performance.now();
  }
  for (const side of [a, b]) for (const { fromGuest } of side.pairs) fromGuest.reclaim();
}

/** Every address of both guests sends one frame to the other guest's first one. Answers the frames sent. */
export function announceAddresses(
  guests: readonly [EmbeddedGuest, EmbeddedGuest],
  addressesPerGuest: number,
  timeoutMs: number,
): number {
  const deadlineMs = performance.now() + timeoutMs;
  for (const [index, guest] of guests.entries()) {
    fillBuffers(guest, index, 64);
    const { fromGuest } = guest.pairs[0];
    for (let number = 0; number < addressesPerGuest; ) {
      const offset = fromGuest.reserve();
      if (offset >= 0) {
        guest.memory.u8.set(addressOf(index, number), offset + 6);
        fromGuest.commit(64);
        if (++number % BURST === 0) fromGuest.flush();
      } else {
        fromGuest.flush();
        if (performance.now() > deadlineMs) throw new Error('the switch takes no more frames');
      }
      for (const other of guests) receiveAll(other.pairs);
    }
    fromGuest.flush();
    while (fromGuest.reclaim() < fromGuest.ring.size) {
      for (const other of guests) receiveAll(other.pairs);
      if (performance.now() > deadlineMs) throw new Error('the switch takes no more frames');
    }
  }
  return guests.length * addressesPerGuest;
}
