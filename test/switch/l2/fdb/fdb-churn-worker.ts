/**
 * One thread of the forwarding table's concurrency tests: a writer that churns, or a reader that checks every
 * answer. A writer posts nothing and ends after its operations; a reader ends when `stop[0]` is set and posts
 * what it saw.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Fdb } from '../../../../switch/l2/fdb/fdb.ts';
import { portOfAddress, randomAddresses, seededRandom } from './fdb-addresses.ts';

export interface ChurnOrder {
  readonly role: 'writer' | 'reader';
  readonly memory: SharedArrayBuffer;
  /** stop[0]: readers end; stop[1]: readers that have begun. */
  readonly stop: Int32Array<SharedArrayBuffer>;
  readonly seed: number;
  readonly addressCount: number;
  readonly portCount: number;
  readonly operationCount: number;
}

export interface ReaderReport {
  readonly lookups: number;
  readonly hits: number;
  readonly wrong: number;
}

/** Learns, ages and flushes at random; each address on its one port. */
export function churn(order: Omit<ChurnOrder, 'role' | 'stop'>): void {
  const fdb = new Fdb(order.memory);
  const addresses = randomAddresses(order.addressCount, 1);
  const ports = addresses.map((address) => portOfAddress(address, order.portCount));
  const random = seededRandom(order.seed);
  for (let n = 0; n < order.operationCount; n++) {
    const pick = random(addresses.length);
    const { macLo, macHi, vlan } = addresses[pick];
    fdb.learn(macLo, macHi, vlan, ports[pick], n >> 8);
    if (n % 4_096 === 0) fdb.age(n >> 8, 4);
    if (n % 16_384 === 0) fdb.flushPort(random(order.portCount));
  }
}

function watch(order: ChurnOrder): ReaderReport {
  const fdb = new Fdb(order.memory);
  const addresses = randomAddresses(order.addressCount, 1);
  const ports = addresses.map((address) => portOfAddress(address, order.portCount));
  const report = { lookups: 0, hits: 0, wrong: 0 };
  Atomics.add(order.stop, 1, 1);
  Atomics.notify(order.stop, 1);
  while (Atomics.load(order.stop, 0) === 0) {
    for (let pick = 0; pick < addresses.length; pick++) {
      const { macLo, macHi, vlan } = addresses[pick];
      const port = fdb.lookup(macLo, macHi, vlan);
      report.lookups++;
      if (port >= 0) report.hits++;
      if (port >= 0 && port !== ports[pick]) report.wrong++;
    }
  }
  return report;
}

const order: ChurnOrder | null = workerData;
if (order?.role === 'writer') churn(order);
if (order?.role === 'reader') parentPort?.postMessage(watch(order));
