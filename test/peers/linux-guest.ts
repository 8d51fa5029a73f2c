/**
 * A real Linux guest in QEMU, without KVM unless asked for: Debian's kernel and the small root file system of
 * initramfs.ts.
 * Owns: the QEMU process, its temporary folder with two sockets (the guest's shell, QMP), all gone when it exits.
 * Called by tests, once `ensurePeers(['qemu'])` has said that QEMU is there.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { type Child, findProgram, startChild, TextLog, temporaryFolder } from './child.ts';
import { settlesWithin, withDeadline } from './deadline.ts';
import { type PingOptions, type PingResult, pingFrom } from './guest-network.ts';
import { BOOT_TIMEOUT_MS, type CommandResult, GuestShell } from './guest-shell.ts';
import { buildInitramfs } from './initramfs.ts';
import { cacheFolder, guestKernel, type KernelFlavor } from './packages.ts';
import { acceptOne, endOf, type OneConnection } from './qemu-process.ts';
import { QmpClient } from './qmp.ts';

export interface LinuxGuestOptions {
  /** Shown in error messages; the guest's host name. */
  name: string;
  /** Default 192. Left to `qemuArgs` when those have `-m`. */
  memoryMiB?: number;
  /** Default 1. Two queue pairs are both used only with two processors or more. */
  cpus?: number;
  /** More arguments for QEMU: memory backends, chardevs, netdevs, devices. */
  qemuArgs: readonly string[];
  /** Default `cloud`. A guest with an emulated card needs `generic`, see the peer `emulated-cards`. */
  kernel?: KernelFlavor;
  /** Descriptors that QEMU gets copies of, as its 3, 4 and so on. The caller keeps its own. */
  passedFds?: readonly number[];
  /** Default `tcg`, which works everywhere. With `kvm` the processor is the host's, unless `cpuModel` is given. */
  accel?: 'tcg' | 'kvm';
  /** QEMU runs in this network namespace, by the name that `ip netns` knows. Needs root. */
  networkNamespace?: string;
  /** Default `pc`, as QEMU's own. */
  machine?: string;
  /** Default `qemu64`; with KVM `host`. */
  cpuModel?: string;
  /** More words for the kernel's command line. */
  kernelArgs?: string;
  /** Ends the guest, also while it starts. */
  signal?: AbortSignal;
  /** Default: BOOT_TIMEOUT_MS. */
  bootTimeoutMs?: number;
  /** Start as the target of a migration instead of booting; start() resolves once QEMU listens there. */
  incoming?: { uri: string; from: LinuxGuest };
}

/** A guest's firmware takes a second or a few; so often at most it is helped. */
const FIRMWARE_MS = 60_000;
const RESETS_MAX = 2;
/** Bit 31 of the register. */
const CR0_PAGING = 0x8000_0000;
const QMP_TIMEOUT_MS = 10_000;
/** A migration takes some seconds, and more where both QEMUs share two cores with other work. */
const MIGRATION_TIMEOUT_MS = 120_000;

/**
 * What makes a guest under emulation boot in 2 s rather than 3; quiet, and restarting on a panic. Without KVM
 * `pci=nomsi` is added: QEMU before 8.0 crashes then as soon as a guest uses MSI-X on a vhost-user card (it looks
 * into its table of KVM's interrupt routes, which is not there). With INTx each ring still has a call eventfd of
 * its own.
 */
const kernelCommandLine =
  'console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off tsc=reliable no_timer_check ' +
  'random.trust_cpu=on cryptomgr.notests audit=0';

interface GuestParts {
  name: string;
  token: string;
  child: Child;
  console: TextLog;
  errors: TextLog;
  shell: Promise<GuestShell>;
  qmp: Promise<QmpClient>;
  exited: Promise<number | null>;
}

export class LinuxGuest {
  readonly name: string;
  readonly pid: number;
  /** The word that marks the shell's protocol; a migrated guest keeps the one it booted with. */
  readonly shellToken: string;
  /** Exit code of QEMU, or null when a signal ended it. Resolves once the temporary folder is gone too. */
  readonly exited: Promise<number | null>;
  readonly #parts: GuestParts;

