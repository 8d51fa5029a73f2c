/**
 * Where a packed ring stands, noted in the region that its front-end keeps (vhost-user.rst, "Inflight I/O tracking"): the
 * position after a burst before the driver sees that burst, and the same as the old one after that. We use buffers in the
 * order in which they came and have none in hand between two bursts, so no descriptor is ever noted as in flight. Hot path
 * of rings whose front-end wants it.
 */
import { PACKED_INFLIGHT } from '../../../protocol/vhost-user/inflight.ts';
import { POSITION_MASK } from '../../../protocol/virtio/packed-ring.ts';
import type { ArenaView } from '../../memory/arena-view.ts';

/** 16-bit words of the eight bytes that say it: the next position, the old one, both wrap counters, padding. */
const NEXT = 0;
const OLD = 1;
/** A byte each: the old one is the upper. */
const WRAP_COUNTERS = 2;
const PADDING = 3;

export class InflightWords {
  /**
   * The eight bytes as one element, so that they change at once: with one after the other a sudden end in between would
   * leave a position that cannot be told from another one. As the upper ones are zero, they never are a number that V8
   * would change by copying it.
   */
  declare private readonly region: Float64Array;
  declare private readonly eight: Float64Array;
  declare private readonly words: Uint16Array;

  constructor(arena: ArenaView, regionOffset: number) {
    this.region = new Float64Array(arena.buffer, regionOffset + PACKED_INFLIGHT.usedIdx, 1);
    this.eight = new Float64Array(1);
    this.words = new Uint16Array(this.eight.buffer);
  }

  /** A burst from `old` to `next`, with their wrap counters in bit 15, is about to become visible. */
  begin(old: number, next: number): void {
    const { words } = this;
    words[NEXT] = next & POSITION_MASK;
    words[OLD] = old & POSITION_MASK;
    words[WRAP_COUNTERS] = (next >> 15) | ((old >> 15) << 8);
    words[PADDING] = 0;
    this.region[0] = this.eight[0];
  }

  /** It is visible. */
  end(position: number): void {
    this.begin(position, position);
  }
}
