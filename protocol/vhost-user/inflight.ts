/**
 * The buffer in which a back-end notes which descriptors it has in hand, and which a front-end keeps for it (vhost-user.rst,
 * "Inflight I/O tracking"): a region a queue, one after the other, each with a head and a state for each descriptor.
 * Offsets and sizes in bytes, everything little endian.
 */
export const INFLIGHT_VERSION = 1;
/** Regions begin at multiples of this, as with DPDK and libvhost-user. */
export const INFLIGHT_ALIGN = 64;

/** struct QueueRegionSplit and DescStateSplit. */
export const SPLIT_INFLIGHT = {
  headBytes: 16,
  stateBytes: 16,
  version: 8,
  descNum: 10,
  lastBatchHead: 12,
  usedIdx: 14,
  /** Of a state. */
  inflight: 0,
  next: 6,
  counter: 8,
} as const;

/** struct QueueRegionPacked and DescStatePacked. */
export const PACKED_INFLIGHT = {
  headBytes: 32,
  stateBytes: 32,
  version: 8,
  descNum: 10,
  freeHead: 12,
  oldFreeHead: 14,
  usedIdx: 16,
  oldUsedIdx: 18,
  usedWrapCounter: 20,
  oldUsedWrapCounter: 21,
  /** Of a state. */
  inflight: 0,
  next: 2,
  last: 4,
  num: 6,
  counter: 8,
  addr: 24,
} as const;
