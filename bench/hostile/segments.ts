/**
 * Frames that become many: what a worker's turn takes when a guest sends frames to be cut into segments to everybody,
 * and nobody takes them whole. `node bench/hostile/segments.ts`. Each figure is the best of several tries, in
 * microseconds: of one frame's turn, and of the median turn in which a ring full of such frames is worked on.
 */
import { NET_HDR_F, NET_HDR_GSO, netHeaderWords } from '../../protocol/virtio/net.ts';
import { closeFd } from '../../src/host/descriptor.ts';
import { allocateScratch } from '../../src/memory/scratch.ts';
import { warmUpCopy } from '../../src/queue/copy.ts';
import { createFdbMemory, Fdb } from '../../switch/l2/fdb/fdb.ts';
import { FORWARDER_SCRATCH_BYTES, Forwarder } from '../../switch/l2/forwarder.ts';
import { ForwardingPort } from '../../switch/l2/forwarding-port.ts';
import { COUNT_FORWARDED, PORT_COUNTS } from '../../switch/l2/port-counts.ts';
import { ALL_OFFLOADS } from '../../test/offload/offload-world.ts';
import { makeFrame, PLAIN_TCP } from '../../test/offload/random-requests.ts';
import { Random } from '../../test/vring/random.ts';
import { DriverEnd, plainPlan, RingwayEnd } from '../../test/vring/ring-worlds.ts';
import { sharedArena, sharedArenaView } from '../../test/vring/scratch.ts';

const RECEIVERS = [1, 16, 64];
const KINDS = [
  { segmentBytes: 1448, payloadBytes: 65_000 },
  { segmentBytes: 8, payloadBytes: 8 * 128 },
];
const RING_FRAMES = 256;
const TRIES = 60;

type Way = { readonly segmentBytes: number; readonly payloadBytes: number; readonly receivers: number };

warmUpCopy(sharedArenaView);
const scratch = allocateScratch(sharedArena, { name: 'forwarder', sizeBytes: FORWARDER_SCRATCH_BYTES });

class World {
  readonly forwarder: Forwarder;
  readonly sender: DriverEnd;
  readonly from: RingwayEnd;
  readonly receivers: readonly { readonly driver: DriverEnd; readonly device: RingwayEnd }[];
  readonly counts = new Float64Array(PORT_COUNTS);
  readonly #way: Way;

  constructor(way: Way) {
    this.#way = way;
    const fdb = new Fdb(createFdbMemory({ capacity: 64, maxPorts: 128 }));
    this.forwarder = new Forwarder(sharedArenaView, fdb, () => {}, scratch.offset);
    const plan = {
      ...plainPlan('split'),
      size: RING_FRAMES,
      bufferBytes: 2 ** 16 + 64,
      memory: 2 ** 26,
      asks: ALL_OFFLOADS,
    };
    this.sender = new DriverEnd(plan);
    this.from = new RingwayEnd(this.sender, plan);
    this.forwarder.addPort(new ForwardingPort(0, this.counts));
    this.receivers = Array.from({ length: way.receivers }, (_, i) => this.#addReceiver(i + 1));
  }

  /** Median of the turns until all that is waiting is forwarded, but for those that are sat out. */
  turnUs(frames: number): number {
    const { frame, header } = broadcast(this.#way);
    for (let i = 0; i < frames; i++) this.sender.fromGuest.send(frame, { header });
    const segments = Math.ceil(this.#way.payloadBytes / this.#way.segmentBytes);
    const end = this.counts[COUNT_FORWARDED] + frames * segments * this.#way.receivers;
    const turnsMs: number[] = [];
    while (this.counts[COUNT_FORWARDED] < end) {
      for (const { driver } of this.receivers) {
        while (driver.toGuest.receive() !== null);
        driver.toGuest.fill();
      }
      const startMs = performance.now();
      const taken = this.forwarder.forwardTurn([this.from.from]);
      if (taken > 0) turnsMs.push(performance.now() - startMs);
    }
    turnsMs.sort((a, b) => a - b);
    return turnsMs[turnsMs.length >> 1] * 1000;
  }

  close(): void {
    for (const { driver, device } of [...this.receivers, { driver: this.sender, device: this.from }]) {
      device.close();
      closeFd(driver.memory.fd);
    }
  }

  #addReceiver(portId: number): { driver: DriverEnd; device: RingwayEnd } {
    const plan = { ...plainPlan('split'), portId, size: RING_FRAMES, memory: 2 ** 21 };
    const driver = new DriverEnd(plan);
    const device = new RingwayEnd(driver, plan);
    const port = new ForwardingPort(portId, new Float64Array(PORT_COUNTS));
    port.setQueues([device.to]);
    this.forwarder.addPort(port);
    return { driver, device };
  }
}

function broadcast({ segmentBytes, payloadBytes }: Way): { frame: Uint8Array; header: Uint8Array } {
  const { frame, csumStart } = makeFrame(new Random(1), { ...PLAIN_TCP, payloadBytes });
  frame.fill(0xff, 0, 6);
  const words = netHeaderWords(
    {
      flags: NET_HDR_F.NEEDS_CSUM,
      gsoType: NET_HDR_GSO.TCPV4,
      hdrLen: 0,
      gsoSize: segmentBytes,
      csumStart,
      csumOffset: 16,
    },
    0,
  );
  return { frame, header: new Uint8Array(Int32Array.from(words).buffer) };
}

for (const kind of KINDS) {
  for (const receivers of RECEIVERS) {
    const world = new World({ ...kind, receivers });
    const oneUs: number[] = [];
    const ringUs: number[] = [];
    for (let i = 0; i < TRIES; i++) {
      oneUs.push(world.turnUs(1));
      ringUs.push(world.turnUs(64));
    }
    world.close();
    const what = `${Math.ceil(kind.payloadBytes / kind.segmentBytes)} segments of ${kind.segmentBytes} bytes`;
    const figures = `a frame ${Math.min(...oneUs).toFixed(1)} µs, a turn of many ${Math.min(...ringUs).toFixed(1)} µs`;
    process.stdout.write(`${what}, ${receivers} receivers: ${figures}\n`);
  }
}
