/**
 * What the two ports on a UNIX socket have in common: their queues and what the user sees of them. QEMU's netdevs
 * `stream`, `dgram` and `socket` are at the other end, so that guests with emulated cards reach the switch.
 * Main thread. The ports: stream.ts, dgram.ts.
 */
import { resolve } from 'node:path';
import { BESIDE_MTU_BYTES, FRAME_BYTES_MAX } from '../../../protocol/ethernet.ts';
import { HandOverError } from '../../device/hand-over.ts';
import { errnoText } from '../../host/errors.ts';
import type { ListenOptions } from '../../host/unix-socket.ts';
import { WINDOW_OVERLAP_BYTES } from '../../memory/window.ts';
import { type PortCounters, QueueState, sumCounters } from '../../queue/state.ts';
import type { Port, PortContext, PortQueue, PortStatus } from '../contract.ts';
import {
  type HandedPort,
  type HandedUnixPort,
  type HandOver,
  handedAs,
  NO_RINGS,
  NOTHING_LEFT,
  type PortPositions,
  requireSame,
} from '../hand-over.ts';
import { StagedPairs } from '../staged/pairs.ts';
import { type PortSteps, type RetryPauses, Supervisor } from '../supervisor.ts';
import { setSocketBuffers } from './frame-socket.ts';
import {
  EXTRA_SLOTS,
  PREFIX_BYTES,
  putRest,
  restOf,
  STATE_BAD_LENGTH,
  TABLE_BYTES,
  UNIX_FAULT,
  UNIX_SLOTS_MAX,
  type UnixAttachment,
  type UnixTransport,
} from './queues.ts';

export type UnixPortOptions = {
  readonly socketPath: string;
  /** Of the socket file, where Ringway makes it. */
  readonly listen: ListenOptions;
  /** Largest packet in a frame, in bytes; 68 to 65,535. */
  readonly mtu: number;
};

/** Queue pair 0's queues. */
const EGRESS_INDEX = 0;
export const INGRESS_INDEX = 1;

/** Many bursts, so that a guest that is not run for a moment loses little. */
const BUFFER_BYTES = 4 * 2 ** 20;
/** A cache line and the one that makes their number odd: what a slot may be longer than it must. */
const SLOT_SLACK_BYTES = 128;

export abstract class UnixPort implements Port, HandOver {
  readonly id: number;
  readonly name: string;
  readonly kind = 'unix';
  readonly endpoint: string;
  readonly mtu: number;
  readonly states: SharedArrayBuffer;
  protected readonly context: PortContext;
  protected readonly supervisor: Supervisor;
  readonly #pairs: StagedPairs;
  readonly #slotCount: number;
  /** Of both queues, while attached. */
  #attachments: readonly UnixAttachment[] = [];
  /** Resolved when the port is thawed; null: it is not frozen. */
  protected frozen: PromiseWithResolvers<void> | null = null;
  /** The descriptor that was handed over, or is to be taken over; null: none. */
  protected handedFd: number | null = null;

