/**
 * QEMU's real vhost-user front-end with drivers that the test plays: what real guests do seldom or never, again and
 * again, with frames that are numbered. Whatever happens, nothing is lost without a name, and Ringway holds as many
 * descriptors afterwards as before.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bitNames, maskOf } from '../../protocol/bits.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import type { VhostUserDetails } from '../../src/port/vhost-user/port.ts';
import { peersForTests } from '../peers/index.ts';
import {
  NET_DRIVER_FEATURES,
  type NetDriver,
  type NetDriverChoice,
  type NicOptions,
  QtestGuest,
} from '../peers/qtest/index.ts';
import { NumberedTraffic } from './numbered-traffic.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['qemu']);
const NAMES = ['a', 'b'] as const;
type Name = (typeof NAMES)[number];

const F = VIRTIO_FEATURE;
const without = (...bits: number[]): bigint => NET_DRIVER_FEATURES & ~maskOf(...bits);
/** What a driver may take after a reset: other drivers, other kernels, firmware before them. */
const FEATURE_SETS: readonly { readonly title: string; readonly features: bigint }[] = [
  { title: 'all', features: NET_DRIVER_FEATURES },
  { title: 'no merged buffers', features: without(F.NET_MRG_RXBUF) },
  { title: 'no event indices', features: without(F.EVENT_IDX) },
  { title: 'no indirect tables', features: without(F.INDIRECT_DESC) },
  { title: 'VERSION_1 alone', features: maskOf(F.VERSION_1) },
];

const SETUPS = (['split', 'packed'] as const).flatMap((layout) =>
  [1, 3].map((queuePairs) => ({
    layout,
    queuePairs,
    title: `${layout}, ${queuePairs} queue pair${queuePairs > 1 ? 's' : ''}`,
  })),
);

describe.skipIf(peers.skip).each(SETUPS)(peers.title('two guests in qtest mode: $title'), (setup) => {
  const { layout, queuePairs } = setup;
  let ringway: RingwayProcess;
  let guests: Record<Name, QtestGuest>;

  beforeAll(async () => {
    ringway = await RingwayProcess.start({ ports: NAMES });
    const [a, b] = await Promise.all(NAMES.map((name) => start(ringway, name, queuePairs)));
    guests = { a, b };
  });

  afterAll(async () => {
    for (const guest of Object.values(guests ?? {})) await guest.close();
    expect(await ringway?.stop()).toBe(0);
  });

  /** Both drivers, their devices in use. */
  async function running(choice: NetDriverChoice = {}): Promise<Record<Name, NetDriver>> {
    const drivers = { a: guests.a.nic('nic'), b: guests.b.nic('nic') };
    for (const driver of Object.values(drivers)) await driver.initialise({ layout, ...choice });
    for (const name of NAMES) await ringway.untilState(name, 'running', drivers[name].pairs.length);
    return drivers;
  }

  test('agree on what is offered, and the back-end is told so', async () => {
    for (const { features } of FEATURE_SETS) {
      const drivers = await running({ features });
      for (const name of NAMES) {
        const driver = drivers[name];
        expect(driver.layout).toBe(layout);
        const told = ((await ringway.port(name)).details as VhostUserDetails).features;
        const agreed = bitNames(driver.features & ~KNOWN_TO_QEMU_ALONE, VIRTIO_FEATURE);
        expect(told.filter((feature) => !ADDED_BY_QEMU.includes(feature))).toEqual(agreed);
        expect(await driver.isLinkUp()).toBe(true);
      }
    }
  });

  test('exchange frames, each once, in order and unchanged', async () => {
    const { a, b } = await running();
    const traffic = new NumberedTraffic([a, b]);
    await traffic.exchange(3000);
    expect(traffic.tally).toEqual(perfect(2 * queuePairs * 3000));
    await expectSameMemory(guests.b, b);
  });
});

/** QEMU answers these by itself. */
const KNOWN_TO_QEMU_ALONE = maskOf(F.NET_MAC, F.NET_STATUS, F.NET_CTRL_VQ);
const ADDED_BY_QEMU: readonly string[] = ['PROTOCOL_FEATURES'];

const perfect = (frames: number) => ({
  sent: frames,
  received: frames,
  lost: 0,
  doubled: 0,
  disordered: 0,
  damaged: 0,
  underWay: 0,
});

/** QEMU sees the same bytes in the guest's memory as this process: a whole ring and its buffers. */
async function expectSameMemory(guest: QtestGuest, driver: NetDriver): Promise<void> {
  const { startOffset } = driver.memory;
  const sizeBytes = 2 ** 20;
  const seen = await guest.qtest.read(driver.memory.gpaOf(startOffset), sizeBytes);
  expect(Buffer.compare(seen, driver.memory.u8.subarray(startOffset, startOffset + sizeBytes))).toBe(0);
}

function nicOf(ringway: RingwayProcess, port: string, number: number, queuePairs: number): NicOptions {
  return {
    id: 'nic',
    slot: 4,
    socketPath: ringway.socket(port),
    mac: `52:54:00:00:00:0${number}`,
    queuePairs,
  };
}

function start(ringway: RingwayProcess, name: Name, queuePairs: number): Promise<QtestGuest> {
  return QtestGuest.start({ name, nics: [nicOf(ringway, name, NAMES.indexOf(name) + 1, queuePairs)] });
}
