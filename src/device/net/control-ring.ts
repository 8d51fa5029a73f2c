/**
 * A split ring as the control queue uses it: chain by chain, each walked whole, then marked used. Counts no frames:
 * its chains are commands. Main thread. VIRTIO 1.3, section 2.7.
 */
import assert from 'node:assert/strict';
import type { ArenaView } from '../../memory/arena-view.ts';
import type { RingAttachment } from '../../vring/attachment.ts';
import { type DescriptorList, walkChain } from '../../vring/split-chain.ts';
import { SplitRing } from '../../vring/split-ring.ts';

export function openRing(arena: ArenaView, attachment: RingAttachment): ControlRing {
  assert.equal(attachment.layout, 'split', 'only split rings can be opened');
  return new ControlRing(arena, attachment);
}

export class ControlRing extends SplitRing {
  /** The one place through which bytes other than ring entries are written. */
  readonly writes = {
    byte: (window: number, index: number, value: number): void => {
      this.arena.windows[window].u8[index] = value;
    },
  };
  #walkedHead = 0;

  hasWaiting(): boolean {
    return this.available() > 0;
  }

  /** Walks the next waiting chain into `list`. Answers a RING_FAULT. Call only when `hasWaiting()`. */
  walk(list: DescriptorList): number {
    this.#walkedHead = this.headAt(0);
    return walkChain(this, this.#walkedHead, list);
  }

  /** Marks the chain that was walked as used, with so many bytes written to it, and moves on. */
  useWalked(writtenBytes: number): void {
    this.putUsed(this.#walkedHead, writtenBytes);
    this.availNext = (this.availNext + 1) & 0xffff;
  }
}
