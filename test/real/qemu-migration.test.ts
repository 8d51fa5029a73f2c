/**
 * A Linux guest that is migrated from one QEMU to another, from one port of Ringway to another, while a second guest sends
 * it frames and a program in it writes to its memory and checks it. What Ringway wrote must have been logged: where both
 * QEMUs stand still, every page is compared. Both layouts of rings.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { VhostUserDetails } from '../../src/port/vhost-user/port.ts';
import { differingPages } from '../memory/changed-pages.ts';
import { LinuxGuest, peersForTests, vhostUserArgs } from '../peers/index.ts';
import { naiveRead } from '../protocol/naive-capture.ts';
import { readGuestMemory } from './guest-memory-file.ts';
import { LongTransfer } from './long-transfer.ts';
import { RingwayProcess } from './ringway-process.ts';
import { tellStandstill } from './standstill.ts';

const peers = await peersForTests(['qemu']);
const MEMORY_MIB = 192;
const PEER = '10.0.0.1';
const MOVER = '10.0.0.2';
const MAC = '52:54:00:00:00:02';
const PING_INTERVAL_MS = 5;
/** Before the migration and after it. */
const UNDER_WAY_BYTES = 5_000_000;
/** The first pass over the guest's memory then takes some seconds. */
const SLOW_BYTES_PER_SECOND = 16 * 2 ** 20;
const BROADCAST = [255, 255, 255, 255, 255, 255];
/** EtherType, and up to the operation: a reverse request; a request in which a guest names its own address. */
const RARP = [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3];
const ARP = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1];
const LAYOUTS = ['split', 'packed'] as const;
/** QEMU switches logging on once for each pair, by messages on one connection. */
const QUEUE_PAIRS = { split: 2, packed: 1 } as const;
type Layout = (typeof LAYOUTS)[number];

/**
 * Fills files with random bytes, again and again, and looks whether the others are still what they were; says how often,
 * and each time that one is not.
 */
const CHECK_MEMORY = `
mkdir -p /tmp/m
fill() { dd if=/dev/urandom of=/tmp/m/$1 bs=65536 count=4 2>/dev/null; sha256sum /tmp/m/$1 > /tmp/m/$1.sum; }
for i in 0 1 2 3 4 5 6 7; do fill $i; done
round=0
while true; do
  for i in 0 1 2 3 4 5 6 7; do sha256sum -c -s /tmp/m/$i.sum || echo $i >> /tmp/wrong; done
  fill $((round % 8))
  round=$((round + 1))
  echo $round > /tmp/rounds
done`;

type World = {
  readonly ringway: RingwayProcess;
  readonly peer: LinuxGuest;
  readonly source: LinuxGuest;
  readonly target: LinuxGuest;
  /** Where the target listens. */
  readonly uri: string;
};

/** A peer, a guest to be moved, and a QEMU that waits for it. */
async function start(layout: Layout, target: readonly string[], properties = ''): Promise<World> {
  const ringway = await RingwayProcess.start({
    ports: ['peer', 'source', 'target', 'capture'],
    kinds: { capture: 'pcap' },
  });
  const guests: LinuxGuest[] = [];
  onTestFinished(async (context) => {
    await tellStandstill(context, ringway, guests);
    await Promise.all(guests.map((guest) => guest.stop()));
    expect(await ringway.stop()).toBe(0);
  });
  const packed = layout === 'packed' ? ',packed=on' : '';
  const argsOf = (port: string, mac: string): string[] =>
    vhostUserArgs({
      socketPath: ringway.socket(port),
      mac,
      queuePairs: QUEUE_PAIRS[layout],
      memoryMiB: MEMORY_MIB,
      deviceProperties: `mrg_rxbuf=on${packed}${properties}`,
    });
  const boot = async (name: string, mac: string, address: string): Promise<LinuxGuest> => {
    const guest = await LinuxGuest.start({ name, cpus: QUEUE_PAIRS[layout], qemuArgs: argsOf(name, mac) });
    guests.push(guest);
    await guest.configureNetwork(`${address}/24`);
    return guest;
  };
  const [peer, source] = await Promise.all([
    boot('peer', '52:54:00:00:00:01', PEER),
    boot('source', MAC, MOVER),
  ]);
  const uri = `unix:${join(ringway.folder, 'migration.sock')}`;
  const args = [...argsOf('target', MAC), ...target];
  const waiting = await LinuxGuest.start({
    name: 'target',
    cpus: QUEUE_PAIRS[layout],
    qemuArgs: args,
    incoming: { uri, from: source },
  });
  guests.push(waiting);
  expect((await peer.ping(MOVER)).received).toBe(5);
  return { ringway, peer, source, target: waiting, uri };
}

