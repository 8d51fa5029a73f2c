/**
 * A port on a UNIX stream socket: QEMU's `-netdev stream`, or `-netdev socket` with a connected descriptor. In role
 * server Ringway listens, in role client it connects, again and again. One peer at a time. Main thread.
 */
import { closeFd } from '../../host/descriptor.ts';
import type { PortContext, PortStatus } from '../contract.ts';
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

  constructor(options: UnixStreamPortOptions, context: PortContext) {
    const listen = { ...options.listen, refusesDescriptors: true };
    const socket = new PeerSocket(options.socketPath, options.role, listen, context.events);
    super(
      options,
      context,
      {
        open: () => socket.open(),
        attend: (signal) => socket.attend(signal),
        attach: () => this.#attachPeer(socket.take()),
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

  async #attachPeer(fd: number): Promise<void> {
    const peer: Peer = { fd, framesBefore: this.counters.ingressFrames, egress: null, restTimer: null };
    this.#peer = peer;
    this.context.events.info('connected');
    const egress = await this.attach(fd, { transport: 'stream', receiver: null });
    peer.egress = egress;
    peer.restTimer = setInterval(() => sendRest(egress), REST_PERIOD_MS);
    peer.restTimer.unref();
  }

  async #release(isLast: boolean): Promise<void> {
    // Who connects from now on waits until the workers let go of this peer.
    this.#socket.letGo(isLast);
    const peer = this.#peer;
    if (peer === null) return;
    if (peer.restTimer !== null) clearInterval(peer.restTimer);
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
