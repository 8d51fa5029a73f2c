/** The ring layouts that the embedded driver speaks, by name: how to make one, and how much memory it takes. */
import type { RingLayoutKind } from '../vring/attachment.ts';
import type { DriverLayout, LayoutOptions } from './driver-layout.ts';
import { PackedDriverLayout, packedLayoutBytes } from './packed-layout.ts';
import { SplitDriverLayout, splitLayoutBytes } from './split-layout.ts';

type LayoutEntry = {
  /** @throws RangeError: no ring of this layout has that size, or the memory is used up */
  make(options: LayoutOptions): DriverLayout;
  /** Bytes of guest memory for a ring of `size` descriptors, without what alignment may waste. */
  bytes(size: number): number;
};

export const DRIVER_LAYOUTS: Readonly<Record<RingLayoutKind, LayoutEntry>> = {
  split: { make: (options) => new SplitDriverLayout(options), bytes: splitLayoutBytes },
  packed: { make: (options) => new PackedDriverLayout(options), bytes: packedLayoutBytes },
};
