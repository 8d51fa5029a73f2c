/**
 * Frames into a capture file: what is given in a burst is put together in the arena as blocks of a pcapng file
 * and written by one system call at the end of the burst, so that whoever reads the file meanwhile sees whole
 * blocks. Frames given are written as leaving by the port itself; mirrored ones under the name of the port that
 * they passed. Hot path of one worker at a time; allocates nothing for a frame.
 */
import {
  encodeInterface,
  nanosecondWords,
  PACKET_HEAD_BYTES,
  PACKET_INBOUND,
  PACKET_OUTBOUND,
  packetBlockBytes,
  putPacketBlock,
} from '../../../protocol/pcapng-blocks.ts';
import type { ArenaView } from '../../memory/arena-view.ts';
import type { Window } from '../../memory/window.ts';
import { WINDOW_BYTES } from '../../memory/window.ts';
import { type Batch, REFUSED_FAULT } from '../../queue/batch.ts';
import type { EgressQueue } from '../../queue/contract.ts';
import { copyFrame } from '../../queue/copy.ts';
import type { MirrorSource } from '../../queue/policy.ts';
import { COUNT_BYTES, COUNT_FRAMES, COUNT_LOST, QueueState, STATE_FAULT } from '../../queue/state.ts';
import { CLOCK_REALTIME, cutFile, readClock, writeAll } from './file-io.ts';
import {
  CAPTURE_BUFFER_OFFSET,
  CAPTURE_REGION_BYTES,
  INTERFACE_PORTS_MAX,
  InterfaceTable,
  nameHash,
  type PcapAttachment,
  PROGRESS_WRITTEN,
} from './queues.ts';

const BUFFER_BYTES = CAPTURE_REGION_BYTES - CAPTURE_BUFFER_OFFSET;

export class PcapEgress implements EgressQueue {
  declare readonly portId: number;
  declare readonly queueIndex: number;
  declare fault: number;
  open = false;
  declare private readonly arena: ArenaView;
  declare private readonly attachment: PcapAttachment;
  /** Whether other workers use this queue too, so that every burst takes the lock. */
  declare readonly shared: boolean;
  declare private readonly state: QueueState;
  declare private readonly progress: Float64Array;
  declare private readonly interfaces: InterfaceTable;
  declare private readonly window: Window;
  /** Index in the window of the timespec, and of the buffer. */
  declare private readonly timeIndex: number;
  declare private readonly bufferIndex: number;
  /** Of the ports that may come, by id. */
  #names: string[] = [];
  declare private readonly nameHashes: Int32Array;
  /** Time of the burst. */
  declare private readonly timeWords: Int32Array;
  private filledBytes = 0;
  private filledFrames = 0;
  private filledFrameBytes = 0;
  /** Interfaces that stand in the file for sure. */
  private interfacesWritten = 0;

  constructor(arena: ArenaView, attachment: PcapAttachment, shared: boolean) {
    this.portId = attachment.portId;
    this.queueIndex = attachment.queueIndex;
    this.arena = arena;
    this.attachment = attachment;
    this.shared = shared;
    this.state = new QueueState(attachment.states, attachment.queueIndex);
    this.fault = this.state.words[STATE_FAULT];
    this.progress = new Float64Array(attachment.progress);
    this.interfaces = new InterfaceTable(attachment.interfaces);
    this.window = arena.windows[Math.floor(attachment.regionOffset / WINDOW_BYTES)];
    this.timeIndex = attachment.regionOffset % WINDOW_BYTES;
    this.bufferIndex = this.timeIndex + CAPTURE_BUFFER_OFFSET;
    this.nameHashes = new Int32Array(INTERFACE_PORTS_MAX);
    this.timeWords = new Int32Array(2);
    this.nameSources([]);
  }

  nameSources(sources: readonly MirrorSource[]): void {
    const { portId, portName } = this.attachment;
    for (const source of [{ portId, name: portName }, ...sources]) {
      this.#names[source.portId] = source.name;
      this.nameHashes[source.portId] = nameHash(source.name);
    }
  }

  get framesPlaced(): number {
    return -1;
  }

  tryBegin(): boolean {
    if (this.shared && !this.state.tryLock()) return false;
    this.#begun();
    return true;
  }

  begin(): void {
    if (this.shared) this.state.lock();
    this.#begun();
  }

