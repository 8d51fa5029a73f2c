/**
 * How exact limits are: two embedded guests at a Ringway process, one of which sends as fast as it can; what arrives at the
 * other in so many seconds, beside what is allowed. `node bench/limits/main.ts --help`. Owns the process; one thread.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import { EmbeddedGuest, GUEST_FEATURES } from '../../src/frontend/index.ts';
import { allowedCpus, pinThread } from '../../src/host/affinity.ts';
import { fillBuffers } from '../load/frames.ts';
import { RingwayPeer } from '../peers/ringway.ts';

const HELP = `node bench/limits/main.ts [--seconds 10] [--only LIMIT] [--json]
  --seconds  how long each row is measured
  --only     rows of this limit alone, such as framesIn
  --json     prints the rows as JSON instead of the table`;

/** A limit, and frames of which size meet it. */
type Row = { readonly setting: string; readonly perSecond: number; readonly frameBytes: number };
type Result = Row & { readonly offered: number; readonly passed: number };

const SENDER = 'p0';
const RECEIVER = 'p1';
const BURST = 32;
const TURNS_PER_CLOCK = 16;
/** In which the burst that was saved up is used. */
const WARM_UP_MS = 500;
const CONNECT_MS = 20_000;
const RING_SIZE = 256;
const BITS_PER_BYTE = 8;
/** Guests need no signals: they look all the time. */
const FEATURES = GUEST_FEATURES & ~(1n << BigInt(VIRTIO_FEATURE.EVENT_IDX));

const ROWS: readonly Row[] = [
  ...[1_000, 10_000, 100_000, 1_000_000, 5_000_000].map((perSecond) => ({
    setting: 'framesIn',
    perSecond,
    frameBytes: 64,
  })),
  ...[1_000, 1_000_000, 3_333_333].map((perSecond) => ({ setting: 'framesOut', perSecond, frameBytes: 64 })),
  ...[1_000_000, 100_000_000, 10_000_000_000].map((perSecond) => ({
    setting: 'rateIn',
    perSecond,
    frameBytes: 1514,
  })),
  { setting: 'rateIn', perSecond: 1_000_000_000, frameBytes: 64 },
  { setting: 'rateOut', perSecond: 1_000_000_000, frameBytes: 1514 },
  { setting: 'stormUnknown', perSecond: 100_000, frameBytes: 64 },
];

const TITLES = '| limit | a second | frame, bytes | offered a second | passed a second | off by |';
const RULE = '| --- | --- | --- | --- | --- | --- |';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '10' },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
async function main(windowMs: number, isJson: boolean): Promise<void> {
  const cpus = allowedCpus();
  const folder = mkdtempSync(join(tmpdir(), 'ringway-limits-'));
  const ringway = await RingwayPeer.start({ folder, cpu: cpus[0], poll: 'busy' });
  pinThread(cpus.at(-1) ?? cpus[0]);
  const guests = await Promise.all(
    ringway.sockets.map((socketPath) =>
      EmbeddedGuest.connect({
        socketPath,
        role: 'client',
        queuePairs: 1,
        ringSize: RING_SIZE,
        waitMs: CONNECT_MS,
        features: FEATURES,
      }),
    ),
  );
  try {
    const results: Result[] = [];
    if (!isJson) process.stdout.write(`${TITLES}\n${RULE}\n`);
    for (const row of ROWS.filter(({ setting }) => setting === (values.only ?? setting))) {
      const port = row.setting.endsWith('Out') ? RECEIVER : SENDER;
      await ringway.set(port, { [row.setting]: row.perSecond });
      const result = measure(row, guests[0], guests[1], windowMs);
      await ringway.set(port, { [row.setting]: null });
      results.push(result);
      if (!isJson) process.stdout.write(`${lineOf(result)}\n`);
    }
    if (isJson) process.stdout.write(`${JSON.stringify(results, null, 2)}\n`);
  } finally {
    for (const guest of guests) guest.close();
    await ringway.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

function measure(row: Row, from: EmbeddedGuest, to: EmbeddedGuest, windowMs: number): Result {
  fillBuffers(from, 0, row.frameBytes);
  // Its address is known, unless frames are to be flooded.
  if (!row.setting.startsWith('storm')) say(to);
  run(row, from, to, WARM_UP_MS);
  return run(row, from, to, windowMs);
}

function say(guest: EmbeddedGuest): void {
  fillBuffers(guest, 1, 64);
  const { fromGuest } = guest.pairs[0];
  fromGuest.reserve();
  fromGuest.commit(64);
  fromGuest.flush();
}

function run(row: Row, from: EmbeddedGuest, to: EmbeddedGuest, windowMs: number): Result {
  const { fromGuest } = from.pairs[0];
  const { toGuest } = to.pairs[0];
  let sent = 0;
  let received = 0;
  const startMs = performance.now();
  let nowMs = startMs;
  while (nowMs < startMs + windowMs) {
    for (let turn = 0; turn < TURNS_PER_CLOCK; turn++) {
      let burst = 0;
      while (burst < BURST && fromGuest.reserve() >= 0) {
        fromGuest.commit(row.frameBytes);
        burst++;
      }
      if (burst > 0) fromGuest.flush();
      sent += burst;
      const came = Math.min(toGuest.usedWaiting(), BURST * 2);
      for (let i = 0; i < came; i++) {
        toGuest.take();
        toGuest.recycle();
      }
      if (came > 0) toGuest.flush();
      received += came;
    }
    nowMs = performance.now();
  }
  const seconds = (nowMs - startMs) / 1000;
  const unit = row.setting.startsWith('rate') ? row.frameBytes * BITS_PER_BYTE : 1;
  return { ...row, offered: (sent * unit) / seconds, passed: (received * unit) / seconds };
}

function lineOf({ setting, perSecond, frameBytes, offered, passed }: Result): string {
  const number = (value: number): string => Math.round(value).toLocaleString('en-US');
  const offBy = `${((passed / perSecond - 1) * 100).toFixed(2)} %`;
  const shownOffered = offered < perSecond ? `**${number(offered)}**` : number(offered);
  return `| \`${setting}\` | ${number(perSecond)} | ${frameBytes} | ${shownOffered} | ${number(passed)} | ${offBy} |`;
}

if (values.help) process.stdout.write(`${HELP}\n`);
else await main(Number(values.seconds) * 1000, values.json);
