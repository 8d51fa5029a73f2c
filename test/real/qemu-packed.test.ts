/**
 * Linux guests with packed rings: two of them, or one with packed and one with split rings on one Ringway, with and
 * without merged receive buffers and event indices. What was negotiated is looked at first: a card that fell back
 * to split rings would pass everything else.
 */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { VhostUserDetails } from '../../src/port/vhost-user/port.ts';
import { LinuxGuest, peersForTests, runIperf3, startIperf3Server, vhostUserArgs } from '../peers/index.ts';
import { LongTransfer } from './long-transfer.ts';
import { expectEveryQueueUsed } from './queue-use.ts';
import { RingwayProcess } from './ringway-process.ts';
import { tellStandstill } from './standstill.ts';

const peers = await peersForTests(['qemu']);
const QUEUE_PAIRS = 2;
/** Of a TCP transfer, before something happens to it. */
const UNDER_WAY_BYTES = 3_000_000;
/** How often Ringway is killed. */
const KILLS = Math.round(3 * Number(process.env.RINGWAY_SEARCH ?? 1));
const ADDRESSES = { a: '10.0.0.1', b: '10.0.0.2' } as const;
type Name = keyof typeof ADDRESSES;
const NAMES: readonly Name[] = ['a', 'b'];

type Card = { readonly packed: boolean; readonly mergeable: boolean; readonly eventIdx: boolean };

const PACKED: Card = { packed: true, mergeable: true, eventIdx: true };
const SPLIT: Card = { ...PACKED, packed: false };
const PAIRS: readonly { readonly a: Card; readonly b: Card }[] = [
  { a: PACKED, b: PACKED },
  {
    a: { ...PACKED, mergeable: false, eventIdx: false },
    b: { ...PACKED, mergeable: false, eventIdx: false },
  },
  { a: { ...PACKED, mergeable: false }, b: SPLIT },
  { a: { ...SPLIT, mergeable: false }, b: { ...PACKED, eventIdx: false } },
];

const titleOf = ({ packed, mergeable, eventIdx }: Card): string =>
  `${packed ? 'packed' : 'split'}${mergeable ? ', mergeable' : ''}${eventIdx ? ', event_idx' : ''}`;
const SETUPS = PAIRS.map((cards) => ({ ...cards, title: `${titleOf(cards.a)} and ${titleOf(cards.b)}` }));

describe.skipIf(peers.skip).each(SETUPS)(peers.title('two QEMU guests: $title'), (cards) => {
  let ringway: RingwayProcess;
  let a: LinuxGuest;
  let b: LinuxGuest;

  beforeAll(async () => {
    ringway = await RingwayProcess.start({ ports: NAMES });
    [a, b] = await Promise.all([boot(ringway, 'a', cards.a), boot(ringway, 'b', cards.b)]);
  });

  afterAll(async () => {
    await Promise.all([a?.stop(), b?.stop()]);
    expect(await ringway?.stop()).toBe(0);
  });

  test('the rings are those that the cards ask for', async () => {
    for (const name of NAMES) {
      const { details, reason } = await ringway.port(name);
      const { features } = details as VhostUserDetails;
      expect({
        packed: features.includes('RING_PACKED'),
        mergeable: features.includes('NET_MRG_RXBUF'),
        eventIdx: features.includes('EVENT_IDX'),
      }).toEqual(cards[name]);
      expect(reason).toBeNull();
    }
  });

  test('ping in both directions, small and full frames', async () => {
    for (const sizeBytes of [56, 1472]) {
      expect(await a.ping(ADDRESSES.b, { count: 10, sizeBytes })).toEqual({ sent: 10, received: 10 });
      expect(await b.ping(ADDRESSES.a, { count: 10, sizeBytes })).toEqual({ sent: 10, received: 10 });
    }
  });

  test('TCP in both directions', async ({ annotate }) => {
    await startIperf3Server(b);
    for (const args of [[], ['-R'], ['-P', '4']]) {
      const result = await runIperf3(a, ADDRESSES.b, { seconds: 2, args });
      expect(result.receivedBytes).toBeGreaterThan(1_000_000);
      await annotate(`iperf3 ${args.join(' ')}: ${Math.round(result.receivedBitsPerSecond / 1e6)} Mbit/s`);
    }
    const reports = await ringway.ports();
    for (const { name, reason } of reports) expect({ name, reason }).toEqual({ name, reason: null });
  });

  test('one queue pair, and two again', async () => {
    for (const pairs of [1, 2, 1, 2]) {
      for (const guest of [a, b]) await guest.runOk(`ethtool -L eth0 combined ${pairs}`);
      for (const name of NAMES) await ringway.untilState(name, 'running', pairs);
      expect(await a.ping(ADDRESSES.b)).toEqual({ sent: 5, received: 5 });
    }
    const traffic = () => runIperf3(a, ADDRESSES.b, { seconds: 2, args: ['-P', '8'] });
    await expectEveryQueueUsed(ringway, 'b', 2 * QUEUE_PAIRS, traffic);
  });

  test('each of them reboots and comes back', async () => {
    for (const [name, guest] of [['a', a] as const, ['b', b] as const]) {
      await guest.reboot();
      await guest.configureNetwork(`${ADDRESSES[name]}/24`);
      await ringway.untilState(name, 'running');
      expect(await a.ping(ADDRESSES.b)).toEqual({ sent: 5, received: 5 });
    }
  });
});

