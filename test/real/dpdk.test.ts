/**
 * Ringway with DPDK ports in a process of its own: what comes in goes out, frame by frame, over capture files
 * (net_pcap), a ring (net_ring), interfaces of the kernel with network namespaces behind them (net_af_packet, and net_tap,
 * which does checksums), and a guest (net_vhost).
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { askControl } from '../../switch/control/client.ts';
import type { PortReport } from '../../switch/control/report.ts';
import { whyNoDpdk } from '../dpdk/dpdk-here.ts';
import { settlesWithin } from '../peers/deadline.ts';
import {
  type Child,
  findProgram,
  LinuxGuest,
  peersForTests,
  runProgram,
  startChild,
  startIperf3Server,
  TextLog,
  vhostUserArgs,
} from '../peers/index.ts';
import { NetworkNamespace } from '../peers/namespaces.ts';
import { softwareMissing } from '../peers/software.ts';
import { Random } from '../vring/random.ts';
import { expectBalancedBooks } from './books.ts';

const PROGRAM = fileURLToPath(new URL('../../switch/cli/main.ts', import.meta.url));
const UNTIL_MS = 30_000;
const LOOK_MS = 20;
const STATION_MS_MAX = 120_000;

const why = whyNoDpdk();
const peers = await peersForTests(['qemu']);
const whyNoNamespaces =
  why ??
  (process.getuid?.() !== 0 ? 'needs root' : null) ??
  (findProgram('ethtool') === undefined ? softwareMissing('ethtool') : null);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-dpdk-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Ringway with some DPDK ports, in order. */
class Running {
  readonly #child: Child;
  readonly #log: TextLog;
  readonly #control: string;

  private constructor(child: Child, control: string) {
    this.#child = child;
    this.#log = new TextLog(child.process.stderr);
    this.#control = control;
  }

  /** `others`: ports of other kinds. */
  static async start(ports: Record<string, string>, others: Record<string, string> = {}): Promise<Running> {
    const control = join(folder, 'control.sock');
    const portArgs = [
      ...Object.entries(ports).map(([name, text]) => `${name}=dpdk:${text}`),
      ...Object.entries(others).map(([name, text]) => `${name}=${text}`),
    ].flatMap((text) => ['--port', text]);
    const child = await startChild(process.execPath, [PROGRAM, 'run', ...portArgs, '--control', control]);
    child.process.stdout.resume();
    const running = new Running(child, control);
    const portCount = Object.keys(ports).length + Object.keys(others).length;
    await running.until((reports) => reports.length === portCount);
    return running;
  }

