/**
 * Taking bursts from a ring and placing them in another (src/vring), copy included, in both layouts, against the
 * naive twins of the tests. The driver's part is small: buffers and ids stay as they are, and a burst more of them
 * is offered.
 */
import { DESC_F_AVAIL, DESC_F_USED } from '../../protocol/virtio/packed-ring.ts';
import type { PackedDriverLayout } from '../../src/frontend/packed-layout.ts';
import { AS_THEY_CAME } from '../../src/queue/batch.ts';
import { readHeads } from '../../src/queue/heads.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import {
  DriverEnd,
  LAYOUT_KINDS,
  naiveRing,
  plainPlan,
  type RingPlan,
  RingwayEnd,
  splitLayout,
} from '../../test/vring/ring-worlds.ts';
import { sharedArenaView } from '../../test/vring/scratch.ts';
import { measurePieces, type Piece } from './pieces.ts';

const BURST = 32;
const AVAIL_IDX = 1;

const planOf = (layout: RingLayoutKind): RingPlan => ({
  ...plainPlan(layout),
  size: 256,
  memory: 4 * 2 ** 20,
});

/** Makes a device see a burst more on all rings, in which every buffer was offered once. */
type Offer = () => void;

const OFFERS: Readonly<Record<RingLayoutKind, (driver: DriverEnd) => Offer>> = {
  split: (driver) => {
    const rings = [driver.fromGuest, driver.toGuest].map(({ ring }) => splitLayout(ring));
    let index = 0;
    for (const { avail } of rings) avail[AVAIL_IDX] = 0;
    return () => {
      index = (index + BURST) & 0xffff;
      for (const { avail } of rings) Atomics.store(avail, AVAIL_IDX, index);
    };
  },
  packed: (driver) => {
    const rings = [driver.fromGuest, driver.toGuest].map(({ ring }) => {
      const { desc } = ring.layout as PackedDriverLayout;
      return { desc, offered: desc.slice() };
    });
    const size = rings[0].offered.length / 4;
    // The driver offered the first round; from then on what was used is offered again, marked for the next round.
    let at = 0;
    let ownerBits = DESC_F_AVAIL << 16;
    for (const { desc } of rings) for (let i = 0; i < size; i++) desc[4 * i + 3] = 0;
    return () => {
      for (let left = BURST; left > 0; left--) {
        for (const { desc, offered } of rings) {
          desc[4 * at + 2] = offered[4 * at + 2];
          desc[4 * at + 3] = (offered[4 * at + 3] & ~(DESC_F_AVAIL << 16)) | ownerBits;
        }
        at++;
        if (at < size) continue;
        at = 0;
        ownerBits ^= (DESC_F_AVAIL | DESC_F_USED) << 16;
      }
    };
  },
};

function makeDriver(layout: RingLayoutKind, frameBytes: number): { driver: DriverEnd; offer: Offer } {
  const driver = new DriverEnd(planOf(layout));
  while (driver.fromGuest.post(new Uint8Array(frameBytes)));
  driver.fromGuest.flush();
  driver.toGuest.fill();
  return { driver, offer: OFFERS[layout](driver) };
}

function ringwayWay(layout: RingLayoutKind, frameBytes: number): () => void {
  const { driver, offer } = makeDriver(layout, frameBytes);
  const { from, to, batch } = new RingwayEnd(driver, planOf(layout));
  return () => {
    offer();
    if (from.gather(batch) !== BURST || batch.count !== BURST) throw new Error('not all frames came');
    readHeads(batch, sharedArenaView.windows);
    to.begin();
    to.place(batch, AS_THEY_CAME, BURST);
    to.end();
    from.finish();
    if (batch.refusedCount !== 0) throw new Error('not all frames were placed');
  };
}

function naiveWay(layout: RingLayoutKind, frameBytes: number): () => void {
  const { driver, offer } = makeDriver(layout, frameBytes);
  const from = naiveRing(driver.fromGuest.ring, planOf(layout));
  const to = naiveRing(driver.toGuest.ring, planOf(layout));
  return () => {
    offer();
    for (let left = BURST; left > 0; left--) to.give(from.take());
    to.publish();
    from.publish();
  };
}

function piece(layout: RingLayoutKind, frameBytes: number): Piece {
  return {
    title: `gather and place, ${layout} rings, ${frameBytes} bytes`,
    operations: BURST,
    ways: { Ringway: ringwayWay(layout, frameBytes), 'naive twin': naiveWay(layout, frameBytes) },
  };
}

await measurePieces(LAYOUT_KINDS.flatMap((layout) => [piece(layout, 64), piece(layout, 1518)]));
