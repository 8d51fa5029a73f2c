/** `ringway doctor`: looks at the machine, the running switch and a guest's process for what keeps frames from flowing well. */
import type { Command } from 'commander';
import { printable } from '../../src/host/printable.ts';
import type { VersionReport } from '../control/api.ts';
import { askControl } from '../control/client.ts';
import { ControlError } from '../control/control-error.ts';
import type { PortReport } from '../control/report.ts';
import { type Finding, finding } from '../doctor/findings.ts';
import { type Host, THIS_HOST } from '../doctor/host.ts';
import { checkPlugins, checkPorts } from '../doctor/ports.ts';
import { checkQemu } from '../doctor/qemu.ts';
import { checkSystem, workerCpusOf } from '../doctor/system.ts';
import type { PluginReport } from '../plugin/plugin-table.ts';
import { type AskOptions, addAskOptions } from './ask-options.ts';
import { CliError, EXIT } from './cli-error.ts';
import { findControl } from './running.ts';
import { jsonText } from './table.ts';

type Running = {
  readonly version: VersionReport;
  readonly ports: readonly PortReport[];
  readonly plugins: readonly PluginReport[];
};
type Options = AskOptions & { readonly qemuPid?: string; readonly libvirt?: string };

const DETAILS = `
Without a guest's process it looks at the machine and at the running ringway;
without one of those at the machine alone.

Exit codes: 0 nothing is wrong, 1 something is (errors and warnings, not notes),
2 as always.

Examples:
  ringway doctor
  ringway doctor --qemu-pid $(pgrep -f 'qemu-system.*vm0.sock')
  ringway doctor --libvirt vm0`;
/** Where libvirt notes the process of a domain: of the system, and of a session. */
const PID_FOLDERS = ['/run/libvirt/qemu', `/run/user/${process.getuid?.()}/libvirt/qemu/run`];

export function addDoctor(program: Command): void {
  addAskOptions(
    program
      .command('doctor')
      .description('Look for what keeps frames from flowing, or flowing well, and say what to do about it.')
      .option('--qemu-pid <pid>', 'look at this process of a guest too')
      .option('--libvirt <domain>', 'look at the process of this domain of libvirt too')
      .addHelpText('after', DETAILS),
  ).action(async (options: Options) => {
    const findings = await examine(options);
    process.stdout.write(options.json ? jsonText(findings) : formatFindings(findings));
    if (findings.some(({ severity }) => severity !== 'note')) throw new CliError('');
  });
}

/** @throws CliError */
async function examine(options: Options, host: Host = THIS_HOST): Promise<Finding[]> {
  const pid = guestPid(options, host);
  const running = await askRunning(options.control);
  const workerCpus =
    running === null ? [] : workerCpusOf(host, running.version.pid).filter((cpus) => cpus.length === 1);
  const hasDpdk = running?.ports.some(({ kind }) => kind === 'dpdk') ?? false;
  return [
    ...(running === null ? [finding('notRunning', 'ringway')] : []),
    ...checkSystem(host, running?.version ?? null, hasDpdk),
    ...(running === null ? [] : [...checkPorts(running.ports), ...checkPlugins(running.plugins)]),
    ...(pid === null
      ? []
      : pid.found === null
        ? [finding('notProcess', pid.name)]
        : checkQemu(host, pid.found, workerCpus.flat(), running?.ports)),
  ];
}

/** Null: none was asked for. @throws CliError */
function guestPid(
  { qemuPid, libvirt }: Options,
  host: Host,
): { readonly name: string; readonly found: number | null } | null {
  if (qemuPid !== undefined) {
    if (!/^[1-9]\d{0,9}$/.test(qemuPid))
      throw new CliError(`--qemu-pid: ${qemuPid} is no process id`, EXIT.usage);
    return { name: `process ${qemuPid}`, found: Number(qemuPid) };
  }
  if (libvirt === undefined) return null;
  if (libvirt.includes('/')) throw new CliError(`--libvirt: ${libvirt} is no name of a domain`, EXIT.usage);
  const text = PID_FOLDERS.map((folder) => host.read(`${folder}/${libvirt}.pid`)).find(
    (each) => each !== null,
  );
  return { name: `domain ${libvirt}`, found: text == null ? null : Number(text) };
}

/** Null: nobody answers. @throws CliError, ControlError */
async function askRunning(control: string | undefined): Promise<Running | null> {
  try {
    const path = await findControl(control);
    const version = await askControl<VersionReport>(path, '/v1/version');
    const ports = await askControl<PortReport[]>(path, '/v1/ports');
    return { version, ports, plugins: await askControl<PluginReport[]>(path, '/v1/plugins') };
  } catch (error) {
    const isNobody =
      (error instanceof CliError && error.exitCode === EXIT.failed) ||
      (error instanceof ControlError && error.kind === 'unserved');
    if (isNobody && control === undefined) return null;
    throw error;
  }
}

const ORDER = { error: 0, warning: 1, note: 2 } as const;

export function formatFindings(findings: readonly Finding[]): string {
  if (findings.length === 0) return 'Nothing is wrong.\n';
  return findings
    .toSorted((a, b) => ORDER[a.severity] - ORDER[b.severity])
    .map(
      ({ severity, where, what, why, fix }) =>
        `${severity.padEnd(8)} ${printable(where)}\n         ${what}\n         why: ${why}\n         do:  ${fix}\n`,
    )
    .join('');
}
