/**
 * A virtio device behind PCI as its driver sees it (VIRTIO 1.3, section 4.1): status, features, queues, notifications,
 * the device's configuration. Modern devices only. Knows no kind of device. Owns nothing.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { PciCard } from './pci.ts';
import type { AccessBytes, QtestClient } from './qtest-client.ts';

const VIRTIO_VENDOR = 0x1af4;
const DEVICE_BASE = 0x1040;
const VENDOR_CAPABILITY = 0x09;
/** `cfg_type` of a capability: where the four parts lie. */
const PART_TYPES = { common: 1, notify: 2, isr: 3, device: 4 } as const;
type Part = keyof typeof PART_TYPES;

/** struct virtio_pci_common_cfg: offset of each field. */
const COMMON = {
  deviceFeatureSelect: 0,
  deviceFeature: 4,
  driverFeatureSelect: 8,
  driverFeature: 12,
  queueCount: 18,
  status: 20,
  generation: 21,
  queueSelect: 22,
  queueSize: 24,
  queueEnable: 28,
  queueNotifyOff: 30,
  queueDesc: 32,
  queueDriver: 40,
  queueDevice: 48,
  queueReset: 58,
} as const;

export const STATUS = { ACKNOWLEDGE: 1, DRIVER: 2, DRIVER_OK: 4, FEATURES_OK: 8, NEEDS_RESET: 0x40 } as const;
export const ISR = { QUEUE: 1, CONFIG: 2 } as const;
/** Device types (section 5). */
export const VIRTIO_TYPE = { net: 1, balloon: 5, mem: 24 } as const;

const RESET_LOOKS_MAX = 10_000;
const GENERATION_LOOKS_MAX = 100;

export type QueuePlace = {
  readonly size: number;
  readonly descGpa: number;
  readonly driverGpa: number;
  readonly deviceGpa: number;
};

export class VirtioPci {
  readonly card: PciCard;
  readonly #gpas: Readonly<Record<Part, number>>;
  readonly #notifyMultiplier: number;
  /** Where each queue is notified, by its index. */
  readonly #notifyGpas: number[] = [];

  private constructor(card: PciCard, gpas: Readonly<Record<Part, number>>, notifyMultiplier: number) {
    this.card = card;
    this.#gpas = gpas;
    this.#notifyMultiplier = notifyMultiplier;
  }

  /** Gives the card its addresses and finds the device's parts. @throws Error: it is no modern virtio device */
  static async open(card: PciCard): Promise<VirtioPci> {
    if (typeOf(card) === null) throw new Error(`the card in slot ${card.slot} is no modern virtio device`);
    await card.enable();
    const gpas: Partial<Record<Part, number>> = {};
    let multiplier = 0;
    for (const { id, at } of await card.capabilities()) {
      if (id !== VENDOR_CAPABILITY) continue;
      const type = (await card.word(at)) >>> 24;
      const part = (Object.keys(PART_TYPES) as Part[]).find((name) => PART_TYPES[name] === type);
      if (part === undefined || gpas[part] !== undefined) continue;
      const bar = (await card.word(at + 4)) & 0xff;
      gpas[part] = card.barGpas[bar] + (await card.word(at + 8));
      if (part === 'notify') multiplier = await card.word(at + 16);
    }
    const { common, notify, isr, device } = gpas;
    if (common === undefined || notify === undefined || isr === undefined || device === undefined) {
      throw new Error(`the device in slot ${card.slot} lacks some of its capabilities`);
    }
    return new VirtioPci(card, { common, notify, isr, device }, multiplier);
  }

