/**
 * A port on a UNIX stream socket: QEMU's `-netdev stream`, or `-netdev socket` with a connected descriptor. In role
 * server Ringway listens, in role client it connects, again and again. One peer at a time. Main thread.
 */
import { rmSync } from 'node:fs';
import { closeFd } from '../../host/descriptor.ts';
import { HostError } from '../../host/errors.ts';
import { descriptorLoop, type Watch } from '../../host/event-loop.ts';
import { acceptUnix, checkSocketPath, connectUnix, listenUnix } from '../../host/unix-socket.ts';
import { ArenaFullError } from '../../memory/arena.ts';
import type { PortContext, PortStatus } from '../contract.ts';
import { CLOSED_REASON, INGRESS_INDEX, UnixPort, type UnixPortOptions } from './port.ts';
import { sendRest, type UnixAttachment } from './queues.ts';

export type UnixStreamPortOptions = UnixPortOptions & { readonly role: 'server' | 'client' };

/** How long the rest of a frame that a full socket took a part of waits at most for another try. */
const REST_PERIOD_MS = 20;

type Peer = {
  readonly fd: number;
  /** Frames that had come in before this peer. */
  readonly framesBefore: number;
  readonly attached: Promise<void>;
  egress: UnixAttachment | null;
  restTimer: NodeJS.Timeout | null;
};

export class UnixStreamPort extends UnixPort {
  readonly options: UnixStreamPortOptions;
  #listenFd = -1;
  #watch: Watch | null = null;
  #peer: Peer | null = null;
  #ending: Promise<void> | null = null;
  /** Whether a second connection was left waiting once. */
  #secondWaited = false;

  constructor(options: UnixStreamPortOptions, context: PortContext) {
    super(options, context);
    this.options = options;
  }

  get status(): PortStatus {
    if (this.stopped) return { state: 'stopped', reason: 'the port was stopped' };
    if (this.#peer === null || this.#ending !== null)
      return { state: 'waiting', reason: this.#waitingReason() };
    return { state: this.#peer.egress === null ? 'negotiating' : 'running', reason: null };
  }

  get details(): Readonly<Record<string, unknown>> {
    return { transport: 'stream', role: this.options.role };
  }

  start(): void {
    const { socketPath, role, listen } = this.options;
    if (role === 'client') {
      checkSocketPath(socketPath);
      this.#connect();
      return;
    }
    this.#listenFd = listenUnix(socketPath, listen);
    this.#watchListener();
  }

  async stop(): Promise<void> {
    this.stopped = true;
    this.cancelRetry();
    this.#watch?.close();
    this.#watch = null;
    if (this.#listenFd >= 0) {
      closeFd(this.#listenFd);
      this.#listenFd = -1;
      rmSync(this.options.socketPath, { force: true });
    }
    await this.#end('the port was stopped');
  }

  queueFailed(queueIndex: number): void {
    const reason = this.faultReason(queueIndex);
    if (reason !== null && this.#ending === null) void this.#end(this.faultReason(INGRESS_INDEX) ?? reason);
  }

  #watchListener(): void {
    if (this.stopped) return;
    this.#watch?.close();
    this.#watch = descriptorLoop().watch(this.#listenFd, () => this.#accept());
  }

  /** Looks at the listener again after a pause. */
  #pauseListener(): void {
    this.#watch?.close();
    this.#watch = null;
    this.retryLater(() => this.#watchListener());
  }

  #accept(): void {
    if (this.#peer !== null && !this.#secondWaited) {
      // The first one may have just gone without a worker having seen it yet.
      this.#secondWaited = true;
      this.#pauseListener();
      return;
    }
    const fd = this.#acceptOrPause();
    if (fd === null) return;
    this.#secondWaited = false;
    if (this.#peer === null) {
      this.#adopt(fd);
      return;
    }
    // Accepted and closed, so that the second one is told at once instead of waiting for ever.
    closeFd(fd);
    this.context.events.warn('refused a second connection: one is in use already');
    this.#pauseListener();
  }

  /** Out of descriptors: the connection stays queued. */
  #acceptOrPause(): number | null {
    try {
      return acceptUnix(this.#listenFd);
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.context.events.warn(error.message);
      this.#pauseListener();
      return null;
    }
  }

  #connect(): void {
    try {
      this.#adopt(connectUnix(this.options.socketPath));
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      if (!NOT_SERVED.has(error.code)) this.#tellReason(error.message);
      this.retryLater(() => this.#connect());
    }
  }

  #adopt(fd: number): void {
    this.lastReason = null;
    const attached = Promise.withResolvers<void>();
    const peer: Peer = {
      fd,
      framesBefore: this.counters.ingressFrames,
      attached: attached.promise,
      egress: null,
      restTimer: null,
    };
    this.#peer = peer;
    this.context.events.info('connected');
    void this.#attachPeer(peer).then(attached.resolve, attached.reject);
    // A bug, unless it is one of the reasons below.
    attached.promise.catch((error: unknown) => {
      if (!(error instanceof HostError || error instanceof ArenaFullError)) throw error;
      void this.#end(error.message);
    });
  }

  async #attachPeer(peer: Peer): Promise<void> {
    const egress = await this.attach(peer.fd, { transport: 'stream', receiver: null });
    peer.egress = egress;
    peer.restTimer = setInterval(() => sendRest(egress), REST_PERIOD_MS);
    peer.restTimer.unref();
  }

  /** Lets go of the peer; then another one may come. */
  #end(reason: string): Promise<void> {
    const peer = this.#peer;
    if (peer === null || this.#ending !== null) return this.#ending ?? Promise.resolve();
    this.#tellReason(reason);
    // Who connects from now on waits until the workers let go of this peer.
    this.#watch?.close();
    this.#watch = null;
    this.cancelRetry();
    this.#ending = this.#release(peer);
    return this.#ending;
  }

  async #release(peer: Peer): Promise<void> {
    await peer.attached.catch(() => {});
    if (peer.restTimer !== null) clearInterval(peer.restTimer);
    await this.detach();
    closeFd(peer.fd);
    this.context.events.disconnected();
    this.#peer = null;
    this.#ending = null;
    if (this.stopped) return;
    const cameFar = this.counters.ingressFrames > peer.framesBefore;
    if (cameFar) this.resetRetry();
    // A peer that never sent a frame and connects again at once must not keep us busy.
    if (this.options.role === 'client') this.retryLater(() => this.#connect());
    else if (cameFar) this.#watchListener();
    else this.#pauseListener();
  }

  #tellReason(reason: string): void {
    if (reason === this.lastReason) return;
    this.lastReason = reason;
    if (reason === CLOSED_REASON || this.stopped) this.context.events.info(reason);
    else this.context.events.warn(reason);
  }

  #waitingReason(): string {
    const { role, socketPath } = this.options;
    const wait =
      role === 'server'
        ? 'waiting for QEMU to connect (-netdev stream)'
        : `waiting for QEMU to listen at ${socketPath} (-netdev stream,server=on)`;
    return this.lastReason === null ? wait : `${wait}; last: ${this.lastReason}`;
  }
}

/** Errors of connect that only mean: try again later. */
const NOT_SERVED = new Set(['ENOENT', 'ECONNREFUSED', 'EAGAIN']);
