/**
 * systemd itself, as the manager of one user's services, in namespaces of its own: it takes its own process for the first,
 * finds its machine started by systemd, and all that it starts ends with it. Commands run beside it.
 * Owns: its processes and the folder of its units and sockets. Needs root and a hierarchy of control groups that can be
 * written to.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { type Child, startChild, TextLog, temporaryFolder } from './child.ts';
import { ControlGroups } from './control-groups.ts';
import { withDeadline } from './deadline.ts';

const PROGRAM = '/usr/lib/systemd/systemd';
const END = 'end of the command:';
const RUN_MS_MAX = 120_000;

export class SystemdManager {
  readonly folder: string;
  readonly #child: Child;
  readonly #errors: TextLog;
  readonly #remove: () => Promise<void>;
  readonly #groups: ControlGroups;
  #onLine: (line: string) => void = () => {};

  private constructor(folder: string, child: Child, remove: () => Promise<void>, groups: ControlGroups) {
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
    const groups = new ControlGroups(basename(path));
    const options = '--mount --pid --cgroup --fork --mount-proc --kill-child';
    const child = await startChild('sh', ['-c', `${groups.enter} && exec unshare ${options} sh`]);
    const manager = new SystemdManager(path, child, remove, groups);
    // What it sees as their roots is where it was put.
    for (const group of groups.folders) await manager.run(`mount --bind ${group} ${dirname(group)}`);
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
    const printed = new Promise<string>((resolve, reject) => {
      void this.#child.exited.then(() => reject(new Error(`systemd ended:\n${this.#errors.text}`)));
      this.#onLine = (line) => {
        if (line.startsWith(END)) resolve(lines.join('\n'));
        else lines.push(line);
      };
      this.#child.process.stdin.write(`${command}\necho ${END} $?\n`);
    });
    const late = (): string =>
      `${command} does not end: ${lines.join('\n')}\n${this.#errors.text.slice(-5000)}`;
    return withDeadline(printed, RUN_MS_MAX, late);
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
    await this.#groups.remove();
    await this.#remove();
  }
}
