/**
 * What it costs to watch a large switch: a thousand ports with guests, two of which send to each other without a pause, while nobody asks and
 * while Prometheus' question is asked each second, or the web page is open, or both, in turn. Prints frames a second of each window,
 * their ratio, what a frame cost the worker, and how long and large an answer was. The worker has a processor of its own; who asks, and
 * the switch's main thread, share the other one with the guests unless there is a third, and take its time from them: the worker's
 * own cost of a frame tells what is left of that where there is none. `node bench/figures/main.ts --help`
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { pinnableCpus } from '../../src/host/affinity.ts';
import { askControl } from '../../switch/control/client.ts';
import type { FiguresReport } from '../../switch/figures/report.ts';
import { FRAMES_IN_FLIGHT } from '../load/contract.ts';
import { CONNECT_MS_MAX } from '../load/embedded-load.ts';
import { GuestProcess } from '../load/guest-client.ts';
import { OpenPage } from '../load/open-page.ts';
import { RingwayPeer } from '../peers/ringway.ts';
import { spreadOf } from '../statistics.ts';

const HELP = `node bench/figures/main.ts [--ports 1000] [--rounds 5] [--seconds 10] [--page] [--busy 2] [--no-scrape]
  --seconds    of each window
  --page       the web page is open while it is watched
  --no-scrape  Prometheus does not ask
  --busy       so many guests send to each other in turn`;
const BUSY_RING_SIZE = 256;
const IDLE_RING_SIZE = 64;
const WARM_UP_MS = 1000;
const PERIOD_MS = 1000;
const FRAME_BYTES = 64;
/** Of each of many guests. */
const IN_FLIGHT_OF_MANY = 8;

type Answer = { readonly tookMs: number; readonly bytes: number };
type Window = { readonly framesPerSecond: number; readonly nsPerFrame: number | null };

/** As Prometheus asks, at the control socket. */
function scrape(socketPath: string): Promise<Answer> {
  const startMs = performance.now();
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path: '/metrics', agent: false }, (response) => {
      let bytes = 0;
      response.on('data', (part: Buffer) => {
        bytes += part.length;
      });
      response.on('end', () => resolve({ tookMs: performance.now() - startMs, bytes }));
    });
    asked.on('error', reject);
    asked.end();
  });
}

/** Each second, until `end` is called, which answers all answers. */
function scraping(socketPath: string): { end(): Promise<Answer[]> } {
  const ended = new AbortController();
  const answers = (async (): Promise<Answer[]> => {
    const all: Answer[] = [];
    while (!ended.signal.aborted) {
      const answer = await scrape(socketPath);
      all.push(answer);
      await delay(Math.max(0, PERIOD_MS - answer.tookMs), undefined, { signal: ended.signal }).catch(
        () => {},
      );
    }
    return all;
  })();
  return {
    end: () => {
      ended.abort();
      return answers;
    },
  };
}

type Options = {
  readonly ports: number;
  readonly rounds: number;
  readonly windowMs: number;
  readonly busy: number;
  readonly hasPage: boolean;
  readonly scrapes: boolean;
};

async function main({ ports, rounds, windowMs, busy, hasPage, scrapes }: Options): Promise<void> {
  const [dutCpu = 0, loadCpu = dutCpu] = pinnableCpus();
  const folder = mkdtempSync(join(tmpdir(), 'ringway-figures-'));
  const ringway = await RingwayPeer.start({ folder, cpu: dutCpu, portCount: ports, hasPage });
  const guests = new GuestProcess(loadCpu);
  try {
    const plans = ringway.sockets.map((socketPath, i) => ({
      socketPath,
      role: 'client' as const,
      queuePairs: 1,
      ringSize: i < busy ? BUSY_RING_SIZE : IDLE_RING_SIZE,
    }));
    await guests.order({ kind: 'connect', guests: plans.slice(0, busy) }, CONNECT_MS_MAX);
    if (busy > 2) await guests.order({ kind: 'announce', frameBytes: FRAME_BYTES }, CONNECT_MS_MAX);
    const rest = plans.slice(busy);
    const window = async (): Promise<Window> => {
      const times = { frameBytes: FRAME_BYTES, warmUpMs: WARM_UP_MS, windowMs };
      const order =
        busy > 2
          ? ({ kind: 'mix', ...times, inFlight: IN_FLIGHT_OF_MANY } as const)
          : ({ kind: 'circulate', ...times, inFlight: FRAMES_IN_FLIGHT, addressesPerGuest: 0 } as const);
      const { framesPerSecond } = await guests.order(order, CONNECT_MS_MAX);
      const { workers } = await askControl<FiguresReport>(ringway.controlSocket, '/v1/figures');
      return { framesPerSecond, nsPerFrame: workers[0]?.rates.nsPerPacket[1] ?? null };
    };
    // Those of a mix are all that are connected.
    if (busy === 2) await guests.order({ kind: 'connect', guests: rest }, 4 * CONNECT_MS_MAX);
    const ratios: number[] = [];
    const costs: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const without = await window();
      const page = hasPage ? await OpenPage.at(ringway.webSocket) : null;
      const asking = scrapes ? scraping(ringway.controlSocket) : null;
      const during = await window();
      const answers = (await asking?.end()) ?? [];
      page?.close();
      const ratio = during.framesPerSecond / without.framesPerSecond;
      ratios.push(ratio);
      if (without.nsPerFrame !== null && during.nsPerFrame !== null)
        costs.push(during.nsPerFrame / without.nsPerFrame);
      process.stdout.write(
        `${ports} ports: ${textOf(without)} without, ${textOf(during)} with, ${ratio.toFixed(3)}${answersText(answers)}\n`,
      );
    }
    const cost = costs.length === 0 ? '' : `; of a frame's cost ${medianOf(costs).toFixed(3)}`;
    process.stdout.write(`median of the ratios ${medianOf(ratios).toFixed(3)}${cost}\n`);
  } finally {
    await guests.stop();
    await ringway.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

function answersText(answers: readonly Answer[]): string {
  if (answers.length === 0) return '';
  const took = medianOf(answers.map(({ tookMs }) => tookMs)).toFixed(0);
  const mib = (medianOf(answers.map(({ bytes }) => bytes)) / 2 ** 20).toFixed(1);
  return `; ${answers.length} answers of ${mib} MiB in ${took} ms`;
}

const medianOf = (values: readonly number[]): number => spreadOf(values).median;

function textOf({ framesPerSecond, nsPerFrame }: Window): string {
  return `${(framesPerSecond / 1e6).toFixed(2)} M frames/s (${nsPerFrame?.toFixed(0) ?? '-'} ns)`;
}

const { values } = parseArgs({
  options: {
    ports: { type: 'string', default: '1000' },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '10' },
    busy: { type: 'string', default: '2' },
    page: { type: 'boolean', default: false },
    'no-scrape': { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) process.stdout.write(`${HELP}\n`);
else
  await main({
    ports: Number(values.ports),
    rounds: Number(values.rounds),
    windowMs: Number(values.seconds) * 1000,
    busy: Number(values.busy),
    hasPage: values.page,
    scrapes: !values['no-scrape'],
  });
