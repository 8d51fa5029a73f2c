/**
 * The kernel as a judge of src/offload: two TAP interfaces in a bridge, one written with IFF_VNET_HDR and a request, the
 * other read without offloads, so that the kernel must put the checksum in or cut the frame. The same request goes through
 * the engine; what comes out must be the same, byte for byte.
 *
 * RINGWAY_SEARCH=25 sends 10,000 requests. Where the two differ on purpose stands in the last tests.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NET_HDR_F, NET_HDR_GSO, type NetHeader, netHeaderWords } from '../../protocol/virtio/net.ts';
import { libc } from '../../src/host/libc.ts';
import { REQUEST_TAKEN, SEGMENTS_MAX } from '../../src/offload/request.ts';
import { TAP_HEADER_BYTES, TAP_MTU_MAX, TapInterface } from '../../src/port/tap/interface.ts';
import { inNetworkNamespace } from '../../src/port/tap/network-namespace.ts';
import { OffloadWorld } from '../offload/offload-world.ts';
import {
  ASKS_NOTHING,
  checksumRequest,
  makeFrame,
  oddRequest,
  type Request,
  type Shape,
  segmentRequest,
} from '../offload/random-requests.ts';
import { peersForTests } from '../peers/index.ts';
import { TestNamespace, tapUnavailable, titleWith } from '../port/tap-world.ts';
import { Random, seeds } from '../vring/random.ts';

const peers = await peersForTests(['iproute2']);
const unavailable = tapUnavailable();
const REQUESTS_PER_SEED = 20;
const QUEUED_SEGMENTS_MAX = 400;
const POLLIN = 1;
/** Only for a kernel that has gone wrong: nothing waits that long. */
const POLL_TIMEOUT_MS = 10_000;
/** Of the frame that tells that everything before it came out. */
const MARK_ETHERTYPE = 0x88b6;

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** The firewall would look into IP packets on their way over a bridge, and drop those that it takes for damaged. */
function leaveFramesToTheBridge(): void {
  for (const table of ['iptables', 'ip6tables']) {
    const file = `/proc/sys/net/bridge/bridge-nf-call-${table}`;
    if (existsSync(file)) writeFileSync(file, '0');
  }
}

/** A bridge between two TAP interfaces: in by one, out by the other. */
class KernelPath {
  readonly #namespace = new TestNamespace().add();
  readonly #in: TapInterface;
  readonly #out: TapInterface;
  readonly #buffer = new Uint8Array(2 ** 17);
  #marks = 0;

  constructor() {
    const namespace = this.#namespace;
    namespace.ip('link add bridge0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0');
    this.#in = this.#addTap('in0');
    this.#out = this.#addTap('out0');
    namespace.ip(`link set bridge0 mtu ${TAP_MTU_MAX} up`);
    inNetworkNamespace(namespace.name, leaveFramesToTheBridge);
  }

