/**
 * A DPDK port's queues: bursts from and to the driver, whose mbufs lie in the arena, so that a frame is forwarded
 * from where the device put it and copied to where the device takes it. Hot path of one worker at a time; DPDK is
 * loaded in a worker when its first such queue is opened.
 */
import { FRAME_BYTES_MAX, FRAME_BYTES_MIN } from '../../../protocol/ethernet.ts';
import { BURST_MBUFS, type DpdkQueueLocation, RxBurst, TxBurst } from '../../dpdk/burst.ts';
import { registerThread } from '../../dpdk/threads.ts';
import { type ArenaView, WINDOW_BYTES, type Window } from '../../memory/arena-view.ts';
import {
  type EgressQueue,
  GIVE_DONE,
  GIVE_NO_BUFFER,
  GIVE_TOO_SMALL,
  type IngressQueue,
  type QueueAttachmentBase,
  TAKE_FRAME,
  TAKE_TOO_LONG,
  TAKE_TOO_SHORT,
} from '../../queue/contract.ts';
import { copyFrame } from '../../queue/copy.ts';
import type { Frame } from '../../queue/frame.ts';
import { COUNT_BYTES, COUNT_FRAMES, COUNT_LOST, QueueState } from '../../queue/state.ts';

export type DpdkAttachment = QueueAttachmentBase & {
  readonly kind: 'dpdk';
  readonly location: DpdkQueueLocation;
};

/** An empty look at the driver costs a foreign call; so many turns at most are left out between two. */
const TURNS_SKIPPED_MAX = 8;

export class DpdkIngress implements IngressQueue {
  declare readonly portId: number;
  declare readonly queueIndex: number;
  fault = 0;
  /** Drivers tell of nothing: the queue is looked at. */
  readonly wakeFd = -1;
  declare private readonly state: QueueState;
  declare private readonly rx: RxBurst;
  declare private readonly u16: Uint16Array;
  #received = 0;
  #taken = 0;
  /** Frames of the burst whose mbufs are free again. */
  #freed = 0;
  #frames = 0;
  #bytes = 0;
  #turnsToSkip = 0;
  #turnsSkipped = 1;

  constructor(arena: ArenaView, attachment: DpdkAttachment) {
    this.portId = attachment.portId;
    this.queueIndex = attachment.queueIndex;
    this.state = new QueueState(attachment.states, attachment.queueIndex);
    registerThread();
    this.rx = new RxBurst(arena, attachment.location);
    const window = arena.windows[this.rx.windowNumber];
    this.u16 = window.u16;
  }

  available(): number {
    const known = this.#received - this.#taken;
    if (known !== 0) return known;
    if (this.#turnsToSkip > 0) {
      this.#turnsToSkip--;
      return 0;
    }
    this.#free();
    this.#taken = 0;
    this.#freed = 0;
    this.#received = this.rx.receive();
    if (this.#received === 0) {
      this.#turnsSkipped = Math.min(this.#turnsSkipped * 2, TURNS_SKIPPED_MAX);
      this.#turnsToSkip = this.#turnsSkipped;
    } else this.#turnsSkipped = 1;
    return this.#received;
  }

  /** The driver fetched them just now. */
  readAhead(): void {}

  take(frame: Frame): number {
    const result = this.rx.describe(this.#taken, frame);
    if (result !== TAKE_FRAME) return result;
    if (frame.totalBytes < FRAME_BYTES_MIN) return TAKE_TOO_SHORT;
    if (frame.totalBytes > FRAME_BYTES_MAX) return TAKE_TOO_LONG;
    this.#frames++;
    this.#bytes += frame.totalBytes;
    return TAKE_FRAME;
  }

  destinationAhead(ahead: number, words: Int32Array): boolean {
    const index = this.rx.indexOf(this.#taken + ahead);
    if (index < 0 || (index & 1) !== 0) return false;
    const at = index >> 1;
    words[0] = this.u16[at] | (this.u16[at + 1] << 16);
    words[1] = this.u16[at + 2];
    return true;
  }

  release(): void {
    this.#taken++;
  }

  publish(): void {
    this.#free();
    if (this.#frames === 0) return;
    const { counts } = this.state;
    counts[COUNT_FRAMES] += this.#frames;
    counts[COUNT_BYTES] += this.#bytes;
    this.#frames = 0;
    this.#bytes = 0;
  }

  armWake(): boolean {
    this.#turnsToSkip = 0;
    return this.available() === 0;
  }

  disarmWake(): void {}

  acknowledgeWake(): boolean {
    return true;
  }

  #free(): void {
    const count = this.#taken - this.#freed;
    if (count === 0) return;
    this.rx.free(this.#freed, count);
    this.#freed = this.#taken;
  }
}

export class DpdkEgress implements EgressQueue {
  declare readonly portId: number;
  declare readonly queueIndex: number;
  fault = 0;
  open = false;
  declare private readonly arena: ArenaView;
  declare private readonly state: QueueState;
  declare private readonly shared: boolean;
  declare private readonly tx: TxBurst;
  declare private readonly window: Window;
  /** Bytes of each frame that was given and not yet sent. */
  declare private readonly frameBytes: Int32Array;
  #frames = 0;
  #bytes = 0;

  constructor(arena: ArenaView, attachment: DpdkAttachment, shared: boolean) {
    this.portId = attachment.portId;
    this.queueIndex = attachment.queueIndex;
    this.arena = arena;
    this.shared = shared;
    this.state = new QueueState(attachment.states, attachment.queueIndex);
    registerThread();
    this.tx = new TxBurst(arena, attachment.location);
    this.window = arena.windows[Math.floor(attachment.location.pool.offset / WINDOW_BYTES)];
    this.frameBytes = new Int32Array(BURST_MBUFS);
  }

  tryBegin(): boolean {
    if (this.shared && !this.state.tryLock()) return false;
    this.open = true;
    return true;
  }

  begin(): void {
    if (this.shared) this.state.lock();
    this.open = true;
  }

  give(frame: Frame): number {
    const { totalBytes } = frame;
    if (totalBytes > this.tx.frameBytesMax) return GIVE_TOO_SMALL;
    let slot = this.tx.placed;
    let at = this.tx.place(totalBytes, frame.index);
    if (at < 0) {
      // The burst is full; or the pool is empty, and sending may make the driver give back what it sent before.
      this.#flush();
      slot = 0;
      at = this.tx.place(totalBytes, frame.index);
      if (at < 0) return GIVE_NO_BUFFER;
    }
    this.frameBytes[slot] = totalBytes;
    copyFrame(this.arena, frame, this.window, at);
    return GIVE_DONE;
  }

  giveRun(): number {
    return 0;
  }

  end(): void {
    this.#flush();
    if (this.#frames !== 0) {
      const { counts } = this.state;
      counts[COUNT_FRAMES] += this.#frames;
      counts[COUNT_BYTES] += this.#bytes;
      this.#frames = 0;
      this.#bytes = 0;
    }
    this.open = false;
    if (this.shared) this.state.unlock();
  }

  #flush(): void {
    const count = this.tx.placed;
    if (count === 0) return;
    const sent = this.tx.flush();
    for (let slot = 0; slot < sent; slot++) this.#bytes += this.frameBytes[slot];
    this.#frames += sent;
    if (sent < count) this.state.counts[COUNT_LOST] += count - sent;
  }
}
