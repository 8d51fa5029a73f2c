/**
 * INFLIGHT_SHMFD: the buffer that a front-end keeps for the next back-end (vhost-user.rst, "Inflight I/O tracking"). Made on
 * GET_INFLIGHT_FD, and not held afterwards; mapped on SET_INFLIGHT_FD, one at a time. The front-end and whoever else has it
 * may write to it at any time: what is read from it is checked, and bounded by what the messages said.
 *
 * We use buffers in the order in which they came, and have none in hand between two bursts. So nothing is in flight as the
 * specification means it, whenever one looks from outside, and a back-end that comes after finds nothing to submit again.
 * Of a split ring the used index in the guest's memory says where it stands, so its region is begun and left alone; for a
 * packed ring the region says it (src/vring/packed/inflight-words.ts). What another back-end left in flight is accepted
 * where it is what comes next in the ring; what was used out of order stops the ring, by name. Main thread.
 */
import { writeSync } from 'node:fs';
import type { InflightDescription } from '../../protocol/vhost-user/codec.ts';
import {
  INFLIGHT_ALIGN,
  INFLIGHT_VERSION,
  PACKED_INFLIGHT,
  SPLIT_INFLIGHT,
} from '../../protocol/vhost-user/inflight.ts';
import { DESC_BYTES, DESC_F_USED, POSITION_MASK } from '../../protocol/virtio/packed-ring.ts';
import { AVAIL_ENTRIES, RING_IDX } from '../../protocol/virtio/split-ring.ts';
import { BudgetError } from '../host/budgets.ts';
import { closeFd, fileFacts, sealAgainstShrinking } from '../host/descriptor.ts';
import { createMemoryFile } from '../host/mapping.ts';
import { type Arena, ArenaFullError, roundDown, roundUp } from '../memory/arena.ts';
import type { ArenaView } from '../memory/arena-view.ts';
import { PeerError } from '../vhost-user/peer-error.ts';
import type { RingLayoutKind } from '../vring/attachment.ts';
import type { RingPlaces } from './ring-places.ts';
import { RING_ENTRIES_MAX } from './ring-start.ts';

/** Of one buffer; 127 pairs of packed rings of 1,024 descriptors need an eighth of it. */
export const INFLIGHT_BYTES_MAX = 2 ** 26;

const FORMATS = { split: SPLIT_INFLIGHT, packed: PACKED_INFLIGHT } as const;

/** What a region tells of its ring. */
export type InflightReport =
  | { readonly fault: string }
  /** A packed ring's, with its wrap counter in bit 15; null: the region does not tell. */
  | { readonly fault: null; readonly position: number | null };

export function regionBytes(layout: RingLayoutKind, queueSize: number): number {
  const { headBytes, stateBytes } = FORMATS[layout];
  return roundUp(headBytes + queueSize * stateBytes, INFLIGHT_ALIGN);
}

