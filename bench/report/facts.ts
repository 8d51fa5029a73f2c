/** The machine's facts that stand beside the results: what was measured on, and nothing that tells whose it is. */
import { cpus, release, totalmem } from 'node:os';
import { ringwayVersion } from '../../switch/cli/version.ts';
import { runProgram } from '../../test/peers/child.ts';

export type MachineFacts = {
  readonly date: string;
  readonly ringway: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly hypervisor: string;
  readonly kernel: string;
  readonly node: string;
  readonly dpdk: string | null;
  readonly openVSwitch: string | null;
  readonly qemu: string | null;
};

export async function machineFacts(): Promise<MachineFacts> {
  const [commit, virtualisation, dpdk, openVSwitch, qemu] = await Promise.all([
    commitOf(import.meta.dirname),
    firstMatch('lscpu', [], /^Hypervisor vendor:\s*(.+)$/m),
    // testpmd tells its version only once it is set up.
    firstMatch('dpkg-query', ['--show', 'dpdk-dev'], /^\S+\t(\d[^-+~\s]*)/),
    firstMatch('ovs-vswitchd', ['--version'], /Open vSwitch\) (\S+)/),
    firstMatch('qemu-system-x86_64', ['--version'], /version (\d+\S*)/),
  ]);
  return {
    date: new Date().toISOString().slice(0, 10),
    ringway: `${ringwayVersion()}${commit === null ? '' : ` (${commit})`}`,
    cpu: cpus()[0]?.model.trim() ?? process.arch,
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    hypervisor: virtualisation ?? 'none seen',
    kernel: /^[\d.]+(-\d+)?/.exec(release())?.[0] ?? release(),
    node: process.version,
    dpdk,
    openVSwitch,
    qemu,
  };
}

/** Null when the folder is in no checkout of git. */
export function commitOf(folder: string): Promise<string | null> {
  return firstMatch('git', ['-C', folder, 'rev-parse', '--short', 'HEAD'], /^([0-9a-f]+)$/m);
}

async function firstMatch(program: string, args: readonly string[], pattern: RegExp): Promise<string | null> {
  const { code, output } = await runProgram(program, args, { timeoutMs: 10_000, env: { LC_ALL: 'C' } });
  return code === 0 ? (pattern.exec(output)?.[1] ?? null) : null;
}
