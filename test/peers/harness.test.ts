/**
 * Tests of the harness itself, without Ringway: guests against each other, testpmd against testpmd, and guests
 * behind testpmd as their vhost-user back-end.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  LinuxGuest,
  peersForTests,
  runIperf3,
  startIperf3Server,
  Testpmd,
  takeHugepages,
  vhostUserArgs,
} from './index.ts';
import { writeCpio } from './initramfs.ts';

const qemu = await peersForTests(['qemu']);
const testpmd = await peersForTests(['testpmd']);
const both = await peersForTests(['qemu', 'testpmd']);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-harness-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('the cpio writer pads names and contents to four bytes', () => {
  const archive = writeCpio([{ path: 'a', mode: 0o100644, data: Buffer.from('12345') }]);
  expect(archive.length % 4).toBe(0);
  expect(archive.toString('latin1', 0, 6)).toBe('070701');
  expect(archive.toString('latin1', 110, 112)).toBe('a\0');
  expect(archive.toString('latin1', 112, 120)).toBe('12345\0\0\0');
  expect(archive.toString('latin1', 120 + 110, 120 + 121)).toBe('TRAILER!!!\0');
});

describe.skipIf(qemu.skip)(qemu.title('two Linux guests on one cable'), () => {
  let a: LinuxGuest;
  let b: LinuxGuest;

  beforeAll(async () => {
    const socket = join(folder, 'cable.sock');
    const cable = (role: string, mac: string): string[] => [
      '-netdev',
      `stream,id=n0,server=${role},addr.type=unix,addr.path=${socket}`,
      '-device',
      `virtio-net-pci,netdev=n0,mac=${mac}`,
    ];
    a = await LinuxGuest.start({ name: 'a', qemuArgs: cable('on', '52:54:00:00:00:01') });
    b = await LinuxGuest.start({ name: 'b', qemuArgs: cable('off', '52:54:00:00:00:02') });
    await a.configureNetwork('10.0.0.1/24');
    await b.configureNetwork('10.0.0.2/24');
  });
  afterAll(async () => {
    await a?.stop();
    await b?.stop();
  });

  test('commands give exact output and exit codes, one at a time', async () => {
    const [first, second] = await Promise.all([
      a.run('printf "no newline"; exit 3'),
      a.run('for i in 1 2\ndo\n  echo "line $i" >&2\ndone'),
    ]);
    expect(first).toEqual({ code: 3, output: 'no newline' });
    expect(second).toEqual({ code: 0, output: 'line 1\nline 2\n' });
    const numbers = Array.from({ length: 5000 }, (_, i) => `${i + 1}\n`).join('');
    expect((await a.run('seq 5000')).output).toBe(numbers);
    await expect(a.runOk('false')).rejects.toThrow('code 1');
  });

  test('has its memory barriers, for QEMU keeps those of guests that might have two processors', async () => {
    expect(await a.runOk('cat /sys/devices/system/cpu/possible /sys/devices/system/cpu/online')).toBe(
      '0-1\n0\n',
    );
  });

  test('a command that takes too long is ended, and the shell lives on', async () => {
    await expect(a.run('echo before; sleep 600', { timeoutMs: 200 })).rejects.toThrow('before');
    expect((await a.run('echo after')).output).toBe('after\n');
  });

  test('they ping each other without loss', async () => {
    expect(await a.ping('10.0.0.2', { count: 10, intervalMs: 20 })).toEqual({ sent: 10, received: 10 });
    expect(await b.ping('10.0.0.1', { count: 10, intervalMs: 20, sizeBytes: 1400 })).toEqual({
      sent: 10,
      received: 10,
    });
    expect(await a.ping('10.0.0.9', { count: 1, waitS: 1 })).toEqual({ sent: 1, received: 0 });
  });

  test('iperf3 runs between them', async () => {
    await startIperf3Server(b);
    const tcp = await runIperf3(a, '10.0.0.2', { seconds: 1 });
    expect(tcp.receivedBytes).toBeGreaterThan(0);
    const udp = await runIperf3(a, '10.0.0.2', { seconds: 1, args: ['-u', '-b', '1M'] });
    expect(udp.sentBytes).toBeGreaterThan(0);
  });

  test('QMP answers and reports errors', async () => {
    expect(await a.qmp('query-status')).toMatchObject({ status: 'running' });
    await expect(a.qmp('no-such-command')).rejects.toThrow('no-such-command');
  });

  test('reboot: comes back with nothing configured', async () => {
    await a.reboot();
    expect(await a.bootCount()).toBe(2);
    expect((await a.run('ip addr show eth0')).output).not.toContain('10.0.0.1');
    await a.configureNetwork('10.0.0.1/24');
    expect(await a.ping('10.0.0.2')).toEqual({ sent: 5, received: 5 });
  });

  test('kill and stop leave no process', async () => {
    b.kill();
    expect(await b.exited).toBeNull();
    await a.stop();
    expect(await a.exited).toBe(0);
    for (const { pid } of [a, b]) expect(existsSync(`/proc/${pid}`)).toBe(false);
    await expect(a.run('true')).rejects.toThrow('closed');
  });
});

describe.skipIf(qemu.skip)(qemu.title('a guest that cannot start'), () => {
  test('says what QEMU said', async () => {
    const start = LinuxGuest.start({ name: 'bad', qemuArgs: ['-device', 'nonsense'] });
    await expect(start).rejects.toThrow("'nonsense' is not a valid device model name");
  });

  test('is ended by its signal', async () => {
    const signal = AbortSignal.abort();
    await expect(LinuxGuest.start({ name: 'aborted', qemuArgs: [], signal })).rejects.toThrow('SIGKILL');
  });
});

/** Two ports that only pass frames on: "io" swaps nothing, so frames sent once go round for ever. */
describe.skipIf(testpmd.skip)(testpmd.title('testpmd against testpmd'), () => {
  test.each(['vhost listens', 'virtio-user listens'])(
    '%s',
    async (mode) => {
      const socket = (port: number): string => join(folder, `${mode[2]}${port}.sock`);
      const listening = mode === 'vhost listens';
      const backEnd = (): Promise<Testpmd> =>
        Testpmd.start({
          vdevs: [0, 1].map((port) => `net_vhost${port},iface=${socket(port)},client=${listening ? 0 : 1}`),
          cores: '0,1',
        });
      const frontEnd = (): Promise<Testpmd> =>
        Testpmd.start({
          vdevs: [0, 1].map(
            (port) =>
              `net_virtio_user${port},path=${socket(port)},queue_size=256${listening ? '' : ',server=1'}`,
          ),
          cores: '1,0',
        });
      // Whoever listens starts first; virtio-user as server is only ready once the other has connected.
      const started: Testpmd[] = [];
      try {
        if (listening) started.push(await backEnd(), await frontEnd());
        else started.push(...(await Promise.all([backEnd(), frontEnd()])));
        const [back, front] = started as [Testpmd, Testpmd];
        await back.command('start');
        await front.command('start tx_first 1');
        await expect
          .poll(async () => (await front.portStats()).map(hasReceived), { timeout: 20_000 })
          .toEqual([true, true]);
        await front.command('stop');
        await back.command('stop');
        const counts = (await back.portStats()).map(({ rxErrors, txErrors }) => ({ rxErrors, txErrors }));
        expect(counts).toEqual([
          { rxErrors: 0, txErrors: 0 },
          { rxErrors: 0, txErrors: 0 },
        ]);
      } finally {
        for (const one of started.reverse()) await one.stop();
      }
      for (const one of started) expect(await one.exited).toBe(0);
    },
    60_000,
  );

  test('a port without its socket is an error', async () => {
    const start = Testpmd.start({ vdevs: [`net_virtio_user0,path=${join(folder, 'nobody.sock')}`] });
    await expect(start).rejects.toThrow('has 0 of 1 ports');
  });
});

