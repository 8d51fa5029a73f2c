/**
 * Captures read by Wireshark's command line: live from a pipe while two Linux guests ping and send each other TCP, with every
 * checksum right although none of them makes one; and the ports among Wireshark's interfaces.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { CaptureReport } from '../../switch/capture/captures.ts';
import { askControl } from '../../switch/control/client.ts';
import { LinuxGuest, peersForTests, runProgram, untilListens, vhostUserArgs } from '../peers/index.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['qemu', 'tshark']);
const PROGRAM = fileURLToPath(new URL('../../switch/cli/ringway.sh', import.meta.url));
const NAMES = ['vm0', 'vm1'] as const;
const EXTCAP_FOLDER = '/usr/lib/x86_64-linux-gnu/wireshark/extcap';
/** tshark shows a packet within a second, and ends as soon as what it reads does. */
const TSHARK_TIMEOUT_MS = 60_000;
/** Of tshark: a checksum is right. */
const GOOD = '1';
const FIELDS = [
  'frame.interface_name',
  'frame.packet_flags',
  'frame.len',
  'ip.checksum.status',
  'tcp.checksum.status',
  'udp.checksum.status',
  'icmp.checksum.status',
  'icmp.type',
  'frame.comment',
] as const;
type Row = Readonly<Record<(typeof FIELDS)[number], string>>;

/** `ringway capture … -w - | tshark -i -`, a row for each packet as it comes. */
class LiveCapture {
  readonly rows: Row[] = [];
  readonly #exited: Promise<unknown>;
  #onRow: () => void = () => {};
  #errors = '';

