/**
 * What a capture of everything costs a worker: nanoseconds a frame through the forwarder, with faked drivers as in
 * bench/pieces, while nobody captures, while nobody reads what is captured, while somebody reads a million frames a second of them, and
 * while all are read. Each frame is captured twice, as it comes in and as it goes out. Each case has a process of its own; the figure is the median of
 * many short samples, for the least of them is one without room in the ring. Every frame that was lost must have been counted.
 *
 *     node bench/capture/main.ts
 */
import { fileURLToPath } from 'node:url';
import { CHUNK_BYTES_MIN, RingReader } from '../../switch/capture/blocks.ts';
import { CAPTURE_COUNTS, CAPTURE_LOST, CAPTURE_WANTED } from '../../switch/l2/capture-ring.ts';
import { setWorkerFlags } from '../../switch/worker/v8-flags.ts';
import { runProgram } from '../../test/peers/child.ts';
import { PiecesWorld } from '../pieces/world.ts';

/** The frames that a sender would have sent in the time of a lap. */
const OFFERED_PER_SECOND = 10_000_000;
const SLOW_PER_SECOND = 1_000_000;
const WARM_UP_LAPS = 6000;
const SAMPLES = 3000;
const LAPS_PER_SAMPLE = 12;
const TIMEOUT_MS = 120_000;
/** By name: frames that are read of each that is forwarded; null: nobody captures. */
const READERS: Readonly<Record<string, number | null>> = {
  'nobody captures': null,
  'nobody reads': 0,
  'a million a second are read, of 10 million that pass': SLOW_PER_SECOND / OFFERED_PER_SECOND,
  'all are read': Number.POSITIVE_INFINITY,
};
const SIZES = [64, 512, 1518];

type Result = {
  readonly medianNs: number;
  readonly wanted: number;
  readonly read: number;
  readonly lost: number;
};

function measure(bytes: number, readShare: number | null): Result {
  setWorkerFlags();
  const world = new PiecesWorld({ name: '', ports: 2, bytes, flows: 1, from: 'split', to: 'split' });
  const setup = readShare === null ? null : world.capture();
  const reader = setup === null ? null : new RingReader(world.ringOf(setup), new Int32Array(setup.indices));
  const chunk = new Uint8Array(CHUNK_BYTES_MIN * 8);
  let due = 0;
  let read = 0;
  const readSome = (most: number): void => {
    for (let left = most; reader !== null && left >= 1; left -= reader.packets) {
      reader.take(chunk, 0, left, Number.POSITIVE_INFINITY);
      read += reader.packets;
      if (reader.packets === 0) return;
    }
  };
  const laps = (count: number): number => {
    let spentMs = 0;
    for (let lap = 0; lap < count; lap++) {
      world.offer();
      const startMs = performance.now();
      world.lap();
      spentMs += performance.now() - startMs;
      due = Math.min(due + (readShare ?? 0) * world.framesPerLap, Number.MAX_SAFE_INTEGER);
      readSome(due);
      due -= Math.floor(due);
    }
    return spentMs;
  };
  laps(WARM_UP_LAPS);
  const frames = LAPS_PER_SAMPLE * world.framesPerLap;
  const ns = Array.from({ length: SAMPLES }, () => (laps(LAPS_PER_SAMPLE) * 1e6) / frames);
  readSome(Number.POSITIVE_INFINITY);
  ns.sort((a, b) => a - b);
  const counts = new Float64Array(setup?.counts ?? new SharedArrayBuffer(0));
  const sum = (which: number): number =>
    counts.reduce((total, count, at) => (at % CAPTURE_COUNTS === which ? total + count : total), 0);
  world.close();
  return { medianNs: ns[SAMPLES >> 1], wanted: sum(CAPTURE_WANTED), read, lost: sum(CAPTURE_LOST) };
}

async function main(): Promise<void> {
  for (const bytes of SIZES) {
    let offNs = 0;
    for (const name of Object.keys(READERS)) {
      const args = [fileURLToPath(import.meta.url), String(bytes), name];
      const { code, output } = await runProgram(process.execPath, args, { timeoutMs: TIMEOUT_MS, env: {} });
      if (code !== 0) throw new Error(`${name} failed: ${output}`);
      const { medianNs, wanted, read, lost } = JSON.parse(output) as Result;
      if (wanted !== read + lost)
        throw new Error(`${name}: of ${wanted} frames ${read} were read and ${lost} lost`);
      if (READERS[name] === null) offNs = medianNs;
      const share = (offNs / medianNs).toFixed(2);
      const lostShare =
        wanted === 0 ? '' : `, ${((100 * lost) / wanted).toFixed(1)} % of the copies lost, all counted`;
      process.stdout.write(
        `${String(bytes).padStart(5)} bytes, ${name.padEnd(54)}${medianNs.toFixed(1).padStart(7)} ns a frame, ${share} of the rate without${lostShare}\n`,
      );
    }
  }
}

if (import.meta.main) {
  const [bytes, name] = process.argv.slice(2);
  if (name === undefined) await main();
  else process.stdout.write(JSON.stringify(measure(Number(bytes), READERS[name] ?? null)));
}
