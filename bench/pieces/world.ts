/**
 * A switch without threads, sockets and guests: a forwarder in this process between rings whose drivers are faked.
 * A guest's memory holds its two rings and their buffers; the fake driver offers all descriptors of a ring at once (a
 * lap), which is not part of what is measured.
 */
import { macHiOf, macLoOf } from '../../protocol/ethernet.ts';
import { closeFd } from '../../src/host/descriptor.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { allocateScratch, type ScratchArea } from '../../src/memory/scratch.ts';
import { WINDOW_BYTES } from '../../src/memory/window.ts';
import type { EgressQueue, IngressQueue } from '../../src/queue/contract.ts';
import { warmUpCopy } from '../../src/queue/copy.ts';
import { offloadBits } from '../../src/queue/offloads.ts';
import {
  DEFAULT_POLICY,
  DEFAULT_VLAN,
  type GuardPolicy,
  type LimitsPolicy,
  NO_GUARD,
  NO_LIMITS,
} from '../../src/queue/policy.ts';
import { queueStates, STATE_AVAIL_NEXT, STATE_USED_NEXT } from '../../src/queue/state.ts';
import type { RingAttachment, RingLayoutKind } from '../../src/vring/attachment.ts';
import { FromGuest } from '../../src/vring/from-guest.ts';
import { ToGuest } from '../../src/vring/to-guest.ts';
import {
  CAPTURE_AREA_BYTES,
  CAPTURE_COUNTS,
  CAPTURE_IN,
  CAPTURE_OUT,
  CAPTURE_RING_BYTES,
  CAPTURE_RING_OFFSET,
  type CaptureSetup,
  RING_WORDS,
} from '../../switch/l2/capture-ring.ts';
import { createFdbMemory, Fdb } from '../../switch/l2/fdb/fdb.ts';
import { FORWARDER_SCRATCH_BYTES, Forwarder } from '../../switch/l2/forwarder.ts';
import { ForwardingPort } from '../../switch/l2/forwarding-port.ts';
import { createMessageRing, MessageRing } from '../../switch/l2/groups/message-ring.ts';
import { Snoop } from '../../switch/l2/groups/snoop.ts';
import { createGroupMemory, GroupTable } from '../../switch/l2/groups/table.ts';
import { PORT_COUNTS } from '../../switch/l2/port-counts.ts';
import { FakeRing } from './fake-ring.ts';
import { plug, UDP_PACKET } from './plugins.ts';

export const RING_SIZE = 256;
const BUFFER_BYTES = 2048;
const GUEST_BYTES = 2 ** 21;
const HEADER_BYTES = 12;

export type PiecesCase = {
  readonly name: string;
  readonly ports: number;
  readonly bytes: number;
  /** Every other frame is so long. */
  readonly otherBytes?: number;
  /** Destinations, in turn. */
  readonly flows: number;
  readonly from: RingLayoutKind;
  readonly to: RingLayoutKind;
  /** All frames are broadcast. */
  readonly floods?: boolean;
  /** Header and frame lie in two descriptors. */
  readonly inTwo?: boolean;
  /** Guests agreed on all offloads; their frames ask for none. */
  readonly offloads?: boolean;
  /** Guests are being migrated: what is written to them is logged. */
  readonly logs?: boolean;
  /** The port that sends has a guard: frames' first bytes are copied and looked at. */
  readonly guard?: Partial<GuardPolicy>;
  /** Frames pass a plugin that does nothing, or an access list whose 100th rule allows them. */
  readonly plugin?: 'empty' | 'access list';
  /** Bits and frames in of the one that sends, and out of the others, are limited, to more than can be. */
  readonly limits?: boolean;
  /** Ports are guarded against loops. */
  readonly loopGuard?: boolean;
  /** Groups are looked at, and no frame is to one; or all frames are to one that the first four receivers joined. */
  readonly snooping?: 'unicast' | 'group';
  /** All storms of the one that sends are limited. */
  readonly storms?: boolean;
  /** All ports are in one VLAN: the one that sends as an access port or a trunk, whose frames have a tag, the others too. */
  readonly vlan?: { readonly from: 'access' | 'trunk'; readonly to: 'access' | 'trunk' };
};

const VLAN = 10;
const VLAN_TAG = [0x81, 0, 0, VLAN];

/** EtherType, IPv4 header from 10.0.0.1 to 10.0.0.2, UDP ports 1000 and 2000. */
const UDP_HEADERS = [
  ...[8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2],
  ...[3, 232, 7, 208],
];

/** Of 239.1.1.1. */
const GROUP_MAC = [1, 0, 0x5e, 1, 1, 1];
const MEMBERS = [1, 2, 3, 4];

function snoopOfGroup(): Snoop {
  const memory = createGroupMemory({ capacity: 2048, portsMax: 64, floodsUnregistered: true, vlans: null });
  const table = new GroupTable(memory);
  const group = Uint8Array.from(GROUP_MAC);
  const set = { vlan: 0, macLo: macLoOf(group), macHi: macHiOf(group), portIds: new Set(MEMBERS) };
  table.publish([set], []);
  return new Snoop(view, table, new MessageRing(createMessageRing()), () => {
    throw new Error('no frame is a message');
  });
}

