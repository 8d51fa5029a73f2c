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
export const PROGRESS_COUNT = 4;

/** Faults of a reading queue; below them stand errno codes, above CAPTURE_FAULT + what protocol/pcap.ts found. */
export const FAULT_END = 1000;
export const FAULT_CUT_SHORT = 1001;
export const FAULT_EMPTY = 1002;
export const FAULT_BROKEN = 1100;

/** Why the file is not read on. */
export function readFaultText(fault: number, progress: Float64Array): string {
  const packets = progress[PROGRESS_PACKETS];
  const frames = packets === 1 ? '1 frame' : `${packets} frames`;
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