function hasReceived(stats: { rxPackets: number }): boolean {
  return stats.rxPackets > 64;
}

describe.skipIf(both.skip)(both.title('guests behind a vhost-user back-end'), () => {
  test('two queue pairs, memory from hugepages and from a memfd', async ({ skip }) => {
    const memoryMiB = 160;
    const hugepages = await takeHugepages(memoryMiB / 2);
    if ('unavailable' in hugepages) return skip(hugepages.unavailable);
    expect(readFileSync('/proc/mounts', 'utf8')).toContain(`hugetlbfs ${hugepages.path} `);
    const socket = (port: number): string => join(folder, `guest${port}.sock`);
    const back = await Testpmd.start({
      vdevs: [0, 1].map((port) => `net_vhost${port},iface=${socket(port)},queues=2`),
      args: ['--rxq=2', '--txq=2'],
    });
    const guests: LinuxGuest[] = [];
    try {
      await back.command('start');
      for (const port of [0, 1]) {
        const mac = `52:54:00:00:01:0${port}`;
        const memory = port === 0 ? { hugepagesPath: hugepages.path } : {};
        const qemuArgs = vhostUserArgs({
          socketPath: socket(port),
          mac,
          queuePairs: 2,
          memoryMiB,
          ...memory,
        });
        guests.push(await LinuxGuest.start({ name: `guest${port}`, cpus: 2, qemuArgs }));
        await guests[port].configureNetwork(`10.0.0.${port + 1}/24`);
      }
      const [a] = guests as [LinuxGuest, LinuxGuest];
      expect(await a.ping('10.0.0.2')).toEqual({ sent: 5, received: 5 });
      await a.runOk('ethtool -L eth0 combined 1');
      expect((await a.run('ethtool -l eth0')).output).toMatch(/Combined:\s+2\n[\s\S]*Combined:\s+1\n/);
      expect(await a.ping('10.0.0.2')).toEqual({ sent: 5, received: 5 });
    } finally {
      for (const guest of guests) await guest.stop();
      await back.stop();
      await hugepages.release();
    }
    expect(existsSync(hugepages.path)).toBe(false);
    expect(readFileSync('/proc/mounts', 'utf8')).not.toContain(hugepages.path);
  });
});
