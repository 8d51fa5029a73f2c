/** `ringway fdb`: the addresses that the running process has learned. */
import type { Command } from 'commander';
import { askControl } from '../control/client.ts';
import type { FdbReport } from '../control/report.ts';
import { type AskOptions, addAskOptions } from './ask-options.ts';
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
}

const COLUMNS: readonly Column[] = [
  { title: 'ADDRESS', align: 'left' },
  { title: 'VLAN', align: 'right' },
  { title: 'PORT', align: 'left' },
  { title: 'SILENT FOR', align: 'right' },
];

export function formatFdb(fdb: FdbReport): string {
  const entries = [...fdb.entries].sort((a, b) => a.vlan - b.vlan || (a.mac < b.mac ? -1 : 1));
  const rows = entries.map(({ mac, vlan, port, ageSeconds }) => [mac, String(vlan), port, `${ageSeconds} s`]);
  const summary =
    `${formatCount(entries.length)} of at most ${formatCount(fdb.capacity)} addresses; ` +
    `each is forgotten after ${formatCount(fdb.ageSeconds)} s of silence`;
  return `${[...(rows.length > 0 ? formatTable(COLUMNS, rows) : []), summary].join('\n')}\n`;
}
