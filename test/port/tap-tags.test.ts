/** VLAN tags that a TAP port's frames get on their way out, and what their headers then say: written to a file instead. */
import { readFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { closeFd } from '../../src/host/descriptor.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { allocateScratch } from '../../src/memory/scratch.ts';
import { WINDOW_BYTES } from '../../src/memory/window.ts';
import { TapEgress } from '../../src/port/tap/queues.ts';
import { AS_THEY_CAME, Batch } from '../../src/queue/batch.ts';
import { TAG_BYTES, TPID_8021AD, TPID_8021Q, tagOf } from '../../src/queue/frame-tags.ts';
import { readHeads } from '../../src/queue/heads.ts';
import { queueStates } from '../../src/queue/state.ts';

const HEADER_BYTES = 12;
const SLOT_BYTES = 4096;
const SLOTS = 4;
const CSUM_START = 34;
const CSUM_OFFSET = 16;

const arena = Arena.reserve(2 ** 32);
const view = new ArenaView(arena.location);
const slots = allocateScratch(arena, { name: 'slots', sizeBytes: SLOTS * SLOT_BYTES });
const source = allocateScratch(arena, { name: 'frames', sizeBytes: SLOT_BYTES });

afterAll(() => {
  slots.release();
  source.release();
});

const frameOf = (sizeBytes: number): Uint8Array =>
  Uint8Array.from({ length: sizeBytes }, (_, i) => (i === 12 ? 0x88 : i === 13 ? 0xb5 : (i * 7) & 0xff));

/** What is written for a frame that gets `tags`, and asks for a checksum if `asks`. */
function written(frame: Uint8Array, tags: readonly number[], asks: boolean): Uint8Array {
  const fd = createMemoryFile('tap', 0);
  try {
    const queue = new TapEgress(
      view,
      {
        kind: 'tap',
        portId: 1,
        queueIndex: 0,
        direction: 'egress',
        states: queueStates(2),
        headerBytes: HEADER_BYTES,
        slots: { offset: slots.offset, address: slots.address, slotBytes: SLOT_BYTES, slotCount: SLOTS },
        fd,
      },
      false,
    );
    const batch = new Batch();
    const offset = source.offset + 64;
    view.u8.set(frame, offset);
    batch.clear();
    batch.add(Math.floor(offset / WINDOW_BYTES), offset % WINDOW_BYTES, frame.length);
    readHeads(batch, view.windows);
    if (asks) {
      batch.beginAsking();
      batch.requests.askChecksum(0, CSUM_START, CSUM_OFFSET);
    }
    [batch.tags.push0 = 0, batch.tags.push1 = 0] = tags;
    batch.makeRoomForAll(tags.length * TAG_BYTES);
    queue.begin();
    queue.place(batch, AS_THEY_CAME, 1);
    queue.end();
    expect(batch.refusedCount).toBe(0);
    return new Uint8Array(readFileSync(`/proc/self/fd/${fd}`));
  } finally {
    closeFd(fd);
  }
}

describe.each([15, 60, 203, 1514])('a frame of %i bytes to a TAP port', (sizeBytes) => {
  const frame = frameOf(sizeBytes);

  it.each<[string, readonly number[], readonly number[]]>([
    ['no tag', [], []],
    ['a tag', [tagOf(TPID_8021Q, 0xa0 << 16, 10)], [0x81, 0, 0xa0, 10]],
    [
      'two tags',
      [tagOf(TPID_8021AD, 0, 0x123), tagOf(TPID_8021Q, 0, 5)],
      [0x88, 0xa8, 1, 0x23, 0x81, 0, 0, 5],
    ],
  ])('gets %s, behind which its checksum lies', (_, tags, bytes) => {
    const out = [...frame.subarray(0, 12), ...bytes, ...frame.subarray(12)];
    expect([...written(frame, tags, false)]).toEqual([...new Uint8Array(HEADER_BYTES), ...out]);
    const header = [1, 0, 0, 0, 0, 0, CSUM_START + bytes.length, 0, CSUM_OFFSET, 0, 0, 0];
    expect([...written(frame, tags, true)]).toEqual([...header, ...out]);
  });
});
