/**
 * Who gets which frame: takes bursts from a guest's queue, learns where addresses live, and gives each frame
 * to the port that owns its destination, or to all others (unknown, broadcast, multicast), never back to its
 * sender. Hot path of one worker; allocates nothing.
 */
import { FRAME_BYTES_MAX } from '../../protocol/ethernet.ts';
import type { ArenaView } from '../../src/memory/arena-view.ts';
import {
  type EgressQueue,
  GIVE_DONE,
  GIVE_FAULT,
  GIVE_NO_BUFFER,
  type IngressQueue,
  TAKE_FAULT,
  TAKE_FRAME,
  TAKE_TOO_LONG,
  TAKE_TOO_SHORT,
} from '../../src/queue/contract.ts';
import { Frame } from '../../src/queue/frame.ts';
import type { MirrorQueue } from '../../src/queue/mirror.ts';
import { DROP } from './drop-reasons.ts';
import type { Fdb } from './fdb/fdb.ts';
import { flowHash, queueOfHash } from './flow-hash.ts';

/** Most frames taken from a queue before the next queue has its turn and used entries are published. */
export const BURST_FRAMES_MAX = 64;

/**
 * A burst whose destinations were looked up ahead in vain, for they lie behind many ports: so many bursts go
 * without. From this table size on looking ahead pays in any case, as its slots are in no near cache.
 */
const LOOK_AHEAD_PAUSE_BURSTS = 32;
const LOOK_AHEAD_ALWAYS_FROM_ADDRESSES = 2048;
/** A shorter run is not worth its beginning. */
const MIXED_RUN_FRAMES_MIN = 4;
/** The half of the second address word that is the source's. */
const SOURCE_MASK1 = 0xffff0000 | 0;

/** A port as one worker sees it. */
export class ForwardingPort {
  declare readonly id: number;
  /** The queues that this worker fills; `queueCount` of them. */
  queues: readonly EgressQueue[] = [];
  queueCount = 0;
  frameBytesMax = FRAME_BYTES_MAX;
  /** Ports that get a copy of each frame to and from this one; null: none, so its frames may move in runs. */
  mirrors: readonly ForwardingPort[] | null = null;
  /** Where copies for this port go, if it is one that gets nothing but copies and is ready. */
  mirrorQueue: MirrorQueue | null = null;
  /** This worker's counters, indexed by DROP. */
  declare readonly drops: Float64Array;

  constructor(id: number, drops: Float64Array) {
    this.id = id;
    this.drops = drops;
  }
}

/** Called when a queue is stopped because of a fault; again each time it is met. */
export type FaultListener = (queue: IngressQueue | EgressQueue) => void;

export class Forwarder {
  /** The running seconds clock that ages addresses. */
  nowTick = 0;
  declare private readonly frame: Frame;
  declare private readonly fdb: Fdb;
  declare private readonly onFault: FaultListener;
  /** Ports by id; `#all` has the same without gaps, for flooding. */
  readonly #portOfId: (ForwardingPort | undefined)[] = [];
  #all: ForwardingPort[] = [];
  /** Ports that get copies instead of switched frames, and of which ports. */
  readonly #copied = new Map<number, readonly number[]>();
  /** Queues that got frames in this burst and are not yet published. */
  readonly #open: EgressQueue[] = [];
  /**
   * Addresses of the last frame in this burst, and where frames to its destination go (null: to all others).
   * A burst is too short for the table to change in a way that matters, and most of it is one flow.
   */
  private known = false;
  private word0 = 0;
  private word1 = 0;
  private word2 = 0;
  private target: ForwardingPort | null = null;
  #openCount = 0;
  /** Whether the owners of all destinations in the rest of this burst were looked up ahead. */
  private lookedAhead = false;
  /** Destination of a frame further back in the queue, two words; the third keeps what `touch` answered. */
  declare private readonly ahead: Int32Array;
  declare private readonly aheadMacLo: Int32Array;
  declare private readonly aheadMacHi: Int32Array;
  declare private readonly aheadHomes: Int32Array;
  /** Owners of the destinations in the order of the burst, up to its last frame; -1: none, or not looked up. */
  declare private readonly aheadOwners: Int32Array;
  private aheadCount = 0;
  private lookAheadPause = 0;
  /** Flow hash of the current frame, or -1 while nobody asked for it. */
  #hash = -1;

