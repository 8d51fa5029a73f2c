/**
 * One guest's side of the demo's traffic: sends numbered frames to the peer and checks every frame that
 * comes. A frame that is on its way is a token: each guest starts with a window of them and sends one frame
 * for each that it receives, so that a correct switch always finds a free receive buffer. One thread's
 * object; `poll` is hot and allocates nothing.
 */

import type { EmbeddedGuest } from '../../src/frontend/net-device.ts';
import type { ReceiveQueue } from '../../src/frontend/receive-queue.ts';
import type { SendQueue } from '../../src/frontend/send-queue.ts';
import { drainFd } from '../../src/host/descriptor.ts';
import { EpollSet } from '../../src/host/epoll.ts';
import type { GuestCounts, GuestPlan } from './messages.ts';
import {
  addressWords,
  checkFrame,
  KIND_CORRUPTED,
  KIND_DATA,
  KIND_HEARD,
  KIND_HELLO,
  writeFrame,
} from './test-frame.ts';

/** Frames handled before the device sees the buffers that come back and the frames sent. */
const BURST_FRAMES = 128;
/** Looks at an empty ring before blocking. */
const IDLE_TURNS_MAX = 64;
const BROADCAST = new Uint8Array(6).fill(0xff);

const SENT = 0;
const RECEIVED = 1;
const CORRUPTED = 2;
const MISORDERED = 3;
const MISSING = 4;

export class Traffic {
  /** The peer's hello came. */
  heardPeer = false;
  /** The peer said that ours came. */
  peerHeard = false;
  readonly #toGuest: ReceiveQueue;
  readonly #fromGuest: SendQueue;
  readonly #i32: Int32Array;
  readonly #u8: Uint8Array;
  readonly #plan: GuestPlan;
  readonly #toPeer: Int32Array;
  readonly #fromPeer: Int32Array;
  readonly #toAll: Int32Array;
  /** Counters as doubles in an array: they outgrow int32 and are written without allocation. */
  readonly #counts = new Float64Array(5);
  readonly #epoll = new EpollSet();
  #sending = false;
  /** Frames that may be sent as soon as there is a buffer. */
  #tokens = 0;
  #sendSequence = 0;
  #expectedSequence = 0;

  constructor(guest: EmbeddedGuest, plan: GuestPlan, peerMac: Uint8Array) {
    const pair = guest.pairs[0];
    this.#toGuest = pair.toGuest;
    this.#fromGuest = pair.fromGuest;
    if (pair.fromGuest.ring.headerBytes % 4 !== 0)
      throw new Error('frames do not start at multiples of four bytes');
    this.#i32 = guest.memory.i32;
    this.#u8 = guest.memory.u8;
    this.#plan = plan;
    this.#toPeer = addressWords(peerMac, guest.mac);
    this.#fromPeer = addressWords(guest.mac, peerMac);
    this.#toAll = addressWords(BROADCAST, guest.mac);
    this.#epoll.add(pair.toGuest.ring.callFd);
  }

  get counts(): GuestCounts {
    const counts = this.#counts;
    return {
      sent: counts[SENT],
      received: counts[RECEIVED],
      corrupted: counts[CORRUPTED],
      misordered: counts[MISORDERED],
      missing: counts[MISSING],
    };
  }

  /** Frames of the peer that came, whatever was wrong with them. */
  get arrived(): number {
    const counts = this.#counts;
    return counts[RECEIVED] + counts[CORRUPTED] + counts[MISORDERED];
  }

  start(): void {
    this.#sending = true;
    this.#tokens = this.#plan.windowFrames;
    this.#sendTokens();
    this.#fromGuest.flush();
  }

  stop(): void {
    this.#sending = false;
    this.#tokens = 0;
  }

  sayHello(): void {
    const offset = this.#fromGuest.reserve();
    if (offset < 0) return;
    const { frameSizeBytes, senderId } = this.#plan;
    const kind = this.heardPeer ? KIND_HEARD : KIND_HELLO;
    writeFrame(this.#i32, this.#u8, offset, frameSizeBytes, this.#toAll, senderId, kind, 0);
    this.#fromGuest.commit(frameSizeBytes);
    this.#fromGuest.flush();
  }

  /** Works until `untilMs` (performance.now()), blocking while there is nothing to do. */
  run(untilMs: number): void {
    for (let idleTurns = 0; ; ) {
      if (this.poll() > 0) idleTurns = 0;
      else idleTurns++;
      const leftMs = untilMs - performance.now();
      if (leftMs <= 0) return;
      if (idleTurns < IDLE_TURNS_MAX) continue;
      this.#block(Math.ceil(leftMs));
      idleTurns = 0;
    }
  }

  /** One burst; answers how many frames came. */
  poll(): number {
    const toGuest = this.#toGuest;
    const frameCount = Math.min(toGuest.usedWaiting(), BURST_FRAMES);
    if (frameCount === 0 && this.#tokens === 0) return 0;
    for (let i = 0; i < frameCount; i++) {
      this.#handle(toGuest.take(), toGuest.frameBytes);
      toGuest.recycle();
    }
    if (this.#tokens > 0) this.#sendTokens();
    // The buffers first: the peer's answer to what is sent may come at once.
    toGuest.flush();
    this.#fromGuest.flush();
    return frameCount;
  }

  close(): void {
    this.#epoll.close();
  }

  #handle(offset: number, frameBytes: number): void {
    const { frameSizeBytes, peerId } = this.#plan;
    const kind = checkFrame(this.#i32, this.#u8, offset, frameBytes, frameSizeBytes, this.#fromPeer, peerId);
    if (kind === KIND_DATA) this.#count(this.#i32[(offset >> 2) + 4]);
    else if (kind === KIND_CORRUPTED) this.#counts[CORRUPTED] += 1;
    else {
      if (kind === KIND_HELLO || kind === KIND_HEARD) this.#heard(kind);
      return;
    }
    if (this.#sending) this.#tokens++;
  }

  #count(sequence: number): void {
    // Sequence numbers are int32 and wrap; a step back of less than half the range is one that came late.
    const ahead = (sequence - this.#expectedSequence) | 0;
    if (ahead < 0) {
      this.#counts[MISORDERED] += 1;
      return;
    }
    this.#counts[MISSING] += ahead;
    this.#expectedSequence = (sequence + 1) | 0;
    this.#counts[RECEIVED] += 1;
  }

  #heard(kind: number): void {
    this.heardPeer = true;
    if (kind === KIND_HEARD) this.peerHeard = true;
    else this.sayHello();
  }

  #sendTokens(): void {
    const { frameSizeBytes, senderId } = this.#plan;
    const fromGuest = this.#fromGuest;
    while (this.#tokens > 0) {
      const offset = fromGuest.reserve();
      if (offset < 0) return;
      writeFrame(
        this.#i32,
        this.#u8,
        offset,
        frameSizeBytes,
        this.#toPeer,
        senderId,
        KIND_DATA,
        this.#sendSequence,
      );
      fromGuest.commit(frameSizeBytes);
      this.#sendSequence = (this.#sendSequence + 1) | 0;
      this.#counts[SENT] += 1;
      this.#tokens--;
    }
  }

  #block(timeoutMs: number): void {
    const { ring } = this.#toGuest;
    // Frames that wait for a buffer are looked at again soon: nothing signals that one is free.
    if (ring.arm()) this.#epoll.wait(this.#tokens > 0 ? 1 : timeoutMs);
    drainFd(ring.callFd);
    ring.disarm();
  }
}
