/**
 * A vhost-user network device while a front-end is connected: negotiated features, shared memory, rings, and
 * the rules of when a ring starts, runs and stops (vhost-user.rst, "Ring states"; the traps are listed in
 * docs/architecture.md). It tells the data path what to use and waits until the data path let go before
 * anything is taken away. Main thread; messages reach it one at a time.
 */
import { hasBit } from '../../protocol/bits.ts';
import { BESIDE_MTU_BYTES, FRAME_BYTES_MAX } from '../../protocol/ethernet.ts';
import type { ConfigSpace, MemRegion, VringAddr } from '../../protocol/vhost-user/codec.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import { netHeaderBytes } from '../../protocol/virtio/net.ts';
import { isSplitRingSize } from '../../protocol/virtio/split-ring.ts';
import { closeFd, signalFd } from '../host/descriptor.ts';
import type { Arena } from '../memory/arena.ts';
import type { ArenaView } from '../memory/arena-view.ts';
import { GuestMemory } from '../memory/guest-memory.ts';
import { sharingOfFile } from '../memory/sharing.ts';
import type { Direction } from '../queue/contract.ts';
import type { DataPath } from '../queue/data-path.ts';
import { QueueState, STATE_AVAIL_NEXT, STATE_FAULT, STATE_LOCK, STATE_USED_NEXT } from '../queue/state.ts';
import type { IncomingFds } from '../vhost-user/incoming-fds.ts';
import { PeerError } from '../vhost-user/peer-error.ts';
import type { RingAttachment } from '../vring/attachment.ts';
import { faultMessage, RING_FAULT } from '../vring/faults.ts';
import { configSpaceBytes } from './net/config-space.ts';
import { ControlQueue, ReceiveFilter } from './net/control-queue.ts';
import { type DeviceOptions, offeredFeatures, offeredProtocolFeatures } from './net/options.ts';
import { Ring } from './ring.ts';
import { placeRing } from './ring-layout.ts';
import { adoptSignalFd } from './signal-fd.ts';

export type DeviceContext = {
  readonly portId: number;
  readonly arena: Arena;
  readonly arenaView: ArenaView;
  readonly dataPath: DataPath;
  /** QueueState blocks for every ring of the port: see `ringCountMax`. */
  readonly states: SharedArrayBuffer;
  /** Process id of the front-end, or null. */
  readonly peerPid: number | null;
  /** Something that the user should see changed: a ring started, stopped or failed. */
  readonly onChange: () => void;
};

export const MEMORY_SLOTS_MAX = 509;
export const MTU_MIN = 68;
export const MTU_MAX = 65_535;

/** Rings that a device with so many queue pairs can have: two a pair, and the control virtqueue. */
export const ringCountMax = (queuePairsMax: number): number => 2 * queuePairsMax + 1;

export class Device {
  readonly options: DeviceOptions;
  readonly offeredFeatures: bigint;
  readonly offeredProtocolFeatures: bigint;
  readonly memorySlotsMax = MEMORY_SLOTS_MAX;
  readonly receiveFilter = new ReceiveFilter();
  features = 0n;
  protocolFeatures = 0n;
  mtu: number | null = null;
  readonly #context: DeviceContext;
  /** Until SET_FEATURES nobody knows whether rings are enabled by message; QEMU names rings before it. */
  #featuresSet = false;
  #memory: GuestMemory;
  readonly #rings = new Map<number, Ring>();
  readonly #controlQueues = new Map<number, ControlQueue>();
  #memoryWarning: string | null = null;
  /** Queue pairs in use as the driver said on the control virtqueue; null: it never did. */
  #activePairs: number | null = null;

  constructor(options: DeviceOptions, context: DeviceContext) {
    this.options = options;
    this.#context = context;
    this.#memory = new GuestMemory(context.arena);
    this.offeredFeatures = offeredFeatures(options);
    this.offeredProtocolFeatures = offeredProtocolFeatures(options);
  }

