/**
 * Guests with one pair of virtqueues each, for the tests of forwarding between real rings: the driver's side
 * (src/frontend), and Ringway's rings over it in the arena, without connection and worker.
 */

import {
  type DriverRing,
  INDIRECT_PIECES_MAX,
  PIECE_GAP_BYTES,
  type Shape,
} from '../../../src/frontend/driver-ring.ts';
import { EmbeddedMemory } from '../../../src/frontend/guest-memory.ts';
import { ReceiveQueue } from '../../../src/frontend/receive-queue.ts';
import { SendQueue } from '../../../src/frontend/send-queue.ts';
import { closeFd, createEventFd } from '../../../src/host/descriptor.ts';
import { GuestMemory } from '../../../src/memory/guest-memory.ts';
import { QueueState, queueStates, STATE_AVAIL_NEXT, STATE_USED_NEXT } from '../../../src/queue/state.ts';
import type { RingAttachment, RingLayoutKind } from '../../../src/vring/attachment.ts';
import type { FromGuest } from '../../../src/vring/from-guest.ts';
import type { ToGuest } from '../../../src/vring/to-guest.ts';
import { ForwardingPort } from '../../../switch/l2/forwarding-port.ts';
import { PORT_COUNTS } from '../../../switch/l2/port-counts.ts';
import type { Random } from '../../vring/random.ts';
import { randomPieces, randomPlan } from '../../vring/random-rings.ts';
import { arena } from './frames.ts';

export type GuestPlan = Omit<ReturnType<typeof randomPlan>, 'inOrder'> & { readonly inOrder: boolean };

const BUFFER_BYTES = 2048;
/** Smaller buffers would take more of them for one frame than a ring is walked for. */
const CHAIN_BYTES_MIN = 100;

export function randomGuestPlan(random: Random, layout: RingLayoutKind): GuestPlan {
  return {
    ...randomPlan(random, layout, BUFFER_BYTES, random.pick([8, 64, 128])),
    inOrder: random.chance(40),
  };
}

/** Mostly whole buffers; now and then small ones, several pieces, or a table. */
export function randomBufferShape(random: Random, plan: GuestPlan): Shape {
  if (random.chance(70)) return { pieces: [BUFFER_BYTES] };
  const piecesMax = Math.min(6, plan.size);
  const totalBytes = random.between(CHAIN_BYTES_MIN, BUFFER_BYTES - PIECE_GAP_BYTES * piecesMax);
  return {
    pieces: random.chance(50) ? [totalBytes] : randomPieces(random, totalBytes, piecesMax),
    indirect: plan.indirect && random.chance(40),
  };
}

/** How a frame is cut for sending. */
export function randomSendShape(
  random: Random,
  plan: GuestPlan,
  frameBytes: number,
): { pieces: number[]; indirect: boolean } {
  if (random.chance(75)) return { pieces: [], indirect: false };
  const indirect = plan.indirect && random.chance(50);
  const piecesMax = Math.min(6, indirect ? INDIRECT_PIECES_MAX : plan.size);
  return { pieces: randomPieces(random, plan.headerBytes + frameBytes, piecesMax), indirect };
}

/** The driver's side of one guest. */
export class GuestDriver {
  readonly memory: EmbeddedMemory;
  readonly toGuest: ReceiveQueue;
  readonly fromGuest: SendQueue;

  constructor(plan: GuestPlan, shape: () => Shape) {
    this.memory = new EmbeddedMemory(plan.memory);
    const options = { ...plan, memory: this.memory };
    this.toGuest = new ReceiveQueue({ ...options, shape });
    this.fromGuest = new SendQueue(options);
    // What is received is offered again only when the test says so.
    this.toGuest.refills = false;
    for (const { ring } of [this.toGuest, this.fromGuest]) ring.layout.startAt(plan.base);
  }

  close(): void {
    this.memory.close();
  }
}

/** Ringway's side of one guest. */
export class GuestPort {
  readonly state: ForwardingPort;
  readonly states = queueStates(2);
  readonly from: FromGuest;
  readonly to: ToGuest;
  readonly #guestMemory = new GuestMemory(arena);
  readonly #callFd = createEventFd();

  constructor(
    id: number,
    driver: GuestDriver,
    plan: GuestPlan,
    make: { from: (ring: RingAttachment) => FromGuest; to: (ring: RingAttachment) => ToGuest },
  ) {
    for (const region of driver.memory.regions) this.#guestMemory.add(region, driver.memory.fd);
    for (const queueIndex of [0, 1]) {
      const { words } = new QueueState(this.states, queueIndex);
      words[STATE_AVAIL_NEXT] = plan.base & 0xffff;
      words[STATE_USED_NEXT] = (plan.layout === 'packed' ? plan.base >>> 16 : plan.base) & 0xffff;
    }
    this.to = make.to(this.#attachment(id, 0, driver, driver.toGuest.ring, plan));
    this.from = make.from(this.#attachment(id, 1, driver, driver.fromGuest.ring, plan));
    this.state = new ForwardingPort(id, new Float64Array(PORT_COUNTS));
    this.state.setQueues([this.to]);
  }

  close(): void {
    this.#guestMemory.clear();
    closeFd(this.#callFd);
  }

  #attachment(
    portId: number,
    queueIndex: number,
    { memory }: GuestDriver,
    { layout }: DriverRing,
    plan: GuestPlan,
  ): RingAttachment {
    const placed = (offset: number): number => {
      const arenaOffset = this.#guestMemory.offsetOfUva(memory.uvaOf(offset), 4);
      if (arenaOffset === null) throw new Error('a ring lies outside the shared memory');
      return arenaOffset;
    };
    return {
      kind: 'ring',
      layout: plan.layout,
      portId,
      queueIndex,
      direction: queueIndex === 0 ? 'egress' : 'ingress',
      states: this.states,
      size: plan.size,
      descOffset: placed(layout.descOffset),
      driverOffset: placed(layout.driverOffset),
      deviceOffset: placed(layout.deviceOffset),
      eventIdx: plan.eventIdx,
      indirect: plan.indirect,
      inOrder: plan.inOrder,
      mergeable: plan.mergeable,
      headerBytes: plan.headerBytes,
      asks: 0,
      kickFd: -1,
      callFd: this.#callFd,
      map: this.#guestMemory.gpaMap(),
      log: null,
    };
  }
}

/** Addresses 0 to 3 of each guest are in use, and one that nobody has; a guest may claim another's. */
export function randomGuestFrame(random: Random, guestCount: number, sender: number): Uint8Array {
  const frameBytes = random.chance(3)
    ? random.between(0, 13)
    : random.pick([60, 64, 64, 65, 66, 67, 200, 1514]);
  const frame = random.bytes(frameBytes);
  const peer = random.chance(4) ? 99 : random.between(0, guestCount - 1);
  const dst = random.chance(5)
    ? [255, 255, 255, 255, 255, 255]
    : [2, 0, 0, 0, random.pick([0, 0, 0, 1, 2, 3]), peer];
  const src = [2, 0, 0, 0, random.pick([0, 0, 0, 1, 2, 3]), random.chance(3) ? peer : sender];
  frame.set([...dst, ...src].slice(0, frameBytes));
  return frame;
}
