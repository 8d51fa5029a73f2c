/**
 * Where a packed ring stands, noted in the region that its front-end keeps (vhost-user.rst, "Inflight I/O tracking"): the
 * position after a burst before the driver sees that burst, and the same as the old one after that. We use buffers in the
 * order in which they came and have none in hand between two bursts, so no descriptor is ever noted as in flight. Hot path
 * of rings whose front-end wants it.
 */
import { PACKED_INFLIGHT } from '../../../protocol/vhost-user/inflight.ts';
import { POSITION_MASK } from '../../../protocol/virtio/packed-ring.ts';
import type { ArenaView } from '../../memory/arena-view.ts';

const USED_IDX = PACKED_INFLIGHT.usedIdx >> 1;
const OLD_USED_IDX = PACKED_INFLIGHT.oldUsedIdx >> 1;
/** Both wrap counters, a byte each: the old one is the upper. */
const WRAP_COUNTERS = PACKED_INFLIGHT.usedWrapCounter >> 1;

export class InflightWords {
  declare private readonly words: Uint16Array;

  constructor(arena: ArenaView, regionOffset: number) {
    this.words = new Uint16Array(arena.buffer, regionOffset, PACKED_INFLIGHT.headBytes >> 1);
  }

  /** A burst that ends at `position`, its wrap counter in bit 15, is about to become visible. */
  begin(position: number): void {
    const { words } = this;
    words[WRAP_COUNTERS] = (words[WRAP_COUNTERS] & 0xff00) | (position >> 15);
    words[USED_IDX] = position & POSITION_MASK;
  }

  /** It is visible. */
  end(position: number): void {
    const { words } = this;
    words[OLD_USED_IDX] = position & POSITION_MASK;
    words[WRAP_COUNTERS] = (position >> 15) | ((position >> 15) << 8);
  }
}
