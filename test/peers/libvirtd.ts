/**
 * A libvirtd of Debian's own, as root runs it, in a mount namespace where `/run`, `/var` and `/etc/libvirt` are its own and
 * QEMU's user `libvirt-qemu` is there whether or not the machine has it. So paths and commands are those of documentation,
 * and nothing stays behind. Without control groups, service manager and message bus; guests are emulated.
 * Owns: the process, its guests' QEMUs, its folder; all of them end with the process that started it. Needs root.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Child, findProgram, runProgram, startChild, TextLog, temporaryFolder } from './child.ts';
import { withDeadline } from './deadline.ts';
import { type PingOptions, type PingResult, pingFrom } from './guest-network.ts';
import { BOOT_TIMEOUT_MS, GuestShell } from './guest-shell.ts';
import { guestCommandLine, guestFiles } from './linux-guest.ts';
import { acceptOne } from './qemu-process.ts';

const MEMORY_MIB = 192;
const ASK_AGAIN_MS = 100;
const READY_MS_MAX = 60_000;
/** What tests need of `/run` and `/var` besides: programs, and folders with sockets. */
const REPOSITORY = dirname(dirname(import.meta.dirname));
const IMAGES = '/var/lib/libvirt/images';
/** As Debian's package `libvirt-daemon-system` numbers it. */
export const QEMU_UID = 64055;

/** The last subshell outlives a killed test: it ends what libvirtd leaves running by design. libvirtd, which is $$, notes itself as one of them. */
const SETUP = `
set -e
exec 4<"$3" 5<"$4"
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var
keep() {
  case $1 in
    /run/*|/var/*) mkdir -p "$1" && mount --no-canonicalize --bind /proc/self/fd/$2 "$1" ;;
  esac
}
keep "$3" 4
keep "$4" 5
mkdir -p /etc/libvirt /run/ringway ${IMAGES} /var/log /var/cache /var/tmp
ln -s /run /var/run
mount -t tmpfs -o mode=755 tmpfs /etc/libvirt
umount -R -l /sys/fs/cgroup 2>/dev/null || true
cp /etc/passwd /etc/group /etc/hosts /run/
grep -q ^kvm: /run/group || echo kvm:x:64056: >>/run/group
gid=$(grep ^kvm: /run/group | cut -d: -f3)
if ! grep -q ^libvirt-qemu: /run/passwd; then
  echo "libvirt-qemu:x:${QEMU_UID}:$gid::/var/lib/libvirt:/usr/sbin/nologin" >>/run/passwd
  echo "libvirt-qemu:x:${QEMU_UID}:libvirt-qemu" >>/run/group
fi
mount --bind /run/passwd /etc/passwd
mount --bind /run/group /etc/group
# libvirt looks its own host up, and would wait for a name server.
echo "127.0.0.1 $1" >>/run/hosts
mount --bind /run/hosts /etc/hosts
cat >/etc/libvirt/qemu.conf <<END
stdio_handler = "file"
security_driver = "none"
namespaces = []
cgroup_controllers = []
END
hostname "$1"
cat >/etc/libvirt/libvirtd.conf <<END
host_uuid = "$2"
unix_sock_group = "root"
auth_unix_rw = "none"
auth_unix_ro = "none"
END
exec 3<&0
(set +e; cat <&3 >/dev/null
rm /run/libvirt/qemu/driver.pid
for pid in /run/libvirt/qemu/*.pid; do kill -KILL "$(cat $pid)"; done
kill -KILL $$) 2>/dev/null &
exec /usr/sbin/libvirtd 3<&- 4<&- 5<&-
`;

/** Why it cannot run here; null: it can. */
export function libvirtdObstacle(): string | null {
  return process.getuid?.() === 0 ? null : 'a libvirtd of its own needs root';
}

export class Libvirtd {
  readonly folder: string;
  readonly #child: Child;
  readonly #log: TextLog;
  readonly #remove: () => Promise<void>;
  readonly #said: string[] = [];

