/** The machine and the process of the switch: kernel, Node, limits, and where its workers run. */
import { isWorkerThreadName } from '../worker/thread-name.ts';
import { type Finding, finding } from './findings.ts';
import { cpuList, type Host, threadsOf } from './host.ts';

/** Of the control API's version, null: nobody answers. */
export type RunningProcess = { readonly pid: number; readonly node: string };

const KERNEL_MIN = [5, 4] as const;
const NODE_MAJOR = 24;
const FILES_MIN = 4096;
const MAPPINGS_MIN = 65_530;
const LOCKED_MIN_BYTES = 2 ** 26;
const CPU_FOLDER = '/sys/devices/system/cpu';

/** Processors of workers, by worker; one that is not pinned may use several. */
export function workerCpusOf(host: Host, pid: number): readonly (readonly number[])[] {
  return threadsOf(host, pid).flatMap(({ name, cpus }) => (isWorkerThreadName(name) ? [cpus] : []));
}

export function checkSystem(host: Host, running: RunningProcess | null, hasDpdk: boolean): Finding[] {
  return [
    ...kernelFindings(host),
    ...(running === null ? [] : processFindings(host, running, hasDpdk)),
    ...(running === null ? [] : workerFindings(host, running.pid)),
  ];
}

function kernelFindings(host: Host): Finding[] {
  const findings: Finding[] = [];
  const release = host.read('/proc/sys/kernel/osrelease')?.trim() ?? '';
  const [major = 0, minor = 0] = release.split('.').map((part) => Number.parseInt(part, 10));
  if (major < KERNEL_MIN[0] || (major === KERNEL_MIN[0] && minor < KERNEL_MIN[1]))
    findings.push(finding('oldKernel', `kernel ${release}`));
  const mappings = numberIn(host, '/proc/sys/vm/max_map_count');
  if (mappings !== null && mappings < MAPPINGS_MIN)
    findings.push(finding('fewMappings', `vm.max_map_count is ${mappings}`));
  const [used, most] = [numberIn(host, '/proc/sys/fs/aio-nr'), numberIn(host, '/proc/sys/fs/aio-max-nr')];
  if (used !== null && most !== null && used >= most)
    findings.push(finding('noAsyncIo', `fs.aio-nr is ${used} of ${most}`));
  return findings;
}

function numberIn(host: Host, path: string): number | null {
  const text = host.read(path);
  return text === null ? null : Number(text);
}

function processFindings(host: Host, { pid, node }: RunningProcess, hasDpdk: boolean): Finding[] {
  const findings: Finding[] = [];
  if (Number.parseInt(node, 10) !== NODE_MAJOR)
    findings.push(finding('otherNode', `process ${pid}: Node ${node}`));
  const limits = host.read(`/proc/${pid}/limits`);
  const files = limitIn(limits, 'Max open files');
  if (files < FILES_MIN) findings.push(finding('fewDescriptors', `process ${pid}: ${files}`));
  const locked = limitIn(limits, 'Max locked memory');
  if (hasDpdk && locked < LOCKED_MIN_BYTES)
    findings.push(finding('lockedMemory', `process ${pid}: ${locked} bytes`));
  return findings;
}

/** The one that holds; Infinity where there is none. */
function limitIn(limits: string | null, name: string): number {
  const line = limits?.split('\n').find((each) => each.startsWith(name));
  const [soft] = line?.slice(name.length).trim().split(/\s+/) ?? [];
  return soft === undefined || soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft);
}

function workerFindings(host: Host, pid: number): Finding[] {
  const findings: Finding[] = [];
  const isolated = [`${CPU_FOLDER}/isolated`, `${CPU_FOLDER}/nohz_full`].flatMap((path) =>
    cpuList(host.read(path) ?? ''),
  );
  const pinned = new Map<number, number>();
  for (const [worker, cpus] of workerCpusOf(host, pid).entries()) {
    const where = `worker ${worker}`;
    if (cpus.length !== 1) {
      findings.push(finding('notPinned', where));
      continue;
    }
    const [cpu] = cpus;
    if (!isolated.includes(cpu)) findings.push(finding('notIsolated', `${where}: cpu ${cpu}`));
    const governor = host.read(`${CPU_FOLDER}/cpu${cpu}/cpufreq/scaling_governor`)?.trim() ?? 'performance';
    if (governor !== 'performance')
      findings.push(finding('governor', `${where}: cpu ${cpu} is set to ${governor}`));
    const siblings = cpuList(host.read(`${CPU_FOLDER}/cpu${cpu}/topology/thread_siblings_list`) ?? '');
    for (const [other, otherWorker] of pinned) {
      if (siblings.includes(other))
        findings.push(
          finding('siblingWorkers', `workers ${otherWorker} and ${worker}: cpu ${other} and ${cpu}`),
        );
    }
    pinned.set(cpu, worker);
  }
  return findings;
}
