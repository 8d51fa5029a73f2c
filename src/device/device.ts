/**
 * A vhost-user device of any kind while a front-end is connected: negotiated features, shared memory, rings, and
 * the carrying out of when a ring runs (decided in ring-start.ts; vhost-user.rst, "Ring states"; the traps are listed
 * in docs/architecture.md). It tells the data path what to use and waits until the data path let go before anything
 * is taken away. What only a network device has is in net/, behind `DeviceKind`. Main thread.
 */
import assert from 'node:assert/strict';
import { hasBit, maskOf } from '../../protocol/bits.ts';
import {
  encodeBody,
  encodeMessage,
  type InflightDescription,
  type IotlbMessage,
  type LogDescription,
  type MemRegion,
  type VringAddr,
} from '../../protocol/vhost-user/codec.ts';
import { PROTOCOL_FEATURE } from '../../protocol/vhost-user/features.ts';
import { BACK_END_MESSAGES, IOTLB_TYPE } from '../../protocol/vhost-user/messages.ts';
import { DEVICE_STATUS } from '../../protocol/virtio/device-status.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import { BudgetError, type DescriptorShare } from '../host/budgets.ts';
import { createEventFd, signalFd } from '../host/descriptor.ts';
import { HostError } from '../host/errors.ts';
import type { PeerFds } from '../host/peer-fds.ts';
import { PeerSignal } from '../host/peer-signal.ts';
import { send } from '../host/unix-socket.ts';
import type { Arena } from '../memory/arena.ts';
import type { ArenaView } from '../memory/arena-view.ts';
import type { AddressMap } from '../memory/gpa-translator.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { AddressMiss } from '../memory/iotlb.ts';
import type { Direction } from '../queue/contract.ts';
import type { DataPath } from '../queue/data-path.ts';
import { QueueState } from '../queue/state.ts';
import type { IncomingFds } from '../vhost-user/incoming-fds.ts';
import { PeerError } from '../vhost-user/peer-error.ts';
import type { RingAttachment } from '../vring/attachment.ts';
import { DirtyLog, type RingLog } from '../vring/dirty-log.ts';
import { faultMessage, RING_FAULT } from '../vring/faults.ts';
import { waitingIn } from '../vring/occupancy.ts';
import { finish } from '../vring/packed/recovery.ts';
import type { RingRecord } from '../vring/ring-record.ts';
import type { DeviceKind, OwnQueue } from './device-kind.ts';
import {
  type HandedDevice,
  type HandedMessage,
  type HandedRing,
  HandOverError,
  handedMessage,
} from './hand-over.ts';
import { HeldFiles } from './held-files.ts';
import { InBandNotices } from './in-band.ts';
import { InflightBuffer } from './inflight.ts';
import { type FollowMemory, MemoryMap } from './memory-map.ts';
import { Ring, type RingUser } from './ring.ts';
import { allPages, ringLogOf } from './ring-log.ts';
import {
  areasOf,
  hasMisses,
  isPlacedAt,
  placeRing,
  type RingMemory,
  type RingPlaces,
} from './ring-places.ts';
import type { PortRecords } from './ring-records.ts';
import {
  baseToAnswer,
  decideStart,
  isAtBeginning,
  isDescribed,
  type LastRun,
  layoutOf,
  RING_ENTRIES_MAX,
  type RingStart,
  type RingSurroundings,
  shouldRun,
  whereItWasLeft,
} from './ring-start.ts';
import { takeChannelFd, takeKickFd, takeSignalFd } from './signal-fd.ts';
import { type Sent, Translations } from './translations.ts';

export type DeviceContext = {
  readonly portId: number;
  readonly arena: Arena;
  readonly arenaView: ArenaView;
  readonly dataPath: DataPath;
  /** QueueState blocks for every ring of the port. */
  readonly states: SharedArrayBuffer;
  /** Closes what the front-end sent. */
  readonly peerFds: PeerFds;
  /** What the front-end may have of descriptors; left out: as many as it likes. */
  readonly descriptors?: DescriptorShare;
  /** Something that the user should see changed: a ring started, stopped or failed. */
  readonly onChange: () => void;
  /** By ring; kept by the port from one connection to the next. */
  readonly lastRuns: Map<number, LastRun>;
  /** Where rings are noted for the next process; null: nowhere. */
  readonly records?: PortRecords | null;
  /** Something that the user may want to know but need not act on, for the log. */
  readonly onRemark: (remark: string) => void;
  /** What it begins with; left out: none. */
  readonly isResting?: boolean;
  /** The driver is about to say something by the device's own queue. */
  readonly onCommand?: () => void;
};

const STATUS_MAX = 0xffn;
/** By which a front-end can be asked for translations. */
const NEEDED_BY_IOMMU = maskOf(PROTOCOL_FEATURE.BACKEND_REQ, PROTOCOL_FEATURE.REPLY_ACK);

export class Device {
  /** Negotiated. */
  features = 0n;
  protocolFeatures = 0n;
  /** As the front-end said last and the device agrees to (VIRTIO 1.3, section 2.1); nothing hangs on it. */
  status = 0;
  readonly #kind: DeviceKind;
  readonly #context: DeviceContext;
  readonly #memory: MemoryMap;
  readonly #rings = new Map<number, Ring>();
  readonly #ownQueues = new Map<number, OwnQueue>();
  /** Of the connection by which a back-end could ask the front-end; -1: none, or it is `#inBand`'s. */
  #backEndChannelFd = -1;
  readonly #inBand: InBandNotices;
  /** The device is behind an IOMMU (ACCESS_PLATFORM); null: it is not. */
  #translations: Translations | null = null;
  /** Workers are about to be told of more translations. */
  #isToFollow = false;
  /** What the front-end keeps for the next back-end; null: nothing. */
  #inflight: InflightBuffer | null = null;
  /** Signalled when pages were marked in the log; -1: none. */
  #logSignalFd = -1;
  /** Another process ended between writing to the guest and marking it, and there was no log here yet. */
  #isLogBehind = false;
  /** Of the in-flight buffer. */
  readonly #inflightFiles: HeldFiles;
  #isResting: boolean;
  /** Until SET_FEATURES nobody knows whether rings are enabled by message; QEMU names rings before it. */
  #featuresSet = false;
  /** The last SET_FEATURES had some that were not offered. */
  #featuresRefused = false;
  /** The change at work; see `#inTurn`. */
  #turn: Promise<unknown> = Promise.resolve();
  #isChanging = false;

