/**
 * A port that a vhost-user front-end connects to (server role), or that connects to a listening front-end
 * and does so again when it goes away (client role). One front-end at a time; a device lives as long as its
 * connection. Main thread.
 */
import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { bitNames } from '../../../protocol/bits.ts';
import { MTU_MAX } from '../../../protocol/ethernet.ts';
import { PROTOCOL_FEATURE } from '../../../protocol/vhost-user/features.ts';
import { VIRTIO_FEATURE } from '../../../protocol/virtio/features.ts';
import type { Device } from '../../device/device.ts';
import { carryOut, HandOverError } from '../../device/hand-over.ts';
import { NetDevice } from '../../device/net/net-device.ts';
import { allFeatures, type DeviceOptions, ringCountMax } from '../../device/net/options.ts';
import type { PortRecords } from '../../device/ring-records.ts';
import type { LastRun } from '../../device/ring-start.ts';
import { type Budget, BudgetError, DescriptorShare } from '../../host/budgets.ts';
import type { Watch } from '../../host/event-loop.ts';
import { PeerFds } from '../../host/peer-fds.ts';
import { PortFds, processDescriptors } from '../../host/port-fds.ts';
import { type ListenOptions, peerPid } from '../../host/unix-socket.ts';
import type { AddressMiss } from '../../memory/iotlb.ts';
import { type PortCounters, QueueState, queueStates, sumCounters } from '../../queue/state.ts';
import { type HandedSession, isRefusal, Session } from '../../vhost-user/back-end.ts';
import { PeerError } from '../../vhost-user/peer-error.ts';
import {
  type Port,
  type PortContext,
  type PortQueue,
  type PortStatus,
  type PortTuning,
  queueStoppedText,
} from '../contract.ts';
import {
  type HandedConnection,
  type HandedGuest,
  type HandedPort,
  type HandedVhostUserPort,
  type HandOver,
  handedAs,
  listenerOf,
  NO_POSITIONS,
  NOTHING_LEFT,
  type PortKeeper,
  type PortNote,
  type PortPositions,
  requireSame,
  socketOf,
  type TakeUp,
} from '../hand-over.ts';
import { PeerSocket, type SocketRole } from '../peer-socket.ts';
import { Supervisor, type Trouble } from '../supervisor.ts';

export type VhostUserPortOptions = {
  readonly socketPath: string;
  readonly role: SocketRole;
  /** Of the socket file; server role only. */
  readonly listen: ListenOptions;
  readonly device: DeviceOptions;
};

/** What `ringway ports --json` shows of this kind only. */
export type VhostUserDetails = {
  readonly role: SocketRole;
  readonly features: readonly string[];
  readonly protocolFeatures: readonly string[];
  readonly memoryBytes: number;
};

const INSISTS_TEXT =
  'its guest may have features that the settings leave out (features=, offloads=): it is offered them when it comes again';

/** No front-end may be let in for now. */
class ObstructionError extends Error {}

/** A front-end's connection and the device that it drives. */
type Peer = {
  readonly session: Session;
  readonly net: NetDevice;
  readonly losses: Watch;
  readonly descriptors: DescriptorShare;
  readonly peerFds: PeerFds;
  /** Process at the other end; null: the kernel does not tell. */
  readonly pid: number | null;
};

/** A process at the other end that has left; null: the kernel did not tell which. */
type ServedGuest = { readonly pid: number | null; readonly offered: bigint };

