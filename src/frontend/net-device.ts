/**
 * A guest without a virtual machine: the vhost-user front-end that QEMU would be and the virtio-net driver
 * that its guest would run, in one process. The demo, the tests and the benchmarks use it. Messages come in
 * QEMU's order (vhost-user.rst, "Starting and stopping rings"). One thread's object: the one that connected.
 */
import { hasBit, maskOf } from '../../protocol/bits.ts';
import { macHiOf, macLoOf, parseMac } from '../../protocol/ethernet.ts';
import { PROTOCOL_FEATURE } from '../../protocol/vhost-user/features.ts';
import { MEM_TABLE_REGIONS_SENT_MAX } from '../../protocol/vhost-user/messages.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import { netHeaderBytes } from '../../protocol/virtio/net.ts';
import { DESC_BYTES } from '../../protocol/virtio/split-ring.ts';
import { closeFd, createEventFd } from '../host/descriptor.ts';
import { BackEndError, FrontEndSession, type ReachOptions } from '../vhost-user/front-end.ts';
import type { RingLayoutKind } from '../vring/attachment.ts';
import { DRIVER_LAYOUTS } from './driver-layouts.ts';
import { type DriverRing, INDIRECT_PIECES_MAX, type Shape } from './driver-ring.ts';
import {
  type DriverMemory,
  EmbeddedMemory,
  type MakeFile,
  type RegionPlan,
  roundUp,
} from './guest-memory.ts';
import { EmbeddedIommu, IommuMemory } from './iommu.ts';
import { ReceiveQueue } from './receive-queue.ts';
import { type SendOptions, SendQueue } from './send-queue.ts';

/**
 * What is negotiated if the back-end offers it. MQ without CTRL_VQ, as QEMU does, which serves the control
 * queue itself.
 */
export const GUEST_FEATURES = maskOf(
  VIRTIO_FEATURE.NET_MTU,
  VIRTIO_FEATURE.NET_MRG_RXBUF,
  VIRTIO_FEATURE.NET_MQ,
  VIRTIO_FEATURE.INDIRECT_DESC,
  VIRTIO_FEATURE.EVENT_IDX,
  VIRTIO_FEATURE.PROTOCOL_FEATURES,
  VIRTIO_FEATURE.VERSION_1,
);

export const GUEST_PROTOCOL_FEATURES = maskOf(
  PROTOCOL_FEATURE.MQ,
  PROTOCOL_FEATURE.REPLY_ACK,
  PROTOCOL_FEATURE.MTU,
  PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS,
);

export type EmbeddedGuestOptions = ReachOptions & {
  readonly socketPath: string;
  /** A connection with the back-end, which the guest owns then, instead of one made by `socketPath` and `role`. */
  readonly fd?: number;
  /** `client` (default) connects to the back-end's socket; `server` listens and waits for the back-end. */
  readonly role?: 'client' | 'server';
  /** Default 1. */
  readonly queuePairs?: number;
  /** Descriptors of every ring, default 256. */
  readonly ringSize?: number;
  /** The layout of every ring; default: packed if that was negotiated. */
  readonly layout?: RingLayoutKind;
  /** Whether the device has to use buffers in order; default: if that was negotiated. */
  readonly inOrder?: boolean;
  /** Bytes of every buffer, header included, default 2,048. */
  readonly bufferBytes?: number;
  /** Default: as much as the rings and buffers need. */
  readonly memoryBytes?: number;
  /** Regions instead of one piece of `memoryBytes`. */
  readonly regions?: readonly RegionPlan[];
  /** Makes the file of its memory; default: an anonymous one that can be sealed. */
  readonly makeMemoryFile?: MakeFile;
  /** Virtio features to accept of those offered; default GUEST_FEATURES. `layout` and `inOrder` change it. */
  readonly features?: bigint;
  /** Protocol features to accept of those offered; default GUEST_PROTOCOL_FEATURES. */
  readonly protocolFeatures?: bigint;
  /** The guest's own address, for whoever builds frames; default 52:54:00:00:00:01. */
  readonly mac?: string;
  /** Sent with NET_SET_MTU if that was negotiated. */
  readonly mtu?: number;
  /** Send no kick descriptor: the back-end has to poll. */
  readonly polledKick?: boolean;
  /** Leave the rings disabled. */
  readonly disabled?: boolean;
  /** The device is behind an IOMMU, `EmbeddedGuest.iommu`; the back-end has to offer it. */
  readonly iommu?: boolean;
  /** The shape of receive buffers, for tests. */
  readonly receiveShape?: () => Shape;
};

export type ReconnectOptions = ReachOptions & {
  /** What to name for every ring, as front-ends do that do not know better; default: as far as the driver has seen. */
  readonly base?: number;
  /** Leave the rings disabled. */
  readonly disabled?: boolean;
};

