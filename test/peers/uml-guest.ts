/**
 * A guest in User-Mode Linux: Debian's kernel that runs as a process, with the root file system of initramfs.ts and
 * cards that a vhost-user back-end serves (virtio_uml).
 * Owns: the process, its temporary folder and the socket of the guest's shell. Called by tests, once
 * `ensurePeers(['uml'])` has said that it is there.
 */
import { randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { type Child, findProgram, startChild, TextLog, temporaryFolder } from './child.ts';
import { settlesWithin, withDeadline } from './deadline.ts';
import { type PingOptions, type PingResult, pingFrom } from './guest-network.ts';
import { BOOT_TIMEOUT_MS, type CommandResult, GuestShell } from './guest-shell.ts';
import { buildInitramfs } from './initramfs.ts';
import { cacheFolder } from './packages.ts';

export interface UmlGuestOptions {
  /** Shown in error messages; the guest's host name. */
  name: string;
  /** The vhost-user socket of its one card. */
  socketPath: string;
  /** Default 128. */
  memoryMiB?: number;
}

/** VIRTIO 1.3, section 5: a network card. */
const DEVICE_ID_NET = 1;
const MODULES_FOLDER = '/usr/lib/uml/modules';

export class UmlGuest {
  readonly name: string;
  readonly #child: Child;
  readonly #console: TextLog;
  readonly #shell: GuestShell;
  readonly #cleanUp: () => Promise<void>;

  private constructor(
    name: string,
    child: Child,
    console: TextLog,
    shell: GuestShell,
    cleanUp: () => Promise<void>,
  ) {
    this.name = name;
    this.#child = child;
    this.#console = console;
    this.#shell = shell;
    this.#cleanUp = cleanUp;
  }

  /** Boots a guest; resolves when its shell answers. The back-end must listen already. */
  static async start(options: UmlGuestOptions): Promise<UmlGuest> {
    const folder = await temporaryFolder('ringway-uml-');
    const token = randomBytes(12).toString('hex');
    const child = await startChild('linux.uml', umlArguments(options, folder.path, token), ['pipe']);
    const near = child.process.stdio[3] as Socket;
    const shell = new GuestShell(near, token);
    const cleanUp = async (): Promise<void> => {
      endGroup(child.pid);
      near.destroy();
      await folder.remove();
    };
    const guest = new UmlGuest(options.name, child, new TextLog(child.process.stdout), shell, cleanUp);
    child.process.stderr.resume();
    try {
      const ended = child.exited.then(() => {
        throw new Error(`linux.uml ended early, ${child.howItEnded()}`);
      });
      await withDeadline(Promise.race([shell.waitForBoot(1), ended]), BOOT_TIMEOUT_MS, () => 'not up');
      return guest;
    } catch (error) {
      child.kill();
      await child.exited;
      await cleanUp();
      throw guest.#explained(error);
    }
  }

  /** What the kernel wrote (last 1 MiB). */
  get consoleLog(): string {
    return this.#console.text;
  }

  /** 1, unless the guest crashed and came up again. */
  get bootCount(): number {
    return this.#shell.bootCount;
  }

  /** Runs shell commands in the guest. Default timeout 30 s; then it rejects. */
  async run(command: string, { timeoutMs = 30_000 } = {}): Promise<CommandResult> {
    try {
      return await this.#shell.run(command, timeoutMs);
    } catch (error) {
      throw this.#explained(error);
    }
  }

  /** As `run`, and rejects when the exit code is not 0. Returns the output. */
  async runOk(command: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const { code, output } = await this.run(command, options);
    if (code !== 0) throw new Error(`guest ${this.name}: code ${code} from: ${command}\n${output}`);
    return output;
  }

  /** Sets the card up with an address ("10.0.0.1/24"). */
  async configureNetwork(address: string): Promise<void> {
    await this.runOk(`ip link set eth0 up && ip addr add ${address} dev eth0`);
  }

  /** Pings an address; default 5 requests, 100 ms apart. Lost ones are in the result, not an error. */
  async ping(address: string, options: PingOptions = {}): Promise<PingResult> {
    return pingFrom(
      async (command, timeoutMs) => (await this.run(command, { timeoutMs })).output,
      address,
      options,
    );
  }

  /** Powers the guest off; by force after 10 s. */
  async stop(): Promise<void> {
    void this.#shell.run('poweroff -f', 10_000).catch(() => {});
    if (!(await settlesWithin(this.#child.exited, 10_000))) this.#child.kill();
    await this.#child.exited;
    await this.#cleanUp();
  }

  #explained(error: unknown): Error {
    const tail = this.consoleLog.trimEnd().split('\n').slice(-25).join('\n');
    return new Error(`guest ${this.name}: ${(error as Error).message}\nconsole: ${tail}`, { cause: error });
  }
}

/** A kernel that is killed leaves helpers behind, in the group that it made for itself. */
function endGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // Nobody is left.
  }
}

function umlArguments(options: UmlGuestOptions, folder: string, token: string): string[] {
  const [busybox, iperf3, ethtool] = ['busybox', 'iperf3', 'ethtool'].map(findProgram);
  if (busybox === undefined || iperf3 === undefined || ethtool === undefined) {
    throw new Error("parts of the guest are missing: await ensurePeers(['uml']) before");
  }
  const version = readdirSync(MODULES_FOLDER)[0];
  const initramfs = buildInitramfs(
    {
      busyboxPath: busybox,
      programPaths: [iperf3, ethtool],
      modulesFolder: join(MODULES_FOLDER, version),
    },
    cacheFolder(),
  );
  return [
    `mem=${options.memoryMiB ?? 128}M`,
    `initrd=${initramfs}`,
    `virtio_uml.device=${options.socketPath}:${DEVICE_ID_NET}`,
    // The console on standard output, the shell's line (ttyS1) on the socket that is descriptor 3.
    ...['con=null', 'con0=null,fd:1', 'ssl=null', 'ssl1=fd:3'],
    ...[`uml_dir=${folder}`, `umid=${options.name}`],
    ...['quiet', 'panic=-1', 'net.ifnames=0'],
    ...[`ringway.token=${token}`, `ringway.name=${options.name}`],
  ];
}
