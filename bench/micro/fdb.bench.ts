/**
 * Cost of the forwarding table for one frame: learn the source again, look up the target. Random order over
 * 2, 8,192 and 1,000,000 addresses, against the naive twin; then the rare paths (insertion into a full
 * table).
 *
 *     node bench/micro/fdb.bench.ts
 *
 * One thread. Figures are per frame (one learn and one lookup), or per learn in the last group.
 */
import { bench, do_not_optimize, group, run, summary } from 'mitata';
import { createFdbMemory, Fdb } from '../../switch/l2/fdb/fdb.ts';
import { seededRandom } from '../../test/switch/l2/fdb/fdb-addresses.ts';
import { NaiveFdb } from '../../test/switch/l2/fdb/naive-fdb.ts';

/** Frames per timed call, so that the harness's own cost disappears. */
const FRAMES = 1_024;
const PORTS = 64;
const NOW_TICK = 1;

interface Table {
  learn(macLo: number, macHi: number, vlan: number, port: number, nowTick: number): void;
  lookup(macLo: number, macHi: number, vlan: number): number;
}

interface Traffic {
  readonly macLo: Int32Array;
  readonly macHi: Int32Array;
  /** Random sequence of indices, a power of two long. */
  readonly order: Int32Array;
}

function makeTraffic(addressCount: number): Traffic {
  const random = seededRandom(addressCount);
  const macLo = new Int32Array(addressCount).map(() => (random(2 ** 32) & ~1) | 2);
  const macHi = new Int32Array(addressCount).map((_, n) => n & 0xffff);
  const order = new Int32Array(1 << 20).map(() => random(addressCount));
  return { macLo, macHi, order };
}

function fill(table: Table, { macLo, macHi }: Traffic): void {
  for (let n = 0; n < macLo.length; n++) table.learn(macLo[n], macHi[n], 0, n % PORTS, NOW_TICK);
}

/** A stand-alone loop, made anew for each table so that each call site sees one class only. */
function makeFrameLoop(table: Table, traffic: Traffic): () => number {
  const body = `let at = 0;
    return () => {
      let sum = 0;
      for (let n = 0; n < ${FRAMES}; n++) {
        const source = order[at];
        const target = order[(at + 7) & ${traffic.order.length - 1}];
        at = (at + 1) & ${traffic.order.length - 1};
        table.learn(macLo[source], macHi[source], 0, source % ${PORTS}, ${NOW_TICK});
        sum = (sum + table.lookup(macLo[target], macHi[target], 0)) | 0;
      }
      return sum;
    };`;
  const make = new Function('table', 'macLo', 'macHi', 'order', body);
  return make(table, traffic.macLo, traffic.macHi, traffic.order);
}

const noEviction = () => {
  throw new Error('the naive table is never full here');
};

for (const addressCount of [2, 8_192, 1_000_000]) {
  const capacity = Math.max(8_192, addressCount);
  const traffic = makeTraffic(addressCount);
  const fdb = new Fdb(createFdbMemory({ capacity, maxPorts: PORTS, seed: [1, 2] }));
  const naive = new NaiveFdb(Number.POSITIVE_INFINITY, noEviction);
  fill(fdb, traffic);
  fill(naive, traffic);
  const frame = makeFrameLoop(fdb, traffic);
  const naiveFrame = makeFrameLoop(naive, traffic);
  group(`${addressCount} addresses: learn again + look up, × ${FRAMES}`, () => {
    summary(() => {
      bench('fdb', () => do_not_optimize(frame()));
      bench('naive twin', () => do_not_optimize(naiveFrame()));
    });
  });
}

group(`flood from one port into a full table: learn with eviction, × ${FRAMES}`, () => {
  for (const capacity of [8_192, 1_048_576]) {
    const traffic = makeTraffic(capacity);
    const fdb = new Fdb(createFdbMemory({ capacity, maxPorts: 65_535, seed: [1, 2] }));
    fill(fdb, traffic);
    const random = seededRandom(3);
    const flood = () => {
      for (let n = 0; n < FRAMES; n++) fdb.learn(random(2 ** 32) & ~1, random(65_536), 1, 1_000, NOW_TICK);
    };
    for (let filled = 0; filled < 2 * capacity; filled += FRAMES) flood();
    bench(`fdb of ${capacity} entries`, flood);
  }
});

await run();
