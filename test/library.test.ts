/** What the package's entrances export is enough to use it: a frame from one ring to another, without the switch. */
import { afterEach, expect, it } from 'vitest';
import * as ringway from '../src/index.ts';
import { DriverEnd, plainPlan, RingwayEnd } from './vring/ring-worlds.ts';
import { sharedArenaView } from './vring/scratch.ts';

const FRAME = Uint8Array.from({ length: 60 }, (_, i) => i + 1);

const driver = new DriverEnd(plainPlan('split'));
const device = new RingwayEnd(driver, plainPlan('split'));

afterEach(() => {
  device.close();
  driver.memory.close();
});

it('forwards a frame by what ringway exports', () => {
  const { from, to }: { from: ringway.FromGuest; to: ringway.ToGuest } = device;
  driver.toGuest.fill();
  driver.fromGuest.send(FRAME);
  const batch = new ringway.Batch();
  expect(from.gather(batch)).toBe(1);
  ringway.readHeads(batch, sharedArenaView.windows);
  to.begin();
  to.place(batch, ringway.AS_THEY_CAME, batch.count);
  to.end();
  from.finish();
  expect(driver.toGuest.receive()).toEqual(FRAME);
});
