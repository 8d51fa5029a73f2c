/**
 * A port on a UNIX stream socket: QEMU's `-netdev stream`, or `-netdev socket` with a connected descriptor. In role
 * server Ringway listens, in role client it connects, again and again. One peer at a time. Main thread.
 */
import { resolve } from 'node:path';
import { closeFd } from '../../host/descriptor.ts';
import type { PortContext, PortStatus } from '../contract.ts';
import { type HandedPort, type HandedUnixPort, listenerOf, socketOf } from '../hand-over.ts';
import { PeerSocket, type SocketRole } from '../peer-socket.ts';
import { CLOSED_REASON, INGRESS_INDEX, UnixPort, type UnixPortOptions } from './port.ts';
import { sendRest, type UnixAttachment } from './queues.ts';

export type UnixStreamPortOptions = UnixPortOptions & { readonly role: SocketRole };

/** How long the rest of a frame that a full socket took a part of waits at most for another try. */
const REST_PERIOD_MS = 20;

type Peer = {
  readonly fd: number;
  /** Frames that had come in before this peer. */
  readonly framesBefore: number;
  egress: UnixAttachment | null;
  restTimer: NodeJS.Timeout | null;
};

export class UnixStreamPort extends UnixPort {
  readonly options: UnixStreamPortOptions;
  readonly #socket: PeerSocket;
  #peer: Peer | null = null;
  /** What is taken over, until it is. */
  #handed: HandedUnixPort | null = null;
  /** Resolved when the connection of another process is had here, or came to nothing; null: there is none. */
  #taking: PromiseWithResolvers<void> | null = null;

  constructor(options: UnixStreamPortOptions, context: PortContext) {
    const listen = { ...options.listen, refusesDescriptors: true };
    const socket = new PeerSocket(options.socketPath, options.role, listen, context.events);
    super(
      options,
      context,
      {
        open: () => this.#open(),
        attend: (signal) => this.#attend(signal),
        attach: () => this.#attach(),
        release: (isLast) => this.#release(isLast),
        close: () => socket.close(),
        explain: (error) => socket.explain(error),
        describe: (isHeld, reason) => this.#describe(isHeld, reason),
      },
      PeerSocket.PAUSES,
    );
    this.options = options;
    this.#socket = socket;
  }

  get details(): Readonly<Record<string, unknown>> {
    return { transport: 'stream', role: this.options.role };
  }

  queueFailed(queueIndex: number): void {
    const reason = this.faultReason(queueIndex);
    if (reason === null || this.#peer === null) return;
    // What came in tells more than that nothing can be sent any more.
    const why = this.faultReason(INGRESS_INDEX) ?? reason;
    // A peer that never sent a frame and connects again at once must not keep us busy.
    const cameFar = this.counters.ingressFrames > this.#peer.framesBefore;
    const retry = cameFar ? this.#socket.retryAfterUse : 'later';
    this.supervisor.lose({ reason: why, isFine: why === CLOSED_REASON, retry });
  }

  async freeze(): Promise<void> {
    this.frozen ??= Promise.withResolvers();
    this.#socket.freeze();
    await this.#taking?.promise;
  }

  handOver(): HandedUnixPort {
    const { listening, acceptedFd } = this.#socket.handOver();
    this.handedFd = this.usedFd;
    const fd = this.handedFd ?? (acceptedFd < 0 ? null : acceptedFd);
    return {
      kind: 'unix',
      endpoint: resolve(this.endpoint),
      transport: 'stream',
      peer: this.options.role,
      listener: listenerOf(this.endpoint, listening),
      fd,
    };
  }

  takeOver(any: HandedPort): void {
    this.#handed = this.begunBy(any, 'stream', this.options.role);
    this.handedFd = this.#handed.fd;
    if (this.handedFd !== null) this.#taking = Promise.withResolvers();
  }

  /** Nothing is sent by the main thread while the workers rest. */
  override async setResting(isResting: boolean): Promise<void> {
    const peer = this.#peer;
    if (isResting && peer !== null) this.#stopTimer(peer);
    await super.setResting(isResting);
    if (!isResting && peer !== null && peer === this.#peer) this.#startTimer(peer);
  }

  thaw(): void {
    this.frozen?.resolve();
    this.frozen = null;
    this.handedFd = null;
    this.#socket.thaw(this.usedFd ?? -1);
  }

  protected override get usedFd(): number | null {
    return this.#peer?.fd ?? null;
  }

  #open(): void {
    if (this.#handed === null) this.#socket.open();
    else this.#socket.takeOver(socketOf(this.#handed.listener), this.#handed.fd ?? -1);
  }

  #attend(signal: AbortSignal): Promise<boolean> | null {
    const isTaking = this.#handed !== null && this.#handed.fd !== null;
    if (this.frozen !== null && !isTaking && this.options.role === 'client')
      return this.frozen.promise.then(() => true);
    return this.#socket.attend(signal);
  }

  async #attach(): Promise<void> {
    const isTaking = this.#handed !== null && this.#handed.fd !== null;
    this.#handed = null;
    if (!isTaking) await this.frozen?.promise;
    try {
      await this.#attachPeer(this.#socket.take(), isTaking);
    } finally {
      this.#taking?.resolve();
    }
  }

  async #attachPeer(fd: number, isTaken: boolean): Promise<void> {
    const peer: Peer = { fd, framesBefore: this.counters.ingressFrames, egress: null, restTimer: null };
    this.#peer = peer;
    if (!isTaken) this.context.events.info('connected');
    const egress = await this.attach(fd, { transport: 'stream', receiver: null });
    peer.egress = egress;
    if (!isTaken) this.#startTimer(peer);
  }

  #startTimer(peer: Peer): void {
    const { egress } = peer;
    if (egress === null || peer.restTimer !== null) return;
    peer.restTimer = setInterval(() => sendRest(egress), REST_PERIOD_MS);
    peer.restTimer.unref();
  }

  #stopTimer(peer: Peer): void {
    if (peer.restTimer !== null) clearInterval(peer.restTimer);
    peer.restTimer = null;
  }

  async #release(isLast: boolean): Promise<void> {
    // Who connects from now on waits until the workers let go of this peer.
    this.#socket.letGo(isLast);
    const peer = this.#peer;
    if (peer === null) return;
    this.#stopTimer(peer);
    // Whoever waits for the workers to take it up again starts no timer then.
    peer.egress = null;
    await this.detach();
    closeFd(peer.fd);
    this.#peer = null;
  }

  #describe(isHeld: boolean, reason: string | null): PortStatus {
    const peer = this.#peer;
    if (peer === null || !isHeld) return { state: 'waiting', reason: this.#waitingReason(reason) };
    return { state: peer.egress === null ? 'negotiating' : 'running', reason: this.#socket.trouble };
  }

  #waitingReason(reason: string | null): string {
    const { role, socketPath } = this.options;
    const wait =
      role === 'server'
        ? 'waiting for QEMU to connect (-netdev stream)'
        : `waiting for QEMU to listen at ${socketPath} (-netdev stream,server=on)`;
    const { trouble } = this.#socket;
    if (trouble !== null) return trouble;
    return reason === null ? wait : `${wait}; last: ${reason}`;
  }
}
