/**
 * A service manager for one service, as far as Ringway talks to one: takes what is told at a notify socket, keeps
 * descriptors as systemd does (an open file once, whatever its name), and starts the service with them, as its own process
 * id says (LISTEN_PID).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { closeFds } from '../../../src/host/descriptor.ts';
import { descriptorLoop, type Watch } from '../../../src/host/event-loop.ts';
import { libc } from '../../../src/host/libc.ts';
import { bindDatagram, receive } from '../../../src/host/unix-socket.ts';

const MESSAGE_BYTES_MAX = 4096;
const SYS_KCMP = process.arch === 'arm64' ? 272 : 312;
const WAIT_MS = 30_000;

export type ManagerOptions = {
  readonly storeMax?: number;
  readonly watchdogUs?: number;
};

export class FakeManager {
  readonly folder = mkdtempSync(join(tmpdir(), 'ringway-test-'));
  readonly address = join(this.folder, 'notify');
  /** Lines that were told, of all messages; descriptors of the store are not among them. */
  readonly told: string[] = [];
  readonly store: { readonly name: string; readonly fd: number }[] = [];
  /** Messages are left in the socket. */
  isDeaf = false;
  readonly #options: ManagerOptions;
  readonly #fd = bindDatagram(this.address);
  #watch: Watch | null = null;
  #onTold: (() => void)[] = [];

  constructor(options: ManagerOptions = {}) {
    this.#options = options;
    this.hear();
  }

  hear(): void {
    this.isDeaf = false;
    this.#watch?.close();
    this.#watch = descriptorLoop().watch(this.#fd, () => this.#receiveAll());
  }

  beDeaf(): void {
    this.isDeaf = true;
    this.#watch?.close();
    this.#watch = null;
  }

  /** Names in the store, without their numbers, and how many of each there are. */
  get kept(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { name } of this.store) {
      const kind = name.replace(/-\d+$/, '');
      counts[kind] = (counts[kind] ?? 0) + 1;
    }
    return counts;
  }

  /**
   * Starts the service with all that is kept; as a spawn of RingwayProcess. One that takes over is another process of the
   * service: it is told no more than where to tell what.
   */
  readonly spawn = (args: readonly string[]): ChildProcess => {
    this.#receiveAll();
    const isMain = !args.includes('--takeover');
    const { storeMax, watchdogUs } = this.#options;
    const script = 'export LISTEN_PID=$$ WATCHDOG_PID=$$; exec "$0" "$@"';
    const command = isMain ? ['sh', '-c', script, process.execPath, ...args] : [process.execPath, ...args];
    return spawn(command[0], command.slice(1), {
      stdio: ['ignore', 'ignore', 'pipe', ...(isMain ? this.store.map(({ fd }) => fd) : [])],
      env: {
        ...process.env,
        NOTIFY_SOCKET: this.address,
        ...(isMain && {
          LISTEN_FDS: String(this.store.length),
          LISTEN_FDNAMES: this.store.map(({ name }) => name).join(':'),
          ...(storeMax !== undefined && { FDSTORE: String(storeMax) }),
          ...(watchdogUs !== undefined && { WATCHDOG_USEC: String(watchdogUs) }),
        }),
      },
    });
  };

  /** Resolves when it holds: asked now, and after each message. */
  async until(holds: (manager: FakeManager) => boolean): Promise<void> {
    const deadline = AbortSignal.timeout(WAIT_MS);
    while (!holds(this)) {
      await new Promise<void>((resolve, reject) => {
        this.#onTold.push(resolve);
        deadline.addEventListener('abort', () =>
          reject(new Error(`what was told: ${this.told.join(' ')}; kept: ${JSON.stringify(this.kept)}`)),
        );
      });
    }
  }

  close(): void {
    this.#watch?.close();
    this.dropStore();
    closeFds([this.#fd]);
    rmSync(this.folder, { recursive: true });
  }

  /** As at the end of a service that was stopped. */
  dropStore(): void {
    this.lose(() => true);
  }

  lose(isLost: (kept: { readonly name: string }) => boolean): void {
    closeFds(this.store.filter(isLost).map(({ fd }) => fd));
    this.store.splice(0, this.store.length, ...this.store.filter((kept) => !isLost(kept)));
  }

  #receiveAll(): void {
    if (this.isDeaf) return;
    for (;;) {
      const { bytes, fds } = receive(this.#fd, MESSAGE_BYTES_MAX);
      if (bytes.length === 0) break;
      this.#take(Buffer.from(bytes).toString().split('\n'), fds);
    }
    for (const call of this.#onTold.splice(0)) call();
  }

  #take(lines: readonly string[], fds: readonly number[]): void {
    const name = lines.find((line) => line.startsWith('FDNAME='))?.slice('FDNAME='.length) ?? 'stored';
    if (lines.includes('FDSTOREREMOVE=1')) {
      this.lose((kept) => kept.name === name);
    } else if (lines.includes('FDSTORE=1')) {
      for (const fd of fds) this.#keep(name, fd);
    } else {
      closeFds(fds);
      this.told.push(...lines);
    }
  }

  #keep(name: string, fd: number): void {
    const isKnown = this.store.some((kept) => isSameFile(kept.fd, fd));
    if (isKnown || this.store.length >= (this.#options.storeMax ?? 0)) closeFds([fd]);
    else this.store.push({ name, fd });
  }
}

/** kcmp(2), KCMP_FILE. */
function isSameFile(a: number, b: number): boolean {
  return libc.syscall5(SYS_KCMP, process.pid, process.pid, 0, a, b) === 0;
}
