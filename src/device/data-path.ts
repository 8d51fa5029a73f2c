/**
 * What a device asks of whoever moves frames (the workers in switch/). Each promise resolves when every
 * worker has done it: after `detach` no worker touches the ring or its memory, and RingState is final.
 */
import type { RingAttachment } from '../vring/contract.ts';

export interface DataPath {
  attach(ring: RingAttachment): Promise<void>;
  detach(portId: number, ringIndex: number): Promise<void>;
  setEnabled(portId: number, ringIndex: number, enabled: boolean): Promise<void>;
  /** The driver is signalled once afterwards: a signal may have gone to the old descriptor. */
  setCallFd(portId: number, ringIndex: number, callFd: number): Promise<void>;
  /** Longest frame, with its Ethernet header and up to two VLAN tags, that may be delivered to the port. */
  setFrameLimit(portId: number, frameBytesMax: number): Promise<void>;
}