  #addTap(interfaceName: string): TapInterface {
    const namespace = this.#namespace;
    const tap = TapInterface.open({
      interfaceName,
      namespace: namespace.name,
      queueCount: 1,
      mtu: TAP_MTU_MAX,
      mac: null,
      addresses: [],
      bringUp: false,
      offloads: { csum: false },
    });
    namespace.ip(`link set ${interfaceName} master bridge0`);
    // Random addresses may come again, and what was learned would keep them from passing.
    namespace.ip(`link set ${interfaceName} type bridge_slave learning off`);
    namespace.ip(`link set ${interfaceName} up`);
    return tap;
  }

  /** What comes out of a request; null: the kernel does not take it. */
  send(request: Request): Uint8Array[] | null {
    if (!this.#write(request)) return null;
    const mark = new Uint8Array(60);
    mark.set([0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, MARK_ETHERTYPE >> 8, MARK_ETHERTYPE & 0xff]);
    new DataView(mark.buffer).setUint32(14, ++this.#marks);
    expect(this.#write({ frame: mark, header: ASKS_NOTHING })).toBe(true);
    const frames: Uint8Array[] = [];
    for (;;) {
      const frame = this.#read();
      if (hex(frame) === hex(mark)) return frames;
      frames.push(frame);
    }
  }

  #write({ frame, header }: Request): boolean {
    const bytes = new Uint8Array(TAP_HEADER_BYTES + frame.length);
    bytes.set(new Uint8Array(new Int32Array(netHeaderWords(header, 0)).buffer));
    bytes.set(frame, TAP_HEADER_BYTES);
    return libc.write(this.#in.fds[0], bytes, bytes.length) === bytes.length;
  }

  #read(): Uint8Array {
    const fd = this.#out.fds[0];
    const bytes = libc.read(fd, this.#buffer, this.#buffer.length);
    if (bytes >= 0) return this.#buffer.slice(TAP_HEADER_BYTES, bytes);
    const entry = new Uint8Array(8);
    new DataView(entry.buffer).setInt32(0, fd, true);
    entry[4] = POLLIN;
    if (libc.poll(entry, 1, POLL_TIMEOUT_MS) !== 1) throw new Error('the kernel gives nothing out');
    return this.#read();
  }

  close(): void {
    this.#in.close();
    this.#out.close();
    this.#namespace.remove();
  }
}

describe.skipIf(peers.skip || unavailable !== null)(
  peers.title(titleWith('checksums and segments, as the kernel makes them', unavailable)),
  () => {
    let kernel: KernelPath;
    let world: OffloadWorld;
    /** Linux 6.2 and later segment UDP that comes from a TAP interface. */
    let takesUdp: boolean;

    beforeAll(() => {
      kernel = new KernelPath();
      world = new OffloadWorld();
      takesUdp = ofKernel(requestOf({ protocol: 17 }, 500).request) !== null;
    });
    afterAll(() => {
      kernel.close();
      world.release();
    });

    /** Null: it is refused. */
    function ofRingway(request: Request, random: Random | null): string[] | null {
      const [why] = world.take([request], random);
      return why === REQUEST_TAKEN ? world.complete(0).map(({ bytes }) => hex(bytes)) : null;
    }

    function ofKernel(request: Request): string[] | null {
      return kernel.send(request)?.map(hex) ?? null;
    }

    it.for(seeds(20))("are Ringway's, seed %i", (seed) => {
      const random = new Random(seed);
      for (let i = 0; i < REQUESTS_PER_SEED; i++) {
        const request = random.chance(70) ? segmentRequest(random, SEGMENTS_MAX) : checksumRequest(random);
        const { header } = request;
        if (header.gsoType === NET_HDR_GSO.UDP_L4 && !takesUdp) continue;
        const frames = ofKernel(request);
        expect(frames).not.toEqual([]);
        expect({ header, frames: ofRingway(request, random) }).toEqual({ header, frames });
      }
    });

    it.for(seeds(10))('never differ where both take an odd request, seed %i', (seed) => {
      const random = new Random(seed);
      for (let i = 0; i < REQUESTS_PER_SEED; i++) {
        const request = withFewSegments(oddRequest(random, SEGMENTS_MAX));
        const { header } = request;
        const ours = ofRingway(request, random);
        const frames = ofKernel(request);
        if (ours === null || (header.gsoType === NET_HDR_GSO.UDP_L4 && !takesUdp)) continue;
        if (frames === null || frames.length === 0) {
          // Not even the plain frame may pass: one that is too long for the interface, or of no good ethertype.
          const plain = ofKernel({ ...request, header: ASKS_NOTHING });
          expect(plain?.length === 0 ? 'does not pass' : whyOnlyHere(request)).not.toBeNull();
        } else expect({ header, frames: ours }).toEqual({ header, frames });
      }
    });

    /** A frame of 1,001 bytes of payload behind an Ethernet header and headers of the shape. */
    function requestOf(shape: Partial<Shape>, gsoSize: number): { request: Request; network: number } {
      const random = new Random(1);
      const { frame, csumStart } = makeFrame(random, { ...PLAIN, ...shape });
      const protocol = shape.protocol ?? PLAIN.protocol;
      const header: NetHeader = {
        flags: NET_HDR_F.NEEDS_CSUM,
        gsoType: protocol === 17 ? NET_HDR_GSO.UDP_L4 : NET_HDR_GSO.TCPV4,
        hdrLen: 0,
        gsoSize,
        csumStart,
        csumOffset: protocol === 17 ? 6 : 16,
      };
      return { request: { frame, header }, network: 14 };
    }

    describe('that Ringway makes and the kernel need not:', () => {
      function expectOnlyHere(request: Request): void {
        const ours = ofRingway(request, null);
        expect(ours).toHaveLength(1);
        expect([null, [], ours]).toContainEqual(ofKernel(request));
      }

      it('a checksum that begins before byte 20', () => {
        const { request } = requestOf({}, 0);
        const header = { ...ASKS_NOTHING, flags: NET_HDR_F.NEEDS_CSUM, csumOffset: 2 };
        expectOnlyHere({ ...request, header: { ...header, csumStart: 14 } });
        expectOnlyHere({ ...request, header: { ...header, csumStart: 19 } });
      });

      it('segments of 65,535 bytes, a number that means something else in the kernel', () => {
        expectOnlyHere(requestOf({}, 65_535).request);
      });

      it('a single segment, when its options make it look like two', () => {
        expectOnlyHere(requestOf({ tcpOptionBytes: 12 }, PLAIN.payloadBytes).request);
      });
    });

    describe('that the kernel makes and Ringway does not:', () => {
      it('segments without NEEDS_CSUM, which VIRTIO forbids', () => {
        const { request } = requestOf({}, 500);
        const header = { ...request.header, flags: 0 };
        expect(ofKernel({ ...request, header })).toHaveLength(3);
        expect(ofRingway({ ...request, header }, null)).toBeNull();
      });

      it('segments of a fragment', () => {
        const { request, network } = requestOf({}, 500);
        request.frame[network + 6] = 0x20;
        expect(ofKernel(request)).toHaveLength(3);
        expect(ofRingway(request, null)).toBeNull();
      });

      it('segments of a packet that is not as long as it says', () => {
        const { request, network } = requestOf({}, 500);
        new DataView(request.frame.buffer).setUint16(network + 2, 900);
        expect(ofKernel(request)).toHaveLength(3);
        expect(ofRingway(request, null)).toBeNull();
        const udp = requestOf({ protocol: 17 }, 500).request;
        new DataView(udp.frame.buffer).setUint16(udp.header.csumStart + 4, 900);
        if (takesUdp) expect(ofKernel(udp)).toHaveLength(3);
        expect(ofRingway(udp, null)).toBeNull();
      });

      it('more segments than two batches', () => {
        const { request } = requestOf({}, 7);
        expect(ofKernel(request)).toHaveLength(Math.ceil(1001 / 7));
        expect(ofRingway(request, null)).toBeNull();
      });

      it('fragments of a UDP packet (UFO), which is not offered', () => {
        const { request } = requestOf({ protocol: 17 }, 400);
        const header = { ...request.header, gsoType: NET_HDR_GSO.UDP };
        expect(ofKernel({ ...request, header })).toHaveLength(3);
        expect(ofRingway({ ...request, header }, null)).toBeNull();
      });
    });
  },
);

const PLAIN: Shape = {
  version: 4,
  protocol: 6,
  tags: 0,
  optionBytes: 0,
  tcpOptionBytes: 0,
  payloadBytes: 1001,
};

/** The interface that the kernel gives them out by queues a thousand frames. */
function withFewSegments({ frame, header }: Request): Request {
  const least = Math.ceil(frame.length / QUEUED_SEGMENTS_MAX);
  return {
    frame,
    header: header.gsoSize === 0 ? header : { ...header, gsoSize: Math.max(header.gsoSize, least) },
  };
}

/** Why the kernel makes nothing of a request that Ringway takes; null: it should have. */
function whyOnlyHere({ frame, header }: Request): string | null {
  if (header.csumStart < 20) return 'begins early';
  if (header.gsoType !== NET_HDR_GSO.NONE && header.gsoSize === 65_535) return 'means something else';
  if (isTaggedLength(frame)) return 'has a length behind its tag, where the kernel puts no checksum in';
  const isOneFrame =
    header.gsoType === NET_HDR_GSO.NONE || header.gsoSize >= frame.length - header.csumStart - 60;
  return isOneFrame && header.gsoType !== NET_HDR_GSO.NONE ? 'looks like two segments' : null;
}

/** A tag and behind it what is no ethertype (IEEE 802.3, 3.2.6). */
function isTaggedLength(frame: Uint8Array): boolean {
  const data = new DataView(frame.buffer, frame.byteOffset);
  let at = 12;
  while ([0x8100, 0x88a8].includes(data.getUint16(at)) && at < 20) at += 4;
  return at > 12 && data.getUint16(at) < 0x600;
}
