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
  renameSync,
  rmSync,
  type Stats,
  statfsSync,
  statSync,
  writeSync,
} from 'node:fs';
import { resolve } from 'node:path';
import { MTU_MAX } from '../../../protocol/ethernet.ts';
import { encodeInterface, encodeSection } from '../../../protocol/pcapng-blocks.ts';
import { HandOverError } from '../../device/hand-over.ts';
import { ERRNO, errnoText } from '../../host/errors.ts';
import { allocateScratch, type ScratchArea } from '../../memory/scratch.ts';
import { QueueState, queueStates, STATE_FAULT, sumCounters } from '../../queue/state.ts';
import type { Port, PortContext, PortQueue, PortStatus } from '../contract.ts';
import {
  type HandedPcapPort,
  type HandedPort,
  type HandOver,
  handedAs,
  NO_RINGS,
  NOTHING_LEFT,
  type PortPositions,
  requireSame,
} from '../hand-over.ts';
import { Supervisor, type Trouble } from '../supervisor.ts';
import {
  CAPTURE_REGION_BYTES,
  doubts,
  FAULT_END,
  InterfaceTable,
  nameHash,
  type PcapAttachment,
  PROGRESS_CHECKED,
  PROGRESS_COUNT,
  PROGRESS_CUT,
  PROGRESS_OVERLONG,
  PROGRESS_PACKETS,
  PROGRESS_UNKNOWN_BLOCKS,
  PROGRESS_UNTIMED,
  PROGRESS_WAIT_S,
  PROGRESS_WRITTEN,
  readFaultText,
  waitText,
} from './queues.ts';

const RETRY_MS = 2000;
/** How often is looked whether the file is still there, and what is to be said of what was read. */
const LOOK_PERIOD_MS = 2000;
/** The same where files are begun anew by their size: so much longer than asked for may one become. */
const ROTATION_LOOK_MS = 100;
const FILES_KEPT = 10;
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
  /** Writing: the file is begun anew when it has so many bytes, or is so old; 0: never. So many files are kept, with the one that is written. */
  readonly rotateBytes?: number;
  readonly rotateSeconds?: number;
  readonly files?: number;
  /** Reading. */
  readonly repeat: 'once' | 'loop';
  readonly pace: 'recorded' | 'full';
};

export class PcapPort implements Port, HandOver {
  readonly kind = 'pcap';
  readonly mtu = null;
  readonly mtuMax = MTU_MAX;
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
  #lookTimer: NodeJS.Timeout | null = null;
  /** When the file that is written was begun, or taken over. */
  #begunMs = performance.now();
  /** Writing: what stands at the path although it is not the file that is written; null: nothing does. */
  #stranger: string | null = null;
  /** What was logged of the capture that is read. */
  #saidDoubts = 0;
  #saidWait = false;
  /** The queue while it is attached, also while it rests. */
  #attachment: PcapAttachment | null = null;
  #isInUse = false;
  /** Resolves when the workers have let go of it, where they were told to. */
  #lettingGo: Promise<void> = Promise.resolve();
  #isResting = false;
  /** Resolved when the port is thawed; null: it is not frozen. */
  #frozen: PromiseWithResolvers<void> | null = null;
  /** What is taken over, until it is. */
  #handed: HandedPcapPort | null = null;
  /** What was handed over. */
  #handedFd = -1;
  /** Why it is not read on, ever; null: it is. */
  #ended: string | null = null;

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
        attend: () => this.#attend(),
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