/** One transmit and one receive queue. */
export class QueuePair {
  readonly toGuest: ReceiveQueue;
  readonly fromGuest: SendQueue;

  constructor(toGuest: ReceiveQueue, fromGuest: SendQueue) {
    this.toGuest = toGuest;
    this.fromGuest = fromGuest;
  }

  send(frame: Uint8Array, options?: SendOptions): boolean {
    return this.fromGuest.send(frame, options);
  }

  receive(): Uint8Array | null {
    return this.toGuest.receive();
  }

  received(): Promise<Uint8Array> {
    return this.toGuest.received();
  }
}

type Negotiated = {
  readonly features: bigint;
  readonly protocolFeatures: bigint;
  /** Queue pairs that the back-end can serve; null when it does not say. */
  readonly queuePairsMax: number | null;
};

export class EmbeddedGuest {
  /** Negotiated. */
  readonly features: bigint;
  readonly protocolFeatures: bigint;
  readonly memory: EmbeddedMemory;
  /** Null: the device uses guest-physical addresses. */
  readonly iommu: EmbeddedIommu | null;
  readonly pairs: readonly QueuePair[];
  readonly mac: Uint8Array;
  /** The address as hot code keeps it (protocol/ethernet.ts). */
  readonly macLo: number;
  readonly macHi: number;
  readonly #options: EmbeddedGuestOptions;
  readonly #driverMemory: DriverMemory;
  /** Pairs that were enabled; told before the rings are started again, so that what waits in them counts. */
  readonly #enabledPairs = new Set<number>();
  #session: FrontEndSession;
  #wasStarted = false;
  #isClosed = false;