  constructor(kind: DeviceKind, context: DeviceContext) {
    this.#kind = kind;
    this.#context = context;
    const share = context.descriptors ?? null;
    this.#memory = new MemoryMap(context.arena, context.peerFds, share, () => context.onChange());
    this.#inflightFiles = new HeldFiles(context.peerFds, share);
    this.#isResting = context.isResting ?? false;
    this.#inBand = new InBandNotices(context.peerFds, () => context.onChange(), this.#isResting);
  }

  get offeredFeatures(): bigint {
    return this.#kind.offeredFeatures;
  }

  get offeredProtocolFeatures(): bigint {
    return this.#kind.offeredProtocolFeatures;
  }

  /** Rings that the front-end may name. */
  get ringCount(): number {
    return this.#kind.ringCount;
  }

  /** Those that the front-end named, by index. */
  get rings(): readonly Ring[] {
    return [...this.#rings.values()].sort((a, b) => a.index - b.index);
  }

  get memoryBytes(): number {
    return this.#memory.sizeBytes;
  }

  /** Why the guest's memory cannot work although it was accepted, with the fix; otherwise null. Known soon after. */
  get memoryWarning(): string | null {
    return this.#memory.warning;
  }

  /** Resolves when `memoryWarning` holds for the memory as it is. */
  memoryLooked(): Promise<void> {
    return this.#memory.looked();
  }

  /** Why a ring costs more than it should although it runs; otherwise null. */
  get kickWarning(): string | null {
    const ring = this.rings.find(({ kick }) => kick.polledBecause !== null);
    return ring === undefined
      ? null
      : `queue ${ring.index} is polled: its kick descriptor is ${ring.kick.polledBecause}`;
  }

  /** Why a guest that is being migrated will not be whole on the other side; otherwise null. */
  get logWarning(): string | null {
    return this.#isLogging ? this.#memory.logWarning : null;
  }

  /** Why the guest's memory is gone although it was accepted (Arena.watchLosses tells when to ask); otherwise null. */
  get memoryLoss(): string | null {
    return this.#memory.loss;
  }

  directionOf(ring: Ring): Direction | 'control' {
    return ring.user === 'control' ? 'control' : this.#kind.directionOf(ring.index);
  }

  /** @throws PeerError for features that were not offered */
  setFeatures(features: bigint): Promise<void> {
    this.#featuresRefused = (features & ~this.offeredFeatures) !== 0n;
    refuseUnoffered('features', features & ~this.offeredFeatures);
    refuseUnasked(features, this.protocolFeatures);
    return this.#inTurn(async () => {
      // The log of migration is switched on and off while rings run; other features only after a reset.
      const change = features ^ this.features;
      // QEMU says it once for each queue pair.
      const isLogAgain = change === 0n && this.#isLogging && this.#memory.log !== null;
      const isLogSwitch = change === maskOf(VIRTIO_FEATURE.LOG_ALL) || isLogAgain;
      if (!isLogSwitch) this.#kind.driverWasReset();
      if (change !== 0n && !isLogSwitch) await this.#detachAll();
      this.#hopeAgain(this.rings);
      this.features = features;
      this.#agreeOnTranslations(isLogSwitch);
      if (change !== 0n) await this.#followLog();
      this.#featuresSet = true;
      // Without bit 30 there is no SET_VRING_ENABLE, so every ring is enabled; with it none is disabled here,
      // because front-ends repeat SET_FEATURES while rings run.
      if (!this.#enablesByMessage()) for (const ring of this.#rings.values()) ring.enabled = true;
      if (!isLogSwitch) await this.#kind.negotiated(features);
      await this.#settleAll();
    });
  }

  /** @throws PeerError for features that were not offered */
  setProtocolFeatures(features: bigint): void {
    refuseUnoffered('protocol features', features & ~this.offeredProtocolFeatures);
    const needed = maskOf(PROTOCOL_FEATURE.BACKEND_REQ, PROTOCOL_FEATURE.REPLY_ACK);
    if (hasBit(features, PROTOCOL_FEATURE.INBAND_NOTIFICATIONS) && (features & needed) !== needed)
      throw new PeerError('INBAND_NOTIFICATIONS without BACKEND_REQ and REPLY_ACK');
    refuseUnasked(this.features, features);
    this.protocolFeatures = features;
    if (!this.isInBand || this.#backEndChannelFd < 0) return;
    this.#inBand.setChannel(this.#backEndChannelFd);
    this.#backEndChannelFd = -1;
  }

  /** The front-end is told by message, of which some may be on their way at any moment. */
  get isInBand(): boolean {
    return hasBit(this.protocolFeatures, PROTOCOL_FEATURE.INBAND_NOTIFICATIONS);
  }

  /**
   * SET_BACKEND_REQ_FD. User-Mode Linux sets its interrupt up only with such a channel, and takes the end of it for the end
   * of the device: so it is kept, and where nothing is told in band, neither written nor read. @throws PeerError
   */
  setBackEndChannel(fds: IncomingFds): void {
    const fd = takeChannelFd(fds);
    this.#closeBackEndChannel();
    if (this.isInBand) this.#inBand.setChannel(fd);
    else this.#backEndChannelFd = fd;
  }

  /** Why the front-end cannot be told by message what it wants to be told so; otherwise null. */
  get channelWarning(): string | null {
    return this.#inBand.warning;
  }

  /** SET_MEM_TABLE. @throws PeerError, MemoryError, HostError */
  replaceMemory(regions: readonly MemRegion[], fds: IncomingFds): Promise<void> {
    return this.#changeMemory((follow) => this.#memory.replace(regions, fds, follow));
  }

  /** ADD_MEM_REG. @throws PeerError, MemoryError, HostError */
  addMemory(region: MemRegion, fds: IncomingFds): Promise<void> {
    return this.#changeMemory((follow) => this.#memory.add(region, fds, follow));
  }

  /** REM_MEM_REG. @throws MemoryError */
  removeMemory(region: MemRegion): Promise<void> {
    return this.#changeMemory((follow) => this.#memory.remove(region, follow));
  }

  /**
   * IOTLB_MSG of a device behind an IOMMU. Of what is invalidated, or translated otherwise, nobody uses anything when this
   * resolves; what is new is known to workers soon after. @throws PeerError
   */
  async followIotlb(message: IotlbMessage): Promise<void> {
    const translations = this.#translations;
    assert(translations !== null, 'the table says that ACCESS_PLATFORM was negotiated');
    const { type } = message;
    if (type !== IOTLB_TYPE.UPDATE && type !== IOTLB_TYPE.INVALIDATE)
      throw new PeerError(`an IOTLB message of type ${type}, which front-ends do not send`);
    await this.#inTurn(async () => {
      const isLost =
        type === IOTLB_TYPE.INVALIDATE
          ? translations.invalidate(message)
          : translations.update(message, this.#memory.current, this.#ringAreas()).isLost;
      if (!isLost) return;
      await this.#follow(this.#memory.current, false, true);
      await this.#settleAll();
    });
    this.#followSoon();
  }

