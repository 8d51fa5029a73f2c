/**
 * The commands of the control virtqueue (VIRTIO 1.3, section 5.1.6.5): from the bytes of one to what it does and
 * its answer. Knows no ring. Filters are kept but not applied: the specification makes filtering best effort, and a
 * switch delivers by address anyway. Main thread.
 */
import {
  CTRL_ACK_ERROR,
  CTRL_ACK_OK,
  CTRL_ANNOUNCE,
  CTRL_CLASS,
  CTRL_GUEST_OFFLOADS,
  CTRL_MAC,
  CTRL_MQ,
  CTRL_RX,
  CTRL_VLAN,
} from '../../../protocol/virtio/net.ts';

/** A filter as plain JSON; addresses in hexadecimal, one after the other. */
export type HandedFilter = {
  readonly on: readonly string[];
  readonly mac: string | null;
  readonly unicastMacs: string;
  readonly multicastMacs: string;
  readonly vlans: readonly number[];
};

const MODES = [
  'promiscuous',
  'allMulticast',
  'allUnicast',
  'noMulticast',
  'noUnicast',
  'noBroadcast',
] as const;

/** What the driver asked to receive. */
export class ReceiveFilter {
  promiscuous = true;
  allMulticast = false;
  allUnicast = false;
  noMulticast = false;
  noUnicast = false;
  noBroadcast = false;
  mac: Uint8Array | null = null;
  /** Six bytes an address, one after the other. */
  unicastMacs = new Uint8Array(0);
  multicastMacs = new Uint8Array(0);
  readonly vlans = new Set<number>();

  static takeOver({ on, mac, unicastMacs, multicastMacs, vlans }: HandedFilter): ReceiveFilter {
    const filter = new ReceiveFilter();
    for (const mode of MODES) filter[mode] = on.includes(mode);
    filter.mac = mac === null ? null : fromHex(mac);
    filter.unicastMacs = fromHex(unicastMacs);
    filter.multicastMacs = fromHex(multicastMacs);
    for (const vlan of vlans) filter.vlans.add(vlan);
    return filter;
  }

  handOver(): HandedFilter {
    return {
      on: MODES.filter((mode) => this[mode]),
      mac: this.mac === null ? null : toHex(this.mac),
      unicastMacs: toHex(this.unicastMacs),
      multicastMacs: toHex(this.multicastMacs),
      vlans: [...this.vlans],
    };
  }
}

function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

function fromHex(text: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.from(text, 'hex'));
}

export type CommandContext = {
  /** As it is now: a reset of the driver makes a new one. */
  readonly filter: () => ReceiveFilter;
  readonly queuePairsMax: number;
  /** Resolves when the rings of exactly so many pairs are in use. */
  readonly setQueuePairs: (pairs: number) => Promise<void>;
  /** Bits of those that were agreed on. */
  readonly guestOffloads: () => bigint;
  /** Resolves when nothing is handed to the guest any more that needs others than these. */
  readonly setGuestOffloads: (offloads: bigint) => Promise<void>;
};

/** Bytes before a command's data: class and code. */
const COMMAND_HEADER_BYTES = 2;

export class ControlCommands {
  readonly #context: CommandContext;

  constructor(context: CommandContext) {
    this.#context = context;
  }

  /**
   * Carries out one command (class, code, data) and answers CTRL_ACK_OK or CTRL_ACK_ERROR, at once unless workers
   * have to be waited for.
   */
  execute(command: Uint8Array): number | Promise<number> {
    if (command.length < COMMAND_HEADER_BYTES) return CTRL_ACK_ERROR;
    const [commandClass, code] = command;
    const data = command.subarray(COMMAND_HEADER_BYTES);
    switch (commandClass) {
      case CTRL_CLASS.RX:
        return this.#setReceiveMode(code, data);
      case CTRL_CLASS.MAC:
        return this.#setMac(code, data);
      case CTRL_CLASS.VLAN:
        return this.#setVlan(code, data);
      case CTRL_CLASS.ANNOUNCE:
        return code === CTRL_ANNOUNCE.ACK ? CTRL_ACK_OK : CTRL_ACK_ERROR;
      case CTRL_CLASS.MQ:
        return this.#setQueuePairs(code, data);
      case CTRL_CLASS.GUEST_OFFLOADS:
        return this.#setGuestOffloads(code, data);
      default:
        return CTRL_ACK_ERROR;
    }
  }