  async tune(): Promise<void> {}

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
        // What is to be known of a running port is no fault of its queue.
        reason: started ? null : this.status.reason,
      },
    ];
  }

  get counters() {
    return sumCounters(this.states, 1);
  }

  get details(): Readonly<Record<string, unknown>> {
    const { direction, snapBytes, repeat, pace } = this.#options;
    const common = { direction, snapBytes: snapBytes === 0 ? null : snapBytes };
    if (!this.#isWriting) {
      const progress = this.#progress;
      return {
        ...common,
        repeat,
        pace,
        packets: progress[PROGRESS_PACKETS],
        cut: progress[PROGRESS_CUT],
        overlong: progress[PROGRESS_OVERLONG],
        withoutCheckSequence: progress[PROGRESS_CHECKED],
        untimed: progress[PROGRESS_UNTIMED],
        unknownBlocks: progress[PROGRESS_UNKNOWN_BLOCKS],
        nextDueSeconds: Math.ceil(progress[PROGRESS_WAIT_S]),
      };
    }
    const interfaces = new InterfaceTable(this.#interfaces).count;
    return { ...common, interfaces, bytesWritten: this.#progress[PROGRESS_WRITTEN] };
  }

  start(): Promise<void> {
    return this.#supervisor.start();
  }

  stop(): Promise<void> {
    this.#frozen?.resolve();
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
    const isFine = fault === FAULT_END && doubts(this.#progress).length === 0;
    this.#ended = reason;
    this.#supervisor.lose({ reason, retry: 'never', isFine });
  }

  async freeze(): Promise<void> {
    this.#frozen ??= Promise.withResolvers();
  }

  handOver(): HandedPcapPort {
    this.#handedFd = this.#fd;
    return {
      kind: 'pcap',
      endpoint: resolve(this.endpoint),
      direction: this.#options.direction,
      fd: this.#fd < 0 ? null : this.#fd,
      ended: this.#ended,
    };
  }

  takeOver(any: HandedPort): void {
    const handed = handedAs('pcap', resolve(this.endpoint), any);
    requireSame('direction', handed.direction, this.#options.direction);
    this.#handed = handed;
    this.#frozen = Promise.withResolvers();
    this.#isResting = true;
  }

  async setResting(isResting: boolean): Promise<void> {
    this.#isResting = isResting;
    if (isResting) await this.#letGo();
    else await this.#use();
  }

  positions(): PortPositions {
    if (this.#handedFd !== this.#fd)
      throw new HandOverError(`${this.endpoint} was opened or closed meanwhile`);
    const { hashes } = new InterfaceTable(this.#interfaces);
    const counts = [0, 1].map((i) => [...new QueueState(this.states, i).counts]);
    const capture = { progress: [...this.#progress], interfaces: hashes };
    return { ...NO_RINGS, ...NOTHING_LEFT, capture, counts };
  }

  async goOnAt({ capture, counts }: PortPositions): Promise<void> {
    for (const [i, queue] of counts.slice(0, 2).entries()) new QueueState(this.states, i).counts.set(queue);
    if (capture === null) return;
    this.#progress.set(capture.progress.slice(0, PROGRESS_COUNT));
    new InterfaceTable(this.#interfaces).takeOver(capture.interfaces);
  }

  thaw(): void {
    this.#frozen?.resolve();
    this.#frozen = null;
    this.#handedFd = -1;
  }

  /** What is not taken over is not opened while the port is frozen. */
  #attend(): Promise<boolean> | null {
    const isTaking = this.#handed !== null && (this.#handed.fd !== null || this.#handed.ended !== null);
    if (this.#frozen === null || isTaking) return null;
    this.#handed = null;
    return this.#frozen.promise.then(() => true);
  }

  async #use(): Promise<void> {
    if (this.#attachment === null || this.#isInUse || this.#isResting) return;
    this.#isInUse = true;
    await this.#context.dataPath.attach(this.#attachment);
  }

  /** Resolves when no worker uses the queue, also where it was told before. */
  #letGo(): Promise<void> {
    if (this.#isInUse) this.#lettingGo = this.#context.dataPath.detach(this.id, this.#queueIndex);
    this.#isInUse = false;
    return this.#lettingGo;
  }

  get #isWriting(): boolean {
    return this.#options.direction === 'write';
  }

  /** Opens the file, if it is not open still, and attaches the queue. @throws Node's error, CaptureFileError */
  async #attach(): Promise<void> {
    const handed = this.#handed;
    this.#handed = null;
    this.#ended = handed?.ended ?? null;
    if (this.#ended !== null) throw new ReadToEndError(this.#ended);
    if (handed !== null && handed.fd !== null) {
      this.#fd = handed.fd;
      await this.#goOn();
      return;
    }
    if (this.#fd >= 0 && this.#whyAnew() !== null) this.#closeFile();
    if (this.#fd >= 0) {
      // Written until the disk was full: the file stays as it is and is written on.
      this.#requireSpace();
    } else if (this.#isWriting) {
      this.#create();
    } else {
      this.#fd = this.#open(O_RDONLY);
      this.#progress.fill(0);
      this.#saidDoubts = 0;
      this.#saidWait = false;
    }
    await this.#goOn();
    this.#context.events.info('running');
  }

  /** With the file that is open. */
  async #goOn(): Promise<void> {
    await this.#attachQueue();
    const { rotateBytes = 0, rotateSeconds = 0 } = this.#options;
    const isRotated = this.#isWriting && rotateBytes + rotateSeconds > 0;
    this.#lookTimer = setInterval(() => this.#look(), isRotated ? ROTATION_LOOK_MS : LOOK_PERIOD_MS);
    this.#lookTimer.unref();
  }

  #look(): void {
    if (this.#frozen !== null) return;
    if (!this.#isWriting) {
      this.#tellRemarks();
      return;
    }
    if (this.#isDue()) this.#shiftFiles();
    const why = this.#whyAnew();
    if (why !== null) this.#supervisor.lose({ reason: `${why}: begun anew`, retry: 'now', isFine: true });
  }

  /** Whether the file that is written is long or old enough, and has frames. */
  #isDue(): boolean {
    const { rotateBytes = 0, rotateSeconds = 0 } = this.#options;
    const writtenBytes = this.#progress[PROGRESS_WRITTEN];
    const isOld = rotateSeconds > 0 && performance.now() - this.#begunMs >= rotateSeconds * 1000;
    const isLong = rotateBytes > 0 && writtenBytes >= rotateBytes;
    if (!isOld && !isLong) return false;
    const there = statOrNull(this.endpoint);
    const open = fstatSync(this.#fd);
    // Somebody else's file stays where it is, and so does what is no file.
    if (there === null || !open.isFile() || there.ino !== open.ino || there.dev !== open.dev) return false;
    return writtenBytes > this.#header().length;
  }

  /** FILE becomes FILE.1, that FILE.2 and so on; the oldest one goes. The file that is open is begun anew by that. */
  #shiftFiles(): void {
    const { files = FILES_KEPT } = this.#options;
    const nameOf = (age: number): string => (age === 0 ? this.endpoint : `${this.endpoint}.${age}`);
    try {
      if (files === 1) rmSync(this.endpoint, { force: true });
      for (let age = files - 2; age >= 0; age--)
        if (statOrNull(nameOf(age)) !== null) renameSync(nameOf(age), nameOf(age + 1));
    } catch (error) {
      // It is written on, and tried again when it is as old, or at the next look.
      this.#begunMs = performance.now();
      this.#context.events.warn(`${this.endpoint} cannot be rotated: ${(error as Error).message}`);
    }
  }

  /** Once of each kind of doubt, and once that a pause is long: the status has the numbers. */
  #tellRemarks(): void {
    const found = doubts(this.#progress);
    if (found.length > this.#saidDoubts) this.#context.events.warn(found.join('; '));
    this.#saidDoubts = Math.max(found.length, this.#saidDoubts);
    const wait = waitText(this.#progress);
    if (wait !== null && !this.#saidWait) this.#context.events.info(wait);
    this.#saidWait = wait !== null;
  }

  /** What the user should know of a port that runs. */
  #remarks(): string | null {
    if (this.#isWriting) return this.#stranger;
    const wait = waitText(this.#progress);
    const found = doubts(this.#progress);
    return wait === null && found.length === 0
      ? null
      : [...found, ...(wait === null ? [] : [wait])].join('; ');
  }

  /**
   * Why what is written must go to a file made anew: the one that is open was moved away or removed, or cut to fewer
   * bytes than were written, so that what follows would be no capture. Null: it need not. Somebody else's file, in
   * place of it, is not touched; what is written then goes on to where it went.
   */
  #whyAnew(): string | null {
    // In this order: a worker may write meanwhile.
    const writtenBytes = this.#progress[PROGRESS_WRITTEN];
    const open = fstatSync(this.#fd);
    if (!open.isFile()) return null;
    const there = statOrNull(this.endpoint);
    this.#stranger = null;
    if (there === null) return `${this.endpoint} was moved away or removed`;
    if (there.dev === open.dev && there.ino === open.ino) {
      return open.size < writtenBytes ? `${this.endpoint} was cut to ${open.size} bytes` : null;
    }
    if (there.isFile() && there.size === 0)
      return `${this.endpoint} was moved away and an empty file put there`;
    this.#stranger = `at ${this.endpoint} stands what another program made: frames are written to the file that was there before`;
    return null;
  }

  /** @throws Node's error, CaptureFileError */
  #open(flags: number): number {
    let fd: number;
    try {
      // Without O_NONBLOCK a named pipe would hold the whole process.
      fd = openSync(this.endpoint, flags | O_NONBLOCK, FILE_MODE);
    } catch (error) {
      // A pipe that nobody reads and a socket cannot even be opened (ENXIO), nor a folder for writing.
      const stat = statOrNull(this.endpoint);
      if (stat !== null) this.#requireFile(stat);
      throw error;
    }
    try {
      this.#requireFile(fstatSync(fd));
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return fd;
  }

  /** @throws CaptureFileError */
  #requireFile(stat: Stats): void {
    if (stat.isFile() || (this.#isWriting && stat.isCharacterDevice())) return;
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
    this.#begunMs = performance.now();
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
    const { arena } = this.#context;
    const region = allocateScratch(arena, { name: 'ringway-capture', sizeBytes: CAPTURE_REGION_BYTES });
    this.#region = region;
    this.#state.words.fill(0);
    const { snapBytes, repeat, pace } = this.#options;
    this.#attachment = {
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
    };
    await this.#use();
  }

  /** A file that is written stays open while there will be another try, so that it is not emptied. */
  async #release(isLast: boolean): Promise<void> {
    if (this.#lookTimer !== null) clearInterval(this.#lookTimer);
    this.#lookTimer = null;
    if (this.#region !== null) {
      this.#attachment = null;
      await this.#letGo();
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
    if (isHeld) return { state: 'running', reason: this.#remarks() };
    return { state: this.#fd >= 0 ? 'stopped' : 'waiting', reason };
  }
}

/** Nothing more is read; the message says why. */
class ReadToEndError extends Error {
  override name = 'ReadToEndError';
}

/** The file is there but is none that can be used. */
class CaptureFileError extends Error {
  override name = 'CaptureFileError';
}

function statOrNull(file: string): Stats | null {
  try {
    return statSync(file);
  } catch {
    // Gone, or the way there is.
    return null;
  }
}

function whatIs(stat: Stats): string {
  if (stat.isDirectory()) return 'a folder';
  if (stat.isFIFO()) return 'a named pipe';
  if (stat.isSocket()) return 'a socket';
  return 'a device';
}

/** Why a file cannot be used now, or null for an error that is a bug of ours. */
function explain(error: unknown, file: string): Trouble | null {
  if (error instanceof CaptureFileError) return triedAgain(error.message);
  if (error instanceof ReadToEndError) return { reason: error.message, retry: 'never', isFine: true };
  if (!(error instanceof Error) || !('errno' in error) || typeof error.errno !== 'number') return null;
  // Node has the number below zero, and our own HostError, which says it all, above.
  if (error.errno > 0) return triedAgain(error.message);
  const doing = 'syscall' in error ? String(error.syscall) : 'open';
  return triedAgain(`cannot ${doing} ${file}: ${errnoText(-error.errno)}`);
}

function triedAgain(reason: string): Trouble {
  return { reason: `${reason}; tried again every ${RETRY_MS / 1000} s` };
}
