/**
 * A thread of the system that makes one call of libc and ends: for calls that may not end for as long as a peer likes,
 * of which Node's pool has no thread to spare. There is no JavaScript in it: it starts in libc's function itself. A
 * thread's start takes one pointer and answers one; on x86-64 and arm64 an `int` comes in the same register, and what it
 * answers is not read. Nobody is told of its end, so it has to be looked at. Main thread.
 */
import assert from 'node:assert';
import { libc } from './libc.ts';

/** More than any pthread_attr_t has. */
const ATTRIBUTES_BYTES = 128;
/** A system call needs next to none; what libraries keep for each thread lies here as well. Untouched, it costs nothing. */
const STACK_BYTES = 2 ** 18;

let attributes: Uint8Array | null = null;

function threadAttributes(): Uint8Array {
  if (attributes !== null) return attributes;
  attributes = new Uint8Array(ATTRIBUTES_BYTES);
  assert.equal(libc.pthread_attr_init(attributes), 0);
  assert.equal(libc.pthread_attr_setstacksize(attributes, STACK_BYTES), 0);
  return attributes;
}

export class NativeThread {
  readonly #id: number;

  private constructor(id: number) {
    this.#id = id;
  }

  /** Calls the function at an address with a number; null: the system allows no more threads (pids.max, ulimit -u). */
  static start(functionAddress: number, argument: number): NativeThread | null {
    const id = new BigInt64Array(1);
    if (libc.pthread_create(id, threadAttributes(), functionAddress, argument) !== 0) return null;
    return new NativeThread(Number(id[0]));
  }

  /** Whether the call has ended. After that it is not asked again. */
  isOver(): boolean {
    return libc.pthread_tryjoin_np(this.#id, 0) === 0;
  }
}