  constructor(control: string, ...args: readonly string[]) {
    const checks = ['ip', 'tcp', 'udp'].flatMap((name) => ['-o', `${name}.check_checksum:TRUE`]);
    const fields = FIELDS.flatMap((name) => ['-e', name]);
    const tshark = ['tshark', '-n', '-l', '-i', '-', ...checks, '-T', 'fields', ...fields];
    const capture = [PROGRAM, 'capture', ...args, '--control', control, '-w', '-'];
    const shell = spawn('sh', ['-c', `${quoted(capture)} | ${quoted(tshark)}`], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    // Not 'exit': by then the last rows may not have been read.
    this.#exited = once(shell, 'close');
    shell.stderr.on('data', (text) => {
      this.#errors += text;
      this.#onRow();
    });
    createInterface({ input: shell.stdout }).on('line', (line) => {
      const cells = line.split('\t');
      this.rows.push(Object.fromEntries(FIELDS.map((name, i) => [name, cells[i] ?? ''])) as Row);
      this.#onRow();
    });
  }

  /** Rejects with what was seen when both programs end before that, or no such packet comes. */
  async until(holds: (rows: readonly Row[]) => boolean): Promise<void> {
    const over = this.#exited.then(() => 'both programs ended');
    const late = setTimeout(TSHARK_TIMEOUT_MS, 'no such packet came', { ref: false });
    while (!holds(this.rows)) {
      const next = new Promise<null>((resolve) => (this.#onRow = () => resolve(null)));
      const why = await Promise.race([next, over, late]);
      if (why !== null) throw new Error(`${why}; ${this.#told()}`);
    }
  }

  #told(): string {
    const last = this.rows.slice(-5).map((row) => JSON.stringify(row));
    return [`${this.rows.length} rows, the last:`, ...last, 'said:', this.#errors].join('\n');
  }

  /** Resolves with what both programs said when they have ended. */
  async ended(): Promise<string> {
    const late = setTimeout(TSHARK_TIMEOUT_MS, 'late', { ref: false });
    if ((await Promise.race([this.#exited, late])) === 'late') throw new Error(`no end; ${this.#told()}`);
    return this.#errors;
  }
}

async function capturesOf(control: string): Promise<CaptureReport[]> {
  return askControl<CaptureReport[]>(control, '/v1/captures');
}

/** Resolves when frames are copied. */
async function untilCaptured(control: string): Promise<void> {
  await vi.waitUntil(async () => (await capturesOf(control)).length > 0, { timeout: 30_000 });
}

async function endCaptures(control: string): Promise<void> {
  for (const { id } of await capturesOf(control))
    await askControl(control, `/v1/captures/${id}`, { method: 'DELETE' });
}

function quoted(words: readonly string[]): string {
  return words.map((word) => `'${word}'`).join(' ');
}

describe.skipIf(peers.skip)(peers.title('a capture in tshark'), () => {
  let ringway: RingwayProcess;
  const guests: LinuxGuest[] = [];

  beforeAll(async () => {
    ringway = await RingwayProcess.start({ ports: NAMES });
    await Promise.all(
      NAMES.map(async (name, i) => {
        const qemuArgs = vhostUserArgs({
          ...{ socketPath: ringway.socket(name), mac: `52:54:00:00:00:0${i + 1}`, queuePairs: 1 },
          ...{ memoryMiB: 192, reconnectS: 1 },
        });
        guests[i] = await LinuxGuest.start({ name, qemuArgs });
        await guests[i].configureNetwork(`10.0.0.${i + 1}/24`);
      }),
    );
  });

  afterAll(async () => {
    await Promise.all(guests.map((guest) => guest.stop()));
    expect(await ringway?.stop()).toBe(0);
  });

  const end = (): Promise<unknown> => endCaptures(ringway.controlSocket);

  test('is read live while guests ping, each packet once for a port', async () => {
    const live = new LiveCapture(ringway.controlSocket, 'vm0', 'vm1', '--filter', 'icmp');
    await untilCaptured(ringway.controlSocket);
    // One after the other: a guest that has little of a processor asks again before it is answered.
    await guests[0].runOk('for i in 1 2 3; do ping -c 1 10.0.0.2; done');
    await live.until((rows) => rows.length >= 12);
    await end();
    const said = await live.ended();
    expect(said).toMatch(/ringway: 12 frames captured; the capture ended/);
    const ways = live.rows.map(
      (row) => `${row['icmp.type']} ${row['frame.interface_name']} ${row['frame.packet_flags']}`,
    );
    expect(ways.slice(0, 4)).toEqual([
      '8 vm0 0x00000001',
      '8 vm1 0x00000002',
      '0 vm1 0x00000001',
      '0 vm0 0x00000002',
    ]);
    for (const row of live.rows)
      expect([row['ip.checksum.status'], row['icmp.checksum.status']]).toEqual([GOOD, GOOD]);
  });

  test('has right checksums of TCP and UDP, of frames to be segmented too', async () => {
    const live = new LiveCapture(ringway.controlSocket, 'vm0', 'vm1', '--filter', 'tcp or udp');
    await untilCaptured(ringway.controlSocket);
    await guests[1].runOk('(sleep 30 | nc -l -p 5300 > /tmp/got) > /dev/null 2>&1 &');
    await untilListens(guests[1], 5300);
    await guests[0].runOk('head -c 300000 /dev/urandom | nc 10.0.0.2 5300', { timeoutMs: 60_000 });
    // It asks until it is told that it was seen.
    const asks = 'until [ -e /tmp/seen ]; do nslookup ringway.test 10.0.0.2; sleep 1; done';
    await guests[0].runOk(`(${asks}) > /dev/null 2>&1 &`);
    await live.until((rows) => rows.some((row) => row['udp.checksum.status'] !== ''));
    await guests[0].runOk('touch /tmp/seen');
    await end();
    // None was lost, too.
    expect(await live.ended()).toMatch(/ringway: [\d,]+ frames captured; the capture ended/);
    const tcp = live.rows.filter((row) => row['tcp.checksum.status'] !== '');
    expect(tcp.length).toBeGreaterThan(5);
    expect(
      tcp.filter((row) => row['tcp.checksum.status'] !== GOOD || row['ip.checksum.status'] !== GOOD),
    ).toEqual([]);
    const whole = tcp.filter((row) => Number(row['frame.len']) > 1514);
    expect(whole.length).toBeGreaterThan(0);
    // An ICMP answer quotes the datagram, as it came.
    const udp = live.rows.filter((row) => row['udp.checksum.status'] !== '' && row['icmp.type'] === '');
    expect(udp.map((row) => row['udp.checksum.status'])).not.toContain('0');
    expect(udp.length).toBeGreaterThan(0);
  });

  test('shows what is dropped, with the reason', async () => {
    const setMtu = (mtu: number | null): Promise<unknown> =>
      askControl(ringway.controlSocket, '/v1/ports/vm1', { method: 'PATCH', body: { mtu } });
    const live = new LiveCapture(
      ringway.controlSocket,
      ...['vm0', 'vm1', '--count', '2', '--filter', 'icmp and greater 500'],
    );
    await untilCaptured(ringway.controlSocket);
    // Smaller than the guests know.
    await setMtu(200);
    await guests[0].runOk('ping -c 1 -s 600 -W 1 10.0.0.2 || true');
    await live.ended();
    await setMtu(null);
    const comments = live.rows.map((row) => [
      row['frame.interface_name'],
      row['frame.comment'].replace(/ \(.*/, ''),
    ]);
    expect(comments).toEqual([
      ['vm0', ''],
      ['vm1', 'dropped: overMtu'],
    ]);
  });

  test('is among the interfaces that tshark lists, and is captured from as one', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ringway-extcap-'));
    try {
      await runProgram(PROGRAM, ['extcap', '--install', folder, '--control', ringway.controlSocket]);
      // Wireshark 4.0 looks nowhere else when root asks; a mount of our own leaves the system as it is.
      const inOwnMount = (command: string): Promise<{ output: string }> =>
        runProgram('unshare', ['-m', 'sh', '-c', `mount --bind '${folder}' ${EXTCAP_FOLDER} && ${command}`]);
      const { output: list } = await inOwnMount('tshark -D');
      for (const name of [...NAMES, 'all']) expect(list).toContain(`ringway-${name} (Ringway`);
      await guests[0].runOk('(ping 10.0.0.2 > /dev/null 2>&1 &)');
      const { output: rows } = await inOwnMount(
        "tshark -n -i ringway-vm1 -f 'icmp' -c 2 -T fields -e ip.src -e icmp.type",
      );
      expect(rows.split('\n').filter((row) => /^10\.0\.0\.\d\t[08]$/.test(row))).toHaveLength(2);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
