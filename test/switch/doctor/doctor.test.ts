/** The doctor on machines and guests that are put together here, each with one thing wrong. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ADVICE, type AdviceName } from '../../../src/advice.ts';
import { formatFindings } from '../../../switch/cli/doctor.ts';
import type { PortReport } from '../../../switch/control/report.ts';
import { type Finding, finding } from '../../../switch/doctor/findings.ts';
import { cpuList, type FileFacts, type Host, THIS_HOST } from '../../../switch/doctor/host.ts';
import { checkPlugins, checkPorts } from '../../../switch/doctor/ports.ts';
import { checkQemu } from '../../../switch/doctor/qemu.ts';
import { checkSystem, workerCpusOf } from '../../../switch/doctor/system.ts';
import type { PluginReport } from '../../../switch/plugin/plugin-table.ts';

const DOCS = new URL('../../../docs/', import.meta.url);
const SOCKET = '/run/ringway/vm0.sock';
const GOOD =
  `-m 4096 -smp 2 -object memory-backend-memfd,id=mem,size=4096M,share=on -numa node,memdev=mem ` +
  `-chardev socket,id=char0,path=${SOCKET},reconnect=1 ` +
  '-netdev type=vhost-user,id=net0,chardev=char0,queues=2 -device virtio-net-pci,netdev=net0,mq=on,vectors=6';
/** As libvirt 9 starts QEMU. */
const LIBVIRT =
  '-object {"qom-type":"memory-backend-memfd","id":"pc.ram","share":true,"x-use-canonical-path-for-ramblock-id":false,"size":268435456} ' +
  `-smp 2,sockets=2,cores=1,threads=1 -machine pc-q35-7.2,usb=off,memory-backend=pc.ram -chardev socket,id=charnet0,path=${SOCKET},reconnect=1 ` +
  '-netdev {"type":"vhost-user","chardev":"charnet0","queues":2,"id":"hostnet0"} ' +
  '-device {"driver":"virtio-net-pci","mq":true,"vectors":6,"netdev":"hostnet0","id":"net0"}';

type Machine = {
  readonly files?: Readonly<Record<string, string>>;
  readonly stats?: Readonly<Record<string, FileFacts>>;
};

function machine({ files = {}, stats = {} }: Machine): Host {
  return {
    read: (path) => files[path] ?? null,
    list: (path) => [
      ...new Set(
        Object.keys(files).flatMap((each) =>
          each.startsWith(`${path}/`) ? [each.slice(path.length + 1).split('/')[0]] : [],
        ),
      ),
    ],
    stat: (path) => stats[path] ?? null,
  };
}

/** A process of user 64055 that was started with these arguments; its processors' threads may use these. */
function guest(args: string, cpus = '4-7', more: Machine = {}): Host {
  return machine({
    files: {
      '/proc/9/cmdline': `qemu\0${args.split(' ').join('\0')}\0`,
      '/proc/9/status': 'Uid:\t64055\t64055\t64055\t64055\nGid:\t108\t108\t108\t108\nGroups:\t108 64055 \n',
      '/proc/9/task/9/comm': 'qemu\n',
      '/proc/9/task/9/status': 'Cpus_allowed_list:\t0-7\n',
      '/proc/9/task/10/comm': 'CPU 0/KVM\n',
      '/proc/9/task/10/status': `Cpus_allowed_list:\t${cpus}\n`,
      ...more.files,
    },
    stats: {
      [SOCKET]: { uid: 64055, gid: 108, mode: 0o660 },
      '/run/ringway': { uid: 0, gid: 0, mode: 0o755 },
      ...more.stats,
    },
  });
}

const names = (findings: readonly Finding[]): string[] => findings.map(({ name }) => name);
const ofGuest = (args: string, cpus?: string, more?: Machine): string[] =>
  names(checkQemu(guest(args, cpus, more), 9, [2, 3]));