/**
 * Nothing in a guest's memory tells where a packed ring stands, and QEMU does not know it either: it names the first
 * position once more.
 */
describe.skipIf(peers.skip)(peers.title('two QEMU guests with packed rings'), () => {
  test('go on when Ringway is killed, again and again, also in the middle of a TCP transfer', async ({
    annotate,
  }) => {
    const ringway = await RingwayProcess.start({ ports: NAMES });
    const guests: LinuxGuest[] = [];
    onTestFinished(async (context) => {
      await tellStandstill(context, ringway, guests);
      await Promise.all(guests.map((guest) => guest.stop()));
      expect(await ringway.stop()).toBe(0);
    });
    guests.push(...(await Promise.all(NAMES.map((name) => boot(ringway, name, PACKED)))));
    const [a, b] = guests;
    expect(await a.ping(ADDRESSES.b)).toEqual({ sent: 5, received: 5 });
    for (let kill = 0; kill < KILLS; kill++) {
      await ringway.killAndRestart();
      for (const name of NAMES) await ringway.untilState(name, 'running', QUEUE_PAIRS);
      expect(await a.ping(ADDRESSES.b)).toEqual({ sent: 5, received: 5 });
      expect(await b.ping(ADDRESSES.a)).toEqual({ sent: 5, received: 5 });
    }
    // For as long as it takes: how long a kill keeps it up is the machine's affair.
    const transfer = await LongTransfer.start('transfer', a, b, ADDRESSES.b, 5001);
    const untilMore = async (): Promise<void> => {
      const { ingressBytes } = (await ringway.port('a')).counters;
      await ringway.until(
        async () => (await ringway.port('a')).counters.ingressBytes > ingressBytes + UNDER_WAY_BYTES,
      );
    };
    for (let kill = 0; kill < 2; kill++) {
      await untilMore();
      await ringway.killAndRestart();
      for (const name of NAMES) await ringway.untilState(name, 'running', QUEUE_PAIRS);
    }
    await untilMore();
    const { blocks, sentSum, receivedSum } = await transfer.end();
    expect(receivedSum).toBe(sentSum);
    await annotate(`${blocks} blocks of 256 KiB through two kills`);
    for (const { name, reason } of await ringway.ports())
      expect({ name, reason }).toEqual({ name, reason: null });
    expect(ringway.log).toMatch(/queue \d+: its base named 32768, but it was used up to \d+/);
  });

  test('that reboot while Ringway is away begin anew', async () => {
    const ringway = await RingwayProcess.start({ ports: NAMES });
    const guests: LinuxGuest[] = [];
    onTestFinished(async (context) => {
      await tellStandstill(context, ringway, guests);
      await Promise.all(guests.map((guest) => guest.stop()));
      expect(await ringway.stop()).toBe(0);
    });
    guests.push(...(await Promise.all(NAMES.map((name) => boot(ringway, name, PACKED)))));
    const [a, b] = guests;
    expect(await a.ping(ADDRESSES.b)).toEqual({ sent: 5, received: 5 });
    ringway.kill();
    await ringway.ended;
    await b.reboot();
    await ringway.restart();
    await b.configureNetwork(`${ADDRESSES.b}/24`);
    for (const name of NAMES) await ringway.untilState(name, 'running');
    expect(await a.ping(ADDRESSES.b)).toEqual({ sent: 5, received: 5 });
    for (const { name, reason } of await ringway.ports())
      expect({ name, reason }).toEqual({ name, reason: null });
  });
});

/** A guest with two processors, on the port of its name. */
async function boot(ringway: RingwayProcess, name: Name, card: Card): Promise<LinuxGuest> {
  const onOff = (value: boolean): string => (value ? 'on' : 'off');
  const guest = await LinuxGuest.start({
    name,
    cpus: 2,
    qemuArgs: vhostUserArgs({
      socketPath: ringway.socket(name),
      mac: `52:54:00:00:00:0${NAMES.indexOf(name) + 1}`,
      queuePairs: QUEUE_PAIRS,
      memoryMiB: 256,
      reconnectS: 1,
      deviceProperties:
        `packed=${onOff(card.packed)},mrg_rxbuf=${onOff(card.mergeable)},` +
        `event_idx=${onOff(card.eventIdx)}`,
    }),
  });
  await guest.configureNetwork(`${ADDRESSES[name]}/24`);
  return guest;
}
