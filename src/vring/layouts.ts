/** Which layouts there are: the one place that knows them all. */
import type { ArenaView } from '../memory/arena-view.ts';
import type { RingAttachment, RingLayoutKind } from './attachment.ts';
import type { RingLayout } from './layout.ts';
import { PackedLayout } from './packed/layout.ts';
import { SplitLayout } from './split/layout.ts';

/** Makes the layout of a ring; `load` then tells it where the ring stands. */
export type OpenLayout = (arena: ArenaView, attachment: RingAttachment) => RingLayout;

export const LAYOUTS: Readonly<Record<RingLayoutKind, OpenLayout>> = {
  split: (arena, attachment) => new SplitLayout(arena, attachment),
  packed: (arena, attachment) => new PackedLayout(arena, attachment),
};
