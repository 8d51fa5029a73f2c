/**
 * Bursts of frames from and to one queue of a device: what DPDK's inline functions rte_eth_rx_burst and
 * rte_eth_tx_burst do, by the function pointers of the table rte_eth_fp_ops (callbacks registered with ethdev are not
 * called). Frames lie in an MbufPool, so every field is read and written through the arena's windows. Hot path of one
 * thread at a time; a burst allocates nothing.
 */

import { FRAME_BYTES_MAX, FRAME_BYTES_MIN } from '../../protocol/ethernet.ts';
import { viewMemory } from '../host/mapping.ts';
import { functionAt } from '../host/shared-library.ts';
import type { ArenaView } from '../memory/arena-view.ts';
import { WINDOW_BYTES } from '../memory/window.ts';
import type { Batch } from '../queue/batch.ts';
import { HEADROOM_BYTES } from './layout.ts';
import { type Dpdk, loadDpdk } from './library.ts';
import type { MbufPoolLocation } from './mempool.ts';

export const BURST_MBUFS = 64;
/** Pieces of a frame that are followed at most; a device makes few. All frames of a burst then fit a batch. */
const SEGMENTS_MAX = 64;
const LIST_BYTES = 4096;
/** mbufs behind the first ones of frames that lie in several, between two flushes; beyond them the pool may run short. */
export const CHAINED_MBUFS_MAX = 256;
/** Word of a list's page that says how many mbufs an egress queue holds; any thread with the queue's lock. */
const HELD_WORD = LIST_BYTES / 4 - 1;

/** One queue of a started device, as any thread can use it; plain data. */
export type DpdkQueueLocation = {
  /** Address of the driver's burst function: uint16_t (*)(queue, pointers, count). */
  readonly burst: number;
  /** The driver's name for the queue, a pointer. */
  readonly queue: number;
  /** Of a transmit queue: address of the driver's function that looks at frames with requests before; 0: has none. */
  readonly prepare: number;
  /** Of a transmit queue: TX_OFFLOAD bits (layout.ts) that it was set up with. */
  readonly txOffloads: number;
  readonly pool: MbufPoolLocation;
  /** Which of the pool's lists this queue uses. */
  readonly list: number;
};

type BurstFunction = (queue: number, mbufs: number, count: number) => number;

/** Where a queue of a started port is to be called. Changes when the port is stopped. */
export function queueOf(
  dpdk: Dpdk,
  portId: number,
  queueIndex: number,
  direction: 'rx' | 'tx',
): { burst: number; queue: number; prepare: number } {
  const { fpOps } = dpdk.layout;
  const ops = dpdk.addresses.ethFpOps + portId * fpOps.sizeBytes;
  const data = pointerAt(ops + (direction === 'rx' ? fpOps.rxqData : fpOps.txqData));
  return {
    burst: pointerAt(ops + (direction === 'rx' ? fpOps.rxPktBurst : fpOps.txPktBurst)),
    queue: pointerAt(data + 8 * queueIndex),
    prepare: direction === 'rx' ? 0 : pointerAt(ops + fpOps.txPktPrepare),
  };
}

/** Address of the function that takes mbufs out of a pool; the pool's kind says which. */
export function dequeueAddress(dpdk: Dpdk, pool: number): number {
  const { mempool, mempoolOps } = dpdk.layout;
  const index = new Int32Array(viewMemory(pool + mempool.opsIndex, 4))[0];
  const { tableOffset, sizeBytes, dequeue } = mempoolOps;
  return pointerAt(dpdk.addresses.mempoolOpsTable + tableOffset + index * sizeBytes + dequeue);
}

export function dequeueFunction(address: number): BurstFunction {
  return functionAt<BurstFunction>(
    address,
    'int ringway_mempool_dequeue(intptr_t pool, intptr_t mbufs, uint32_t count)',
  );
}

function pointerAt(address: number): number {
  return Number(new BigUint64Array(viewMemory(address, 8))[0]);
}

