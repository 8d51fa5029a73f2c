/**
 * Two hostile guests with the forwarder between them, in one process: one sends, the other receives, and how their
 * rings look is a plan (`RingPlan`) that a search makes up (search.ts). The plans are within the rules of VIRTIO as far
 * as a device can tell without walking the chains, or break them; what matters here is only what they cost. For the
 * search and for the tests that count (test/vring/costliest-frame.test.ts).
 */
import { DESC_F_AVAIL } from '../../protocol/virtio/packed-ring.ts';
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import { closeFd } from '../../src/host/descriptor.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import type { Arena } from '../../src/memory/arena.ts';
import type { ArenaView } from '../../src/memory/arena-view.ts';
import type { GpaMap } from '../../src/memory/gpa-translator.ts';
import { allocateScratch } from '../../src/memory/scratch.ts';
import type { IngressQueue } from '../../src/queue/contract.ts';
import { queueStates, STATE_AVAIL_NEXT, STATE_USED_NEXT } from '../../src/queue/state.ts';
import type { RingAttachment, RingLayoutKind } from '../../src/vring/attachment.ts';
import { FromGuest } from '../../src/vring/from-guest.ts';
import { ToGuest } from '../../src/vring/to-guest.ts';
import { createFdbMemory, Fdb } from '../../switch/l2/fdb/fdb.ts';
import { FORWARDER_SCRATCH_BYTES, Forwarder } from '../../switch/l2/forwarder.ts';
import { ForwardingPort } from '../../switch/l2/forwarding-port.ts';
import { PORT_COUNTS } from '../../switch/l2/port-counts.ts';

/** Where the buffers of a chain lie. */
export type Scatter =
  /** One behind the other. */
  | 'together'
  /** Each in a page of its own, in no order. */
  | 'pages'
  /** Each in another region of memory. */
  | 'regions'
  /** Each over the border of two regions that are no neighbours here. */
  | 'borders';

export type RingPlan = {
  readonly layout: RingLayoutKind;
  /** A power of two. */
  readonly size: number;
  /** Only of a ring to receive with. */
  readonly mergeable: boolean;
  /** The buffers are named by one indirect table a chain. */
  readonly isIndirect: boolean;
  /** Of each chain. */
  readonly descriptors: number;
  /** Length of each chain's first buffer, of its last one, and of those between. */
  readonly firstBytes: number;
  readonly lastBytes: number;
  readonly otherBytes: number;
  readonly scatter: Scatter;
  /** The guest's memory comes in so many regions, besides the one for tables. */
  readonly regions: number;
  /** Length of each region at most. */
  readonly regionBytesMax: number;
  /** Split rings: descriptors that follow one another lie so far apart in their table; odd. */
  readonly stride: number;
  /** Bytes that indirect tables are off from where they should lie. */
  readonly tableShift: number;
};

const MIB = 2 ** 20;
const BUFFERS_BYTES = 32 * MIB;
const TABLE_BYTES = 2 * MIB;
/** Descriptors, avail ring and used ring of the largest ring, each in a part of its own. */
const RING_PART_BYTES = MIB;
const RING_BYTES = 3 * RING_PART_BYTES;
const GUEST_BYTES = BUFFERS_BYTES + TABLE_BYTES + RING_BYTES;
const TABLE_GPA = 2 ** 32;
const PAGE_BYTES = 4096;
const HEADER_BYTES = 12;
/** Odd, so that multiples of it meet every page and every region. */
const FAR_STEP = 3001;

/** Enough for a world that has its arena for itself. */
export const ARENA_BYTES = 2 ** 29;

/** One guest with one ring, as its plan says. */
class HostileGuest {
  readonly #arena: Arena;
  readonly #view: ArenaView;
  readonly #offset: number;
  readonly #isReceiver: boolean;
  #plan: RingPlan | null = null;
  #map: GpaMap = [];
  #regionBytes = BUFFERS_BYTES;
  #states = queueStates(2);

