/**
 * What it costs to watch a large switch: a thousand ports with guests, two of which send to each other without a pause, while nobody asks and
 * while Prometheus' question is asked each second, in turn. Prints frames a second of each window, their ratio, what a frame cost the
 * worker, and how long and large an answer was. The worker has a processor of its own; who asks, and the switch's main thread, share
 * the other one with the guests unless there is a third, and take its time from them.
 *
 *     node bench/figures/main.ts [PORTS [ROUNDS]]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { pinnableCpus } from '../../src/host/affinity.ts';
import { askControl } from '../../switch/control/client.ts';
import type { FiguresReport } from '../../switch/figures/report.ts';
import { FRAMES_IN_FLIGHT } from '../load/contract.ts';
import { CONNECT_MS_MAX } from '../load/embedded-load.ts';
import { GuestProcess } from '../load/guest-client.ts';
import { RingwayPeer } from '../peers/ringway.ts';
import { spreadOf } from '../statistics.ts';

const PORTS = 1000;
const ROUNDS = 5;
const BUSY_RING_SIZE = 256;
const IDLE_RING_SIZE = 64;
const WINDOW_MS = 10_000;
const WARM_UP_MS = 2000;
const PERIOD_MS = 1000;

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

async function main(portCount: number, rounds: number): Promise<void> {
  const [dutCpu = 0, loadCpu = dutCpu] = pinnableCpus();
  const folder = mkdtempSync(join(tmpdir(), 'ringway-figures-'));
  const ringway = await RingwayPeer.start({ folder, cpu: dutCpu, portCount });
  const guests = new GuestProcess(loadCpu);
  try {
    const plans = ringway.sockets.map((socketPath, i) => ({
      socketPath,
      role: 'client' as const,
      queuePairs: 1,
      ringSize: i < 2 ? BUSY_RING_SIZE : IDLE_RING_SIZE,
    }));
    await guests.order({ kind: 'connect', guests: plans.slice(0, 2) }, CONNECT_MS_MAX);
    await guests.order({ kind: 'connect', guests: plans.slice(2) }, 4 * CONNECT_MS_MAX);
    const window = async (): Promise<Window> => {
      const order = {
        kind: 'circulate',
        frameBytes: 64,
        warmUpMs: WARM_UP_MS,
        windowMs: WINDOW_MS,
        inFlight: FRAMES_IN_FLIGHT,
        addressesPerGuest: 0,
      } as const;
      const { framesPerSecond } = await guests.order(order, CONNECT_MS_MAX);
      const { workers } = await askControl<FiguresReport>(ringway.controlSocket, '/v1/figures');
      return { framesPerSecond, nsPerFrame: workers[0]?.rates.nsPerPacket[1] ?? null };
    };
    const ratios: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const without = await window();
      const asking = scraping(ringway.controlSocket);
      const during = await window();
      const answers = await asking.end();
      const ratio = during.framesPerSecond / without.framesPerSecond;
      ratios.push(ratio);
      const took = medianOf(answers.map(({ tookMs }) => tookMs)).toFixed(0);
      const mib = (medianOf(answers.map(({ bytes }) => bytes)) / 2 ** 20).toFixed(1);
      process.stdout.write(
        `${portCount} ports: ${textOf(without)} without, ${textOf(during)} with, ${ratio.toFixed(3)}; ${answers.length} answers of ${mib} MiB in ${took} ms\n`,
      );
    }
    process.stdout.write(`median ${medianOf(ratios).toFixed(3)}\n`);
  } finally {
    await guests.stop();
    await ringway.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

const medianOf = (values: readonly number[]): number => spreadOf(values).median;

function textOf({ framesPerSecond, nsPerFrame }: Window): string {
  return `${(framesPerSecond / 1e6).toFixed(2)} M frames/s (${nsPerFrame?.toFixed(0) ?? '-'} ns)`;
}

const [ports = PORTS, rounds = ROUNDS] = process.argv.slice(2).map(Number);
await main(ports, rounds);
