/**
 * A port that is a capture file: what the switch sends to it is written, or what was captured comes in. Owns the
 * file's descriptor and the one queue: an egress queue (0) for writing, an ingress queue (1) for reading. Which
 * ports' frames are mirrored here is the switch's business; this file only tells of it. Main thread.
 */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  type Stats,
  statfsSync,
  statSync,
  writeSync,
} from 'node:fs';
import { encodeInterface, encodeSection } from '../../../protocol/pcapng-blocks.ts';
import { closeFd } from '../../host/descriptor.ts';
import { ERRNO, errnoText, HostError } from '../../host/errors.ts';
import { createMemoryFile } from '../../host/mapping.ts';
import { ArenaFullError } from '../../memory/arena.ts';
import { QueueState, queueStates, STATE_FAULT, sumCounters } from '../../queue/state.ts';
import type { Port, PortContext, PortQueue, PortState, PortStatus } from '../contract.ts';
import {
  CAPTURE_REGION_BYTES,
  FAULT_END,
  InterfaceTable,
  nameHash,
  PROGRESS_COUNT,
  PROGRESS_PACKETS,
  PROGRESS_WRITTEN,
  readFaultText,
} from './queues.ts';

const RETRY_MS = 2000;
const PAGE_BYTES = 4096;
const BURST_FRAMES = 64;
/** Frames hold whatever guests say to each other: the file is for its owner. */
const FILE_MODE = 0o600;
const { O_APPEND, O_CREAT, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

export type PcapPortOptions = {
  readonly file: string;
  readonly direction: 'write' | 'read';
  /** Bytes kept of each frame at most; 0: all. */
  readonly snapBytes: number;
  /** Writing: of which ports frames are copied; null: what the switch sends to this port is written. */
  readonly mirror: 'all' | readonly string[] | null;
  /** Reading. */
  readonly repeat: 'once' | 'loop';
  readonly pace: 'recorded' | 'full';
};

export class PcapPort implements Port {
  readonly kind = 'pcap';
  readonly mtu = null;
  readonly id: number;
  readonly name: string;
  readonly endpoint: string;
  readonly states = queueStates(2);
  readonly #options: PcapPortOptions;
  readonly #context: PortContext;
  readonly #queueIndex: number;
  readonly #state: QueueState;
  readonly #progress = new Float64Array(new SharedArrayBuffer(8 * PROGRESS_COUNT));
  readonly #interfaces = InterfaceTable.create();
  #fd = -1;
  /** Arena offset of the queue's memory while it is attached, otherwise -1. */
  #regionOffset = -1;
  #status: PortStatus;
  /** One step after the other: opening, a fault, stopping. */
  #work: Promise<void> = Promise.resolve();
  #retry: NodeJS.Timeout | null = null;
  #stopped = false;

  constructor(options: PcapPortOptions, context: PortContext) {
    this.id = context.id;
    this.name = context.name;
    this.endpoint = options.file;
    this.#options = options;
    this.#context = context;
    this.#queueIndex = options.direction === 'write' ? 0 : 1;
    this.#state = new QueueState(this.states, this.#queueIndex);
    this.#status = { state: 'waiting', reason: 'the port was not started' };
  }

  get status(): PortStatus {
    return this.#status;
  }

  get queues(): readonly PortQueue[] {
    const started = this.#regionOffset >= 0;
    return [
      {
        index: this.#queueIndex,
        direction: this.#isWriting ? 'egress' : 'ingress',
        size: BURST_FRAMES,
        started,
        enabled: started,
        reason: this.#status.reason,
      },
    ];
  }

  get counters() {
    return sumCounters(this.states, 1);
  }

  get details(): Readonly<Record<string, unknown>> {
    const { direction, mirror, snapBytes, repeat, pace } = this.#options;
    const common = { direction, snapBytes: snapBytes === 0 ? null : snapBytes };
    if (!this.#isWriting) return { ...common, repeat, pace, packets: this.#progress[PROGRESS_PACKETS] };
    const interfaces = new InterfaceTable(this.#interfaces).count;
    return { ...common, mirror, interfaces, bytesWritten: this.#progress[PROGRESS_WRITTEN] };
  }

  async start(): Promise<void> {
    await this.#then(() => this.#begin());
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#retry !== null) clearTimeout(this.#retry);
    await this.#then(async () => {
      await this.#release();
      this.#become('stopped', 'the port was stopped');
    });
  }

  queueFailed(): void {
    void this.#then(() => this.#failed());
  }

  get #isWriting(): boolean {
    return this.#options.direction === 'write';
  }

  #then(step: () => void | Promise<void>): Promise<void> {
    this.#work = this.#work.then(step);
    return this.#work;
  }

  /** Opens the file, or tells what is in the way and tries again later. */
  async #begin(): Promise<void> {
    if (this.#stopped || this.#regionOffset >= 0) return;
    try {
      if (this.#fd >= 0) {
        // Written until the disk was full: the file stays as it is and is written on.
        this.#requireSpace();
      } else if (this.#isWriting) {
        this.#create();
      } else {
        this.#fd = this.#open(O_RDONLY);
        this.#progress.fill(0);
      }
      await this.#attach();
      this.#become('running', null);
    } catch (error) {
      const reason = reasonOf(error, this.endpoint);
      if (reason === null) throw error;
      this.#become(
        this.#fd >= 0 ? 'stopped' : 'waiting',
        `${reason}; tried again every ${RETRY_MS / 1000} s`,
      );
      this.#later();
    }
  }

  /** @throws Node's error, CaptureFileError */
  #open(flags: number): number {
    // Without O_NONBLOCK a named pipe would hold the whole process.
    const fd = openSync(this.endpoint, flags | O_NONBLOCK, FILE_MODE);
    const stat = fstatSync(fd);
    if (stat.isFile() || (this.#isWriting && stat.isCharacterDevice())) return fd;
    closeSync(fd);
    throw new CaptureFileError(`${this.endpoint} is ${whatIs(stat)}: name a file`);
  }

  /** Makes the file with its header; one that is there already is emptied first. */
  #create(): void {
    const before = statSync(this.endpoint, { throwIfNoEntry: false });
    const fd = this.#open(O_WRONLY | O_CREAT | O_APPEND);
    try {
      if (before?.isFile()) ftruncateSync(fd);
      const header = this.#header();
      writeSync(fd, header);
      this.#progress[PROGRESS_WRITTEN] = header.length;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    this.#fd = fd;
    const oldBytes = before?.isFile() ? before.size : 0;
    const suffix = oldBytes > 0 ? `, which held ${oldBytes} bytes and was emptied` : '';
    this.#context.events.info(`writes frames to ${this.endpoint}${suffix}`);
  }

  /** The section, and the interface of the port itself if it is the one whose frames are written. */
  #header(): Uint8Array {
    const section = encodeSection('Ringway');
    const table = new InterfaceTable(this.#interfaces);
    table.cutTo(0);
    if (this.#options.mirror !== null) return section;
    table.add(this.id, nameHash(this.name));
    return Buffer.concat([section, encodeInterface(this.name, this.#options.snapBytes)]);
  }

  /** @throws CaptureFileError while the last write failed for want of space and there is none yet */
  #requireSpace(): void {
    if (this.#state.words[STATE_FAULT] !== ERRNO.ENOSPC) return;
    if (statfsSync(this.endpoint).bavail === 0) throw new CaptureFileError(this.#fullText());
  }

  #fullText(): string {
    return `no space is left for ${this.endpoint}: make room, the capture then goes on`;
  }

  async #attach(): Promise<void> {
    const { arena, dataPath } = this.#context;
    const memory = createMemoryFile('ringway-capture', CAPTURE_REGION_BYTES);
    try {
      this.#regionOffset = arena.map({
        fd: memory,
        fileOffset: 0,
        sizeBytes: CAPTURE_REGION_BYTES,
        pageBytes: PAGE_BYTES,
        preferredOffset: null,
      });
    } finally {
      closeFd(memory);
    }
    this.#state.words.fill(0);
    const { snapBytes, repeat, pace } = this.#options;
    await dataPath.attach({
      kind: 'pcap',
      portId: this.id,
      queueIndex: this.#queueIndex,
      direction: this.#isWriting ? 'egress' : 'ingress',
      states: this.states,
      fd: this.#fd,
      portName: this.name,
      snapBytes,
      regionOffset: this.#regionOffset,
      regionAddress: arena.location.address + this.#regionOffset,
      progress: this.#progress.buffer as SharedArrayBuffer,
      interfaces: this.#interfaces,
      loops: repeat === 'loop',
      keepsPace: pace === 'recorded',
    });
  }

  async #detach(): Promise<void> {
    if (this.#regionOffset < 0) return;
    await this.#context.dataPath.detach(this.id, this.#queueIndex);
    this.#context.arena.unmap(this.#regionOffset);
    this.#regionOffset = -1;
  }

  async #release(): Promise<void> {
    await this.#detach();
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  async #failed(): Promise<void> {
    if (this.#regionOffset < 0) return;
    const fault = this.#state.words[STATE_FAULT];
    if (this.#isWriting) {
      await this.#detach();
      const why =
        fault === ERRNO.ENOSPC ? this.#fullText() : `writing ${this.endpoint} failed: ${errnoText(fault)}`;
      this.#become('stopped', `${why}; tried again every ${RETRY_MS / 1000} s`);
      this.#later();
      return;
    }
    await this.#release();
    // The stations of the capture may turn up behind other ports.
    this.#context.events.disconnected();
    this.#become('stopped', readFaultText(fault, this.#progress), fault === FAULT_END);
  }

  #later(): void {
    if (this.#stopped) return;
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#retry = setTimeout(() => void this.#then(() => this.#begin()), RETRY_MS);
  }

  /** Notes the state, and logs it when it is another one. */
  #become(state: PortState, reason: string | null, isFine = reason === null): void {
    const isNews = this.#status.reason !== reason || this.#status.state !== state;
    this.#status = { state, reason };
    if (!isNews || this.#stopped) return;
    if (isFine) this.#context.events.info(reason ?? state);
    else this.#context.events.warn(reason ?? state);
  }
}

/** The file is there but is none that can be used. */
class CaptureFileError extends Error {
  override name = 'CaptureFileError';
}

function whatIs(stat: Stats): string {
  if (stat.isDirectory()) return 'a folder';
  if (stat.isFIFO()) return 'a named pipe';
  return 'a device';
}

/** Why a file cannot be used now, or null for an error that is a bug of ours. */
function reasonOf(error: unknown, file: string): string | null {
  if (error instanceof CaptureFileError || error instanceof HostError || error instanceof ArenaFullError) {
    return error.message;
  }
  if (!(error instanceof Error) || !('errno' in error) || typeof error.errno !== 'number') return null;
  const doing = 'syscall' in error ? String(error.syscall) : 'open';
  return `cannot ${doing} ${file}: ${errnoText(-error.errno)}`;
}
