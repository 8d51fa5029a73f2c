/**
 * Rules in TypeScript for a real Linux guest in QEMU: the access list of the examples drops what it sends, by name, and is
 * reloaded under its traffic, which loses nothing by it.
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { askControl } from '../../switch/control/client.ts';
import type { PluginReport } from '../../switch/plugin/plugin-table.ts';
import { echoesOf, LinuxGuest, peersForTests, untilEchoesAnswered, vhostUserArgs } from '../peers/index.ts';
import { TestNamespace, tapUnavailable, titleWith } from '../port/tap-world.ts';
import * as P from '../switch/l2/guard/packets.ts';
import { PluginFolder } from '../switch/plugin/plugin-world.ts';
import { RawFrames } from './raw-frames.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['qemu']);
const unavailable = tapUnavailable();
const PROGRAM = fileURLToPath(new URL('../../switch/cli/ringway.js', import.meta.url));
const EXAMPLE = fileURLToPath(new URL('../../switch/plugin/examples/access-list.ts', import.meta.url));
const HOST = '10.59.0.1';
const GUEST = '10.59.0.2';
const HOST_MAC = [2, 0, 0, 0, 0, 1];
const GUEST_MAC = [0x52, 0x54, 0, 0, 0, 2];
/** A reload needs some tenths of a second, each ping ten milliseconds. */
const RELOADS = 5;
const PINGS = 600;

/** Rules that let pings pass, and UDP to one port not; `round`: so that each file is another. */
const rulesOf = (round: number): string => `allow icmp any any
allow 58 any any
deny udp any 10.0.0.99:${9000 + round}
allow udp any any:9000-9999
`;

describe.skipIf(peers.skip || unavailable !== null)(
  peers.title(titleWith('a QEMU guest whose frames pass an access list', unavailable)),
  () => {
    const namespace = new TestNamespace();
    const folder = new PluginFolder();
    let ringway: RingwayProcess;
    let guest: LinuxGuest;
    let raw: RawFrames;

    const list = async (): Promise<PluginReport> =>
      (await askControl<PluginReport[]>(ringway.controlSocket, '/v1/plugins'))[0];
    const dropped = async (): Promise<number> => (await ringway.port('vm')).drops.plugin;
    const reload = (): Promise<unknown> =>
      askControl(ringway.controlSocket, '/v1/plugins', { method: 'POST', body: {} });
    const sendUdp = (port: number): Promise<void> => {
      const packet = P.ipv4(P.ip4(GUEST), 17, P.udp(1024, port));
      return raw.send([...HOST_MAC, ...GUEST_MAC, 8, 0, ...packet, ...new Array<number>(18).fill(0)]);
    };

    beforeAll(async () => {
      namespace.add();
      folder.write('rules', rulesOf(0));
      const tap = `tap:tap0,namespace=${namespace.name},mac=02:00:00:00:00:01,addresses=${HOST}/24,plugins=none`;
      const plugin = `${EXAMPLE},as=access,rules=${join(folder.path, 'rules')}`;
      ringway = await RingwayProcess.start({
        ports: ['vm'],
        args: ['--port', `host=${tap}`, '--plugin', plugin],
      });
      const socketPath = ringway.socket('vm');
      const qemuArgs = vhostUserArgs({ socketPath, mac: '52:54:00:00:00:02', queuePairs: 1, memoryMiB: 256 });
      guest = await LinuxGuest.start({ name: 'guest', qemuArgs });
      await guest.configureNetwork(`${GUEST}/24`);
      expect((await guest.ping(HOST)).received).toBe(5);
      raw = await RawFrames.prepare(guest, 'eth0');
    });

    afterAll(async () => {
      await guest?.stop();
      try {
        expect(await ringway?.stop()).toBe(0);
      } finally {
        namespace.remove();
        folder.close();
      }
    });

    test('drops what a rule denies and what none is about, each by its name', async () => {
      const before = await dropped();
      await sendUdp(9000);
      await ringway.until(async () => (await dropped()) === before + 1);
      await sendUdp(53);
      await ringway.until(async () => (await dropped()) === before + 2);
      await sendUdp(9001);
      const frames = async (name: string): Promise<number | undefined> =>
        (await list()).drops.find((drop) => drop.name === name)?.frames;
      expect(await frames('denied')).toBe(1);
      expect(await frames('unlisted')).toBe(1);
      const options = {
        encoding: 'utf8',
        env: { ...process.env, RINGWAY_CONTROL: ringway.controlSocket },
      } as const;
      const shown = (...args: string[]): string =>
        execFileSync(process.execPath, [PROGRAM, ...args], options);
      expect(shown('ports')).toMatch(/^ {2}dropped \d+: sent a frame that a plugin dropped .*\(plugin\)$/m);
      expect(shown('plugin', 'list')).toMatch(
        /^ {2}dropped 1: sent a frame that a rule of the access list denies \(denied\)$/m,
      );
    });

    test('is reloaded under traffic without losing any of it', { timeout: 240_000 }, async () => {
      const echoesBefore = await echoesOf(guest);
      const droppedBefore = await ringway.dropped();
      const before = (await list()).frames;
      let isPinging = true;
      const pinging = guest.ping(HOST, { count: PINGS, intervalMs: 10, waitS: 10 }).finally(() => {
        isPinging = false;
      });
      pinging.catch(() => {});
      await ringway.until(async () => (await list()).frames > before + 5);
      for (let round = 1; round <= RELOADS; round++) {
        writeFileSync(join(folder.path, 'rules'), rulesOf(round));
        await reload();
        const { frames, reloads } = await list();
        expect(reloads).toBe(round);
        // Traffic passes the new code before the next one comes, unless a slow machine has let it end before.
        await ringway.until(async () => !isPinging || (await list()).frames > frames);
      }
      expect((await pinging).sent).toBe(PINGS);
      // By the guest's kernel: ping itself may miss some while it does not run.
      expect(await untilEchoesAnswered(guest, echoesBefore)).toEqual({ sent: PINGS, answered: PINGS });
      expect(await ringway.dropped()).toBe(droppedBefore);
      // The last rules hold.
      await sendUdp(9000 + RELOADS);
      await ringway.until(async () => (await ringway.dropped()) === droppedBefore + 1);
      expect((await list()).state).toBe('running');
    });
  },
);
