/**
 * What a port asks of whoever moves frames (the workers in switch/). Each promise resolves when every worker
 * has done it: after `detach` no worker touches the queue or its memory, and its QueueState is final.
 */
import type { QueueAttachment } from '../port/kinds.ts';

export interface DataPath {
  attach(queue: QueueAttachment): Promise<void>;
  detach(portId: number, queueIndex: number): Promise<void>;
  setEnabled(portId: number, queueIndex: number, enabled: boolean): Promise<void>;
  /** Virtqueues: the driver is signalled once afterwards; a signal may have gone to the old descriptor. */
  setCallFd(portId: number, queueIndex: number, callFd: number): Promise<void>;
  /** Longest frame, with its Ethernet header and up to two VLAN tags, that may be delivered to the port. */
  setFrameLimit(portId: number, frameBytesMax: number): Promise<void>;
}