  private constructor(options: EmbeddedGuestOptions, session: FrontEndSession, negotiated: Negotiated) {
    this.#options = options;
    this.#session = session;
    this.features = negotiated.features;
    this.protocolFeatures = negotiated.protocolFeatures;
    const mac = parseMac(options.mac ?? '52:54:00:00:00:01');
    if (mac === null) throw new RangeError(`${options.mac} is no Ethernet address`);
    this.mac = mac;
    this.macLo = macLoOf(mac);
    this.macHi = macHiOf(mac);
    const pairCount = options.queuePairs ?? 1;
    const { queuePairsMax } = negotiated;
    if (queuePairsMax !== null && pairCount > queuePairsMax) {
      throw new BackEndError(`the back-end serves ${queuePairsMax} queue pairs, not ${pairCount}`);
    }
    const { regions, memoryBytes, makeMemoryFile } = options;
    this.memory = new EmbeddedMemory(
      regions ?? memoryBytes ?? neededBytes(options, this.layout),
      makeMemoryFile,
    );
    this.iommu = options.iommu === true ? new EmbeddedIommu(this.memory) : null;
    this.#driverMemory = this.iommu === null ? this.memory : new IommuMemory(this.memory);
    this.pairs = Array.from({ length: pairCount }, () => this.#makePair());
  }

  /** Reaches the back-end, negotiates, hands over memory and rings, and offers receive buffers. */
  static async connect(options: EmbeddedGuestOptions): Promise<EmbeddedGuest> {
    const session = await reach(options);
    let guest: EmbeddedGuest | null = null;
    try {
      const negotiated = await negotiate(session, options);
      guest = new EmbeddedGuest(options, session, negotiated);
      for (const pair of guest.pairs) pair.toGuest.fill();
      await guest.#start(guest.#bases());
      return guest;
    } catch (error) {
      guest?.close();
      session.close();
      throw error;
    }
  }

  /** As negotiated. */
  get layout(): RingLayoutKind {
    return this.#has(VIRTIO_FEATURE.RING_PACKED) ? 'packed' : 'split';
  }

  /** The connection, for tests that send what a front-end should not. */
  get session(): FrontEndSession {
    return this.#session;
  }

  /** Resolves when the connection has ended. */
  get closed(): Promise<void> {
    return this.#session.closed;
  }

  /** The first pair's queues. */
  send(frame: Uint8Array, options?: SendOptions): boolean {
    return this.pairs[0].send(frame, options);
  }

  receive(): Uint8Array | null {
    return this.pairs[0].receive();
  }

  received(): Promise<Uint8Array> {
    return this.pairs[0].received();
  }

  async setQueueEnabled(pair: number, enabled: boolean): Promise<void> {
    if (enabled) this.#enabledPairs.add(pair);
    else this.#enabledPairs.delete(pair);
    for (const index of [2 * pair, 2 * pair + 1]) {
      await this.#session.request('SET_VRING_ENABLE', { index, num: enabled ? 1 : 0 });
    }
    await this.#barrier();
  }

  /** Stops every ring; answers the base of each, ring 0 first. */
  async stop(): Promise<number[]> {
    const bases: number[] = [];
    for (let index = 0; index < this.pairs.length * 2; index++) {
      const state = await this.#session.request('GET_VRING_BASE', { index, num: 0 });
      bases.push(state.num);
    }
    return bases;
  }

  /** Starts the rings again at the bases that `stop` answered. The memory stays as the back-end knows it. */
  async restart(bases: readonly number[]): Promise<void> {
    await this.#startRings(bases);
  }

  /**
   * Connects anew after the back-end was lost, with the rings and the memory as they are; the back-end
   * goes on after the last used entry, as QEMU tells it without inflight tracking.
   */
  async reconnect(options: ReconnectOptions = {}): Promise<void> {
    const { base, disabled = false, ...reachOptions } = options;
    if (disabled) this.#enabledPairs.clear();
    this.#session.close();
    this.#session = await reach({ ...this.#options, ...reachOptions });
    const before = { ...this.#options, features: this.features, protocolFeatures: this.protocolFeatures };
    const { features } = await negotiate(this.#session, before);
    if (features !== this.features) throw new BackEndError('the back-end offers other features than before');
    await this.#start(base === undefined ? this.#bases() : this.#rings().map(() => base));
  }

  /** Ends the connection and gives the memory back. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.iommu?.close();
    this.#session.close();
    for (const ring of this.#rings()) {
      ring.abandon(new Error('the embedded guest was closed'));
      if (ring.kickFd >= 0) closeFd(ring.kickFd);
      if (ring.callFd >= 0) closeFd(ring.callFd);
      ring.kickFd = -1;
      ring.callFd = -1;
    }
    this.memory.close();
  }

  #has(feature: number): boolean {
    return hasBit(this.features, feature);
  }

  #hasProtocol(feature: number): boolean {
    return hasBit(this.protocolFeatures, feature);
  }

  /** Every ring in the order of its index. */
  #rings(): DriverRing[] {
    return this.pairs.flatMap((pair) => [pair.toGuest.ring, pair.fromGuest.ring]);
  }

  /** What to tell a back-end that knows nothing of the rings. */
  #bases(): number[] {
    return this.#rings().map((ring) => ring.layout.base());
  }

  #makePair(): QueuePair {
    const mergeable = this.#has(VIRTIO_FEATURE.NET_MRG_RXBUF);
    const options = {
      memory: this.#driverMemory,
      layout: this.layout,
      size: this.#options.ringSize ?? 256,
      headerBytes: netHeaderBytes(this.#has(VIRTIO_FEATURE.VERSION_1), mergeable),
      eventIdx: this.#has(VIRTIO_FEATURE.EVENT_IDX),
      indirect: this.#has(VIRTIO_FEATURE.INDIRECT_DESC),
      inOrder: this.#has(VIRTIO_FEATURE.IN_ORDER),
      mergeable,
      bufferBytes: this.#options.bufferBytes ?? 2048,
    };
    const toGuest = new ReceiveQueue({ ...options, shape: this.#options.receiveShape });
    const pair = new QueuePair(toGuest, new SendQueue(options));
    for (const { ring } of [pair.toGuest, pair.fromGuest]) {
      if (this.#options.polledKick !== true) ring.kickFd = createEventFd();
      ring.callFd = createEventFd();
    }
    return pair;
  }

  async #start(bases: readonly number[]): Promise<void> {
    const session = this.#session;
    await session.request('SET_FEATURES', this.features);
    await this.iommu?.connect(session);
    await this.#shareMemory();
    if (this.#options.mtu !== undefined && this.#hasProtocol(PROTOCOL_FEATURE.MTU)) {
      await session.request('NET_SET_MTU', BigInt(this.#options.mtu));
    }
    await this.#startRings(bases);
  }

  async #shareMemory(): Promise<void> {
    const { regions, fd } = this.memory;
    if (this.#hasProtocol(PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS)) {
      for (const region of regions) await this.#session.request('ADD_MEM_REG', region, { fds: [fd] });
      return;
    }
    if (regions.length > MEM_TABLE_REGIONS_SENT_MAX) {
      throw new RangeError(`${regions.length} regions do not fit one memory table`);
    }
    await this.#session.request('SET_MEM_TABLE', regions, { fds: regions.map(() => fd) });
  }

  async #startRings(bases: readonly number[]): Promise<void> {
    const session = this.#session;
    const isFirstStart = !this.#wasStarted;
    this.#wasStarted = true;
    for (const pair of this.#enabledPairs) await this.setQueueEnabled(pair, true);
    for (const [index, ring] of this.#rings().entries()) {
      await session.request('SET_VRING_NUM', { index, num: ring.size });
      await session.request('SET_VRING_BASE', { index, num: bases[index] });
      await session.request('SET_VRING_ADDR', {
        index,
        flags: 0,
        descUva: this.#driverMemory.uvaOf(ring.layout.descOffset),
        usedUva: this.#driverMemory.uvaOf(ring.layout.deviceOffset),
        availUva: this.#driverMemory.uvaOf(ring.layout.driverOffset),
        logGpa: 0n,
      });
      const kickFds = ring.kickFd < 0 ? [] : [ring.kickFd];
      await session.request('SET_VRING_KICK', { index, polled: ring.kickFd < 0 }, { fds: kickFds });
      await session.request('SET_VRING_CALL', { index, polled: false }, { fds: [ring.callFd] });
    }
    await this.#barrier();
    // Without protocol features, SET_FEATURES has enabled the rings.
    const isEnabledByMessage = this.#has(VIRTIO_FEATURE.PROTOCOL_FEATURES);
    if (!isFirstStart || this.#options.disabled === true || !isEnabledByMessage) return;
    for (const pair of this.pairs.keys()) await this.setQueueEnabled(pair, true);
  }

  /** Waits until the back-end has done what it was told; acknowledgements say so by themselves. */
  async #barrier(): Promise<void> {
    if (!this.#session.replyAck) await this.#session.request('GET_FEATURES', null);
  }
}

async function reach(options: EmbeddedGuestOptions): Promise<FrontEndSession> {
  if (options.fd !== undefined) return new FrontEndSession(options.fd);
  if (options.role === 'server') return FrontEndSession.accept(options.socketPath, options);
  return FrontEndSession.connect(options.socketPath, options);
}

async function negotiate(session: FrontEndSession, options: EmbeddedGuestOptions): Promise<Negotiated> {
  const offered = await session.request('GET_FEATURES', null);
  const features = acceptedFeatures(offered, options);
  let protocolFeatures = 0n;
  let queuePairsMax: number | null = null;
  if (hasBit(features, VIRTIO_FEATURE.PROTOCOL_FEATURES)) {
    const offeredProtocol = await session.request('GET_PROTOCOL_FEATURES', null);
    const wanted = options.iommu === true ? maskOf(PROTOCOL_FEATURE.BACKEND_REQ) : 0n;
    protocolFeatures = offeredProtocol & ((options.protocolFeatures ?? GUEST_PROTOCOL_FEATURES) | wanted);
    await session.request('SET_PROTOCOL_FEATURES', protocolFeatures);
    session.replyAck = hasBit(protocolFeatures, PROTOCOL_FEATURE.REPLY_ACK);
    if (hasBit(protocolFeatures, PROTOCOL_FEATURE.MQ)) {
      queuePairsMax = Number(await session.request('GET_QUEUE_NUM', null));
    }
    if (hasBit(protocolFeatures, PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS)) {
      await session.request('GET_MAX_MEM_SLOTS', null);
    }
  }
  await session.request('SET_OWNER', null);
  return { features, protocolFeatures, queuePairsMax };
}

/** @throws BackEndError: a layout or an order was asked for that the back-end does not offer */
function acceptedFeatures(offered: bigint, options: EmbeddedGuestOptions): bigint {
  let features = offered & (options.features ?? GUEST_FEATURES);
  const choose = (bit: number, isWanted: boolean | null, what: string): void => {
    if (isWanted === null) return;
    if (isWanted && !hasBit(offered, bit)) throw new BackEndError(`the back-end does not offer ${what}`);
    features = isWanted ? features | maskOf(bit) : features & ~maskOf(bit);
  };
  const { layout, inOrder, iommu } = options;
  choose(VIRTIO_FEATURE.RING_PACKED, layout === undefined ? null : layout === 'packed', 'packed rings');
  choose(VIRTIO_FEATURE.ACCESS_PLATFORM, iommu ?? null, 'addresses of an IOMMU');
  choose(VIRTIO_FEATURE.IN_ORDER, inOrder ?? null, 'buffers used in order');
  return features;
}

/** Rings, buffers, indirect tables and what alignment may waste. */
function neededBytes(options: EmbeddedGuestOptions, layout: RingLayoutKind): number {
  const size = options.ringSize ?? 256;
  const bufferBytes = roundUp(options.bufferBytes ?? 2048, 64);
  const partsBytes = DRIVER_LAYOUTS[layout].bytes(size) + 256;
  const ringBytes = partsBytes + size * (bufferBytes + INDIRECT_PIECES_MAX * DESC_BYTES);
  return roundUp((options.queuePairs ?? 1) * 2 * ringBytes, 2 ** 21);
}
