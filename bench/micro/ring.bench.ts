/**
 * Taking frames from a split ring and giving them to another (src/vring), copy included, against the naive
 * twin of the tests. The driver's part is two stores a burst: its descriptors and avail entries stay as they
 * are, and only the avail index moves.
 */
import { TAKE_FRAME } from '../../src/queue/contract.ts';
import {
  DriverEnd,
  naiveRing,
  PLAIN_PLAN,
  type RingPlan,
  RingwayEnd,
  splitLayout,
} from '../../test/vring/ring-worlds.ts';
import { measurePieces, type Piece } from './pieces.ts';

const BURST = 32;
const AVAIL_IDX = 1;
const PLAN: RingPlan = { ...PLAIN_PLAN, size: 256, memory: 4 * 2 ** 20 };

/** A driver with every buffer offered once; `offer` makes the device see a burst more on both rings. */
function makeDriver(frameBytes: number): { driver: DriverEnd; offer: () => void } {
  const driver = new DriverEnd(PLAN);
  for (let i = 0; i < PLAN.size; i++) driver.fromGuest.post(new Uint8Array(frameBytes));
  driver.toGuest.fill();
  const rings = [driver.fromGuest, driver.toGuest].map(({ ring }) => splitLayout(ring));
  let index = 0;
  for (const ring of rings) ring.avail[AVAIL_IDX] = 0;
  const offer = (): void => {
    index = (index + BURST) & 0xffff;
    for (const ring of rings) Atomics.store(ring.avail, AVAIL_IDX, index);
  };
  return { driver, offer };
}

function ringwayWay(frameBytes: number): () => void {
  const { driver, offer } = makeDriver(frameBytes);
  const { from, to, frame } = new RingwayEnd(driver, PLAN);
  return () => {
    offer();
    to.begin();
    for (let waiting = from.available(); waiting > 0; waiting--) {
      if (from.take(frame) !== TAKE_FRAME) throw new Error('no frame');
      to.give(frame);
      from.release();
    }
    to.end();
    from.publish();
  };
}

function naiveWay(frameBytes: number): () => void {
  const { driver, offer } = makeDriver(frameBytes);
  const from = naiveRing(driver.fromGuest.ring, PLAN);
  const to = naiveRing(driver.toGuest.ring, PLAN);
  return () => {
    offer();
    for (let left = BURST; left > 0; left--) to.give(from.take());
    to.publish();
    from.publish();
  };
}

function piece(frameBytes: number): Piece {
  return {
    title: `take and give, ${frameBytes} bytes`,
    operations: BURST,
    ways: { 'split rings': ringwayWay(frameBytes), 'naive twin': naiveWay(frameBytes) },
  };
}

await measurePieces([piece(64), piece(1518)]);
