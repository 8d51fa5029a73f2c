/**
 * A port on a UNIX datagram socket: QEMU's `-netdev dgram`. Ringway binds `socketPath` and sends to `peerPath`, which
 * QEMU binds. There is no connection: while nothing is bound at `peerPath`, frames to it are lost. Main thread.
 */
import { closeFd } from '../../host/descriptor.ts';
import type { HostError } from '../../host/errors.ts';
import { SocketFile } from '../../host/socket-file.ts';
import { bindDatagram, datagramObstacle, SocketPathError, socketAddress } from '../../host/unix-socket.ts';
import type { PortContext, PortStatus } from '../contract.ts';
import { UnixPort, type UnixPortOptions } from './port.ts';

export type UnixDatagramPortOptions = UnixPortOptions & { readonly peerPath: string };

/** How often is looked whether the peer's socket is there: for the status only, frames go as soon as it is. */
const LOOK_PERIOD_MS = 250;
const PAUSES = { minMs: 50, maxMs: 1000 };

export class UnixDatagramPort extends UnixPort {
  readonly options: UnixDatagramPortOptions;
  #fd = -1;
  #file: SocketFile | null = null;
  #isAttached = false;
  #lookTimer: NodeJS.Timeout | null = null;
  /** Why the peer cannot be reached; null: it can. */
  #obstacle: string | null = 'not looked for yet';

  constructor(options: UnixDatagramPortOptions, context: PortContext) {
    super(
      options,
      context,
      {
        open: () => this.#bind(),
        attend: () => null,
        attach: () => this.#attach(),
        release: () => this.#release(),
        close: () => this.#unbind(),
        explain: (error) => (error instanceof SocketPathError ? { reason: error.message } : null),
        describe: (isHeld, reason) => this.#describe(isHeld, reason),
      },
      PAUSES,
    );
    this.options = options;
  }

  get details(): Readonly<Record<string, unknown>> {
    return { transport: 'dgram', peer: this.options.peerPath };
  }

  queueFailed(queueIndex: number): void {
    const reason = this.faultReason(queueIndex);
    if (reason !== null) this.supervisor.lose({ reason });
  }

  /** @throws SocketPathError, HostError */
  #bind(): void {
    const { socketPath, peerPath, listen } = this.options;
    // A path that no socket can have is refused at once, also the peer's.
    socketAddress(peerPath);
    this.#fd = bindDatagram(socketPath, listen);
    this.#file = new SocketFile(socketPath);
  }

  /** A socket that failed is made anew; the first one is there. */
  async #attach(): Promise<void> {
    if (this.#fd < 0) this.#bind();
    await this.attach(this.#fd, { transport: 'dgram', receiver: socketAddress(this.options.peerPath) });
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
    this.#unbind();
  }

  #unbind(): void {
    this.#file?.remove();
    this.#file = null;
    if (this.#fd >= 0) closeFd(this.#fd);
    this.#fd = -1;
  }

  #describe(isHeld: boolean, reason: string | null): PortStatus {
    if (!isHeld) return { state: 'stopped', reason };
    if (this.#obstacle !== null) return { state: 'waiting', reason: this.#obstacle };
    return { state: this.#isAttached ? 'running' : 'negotiating', reason: null };
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
