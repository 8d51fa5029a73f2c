/**
 * What one run of the benchmark does: the command line's options as a plan, with the lengths of windows and
 * the numbers of samples for the full and the quick run. Main thread; called by main.ts.
 */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { allowedCpus } from '../src/host/affinity.ts';
import { TESTPMD_LOADS, type TestpmdLoadKind } from './load/contract.ts';

/** Those that `--peers` takes. */
export const PEER_NAMES = ['ringway', 'ovs', 'testpmd'] as const;
/** `other`: Ringway of the checkout that `--against` names. */
export type RingwayName = 'ringway' | 'other';
export type PeerName = (typeof PEER_NAMES)[number] | RingwayName;

/** testpmd's modes and receive paths, the headline first. */
export const LOAD_NAMES = Object.keys(TESTPMD_LOADS) as TestpmdLoadKind[];

export const SCENARIO_NAMES = [
  'throughput',
  'mixed',
  'latency',
  'scale',
  'idle',
  'memory',
  'gc',
  'pieces',
  'micro',
] as const;
export type ScenarioName = (typeof SCENARIO_NAMES)[number];

export type BenchPlan = {
  readonly quick: boolean;
  /** Only the forwarder's own pieces, in this process, without peers. */
  readonly piecesOnly: boolean;
  /** Folder of another checkout of Ringway to compare with; null: none. */
  readonly otherCheckout: string | null;
  readonly peers: readonly PeerName[];
  readonly scenarios: readonly ScenarioName[];
  /** Generators of the throughput scenario; the first one also serves the others. */
  readonly loads: readonly TestpmdLoadKind[];
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
  /** Where results go; null: the default place (full run) or nowhere (any other). */
  readonly jsonPath: string | null;
  /** With `piecesOnly`: results go to standard output as JSON. */
  readonly printsJson: boolean;
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

const LOADS_OF_QUICK: readonly TestpmdLoadKind[] = ['macswap-vectorised', 'macswap-default'];

type Options = {
  quick?: boolean;
  pieces?: boolean;
  against?: string;
  peers?: PeerName[];
  scenarios: ScenarioName[];
  loads?: TestpmdLoadKind[];
  sizes?: number[];
  rounds?: number;
  cpus?: number[];
  json?: string | true;
};

/** Reads the command line; prints help or an error and ends the process where that is due. */
export function readPlan(argv: readonly string[]): BenchPlan {
  const program = command().parse(argv, { from: 'user' });
  const options = program.opts<Options>();
  const piecesOnly = options.pieces === true;
  if (piecesOnly !== (options.json === true) && options.json !== undefined) {
    program.error(piecesOnly ? '--pieces writes JSON to standard output only' : '--json needs a file here');
  }
  const quick = options.quick === true;
  const cpus = options.cpus ?? allowedCpus();
  return {
    ...(quick ? QUICK : FULL),
    quick,
    piecesOnly,
    otherCheckout: options.against ?? null,
    peers: peersOf(options, quick),
    scenarios: options.scenarios,
    loads: options.loads ?? (quick ? LOADS_OF_QUICK : LOAD_NAMES),
    frameSizesBytes: options.sizes ?? (quick ? [64, 1518] : [64, 256, 512, 1518]),
    rounds: options.rounds ?? (quick ? 1 : 5),
    dutCpu: cpus[0],
    loadCpu: cpus[1] ?? cpus[0],
    installs: !quick || options.peers !== undefined,
    jsonPath: typeof options.json === 'string' ? options.json : null,
    printsJson: options.json === true,
  };
}

/** The other checkout comes right after this one, so that the two are near each other in time. */
function peersOf({ peers, against }: Options, quick: boolean): PeerName[] {
  const named: readonly PeerName[] = peers ?? (quick ? ['ringway'] : PEER_NAMES);
  if (against === undefined) return [...named];
  return named.flatMap((name): PeerName[] => (name === 'ringway' ? [name, 'other'] : [name]));
}

function command(): Command {
  return new Command('npm run bench --')
    .description('Measures Ringway and its peers in turn on one core, the load generator on another.')
    .option('--quick', 'short windows, Ringway only unless --peers is given; under 2 minutes')
    .option('--pieces', "only the forwarder's own work, in one process without any peer")
    .addOption(
      new Option(
        '--against <folder>',
        'also measure the Ringway of another checkout, in turn with this one',
      ).argParser(checkoutFolder),
    )
    .addOption(listOption('--peers <list>', 'switches to measure (default: all)', PEER_NAMES))
    .addOption(
      listOption('--scenarios <list>', 'what to measure', SCENARIO_NAMES).default(
        [...SCENARIO_NAMES],
        'all of them',
      ),
    )
    .addOption(listOption('--loads <list>', 'how testpmd makes the load (default: all)', LOAD_NAMES))
    .option(
      '--sizes <list>',
      'frame sizes in bytes, without check sequence (default: 64,256,512,1518)',
      (text) => text.split(',').map((part) => wholeNumber(part, 60, 1518)),
    )
    .option('--rounds <n>', 'rounds of throughput, mixed and latency (default: 5)', (text) =>
      wholeNumber(text, 1, 1000),
    )
    .option(
      '--cpus <dut,load>',
      'processors of the switch and of the generator (default: the first two)',
      (text) => text.split(',').map((part) => wholeNumber(part, 0, 4095)),
    )
    .option(
      '--json [file]',
      'where the results go (default of a full run: bench/results/latest.json); with --pieces: to standard output',
    );
}

function checkoutFolder(text: string): string {
  const folder = resolve(text);
  if (!existsSync(join(folder, 'switch/cli/ringway.js'))) {
    throw new InvalidArgumentError(`${text} holds no Ringway (switch/cli/ringway.js).`);
  }
  return folder;
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
