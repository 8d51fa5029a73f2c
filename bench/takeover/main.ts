/**
 * What a takeover is to guests: `ringway run --takeover` again and again under load, and the longest time for which a guest
 * received nothing, with what was lost, came twice and was cut off. Between two takeovers the same is measured without one,
 * for what the machine makes of it by itself. `node bench/takeover/main.ts --help`; docs/upgrade.md has the results.
 */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { allowedCpus } from '../../src/host/affinity.ts';
import { Testpmd } from '../../test/peers/index.ts';
import { RingwayProcess } from '../../test/real/ringway-process.ts';
import { drain, START_COMMAND, tally } from '../../test/real/testpmd-traffic.ts';
import { percentileOf } from '../statistics.ts';
import type { ProbeOrder, ProbeWindow } from './contract.ts';

const PROBE = fileURLToPath(new URL('./probe.ts', import.meta.url));
const AFTERWARDS_MS = 200;
const CONTROL_MS = 1000;
const ARRIVE_MS = 500;
const MACS = ['02:00:00:00:01:01', '02:00:00:00:01:02'] as const;
const HELP = `node bench/takeover/main.ts [--takeovers 100] [--period-us 200] [--load testpmd|none] [--cpus 1] [--json]
  --takeovers  how many
  --period-us  between two numbered frames of each of the two guests that measure
  --load       testpmd: 128 frames go round between two virtio-user ports as fast as they can
  --layout     of testpmd's rings: split or packed
  --cpus       as of "ringway run"
  --json       prints every sample instead of the table`;

const { values } = parseArgs({
  options: {
    takeovers: { type: 'string', default: '100' },
    'period-us': { type: 'string', default: '200' },
    load: { type: 'string', default: 'testpmd' },
    layout: { type: 'string', default: 'split' },
    cpus: { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  process.stdout.write(`${HELP}\n`);
  process.exit(0);
}

class Probe {
  readonly #child: ChildProcess;
  readonly #ended: Promise<never>;

  constructor(switching: RingwayProcess) {
    const args = [switching.socket('a'), switching.socket('b'), values['period-us']];
    this.#child = fork(PROBE, args, { execArgv: [] });
    this.#ended = once(this.#child, 'exit').then(([code]) => {
      throw new Error(`the guests that measure ended with ${code}`);
    });
    this.#ended.catch(() => {});
  }

  async say(order: ProbeOrder): Promise<ProbeWindow> {
    const answered = once(this.#child, 'message') as Promise<[ProbeWindow]>;
    this.#child.send(order);
    const [window] = await Promise.race([answered, this.#ended]);
    return window;
  }

  async end(): Promise<void> {
    const exited = once(this.#child, 'exit');
    await this.say('end');
    this.#child.disconnect();
    await exited;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

function startTestpmd(switching: RingwayProcess): Promise<Testpmd> {
  const packed = values.layout === 'packed' ? ',packed_vq=1' : '';
  return Testpmd.start({
    vdevs: ['t0', 't1'].map(
      (name, i) =>
        `net_virtio_user${i},path=${switching.socket(name)},queues=1,queue_size=256,mac=${MACS[i]}${packed}`,
    ),
    cores: '1,0',
    ealArgs: ['--main-lcore', '1'],
    args: [
      '--forward-mode=io',
      '--total-num-mbufs=8192',
      `--eth-peer=0,${MACS[1]}`,
      `--eth-peer=1,${MACS[0]}`,
    ],
    memoryMiB: 128,
  });
}

/** When the last one was done, and for how long its rings rested, as its log says. */
function lastTakeover(log: string): { readonly epochMs: number; readonly restMs: number } {
  const line = log.split('\n').findLast((text) => text.includes('"has taken over"')) ?? '{}';
  const { time, restMs } = JSON.parse(line) as { time: string; restMs: number };
  return { epochMs: Date.parse(time), restMs };
}

const takeovers = Number(values.takeovers);
const elsewhere = allowedCpus()
  .filter((cpu) => !values.cpus.split(',').map(Number).includes(cpu))
  .join(',');
if (elsewhere === '') throw new Error(`no processor is left beside ${values.cpus}`);
const switching = await RingwayProcess.start({
  ports: values.load === 'testpmd' ? ['a', 'b', 't0', 't1'] : ['a', 'b'],
  args: ['--cpus', values.cpus],
  // From its first moment on, as docs/operating.md has it.
  spawn: (args) =>
    spawn('taskset', ['-c', elsewhere, process.execPath, ...args], { stdio: ['ignore', 'ignore', 'pipe'] }),
});
const probe = new Probe(switching);
process.once('exit', () => probe.kill());
const testpmd = values.load === 'testpmd' ? await startTestpmd(switching) : null;
process.once('exit', () => testpmd?.kill());
await testpmd?.command(START_COMMAND);
await delay(ARRIVE_MS);

const outagesMs: number[] = [];
const controlsMs: number[] = [];
/** As Ringway says itself. */
const restsMs: number[] = [];
for (let round = 0; round < takeovers; round++) {
  await probe.say('begin');
  await delay(CONTROL_MS);
  controlsMs.push((await probe.say('look')).gapMs);
  await probe.say('begin');
  await switching.takeOver();
  await delay(AFTERWARDS_MS);
  const { gapMs, gapEndEpochMs } = await probe.say('look');
  outagesMs.push(gapMs);
  const { epochMs, restMs } = lastTakeover(switching.log);
  restsMs.push(restMs);
  if (!values.json)
    process.stderr.write(
      `${round + 1}: ${gapMs.toFixed(2)} ms (${controlsMs[round].toFixed(2)} without), ended ${(gapEndEpochMs - epochMs).toFixed(0)} ms after the takeover; rings rested for ${restMs} ms\n`,
    );
}
await probe.say('rest');
await delay(ARRIVE_MS);
const last = await probe.say('look');
await testpmd?.command('stop');
const load = testpmd === null ? null : tally(await drain(testpmd));
const forwarded = await testpmd?.portStats();
await probe.end();
await testpmd?.stop();
await switching.stop();

const lost = last.sent - last.received;
if (values.json) {
  process.stdout.write(`${JSON.stringify({ outagesMs, restsMs, controlsMs, last, load, forwarded })}\n`);
} else {
  const row = (name: string, samples: readonly number[]): string => {
    const sorted = Float64Array.from(samples).sort();
    const at = (share: number): string => percentileOf(sorted, share).toFixed(2).padStart(8);
    return `${name.padEnd(24)}${at(0.5)}${at(0.9)}${at(0.99)}${at(1)}`;
  };
  process.stdout.write(
    [
      `${'longest gap, ms'.padEnd(24)}  median     p90     p99     max`,
      row(`${takeovers} takeovers`, outagesMs),
      row('of these rings at rest', restsMs),
      row('without, 1 s each', controlsMs),
      `numbered frames: ${last.sent} sent, ${lost} lost, ${last.twice} twice; ${last.disconnects} guests cut off`,
      load === null ? 'no load' : `testpmd: ${load.sent} sent, ${load.lost} lost`,
      '',
    ].join('\n'),
  );
}
