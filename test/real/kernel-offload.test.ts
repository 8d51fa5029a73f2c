/**
 * The kernel as a judge of src/offload: two TAP interfaces in a bridge, one written with IFF_VNET_HDR and a request, the
 * other read without offloads, so that the kernel must put the checksum in or cut the frame. The same request goes through
 * the engine; what comes out must be the same, byte for byte.
 *
 * RINGWAY_SEARCH=25 sends 10,000 requests. Where the two differ on purpose stands in the last tests.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { netHeaderWords } from '../../protocol/virtio/net.ts';
import { libc } from '../../src/host/libc.ts';
import { REQUEST_TAKEN, SEGMENTS_MAX } from '../../src/offload/request.ts';
import { TAP_HEADER_BYTES, TAP_MTU_MAX, TapInterface } from '../../src/port/tap/interface.ts';
import { inNetworkNamespace } from '../../src/port/tap/network-namespace.ts';
import { OffloadWorld } from '../offload/offload-world.ts';
import { ASKS_NOTHING, checksumRequest, type Request, segmentRequest } from '../offload/random-requests.ts';
import { peersForTests } from '../peers/index.ts';
import { TestNamespace, tapUnavailable, titleWith } from '../port/tap-world.ts';
import { Random, seeds } from '../vring/random.ts';

const peers = await peersForTests(['iproute2']);
const unavailable = tapUnavailable();
const REQUESTS_PER_SEED = 20;
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
    namespace.ip('link set bridge0 addrgenmode none');
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
    // The kernel would speak for itself there.
    namespace.ip(`link set ${interfaceName} addrgenmode none`);
    namespace.ip(`link set ${interfaceName} master bridge0`);
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

    beforeAll(() => {
      kernel = new KernelPath();
      world = new OffloadWorld();
    });
    afterAll(() => {
      kernel.close();
      world.release();
    });

    function ofRingway(request: Request, random: Random | null): string[] {
      expect(world.take([request], random)).toEqual([REQUEST_TAKEN]);
      return world.complete(0).map(({ bytes }) => hex(bytes));
    }

    it.for(seeds(20))("are Ringway's, seed %i", (seed) => {
      const random = new Random(seed);
      for (let i = 0; i < REQUESTS_PER_SEED; i++) {
        const request = random.chance(70) ? segmentRequest(random, SEGMENTS_MAX) : checksumRequest(random);
        const expected = kernel.send(request)?.map(hex);
        expect({ header: request.header, frames: ofRingway(request, random) }).toEqual({
          header: request.header,
          frames: expected,
        });
      }
    });
  },
);