export class VhostUserPort implements Port, HandOver, TakeUp {
  readonly id: number;
  readonly name: string;
  readonly kind = 'vhost-user';
  readonly endpoint: string;
  readonly options: VhostUserPortOptions;
  /** QueueState blocks of all rings; they outlive connections, so counters do too. */
  readonly states: SharedArrayBuffer;
  readonly #context: PortContext;
  /** As the next guest finds it; `options` are those that the port began with. */
  #device: DeviceOptions;
  readonly #socket: PeerSocket;
  readonly #supervisor: Supervisor;
  /** Of all ports. */
  readonly #descriptors: Budget;
  /** What all front-ends so far left of descriptors. */
  readonly #fds: PortFds;
  #peer: Peer | null = null;
  /** What the connected front-end did last that was refused. */
  #refusal: string | null = null;
  readonly #lastRuns: Map<number, LastRun>;
  readonly #records: PortRecords | null;
  #reported = '';
  /** Why the last front-end left that had said anything; null: it was served, or there was none. */
  #lastWhy: string | null = null;
  /** The last guest whose driver had agreed on features, and what it was offered. */
  #lastServed: ServedGuest | null = null;
  /** Who left before it agreed on anything when settings left out some of what it might have, and all of that. */
  #mayInsist: ServedGuest | null = null;
  /** Resolved when the port is thawed; null: it is not frozen. */
  #frozen: PromiseWithResolvers<void> | null = null;
  /** What is taken over, until it is. */
  #handed: HandedVhostUserPort | null = null;
  /** Resolved when what the front-end said to another process is done here, or came to nothing; null: there is none. */
  #taking: PromiseWithResolvers<void> | null = null;
  /** It was noted by a process that came to a sudden end: what cannot be taken up is let go of. */
  #isLeftBehind = false;
  readonly #keeper: PortKeeper | null;
  /** Whose state was handed over. */
  #handedPeer: Peer | null = null;
  /** The process that left last when it had asked how many queues there are; null: nobody did, or nobody knows. */
  #lastToAsk: number | null = null;

  constructor(options: VhostUserPortOptions, context: PortContext) {
    this.id = context.id;
    this.name = context.name;
    this.endpoint = options.socketPath;
    this.options = options;
    this.states = queueStates(ringCountMax(options.device.queuePairsMax));
    this.#context = context;
    this.#records = context.records?.ofPort(context.name) ?? null;
    this.#lastRuns = this.#records?.lastRuns() ?? new Map();
    this.#device = options.device;
    this.#descriptors = context.descriptors ?? processDescriptors();
    this.#fds = new PortFds(context.name, this.#descriptors, () => this.#tellHang());
    this.#socket = new PeerSocket(
      options.socketPath,
      options.role,
      options.listen,
      { ...context.events, renewed: () => this.#keeper?.renew() },
      new PeerFds(null, this.#fds),
    );
    this.#supervisor = new Supervisor(
      {
        open: () => this.#open(),
        attend: (signal) => this.#attend(signal),
        attach: () => this.#attach(),
        release: (isLast) => this.#release(isLast),
        close: () => {
          this.#taking?.resolve();
          this.#records?.release();
          this.#socket.close();
          this.#keeper?.forget();
        },
        explain: (error) => this.#explain(error),
        describe: (isHeld, reason) => this.#describe(isHeld, reason),
      },
      context.events,
      PeerSocket.PAUSES,
    );
    this.#keeper = context.keep?.(() => this.#note()) ?? null;
  }

  /** The connected front-end's device; null when there is none. */
  get device(): Device | null {
    return this.#peer?.net.device ?? null;
  }

  get status(): PortStatus {
    return this.#supervisor.status;
  }

  get mtu(): number | null {
    return this.#peer?.net.mtu ?? null;
  }

  get mtuMax(): number {
    return MTU_MAX;
  }

  /** A guest that is connected keeps what it was offered, and what it was told of the MTU. */
  async tune({ mtu, offloads }: PortTuning): Promise<void> {
    this.#device = { ...this.#device, mtu, offloads };
  }

  get queues(): readonly PortQueue[] {
    const { device } = this;
    if (device === null) return [];
    return device.rings.map((ring) => ({
      index: ring.index,
      direction: device.directionOf(ring),
      size: ring.size,
      started: ring.started,
      enabled: ring.enabled,
      inUse: ring.user !== 'none',
      reason: ring.reason ?? device.waitReasonOf(ring),
    }));
  }

