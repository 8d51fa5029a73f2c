/**
 * The queues of a port on a UNIX socket, as QEMU's netdevs use them. Stream: each frame after its length, four
 * bytes, high byte first, one after the other. Datagram: one frame each. Worker threads, except `sendRest`.
 *
 * After the slots of a queue lie two more: one for what is left of a frame that a full stream socket took a part
 * of, and one for the structures of the system calls.
 */
import assert from 'node:assert/strict';
import { FRAME_BYTES_MAX } from '../../../protocol/ethernet.ts';
import { ERRNO } from '../../host/errors.ts';
import type { ArenaView } from '../../memory/arena-view.ts';
import type { EgressQueue, IngressQueue } from '../../queue/contract.ts';
import { COUNT_CALLS, QueueState } from '../../queue/state.ts';
import { type StagedAttachment, StagedEgress, StagedIngress } from '../staged/queues.ts';
import {
  isForNow,
  MessageTable,
  receiveBytes,
  receiveMessages,
  sendBytes,
  sendMessages,
  sendVector,
} from './frame-socket.ts';

export type UnixTransport = 'stream' | 'dgram';

export type UnixAttachment = StagedAttachment & {
  readonly kind: 'unix';
  readonly transport: UnixTransport;
  readonly fd: number;
  /** Datagrams: the struct sockaddr_un that they are sent to. */
  readonly receiver: Uint8Array | null;
};

/** Slots beyond those of `slots.slotCount`. */
export const EXTRA_SLOTS = 2;
/** A frame's length in a stream; kept free before datagrams too, so that frames lie as they do in guests' buffers. */
export const PREFIX_BYTES = 4;
/** What the structures of the system calls take at most. */
export const UNIX_SLOTS_MAX = 64;
export const TABLE_BYTES = MessageTable.sizeBytes(UNIX_SLOTS_MAX, UNIX_SLOTS_MAX + 1);

/** Faults besides those of errno. */
export const UNIX_FAULT = { closed: 0x10000, noFrame: 0x10001, tooLong: 0x10002 } as const;

/**
 * Words of a QueueState that only these queues use: what lies between two frames of a stream, and was not sent, or was read
 * and not used, from where on and how much.
 */
const STATE_REST_OFFSET = 8;
const STATE_REST_BYTES = 9;
/** The length that made the stream unreadable. */
export const STATE_BAD_LENGTH = 10;

/** Stream: read at most this far ahead, so that what is read is still in the processor's cache when copied. */
const READ_AHEAD_BYTES = 2 ** 18;

export function openUnixIngress(arena: ArenaView, attachment: UnixAttachment): IngressQueue {
  return attachment.transport === 'stream'
    ? new UnixStreamIngress(arena, attachment)
    : new UnixDatagramIngress(arena, attachment);
}

export function openUnixEgress(arena: ArenaView, attachment: UnixAttachment, shared: boolean): EgressQueue {
  return attachment.transport === 'stream'
    ? new UnixStreamEgress(arena, attachment)
    : new UnixDatagramEgress(arena, attachment, shared);
}

/** Reads as much as there is into its slots as if they were one buffer, and describes the frames where they lie. */
class UnixStreamIngress extends StagedIngress {
  declare readonly wakeFd: number;
  /** Index in the window of each frame. */
  declare private readonly places: Int32Array;
  declare private readonly capacityBytes: number;
  /** Of what was read, how much was described, and how much there is. */
  private describedBytes = 0;
  private readBytes = 0;

  constructor(arena: ArenaView, attachment: UnixAttachment) {
    super(arena, attachment);
    const { slotBytes, slotCount } = this.slots;
    this.wakeFd = attachment.fd;
    this.places = new Int32Array(slotCount);
    this.capacityBytes = Math.min(slotBytes * slotCount, READ_AHEAD_BYTES);
    const { words } = this.state;
    this.describedBytes = words[STATE_REST_OFFSET];
    this.readBytes = this.describedBytes + words[STATE_REST_BYTES];
  }