  private constructor(folder: string, child: Child, remove: () => Promise<void>) {
    this.folder = folder;
    this.#child = child;
    this.#log = new TextLog(child.process.stderr);
    this.#remove = remove;
  }

  /** Resolves when it answers. `host`: several of them are hosts to each other. */
  static async start(host = 'host1'): Promise<Libvirtd> {
    const { path, remove } = await temporaryFolder('ringway-libvirt-');
    // QEMU's user comes here for the socket of a guest's shell.
    await chmod(path, 0o755);
    const child = await startChild('unshare', [
      '--mount',
      '--uts',
      'sh',
      '-c',
      SETUP,
      'sh',
      host,
      randomUUID(),
      REPOSITORY,
      tmpdir(),
    ]);
    const libvirtd = new Libvirtd(path, child, remove);
    try {
      await withDeadline(libvirtd.#untilItAnswers(), READY_MS_MAX, () => 'it does not answer');
      const { imagePath, initramfs } = guestFiles();
      for (const file of [imagePath, initramfs]) await libvirtd.runOk('cp', [file, IMAGES]);
      return libvirtd;
    } catch (error) {
      await libvirtd.stop();
      throw new Error(`libvirtd: ${(error as Error).message}\n${libvirtd.#log.text}`, { cause: error });
    }
  }

  async #untilItAnswers(): Promise<void> {
    while ((await this.run('virsh', ['version'])).code !== 0) {
      if (this.#child.hasExited()) throw new Error(`it ended, ${this.#child.howItEnded()}`);
      await delay(ASK_AGAIN_MS);
    }
  }

  /** Program and arguments that run `program` where its files are. The process stays the one started. */
  command(program: string, args: readonly string[]): [string, string[]] {
    const inside = ['--mount', '--target', String(this.#child.pid), findProgram(program) ?? program];
    return [findProgram('nsenter')!, [...inside, ...args]];
  }

  run(
    program: string,
    args: readonly string[],
    timeoutMs?: number,
  ): Promise<{ code: number; output: string }> {
    return runProgram(...this.command(program, args), timeoutMs === undefined ? {} : { timeoutMs });
  }

  /** Rejects with what it printed when its exit code is not 0. */
  async runOk(program: string, args: readonly string[]): Promise<string> {
    const { code, output } = await this.run(program, args);
    if (code !== 0) throw new Error(`${program} ${args.join(' ')}: ${output.trim()}`);
    return output;
  }

  /** Runs virsh as one types it, and notes what it said. */
  async virsh(...args: string[]): Promise<string> {
    const { code, output } = await this.run('virsh', args);
    this.#said.push(`# virsh ${args.join(' ')}\n${output.trim()}`);
    if (code !== 0) throw new Error(`virsh ${args.join(' ')}: ${output.trim()}`);
    return output.trim();
  }

  /** What virsh was told, and said. */
  get transcript(): string {
    return this.#said.join('\n');
  }

  note(line: string): void {
    this.#said.push(line);
  }

  /** A path there, as this process sees it. */
  path(inside: string): string {
    return join(`/proc/${this.#child.pid}/root`, inside);
  }

  /** Puts a file there, and answers where. */
  async file(name: string, text: string): Promise<string> {
    await writeFile(this.path(`/run/${name}`), text);
    return `/run/${name}`;
  }

  /**
   * `virsh define --validate` and `virsh start`, with this XML of a domain as people write it; only that it is emulated,
   * small, and boots the kernel and the shell of these tests. Resolves when its shell answers.
   */
  async boot(domain: string): Promise<LibvirtGuest> {
    const name = /<name>(.*)<\/name>/.exec(domain)![1];
    const token = randomBytes(12).toString('hex');
    const socket = join(this.folder, `${name}-shell.sock`);
    const listener = await acceptOne(socket);
    await chmod(socket, 0o666);
    const file = await this.file(`${name}.xml`, bootable(domain, { name, token, socket }));
    try {
      await this.virsh('define', '--validate', file);
      await this.virsh('start', name);
      const up = listener.connection.then(async (connection) => {
        const shell = new GuestShell(connection, token);
        await shell.waitForBoot(1);
        return shell;
      });
      const shell = await withDeadline(up, BOOT_TIMEOUT_MS, () => `guest ${name} is not up`);
      return new LibvirtGuest({ name, token, socket }, shell);
    } catch (error) {
      const log = await this.qemuLog(name);
      throw new Error(`${(error as Error).message}\n${log}`, { cause: error });
    } finally {
      listener.close();
    }
  }

  /** `virsh migrate` of a guest of this host to another, with these options; answers it there. */
  async migrate(guest: LibvirtGuest, to: Libvirtd, options: readonly string[]): Promise<LibvirtGuest> {
    const { name, token, socket } = guest.parts;
    const folder = join(this.folder, 'migration');
    await mkdir(folder, { recursive: true });
    await chmod(folder, 0o777);
    const listener = await acceptOne(socket);
    await chmod(socket, 0o666);
    const uri = `qemu+unix:///system?socket=${to.path('/run/libvirt/libvirt-sock')}`;
    try {
      await this.virsh('migrate', ...options, name, uri, '--migrateuri', `unix://${folder}/${name}.sock`);
      const shell = new GuestShell(await listener.connection, token);
      return new LibvirtGuest({ name, token, socket }, shell);
    } finally {
      listener.close();
    }
  }

  /** What QEMU printed, after the line by which libvirt started it. */
  async qemuLog(name: string): Promise<string> {
    const text = await readFile(this.path(`/var/log/libvirt/qemu/${name}.log`), 'utf8').catch(() => '');
    return text.split('\n').slice(-20).join('\n');
  }

  async stop(): Promise<void> {
    // The subshell sees the end of its input, and ends them all.
    this.#child.process.stdin.end();
    await this.#child.exited;
    await this.#remove();
  }
}

/** What a guest's shell is found again by. */
type GuestParts = { readonly name: string; readonly token: string; readonly socket: string };

export class LibvirtGuest {
  readonly name: string;
  readonly parts: GuestParts;
  readonly #shell: GuestShell;

  constructor(parts: GuestParts, shell: GuestShell) {
    this.name = parts.name;
    this.parts = parts;
    this.#shell = shell;
  }

  /** Rejects when the exit code is not 0. Answers the output. */
  async runOk(command: string, timeoutMs = 30_000): Promise<string> {
    const { code, output } = await this.#shell.run(command, timeoutMs);
    if (code !== 0) throw new Error(`guest ${this.name}: code ${code} from: ${command}\n${output}`);
    return output;
  }

  /** Lost ones are in the result, not an error. */
  async ping(address: string, options: PingOptions = {}): Promise<PingResult> {
    const run = async (command: string, timeoutMs: number): Promise<string> =>
      (await this.#shell.run(command, timeoutMs)).output;
    return pingFrom(run, address, options);
  }
}

function bootable(domain: string, guest: { name: string; token: string; socket: string }): string {
  const { imagePath, initramfs } = guestFiles();
  const image = (path: string): string => join(IMAGES, path.slice(path.lastIndexOf('/') + 1));
  const boot = [
    `<kernel>${image(imagePath)}</kernel>`,
    `<initrd>${image(initramfs)}</initrd>`,
    `<cmdline>${guestCommandLine({ ...guest, accel: 'tcg' })}</cmdline>`,
  ];
  const shell = `<serial type='unix'><source mode='connect' path='${guest.socket}'/><target port='1'/></serial>`;
  const changes: readonly (readonly [RegExp, string])[] = [
    [/<domain type='kvm'>/, "<domain type='qemu'>"],
    [/<memory unit='MiB'>\d+</, `<memory unit='MiB'>${MEMORY_MIB}<`],
    [/<\/os>/, `${boot.join('')}</os>`],
    [/<cpu mode='host-passthrough'\/>/, ''],
    [/<disk [\s\S]*<\/disk>/, ''],
    [/<\/devices>/, `${shell}</devices>`],
  ];
  return changes.reduce((text, [what, into]) => {
    if (!what.test(text)) throw new Error(`the domain has no ${what}`);
    return text.replace(what, () => into);
  }, domain);
}
