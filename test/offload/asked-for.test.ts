/** What a queue's bursts ask for: of each frame by its own header, wherever that lies, burst after burst. */
import { beforeEach, describe, expect, it } from 'vitest';
import { NET_HEADER_BYTES, type NetHeader, netHeaderWords } from '../../protocol/virtio/net.ts';
import { AskedFor } from '../../src/offload/asked-for.ts';
import { REQUEST_BAD_CHECKSUM } from '../../src/offload/request.ts';
import { Batch } from '../../src/queue/batch.ts';
import { sharedArenaView, slotPlace, writeAt } from '../vring/scratch.ts';
import { ALL_OFFLOADS } from './offload-world.ts';
import { ASKS_NOTHING } from './random-requests.ts';

const FRAME_BYTES = 100;
const checksumAt = (csumStart: number): NetHeader => ({
  ...ASKS_NOTHING,
  flags: 1,
  csumStart,
  csumOffset: 6,
});

let askedFor: AskedFor;
let batch: Batch;
beforeEach(() => {
  askedFor = new AskedFor(sharedArenaView, NET_HEADER_BYTES, ALL_OFFLOADS);
  batch = new Batch();
});

/** A burst of frames in slots, each behind its header. Answers where each asks its checksum to begin; 0: nowhere. */
function burst(headers: readonly NetHeader[]): number[] {
  batch.clear();
  for (const [slot, header] of headers.entries()) {
    const { window, index } = slotPlace(0, slot + 1, 52);
    const words = Int32Array.from(netHeaderWords(header, 0));
    writeAt({ window, index: index - NET_HEADER_BYTES }, new Uint8Array(words.buffer));
    batch.add(window, index, FRAME_BYTES);
  }
  askedFor.take(batch);
  return Array.from({ length: batch.count }, (_, frame) =>
    batch.needsOf(frame) === 0 ? 0 : batch.requests.csumStartOf(frame),
  );
}

describe('frames in slots', () => {
  it('ask by the header of this burst, not of one before', () => {
    expect(burst([checksumAt(20), ASKS_NOTHING])).toEqual([20, 0]);
    expect(burst([checksumAt(34), checksumAt(40)])).toEqual([34, 40]);
    expect(burst([ASKS_NOTHING, ASKS_NOTHING, checksumAt(50)])).toEqual([0, 0, 50]);
    expect(burst([ASKS_NOTHING])).toEqual([0]);
  });

  it('that ask for what cannot be are taken out, and the others keep what they ask for', () => {
    expect(burst([checksumAt(20), checksumAt(99), ASKS_NOTHING, checksumAt(98), checksumAt(30)])).toEqual([
      20, 0, 30,
    ]);
    expect(batch.badRequests[REQUEST_BAD_CHECKSUM]).toBe(2);
  });
});

describe('a header that says the checksum is right', () => {
  const valid: NetHeader = { ...ASKS_NOTHING, flags: 2 };

  it('is believed of the kernel', () => {
    askedFor = new AskedFor(sharedArenaView, NET_HEADER_BYTES, ALL_OFFLOADS, true);
    expect(burst([ASKS_NOTHING, valid, checksumAt(20), { ...checksumAt(30), flags: 3 }])).toEqual([
      0, 0, 20, 30,
    ]);
    expect([0, 1, 2, 3].map((frame) => batch.requests.isValid(frame))).toEqual([false, true, false, false]);
    expect(burst([valid, checksumAt(99), valid, ASKS_NOTHING])).toEqual([0, 0, 0]);
    expect([0, 1, 2].map((frame) => batch.requests.isValid(frame))).toEqual([true, true, false]);
    expect(burst([ASKS_NOTHING])).toEqual([0]);
    expect(batch.asks).toBe(false);
  });

  it('is not believed of a guest', () => {
    expect(burst([valid])).toEqual([0]);
    expect(batch.asks).toBe(false);
  });
});

describe('headers that are read with a chain', () => {
  it('count for their frame, in parts as well, and are forgotten when the chain comes to nothing', () => {
    const { window, index } = slotPlace(0, 8, 52);
    const words = new Uint8Array(Int32Array.from(netHeaderWords(checksumAt(60), 0)).buffer);
    writeAt({ window, index }, words);
    batch.clear();
    askedFor.read(0, window, index, 5);
    askedFor.forget(0);
    askedFor.read(0, window, index, 7);
    askedFor.read(0, window, index + 7, 5);
    const place = slotPlace(0, 9, 52);
    batch.add(place.window, place.index, FRAME_BYTES);
    askedFor.take(batch);
    expect(batch.requests.csumStartOf(0)).toBe(60);
    expect(burst([ASKS_NOTHING])).toEqual([0]);
  });
});
