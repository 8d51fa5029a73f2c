/**
 * Stage: copies of a port's frames for those who capture them: as they came in, and as they were placed or dropped. Each
 * capture is a `Tap`: which frames it wants, and its ring (capture-ring.ts). A tap whose ring is full counts what it loses and
 * costs next to nothing until there is room for a good deal again; no worker ever waits for a reader. Hot path of one
 * worker; allocates nothing. Nothing here is called for a port without STAGE_CAPTURE, but for one look at the end of a turn.
 *
 * A frame that its sender loses its right to, somewhere behind this stage, stands in the ring already: the reason is written
 * into its block, which nobody reads before `publish`. So each frame is shown once for each port that it passes.
 */
import {
  nanosecondWords,
  PACKET_HEAD_BYTES,
  PACKET_INBOUND,
  PACKET_OUTBOUND,
  packetBlockBytes,
  putPacketBlock,
} from '../../protocol/pcapng-blocks.ts';
import { reachBytes } from '../../src/filter/program.ts';
import { type FrameFilter, frameFilter } from '../../src/filter/translate.ts';
import type { ArenaView } from '../../src/memory/arena-view.ts';
import { WINDOW_BYTES, type Window } from '../../src/memory/window.ts';
import { completeChecksum } from '../../src/offload/whole-checksum.ts';
import { CLOCK_REALTIME, readClock } from '../../src/port/pcap/file-io.ts';
import { AS_THEY_CAME, BATCH_FRAMES_MAX, type Batch, HEAD_BYTES } from '../../src/queue/batch.ts';
import { copyFrame } from '../../src/queue/copy.ts';
import { PUSH_BYTES_MAX, TAG_BYTES } from '../../src/queue/frame-tags.ts';
import {
  CAPTURE_COUNTS,
  CAPTURE_IN,
  CAPTURE_LOST,
  CAPTURE_OUT,
  CAPTURE_RING_BYTES,
  CAPTURE_RING_OFFSET,
  CAPTURE_WANTED,
  type CaptureSetup,
  FLAGS_FROM_END_BYTES,
  REASON_SHIFT,
  RING_HEAD,
  RING_TAIL,
  RING_WORDS,
} from './capture-ring.ts';
import type { ForwardingPort } from './forwarding-port.ts';
import { vlanOfFrame } from './vlan/shown-vlan.ts';

const NO_PLACE = -1;
const NO_ROOM = -2;
const RING_MASK = CAPTURE_RING_BYTES - 1;
/** A block of the longest frame that there is, with its tags. */
const BLOCK_BYTES_MAX = 2 ** 17;
/** After it was full a ring is written to again when so much of it is free: few looks at what the reader writes. */
const ROOM_BYTES = CAPTURE_RING_BYTES / 2;
/** What `copyFrame` copies at least, where a frame has it. */
const COPIED_BYTES_MIN = HEAD_BYTES + PUSH_BYTES_MAX;

export class Tap {
  declare readonly id: number;
  declare readonly directions: number;
  /** -1: of all. */
  declare readonly vlan: number;
  declare readonly timeAddress: number;
  declare private readonly arena: ArenaView;
  declare private readonly window: Window;
  /** Index in the window of the timespec, of the ring, and of the place for what there is no room for. */
  declare private readonly timeIndex: number;
  declare private readonly ringIndex: number;
  declare private readonly asideIndex: number;
  declare private readonly indices: Int32Array;
  declare private readonly counts: Float64Array;
  declare private readonly interfaceOf: Int32Array;
  declare private readonly snapBytes: number;
  /** Bytes that are copied of a frame, so that the filter sees all that it looks at. */
  declare private readonly copiedBytesMax: number;
  declare private readonly filter: FrameFilter | null;
  /** Written so far, running; of that, known to have been read. */
  private head = 0;
  private tail = 0;
  private isFull = false;
  /** Of the frames that came in with this burst, as they came: where in the ring the word of their flags is. */
  declare readonly placeOf: Int32Array;