const ALL_OFFLOADS = offloadBits({});
const arena = Arena.reserve(2 ** 32);
const view = new ArenaView(arena.location);
const SCRATCH_OFFSET = allocateScratch(arena, {
  name: 'forwarder',
  sizeBytes: FORWARDER_SCRATCH_BYTES,
}).offset;
warmUpCopy(view);

const PLENTY = { perSecond: 10 ** 9, burst: 10 ** 8 };
const PLENTY_BITS = { perSecond: 10 ** 12, burst: 10 ** 11 };

function limitsOf({ limits = false, storms = false }: PiecesCase, id: number): LimitsPolicy {
  const all = { broadcast: PLENTY, multicast: PLENTY, unknown: PLENTY };
  const kinds = storms && id === 0 ? { ...NO_LIMITS, ...all } : NO_LIMITS;
  if (!limits) return kinds;
  return id === 0
    ? { ...kinds, bitsIn: PLENTY_BITS, framesIn: PLENTY }
    : { ...kinds, bitsOut: PLENTY_BITS, framesOut: PLENTY };
}

class FakeGuest {
  readonly fromGuest: FakeRing;
  readonly toGuest: FakeRing;
  readonly from: FromGuest;
  readonly to: ToGuest;
  readonly #offset: number;
  readonly #log: ScratchArea | null;

