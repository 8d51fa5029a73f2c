/**
 * Loads from memory that somebody else writes at the same time, where the order counts: the other side of a ring, driver
 * or device, or another thread (switch/l2/fdb). On x86-64 the processor keeps the order of loads, and V8 neither moves
 * nor merges loads of typed arrays, so a plain load will do. Elsewhere the load is atomic (a call in V8): no later load
 * of this thread overtakes it, and it does not overtake an earlier `Atomics.store`, as atomic accesses have one order
 * for all threads. The second is what an interrupt depends on: what was used is stored first, and the driver's wish to
 * be signalled is read after; so is a kick.
 */
const PLAIN_LOADS_STAY_IN_ORDER = process.arch === 'x64';

export function loadOrdered16(words: Uint16Array, at: number): number {
  return PLAIN_LOADS_STAY_IN_ORDER ? words[at] : Atomics.load(words, at);
}

export function loadOrdered32(words: Int32Array, at: number): number {
  return PLAIN_LOADS_STAY_IN_ORDER ? words[at] : Atomics.load(words, at);
}
