/** `ringway fdb`: the addresses that the running process has learned, and `add`, `del` and `flush`, which change them. */
import type { Command } from 'commander';
import { ConfigError } from '../config/settings.ts';
import { askControl } from '../control/client.ts';
import type { FdbReport } from '../control/report.ts';
import { type AskOptions, addAskOptions, addControlOption } from './ask-options.ts';
import { findControl } from './running.ts';
import { type Column, formatCount, formatTable, jsonText } from './table.ts';

export function addFdb(program: Command): void {
  const command = program
    .command('fdb')
    .description('Show the forwarding table of the running ringway: which address is behind which port.');
  addAskOptions(command).action(async (options: AskOptions) => {
    const fdb = await askControl<FdbReport>(await findControl(options.control), '/v1/fdb');
    process.stdout.write(options.json ? jsonText(fdb) : formatFdb(fdb));
  });
  addControlOption(
    command
      .command('add <address> <port>')
      .description(
        'Have an address stay behind a port: it is not forgotten, and no frame from another port moves it. Kept over restarts.',
      )
      .option('--vlan <vlan>', "its VLAN (default: that of the port's frames without a tag)"),
  ).action(async (mac: string, port: string, _: unknown, add: Command) => {
    const { control, vlan } = add.optsWithGlobals<ChangeOptions>();
    const body = { port, ...(vlan !== undefined && { vlan: vlanOf(vlan) }) };
    await askControl(await findControl(control), pathOf(mac), { method: 'PUT', body });
  });
  addControlOption(
    command
      .command('del <address>')
      .description('Forget an address, learned or added.')
      .option('--vlan <vlan>', 'its VLAN (default: the one in which it is known)'),
  ).action(async (mac: string, _: unknown, del: Command) => {
    const { control, vlan } = del.optsWithGlobals<ChangeOptions>();
    const query = vlan === undefined ? '' : `?vlan=${vlanOf(vlan)}`;
    await askControl(await findControl(control), `${pathOf(mac)}${query}`, { method: 'DELETE' });
  });
  addControlOption(
    command
      .command('flush')
      .description('Forget what was learned.')
      .option('--port <name>', 'of this port only')
      .option('--vlan <vlan>', 'in this VLAN only')
      .option('--static', 'also addresses that were added or stick; those of static-macs stay'),
  ).action(async (_: unknown, flush: Command) => {
    const { control, port, vlan, static: isAll } = flush.optsWithGlobals<ChangeOptions>();
    const body = {
      ...(port !== undefined && { port }),
      ...(vlan !== undefined && { vlan: vlanOf(vlan) }),
      ...(isAll === true && { static: true }),
    };
    const path = '/v1/fdb/flush';
    const { removed } = await askControl<{ removed: number }>(await findControl(control), path, {
      method: 'POST',
      body,
    });
    process.stdout.write(`forgot ${formatCount(removed)} ${removed === 1 ? 'address' : 'addresses'}\n`);
  });
}

type ChangeOptions = AskOptions & {
  readonly vlan?: string;
  readonly port?: string;
  readonly static?: true;
};

function pathOf(mac: string): string {
  return `/v1/fdb/${encodeURIComponent(mac)}`;
}

/** @throws ConfigError */
function vlanOf(text: string): number {
  if (!/^\d{1,4}$/.test(text) || Number(text) > 4095)
    throw new ConfigError(`--vlan: ${text} is not allowed (0 to 4095)`);
  return Number(text);
}

const COLUMNS: readonly Column[] = [
  { title: 'ADDRESS', align: 'left' },
  { title: 'VLAN', align: 'right' },
  { title: 'PORT', align: 'left' },
  { title: 'SILENT FOR', align: 'right' },
];

export function formatFdb(fdb: FdbReport): string {
  const entries = [...fdb.entries].sort((a, b) => a.vlan - b.vlan || (a.mac < b.mac ? -1 : 1));
  const rows = entries.map(({ mac, vlan, port, ageSeconds, static: isStatic }) => [
    mac,
    String(vlan),
    port,
    isStatic ? 'static' : `${ageSeconds} s`,
  ]);
  const summary =
    `${formatCount(entries.length)} of at most ${formatCount(fdb.capacity)} addresses; ` +
    `each is forgotten after ${formatCount(fdb.ageSeconds)} s of silence`;
  const moves = Object.entries(fdb.moved).filter(([, count]) => count > 0);
  const moved =
    moves.length === 0
      ? []
      : [
          `moved there from another port: ${moves.map(([port, count]) => `${port} ${formatCount(count)}`).join(', ')}`,
        ];
  const table = rows.length > 0 ? formatTable(COLUMNS, rows) : [];
  return `${[...table, summary, ...moved].join('\n')}\n`;
}