describe('a guest', () => {
  it.each([
    ['a user', GOOD],
    ['libvirt', LIBVIRT],
  ])('that %s started well has nothing wrong', (_, args) => {
    expect(ofGuest(args)).toEqual([]);
  });

  it('may have commas in its paths, which its command line has twice', () => {
    const path = '/run/ring,way/vm0,,.sock';
    const stats = {
      [path]: { uid: 64055, gid: 108, mode: 0o660 },
      '/run/ring,way': { uid: 0, gid: 0, mode: 0o755 },
    };
    const args = GOOD.replace(SOCKET, path.replaceAll(',', ',,'));
    expect(ofGuest(args, undefined, { stats })).toEqual([]);
  });

  it.each<[AdviceName, string]>([
    ['notShared', GOOD.replace(',share=on', ',share=off')],
    ['notShared', GOOD.replace(',share=on', '').replace('memfd', 'file')],
    ['notShared', LIBVIRT.replace('"share":true', '"share":false')],
    ['backendUnused', GOOD.replace('-numa node,memdev=mem ', '')],
    ['backendUnused', LIBVIRT.replace(',memory-backend=pc.ram', '')],
    ['noMemoryBackend', GOOD.replace(/-object \S+ -numa \S+ /, '')],
    ['noReconnect', GOOD.replace(',reconnect=1', '')],
    ['notShared', LIBVIRT.replace('"share":true', '"share":false').replace('memfd', 'file')],
    ['backendWithoutFile', GOOD.replace('memory-backend-memfd', 'memory-backend-ram')],
    ['noMultiqueue', GOOD.replace(',mq=on', '')],
    ['moreQueuesThanCpus', GOOD.replace('-smp 2', '-smp 1,maxcpus=2')],
    ['moreQueuesThanCpus', GOOD.replace('-smp 2 ', '')],
    ['moreQueuesThanCpus', LIBVIRT.replace('-smp 2,', '-smp cpus=1,')],
    ['noVhostUser', GOOD.replace('type=vhost-user', 'type=user')],
    ['noSocket', GOOD.replace(SOCKET, '/run/nowhere.sock')],
  ])('with %s', (name, args) => {
    expect(ofGuest(args)).toEqual([name]);
  });

  it('has memory that is shared by default, or as many processors as queues in another form', () => {
    expect(ofGuest(GOOD.replace(',share=on', ''))).toEqual([]);
    expect(ofGuest(GOOD.replace('-smp 2', '-smp sockets=1,cores=1'))).toEqual([]);
  });

  it('sees its socket where its own root is, or its folder', () => {
    const stats = { '/proc/9/root': { uid: 0, gid: 0, mode: 0o755 } };
    expect(ofGuest(GOOD, '4', { stats })).toEqual(['noSocket']);
    const socket = { uid: 64055, gid: 108, mode: 0o660 };
    expect(ofGuest(GOOD, '4', { stats: { ...stats, [`/proc/9/root/${SOCKET}`]: socket } })).toEqual([]);
    const folder = { '/proc/9/cwd': stats['/proc/9/root'], '/proc/9/cwd/vm0.sock': socket };
    expect(ofGuest(GOOD.replace(SOCKET, 'vm0.sock'), '4', { stats: folder })).toEqual([]);
  });

  it('is told a larger MTU than its port has', () => {
    const host = guest(GOOD.replace('mq=on', 'mq=on,host_mtu=9000'));
    const mtus = (mtu: number | null, endpoint = SOCKET): string[] =>
      names(checkQemu(host, 9, [], [{ name: 'vm0', endpoint, settings: { mtu } as PortReport['settings'] }]));
    expect(mtus(1500)).toEqual(['mtuAbovePort']);
    expect(mtus(9000)).toEqual([]);
    expect(mtus(null)).toEqual([]);
    expect(mtus(1500, '/run/ringway/vm1.sock')).toEqual([]);
  });

  it('that listens itself needs no socket', () => {
    expect(ofGuest(GOOD.replace('reconnect=1', 'server=on'), '4-7', { stats: {} })).toEqual([]);
  });

  it('that may not open the socket, or a folder above it', () => {
    const root = { uid: 0, gid: 0 };
    expect(ofGuest(GOOD, '4', { stats: { [SOCKET]: { ...root, mode: 0o660 } } })).toEqual([
      'socketPermission',
    ]);
    expect(ofGuest(GOOD, '4', { stats: { [SOCKET]: { ...root, mode: 0o666 } } })).toEqual([]);
    expect(ofGuest(GOOD, '4', { stats: { [SOCKET]: { ...root, gid: 108, mode: 0o660 } } })).toEqual([]);
    expect(ofGuest(GOOD, '4', { stats: { '/run/ringway': { ...root, mode: 0o700 } } })).toEqual([
      'socketPermission',
    ]);
  });

  it('on a processor of a worker', () => {
    expect(ofGuest(GOOD, '0-2')).toEqual(['guestOnWorker']);
    expect(checkQemu(guest(GOOD, '0-7'), 9, [])).toEqual([]);
  });

  it('that a policy confines', () => {
    const apparmor = { '/proc/9/attr/current': 'libvirt-1d2c (enforce)\n' };
    expect(ofGuest(GOOD, '4', { files: apparmor })).toEqual(['confined']);
    expect(ofGuest(GOOD, '4', { files: { '/proc/9/attr/current': 'unconfined\n' } })).toEqual([]);
    const selinux = { '/proc/9/attr/current': 'system_u:system_r:svirt_t:s0:c1,c2\0' };
    expect(ofGuest(GOOD, '4', { files: selinux })).toEqual([]);
    expect(ofGuest(GOOD, '4', { files: { ...selinux, '/sys/fs/selinux/enforce': '1' } })).toEqual([
      'confined',
    ]);
  });

  it('for whose memory there are too few hugepages', () => {
    const args = GOOD.replace('memory-backend-memfd', 'memory-backend-file').replace(
      'share=on',
      'mem-path=/dev/hugepages,share=on',
    );
    const memory = (free: number, reserved: number) => ({
      '/proc/mounts': 'tmpfs /run tmpfs rw 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n',
      '/proc/meminfo': `HugePages_Total:    2048\nHugePages_Free:     ${free}\nHugePages_Rsvd:  ${reserved}\nHugepagesize:   2048 kB\n`,
    });
    expect(ofGuest(args, '4', { files: memory(100, 200) })).toEqual(['fewHugepages']);
    expect(ofGuest(args, '4', { files: memory(300, 200) })).toEqual([]);
    expect(ofGuest(args.replace('share=on', 'share=on,prealloc=on'), '4', { files: memory(0, 0) })).toEqual(
      [],
    );
  });

  it('that is not there', () => {
    expect(names(checkQemu(machine({}), 9, []))).toEqual(['notProcess']);
  });
});

