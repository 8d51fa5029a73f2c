/**
 * Guests with emulated cards on UNIX sockets, and a guest on vhost-user, all on one Ringway: they reach each other
 * whatever card they have. Streams in both roles, datagrams, and sockets that are handed to QEMU.
 */
import { existsSync, rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { closeFd } from '../../src/host/descriptor.ts';
import { libc } from '../../src/host/libc.ts';
import { bindDatagram, connectUnix, socketAddress } from '../../src/host/unix-socket.ts';
import {
  type CardModel,
  emulatedCardArgs,
  LinuxGuest,
  peersForTests,
  runIperf3,
  startIperf3Server,
  vhostUserArgs,
} from '../peers/index.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['qemu', 'emulated-cards']);

const PORTS = ['vhost', 'server', 'client', 'dgram', 'given', 'givendgram'] as const;

describe.skipIf(peers.skip)(peers.title('guests with emulated cards on UNIX sockets'), () => {
  let ringway: RingwayProcess;
  let vhost: LinuxGuest;
  const guests: LinuxGuest[] = [];

  beforeAll(async () => {
    ringway = await RingwayProcess.start({
      ports: PORTS,
      kinds: { server: 'unix', client: 'unix', dgram: 'unix', given: 'unix', givendgram: 'unix' },
      portOptions: {
        client: ',role=client',
        dgram: ',transport=dgram,peer={folder}/dgram.peer',
        givendgram: ',transport=dgram,peer={folder}/givendgram.peer',
      },
    });
    vhost = await LinuxGuest.start({
      name: 'vhost',
      qemuArgs: vhostUserArgs({
        socketPath: ringway.socket('vhost'),
        mac: macOf(1),
        queuePairs: 1,
        memoryMiB: 192,
      }),
    });
    await vhost.configureNetwork('10.0.0.1/24');
  });

  afterAll(async () => {
    await Promise.all([vhost, ...guests].map((guest) => guest?.stop()));
    expect(await ringway?.stop()).toBe(0);
  });

  /** Boots a guest with address 10.0.0.`number` on a netdev. */
  async function boot(
    number: number,
    model: CardModel,
    netdev: string,
    passedFds: number[] = [],
  ): Promise<LinuxGuest> {
    const guest = await LinuxGuest.start({
      name: `guest${number}`,
      kernel: 'generic',
      qemuArgs: emulatedCardArgs({ model, mac: macOf(number), netdev }),
      passedFds,
    });
    guests.push(guest);
    await guest.configureNetwork(`10.0.0.${number}/24`);
    return guest;
  }

  /** Pings the guest on vhost-user both ways, with small and full frames. */
  async function expectReached(guest: LinuxGuest, number: number, port: string): Promise<void> {
    await ringway.untilState(port, 'running');
    for (const sizeBytes of [56, 1472]) {
      expect(await guest.ping('10.0.0.1', { sizeBytes })).toEqual({ sent: 5, received: 5 });
      expect(await vhost.ping(`10.0.0.${number}`, { sizeBytes })).toEqual({ sent: 5, received: 5 });
    }
    const { entries } = await ringway.fdb();
    expect(entries.find(({ mac }) => mac === macOf(number))?.port).toBe(port);
    expect(await ringway.port(port)).toMatchObject({
      kind: 'unix',
      state: 'running',
      reason: null,
      queuePairs: 1,
    });
  }

  const netdevs = {
    server: () => `stream,server=off,addr.type=unix,addr.path=${ringway.socket('server')}`,
    client: () => `stream,server=on,addr.type=unix,addr.path=${ringway.socket('client')}`,
    dgram: () =>
      `dgram,local.type=unix,local.path=${ringway.folder}/dgram.peer,` +
      `remote.type=unix,remote.path=${ringway.socket('dgram')}`,
  };

  test('e1000 on -netdev stream, and TCP both ways', async () => {
    const guest = await boot(2, 'e1000', netdevs.server());
    await expectReached(guest, 2, 'server');
    await startIperf3Server(vhost);
    for (const args of [[], ['-R']]) {
      const { receivedBytes } = await runIperf3(guest, '10.0.0.1', { seconds: 2, args });
      expect(receivedBytes).toBeGreaterThan(1_000_000);
    }
    expect((await ringway.port('server')).reason).toBeNull();
  });

  test('e1000e on the same path, once the guest before has left and all sockets were removed', async () => {
    const first = guests.find(({ name }) => name === 'guest2')!;
    await first.stop();
    await ringway.untilState('server', 'waiting');
    const sockets = [
      ringway.controlSocket,
      ...['vhost', 'server', 'dgram'].map((port) => ringway.socket(port)),
    ];
    for (const socket of sockets) rmSync(socket);
    await ringway.until(async () => sockets.every((socket) => existsSync(socket)));
    // Who was connected is so still.
    expect((await ringway.port('vhost')).state).toBe('running');
    const again = await boot(2, 'e1000e', netdevs.server());
    await expectReached(again, 2, 'server');
  });

  test('QEMU virtio-net on -netdev stream,server=on: Ringway connects, and again after a restart', async () => {
    for (let turn = 0; turn < 2; turn++) {
      const guest = await boot(3, 'virtio-net-pci', netdevs.client());
      await expectReached(guest, 3, 'client');
      if (turn === 1) continue;
      guest.kill();
      await guest.exited;
      await ringway.untilState('client', 'waiting');
      rmSync(ringway.socket('client'), { force: true });
    }
  });

  test('rtl8139 on -netdev dgram, also after QEMU was started again', async () => {
    for (let turn = 0; turn < 2; turn++) {
      const guest = await boot(4, 'rtl8139', netdevs.dgram());
      await expectReached(guest, 4, 'dgram');
      if (turn === 1) continue;
      guest.kill();
      await guest.exited;
      await ringway.untilState('dgram', 'waiting');
    }
  });

  test('-netdev socket,fd= with a connected stream', async () => {
    const fd = connectUnix(ringway.socket('given'));
    const booted = boot(5, 'e1000', 'socket,fd=3', [fd]);
    // Once QEMU has its copy, ours would keep the connection open after its end.
    const guest = await booted.finally(() => closeFd(fd));
    await expectReached(guest, 5, 'given');
    guest.kill();
    await ringway.untilState('given', 'waiting');
  });

  test('-netdev socket,fd= with a connected datagram socket', async () => {
    const fd = bindDatagram(`${ringway.folder}/givendgram.peer`);
    const address = socketAddress(ringway.socket('givendgram'));
    expect(libc.connect(fd, address, address.length)).toBe(0);
    const guest = await boot(6, 'e1000', 'socket,fd=3', [fd]).finally(() => closeFd(fd));
    await expectReached(guest, 6, 'givendgram');
  });

  test('the emulated cards reach each other', async () => {
    const [stream, dgram] = ['10.0.0.2', '10.0.0.4'];
    const guest = guests.findLast(({ name }) => name === 'guest4')!;
    expect(await guest.ping(stream!)).toEqual({ sent: 5, received: 5 });
    const other = guests.findLast(({ name }) => name === 'guest2')!;
    expect(await other.ping(dgram!)).toEqual({ sent: 5, received: 5 });
  });
});

const macOf = (number: number): string => `52:54:00:00:00:0${number}`;
