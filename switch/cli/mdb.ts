/** `ringway mdb`: who is a member of which group, as the running process has overheard or was told. */
import type { Command } from 'commander';
import { askControl } from '../control/client.ts';
import type { MdbReport } from '../snooping/report.ts';
import { type AskOptions, addAskOptions, addControlOption } from './ask-options.ts';
import { findControl } from './running.ts';
import { type Column, formatCount, formatTable, jsonText } from './table.ts';

type ChangeOptions = {
  readonly control?: string;
  readonly vlan?: string | undefined;
  readonly port?: string | undefined;
};

export function addMdb(program: Command): void {
  const mdb = program
    .command('mdb')
    .description('Show which ports of the running ringway have joined which groups (IGMP and MLD snooping).')
    .enablePositionalOptions();
  addAskOptions(mdb).action(async (options: AskOptions) => {
    const report = await askControl<MdbReport>(await findControl(options.control), '/v1/mdb');
    process.stdout.write(options.json ? jsonText(report) : formatMdb(report));
  });
  const add = mdb
    .command('add <group> <port>')
    .description('Have a port be a member of a group until it is taken out.')
    .option('--vlan <number>', "its VLAN (default: that of the port's frames without a tag)");
  addControlOption(add).action((group: string, port: string, options: ChangeOptions) =>
    change(mdb, options, pathOf(group, port, options), 'PUT'),
  );
  const del = mdb
    .command('del <group> <port>')
    .description('Take a port out of a group; if it joined by itself, it may do so again.')
    .option('--vlan <number>', "its VLAN (default: that of the port's frames without a tag)");
  addControlOption(del).action((group: string, port: string, options: ChangeOptions) =>
    change(mdb, options, pathOf(group, port, options), 'DELETE'),
  );
  const flush = mdb
    .command('flush')
    .description('Forget members and routers that were overheard.')
    .option('--port <name>', 'of one port')
    .option('--vlan <number>', 'of one VLAN');
  addControlOption(flush).action((options: ChangeOptions) =>
    change(mdb, options, `/v1/mdb${queryOf(options)}`, 'DELETE'),
  );
}

async function change(
  mdb: Command,
  options: ChangeOptions,
  path: string,
  method: 'PUT' | 'DELETE',
): Promise<void> {
  // It may stand before or behind the word.
  const control = options.control ?? mdb.opts<AskOptions>().control;
  await askControl(await findControl(control), path, { method });
}

function pathOf(group: string, port: string, { vlan }: ChangeOptions): string {
  return `/v1/mdb/${encodeURIComponent(port)}/${encodeURIComponent(group)}${queryOf({ vlan })}`;
}

function queryOf({ port, vlan }: Pick<ChangeOptions, 'port' | 'vlan'>): string {
  const query = new URLSearchParams({
    ...(port !== undefined && { port }),
    ...(vlan !== undefined && { vlan }),
  });
  return query.size === 0 ? '' : `?${query}`;
}

const COLUMNS: readonly Column[] = [
  { title: 'VLAN', align: 'right' },
  { title: 'GROUP', align: 'left' },
  { title: 'PORT', align: 'left' },
  { title: 'AGE', align: 'right' },
  { title: 'LEFT', align: 'right' },
];

export function formatMdb(mdb: MdbReport): string {
  if (!mdb.enabled) return 'Groups are flooded: snooping is off.\n';
  const left = (seconds: number | null): string => (seconds === null ? 'stays' : `${seconds} s`);
  const rows = [
    ...mdb.groups.map(({ vlan, group, port, ageSeconds, leftSeconds }) => [
      String(vlan),
      group,
      port,
      `${ageSeconds} s`,
      left(leftSeconds),
    ]),
    ...mdb.routers.map(({ vlan, port, leftSeconds }) => [
      vlan === null ? 'all' : String(vlan),
      'router',
      port,
      '',
      left(leftSeconds),
    ]),
    ...mdb.queriers.map(({ vlan, address, port, ageSeconds }) => [
      String(vlan),
      `querier ${address}`,
      port ?? 'this switch',
      port === null ? '' : `${ageSeconds} s`,
      '',
    ]),
  ];
  const groups = new Set(mdb.groups.map(({ vlan, group }) => `${vlan} ${group}`)).size;
  const unknown = mdb.floodUnregistered ? 'are flooded' : 'go to routers alone';
  const summary = [
    `${formatCount(groups)} of at most ${formatCount(mdb.capacity)} groups; frames to others ${unknown}`,
    ...(mdb.lostMessages > 0
      ? [`${formatCount(mdb.lostMessages)} messages were lost: too many came at once`]
      : []),
    ...(mdb.evicted > 0
      ? [`${formatCount(mdb.evicted)} memberships gave way to those of ports with fewer`]
      : []),
  ];
  return `${[...(rows.length > 0 ? formatTable(COLUMNS, rows) : []), ...summary].join('\n')}\n`;
}