describe('the machine and the switch', () => {
  const RUNNING = { pid: 7, node: '24.21.0' };
  const base = {
    '/proc/sys/kernel/osrelease': '6.1.0-13-amd64\n',
    '/proc/sys/vm/max_map_count': '65530\n',
    '/proc/sys/fs/aio-nr': '64\n',
    '/proc/sys/fs/aio-max-nr': '65536\n',
    '/proc/7/limits':
      'Limit   Soft Limit  Hard Limit  Units\nMax locked memory   65536   65536   bytes\nMax open files   65536   65536   files\n',
    '/proc/7/task/8/comm': 'poll-0\n',
    '/proc/7/task/8/status': 'Cpus_allowed_list:\t2\n',
    '/proc/7/task/9/comm': 'poll-1\n',
    '/proc/7/task/9/status': 'Cpus_allowed_list:\t3\n',
    '/sys/devices/system/cpu/isolated': '2-3\n',
    '/sys/devices/system/cpu/cpu2/cpufreq/scaling_governor': 'performance\n',
    '/sys/devices/system/cpu/cpu3/topology/thread_siblings_list': '1,3\n',
  };
  const found = (
    files: Readonly<Record<string, string>>,
    running: typeof RUNNING | null = RUNNING,
    hasDpdk = false,
  ): string[] => names(checkSystem(machine({ files: { ...base, ...files } }), running, hasDpdk));

  it('are as they should be', () => {
    expect(found({})).toEqual([]);
    expect(workerCpusOf(machine({ files: base }), 7)).toEqual([[2], [3]]);
  });

  it.each<[AdviceName, Readonly<Record<string, string>>]>([
    ['oldKernel', { '/proc/sys/kernel/osrelease': '4.19.0\n' }],
    ['fewMappings', { '/proc/sys/vm/max_map_count': '1000\n' }],
    ['noAsyncIo', { '/proc/sys/fs/aio-nr': '65536\n' }],
    ['fewDescriptors', { '/proc/7/limits': 'Max open files   1024   65536   files\n' }],
    ['notPinned', { '/proc/7/task/9/status': 'Cpus_allowed_list:\t0-7\n' }],
    ['notIsolated', { '/sys/devices/system/cpu/isolated': '2\n' }],
    ['governor', { '/sys/devices/system/cpu/cpu2/cpufreq/scaling_governor': 'powersave\n' }],
    ['siblingWorkers', { '/sys/devices/system/cpu/cpu3/topology/thread_siblings_list': '2-3\n' }],
  ])('have %s', (name, files) => {
    expect(found(files)).toEqual([name]);
  });

  it('run another Node, lock little memory, or nobody is there', () => {
    expect(found({}, { ...RUNNING, node: '26.1.0' })).toEqual(['otherNode']);
    expect(found({}, RUNNING, true)).toEqual(['lockedMemory']);
    expect(found({ '/proc/7/limits': 'Max open files 10 10 files' }, null)).toEqual([]);
  });

  it('are those where the test runs, too', () => {
    expect(() =>
      checkSystem(THIS_HOST, { pid: process.pid, node: process.versions.node }, true),
    ).not.toThrow();
    expect(cpuList('0-2,7\n')).toEqual([0, 1, 2, 7]);
  });
});

