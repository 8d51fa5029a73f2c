/**
 * QEMU's real vhost-user front-end with drivers that the test plays: what real guests do seldom or never, again and
 * again, with frames that are numbered. Whatever happens, nothing is lost without a name, and Ringway holds as many
 * descriptors afterwards as before.
 */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { bitNames, maskOf } from '../../protocol/bits.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import { NET_HDR_F, NET_HDR_GSO } from '../../protocol/virtio/net.ts';
import type { MemoryPart } from '../../src/frontend/guest-memory.ts';
import type { VhostUserDetails } from '../../src/port/vhost-user/port.ts';
import type { PortReport } from '../../switch/control/report.ts';
import { peersForTests } from '../peers/index.ts';
import {
  type Dimm,
  NET_DRIVER_FEATURES,
  type NetDriver,
  type NetDriverChoice,
  type NicOptions,
  QtestGuest,
  VirtioBalloon,
  VirtioMem,
} from '../peers/qtest/index.ts';
import { type Losses, LossLedger } from './loss-ledger.ts';
import { NumberedTraffic } from './numbered-traffic.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['qemu']);
/** How often something is done; with RINGWAY_SEARCH 200 times. */
const times = (count: number): number => (process.env.RINGWAY_SEARCH === undefined ? count : 200);
const DIMM_SLOTS = 3;
const DIMM_MIB = 128;
const ROLES = [{ role: 'server' }, { role: 'client' }] as const;
const NAMES = ['a', 'b'] as const;
type Name = (typeof NAMES)[number];

