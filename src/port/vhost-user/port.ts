/**
 * A port that a vhost-user front-end connects to (server role), or that connects to a listening front-end
 * and does so again when it goes away (client role). One front-end at a time; a device lives as long as its
 * connection. Main thread.
 */
import { rmSync } from 'node:fs';
import { bitNames } from '../../../protocol/bits.ts';
import { PROTOCOL_FEATURE } from '../../../protocol/vhost-user/features.ts';
import { VIRTIO_FEATURE } from '../../../protocol/virtio/features.ts';
import type { Device } from '../../device/device.ts';
import { NetDevice } from '../../device/net/net-device.ts';
import { type DeviceOptions, ringCountMax } from '../../device/net/options.ts';
import { closeFd } from '../../host/descriptor.ts';
import { HostError } from '../../host/errors.ts';
import { descriptorLoop, type Watch } from '../../host/event-loop.ts';
import {
  acceptUnix,
  checkSocketPath,
  connectUnix,
  type ListenOptions,
  listenUnix,
  peerPid,
} from '../../host/unix-socket.ts';
import { type PortCounters, queueStates, sumCounters } from '../../queue/state.ts';
import { Session } from '../../vhost-user/back-end.ts';
import type { Port, PortContext, PortQueue, PortStatus } from '../contract.ts';

export type VhostUserPortOptions = {
  readonly socketPath: string;
  readonly role: 'server' | 'client';
  /** Of the socket file; server role only. */
  readonly listen: ListenOptions;
  readonly device: DeviceOptions;
};

/** What `ringway ports --json` shows of this kind only. */
export type VhostUserDetails = {
  readonly role: 'server' | 'client';
  readonly features: readonly string[];
  readonly protocolFeatures: readonly string[];
  readonly memoryBytes: number;
};

/** Pause before a front-end is connected to or accepted again, doubling from the first to the second. */
const RETRY_MIN_MS = 50;
const RETRY_MAX_MS = 1000;

/** A front-end's connection and the device that it drives. */
type Peer = { readonly session: Session; readonly net: NetDevice };

export class VhostUserPort implements Port {
  readonly id: number;
  readonly name: string;
  readonly kind = 'vhost-user';
  readonly endpoint: string;
  readonly options: VhostUserPortOptions;
  /** QueueState blocks of all rings; they outlive connections, so counters do too. */
  readonly states: SharedArrayBuffer;
  readonly #context: PortContext;
  #peer: Peer | null = null;
  #releasing: Promise<void> | null = null;
  #listenFd = -1;
  #watch: Watch | null = null;
  #retry: NodeJS.Timeout | null = null;
  #retryMs = RETRY_MIN_MS;
  #stopped = false;
  /** What ended the last connection or was last refused. */
  #lastReason: string | null = null;
  #reported = '';

  constructor(options: VhostUserPortOptions, context: PortContext) {
    this.id = context.id;
    this.name = context.name;
    this.endpoint = options.socketPath;
    this.options = options;
    this.states = queueStates(ringCountMax(options.device.queuePairsMax));
    this.#context = context;
  }

  /** The connected front-end's device; null when there is none. */
  get device(): Device | null {
    return this.#peer?.net.device ?? null;
  }

  get status(): PortStatus {
    if (this.#stopped) return { state: 'stopped', reason: 'the port was stopped' };
    const device = this.device;
    if (device === null) return { state: 'waiting', reason: this.#waitingReason() };
    const warning = device.memoryWarning;
    const broken = device.rings.find((ring) => ring.reason !== null);
    const ringReason = broken === undefined ? null : `queue ${broken.index} stopped: ${broken.reason}`;
    const isRunning = device.rings.some((ring) => ring.user === 'workers' && ring.fault === 0);
    const reason = warning ?? ringReason ?? this.#lastReason;
    if (isRunning) return { state: 'running', reason };
    return { state: broken === undefined ? 'negotiating' : 'stopped', reason };
  }

  get mtu(): number | null {
    return this.#peer?.net.mtu ?? null;
  }

  get queues(): readonly PortQueue[] {
    const { device } = this;
    return (device?.rings ?? []).map((ring) => ({
      index: ring.index,
      direction: device!.directionOf(ring),
      size: ring.size,
      started: ring.started,
      enabled: ring.enabled,
      reason: ring.reason,
    }));
  }

  get counters(): PortCounters {
    return sumCounters(this.states, this.options.device.queuePairsMax);
  }

  get details(): VhostUserDetails {
    const { device } = this;
    return {
      role: this.options.role,
      features: bitNames(device?.features ?? 0n, VIRTIO_FEATURE),
      protocolFeatures: bitNames(device?.protocolFeatures ?? 0n, PROTOCOL_FEATURE),
      memoryBytes: device?.memoryBytes ?? 0,
    };
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
    this.#stopped = true;
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#watch?.close();
    if (this.#listenFd >= 0) {
      closeFd(this.#listenFd);
      this.#listenFd = -1;
      rmSync(this.options.socketPath, { force: true });
    }
    await this.#peer?.session.end('the port was stopped');
    await this.#releasing;
  }

  queueFailed(queueIndex: number): void {
    this.device?.queueFailed(queueIndex);
  }

  #watchListener(): void {
    if (this.#stopped) return;
    this.#watch?.close();
    this.#watch = descriptorLoop().watch(this.#listenFd, () => this.#accept());
  }

  #accept(): void {
    const fd = this.#acceptOrPause();
    if (fd === null) return;
    if (this.#peer !== null) {
      // Accepted and closed, so that the second one is told at once instead of waiting for ever.
      closeFd(fd);
      this.#context.events.warn('refused a second front-end: one is connected already');
      // Some front-ends try again without a pause.
      this.#pauseListener(RETRY_MAX_MS);
      return;
    }
    this.#adopt(fd);
  }

  #pauseListener(pauseMs: number): void {
    this.#watch?.close();
    this.#later(pauseMs, () => {
      if (this.#releasing === null) this.#watchListener();
    });
  }