  waitingIn(queueIndex: number): number | null {
    return this.device?.waitingIn(queueIndex) ?? null;
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

  start(): Promise<void> {
    return this.#supervisor.start();
  }

  stop(): Promise<void> {
    this.#frozen?.resolve();
    return this.#supervisor.stop();
  }

  async freeze(): Promise<void> {
    this.#frozen ??= Promise.withResolvers();
    this.#socket.freeze();
    await this.#taking?.promise;
    await this.#peer?.session.pause();
  }

  handOver(): HandedVhostUserPort {
    assert(this.#frozen !== null, 'only a frozen port is handed over');
    const { listening, acceptedFd } = this.#socket.handOver();
    const peer = this.#peer;
    const connection = peer === null ? null : connectionOf(peer, this.#refusal);
    this.#handedPeer = connection === null ? null : peer;
    const { lastRuns, ...remembered } = this.#remembered;
    return {
      kind: 'vhost-user',
      endpoint: resolve(this.endpoint),
      role: this.options.role,
      listener: listenerOf(this.endpoint, listening),
      connection: connection ?? untouchedConnection(acceptedFd),
      ...remembered,
      lastRuns,
    };
  }

  takeOver(any: HandedPort): void {
    const handed = handedAs('vhost-user', resolve(this.endpoint), any);
    requireSame('role', handed.role, this.options.role);
    this.#handed = handed;
    if (handed.connection !== null) this.#taking = Promise.withResolvers();
    this.#frozen = Promise.withResolvers();
    this.#lastServed = guestOf(handed.lastServed);
    this.#mayInsist = guestOf(handed.mayInsist);
    this.#lastToAsk = handed.lastToAsk;
    this.#lastWhy = handed.lastWhy;
    for (const { index, availNext, usedNext, ...run } of handed.lastRuns)
      this.#lastRuns.set(index, { ...run, indices: { availNext, usedNext }, interrupted: null });
  }

  takeUpLater(handed: HandedVhostUserPort): void {
    this.#isLeftBehind = true;
    this.takeOver(handed);
  }

  async takeUp({ rings, device, net }: PortPositions): Promise<string | null> {
    await this.#taking?.promise;
    this.#isLeftBehind = false;
    const peer = this.#peer;
    if (peer === null || net === null || device === null || peer.session.gone.aborted) return null;
    try {
      peer.net.takeOver(net);
      peer.net.device.takeOver(device);
      peer.net.device.takeUpRings(rings);
      const { obstacle } = peer.net.device;
      if (obstacle !== null) throw new HandOverError(obstacle);
      return null;
    } catch (error) {
      if (!(error instanceof HandOverError || error instanceof PeerError)) throw error;
      void peer.session.end(`it cannot go on after a sudden end: ${error.message}`);
      return error.message;
    }
  }

  async setResting(isResting: boolean): Promise<void> {
    await this.device?.setResting(isResting);
  }

  positions(): PortPositions {
    const peer = this.#handedPeer;
    if (peer !== null && (peer !== this.#peer || peer.session.handOver() === null))
      throw new HandOverError('its front-end went away meanwhile');
    const queueCount = ringCountMax(this.options.device.queuePairsMax);
    const counts = Array.from({ length: queueCount }, (_, i) => [...new QueueState(this.states, i).counts]);
    const { net = null } = peer ?? {};
    return {
      rings: net?.device.handOverRings() ?? [],
      device: net?.device.handOver() ?? null,
      net: net?.handOver() ?? null,
      ...NOTHING_LEFT,
      counts,
    };
  }

  async goOnAt({ rings, device, net, counts }: PortPositions): Promise<void> {
    const queueCount = ringCountMax(this.options.device.queuePairsMax);
    await this.#taking?.promise;
    if (counts.length > queueCount) throw new HandOverError('it has fewer queues in the new settings');
    for (const [i, queue] of counts.entries()) new QueueState(this.states, i).counts.set(queue);
    const peer = this.#peer;
    // Nothing was said yet on a connection that it may have.
    if (net === null || device === null) return;
    if (peer === null)
      throw new HandOverError(
        `its front-end went away meanwhile, or cannot be served here: ${this.status.reason}`,
      );
    peer.net.takeOver(net);
    peer.net.device.takeOver(device);
    peer.net.device.takeOverRings(rings);
    const { obstacle } = peer.net.device;
    if (obstacle !== null) throw new HandOverError(obstacle);
  }

  thaw(): void {
    const session = this.#peer?.session.handOver() ?? null;
    this.#frozen?.resolve();
    this.#frozen = null;
    this.#handedPeer = null;
    this.#socket.thaw(session?.fd);
    if (session !== null) this.#peer?.session.resume();
    this.#keeper?.renew();
    if (this.#peer !== null) this.#tellChange();
  }

  /** As of KeepPort. */
  #note(): PortNote | null {
    if (this.#frozen !== null || this.#peer?.session.isHandling === true) return null;
    const { listening } = this.#socket.handOver();
    const common = {
      kind: 'vhost-user',
      endpoint: resolve(this.endpoint),
      role: this.options.role,
      listener: listenerOf(this.endpoint, listening),
      ...this.#remembered,
    } as const;
    const peer = this.#peer;
    if (peer === null) return { handed: { ...common, connection: null }, positions: NO_POSITIONS };
    const connection = connectionOf(peer, this.#refusal);
    if (connection === null) return null;
    // They are looked at before they are kept, and nobody did that yet.
    if (connection.halfRead.fds.some((fd) => peer.peerFds.obstacle(fd) !== null))
      throw new HandOverError('it sent a descriptor that may never answer');
    const { device } = peer.net;
    // What is told changes with each burst, and not with what the front-end says.
    if (device.isInBand) throw new HandOverError('it is notified by message');
    const said = { rings: device.handOverRings(), device: device.handOver(), net: peer.net.handOver() };
    return { handed: { ...common, connection }, positions: { ...NO_POSITIONS, ...said } };
  }

  /** What is kept from one connection to the next. What only the file of positions tells of rings comes from there again. */
  get #remembered(): Pick<
    HandedVhostUserPort,
    'lastServed' | 'mayInsist' | 'lastToAsk' | 'lastWhy' | 'lastRuns'
  > {
    const lastRuns = [...this.#lastRuns].flatMap(([index, { interrupted, indices, ...run }]) =>
      interrupted === null && indices !== null ? [{ index, ...run, ...indices }] : [],
    );
    return {
      lastServed: textOf(this.#lastServed),
      mayInsist: textOf(this.#mayInsist),
      lastToAsk: this.#lastToAsk,
      lastWhy: this.#lastWhy,
      lastRuns,
    };
  }

  #open(): void {
    if (this.#handed === null) {
      this.#socket.open();
      this.#keeper?.renew();
      return;
    }
    const { listener, connection } = this.#handed;
    this.#socket.takeOver(socketOf(listener), connection?.fd ?? -1);
  }

  #attend(signal: AbortSignal): Promise<boolean> | null {
    const isTaking = this.#handed?.connection != null;
    if (this.#frozen !== null && !isTaking && this.options.role === 'client')
      return this.#frozen.promise.then(() => true);
    return this.#socket.attend(signal);
  }

  queueFailed(queueIndex: number): void {
    this.device?.queueFailed(queueIndex);
    this.#keeper?.renew();
  }

  queueWaits(queueIndex: number, misses: readonly AddressMiss[]): void {
    this.device?.queueWaits(queueIndex, misses);
  }

  async #attach(): Promise<void> {
    const taken = this.#handed?.connection ?? null;
    this.#handed = null;
    if (taken !== null) {
      await this.#takeConnection(this.#socket.take(), taken).finally(() => this.#taking?.resolve());
      this.#keeper?.renew();
      return;
    }
    await this.#frozen?.promise;
    const { obstruction } = this.#fds;
    // In the other role, who connects is told by being hung up on.
    if (obstruction !== null && this.options.role === 'client') throw new ObstructionError(obstruction);
    const fd = this.#socket.take();
    if (obstruction === null) {
      this.#adopt(fd);
      this.#keeper?.renew();
      return;
    }
    new PeerFds(null, this.#fds).closeConnection(fd);
    throw new ObstructionError(obstruction);
  }

  #explain(error: unknown): Trouble | null {
    // The status tells of it for as long as it lasts, and the log did when it began.
    if (error instanceof ObstructionError) return { reason: null };
    return error instanceof BudgetError ? this.#unlessTooMany(error.message) : this.#socket.explain(error);
  }

  #tellHang(): void {
    const { hangText } = this.#fds;
    if (hangText !== null) this.#context.events.warn(hangText);
    else this.#context.events.info('what its front-end sent is closed after all');
  }

  /** @throws what a message of the old process is refused for */
  async #takeConnection(fd: number, taken: HandedConnection): Promise<void> {
    const { isSilent, halfRead, messages } = taken;
    const handed = {
      isSilent,
      halfRead: { bytes: Buffer.from(halfRead.bytes, 'base64'), fds: halfRead.fds },
    };
    const { session, net, peerFds } = this.#adopt(fd, { ...handed, offered: BigInt(taken.offered) });
    try {
      await carryOut(messages, net, peerFds, session.gone, this.#isLeftBehind);
      this.#refusal = taken.refusal;
    } catch (error) {
      if (!this.#isLeftBehind || !isRefusal(error)) throw error;
      void session.end(`it cannot go on after a sudden end: ${error.message}`);
    }
  }

  #adopt(fd: number, handed: (HandedSession & { readonly offered: bigint }) | null = null): Peer {
    const { arena, arenaView, dataPath, events } = this.#context;
    const descriptors = this.#shareOfDescriptors(fd);
    const peerFds = new PeerFds(peerPid(fd), this.#fds);
    const stillOffered = handed?.offered ?? this.#promisedTo(peerFds.peerPid);
    const device = { ...this.#device, stillOffered };
    const net = new NetDevice(device, {
      portId: this.id,
      arena,
      arenaView,
      dataPath,
      states: this.states,
      peerFds,
      descriptors,
      onChange: () => this.#tellChange(),
      onRemark: (remark) => events.info(remark),
      lastRuns: this.#lastRuns,
      records: this.#records,
      isResting: handed !== null,
      onCommand: () => this.#keeper?.outdate(),
    });
    const isClient = this.options.role === 'client';
    const tellConnected = (): void => events.info('front-end connected');
    const session = new Session(
      fd,
      net,
      {
        // Not sooner: who connects to us and says nothing may only ask whether somebody listens.
        ...(!isClient && { onBegin: tellConnected }),
        ...(this.#keeper !== null && { onReading: () => this.#keeper?.outdate() }),
        onRefused: (reason) => {
          this.#refusal = `refused: ${reason}`;
          events.warn(this.#refusal);
        },
        onEnd: (reason, end) => this.#ended(reason, end === 'left'),
      },
      peerFds,
      handed,
    );
    const losses = arena.watchLosses(() => {
      const loss = net.device.memoryLoss;
      if (loss !== null) void session.end(loss);
    });
    const peer = { session, net, losses, descriptors, peerFds, pid: peerFds.peerPid };
    this.#peer = peer;
    if (isClient && handed === null) tellConnected();
    return peer;
  }

  /**
   * What a guest was offered stays offered when it connects again, whatever the settings say now: its front-end insists on
   * what its driver has. Nobody else can be told from it where the kernel does not tell who it is.
   */
  #promisedTo(pid: number | null): bigint {
    const isOf = (guest: ServedGuest): boolean => pid === null || guest.pid === null || pid === guest.pid;
    const promises = [this.#lastServed, this.#mayInsist].filter((guest) => guest !== null && isOf(guest));
    return promises.reduce((offered, guest) => offered | (guest?.offered ?? 0n), 0n);
  }

  /** Closes the connection when there is none left for it. @throws BudgetError */
  #shareOfDescriptors(fd: number): DescriptorShare {
    try {
      return new DescriptorShare(this.#descriptors);
    } catch (error) {
      new PeerFds(null, this.#fds).closeConnection(fd);
      throw error;
    }
  }

  #ended(reason: string, hasLeft: boolean): void {
    if (this.#peer === null) return;
    const { session, net } = this.#peer;
    const { device } = net;
    // It only asked whether somebody listens.
    if (session.isSilent && hasLeft && this.options.role === 'server') {
      this.#supervisor.lose({ reason: null });
      return;
    }
    // What was wrong before is why it left, or why it should have.
    const isLost = device.memoryLoss !== null;
    // Of memory that is gone the queues only saw zeros: no reason of theirs is one.
    const hint = hasLeft ? this.#partingHint(this.#peer) : null;
    const before = isLost ? null : (this.status.reason ?? hint);
    let why = before === null || before === reason ? reason : `${reason}; before that: ${before}`;
    // A connection on which nothing was said tells nothing, but would hide why the one before it ended.
    if (!session.isSilent || !hasLeft) this.#lastWhy = why;
    // A front-end that never came far, or whose memory is gone, and tries again at once must not keep us busy.
    let retry: Trouble['retry'] = device.memoryBytes > 0 && !isLost ? this.#socket.retryAfterUse : 'later';
    const tooMany = this.#unlessTooMany(why);
    if (tooMany.retry === 'never') {
      retry = 'never';
      why = tooMany.reason;
      this.#lastWhy = why;
    }
    this.#supervisor.lose({
      reason: this.#lastWhy ?? why,
      logged: `front-end gone: ${why}`,
      isFine: !isLost,
      retry,
    });
  }

  /** Why a front-end was let go; of whose port too many descriptors are kept, there is no other. */
  #unlessTooMany(why: string): { readonly reason: string; readonly retry?: 'never' } {
    const { tooManyText } = this.#fds;
    return tooManyText === null
      ? { reason: why }
      : { reason: `${tooManyText} (last: ${why})`, retry: 'never' };
  }

  /**
   * Whoever is refused more queue pairs than there are tries again and again, as QEMU does; one that leaves once may
   * have been ended, or have crashed, and is not to be led astray. One that was offered less than everything may have
   * another reason first: it had more before this process was started with other settings.
   */
  #partingHint({ net, pid }: Peer): string | null {
    const hint = net.partingHint;
    const isAgain = pid !== null && pid === this.#lastToAsk;
    this.#lastToAsk = hint === null ? null : pid;
    const all = allFeatures(net.options);
    if (hint !== null && (all & ~net.offeredFeatures) !== 0n) {
      this.#mayInsist = { pid, offered: all };
      return INSISTS_TEXT;
    }
    return isAgain ? hint : null;
  }

  async #release(isLast: boolean): Promise<void> {
    // No second front-end is let in before the workers let go of the first one's memory.
    this.#socket.letGo(isLast);
    if (this.#peer === null) return;
    const { session, net, losses, descriptors, pid } = this.#peer;
    losses.close();
    await session.end('the port was stopped');
    if (net.device.features !== 0n) this.#lastServed = { pid, offered: net.offeredFeatures };
    await net.release();
    descriptors.release();
    this.#peer = null;
    this.#refusal = null;
    this.#reported = '';
    this.#keeper?.renew();
  }

  #describe(isHeld: boolean, reason: string | null): PortStatus {
    const { device } = this;
    if (device === null || !isHeld) return { state: 'waiting', reason: this.#waitingReason(reason) };
    const broken = device.rings.find((ring) => ring.reason !== null);
    const stopped = broken ?? device.waitingRing;
    const why = stopped === null ? null : (stopped.reason ?? device.waitReasonOf(stopped));
    const ringReason = stopped === null || why === null ? null : queueStoppedText(stopped.index, why);
    const isRunning = device.rings.some((ring) => ring.user === 'workers' && ring.fault === 0);
    const shown =
      device.memoryWarning ??
      ringReason ??
      device.logWarning ??
      this.#refusal ??
      this.#socket.trouble ??
      this.#fds.hangText ??
      device.channelWarning ??
      device.kickWarning;
    if (isRunning) return { state: 'running', reason: shown };
    return { state: broken === undefined ? 'negotiating' : 'stopped', reason: shown };
  }

  #waitingReason(reason: string | null): string {
    const wait =
      this.options.role === 'server'
        ? 'waiting for a front-end to connect'
        : `waiting for a front-end to listen at ${this.options.socketPath}`;
    const inTheWay = this.#socket.trouble ?? this.#fds.obstruction;
    if (inTheWay !== null) return inTheWay;
    // One that only asked whether somebody listens leaves no reason, and does not hide the one before.
    const last = reason ?? this.#lastWhy;
    return last === null ? wait : `${wait} (last: ${last})`;
  }

  /** Logs the state when it is another one than last time. */
  #tellChange(): void {
    const { state, reason } = this.status;
    const report = reason === null ? state : `${state}: ${reason}`;
    if (report === this.#reported) return;
    this.#reported = report;
    if (state === 'running') this.#lastWhy = null;
    if (reason === null) this.#context.events.info(report);
    else this.#context.events.warn(report);
  }
}

/** While none of its messages is being carried out; null: it has ended. @throws HandOverError */
function connectionOf({ session, net }: Peer, refusal: string | null): HandedConnection | null {
  const handed = session.handOver();
  if (handed === null) return null;
  const { fd, isSilent, halfRead } = handed;
  return {
    fd,
    isSilent,
    halfRead: { bytes: Buffer.from(halfRead.bytes).toString('base64'), fds: halfRead.fds },
    offered: String(net.offeredFeatures),
    messages: net.handOverMessages(),
    refusal,
  };
}

/** A connection that was accepted, and not taken yet; -1: there is none. */
function untouchedConnection(fd: number): HandedConnection | null {
  if (fd < 0) return null;
  return { fd, isSilent: true, halfRead: { bytes: '', fds: [] }, offered: '0', messages: [], refusal: null };
}

function textOf(guest: ServedGuest | null): HandedGuest | null {
  return guest === null ? null : { pid: guest.pid, offered: String(guest.offered) };
}

function guestOf(guest: HandedGuest | null): ServedGuest | null {
  return guest === null ? null : { pid: guest.pid, offered: BigInt(guest.offered) };
}
