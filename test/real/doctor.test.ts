/**
 * The doctor at real QEMUs that were started well and not so well: what it says of their command lines is what the port says when
 * the firmware brings the card up, and nothing is said of one that works. Guests of libvirt: libvirt.test.ts.
 */
import { execFile } from 'node:child_process';
import { chmodSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { AdviceName } from '../../src/advice.ts';
import type { Finding } from '../../switch/doctor/findings.ts';
import { temporaryFolder } from '../peers/child.ts';
import { findProgram, peersForTests, startChild } from '../peers/index.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['qemu']);
const PROGRAM = fileURLToPath(new URL('../../switch/cli/ringway.js', import.meta.url));
const MIB = 64;
const MTU = 1500;
/** A user who may open nothing of ours. */
const NOBODY = '65534';

const BACKEND = `-object memory-backend-memfd,id=mem,size=${MIB}M,share=on`;
const NUMA = '-numa node,memdev=mem';
const CHARDEV = '-chardev socket,id=char0,path=SOCKET,reconnect=1';
const CARD = '-netdev vhost-user,id=net0,chardev=char0 -device virtio-net-pci,netdev=net0';
const GOOD = [BACKEND, NUMA, CHARDEV, CARD].join(' ');
const TWO_QUEUES =
  '-smp 2 -netdev vhost-user,id=net0,chardev=char0,queues=2 -device virtio-net-pci,netdev=net0';

type Case = {
  readonly title: string;
  readonly line: string;
  readonly found: readonly AdviceName[];
  /** Of the port, once the card is up. */
  readonly port: AdviceName | null;
};

const CASES: readonly Case[] = [
  { title: 'all as it should be', line: GOOD, found: [], port: null },
  { title: 'memory that is shared by default', line: GOOD.replace(',share=on', ''), found: [], port: null },
  {
    title: 'the memory by -machine',
    line: GOOD.replace(NUMA, '-machine pc,memory-backend=mem'),
    found: [],
    port: null,
  },
  {
    title: 'options as JSON',
    line: `${NUMA} ${CHARDEV} -object {"qom-type":"memory-backend-memfd","id":"mem","size":${MIB * 2 ** 20},"share":true} -netdev {"type":"vhost-user","id":"net0","chardev":"char0"} -device {"driver":"virtio-net-pci","netdev":"net0"}`,
    found: [],
    port: null,
  },
  {
    title: 'no share=on',
    line: GOOD.replace('memfd', 'file').replace(',share=on', ',mem-path=FILE'),
    found: ['notShared'],
    port: 'notShared',
  },
  {
    title: 'memory that has no file',
    line: GOOD.replace('memory-backend-memfd', 'memory-backend-ram'),
    found: ['backendWithoutFile'],
    port: 'noMemoryBackend',
  },
  { title: 'no backend', line: `${CHARDEV} ${CARD}`, found: ['noMemoryBackend'], port: 'noMemoryBackend' },
  {
    title: 'no -numa',
    line: GOOD.replace(NUMA, ''),
    found: ['backendUnused'],
    port: 'noMemoryBackend',
  },
  {
    title: 'no reconnect',
    line: GOOD.replace(',reconnect=1', ''),
    found: ['noReconnect'],
    port: null,
  },
  {
    title: 'two queues and no mq=on',
    line: GOOD.replace(CARD, TWO_QUEUES),
    found: ['noMultiqueue'],
    port: null,
  },
  {
    title: 'two queues and one processor',
    line: GOOD.replace(CARD, `${TWO_QUEUES},mq=on,vectors=6`).replace('-smp 2 ', ''),
    found: ['moreQueuesThanCpus'],
    port: null,
  },
  {
    title: 'a larger MTU than its port has',
    line: `${GOOD},host_mtu=9000`,
    found: ['mtuAbovePort'],
    port: null,
  },
  {
    title: 'more queues than its port has',
    line: GOOD.replace(CARD, `${TWO_QUEUES},mq=on,vectors=6`)
      .replace('-smp 2', '-smp 4')
      .replace('queues=2', 'queues=4'),
    found: [],
    port: 'fewQueues',
  },
];

describe.skipIf(peers.skip)(peers.title('ringway doctor at a QEMU'), () => {
  let ringway: RingwayProcess;

  beforeAll(async () => {
    ringway = await RingwayProcess.start({
      ports: ['vm0'],
      portOptions: { vm0: `,mtu=${MTU},queues=2` },
    });
  });

  afterAll(async () => {
    expect(await ringway?.stop()).toBe(0);
  });

  const doctor = async (pid: number): Promise<Finding[]> => {
    const args = [PROGRAM, 'doctor', '--json', '--control', ringway.controlSocket, '--qemu-pid', String(pid)];
    // Its exit code tells of the machine, too.
    const { stdout } = await promisify(execFile)(process.execPath, args).catch(
      (error: { stdout: string }) => error,
    );
    return (JSON.parse(stdout) as Finding[]).filter(
      ({ where, name }) =>
        /^(process \d+,?|\/)/.test(where) &&
        !where.startsWith(`process ${ringway.pid}:`) &&
        name !== 'guestOnWorker',
    );
  };

  const start = async (line: string, program: readonly string[] = []): Promise<number> => {
    const { path, remove } = await temporaryFolder('ringway-doctor-');
    const words = line.replace('SOCKET', ringway.socket('vm0')).replace('FILE', `${path}/memory`).split(' ');
    const [first, ...rest] = [...program, findProgram('qemu-system-x86_64')!];
    const fixed = ['-nodefaults', '-display', 'none', '-accel', 'tcg', '-m', String(MIB)];
    const qemu = await startChild(first, [...rest, ...fixed, ...words.filter((word) => word !== '')]);
    onTestFinished(async () => {
      qemu.kill();
      await qemu.exited;
      await remove();
      await ringway.untilState('vm0', 'waiting');
    });
    return qemu.pid;
  };

  test.each(CASES)('with $title', async ({ line, found, port }) => {
    const pid = await start(line);
    await ringway.until(async () => {
      const { state, advice } = await ringway.port('vm0');
      return port === null ? state !== 'waiting' && advice === null : advice?.name === port;
    });
    expect((await doctor(pid)).map(({ name }) => name)).toEqual(found);
  });

  test('as a user who may not open the socket, and then its folder', async () => {
    chmodSync(ringway.folder, 0o755);
    const pid = await start(GOOD, ['setpriv', '--reuid', NOBODY, '--regid', NOBODY, '--clear-groups']);
    const forbidden = (path: string): unknown =>
      expect.objectContaining({ name: 'socketPermission', where: `${path} for user ${NOBODY}` });
    await ringway.until(async () => isQemuOf(pid, NOBODY));
    const socket = forbidden(ringway.socket('vm0'));
    expect(await doctor(pid)).toEqual([socket]);
    chmodSync(ringway.folder, 0o700);
    expect(await doctor(pid)).toEqual([socket, forbidden(ringway.folder)]);
  });
});

/** `setpriv` becomes another user and then QEMU. */
function isQemuOf(pid: number, user: string): boolean {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return status.startsWith('Name:\tqemu') && status.includes(`\nUid:\t${user}\t`);
}
