/**
 * The driver's end of a control virtqueue, written from VIRTIO 1.3, section 2.7, straight into the guest's
 * file: descriptor by descriptor, good or bad. One command at a time unless a test says otherwise.
 */
import { drainFd, signalFd } from '../../src/host/descriptor.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { ringAddress, state, u64 } from '../vhost-user/scripted-front-end.ts';
import { ringOffsets, ringPlace, type World } from './world.ts';

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
/** Where buffers begin in the guest's file (guest addresses are the same). */
const BUFFERS_OFFSET = 0x20_0000;
/** What an answer's byte holds before it is answered. */
export const UNANSWERED = 0xee;

export type Descriptor = { gpa: number | bigint; sizeBytes: number; flags: number; next?: number };

/** What it drives: the guest's file, and the front-end that brought it. */
export type ControlWorld = Pick<World, 'front' | 'guest'>;

export class ControlDriver {
  readonly index: number;
  readonly kickFd: number;
  readonly callFd: number;
  readonly errorFd: number;
  readonly #world: ControlWorld;
  readonly #size: number;
  #avail = 0;
  #usedSeen = 0;
  #buffers = BUFFERS_OFFSET;

  constructor(world: ControlWorld, index: number, size = 16) {
    this.#world = world;
    this.index = index;
    this.#size = size;
    this.kickFd = world.front.eventFd();
    this.callFd = world.front.eventFd();
    this.errorFd = world.front.eventFd();
  }

  /** Sends what makes the ring run. */
  async start({ polled = false } = {}): Promise<void> {
    const { front } = this.#world;
    front.send('SET_VRING_NUM', state(this.index, this.#size));
    front.send('SET_VRING_BASE', state(this.index, 0));
    front.send('SET_VRING_ADDR', ringAddress(this.index, ringPlace(this.index)));
    front.send('SET_VRING_CALL', u64(this.index), [this.callFd]);
    front.send('SET_VRING_ERR', u64(this.index), [this.errorFd]);
    if (polled) front.send('SET_VRING_KICK', u64(this.index | 0x100));
    else front.send('SET_VRING_KICK', u64(this.index), [this.kickFd]);
    front.send('SET_VRING_ENABLE', state(this.index, 1));
    await front.settle();
  }

  /** A buffer with these bytes; answers its place. */
  buffer(bytes: Uint8Array | readonly number[]): { gpa: number; sizeBytes: number } {
    const gpa = this.#buffers;
    this.#buffers += bytes.length + 16;
    this.#world.guest.write(gpa, bytes);
    return { gpa, sizeBytes: bytes.length };
  }

  setDescriptor(slot: number, { gpa, sizeBytes, flags, next = 0 }: Descriptor): void {
    this.#world.guest.write(
      ringOffsets(this.index).desc + 16 * slot,
      descriptorBytes({ gpa, sizeBytes, flags, next }),
    );
  }

  /** A chain from slot `head` on, its slots following each other. */
  setChain(head: number, descriptors: readonly Omit<Descriptor, 'next'>[]): void {
    for (const [i, descriptor] of descriptors.entries()) {
      const isLast = i === descriptors.length - 1;
      const flags = descriptor.flags | (isLast ? 0 : NEXT);
      this.setDescriptor(head + i, { ...descriptor, flags, next: isLast ? 0 : head + i + 1 });
    }
  }

  /** The chain that a driver makes of a command in `parts` and one byte for the answer. */
  commandChain(parts: readonly (Uint8Array | readonly number[])[]): {
    descriptors: Omit<Descriptor, 'next'>[];
    answerGpa: number;
  } {
    const answer = this.buffer([UNANSWERED]);
    const descriptors = parts.map((part) => ({ ...this.buffer(part), flags: 0 }));
    return { descriptors: [...descriptors, { ...answer, flags: WRITE }], answerGpa: answer.gpa };
  }

  /** A descriptor whose table holds the chain. */
  indirect(descriptors: readonly Omit<Descriptor, 'next'>[]): Omit<Descriptor, 'next'> {
    const bytes = descriptors.flatMap((descriptor, i) => {
      const isLast = i === descriptors.length - 1;
      return [
        ...descriptorBytes({ ...descriptor, flags: descriptor.flags | (isLast ? 0 : NEXT), next: i + 1 }),
      ];
    });
    return { ...this.buffer(bytes), flags: INDIRECT };
  }

  /** Makes the chain at `head` available. */
  offer(head: number): void {
    const { avail } = ringOffsets(this.index);
    this.#world.guest.write16(avail + 4 + 2 * (this.#avail % this.#size), head);
    this.#avail++;
    this.setAvailIndex(this.#avail);
  }

  setAvailIndex(value: number): void {
    this.#world.guest.write16(ringOffsets(this.index).avail + 2, value);
  }

  kick(): void {
    signalFd(this.kickFd);
  }

  /** Offers a command, kicks, waits for the answer. */
  async command(...parts: (Uint8Array | readonly number[])[]): Promise<number> {
    const { descriptors, answerGpa } = this.commandChain(parts);
    this.setChain(0, descriptors);
    this.offer(0);
    const called = this.called();
    this.kick();
    await called;
    return this.#world.guest.read(answerGpa, 1)[0];
  }

  /** Resolves at the next signal of the device. */
  called(): Promise<void> {
    return signalled(this.callFd);
  }

  /** Resolves when the device signals an error. */
  failed(): Promise<void> {
    return signalled(this.errorFd);
  }

  get usedIndex(): number {
    return this.#world.guest.read16(ringOffsets(this.index).used + 2);
  }

  /** Bit 0: the device does not want to be kicked. */
  get usedFlags(): number {
    return this.#world.guest.read16(ringOffsets(this.index).used);
  }

  /** Used entries since the last call: head and written bytes. */
  takeUsed(): [number, number][] {
    const entries: [number, number][] = [];
    for (; this.#usedSeen !== this.usedIndex; this.#usedSeen++) {
      const at = ringOffsets(this.index).used + 4 + 8 * (this.#usedSeen % this.#size);
      const view = new DataView(this.#world.guest.read(at, 8).buffer);
      entries.push([view.getUint32(0, true), view.getUint32(4, true)]);
    }
    return entries;
  }
}

function descriptorBytes({ gpa, sizeBytes, flags, next = 0 }: Descriptor): Uint8Array {
  const view = new DataView(new ArrayBuffer(16));
  view.setBigUint64(0, BigInt(gpa), true);
  view.setUint32(8, sizeBytes, true);
  view.setUint16(12, flags, true);
  view.setUint16(14, next, true);
  return new Uint8Array(view.buffer);
}

/** Resolves when an eventfd is signalled; takes the signal. */
export function signalled(fd: number): Promise<void> {
  return new Promise((resolve) => {
    const watch = descriptorLoop().watch(fd, () => {
      drainFd(fd);
      watch.close();
      resolve();
    });
  });
}
