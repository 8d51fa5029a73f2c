/**
 * A real libvirtd, Debian's, as one finds it in docs/libvirt.md, whose XML and port settings are those of the test: both modes
 * with several queues, cards that come and go while the guest runs, a restart of Ringway, the rights of QEMU's user, and a
 * migration to another libvirtd, with a Ringway of its own.
 * Guests are Linux, emulated.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { libvirtInterface } from '../../switch/cli/guest-line.ts';
import { resolvePort } from '../../switch/config/resolve.ts';
import type { Finding } from '../../switch/doctor/findings.ts';
import { checkPorts } from '../../switch/doctor/ports.ts';
import { parsePing } from '../peers/guest-network.ts';
import { peersForTests } from '../peers/index.ts';
import { Libvirtd, type LibvirtGuest, libvirtdObstacle, QEMU_UID } from '../peers/libvirtd.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['qemu', 'libvirt']);
const obstacle = libvirtdObstacle();
const PROGRAM = fileURLToPath(new URL('../../switch/cli/ringway.js', import.meta.url));
const DOCS = documentation('libvirt');
/** Options of `virsh migrate`, as they stand in docs/migration.md. */
const MIGRATION = /^virsh migrate (.*) vm0 qemu\+ssh/m.exec(documentation('migration'))![1].split(' ');

function documentation(page: string): string {
  return readFileSync(new URL(`../../docs/${page}.md`, import.meta.url), 'utf8');
}

/** Blocks of the documentation, by a text that only they have. */
function documented(language: 'xml' | 'sh', text: string): string {
  const blocks = [...DOCS.matchAll(/```(\w+)\n([\s\S]*?)```/g)].flatMap(([, its, block]) =>
    its === language && block.includes(text) ? [block] : [],
  );
  expect(blocks, text).toHaveLength(1);
  return blocks[0];
}

/** Of a documented `ringway run --port NAME=PATH,OPTIONS`. */
function documentedPort(text: string): { readonly path: string; readonly options: string } {
  const [, path, options] = /--port \w+=([^,\s]+)(\S*)/.exec(documented('sh', text))!;
  return { path, options };
}

const LISTENING = documentedPort('ringway run --port vm0=/run/ringway/');
const CONNECTING = documentedPort('role=client');
const DOMAIN = documented('xml', '<domain');
/** The same with an interface at which QEMU listens. */
const LISTENING_DOMAIN = DOMAIN.replace('<name>vm0<', '<name>vm1<').replace(
  / *<interface [\s\S]*<\/interface>\n/,
  documented('xml', "mode='server'"),
);
const FORBIDDEN = '/run/ringway/forbidden.sock';
/** Commands, a line each. */
const PLUGGING = documented('sh', 'attach-device');

