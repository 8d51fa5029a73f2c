/**
 * What one run of the benchmark does: the command line's options as a plan, with the lengths of windows and
 * the numbers of samples for the full and the quick run. Pure; called by main.ts.
 */
import { Command, InvalidArgumentError, Option } from 'commander';
import { allowedCpus } from '../src/host/affinity.ts';

export const PEER_NAMES = ['ringway', 'ovs', 'testpmd'] as const;
export type PeerName = (typeof PEER_NAMES)[number];

export const SCENARIO_NAMES = ['throughput', 'latency', 'scale', 'idle', 'memory', 'gc', 'micro'] as const;
export type ScenarioName = (typeof SCENARIO_NAMES)[number];

export type BenchPlan = {
  readonly quick: boolean;
  readonly peers: readonly PeerName[];
  readonly scenarios: readonly ScenarioName[];
  /** Bytes of a frame without preamble and check sequence. */
  readonly frameSizesBytes: readonly number[];
  readonly rounds: number;
  /** Processor of the device under test, and of the load generator. */
  readonly dutCpu: number;
  readonly loadCpu: number;
  /** How often a disturbed measurement is made at most. */
  readonly attemptsMax: number;
  readonly warmUpMs: number;
  readonly windowMs: number;
  readonly latencySamples: number;
  readonly scaleRounds: number;
  readonly idleWindowMs: number;
  readonly firstFrameSamples: number;
  readonly collectionsWindowMs: number;
  /** Whether missing packages may be installed. */
  readonly installs: boolean;
  /** Where results go; null: the default place (full run) or nowhere (quick run). */
  readonly jsonPath: string | null;
};

const FULL = {
  attemptsMax: 3,
  warmUpMs: 1000,
  windowMs: 2000,
  latencySamples: 200_000,
  scaleRounds: 5,
  idleWindowMs: 10_000,
  firstFrameSamples: 1000,
  collectionsWindowMs: 60_000,
};

const QUICK: typeof FULL = {
  attemptsMax: 1,
  warmUpMs: 300,
  windowMs: 1000,
  latencySamples: 20_000,
  scaleRounds: 1,
  idleWindowMs: 2000,
  firstFrameSamples: 100,
  collectionsWindowMs: 3000,
};

type Options = {
  quick?: boolean;
  peers?: PeerName[];
  scenarios: ScenarioName[];
  sizes?: number[];
  rounds?: number;
  cpus?: number[];
  json?: string;
};

/** Reads the command line; prints help or an error and ends the process where that is due. */
export function readPlan(argv: readonly string[]): BenchPlan {
  const options = command().parse(argv, { from: 'user' }).opts<Options>();
  const quick = options.quick === true;
  const cpus = options.cpus ?? allowedCpus();
  return {
    ...(quick ? QUICK : FULL),
    quick,
    peers: options.peers ?? (quick ? ['ringway'] : PEER_NAMES),
    scenarios: options.scenarios,
    frameSizesBytes: options.sizes ?? (quick ? [64, 1518] : [64, 256, 512, 1024, 1518]),
    rounds: options.rounds ?? (quick ? 1 : 5),
    dutCpu: cpus[0],
    loadCpu: cpus[1] ?? cpus[0],
    installs: !quick || options.peers !== undefined,
    jsonPath: options.json ?? null,
  };
}

function command(): Command {
  return new Command('npm run bench --')
    .description('Measures Ringway and its peers in turn on one core, the load generator on another.')
    .option('--quick', 'short windows, Ringway only unless --peers is given; under 3 minutes')
    .addOption(listOption('--peers <list>', 'switches to measure (default: all)', PEER_NAMES))
    .addOption(
      listOption('--scenarios <list>', 'what to measure', SCENARIO_NAMES).default(
        [...SCENARIO_NAMES],
        'all of them',
      ),
    )
    .option(
      '--sizes <list>',
      'frame sizes in bytes, without check sequence (default: 64,256,512,1024,1518)',
      (text) => text.split(',').map((part) => wholeNumber(part, 60, 1518)),
    )
    .option('--rounds <n>', 'rounds of throughput and latency (default: 5)', (text) =>
      wholeNumber(text, 1, 1000),
    )
    .option(
      '--cpus <dut,load>',
      'processors of the switch and of the generator (default: the first two)',
      (text) => text.split(',').map((part) => wholeNumber(part, 0, 4095)),
    )
    .option('--json <file>', 'where the results go (default of a full run: bench/results/latest.json)');
}

function listOption(flags: string, description: string, allowed: readonly string[]): Option {
  return new Option(flags, `${description}: ${allowed.join(', ')}`).argParser((text) => {
    const parts = text.split(',');
    const unknown = parts.find((part) => !allowed.includes(part));
    if (unknown !== undefined) throw new InvalidArgumentError(`${unknown} is none of ${allowed.join(', ')}.`);
    return parts;
  });
}

function wholeNumber(text: string, min: number, max: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new InvalidArgumentError(`${text} is no whole number from ${min} to ${max}.`);
  }
  return value;
}