  /** A worker parked the ring: these are to be translated, the first one before it goes on. */
  queueWaits(index: number, misses: readonly AddressMiss[]): void {
    const ring = this.#rings.get(index);
    if (ring === undefined || ring.user === 'none' || this.#translations === null) return;
    // Said before it was paused, for something else that it waits for; what it needs when it goes on it will say then.
    if (ring.isPaused) return;
    this.#translations.wait(index, misses);
    this.#followSoon();
  }

  /** Why a ring waits for its IOMMU, and longer than it should; otherwise null. */
  waitReasonOf({ index }: Ring): string | null {
    return this.#translations?.reasonOf(index) ?? null;
  }

  /** As Port.waitingIn. */
  waitingIn(index: number): number | null {
    const ring = this.#rings.get(index);
    if (ring?.user !== 'workers' || ring.isPaused) return null;
    const { places, ranAs, size, state } = ring;
    if (places === null || ranAs === null) return null;
    return waitingIn(this.#context.arenaView.buffer, { ...places, layout: ranAs, size }, state.words);
  }

  /** The first such ring. */
  get waitingRing(): Ring | null {
    return this.rings.find((ring) => this.waitReasonOf(ring) !== null) ?? null;
  }

  /** SET_INFLIGHT_FD: the buffer takes the place of the one before. @throws PeerError, HostError */
  async setInflight(set: InflightDescription, fds: IncomingFds): Promise<void> {
    const { arena, arenaView, peerFds, onChange } = this.#context;
    const fd = fds.take();
    assert(fd !== null, 'the table says that a descriptor comes');
    await this.#inTurn(async () => {
      let next: InflightBuffer;
      try {
        next = new InflightBuffer(arena, arenaView, fd, set, layoutOf(this.features), this.ringCount);
      } catch (error) {
        peerFds.close([fd]);
        throw error;
      }
      await this.#detachAll();
      this.#inflight?.release();
      this.#inflight = next;
      this.#inflightFiles.take(fd);
      this.#inflightFiles.keepOnly([next.file]);
      this.#hopeAgain(this.rings);
      await this.#settleAll();
    });
    onChange();
  }