  protected fill(): number {
    const count = this.#fill();
    const { words } = this.state;
    words[STATE_REST_OFFSET] = this.describedBytes;
    words[STATE_REST_BYTES] = this.readBytes - this.describedBytes;
    return count;
  }

  #fill(): number {
    const known = this.#describe();
    if (known !== 0 || this.fault !== 0) return known;
    this.#moveRemainder();
    const room = this.capacityBytes - this.readBytes;
    const received = receiveBytes(this.wakeFd, this.slots.address + this.readBytes, room);
    if (received > 0) {
      this.readBytes += received;
      return this.#describe();
    }
    if (received === 0) this.fail(UNIX_FAULT.closed);
    else if (!isForNow(received)) this.fail(-received);
    return 0;
  }

  protected override placeOf(slot: number): number {
    return this.places[slot];
  }

  /** Describes whole frames until one is cut or the slots are used up. */
  #describe(): number {
    const bytes = this.window.u8;
    const { places, frameBytes } = this;
    const slotCount = places.length;
    const end = this.slotIndex0 + this.readBytes;
    let at = this.slotIndex0 + this.describedBytes;
    let count = 0;
    while (count < slotCount && end - at >= PREFIX_BYTES) {
      const length = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
      if (length <= 0 || length > FRAME_BYTES_MAX) {
        // The frames before it come first; the next look ends here again.
        if (count === 0) this.#refuse(length);
        break;
      }
      if (end - at - PREFIX_BYTES < length) break;
      places[count] = at + PREFIX_BYTES;
      frameBytes[count] = length;
      count++;
      at += PREFIX_BYTES + length;
    }
    this.describedBytes = at - this.slotIndex0;
    return count;
  }

  /** Nothing tells where the next frame begins, so there is no going on. */
  #refuse(length: number): void {
    this.state.words[STATE_BAD_LENGTH] = length;
    this.fail(length === 0 ? UNIX_FAULT.noFrame : UNIX_FAULT.tooLong);
  }

  /** Brings the beginning of a cut frame to the front; less than one frame, so there is room behind it. */
  #moveRemainder(): void {
    const from = this.describedBytes;
    if (from === 0) return;
    const start = this.slotIndex0;
    if (this.readBytes > from) this.window.u8.copyWithin(start, start + from, start + this.readBytes);
    this.readBytes -= from;
    this.describedBytes = 0;
  }
}

/** Sends a burst with one call. What a full socket leaves of a frame that it took a part of goes before the next. */
class UnixStreamEgress extends StagedEgress {
  declare private readonly fd: number;
  declare private readonly table: MessageTable;
  declare private readonly restIndex: number;
  declare private readonly restAddress: number;

  constructor(arena: ArenaView, attachment: UnixAttachment) {
    // Always with the lock: the main thread sends the rest of a frame when no other follows.
    super(arena, attachment, true);
    const { slotBytes, slotCount, address } = this.slots;
    this.fd = attachment.fd;
    this.restIndex = this.slotIndex0 + slotCount * slotBytes;
    this.restAddress = address + slotCount * slotBytes;
    this.table = tableOf(this.window.i32, this.slotIndex0, attachment, 1, slotCount + 1);
    // Another worker may be using the table, filled with the same, already.
    this.state.lock();
    this.table.setMessage(0, 0, 0);
    this.table.setVector(0, this.restAddress, 0);
    for (let slot = 0; slot < slotCount; slot++)
      this.table.setVector(1 + slot, address + slot * slotBytes, 0);
    this.state.unlock();
  }