/** What both directions know about the pool's place in its window. */
abstract class Burst {
  declare protected readonly arena: ArenaView;
  declare protected readonly u16: Uint16Array;
  declare protected readonly i32: Int32Array;
  declare readonly windowNumber: number;
  /** Index in the window of the pool's first byte, and its address in two words. */
  declare protected readonly poolIndex: number;
  declare protected readonly poolLo: number;
  declare protected readonly poolHi: number;
  declare protected readonly poolBytes: number;
  /** Index in `i32` of the list's first pointer. */
  declare protected readonly listWord: number;
  /**
   * What is passed to C: address of pointer `i` of the list, then the queue, the pool, and where a second list begins
   * behind the first. V8 keeps the elements as objects: read from here, a number this large is passed on as it lies
   * there instead of being allocated anew.
   */
  declare protected readonly addresses: readonly number[];
  declare protected readonly burst: BurstFunction;

  constructor(arena: ArenaView, location: DpdkQueueLocation) {
    const { pool } = location;
    this.arena = arena;
    this.windowNumber = Math.floor(pool.offset / WINDOW_BYTES);
    const window = arena.windows[this.windowNumber];
    this.u16 = window.u16;
    this.i32 = window.i32;
    this.poolIndex = pool.offset % WINDOW_BYTES;
    this.poolLo = pool.address | 0;
    this.poolHi = Math.floor(pool.address / 2 ** 32);
    this.poolBytes = pool.sizeBytes;
    this.listWord = (this.poolIndex + location.list * LIST_BYTES) >> 2;
    const addresses: unknown[] = new Array(BURST_MBUFS + 3).fill(null);
    const list = pool.address + location.list * LIST_BYTES;
    for (let i = 0; i < BURST_MBUFS; i++) addresses[i] = list + 8 * i;
    addresses[QUEUE] = location.queue;
    addresses[POOL] = pool.pool;
    addresses[SPARE] = list + 8 * BURST_MBUFS;
    this.addresses = addresses as number[];
    this.burst = burstFunction(location.burst);
  }

  /** Index in the window of what the pointer in two words of it points to; -1: not into the pool. */
  protected indexAt(word: number): number {
    const delta = (this.i32[word] - this.poolLo) | 0;
    if (this.i32[word + 1] !== this.poolHi || delta < 0 || delta >= this.poolBytes) return -1;
    return this.poolIndex + delta;
  }
}

const QUEUE = BURST_MBUFS;
const POOL = BURST_MBUFS + 1;
const SPARE = BURST_MBUFS + 2;
const SPARE_WORD = 2 * BURST_MBUFS;

function burstFunction(address: number): BurstFunction {
  return functionAt<BurstFunction>(
    address,
    'uint16_t ringway_burst(intptr_t queue, intptr_t mbufs, uint16_t count)',
  );
}

export class RxBurst extends Burst {
  declare private readonly freeBulk: (mbufs: number, count: number) => void;
  declare private readonly layout: Dpdk['layout']['mbuf'];

  constructor(arena: ArenaView, location: DpdkQueueLocation) {
    super(arena, location);
    const dpdk = loadDpdk();
    this.freeBulk = dpdk.functions.pktmbufFreeBulk;
    this.layout = dpdk.layout.mbuf;
  }

  /** Takes up to BURST_MBUFS frames from the device and answers how many; those before must have been freed. */
  receive(): number {
    return this.burst(this.addresses[QUEUE], this.addresses[0], BURST_MBUFS);
  }

  /** Bytes of frame `slot` of the burst; -1: its mbuf is none of the pool. */
  bytesOf(slot: number): number {
    const mbuf = this.indexAt(this.listWord + 2 * slot);
    return mbuf < 0 ? -1 : this.i32[(mbuf + this.layout.pktLen) >> 2];
  }

  /** Index in the window of the frame's first byte, of its first piece if there are several; -1: not in the pool. */
  indexOf(slot: number): number {
    const mbuf = this.indexAt(this.listWord + 2 * slot);
    return mbuf < 0 ? -1 : this.dataOf(mbuf);
  }