const F = VIRTIO_FEATURE;
const OFFLOADS = maskOf(
  ...[F.NET_CSUM, F.NET_HOST_TSO4, F.NET_HOST_TSO6, F.NET_HOST_ECN],
  ...[F.NET_GUEST_CSUM, F.NET_GUEST_TSO4, F.NET_GUEST_TSO6, F.NET_GUEST_ECN],
);
/** Why frames are dropped whose receiver has no ring for them, or does not look at it. */
const RECEIVER_AWAY = ['notReady', 'noBuffer', 'noReceiver'];
const without = (...bits: number[]): bigint => NET_DRIVER_FEATURES & ~maskOf(...bits);
/** What a driver may take after a reset: other drivers, other kernels, firmware before them. */
const FEATURE_SETS: readonly bigint[] = [
  NET_DRIVER_FEATURES,
  without(F.NET_MRG_RXBUF),
  without(F.EVENT_IDX),
  without(F.INDIRECT_DESC),
  maskOf(F.VERSION_1),
];
const RING_SIZES = [256, 16, 64];

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
    ringway = await RingwayProcess.start({ ports: [...NAMES, 'c'] });
    const [a, b] = await Promise.all(NAMES.map((name) => start(ringway, name, queuePairs)));
    guests = { a, b };
    // The first packed ring of all opens the file of ring positions, and that descriptor stays.
    await a.nic('nic').initialise({ layout: 'packed' });
    await ringway.untilState('a', 'running', queuePairs);
  });

  afterAll(async () => {
    for (const name of NAMES) expect((await ringway?.port(name))?.reason).toBeNull();
    for (const guest of Object.values(guests ?? {})) await guest.close();
    expect(await ringway?.stop()).toBe(0);
  });

  /** Both drivers, their devices in use, and the switch knows where they are: nothing is flooded any more. */
  async function running(choice: NetDriverChoice = {}): Promise<Record<Name, NetDriver>> {
    const drivers = { a: guests.a.nic('nic'), b: guests.b.nic('nic') };
    for (const driver of Object.values(drivers)) await driver.initialise({ layout, ...choice });
    for (const name of NAMES) await ringway.untilState(name, 'running', drivers[name].pairs.length);
    await new NumberedTraffic([drivers.a, drivers.b]).exchange(1);
    return drivers;
  }

  test('agree on what is offered, and the back-end is told so', async () => {
    for (const features of FEATURE_SETS) {
      const drivers = await running({ features });
      for (const name of NAMES) {
        const driver = drivers[name];
        expect(driver.layout).toBe(layout);
        const details = (await ringway.port(name)).details as VhostUserDetails;
        const told = details.features;
        // QEMU reads, modifies and writes the status at each start.
        expect(details.protocolFeatures).toEqual(expect.arrayContaining(['RESET_DEVICE', 'STATUS']));
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

  test('are reset and come back with other features and the other layout, again and again', async () => {
    const drivers = await running();
    const descriptors = await ringway.quietDescriptors();
    const drops = await allDrops(ringway);
    for (let i = 0; i < times(50); i++) {
      const driver = drivers[NAMES[i % 2]];
      const features = FEATURE_SETS[i % FEATURE_SETS.length];
      const ringSize = RING_SIZES[i % RING_SIZES.length];
      await driver.initialise({ features, ringSize, layout: i % 4 === 0 ? OTHER[layout] : layout });
      await ringway.untilState(NAMES[i % 2], 'running', driver.pairs.length);
      const traffic = new NumberedTraffic([drivers.a, drivers.b], { window: 2 });
      await traffic.exchange(20);
      expect(traffic.tally).toEqual(perfect(traffic.tally.sent));
    }
    expect(await allDrops(ringway)).toEqual(drops);
    await running();
    await ringway.untilDescriptors(descriptors);
  });

  test('are reset while the other sends: no frame is lost without a name', async () => {
    const drivers = await running();
    const descriptors = await ringway.quietDescriptors();
    const traffic = new NumberedTraffic([drivers.a, drivers.b]);
    const ledger = await LossLedger.open(ringway, traffic, drivers);
    for (let i = 0; i < times(10); i++) {
      const name = NAMES[i % 2];
      await traffic.during(drivers[name].initialise({ layout }));
      await ringway.untilState(name, 'running', queuePairs);
      expectDrops(await ledger.close(queuePairs > 1), RECEIVER_AWAY);
      await traffic.exchange(20);
    }
    await ringway.untilDescriptors(descriptors);
  });

  test('go on after each reset of their machines', async () => {
    const drivers = await running();
    const descriptors = await ringway.quietDescriptors();
    const drops = await allDrops(ringway);
    for (let i = 0; i < times(10); i++) {
      const name = NAMES[i % 2];
      await guests[name].systemReset();
      await drivers[name].initialise({ layout });
      await ringway.untilState(name, 'running', queuePairs);
      const traffic = new NumberedTraffic([drivers.a, drivers.b]);
      await traffic.exchange(20);
      expect(traffic.tally).toEqual(perfect(traffic.tally.sent));
    }
    expect(await allDrops(ringway)).toEqual(drops);
    await ringway.untilDescriptors(descriptors);
  });

  test('are stopped and go on under traffic: only what was for a stopped guest is dropped', async () => {
    const drivers = await running();
    const descriptors = await ringway.quietDescriptors();
    const traffic = new NumberedTraffic([drivers.a, drivers.b]);
    const ledger = await LossLedger.open(ringway, traffic, drivers);
    for (let i = 0; i < times(20); i++) {
      const guest = guests[NAMES[i % 2]];
      await traffic.during(guest.pause());
      await traffic.during(guest.resume());
      // Queue pairs stop and start one after the other, and flows move to those that are there.
      const losses = await ledger.close(queuePairs > 1);
      expectDrops(losses, RECEIVER_AWAY);
      expect(losses).toMatchObject({ takenBack: 0, unread: 0 });
    }
    await ringway.untilDescriptors(descriptors);
  });

  test('get memory and lose it again under traffic, and their rings may lie in it', async () => {
    const drivers = await running();
    const descriptors = await ringway.quietDescriptors();
    const traffic = new NumberedTraffic([drivers.a, drivers.b]);
    const ledger = await LossLedger.open(ringway, traffic, drivers);
    const memoryBytes = async (): Promise<number> =>
      ((await ringway.port('b')).details as VhostUserDetails).memoryBytes;
    const before = await memoryBytes();
    for (let i = 0; i < times(5); i++) {
      const dimms = await traffic.during(plugDimms(guests.b));
      expect(await memoryBytes()).toBe(before + dimms.length * DIMM_MIB * MIB);
      for (const { id } of dimms) await traffic.during(guests.b.unplugDimm(id));
      expect(await memoryBytes()).toBe(before);
    }
    expect(await ledger.close()).toEqual({ lost: 0, dropped: {}, takenBack: 0, unread: 0 });
    const dimm = await guests.b.plugDimm('dimm', DIMM_MIB);
    await drivers.b.initialise({ layout, memory: dimm.memory.part(DIMM_MIB * MIB) });
    await ringway.untilState('b', 'running', queuePairs);
    const there = new NumberedTraffic([drivers.a, drivers.b]);
    await there.exchange(200);
    expect(there.tally).toEqual(perfect(there.tally.sent));
    await drivers.b.initialise({ layout });
    await guests.b.unplugDimm('dimm');
    await ringway.untilState('b', 'running', queuePairs);
    await new NumberedTraffic([drivers.a, drivers.b]).exchange(20);
    expect(await memoryBytes()).toBe(before);
    await ringway.untilDescriptors(descriptors);
  });

  test('get a card and lose it again, and the others lose nothing', async () => {
    const drivers = await running();
    await ringway.until(async () => (await ringway.port('c')).state === 'waiting');
    const descriptors = await ringway.quietDescriptors();
    const traffic = new NumberedTraffic([drivers.a, drivers.b]);
    for (let i = 0; i < times(10); i++) {
      const nic = { ...nicOf(ringway, 'c', 3, queuePairs), id: 'more', slot: 5 };
      const card = await traffic.during(guests.a.plugNic(nic));
      await traffic.during(card.initialise({ layout: i % 2 === 0 ? layout : OTHER[layout] }));
      await traffic.during(ringway.untilState('c', 'running', queuePairs));
      await traffic.drain();
      const more = new NumberedTraffic([card, drivers.b]);
      await more.exchange(50);
      expect(more.tally).toEqual(perfect(more.tally.sent));
      await traffic.during(guests.a.unplugNic('more'));
      await traffic.during(ringway.untilState('c', 'waiting'));
      await traffic.drain();
    }
    expect(traffic.tally).toEqual(perfect(traffic.tally.sent));
    await ringway.untilDescriptors(descriptors);
  });
});

describe.skipIf(peers.skip).each(ROLES)(
  peers.title('a guest in qtest mode, Ringway as $role'),
  ({ role }) => {
    test.each(['split', 'packed'] as const)(
      'keeps what it was offered when it connects again after the offloads were changed: %s',
      async (layout) => {
        const portOptions = Object.fromEntries(NAMES.map((name) => [name, `,role=${role}`]));
        const ringway = await RingwayProcess.start({ ports: NAMES, portOptions });
        const guests = await Promise.all(
          NAMES.map((name, i) =>
            QtestGuest.start({
              name,
              // With it QEMU throws away what a guest sends as soon as the back-end has gone.
              nics: [
                {
                  ...nicOf(ringway, name, i + 1, 2),
                  server: role === 'client',
                  properties: { ioeventfd: false },
                },
              ],
            }),
          ),
        );
        onTestFinished(async () => {
          for (const guest of guests) await guest.close();
          expect(await ringway.stop()).toBe(0);
        });
        const [a, b] = guests.map((guest) => guest.nic('nic'));
        const choice = { features: NET_DRIVER_FEATURES | OFFLOADS, layout, bufferBytes: 8192 };
        for (const driver of [a, b]) await driver.initialise(choice);
        for (const name of NAMES) await ringway.untilState(name, 'running', 2);
        const offered = await a.device.offeredFeatures();
        expect(offered & OFFLOADS).toBe(OFFLOADS);
        const traffic = new NumberedTraffic([a, b]);
        const ledger = await LossLedger.open(ringway, traffic, { a, b });
        const descriptors = await ringway.quietDescriptors();

        for (const offloads of [{ tso: false }, { csum: false }, {}]) {
          const told = ((await ringway.port('a')).details as VhostUserDetails).features;
          await ringway.set('a', { offloads });
          await traffic.during(reconnect(ringway, guests[0]));
          expect(((await ringway.port('a')).details as VhostUserDetails).features).toEqual(told);
          expect(await a.device.offeredFeatures()).toBe(offered);
          expectDrops(await ledger.close(true), RECEIVER_AWAY);
          await traffic.exchange(50);
          // A frame to be cut goes over whole still, both ways.
          for (const [from, to] of [
            [a, b],
            [b, a],
          ]) {
            const frame = frameToBeCut(from.mac, to.mac);
            expect(from.pairs[0].send(frame, { header: CUT_HEADER })).toBe(true);
            await to.untilReceived();
            expect(to.pairs.map((pair) => pair.receive()).find((got) => got !== null)).toEqual(frame);
          }
          // Counted apart from the numbered ones.
          await ledger.restart();
        }
        await ringway.untilDescriptors(descriptors);
        // The driver may also begin anew, on what is offered still.
        await a.initialise(choice);
        await ringway.untilState('a', 'running', 2);
        expect(a.features & OFFLOADS).toBe(OFFLOADS);
        await new NumberedTraffic([a, b]).exchange(50);
      },
    );
  },
);

describe.skipIf(peers.skip).each(['split', 'packed'] as const)(
  peers.title('two guests in qtest mode, one with a balloon and virtio-mem: %s'),
  (layout) => {
    let ringway: RingwayProcess;
    let guests: QtestGuest[] = [];
    let balloon: VirtioBalloon;
    let mem: VirtioMem;

    beforeAll(async () => {
      ringway = await RingwayProcess.start({ ports: NAMES });
      guests = await Promise.all(NAMES.map((name) => start(ringway, name, 1)));
      balloon = await VirtioBalloon.plug(guests[1], 6);
      mem = await VirtioMem.plug(guests[1], 7, 64);
    });

    afterAll(async () => {
      for (const guest of guests) await guest.close();
      mem?.close();
      expect(await ringway?.stop()).toBe(0);
    });

    async function running(): Promise<NetDriver[]> {
      const drivers = guests.map((guest) => guest.nic('nic'));
      for (const driver of drivers) await driver.initialise({ layout });
      for (const name of NAMES) await ringway.untilState(name, 'running', 1);
      return drivers;
    }

    /** Has `change` done under traffic so often; then the second guest's rings lie in what was changed. */
    async function changeUnderTraffic(change: () => Promise<void>, memory: MemoryPart): Promise<void> {
      const drivers = await running();
      const descriptors = await ringway.quietDescriptors();
      const traffic = new NumberedTraffic(drivers);
      for (let i = 0; i < times(10); i++) await traffic.during(change());
      await traffic.drain();
      expect(traffic.tally).toEqual(perfect(traffic.tally.sent));
      await drivers[1].initialise({ layout, memory });
      await ringway.untilState('b', 'running', 1);
      const there = new NumberedTraffic(drivers);
      await there.exchange(500);
      expect(there.tally).toEqual(perfect(there.tally.sent));
      await running();
      await ringway.untilDescriptors(descriptors);
    }

    test('the balloon takes pages and gives them back, and rings may lie in those', async () => {
      const part = guests[1].memory.part(4 * MIB, 4096);
      const gpa = part.gpaOf(part.startOffset);
      const isEmpty = (): boolean =>
        part.u8.subarray(part.startOffset, part.endOffset).every((byte) => byte === 0);
      await changeUnderTraffic(async () => {
        for (const giveAway of ['inflate', 'report'] as const) {
          part.u8.fill(0xaa, part.startOffset, part.endOffset);
          await balloon[giveAway](gpa, 4 * MIB);
          expect(isEmpty()).toBe(true);
        }
        await balloon.deflate(gpa, 4 * MIB);
      }, part);
    });

    test('blocks of virtio-mem come and go, and rings may lie in them', async () => {
      const blocks = mem.memory.sizeBytes / mem.blockBytes;
      await mem.plug(0, blocks);
      await changeUnderTraffic(
        async () => {
          await mem.unplug(0, blocks);
          await mem.plug(0, blocks);
        },
        mem.memory.part(4 * MIB, 4096),
      );
      await mem.unplug(0, blocks);
    });
  },
);

const OTHER = { split: 'packed', packed: 'split' } as const;
const MIB = 2 ** 20;

/** Has QEMU connect again to port `a`; resolves when the guest sees its link up again. */
async function reconnect(ringway: RingwayProcess, guest: QtestGuest): Promise<void> {
  const driver = guest.nic('nic');
  const seen = ringway.log.length;
  driver.holdKicks();
  await guest.machine.yank('nic');
  await ringway.until(async () => /front-end gone/.test(ringway.log.slice(seen)));
  await ringway.untilState('a', 'running', driver.pairs.length);
  await driver.untilConfig(() => driver.isLinkUp());
  driver.releaseKicks();
}

async function plugDimms(guest: QtestGuest): Promise<Dimm[]> {
  const dimms: Dimm[] = [];
  for (let i = 0; i < DIMM_SLOTS; i++) dimms.push(await guest.plugDimm(`dimm${i}`, DIMM_MIB));
  return dimms;
}

async function allDrops(ringway: RingwayProcess): Promise<PortReport['drops'][]> {
  return (await ringway.ports()).map(({ drops }) => drops);
}

function expectDrops({ dropped }: Losses, allowed: readonly string[]): void {
  expect(allowed).toEqual(expect.arrayContaining(Object.keys(dropped)));
}

/** TCP over IPv4 with 4,000 bytes of data, which its header asks to be cut after each 1,000. */
const CUT_HEADER = Uint8Array.of(NET_HDR_F.NEEDS_CSUM, NET_HDR_GSO.TCPV4, 54, 0, 0xe8, 3, 34, 0, 16, 0, 0, 0);

function frameToBeCut(from: Uint8Array, to: Uint8Array): Uint8Array {
  const frame = new Uint8Array(54 + 4000).fill(7, 54);
  const view = new DataView(frame.buffer);
  frame.set(to);
  frame.set(from, 6);
  view.setUint16(12, 0x0800);
  view.setUint8(14, 0x45);
  view.setUint16(16, frame.length - 14);
  view.setUint8(22, 64);
  view.setUint8(23, 6);
  view.setUint32(26, 0x0a000001);
  view.setUint32(30, 0x0a000002);
  view.setUint16(34, 1000);
  view.setUint16(36, 2000);
  view.setUint8(46, 5 << 4);
  view.setUint8(47, 0x10);
  return frame;
}

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
  return QtestGuest.start({
    name,
    dimmSlots: DIMM_SLOTS,
    nics: [nicOf(ringway, name, NAMES.indexOf(name) + 1, queuePairs)],
  });
}
