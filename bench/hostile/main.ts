/**
 * The costliest frame: what two guests can make a worker spend on one frame, on a burst, and on a turn when they go on
 * like that, found by a seeded search. `node bench/hostile/main.ts [SEEDS [FIRST]]`. Each figure is the best of several
 * tries of the same thing, because the machine has other work too; `cold`: with nothing of the guests' memory in the
 * caches, while our own code is.
 */
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { BATCH_FRAMES_MAX } from '../../src/queue/batch.ts';
import { warmUpCopy } from '../../src/queue/copy.ts';
import { describePlan, makePair } from './search.ts';
import { ARENA_BYTES, HostileWorld, type RingPlan } from './world.ts';

const SEEDS = 1500;
const WARM_UP_SEEDS = 150;
const TRIES = 5;
const COLD_TRIES = 10;
/** Only of the costliest are the cold figures taken: making the caches cold takes longer than all the rest. */
const SHOWN = 30;
const TURNS = 24;

/** What keeps our own code warm: a frame in three parts, from and to three buffers. */
const PLAIN: RingPlan = {
  layout: 'split',
  size: 256,
  mergeable: true,
  isIndirect: false,
  descriptors: 3,
  firstBytes: 12,
  otherBytes: 30,
  lastBytes: 30,
  scatter: 'together',
  regions: 1,
  regionBytesMax: 2 ** 25,
  stride: 1,
  tableShift: 0,
};
const arena = Arena.reserve(ARENA_BYTES);
const view = new ArenaView(arena.location);
warmUpCopy(view);
const ordinary = new HostileWorld(arena, view);

type Figures = {
  readonly seed: number;
  readonly frameUs: number;
  readonly burstUs: number;
  readonly turnUs: number;
};

function timedUs(action: () => void): number {
  const startMs = performance.now();
  action();
  return (performance.now() - startMs) * 1000;
}

function best(tries: number, measure: () => number): number {
  return Math.min(...Array.from({ length: tries }, measure));
}

function burstUs(world: HostileWorld, chains: number, isCold: boolean): number {
  world.begin(chains);
  if (isCold) {
    world.cool();
    ordinary.begin(1);
    ordinary.turn();
  }
  return timedUs(() => world.turn());
}

/** Mean of turns of a worker that polls the sender, which offers all that it can. */
function turnUs(world: HostileWorld): number {
  world.begin(Number.POSITIVE_INFINITY);
  let spentUs = 0;
  for (let turn = 0; turn < TURNS; turn++) spentUs += timedUs(() => world.turn());
  return spentUs / TURNS;
}

function measure(world: HostileWorld, seed: number, isCold: boolean): Figures {
  const { from, to } = makePair(seed);
  world.adopt(from, to);
  const tries = isCold ? COLD_TRIES : TRIES;
  return {
    seed,
    frameUs: best(tries, () => burstUs(world, 1, isCold)),
    burstUs: best(tries, () => burstUs(world, BATCH_FRAMES_MAX, isCold)),
    turnUs: isCold ? 0 : best(2, () => turnUs(world)),
  };
}

function show(title: string, by: (figures: Figures) => number, all: readonly Figures[]): readonly Figures[] {
  const costliest = [...all].sort((a, b) => by(b) - by(a)).slice(0, SHOWN);
  process.stdout.write(`${title}\n`);
  for (const figures of costliest) {
    const { from, to } = makePair(figures.seed);
    process.stdout.write(
      `${by(figures).toFixed(1).padStart(9)} us  seed ${figures.seed}\n            from: ${describePlan(from)}\n            to:   ${describePlan(to)}\n`,
    );
  }
  return costliest;
}

const seeds = Number(process.argv[2] ?? SEEDS);
const first = Number(process.argv[3] ?? 0);
const world = new HostileWorld(arena, view);
ordinary.adopt(PLAIN, PLAIN);
for (let seed = 0; seed < WARM_UP_SEEDS; seed++) measure(world, 1_000_000 + seed, false);
const all = Array.from({ length: seeds }, (_, i) => measure(world, first + i, false));
const costliest = show('one frame', ({ frameUs }) => frameUs, all);
show(`a burst of ${BATCH_FRAMES_MAX}`, (figures) => figures.burstUs, all);
show(`a turn, mean of ${TURNS}`, (figures) => figures.turnUs, all);
show(
  'one frame, cold',
  ({ frameUs }) => frameUs,
  costliest.map(({ seed }) => measure(world, seed, true)),
);
