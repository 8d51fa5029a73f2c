/**
 * The control virtqueue (VIRTIO 1.3, section 5.1.6.5) of front-ends that do not serve it themselves. Served
 * on the main thread, woken by its kick descriptor. Its chains are checked like any other: readable buffers
 * with the command, then a writable one for the answer. Filters are kept but not applied: the specification
 * makes filtering best effort, and a switch delivers by address anyway.
 */
import {
  CTRL_ACK_ERROR,
  CTRL_ACK_OK,
  CTRL_ANNOUNCE,
  CTRL_CLASS,
  CTRL_MAC,
  CTRL_MQ,
  CTRL_RX,
  CTRL_VLAN,
} from '../../../protocol/virtio/net.ts';
import { drainFd } from '../../host/descriptor.ts';
import { descriptorLoop, type Watch } from '../../host/event-loop.ts';
import type { ArenaView } from '../../memory/arena-view.ts';
import type { RingAttachment } from '../../vring/attachment.ts';
import { RING_FAULT } from '../../vring/faults.ts';
import { DescriptorList, walkChain } from '../../vring/split-chain.ts';
import { SplitRing } from '../../vring/split-ring.ts';

/** Longest command taken: a MAC table of some 10,000 addresses. */
const COMMAND_BYTES_MAX = 65_536;
/** A ring without a kick descriptor is looked at this often; the driver waits for each command. */
const POLL_MS = 10;

/** What the driver asked to receive. */
export class ReceiveFilter {
  promiscuous = true;
  allMulticast = false;
  allUnicast = false;
  noMulticast = false;
  noUnicast = false;
  noBroadcast = false;
  mac: Uint8Array | null = null;
  unicastMacs: readonly Uint8Array[] = [];
  multicastMacs: readonly Uint8Array[] = [];
  readonly vlans = new Set<number>();
}

export type ControlQueueOptions = {
  readonly filter: ReceiveFilter;
  readonly queuePairsMax: number;
  readonly setQueuePairs: (pairs: number) => void;
  readonly onFault: () => void;
};

export class ControlQueue {
  readonly #ring: ControlRing;
  readonly #options: ControlQueueOptions;
  readonly #watch: Watch | null;
  readonly #timer: NodeJS.Timeout | null;
  #closed = false;

  constructor(arena: ArenaView, attachment: RingAttachment, options: ControlQueueOptions) {
    this.#ring = new ControlRing(arena, attachment);
    this.#options = options;
    const { kickFd } = attachment;
    this.#watch = kickFd < 0 ? null : descriptorLoop().watch(kickFd, () => this.#kicked(kickFd));
    this.#timer = kickFd < 0 ? setInterval(() => this.#serve(), POLL_MS) : null;
    // A kick may have come before we listened.
    this.#serve();
  }

  setCallFd(fd: number): void {
    this.#ring.callFd = fd;
    this.#ring.signal();
  }

  /** Afterwards nothing of the ring is touched, also by a turn of serving that was put off. */
  close(): void {
    this.#closed = true;
    this.#watch?.close();
    if (this.#timer !== null) clearInterval(this.#timer);
  }

  #kicked(kickFd: number): void {
    if (!drainFd(kickFd)) this.#watch?.close();
    this.#serve();
  }

