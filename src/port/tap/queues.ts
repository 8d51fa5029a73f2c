/**
 * A TAP interface's queues: one read or write for each frame, which the kernel hands to or takes from the host's
 * network stack. A virtio-net header precedes the frame in its slot, by which both sides leave checksums and
 * segmentation to the other as far as was agreed on (src/port/tap/interface.ts). Hot path of one worker at a time.
 */
import { ERRNO } from '../../host/errors.ts';
import { lastErrno, libc } from '../../host/libc.ts';
import type { ArenaView } from '../../memory/arena-view.ts';
import { AskedFor } from '../../offload/asked-for.ts';
import { requestWord0, requestWord1, requestWord2 } from '../../offload/net-header.ts';
import type { Batch } from '../../queue/batch.ts';
import { OFFLOAD_ALL } from '../../queue/requests.ts';
import { type SlotLayout, type StagedAttachment, StagedEgress, StagedIngress } from '../staged/queues.ts';

export type TapAttachment = StagedAttachment & {
  readonly kind: 'tap';
  /** Of the pair's queue; both directions use it. */
  readonly fd: number;
};

/** File descriptor in bad state; Node has no name for it. The interface is gone. */
export const EBADFD = 77;

export class TapIngress extends StagedIngress {
  declare readonly wakeFd: number;
  declare private readonly addresses: readonly number[];
  /** The kernel asks for no more than it was told to, also for what was queued before it was told. */
  declare private readonly askedFor: AskedFor;

  constructor(arena: ArenaView, attachment: TapAttachment) {
    super(arena, attachment);
    this.askedFor = new AskedFor(arena, attachment.headerBytes, OFFLOAD_ALL, true);
    this.wakeFd = attachment.fd;
    this.addresses = slotAddresses(attachment.slots);
  }

  override gather(batch: Batch): number {
    const count = super.gather(batch);
    if (count !== 0) this.askedFor.take(batch);
    return count;
  }

  protected override fill(): number {
    const { wakeFd, addresses, frameBytes, headerBytes } = this;
    const { slotBytes, slotCount } = this.slots;
    for (let slot = 0; slot < slotCount; slot++) {
      const bytes = libc.readAt(wakeFd, addresses[slot], slotBytes);
      if (bytes < 0) {
        this.#refused(lastErrno());
        return slot;
      }
      // The kernel cuts a frame off at the slot's end, where it is too long already.
      frameBytes[slot] = bytes - headerBytes;
    }
    return slotCount;
  }

  #refused(errno: number): void {
    if (errno !== ERRNO.EAGAIN && errno !== ERRNO.EINTR) this.fail(errno);
  }
}

export class TapEgress extends StagedEgress {
  declare private readonly fd: number;
  declare private readonly addresses: readonly number[];

  constructor(arena: ArenaView, attachment: TapAttachment, shared: boolean) {
    super(arena, attachment, shared);
    this.fd = attachment.fd;
    this.addresses = slotAddresses(attachment.slots);
  }

  protected override putHeader(batch: Batch, frame: number, headerIndex: number): void {
    const word = headerIndex >> 2;
    const { i32 } = this.window;
    const { pushBytes } = batch.tags;
    i32[word] = requestWord0(batch, frame, pushBytes);
    i32[word + 1] = requestWord1(batch, frame, pushBytes);
    i32[word + 2] = requestWord2(batch, frame, 0);
  }

  protected override flush(count: number): number {
    const { fd, addresses, frameBytes, headerBytes } = this;
    let sent = 0;
    for (let slot = 0; slot < count; slot++) {
      const bytes = frameBytes[slot];
      if (libc.writeAt(fd, addresses[slot], headerBytes + bytes) >= 0) {
        // The lengths of those that went stand together at the beginning, to be counted.
        frameBytes[sent++] = bytes;
      } else if (this.#takesNoMore(lastErrno())) break;
    }
    return sent;
  }

  #takesNoMore(errno: number): boolean {
    if (errno === EBADFD || errno === ERRNO.EBADF) this.fail(errno);
    // EAGAIN: the socket's buffer is full; EIO: the link is down. Anything else is about this one frame.
    return this.fault !== 0 || errno === ERRNO.EAGAIN || errno === ERRNO.EIO;
  }
}

/**
 * Address of each slot. An array whose elements V8 keeps as objects: read from it, a number this large is passed
 * on as it lies there, while one that was just calculated or came out of an array of doubles would be allocated
 * anew for every call.
 */
function slotAddresses({ address, slotBytes, slotCount }: SlotLayout): readonly number[] {
  const addresses: unknown[] = new Array(slotCount).fill(null);
  for (let slot = 0; slot < slotCount; slot++) addresses[slot] = address + slot * slotBytes;
  return addresses as number[];
}