  /** SET_LOG_BASE, also while rings run and are logged. @throws PeerError, MemoryError, HostError */
  setLog(description: LogDescription, fds: IncomingFds): Promise<void> {
    return this.#inTurn(async () => {
      await this.#memory.setLog(description, fds, async () => {
        if (this.#isLogging) await this.#followLog();
      });
      this.#catchUpLog();
      this.#context.onChange();
    });
  }

  /** SET_LOG_FD. @throws PeerError */
  async setLogSignal(fds: IncomingFds): Promise<void> {
    const fd = takeSignalFd(fds);
    await this.#inTurn(async () => {
      const before = this.#logSignalFd;
      this.#logSignalFd = fd;
      if (this.#isLogging) await this.#followLog();
      if (before >= 0) this.#context.peerFds.close([before]);
    });
  }

  setRingSize(index: number, size: number): Promise<void> {
    const ring = this.#ring(index);
    if (size < 1 || size > RING_ENTRIES_MAX) {
      throw new PeerError(`ring size ${size} is not between 1 and 32,768`);
    }
    return this.#changeRing(ring, () => {
      ring.size = size;
    });
  }

  setRingAddresses(addresses: VringAddr): Promise<void> {
    const ring = this.#ring(addresses.index);
    return this.#inTurn(async () => {
      if (!ring.staysAt(addresses)) {
        await this.#change(ring, () => ring.setAddresses(addresses));
        return;
      }
      // Only where it is logged is another one: it runs on.
      ring.addresses = addresses;
      await this.#tellLog(ring);
    });
  }

  setRingBase(index: number, base: number): Promise<void> {
    const ring = this.#ring(index);
    return this.#changeRing(ring, () => ring.setBase(base));
  }

  /** GET_VRING_BASE: stops the ring and answers where it stands. Also for a ring never heard of. */
  async stopRing(index: number): Promise<number> {
    const ring = this.#ring(index);
    return this.#inTurn(async () => {
      // QEMU of several queue pairs resets the status first, and asks then where the second pair and the others stand.
      if (!ring.started && ring.stoodAtReset !== null) return ring.stoodAtReset;
      await this.#detach(ring);
      const base = baseToAnswer(ring, layoutOf(this.features));
      // Of one that did not run, what is known of its last run may still be of use.
      if (ring.goesOn) this.#context.records?.forget(index);
      ring.stop(base);
      this.#forgetTranslations();
      await this.#settleAll();
      this.#context.onChange();
      return base;
    });
  }

  /** SET_VRING_KICK: the ring starts, whether or not anything was kicked yet. @throws PeerError */
  async startRing(index: number, fds: IncomingFds): Promise<void> {
    const ring = this.#ring(index);
    const kick = takeKickFd(fds);
    await this.#changeRing(ring, () => {
      ring.setKick(kick);
      ring.started = true;
    });
    this.#context.onChange();
  }

  /**
   * VRING_KICK, in band: the driver added buffers. It starts the ring, too. Where the front-end gave a descriptor, or said
   * that the ring is to be polled, that holds instead. @throws PeerError
   */
  async kickRing(index: number, reserved: number): Promise<void> {
    if (reserved !== 0)
      throw new PeerError(`ring ${index} is kicked with ${reserved}, and only 0 means something`);
    const ring = this.#ring(index);
    if (ring.started) {
      if (ring.kick.isOurs === true) signalFd(ring.kick.fd);
      return;
    }
    await this.#changeRing(ring, () => {
      ring.setKick({ fd: createEventFd(), polledBecause: null, isOurs: true });
      ring.started = true;
    });
    this.#context.onChange();
  }

  /** The old descriptor is closed when nobody uses it any more. @throws PeerError */
  async setRingCall(index: number, fds: IncomingFds): Promise<void> {
    const ring = this.#ring(index);
    const callFd = takeSignalFd(fds);
    await this.#inTurn(async () => {
      if (ring.user === 'workers')
        await this.#context.dataPath.setCallFd(this.#context.portId, index, callFd);
      this.#ownQueues.get(index)?.setCallFd(callFd);
      ring.setCall(callFd);
      this.#inBand.forgetCalls(index);
    });
  }

  /** @throws PeerError */
  setRingError(index: number, fds: IncomingFds): void {
    const ring = this.#ring(index);
    ring.setError(takeSignalFd(fds));
    if (ring.reason !== null && isDescribed(ring)) this.#tellError(ring);
  }

  async enableRing(index: number, value: number): Promise<void> {
    const ring = this.#ring(index);
    if (value > 1) {
      throw new PeerError(`ring ${index} can be enabled with 1 or disabled with 0, not ${value}`);
    }
    await this.#inTurn(async () => {
      ring.enabled = value === 1;
      this.#hopeAgain([ring]);
      await this.#settleAll();
    });
    this.#context.onChange();
  }

  /**
   * RESET_DEVICE: every ring stops and is disabled, and what was agreed on with the driver is forgotten. What belongs to
   * the connection stays: owner, protocol features, memory and its log, the back-end's own channel, MTU.
   */
  async reset(): Promise<void> {
    await this.#inTurn(async () => {
      await this.#detachAll();
      for (const ring of this.#rings.values()) {
        this.#context.records?.forget(ring.index);
        ring.reset(baseToAnswer(ring, layoutOf(this.features)));
      }
      for (const index of this.#context.lastRuns.keys()) this.#context.records?.forget(index);
      this.#context.lastRuns.clear();
      this.#inflight?.release();
      this.#inflight = null;
      this.features = 0n;
      this.#agreeOnTranslations(false);
      this.#featuresSet = false;
      this.#featuresRefused = false;
      this.status = 0;
      this.#kind.driverWasReset();
      await this.#kind.negotiated(0n);
    });
    this.#context.onChange();
  }

  /** SET_STATUS: 0 is a reset. FEATURES_OK is not taken after features that were refused. @throws PeerError */
  async setStatus(status: bigint): Promise<void> {
    if (status > STATUS_MAX) throw new PeerError(`status 0x${status.toString(16)} has more than 8 bits`);
    if (status === 0n) await this.reset();
    else this.status = Number(status) & ~(this.#featuresRefused ? DEVICE_STATUS.FEATURES_OK : 0);
  }

  /** Attaches and detaches after the kind changed its mind about which rings are in use. */
  async settleRings(): Promise<void> {
    await this.#inTurn(() => this.#settleAll());
    this.#context.onChange();
  }

  /** Somebody stopped the ring: see QueueState. The front-end is told. */
  queueFailed(index: number): void {
    const ring = this.#rings.get(index);
    if (ring === undefined || ring.fault === RING_FAULT.NONE) return;
    ring.reason = faultMessage(ring.fault);
    this.#tellError(ring);
    this.#context.onChange();
  }

  /** The ring stands still, and not because the front-end wants it to. */
  #tellError(ring: Ring): void {
    if (ring.errorFd >= 0) new PeerSignal(ring.errorFd).send();
    else if (this.isInBand) this.#inBand.tellError(ring.index);
  }

  /**
   * Lets go of all rings, whatever front-end and driver want, or takes them up again where they stand. Resolves when no
   * worker uses those that are let go of, and what is in QueueState of them is final; messages may come meanwhile, and are
   * carried out.
   */
  setResting(isResting: boolean): Promise<void> {
    return this.#inTurn(async () => {
      this.#isResting = isResting;
      // All at once: frames wait meanwhile.
      if (isResting) {
        await Promise.all(this.rings.map((ring) => this.#detach(ring)));
        this.#inBand.rest();
        return;
      }
      this.#inBand.goOn();
      for (const ring of this.rings) if (this.#isOwnQueue(ring)) await this.#settle(ring);
      await Promise.all(this.rings.map((ring) => this.#settle(ring)));
    });
  }

  /**
   * What brings a fresh device to what the front-end said to this one, but for what `handOverRings` tells. The
   * descriptors stay this device's. @throws HandOverError
   */
  handOverMessages(): HandedMessage[] {
    const channelFd = this.#backEndChannelFd < 0 ? this.#inBand.channelFd : this.#backEndChannelFd;
    return [
      handedMessage('SET_PROTOCOL_FEATURES', this.protocolFeatures),
      ...(this.#featuresSet ? [handedMessage('SET_FEATURES', this.features)] : []),
      ...this.#memory.messages(),
      ...(this.#translations?.messages.map((message) => handedMessage('IOTLB_MSG', message)) ?? []),
      ...(this.#logSignalFd < 0 ? [] : [handedMessage('SET_LOG_FD', null, [this.#logSignalFd])]),
      ...(this.#inflight === null ? [] : [this.#inflightMessage(this.#inflight)]),
      ...(channelFd < 0 ? [] : [handedMessage('SET_BACKEND_REQ_FD', null, [channelFd])]),
      ...this.rings.flatMap(ringMessages),
    ];
  }

  /** Beside messages and rings; of a device at rest it is final. */
  handOver(): HandedDevice {
    const { status } = this;
    return {
      status,
      featuresRefused: this.#featuresRefused,
      isLogBehind: this.#isLogBehind,
      inBand: this.#inBand.handOver(),
    };
  }

  /** The device is at rest, and had the messages. */
  takeOver({ status, featuresRefused, isLogBehind, inBand }: HandedDevice): void {
    this.status = status;
    this.#featuresRefused = featuresRefused;
    this.#isLogBehind = isLogBehind;
    this.#inBand.takeOver(inBand);
  }

  /** Where the rings stand. Of a device at rest it is final. */
  handOverRings(): HandedRing[] {
    return this.rings.map((ring) => ring.handOver());
  }

  /** The device is at rest, and had the messages; its rings go on where these say. @throws PeerError for others */
  takeOverRings(handed: readonly HandedRing[]): void {
    assert(this.#isResting, 'nobody uses the rings');
    for (const ring of handed) this.#ring(ring.index).takeOver(ring);
  }

  /**
   * As `takeOverRings`, of a device whose process came to a sudden end: where the rings stand is looked up, but for those
   * that a fault stopped before. @throws HandOverError when it cannot be told; PeerError
   */
  takeUpRings(handed: readonly HandedRing[]): void {
    this.takeOverRings(handed);
    for (const ring of this.rings) {
      const isOfThisRun = ring.goesOn && ring.ranAs === layoutOf(this.features);
      if (!isOfThisRun || ring.fault !== RING_FAULT.NONE) continue;
      const left = whereItWasLeft(ring, this.#surroundingsOf(ring, this.#isActive(ring)));
      if (typeof left === 'string') throw new HandOverError(`queue ${ring.index}: ${left}`);
      this.#finishInterrupted(ring, left);
      ring.setIndices(left.indices);
      ring.mayOweSignal = true;
    }
  }

  /** Why a ring will not go on that the front-end and the driver want to run; null: all will. Of a device at rest. */
  get obstacle(): string | null {
    for (const ring of this.rings) {
      const start = this.#decide(ring, this.#isActive(ring));
      if (!start.runs && start.reason !== null && ring.goesOn) return `queue ${ring.index}: ${start.reason}`;
    }
    return null;
  }

  /** The front-end is gone: lets go of everything. */
  release(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#detachAll();
      for (const ring of this.#rings.values()) {
        this.#remember(ring);
        ring.started = false;
        ring.closeFds();
      }
      this.#rings.clear();
      this.#inflight?.release();
      this.#inflight = null;
      this.#inflightFiles.keepOnly([]);
      await this.#memory.release();
      this.#translations?.close();
      this.#translations = null;
      this.#closeBackEndChannel();
      this.#inBand.close();
      if (this.#logSignalFd >= 0) this.#context.peerFds.close([this.#logSignalFd]);
      this.#logSignalFd = -1;
    });
  }

  /** By which the workers signal; -1: they do not. */
  #callFdOf(ring: Ring): number {
    if (ring.callFd >= 0 || ring.isNeverCalled || !this.isInBand) return ring.callFd;
    return this.#inBand.callFdOf(ring.index);
  }

  #closeBackEndChannel(): void {
    if (this.#backEndChannelFd >= 0) this.#context.peerFds.close([this.#backEndChannelFd]);
    this.#backEndChannelFd = -1;
  }

  /**
   * One change at a time. Messages come so by themselves, but the driver's own commands come when they like, and must
   * not attach or detach while a message waits for the workers.
   */
  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(async () => {
      assert(!this.#isChanging, 'one change at a time');
      this.#isChanging = true;
      try {
        return await change();
      } finally {
        this.#isChanging = false;
      }
    });
    // Whoever asked for the change learns of its failure; the next one is not concerned.
    this.#turn = result.catch(() => {});
    return result;
  }

  /** Attachments hold what changes here, so the ring is let go of meanwhile. */
  #changeRing(ring: Ring, change: () => void): Promise<void> {
    return this.#inTurn(() => this.#change(ring, change));
  }

  async #change(ring: Ring, change: () => void): Promise<void> {
    await this.#detach(ring);
    change();
    this.#hopeAgain([ring]);
    // Other rings may depend on which are started.
    await this.#settleAll();
  }

  #changeMemory(change: (follow: FollowMemory) => Promise<void>): Promise<void> {
    return this.#inTurn(async () => {
      await change((next, isLonger) => this.#followMemory(next, isLonger));
      this.#hopeAgain(this.rings);
      await this.#settleAll();
      this.#context.onChange();
    });
  }

  async #followMemory(next: GuestMemory, isLonger: boolean): Promise<void> {
    if (!isLonger) this.#translations?.keepIn(next);
    await this.#follow(next, isLonger);
  }

  /**
   * Only rings that do not lie where they lay are detached. The others go on, and are told what they may use: a worker
   * that is told is between two bursts and, unless all that was there stays, holds no place in memory. The control queue may hold one (for the answer to
   * a command that waits for workers), so it begins anew unless all that was there stays. `mayPause`: a ring that lies nowhere
   * only because of a translation is not detached, as it most likely comes back: drivers that give buffers back by the
   * hundred have all translations forgotten, many times a second.
   */
  async #follow(memory: GuestMemory, isLonger: boolean, mayPause = false): Promise<void> {
    const paused: number[] = [];
    for (const ring of this.rings) {
      if (ring.user === 'none' || (isLonger && !ring.isPaused)) continue;
      const placed = this.#placeIn(ring, memory);
      if (ring.user === 'workers' && isPlacedAt(placed, ring.places)) ring.isPaused = false;
      else if (ring.user === 'workers' && mayPause && hasMisses(placed)) {
        ring.isPaused = true;
        paused.push(ring.index);
        this.#translations?.wait(ring.index, placed.misses);
      } else await this.#detach(ring);
    }
    const map = this.#mapIn(memory);
    // They go on by this; what they wait for from now on their users say anew.
    for (const index of this.#translations?.ready ?? [])
      if (this.#rings.get(index)?.user !== 'none') this.#translations?.forget(index);
    for (const queue of this.#ownQueues.values()) queue.setMemory(map);
    const isUsed = this.rings.some((ring) => ring.user === 'workers');
    if (isUsed) await this.#context.dataPath.setMemory(this.#context.portId, map, isLonger, paused);
    if (!isLonger) this.#translations?.noteFollowed();
  }

  /** What descriptors are translated by. */
  #mapIn(memory: GuestMemory): AddressMap {
    return this.#translations?.mapIn(memory) ?? memory.gpaMap();
  }

  /** Rings go on that waited for what is known now. Several updates that come together do for one order. */
  #followSoon(): void {
    if (this.#isToFollow || this.#translations === null || this.#translations.ready.length === 0) return;
    this.#isToFollow = true;
    void this.#inTurn(async () => {
      this.#isToFollow = false;
      if (this.#translations === null) return;
      await this.#follow(this.#memory.current, true, true);
      await this.#settleAll();
    });
  }

  /** Features were agreed on, or forgotten. */
  #agreeOnTranslations(isLogSwitch: boolean): void {
    const isBehindOne = hasBit(this.features, VIRTIO_FEATURE.ACCESS_PLATFORM);
    if (isBehindOne && this.#translations === null) {
      this.#translations = new Translations(
        (message) => this.#sendToFrontEnd(message),
        () => this.#context.onChange(),
      );
    } else if (!isBehindOne) {
      this.#translations?.close();
      this.#translations = null;
    } else if (!isLogSwitch) this.#forgetTranslations();
  }

  /** While no ring is started, nobody need tell us of what is not so any more (QEMU does not). */
  #forgetTranslations(): void {
    if (this.rings.every((ring) => !ring.started)) this.#translations?.clear();
  }

  /** No reply is asked for, so nothing is to be read. */
  #sendToFrontEnd(message: IotlbMessage): Sent {
    const { id, body } = BACK_END_MESSAGES.IOTLB_MSG;
    const bytes = encodeMessage(id, 0, encodeBody(body, message));
    if (this.isInBand) return this.#inBand.send(bytes);
    if (this.#backEndChannelFd < 0) return 'none';
    try {
      const sentBytes = send(this.#backEndChannelFd, bytes);
      if (sentBytes === bytes.length) return 'sent';
      if (sentBytes === 0) return 'full';
      // No UNIX socket takes a part of so little; what comes next would make no sense to the front-end.
      this.#closeBackEndChannel();
      return 'none';
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      return 'none';
    }
  }

  /** Whether a range of addresses is one that rings lie in. */
  #ringAreas(): (start: number, end: number) => boolean {
    const areas = this.rings.flatMap(({ user, size, addresses }) =>
      user === 'none' || addresses === null ? [] : areasOf(layoutOf(this.features), size, addresses),
    );
    return (start, end) =>
      areas.some(({ uva, sizeBytes }) => uva < BigInt(end) && uva + BigInt(sizeBytes) > BigInt(start));
  }

  /** Where ring addresses lie: front-end-virtual, or behind an IOMMU. */
  #ringMemory(memory: GuestMemory): RingMemory {
    const translations = this.#translations;
    if (translations === null) return memory;
    return {
      sizeBytes: memory.sizeBytes,
      offsetOfUva: (iova, sizeBytes, access) => {
        const place = translations.place(iova, sizeBytes, access, memory);
        if (place.kind === 'missing') return place.misses;
        return place.kind === 'at' ? place.offset : null;
      },
    };
  }

  get #isLogging(): boolean {
    return hasBit(this.features, VIRTIO_FEATURE.LOG_ALL);
  }

  /** Resolves when pages are marked as it is said now, and nobody marks any otherwise. */
  async #followLog(): Promise<void> {
    for (const ring of this.rings) await this.#tellLog(ring);
  }

  async #tellLog(ring: Ring): Promise<void> {
    if (ring.user === 'none') return;
    const log = this.#logOf(ring, ring.places);
    this.#ownQueues.get(ring.index)?.setLog(log);
    if (ring.user === 'workers') await this.#context.dataPath.setLog(this.#context.portId, ring.index, log);
  }

  /** Marks all of the guest: what the process before wrote, and could not mark any more, may lie anywhere. */
  #catchUpLog(): void {
    const { log } = this.#memory;
    if (!this.#isLogBehind || !this.#isLogging || log === null) return;
    this.#isLogBehind = false;
    const { offset, sizeBytes } = log;
    const of = { offset, sizeBytes, ownPages: [], signalFd: this.#logSignalFd };
    new DirtyLog(this.#context.arenaView, of).markRanges(allPages(this.#memory.gpaMap()));
  }

  #logOf({ size, addresses }: Ring, places: RingPlaces | null): RingLog | null {
    const { log } = this.#memory;
    if (!this.#isLogging || log === null) return null;
    assert(addresses !== null && places !== null, 'a ring in use lies somewhere');
    const { offset, sizeBytes } = log;
    const isTranslated = this.#translations !== null;
    const regions = this.#memory.gpaMap();
    const ownPages = ringLogOf(layoutOf(this.features), size, addresses, places, regions, isTranslated);
    return { offset, sizeBytes, ownPages, signalFd: this.#logSignalFd, ...(isTranslated && { regions }) };
  }

  #placeIn(ring: Ring, memory: GuestMemory): ReturnType<typeof placeRing> {
    assert(ring.addresses !== null && ring.places !== null, 'a ring in use lies somewhere');
    return placeRing(layoutOf(this.features), ring.size, ring.addresses, this.#ringMemory(memory));
  }

  #enablesByMessage(): boolean {
    return hasBit(this.features, VIRTIO_FEATURE.PROTOCOL_FEATURES);
  }

  #ring(index: number): Ring {
    const known = this.#rings.get(index);
    if (known !== undefined) return known;
    const { ringCount, ringCountHint } = this.#kind;
    if (index >= ringCount) {
      throw new PeerError(`ring ${index} does not exist; the device has ${ringCount} (${ringCountHint})`);
    }
    this.#reserveDescriptors(this.#rings.size + 1);
    const enabled = this.#featuresSet && !this.#enablesByMessage();
    const ring = new Ring(index, new QueueState(this.#context.states, index), enabled, this.#context.peerFds);
    this.#rings.set(index, ring);
    return ring;
  }

  #reserveDescriptors(ringCount: number): void {
    try {
      this.#context.descriptors?.forRings(ringCount);
    } catch (error) {
      throw error instanceof BudgetError ? new PeerError(error.message) : error;
    }
  }

  #isOwnQueue(ring: Ring): boolean {
    const isStarted = (index: number): boolean => this.#rings.get(index)?.started === true;
    return this.#kind.isOwnQueue(ring.index, this.features, isStarted);
  }

  #decide(ring: Ring, isActive: boolean): RingStart {
    return decideStart(ring, this.#surroundingsOf(ring, isActive));
  }

  #surroundingsOf(ring: Ring, isActive: boolean): RingSurroundings {
    const lastRun = this.#context.lastRuns.get(ring.index) ?? null;
    return {
      layout: layoutOf(this.features),
      isActive,
      memory: this.#ringMemory(this.#memory.current),
      lastRun,
      place: lastRun === null ? null : this.#placeOf(ring),
      inflight: (places) =>
        this.#inflight?.read(ring.index, layoutOf(this.features), ring.size, places) ?? null,
      word16At: (offset) => this.#context.arenaView.word16At(offset),
    };
  }

  /** Something came by which these rings may run after all. */
  #hopeAgain(rings: readonly Ring[]): void {
    for (const ring of rings) ring.isHopeless = false;
  }

  #isActive(ring: Ring): boolean {
    return this.#isOwnQueue(ring) || this.#kind.isInUse(ring.index);
  }

  #inflightMessage({ description, file }: InflightBuffer): HandedMessage {
    const fd = this.#inflightFiles.fdOf(file);
    if (fd === null)
      throw new HandOverError('there were too few descriptors to keep that of its in-flight region');
    return handedMessage('SET_INFLIGHT_FD', description, [fd]);
  }

  async #settleAll(): Promise<void> {
    if (this.#isResting) return;
    // Its driver may say there which of the others are in use.
    for (const ring of this.rings) if (this.#isOwnQueue(ring)) await this.#settle(ring);
    for (const ring of this.rings) await this.#settle(ring);
  }

  /** The one way by which rings come to their user and leave it: brings the ring to where it belongs now. */
  async #settle(ring: Ring): Promise<void> {
    const isOwnQueue = this.#isOwnQueue(ring);
    // It was none after all, and what it said of the driver was not said.
    if (ring.wasOwnQueue && !isOwnQueue && ring.started) this.#kind.driverWasReset();
    if (ring.started) ring.wasOwnQueue = isOwnQueue;
    const isActive = this.#isActive(ring);
    const user: RingUser = isOwnQueue ? 'control' : 'workers';
    // What an attachment holds changes only while its ring is detached, so there is nothing to place anew.
    if ((ring.user === user || ring.isHopeless) && shouldRun(ring, isActive)) return;
    await this.#detach(ring);
    const start = this.#decide(ring, isActive);
    ring.isHopeless = !start.runs && start.reason !== null;
    if (!start.runs) {
      if (start.misses === undefined) this.#translations?.forget(ring.index);
      else this.#translations?.wait(ring.index, start.misses);
      const isNews = start.reason !== null && start.reason !== ring.reason;
      ring.reason = start.reason;
      if (isNews && isDescribed(ring)) this.#tellError(ring);
      return;
    }
    this.#translations?.forget(ring.index);
    this.#finishInterrupted(ring, start);
    ring.begin(layoutOf(this.features), start.indices);
    this.#context.lastRuns.delete(ring.index);
    this.#remark(ring, start.remark);
    // A ring that failed stays so until it is started anew, whatever else made us attach it again.
    ring.reason = ring.fault === RING_FAULT.NONE ? null : faultMessage(ring.fault);
    ring.places = start.places;
    const attachment = this.#attachmentOf(ring, start.places);
    const record = this.#note(ring, attachment);
    // Who used the ring before may have come to its end between a burst and its signal.
    const signalsFirst =
      ring.mayOweSignal || (start.indices !== null && !isAtBeginning(start.indices, attachment.layout));
    ring.mayOweSignal = false;
    await this.#attach(ring, user, {
      ...attachment,
      ...(record !== null && { recordOffset: record.offset }),
      ...this.#noteInflight(ring, attachment),
      ...(signalsFirst && { signalsFirst }),
    });
  }

  #remember(ring: Ring): void {
    const { index, size, base, indices, ranAs } = ring;
    if (!ring.goesOn || ranAs === null || ring.fault !== RING_FAULT.NONE) return;
    const place = this.#placeOf(ring);
    this.#context.lastRuns.set(index, { layout: ranAs, size, place, base, indices, interrupted: null });
  }

  /** What another process left half done. */
  #finishInterrupted(
    ring: Ring,
    { recovery, places }: Pick<RingStart & { readonly runs: true }, 'recovery' | 'places'>,
  ): void {
    const interrupted = this.#context.lastRuns.get(ring.index)?.interrupted ?? null;
    if (recovery === null || interrupted === null) return;
    finish(this.#context.arenaView, places.descOffset, interrupted, recovery);
    this.#isLogBehind = this.#isLogging;
    this.#catchUpLog();
  }

  /** Notes where the ring stands for who comes after this process, and is to be kept up to date by who uses it. */
  #note(ring: Ring, { layout, direction, inOrder }: RingAttachment): RingRecord | null {
    const { records } = this.#context;
    if (records == null) return null;
    const place = this.#placeOf(ring);
    // Of a split ring the guest's memory says it all; and what has a fault does not go on.
    if (layout === 'split' || place === null || ring.fault !== RING_FAULT.NONE) {
      records.forget(ring.index);
      return null;
    }
    const { index: queueIndex, size, base } = ring;
    const isFromGuest = direction === 'ingress';
    return records.begin(
      { queueIndex, layout, size, place, base, isFromGuest, inOrder },
      ring.indices.usedNext,
    );
  }

  #noteInflight(ring: Ring, { layout }: RingAttachment): Pick<RingAttachment, 'inflightOffset'> {
    this.#inflight?.begin(ring.index, layout, ring.size, ring.indices.usedNext);
    const offset = this.#inflight?.regionOffset(ring.index, layout, ring.size) ?? null;
    return layout === 'split' || offset === null ? {} : { inflightOffset: offset };
  }

  #placeOf({ addresses }: Ring): string | null {
    if (addresses === null) return null;
    const { descUva } = addresses;
    const uva = this.#translations === null ? descUva : this.#translations.uvaOf(descUva);
    return uva === null ? null : this.#memory.fileByteAt(uva);
  }

  #remark(ring: Ring, remark: string | null): void {
    if (remark === null || ring.wasRemarkedOn) return;
    ring.wasRemarkedOn = true;
    this.#context.onRemark(`queue ${ring.index}: ${remark}`);
  }

  async #attach(ring: Ring, user: RingUser, attachment: RingAttachment): Promise<void> {
    assert(this.#isChanging, 'rings are attached in turn');
    assert.equal(ring.user, 'none', `ring ${ring.index} has a user already`);
    ring.user = user;
    if (user === 'workers') {
      await this.#context.dataPath.attach(attachment);
      return;
    }
    this.#ownQueues.set(
      ring.index,
      this.#kind.openOwnQueue(
        attachment,
        isAtBeginning(ring.indices, attachment.layout),
        () => this.queueFailed(ring.index),
        (misses) => this.queueWaits(ring.index, misses),
      ),
    );
  }

  async #detachAll(): Promise<void> {
    for (const ring of this.rings) await this.#detach(ring);
  }

  async #detach(ring: Ring): Promise<void> {
    assert(this.#isChanging, 'rings are detached in turn');
    if (ring.user === 'workers') await this.#context.dataPath.detach(this.#context.portId, ring.index);
    this.#ownQueues.get(ring.index)?.close();
    this.#ownQueues.delete(ring.index);
    // What a worker said of it before came before its answer.
    if (ring.user !== 'none') this.#translations?.forget(ring.index);
    ring.user = 'none';
    ring.isPaused = false;
    ring.places = null;
  }

  #attachmentOf(ring: Ring, places: RingPlaces): RingAttachment {
    return {
      kind: 'ring',
      layout: layoutOf(this.features),
      portId: this.#context.portId,
      queueIndex: ring.index,
      size: ring.size,
      ...places,
      eventIdx: hasBit(this.features, VIRTIO_FEATURE.EVENT_IDX),
      indirect: hasBit(this.features, VIRTIO_FEATURE.INDIRECT_DESC),
      inOrder: hasBit(this.features, VIRTIO_FEATURE.IN_ORDER),
      ...this.#kind.attachmentOf(ring.index, this.features),
      kickFd: ring.watchedKickFd,
      callFd: this.#callFdOf(ring),
      states: this.#context.states,
      map: this.#mapIn(this.#memory.current),
      log: this.#logOf(ring, places),
    };
  }
}

