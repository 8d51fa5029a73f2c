/** The process of a guest, by its command line, its user and its threads. Forms of a user's own and of libvirt's (JSON). */
import { dirname } from 'node:path';
import type { PortReport } from '../control/report.ts';
import { type Finding, finding } from './findings.ts';
import { type FileFacts, type Host, lineOf, threadsOf } from './host.ts';

type Option = Readonly<Record<string, string>>;

const USER = 4;
const KIB = 1024;
/** Of memory-backend objects: what `share` is when it is left out. */
const SHARED_BY_DEFAULT: readonly string[] = ['memory-backend-memfd', 'memory-backend-shm'];
const WITHOUT_FILE = 'memory-backend-ram';

/** What the switch is asked about its ports; none: it does not run. */
export type GuestPorts = readonly Pick<PortReport, 'name' | 'endpoint' | 'settings'>[];

/** `workerCpus`: processors of the switch's workers. */
export function checkQemu(
  host: Host,
  pid: number,
  workerCpus: readonly number[],
  ports: GuestPorts = [],
): Finding[] {
  const where = `process ${pid}`;
  const args = host.read(`/proc/${pid}/cmdline`)?.split('\0').slice(0, -1) ?? [];
  if (args.length === 0) return [finding('notProcess', where)];
  const netdevs = optionsOf(args, 'netdev').filter(({ type }) => type === 'vhost-user');
  if (netdevs.length === 0) return [finding('noVhostUser', where)];
  const chardevs = optionsOf(args, 'chardev').filter(({ id }) =>
    netdevs.some(({ chardev }) => chardev === id),
  );
  return [
    ...memoryFindings(host, args, where),
    ...netdevs.flatMap((netdev) => [
      ...queueFindings(args, netdev, where),
      ...mtuFindings(args, netdev, chardevs, ports, where),
    ]),
    ...chardevs.flatMap((chardev) => socketFindings(host, pid, chardev, where)),
    ...placeFindings(host, pid, workerCpus, where),
    ...confinement(host, pid, where),
  ];
}

/** Values of each `-name`, whose first word without a key is its `type`. */
function optionsOf(args: readonly string[], name: string): Option[] {
  return args.flatMap((arg, i) =>
    /^--?/.test(arg) && arg.replace(/^--?/, '') === name ? [parsed(args[i + 1] ?? '')] : [],
  );
}

function parsed(text: string): Option {
  if (text.startsWith('{')) {
    try {
      const { 'qom-type': type, backend, driver, ...rest } = JSON.parse(text);
      const entries = Object.entries({
        type: type ?? backend ?? driver,
        ...rest,
        ...(rest.type && { type: rest.type }),
      });
      return Object.fromEntries(entries.map(([key, value]) => [key, String(value)]));
    } catch {
      return {};
    }
  }
  // Two commas are one that is meant.
  const parts = (text.match(/(?:[^,]|,,)+/g) ?? ['']).map((part) => part.replaceAll(',,', ','));
  const [type, ...pairs] = parts;
  const entries = (type.includes('=') ? [type, ...pairs] : pairs).map((pair) => {
    const at = pair.indexOf('=');
    return at < 0 ? [pair, 'on'] : [pair.slice(0, at), pair.slice(at + 1)];
  });
  return { type: type.includes('=') ? '' : type, ...Object.fromEntries(entries) };
}

const isOn = (value: string | undefined): boolean => value === 'on' || value === 'true' || value === 'yes';

function memoryFindings(host: Host, args: readonly string[], where: string): Finding[] {
  const backends = optionsOf(args, 'object').filter(({ type }) => type?.startsWith('memory-backend-'));
  if (backends.length === 0) return [finding('noMemoryBackend', where)];
  const used = new Set([
    ...optionsOf(args, 'numa').map(({ memdev }) => memdev),
    ...[...optionsOf(args, 'machine'), ...optionsOf(args, 'M')].map((machine) => machine['memory-backend']),
    ...optionsOf(args, 'device').map(({ memdev }) => memdev),
  ]);
  const findings = backends.flatMap(({ id, type, share }) => {
    if (!(share === undefined ? SHARED_BY_DEFAULT.includes(type) : isOn(share)))
      return [finding('notShared', `${where}, object ${id}`)];
    return type === WITHOUT_FILE ? [finding('backendWithoutFile', `${where}, object ${id}`)] : [];
  });
  if (!backends.some(({ id }) => used.has(id))) findings.push(finding('backendUnused', where));
  const folders = hugepageFolders(host);
  const onHugepages = backends.filter(
    ({ hugetlb, 'mem-path': path = '' }) =>
      isOn(hugetlb) || folders.some((folder) => path === folder || path.startsWith(`${folder}/`)),
  );
  const untouched = onHugepages.filter(({ prealloc }) => !isOn(prealloc));
  if (untouched.length > 0 && !args.includes('-mem-prealloc'))
    findings.push(...hugepageFindings(host, where));
  return findings;
}

function hugepageFolders(host: Host): string[] {
  const mounts = (host.read('/proc/mounts') ?? '').split('\n').map((line) => line.split(' '));
  return mounts.flatMap(([, folder, type]) => (type === 'hugetlbfs' ? [folder] : []));
}

