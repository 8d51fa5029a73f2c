/**
 * Three places for mbufs, measured by receiving from net_null and bringing each frame to a guest's place in the
 * arena: `node bench/dpdk/pools.ts [--rounds 5] [--bytes 64] [--cpu 1]`. Prints millions of frames per second.
 *
 * `arena`: headers and data in the arena (src/dpdk/mempool.ts), as the switch reads them; `unchecked`: the same
 * without RxBurst's checks, which the loops of the other two lack as well. `external`: headers in DPDK's memory, data in the arena
 * (rte_pktmbuf_pool_create_extbuf). `plain`: all in DPDK's memory, seen by a view of its own; frames are copied
 * into the arena by words up to 192 bytes, longer ones by a call of memcpy, and from there to the guest.
 */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { queueOf } from '../../src/dpdk/burst.ts';
import { Eal } from '../../src/dpdk/eal.ts';
import { EthPort } from '../../src/dpdk/ethdev.ts';
import { Arena, ArenaView, BURST_MBUFS, copyBytes, RxBurst } from '../../src/dpdk/index.ts';
import { HEADROOM_BYTES } from '../../src/dpdk/layout.ts';
import { pinThread } from '../../src/host/affinity.ts';
import { reserveAddressSpace, viewMemory } from '../../src/host/mapping.ts';
import { functionAt, SharedLibrary } from '../../src/host/shared-library.ts';
import { Batch } from '../../src/queue/batch.ts';
import { warmUpCopy } from '../../src/queue/copy.ts';
import { spreadOf } from '../statistics.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    bytes: { type: 'string', default: '64' },
    cpu: { type: 'string', default: '1' },
    way: { type: 'string' },
  },
});
const WAYS = ['arena', 'unchecked', 'external', 'plain'] as const;
const MBUFS = 1984;
const ROOM_BYTES = HEADROOM_BYTES + 2048;
const WINDOW_MS = 1500;
const GUEST_SLOTS = 256;
const SLOT_BYTES = 2112;
const WORDS_BYTES_MAX = 192;
const ANY_SOCKET = -1;
const EXTERNAL_BYTES = 2 ** 23;

pinThread(Number(values.cpu));
const frameBytes = Number(values.bytes);

if (values.way === undefined) await compare();
else console.log(measure(values.way));

async function compare(): Promise<void> {
  const figures = new Map<string, number[]>(WAYS.map((way) => [way, []]));
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const way of WAYS) {
      const args = ['--way', way, '--bytes', String(frameBytes), '--cpu', values.cpu];
      const { stdout } = await promisify(execFile)(process.execPath, [
        fileURLToPath(import.meta.url),
        ...args,
      ]);
      figures.get(way)!.push(Number(stdout) / 1e6);
    }
  }
  console.log(`millions of frames of ${frameBytes} bytes per second brought to a guest`);
  for (const [way, each] of figures) {
    const { median, min, max } = spreadOf(each);
    console.log(
      `${way.padEnd(9)} ${median.toFixed(1).padStart(6)}  (${min.toFixed(1)} to ${max.toFixed(1)})`,
    );
  }
}

function measure(way: string): number {
  const arena = Arena.reserve(2 ** 32);
  const view = new ArenaView(arena.location);
  warmUpCopy(view);
  const eal = Eal.start({ hugepages: 'never' });
  const options = { queueCount: 1, mtu: null, promiscuous: true, threadCount: 1 };
  const port = EthPort.open(eal, arena, `net_null0,size=${frameBytes}`, options);
  const guest = arena.location.sizeBytes - 2 ** 29;
  const turn =
    way === 'arena' ? arenaTurn(view, port, guest) : foreignTurn(way, eal, arena, view, port, guest);
  let frames = 0;
  for (let warm = 0; warm < 3000; warm++) turn();
  const start = performance.now();
  while (performance.now() - start < WINDOW_MS) for (let i = 0; i < 1000; i++) frames += turn();
  return (frames / (performance.now() - start)) * 1000;
}

/** A guest's next place, as an index in the arena's last window. */
function guestPlaces(guest: number): () => number {
  let slot = 0;
  const index = guest % 2 ** 30;
  return () => {
    slot = (slot + 1) % GUEST_SLOTS;
    return index + slot * SLOT_BYTES + 64;
  };
}

function arenaTurn(view: ArenaView, port: EthPort, guest: number): () => number {
  const rx = new RxBurst(view, port.rxQueues[0]);
  const batch = new Batch();
  const from = view.windows[rx.windowNumber];
  const to = view.windows[Math.floor(guest / 2 ** 30)];
  const place = guestPlaces(guest);
  return () => {
    const count = rx.receive();
    batch.clear();
    for (let slot = 0; slot < count; slot++) rx.describe(slot, batch);
    for (let i = 0; i < batch.count; i++) {
      copyBytes(view, from, batch.indexOf(i), to, place(), batch.bytesOf(i));
    }
    rx.free(0, count);
    return count;
  };
}

