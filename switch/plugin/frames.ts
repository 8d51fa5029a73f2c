/**
 * The frames of a batch as plugins see them (interface.ts), and what a plugin says about them, until the stage carries it out
 * (stage.ts). Fields are filled in for the whole batch when the first plugin asks for them. A plugin's mistake, as a frame that
 * is none, is a RangeError, which the stage takes for its fault. Hot path of one worker; allocates nothing.
 */
import type { ArenaView } from '../../src/memory/arena-view.ts';
import type { Batch } from '../../src/queue/batch.ts';
import * as BATCH from '../../src/queue/batch.ts';
import { vlanOf } from '../../src/queue/frame-tags.ts';
import type { HeadCopies } from '../l2/head-copies.ts';
import * as FIELDS from './header-fields.ts';
import { HeaderFields } from './header-fields.ts';
import type { DropReason, FrameHeaders, Frames, PluginPort } from './interface.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { AT_BYTES, AT_WORD0, AT_WORD1, AT_WORD2, AT_WORD3, BATCH_FRAMES_MAX, IN_PIECES, RECORD_SHIFT } = BATCH;

const { SPREAD_DESTINATIONS, SPREAD_L4_DESTINATIONS, SPREAD_L4_OFFSETS, SPREAD_L4_SOURCES } = FIELDS;
const { SPREAD_PROTOCOLS, SPREAD_SOURCES, SPREAD_VERSIONS } = FIELDS;

/** Groups of fields that are filled in (`filled`). */
const SIZES = 1;
const ADDRESSES = 2;
const TYPES = 4;
const VLANS = 8;
const HEADERS = 16;

const VLAN_MAX = 4094;
/** In `vlanActions`: nothing was said; otherwise the new VLAN, 0 for none. */
export const VLAN_KEPT = -1;
export const NOBODY = -1;
/** Bits of `said`. */
export const SAID_DROP = 1;
export const SAID_REDIRECT = 2;
export const SAID_VLAN = 4;
export const SAID_MIRROR = 8;
/** In `redirects`, of frames to a port that is not there: an id that no port has. */
export const NOWHERE = -2;

export class BatchFrames implements Frames {
  count = 0;
  seconds = 0;
  declare port: PluginPort;
  /** Whether the plugin that is asked may read headers; they are copied then. */
  mayReadHeaders = false;
  declare private batch: Batch;
  declare private readonly arena: Pick<ArenaView, 'windows'>;
  declare private readonly headCopies: HeadCopies;
  private filled = 0;
  declare private readonly sizeOf: Int32Array;
  declare private readonly destinationOf: Float64Array;
  declare private readonly sourceOf: Float64Array;
  declare private readonly typeOf: Int32Array;
  declare private readonly vlanNumberOf: Int32Array;
  declare private readonly headers: HeaderFields;
  declare readonly marks: Int32Array;

  /** What a plugin said, by frame, and whether it said any. Drops are indices of its reasons, and one more. */
  declare readonly drops: Int32Array;
  declare readonly redirects: Int32Array;
  declare readonly vlanActions: Int32Array;
  declare readonly mirrors: Int32Array;
  /** SAID_* of what stands in these. */
  said = 0;
  private hasMarks = false;
  /** How many reasons the plugin that is asked has. */
  reasonCount = 0;

  constructor(arena: Pick<ArenaView, 'windows'>, headCopies: HeadCopies) {
    this.arena = arena;
    this.headCopies = headCopies;
    this.headers = new HeaderFields();
    this.sizeOf = new Int32Array(BATCH_FRAMES_MAX);
    this.destinationOf = new Float64Array(BATCH_FRAMES_MAX);
    this.sourceOf = new Float64Array(BATCH_FRAMES_MAX);
    this.typeOf = new Int32Array(BATCH_FRAMES_MAX);
    this.vlanNumberOf = new Int32Array(BATCH_FRAMES_MAX);
    this.marks = new Int32Array(BATCH_FRAMES_MAX);
    this.drops = new Int32Array(BATCH_FRAMES_MAX);
    this.redirects = new Int32Array(BATCH_FRAMES_MAX).fill(NOBODY);
    this.vlanActions = new Int32Array(BATCH_FRAMES_MAX).fill(VLAN_KEPT);
    this.mirrors = new Int32Array(BATCH_FRAMES_MAX).fill(NOBODY);
  }

