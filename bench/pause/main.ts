/**
 * For how long the switch's main thread does nothing else at most, while guests connect all at once and while they leave again all at
 * once, with and without the web page open. One worker, which sleeps when it may; the guests are in a process of their own, the page
 * in this one.
 *
 *     node bench/pause/main.ts [GUESTS [ROUNDS]]
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { pinnableCpus } from '../../src/host/affinity.ts';
import { RING_SIZE } from '../load/contract.ts';
import { CONNECT_MS_MAX } from '../load/embedded-load.ts';
import { GuestProcess } from '../load/guest-client.ts';
import { OpenPage } from '../load/open-page.ts';
import { RingwayPeer } from '../peers/ringway.ts';
import { spreadOf } from '../statistics.ts';
import { PROBE_VARIABLE } from './probe.ts';

const GUESTS = 64;
const ROUNDS = 5;
const PROBE = fileURLToPath(new URL('./probe.ts', import.meta.url));
const PAGE_MS_MAX = 10_000;
const LEAVE_MS_MAX = 20_000;
/** What follows is in it too: the page's next event, and that memory is looked at in the background. */
const AFTERWARDS_MS = 1500;

type Pauses = { readonly connectMs: number; readonly leaveMs: number; readonly tookMs: number };

/** Since it was asked last. */
async function longestPause(probe: string): Promise<number> {
  const socket = connect(probe);
  let text = '';
  socket.setEncoding('utf8').on('data', (part: string) => {
    text += part;
  });
  await once(socket, 'close');
  return JSON.parse(text).longestMs;
}

async function round(ringway: RingwayPeer, probe: string, cpu: number): Promise<Pauses> {
  const guests = new GuestProcess(cpu);
  try {
    const plans = ringway.sockets.map((socketPath) => ({
      socketPath,
      role: 'client' as const,
      queuePairs: 1,
      ringSize: RING_SIZE,
    }));
    // So that the program is loaded.
    await guests.order({ kind: 'connect', guests: [] }, CONNECT_MS_MAX);
    await longestPause(probe);
    const order = { kind: 'connect', guests: plans, atOnce: plans.length } as const;
    const { elapsedMs } = await guests.order(order, CONNECT_MS_MAX);
    await delay(AFTERWARDS_MS);
    const connectMs = await longestPause(probe);
    await guests.stop();
    await ringway.until(LEAVE_MS_MAX, 'let go of its guests', async () =>
      (await ringway.ports()).every(({ state }) => state === 'waiting'),
    );
    return { connectMs, leaveMs: await longestPause(probe), tookMs: elapsedMs };
  } finally {
    await guests.stop();
  }
}

async function main(guestCount: number, rounds: number): Promise<void> {
  const [dutCpu = 0, loadCpu = dutCpu] = pinnableCpus();
  const folder = mkdtempSync(join(tmpdir(), 'ringway-pause-'));
  const probe = join(folder, 'probe.sock');
  process.env[PROBE_VARIABLE] = probe;
  const ringway = await RingwayPeer.start({
    folder,
    cpu: dutCpu,
    portCount: guestCount,
    poll: 'adaptive',
    hasPage: true,
    nodeArgs: ['--import', PROBE],
  });
  try {
    // Loading what shows it is part of the start.
    await ringway.until(PAGE_MS_MAX, 'show the page', async () => {
      (await OpenPage.at(ringway.webSocket)).close();
      return true;
    });
    for (const isOpen of [false, true]) {
      const all: Pauses[] = [];
      const page = isOpen ? await OpenPage.at(ringway.webSocket) : null;
      for (let i = 0; i < rounds; i++) all.push(await round(ringway, probe, loadCpu));
      page?.close();
      const what = isOpen ? 'page open' : 'no page  ';
      const line = (name: string, values: readonly number[]): string => {
        const { median, max } = spreadOf(values);
        return `${name} ${median.toFixed(0)} ms, at most ${max.toFixed(0)}`;
      };
      const connecting = line(
        'connecting:',
        all.map(({ connectMs }) => connectMs),
      );
      const leaving = line(
        'leaving:',
        all.map(({ leaveMs }) => leaveMs),
      );
      const took = spreadOf(all.map(({ tookMs }) => tookMs)).median.toFixed(0);
      process.stdout.write(
        `${guestCount} guests, ${what}: longest pause ${connecting}; ${leaving}; all connected after ${took} ms\n`,
      );
    }
  } finally {
    await ringway.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

const [guests = GUESTS, rounds = ROUNDS] = process.argv.slice(2).map(Number);
await main(guests, rounds);
