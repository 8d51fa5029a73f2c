/** Where addresses live, and who joined which group. In the browser. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { useState } from 'preact/hooks';
import type { FdbReport } from '../../control/report.ts';
import type { MdbReport } from '../../snooping/report.ts';
import { grouped } from './format.ts';
import { Table } from './parts.ts';
import { useAnswer } from './store.ts';

const PERIOD_MS = 3000;
/** More than that nobody reads; searching finds the others. */
const ROWS_MAX = 200;

type Entry = FdbReport['entries'][number];
type Group = MdbReport['groups'][number];

export function Addresses(): VNode {
  const [search, setSearch] = useState('');
  const { answer: fdb, problem } = useAnswer<FdbReport>('/v1/fdb', PERIOD_MS);
  const { answer: mdb } = useAnswer<MdbReport>('/v1/mdb', PERIOD_MS);
  if (fdb === null) return html`<p class="hint">${problem ?? 'Asking…'}</p>`;
  const words = search
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== '');
  const found = fdb.entries.filter((entry) => words.every((word) => textOf(entry).includes(word)));
  return html`
    <label class="search">Search <input type="search" placeholder="address, port or VLAN" value=${search}
      onInput=${(event: InputEvent) => setSearch((event.target as HTMLInputElement).value)} /></label>
    <p class="hint" role="status">${grouped(found.length)} of ${grouped(fdb.entries.length)} addresses${found.length > ROWS_MAX ? `, the first ${ROWS_MAX} are shown` : ''};
      forgotten after ${fdb.ageSeconds} s of silence.</p>
    <${Table} label="Forwarding table" rows=${found.slice(0, ROWS_MAX)} keyOf=${({ mac, vlan }: Entry) => `${mac} ${vlan}`} empty="None." columns=${[
      { title: 'Address', of: ({ mac }: Entry) => html`<code>${mac}</code>`, by: ({ mac }: Entry) => mac },
      { title: 'VLAN', isNumber: true, of: ({ vlan }: Entry) => vlan, by: ({ vlan }: Entry) => vlan },
      {
        title: 'Port',
        of: ({ port }: Entry) => html`<a href=${`#ports/${encodeURIComponent(port)}`}>${port}</a>`,
        by: ({ port }: Entry) => port,
      },
      {
        title: 'Silent, s',
        isNumber: true,
        of: (entry: Entry) => (entry.static ? 'stays' : entry.ageSeconds),
        by: ({ ageSeconds }: Entry) => ageSeconds,
      },
    ]} />
    <section aria-labelledby="groups"><h3 id="groups">Multicast groups</h3>
      ${
        mdb?.enabled === true
          ? html`<${Table} label="Members of groups" rows=${mdb.groups} keyOf=${({ vlan, group, port }: Group) => `${vlan} ${group} ${port}`} empty="Nobody joined any." columns=${[
              {
                title: 'Group',
                of: ({ group }: Group) => html`<code>${group}</code>`,
                by: ({ group }: Group) => group,
              },
              { title: 'VLAN', isNumber: true, of: ({ vlan }: Group) => vlan, by: ({ vlan }: Group) => vlan },
              { title: 'Port', of: ({ port }: Group) => port, by: ({ port }: Group) => port },
              { title: 'Left, s', isNumber: true, of: ({ leftSeconds }: Group) => leftSeconds ?? 'stays' },
            ]} />
          <p class="hint">Routers: ${mdb.routers.map(({ port, vlan }) => `${port}${vlan === null ? '' : ` in VLAN ${vlan}`}`).join(', ') || 'none'}.
            Queriers: ${mdb.queriers.map(({ address, vlan }) => `${address} in VLAN ${vlan}`).join(', ') || 'none'}.</p>`
          : html`<p class="hint">Snooping is off: frames to groups go to all ports.</p>`
      }
    </section>`;
}

function textOf({ mac, vlan, port }: Entry): string {
  return `${mac} ${vlan} ${port}`.toLowerCase();
}