/** GET_INFLIGHT_FD: a buffer for so many queues. The caller closes `fd`. @throws PeerError, HostError */
export function createInflight(
  asked: InflightDescription,
  layout: RingLayoutKind,
  ringCount: number,
): { readonly body: InflightDescription; readonly fd: number } {
  checkQueues(asked, ringCount);
  const { queueCount, queueSize } = asked;
  const strideBytes = regionBytes(layout, queueSize);
  const sizeBytes = queueCount * strideBytes;
  if (sizeBytes > INFLIGHT_BYTES_MAX)
    throw new PeerError(
      `${queueCount} queues of ${queueSize} need ${sizeBytes} bytes; at most ${INFLIGHT_BYTES_MAX}`,
    );
  const fd = createMemoryFile('ringway-inflight', sizeBytes);
  try {
    const region = newRegion(layout, queueSize);
    for (let queue = 0; queue < queueCount; queue++)
      writeSync(fd, region, 0, region.length, queue * strideBytes);
    sealAgainstShrinking(fd);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return { body: { ...asked, sizeBytes: BigInt(sizeBytes), offset: 0n }, fd };
}

/** A buffer that the front-end set, mapped until it is released. */
export class InflightBuffer {
  readonly #arena: Arena;
  readonly #arenaView: ArenaView;
  /** As the front-end set it. */
  readonly description: InflightDescription;
  /** Which file it is a part of. */
  readonly file: { readonly device: number; readonly inode: number };
  readonly #mappingOffset: number;
  readonly #offset: number;
  readonly #sizeBytes: number;
  readonly #queueCount: number;
  readonly #queueSize: number;

  /**
   * SET_INFLIGHT_FD; `layout` as it was agreed on so far. `fd` stays the caller's, who may close it afterwards.
   * @throws PeerError, HostError
   */
  constructor(
    arena: Arena,
    arenaView: ArenaView,
    fd: number,
    set: InflightDescription,
    layout: RingLayoutKind,
    ringCount: number,
  ) {
    checkQueues(set, ringCount);
    const { sizeBytes, offset, queueCount, queueSize } = set;
    const neededBytes = queueCount * regionBytes(layout, queueSize);
    if (sizeBytes < neededBytes || sizeBytes > INFLIGHT_BYTES_MAX)
      throw new PeerError(
        `a buffer of ${sizeBytes} bytes for ${queueCount} queues of ${queueSize}; it needs ${neededBytes} at least and may have ${INFLIGHT_BYTES_MAX}`,
      );
    const file = fileFacts(fd);
    if (!file.isRegularFile) throw new PeerError('its descriptor is no memory file');
    if (offset + sizeBytes > BigInt(file.sizeBytes))
      throw new PeerError(`it ends at byte ${offset + sizeBytes}; its file has ${file.sizeBytes}`);
    if (offset % 8n !== 0n) throw new PeerError(`its offset ${offset} is not aligned to 8 bytes`);
    const fileOffset = roundDown(Number(offset), file.pageBytes);
    const leadBytes = Number(offset) - fileOffset;
    this.#arena = arena;
    this.#arenaView = arenaView;
    this.description = set;
    this.file = file;
    this.#sizeBytes = Number(sizeBytes);
    this.#queueCount = queueCount;
    this.#queueSize = queueSize;
    this.#mappingOffset = place(arena, {
      fd,
      fileOffset,
      sizeBytes: roundUp(leadBytes + this.#sizeBytes, file.pageBytes),
      pageBytes: file.pageBytes,
      preferredOffset: null,
      // What is cut off it later is read as zeros, which say nothing.
      mayBeLost: true,
    });
    this.#offset = this.#mappingOffset + leadBytes;
  }

  /** Nobody may use any of it. */
  release(): void {
    this.#arena.unmap(this.#mappingOffset);
  }

  /** Where the ring's region lies in the arena; null: it has none. */
  regionOffset(queueIndex: number, layout: RingLayoutKind, ringSize: number): number | null {
    const strideBytes = regionBytes(layout, this.#queueSize);
    const isThere =
      queueIndex < this.#queueCount &&
      ringSize <= this.#queueSize &&
      (queueIndex + 1) * strideBytes <= this.#sizeBytes;
    return isThere ? this.#offset + queueIndex * strideBytes : null;
  }

  /** What the region tells of a ring that lies at `places`; null: it has none. */
  read(
    queueIndex: number,
    layout: RingLayoutKind,
    ringSize: number,
    places: RingPlaces,
  ): InflightReport | null {
    const region = this.#region(queueIndex, layout, ringSize);
    if (region === null) return null;
    const format = FORMATS[layout];
    const version = region.getUint16(format.version, true);
    if (version === 0) return { fault: null, position: null };
    if (version !== INFLIGHT_VERSION)
      return { fault: `its in-flight region is of version ${version}, and this is ${INFLIGHT_VERSION}` };
    const descNum = region.getUint16(format.descNum, true);
    if (descNum < ringSize || descNum > this.#queueSize)
      return { fault: `its in-flight region is for ${descNum} descriptors, and it has ${ringSize}` };
    return layout === 'split'
      ? readSplit(region, descNum, ringSize, this.#arenaView, places)
      : readPacked(region, descNum, ringSize, this.#arenaView, places);
  }

  /** The ring is put to use at `position`, with nothing in flight. */
  begin(queueIndex: number, layout: RingLayoutKind, ringSize: number, position: number): void {
    const region = this.#region(queueIndex, layout, ringSize);
    if (region === null) return;
    const { buffer, byteOffset } = region;
    new Uint8Array(buffer, byteOffset).set(newRegion(layout, this.#queueSize));
    if (layout === 'split') {
      region.setUint16(SPLIT_INFLIGHT.usedIdx, position, true);
      return;
    }
    region.setUint16(PACKED_INFLIGHT.usedIdx, position & POSITION_MASK, true);
    region.setUint16(PACKED_INFLIGHT.oldUsedIdx, position & POSITION_MASK, true);
    region.setUint8(PACKED_INFLIGHT.usedWrapCounter, position >> 15);
    region.setUint8(PACKED_INFLIGHT.oldUsedWrapCounter, position >> 15);
  }

  #region(queueIndex: number, layout: RingLayoutKind, ringSize: number): DataView<ArrayBuffer> | null {
    const offset = this.regionOffset(queueIndex, layout, ringSize);
    if (offset === null) return null;
    return new DataView(this.#arenaView.buffer, offset, regionBytes(layout, this.#queueSize));
  }
}

function checkQueues({ queueCount, queueSize }: InflightDescription, ringCount: number): void {
  if (queueCount < 1 || queueCount > ringCount)
    throw new PeerError(`${queueCount} queues are not between 1 and ${ringCount}, as many as the device has`);
  if (queueSize < 1 || queueSize > RING_ENTRIES_MAX)
    throw new PeerError(`queue size ${queueSize} is not between 1 and 32,768`);
}

function place(arena: Arena, placement: Parameters<Arena['map']>[0]): number {
  try {
    return arena.map(placement);
  } catch (error) {
    if (error instanceof ArenaFullError || error instanceof BudgetError) throw new PeerError(error.message);
    throw error;
  }
}

function newRegion(layout: RingLayoutKind, queueSize: number): Uint8Array {
  const { headBytes, stateBytes, version, descNum } = FORMATS[layout];
  const bytes = new Uint8Array(headBytes + queueSize * stateBytes);
  const region = new DataView(bytes.buffer);
  region.setUint16(version, INFLIGHT_VERSION, true);
  region.setUint16(descNum, queueSize, true);
  if (layout === 'split') return bytes;
  region.setUint8(PACKED_INFLIGHT.usedWrapCounter, 1);
  region.setUint8(PACKED_INFLIGHT.oldUsedWrapCounter, 1);
  // All states are free, each leads to the next.
  for (let i = 0; i < queueSize; i++)
    region.setUint16(headBytes + i * stateBytes + PACKED_INFLIGHT.next, i + 1, true);
  return bytes;
}

const outOfOrder = (count: number): InflightReport => ({
  fault: `${count} of its buffers are in flight by a back-end that does not use them in order; its driver must start it anew (reboot the guest)`,
});
const beyond = (what: string, value: number, size: number): InflightReport => ({
  fault: `its in-flight region names ${what} ${value} of ${size}`,
});

function readSplit(
  region: DataView,
  descNum: number,
  ringSize: number,
  arena: ArenaView,
  { driverOffset, deviceOffset }: RingPlaces,
): InflightReport {
  const F = SPLIT_INFLIGHT;
  const stateAt = (head: number): number => F.headBytes + head * F.stateBytes;
  const inFlight = new Set<number>();
  for (let head = 0; head < descNum; head++)
    if (region.getUint8(stateAt(head) + F.inflight) !== 0) inFlight.add(head);
  const used = arena.word16At(deviceOffset + RING_IDX * 2);
  // The last batch became used, and may not have been noted as such. We ourselves note no batches.
  const batch = (used - region.getUint16(F.usedIdx, true)) & 0xffff;
  let head = region.getUint16(F.lastBatchHead, true);
  for (let left = batch <= descNum && inFlight.size > 0 ? batch : 0; left > 0; left--) {
    if (head >= descNum) return beyond('descriptor', head, descNum);
    inFlight.delete(head);
    head = region.getUint16(stateAt(head) + F.next, true);
  }
  for (let i = 0; i < inFlight.size; i++) {
    const entry = AVAIL_ENTRIES + ((used + i) & (ringSize - 1));
    if (!inFlight.has(arena.word16At(driverOffset + entry * 2))) return outOfOrder(inFlight.size);
  }
  return { fault: null, position: null };
}

function readPacked(
  region: DataView,
  descNum: number,
  ringSize: number,
  arena: ArenaView,
  { descOffset }: RingPlaces,
): InflightReport {
  const F = PACKED_INFLIGHT;
  const positionOf = (idx: number, wrap: number): number =>
    region.getUint16(idx, true) | ((region.getUint8(wrap) & 1) << 15);
  const next = positionOf(F.usedIdx, F.usedWrapCounter);
  const old = positionOf(F.oldUsedIdx, F.oldUsedWrapCounter);
  for (const position of [next, old])
    if ((position & POSITION_MASK) >= ringSize) return beyond('position', position & POSITION_MASK, ringSize);
  const flags = arena.word16At(descOffset + (old & POSITION_MASK) * DESC_BYTES + 14);
  const isVisible = ((flags & DESC_F_USED) !== 0) === (old >> 15 === 1);
  const position = next !== old && isVisible ? next : old;
  const inFlight: { entry: number; counter: bigint }[] = [];
  for (let i = 0; i < descNum; i++) {
    const entry = F.headBytes + i * F.stateBytes;
    if (region.getUint8(entry + F.inflight) === 0) continue;
    inFlight.push({ entry, counter: region.getBigUint64(entry + F.counter, true) });
  }
  inFlight.sort((a, b) => (a.counter < b.counter ? -1 : 1));
  const ring = new DataView(arena.buffer, descOffset, ringSize * DESC_BYTES);
  let at = position & POSITION_MASK;
  for (const { entry } of inFlight) {
    const isNext = ring.getBigUint64(at * DESC_BYTES, true) === region.getBigUint64(entry + F.addr, true);
    const num = region.getUint16(entry + F.num, true);
    if (!isNext || num < 1 || num > ringSize) return outOfOrder(inFlight.length);
    at = (at + num) % ringSize;
  }
  return { fault: null, position };
}
