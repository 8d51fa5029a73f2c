/**
 * The control virtqueue (VIRTIO 1.3, section 5.1.6.5) of front-ends that do not serve it themselves: takes commands
 * from its ring and writes their answers. Served on the main thread, woken by its kick descriptor. Chains are checked
 * like any other: readable buffers with the command, then a writable one for the answer. What a driver may ask of the
 * main thread in one turn is bounded. Allocates: commands are rare.
 */
import { descriptorLoop, type Watch } from '../../host/event-loop.ts';
import { turnBudget } from '../../host/turn-budget.ts';
import type { ArenaView } from '../../memory/arena-view.ts';
import type { AddressMap, GpaTranslator } from '../../memory/gpa-translator.ts';
import type { AddressMiss } from '../../memory/iotlb.ts';
import { WINDOW_BYTES } from '../../memory/window.ts';
import type { RingAttachment } from '../../vring/attachment.ts';
import { DescriptorList } from '../../vring/descriptor-list.ts';
import type { RingLog } from '../../vring/dirty-log.ts';
import { PARKED, RING_FAULT } from '../../vring/faults.ts';
import { writeByte } from '../../vring/guest-writes.ts';
import { Ring } from '../../vring/ring.ts';
import type { OwnQueue } from '../device-kind.ts';
import type { ControlCommands } from './control-commands.ts';

/** Longest command taken: a MAC table of some 10,000 addresses. */
const COMMAND_BYTES_MAX = 65_536;
/** What is served at most before the event loop has its turn again; less when it takes long (turn-budget.ts). */
export const COMMANDS_PER_TURN = 64;
const COMMAND_BYTES_PER_TURN = 4 * COMMAND_BYTES_MAX;
/** A ring without a kick descriptor is looked at this often; the driver waits for each command. */
const POLL_MS = 10;

export type ControlQueueOptions = {
  readonly commands: Pick<ControlCommands, 'execute'>;
  /** A command is about to be carried out. */
  readonly onCommand?: () => void;
  /** The driver's fault stopped the ring. */
  readonly onFault: () => void;
  /** The ring is parked: these are to be translated. */
  readonly onMiss: (misses: readonly AddressMiss[]) => void;
};

type Command = {
  readonly bytes: Uint8Array;
  readonly answerWindow: number;
  readonly answerIndex: number;
  readonly answerGpaLo: number;
  readonly answerGpaHi: number;
};

export class ControlQueue implements OwnQueue {
  readonly #ring: Ring;
  readonly #options: ControlQueueOptions;
  readonly #watch: Watch | null;
  readonly #timer: NodeJS.Timeout | null;
  /** Of the chain walked last. */
  readonly #list = new DescriptorList();
  /** Of the command that is being read. */
  readonly #bytes = new Uint8Array(COMMAND_BYTES_MAX);
  #isServing = false;
  /** The first chain holds no command: this is a receive queue whose partner is not started yet. Left as it is. */
  #isForeign = false;
  #isClosed = false;

  /** The caller keeps the descriptors of `attachment`. */
  constructor(arena: ArenaView, attachment: RingAttachment, options: ControlQueueOptions) {
    this.#ring = new Ring(arena, attachment);
    this.#options = options;
    const { kickFd } = attachment;
    this.#watch = kickFd < 0 ? null : descriptorLoop().watchSignals(kickFd, () => this.#wake());
    this.#timer = kickFd < 0 ? setInterval(() => this.#wake(), POLL_MS) : null;
    // A kick may have come before we listened.
    this.#wake();
  }

  setCallFd(fd: number): void {
    this.#ring.setCallFd(fd);
  }

  setMemory(map: AddressMap): void {
    const wasParked = this.#ring.fault === PARKED;
    this.#ring.setMemory(map);
    if (wasParked) this.#wake();
  }

  setLog(log: RingLog | null): void {
    this.#ring.setLog(log);
  }

