/**
 * What a queue can do that takes copies of other ports' frames: it is told for each frame which port it passed
 * and which way. The forwarder (switch/l2/forwarder.ts) gives such copies; the queue is opened and ended as any
 * other egress queue. Worker thread.
 */
import type { EgressQueue } from './contract.ts';
import type { Frame } from './frame.ts';
import type { MirrorSource } from './policy.ts';

export interface MirrorQueue extends EgressQueue {
  /** Whose frames will come, from now on; never during a burst. */
  nameSources(sources: readonly MirrorSource[]): void;
  /**
   * Copies the frame that came in from a port (`isIngress`) or was given to it. Answers as `give` does.
   */
  mirror(frame: Frame, portId: number, isIngress: boolean): number;
}

export function isMirrorQueue(queue: EgressQueue): queue is MirrorQueue {
  return 'mirror' in queue && 'nameSources' in queue;
}
