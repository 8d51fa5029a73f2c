/**
 * Frames of a capture file as an ingress queue: the file is read in large parts into the arena, and each packet
 * is described where it lies. Hot path of one worker; a part is read without leaving it, so it may wait for the
 * disk. Nothing is allocated for a frame.
 */
import {
  CAPTURE_BROKEN,
  CAPTURE_INCOMPLETE,
  CAPTURE_NO_PACKET,
  CaptureReader,
} from '../../../protocol/pcap.ts';
import type { ArenaView } from '../../memory/arena-view.ts';
import { StagedIngress } from '../staged/queues.ts';
import { CLOCK_MONOTONIC, readClock, readFileAt } from './file-io.ts';
import {
  CAPTURE_BUFFER_OFFSET,
  CAPTURE_REGION_BYTES,
  FAULT_BROKEN,
  FAULT_CUT_SHORT,
  FAULT_EMPTY,
  FAULT_END,
  type PcapAttachment,
  PROGRESS_CHECKED,
  PROGRESS_CUT,
  PROGRESS_FAULT_VALUE,
  PROGRESS_HAS_TIMES,
  PROGRESS_OFFSET,
  PROGRESS_OVERLONG,
  PROGRESS_PACKETS,
  PROGRESS_PASS,
  PROGRESS_TIMES,
  PROGRESS_UNKNOWN_BLOCKS,
  PROGRESS_UNTIMED,
  PROGRESS_WAIT_S,
} from './queues.ts';

const BURST_FRAMES = 64;
/** Read at once: some 100 µs of the worker when the file is in memory. */
const READ_BYTES_MAX = 2 ** 18;
/** Blocks without packets looked at before other queues have their turn. */
const STEPS_MAX = 1024;
const NS_PER_SECOND = 1e9;

export class PcapIngress extends StagedIngress {
  /** A file tells of nothing. */
  readonly wakeFd = -1;
  declare private readonly fd: number;
  declare private readonly snapBytes: number;
  declare private readonly loops: boolean;
  declare private readonly keepsPace: boolean;
  declare private readonly progress: Float64Array;
  declare private readonly places: Int32Array;
  private reader = new CaptureReader();
  /** Indices in the window: where the buffer begins and ends, and the file's bytes in it. */
  declare private readonly startIndex: number;
  declare private readonly limitIndex: number;
  private atIndex = 0;
  private endIndex = 0;
  /** Place in the file of `endIndex`. */
  private fileOffset = 0;
  /** A block reaches beyond what was read; the next read must tell whether the file does, too. */
  private isSkipping = false;
  private hasPackets = false;
  /** Times of the first packet in this pass, and of the clock then: seconds and nanoseconds. */
  declare private readonly firstTimes: Float64Array;
  /** Of this pass, that went in before the queue was opened. */
  private packetsToSkip = 0;

  constructor(arena: ArenaView, attachment: PcapAttachment) {
    super(arena, {
      ...attachment,
      headerBytes: 0,
      slots: {
        offset: attachment.regionOffset,
        address: attachment.regionAddress,
        slotBytes: 0,
        slotCount: BURST_FRAMES,
      },
    });
    this.fd = attachment.fd;
    this.snapBytes = attachment.snapBytes;
    this.loops = attachment.loops;
    this.keepsPace = attachment.keepsPace;
    this.progress = new Float64Array(attachment.progress);
    this.places = new Int32Array(BURST_FRAMES);
    this.firstTimes = this.progress.subarray(PROGRESS_TIMES, PROGRESS_TIMES + 4);
    this.packetsToSkip = this.progress[PROGRESS_PASS];
    this.startIndex = this.slotIndex0 + CAPTURE_BUFFER_OFFSET;
    this.limitIndex = this.slotIndex0 + CAPTURE_REGION_BYTES;
    this.#begin();
  }

  protected override placeOf(slot: number): number {
    return this.places[slot];
  }

  protected fill(): number {
    if (this.keepsPace) readClock(CLOCK_MONOTONIC, this.slots.address);
    const { reader } = this;
    let count = 0;
    for (let step = 0; step < STEPS_MAX && count < BURST_FRAMES; step++) {
      const result = this.reader.next(this.window.u8, this.atIndex, this.endIndex);
      if (result === CAPTURE_NO_PACKET) {
        this.atIndex = reader.nextIndex;
        this.#countUnknown();
      } else if (result === CAPTURE_INCOMPLETE || result === CAPTURE_BROKEN) {
        // The packets found so far lie where the next part of the file will be read to.
        if (count > 0) break;
        if (result === CAPTURE_BROKEN) this.#stop(FAULT_BROKEN + reader.fault, reader.faultValue);
        else this.#readOn();
        if (this.fault !== 0 || reader !== this.reader) break;
      } else if (this.packetsToSkip > 0) {
        this.packetsToSkip--;
        this.atIndex = reader.nextIndex;
        this.hasPackets = true;
      } else {
        if (this.keepsPace && !this.#isDue()) break;
        this.#add(count++);
      }
    }
    this.progress[PROGRESS_PACKETS] += count;
    this.progress[PROGRESS_PASS] += count;
    return count;
  }

  #countUnknown(): void {
    const { reader, progress } = this;
    if (reader.unknownBlocks === 0) return;
    if (this.packetsToSkip === 0) progress[PROGRESS_UNKNOWN_BLOCKS] += reader.unknownBlocks;
    reader.unknownBlocks = 0;
  }

