/**
 * `attached.ts ROW SECONDS`: measures one row on the guests or the testpmd that run in other containers, started
 * for that row, and prints the result as a line of JSON. Run by docker/testbed.sh inside a container.
 */

import { firstLine } from './clean-up.ts';
import { GUEST_NAMES } from './guest.ts';
import { measureEnds, setUpGuests } from './measure.ts';
import { giveOrder, ordersSocket, RemoteGuest } from './orders.ts';
import {
  type Accelerator,
  type ContainerRowName,
  FIGURES,
  GUEST_ROWS,
  isContainerRowName,
  measuredRow,
  type RowResult,
} from './rows.ts';

const HEALTH_TIMEOUT_MS = 30_000;
const TESTPMD_GRACE_MS = 60_000;

async function measure(row: ContainerRowName, seconds: number): Promise<RowResult> {
  if (row === 'virtio-user') {
    const timeoutMs = seconds * 1000 + TESTPMD_GRACE_MS;
    const value = await giveOrder(ordersSocket('testpmd'), { order: 'measure', seconds }, timeoutMs);
    const sample = { framesPerSecond: Number(value), tcpBitsPerSecond: null, switchCpus: null };
    return measuredRow(row, null, [sample]);
  }
  const [socketA, socketB] = GUEST_NAMES.map((letter) => ordersSocket(`guest-${letter}`));
  const accelerator = (await giveOrder(socketA!, { order: 'health' }, HEALTH_TIMEOUT_MS)) as Accelerator;
  const guests = [new RemoteGuest(socketA!), new RemoteGuest(socketB!)] as const;
  const { queuePairs } = GUEST_ROWS[row];
  await setUpGuests(guests, queuePairs);
  return measuredRow(row, accelerator, [
    await measureEnds(guests, { seconds, queuePairs, figures: FIGURES }),
  ]);
}

const [row = '', seconds = '10'] = process.argv.slice(2);
if (!isContainerRowName(row)) throw new Error(`no such row: ${row}`);
const result = await measure(row, Number(seconds)).catch(
  (error: unknown): RowResult => ({ row, notMeasured: firstLine(error) }),
);
process.stdout.write(`${JSON.stringify(result)}\n`);