/** The device is set up anew with a pool in DPDK's memory. */
function foreignTurn(
  way: string,
  eal: Eal,
  arena: Arena,
  view: ArenaView,
  port: EthPort,
  guest: number,
): () => number {
  const { functions, layout } = eal.dpdk;
  // The arena's pages at this offset are the reservation's own zero pages, free for the taking here.
  const dataOffset = arena.location.sizeBytes - 2 ** 28;
  const dataAddress = arena.location.address + dataOffset;
  const memory = new BigUint64Array([
    BigInt(dataAddress),
    BigInt(dataAddress),
    BigInt(EXTERNAL_BYTES),
    BigInt(ROOM_BYTES),
  ]);
  if (way !== 'unchecked') {
    const pool =
      way === 'external'
        ? functions.pktmbufPoolCreateExtbuf('external', MBUFS, 256, 0, ROOM_BYTES, ANY_SOCKET, memory, 1)
        : functions.pktmbufPoolCreate('plain', MBUFS, 256, 0, ROOM_BYTES, ANY_SOCKET);
    if (pool === 0) throw new Error(`no pool: ${eal.takeLog()}`);
    functions.ethStop(port.portId);
    const result = functions.ethRxQueueSetup(port.portId, 0, 512, 0xffffffff, 0, pool);
    if (result < 0 || functions.ethStart(port.portId) < 0) throw new Error(`no queue: ${eal.takeLog()}`);
  }
  const { burst, queue } = queueOf(eal.dpdk, port.portId, 0, 'rx');
  const receive = functionAt<(q: number, mbufs: number, n: number) => number>(
    burst,
    'uint16_t ringway_burst(intptr_t queue, intptr_t mbufs, uint16_t count)',
  );
  const list = reserveAddressSpace(4096);
  const listView = viewMemory(list, 4096);
  const pointers = new Int32Array(listView);
  // net_null writes no data: pages never written would all be the one page of zeros.
  view.u8.fill(1, dataOffset, dataOffset + EXTERNAL_BYTES);
  // Without hugepages DPDK's memory is one mapping, in which the pool's first mbufs show where it lies.
  receive(queue, list, BURST_MBUFS);
  const first = Number(new BigUint64Array(listView)[0]);
  for (const mbuf of new BigUint64Array(listView, 0, BURST_MBUFS)) {
    new Uint8Array(viewMemory(Number(mbuf) + layout.mbuf.sizeBytes, way === 'plain' ? ROOM_BYTES : 0)).fill(
      1,
    );
  }
  functions.pktmbufFreeBulk(list, BURST_MBUFS);
  const around = 2 ** 24;
  const base = mappingAround(first, around);
  const heap = viewMemory(base.address, base.sizeBytes);
  const [heap32, heap16, heap64] = [new Int32Array(heap), new Uint16Array(heap), new BigUint64Array(heap)];
  const baseLo = base.address | 0;
  const arenaLo = arena.location.address | 0;
  const { mbuf } = layout;
  const to = view.windows[Math.floor(guest / 2 ** 30)];
  const place = guestPlaces(guest);
  const bounce = (guest % 2 ** 30) + GUEST_SLOTS * SLOT_BYTES + 4096;
  const bounceAddress = arena.location.address + guest - (guest % 2 ** 30) + bounce;
  const memcpy = SharedLibrary.open('libc.so.6').func<(to: number, from: number, n: number) => number>(
    'intptr_t memcpy(intptr_t to, intptr_t from, size_t count)',
  );
  const fromArena = (header: number, bytes: number): void => {
    const offset = (heap32[(header + mbuf.bufAddr) >> 2] - arenaLo) >>> 0;
    const window = view.windows[offset >>> 30];
    const index = (offset & (2 ** 30 - 1)) + heap16[(header + mbuf.dataOff) >> 1];
    copyBytes(view, window, index, to, place(), bytes);
  };
  const fromHeap = (header: number, bytes: number): void => {
    const from = header + mbuf.sizeBytes + heap16[(header + mbuf.dataOff) >> 1];
    if (bytes > WORDS_BYTES_MAX) memcpy(bounceAddress, base.address + from, bytes);
    else
      for (let word = 0; word < bytes; word += 8) to.u64[(bounce + word) >> 3] = heap64[(from + word) >> 3];
    copyBytes(view, to, bounce, to, place(), bytes);
  };
  const bring = way === 'plain' ? fromHeap : fromArena;
  return () => {
    const count = receive(queue, list, BURST_MBUFS);
    for (let slot = 0; slot < count; slot++) {
      const header = (pointers[2 * slot] - baseLo) | 0;
      bring(header, heap32[(header + mbuf.pktLen) >> 2]);
    }
    functions.pktmbufFreeBulk(list, count);
    return count;
  };
}

/** A range of so many bytes around an address. */
function mappingAround(address: number, bytes: number): { address: number; sizeBytes: number } {
  const start = Math.floor((address - bytes) / 4096) * 4096;
  return { address: start, sizeBytes: 2 * bytes };
}
