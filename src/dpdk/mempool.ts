/**
 * A pool of mbufs that lies in the arena, headers and data: what a device receives is forwarded from where it is,
 * what it sends is copied to where it takes it, and both threads' typed arrays reach every field. One file mapping
 * within one arena window: a page for each queue's lists of pointers first, then the mbufs. Main thread; the
 * location is for everybody.
 *
 * DPDK's own memory was measured too (bench/dpdk/pools.ts): frames must then be copied once more to come
 * into the arena, and mbufs with external data in the arena need two places to be looked at for every frame.
 */
import { FRAME_BYTES_MAX } from '../../protocol/ethernet.ts';
import { viewMemory } from '../host/mapping.ts';
import { type Arena, roundUp } from '../memory/arena.ts';
import { allocateScratch, type ScratchArea } from '../memory/scratch.ts';
import { WINDOW_BYTES } from '../memory/window.ts';
import { dequeueAddress, dequeueFunction } from './burst.ts';
import type { DeviceName } from './device.ts';
import type { Eal } from './eal.ts';
import { HEADROOM_BYTES } from './layout.ts';
import { type Dpdk, DpdkError } from './library.ts';

const PAGE_BYTES = 4096;
/** mbufs that a thread which DPDK knows (threads.ts) keeps at hand. */
export const CACHE_MBUFS = 256;
/** A cache fills to one and a half times its size before it gives back. */
export const CACHED_MBUFS_MAX = CACHE_MBUFS * 1.5;
const DATA_ROOM_BYTES_MIN = 2048;
/** mbufs of the longest frame at most. */
export const FRAME_MBUFS_MAX = Math.ceil(FRAME_BYTES_MAX / DATA_ROOM_BYTES_MIN);
/** Data rooms are counted in 16 bits. */
const DATA_ROOM_BYTES_MAX = 65_535 - HEADROOM_BYTES;
const ANY_SOCKET = -1;
/** Without it no mbuf may lie across two pages; but addresses for devices are those of the process here. */
const NO_IOVA_CONTIG = 0x20;

export type MbufPoolShape = {
  readonly mbufCount: number;
  /** The longest frame that must fit into one mbuf. */
  readonly frameBytesMax: number;
  /** Lists of pointers, one for each queue that uses the pool. */
  readonly listCount: number;
};

/** Where a pool lies, as other threads need it; plain data. */
export type MbufPoolLocation = {
  /** Address of the struct rte_mempool. */
  readonly pool: number;
  /** Arena offset and address of the mapping. */
  readonly offset: number;
  readonly address: number;
  readonly sizeBytes: number;
  /** Bytes for a frame in an mbuf behind the headroom. */
  readonly dataRoomBytes: number;
  /** Address of the function that takes mbufs out of the pool: int (*)(pool, pointers, count). */
  readonly dequeue: number;
};

let lastNumber = 0;

export class MbufPool {
  readonly location: MbufPoolLocation;
  readonly mbufCount: number;
  readonly #eal: Eal;
  readonly #area: ScratchArea;
  /** Devices that see the memory by a mapping of their own. */
  #mappedFor: number[] = [];
  #isRegistered = false;

  private constructor(eal: Eal, area: ScratchArea, location: MbufPoolLocation, mbufCount: number) {
    this.#eal = eal;
    this.#area = area;
    this.location = location;
    this.mbufCount = mbufCount;
  }

  /** @throws DpdkError, ArenaFullError, HostError */
  static create(eal: Eal, arena: Arena, shape: MbufPoolShape): MbufPool {
    const { functions } = eal.dpdk;
    const roomBytes = roundUp(Math.max(shape.frameBytesMax, DATA_ROOM_BYTES_MIN), 64);
    const dataRoomBytes = Math.min(roomBytes, DATA_ROOM_BYTES_MAX);
    const mbufBytes = eal.dpdk.layout.mbuf.sizeBytes + HEADROOM_BYTES + dataRoomBytes;
    const objectBytes = functions.mempoolObjBytes(mbufBytes, NO_IOVA_CONTIG, null);
    const listBytes = Math.max(1, shape.listCount) * PAGE_BYTES;
    const sizeBytes = roundUp(listBytes + 64 + shape.mbufCount * objectBytes, PAGE_BYTES);
    if (sizeBytes > WINDOW_BYTES) {
      throw new DpdkError(
        `${sizeBytes} bytes of mbufs are more than 1 GiB: use fewer queues or a smaller MTU`,
      );
    }
    const area = allocateScratch(arena, { name: 'ringway-mbufs', sizeBytes });
    const { offset, address } = area;
    let pool = 0;
    try {
      eal.takeLog();
      pool = createPool(eal, shape.mbufCount, mbufBytes, dataRoomBytes);
      populate(eal, pool, address + listBytes, sizeBytes - listBytes, shape.mbufCount);
      checkLayout(eal.dpdk, pool, dataRoomBytes, address);
    } catch (error) {
      if (pool !== 0) functions.mempoolFree(pool);
      area.release();
      throw error;
    }
    const dequeue = dequeueAddress(eal.dpdk, pool);
    const location = { pool, offset, address, sizeBytes, dataRoomBytes, dequeue };
    return new MbufPool(eal, area, location, shape.mbufCount);
  }

