/**
 * What is to be seen of Ringway and its guests where a test failed because nothing moves any more: the ports, each packed
 * ring as it lies in the guest's memory beside where Ringway stands in it, and the guests' interrupts. For the test's log.
 */
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs';
import type { TestContext } from 'vitest';
import { DESC_F_AVAIL, DESC_F_USED, WRAP_COUNTER } from '../../protocol/virtio/packed-ring.ts';
import { DESC_BYTES } from '../../protocol/virtio/split-ring.ts';
import {
  POSITION_BITS,
  RECORD_BYTES,
  type RingIdentity,
  RingRecord,
  STAND,
} from '../../src/vring/ring-record.ts';
import type { LinuxGuest } from '../peers/index.ts';
import type { RingwayProcess } from './ringway-process.ts';

const HEADER_BYTES = 4096;
const GUEST_TIMEOUT_MS = 15_000;
/** What a guest tells, if its shell answers. */
const ASK_GUEST =
  'cat /proc/interrupts /proc/net/dev /proc/net/softnet_stat; head -3 /proc/meminfo; dmesg | tail -15';

/** Prints it where the test has failed. Call first in `onTestFinished`, while all still run. */
export async function tellStandstill(
  { task }: TestContext,
  ringway: RingwayProcess,
  guests: readonly LinuxGuest[],
): Promise<void> {
  if (task.result?.state !== 'fail') return;
  const ports = await ringway.ports().catch(String);
  const told = await Promise.all(guests.map(describeGuest));
  console.log(['What stood:', JSON.stringify(ports), ...describeRings(ringway, guests), ...told].join('\n'));
}

async function describeGuest(guest: LinuxGuest): Promise<string> {
  const status = await guest.qmp('query-status').catch(String);
  const options = { timeoutMs: GUEST_TIMEOUT_MS };
  const shell = await guest.run(ASK_GUEST, options).catch((error: Error) => ({ output: error.message }));
  return `guest ${guest.name}: ${JSON.stringify(status)}\n${shell.output}`;
}

function describeRings(ringway: RingwayProcess, guests: readonly LinuxGuest[]): string[] {
  const path = ringway.controlSocket.replace(/\.sock$/, '.positions');
  if (!existsSync(path)) return [];
  const records = Uint8Array.from(readFileSync(path).subarray(HEADER_BYTES));
  const lines: string[] = [];
  for (let at = 0; at + RECORD_BYTES <= records.length; at += RECORD_BYTES) {
    const record = new RingRecord(records, at);
    if (record.identity === null || record.identity.layout !== 'packed') continue;
    lines.push(describeRing(record.identity, record.standing.words[STAND], guests));
  }
  return lines;
}

function describeRing(identity: RingIdentity, stand: number, guests: readonly LinuxGuest[]): string {
  const position = stand & POSITION_BITS;
  const at = `${position & ~WRAP_COUNTER}, wrap counter ${position >> 15}`;
  const head = `${identity.portName}, ring ${identity.queueIndex} of ${identity.size}: stands at ${at}`;
  const [device, inode, offset] = identity.place.split(':').map(Number);
  for (const { pid, name } of guests) {
    const file = existsSync(`/proc/${pid}/fd`)
      ? readdirSync(`/proc/${pid}/fd`).find((fd) => isFile(`/proc/${pid}/fd/${fd}`, device, inode))
      : undefined;
    if (file === undefined) continue;
    const ring = Buffer.alloc(identity.size * DESC_BYTES);
    const fd = openSync(`/proc/${pid}/fd/${file}`, 'r');
    readSync(fd, ring, 0, ring.length, offset);
    closeSync(fd);
    return `${head}; of guest ${name}: ${stretches(ring)}`;
  }
  return `${head}; its memory was not found`;
}

function isFile(path: string, device: number, inode: number): boolean {
  const stats = statSync(path, { throwIfNoEntry: false });
  return stats !== undefined && stats.dev === device && stats.ino === inode;
}

/** Which descriptors have which of the two flags by which a descriptor says whose it is. */
function stretches(ring: Buffer): string {
  const words: string[] = [];
  let first = 0;
  const count = ring.length / DESC_BYTES;
  const ownerOf = (i: number): number =>
    ring.readUInt16LE(i * DESC_BYTES + 14) & (DESC_F_AVAIL | DESC_F_USED);
  for (let i = 1; i <= count; i++) {
    if (i < count && ownerOf(i) === ownerOf(first)) continue;
    const owner = ownerOf(first);
    const flags = `${(owner & DESC_F_AVAIL) === 0 ? '-' : 'A'}${(owner & DESC_F_USED) === 0 ? '-' : 'U'}`;
    words.push(`${first}..${i - 1} ${flags}`);
    first = i;
  }
  return words.join(', ');
}