  #serve(): void {
    if (this.#closed) return;
    const faultBefore = this.#ring.fault;
    // Bounded by the ring; a driver that adds more kicks again because the ring asks for kicks.
    for (let turn = 0; turn < this.#ring.size; turn++) {
      if (!this.#ring.serveNext((command) => this.#execute(command))) break;
    }
    this.#ring.publish();
    if (!this.#ring.armWake() && this.#ring.fault === RING_FAULT.NONE && this.#ring.nextIsCommand()) {
      setImmediate(() => this.#serve());
    }
    if (this.#ring.fault !== faultBefore) this.#options.onFault();
  }

  /** Carries out one command (class, command, data) and answers CTRL_ACK_OK or CTRL_ACK_ERROR. */
  #execute(command: Uint8Array): number {
    const [commandClass, code] = command;
    const data = command.subarray(2);
    switch (commandClass) {
      case CTRL_CLASS.RX:
        return this.#setReceiveMode(code!, data);
      case CTRL_CLASS.MAC:
        return this.#setMac(code!, data);
      case CTRL_CLASS.VLAN:
        return this.#setVlan(code!, data);
      case CTRL_CLASS.ANNOUNCE:
        return code === CTRL_ANNOUNCE.ACK ? CTRL_ACK_OK : CTRL_ACK_ERROR;
      case CTRL_CLASS.MQ:
        return this.#setQueuePairs(code!, data);
      default:
        return CTRL_ACK_ERROR;
    }
  }

  #setReceiveMode(code: number, data: Uint8Array): number {
    if (data.length < 1 || data[0] > 1) return CTRL_ACK_ERROR;
    const on = data[0] === 1;
    const { filter } = this.#options;
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
    const { filter } = this.#options;
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
    const { vlans } = this.#options.filter;
    if (code === CTRL_VLAN.ADD) vlans.add(vlan);
    else if (code === CTRL_VLAN.DEL) vlans.delete(vlan);
    else return CTRL_ACK_ERROR;
    return CTRL_ACK_OK;
  }

  #setQueuePairs(code: number, data: Uint8Array): number {
    if (code !== CTRL_MQ.VQ_PAIRS_SET || data.length < 2) return CTRL_ACK_ERROR;
    const pairs = data[0] | (data[1] << 8);
    if (pairs < 1 || pairs > this.#options.queuePairsMax) return CTRL_ACK_ERROR;
    this.#options.setQueuePairs(pairs);
    return CTRL_ACK_OK;
  }
}

/** struct virtio_net_ctrl_mac { le32 entries; u8 macs[entries][6]; }; null when it is cut short. */
function macTable(data: Uint8Array, offset: number): { macs: Uint8Array[]; endOffset: number } | null {
  if (offset + 4 > data.length) return null;
  const count = new DataView(data.buffer, data.byteOffset).getUint32(offset, true);
  const endOffset = offset + 4 + count * 6;
  if (endOffset > data.length) return null;
  const macs = Array.from({ length: count }, (_, i) => data.slice(offset + 4 + i * 6, offset + 10 + i * 6));
  return { macs, endOffset };
}

/** The split ring with commands in it. Allocates: commands are rare. */
class ControlRing extends SplitRing {
  readonly #list = new DescriptorList();

  /** Whether a chain waits and begins with a readable buffer; only commands do. */
  nextIsCommand(): boolean {
    if (this.available() === 0) return false;
    this.#list.clear();
    const fault = walkChain(this, this.headAt(0), this.#list);
    if (fault === RING_FAULT.NONE) return this.#list.count > 0 && this.#list.writable[0] === 0;
    this.fail(fault);
    return false;
  }

  /** Takes the next command and writes its answer; false when there is none. */
  serveNext(execute: (command: Uint8Array) => number): boolean {
    if (!this.nextIsCommand()) return false;
    const head = this.headAt(0);
    const command = this.#gather();
    if (command === null) return false;
    const answer = this.#answerPlace();
    if (answer === null) return false;
    const ack = command.length < 2 ? CTRL_ACK_ERROR : execute(command);
    this.arena.windows[answer.window].u8[answer.index] = ack;
    this.putUsed(head, 1);
    this.availNext = (this.availNext + 1) & 0xffff;
    this.burstFrames++;
    this.burstBytes += command.length;
    return true;
  }

  /** The readable buffers as one; null when the ring is stopped. */
  #gather(): Uint8Array | null {
    const list = this.#list;
    const parts: Uint8Array[] = [];
    let totalBytes = 0;
    for (let i = 0; i < list.count && list.writable[i] === 0; i++) {
      const sizeBytes = list.sizeBytes[i] >>> 0;
      totalBytes += sizeBytes;
      if (totalBytes > COMMAND_BYTES_MAX) return this.#stop(RING_FAULT.COMMAND_TOO_LONG);
      // An empty buffer must have a good address too.
      const index = this.translator.locate(list.gpaLo[i], list.gpaHi[i], Math.max(sizeBytes, 1));
      if (index < 0) return this.#stop(RING_FAULT.BUFFER_ADDRESS);
      parts.push(this.arena.windows[this.translator.window].u8.slice(index, index + sizeBytes));
    }
    return new Uint8Array(Buffer.concat(parts));
  }

  /** Where the answer goes: the last buffer, which must be writable and hold a byte. */
  #answerPlace(): { window: number; index: number } | null {
    const list = this.#list;
    const last = list.count - 1;
    if (list.overflowed || list.writable[last] === 0 || list.sizeBytes[last] === 0) {
      return this.#stop(RING_FAULT.COMMAND_WITHOUT_ANSWER);
    }
    const index = this.translator.locate(list.gpaLo[last], list.gpaHi[last], 1);
    if (index < 0) return this.#stop(RING_FAULT.BUFFER_ADDRESS);
    return { window: this.translator.window, index };
  }

  #stop(fault: number): null {
    this.fail(fault);
    return null;
  }
}