  constructor(portId: number, plan: Pick<PiecesCase, 'from' | 'to' | 'offloads' | 'logs'>) {
    const fd = createMemoryFile('pieces', GUEST_BYTES);
    const placement = { fd, fileOffset: 0, sizeBytes: GUEST_BYTES, pageBytes: 4096, preferredOffset: null };
    this.#offset = arena.map(placement);
    closeFd(fd);
    const states = queueStates(2);
    const pages = GUEST_BYTES / 4096;
    this.#log =
      plan.logs === true ? allocateScratch(arena, { name: 'pieces-log', sizeBytes: pages / 8 }) : null;
    const attachment = (queueIndex: number, layout: RingLayoutKind): RingAttachment => ({
      kind: 'ring',
      layout,
      portId,
      queueIndex,
      direction: queueIndex === 0 ? 'egress' : 'ingress',
      states,
      size: RING_SIZE,
      descOffset: this.#offset + queueIndex * 0x8000,
      driverOffset: this.#offset + queueIndex * 0x8000 + 0x4000,
      deviceOffset: this.#offset + queueIndex * 0x8000 + 0x6000,
      eventIdx: false,
      indirect: true,
      inOrder: false,
      mergeable: true,
      headerBytes: HEADER_BYTES,
      asks: plan.offloads === true ? ALL_OFFLOADS : 0,
      kickFd: -1,
      callFd: -1,
      map: [{ start: 0, end: GUEST_BYTES, arenaOffset: this.#offset }],
      log:
        this.#log === null
          ? null
          : {
              offset: this.#log.offset,
              sizeBytes: pages / 8,
              // Descriptors and, of a split ring, used ring.
              ownPages: [{ firstPage: queueIndex * 8, lastPage: queueIndex * 8 + 7 }],
              signalFd: -1,
            },
    });
    for (const [queueIndex, layout] of [plan.to, plan.from].entries()) {
      const words = new Int32Array(states, queueIndex * 128, 16);
      words[STATE_AVAIL_NEXT] = layout === 'packed' ? 0x8000 : 0;
      words[STATE_USED_NEXT] = words[STATE_AVAIL_NEXT];
    }
    const [toRing, fromRing] = [attachment(0, plan.to), attachment(1, plan.from)];
    this.toGuest = new FakeRing(view.buffer, toRing);
    this.fromGuest = new FakeRing(view.buffer, fromRing);
    this.to = new ToGuest(view, toRing, false);
    this.from = new FromGuest(view, fromRing);
  }

  /** Writes a frame into each transmit buffer and describes all buffers, as often as frames are in two descriptors. */
  fill(frames: readonly Uint8Array[], inTwo: boolean): void {
    for (let slot = 0; slot < RING_SIZE; slot++) {
      const [sendGpa, receiveGpa] = [0x20000, 0x20000 + RING_SIZE * BUFFER_BYTES].map(
        (start) => start + slot * BUFFER_BYTES,
      ) as [number, number];
      this.toGuest.describe(slot, receiveGpa, BUFFER_BYTES, true, false);
      const frame = frames[slot % frames.length];
      view.u8.set(frame, this.#offset + sendGpa + HEADER_BYTES);
      if (!inTwo) this.fromGuest.describe(slot, sendGpa, HEADER_BYTES + frame.length, false, false);
      else if (slot % 2 === 0) this.fromGuest.describe(slot, sendGpa, HEADER_BYTES, false, true);
      else this.fromGuest.describe(slot, sendGpa + HEADER_BYTES, frame.length, false, false);
    }
  }

  close(): void {
    arena.unmap(this.#offset);
    this.#log?.release();
  }
}

export class PiecesWorld {
  readonly #guests: FakeGuest[];
  readonly #forwarder: Forwarder;
  readonly #inTwo: boolean;
  readonly framesPerLap: number;

  constructor(plan: PiecesCase) {
    const { ports, flows, bytes } = plan;
    this.#inTwo = plan.inTwo === true;
    this.framesPerLap = this.#inTwo ? RING_SIZE / 2 : RING_SIZE;
    const fdb = new Fdb(createFdbMemory({ capacity: 8192, maxPorts: 64 }));
    const onFault = (queue: IngressQueue | EgressQueue): never => {
      throw new Error(`a queue of port ${queue.portId} failed with ${queue.fault}`);
    };
    this.#forwarder = new Forwarder(view, fdb, onFault, SCRATCH_OFFSET);
    if (plan.snooping !== undefined) this.#forwarder.snoopBy(snoopOfGroup());
    this.#guests = Array.from({ length: ports }, (_, id) => new FakeGuest(id, plan));
    for (const [id, guest] of this.#guests.entries()) {
      const port = new ForwardingPort(id, new Float64Array(PORT_COUNTS));
      port.setQueues([guest.to]);
      const mode = id === 0 ? plan.vlan?.from : plan.vlan?.to;
      const vlan = mode === 'access' ? { ...DEFAULT_VLAN, mode, tag: VLAN } : DEFAULT_VLAN;
      this.#forwarder.follow(port, {
        ...DEFAULT_POLICY,
        vlan,
        limits: limitsOf(plan, id),
        loopGuard: plan.loopGuard === true ? 'on' : 'off',
        guard: plan.guard !== undefined && id === 0 ? { ...NO_GUARD, ...plan.guard } : null,
      });
      this.#forwarder.addPort(port);
      if (id === 0 && plan.plugin !== undefined) plug(this.#forwarder, port, plan.plugin);
    }
    const portOf = (flow: number): number => 1 + (flow % (ports - 1));
    const mac = (port: number, flow: number): number[] => [2, 0, 0, 0, flow, port];
    const frames = Array.from({ length: RING_SIZE }, (_, i) => {
      const frame = new Uint8Array(i % 2 === 0 ? bytes : (plan.otherBytes ?? bytes));
      if (plan.vlan?.from === 'trunk') frame.set(VLAN_TAG, 12);
      const flow = i % flows;
      frame.set(plan.floods === true ? [255, 255, 255, 255, 255, 255] : mac(portOf(flow), flow));
      frame.set(mac(0, 0), 6);
      if (plan.snooping === 'group') frame.set(GROUP_MAC);
      if (plan.guard !== undefined || plan.snooping !== undefined) frame.set(UDP_HEADERS, 12);
      if (plan.plugin === 'access list') frame.set(UDP_PACKET, 12);
      return frame;
    });
    const vlan = plan.vlan === undefined ? 0 : VLAN;
    for (let flow = 0; flow < flows; flow++) fdb.learn(2, flow | (portOf(flow) << 8), vlan, portOf(flow), 0);
    fdb.learn(2, 0, vlan, 0, 0);
    for (const guest of this.#guests) guest.fill(frames, this.#inTwo);
  }

  /** Has the drivers offer everything they have: what `lap` then forwards. */
  offer(): void {
    for (const guest of this.#guests) guest.toGuest.offerAll();
    this.#guests[0].fromGuest.offerAll();
  }

  /** Forwards all that was offered, in bursts. */
  lap(): void {
    const { from } = this.#guests[0];
    const forwarder = this.#forwarder;
    let left = this.framesPerLap;
    while (left > 0) {
      const taken = forwarder.forwardBurst(from);
      if (taken === 0) throw new Error('nothing was taken although frames were offered');
      left -= taken;
    }
  }

  /** Captures everything that passes its ports, for a reader in this thread. */
  capture(): CaptureSetup {
    const area = allocateScratch(arena, { name: 'pieces-capture', sizeBytes: CAPTURE_AREA_BYTES });
    const portIds = this.#guests.map((_, id) => id);
    const setup: CaptureSetup = {
      id: 1,
      portIds,
      directions: CAPTURE_IN | CAPTURE_OUT,
      vlan: null,
      snapBytes: 262_144,
      program: null,
      areaOffsets: [area.offset],
      areaAddresses: [area.address],
      indices: new SharedArrayBuffer(4 * RING_WORDS),
      counts: new SharedArrayBuffer(8 * CAPTURE_COUNTS * portIds.length),
    };
    this.#forwarder.startCapture(setup, 0);
    return setup;
  }

  /** The ring of a capture. */
  ringOf({ areaOffsets: [offset] }: CaptureSetup): Uint8Array {
    const start = offset + CAPTURE_RING_OFFSET;
    return view.windows[Math.floor(start / WINDOW_BYTES)].u8.subarray(
      start % WINDOW_BYTES,
      (start % WINDOW_BYTES) + CAPTURE_RING_BYTES,
    );
  }

  close(): void {
    for (const guest of this.#guests) guest.close();
  }
}
