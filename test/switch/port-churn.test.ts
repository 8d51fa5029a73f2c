/**
 * A whole switch with real workers and a real control API whose ports come and go at random: eight clients add and
 * remove ports of every kind that can be had here, under few names so that they meet, and guests come to these ports
 * and leave. Two other ports carry frames all the time and must not lose one. Nothing may be left. The long form, as
 * many changes as it says: RINGWAY_CHURN=10000.
 */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { formatMac, macHiOf, macLoOf } from '../../protocol/ethernet.ts';
import { BackEndError, EmbeddedGuest } from '../../src/frontend/index.ts';
import { allowedCpus } from '../../src/host/affinity.ts';
import { closeFd } from '../../src/host/descriptor.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { bindDatagram, connectUnix, listenUnix, send } from '../../src/host/unix-socket.ts';
import { settingsOf } from '../../switch/cli/options.ts';
import { resolveConfig } from '../../switch/config/resolve.ts';
import { controlApi } from '../../switch/control/api.ts';
import { askControl } from '../../switch/control/client.ts';
import { ControlError } from '../../switch/control/control-error.ts';
import type { FdbReport, PortReport } from '../../switch/control/report.ts';
import { serveControl } from '../../switch/control/serve.ts';
import { createLogger } from '../../switch/log.ts';
import { Switch } from '../../switch/switch.ts';
import { whyNoDpdk } from '../dpdk/dpdk-here.ts';
import { openedSince, openFds } from '../host/open-fds.ts';
import { TestNamespace, tapUnavailable } from '../port/tap-world.ts';
import { pcapFile } from '../protocol/naive-capture.ts';
import { Random } from '../vring/random.ts';

const CHANGES = Number(process.env.RINGWAY_CHURN ?? 300);
const CLIENTS = 8;
const NAMES = Array.from({ length: 10 }, (_, i) => `p${i}`);
const WINDOW_FRAMES = 16;
const FRAME_BYTES = 100;
const TEST_ETHERTYPE = 0x88b5;
const noTap = tapUnavailable();
const noDpdk = whyNoDpdk();
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const macOf = (number: number): Uint8Array => Uint8Array.of(2, 0, 0, 0, 0xee, number);
const A = macOf(0xa);
const B = macOf(0xb);
/** Of the guest of port `p0` and so on. */
const guestMacOf = (name: string): Uint8Array => macOf(0x20 + NAMES.indexOf(name));

function frameOf(to: Uint8Array, from: Uint8Array, sequence: number): Uint8Array {
  const frame = new Uint8Array(FRAME_BYTES).fill(sequence & 0xff);
  frame.set(to);
  frame.set(from, 6);
  const view = new DataView(frame.buffer);
  view.setUint16(12, TEST_ETHERTYPE);
  view.setUint32(14, sequence);
  return frame;
}

/** One direction: frames in order, a window of them on their way. */
class Stream {
  sent = 0;
  received = 0;
  /** What came although another was next, or damaged. */
  readonly wrong: string[] = [];
  readonly #from: EmbeddedGuest;
  readonly #fromMac: Uint8Array;
  readonly #to: EmbeddedGuest;
  readonly #toMac: Uint8Array;

  constructor(from: EmbeddedGuest, fromMac: Uint8Array, to: EmbeddedGuest, toMac: Uint8Array) {
    this.#from = from;
    this.#fromMac = fromMac;
    this.#to = to;
    this.#toMac = toMac;
  }