  /** Shows a batch whose tags were taken out; nothing was said about it yet. */
  begin(batch: Batch, port: PluginPort, seconds: number): void {
    this.batch = batch;
    this.count = batch.count;
    this.port = port;
    this.seconds = seconds;
    this.filled = 0;
    if (this.hasMarks) {
      this.marks.fill(0);
      this.hasMarks = false;
    }
  }

  /** Nothing was said. */
  forget(): void {
    if ((this.said & SAID_DROP) !== 0) this.drops.fill(0);
    if ((this.said & SAID_REDIRECT) !== 0) this.redirects.fill(NOBODY);
    if ((this.said & SAID_VLAN) !== 0) this.vlanActions.fill(VLAN_KEPT);
    if ((this.said & SAID_MIRROR) !== 0) this.mirrors.fill(NOBODY);
    this.said = 0;
  }

  /** The batch has fewer frames now, or others of its fields. */
  changed(): void {
    this.count = this.batch.count;
    this.filled = 0;
  }

  get sizes(): Int32Array {
    if ((this.filled & SIZES) === 0) this.fillSizes();
    return this.sizeOf;
  }

  get destinations(): Float64Array {
    if ((this.filled & ADDRESSES) === 0) this.fillAddresses();
    return this.destinationOf;
  }

  get sources(): Float64Array {
    if ((this.filled & ADDRESSES) === 0) this.fillAddresses();
    return this.sourceOf;
  }

  get etherTypes(): Int32Array {
    if ((this.filled & TYPES) === 0) this.fillTypes();
    return this.typeOf;
  }

  get vlans(): Int32Array {
    if ((this.filled & VLANS) === 0) this.fillVlans();
    return this.vlanNumberOf;
  }

  get ipVersions(): Int32Array {
    return this.parsed().field(SPREAD_VERSIONS);
  }

  get ipv4Sources(): Int32Array {
    return this.parsed().field(SPREAD_SOURCES);
  }

  get ipv4Destinations(): Int32Array {
    return this.parsed().field(SPREAD_DESTINATIONS);
  }

  get ipv6Sources(): Int32Array {
    return this.parsed().ipv6Sources;
  }

  get ipv6Destinations(): Int32Array {
    return this.parsed().ipv6Destinations;
  }

  get protocols(): Int32Array {
    return this.parsed().field(SPREAD_PROTOCOLS);
  }

  get l4Sources(): Int32Array {
    return this.parsed().field(SPREAD_L4_SOURCES);
  }

  get l4Destinations(): Int32Array {
    return this.parsed().field(SPREAD_L4_DESTINATIONS);
  }

  get l4Offsets(): Int32Array {
    return this.parsed().field(SPREAD_L4_OFFSETS);
  }

  get firsts(): FrameHeaders {
    return this.parsed();
  }

  get runEnds(): Int32Array {
    return this.parsed().runEnds;
  }

  get repeats(): Int32Array {
    return this.parsed().repeats;
  }

  u8(frame: number, at: number): number {
    this.needHeaders();
    this.check(frame);
    const { headCopies, batch } = this;
    if (!(at >= 0 && at < headCopies.bytesOf(batch, frame))) return 0;
    return headCopies.window.u8[headCopies.indexOf(batch, frame) + (at | 0)];
  }

  u16(frame: number, at: number): number {
    return (this.u8(frame, at) << 8) | this.u8(frame, at + 1);
  }

  u32(frame: number, at: number): number {
    return ((this.u16(frame, at) << 16) | this.u16(frame, at + 2)) >>> 0;
  }

  copy(frame: number, at: number, into: Uint8Array): number {
    this.needHeaders();
    this.check(frame);
    if (!(at >= 0)) throw new RangeError(`copy from ${at}`);
    const { batch, arena } = this;
    const bytes = Math.max(0, Math.min(into.length, batch.bytesOf(frame) - at)) | 0;
    const window = batch.windowOf(frame);
    if (window !== IN_PIECES) {
      copyOut(arena.windows[window].u8, batch.indexOf(frame) + at, into, 0, bytes);
      return bytes;
    }
    let skip = at | 0;
    let done = 0;
    const first = batch.firstPieceOf(frame);
    const end = first + batch.pieceCountOf(frame);
    for (let piece = first; piece < end && done < bytes; piece++) {
      const count = Math.min(batch.pieceBytes[piece] - skip, bytes - done);
      if (count > 0) {
        copyOut(
          arena.windows[batch.pieceWindow[piece]].u8,
          batch.pieceIndex[piece] + skip,
          into,
          done,
          count,
        );
        done += count;
      }
      skip = Math.max(0, skip - batch.pieceBytes[piece]);
    }
    return done;
  }

