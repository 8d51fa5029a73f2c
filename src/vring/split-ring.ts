/**
 * A split virtqueue as the device sees it (VIRTIO 1.3, section 2.7): the three parts in guest memory, the
 * running indices, and when to signal the driver. The two directions build on it (split-from-guest.ts,
 * split-to-guest.ts). One thread's object; guest memory changes under it, so each field is read once.
 */
import { AVAIL_F_NO_INTERRUPT, USED_F_NO_NOTIFY } from '../../protocol/virtio/split-ring.ts';
import { drainFd, signalFd } from '../host/descriptor.ts';
import type { ArenaView } from '../memory/arena-view.ts';
import { GpaTranslator } from '../memory/gpa-translator.ts';
import {
  COUNT_BYTES,
  COUNT_CALLS,
  COUNT_FRAMES,
  QueueState,
  STATE_AVAIL_NEXT,
  STATE_FAULT,
  STATE_USED_NEXT,
} from '../queue/state.ts';
import type { RingAttachment } from './attachment.ts';
import { RING_FAULT } from './faults.ts';

/**
 * x86-64 keeps the order of loads, and V8 neither moves nor merges loads of typed arrays; so what the driver
 * wrote before it moved `idx` is seen with it. Elsewhere the load is atomic, which is a call in V8.
 */
const PLAIN_LOADS_STAY_IN_ORDER = process.arch === 'x64';

/** Index of `idx` in the avail and used rings seen as 16-bit words; their entries follow. */
const IDX = 1;
export const AVAIL_ENTRIES = 2;
/** First entry of the used ring seen as 32-bit words; two words each: id and length. */
export const USED_ENTRIES = 1;
/** The third word of a virtio-net header that says num_buffers = 1. */
export const ONE_BUFFER = 1 << 16;

export class SplitRing {
  declare readonly portId: number;
  declare readonly queueIndex: number;
  declare readonly size: number;
  /** The kick descriptor. */
  declare readonly wakeFd: number;
  declare callFd: number;
  declare fault: number;
  declare readonly state: QueueState;
  declare readonly arena: ArenaView;
  declare readonly translator: GpaTranslator;
  declare readonly indirect: boolean;
  declare readonly headerBytes: number;
  /** Four words a descriptor: address low, address high, length, flags | next << 16. */
  declare readonly desc: Int32Array;
  declare protected readonly mask: number;
  declare readonly avail: Uint16Array;
  declare protected readonly used16: Uint16Array;
  declare readonly used32: Int32Array;
  declare protected readonly eventIdx: boolean;
  /** Running 16-bit indices. */
  availNext = 0;
  protected availSeen = 0;
  usedNext = 0;
  protected usedPublished = 0;
  /** Frames and bytes since the counters were last published. */
  protected burstFrames = 0;
  protected burstBytes = 0;

  constructor(arena: ArenaView, attachment: RingAttachment) {
    const { size } = attachment;
    this.portId = attachment.portId;
    this.queueIndex = attachment.queueIndex;
    this.size = size;
    this.mask = size - 1;
    this.wakeFd = attachment.kickFd;
    this.callFd = attachment.callFd;
    this.eventIdx = attachment.eventIdx;
    this.indirect = attachment.indirect;
    this.headerBytes = attachment.headerBytes;
    this.arena = arena;
    this.translator = new GpaTranslator(attachment.map);
    this.desc = new Int32Array(arena.buffer, attachment.descOffset, size * 4);
    this.avail = new Uint16Array(arena.buffer, attachment.driverOffset, 3 + size);
    this.used16 = new Uint16Array(arena.buffer, attachment.deviceOffset, 3 + size * 4);
    this.used32 = new Int32Array(arena.buffer, attachment.deviceOffset, USED_ENTRIES + size * 2);
    this.state = new QueueState(attachment.states, attachment.queueIndex);
    this.fault = this.state.words[STATE_FAULT];
    this.loadState();
    this.disarmWake();
  }

  /** Takes over the indices from the shared state: at attach, and when another worker may have moved them. */
  protected loadState(): void {
    const { words } = this.state;
    this.availNext = words[STATE_AVAIL_NEXT];
    this.availSeen = this.availNext;
    this.usedNext = words[STATE_USED_NEXT];
    this.usedPublished = this.usedNext;
    this.fault = words[STATE_FAULT];
  }

