/**
 * What makes a vhost-user device a network device (VIRTIO 1.3, section 5.1): which ring is which, its offers, the
 * control virtqueue, queue pairs and MTU. Rings, features and memory are `device`'s (../device.ts), which asks this
 * object by the contract DeviceKind. Lives as long as its connection. Main thread.
 */
import { hasBit } from '../../../protocol/bits.ts';
import { MTU_MAX, MTU_MIN } from '../../../protocol/ethernet.ts';
import { VIRTIO_FEATURE } from '../../../protocol/virtio/features.ts';
import { netHeaderBytes } from '../../../protocol/virtio/net.ts';
import type { AddressMiss } from '../../memory/iotlb.ts';
import type { Direction } from '../../queue/contract.ts';
import type { BackEnd, Handlers } from '../../vhost-user/handlers.ts';
import { PeerError } from '../../vhost-user/peer-error.ts';
import type { RingAttachment } from '../../vring/attachment.ts';
import { Device, type DeviceContext } from '../device.ts';
import type { DeviceKind, KindAttachment, OwnQueue } from '../device-kind.ts';
import { type HandedMessage, handedMessage } from '../hand-over.ts';
import { AnnouncementLimit } from './announcements.ts';
import { ControlCommands, type HandedFilter, ReceiveFilter } from './control-commands.ts';
import { ControlQueue } from './control-queue.ts';
import { netHandlers } from './handlers.ts';
import { askedOffloads, GUEST_OFFLOADS, takenOffloads } from './offloads.ts';
import { type DeviceOptions, offeredFeatures, offeredProtocolFeatures, ringCountMax } from './options.ts';

/** What the driver said by the control queue, and the front-end beside the messages that are handed over. */
export type HandedNet = {
  readonly askedForQueues: boolean;
  readonly activePairs: number | null;
  /** OFFLOAD_* bits. */
  readonly takes: number;
  readonly filter: HandedFilter;
};

export class NetDevice implements DeviceKind, BackEnd {
  readonly options: DeviceOptions;
  readonly device: Device;
  readonly handlers: Handlers;
  readonly offeredFeatures: bigint;
  readonly offeredProtocolFeatures: bigint;
  readonly ringCount: number;
  readonly ringCountHint: string;
  /** What the driver asked to receive. */
  receiveFilter = new ReceiveFilter();
  /** The front-end asked how many rings there are. */
  askedForQueues = false;
  /** Told by NET_SET_MTU; null: never. */
  mtu: number | null = null;
  readonly #context: DeviceContext;
  readonly #announcements = new AnnouncementLimit(performance.now());
  /** Queue pairs in use as the driver said on the control virtqueue; null: nobody knows, so all that are started. */
  #activePairs: number | null = null;
  /** OFFLOAD_* bits that the workers know of. */
  #takes = 0;

  constructor(options: DeviceOptions, context: DeviceContext) {
    this.options = options;
    this.#context = context;
    this.offeredFeatures = offeredFeatures(options);
    this.offeredProtocolFeatures = offeredProtocolFeatures(options);
    this.ringCount = ringCountMax(options.queuePairsMax);
    this.ringCountHint = `the port has ${pairsText(options.queuePairsMax)}: raise its queues=, or lower the front-end's`;
    this.device = new Device(this, context);
    this.handlers = netHandlers(this);
  }

  get protocolFeatures(): bigint {
    return this.device.protocolFeatures;
  }

  get features(): bigint {
    return this.device.features;
  }

  /** NET_SET_MTU, in bytes. @throws PeerError for one that no link has */
  async setMtu(mtu: bigint): Promise<void> {
    if (mtu < MTU_MIN || mtu > MTU_MAX) throw new PeerError(`MTU ${mtu} is not between 68 and 65,535`);
    this.mtu = Number(mtu);
    await this.#limitTo(this.mtu);
  }

