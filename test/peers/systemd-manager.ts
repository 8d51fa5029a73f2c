/**
 * systemd itself, as the manager of one user's services, in namespaces of its own: it takes its own process for the first,
 * finds its machine started by systemd, and all that it starts ends with it. Commands run beside it.
 * Owns: its processes and the folder of its units and sockets. Needs root and a hierarchy of control groups that can be
 * written to.
 */
import { accessSync, constants, existsSync, mkdirSync, readdirSync, rmdirSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Child, startChild, TextLog, temporaryFolder } from './child.ts';

const PROGRAM = '/usr/lib/systemd/systemd';
const CONTROL_GROUPS = '/sys/fs/cgroup';
const END = 'end of the command:';

/** Why it cannot run here; null: it can. */
export function systemdObstacle(): string | null {
  if (process.getuid?.() !== 0) return 'a systemd of its own needs root';
  try {
    const hierarchies = hierarchiesOf(CONTROL_GROUPS);
    if (hierarchies.length === 0) return 'there are no control groups';
    for (const folder of hierarchies) accessSync(folder, constants.W_OK);
    return null;
  } catch {
    return 'control groups cannot be written to';
  }
}

/** One, or one a controller. Those of processors and their memory take no process before they are set up. */
function hierarchiesOf(root: string): string[] {
  const isHierarchy = (folder: string): boolean => existsSync(join(folder, 'cgroup.procs'));
  if (isHierarchy(root)) return [root];
  const folders = existsSync(root) ? readdirSync(root).map((name) => join(root, name)) : [];
  return folders.filter((folder) => isHierarchy(folder) && !existsSync(join(folder, 'cpuset.cpus')));
}

/** Processes that were killed leave it one after the other. */
async function removed(group: string): Promise<void> {
  for (let tries = 100; ; tries--) {
    try {
      removeGroup(group);
      return;
    } catch (error) {
      if (tries === 0) throw error;
      await sleep(50);
    }
  }
}

/** With all below it, of which nobody is a member any more. */
function removeGroup(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true }))
    if (entry.isDirectory()) removeGroup(join(folder, entry.name));
  rmdirSync(folder);
}

export class SystemdManager {
  readonly folder: string;
  readonly #child: Child;
  readonly #errors: TextLog;
  readonly #remove: () => Promise<void>;
  readonly #groups: readonly string[];
  #onLine: (line: string) => void = () => {};

  private constructor(folder: string, child: Child, remove: () => Promise<void>, groups: readonly string[]) {
    this.#groups = groups;
    this.folder = folder;
    this.#child = child;
    this.#errors = new TextLog(child.process.stderr);
    this.#remove = remove;
    createInterface({ input: child.process.stdout }).on('line', (line) => this.#onLine(line));
  }

  /** Resolves when it takes commands. `units`: files by name. */
  static async start(units: (folder: string) => Readonly<Record<string, string>>): Promise<SystemdManager> {
    const { path, remove } = await temporaryFolder('ringway-systemd-');
    await mkdir(join(path, 'systemd/user'), { recursive: true });
    for (const [name, text] of Object.entries(units(path)))
      await writeFile(join(path, 'systemd/user', name), text);
    const groups = hierarchiesOf(CONTROL_GROUPS).map((hierarchy) => join(hierarchy, basename(path)));
    for (const group of groups) mkdirSync(group);
    const enter = groups.map((group) => `echo $$ >${group}/cgroup.procs`).join(' && ');
    const options = '--mount --pid --cgroup --fork --mount-proc --kill-child';
    const child = await startChild('sh', ['-c', `${enter} && exec unshare ${options} sh`]);
    const manager = new SystemdManager(path, child, remove, groups);
    // What it sees as their roots is where it was put.
    for (const group of groups) await manager.run(`mount --bind ${group} ${dirname(group)}`);
    await manager.run('mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system');
    await manager.run(
      `export XDG_RUNTIME_DIR=${path}; ${PROGRAM} --user --log-target=console </dev/null 1>&2 &`,
    );
    await manager.run('until systemctl --user is-active default.target basic.target; do sleep 0.1; done');
    return manager;
  }

  /** Runs a shell's command, and answers what it printed; its exit code does not matter. */
  run(command: string): Promise<string> {
    const lines: string[] = [];
    return new Promise((resolve, reject) => {
      void this.#child.exited.then(() => reject(new Error(`systemd ended:\n${this.#errors.text}`)));
      this.#onLine = (line) => {
        if (line.startsWith(END)) resolve(lines.join('\n'));
        else lines.push(line);
      };
      this.#child.process.stdin.write(`${command}\necho ${END} $?\n`);
    });
  }

  /** Properties of a unit, as `systemctl show` has them. */
  async show(unit: string): Promise<Record<string, string>> {
    const lines = (await this.run(`systemctl --user show ${unit}`)).split('\n');
    return Object.fromEntries(
      lines.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
    );
  }

  async stop(): Promise<void> {
    this.#child.kill();
    await this.#child.exited;
    for (const group of this.#groups) await removed(group);
    await this.#remove();
  }
}
