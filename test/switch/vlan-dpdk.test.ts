/**
 * VLAN tags pushed and popped at a `dpdk` port of a whole switch: its device is a ring, from which comes back in what went
 * out. The port carries one VLAN and nothing without a tag, so a frame comes back to its sender only if it got that tag.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EmbeddedGuest } from '../../src/frontend/index.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { settingsOf } from '../../switch/cli/options.ts';
import { resolveConfig } from '../../switch/config/resolve.ts';
import { createLogger } from '../../switch/log.ts';
import { Switch } from '../../switch/switch.ts';
import { whyNoDpdk } from '../dpdk/dpdk-here.ts';

const why = whyNoDpdk();

describe.skipIf(why !== null)(`VLANs at a dpdk port (${why ?? 'DPDK is here'})`, () => {
  let folder: string;
  let running: Switch;
  let guest: EmbeddedGuest;

  beforeAll(async () => {
    descriptorLoop();
    folder = mkdtempSync(join(tmpdir(), 'ringway-vlan-dpdk-'));
    const socketPath = join(folder, 'guest.sock');
    const port = [`guest=${socketPath},tag=10`, 'up=dpdk:net_ring0,eal=--no-huge,trunks=10'];
    running = await Switch.start(
      resolveConfig([settingsOf({ port, control: 'none' })]),
      createLogger('silent'),
    );
    guest = await EmbeddedGuest.connect({ socketPath, waitMs: 10_000 });
  });

  afterAll(async () => {
    guest.close();
    await running.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  it.each([60, 203, 1514])('of %i bytes', async (sizeBytes) => {
    const frame = Uint8Array.from({ length: sizeBytes }, (_, i) => (i * 7) & 0xff);
    frame.set([255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    const before = running.port('up')!.counters.egressBytes;
    guest.send(frame);
    expect(await guest.received()).toEqual(frame);
    const { counters, drops } = running.port('up')!;
    expect(counters.egressBytes - before).toBe(sizeBytes + 4);
    expect(drops.vlanNotAllowed).toBe(0);
  });

  it('and nothing comes back of another VLAN', async () => {
    await running.changePort('up', { trunks: '11' });
    const frame = new Uint8Array(60).fill(3);
    frame.set([255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    guest.send(frame);
    await expect.poll(() => running.port('guest')?.drops.noReceiver).toBe(1);
  });
});