  async ports(): Promise<Map<string, PortReport>> {
    const reports = await askControl<PortReport[]>(this.#control, '/v1/ports');
    return new Map(reports.map((report) => [report.name, report]));
  }

  /** Resolves when `holds` does. */
  async until(holds: (reports: PortReport[]) => boolean): Promise<void> {
    const deadline = AbortSignal.timeout(UNTIL_MS);
    for (;;) {
      const reports = await askControl<PortReport[]>(this.#control, '/v1/ports').catch(() => []);
      if (holds(reports)) return;
      if (deadline.aborted || this.#child.hasExited()) {
        throw new Error(`not the state awaited: ${JSON.stringify(reports, null, 1)}\n${this.#log.text}`);
      }
      await delay(LOOK_MS);
    }
  }

  /** Resolves when a program that uses the ports has ended. */
  async untilEnded({ exited }: Child): Promise<void> {
    if (await settlesWithin(exited, STATION_MS_MAX)) return;
    const reports = JSON.stringify([...(await this.ports()).values()], null, 1);
    throw new Error(`it does not end: ${reports}\n${this.#log.text}`);
  }

  /** Ends it as a user would. */
  async stop(): Promise<void> {
    try {
      await expectBalancedBooks(this.#control);
    } finally {
      this.#child.process.kill('SIGTERM');
      expect(await this.#child.exited).toBe(0);
    }
  }
}

let running: Running | null = null;
const stopNow = async (): Promise<void> => {
  const ending = running;
  running = null;
  await ending?.stop();
};
afterEach(stopNow);

const framesIn = (report: PortReport | undefined): number => report?.counters.ingressFrames ?? 0;
const framesOut = (report: PortReport | undefined): number => report?.counters.egressFrames ?? 0;

/** Frames from one station to another, neither known to the switch, so that each goes to every other port. */
function seededFrames(count: number): Buffer[] {
  const random = new Random(4711);
  return Array.from({ length: count }, () => {
    const frame = Buffer.from(random.bytes(random.between(60, 1514)));
    Buffer.from('020000000002020000000001', 'hex').copy(frame);
    return frame;
  });
}

/** The oldest form of a capture file, microseconds, Ethernet. */
function writeCapture(path: string, frames: readonly Buffer[]): void {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b2c3d4, 0);
  header.writeUInt16LE(2, 4);
  header.writeUInt16LE(4, 6);
  header.writeUInt32LE(65_535, 16);
  header.writeUInt32LE(1, 20);
  const records = frames.flatMap((frame) => {
    const record = Buffer.alloc(16);
    record.writeUInt32LE(frame.length, 8);
    record.writeUInt32LE(frame.length, 12);
    return [record, frame];
  });
  writeFileSync(path, Buffer.concat([header, ...records]));
}

function readCapture(path: string): Buffer[] {
  const bytes = readFileSync(path);
  const frames: Buffer[] = [];
  for (let at = 24; at + 16 <= bytes.length; ) {
    const length = bytes.readUInt32LE(at + 8);
    frames.push(bytes.subarray(at + 16, at + 16 + length));
    at += 16 + length;
  }
  return frames;
}

describe.skipIf(why !== null)(`DPDK ports (${why ?? 'DPDK is here'})`, () => {
  test('a capture file in is a capture file out', async () => {
    const frames = seededFrames(500);
    const [from, to] = [join(folder, 'in.pcap'), join(folder, 'out.pcap')];
    writeCapture(from, frames);
    running = await Running.start({
      out: `net_pcap1;tx_pcap=${to}`,
      in: `net_pcap0;rx_pcap=${from}`,
    });
    await running.until((reports) => framesOut(reports.find(({ name }) => name === 'out')) >= frames.length);
    const ports = await running.ports();
    expect(framesIn(ports.get('in'))).toBe(frames.length);
    expect(framesOut(ports.get('out'))).toBe(frames.length);
    expect(ports.get('in')?.details).toMatchObject({
      driver: 'net_pcap',
      statistics: { ipackets: frames.length },
    });
    await stopNow();
    expect(readCapture(to)).toEqual(frames);
  });

  test('what goes into a ring comes back', async () => {
    const frames = seededFrames(300);
    const [from, to] = [join(folder, 'there.pcap'), join(folder, 'back.pcap')];
    writeCapture(from, frames);
    running = await Running.start({
      ring: 'net_ring0',
      file: `net_pcap0;rx_pcap=${from};tx_pcap=${to}`,
    });
    await running.until((reports) => framesOut(reports.find(({ name }) => name === 'file')) >= frames.length);
    const ports = await running.ports();
    expect(framesOut(ports.get('ring'))).toBe(frames.length);
    expect(framesIn(ports.get('ring'))).toBe(frames.length);
    await stopNow();
    expect(readCapture(to)).toEqual(frames);
  });

  test('a port whose device is missing says so while others go on', async () => {
    running = await Running.start({
      up: 'net_ring1',
      nothing: 'net_af_packet9;iface=no-such0',
      card: 'ffff:1f:1f.7',
    });
    await running.until((reports) =>
      reports.every(({ state, reason }) => state === 'running' || reason !== null),
    );
    const ports = await running.ports();
    expect(ports.get('up')?.state).toBe('running');
    expect(ports.get('nothing')?.reason).toMatch(/needs the interface no-such0/);
    expect(ports.get('card')?.reason).toMatch(/there is no PCI device ffff:1f:1f.7/);
  });
});

/** Sends back what it gets, or sends numbered datagrams, 32 under way, until all came back; prints how many. */
const STATION = `
const [role, host, count] = process.argv.slice(1);
const socket = require('node:dgram').createSocket('udp4');
if (role === 'echo') {
  socket.on('message', (bytes, { address, port }) => socket.send(bytes, port, address));
  socket.bind(7007, host, () => console.log('ready'));
} else {
  const seen = new Set();
  let next = 0;
  const send = () => {
    const bytes = Buffer.alloc(64 + (next % 1400));
    bytes.writeUInt32LE(next++);
    socket.send(bytes, 7007, host);
  };
  socket.on('message', (bytes) => {
    const number = bytes.readUInt32LE();
    if (bytes.length !== 64 + (number % 1400)) throw new Error('cut');
    seen.add(number);
    if (seen.size === Number(count)) { console.log(seen.size); process.exit(0); }
    if (next < Number(count)) send();
  });
  for (let i = 0; i < 32; i++) send();
}`;

const TRANSFER_BYTES = 8_000_000;
/** Numbered words by TCP; the receiver looks at each, and prints how many bytes were right. */
const TRANSFER = `
const [role, host, count] = process.argv.slice(1);
const net = require('node:net');
const data = Buffer.from(Uint32Array.from({ length: Number(count) / 4 }, (_, i) => i * 2654435761).buffer);
if (role === 'receive') {
  const server = net.createServer((socket) => {
    const parts = [];
    socket.on('data', (part) => parts.push(part));
    socket.on('end', () => {
      console.log(Buffer.concat(parts).equals(data) ? data.length : 'wrong');
      socket.end();
      server.close();
    });
  });
  server.listen(7008, host, () => console.log('ready'));
} else net.connect(7008, host, function () { this.resume(); this.end(data); });`;

/** `snmp`: text of /proc/net/snmp. */
function expectNoChecksumErrors(snmp: string): void {
  for (const protocol of ['Tcp', 'Udp']) {
    const [names, values] = snmp
      .split('\n')
      .filter((line) => line.startsWith(`${protocol}:`))
      .map((line) => line.trim().split(' '));
    expect(values[names.indexOf('InCsumErrors')]).toBe('0');
  }
}

/** Sends TRANSFER_BYTES from one namespace to an address in another; answers how many came as they were sent. */
async function transferBetween(
  ringway: Running,
  from: NetworkNamespace,
  to: NetworkNamespace,
  host: string,
): Promise<string> {
  const node = (space: NetworkNamespace, role: string) =>
    startChild(...space.command(process.execPath, ['-e', TRANSFER, role, host, String(TRANSFER_BYTES)]));
  const receiver = await node(to, 'receive');
  const output = new TextLog(receiver.process.stdout);
  const children = [receiver];
  try {
    await new Promise<void>((resolve) => receiver.process.stdout.once('data', () => resolve()));
    const sender = await node(from, 'send');
    children.push(sender);
    await ringway.untilEnded(sender);
    await ringway.untilEnded(receiver);
    expect([await sender.exited, await receiver.exited]).toEqual([0, 0]);
    return output.text.replace('ready\n', '').trim();
  } finally {
    for (const child of children) {
      child.kill();
      await child.exited;
    }
  }
}

describe.skipIf(whyNoNamespaces !== null)(
  `DPDK ports on interfaces (${whyNoNamespaces ?? 'DPDK is here'})`,
  () => {
    const spaces: NetworkNamespace[] = [];
    const host = (side: number): string => `rwd${process.pid}-${side}`;
    const run = async (program: string, args: readonly string[]): Promise<void> => {
      const { code, output } = await runProgram(program, args);
      if (code !== 0) throw new Error(`${program} ${args.join(' ')}: ${output}`);
    };

    beforeAll(async () => {
      for (const side of [1, 2]) {
        const space = await NetworkNamespace.create(`dpdk${side}`);
        spaces.push(space);
        const peer = ['peer', 'name', 'eth0', 'netns', space.name];
        await run('ip', ['link', 'add', host(side), 'type', 'veth', ...peer]);
        // What checksums the kernel leaves to a card nobody would fill in.
        const [program, args] = space.command('ethtool', ['-K', 'eth0', 'tx', 'off']);
        await run(program, args);
        await space.ip(`addr add 198.51.100.${side}/24 dev eth0`);
        await space.ip('link set eth0 up');
        // The host answers for its own addresses on every interface otherwise.
        await run('ip', ['link', 'set', host(side), 'up', 'arp', 'off']);
      }
    });
    afterAll(async () => {
      for (const space of spaces) await space.remove();
    });

    test('stations in two namespaces talk through the switch without a loss', async () => {
      running = await Running.start({
        a: `net_af_packet0;iface=${host(1)}`,
        b: `net_af_packet1;iface=${host(2)}`,
      });
      await running.until((reports) => reports.every(({ state }) => state === 'running'));
      const node = (space: NetworkNamespace, ...args: string[]) =>
        startChild(...space.command(process.execPath, ['-e', STATION, ...args]));
      const children: Child[] = [];
      const echo = await node(spaces[1], 'echo', '198.51.100.2');
      try {
        await new Promise<void>((resolve) => echo.process.stdout.once('data', () => resolve()));
        const count = 5000;
        const client = await node(spaces[0], 'client', '198.51.100.2', String(count));
        children.push(client);
        const output = new TextLog(client.process.stdout);
        const errors = new TextLog(client.process.stderr);
        // A datagram that is lost is not sent again.
        await running.untilEnded(client);
        expect([await client.exited, errors.text]).toEqual([0, '']);
        expect(output.text.trim()).toBe(String(count));
        const ports = await running.ports();
        for (const name of ['a', 'b']) {
          expect(framesIn(ports.get(name))).toBeGreaterThanOrEqual(count);
          expect(ports.get(name)?.details).toMatchObject({
            driver: 'net_af_packet',
            statistics: { imissed: 0, rx_nombuf: 0 },
          });
        }
      } finally {
        for (const child of [...children, echo]) {
          child.kill();
          await child.exited;
        }
      }
    });

    test('TCP that the kernel leaves undone comes whole out of a device with checksums', async () => {
      const name = `rwo${process.pid}`;
      const [from, to] = spaces;
      // An address that is still being looked for elsewhere would not be the sender's.
      await run(...from.command('sysctl', ['-qw', 'net.ipv6.conf.default.dad_transmits=0']));
      running = await Running.start(
        { out: `net_tap0;iface=${name}` },
        { kernel: `tap:tap0,namespace=${from.name},addresses=203.0.113.1/24+2001:db8::1/64` },
      );
      await running.until((reports) => reports.every(({ state }) => state === 'running'));
      await run('ip', ['link', 'set', name, 'netns', to.name]);
      await to.ip(`addr add 203.0.113.2/24 dev ${name}`);
      await to.ip(`addr add 2001:db8::2/64 dev ${name} nodad`);
      await to.ip(`link set ${name} up`);
      expect((await running.ports()).get('out')?.details).toMatchObject({
        driver: 'net_tap',
        offloads: ['UDP_CKSUM', 'TCP_CKSUM'],
      });
      for (const host of ['203.0.113.2', '2001:db8::2']) {
        const before = (await running.ports()).get('kernel')!.counters;
        expect(await transferBetween(running, from, to, host)).toBe(`${TRANSFER_BYTES}`);
        const after = (await running.ports()).get('kernel')!.counters;
        const frames = after.ingressFrames - before.ingressFrames;
        expect((after.ingressBytes - before.ingressBytes) / frames).toBeGreaterThan(4000);
      }
      const [program, args] = to.command('cat', ['/proc/net/snmp']);
      const { output } = await runProgram(program, args);
      expectNoChecksumErrors(output);
    });

    test.skipIf(peers.skip)(
      peers.title('a guest behind net_vhost gets checksums that are right'),
      async () => {
        const [space] = spaces;
        const socketPath = join(folder, 'guest.sock');
        running = await Running.start(
          { out: `net_vhost0;iface=${socketPath}` },
          { kernel: `tap:tap1,namespace=${space.name},addresses=192.0.2.1/24` },
        );
        await running.until((reports) => reports.every(({ state }) => state === 'running'));
        const guest = await LinuxGuest.start({
          name: 'vhost',
          cpus: 1,
          qemuArgs: vhostUserArgs({ socketPath, mac: '52:54:00:00:00:01', queuePairs: 1, memoryMiB: 256 }),
        });
        try {
          await guest.configureNetwork('192.0.2.2/24');
          // What comes back is TCP that the guest leaves undone.
          for (const [i, direction] of [[], ['-R'], ['-u', '-b', '20M', '-l', '1400']].entries()) {
            // A server that has served one client listens anew for the next, and not at once.
            const serverPort = 5201 + i;
            await startIperf3Server(guest, serverPort);
            const client = ['-c', '192.0.2.2', '-p', String(serverPort), '-n', '4M', ...direction];
            await run(...space.command('iperf3', client));
          }
          const { details, counters } = (await running.ports()).get('out')!;
          expect(details).toMatchObject({ driver: 'net_vhost', offloads: ['UDP_CKSUM', 'TCP_CKSUM'] });
          expect(counters.egressFrames).toBeGreaterThan(4000);
          expectNoChecksumErrors(await guest.runOk('cat /proc/net/snmp'));
          const { output } = await runProgram(...space.command('cat', ['/proc/net/snmp']));
          expectNoChecksumErrors(output);
        } finally {
          await guest.stop();
        }
      },
    );

    test('an interface that goes away and comes back is taken up again', async () => {
      running = await Running.start({ a: `net_af_packet0;iface=${host(1)}`, b: 'net_ring0' });
      const stateIs = (state: string) => (reports: PortReport[]) =>
        reports.find(({ name }) => name === 'a')?.state === state;
      await running.until(stateIs('running'));
      await run('ip', ['link', 'del', host(1)]);
      await running.until(stateIs('waiting'));
      expect((await running.ports()).get('a')?.reason).toContain(`needs the interface ${host(1)}`);
      await run('ip', [
        'link',
        'add',
        host(1),
        'type',
        'veth',
        'peer',
        'name',
        'eth0',
        'netns',
        spaces[0].name,
      ]);
      await running.until(stateIs('running'));
    });
  },
);
