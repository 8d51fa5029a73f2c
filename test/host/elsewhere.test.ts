/** Unmapping, which this thread does not wait for, nor for those whose files do not close. */
import { expect, it, vi } from 'vitest';
import { closeElsewhere, closingElsewhere } from '../../src/host/closing.ts';
import { isBusyElsewhere, mapZeroPagesElsewhere } from '../../src/host/elsewhere.ts';
import { reserveAddressSpace, viewMemory } from '../../src/host/mapping.ts';
import { LingeringPeers } from './lingering.ts';

const PAGES_BYTES = 2 ** 16;

it('unmaps one after the other, while closes hang', async () => {
  const peers = await LingeringPeers.listen();
  const fds = [await peers.connect(), await peers.connect(), await peers.connect()];
  for (const fd of fds) closeElsewhere(fd, {});
  const addresses = [reserveAddressSpace(PAGES_BYTES), reserveAddressSpace(PAGES_BYTES)];
  const bytes = addresses.map((address) => new Uint8Array(viewMemory(address, PAGES_BYTES)).fill(7));
  const order: number[] = [];
  await new Promise<void>((resolve) => {
    for (const address of addresses)
      mapZeroPagesElsewhere(address, PAGES_BYTES, () => {
        order.push(address);
        if (order.length === addresses.length) resolve();
      });
  });
  expect(order).toEqual(addresses);
  expect(bytes.map(([first]) => first)).toEqual([0, 0]);
  expect(closingElsewhere()).toEqual(fds);
  expect(isBusyElsewhere()).toBe(true);
  await peers.close();
  await vi.waitUntil(() => !isBusyElsewhere());
});