  drop(frame: number, reason: DropReason): void {
    this.check(frame);
    const { index } = reason;
    if (index >>> 0 !== index || index >= this.reasonCount)
      throw new RangeError('a reason of another plugin');
    this.drops[frame] = index + 1;
    this.said |= SAID_DROP;
  }

  redirect(frame: number, { id }: PluginPort): void {
    this.check(frame);
    checkId(id);
    this.redirects[frame] = id < 0 ? NOWHERE : id;
    this.said |= SAID_REDIRECT;
  }

  setVlan(frame: number, vlan: number): void {
    this.check(frame);
    if (!(vlan >= 1 && vlan <= VLAN_MAX)) throw new RangeError(`VLAN ${vlan}`);
    this.vlanActions[frame] = vlan;
    this.said |= SAID_VLAN;
  }

  removeVlan(frame: number): void {
    this.check(frame);
    this.vlanActions[frame] = 0;
    this.said |= SAID_VLAN;
  }

  mirror(frame: number, { id }: PluginPort): void {
    this.check(frame);
    checkId(id);
    if (id < 0) return;
    this.mirrors[frame] = id;
    this.said |= SAID_MIRROR;
  }

  mark(frame: number, value: number): void {
    this.check(frame);
    this.marks[frame] = value;
    this.hasMarks = true;
  }

  private check(frame: number): void {
    if (frame >>> 0 !== frame || frame >= this.count) throw new RangeError(`frame ${frame} of ${this.count}`);
  }

  private needHeaders(): void {
    if (!this.mayReadHeaders) throw new RangeError("it reads headers, without reads: 'headers'");
  }

  private parsed(): HeaderFields {
    if ((this.filled & HEADERS) === 0) {
      this.needHeaders();
      this.headers.fill(this.batch, this.headCopies);
      this.filled |= HEADERS;
    }
    return this.headers;
  }

  private fillSizes(): void {
    const { batch, sizeOf } = this;
    const { records } = batch;
    for (let frame = 0; frame < batch.count; frame++)
      sizeOf[frame] = records[(frame << RECORD_SHIFT) + AT_BYTES];
    this.filled |= SIZES;
  }

  private fillAddresses(): void {
    const { batch, destinationOf, sourceOf } = this;
    const { records, alike } = batch;
    const read = alike ? 1 : batch.count;
    for (let frame = 0; frame < read; frame++) {
      const at = frame << RECORD_SHIFT;
      const middle = swapped(records[at + AT_WORD1]);
      destinationOf[frame] = swapped(records[at + AT_WORD0]) * 0x10000 + (middle >>> 16);
      sourceOf[frame] = (middle & 0xffff) * 0x100000000 + swapped(records[at + AT_WORD2]);
    }
    if (alike) {
      destinationOf.fill(destinationOf[0], 1, batch.count);
      sourceOf.fill(sourceOf[0], 1, batch.count);
    }
    this.filled |= ADDRESSES;
  }

  private fillTypes(): void {
    const { batch, typeOf } = this;
    const { records, alikeBehind } = batch;
    const read = alikeBehind ? 1 : batch.count;
    for (let frame = 0; frame < read; frame++) {
      const word = records[(frame << RECORD_SHIFT) + AT_WORD3];
      typeOf[frame] = ((word & 0xff) << 8) | ((word >> 8) & 0xff);
    }
    if (alikeBehind) typeOf.fill(typeOf[0], 1, batch.count);
    this.filled |= TYPES;
  }

  private fillVlans(): void {
    const { vlanNumberOf } = this;
    const { count, tags } = this.batch;
    if (tags.isUniform) vlanNumberOf.fill(vlanOf(tags.outer), 0, count);
    else for (let frame = 0; frame < count; frame++) vlanNumberOf[frame] = vlanOf(tags.outers[frame]);
    this.filled |= VLANS;
  }
}

/** Of what is no port, which types do not keep away once they are stripped. */
function checkId(id: number): void {
  if ((id | 0) !== id) throw new RangeError('a port that is none: those of context.port(name) are');
}

/** As big-endian, without a sign. */
function swapped(word: number): number {
  return (((word & 0xff) << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0;
}

function copyOut(from: Uint8Array, index: number, to: Uint8Array, toIndex: number, count: number): void {
  for (let i = 0; i < count; i++) to[toIndex + i] = from[index + i];
}
