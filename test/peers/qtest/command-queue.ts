/**
 * A virtqueue whose buffers are commands, each answered by the device in the same buffer: the control queue of a network
 * device, the request queue of a memory device. One command at a time. Owned by the driver that has it.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { DESC_F_WRITE } from '../../../protocol/virtio/split-ring.ts';
import type { DriverLayout, Piece } from '../../../src/frontend/driver-layout.ts';
import { DRIVER_LAYOUTS } from '../../../src/frontend/driver-layouts.ts';
import type { DriverMemory } from '../../../src/frontend/guest-memory.ts';
import type { RingLayoutKind } from '../../../src/vring/attachment.ts';
import type { VirtioPci } from './virtio-pci.ts';

const COMMAND_BYTES_MAX = 1024;
const ANSWER_BYTES_MAX = 64;
const DEADLINE_MS = 30_000;

export type CommandQueueOptions = {
  readonly device: VirtioPci;
  readonly index: number;
  readonly memory: DriverMemory;
  readonly layout: RingLayoutKind;
  readonly size: number;
  readonly eventIdx: boolean;
};

export class CommandQueue {
  readonly layout: DriverLayout;
  readonly #options: CommandQueueOptions;
  readonly #commandOffset: number;
  readonly #answerOffset: number;

  constructor(options: CommandQueueOptions) {
    this.#options = options;
    // QEMU 7.2 takes the id of a chain's first descriptor.
    this.layout = DRIVER_LAYOUTS[options.layout].make({ ...options, inOrder: false, idInAll: true });
    this.#commandOffset = options.memory.allocate(COMMAND_BYTES_MAX);
    this.#answerOffset = options.memory.allocate(ANSWER_BYTES_MAX);
  }

  /** Before the device runs. */
  async enable(): Promise<void> {
    const { device, index, memory, size } = this.#options;
    await device.enableQueue(index, {
      size,
      descGpa: memory.gpaOf(this.layout.descOffset),
      driverGpa: memory.gpaOf(this.layout.driverOffset),
      deviceGpa: memory.gpaOf(this.layout.deviceOffset),
    });
  }

  /** Sends a command in parts, as drivers do, and answers what the device wrote into `answerBytes` bytes. */
  async command(parts: readonly (readonly number[])[], answerBytes: number): Promise<Uint8Array> {
    const { memory } = this.#options;
    let at = this.#commandOffset;
    const pieces = parts.map((bytes) => {
      memory.u8.set(bytes, at);
      const piece = { gpa: memory.gpaOf(at), sizeBytes: bytes.length };
      at += bytes.length;
      return piece;
    });
    const answer = { gpa: memory.gpaOf(this.#answerOffset), sizeBytes: answerBytes, flags: DESC_F_WRITE };
    await this.offer(answerBytes === 0 ? pieces : [...pieces, answer]);
    return memory.u8.slice(this.#answerOffset, this.#answerOffset + answerBytes);
  }

  /** Offers a buffer of any pieces, as many as the ring has descriptors; resolves when the device has used it. */
  async offer(pieces: readonly Piece[]): Promise<void> {
    const { device, index } = this.#options;
    const { layout } = this;
    layout.offerChain(layout.takeId(), pieces, 0);
    layout.publish();
    device.notify(index);
    const deadline = AbortSignal.timeout(DEADLINE_MS);
    while (layout.usedWaiting() === 0) {
      if (deadline.aborted) throw new Error(`queue ${index} does not answer`);
      // QEMU serves it in its main loop, as it does what reads the status.
      await device.status();
      await nextTurn();
    }
    layout.free(layout.takeUsed());
  }
}