  /** Describes frame `slot` in the batch, or counts there why it cannot be. Answers its bytes, 0 if it cannot. */
  describe(slot: number, batch: Batch): number {
    const mbuf = this.indexAt(this.listWord + 2 * slot);
    const index = mbuf < 0 ? -1 : this.dataOf(mbuf);
    if (index < 0) {
      batch.tooScattered++;
      return 0;
    }
    const bytes = this.i32[(mbuf + this.layout.pktLen) >> 2];
    if (bytes < FRAME_BYTES_MIN) batch.tooShort++;
    else if (bytes > FRAME_BYTES_MAX) batch.tooLong++;
    else if (this.u16[(mbuf + this.layout.nbSegs) >> 1] === 1) {
      batch.add(this.windowNumber, index, bytes);
      return bytes;
    } else if (this.describePieces(mbuf, bytes, batch)) return bytes;
    else batch.tooScattered++;
    return 0;
  }

  /** Gives the mbufs of frames `from` to `from + count - 1` of the burst back to their pool. */
  free(from: number, count: number): void {
    this.freeBulk(this.addresses[from], count);
  }

  /**
   * Sends the first `count` frames of the burst by `to` as they are, without a copy, and frees those that its
   * device does not take. Answers how many it took.
   */
  forward(to: TxBurst, count: number): number {
    const sent = to.send(this.addresses[0], count);
    if (sent < count) this.free(sent, count - sent);
    return sent;
  }

  private dataOf(mbuf: number): number {
    const buffer = this.indexAt((mbuf + this.layout.bufAddr) >> 2);
    return buffer < 0 ? -1 : buffer + this.u16[(mbuf + this.layout.dataOff) >> 1];
  }

  /** False where the pieces do not lie in the pool, are too many, or do not make up the frame's bytes. */
  private describePieces(first: number, frameBytes: number, batch: Batch): boolean {
    const { layout } = this;
    batch.beginPieces();
    let mbuf = first;
    let leftBytes = frameBytes;
    for (let left = SEGMENTS_MAX; left > 0; left--) {
      const index = this.dataOf(mbuf);
      const pieceBytes = this.u16[(mbuf + layout.dataLen) >> 1];
      leftBytes -= pieceBytes;
      if (index < 0 || leftBytes < 0) return false;
      batch.addPiece(this.windowNumber, index, pieceBytes);
      const next = (mbuf + layout.next) >> 2;
      if (this.i32[next] === 0 && this.i32[next + 1] === 0) {
        if (leftBytes === 0) batch.addPieces(frameBytes);
        return leftBytes === 0;
      }
      mbuf = this.indexAt(next);
      if (mbuf < 0) return false;
    }
    return false;
  }
}

export class TxBurst extends Burst {
  declare private readonly dequeue: BurstFunction;
  declare private readonly freeBulk: (mbufs: number, count: number) => void;
  declare private readonly layout: Dpdk['layout']['mbuf'];
  declare private readonly heldWord: number;
  declare private readonly prepareFunction: BurstFunction | null;
  /** Of a frame that lies in one mbuf. */
  declare readonly frameBytesMax: number;
  /** TX_OFFLOAD bits that the device was set up with. */
  declare readonly offloads: number;
  /** Of the frame that `placeLong` placed last: where each part of it goes, and how many bytes of it. */
  partCount = 0;
  declare readonly partIndex: Int32Array;
  declare readonly partBytes: Int32Array;
  /** Frames placed and not yet flushed. */
  #placed = 0;
  /** mbufs behind their first ones. */
  #chained = 0;

  constructor(arena: ArenaView, location: DpdkQueueLocation) {
    super(arena, location);
    const dpdk = loadDpdk();
    this.layout = dpdk.layout.mbuf;
    this.dequeue = dequeueFunction(location.pool.dequeue);
    this.freeBulk = dpdk.functions.pktmbufFreeBulk;
    this.heldWord = this.listWord + HELD_WORD;
    this.frameBytesMax = location.pool.dataRoomBytes;
    this.offloads = location.txOffloads;
    this.prepareFunction = location.prepare === 0 ? null : burstFunction(location.prepare);
    const partsMax = Math.ceil(FRAME_BYTES_MAX / this.frameBytesMax);
    this.partIndex = new Int32Array(partsMax);
    this.partBytes = new Int32Array(partsMax);
  }