  private constructor(parts: GuestParts) {
    this.#parts = parts;
    this.name = parts.name;
    this.pid = parts.child.pid;
    this.shellToken = parts.token;
    this.exited = parts.exited;
  }

  /** Boots a guest; resolves when its shell answers. Rejects with what QEMU wrote when it ends before that. */
  static async start(options: LinuxGuestOptions): Promise<LinuxGuest> {
    const guest = new LinuxGuest(await launch(options));
    const timeoutMs = options.bootTimeoutMs ?? BOOT_TIMEOUT_MS;
    try {
      await withDeadline(guest.#comeUp(options), timeoutMs, () => `not up after ${timeoutMs} ms`);
      return guest;
    } catch (error) {
      guest.kill();
      await guest.exited;
      throw new Error(guest.#describe((error as Error).message), { cause: error });
    }
  }

  async #comeUp(options: LinuxGuestOptions): Promise<void> {
    const { shell, qmp } = this.#parts;
    const up =
      options.incoming === undefined
        ? shell.then((it) => it.waitForBoot(1))
        : qmp.then((it) => it.execute('query-status'));
    const ended = this.exited.then(() => {
      throw new Error(`QEMU ended early, ${this.#parts.child.howItEnded()}`);
    });
    await Promise.race([up, ended]);
  }

  /** What the kernel wrote on the first serial port (last 1 MiB). */
  get consoleLog(): string {
    return this.#parts.console.text;
  }

  /** What QEMU itself wrote on its standard error (last 1 MiB). */
  get qemuErrors(): string {
    return this.#parts.errors.text;
  }

  /** Runs shell commands in the guest, after those asked for earlier. Default timeout 30 s; then it rejects. */
  async run(command: string, options: { timeoutMs?: number } = {}): Promise<CommandResult> {
    const shell = await this.#parts.shell;
    return this.#explained(shell.run(command, options.timeoutMs ?? 30_000));
  }

  /** As `run`, and rejects when the exit code is not 0. Returns the output. */
  async runOk(command: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const { code, output } = await this.run(command, options);
    if (code !== 0) throw new Error(`guest ${this.name}: code ${code} from: ${command}\n${output}`);
    return output;
  }

  /**
   * Restarts the guest at once, without unloading its drivers; resolves when its shell is back. One that stands in its firmware, which
   * touches no card of ours, is reset once more: QEMU's affair, where processors are emulated.
   */
  async reboot(options: { timeoutMs?: number } = {}): Promise<void> {
    const shell = await this.#parts.shell;
    const back = this.#explained(shell.runUntilBoot('reboot -f', options.timeoutMs ?? BOOT_TIMEOUT_MS));
    for (let resets = 0; resets < RESETS_MAX; resets++) {
      if ((await settlesWithin(back, FIRMWARE_MS)) || !(await this.#isInFirmware())) break;
      console.log(`guest ${this.name} stands in its firmware, and is reset: ${await this.#processors()}`);
      await this.qmp('system_reset');
    }
    await back;
  }

  /** Firmware does not page, and the kernel does from its first instructions on. */
  async #isInFirmware(): Promise<boolean> {
    const [, cr0] = /CR0=([0-9a-f]{8})/.exec(await this.#processors()) ?? [];
    return cr0 !== undefined && Number.parseInt(cr0, 16) < CR0_PAGING;
  }

  /** Where its processors stand, in QEMU's words, if it says so. */
  async #processors(): Promise<string> {
    // Not by `qmp`, whose failures are told with what this says.
    const client = await this.#parts.qmp;
    const asked = client.execute('human-monitor-command', { 'command-line': 'info registers -a' });
    const told = await withDeadline(asked, QMP_TIMEOUT_MS, () => 'QEMU does not answer').catch(String);
    return String(told)
      .split('\n')
      .filter((line) => /^CPU|RIP|EIP|CR0/.test(line))
      .join('; ');
  }

  /** How often the guest has come up; more than 1 + the reboots asked for means that it crashed. */
  async bootCount(): Promise<number> {
    return (await this.#parts.shell).bootCount;
  }

  /** Sets a network device up with an address ("10.0.0.1/24") and, if given, an MTU. */
  async configureNetwork(address: string, options: { device?: string; mtu?: number } = {}): Promise<void> {
    const device = options.device ?? 'eth0';
    const mtu = options.mtu === undefined ? '' : ` mtu ${options.mtu}`;
    await this.runOk(`ip link set ${device} up${mtu} && ip addr add ${address} dev ${device}`);
  }

  /** Pings an address; default 5 requests, 100 ms apart. Lost ones are in the result, not an error. */
  async ping(address: string, options: PingOptions = {}): Promise<PingResult> {
    return pingFrom(
      async (command, timeoutMs) => (await this.run(command, { timeoutMs })).output,
      address,
      options,
    );
  }

  /** Runs a QMP command; rejects with QEMU's description of an error. */
  async qmp(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    const client = await this.#parts.qmp;
    return this.#explained(client.execute(command, args));
  }

  /** Resolves with the data of the next QMP event of that name. Call it before what causes the event. */
  async qmpEvent(name: string, options: { timeoutMs?: number } = {}): Promise<Record<string, unknown>> {
    const client = await this.#parts.qmp;
    return (await client.waitForEvent((event) => event.event === name, options.timeoutMs)).data;
  }

  /**
   * Migrates to a guest started with `incoming`; afterwards this one is paused and only good for `stop()`. `isHeld`: the
   * target was started with -S, and does not go on by itself.
   */
  async migrateTo(
    target: LinuxGuest,
    uri: string,
    options: { timeoutMs?: number; isHeld?: boolean } = {},
  ): Promise<void> {
    const timeoutMs = options.timeoutMs ?? MIGRATION_TIMEOUT_MS;
    const capabilities = [{ capability: 'events', state: true }];
    for (const guest of [this, target]) await guest.qmp('migrate-set-capabilities', { capabilities });
    const over = this.#untilMigrated(timeoutMs);
    // The source has sent all when it is done, and the target may still be reading it.
    const arrived =
      options.isHeld === true ? target.#untilMigrated(timeoutMs) : target.qmpEvent('RESUME', { timeoutMs });
    arrived.catch(() => {});
    await this.qmp('migrate', { uri });
    await over;
    await arrived;
  }

  async #untilMigrated(timeoutMs: number): Promise<void> {
    const client = await this.#parts.qmp;
    const { data } = await client.waitForEvent(
      ({ event, data }) => event === 'MIGRATION' && (data.status === 'completed' || data.status === 'failed'),
      timeoutMs,
    );
    if (data.status === 'failed') throw new Error(this.#describe('the migration failed'));
  }

  /** Ends QEMU in an orderly way (its vhost-user devices are stopped first), by force after 10 s. */
  async stop(): Promise<void> {
    this.#parts.child.process.kill('SIGTERM');
    if (!(await settlesWithin(this.#parts.child.exited, 10_000))) this.kill();
    await this.exited;
  }

  /** Ends QEMU with SIGKILL, as a crash would. */
  kill(): void {
    this.#parts.child.kill();
  }

  async #explained<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      const where = `${(error as Error).message}\nprocessors: ${await this.#processors()}`;
      throw new Error(this.#describe(where), { cause: error });
    }
  }

  #describe(problem: string): string {
    const tail = (text: string): string => text.trimEnd().split('\n').slice(-15).join('\n');
    return `guest ${this.name}: ${problem}\nQEMU: ${tail(this.qemuErrors)}\nconsole: ${tail(this.consoleLog)}`;
  }
}

/** Starts QEMU and its two connections. */
async function launch(options: LinuxGuestOptions): Promise<GuestParts> {
  const temporary = await temporaryFolder('ringway-guest-');
  const folder = temporary.path;
  const sockets: OneConnection[] = [];
  const cleanUp = async (): Promise<void> => {
    for (const socket of sockets) socket.close();
    await temporary.remove();
  };
  try {
    const token = options.incoming?.from.shellToken ?? randomBytes(12).toString('hex');
    const shellServer = await acceptOne(join(folder, 'shell.sock'));
    sockets.push(shellServer);
    const qmpServer = await acceptOne(join(folder, 'qmp.sock'));
    sockets.push(qmpServer);
    const args = qemuArguments(options, folder, token);
    const child = await startQemu(args, options);
    options.signal?.addEventListener('abort', () => child.kill(), { once: true });
    if (options.signal?.aborted) child.kill();
    return {
      name: options.name,
      token,
      child,
      console: new TextLog(child.process.stdout),
      errors: new TextLog(child.process.stderr),
      shell: shellServer.connection.then((socket) => new GuestShell(socket, token)),
      qmp: qmpServer.connection.then((socket) => new QmpClient(socket)),
      exited: endOf(child, cleanUp),
    };
  } catch (error) {
    await cleanUp();
    throw error;
  }
}

/** `ip netns exec` becomes QEMU, so the process is QEMU's own also in a namespace. */
function startQemu(args: readonly string[], options: LinuxGuestOptions): Promise<Child> {
  const { networkNamespace: namespace, passedFds } = options;
  if (namespace === undefined) return startChild('qemu-system-x86_64', args, passedFds);
  const line = ['netns', 'exec', namespace, findProgram('qemu-system-x86_64')!, ...args];
  return startChild('ip', line, passedFds);
}

/**
 * Without KVM, QEMU leaves out a guest's memory barriers where the guest can never have a second processor (`lock addl` is then
 * an addition like any other). Its driver and we may each miss what the other wrote, so a queue goes deaf now and then.
 */
function processors(cpus: number): string {
  return cpus > 1 ? String(cpus) : `${cpus},maxcpus=2`;
}

function qemuArguments(options: LinuxGuestOptions, folder: string, token: string): string[] {
  const { imagePath, initramfs } = guestFiles(options.kernel);
  const accel = options.accel ?? 'tcg';
  const append = guestCommandLine({ ...options, accel, token });
  const memory = options.qemuArgs.includes('-m') ? [] : ['-m', String(options.memoryMiB ?? 192)];
  const incoming = options.incoming === undefined ? [] : ['-incoming', options.incoming.uri];
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-accel', accel],
    ...[
      '-machine',
      options.machine ?? 'pc',
      '-cpu',
      options.cpuModel ?? (accel === 'kvm' ? 'host' : 'qemu64'),
    ],
    ...['-smp', processors(options.cpus ?? 1), ...memory],
    // No boot firmware on the network cards: the guest never boots from them.
    ...['-global', 'virtio-net-pci.romfile='],
    ...['-kernel', imagePath, '-initrd', initramfs, '-append', append],
    ...['-chardev', 'stdio,id=ringway-console,signal=off', '-serial', 'chardev:ringway-console'],
    ...['-chardev', `socket,id=ringway-shell,path=${folder}/shell.sock`, '-serial', 'chardev:ringway-shell'],
    ...[
      '-chardev',
      `socket,id=ringway-qmp,path=${folder}/qmp.sock`,
      '-mon',
      'chardev=ringway-qmp,mode=control',
    ],
    ...options.qemuArgs,
    ...incoming,
  ];
}

/** What a guest boots: the kernel, and its root file system. Made where it is not there yet. */
export function guestFiles(flavor?: KernelFlavor): {
  readonly imagePath: string;
  readonly initramfs: string;
} {
  const kernel = guestKernel(flavor);
  const [busybox, iperf3, ethtool] = ['busybox', 'iperf3', 'ethtool'].map(findProgram);
  if (kernel === undefined || busybox === undefined || iperf3 === undefined || ethtool === undefined) {
    const peers = flavor === 'generic' ? "'qemu', 'emulated-cards'" : "'qemu'";
    throw new Error(`parts of the guest are missing: await ensurePeers([${peers}]) before`);
  }
  const { modulesFolder, imagePath } = kernel;
  const sources = { busyboxPath: busybox, programPaths: [iperf3, ethtool], modulesFolder };
  return { imagePath, initramfs: buildInitramfs(sources, cacheFolder()) };
}

/** The kernel's, of a guest whose shell marks its answers by that token. */
export function guestCommandLine(guest: {
  readonly name: string;
  readonly token: string;
  readonly accel: 'tcg' | 'kvm';
  readonly kernelArgs?: string;
}): string {
  const interrupts = guest.accel === 'kvm' ? '' : ' pci=nomsi';
  return `${kernelCommandLine}${interrupts} ringway.token=${guest.token} ringway.name=${guest.name} ${guest.kernelArgs ?? ''}`;
}