  constructor(arena: ArenaView, setup: CaptureSetup, worker: number) {
    this.arena = arena;
    this.id = setup.id;
    this.directions = setup.directions;
    this.vlan = setup.vlan ?? -1;
    const offset = setup.areaOffsets[worker];
    this.window = arena.windows[Math.floor(offset / WINDOW_BYTES)];
    this.timeIndex = offset % WINDOW_BYTES;
    this.timeAddress = setup.areaAddresses[worker];
    this.ringIndex = this.timeIndex + CAPTURE_RING_OFFSET;
    this.asideIndex = this.ringIndex + CAPTURE_RING_BYTES;
    this.indices = new Int32Array(setup.indices, worker * RING_WORDS * 4, RING_WORDS);
    const countsOfWorker = setup.portIds.length * CAPTURE_COUNTS;
    this.counts = new Float64Array(setup.counts, worker * countsOfWorker * 8, countsOfWorker);
    this.interfaceOf = new Int32Array(Math.max(0, ...setup.portIds) + 1).fill(-1);
    for (const [i, portId] of setup.portIds.entries()) if (portId >= 0) this.interfaceOf[portId] = i;
    this.snapBytes = setup.snapBytes;
    this.filter = setup.program === null ? null : frameFilter(setup.program);
    const reach = setup.program === null ? 0 : reachBytes(setup.program);
    this.copiedBytesMax = Math.min(Math.max(setup.snapBytes, reach, COPIED_BYTES_MIN), BLOCK_BYTES_MAX);
    this.head = Atomics.load(this.indices, RING_HEAD);
    this.tail = Atomics.load(this.indices, RING_TAIL);
    this.placeOf = new Int32Array(BATCH_FRAMES_MAX).fill(NO_PLACE);
  }

  wants(portId: number): boolean {
    return portId < this.interfaceOf.length && this.interfaceOf[portId] >= 0;
  }

  /** The time that `readClock` put at `timeAddress`, as a block has it. */
  readTime(timeWords: Int32Array): void {
    const { i32 } = this.window;
    const at = this.timeIndex >> 2;
    nanosecondWords((i32[at] >>> 0) + i32[at + 1] * 2 ** 32, i32[at + 2], timeWords);
  }

  /** What was written is the reader's now. */
  publish(): void {
    Atomics.store(this.indices, RING_HEAD, this.head);
  }

  /** Frames of the batch as they stand in it, with the tags that they are about to get. */
  take(
    batch: Batch,
    order: Int32Array,
    count: number,
    port: ForwardingPort,
    isIngress: boolean,
    reason: number,
    timeWords: Int32Array,
  ): void {
    const interfaceIndex = this.interfaceOf[port.id];
    const at = interfaceIndex * CAPTURE_COUNTS;
    const { vlan, filter, counts, placeOf } = this;
    const hasRoom = this.looksForRoom();
    if (!hasRoom && vlan < 0 && filter === null) {
      counts[at + CAPTURE_WANTED] += count;
      counts[at + CAPTURE_LOST] += count;
      return;
    }
    const flags = (isIngress ? PACKET_INBOUND : PACKET_OUTBOUND) | ((reason + 1) << REASON_SHIFT);
    for (let k = 0; k < count; k++) {
      const frame = order[k];
      if (vlan >= 0 && vlanOfFrame(batch, frame, port, isIngress) !== vlan) continue;
      const place = this.put(batch, frame, interfaceIndex, flags, timeWords);
      if (place === NO_PLACE) continue;
      counts[at + CAPTURE_WANTED] += 1;
      if (place < 0) counts[at + CAPTURE_LOST] += 1;
      else if (isIngress) placeOf[frame] = place;
    }
  }