  constructor(options: UnixPortOptions, context: PortContext, steps: PortSteps, pauses: RetryPauses) {
    this.id = context.id;
    this.name = context.name;
    this.endpoint = options.socketPath;
    this.mtu = options.mtu;
    this.context = context;
    this.supervisor = new Supervisor(steps, context.events, pauses);
    // A slot must hold the structures of the system calls too.
    const slotFrameBytes = Math.max(options.mtu + BESIDE_MTU_BYTES, TABLE_BYTES);
    // All slots of a queue can be reached through one window of the arena.
    const slotsMax = Math.floor(WINDOW_OVERLAP_BYTES / (PREFIX_BYTES + slotFrameBytes + SLOT_SLACK_BYTES));
    this.#slotCount = Math.min(UNIX_SLOTS_MAX, slotsMax - EXTRA_SLOTS);
    this.#pairs = new StagedPairs(context, {
      pairCount: 1,
      slotCount: this.#slotCount + EXTRA_SLOTS,
      frameBytesMax: slotFrameBytes,
      headerBytes: PREFIX_BYTES,
    });
    this.states = this.#pairs.states;
  }

  abstract readonly details: Readonly<Record<string, unknown>>;

  get status(): PortStatus {
    return this.supervisor.status;
  }

  get mtuMax(): number {
    return this.mtu;
  }

  async tune(): Promise<void> {}

  start(): Promise<void> {
    return this.supervisor.start();
  }

  stop(): Promise<void> {
    this.frozen?.resolve();
    return this.supervisor.stop();
  }

  abstract freeze(): Promise<void>;

  abstract handOver(): HandedUnixPort;

  abstract takeOver(handed: HandedPort): void;

  abstract thaw(): void;

  /** The descriptor in use; null: none. */
  protected abstract get usedFd(): number | null;

  /** To be taken over, frozen and at rest. @throws HandOverError */
  protected begunBy(any: HandedPort, transport: UnixTransport, peer: string): HandedUnixPort {
    const handed = handedAs('unix', resolve(this.endpoint), any);
    requireSame('transport', handed.transport, transport);
    requireSame(transport === 'stream' ? 'role' : 'peer', handed.peer, peer);
    this.frozen = Promise.withResolvers();
    void this.#pairs.setResting(true);
    return handed;
  }

  setResting(isResting: boolean): Promise<void> {
    return this.#pairs.setResting(isResting);
  }

  positions(): PortPositions {
    if (this.handedFd !== this.usedFd) throw new HandOverError('its other side went away or came meanwhile');
    const { arenaView } = this.context;
    const left = this.#attachments.map((attachment) =>
      Buffer.from(restOf(arenaView, attachment)).toString('base64'),
    );
    return { ...NO_RINGS, ...NOTHING_LEFT, left, counts: this.#pairs.counts() };
  }

  async goOnAt({ left, counts }: PortPositions): Promise<void> {
    if (this.handedFd !== this.usedFd)
      throw new HandOverError(`its other side went away, or cannot be had here: ${this.status.reason}`);
    this.#pairs.takeOverCounts(counts);
    for (const [i, attachment] of this.#attachments.entries()) {
      const rest = Buffer.from(left[i] ?? '', 'base64');
      if (!putRest(this.context.arenaView, attachment, rest))
        throw new HandOverError('what it has read of a frame is longer than the new settings have room for');
    }
  }

  /** Whether there is somebody at the other end of the socket that is attached. */
  protected get hasPeer(): boolean {
    return true;
  }

  abstract queueFailed(queueIndex: number): void;

  get queues(): readonly PortQueue[] {
    return this.#pairs
      .queues((fault) => this.#faultText(fault))
      .map((queue) => ({ ...queue, size: this.#slotCount, inUse: queue.inUse && this.hasPeer }));
  }

  get counters(): PortCounters {
    return sumCounters(this.states, 1);
  }

  /** Has the workers use the socket `fd`. Answers the egress queue's attachment. @throws ArenaFullError, HostError */
  protected async attach(
    fd: number,
    own: Pick<UnixAttachment, 'transport' | 'receiver'>,
  ): Promise<UnixAttachment> {
    setSocketBuffers(fd, BUFFER_BYTES, BUFFER_BYTES);
    const attachments: UnixAttachment[] = [];
    // Before the first is used.
    this.#attachments = attachments;
    await this.#pairs.attach(this.mtu, (base) => {
      const slots = { ...base.slots, slotCount: this.#slotCount };
      const attachment: UnixAttachment = { ...base, ...own, kind: 'unix', fd, slots };
      attachments.push(attachment);
      return attachment;
    });
    return attachments[EGRESS_INDEX];
  }

  /** Resolves when no worker uses the socket any more. */
  protected detach(): Promise<void> {
    this.#attachments = [];
    return this.#pairs.detach();
  }

  /** Why a worker stopped the queue; null: it did not. */
  protected faultReason(queueIndex: number): string | null {
    const fault = this.#pairs.faultOf(queueIndex);
    return fault === 0 ? null : this.#faultText(fault);
  }

  #faultText(fault: number): string {
    switch (fault) {
      case UNIX_FAULT.closed:
        return CLOSED_REASON;
      case UNIX_FAULT.noFrame:
        return `the other side sent a frame of 0 bytes; ${FRAMING}`;
      case UNIX_FAULT.tooLong: {
        const bytes = new QueueState(this.states, INGRESS_INDEX).words[STATE_BAD_LENGTH] >>> 0;
        return `the other side sent a frame of ${bytes} bytes, more than ${FRAME_BYTES_MAX}; ${FRAMING}`;
      }
      default:
        return `the socket failed with ${errnoText(fault)}`;
    }
  }
}

/** Nothing is wrong with a peer that leaves. */
export const CLOSED_REASON = 'the other side closed the connection';
const FRAMING = 'each frame must follow its length in four bytes, as QEMU sends them';
