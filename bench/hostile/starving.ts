/**
 * What one front-end, or several, can take of the main thread: each kind of flood (flooder.ts) for some seconds, while
 * the control API is asked and another guest shakes hands. `node bench/hostile/starving.ts [KIND [PEERS]]`. Prints the
 * longest stretch of the main thread, the slowest answers, and how much was logged.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import pino from 'pino';
import { resolveConfig, resolvePort } from '../../switch/config/resolve.ts';
import { controlApi } from '../../switch/control/api.ts';
import { serveControl } from '../../switch/control/serve.ts';
import { Switch } from '../../switch/switch.ts';
import type { FloodKind } from './flooder.ts';
import type { Observed } from './observer.ts';

const KINDS: readonly FloodKind[] = [
  'none',
  'owner',
  'enable',
  'refused',
  'settling',
  'features',
  'control',
  'reconnect',
];
const DURATION_MS = 5000;
const AFTER_MS = 500;

function start(file: string, ...args: string[]): ChildProcess {
  return fork(join(import.meta.dirname, file), args);
}

/**
 * Longest stretch of this thread between two turns of its event loop, by its own use of the processor, which other
 * programs on the machine do not lengthen.
 */
class Stretch {
  longestMs = 0;
  readonly #timer: NodeJS.Timeout;
  #usedMs = usedMs();

  constructor() {
    this.#timer = setInterval(() => this.#look(), 1);
  }

  end(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const now = usedMs();
    this.longestMs = Math.max(this.longestMs, now - this.#usedMs);
    this.#usedMs = now;
  }
}

function usedMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

const most = (values: readonly number[]): string =>
  Math.max(0, ...values)
    .toFixed(0)
    .padStart(6);

async function measure(kind: FloodKind, peers: number): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'ringway-starving-'));
  const names = ['other', ...Array.from({ length: peers }, (_, i) => `hostile${i}`)];
  const controlSocket = join(folder, 'control');
  let loggedBytes = 0;
  const noteLine = (line: string): void => {
    loggedBytes += line.length;
  };
  const log = pino({ level: 'info' }, { write: (line: string) => noteLine(line) });
  const values = { ports: { other: { socket: join(folder, 'other'), queues: '16' } } };
  const config = resolveConfig([{ values, subject: (path) => path.join('.'), keyName: (key) => key }]);
  const running = await Switch.start({ ...config, controlSocket }, log);
  for (const name of names.slice(1)) {
    await running.addPort(resolvePort(name, { socket: join(folder, name), queues: 16 }));
  }
  const control = await serveControl(controlSocket, controlApi(running, '0'));
  const flooders = names.slice(1).map((name) => start('flooder.ts', kind, join(folder, name)));
  await Promise.all(flooders.map((flooder) => once(flooder, 'message')));
  await new Promise((resolve) => setTimeout(resolve, AFTER_MS));
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const stretch = new Stretch();
  const observer = start('observer.ts', controlSocket, join(folder, 'other'), String(DURATION_MS));
  const [{ apiMs, handshakeMs }] = (await once(observer, 'message')) as [Observed];
  stretch.end();
  delay.disable();
  for (const flooder of flooders) flooder.kill('SIGKILL');
  await control.close();
  await running.stop();
  rmSync(folder, { recursive: true, force: true });
  const delayMs = (delay.max / 1e6).toFixed(0).padStart(6);
  const stretchMs = stretch.longestMs.toFixed(0).padStart(6);
  return `${kind.padEnd(10)} ${String(peers).padStart(2)} peers: stretch ${stretchMs} ms (waited ${delayMs}), API ${most(apiMs)} ms (${apiMs.length}), handshake ${most(handshakeMs)} ms (${handshakeMs.length}), log ${(loggedBytes / 1024).toFixed(0)} KiB`;
}

const [wanted, peers] = process.argv.slice(2);
const kinds = wanted === undefined || wanted === 'all' ? KINDS : KINDS.filter((kind) => kind === wanted);
for (const kind of kinds) process.stdout.write(`${await measure(kind, Number(peers ?? 1))}\n`);
process.exit(0);
