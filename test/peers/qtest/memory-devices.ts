/**
 * Drivers of the devices by which a guest gives memory back to its host and gets it again while it runs: virtio-mem
 * (VIRTIO 1.3, section 5.15) and the balloon (section 5.5). QEMU punches holes into the memory's file for both.
 * Each owns its device's queues. Memory that is given away must not be in use.
 */
import { maskOf } from '../../../protocol/bits.ts';
import { VIRTIO_FEATURE } from '../../../protocol/virtio/features.ts';
import { DESC_F_WRITE } from '../../../protocol/virtio/split-ring.ts';
import { EmbeddedMemory, type MemoryPart } from '../../../src/frontend/guest-memory.ts';
import { CommandQueue } from './command-queue.ts';
import type { QtestGuest } from './guest.ts';
import { memoryBackend } from './machine.ts';
import { STATUS, type VirtioPci } from './virtio-pci.ts';

const PAGE_BYTES = 4096;
const QUEUE_BYTES = 2 ** 16;
const QUEUE_SIZE = 64;

const MEM_F_UNPLUGGED_INACCESSIBLE = 1;
const MEM_REQUEST = { plug: 0, unplug: 1 } as const;
const MEM_REQUEST_BYTES = 24;
const MEM_RESPONSE_BYTES = 10;
const MEM_ACK = 0;
/** struct virtio_mem_config. */
const MEM_CONFIG = { blockSize: 0, gpa: 16 } as const;
/** Beyond where guests have DIMMs. */
const MEM_GPA = 2 ** 33;

/** Memory of which the guest has as many blocks as it asks for. */
export class VirtioMem {
  /** All that there may be; only blocks that are plugged may be touched. */
  readonly memory: EmbeddedMemory;
  readonly blockBytes: number;
  readonly #queue: CommandQueue;

  private constructor(memory: EmbeddedMemory, blockBytes: number, queue: CommandQueue) {
    this.memory = memory;
    this.blockBytes = blockBytes;
    this.#queue = queue;
  }

  /** Plugs a device into the slot that may have `sizeMiB`, of which nothing is there yet. The guest has it to its end. */
  static async plug(guest: QtestGuest, slot: number, sizeMiB: number): Promise<VirtioMem> {
    const memory = new EmbeddedMemory([{ sizeBytes: sizeMiB * 2 ** 20, gpa: MEM_GPA }]);
    await guest.machine.qmp('object-add', memoryBackend('virtio-mem', memory));
    const requested = { 'requested-size': memory.sizeBytes, memaddr: MEM_GPA };
    const device = await guest.plugDevice(slot, {
      driver: 'virtio-mem-pci',
      id: 'mem',
      memdev: 'virtio-mem',
      ...requested,
    });
    await device.negotiate(maskOf(VIRTIO_FEATURE.VERSION_1, MEM_F_UNPLUGGED_INACCESSIBLE));
    const queue = await makeQueue(device, 0, guest.memory.part(QUEUE_BYTES));
    await device.addStatus(STATUS.DRIVER_OK);
    const config = await device.config(0, 24);
    if (Number(config.getBigUint64(MEM_CONFIG.gpa, true)) !== MEM_GPA)
      throw new Error('the memory lies elsewhere');
    return new VirtioMem(memory, Number(config.getBigUint64(MEM_CONFIG.blockSize, true)), queue);
  }

  plug(firstBlock: number, count: number): Promise<void> {
    return this.#request('plug', firstBlock, count);
  }

  unplug(firstBlock: number, count: number): Promise<void> {
    return this.#request('unplug', firstBlock, count);
  }

  close(): void {
    this.memory.close();
  }

  async #request(type: keyof typeof MEM_REQUEST, firstBlock: number, count: number): Promise<void> {
    const request = new DataView(new ArrayBuffer(MEM_REQUEST_BYTES));
    request.setUint16(0, MEM_REQUEST[type], true);
    request.setBigUint64(8, BigInt(MEM_GPA + firstBlock * this.blockBytes), true);
    request.setUint16(16, count, true);
    const response = await this.#queue.command([[...new Uint8Array(request.buffer)]], MEM_RESPONSE_BYTES);
    if (response[0] !== MEM_ACK) throw new Error(`virtio-mem: ${type} was answered with ${response[0]}`);
  }
}

const BALLOON_F_REPORTING = 5;
/** QEMU has a queue for statistics before the last one, whatever was agreed on. */
const BALLOON_QUEUES = { inflate: 0, deflate: 1, report: 3 } as const;
/** So many page numbers go into a command. */
const PAGES_PER_COMMAND = 256;

/** Takes pages of the guest's own memory away from it, and reports pages as free. */
export class VirtioBalloon {
  readonly #queues: Readonly<Record<keyof typeof BALLOON_QUEUES, CommandQueue>>;

  private constructor(queues: Readonly<Record<keyof typeof BALLOON_QUEUES, CommandQueue>>) {
    this.#queues = queues;
  }

  static async plug(guest: QtestGuest, slot: number): Promise<VirtioBalloon> {
    const properties = { driver: 'virtio-balloon-pci', id: 'balloon', 'free-page-reporting': true };
    const device = await guest.plugDevice(slot, { ...properties, 'disable-legacy': 'on' });
    await device.negotiate(maskOf(VIRTIO_FEATURE.VERSION_1, BALLOON_F_REPORTING));
    const memory = guest.memory.part(3 * QUEUE_BYTES);
    const queues = {
      inflate: await makeQueue(device, BALLOON_QUEUES.inflate, memory),
      deflate: await makeQueue(device, BALLOON_QUEUES.deflate, memory),
      report: await makeQueue(device, BALLOON_QUEUES.report, memory),
    };
    await device.addStatus(STATUS.DRIVER_OK);
    return new VirtioBalloon(queues);
  }

  /** Gives the pages of that range of guest-physical addresses away. */
  inflate(gpa: number, sizeBytes: number): Promise<void> {
    return sendPages(this.#queues.inflate, gpa, sizeBytes);
  }

  /** Takes them back, empty. */
  deflate(gpa: number, sizeBytes: number): Promise<void> {
    return sendPages(this.#queues.deflate, gpa, sizeBytes);
  }

  /** Says that the range holds nothing: it may be used at any time, and is empty then. */
  report(gpa: number, sizeBytes: number): Promise<void> {
    return this.#queues.report.offer([{ gpa, sizeBytes, flags: DESC_F_WRITE }]);
  }
}

async function sendPages(queue: CommandQueue, gpa: number, sizeBytes: number): Promise<void> {
  const first = gpa / PAGE_BYTES;
  const count = sizeBytes / PAGE_BYTES;
  for (let done = 0; done < count; done += PAGES_PER_COMMAND) {
    const pages = Uint32Array.from(
      { length: Math.min(PAGES_PER_COMMAND, count - done) },
      (_, i) => first + done + i,
    );
    await queue.command([[...new Uint8Array(pages.buffer)]], 0);
  }
}

async function makeQueue(device: VirtioPci, index: number, memory: MemoryPart): Promise<CommandQueue> {
  const size = Math.min(QUEUE_SIZE, await device.queueSizeMax(index));
  const queue = new CommandQueue({ device, index, memory, layout: 'split', size, eventIdx: false });
  await queue.enable();
  return queue;
}