  #setReceiveMode(code: number, data: Uint8Array): number {
    if (data.length < 1 || data[0] > 1) return CTRL_ACK_ERROR;
    const on = data[0] === 1;
    const filter = this.#context.filter();
    switch (code) {
      case CTRL_RX.PROMISC:
        filter.promiscuous = on;
        return CTRL_ACK_OK;
      case CTRL_RX.ALLMULTI:
        filter.allMulticast = on;
        return CTRL_ACK_OK;
      case CTRL_RX.ALLUNI:
        filter.allUnicast = on;
        return CTRL_ACK_OK;
      case CTRL_RX.NOMULTI:
        filter.noMulticast = on;
        return CTRL_ACK_OK;
      case CTRL_RX.NOUNI:
        filter.noUnicast = on;
        return CTRL_ACK_OK;
      case CTRL_RX.NOBCAST:
        filter.noBroadcast = on;
        return CTRL_ACK_OK;
      default:
        return CTRL_ACK_ERROR;
    }
  }

  #setMac(code: number, data: Uint8Array): number {
    const filter = this.#context.filter();
    if (code === CTRL_MAC.ADDR_SET) {
      if (data.length < 6) return CTRL_ACK_ERROR;
      filter.mac = data.slice(0, 6);
      return CTRL_ACK_OK;
    }
    if (code !== CTRL_MAC.TABLE_SET) return CTRL_ACK_ERROR;
    const unicast = macTable(data, 0);
    const multicast = unicast === null ? null : macTable(data, unicast.endOffset);
    if (unicast === null || multicast === null) return CTRL_ACK_ERROR;
    filter.unicastMacs = unicast.macs;
    filter.multicastMacs = multicast.macs;
    return CTRL_ACK_OK;
  }

  #setVlan(code: number, data: Uint8Array): number {
    if (data.length < 2) return CTRL_ACK_ERROR;
    const vlan = data[0] | (data[1] << 8);
    if (vlan > 4095) return CTRL_ACK_ERROR;
    const { vlans } = this.#context.filter();
    if (code === CTRL_VLAN.ADD) vlans.add(vlan);
    else if (code === CTRL_VLAN.DEL) vlans.delete(vlan);
    else return CTRL_ACK_ERROR;
    return CTRL_ACK_OK;
  }

  async #setQueuePairs(code: number, data: Uint8Array): Promise<number> {
    if (code !== CTRL_MQ.VQ_PAIRS_SET || data.length < 2) return CTRL_ACK_ERROR;
    const pairs = data[0] | (data[1] << 8);
    if (pairs < 1 || pairs > this.#context.queuePairsMax) return CTRL_ACK_ERROR;
    await this.#context.setQueuePairs(pairs);
    return CTRL_ACK_OK;
  }

  async #setGuestOffloads(code: number, data: Uint8Array): Promise<number> {
    if (code !== CTRL_GUEST_OFFLOADS.SET || data.length < 8) return CTRL_ACK_ERROR;
    const offloads = new DataView(data.buffer, data.byteOffset).getBigUint64(0, true);
    if ((offloads & ~this.#context.guestOffloads()) !== 0n) return CTRL_ACK_ERROR;
    await this.#context.setGuestOffloads(offloads);
    return CTRL_ACK_OK;
  }
}

/** struct virtio_net_ctrl_mac { le32 entries; u8 macs[entries][6]; }; null when it is cut short. */
function macTable(
  data: Uint8Array,
  offset: number,
): { macs: Uint8Array<ArrayBuffer>; endOffset: number } | null {
  if (offset + 4 > data.length) return null;
  const count = new DataView(data.buffer, data.byteOffset).getUint32(offset, true);
  const endOffset = offset + 4 + count * 6;
  if (endOffset > data.length) return null;
  return { macs: new Uint8Array(data.subarray(offset + 4, endOffset)), endOffset };
}
