/**
 * Frames between many embedded guests: for every frame that a guest receives it sends one, to the next of the other
 * guests in turn, so that each burst is a mixture of targets and the number in flight stays. A frame's target is
 * read where it is received and written where it is sent, as a guest would. Guest process, its one thread; the loop
 * allocates nothing.
 */
import type { EmbeddedGuest, ReceiveQueue, SendQueue } from '../../src/frontend/index.ts';
import { fillBuffers, targetHigh, targetLow } from './frames.ts';
import type { GuestAnswers } from './guest-orders.ts';

export type MixingOptions = {
  readonly frameBytes: number;
  /** For each guest. */
  readonly inFlight: number;
  readonly warmUpMs: number;
  readonly windowMs: number;
};

const BURST = 32;
const TURNS_PER_CLOCK = 64;
/** Frames on their way are waited for until none came for so long, which a switch without a processor may be. */
const QUIET_MS = 200;
const DRAIN_MS_MAX = 1000;

/** One guest's side: what it owes, and whom it sends to next. */
class Mixer {
  readonly toGuest: ReceiveQueue;
  readonly fromGuest: SendQueue;
  readonly i32: Int32Array;
  readonly u16: Uint16Array;
  readonly frameBytes: number;
  readonly guest: number;
  readonly guestCount: number;
  readonly ownLow: number;
  target: number;
  owed: number;
  sent = 0;
  received = 0;
  /** Frames that were for another guest. */
  strayed = 0;
  /** Looks at the ring for received frames, and those that found none. */
  looks = 0;
  emptyLooks = 0;

  constructor(embedded: EmbeddedGuest, guest: number, guestCount: number, options: MixingOptions) {
    this.toGuest = embedded.pairs[0].toGuest;
    this.fromGuest = embedded.pairs[0].fromGuest;
    this.i32 = embedded.memory.i32;
    this.u16 = embedded.memory.u16;
    this.frameBytes = options.frameBytes;
    this.guest = guest;
    this.guestCount = guestCount;
    this.ownLow = targetLow(guest, 0);
    this.target = guest;
    this.owed = options.inFlight;
    fillBuffers(embedded, guest, options.frameBytes);
  }
}

export function mix(guests: readonly EmbeddedGuest[], options: MixingOptions): GuestAnswers['mix'] {
  const mixers = guests.map((guest, index) => new Mixer(guest, index, guests.length, options));
  runUntil(mixers, performance.now() + options.warmUpMs);
  const framesBefore = receivedBy(mixers);
  for (const mixer of mixers) {
    mixer.looks = 0;
    mixer.emptyLooks = 0;
  }
  const startMs = performance.now();
  const endMs = runUntil(mixers, startMs + options.windowMs);
  const frames = receivedBy(mixers) - framesBefore;
  const emptyLooks = mixers.reduce((sum, mixer) => sum + mixer.emptyLooks, 0);
  const emptyLookShare = emptyLooks / mixers.reduce((sum, { looks }) => sum + looks, 0);
  drain(mixers);
  return {
    emptyLookShare,
    framesPerSecond: (frames * 1000) / (endMs - startMs),
    framesLost: mixers.reduce((sum, { sent, received }) => sum + sent - received, 0),
    framesStrayed: mixers.reduce((sum, { strayed }) => sum + strayed, 0),
  };
}

/** Every guest sends one frame, so that its address is learned; what comes of them is taken and forgotten. */
export function announceGuests(
  guests: readonly EmbeddedGuest[],
  frameBytes: number,
): GuestAnswers['announce'] {
  const options = { frameBytes, inFlight: 1, warmUpMs: 0, windowMs: 0 };
  const mixers = guests.map((guest, index) => new Mixer(guest, index, guests.length, options));
  for (const mixer of mixers) sendBurst(mixer);
  drain(mixers);
  return { framesSent: mixers.length };
}

function receivedBy(mixers: readonly Mixer[]): number {
  let received = 0;
  for (let i = 0; i < mixers.length; i++) received += mixers[i].received;
  return received;
}

/** Answers when it stopped. */
function runUntil(mixers: readonly Mixer[], endMs: number): number {
  for (;;) {
    for (let turn = 0; turn < TURNS_PER_CLOCK; turn++) {
      for (let i = 0; i < mixers.length; i++) {
        const mixer = mixers[i];
        mixer.owed += receiveBurst(mixer);
        if (mixer.owed > 0) sendBurst(mixer);
      }
    }
    const nowMs = performance.now();
    if (nowMs >= endMs) return nowMs;
  }
}

/** Answers how many of the frames were for this guest. */
function receiveBurst(mixer: Mixer): number {
  const queue = mixer.toGuest;
  const count = Math.min(queue.usedWaiting(), BURST);
  mixer.looks++;
  if (count === 0) {
    mixer.emptyLooks++;
    return 0;
  }
  const { i32, ownLow } = mixer;
  let own = 0;
  for (let i = 0; i < count; i++) {
    // A frame starts at a multiple of 4: buffers at one of 64, and the header has 12 bytes.
    if (i32[queue.take() >> 2] === ownLow) own++;
    queue.recycle();
  }
  queue.flush();
  mixer.received += own;
  mixer.strayed += count - own;
  return own;
}

function sendBurst(mixer: Mixer): void {
  const queue = mixer.fromGuest;
  const { i32, u16, frameBytes, guest, guestCount } = mixer;
  const wanted = Math.min(mixer.owed, BURST);
  let target = mixer.target;
  let sent = 0;
  while (sent < wanted) {
    const offset = queue.reserve();
    if (offset < 0) break;
    target = target + 1 < guestCount ? target + 1 : 0;
    if (target === guest) target = target + 1 < guestCount ? target + 1 : 0;
    i32[offset >> 2] = targetLow(target, 0);
    u16[(offset + 4) >> 1] = targetHigh(0);
    queue.commit(frameBytes);
    sent++;
  }
  mixer.target = target;
  if (sent === 0) return;
  queue.flush();
  mixer.owed -= sent;
  mixer.sent += sent;
}

/** Takes what is still on its way, so that the next order starts with empty rings. */
function drain(mixers: readonly Mixer[]): void {
  const endMs = performance.now() + DRAIN_MS_MAX;
  let quietSinceMs = performance.now();
  while (performance.now() < endMs && performance.now() - quietSinceMs < QUIET_MS) {
    for (const mixer of mixers) {
      const waiting = mixer.toGuest.usedWaiting();
      receiveBurst(mixer);
      if (waiting > 0) quietSinceMs = performance.now();
    }
  }
  for (const { fromGuest } of mixers) fromGuest.reclaim();
}