  /** Whether a block may be put into the ring. Looks at what the reader has done where that may matter, once a burst. */
  private looksForRoom(): boolean {
    const roomBytes = this.isFull ? ROOM_BYTES : 2 * BLOCK_BYTES_MAX;
    if (CAPTURE_RING_BYTES - ((this.head - this.tail) | 0) < roomBytes) {
      this.tail = Atomics.load(this.indices, RING_TAIL);
      this.isFull = CAPTURE_RING_BYTES - ((this.head - this.tail) | 0) < roomBytes;
    }
    return !this.isFull;
  }

  /** Answers where in the ring the frame's flags are, NO_PLACE: it is not wanted, NO_ROOM: there is none. */
  private put(
    batch: Batch,
    frame: number,
    interfaceIndex: number,
    flags: number,
    timeWords: Int32Array,
  ): number {
    const { window, filter } = this;
    const frameBytes = batch.bytesOf(frame);
    const asks = batch.needsOf(frame) !== 0;
    const copiedBytes = asks ? frameBytes : Math.min(frameBytes, this.copiedBytesMax);
    const place = this.isFull ? NO_ROOM : this.roomFor(packetBlockBytes(copiedBytes));
    const start = place < 0 ? this.asideIndex : this.ringIndex + place;
    if (place < 0 && filter === null) return NO_ROOM;
    const frameIndex = start + PACKET_HEAD_BYTES;
    copyFrame(this.arena, batch, frame, copiedBytes, window, frameIndex);
    if (asks) completeChecksum(batch, frame, window, frameIndex, copiedBytes);
    if (filter !== null && filter(window.u8, frameIndex, copiedBytes, frameBytes) === 0) return NO_PLACE;
    if (place < 0) return NO_ROOM;
    const capturedBytes = Math.min(frameBytes, this.snapBytes);
    putBlock(window, start, interfaceIndex, timeWords, capturedBytes, frameBytes, flags);
    const blockBytes = packetBlockBytes(capturedBytes);
    this.head = (this.head + blockBytes) | 0;
    return place + blockBytes - FLAGS_FROM_END_BYTES;
  }

  /** Place in the ring of a block of so many bytes, which may lie behind what is skipped at the ring's end. */
  private roomFor(blockBytes: number): number {
    let place = this.head & RING_MASK;
    const endBytes = CAPTURE_RING_BYTES - place;
    const skippedBytes = blockBytes > endBytes ? endBytes : 0;
    if (CAPTURE_RING_BYTES - ((this.head - this.tail) | 0) < blockBytes + skippedBytes) {
      this.tail = Atomics.load(this.indices, RING_TAIL);
      if (CAPTURE_RING_BYTES - ((this.head - this.tail) | 0) < blockBytes + skippedBytes) {
        this.isFull = true;
        return NO_ROOM;
      }
    }
    if (skippedBytes > 0) {
      this.window.i32[(this.ringIndex + place) >> 2] = 0;
      this.head = (this.head + skippedBytes) | 0;
      place = 0;
    }
    return place;
  }

  /** The frame that came in with this burst was dropped. */
  noteReason(cameAs: number, reason: number): void {
    const place = this.placeOf[cameAs];
    if (place < 0) return;
    this.window.i32[(this.ringIndex + place) >> 2] |= (reason + 1) << REASON_SHIFT;
  }
}

/** The block around a frame that was copied already. */
function putBlock(
  { i32 }: Window,
  start: number,
  interfaceIndex: number,
  timeWords: Int32Array,
  capturedBytes: number,
  frameBytes: number,
  flags: number,
): void {
  // The frame's last word gets zeros, for padding.
  const last = (start + PACKET_HEAD_BYTES + capturedBytes - 1) >> 2;
  const word = i32[last];
  putPacketBlock(i32, start >> 2, interfaceIndex, timeWords, capturedBytes, frameBytes, flags);
  const bits = (capturedBytes & 3) << 3;
  i32[last] = bits === 0 ? word : word & ((1 << bits) - 1);
}