  place(batch: Batch, order: Int32Array, count: number): void {
    for (let k = 0; k < count; k++) this.#append(batch, order[k], this.portId, PACKET_OUTBOUND);
  }

  placeCopies(batch: Batch, order: Int32Array, count: number, portId: number, isIngress: boolean): void {
    const flags = isIngress ? PACKET_INBOUND : PACKET_OUTBOUND;
    for (let k = 0; k < count; k++) this.#append(batch, order[k], portId, flags);
  }

  setCallFd(): void {}

  setMemory(): void {}

  setLog(): void {}

  end(): void {
    this.#flush();
    this.open = false;
    if (this.shared) this.state.unlock();
  }

  #begun(): void {
    this.fault = this.state.words[STATE_FAULT];
    this.interfacesWritten = this.interfaces.count;
    readClock(CLOCK_REALTIME, this.attachment.regionAddress);
    const words = this.window.i32;
    const at = this.timeIndex >> 2;
    nanosecondWords((words[at] >>> 0) + words[at + 1] * 2 ** 32, words[at + 2], this.timeWords);
    this.open = true;
  }

  #append(batch: Batch, frame: number, portId: number, flags: number): void {
    const { snapBytes } = this.attachment;
    const totalBytes = batch.bytesOf(frame);
    const capturedBytes = snapBytes === 0 ? totalBytes : Math.min(totalBytes, snapBytes);
    const blockBytes = packetBlockBytes(capturedBytes);
    if (this.filledBytes + blockBytes > BUFFER_BYTES) this.#flush();
    let interfaceIndex = this.interfaces.find(portId, this.nameHashes[portId]);
    if (interfaceIndex < 0) {
      this.#addInterface(portId);
      if (this.filledBytes + blockBytes > BUFFER_BYTES) this.#flush();
      // Not there any more when it could not be written.
      interfaceIndex = this.interfaces.find(portId, this.nameHashes[portId]);
    }
    if (this.fault !== 0 || interfaceIndex < 0) {
      batch.refuse(frame, REFUSED_FAULT);
      return;
    }
    const at = this.bufferIndex + this.filledBytes;
    const { i32 } = this.window;
    putPacketBlock(i32, at >> 2, interfaceIndex, this.timeWords, capturedBytes, totalBytes, flags);
    copyFrame(this.arena, batch, frame, capturedBytes, this.window, at + PACKET_HEAD_BYTES);
    this.filledBytes += blockBytes;
    this.filledFrames++;
    this.filledFrameBytes += totalBytes;
  }

  /** Describes a port's interface in the file before its first frame; once for each port. */
  #addInterface(portId: number): void {
    const known = this.interfaces.named(this.nameHashes[portId]);
    if (known >= 0) {
      this.interfaces.rename(portId, known, this.nameHashes[portId]);
      return;
    }
    const block = encodeInterface(this.#names[portId] ?? `port ${portId}`, this.attachment.snapBytes);
    if (this.filledBytes + block.length > BUFFER_BYTES) this.#flush();
    if (this.fault !== 0) return;
    this.window.u8.set(block, this.bufferIndex + this.filledBytes);
    this.filledBytes += block.length;
    this.interfaces.add(portId, this.nameHashes[portId]);
  }

  /** Writes what was put together. What does not get into the file as a whole is taken out again. */
  #flush(): void {
    const { filledBytes, filledFrames, filledFrameBytes, progress } = this;
    if (filledBytes === 0) return;
    this.filledBytes = 0;
    this.filledFrames = 0;
    this.filledFrameBytes = 0;
    const { fd, regionAddress } = this.attachment;
    const errno =
      this.fault !== 0 ? this.fault : writeAll(fd, regionAddress + CAPTURE_BUFFER_OFFSET, filledBytes);
    const { counts } = this.state;
    if (errno === 0) {
      progress[PROGRESS_WRITTEN] += filledBytes;
      counts[COUNT_FRAMES] += filledFrames;
      counts[COUNT_BYTES] += filledFrameBytes;
      this.interfacesWritten = this.interfaces.count;
      return;
    }
    this.fault = errno;
    this.state.words[STATE_FAULT] = errno;
    counts[COUNT_LOST] += filledFrames;
    cutFile(fd, progress[PROGRESS_WRITTEN]);
    this.interfaces.cutTo(this.interfacesWritten);
  }
}
