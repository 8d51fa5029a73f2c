/**
 * What the main thread and the workers agree on about a capture file: the attachment of its queue, the numbers
 * that both see, and why a queue stopped. The queues are in ingress.ts and egress.ts. Any thread.
 */
import { captureFaultText } from '../../../protocol/pcap.ts';
import { errnoText } from '../../host/errors.ts';
import type { QueueAttachmentBase } from '../../queue/contract.ts';

/** Memory in the arena that a queue keeps the file's bytes in; zeroed pages, one queue's alone. */
export const CAPTURE_REGION_BYTES = 2 ** 20;
/** A timespec comes first; the file's bytes begin here. */
export const CAPTURE_BUFFER_OFFSET = 64;

export type PcapAttachment = QueueAttachmentBase & {
  readonly kind: 'pcap';
  /** The file, open for reading (ingress) or for appending (egress). */
  readonly fd: number;
  /** Name of the port, for what is given to it. */
  readonly portName: string;
  /** Bytes kept of each frame at most; 0: all. */
  readonly snapBytes: number;
  readonly regionOffset: number;
  readonly regionAddress: number;
  /** Doubles, see PROGRESS_*; they outlive the queue. */
  readonly progress: SharedArrayBuffer;
  /** Egress: the interfaces that stand in the file (InterfaceTable); they outlive the queue. */
  readonly interfaces: SharedArrayBuffer;
  /** Ingress: begin again at the end of the file. */
  readonly loops: boolean;
  /** Ingress: keep the pauses between frames as they were captured. */
  readonly keepsPace: boolean;
};

/** Ingress: packets read so far; where in the file reading stands; what is wrong there. Egress: bytes written. */
export const PROGRESS_PACKETS = 0;
export const PROGRESS_OFFSET = 1;
export const PROGRESS_FAULT_VALUE = 2;
export const PROGRESS_WRITTEN = 3;
/**
 * Ingress: packets of which the capture holds only the beginning; that are said to hold more than they had; whose check
 * sequence was taken off; without a time although the pace is kept; blocks passed over that may have held packets.
 */
export const PROGRESS_CUT = 4;
export const PROGRESS_OVERLONG = 5;
export const PROGRESS_CHECKED = 6;
export const PROGRESS_UNTIMED = 7;
export const PROGRESS_UNKNOWN_BLOCKS = 8;
/** Ingress that keeps the pace: seconds until the next packet is due; 0: it is. */
export const PROGRESS_WAIT_S = 9;
/** Ingress: packets since the file's beginning was read last. Whoever opens the queue goes on behind them. */
export const PROGRESS_PASS = 10;
/**
 * Ingress that keeps the pace: whether there are times, of the first packet since then and of the clock then; seconds and
 * nanoseconds of each.
 */
export const PROGRESS_HAS_TIMES = 11;
export const PROGRESS_TIMES = 12;
export const PROGRESS_COUNT = 16;

/** What is said of a reading port while it waits for longer than that. */
const WAIT_SAID_S = 5;
const UNITS_S = [
  ['days', 86_400],
  ['hours', 3600],
  ['minutes', 60],
  ['seconds', 1],
] as const;

/** What cannot be right of what was read, or was not read, in words for the user; empty: nothing. */
export function doubts(progress: Float64Array): string[] {
  const texts: readonly (readonly [count: number, text: string])[] = [
    [progress[PROGRESS_CUT], 'held only in part by the capture and sent so'],
    [progress[PROGRESS_OVERLONG], 'said to hold more bytes than they had, which were left out'],
    [progress[PROGRESS_UNTIMED], 'without a time and sent at once'],
  ];
  const blocks = progress[PROGRESS_UNKNOWN_BLOCKS];
  return [
    ...texts.filter(([count]) => count > 0).map(([count, text]) => `${framesText(count)} ${text}`),
    ...(blocks > 0 ? [`${blocks === 1 ? '1 block' : `${blocks} blocks`} of unknown kind passed over`] : []),
  ];
}

/** Why nothing comes for a while; null: something does. */
export function waitText(progress: Float64Array): string | null {
  const waitS = progress[PROGRESS_WAIT_S];
  if (waitS < WAIT_SAID_S) return null;
  const [unit, unitS] = UNITS_S.find((each) => waitS >= 2 * each[1]) ?? UNITS_S[3];
  return `the next frame is due in ${Math.round(waitS / unitS)} ${unit}, as it was captured (pace=full does not wait)`;
}