/** The taps of a worker, and the time of what they get. */
export class Capture {
  #taps: readonly Tap[] = [];
  /** Whether something was written since `publish`. */
  hasNews = false;
  declare private readonly timeWords: Int32Array;
  declare private readonly one: Int32Array;

  constructor() {
    this.timeWords = new Int32Array(2);
    this.one = new Int32Array(1);
  }

  get taps(): readonly Tap[] {
    return this.#taps;
  }

  setTaps(taps: readonly Tap[]): void {
    this.#taps = taps;
  }

  /** Those of its frames that came in, before anything is decided about them. */
  incoming(batch: Batch, sender: ForwardingPort): void {
    const { taps } = sender;
    const { count } = batch;
    batch.noteOrigins();
    for (let i = 0; i < taps.length; i++) {
      taps[i].placeOf.fill(NO_PLACE, 0, count);
      if ((taps[i].directions & CAPTURE_IN) !== 0)
        taps[i].take(batch, AS_THEY_CAME, count, sender, true, NO_REASON, this.now(taps[i]));
    }
  }

  /** Frames that go to the port; `reason`: DROP.* because of which they do not, NO_REASON: they do. */
  outgoing(port: ForwardingPort, batch: Batch, order: Int32Array, count: number, reason: number): void {
    const { taps } = port;
    for (let i = 0; i < taps.length; i++) {
      if ((taps[i].directions & CAPTURE_OUT) !== 0)
        taps[i].take(batch, order, count, port, false, reason, this.now(taps[i]));
    }
  }

  /** A frame to the port that was not even tried to be placed, with the tags that it has inside the switch. */
  notPlaced(port: ForwardingPort, batch: Batch, frame: number, reason: number): void {
    const { tags } = batch;
    const { isPushUniform, push0, push1, pushBytes } = tags;
    const outer = tags.outerOf(frame);
    const inner = tags.innerOf(frame);
    const tagBytes = outer === 0 ? 0 : inner === 0 ? TAG_BYTES : PUSH_BYTES_MAX;
    tags.isPushUniform = true;
    tags.push0 = outer;
    tags.push1 = inner;
    tags.pushBytes = tagBytes;
    batch.makeRoom(frame, tagBytes - pushBytes);
    this.one[0] = frame;
    this.outgoing(port, batch, this.one, 1, reason);
    batch.makeRoom(frame, pushBytes - tagBytes);
    tags.isPushUniform = isPushUniform;
    tags.push0 = push0;
    tags.push1 = push1;
    tags.pushBytes = pushBytes;
  }

  /** The clock is read once between two `publish`. */
  private now(tap: Tap): Int32Array {
    if (this.hasNews) return this.timeWords;
    this.hasNews = true;
    readClock(CLOCK_REALTIME, tap.timeAddress);
    tap.readTime(this.timeWords);
    return this.timeWords;
  }

  /** Call when all is decided about what was captured. */
  publish(): void {
    this.hasNews = false;
    const taps = this.#taps;
    for (let i = 0; i < taps.length; i++) taps[i].publish();
  }
}

/** In place of a DROP.*. */
export const NO_REASON = -1;

/** A frame of this burst that came in from the port is dropped. Call only of a port with STAGE_CAPTURE. */
export function noteDropped({ taps }: ForwardingPort, batch: Batch, frame: number, reason: number): void {
  const cameAs = batch.originOf(frame);
  for (let i = 0; i < taps.length; i++) taps[i].noteReason(cameAs, reason);
}

/** The same of some of them; of a port without STAGE_CAPTURE: nothing. */
export function noteAllDropped(
  port: ForwardingPort,
  batch: Batch,
  order: Int32Array,
  count: number,
  reason: number,
): void {
  if (port.taps.length === 0) return;
  for (let k = 0; k < count; k++) noteDropped(port, batch, order[k], reason);
}
