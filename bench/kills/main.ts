/**
 * What guests see of a Ringway that is killed by `kill -9` under load and started again at once, as by a supervisor:
 * `node bench/kills/main.ts [--kills N] [--rows WORD]`, N for each row (default 20). Prints how long no frame was through,
 * and what became of frames. Ends with code 1 when one was lost without a name, or more than a burst came twice.
 */
import { parseArgs } from 'node:util';
import { ensurePeers } from '../../test/peers/index.ts';
import { Random } from '../../test/vring/random.ts';
import { percentileOf } from '../statistics.ts';
import { BURST_FRAMES_MAX, type Kill, type KillsUnderLoad } from './contract.ts';
import { embeddedUnderLoad } from './embedded.ts';
import { qemuUnderLoad } from './qemu.ts';
import { testpmdUnderLoad } from './testpmd.ts';

const KILLS_DEFAULT = '20';
const LAYOUTS = ['split', 'packed'] as const;
const ROLES = ['server', 'client'] as const;

type Row = { readonly name: string; start(random: Random): Promise<KillsUnderLoad> };

const ROWS: readonly Row[] = [
  ...LAYOUTS.flatMap((layout) => ROLES.map((role) => ({ layout, role }))).flatMap(
    ({ layout, role }): Row[] => [
      { name: `embedded-${layout}-${role}`, start: (random) => embeddedUnderLoad({ layout, role, random }) },
      { name: `qemu-${layout}-${role}`, start: (random) => qemuUnderLoad({ layout, role, random }) },
    ],
  ),
  ...LAYOUTS.map(
    (layout): Row => ({
      name: `testpmd-${layout}`,
      start: (random) => testpmdUnderLoad({ layout, random }),
    }),
  ),
].sort((a, b) => (a.name < b.name ? -1 : 1));

type Figures = Record<string, string | number>;

async function measure(row: Row, kills: number): Promise<{ figures: Figures; isGood: boolean }> {
  const world = await row.start(new Random(ROWS.indexOf(row)));
  const results: Kill[] = [];
  for (let kill = 0; kill < kills; kill++) {
    results.push(await world.kill());
    process.stderr.write(`\r${row.name}: ${kill + 1} of ${kills} `);
  }
  process.stderr.write('\n');
  await world.end();
  const of = (value: (result: Kill) => number): Float64Array => Float64Array.from(results, value).sort();
  const share = (values: Float64Array, at: number): number => Math.round(percentileOf(values, at));
  const sum = (value: (result: Kill) => number): number => results.reduce((all, it) => all + value(it), 0);
  const outage = of(({ outageMs }) => outageMs);
  const mostTwice = Math.max(...of(({ twice }) => twice));
  const lost = sum((result) => result.lost ?? 0);
  const figures = {
    'front-ends': world.title,
    kills,
    'outage ms, median': share(outage, 0.5),
    p99: share(outage, 0.99),
    max: Math.round(outage.at(-1) ?? 0),
    'answers after ms': share(
      of(({ answersMs }) => answersMs),
      0.5,
    ),
    lost: results.some((result) => result.lost === null) ? '-' : lost,
    'twice, in all': sum(({ twice }) => twice),
    'at most': mostTwice,
    'receiver away': sum(({ dropped }) => dropped),
    remark: world.remark ?? '',
  };
  return { figures, isGood: lost === 0 && mostTwice <= BURST_FRAMES_MAX };
}

const { values } = parseArgs({
  options: { kills: { type: 'string', default: KILLS_DEFAULT }, rows: { type: 'string', default: '' } },
});
const rows = ROWS.filter(({ name }) => name.includes(values.rows));
if (rows.length === 0) {
  const names = ROWS.map(({ name }) => name).join(', ');
  process.stderr.write(`--rows: ${values.rows} is in none of ${names}\n`);
  process.exit(2);
}
const { missing } = await ensurePeers(['qemu', 'testpmd']);
for (const [peer, reason] of missing) process.stderr.write(`left out: ${peer}: ${reason}\n`);
const isThere = ({ name }: Row): boolean => ![...missing.keys()].some((peer) => name.startsWith(peer));
const figures: Figures[] = [];
for (const row of rows.filter(isThere)) {
  const measured = await measure(row, Number(values.kills)).catch((error: Error) => {
    process.stderr.write(`${row.name}: ${error.message}\n`);
    return null;
  });
  if (measured !== null) {
    figures.push(measured.figures);
    process.stderr.write(`${JSON.stringify(measured.figures)}\n`);
  }
  if (measured?.isGood !== true) process.exitCode = 1;
}
console.table(figures);