describe.skipIf(peers.skip || obstacle !== null)(
  peers.title(`libvirt${obstacle === null ? '' : ` (skipped: ${obstacle})`}`),
  () => {
    let libvirtd: Libvirtd;
    let otherHost: Libvirtd;
    let ringway: RingwayProcess;
    let otherRingway: RingwayProcess;
    let vm0: LibvirtGuest;
    let vm1: LibvirtGuest;

    beforeAll(async () => {
      [libvirtd, otherHost] = await Promise.all([Libvirtd.start('host1'), Libvirtd.start('host2')]);
      const uplink = join(libvirtd.folder, 'uplink.sock');
      const startThere = (
        where: Libvirtd,
        ports: Readonly<Record<string, readonly [socket: string, options: string]>>,
      ): Promise<RingwayProcess> =>
        RingwayProcess.start({
          ports: Object.keys(ports),
          kinds: { uplink: 'unix' },
          sockets: Object.fromEntries(Object.entries(ports).map(([name, [socket]]) => [name, socket])),
          portOptions: Object.fromEntries(
            Object.entries(ports).map(([name, [, options]]) => [name, options]),
          ),
          spawn: (args) => {
            const [program, line] = where.command(process.execPath, args);
            return spawn(program, line, { stdio: ['ignore', 'ignore', 'pipe'] });
          },
        });
      ringway = await startThere(libvirtd, {
        vm0: [LISTENING.path, LISTENING.options],
        vm1: [CONNECTING.path, CONNECTING.options],
        forbidden: [FORBIDDEN, ',mode=0660'],
        uplink: [uplink, ''],
      });
      otherRingway = await startThere(otherHost, {
        vm0: [LISTENING.path, LISTENING.options],
        uplink: [uplink, ',role=client'],
      });
    });

    afterAll(async () => {
      console.info(libvirtd?.transcript);
      await Promise.all([libvirtd?.stop(), otherHost?.stop()]);
      for (const each of [otherRingway, ringway]) expect(await each?.stop()).toBe(0);
    });

    const pinged = async (from: LibvirtGuest, address: string): Promise<void> => {
      const { sent, received } = await from.ping(address, { count: 5, intervalMs: 50 });
      libvirtd.note(`${from.name} pings ${address}: ${sent} sent, ${received} answered`);
      expect(received).toBe(sent);
    };

    /** What the doctor says of a domain; of the machine it says other things on each. */
    const doctor = async (domain: string): Promise<string[]> => {
      const args = [PROGRAM, 'doctor', '--json', '--control', ringway.controlSocket, '--libvirt', domain];
      const { output } = await libvirtd.run(process.execPath, args);
      const findings = (JSON.parse(output) as Finding[]).filter(
        ({ where }) => /^(process|domain|\/)/.test(where) && !where.startsWith(`process ${ringway.pid}:`),
      );
      return findings.flatMap(({ name, where }) => (name === 'guestOnWorker' ? [] : [`${name}: ${where}`]));
    };

    const control = (command: string, ...args: string[]): Promise<string> =>
      libvirtd.runOk(process.execPath, [PROGRAM, command, '--control', ringway.controlSocket, ...args]);

    test('waits with a guest whose user may not open the socket, and boots it when it may', async () => {
      await libvirtd.runOk('chown', ['root:root', LISTENING.path]);
      const booting = libvirtd.boot(DOMAIN);
      booting.catch(() => {});
      await ringway.until(async () => (await libvirtd.qemuLog('vm0')).includes('Permission denied'));
      const [refused] = await doctor('vm0');
      libvirtd.note(`# ringway doctor --libvirt vm0\n${refused}`);
      expect(refused).toBe(`socketPermission: ${LISTENING.path} for user ${QEMU_UID}`);
      expect(await libvirtd.virsh('list')).toMatch(/vm0 +paused/);
      await libvirtd.runOk('chown', ['libvirt-qemu:kvm', LISTENING.path]);
      vm0 = await booting;
    });

    test('boots a guest that connects, and one at which Ringway connects, both with two queues', async () => {
      vm1 = await libvirtd.boot(LISTENING_DOMAIN);
      for (const [i, guest] of [vm0, vm1].entries()) {
        await guest.runOk(`ip link set eth0 up && ip addr add 10.0.0.${i + 1}/24 dev eth0`);
        await ringway.untilState(guest.name, 'running', 2);
      }
      await libvirtd.virsh('list');
      await pinged(vm0, '10.0.0.2');
      await pinged(vm1, '10.0.0.1');
      for (const { name } of [vm0, vm1]) expect([name, ...(await doctor(name))]).toEqual([name]);
      expect(await doctor('vm9')).toEqual(['notProcess: domain vm9']);
    });

    test('plugs a card in and out again while the guest runs', async () => {
      const [, add, socket] = /^ringway add ((plugged=[^,]+)\S*)$/m.exec(PLUGGING)!;
      const [attach, detach] = [...PLUGGING.matchAll(/^virsh (.*) plugged\.xml$/gm)].map(([, line]) =>
        line.split(' '),
      );
      const xml = libvirtInterface(
        resolvePort('plugged', { socket: socket.slice('plugged='.length), queues: 1 }),
      )!;
      // What the web page shows, and a driver that is told to take no large segments.
      const takesNone = "<driver><guest tso4='off' tso6='off' ecn='off'/></driver></interface>";
      const file = await libvirtd.file('plugged.xml', xml.replace('</interface>', takesNone));
      await control('add', add);
      await libvirtd.virsh(...attach, file);
      await vm0.runOk('until [ -e /sys/class/net/eth1 ]; do sleep 0.05; done', 120_000);
      await vm0.runOk('ip link set eth1 up && ip addr add 10.0.1.1/24 dev eth1');
      await vm1.runOk('ip addr add 10.0.1.2/24 dev eth0');
      await ringway.untilState('plugged', 'running', 1);
      await pinged(vm0, '10.0.1.2');
      expect(checkPorts(await ringway.ports()).map(({ name, where }) => `${name}: ${where}`)).toContain(
        'offloadMismatch: port plugged; vm0, vm1 may send them',
      );
      await libvirtd.virsh(...detach, file);
      await vm0.runOk('until [ ! -e /sys/class/net/eth1 ]; do sleep 0.05; done', 120_000);
      await ringway.untilState('plugged', 'waiting');
      await control('remove', 'plugged');
      await pinged(vm0, '10.0.0.2');
    });

    test('carries on when Ringway was killed and is back', async () => {
      await ringway.killAndRestart();
      libvirtd.note('# Ringway was killed and started again');
      for (const { name } of [vm0, vm1]) await ringway.untilState(name, 'running', 2);
      await pinged(vm0, '10.0.0.2');
      await pinged(vm1, '10.0.0.1');
    });

    test('says why when its user may not open a socket', async () => {
      const xml = libvirtInterface(resolvePort('forbidden', { socket: FORBIDDEN, queues: 1 }))!;
      const file = await libvirtd.file('forbidden.xml', xml.replace(/<reconnect .*\/>/, ''));
      await expect(libvirtd.virsh('attach-device', 'vm0', file)).rejects.toThrow(
        `Failed to connect to '${FORBIDDEN}': Permission denied`,
      );
      await pinged(vm0, '10.0.0.2');
    });

    test('moves a guest to another host while it is pinged', async () => {
      await vm1.runOk('(ping -q -i 0.05 10.0.0.1 > /tmp/pings) > /dev/null 2>&1 &');
      vm0 = await libvirtd.migrate(vm0, otherHost, MIGRATION);
      await otherRingway.untilState('vm0', 'running', 2);
      await ringway.untilState('vm0', 'waiting');
      await pinged(vm1, '10.0.0.1');
      await pinged(vm0, '10.0.0.2');
      await vm1.runOk('killall -INT ping; while pidof ping > /dev/null; do sleep 0.05; done');
      const { sent, received } = parsePing(await vm1.runOk('cat /tmp/pings'));
      libvirtd.note(`vm1 pinged vm0 meanwhile: ${sent} sent, ${received} answered`);
      expect(received).toBeGreaterThan(0);
      expect(await libvirtd.virsh('list', '--all')).not.toContain('vm0');
      expect(await otherHost.virsh('list')).toMatch(/vm0 +running/);
    });
  },
);