  /** mbufs that nobody has, other than the caches of threads. */
  get availableCount(): number {
    return this.#eal.dpdk.functions.mempoolAvailable(this.location.pool);
  }

  /** Lets the device (a struct rte_device) read and write the mbufs by itself. @throws DpdkError */
  mapForDevice(device: DeviceName, handle: number): void {
    const { functions } = this.#eal.dpdk;
    const { address, sizeBytes } = this.location;
    if (!this.#isRegistered) {
      const result = functions.extmemRegister(address, sizeBytes, 0, 0, PAGE_BYTES);
      if (result < 0) throw this.#eal.errorOf('memory for frames cannot be made known to DPDK', result);
      this.#isRegistered = true;
    }
    const result = functions.devDmaMap(handle, address, address, sizeBytes);
    if (result < 0) {
      throw this.#eal.errorOf(`memory for frames cannot be mapped for ${device.name} by its IOMMU`, result);
    }
    this.#mappedFor.push(handle);
  }

  /** Gives the memory back. No device and no thread may have any mbuf any more. */
  destroy(): void {
    const { functions } = this.#eal.dpdk;
    const { pool, address, sizeBytes } = this.location;
    for (const handle of this.#mappedFor) functions.devDmaUnmap(handle, address, address, sizeBytes);
    this.#mappedFor = [];
    functions.mempoolFree(pool);
    if (this.#isRegistered) functions.extmemUnregister(address, sizeBytes);
    this.#area.release();
  }
}

function createPool(eal: Eal, mbufCount: number, mbufBytes: number, dataRoomBytes: number): number {
  const { functions } = eal.dpdk;
  const name = `ringway-${++lastNumber}`;
  // struct rte_pktmbuf_pool_private: data room, private size, flags.
  const priv = new Uint8Array(new Uint16Array([HEADROOM_BYTES + dataRoomBytes, 0, 0, 0]).buffer);
  const pool = functions.mempoolCreateEmpty(
    name,
    mbufCount,
    mbufBytes,
    CACHE_MBUFS,
    priv.length,
    ANY_SOCKET,
    NO_IOVA_CONTIG,
  );
  if (pool === 0) throw eal.errorOf(`no memory for the pool of ${mbufCount} mbufs`, 0);
  const result = functions.mempoolSetOps(pool, 'ring_mp_mc', 0);
  if (result < 0) {
    functions.mempoolFree(pool);
    throw new DpdkError('DPDK lacks its driver mempool_ring: apt install librte-meta-mempool', false);
  }
  functions.pktmbufPoolInit(pool, priv);
  return pool;
}

function populate(eal: Eal, pool: number, address: number, sizeBytes: number, mbufCount: number): void {
  const { functions, addresses } = eal.dpdk;
  const placed = functions.mempoolPopulateIova(pool, address, address, sizeBytes, 0, 0);
  if (placed < 0) throw eal.errorOf('mbufs cannot be placed in the arena', placed);
  if (placed < mbufCount) throw new DpdkError(`only ${placed} of ${mbufCount} mbufs fit into their memory`);
  functions.mempoolObjIter(pool, addresses.pktmbufInit, 0);
}

/** Compares an mbuf that DPDK itself has written with what layout.ts says about mbufs. @throws DpdkError */
function checkLayout(dpdk: Dpdk, pool: number, dataRoomBytes: number, scratch: number): void {
  const { mbuf, release } = dpdk.layout;
  const words = new BigUint64Array(viewMemory(scratch, 8));
  dequeueFunction(dequeueAddress(dpdk, pool))(pool, scratch, 1);
  const address = Number(words[0]);
  const view = new DataView(viewMemory(address, mbuf.sizeBytes));
  const holds =
    Number(view.getBigUint64(mbuf.bufAddr, true)) === address + mbuf.sizeBytes &&
    Number(view.getBigUint64(mbuf.pool, true)) === pool &&
    view.getUint16(mbuf.bufLen, true) === HEADROOM_BYTES + dataRoomBytes &&
    view.getUint16(mbuf.dataOff, true) === HEADROOM_BYTES &&
    view.getUint16(mbuf.nbSegs, true) === 1 &&
    view.getBigUint64(mbuf.next, true) === 0n;
  dpdk.functions.pktmbufFreeBulk(scratch, 1);
  words[0] = 0n;
  if (holds) return;
  throw new DpdkError(
    `DPDK ${release} was built with options that lay out an mbuf in another way than its defaults: use the distribution's packages`,
    false,
  );
}