  get placed(): number {
    return this.#placed;
  }

  /**
   * Room for a frame of `sizeBytes` (at most `frameBytesMax`): the index in the window that its bytes are to be
   * written to, alike `alignIndex` modulo 8, so that they can be copied in words. -1: flush first; -2: the pool is
   * empty, for the device has all mbufs.
   */
  place(sizeBytes: number, alignIndex: number): number {
    const slot = this.#placed;
    if (slot === BURST_MBUFS) return -1;
    if (slot >= this.i32[this.heldWord] && !this.#refill()) return -2;
    const mbuf = this.indexAt(this.listWord + 2 * slot);
    this.#placed = slot + 1;
    const dataOff = HEADROOM_BYTES - 8 + (alignIndex & 7);
    const { i32, layout } = this;
    // One reference, one segment, of no port; the fields that a driver may read are set, as it has no defaults.
    const rearm = (mbuf + layout.dataOff) >> 2;
    i32[rearm] = dataOff | (1 << 16);
    i32[rearm + 1] = 1 | (0xffff << 16);
    const flags = (mbuf + layout.olFlags) >> 2;
    i32[flags] = 0;
    i32[flags + 1] = 0;
    i32[(mbuf + layout.packetType) >> 2] = 0;
    i32[(mbuf + layout.pktLen) >> 2] = sizeBytes;
    i32[(mbuf + layout.dataLen) >> 2] = sizeBytes;
    const offload = (mbuf + layout.txOffload) >> 2;
    i32[offload] = 0;
    i32[offload + 1] = 0;
    return mbuf + layout.sizeBytes + dataOff;
  }

  /**
   * As `place`, of a frame that may be longer than `frameBytesMax`, over as many mbufs as it needs: for devices set up with
   * MULTI_SEGS. `partIndex` and `partBytes` say where its bytes are to be written to; the first part is as `place` has it.
   */
  placeLong(sizeBytes: number, alignIndex: number): number {
    const { i32, u16, layout, listWord, frameBytesMax, partIndex, partBytes } = this;
    const behind = Math.ceil(sizeBytes / frameBytesMax) - 1;
    if (this.#chained + behind > CHAINED_MBUFS_MAX) return -1;
    const firstBytes = Math.min(sizeBytes, frameBytesMax);
    const at = this.place(firstBytes, alignIndex);
    if (at < 0) return at;
    if (behind > 0 && this.dequeue(this.addresses[POOL], this.addresses[SPARE], behind) !== 0) {
      this.#placed--;
      return -2;
    }
    const first = this.#lastMbuf();
    i32[(first + layout.pktLen) >> 2] = sizeBytes;
    u16[(first + layout.nbSegs) >> 1] = 1 + behind;
    partIndex[0] = at;
    partBytes[0] = firstBytes;
    let leftBytes = sizeBytes - firstBytes;
    let before = first;
    for (let part = 1; part <= behind; part++) {
      const word = listWord + SPARE_WORD + 2 * (part - 1);
      const mbuf = this.indexAt(word);
      const bytes = Math.min(leftBytes, frameBytesMax);
      const rearm = (mbuf + layout.dataOff) >> 2;
      i32[rearm] = HEADROOM_BYTES | (1 << 16);
      i32[rearm + 1] = 1 | (0xffff << 16);
      const flags = (mbuf + layout.olFlags) >> 2;
      i32[flags] = 0;
      i32[flags + 1] = 0;
      i32[(mbuf + layout.dataLen) >> 2] = bytes;
      this.#setNext(before, i32[word], i32[word + 1]);
      partIndex[part] = mbuf + layout.sizeBytes + HEADROOM_BYTES;
      partBytes[part] = bytes;
      leftBytes -= bytes;
      before = mbuf;
    }
    this.partCount = 1 + behind;
    this.#chained += behind;
    return at;
  }

  /**
   * What is asked of the device for the frame placed last: MBUF_TX_HIGH bits, lengths of its headers, and payload of a
   * segment, 0 unless it is to be cut. False: the driver refuses, and the frame asks for nothing again.
   */
  request(
    flagsHigh: number,
    l2Bytes: number,
    l3Bytes: number,
    l4Bytes: number,
    segmentBytes: number,
  ): boolean {
    const { i32, layout, prepareFunction } = this;
    const mbuf = this.#lastMbuf();
    const flags = (mbuf + layout.olFlags) >> 2;
    const lengths = (mbuf + layout.txOffload) >> 2;
    i32[flags + 1] = flagsHigh;
    // Bit fields of 7, 9, 8 and 16 bits.
    i32[lengths] = l2Bytes | (l3Bytes << 7) | (l4Bytes << 16) | (segmentBytes << 24);
    i32[lengths + 1] = segmentBytes >>> 8;
    if (prepareFunction === null) return true;
    if (prepareFunction(this.addresses[QUEUE], this.addresses[this.#placed - 1], 1) === 1) return true;
    i32[flags + 1] = 0;
    i32[lengths] = 0;
    i32[lengths + 1] = 0;
    return false;
  }

  /** Takes the frame placed last back. */
  unplace(): void {
    const placed = this.#placed;
    if (this.#chained !== 0) this.#unchain(placed - 1, placed);
    this.#placed = placed - 1;
  }

  /** Sends what was placed; answers how many frames the device took, the first ones. The others are forgotten. */
  flush(): number {
    const placed = this.#placed;
    if (placed === 0) return 0;
    let sent = 0;
    while (sent < placed) {
      const taken = this.burst(this.addresses[QUEUE], this.addresses[sent], placed - sent);
      if (taken === 0) break;
      sent += taken;
    }
    this.#placed = 0;
    if (this.#chained !== 0) {
      this.#unchain(sent, placed);
      this.#chained = 0;
    }
    this.#forget(sent);
    return sent;
  }

  /** Hands the driver `count` mbufs of another list, at an address; answers how many it took. */
  send(mbufs: number, count: number): number {
    return this.burst(this.addresses[QUEUE], mbufs, count);
  }

  /** Gives the mbufs that it holds back to the pool. */
  release(): void {
    const held = this.i32[this.heldWord];
    if (held > 0) this.freeBulk(this.addresses[0], held);
    this.i32[this.heldWord] = 0;
    this.#placed = 0;
  }

  #lastMbuf(): number {
    return this.indexAt(this.listWord + 2 * (this.#placed - 1));
  }

  #setNext(mbuf: number, low: number, high: number): void {
    const word = (mbuf + this.layout.next) >> 2;
    this.i32[word] = low;
    this.i32[word + 1] = high;
  }

  /** Gives what hangs on the mbufs of frames `from` to `end - 1` back to the pool. */
  #unchain(from: number, end: number): void {
    const { i32, layout, listWord } = this;
    for (let slot = from; slot < end; slot++) {
      const mbuf = this.indexAt(listWord + 2 * slot);
      const next = (mbuf + layout.next) >> 2;
      if (i32[next] === 0 && i32[next + 1] === 0) continue;
      i32[listWord + SPARE_WORD] = i32[next];
      i32[listWord + SPARE_WORD + 1] = i32[next + 1];
      this.#setNext(mbuf, 0, 0);
      // Of the first one that it is given it frees all that follow.
      this.freeBulk(this.addresses[SPARE], 1);
    }
  }

  /** The first `count` mbufs are the device's now; the others move up. */
  #forget(count: number): void {
    const { i32, listWord } = this;
    const held = i32[this.heldWord];
    for (let word = 2 * count; word < 2 * held; word++)
      i32[listWord + word - 2 * count] = i32[listWord + word];
    i32[this.heldWord] = held - count;
  }

  /** Takes as many mbufs from the pool as the list has room for, or half as many, and so on. */
  #refill(): boolean {
    const held = this.i32[this.heldWord];
    for (let count = BURST_MBUFS - held; count > 0; count >>= 1) {
      if (this.dequeue(this.addresses[POOL], this.addresses[held], count) !== 0) continue;
      this.i32[this.heldWord] = held + count;
      return true;
    }
    return false;
  }
}
