/**
 * systemd itself, as the manager of one user's services, in namespaces of its own: it takes its own process for the first,
 * finds its machine started by systemd, and all that it starts ends with it. Commands run beside it.
 * Owns: its processes and the folder of its units and sockets. Needs root and a hierarchy of control groups that can be
 * written to.
 */
import { accessSync, constants, existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type Child, startChild, TextLog, temporaryFolder } from './child.ts';

const PROGRAM = '/usr/lib/systemd/systemd';
const END = 'end of the command:';

/** Why it cannot run here; null: it can. */
export function systemdObstacle(): string | null {
  if (process.getuid?.() !== 0) return 'a systemd of its own needs root';
  const folder = ['/sys/fs/cgroup/systemd', '/sys/fs/cgroup'].find(existsSync);
  try {
    if (folder === undefined) return 'there are no control groups';
    accessSync(folder, constants.W_OK);
    return null;
  } catch {
    return 'control groups cannot be written to';
  }
}

export class SystemdManager {
  readonly folder: string;
  readonly #child: Child;
  readonly #errors: TextLog;
  readonly #remove: () => Promise<void>;
  #onLine: (line: string) => void = () => {};

  private constructor(folder: string, child: Child, remove: () => Promise<void>) {
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
    const child = await startChild('unshare', [
      ...['--mount', '--pid', '--cgroup', '--fork', '--mount-proc', '--kill-child'],
      'sh',
    ]);
    const manager = new SystemdManager(path, child, remove);
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
    await this.#remove();
  }
}