function framesText(count: number): string {
  return count === 1 ? '1 frame' : `${count} frames`;
}

/** Faults of a reading queue; below them stand errno codes, above CAPTURE_FAULT + what protocol/pcap.ts found. */
export const FAULT_END = 1000;
export const FAULT_CUT_SHORT = 1001;
export const FAULT_EMPTY = 1002;
export const FAULT_BROKEN = 1100;

/** Why the file is not read on, and what is to be doubted of what was. */
export function readFaultText(fault: number, progress: Float64Array): string {
  return [faultText(fault, progress), ...doubts(progress)].join('; ');
}

function faultText(fault: number, progress: Float64Array): string {
  const frames = framesText(progress[PROGRESS_PACKETS]);
  const at = `at byte ${progress[PROGRESS_OFFSET]}, after ${frames}`;
  if (fault === FAULT_END) return `capture read to its end: ${frames}`;
  if (fault === FAULT_EMPTY) return 'the capture file is empty';
  if (fault === FAULT_CUT_SHORT)
    return `the capture ends in the middle of a packet or block that begins ${at}`;
  if (fault < FAULT_END) return `reading the capture failed ${at}: ${errnoText(fault)}`;
  const what = captureFaultText(fault - FAULT_BROKEN, progress[PROGRESS_FAULT_VALUE]);
  return `the capture is broken or not supported ${at}: ${what}`;
}

/** Ports that can have an interface in one file: as many as a switch has ports. */
export const INTERFACE_PORTS_MAX = 4096;

/**
 * Which interface of the file stands for which port. All workers that write the file share it, each under the
 * lock of the queue. A port's number may go to another port: an entry is known by the hash of its name, too.
 */
export class InterfaceTable {
  /** How many there are, then for each port its interface plus 1 and the hash of its name. */
  readonly #words: Int32Array;

  constructor(shared: SharedArrayBuffer) {
    this.#words = new Int32Array(shared);
  }

  static create(): SharedArrayBuffer {
    return new SharedArrayBuffer(4 * (1 + 2 * INTERFACE_PORTS_MAX));
  }

  get count(): number {
    return this.#words[0];
  }

  /** -1: none yet. */
  find(portId: number, nameHash: number): number {
    const at = 1 + 2 * portId;
    return this.#words[at + 1] === nameHash ? this.#words[at] - 1 : -1;
  }

  /** The next free interface becomes the port's. */
  add(portId: number, nameHash: number): number {
    const interfaceIndex = this.#words[0]++;
    this.#words[1 + 2 * portId] = interfaceIndex + 1;
    this.#words[2 + 2 * portId] = nameHash;
    return interfaceIndex;
  }

  /** The interface that is of a port of that name, whatever its number was; -1: none. */
  named(nameHash: number): number {
    for (let at = 1; at < this.#words.length; at += 2)
      if (this.#words[at] > 0 && this.#words[at + 1] === nameHash) return this.#words[at] - 1;
    return -1;
  }

  /** The port has this number now. */
  rename(portId: number, interfaceIndex: number, nameHash: number): void {
    this.#words[1 + 2 * portId] = interfaceIndex + 1;
    this.#words[2 + 2 * portId] = nameHash;
  }

  /** For each interface the hash of its port's name; 0: that is not known any more. */
  get hashes(): number[] {
    const hashes: number[] = new Array(this.count).fill(0);
    for (let at = 1; at < this.#words.length; at += 2)
      if (this.#words[at] > 0) hashes[this.#words[at] - 1] = this.#words[at + 1];
    return hashes;
  }

  /** As another table has it, whose ports have other numbers; from the last number on, where few ports are. */
  takeOver(hashes: readonly number[]): void {
    this.#words.fill(0);
    this.#words[0] = hashes.length;
    for (const [i, hash] of hashes.slice(0, INTERFACE_PORTS_MAX).entries())
      if (hash !== 0) this.rename(INTERFACE_PORTS_MAX - 1 - i, i, hash);
  }

  /** Forgets those that did not get into the file. */
  cutTo(count: number): void {
    for (let at = 1; at < this.#words.length; at += 2) if (this.#words[at] > count) this.#words[at] = 0;
    this.#words[0] = count;
  }
}

export function nameHash(name: string): number {
  let hash = 0x811c9dc5 | 0;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash;
}
