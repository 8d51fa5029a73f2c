/**
 * A Debian system that has nothing but its base and systemd, fetched anew by debootstrap and started: systemd is its first
 * process, with the rights of a machine's. It lies in memory, in namespaces of its own (of mounts, processes, control groups),
 * so all of it ends and vanishes with its first process. The network is this machine's.
 * Owns: its processes, and the folder in which fetched packages are kept for the next time. Needs root and control groups.
 */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type Child, runProgram, startChild, TextLog, temporaryFolder } from './child.ts';
import { ControlGroups } from './control-groups.ts';
import { cacheFolder } from './packages.ts';

const SUITE = 'bookworm';
const PACKAGES = ['systemd'];
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const RUN_MS = 120_000;
const BOOTS = 'the bare system boots';
const DEVICES = ['null', 'zero', 'full', 'random', 'urandom', 'tty'];

/** Where apt gets packages from here. */
function mirror(): string {
  const lists = ['/etc/apt/sources.list', '/etc/apt/sources.list.d/debian.sources'].filter(existsSync);
  const text = lists.map((path) => readFileSync(path, 'utf8')).join('\n');
  return /^(?:deb |URIs: *)(?:\[.*\] )?(https?:\S+)/m.exec(text)?.[1] ?? 'http://deb.debian.org/debian';
}

/** A shell's commands that become its systemd. */
function script(root: string, groups: ControlGroups): string {
  const kept = join(cacheFolder(), 'debootstrap');
  mkdirSync(kept, { recursive: true });
  const hierarchies = groups.folders.map((folder) => {
    const place = join(root, 'sys/fs/cgroup', groups.nameOf(folder));
    return `mkdir -p ${place} && mount --bind ${folder} ${place}`;
  });
  return `
set -e
mount -t tmpfs -o mode=755 tmpfs ${root}
debootstrap --variant=minbase --include=${PACKAGES} --cache-dir=${kept} ${SUITE} ${root} ${mirror()}
rm -rf ${root}/var/cache/apt/archives/*.deb
cd ${root}
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup
${hierarchies.join('\n')}
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm dev/net
${DEVICES.map((name) => `cp -a /dev/${name} dev/`).join('\n')}
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs dev/shm
mkdir .old
pivot_root . .old
umount --lazy .old
echo ${BOOTS}
exec env -i container=unshare PATH=${PATH} TERM=dumb /lib/systemd/systemd --system --show-status=no --unit=multi-user.target
`;
}

export class BareSystem {
  readonly #child: Child;
  readonly #log: TextLog;
  readonly #groups: ControlGroups;
  readonly #remove: () => Promise<void>;

  private constructor(child: Child, groups: ControlGroups, remove: () => Promise<void>) {
    this.#child = child;
    this.#groups = groups;
    this.#remove = remove;
    this.#log = new TextLog(child.process.stdout);
    // Who is written to and not read stands still in the end.
    child.process.stderr.resume();
  }

  /** Resolves when it has started all that belongs to it. */
  static async start(): Promise<BareSystem> {
    const { path, remove } = await temporaryFolder('ringway-system-');
    const groups = new ControlGroups(basename(path));
    const options = '--mount --pid --cgroup --uts --ipc --fork --mount-proc --kill-child';
    const child = await startChild('sh', [
      '-c',
      `exec 2>&1 </dev/null; ${groups.enter} && exec unshare ${options} sh -c '${script(path, groups)}'`,
    ]);
    const system = new BareSystem(child, groups, remove);
    try {
      await system.#boots();
      await system.run('until systemctl is-system-running --wait; do sleep 0.1; done');
    } catch (error) {
      await system.stop();
      throw error;
    }
    return system;
  }

  #boots(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#child.process.stdout.on('data', () => {
        if (this.#log.text.includes(BOOTS)) resolve();
      });
      void this.#child.exited.then(() =>
        reject(new Error(`it did not start:\n${this.#log.text.slice(-2000)}`)),
      );
    });
  }

  /** Its first process, by its number here. */
  get #first(): string {
    return readFileSync(`/proc/${this.#child.pid}/task/${this.#child.pid}/children`, 'utf8').trim();
  }

  /** Where one of its files is to be found from here. */
  pathOf(file: string): string {
    return join('/proc', this.#first, 'root', file);
  }

  /** Runs a shell's command there, and answers what it printed, errors too. @throws Error when it fails */
  async run(command: string): Promise<string> {
    const { code, output } = await this.tryRun(command);
    if (code !== 0) throw new Error(`${command} ended with ${code}: ${output}`);
    return output;
  }

  tryRun(command: string): Promise<{ readonly code: number; readonly output: string }> {
    const enter = ['-t', this.#first, '-m', '-p', '-u', '-i', '-C', '-r', '-w'];
    const environment = [
      '/usr/bin/env',
      '-i',
      `PATH=${PATH}`,
      'HOME=/root',
      'DEBIAN_FRONTEND=noninteractive',
    ];
    return runProgram('nsenter', [...enter, ...environment, 'sh', '-ec', command], { timeoutMs: RUN_MS });
  }

  async stop(): Promise<void> {
    this.#child.kill();
    await this.#child.exited;
    await this.#groups.remove();
    await this.#remove();
  }
}
