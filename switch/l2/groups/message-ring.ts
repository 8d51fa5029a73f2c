/**
 * Messages about groups on their way from one worker to the main thread: copies in a ring of shared memory, bounded, never
 * waited for. What finds no room is counted and was forwarded all the same. One worker writes, the main thread reads.
 */

/** Of a frame; a longer message is as good as cut off. */
export const MESSAGE_BYTES_MAX = 1536;
const SLOTS = 256;
const HEADER_WORDS = 16;
/** Running numbers of messages written and read. */
const WRITTEN = 0;
const READ = 1;
/** 1: the main thread was told, and has not looked since. */
const TOLD = 2;
const LOST = 3;
/** Of a slot, before its bytes: port, VLAN, bytes. */
const SLOT_WORDS = 4 + MESSAGE_BYTES_MAX / 4;
const RING_BYTES = 4 * (HEADER_WORDS + SLOTS * SLOT_WORDS);

export type SnoopedMessage = { readonly portId: number; readonly vlan: number; readonly frame: Uint8Array };

export function createMessageRing(): SharedArrayBuffer {
  return new SharedArrayBuffer(RING_BYTES);
}

export class MessageRing {
  declare private readonly words: Int32Array<SharedArrayBuffer>;
  /** The bytes of each slot. */
  readonly #slots: readonly Uint8Array[];

  constructor(memory: SharedArrayBuffer) {
    this.words = new Int32Array(memory);
    this.#slots = Array.from(
      { length: SLOTS },
      (_, slot) => new Uint8Array(memory, 4 * (HEADER_WORDS + slot * SLOT_WORDS + 4), MESSAGE_BYTES_MAX),
    );
  }

  /** Messages that found no room, so far. */
  get lost(): number {
    return Atomics.load(this.words, LOST) >>> 0;
  }

  /** Where the next message goes, to be followed by `put`; null: there is no room. Worker. */
  place(): Uint8Array | null {
    const written = this.words[WRITTEN];
    if (((written - Atomics.load(this.words, READ)) | 0) < SLOTS) return this.#slots[written & (SLOTS - 1)];
    Atomics.add(this.words, LOST, 1);
    return null;
  }

  /** What `place` answered is a message of so many bytes. Answers whether the main thread is to be told. */
  put(portId: number, vlan: number, sizeBytes: number): boolean {
    const { words } = this;
    const written = words[WRITTEN];
    const at = HEADER_WORDS + (written & (SLOTS - 1)) * SLOT_WORDS;
    words[at] = portId;
    words[at + 1] = vlan;
    words[at + 2] = sizeBytes;
    Atomics.store(words, WRITTEN, (written + 1) | 0);
    return Atomics.exchange(words, TOLD, 1) === 0;
  }

  /** All that wait, at most a ring full. Main thread. */
  take(): SnoopedMessage[] {
    const { words } = this;
    Atomics.store(words, TOLD, 0);
    const messages: SnoopedMessage[] = [];
    const end = Atomics.load(words, WRITTEN);
    for (let read = words[READ]; read !== end; read = (read + 1) | 0) {
      const slot = read & (SLOTS - 1);
      const at = HEADER_WORDS + slot * SLOT_WORDS;
      messages.push({
        portId: words[at],
        vlan: words[at + 1],
        frame: this.#slots[slot].slice(0, words[at + 2]),
      });
    }
    Atomics.store(words, READ, end);
    return messages;
  }
}
