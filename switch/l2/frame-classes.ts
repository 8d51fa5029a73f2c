/**
 * What kinds of frames come in from a port, for those who watch it: how long they are, and how many go to groups. Nothing is
 * counted a frame where all of a burst are alike, as most are: then one addition tells of all of them. Of bursts with frames
 * of several lengths one in SAMPLED_BURSTS is looked at, and counts for the others. Hot path of one worker.
 */
import { FRAME_BYTES_MAX } from '../../protocol/ethernet.ts';
import type { Batch } from '../../src/queue/batch.ts';
import * as BATCH from '../../src/queue/batch.ts';
import type { ForwardingPort } from './forwarding-port.ts';
import { COUNT_SIZES, SIZE_BOUNDS } from './port-counts.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { AT_BYTES, RECORD_SHIFT } = BATCH;

/** A prime, so that queues in turn do not have the same ones looked at for ever. */
export const SAMPLED_BURSTS = 7;

/** The counter of each length. */
const COUNT_OF_BYTES = Uint8Array.from({ length: FRAME_BYTES_MAX + 1 }, (_, bytes) => {
  const size = SIZE_BOUNDS.findIndex((bound) => bytes <= bound);
  return COUNT_SIZES + (size < 0 ? SIZE_BOUNDS.length : size);
});

/** Counts the frames of a burst as they came in. The batch has a frame at least. */
export function countSizes(port: ForwardingPort, batch: Batch): void {
  const { count, bytesMax } = batch;
  if (batch.bytesTaken === count * bytesMax) port.counts[COUNT_OF_BYTES[bytesMax]] += count;
  else countMixed(port, batch);
}

function countMixed(port: ForwardingPort, { count, records }: Batch): void {
  if (port.burstsToSkip > 0) {
    port.burstsToSkip--;
    return;
  }
  port.burstsToSkip = SAMPLED_BURSTS - 1;
  const { counts } = port;
  for (let frame = 0; frame < count; frame++)
    counts[COUNT_OF_BYTES[records[(frame << RECORD_SHIFT) + AT_BYTES]]] += SAMPLED_BURSTS;
}