  constructor(arena: ArenaView, fdb: Fdb, onFault: FaultListener) {
    this.frame = new Frame(arena);
    this.fdb = fdb;
    this.ahead = new Int32Array(3);
    this.aheadMacLo = new Int32Array(BURST_FRAMES_MAX);
    this.aheadMacHi = new Int32Array(BURST_FRAMES_MAX);
    this.aheadHomes = new Int32Array(BURST_FRAMES_MAX);
    this.aheadOwners = new Int32Array(BURST_FRAMES_MAX);
    this.onFault = onFault;
  }

  addPort(port: ForwardingPort): void {
    while (this.#portOfId.length <= port.id) this.#portOfId.push(undefined);
    this.#portOfId[port.id] = port;
    this.#all = [...this.#all, port];
  }

  removePort(id: number): void {
    this.#portOfId[id] = undefined;
    this.#all = this.#all.filter((port) => port.id !== id);
    if (this.#copied.delete(id)) this.#refreshMirrors();
  }

  port(id: number): ForwardingPort | undefined {
    return this.#portOfId[id];
  }

  /** From now on the port gets copies of all frames to and from these ports, and nothing that is switched. */
  setCopied(id: number, sourceIds: readonly number[]): void {
    this.#copied.set(id, sourceIds);
    this.#all = this.#all.filter((port) => port.id !== id);
    this.#refreshMirrors();
  }

  #refreshMirrors(): void {
    for (const port of this.#portOfId) {
      if (port === undefined) continue;
      const mirrors = this.#portOfId.filter(
        (other) => other !== undefined && this.#copied.get(other.id)?.includes(port.id),
      ) as ForwardingPort[];
      port.mirrors = mirrors.length === 0 ? null : mirrors;
    }
  }

  /** Forwards up to BURST_FRAMES_MAX waiting frames. Answers how many it took. */
  forwardBurst(from: IngressQueue): number {
    const waiting = from.available();
    if (waiting === 0) {
      if (from.fault !== 0) this.onFault(from);
      return 0;
    }
    const count = Math.min(waiting, BURST_FRAMES_MAX);
    const port = this.#portOfId[from.portId]!;
    from.readAhead(count);
    const frame = this.frame;
    const { mirrors } = port;
    const mayRun = mirrors === null;
    this.known = false;
    this.lookedAhead = false;
    let isOneFlow = true;
    let movedMixed = 0;
    for (let i = 0; i < count; i++) {
      if (this.known && mayRun && (isOneFlow || this.lookedAhead)) {
        const framesLeft = count - i;
        const moved = this.lookedAhead
          ? this.#moveMixedRun(port, from, framesLeft)
          : this.#moveRun(port, from, framesLeft);
        isOneFlow = moved !== 0;
        if (this.lookedAhead) movedMixed += moved;
        i += moved;
        if (i === count) break;
      }
      const result = from.take(frame);
      if (result === TAKE_FRAME) {
        if (mirrors !== null) this.#mirror(mirrors, port.id, frame, true);
        this.#forward(port, from, frame, count - i);
      } else if (result === TAKE_FAULT) {
        break;
      } else {
        countUntaken(port, result);
      }
      from.release();
    }
    if (this.lookedAhead && 2 * movedMixed < this.aheadCount) this.lookAheadPause = LOOK_AHEAD_PAUSE_BURSTS;
    else if (this.lookAheadPause > 0) this.lookAheadPause--;
    this.#closeQueues();
    from.publish();
    if (from.fault !== 0) this.onFault(from);
    return count;
  }

