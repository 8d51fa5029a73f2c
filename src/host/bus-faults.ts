/**
 * Memory of a guest that is not there when it is touched: its file was shortened or got a hole, its tmpfs is full,
 * there are no hugepages left. The kernel answers such an access with SIGBUS, whose default ends the process, and with
 * it every guest. This file places the handler of bus-fault-code.ts, tells it which addresses are a guest's, and tells
 * who asks what it met. One for the process, for all its threads; everything here is called on the main thread.
 */
import assert from 'node:assert';
import { busFaultListing, GRANULE_BYTES, machineCode, WORDS_OFFSET_BYTES } from './bus-fault-code.ts';
import { createEventFd, drainFd } from './descriptor.ts';
import { checked } from './errors.ts';
import { descriptorLoop, type Watch } from './event-loop.ts';
import { libc } from './libc.ts';
import { makeExecutable, reserveAddressSpace, viewMemory } from './mapping.ts';

/** Bits of a user's address: 47 on x86-64, 48 on arm64. */
const ADDRESS_BITS = 48;
const TABLE_ENTRIES = 2 ** ADDRESS_BITS / GRANULE_BYTES;
const ENTRY_BYTES = 2;
/**
 * The most memory that one fault replaces, where the pages are no larger: few faults, so few pieces of address space
 * (vm.max_map_count), and pages given back in less than a millisecond. A guest that lost a page is lost whole.
 */
const UNIT_BYTES_MAX = 2 ** 27;

const SIGBUS = 7;
const SA_SIGINFO = 4;
/** A thread that has a stack for signals of its own takes it. */
const SA_ONSTACK = 0x0800_0000;
const SA_RESTART = 0x1000_0000;
/** glibc's struct sigaction: handler 8, mask 128, flags 4 and 4 unused, restorer 8. */
const SIGACTION_BYTES = 152;
const SIGACTION_FLAGS_OFFSET = 136;

export class BusFaults {
  /** The handler's table: unit and mark of each 2 MiB of addresses. Untouched parts cost nothing. */
  readonly #table: Uint8Array;
  readonly #eventFd = createEventFd();
  readonly #listeners = new Set<() => void>();
  #watch: Watch | null = null;

  /** For `busFaults`. @throws HostError */
  constructor(listing: string) {
    const tableBytes = TABLE_ENTRIES * ENTRY_BYTES;
    const tableAddress = reserveAddressSpace(tableBytes);
    this.#table = new Uint8Array(viewMemory(tableAddress, tableBytes));
    install(placeHandler(listing, tableAddress, this.#eventFd));
  }

  /**
   * A guest's memory lies at these addresses now. Its 2 MiB parts are nobody else's, also where it fills only some of
   * one. `pageBytes`: of the file, which `address` and `sizeBytes` are multiples of.
   */
  cover(address: number, sizeBytes: number, pageBytes: number): void {
    const { first, end } = granulesOf(address, sizeBytes);
    const minBytes = Math.max(GRANULE_BYTES, pageBytes);
    const maxBytes = Math.max(UNIT_BYTES_MAX, pageBytes);
    for (let at = first; at < end; ) {
      const unitBytes = largestUnit(at * GRANULE_BYTES, end * GRANULE_BYTES, minBytes, maxBytes);
      const next = at + unitBytes / GRANULE_BYTES;
      for (; at < next; at++) this.#table[at * ENTRY_BYTES] = Math.log2(unitBytes);
    }
  }

  /** They are not any more, and what was met there is forgotten. */
  uncover(address: number, sizeBytes: number): void {
    const { first, end } = granulesOf(address, sizeBytes);
    this.#table.fill(0, first * ENTRY_BYTES, end * ENTRY_BYTES);
  }

  /** Whether memory was not there when it was touched, within the 2 MiB parts that this range lies in. */
  wasHit(address: number, sizeBytes: number): boolean {
    const { first, end } = granulesOf(address, sizeBytes);
    for (let at = first; at < end; at++) if (this.#table[at * ENTRY_BYTES + 1] !== 0) return true;
    return false;
  }

  /** Calls `onFault` soon after memory of any guest was not there. An open watch keeps the process alive. */
  watch(onFault: () => void): Watch {
    const listener = (): void => onFault();
    this.#listeners.add(listener);
    this.#watch ??= descriptorLoop().watch(this.#eventFd, () => {
      drainFd(this.#eventFd);
      for (const tell of [...this.#listeners]) tell();
    });
    return {
      close: () => {
        this.#listeners.delete(listener);
        if (this.#listeners.size > 0) return;
        this.#watch?.close();
        this.#watch = null;
      },
    };
  }
}

let ofProcess: BusFaults | null = null;

/** Those of this process, from the first call on; null on a processor that we have no handler for. @throws HostError */
export function busFaults(): BusFaults | null {
  const listing = busFaultListing(process.arch);
  if (listing !== null) ofProcess ??= new BusFaults(listing);
  return ofProcess;
}

function granulesOf(address: number, sizeBytes: number): { first: number; end: number } {
  return {
    first: Math.floor(address / GRANULE_BYTES),
    end: Math.ceil((address + sizeBytes) / GRANULE_BYTES),
  };
}

/** The largest power of two from `minBytes` to `maxBytes` that begins at a multiple of itself and ends in time. */
function largestUnit(start: number, end: number, minBytes: number, maxBytes: number): number {
  let unitBytes = maxBytes;
  while (unitBytes > minBytes && (start % unitBytes !== 0 || start + unitBytes > end)) unitBytes /= 2;
  assert(start % unitBytes === 0 && start + unitBytes <= end, 'memory lies at a multiple of its page size');
  return unitBytes;
}

/** Answers the handler's address. On arm64 the kernel makes new code visible when a page becomes executable first. */
function placeHandler(listing: string, tableAddress: number, eventFd: number): number {
  const address = reserveAddressSpace(2 * WORDS_OFFSET_BYTES);
  const memory = viewMemory(address, 2 * WORDS_OFFSET_BYTES);
  new Uint8Array(memory).set(machineCode(listing));
  const words = new BigUint64Array(memory, WORDS_OFFSET_BYTES, 4);
  words.set([BigInt(tableAddress), BigInt(TABLE_ENTRIES), BigInt(eventFd), 1n]);
  makeExecutable(address, WORDS_OFFSET_BYTES);
  return address;
}

function install(handlerAddress: number): void {
  const action = new Uint8Array(SIGACTION_BYTES);
  const view = new DataView(action.buffer);
  view.setBigUint64(0, BigInt(handlerAddress), true);
  view.setInt32(SIGACTION_FLAGS_OFFSET, SA_SIGINFO | SA_ONSTACK | SA_RESTART, true);
  checked(libc.sigaction(SIGBUS, action, null), 'sigaction(SIGBUS)', 'surviving memory that is not there');
}