  available(): number {
    const known = (this.availSeen - this.availNext) & 0xffff;
    if (known !== 0) return known;
    if (this.fault !== RING_FAULT.NONE) return 0;
    this.availSeen = PLAIN_LOADS_STAY_IN_ORDER ? this.avail[IDX] : Atomics.load(this.avail, IDX);
    const waiting = (this.availSeen - this.availNext) & 0xffff;
    if (waiting > this.size) {
      this.fail(RING_FAULT.AVAIL_JUMP);
      return 0;
    }
    return waiting;
  }

  /** Looks at the avail index again although chains are known; answers how many wait. */
  protected refreshAvailable(): number {
    this.availSeen = this.availNext;
    return this.available();
  }

  /** The head of the `ahead`-th waiting chain; may lie outside the table. */
  protected headAt(ahead: number): number {
    return this.avail[AVAIL_ENTRIES + ((this.availNext + ahead) & this.mask)];
  }

  protected putUsed(head: number, writtenBytes: number): void {
    const at = USED_ENTRIES + ((this.usedNext & this.mask) << 1);
    this.used32[at] = head;
    this.used32[at + 1] = writtenBytes;
    this.usedNext = (this.usedNext + 1) & 0xffff;
  }

  /** Counts chains that split-run.ts took and used by itself. */
  skip(chainCount: number, frameBytes: number): void {
    this.availNext = (this.availNext + chainCount) & 0xffff;
    this.usedNext = (this.usedNext + chainCount) & 0xffff;
    this.burstFrames += chainCount;
    this.burstBytes += frameBytes;
  }

  /** Stops the ring: nothing more is taken from it or given to it. */
  fail(fault: number): void {
    this.fault = fault;
    this.availSeen = this.availNext;
    this.state.words[STATE_FAULT] = fault;
  }

  /** Makes used entries visible to the driver, keeps shared state up to date, signals if asked for. */
  publish(): void {
    const { words, counts } = this.state;
    if (this.usedNext !== this.usedPublished) {
      const publishedBefore = this.usedPublished;
      this.usedPublished = this.usedNext;
      // An exchange on x86: entries are visible before the index, and the index before the driver's wish
      // to be signalled is read.
      Atomics.store(this.used16, IDX, this.usedNext);
      if (this.wantsSignal(publishedBefore)) this.signal();
      words[STATE_USED_NEXT] = this.usedNext;
    }
    words[STATE_AVAIL_NEXT] = this.availNext;
    if (this.burstFrames !== 0) {
      counts[COUNT_FRAMES] += this.burstFrames;
      counts[COUNT_BYTES] += this.burstBytes;
      this.burstFrames = 0;
      this.burstBytes = 0;
    }
  }

  signal(): void {
    if (this.callFd < 0) return;
    this.state.counts[COUNT_CALLS] += 1;
    signalFd(this.callFd);
  }

  /** Section 2.7.7: by flag, or with EVENT_IDX when `used_event` is one of the entries just published. */
  private wantsSignal(publishedBefore: number): boolean {
    if (!this.eventIdx) return (this.avail[0] & AVAIL_F_NO_INTERRUPT) === 0;
    const usedEvent = this.avail[AVAIL_ENTRIES + this.size];
    return ((this.usedNext - usedEvent - 1) & 0xffff) < ((this.usedNext - publishedBefore) & 0xffff);
  }

  /** Section 2.7.10: asks the driver to kick for the next chain; false when one came meanwhile. */
  armWake(): boolean {
    if (this.eventIdx) Atomics.store(this.used16, AVAIL_ENTRIES + this.size * 4, this.availNext);
    else Atomics.store(this.used16, 0, 0);
    return this.available() === 0;
  }

  /** False: the front-end closed its end of a pipe. */
  acknowledgeWake(): boolean {
    return drainFd(this.wakeFd);
  }

  /** With EVENT_IDX an event index that lies behind asks for nothing, and flags must stay zero. */
  disarmWake(): void {
    this.used16[0] = this.eventIdx ? 0 : USED_F_NO_NOTIFY;
  }
}