  sendMore(): void {
    while (this.sent - this.received < WINDOW_FRAMES) {
      if (!this.#from.send(frameOf(this.#toMac, this.#fromMac, this.sent))) return;
      this.sent++;
    }
  }

  take(): void {
    for (let frame = this.#to.receive(); frame !== null; frame = this.#to.receive()) {
      // Others' frames are flooded here too.
      if (Buffer.compare(frame.subarray(0, 6), this.#toMac) !== 0) continue;
      const expected = frameOf(this.#toMac, this.#fromMac, this.received);
      if (Buffer.compare(frame, expected) !== 0)
        this.wrong.push(`${this.received}: ${Buffer.from(frame).toString('hex')}`);
      this.received++;
    }
  }
}

describe('ports that come and go at random', () => {
  const namespace = noTap === null ? new TestNamespace() : null;
  let folder: string;
  let others: number[];

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'ringway-churn-'));
    namespace?.add();
    const frames = [1, 2, 3].map((number) => frameOf(new Uint8Array(6).fill(0xff), macOf(0x50), number));
    // A live station is among the senders: it must stay where it lives.
    frames.push(frameOf(macOf(0x51), A, 0));
    const packets = frames.map((data) => ({ seconds: 1, fraction: 0, data }));
    writeFileSync(path('in.pcap'), pcapFile(true, 0xa1b2c3d4, packets));
    others = [listenUnix(path('listening')), bindDatagram(path('peer'))];
  });

  afterAll(() => {
    for (const fd of others) closeFd(fd);
    namespace?.remove();
    rmSync(folder, { recursive: true, force: true });
  });

  const path = (name: string): string => join(folder, name);

  const kinds: ((name: string) => object)[] = [
    (name) => ({ socket: path(`${name}.sock`) }),
    (name) => ({ socket: path(`${name}.sock`), queues: '4' }),
    () => ({ socket: path('listening'), role: 'client' }),
    (name) => ({ kind: 'unix', socket: path(`${name}.sock`) }),
    () => ({ kind: 'unix', socket: path('listening'), role: 'client' }),
    (name) => ({ kind: 'unix', socket: path(`${name}.sock`), transport: 'dgram', peer: path('peer') }),
    (name) => ({ kind: 'pcap', file: path(`${name}.out`) }),
    (name) => ({ kind: 'pcap', file: path(`${name}.out`), mirror: ['a', 'p1'] }),
    () => ({ kind: 'pcap', file: path('in.pcap'), direction: 'read', pace: 'full' }),
    ...(namespace === null
      ? []
      : [(name: string) => ({ kind: 'tap', interface: `rw${name}`, namespace: namespace.name })]),
    ...(noDpdk === null
      ? [(name: string) => ({ kind: 'dpdk', device: `net_null${name.slice(1)},no-rx=1`, eal: '--no-huge' })]
      : []),
  ];

  it(`leave nothing, and no frame of others is lost, over ${CHANGES} changes` +
    `${noTap === null ? '' : ` (no tap: ${noTap})`}${noDpdk === null ? '' : ` (no dpdk: ${noDpdk})`}`, {
    timeout: 60_000 + 200 * CHANGES,
  }, async () => {
    descriptorLoop();
    const random = new Random(9);
    const cpus = allowedCpus().slice(0, 2).join(',');
    const port = [`a=${path('a.sock')}`, `b=${path('b.sock')}`];
    const config = resolveConfig([settingsOf({ port, cpus, control: 'none' })]);
    const running = await Switch.start(config, createLogger('silent'));
    const failed = running.failed.catch((error: unknown) => error);
    let hasFailed: unknown = null;
    void failed.then((error) => {
      hasFailed = error;
    });
    const control = path('control.sock');
    const server = await serveControl(control, controlApi(running, '1'));
    const a = await EmbeddedGuest.connect({ socketPath: path('a.sock'), waitMs: 10_000 });
    const b = await EmbeddedGuest.connect({ socketPath: path('b.sock'), waitMs: 10_000 });
    const streams = [new Stream(a, A, b, B), new Stream(b, B, a, A)];
    try {
      // What the process keeps for itself from the first port of a kind on is no leak of the second.
      for (const [i, kind] of kinds.entries()) {
        await askControl(control, `/v1/ports/p${i % 10}`, { method: 'PUT', body: kind(`p${i % 10}`) });
        await askControl(control, `/v1/ports/p${i % 10}`, { method: 'DELETE' });
      }
      await ask(control, '/v1/fdb');
      const before = openFds();
      let isChurning = true;
      const traffic = (async () => {
        const hasLeft = () => streams.every(({ sent, received }) => sent === received);
        while ((isChurning || !hasLeft()) && hasFailed === null) {
          for (const stream of streams) {
            stream.take();
            if (isChurning) stream.sendMore();
          }
          await turn();
        }
      })();
      const counts = await churn(control, random);
      isChurning = false;
      await traffic;
      for (const name of NAMES) {
        const answer = await ask(control, `/v1/ports/${name}`, { method: 'DELETE' });
        expect([200, 404]).toContain(answer);
      }
      expect(hasFailed).toBeNull();
      const reports = await askControl<PortReport[]>(control, '/v1/ports');
      expect(reports.map(({ name }) => name)).toEqual(['a', 'b']);
      for (const [i, { sent, received, wrong }] of streams.entries()) {
        expect({ i, received, wrong }).toEqual({ i, received: sent, wrong: [] });
        expect(sent).toBeGreaterThan(CHANGES);
      }
      for (const { name, drops } of reports) {
        const lost = Object.entries(drops).filter(([, count]) => count > 0);
        expect({ name, lost }).toEqual({ name, lost: [] });
      }
      const { entries } = await askControl<FdbReport>(control, '/v1/fdb');
      expect(entries.map((entry) => entry.port).sort()).toEqual(['a', 'b']);
      const left = readdirSync(folder).filter((name) => !/\.out$/.test(name));
      expect(left.sort()).toEqual(['a.sock', 'b.sock', 'control.sock', 'in.pcap', 'listening', 'peer']);
      // Connections of the control API end after their answers.
      await vi.waitFor(() => expect(openedSince(before)).toEqual([]));
      if (namespace !== null) expect(namespace.ip('-br link')).not.toMatch(/\brw/);
      // Requests met: some were refused, and many were done.
      for (const status of [200, 201, 400, 404, 409])
        expect(counts.get(status), `${status}`).toBeGreaterThan(0);
    } finally {
      a.close();
      b.close();
      await server.close();
      await running.stop();
    }
  });

  /** How often each status was answered. */
  async function churn(control: string, random: Random): Promise<Map<number, number>> {
    const counts = new Map<number, number>();
    let begun = 0;
    let isOver = false;
    const client = async (): Promise<void> => {
      while (begun++ < CHANGES) {
        const name = random.pick(NAMES);
        const change = random.chance(55)
          ? { method: 'PUT' as const, body: random.pick(kinds)(name) }
          : { method: 'DELETE' as const };
        const status = await ask(control, `/v1/ports/${name}`, change);
        counts.set(status, (counts.get(status) ?? 0) + 1);
        for (let turns = random.between(0, 6); turns > 0; turns--) await turn();
      }
    };
    const visitors = Array.from({ length: 2 }, async () => {
      while (!isOver) {
        await visit(random.pick(NAMES), random);
        await checkHomes(control);
      }
    });
    await Promise.all(Array.from({ length: CLIENTS }, client));
    isOver = true;
    await Promise.all(visitors);
    return counts;
  }

  /** A peer of whatever port has that name now: one that only connects, or a guest that speaks up. */
  async function visit(name: string, random: Random): Promise<void> {
    await turn();
    try {
      if (random.chance(50)) {
        const fd = connectUnix(path(`${name}.sock`));
        try {
          for (let turns = random.between(0, 4); turns > 0; turns--) await turn();
          if (random.chance(30)) send(fd, random.bytes(12));
        } finally {
          closeFd(fd);
        }
        return;
      }
      const guest = await EmbeddedGuest.connect({
        socketPath: path(`${name}.sock`),
        waitMs: 0,
        ringSize: 16,
      });
      for (let count = random.between(1, 4); count > 0; count--) {
        guest.send(frameOf(new Uint8Array(6).fill(0xff), guestMacOf(name), count));
        await turn();
      }
      guest.close();
    } catch (error) {
      // There is none, it is of another kind, or it is just being removed.
      const isExpected = error instanceof BackEndError || (error instanceof Error && 'code' in error);
      if (!isExpected) throw error;
    }
  }

  /** A guest is known behind the port that it came to, never behind the next one of that number. */
  async function checkHomes(control: string): Promise<void> {
    const { entries } = await askControl<FdbReport>(control, '/v1/fdb');
    const homes = new Map(
      [...NAMES.map((name) => [guestMacOf(name), name] as const), [A, 'a'] as const, [B, 'b'] as const].map(
        ([mac, name]) => [formatMac(macLoOf(mac), macHiOf(mac)), name],
      ),
    );
    for (const { mac, port } of entries) {
      const home = homes.get(mac);
      // `#7`: it was forgotten meanwhile, and the table is about to be.
      if (home !== undefined && !port.startsWith('#')) expect(port, mac).toBe(home);
    }
  }

  /** The status of the answer. */
  async function ask(
    control: string,
    what: string,
    change?: { method: 'PUT' | 'DELETE'; body?: unknown },
  ): Promise<number> {
    try {
      await askControl(control, what, change);
      return change?.method === 'PUT' ? 201 : 200;
    } catch (error) {
      const status = error instanceof ControlError ? error.status : null;
      if (status === null || status === 500) throw error;
      return status;
    }
  }
});
