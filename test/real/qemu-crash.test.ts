/**
 * Real guests under a service manager that keeps Ringway's descriptors, through `kill -9` again and again: QEMU does not
 * connect again here (no `reconnect=`), so one disconnect would be the end. One guest has packed rings behind a port of role
 * `server`, the other one split rings behind one of role `client`.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LinuxGuest, peersForTests, vhostUserArgs } from '../peers/index.ts';
import { FakeManager } from '../switch/service/fake-manager.ts';
import { LongTransfer } from './long-transfer.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['qemu']);
const KILLS = Math.round(3 * Number(process.env.RINGWAY_SEARCH ?? 1));
const QUEUE_PAIRS = 2;
/** Of a TCP transfer, before something happens to it. */
const UNDER_WAY_BYTES = 3_000_000;
const ADDRESSES = { a: '10.0.0.1', b: '10.0.0.2' } as const;
type Name = keyof typeof ADDRESSES;
const NAMES: readonly Name[] = ['a', 'b'];

describe.skipIf(peers.skip)(peers.title('two QEMU guests that never connect again'), () => {
  let manager: FakeManager;
  let ringway: RingwayProcess;
  const guests = {} as Record<Name, LinuxGuest>;

  beforeAll(async () => {
    manager = new FakeManager({ storeMax: 256 });
    ringway = await RingwayProcess.start({
      ports: NAMES,
      portOptions: { b: ',role=client' },
      spawn: manager.spawn,
    });
    await Promise.all(
      NAMES.map(async (name) => {
        guests[name] = await LinuxGuest.start({
          name,
          cpus: 2,
          qemuArgs: vhostUserArgs({
            socketPath: ringway.socket(name),
            mac: `52:54:00:00:00:0${NAMES.indexOf(name) + 1}`,
            queuePairs: QUEUE_PAIRS,
            memoryMiB: 256,
            server: name === 'b',
            deviceProperties: `packed=${name === 'a' ? 'on' : 'off'}`,
          }),
        });
        await guests[name].configureNetwork(`${ADDRESSES[name]}/24`);
      }),
    );
  });

  afterAll(async () => {
    await Promise.all(Object.values(guests).map((guest) => guest.stop()));
    expect(await ringway?.stop()).toBe(0);
    manager?.close();
  });

  async function killAndRestart(): Promise<void> {
    await ringway.killAndRestart();
    for (const name of NAMES) await ringway.untilState(name, 'running', QUEUE_PAIRS);
  }

  /** A front-end that is killed upon amid what it says has to connect again, and rings run before QEMU has said all. */
  async function untilSaidAll(): Promise<void> {
    expect(await guests.a.ping(ADDRESSES.b)).toEqual({ sent: 5, received: 5 });
  }

  test(`ping after each of ${KILLS} kills`, async () => {
    expect(await guests.a.ping(ADDRESSES.b)).toEqual({ sent: 5, received: 5 });
    for (let kill = 0; kill < KILLS; kill++) {
      await killAndRestart();
      expect(await guests.a.ping(ADDRESSES.b)).toEqual({ sent: 5, received: 5 });
      expect(await guests.b.ping(ADDRESSES.a)).toEqual({ sent: 5, received: 5 });
    }
  });

  test('lose no ping that is on its way', async () => {
    // One after the other, each until its answer comes.
    const pings = `for i in $(seq 30); do ping -c 1 -W 60 ${ADDRESSES.b} | grep -c 'bytes from'; sleep 0.3; done`;
    const pinged = guests.a.runOk(pings, { timeoutMs: 120_000 });
    for (let kill = 0; kill < 3; kill++) await killAndRestart();
    expect((await pinged).trim().split(/\s+/)).toEqual(Array(30).fill('1'));
  });

  test('go on with a TCP transfer', async ({ annotate }) => {
    // For as long as it takes: how long a kill keeps it up is the machine's affair.
    const transfer = await LongTransfer.start('transfer', guests.a, guests.b, ADDRESSES.b, 5001);
    const untilMore = async (): Promise<void> => {
      const { ingressBytes } = (await ringway.port('a')).counters;
      await ringway.until(
        async () => (await ringway.port('a')).counters.ingressBytes > ingressBytes + UNDER_WAY_BYTES,
      );
    };
    for (let kill = 0; kill < 2; kill++) {
      await untilMore();
      await killAndRestart();
    }
    await untilMore();
    const { blocks, sentSum, receivedSum } = await transfer.end();
    expect(receivedSum).toBe(sentSum);
    await annotate(`${blocks} blocks of 256 KiB through two kills`);
  });

  test('change their queues, reboot, and are kept afterwards', async () => {
    for (const pairs of [1, 2]) {
      for (const name of NAMES) {
        await guests[name].runOk(`ethtool -L eth0 combined ${pairs}`);
        await ringway.untilState(name, 'running', pairs);
      }
      await untilSaidAll();
      await ringway.killAndRestart();
      for (const name of NAMES) await ringway.untilState(name, 'running', pairs);
      expect(await guests.a.ping(ADDRESSES.b)).toEqual({ sent: 5, received: 5 });
    }
    for (const name of NAMES) {
      await guests[name].reboot();
      await guests[name].configureNetwork(`${ADDRESSES[name]}/24`);
      await ringway.untilState(name, 'running');
    }
    await untilSaidAll();
    await killAndRestart();
    expect(await guests.b.ping(ADDRESSES.a)).toEqual({ sent: 5, received: 5 });
    expect(ringway.log).not.toContain('has to connect again');
    for (const { name, reason } of await ringway.ports())
      expect({ name, reason }).toEqual({ name, reason: null });
  });
});