  #add(slot: number): void {
    const { reader, snapBytes, progress } = this;
    this.places[slot] = reader.dataIndex;
    this.frameBytes[slot] = snapBytes === 0 ? reader.frameBytes : Math.min(reader.frameBytes, snapBytes);
    if (reader.isCut) progress[PROGRESS_CUT]++;
    if (reader.isOverlong) progress[PROGRESS_OVERLONG]++;
    if (reader.fcsBytes !== 0) progress[PROGRESS_CHECKED]++;
    if (this.keepsPace) {
      progress[PROGRESS_WAIT_S] = 0;
      if (!reader.hasTime) progress[PROGRESS_UNTIMED]++;
    }
    this.atIndex = reader.nextIndex;
    this.hasPackets = true;
  }

  /** Whether as much time went by since the first packet as when they were captured. */
  #isDue(): boolean {
    const { reader, firstTimes, progress } = this;
    if (!reader.hasTime) return true;
    const words = this.window.i32;
    const at = this.slotIndex0 >> 2;
    const nowSeconds = words[at] + words[at + 1] * 2 ** 32;
    const nowNs = words[at + 2];
    if (progress[PROGRESS_HAS_TIMES] === 0) {
      progress[PROGRESS_HAS_TIMES] = 1;
      firstTimes[0] = reader.seconds;
      firstTimes[1] = reader.nanoseconds;
      firstTimes[2] = nowSeconds;
      firstTimes[3] = nowNs;
    }
    const recorded = reader.seconds - firstTimes[0] + (reader.nanoseconds - firstTimes[1]) / NS_PER_SECOND;
    const waitS = recorded - (nowSeconds - firstTimes[2] + (nowNs - firstTimes[3]) / NS_PER_SECOND);
    if (waitS <= 0) return true;
    this.progress[PROGRESS_WAIT_S] = waitS;
    return false;
  }

  /** Reads more of the file behind what is left of the last part, or sees that it ends. */
  #readOn(): void {
    const { window, startIndex } = this;
    const restBytes = this.endIndex - this.atIndex;
    if (restBytes > 0) {
      window.u8.copyWithin(startIndex, this.atIndex, this.endIndex);
    } else {
      this.fileOffset -= restBytes;
      this.isSkipping = restBytes < 0 || (this.isSkipping && restBytes === 0);
    }
    this.atIndex = startIndex;
    this.endIndex = startIndex + Math.max(restBytes, 0);
    const address = this.slots.address + (this.endIndex - this.slotIndex0);
    const sizeBytes = Math.min(this.limitIndex - this.endIndex, READ_BYTES_MAX);
    const count = readFileAt(this.fd, address, sizeBytes, this.fileOffset);
    if (count < 0) {
      this.#stop(-count, 0);
    } else if (count === 0) {
      this.#atEnd();
    } else {
      this.isSkipping = false;
      this.endIndex += count;
      this.fileOffset += count;
    }
  }

  #atEnd(): void {
    const isCutShort = this.endIndex > this.atIndex || (this.isSkipping && !this.#endsAt(this.fileOffset));
    if (isCutShort) this.#stop(FAULT_CUT_SHORT, 0);
    else if (this.fileOffset === 0) this.#stop(FAULT_EMPTY, 0);
    else if (this.loops && this.hasPackets) this.#rewind();
    else this.#stop(FAULT_END, 0);
  }

  /** Whether the byte before is still in the file. Overwrites the start of the buffer. */
  #endsAt(fileOffset: number): boolean {
    return readFileAt(this.fd, this.slots.address + CAPTURE_BUFFER_OFFSET, 1, fileOffset - 1) === 1;
  }

  #rewind(): void {
    this.progress[PROGRESS_PASS] = 0;
    this.progress[PROGRESS_HAS_TIMES] = 0;
    this.#begin();
  }

  #begin(): void {
    this.reader = new CaptureReader();
    this.atIndex = this.startIndex;
    this.endIndex = this.startIndex;
    this.fileOffset = 0;
    this.isSkipping = false;
    this.hasPackets = false;
  }

  #stop(fault: number, faultValue: number): void {
    this.progress[PROGRESS_OFFSET] = this.fileOffset - (this.endIndex - this.atIndex);
    this.progress[PROGRESS_FAULT_VALUE] = faultValue;
    this.fail(fault);
  }
}