  /** `framesLeft` counts this one. */
  #forward(sender: ForwardingPort, from: IngressQueue, frame: Frame, framesLeft: number): void {
    this.#hash = -1;
    const at = frame.headIndex;
    // Both addresses as three words: destination, then source.
    let word0 = 0;
    let word1 = 0;
    let word2 = 0;
    if ((at & 3) === 0) {
      const head32 = frame.head32;
      const at32 = at >> 2;
      word0 = head32[at32];
      word1 = head32[at32 + 1];
      word2 = head32[at32 + 2];
    } else if ((at & 1) === 0) {
      const head16 = frame.head16;
      const at16 = at >> 1;
      word0 = head16[at16] | (head16[at16 + 1] << 16);
      word1 = head16[at16 + 2] | (head16[at16 + 3] << 16);
      word2 = head16[at16 + 4] | (head16[at16 + 5] << 16);
    } else {
      const head = frame.head;
      word0 = wordAt(head, at);
      word1 = wordAt(head, at + 4);
      word2 = wordAt(head, at + 8);
    }
    if (!this.known || word0 !== this.word0 || word1 !== this.word1 || word2 !== this.word2) {
      // A second flow in the burst: there may be as many as frames.
      if (this.known && !this.lookedAhead) this.#lookAhead(from, framesLeft);
      this.#route(sender, word0, word1, word2);
    }
    const target = this.target;
    if (target === null) this.#flood(sender, frame);
    else if (target === sender) sender.drops[DROP.samePort] += 1;
    else this.#deliver(target, frame);
  }

  /**
   * Moves frames of the last frame's flow without looking at each here, where they all go into one queue.
   * Answers how many; after none the rest of the burst is forwarded one by one.
   */
  #moveRun(sender: ForwardingPort, from: IngressQueue, framesMax: number): number {
    const target = this.target;
    if (target === null || target === sender || !canRunTo(target)) return 0;
    const queue = target.queues[0];
    if (!queue.open) this.#openQueue(queue);
    return queue.giveRun(from, framesMax, this.word0, this.word1, this.word2, -1, -1, target.frameBytesMax);
  }

  /**
   * The same for frames of one source to many destinations, as far as what was read ahead has them all at the
   * last frame's target.
   */
  #moveMixedRun(sender: ForwardingPort, from: IngressQueue, framesLeft: number): number {
    const target = this.target;
    if (target === null || target === sender || !canRunTo(target)) return 0;
    const owners = this.aheadOwners;
    const start = this.aheadCount - framesLeft;
    let end = start;
    while (end < this.aheadCount && owners[end] === target.id) end++;
    if (end - start < MIXED_RUN_FRAMES_MIN) return 0;
    const queue = target.queues[0];
    if (!queue.open) this.#openQueue(queue);
    const sourceWord1 = this.word1 & SOURCE_MASK1;
    return queue.giveRun(
      from,
      end - start,
      0,
      sourceWord1,
      this.word2,
      0,
      SOURCE_MASK1,
      target.frameBytesMax,
    );
  }

  /** Learns where the source is and finds out where the destination is. */
  #route(sender: ForwardingPort, word0: number, word1: number, word2: number): void {
    this.known = true;
    this.word0 = word0;
    this.word1 = word1;
    this.word2 = word2;
    this.fdb.learn((word1 >>> 16) | (word2 << 16), word2 >>> 16, 0, sender.id, this.nowTick);
    // Bit 0 of the first byte: a group address.
    const owner = (word0 & 1) !== 0 ? -1 : this.fdb.lookup(word0, word1 & 0xffff, 0);
    this.target = owner < 0 ? this.#onlyOther(sender) : (this.#portOfId[owner] ?? null);
  }

  /**
   * Looks up the destinations of the coming frames in three short loops: what the frames say, the table's
   * slots, the owners. In a short loop the processor asks memory for many slots at once; met one by one, each
   * would be waited for.
   */
  #lookAhead(from: IngressQueue, framesLeft: number): void {
    const { fdb, ahead, aheadMacLo, aheadMacHi, aheadHomes, aheadOwners } = this;
    if (this.lookAheadPause > 0 && fdb.size < LOOK_AHEAD_ALWAYS_FROM_ADDRESSES) return;
    this.lookedAhead = true;
    this.aheadCount = framesLeft;
    for (let i = 0; i < framesLeft; i++) {
      // A group address stands for none: the forwarder floods it.
      const isKnown = from.destinationAhead(i, ahead) && (ahead[0] & 1) === 0;
      aheadMacLo[i] = isKnown ? ahead[0] : 1;
      aheadMacHi[i] = ahead[1] & 0xffff;
      aheadHomes[i] = fdb.homeOf(ahead[0], ahead[1] & 0xffff, 0);
    }
    ahead[2] = fdb.touch(aheadHomes, framesLeft);
    for (let i = 0; i < framesLeft; i++) {
      aheadOwners[i] = aheadMacLo[i] === 1 ? -1 : fdb.lookup(aheadMacLo[i], aheadMacHi[i], 0);
    }
  }

  /** Where flooding comes to: on a switch of two ports the other one, otherwise null for all of them. */
  #onlyOther(sender: ForwardingPort): ForwardingPort | null {
    const ports = this.#all;
    if (ports.length !== 2) return null;
    return ports[0] === sender ? ports[1] : ports[0];
  }

  #flood(sender: ForwardingPort, frame: Frame): void {
    const ports = this.#all;
    for (let i = 0; i < ports.length; i++) {
      const port = ports[i];
      if (port !== sender) this.#deliver(port, frame);
    }
  }

  #deliver(port: ForwardingPort, frame: Frame): void {
    if (port.queueCount === 0) {
      port.drops[DROP.notReady] += 1;
      return;
    }
    if (frame.totalBytes > port.frameBytesMax) {
      port.drops[DROP.overMtu] += 1;
      return;
    }
    const queue = port.queueCount === 1 ? port.queues[0] : this.#queueFor(port, frame);
    if (!queue.open) this.#openQueue(queue);
    const result = queue.give(frame);
    if (result !== GIVE_DONE) this.#countUndelivered(port, queue, result);
    else if (port.mirrors !== null) this.#mirror(port.mirrors, port.id, frame, false);
  }

  /** Copies a frame that came in from a port, or was given to it; what is lost here is the mirror's loss alone. */
  #mirror(mirrors: readonly ForwardingPort[], portId: number, frame: Frame, isIngress: boolean): void {
    for (let i = 0; i < mirrors.length; i++) {
      const mirror = mirrors[i];
      const queue = mirror.mirrorQueue;
      if (queue === null) {
        mirror.drops[DROP.notReady] += 1;
        continue;
      }
      if (!queue.open) this.#openQueue(queue);
      const result = queue.mirror(frame, portId, isIngress);
      if (result !== GIVE_DONE) this.#countUndelivered(mirror, queue, result);
    }
  }

  #queueFor(port: ForwardingPort, frame: Frame): EgressQueue {
    if (this.#hash < 0) this.#hash = flowHash(frame);
    return port.queues[queueOfHash(this.#hash, port.queueCount)];
  }

  /** Waiting for another worker's burst is allowed only while holding nothing that it could wait for. */
  #openQueue(queue: EgressQueue): void {
    if (!queue.tryBegin()) {
      this.#closeQueues();
      queue.begin();
    }
    this.#open[this.#openCount++] = queue;
  }

  #closeQueues(): void {
    for (let i = 0; i < this.#openCount; i++) this.#open[i].end();
    this.#openCount = 0;
  }

  #countUndelivered(port: ForwardingPort, queue: EgressQueue, result: number): void {
    if (result === GIVE_FAULT) {
      port.drops[DROP.queueStopped] += 1;
      this.onFault(queue);
    } else if (result === GIVE_NO_BUFFER) {
      port.drops[DROP.noBuffer] += 1;
    } else {
      port.drops[DROP.bufferTooSmall] += 1;
    }
  }
}

/** Whether all frames for the port go into one queue and nowhere else. */
function canRunTo(target: ForwardingPort): boolean {
  return target.queueCount === 1 && target.mirrors === null;
}

function countUntaken(port: ForwardingPort, result: number): void {
  if (result === TAKE_TOO_LONG) port.drops[DROP.tooLong] += 1;
  else if (result === TAKE_TOO_SHORT) port.drops[DROP.tooShort] += 1;
  else port.drops[DROP.tooScattered] += 1;
}

function wordAt(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
}
