/**
 * What a driver can do wrong with a virtqueue. A fault stops that ring, with this reason shown to the user,
 * and nothing else. Codes are small integers so that hot code can return and store them.
 */
export const RING_FAULT = {
  NONE: 0,
  AVAIL_JUMP: 1,
  HEAD_OUT_OF_RANGE: 2,
  NEXT_OUT_OF_RANGE: 3,
  CHAIN_LOOP: 4,
  INDIRECT_NOT_NEGOTIATED: 5,
  INDIRECT_NESTED: 6,
  INDIRECT_WITH_NEXT: 7,
  INDIRECT_LENGTH: 8,
  INDIRECT_ADDRESS: 9,
  BUFFER_ADDRESS: 10,
  CHAIN_SHORTER_THAN_HEADER: 11,
  WRITABLE_FROM_GUEST: 12,
  READABLE_TO_GUEST: 13,
  COMMAND_TOO_LONG: 14,
  COMMAND_WITHOUT_ANSWER: 15,
  CHAIN_TOO_LONG: 16,
  INDIRECT_SCATTERED: 17,
} as const;

/**
 * In place of a fault, in the worker only: the ring is behind an IOMMU and stays where it is until what it needs has
 * been translated (Ring.misses).
 */
export const PARKED = -1;
/** The same of a ring that may not be touched, because where it lies itself has no translation now (Ring.setMemory). */
export const PAUSED = -2;

const MESSAGES: readonly string[] = [
  'no fault',
  'the avail index moved by more than the queue size',
  'a descriptor chain starts outside the descriptor table',
  'a descriptor names a next one outside its table',
  'a descriptor chain is longer than its table (a loop)',
  'an indirect descriptor although INDIRECT_DESC was not negotiated',
  'an indirect table holds an indirect descriptor',
  'an indirect descriptor has a next one',
  'an indirect table is empty, too long or no multiple of 16 bytes',
  'an indirect table lies outside the shared memory',
  'a buffer lies outside the shared memory',
  'a descriptor chain is shorter than the virtio-net header',
  'a device-writable buffer in a chain that the guest sends',
  'a device-readable buffer in a chain that the guest receives with',
  'a control command is longer than 65,536 bytes',
  'a control command without a writable buffer for its answer',
  'a descriptor chain has more than 96 descriptors',
  'an indirect table is not contiguous in the shared memory',
];

export function faultMessage(fault: number): string {
  return MESSAGES[fault] ?? `ring fault ${fault}`;
}