  protected flush(count: number): number {
    const { table, frameBytes } = this;
    const { words } = this.state;
    const restBytes = words[STATE_REST_BYTES];
    table.setVector(0, this.restAddress + words[STATE_REST_OFFSET], restBytes);
    let wantedBytes = restBytes;
    for (let slot = 0; slot < count; slot++) {
      const bytes = frameBytes[slot];
      this.#writePrefix(slot, bytes);
      table.setVectorBytes(1 + slot, PREFIX_BYTES + bytes);
      wantedBytes += PREFIX_BYTES + bytes;
    }
    table.setVectorCount(0, 1 + count);
    this.state.counts[COUNT_CALLS] += 1;
    const sentBytes = sendVector(this.fd, table.address);
    if (sentBytes === wantedBytes) {
      words[STATE_REST_BYTES] = 0;
      return count;
    }
    if (sentBytes < 0) {
      if (!isForNow(sentBytes)) this.fail(-sentBytes);
      return 0;
    }
    return this.#keepRest(sentBytes, count);
  }

  #writePrefix(slot: number, bytes: number): void {
    const prefix = this.slotIndex0 + slot * this.slots.slotBytes;
    const { u8 } = this.window;
    u8[prefix] = 0;
    u8[prefix + 1] = bytes >> 16;
    u8[prefix + 2] = bytes >> 8;
    u8[prefix + 3] = bytes;
  }

  /** Keeps what is left of the frame that was cut; the frames after it are lost. Answers how many are not. */
  #keepRest(sentBytes: number, count: number): number {
    const { words } = this.state;
    const restBytes = words[STATE_REST_BYTES];
    if (sentBytes < restBytes) {
      words[STATE_REST_OFFSET] += sentBytes;
      words[STATE_REST_BYTES] = restBytes - sentBytes;
      return 0;
    }
    let left = sentBytes - restBytes;
    let slot = 0;
    while (slot < count && left >= PREFIX_BYTES + this.frameBytes[slot]) {
      left -= PREFIX_BYTES + this.frameBytes[slot];
      slot++;
    }
    words[STATE_REST_BYTES] = 0;
    if (left === 0) return slot;
    const from = this.slotIndex0 + slot * this.slots.slotBytes;
    const end = from + PREFIX_BYTES + this.frameBytes[slot];
    this.window.u8.copyWithin(this.restIndex, from + left, end);
    words[STATE_REST_OFFSET] = 0;
    words[STATE_REST_BYTES] = end - from - left;
    return slot + 1;
  }
}

/**
 * Sends on what is left of a frame in an egress queue of a stream, so that it does not wait for the next burst.
 * Main thread, now and then.
 */
export function sendRest(attachment: UnixAttachment): void {
  const { slots, fd, states, queueIndex } = attachment;
  const state = new QueueState(states, queueIndex);
  // A worker that is in the middle of a burst does it itself.
  if (state.words[STATE_REST_BYTES] === 0 || !state.tryLock()) return;
  const { words } = state;
  const address = slots.address + slots.slotCount * slots.slotBytes + words[STATE_REST_OFFSET];
  // That the connection is broken is for the worker to find.
  const sentBytes = words[STATE_REST_BYTES] === 0 ? 0 : sendBytes(fd, address, words[STATE_REST_BYTES]);
  if (sentBytes > 0) {
    words[STATE_REST_OFFSET] += sentBytes;
    words[STATE_REST_BYTES] -= sentBytes;
  }
  state.unlock();
}

/** What lies between two frames of a stream, in a queue that no worker uses. Main thread. */
export function restOf(arena: ArenaView, attachment: UnixAttachment): Uint8Array {
  const { states, queueIndex } = attachment;
  const { words } = new QueueState(states, queueIndex);
  return bytesAt(arena, attachment, words[STATE_REST_OFFSET], words[STATE_REST_BYTES]).slice();
}

/** The same from another process. False: there is no room for so much. */
export function putRest(arena: ArenaView, attachment: UnixAttachment, rest: Uint8Array): boolean {
  const { states, queueIndex, slots, direction } = attachment;
  const roomBytes =
    direction === 'egress' ? slots.slotBytes : Math.min(slots.slotBytes * slots.slotCount, READ_AHEAD_BYTES);
  if (rest.length > roomBytes) return false;
  const { words } = new QueueState(states, queueIndex);
  words[STATE_REST_OFFSET] = 0;
  words[STATE_REST_BYTES] = rest.length;
  bytesAt(arena, attachment, 0, rest.length).set(rest);
  return true;
}

