/**
 * A port on a UNIX datagram socket: QEMU's `-netdev dgram`. Ringway binds `socketPath` and sends to `peerPath`, which
 * QEMU binds. There is no connection: while nothing is bound at `peerPath`, frames to it are lost. Main thread.
 */
import { resolve } from 'node:path';
import { BoundSocket, type HandedSocket } from '../../host/bound-socket.ts';
import { closeFd } from '../../host/descriptor.ts';
import type { HostError } from '../../host/errors.ts';
import { bindDatagram, datagramObstacle, SocketPathError, socketAddress } from '../../host/unix-socket.ts';
import type { PortContext, PortStatus } from '../contract.ts';
import { type HandedPort, type HandedUnixPort, listenerOf, socketOf } from '../hand-over.ts';
import { UnixPort, type UnixPortOptions } from './port.ts';

export type UnixDatagramPortOptions = UnixPortOptions & { readonly peerPath: string };

/** How often is looked whether the peer's socket is there: for the status only, frames go as soon as it is. */
const LOOK_PERIOD_MS = 250;
const PAUSES = { minMs: 50, maxMs: 1000 };

export class UnixDatagramPort extends UnixPort {
  readonly options: UnixDatagramPortOptions;
  readonly #socket: BoundSocket;
  /** What is taken over, until it is. */
  #handed: HandedSocket | null = null;
  /** The descriptor that the workers use; -1: none. That of the socket, or of the one before while it is let go of. */
  #usedFd = -1;
  #isAttached = false;
  #lookTimer: NodeJS.Timeout | null = null;
  /** Why the peer cannot be reached; null: it can. */
  #obstacle: string | null = 'not looked for yet';

  constructor(options: UnixDatagramPortOptions, context: PortContext) {
    super(
      options,
      context,
      {
        open: () => this.#open(),
        // What another process did not have is not made before that has ended.
        attend: () =>
          this.frozen !== null && this.#socket.fd < 0 ? this.frozen.promise.then(() => true) : null,
        attach: () => this.#attach(),
        release: () => this.#release(),
        close: () => this.#unbind(),
        explain: (error) => (error instanceof SocketPathError ? { reason: error.message } : null),
        describe: (isHeld, reason) => this.#describe(isHeld, reason),
      },
      PAUSES,
    );
    this.options = options;
    const { socketPath } = options;
    const listen = { ...options.listen, refusesDescriptors: true };
    this.#socket = new BoundSocket(socketPath, () => bindDatagram(socketPath, listen), {
      renewed: (_, oldFd) => this.#renewed(oldFd),
      info: (message) => context.events.info(message),
      warn: (message) => context.events.warn(message),
    });
  }

  get details(): Readonly<Record<string, unknown>> {
    return { transport: 'dgram', peer: this.options.peerPath };
  }

  protected override get hasPeer(): boolean {
    return this.#obstacle === null;
  }

  queueFailed(queueIndex: number): void {
    const reason = this.faultReason(queueIndex);
    if (reason !== null) this.supervisor.lose({ reason });
  }

  async freeze(): Promise<void> {
    this.frozen ??= Promise.withResolvers();
    this.#socket.lookAfter(false);
  }

  handOver(): HandedUnixPort {
    this.handedFd = this.usedFd;
    const socket = this.#socket.fd < 0 ? null : this.#socket.handOver();
    return {
      kind: 'unix',
      endpoint: resolve(this.endpoint),
      transport: 'dgram',
      peer: resolve(this.options.peerPath),
      listener: listenerOf(this.endpoint, socket),
      fd: null,
    };
  }

  takeOver(any: HandedPort): void {
    const { listener } = this.begunBy(any, 'dgram', resolve(this.options.peerPath));
    this.#handed = socketOf(listener);
    this.handedFd = listener?.fd ?? null;
  }

  thaw(): void {
    this.frozen?.resolve();
    this.frozen = null;
    this.handedFd = null;
    this.#socket.lookAfter(true);
  }

  protected override get usedFd(): number | null {
    return this.#usedFd < 0 ? null : this.#usedFd;
  }

  #open(): void {
    if (this.frozen === null) this.#bind();
    else if (this.#handed !== null) this.#socket.takeOver(this.#handed);
    this.#handed = null;
  }

  /** @throws SocketPathError, HostError */
  #bind(): void {
    // A path that no socket can have is refused at once, also the peer's.
    socketAddress(this.options.peerPath);
    this.#socket.open();
  }

  /** A socket that failed is made anew; the first one is there. */
  async #attach(): Promise<void> {
    if (this.#socket.fd < 0) this.#bind();
    const fd = this.#socket.fd;
    this.#usedFd = fd;
    await this.attach(fd, { transport: 'dgram', receiver: socketAddress(this.options.peerPath) });
    this.#isAttached = true;
    this.#look();
    this.#lookTimer = setInterval(() => this.#look(), LOOK_PERIOD_MS);
    this.#lookTimer.unref();
  }

  async #release(): Promise<void> {
    if (this.#lookTimer !== null) clearInterval(this.#lookTimer);
    this.#lookTimer = null;
    this.#isAttached = false;
    await this.detach();
    const usedFd = this.#usedFd;
    this.#usedFd = -1;
    // What was bound anew meanwhile is attached next.
    if (usedFd === this.#socket.fd) this.#unbind();
    else if (usedFd >= 0) closeFd(usedFd);
  }

  #unbind(): void {
    const fd = this.#socket.release();
    if (fd >= 0) closeFd(fd);
  }

  #renewed(oldFd: number): void {
    if (oldFd === this.#usedFd) this.supervisor.lose({ reason: null, retry: 'now' });
    else closeFd(oldFd);
  }

  #describe(isHeld: boolean, reason: string | null): PortStatus {
    if (!isHeld) return { state: 'stopped', reason };
    const { trouble } = this.#socket;
    const reasons = trouble === null ? [] : [`nothing can be received: ${trouble}`];
    if (this.#obstacle !== null) return { state: 'waiting', reason: [...reasons, this.#obstacle].join('; ') };
    return { state: this.#isAttached ? 'running' : 'negotiating', reason: reasons[0] ?? null };
  }

  #look(): void {
    const { peerPath } = this.options;
    const error = datagramObstacle(peerPath);
    const wasReachable = this.#obstacle === null;
    const obstacle = error === null ? null : obstacleText(peerPath, error);
    this.#obstacle = obstacle;
    if (wasReachable === (obstacle === null)) return;
    this.context.events.info(obstacle ?? `${peerPath} is there`);
    if (wasReachable) this.context.events.disconnected();
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