  /** Afterwards nothing of the ring is touched, also by a command that is still being carried out. */
  close(): void {
    this.#isClosed = true;
    this.#watch?.close();
    if (this.#timer !== null) clearInterval(this.#timer);
  }

  /** Whoever serves looks for more by itself. */
  #wake(): void {
    if (this.#isServing) return;
    this.#isServing = true;
    void this.#serve();
  }

  /** Serves until nothing waits, with a pause after each turn's worth. */
  async #serve(): Promise<void> {
    const faultBefore = this.#ring.fault;
    while (this.#mayServe()) {
      await this.#serveTurn();
      if (this.#isClosed) return;
      this.#ring.publish();
      if (!this.#mayServe() || (!this.#ring.hasWaiting() && this.#ring.armWake())) break;
      await new Promise(setImmediate);
    }
    this.#isServing = false;
    if (this.#isClosed || this.#ring.fault === faultBefore) return;
    if (this.#ring.fault === PARKED) this.#options.onMiss(this.#ring.misses);
    else this.#options.onFault();
  }

  #mayServe(): boolean {
    return !this.#isClosed && !this.#isForeign && this.#ring.fault === RING_FAULT.NONE;
  }

  async #serveTurn(): Promise<void> {
    let bytesLeft = COMMAND_BYTES_PER_TURN;
    for (let count = 0; count < COMMANDS_PER_TURN && bytesLeft > 0; count++) {
      if (turnBudget().isSpent() && count > 0) return;
      const command = this.#mayServe() && this.#ring.hasWaiting() ? this.#nextCommand() : null;
      if (command === null) return;
      bytesLeft -= command.bytes.length;
      this.#options.onCommand?.();
      const ack = await this.#options.commands.execute(command.bytes);
      // The ring may be gone since the command began.
      if (this.#isClosed) return;
      this.#answer(command, ack);
      this.#ring.useWalked(1);
    }
  }

  #answer({ answerWindow, answerIndex, answerGpaLo, answerGpaHi }: Command, ack: number): void {
    const { arena, log } = this.#ring;
    writeByte(arena.windows[answerWindow], answerIndex, ack);
    if (log === null) return;
    if (log.isByPlace) {
      log.markPlace(answerWindow * WINDOW_BYTES + answerIndex, 1);
      return;
    }
    log.note(answerGpaLo, answerGpaHi, 1);
    log.markNoted();
  }

  /** Null when the first chain holds no command, or stopped the ring. */
  #nextCommand(): Command | null {
    const list = this.#list;
    list.clear();
    const fault = this.#ring.walk(list);
    if (fault !== RING_FAULT.NONE) return this.#stop(fault);
    this.#isForeign = list.count === 0 || list.writable[0] !== 0;
    return this.#isForeign ? null : this.#readCommand();
  }

  /** Null when the chain is bad; the ring is stopped then. */
  #readCommand(): Command | null {
    const bytes = this.#gather();
    if (bytes === null) return null;
    const list = this.#list;
    const last = list.count - 1;
    if (list.writable[last] === 0 || list.sizeBytes[last] === 0) {
      return this.#stop(RING_FAULT.COMMAND_WITHOUT_ANSWER);
    }
    const { translator } = this.#ring;
    const answerGpaLo = list.gpaLo[last];
    const answerGpaHi = list.gpaHi[last];
    const answerIndex = translator.locate(answerGpaLo, answerGpaHi, 1);
    if (answerIndex < 0) return this.#stop(RING_FAULT.BUFFER_ADDRESS);
    return { bytes, answerWindow: translator.window, answerIndex, answerGpaLo, answerGpaHi };
  }

  /** A copy of the readable buffers as one; null when the ring is stopped. */
  #gather(): Uint8Array | null {
    const list = this.#list;
    const { arena, tables } = this.#ring;
    const bytes = this.#bytes;
    let totalBytes = 0;
    for (let i = 0; i < list.count && list.writable[i] === 0; i++) {
      const sizeBytes = list.sizeBytes[i] >>> 0;
      if (sizeBytes > COMMAND_BYTES_MAX - totalBytes) return this.#stop(RING_FAULT.COMMAND_TOO_LONG);
      // An empty buffer must have a good address too.
      for (let done = 0; done < Math.max(sizeBytes, 1); ) {
        const index = tables.locateSome(list.gpaLo[i], list.gpaHi[i], done, sizeBytes - done);
        if (index < 0) return this.#stop(RING_FAULT.BUFFER_ADDRESS, tables);
        if (sizeBytes === 0) break;
        const { u8 } = arena.windows[tables.window];
        const part = u8.subarray(index, index + tables.contiguousBytes);
        bytes.set(part, totalBytes);
        done += tables.contiguousBytes;
        totalBytes += tables.contiguousBytes;
      }
    }
    return bytes.slice(0, totalBytes);
  }

  #stop(fault: number, translator?: GpaTranslator): null {
    this.#ring.fail(fault, translator);
    return null;
  }
}
