/**
 * A port on a UNIX datagram socket: QEMU's `-netdev dgram`. Ringway binds `socketPath` and sends to `peerPath`, which
 * QEMU binds. There is no connection: while nothing is bound at `peerPath`, frames to it are lost. Main thread.
 */
import { rmSync } from 'node:fs';
import { closeFd } from '../../host/descriptor.ts';
import { HostError } from '../../host/errors.ts';
import { bindDatagram, datagramObstacle, SocketPathError, socketAddress } from '../../host/unix-socket.ts';
import { ArenaFullError } from '../../memory/arena.ts';
import type { PortContext, PortStatus } from '../contract.ts';
import { UnixPort, type UnixPortOptions } from './port.ts';

export type UnixDatagramPortOptions = UnixPortOptions & { readonly peerPath: string };

/** How often is looked whether the peer's socket is there: for the status only, frames go as soon as it is. */
const LOOK_PERIOD_MS = 250;

export class UnixDatagramPort extends UnixPort {
  readonly options: UnixDatagramPortOptions;
  #fd = -1;
  #attaching: Promise<void> = Promise.resolve();
  #ending: Promise<void> | null = null;
  #isAttached = false;
  #lookTimer: NodeJS.Timeout | null = null;
  /** Why the peer cannot be reached; null: it can. */
  #obstacle: string | null = 'not looked for yet';

  constructor(options: UnixDatagramPortOptions, context: PortContext) {
    super(options, context);
    this.options = options;
  }

  get status(): PortStatus {
    if (this.stopped) return { state: 'stopped', reason: 'the port was stopped' };
    if (this.lastReason !== null) return { state: 'stopped', reason: this.lastReason };
    if (this.#obstacle !== null) return { state: 'waiting', reason: this.#obstacle };
    return { state: this.#isAttached ? 'running' : 'negotiating', reason: null };
  }

  get details(): Readonly<Record<string, unknown>> {
    return { transport: 'dgram', peer: this.options.peerPath };
  }

  async start(): Promise<void> {
    socketAddress(this.options.peerPath);
    await this.#open();
    this.#look();
    this.#lookTimer = setInterval(() => this.#look(), LOOK_PERIOD_MS);
    this.#lookTimer.unref();
  }

  async stop(): Promise<void> {
    this.stopped = true;
    this.cancelRetry();
    if (this.#lookTimer !== null) clearInterval(this.#lookTimer);
    await (this.#ending ?? this.#close());
  }

  queueFailed(queueIndex: number): void {
    const reason = this.faultReason(queueIndex);
    if (reason === null || this.#ending !== null || this.stopped) return;
    this.#tellReason(reason);
    this.#ending = this.#close().then(() => {
      this.#ending = null;
      this.retryLater(() => void this.#reopen());
    });
  }

  /** @throws SocketPathError, HostError, ArenaFullError */
  async #open(): Promise<void> {
    const { socketPath, peerPath, listen } = this.options;
    this.#fd = bindDatagram(socketPath, listen);
    const attaching = this.attach(this.#fd, { transport: 'dgram', receiver: socketAddress(peerPath) });
    // For `#close`, which only waits for the end of it.
    this.#attaching = attaching.then(
      () => {},
      () => {},
    );
    try {
      await attaching;
      this.#isAttached = true;
      this.lastReason = null;
    } catch (error) {
      await this.#close();
      throw error;
    }
  }

  async #reopen(): Promise<void> {
    try {
      await this.#open();
      this.resetRetry();
    } catch (error) {
      const isKnown = [SocketPathError, HostError, ArenaFullError].some((kind) => error instanceof kind);
      if (!isKnown) throw error;
      this.#tellReason((error as Error).message);
      this.retryLater(() => void this.#reopen());
    }
  }

  async #close(): Promise<void> {
    await this.#attaching;
    await this.detach();
    this.#isAttached = false;
    if (this.#fd < 0) return;
    closeFd(this.#fd);
    this.#fd = -1;
    rmSync(this.options.socketPath, { force: true });
  }

  #look(): void {
    const { peerPath } = this.options;
    const error = datagramObstacle(peerPath);
    const wasReachable = this.#obstacle === null;
    this.#obstacle = error === null ? null : obstacleText(peerPath, error);
    if (wasReachable === (error === null)) return;
    this.context.events.info(error === null ? `${peerPath} is there` : this.#obstacle!);
    if (wasReachable) this.context.events.disconnected();
  }

  #tellReason(reason: string): void {
    if (reason === this.lastReason) return;
    this.lastReason = reason;
    this.context.events.warn(reason);
  }
}

function obstacleText(path: string, { code }: HostError): string {
  const wait = `waiting for the peer's socket ${path} (-netdev dgram)`;
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return `${wait}: it does not exist`;
    case 'ECONNREFUSED':
      return `${wait}: no process has it open`;
    case 'EACCES':
      return `${wait}: no permission to send to it; let Ringway's user write to it`;
    case 'EPROTOTYPE':
      return `${wait}: it is a stream socket; use transport stream with -netdev stream`;
    default:
      return `${wait}: ${code}`;
  }
}