  get rings(): readonly Ring[] {
    return [...this.#rings.values()].sort((a, b) => a.index - b.index);
  }

  get memoryBytes(): number {
    return this.#memory.sizeBytes;
  }

  /** Why the guest's memory cannot work although it was accepted, with the fix; otherwise null. */
  get memoryWarning(): string | null {
    return this.#memoryWarning;
  }

  directionOf(ring: Ring): Direction | 'control' {
    if (ring.user === 'control') return 'control';
    return ring.index % 2 === 0 ? 'egress' : 'ingress';
  }

  async setFeatures(features: bigint): Promise<void> {
    const unknown = features & ~this.offeredFeatures;
    if (unknown !== 0n) throw new PeerError(`features 0x${unknown.toString(16)} were not offered`);
    const changed = features !== this.features;
    this.features = features;
    this.#featuresSet = true;
    // Without bit 30 there is no SET_VRING_ENABLE, so every ring is enabled; with it none is disabled here,
    // because front-ends repeat SET_FEATURES while rings run.
    if (!hasBit(features, VIRTIO_FEATURE.PROTOCOL_FEATURES)) {
      for (const ring of this.#rings.values()) await this.#setEnabled(ring, true);
    }
    if (changed) await this.#reattachAll();
  }

  setProtocolFeatures(features: bigint): void {
    const unknown = features & ~this.offeredProtocolFeatures;
    if (unknown !== 0n) throw new PeerError(`protocol features 0x${unknown.toString(16)} were not offered`);
    this.protocolFeatures = features;
  }

  /** SET_MEM_TABLE: maps the new table whole, and only then lets go of the old one. */
  async replaceMemory(regions: readonly MemRegion[], fds: IncomingFds): Promise<void> {
    const memory = new GuestMemory(this.#context.arena);
    try {
      for (const region of regions) memory.add(region, this.#takeFd(fds));
    } catch (error) {
      memory.clear();
      throw error;
    }
    await this.#detachAll();
    this.#memory.clear();
    this.#memory = memory;
    await this.#memoryChanged();
  }

  async addMemory(region: MemRegion, fds: IncomingFds): Promise<void> {
    if (this.#memory.regions.length >= this.memorySlotsMax) {
      throw new PeerError(`all ${this.memorySlotsMax} memory slots are in use`);
    }
    const before = this.#memory.regions.length;
    this.#memory.add(region, this.#takeFd(fds));
    if (this.#memory.regions.length === before) return;
    await this.#detachAll();
    await this.#memoryChanged();
  }

  async removeMemory(region: MemRegion): Promise<void> {
    this.#memory.find(region);
    await this.#detachAll();
    this.#memory.remove(region);
    await this.#memoryChanged();
  }

  async setRingSize(index: number, size: number): Promise<void> {
    const ring = this.#ring(index);
    if (!isSplitRingSize(size)) throw new PeerError(`ring size ${size} is no power of two from 2 to 32,768`);
    await this.#reattach(ring, () => {
      ring.size = size;
    });
  }

  async setRingAddresses(addresses: VringAddr): Promise<void> {
    const ring = this.#ring(addresses.index);
    await this.#reattach(ring, () => {
      ring.addresses = addresses;
    });
  }

  async setRingBase(index: number, base: number): Promise<void> {
    const ring = this.#ring(index);
    if (base > 0xffff) throw new PeerError(`base ${base} of a split ring is above 65,535`);
    await this.#reattach(ring, () => {
      ring.base = base;
      ring.initialised = false;
    });
  }

  /** GET_VRING_BASE: stops the ring and answers its avail index. Also for a ring never heard of. */
  async stopRing(index: number): Promise<number> {
    const ring = this.#ring(index);
    await this.#detach(ring);
    ring.base = ring.currentBase();
    ring.initialised = false;
    ring.started = false;
    ring.reason = null;
    ring.setKick(-1);
    // A control queue without its kick, or a data queue whose partner stopped, may change its role.
    await this.#partnerChanged(ring);
    this.#context.onChange();
    return ring.base;
  }

  /** SET_VRING_KICK: the ring starts, whether or not anything was kicked yet. Takes over `fd`. */
  async startRing(index: number, fd: number | null): Promise<void> {
    const kickFd = fd === null ? -1 : adoptSignalFd(fd);
    const ring = this.#ringOrClose(index, kickFd);
    await this.#reattach(ring, () => {
      ring.setKick(kickFd);
      ring.started = true;
    });
    await this.#partnerChanged(ring);
    this.#context.onChange();
  }

  /** Takes over `fd`. */
  async setRingCall(index: number, fd: number | null): Promise<void> {
    const callFd = fd === null ? -1 : adoptSignalFd(fd);
    const ring = this.#ringOrClose(index, callFd);
    if (ring.user === 'workers') await this.#context.dataPath.setCallFd(this.#context.portId, index, callFd);
    this.#controlQueues.get(index)?.setCallFd(callFd);
    ring.setCall(callFd);
  }

  /** Takes over `fd`. */
  setRingError(index: number, fd: number | null): void {
    const errorFd = fd === null ? -1 : adoptSignalFd(fd);
    this.#ringOrClose(index, errorFd).setError(errorFd);
  }

  async enableRing(index: number, value: number): Promise<void> {
    const ring = this.#ring(index);
    if (value > 1)
      throw new PeerError(`ring ${index} can be enabled with 1 or disabled with 0, not ${value}`);
    await this.#setEnabled(ring, value === 1);
    this.#context.onChange();
  }

  async setMtu(mtu: bigint): Promise<void> {
    if (mtu < MTU_MIN || mtu > MTU_MAX) throw new PeerError(`MTU ${mtu} is not between 68 and 65,535`);
    this.mtu = Number(mtu);
    const frameBytesMax = this.mtu + BESIDE_MTU_BYTES;
    await this.#context.dataPath.setPolicy(this.#context.portId, { frameBytesMax });
  }

  readConfig(request: ConfigSpace): ConfigSpace {
    const space = configSpaceBytes(this.options);
    const end = request.offset + request.bytes.length;
    // An empty answer is how the specification says no.
    if (end > space.length) return { offset: request.offset, flags: 0, bytes: new Uint8Array(0) };
    return { offset: request.offset, flags: 0, bytes: space.slice(request.offset, end) };
  }

  /** A worker stopped the ring: see QueueState. Tells the front-end by the error descriptor, if it gave one. */
  queueFailed(index: number): void {
    const ring = this.#rings.get(index);
    if (ring === undefined || ring.fault === RING_FAULT.NONE) return;
    ring.reason = faultMessage(ring.fault);
    if (ring.errorFd >= 0) signalFd(ring.errorFd);
    this.#context.onChange();
  }

  /** The front-end is gone: lets go of everything. */
  async release(): Promise<void> {
    await this.#detachAll();
    for (const ring of this.#rings.values()) {
      ring.started = false;
      ring.closeFds();
    }
    this.#rings.clear();
    this.#memory.clear();
    await this.#context.dataPath.setPolicy(this.#context.portId, { frameBytesMax: FRAME_BYTES_MAX });
  }

  #ring(index: number): Ring {
    const known = this.#rings.get(index);
    if (known !== undefined) return known;
    const count = ringCountMax(this.options.queuePairsMax);
    if (index >= count) throw new PeerError(`ring ${index} does not exist; the device has ${count}`);
    const enabled = this.#featuresSet && !hasBit(this.features, VIRTIO_FEATURE.PROTOCOL_FEATURES);
    const ring = new Ring(index, new QueueState(this.#context.states, index), enabled);
    this.#rings.set(index, ring);
    return ring;
  }

  #ringOrClose(index: number, fd: number): Ring {
    try {
      return this.#ring(index);
    } catch (error) {
      if (fd >= 0) closeFd(fd);
      throw error;
    }
  }

  #takeFd(fds: IncomingFds): number {
    const fd = fds.take();
    if (fd === null) throw new PeerError('a memory region came without its descriptor');
    return fd;
  }

  async #memoryChanged(): Promise<void> {
    this.#memoryWarning = this.#findUnsharedMemory();
    await this.#attachAll();
    this.#context.onChange();
  }

  #findUnsharedMemory(): string | null {
    const { peerPid } = this.#context;
    if (peerPid === null) return null;
    const isPrivate = this.#memory.regions.some(
      (region) => sharingOfFile(peerPid, region.device, region.inode) === 'private',
    );
    return isPrivate
      ? 'the guest writes to a private copy of its memory: add share=on to its memory-backend object'
      : null;
  }

  async #setEnabled(ring: Ring, enabled: boolean): Promise<void> {
    if (ring.enabled === enabled && this.#isActive(ring) === (ring.user !== 'none')) return;
    await this.#reattach(ring, () => {
      ring.enabled = enabled;
    });
  }

  /** Enabled by the front-end and, where the driver chose a number of pairs, among those. */
  #isActive(ring: Ring): boolean {
    return ring.enabled && (this.#activePairs === null || ring.index < 2 * this.#activePairs);
  }

  async #setActivePairs(pairs: number): Promise<void> {
    this.#activePairs = pairs;
    for (const ring of this.#rings.values()) await this.#setEnabled(ring, ring.enabled);
    this.#context.onChange();
  }

  async #detachAll(): Promise<void> {
    for (const ring of this.#rings.values()) await this.#detach(ring);
  }

  async #attachAll(): Promise<void> {
    for (const ring of this.#rings.values()) await this.#attach(ring);
  }

  async #reattachAll(): Promise<void> {
    await this.#detachAll();
    await this.#attachAll();
  }

  async #reattach(ring: Ring, change: () => void): Promise<void> {
    await this.#detach(ring);
    change();
    await this.#attach(ring);
  }

  async #detach(ring: Ring): Promise<void> {
    if (ring.user === 'workers') await this.#context.dataPath.detach(this.#context.portId, ring.index);
    this.#controlQueues.get(ring.index)?.close();
    this.#controlQueues.delete(ring.index);
    ring.user = 'none';
  }

  /** Puts a started ring to use if everything for it is there; otherwise says in `reason` what is not. */
  async #attach(ring: Ring): Promise<void> {
    ring.reason = null;
    if (!ring.started) return;
    // A disabled ring is left alone: its driver may have freed it.
    if (!this.#isActive(ring) && !this.#mayBeControl(ring)) return;
    if (!ring.isConfigured) {
      ring.reason = 'started before its size and addresses were set';
      return;
    }
    const layout = placeRing(ring.size, ring.addresses!, this.#memory);
    if (typeof layout === 'string') {
      ring.reason = layout;
      return;
    }
    if (!ring.initialised) this.#initialise(ring, layout.deviceOffset);
    const attachment = this.#attachmentOf(ring, layout);
    if (this.#mayBeControl(ring)) {
      ring.user = 'control';
      this.#controlQueues.set(ring.index, this.#openControlQueue(attachment));
    } else {
      ring.user = 'workers';
      await this.#context.dataPath.attach(attachment);
    }
    // A ring that failed stays so until it is started anew, whatever else made us attach it again.
    if (ring.fault !== RING_FAULT.NONE) ring.reason = faultMessage(ring.fault);
  }

  #attachmentOf(ring: Ring, layout: Exclude<ReturnType<typeof placeRing>, string>): RingAttachment {
    const version1 = hasBit(this.features, VIRTIO_FEATURE.VERSION_1);
    const mergeable = hasBit(this.features, VIRTIO_FEATURE.NET_MRG_RXBUF);
    return {
      kind: 'ring',
      layout: 'split',
      portId: this.#context.portId,
      queueIndex: ring.index,
      direction: ring.index % 2 === 0 ? 'egress' : 'ingress',
      size: ring.size,
      ...layout,
      eventIdx: hasBit(this.features, VIRTIO_FEATURE.EVENT_IDX),
      indirect: hasBit(this.features, VIRTIO_FEATURE.INDIRECT_DESC),
      inOrder: false,
      mergeable,
      headerBytes: netHeaderBytes(version1, mergeable),
      kickFd: ring.kickFd,
      callFd: ring.callFd,
      states: this.#context.states,
      map: this.#memory.gpaMap(),
    };
  }

  /** Where a freshly started ring begins: at the base that was set, and where its used ring stands. */
  #initialise(ring: Ring, usedOffset: number): void {
    const usedIdx = this.#context.arenaView.bytesAt(usedOffset + 2, 2);
    const { words } = ring.state;
    words[STATE_LOCK] = 0;
    words[STATE_AVAIL_NEXT] = ring.base;
    words[STATE_USED_NEXT] = usedIdx[0] | (usedIdx[1] << 8);
    words[STATE_FAULT] = RING_FAULT.NONE;
    ring.initialised = true;
  }

  /**
   * The control virtqueue comes as the ring after the last pair, and no message says which that is. It is an
   * even ring above the first pair whose partner is not started; until that partner starts, such a ring
   * would get no frames anyway.
   */
  #mayBeControl(ring: Ring): boolean {
    if (!hasBit(this.features, VIRTIO_FEATURE.NET_CTRL_VQ)) return false;
    if (ring.index < 2 || ring.index % 2 === 1) return false;
    return this.#rings.get(ring.index + 1)?.started !== true;
  }

  async #partnerChanged(ring: Ring): Promise<void> {
    const partner = ring.index % 2 === 1 ? this.#rings.get(ring.index - 1) : undefined;
    if (partner === undefined) return;
    const isControl = partner.user === 'control';
    if (partner.user !== 'none' && isControl !== this.#mayBeControl(partner)) {
      await this.#reattach(partner, () => {});
    }
  }

  #openControlQueue(attachment: RingAttachment): ControlQueue {
    return new ControlQueue(this.#context.arenaView, attachment, {
      filter: this.receiveFilter,
      queuePairsMax: this.options.queuePairsMax,
      setQueuePairs: (pairs) => void this.#setActivePairs(pairs),
      onFault: () => this.queueFailed(attachment.queueIndex),
    });
  }
}