  constructor(arena: Arena, view: ArenaView, isReceiver: boolean) {
    this.#arena = arena;
    this.#view = view;
    const fd = createMemoryFile('hostile', GUEST_BYTES);
    this.#offset = arena.map({
      fd,
      fileOffset: 0,
      sizeBytes: GUEST_BYTES,
      pageBytes: PAGE_BYTES,
      preferredOffset: null,
    });
    closeFd(fd);
    this.#isReceiver = isReceiver;
  }

  /** Lays the guest's memory out, and what its buffers hold: a broadcast frame wherever one may begin. */
  adopt(plan: RingPlan): void {
    this.#plan = plan;
    this.#regionBytes = Math.min(Math.floor(BUFFERS_BYTES / plan.regions), plan.regionBytesMax);
    const ranges = Array.from({ length: plan.regions }, (_, i) => ({
      start: i * this.#regionBytes,
      end: (i + 1) * this.#regionBytes,
      // Neighbours by guest address are none here, and the last one comes first.
      arenaOffset: this.#offset + ((i * 5 + 3) % plan.regions) * this.#regionBytes,
    }));
    // Five and the count have no common divisor but where there is one region only.
    this.#map = [
      ...ranges,
      { start: TABLE_GPA, end: TABLE_GPA + TABLE_BYTES, arenaOffset: this.#offset + BUFFERS_BYTES },
    ];
    if (plan.isIndirect) this.#writeTable(plan);
  }

  /** Writes the ring anew and offers so many chains; all that it has room for when left out. */
  offer(chainsMax = Number.POSITIVE_INFINITY): void {
    const plan = this.#planned();
    const slots = plan.isIndirect ? 1 : Math.min(plan.descriptors, plan.size);
    const roomFor = plan.layout === 'packed' ? Math.floor(plan.size / slots) : plan.size;
    const chains = Math.min(chainsMax, Math.max(1, roomFor));
    this.#states = queueStates(2);
    const words = new Int32Array(this.#states, (this.#isReceiver ? 0 : 1) * 128, 16);
    words[STATE_AVAIL_NEXT] = plan.layout === 'packed' ? 0x8000 : 0;
    words[STATE_USED_NEXT] = words[STATE_AVAIL_NEXT];
    if (plan.layout === 'packed') this.#offerPacked(plan, slots, chains);
    else this.#offerSplit(plan, slots, chains);
  }

  attachment(): RingAttachment {
    const plan = this.#planned();
    const ringOffset = this.#offset + BUFFERS_BYTES + TABLE_BYTES;
    return {
      kind: 'ring',
      layout: plan.layout,
      portId: this.#isReceiver ? 1 : 0,
      queueIndex: this.#isReceiver ? 0 : 1,
      direction: this.#isReceiver ? 'egress' : 'ingress',
      states: this.#states,
      size: plan.size,
      descOffset: ringOffset,
      driverOffset: ringOffset + RING_PART_BYTES,
      deviceOffset: ringOffset + 2 * RING_PART_BYTES,
      eventIdx: false,
      indirect: true,
      inOrder: false,
      mergeable: plan.mergeable,
      headerBytes: HEADER_BYTES,
      asks: 0,
      kickFd: -1,
      callFd: -1,
      map: this.#map,
      log: null,
    };
  }

  #planned(): RingPlan {
    if (this.#plan === null) throw new Error('a guest without a plan');
    return this.#plan;
  }

  get #flags(): number {
    return this.#isReceiver ? DESC_F_WRITE : 0;
  }

  #bytesOf(plan: RingPlan, at: number, count: number): number {
    if (at === 0) return plan.firstBytes;
    return at === count - 1 ? plan.lastBytes : plan.otherBytes;
  }

  #gpaOf(plan: RingPlan, at: number): number {
    switch (plan.scatter) {
      case 'together':
        return (at * 64) % Math.max(1, (plan.regions * this.#regionBytes) >> 1);
      case 'pages':
        return (at * FAR_STEP * PAGE_BYTES) % Math.max(1, plan.regions * this.#regionBytes - 256);
      case 'regions':
        return (
          ((at * FAR_STEP) % plan.regions) * this.#regionBytes +
          ((at * 64) % Math.max(1, this.#regionBytes >> 1))
        );
      case 'borders':
        return (1 + ((at * FAR_STEP) % Math.max(1, plan.regions - 1))) * this.#regionBytes - 1;
    }
  }

  #writeTable(plan: RingPlan): void {
    const tableView = new DataView(this.#view.buffer, this.#offset + BUFFERS_BYTES + plan.tableShift, MIB);
    const isPacked = plan.layout === 'packed';
    for (let i = 0; i < plan.descriptors; i++) {
      const entry = isPacked ? i : (i * plan.stride) % plan.descriptors;
      const next = ((i + 1) * plan.stride) % plan.descriptors;
      const isLast = i === plan.descriptors - 1;
      const flags = this.#flags | (isLast || isPacked ? 0 : DESC_F_NEXT);
      tableView.setBigUint64(16 * entry, BigInt(this.#gpaOf(plan, i)), true);
      tableView.setUint32(16 * entry + 8, this.#bytesOf(plan, i, plan.descriptors), true);
      tableView.setInt32(16 * entry + 12, isPacked ? flags << 16 : flags | (next << 16), true);
    }
  }

  /** All chains are the same one. */
  #offerSplit(plan: RingPlan, slots: number, chains: number): void {
    const { descOffset, driverOffset, deviceOffset } = this.attachment();
    const desc = new Int32Array(this.#view.buffer, descOffset, 4 * plan.size);
    for (let i = 0; i < slots; i++) {
      const at = (i * plan.stride) % plan.size;
      const next = ((i + 1) * plan.stride) % plan.size;
      this.#describe(desc, at, plan, i, slots, i === slots - 1 ? 0 : next);
    }
    const avail = new Uint16Array(this.#view.buffer, driverOffset, 2 + plan.size);
    avail.fill(0);
    // Nobody is to be interrupted.
    avail[0] = 1;
    avail[1] = chains;
    new Uint16Array(this.#view.buffer, deviceOffset, 2).fill(0);
  }

  #offerPacked(plan: RingPlan, slots: number, chains: number): void {
    const { descOffset, driverOffset } = this.attachment();
    const desc = new Int32Array(this.#view.buffer, descOffset, 4 * plan.size);
    desc.fill(0);
    for (let chain = 0; chain < chains; chain++) {
      for (let i = 0; i < slots; i++) this.#describe(desc, chain * slots + i, plan, i, slots, 0);
    }
    new Uint16Array(this.#view.buffer, driverOffset, 2).set([0, 1]);
  }

  #describe(desc: Int32Array, at: number, plan: RingPlan, i: number, slots: number, next: number): void {
    const gpa = plan.isIndirect ? TABLE_GPA + plan.tableShift : this.#gpaOf(plan, i);
    const more = i === slots - 1 ? 0 : DESC_F_NEXT;
    const flags = plan.isIndirect ? DESC_F_INDIRECT : this.#flags | more;
    desc[4 * at] = gpa | 0;
    desc[4 * at + 1] = Math.floor(gpa / 2 ** 32);
    desc[4 * at + 2] = plan.isIndirect ? 16 * plan.descriptors : this.#bytesOf(plan, i, slots);
    desc[4 * at + 3] = plan.layout === 'packed' ? (flags | DESC_F_AVAIL) << 16 : flags | (next << 16);
  }

  close(): void {
    this.#arena.unmap(this.#offset);
  }

  /** Every byte of its buffers is 255: whatever is sent is a broadcast. */
  fillBuffers(): void {
    this.#view.u8.fill(255, this.#offset, this.#offset + BUFFERS_BYTES);
  }
}

/** Room that a burst needs in the caches, so that another one's lines are gone. */
const COLD_BYTES = 48 * MIB;

export class HostileWorld {
  readonly #view: ArenaView;
  readonly #sender: HostileGuest;
  readonly #receiver: HostileGuest;
  readonly #coldBytes = new Uint8Array(COLD_BYTES);
  readonly #fdb = new Fdb(createFdbMemory({ capacity: 1024, maxPorts: 8 }));
  readonly #counts = [new Float64Array(PORT_COUNTS), new Float64Array(PORT_COUNTS)];
  readonly #scratchOffset: number;
  #forwarder: Forwarder;
  #from: FromGuest | null = null;
  #to: ToGuest | null = null;
  readonly #others: { readonly port: ForwardingPort; readonly from: IngressQueue }[] = [];

  constructor(arena: Arena, view: ArenaView) {
    this.#view = view;
    this.#scratchOffset = allocateScratch(arena, {
      name: 'forwarder',
      sizeBytes: FORWARDER_SCRATCH_BYTES,
    }).offset;
    this.#sender = new HostileGuest(arena, view, false);
    this.#receiver = new HostileGuest(arena, view, true);
    this.#sender.fillBuffers();
    this.#forwarder = this.#makeForwarder();
  }

  get fault(): { readonly from: number; readonly to: number } {
    return { from: this.#from?.fault ?? 0, to: this.#to?.fault ?? 0 };
  }

  adopt(from: RingPlan, to: RingPlan): void {
    this.#sender.adopt(from);
    this.#receiver.adopt(to);
  }

  close(): void {
    this.#sender.close();
    this.#receiver.close();
  }

  /** Further guests on the same forwarder, from the next `begin` on: each with its port and what it sends. */
  join(port: ForwardingPort, from: IngressQueue): void {
    this.#others.push({ port, from });
  }

  /** Both rings as they were in the beginning, the sender's with so many chains. */
  begin(chains: number): void {
    this.#sender.offer(chains);
    this.#receiver.offer();
    this.#from = new FromGuest(this.#view, this.#sender.attachment());
    this.#to = new ToGuest(this.#view, this.#receiver.attachment(), false);
    // What the hostile guests made it learn is forgotten.
    this.#fdb.flushPort(0);
    this.#forwarder = this.#makeForwarder();
    const [sending, receiving] = this.#counts.map((counts, id) => new ForwardingPort(id, counts));
    receiving.setQueues([this.#to]);
    this.#forwarder.addPort(sending);
    this.#forwarder.addPort(receiving);
    for (const { port } of this.#others) this.#forwarder.addPort(port);
  }

  /** A turn of a worker that polls the sender and those who joined. Answers how many chains it took. */
  turn(): number {
    if (this.#from === null) throw new Error('nothing was begun');
    return this.#forwarder.forwardTurn([this.#from, ...this.#others.map(({ from }) => from)]);
  }

  /** Takes what the last burst used out of the processor's caches. */
  cool(): void {
    const bytes = this.#coldBytes;
    for (let i = 0; i < bytes.length; i += 64) bytes[i]++;
  }

  #makeForwarder(): Forwarder {
    return new Forwarder(this.#view, this.#fdb, () => {}, this.#scratchOffset);
  }
}