  /**
   * SEND_RARP: the guest with this address, six bytes from the lowest on, has come to this port. More often than a
   * front-end needs it is done with without a frame. @throws PeerError for an address that no guest has
   */
  async announce(mac: bigint): Promise<void> {
    const bytes = Array.from({ length: 6 }, (_, i) => Number((mac >> BigInt(8 * i)) & 0xffn));
    if (bytes.every((byte) => byte === 0) || (bytes[0] & 1) !== 0)
      throw new PeerError(
        `${bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':')} is no guest's address`,
      );
    if (!this.#announcements.take(performance.now())) return;
    await this.#context.dataPath.announce(this.#context.portId, bytes);
  }

  /** As `Device.handOverMessages`. @throws HandOverError */
  handOverMessages(): HandedMessage[] {
    const messages = this.device.handOverMessages();
    return this.mtu === null ? messages : [...messages, handedMessage('NET_SET_MTU', BigInt(this.mtu))];
  }

  /** Beside those; of a device at rest it is final. */
  handOver(): HandedNet {
    const { askedForQueues, receiveFilter } = this;
    return {
      askedForQueues,
      activePairs: this.#activePairs,
      takes: this.#takes,
      filter: receiveFilter.handOver(),
    };
  }

  /** The device is at rest, and had the messages. */
  takeOver(handed: HandedNet): void {
    this.askedForQueues = handed.askedForQueues;
    this.#activePairs = handed.activePairs;
    this.receiveFilter = ReceiveFilter.takeOver(handed.filter);
    // The workers learn of it before they get the rings.
    void this.#take(handed.takes);
  }

  /** The front-end is gone: lets go of everything. */
  async release(): Promise<void> {
    await this.device.release();
    await this.#limitTo(MTU_MAX);
    await this.#take(0);
  }

  directionOf(ringIndex: number): Direction {
    return ringIndex % 2 === 0 ? 'egress' : 'ingress';
  }

  attachmentOf(ringIndex: number, features: bigint): KindAttachment {
    const isVersion1 = hasBit(features, VIRTIO_FEATURE.VERSION_1);
    const mergeable = hasBit(features, VIRTIO_FEATURE.NET_MRG_RXBUF);
    return {
      direction: this.directionOf(ringIndex),
      mergeable,
      headerBytes: netHeaderBytes(isVersion1, mergeable),
      asks: askedOffloads(features),
    };
  }

  /**
   * The control virtqueue comes as the ring after the last pair, and no message says which that is. It is an
   * even ring above the first pair, the last that is started; until its partner starts, such a ring would get no
   * frames anyway.
   */
  isOwnQueue(ringIndex: number, features: bigint, isStarted: (ringIndex: number) => boolean): boolean {
    if (!hasBit(features, VIRTIO_FEATURE.NET_CTRL_VQ)) return false;
    if (ringIndex < 2 || ringIndex % 2 !== 0 || !isStarted(ringIndex)) return false;
    for (let above = ringIndex + 1; above < this.ringCount; above++) if (isStarted(above)) return false;
    return true;
  }

  openOwnQueue(
    attachment: RingAttachment,
    isNew: boolean,
    onFault: () => void,
    onMiss: (misses: readonly AddressMiss[]) => void,
  ): OwnQueue {
    if (isNew) {
      this.driverWasReset();
      // Until it says otherwise (section 5.1.6.5.5).
      this.#activePairs = 1;
    }
    const commands = new ControlCommands({
      filter: () => this.receiveFilter,
      queuePairsMax: this.options.queuePairsMax,
      setQueuePairs: (pairs) => this.#setActivePairs(pairs),
      guestOffloads: () => this.device.features & GUEST_OFFLOADS,
      setGuestOffloads: (offloads) => this.#take(takenOffloads(offloads)),
    });
    const { arenaView, onCommand } = this.#context;
    return new ControlQueue(arenaView, attachment, {
      commands,
      onFault,
      onMiss,
      ...(onCommand !== undefined && { onCommand }),
    });
  }

  isInUse(ringIndex: number): boolean {
    return this.#activePairs === null || ringIndex < 2 * this.#activePairs;
  }

  async negotiated(features: bigint): Promise<void> {
    await this.#take(takenOffloads(features));
  }

  driverWasReset(): void {
    this.#activePairs = null;
    this.receiveFilter = new ReceiveFilter();
  }

  /** Why a front-end may have left that got no further than this; null: nothing is known. */
  get partingHint(): string | null {
    if (!this.askedForQueues || this.device.memoryBytes > 0) return null;
    return `it had asked how many queues there are (${this.ringCountHint})`;
  }

  /** Resolves when the workers have let go of the rings that are no longer in use, as the driver relies on. */
  async #setActivePairs(pairs: number): Promise<void> {
    this.#activePairs = pairs;
    await this.device.settleRings();
  }

  /** OFFLOAD_* bits. Front-ends repeat SET_FEATURES while rings run. */
  async #take(takes: number): Promise<void> {
    if (takes === this.#takes) return;
    this.#takes = takes;
    await this.#context.dataPath.setPolicy(this.#context.portId, { takes });
  }

  async #limitTo(linkMtu: number): Promise<void> {
    await this.#context.dataPath.setPolicy(this.#context.portId, { linkMtu });
  }
}

function pairsText(count: number): string {
  return count === 1 ? 'one queue pair' : `${count} queue pairs`;
}