  get #qtest(): QtestClient {
    return this.card.host.qtest;
  }

  status(): Promise<number> {
    return this.#get('status', 1);
  }

  async addStatus(bits: number): Promise<void> {
    await this.#set('status', 1, (await this.status()) | bits);
  }

  /** Resets the device; resolves when it says that it has done so (section 4.1.4.3.2). */
  async reset(): Promise<void> {
    await this.#set('status', 1, 0);
    for (let looks = 0; looks < RESET_LOOKS_MAX; looks++) {
      if ((await this.status()) === 0) return;
      await nextTurn();
    }
    throw new Error('the device does not come out of its reset');
  }

  async offeredFeatures(): Promise<bigint> {
    let features = 0n;
    for (const half of [0, 1]) {
      await this.#set('deviceFeatureSelect', 4, half);
      features |= BigInt(await this.#get('deviceFeature', 4)) << BigInt(32 * half);
    }
    return features;
  }

  /**
   * The beginning of any driver (section 3.1.1): resets the device and agrees on those of `wanted` that it offers.
   * @throws Error: it does not agree
   */
  async negotiate(wanted: bigint): Promise<{ offered: bigint; features: bigint }> {
    await this.reset();
    await this.addStatus(STATUS.ACKNOWLEDGE);
    await this.addStatus(STATUS.DRIVER);
    const offered = await this.offeredFeatures();
    const features = offered & wanted;
    if (await this.agreeOn(features)) return { offered, features };
    throw new Error(
      `the device in slot ${this.card.slot} does not agree on features 0x${features.toString(16)}`,
    );
  }

  /** Says what the driver takes; answers whether the device agrees. */
  async agreeOn(features: bigint): Promise<boolean> {
    for (const half of [0, 1]) {
      await this.#set('driverFeatureSelect', 4, half);
      await this.#set('driverFeature', 4, Number((features >> BigInt(32 * half)) & 0xffff_ffffn));
    }
    await this.addStatus(STATUS.FEATURES_OK);
    return ((await this.status()) & STATUS.FEATURES_OK) !== 0;
  }

  /** Queues of the device, the control queue with them. */
  queueCount(): Promise<number> {
    return this.#get('queueCount', 2);
  }

  /** Descriptors that a queue may have; 0: there is no such queue. */
  async queueSizeMax(index: number): Promise<number> {
    await this.#set('queueSelect', 2, index);
    return this.#get('queueSize', 2);
  }

  async enableQueue(index: number, place: QueuePlace): Promise<void> {
    await this.#set('queueSelect', 2, index);
    await this.#set('queueSize', 2, place.size);
    await this.#setAddress('queueDesc', place.descGpa);
    await this.#setAddress('queueDriver', place.driverGpa);
    await this.#setAddress('queueDevice', place.deviceGpa);
    const notifyOff = await this.#get('queueNotifyOff', 2);
    this.#notifyGpas[index] = this.#gpas.notify + notifyOff * this.#notifyMultiplier;
    await this.#set('queueEnable', 2, 1);
  }

  /** Stops one queue alone (section 4.1.4.3.1); only with RING_RESET. */
  async resetQueue(index: number): Promise<void> {
    await this.#set('queueSelect', 2, index);
    await this.#set('queueReset', 2, 1);
    for (let looks = 0; looks < RESET_LOOKS_MAX; looks++) {
      if ((await this.#get('queueReset', 2)) === 0) return;
      await nextTurn();
    }
    throw new Error(`queue ${index} does not come out of its reset`);
  }

  async isQueueEnabled(index: number): Promise<boolean> {
    await this.#set('queueSelect', 2, index);
    return (await this.#get('queueEnable', 2)) === 1;
  }

  /** Tells the device that a queue has something for it; nobody waits. */
  notify(index: number): void {
    this.#qtest.postStore(this.#notifyGpas[index], 2, index);
  }

  /** Why the device interrupted, bits of `ISR`; reading takes the interrupt back. */
  isr(): Promise<number> {
    return this.#qtest.load(this.#gpas.isr, 1);
  }

  /** A part of the device's configuration, all of one moment. */
  async config(offset: number, sizeBytes: number): Promise<DataView> {
    for (let looks = 0; looks < GENERATION_LOOKS_MAX; looks++) {
      const before = await this.#get('generation', 1);
      const bytes = await Promise.all(
        Array.from({ length: sizeBytes }, (_, i) => this.#qtest.load(this.#gpas.device + offset + i, 1)),
      );
      if ((await this.#get('generation', 1)) === before) return new DataView(Uint8Array.from(bytes).buffer);
    }
    throw new Error("the device's configuration changes all the time");
  }

  async writeConfig(offset: number, bytes: AccessBytes, value: number | bigint): Promise<void> {
    await this.#qtest.store(this.#gpas.device + offset, bytes, value);
  }

  #get(field: keyof typeof COMMON, bytes: 1 | 2 | 4): Promise<number> {
    return this.#qtest.load(this.#gpas.common + COMMON[field], bytes);
  }

  #set(field: keyof typeof COMMON, bytes: 1 | 2 | 4, value: number): Promise<void> {
    return this.#qtest.store(this.#gpas.common + COMMON[field], bytes, value);
  }

  async #setAddress(field: keyof typeof COMMON, gpa: number): Promise<void> {
    await this.#qtest.store(this.#gpas.common + COMMON[field], 4, gpa % 2 ** 32);
    await this.#qtest.store(this.#gpas.common + COMMON[field] + 4, 4, Math.floor(gpa / 2 ** 32));
  }
}

/** The type of a modern virtio device, or null. */
export function typeOf({ vendor, device }: PciCard): number | null {
  return vendor === VIRTIO_VENDOR && device >= DEVICE_BASE ? device - DEVICE_BASE : null;
}
