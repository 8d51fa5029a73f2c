/**
 * Snooping with hosts whose groups the kernel keeps: three network namespaces, each behind a TAP port; their sockets join
 * and leave, the kernel says so by IGMPv3 and MLDv2, and answers this switch's own questions.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { askControl } from '../../switch/control/client.ts';
import type { PortReport } from '../../switch/control/report.ts';
import type { MdbReport } from '../../switch/snooping/report.ts';
import { type Child, startChild } from '../peers/index.ts';
import { TestNamespace, tapUnavailable, titleWith } from '../port/tap-world.ts';
import { expectBalancedBooks } from './books.ts';

const unavailable = tapUnavailable();
const PROGRAM = fileURLToPath(new URL('../../switch/cli/main.ts', import.meta.url));
const ASK_AGAIN_MS = 20;
const UDP_PORT = 5007;
const DATAGRAMS = 200;
const COUNTED = 'counted';
const NAMES = ['a', 'b', 'c'] as const;

/** A socket that joins, counts what it gets of what is to be counted, and leaves when its input ends. */
const MEMBER = `
const [family, group, device] = process.argv.slice(1);
const socket = require('node:dgram').createSocket({ type: family, reuseAddr: true });
let count = 0;
socket.on('message', (bytes) => console.log(String(bytes) === '${COUNTED}' ? 'got ' + ++count : 'reached'));
socket.bind(${UDP_PORT}, () => {
  socket.addMembership(group, device);
  console.log('joined');
});
process.stdin.on('end', () => {
  socket.dropMembership(group, device);
  socket.close(() => process.exit(0));
}).resume();
`;

const SENDER = `
const [family, group, device, text, datagrams] = process.argv.slice(1);
const socket = require('node:dgram').createSocket(family);
socket.bind(0, async () => {
  socket.setMulticastInterface(device);
  socket.setMulticastTTL(4);
  for (let n = 0; n < Number(datagrams); n++)
    await new Promise((resolve) => socket.send(text, ${UDP_PORT}, group, () => setTimeout(resolve, 1)));
  socket.close();
});
`;