/** Resolves when a broadcast frame from the moved guest was flooded whose first bytes behind the addresses are these. */
function untilAnnounced(ringway: RingwayProcess, typeAndAfter: readonly number[]): Promise<void> {
  const head = Buffer.from([
    ...BROADCAST,
    ...MAC.split(':').map((byte) => Number.parseInt(byte, 16)),
    ...typeAndAfter,
  ]);
  return ringway.until(async () => {
    const { packets } = naiveRead(readFileSync(ringway.socket('capture')));
    return packets.some(({ frame }) => head.equals(frame.subarray(0, head.length)));
  });
}

async function portOf(ringway: RingwayProcess, mac: string): Promise<string | undefined> {
  return (await ringway.fdb()).entries.find((entry) => entry.mac === mac)?.port;
}

async function expectSound(guest: LinuxGuest): Promise<void> {
  const rounds = Number(await guest.runOk('cat /tmp/rounds'));
  expect(rounds).toBeGreaterThan(0);
  // It still runs, and nothing was other than it should be.
  await guest.runOk(`until [ $(cat /tmp/rounds) -gt ${rounds + 9} ]; do sleep 0.1; done`, {
    timeoutMs: 120_000,
  });
  expect(await guest.runOk('cat /tmp/wrong 2>/dev/null || true')).toBe('');
}

describe.skipIf(peers.skip).each(LAYOUTS)(peers.title('a QEMU guest with %s rings'), (layout) => {
  test('has the same memory on the other side, to the last page, and is announced by RARP', async () => {
    const { ringway, peer, source, target, uri } = await start(layout, ['-S'], ',guest_announce=off');
    const { features } = (await ringway.port('source')).details as VhostUserDetails;
    expect(features.includes('RING_PACKED')).toBe(layout === 'packed');
    // Slowly: buffers that were offered before they were copied are written to by Ringway alone. Once they are offered
    // again the guest's kernel clears them, and QEMU knows of that by itself.
    await peer.runOk(`ping -q -c 400 -i 0.04 -s 1400 ${MOVER} > /dev/null 2>&1 &`);
    await source.qmp('migrate-set-parameters', { 'max-bandwidth': SLOW_BYTES_PER_SECOND });
    await source.migrateTo(target, uri, { isHeld: true });
    expect(differingPages(readGuestMemory(source.pid), readGuestMemory(target.pid))).toEqual([]);
    await target.qmp('cont');
    await untilAnnounced(ringway, RARP);
    expect(await portOf(ringway, MAC)).toBe('target');
    await peer.runOk('killall ping; while pidof ping > /dev/null; do sleep 0.1; done');
    expect((await peer.ping(MOVER)).received).toBe(5);
    expect((await ringway.port('target')).reason).toBeNull();
  });

  test('goes on while it is pinged', async ({ annotate }) => {
    const { ringway, peer, source, target, uri } = await start(layout, []);
    await source.runOk(`(${CHECK_MEMORY}) > /dev/null 2>&1 &\nuntil [ -f /tmp/rounds ]; do sleep 0.1; done`);
    const pings = peer.ping(MOVER, { count: 3000, intervalMs: PING_INTERVAL_MS });
    await source.migrateTo(target, uri);
    const { sent, received } = await pings;
    const { downtime, 'total-time': total } = (await source.qmp('query-migrate')) as Record<string, number>;
    await annotate(
      `migrated in ${total} ms, stopped for ${downtime} ms as QEMU says; of pings each ${PING_INTERVAL_MS} ms ${sent - received} were lost (${(sent - received) * PING_INTERVAL_MS} ms)`,
    );
    expect(received).toBeGreaterThan(sent / 2);
    // By its own driver, which was told that it was moved.
    await untilAnnounced(ringway, ARP);
    expect(await portOf(ringway, MAC)).toBe('target');
    expect((await peer.ping(MOVER)).received).toBe(5);
    await expectSound(target);
  });

  test('keeps the TCP connection by which it receives', async ({ annotate }) => {
    const { ringway, peer, source, target, uri } = await start(layout, []);
    // For as long as it takes: how long the migration takes is the machine's affair.
    const transfer = await LongTransfer.start('transfer', peer, source, MOVER, 5001);
    const untilDelivered = (port: string): Promise<void> =>
      ringway.until(async () => (await ringway.port(port)).counters.egressBytes > UNDER_WAY_BYTES);
    await untilDelivered('source');
    await source.migrateTo(target, uri);
    transfer.follow(source, target);
    await untilDelivered('target');
    const { blocks, sentSum, receivedSum } = await transfer.end();
    expect(receivedSum).toBe(sentSum);
    await annotate(`${blocks} blocks of 256 KiB, the migration among them`);
    expect(await portOf(ringway, MAC)).toBe('target');
    expect((await ringway.port('target')).reason).toBeNull();
  });
});