function ringMessages(ring: Ring): HandedMessage[] {
  const { index, size, addresses, kick, callFd, isNeverCalled, errorFd, started } = ring;
  const one = (name: 'SET_VRING_KICK' | 'SET_VRING_CALL' | 'SET_VRING_ERR', fd: number): HandedMessage =>
    handedMessage(name, { index, polled: fd < 0 }, fd < 0 ? [] : [fd]);
  return [
    ...(size === 0 ? [] : [handedMessage('SET_VRING_NUM', { index, num: size })]),
    ...(addresses === null ? [] : [handedMessage('SET_VRING_ADDR', addresses)]),
    // Without a descriptor it says that the driver looks by itself; a front-end that said nothing may be told in band.
    ...(callFd >= 0 || isNeverCalled ? [one('SET_VRING_CALL', callFd)] : []),
    ...(errorFd < 0 ? [] : [one('SET_VRING_ERR', errorFd)]),
    ...(started ? [one('SET_VRING_KICK', kick.fd)] : []),
  ];
}

function refuseUnoffered(what: string, features: bigint): void {
  if (features !== 0n) throw new PeerError(`${what} 0x${features.toString(16)} were not offered`);
}

function refuseUnasked(features: bigint, protocolFeatures: bigint): void {
  if (!hasBit(features, VIRTIO_FEATURE.ACCESS_PLATFORM)) return;
  if ((protocolFeatures & NEEDED_BY_IOMMU) !== NEEDED_BY_IOMMU)
    throw new PeerError('ACCESS_PLATFORM without BACKEND_REQ and REPLY_ACK');
}