function bytesAt(
  arena: ArenaView,
  { slots, direction }: UnixAttachment,
  offset: number,
  sizeBytes: number,
): Uint8Array {
  const start = direction === 'egress' ? slots.offset + slots.slotCount * slots.slotBytes : slots.offset;
  return new Uint8Array(arena.buffer, start + offset, sizeBytes);
}

class UnixDatagramIngress extends StagedIngress {
  declare readonly wakeFd: number;
  declare private readonly table: MessageTable;

  constructor(arena: ArenaView, attachment: UnixAttachment) {
    super(arena, attachment);
    this.wakeFd = attachment.fd;
    this.table = datagramTable(this.window.i32, this.slotIndex0, attachment);
    const { slotBytes, slotCount } = this.slots;
    for (let slot = 0; slot < slotCount; slot++) this.table.setVectorBytes(slot, slotBytes - PREFIX_BYTES);
  }

  protected fill(): number {
    const { slotBytes, slotCount } = this.slots;
    const { table } = this;
    const count = receiveMessages(this.wakeFd, table.address, slotCount);
    if (count < 0) {
      if (!isForNow(count)) this.fail(-count);
      return 0;
    }
    for (let slot = 0; slot < count; slot++) {
      const bytes = table.messageBytes(slot);
      this.frameBytes[slot] = bytes <= slotBytes - PREFIX_BYTES ? bytes : FRAME_BYTES_MAX + 1;
    }
    return count;
  }
}

class UnixDatagramEgress extends StagedEgress {
  declare private readonly fd: number;
  declare private readonly table: MessageTable;

  constructor(arena: ArenaView, attachment: UnixAttachment, shared: boolean) {
    super(arena, attachment, shared);
    this.fd = attachment.fd;
    this.state.lock();
    this.table = datagramTable(this.window.i32, this.slotIndex0, attachment);
    assert(attachment.receiver !== null, 'datagrams need a receiver');
    this.table.setReceiver(attachment.receiver, this.slots.slotCount);
    this.state.unlock();
  }

  protected flush(count: number): number {
    const { table } = this;
    for (let slot = 0; slot < count; slot++) table.setVectorBytes(slot, this.frameBytes[slot]);
    this.state.counts[COUNT_CALLS] += 1;
    const sent = sendMessages(this.fd, table.address, count);
    if (sent >= 0) return sent;
    if (OUR_OWN_FAULTS.has(-sent)) this.fail(-sent);
    return 0;
  }
}

/** Everything else that a datagram may meet lies with the receiver's socket and passes with it. */
const OUR_OWN_FAULTS: ReadonlySet<number> = new Set([
  ERRNO.EBADF,
  ERRNO.ENOTSOCK,
  ERRNO.EINVAL,
  ERRNO.ENOTCONN,
]);

/** One message with one vector for each slot. */
function datagramTable(words: Int32Array, slotIndex0: number, attachment: UnixAttachment): MessageTable {
  const { slotBytes, slotCount, address } = attachment.slots;
  const table = tableOf(words, slotIndex0, attachment, slotCount, slotCount);
  for (let slot = 0; slot < slotCount; slot++) {
    table.setMessage(slot, slot, 1);
    table.setVector(slot, address + slot * slotBytes + PREFIX_BYTES, 0);
  }
  return table;
}

/** In the last of the extra slots. Workers that share a queue have one table, under the queue's lock. */
function tableOf(
  words: Int32Array,
  slotIndex0: number,
  { slots }: UnixAttachment,
  messageCount: number,
  vectorCount: number,
): MessageTable {
  const offset = (slots.slotCount + 1) * slots.slotBytes;
  return new MessageTable(words, slotIndex0 + offset, slots.address + offset, messageCount, vectorCount);
}