describe.skipIf(unavailable !== null)(titleWith('groups of hosts by TAP ports', unavailable), () => {
  const namespaces = NAMES.map(() => new TestNamespace());
  const log: string[] = [];
  let folder: string;
  let ringway: Child;
  const children: Child[] = [];

  const control = (): string => join(folder, 'control.sock');
  const port = (name: string): Promise<PortReport> => askControl<PortReport>(control(), `/v1/ports/${name}`);
  const mdb = (): Promise<MdbReport> => askControl<MdbReport>(control(), '/v1/mdb');

  async function until(what: string, holds: () => Promise<boolean>, timeoutMs = 60_000): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (!(await holds().catch(() => false))) {
      if (ringway.hasExited()) throw new Error(`Ringway ended, ${ringway.howItEnded()}: ${log.join('')}`);
      if (performance.now() > deadline) {
        const seen = await Promise.all([mdb(), askControl(control(), '/v1/ports')]);
        throw new Error(`not so: ${what}; ${JSON.stringify(seen)}\n${log.join('')}`);
      }
      await delay(ASK_AGAIN_MS);
    }
  }

  const membersOf = async (group: string): Promise<string[]> =>
    (await mdb()).groups.filter((each) => each.group === group).map((each) => each.port);

  async function runIn(at: number, program: string, args: readonly string[]): Promise<Child> {
    const [command, ...rest] = namespaces[at].exec(process.execPath, '-e', program, ...args);
    const child = await startChild(command!, rest);
    children.push(child);
    return child;
  }

  beforeAll(async () => {
    for (const namespace of namespaces) namespace.add({ ipv6: true });
    folder = mkdtempSync(join(tmpdir(), 'ringway-multicast-'));
    const ports = NAMES.flatMap((name, i) => [
      '--port',
      `${name}=tap:tap0,namespace=${namespaces[i].name},mac=02:00:00:00:00:0${i + 1},addresses=10.66.0.${i + 1}/24+fd66::${i + 1}/64`,
    ]);
    const options = ['--snooping', '--flood-unregistered', 'off', '--querier', '10.66.0.254+fe80::fe'];
    ringway = await startChild(process.execPath, [
      PROGRAM,
      'run',
      ...ports,
      ...options,
      '--control',
      control(),
    ]);
    ringway.process.stdout.resume();
    ringway.process.stderr.on('data', (data) => log.push(String(data)));
    for (const name of NAMES)
      await until(`port ${name} runs`, async () => (await port(name)).state === 'running');
    // An address is held back at first, to see whether others have it.
    for (const namespace of namespaces)
      while (namespace.ip('-6 addr show tap0 tentative') !== '') await delay(ASK_AGAIN_MS);
  });

  afterAll(async () => {
    for (const child of children) if (!child.hasExited()) child.process.kill('SIGKILL');
    try {
      if (ringway !== undefined) await expectBalancedBooks(control());
    } finally {
      ringway?.process.kill('SIGTERM');
      await ringway?.exited;
      for (const namespace of namespaces) namespace.remove();
      if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    }
  });

  // First: the switch asks at its start, and not soon again.
  test('the kernel answers when this switch asks', async () => {
    const member = await runIn(1, MEMBER, ['udp4', '239.66.7.7', '10.66.0.2']);
    // It says so a second time by itself, within two seconds.
    const isSilent = async (): Promise<boolean> =>
      (await mdb()).groups.some(({ group, ageSeconds }) => group === '239.66.7.7' && ageSeconds >= 3);
    await until('who joined is silent', isSilent);
    await askControl(control(), '/v1/mdb', { method: 'DELETE' });
    expect(await membersOf('239.66.7.7')).toEqual([]);
    // The second of the questions at the start comes after half a minute, and hosts answer within ten seconds; the next one
    // comes after two minutes more, should a slow machine have let that one pass.
    const isBack = async (): Promise<boolean> => (await membersOf('239.66.7.7')).includes('b');
    await until('who joined answered', isBack, 200_000);
    const { queriers } = await mdb();
    expect(queriers.map(({ address, port: from }) => [address, from])).toEqual([
      ['10.66.0.254', null],
      ['fe80::fe', null],
    ]);
    member.process.stdin.end();
    await member.exited;
  });

  test.each([
    ['udp4', '239.66.1.2', '10.66.0.1', '10.66.0.3'],
    ['udp6', 'ff05::66:12', '::%tap0', '::%tap0'],
  ])(
    '%s: who joined gets all, who did not gets nothing, and who left is out',
    async (family, group, memberAt, senderAt) => {
      const member = await runIn(0, MEMBER, [family, group, memberAt]);
      const said: string[] = [];
      createInterface({ input: member.process.stdout }).on('line', (line) => said.push(line));
      member.process.stderr.on('data', (data) => log.push(String(data)));
      await until('somebody joined', async () => (await membersOf(group)).length > 0);
      expect(await membersOf(group)).toEqual(['a']);
      const send = async (text: string, datagrams: number): Promise<void> => {
        await (await runIn(2, SENDER, [family, group, senderAt, text, `${datagrams}`])).exited;
      };
      // The main thread knows of a member a moment before the worker does.
      await until('who joined is reached', async () => {
        await send('first', 1);
        return said.includes('reached');
      });
      const before = await port('b');
      await send(COUNTED, DATAGRAMS);
      await until('who joined got all', async () => said.at(-1) === `got ${DATAGRAMS}`);
      const after = await port('b');
      expect(after.counters.egressFrames - before.counters.egressFrames).toBeLessThan(DATAGRAMS / 2);
      // The switch asks who else is there, and nobody answers.
      member.process.stdin.end();
      await until('nobody is left', async () => (await membersOf(group)).length === 0);
      const dropped = async (): Promise<number> => (await port('c')).drops.noMember;
      const droppedBefore = await dropped();
      await until('nobody is reached', async () => {
        await send('first', 1);
        return (await dropped()) > droppedBefore;
      });
      const droppedFirst = await dropped();
      await send(COUNTED, DATAGRAMS);
      // The kernel has them all by then, and Ringway is yet to take the last ones.
      await until('all was dropped', async () => (await dropped()) >= droppedFirst + DATAGRAMS);
      expect(said.at(-1)).toBe(`got ${DATAGRAMS}`);
    },
  );
});