  #later(pauseMs: number, action: () => void): void {
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#retry = setTimeout(action, pauseMs);
  }

  /** Out of descriptors: the connection stays queued, and the listener is looked at again after a pause. */
  #acceptOrPause(): number | null {
    try {
      return acceptUnix(this.#listenFd);
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#context.events.warn(error.message);
      this.#pauseListener(RETRY_MAX_MS);
      return null;
    }
  }

  #connect(): void {
    try {
      this.#adopt(connectUnix(this.options.socketPath));
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      if (!NOT_SERVED.has(error.code)) this.#lastReason = error.message;
      this.#tryLater();
    }
  }

  /** Connects or accepts again after a pause that doubles each time. */
  #tryLater(): void {
    if (this.#stopped) return;
    if (this.options.role === 'client') this.#later(this.#retryMs, () => this.#connect());
    else this.#pauseListener(this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MAX_MS);
  }

  #adopt(fd: number): void {
    const { arena, arenaView, dataPath, events } = this.#context;
    this.#lastReason = null;
    const net = new NetDevice(this.options.device, {
      portId: this.id,
      arena,
      arenaView,
      dataPath,
      states: this.states,
      peerPid: peerPid(fd),
      onChange: () => this.#tellChange(),
    });
    const session = new Session(fd, net, {
      onRefused: (reason) => {
        this.#lastReason = `refused: ${reason}`;
        events.warn(this.#lastReason);
      },
      onEnd: (reason) => this.#ended(reason),
    });
    this.#peer = { session, net };
    events.info('front-end connected');
  }

  #ended(reason: string): void {
    const peer = this.#peer;
    if (peer === null) return;
    // What was wrong before is why it left, or why it should have.
    const before = this.status.reason;
    this.#lastReason = before === null || before === reason ? reason : `${reason}; before that: ${before}`;
    this.#context.events.info(`front-end gone: ${this.#lastReason}`);
    // No second front-end is let in before the workers let go of the first one's memory.
    this.#watch?.close();
    this.#releasing = this.#release(peer);
  }

  async #release({ session, net }: Peer): Promise<void> {
    await session.settled();
    const cameFar = net.device.memoryBytes > 0;
    await net.release();
    this.#context.events.disconnected();
    this.#peer = null;
    this.#reported = '';
    this.#releasing = null;
    if (cameFar) this.#retryMs = RETRY_MIN_MS;
    // A front-end that never came far and tries again at once must not keep us busy.
    if (cameFar && this.options.role === 'server') this.#watchListener();
    else this.#tryLater();
  }

  #waitingReason(): string {
    const wait =
      this.options.role === 'server'
        ? 'waiting for a front-end to connect'
        : `waiting for a front-end to listen at ${this.options.socketPath}`;
    return this.#lastReason === null ? wait : `${wait} (last: ${this.#lastReason})`;
  }

  /** Logs the state when it is another one than last time. */
  #tellChange(): void {
    const { state, reason } = this.status;
    const report = reason === null ? state : `${state}: ${reason}`;
    if (report === this.#reported) return;
    this.#reported = report;
    if (reason === null) this.#context.events.info(report);
    else this.#context.events.warn(report);
  }
}

/** Errors of connect that only mean: try again later. */
const NOT_SERVED = new Set(['ENOENT', 'ECONNREFUSED', 'EAGAIN']);
