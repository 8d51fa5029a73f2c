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
import { ERRNO, errnoText } from '../../host/errors.ts';
import { allocateScratch, type ScratchArea } from '../../memory/scratch.ts';
import { QueueState, queueStates, STATE_FAULT, sumCounters } from '../../queue/state.ts';
import type { Port, PortContext, PortQueue, PortStatus } from '../contract.ts';
import { Supervisor, type Trouble } from '../supervisor.ts';
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
  /** The queue's memory while it is attached. */
  #region: ScratchArea | null = null;
  readonly #supervisor: Supervisor;

  constructor(options: PcapPortOptions, context: PortContext) {
    this.id = context.id;
    this.name = context.name;
    this.endpoint = options.file;
    this.#options = options;
    this.#context = context;
    this.#queueIndex = options.direction === 'write' ? 0 : 1;
    this.#state = new QueueState(this.states, this.#queueIndex);
    this.#supervisor = new Supervisor(
      {
        open: () => {},
        attend: () => null,
        attach: () => this.#attach(),
        release: (isLast) => this.#release(isLast),
        close: () => this.#closeFile(),
        explain: (error) => explain(error, this.endpoint),
        describe: (isHeld, reason) => this.#describe(isHeld, reason),
      },
      context.events,
      { minMs: RETRY_MS, maxMs: RETRY_MS },
    );
  }

  get status(): PortStatus {
    return this.#supervisor.status;
  }

  get queues(): readonly PortQueue[] {
    const started = this.#region !== null;
    return [
      {
        index: this.#queueIndex,
        direction: this.#isWriting ? 'egress' : 'ingress',
        size: BURST_FRAMES,
        started,
        enabled: started,
        inUse: started,
        reason: this.status.reason,
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

  start(): Promise<void> {
    return this.#supervisor.start();
  }

  stop(): Promise<void> {
    return this.#supervisor.stop();
  }

  queueFailed(): void {
    const fault = this.#state.words[STATE_FAULT];
    if (fault === 0) return;
    if (this.#isWriting) {
      const why =
        fault === ERRNO.ENOSPC ? this.#fullText() : `writing ${this.endpoint} failed: ${errnoText(fault)}`;
      this.#supervisor.lose(triedAgain(why));
      return;
    }
    const reason = readFaultText(fault, this.#progress);
    this.#supervisor.lose({ reason, retry: 'never', isFine: fault === FAULT_END });
  }

  get #isWriting(): boolean {
    return this.#options.direction === 'write';
  }

  /** Opens the file, if it is not open still, and attaches the queue. @throws Node's error, CaptureFileError */
  async #attach(): Promise<void> {
    if (this.#fd >= 0) {
      // Written until the disk was full: the file stays as it is and is written on.
      this.#requireSpace();
    } else if (this.#isWriting) {
      this.#create();
    } else {
      this.#fd = this.#open(O_RDONLY);
      this.#progress.fill(0);
    }
    await this.#attachQueue();
    this.#context.events.info('running');
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

  async #attachQueue(): Promise<void> {
    const { arena, dataPath } = this.#context;
    const region = allocateScratch(arena, { name: 'ringway-capture', sizeBytes: CAPTURE_REGION_BYTES });
    this.#region = region;
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
      regionOffset: region.offset,
      regionAddress: region.address,
      progress: this.#progress.buffer as SharedArrayBuffer,
      interfaces: this.#interfaces,
      loops: repeat === 'loop',
      keepsPace: pace === 'recorded',
    });
  }

  /** A file that is written stays open while there will be another try, so that it is not emptied. */
  async #release(isLast: boolean): Promise<void> {
    if (this.#region !== null) {
      await this.#context.dataPath.detach(this.id, this.#queueIndex);
      this.#region.release();
      this.#region = null;
    }
    if (isLast || !this.#isWriting) this.#closeFile();
  }

  #closeFile(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  #describe(isHeld: boolean, reason: string | null): PortStatus {
    if (isHeld) return { state: 'running', reason: null };
    return { state: this.#fd >= 0 ? 'stopped' : 'waiting', reason };
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
function explain(error: unknown, file: string): Trouble | null {
  if (error instanceof CaptureFileError) return triedAgain(error.message);
  if (!(error instanceof Error) || !('errno' in error) || typeof error.errno !== 'number') return null;
  // Node has the number below zero, and our own HostError, which says it all, above.
  if (error.errno > 0) return triedAgain(error.message);
  const doing = 'syscall' in error ? String(error.syscall) : 'open';
  return triedAgain(`cannot ${doing} ${file}: ${errnoText(-error.errno)}`);
}

function triedAgain(reason: string): Trouble {
  return { reason: `${reason}; tried again every ${RETRY_MS / 1000} s` };
}
