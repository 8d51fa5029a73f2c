/** Frames that are left out of a batch: the others stay as they were, in order, and each that is left out is counted. */
import { describe, expect, it } from 'vitest';
import { Batch, IN_PIECES } from '../../../src/queue/batch.ts';
import { KEPT, leaveOut } from '../../../switch/l2/checks.ts';
import { DROP } from '../../../switch/l2/drop-reasons.ts';
import { ForwardingPort } from '../../../switch/l2/forwarding-port.ts';
import { PORT_COUNTS } from '../../../switch/l2/port-counts.ts';

const FRAMES = 6;

/** Frames of 64, 65, … bytes at 1,024, 2,048, …, whose first addresses' words are their numbers, or all 7. */
function batchOf(alike: boolean, ofMany = -1): Batch {
  const batch = new Batch();
  batch.clear();
  for (let frame = 0; frame < FRAMES; frame++) {
    if (frame === ofMany) {
      batch.beginPieces();
      batch.addPiece(0, 1024 * (frame + 1), 20);
      batch.addPiece(0, 1024 * (frame + 1) + 512, 44 + frame);
      batch.addPieces(64 + frame);
    } else batch.add(0, 1024 * (frame + 1), 64 + frame);
    batch.records[frame * 8 + 2] = alike ? (frame === 0 ? 7 : -1) : frame;
    batch.records[frame * 8 + 7] = alike ? (frame === 0 ? 8 : -1) : 100 + frame;
  }
  batch.alike = alike;
  batch.alikeBehind = alike;
  return batch;
}

function leave(batch: Batch, verdictOf: Readonly<Record<number, number>>) {
  const verdicts = new Int32Array(64);
  for (const [frame, reason] of Object.entries(verdictOf)) verdicts[Number(frame)] = reason + 1;
  const sender = new ForwardingPort(0, new Float64Array(PORT_COUNTS));
  const areLeft = leaveOut(batch, verdicts, sender);
  expect([...verdicts].every((verdict) => verdict === KEPT)).toBe(true);
  return { areLeft, counts: sender.counts };
}

const bytesOf = (batch: Batch): number[] =>
  Array.from({ length: batch.count }, (_, frame) => batch.bytesOf(frame));

describe('frames that are left out', () => {
  it.each([false, true])('leave the others as they were (all alike: %s)', (alike) => {
    const batch = batchOf(alike);
    const { areLeft, counts } = leave(batch, { 0: DROP.tooLong, 3: DROP.receiveOff, 5: DROP.receiveOff });
    expect(areLeft).toBe(true);
    expect(bytesOf(batch)).toEqual([65, 66, 68]);
    expect([0, 1, 2].map((frame) => batch.indexOf(frame))).toEqual([2048, 3072, 5120]);
    expect([0, 1, 2].map((frame) => batch.headWordOf(frame, 0))).toEqual(alike ? [7, 7, 7] : [1, 2, 4]);
    expect([0, 1, 2].map((frame) => batch.word3Of(frame))).toEqual(alike ? [8, 8, 8] : [101, 102, 104]);
    expect([batch.alike, batch.alikeBehind, batch.allIn]).toEqual([alike, alike, 0]);
    expect([counts[DROP.tooLong], counts[DROP.receiveOff]]).toEqual([1, 2]);
  });

  it('may be all', () => {
    const batch = batchOf(false);
    const verdicts = Object.fromEntries(
      Array.from({ length: FRAMES }, (_, frame) => [frame, DROP.noReceiver]),
    );
    const { areLeft, counts } = leave(batch, verdicts);
    expect([areLeft, batch.count, counts[DROP.noReceiver]]).toEqual([false, 0, FRAMES]);
  });

  it('leave the tags, pieces and requests of the others', () => {
    const batch = batchOf(false, 4);
    batch.beginAsking();
    batch.tags.isUniform = false;
    for (let frame = 0; frame < FRAMES; frame++) batch.tags.outers[frame] = 1000 + frame;
    leave(batch, { 1: DROP.tooLong, 2: DROP.tooLong });
    expect([...batch.tags.outers.subarray(0, 4)]).toEqual([1000, 1003, 1004, 1005]);
    expect(batch.windowOf(2)).toBe(IN_PIECES);
    expect([batch.pieceCountOf(2), batch.bytesOf(2)]).toEqual([2, 68]);
  });
});
