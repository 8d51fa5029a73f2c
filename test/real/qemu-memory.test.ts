/**
 * Memory that is plugged into running guests: QEMU shares each DIMM by a message of its own (ADD_MEM_REG), and frames
 * go on meanwhile.
 */
import { describe, expect, onTestFinished, test } from 'vitest';
import { LinuxGuest, peersForTests, vhostUserArgs } from '../peers/index.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['qemu']);
const MEMORY_MIB = 192;
const DIMM_MIB = 32;
const DIMMS = 10;
const PINGS = 600;
const PING_INTERVAL_MS = 5;
const NAMES = ['a', 'b'] as const;

describe.skipIf(peers.skip)(peers.title('two QEMU guests'), () => {
  test('lose no frame while ten DIMMs are plugged in', async () => {
    const ringway = await RingwayProcess.start({ ports: NAMES });
    const guests: LinuxGuest[] = [];
    onTestFinished(async () => {
      await Promise.all(guests.map((guest) => guest.stop()));
      expect(await ringway.stop()).toBe(0);
    });
    guests.push(...(await Promise.all(NAMES.map((name, i) => boot(ringway, name, i + 1)))));
    const [a, b] = guests;
    expect((await a.ping('10.0.0.2')).received).toBe(5);
    const memoryBytes = async (): Promise<number> =>
      ((await ringway.port('b')).details as { memoryBytes: number }).memoryBytes;
    const before = await memoryBytes();
    const dropsBefore = (await ringway.ports()).map(({ drops }) => drops);

    let isPlugging = true;
    const plugged = plugAll(b).finally(() => {
      isPlugging = false;
    });
    plugged.catch(() => {});
    const pings = { count: PINGS, intervalMs: PING_INTERVAL_MS };
    // Plugging may take longer than any number of pings.
    while (isPlugging) expect(await a.ping('10.0.0.2', pings)).toEqual({ sent: PINGS, received: PINGS });
    await plugged;
    expect(await memoryBytes()).toBe(before + DIMMS * DIMM_MIB * 2 ** 20);
    expect((await ringway.ports()).map(({ drops }) => drops)).toEqual(dropsBefore);
  });
});

async function plugAll(guest: LinuxGuest): Promise<void> {
  for (let i = 0; i < DIMMS; i++) await plug(guest, i);
}

/** Resolves when QEMU has shared it. */
async function plug(guest: LinuxGuest, index: number): Promise<void> {
  const sizeBytes = DIMM_MIB * 2 ** 20;
  const backend = { 'qom-type': 'memory-backend-memfd', id: `more${index}`, size: sizeBytes, share: true };
  await guest.qmp('object-add', backend);
  await guest.qmp('device_add', { driver: 'pc-dimm', id: `dimm${index}`, memdev: `more${index}` });
}

/** A guest on port `name`, with address 10.0.0.`number` and room for more memory. */
async function boot(ringway: RingwayProcess, name: string, number: number): Promise<LinuxGuest> {
  const card = vhostUserArgs({
    socketPath: ringway.socket(name),
    mac: `52:54:00:00:00:0${number}`,
    queuePairs: 1,
    memoryMiB: MEMORY_MIB,
  });
  const guest = await LinuxGuest.start({
    name,
    qemuArgs: card.map((argument) =>
      argument === `${MEMORY_MIB}` ? `${MEMORY_MIB},slots=${DIMMS},maxmem=2G` : argument,
    ),
  });
  await guest.configureNetwork(`10.0.0.${number}/24`);
  return guest;
}