describe('a port', () => {
  const port = (name: string, change: Partial<Record<keyof PortReport, unknown>> = {}): PortReport =>
    ({
      name,
      kind: 'vhost-user',
      state: 'running',
      reason: null,
      mtu: 1500,
      queues: [],
      drops: { overMtu: 0 },
      details: { features: ['NET_GUEST_TSO4', 'NET_HOST_TSO4'] },
      ...change,
    }) as unknown as PortReport;

  it('has what its reason says, once, in the words of the table where it knows them', () => {
    const reason = `queue 0 stopped: ${ADVICE.noMemoryBackend.reason}`;
    const findings = checkPorts([
      port('a', { reason, queues: [{ reason }, { reason: null }] }),
      port('b', { reason: ADVICE.notShared.reason }),
      port('c', { reason: 'waiting for a front-end to connect' }),
      port('d'),
    ]);
    expect(names(findings)).toEqual(['noMemoryBackend', 'notShared', 'notConnected']);
    expect(findings[2].where).toBe('port c: waiting for a front-end to connect');
  });

  it('may have a plugin before it that was taken out', () => {
    const plugin = (name: string, reason: string | null): PluginReport =>
      ({ name, state: reason === null ? 'running' : 'failed', reason }) as PluginReport;
    expect(checkPlugins([plugin('well', null), plugin('acl', 'it threw')])).toEqual([
      finding('pluginFailed', 'plugin acl: it threw'),
    ]);
  });

  it('has another MTU than who sends to it', () => {
    const [found] = checkPorts([port('a', { mtu: 9000 }), port('b', { drops: { overMtu: 3 } })]);
    expect(found).toMatchObject({ name: 'mtuMismatch', where: 'port b: 3 frames; MTUs: a 9000, b 1500' });
  });

  it('has a guest that takes no large segments', () => {
    const small = port('b', { details: { features: ['NET_HOST_TSO4'] } });
    expect(names(checkPorts([port('a'), small]))).toEqual(['offloadMismatch']);
    expect(checkPorts([small])).toEqual([]);
  });
});

describe('the table of advice', () => {
  it('is that of docs/troubleshooting.md', () => {
    const text = readFileSync(new URL('troubleshooting.md', DOCS), 'utf8');
    const [, section = ''] = /## What `ringway doctor` finds\n([\s\S]*?)\n## /.exec(text) ?? [];
    const cell = (words: string): string => words.replaceAll('|', '\\|').replaceAll('<', '&lt;');
    const rows = Object.entries(ADVICE).map(
      ([name, { severity, what, why, fix }]) =>
        `| \`${name}\` | ${severity} | ${cell(what)}: ${cell(why)} | ${cell(fix)} |`,
    );
    expect(section.split('\n').filter((line) => line.startsWith('| `'))).toEqual(rows);
  });

  it('has the reasons that the same page explains', () => {
    const text = readFileSync(new URL('troubleshooting.md', DOCS), 'utf8');
    for (const advice of Object.values(ADVICE)) if ('reason' in advice) expect(text).toContain(advice.reason);
  });

  it('is told with the worst first, or that all is well', () => {
    const text = formatFindings([finding('notPinned', 'worker 0'), finding('notShared', 'process 9')]);
    expect(text).toMatch(
      /^error {4}process 9\n {9}the guest's memory is not shared\n {9}why: .*\n {9}do: {2}add share=on/,
    );
    expect(text).toContain('note     worker 0');
    expect(formatFindings([])).toBe('Nothing is wrong.\n');
  });
});
