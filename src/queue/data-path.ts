/**
 * What a port asks of whoever moves frames (the workers in switch/). Each promise resolves when every worker
 * has done it: after `detach` no worker touches the queue or its memory, and its QueueState is final.
 */
import type { AddressMap } from '../memory/gpa-translator.ts';
import type { QueueAttachment } from '../port/kinds.ts';
import type { RingLog } from '../vring/dirty-log.ts';
import type { PortPolicy } from './policy.ts';

export interface DataPath {
  attach(queue: QueueAttachment): Promise<void>;
  detach(portId: number, queueIndex: number): Promise<void>;
  /** Virtqueues: the driver is signalled once afterwards; a signal may have gone to the old descriptor. */
  setCallFd(portId: number, queueIndex: number, callFd: number): Promise<void>;
  /**
   * Virtqueues: what all of the port's attached queues translate descriptors with from now on. Nobody uses what is not
   * in it afterwards; what was in the map before too must lie where it lay. `isLonger`: all of that is still in it. `paused`:
   * queues that nobody touches from now on, until this is called without them.
   */
  setMemory(portId: number, map: AddressMap, isLonger: boolean, paused?: readonly number[]): Promise<void>;
  /** Virtqueues: what is written to the guest for this one is marked there from now on, and nowhere else. */
  setLog(portId: number, queueIndex: number, log: RingLog | null): Promise<void>;
  /**
   * Forwards a frame of the switch's own as if it had come in from the port: a guest with this address (six bytes) lives
   * there now.
   */
  announce(portId: number, mac: readonly number[]): Promise<void>;
  /** Changes these parts of the port's policy; the others stay. */
  setPolicy(portId: number, change: Partial<PortPolicy>): Promise<void>;
}