/** Memory that the guest has not touched yet, and for which there is no page. */
function hugepageFindings(host: Host, where: string): Finding[] {
  const text = host.read('/proc/meminfo');
  const free = Number.parseInt(lineOf(text, 'HugePages_Free') ?? '0', 10);
  const reserved = Number.parseInt(lineOf(text, 'HugePages_Rsvd') ?? '0', 10);
  const pageMib = Number.parseInt(lineOf(text, 'Hugepagesize') ?? '0', 10) / KIB;
  return free < reserved || free === 0
    ? [finding('fewHugepages', `${where}: ${free} of ${pageMib} MiB are free, ${reserved} are promised`)]
    : [];
}

function queueFindings(args: readonly string[], netdev: Option, where: string): Finding[] {
  const queues = Number(netdev.queues ?? 1);
  if (queues <= 1) return [];
  const at = `${where}, netdev ${netdev.id}`;
  const findings = cardsOf(args, netdev).some(({ mq }) => isOn(mq)) ? [] : [finding('noMultiqueue', at)];
  const cpus = processorsOf(args);
  if (cpus !== null && cpus < queues)
    findings.push(finding('moreQueuesThanCpus', `${at}: ${queues} queues, -smp ${cpus}`));
  return findings;
}

function cardsOf(args: readonly string[], netdev: Option): Option[] {
  return optionsOf(args, 'device').filter((device) => device.netdev === netdev.id);
}

/** Those that it starts with; null: that follows from sockets and cores alone. */
function processorsOf(args: readonly string[]): number | null {
  const [smp] = optionsOf(args, 'smp');
  if (smp === undefined) return 1;
  const text = smp.cpus ?? (/^\d+$/.test(smp.type) ? smp.type : undefined);
  return text === undefined ? null : Number(text);
}

function mtuFindings(
  args: readonly string[],
  netdev: Option,
  chardevs: readonly Option[],
  ports: GuestPorts,
  where: string,
): Finding[] {
  const path = chardevs.find(({ id }) => id === netdev.chardev)?.path;
  const port = ports.find(({ endpoint }) => endpoint === path);
  const mtu = port?.settings.mtu ?? null;
  if (port === undefined || mtu === null) return [];
  return cardsOf(args, netdev).flatMap(({ host_mtu: hostMtu = '0' }) =>
    Number(hostMtu) > mtu
      ? [
          finding(
            'mtuAbovePort',
            `${where}, netdev ${netdev.id}: host_mtu=${hostMtu}; port ${port.name}: mtu ${mtu}`,
          ),
        ]
      : [],
  );
}

function socketFindings(host: Host, pid: number, chardev: Option, where: string): Finding[] {
  const { path, id } = chardev;
  // QEMU listens, or libvirt has given it a socket that is open.
  if (path === undefined || isOn(chardev.server)) return [];
  const findings =
    Number(chardev.reconnect ?? 0) > 0 || Number(chardev['reconnect-ms'] ?? 0) > 0
      ? []
      : [finding('noReconnect', `${where}, chardev ${id}`)];
  const socket = statOf(host, pid, path);
  if (socket === null) return [...findings, finding('noSocket', path)];
  const status = host.read(`/proc/${pid}/status`);
  const uid = numbersOf(status, 'Uid')[1];
  if (uid === undefined || uid === 0) return findings;
  const gids = [numbersOf(status, 'Gid')[1], ...numbersOf(status, 'Groups')];
  const may = (facts: typeof socket, bits: number): boolean => {
    const shift = facts.uid === uid ? 6 : gids.includes(facts.gid) ? 3 : 0;
    return ((facts.mode >> shift) & bits) === bits;
  };
  if (!may(socket, 2)) findings.push(finding('socketPermission', `${path} for user ${uid}`));
  // Above a path that is not from the root there is nothing to be told.
  for (let folder = dirname(path); folder !== dirname(folder); folder = dirname(folder)) {
    const facts = statOf(host, pid, folder);
    if (facts !== null && !may(facts, 1))
      findings.push(finding('socketPermission', `${folder} for user ${uid}`));
  }
  return findings;
}

/** As the process sees it, which may have another root; where that may not be looked at, as we do. */
function statOf(host: Host, pid: number, path: string): FileFacts | null {
  const folder = `/proc/${pid}/${path.startsWith('/') ? 'root' : 'cwd'}`;
  return host.stat(host.stat(folder) === null ? path : `${folder}/${path}`);
}

function numbersOf(status: string | null, key: string): number[] {
  return (lineOf(status, key) ?? '')
    .split(/\s+/)
    .filter((word) => word !== '')
    .map(Number);
}

/** The processors' threads; QEMU names them when libvirt or `debug-threads=on` asks for it. */
function placeFindings(host: Host, pid: number, workerCpus: readonly number[], where: string): Finding[] {
  const threads = threadsOf(host, pid);
  const named = threads.filter(({ name }) => /^CPU \d+\//.test(name));
  const shared = workerCpus.filter((cpu) =>
    (named.length > 0 ? named : threads).some(({ cpus }) => cpus.includes(cpu)),
  );
  return shared.length === 0 ? [] : [finding('guestOnWorker', `${where}: cpu ${shared.join(', ')}`)];
}

function confinement(host: Host, pid: number, where: string): Finding[] {
  const label = host.read(`/proc/${pid}/attr/current`)?.replace(/\0/g, '').trim() ?? '';
  const isEnforced =
    /\(enforce\)$/.test(label) ||
    (host.read('/sys/fs/selinux/enforce') === '1' && label.split(':').length >= USER);
  return isEnforced && !/:unconfined_t/.test(label) ? [finding('confined', `${where}: ${label}`)] : [];
}
