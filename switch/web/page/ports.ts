/** All ports, and one with everything that there is to tell of it. In the browser. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { useState } from 'preact/hooks';
import type { PortReport } from '../../control/report.ts';
import type { PortFigures } from '../../figures/report.ts';
import { grouped, short } from './format.ts';
import { Badge, Copyable, Figure, rate, Table } from './parts.ts';
import { ask, type State, useAnswer } from './store.ts';

type Row = { readonly port: PortReport; readonly figures: PortFigures | undefined };

export function Ports({ state, rest }: { state: State; rest: string }): VNode {
  const [search, setSearch] = useState('');
  const { ports, figures } = state;
  if (rest !== '') return html`<${OnePort} key=${rest} name=${rest} state=${state} />`;
  const figuresOf = new Map((figures?.ports ?? []).map((port) => [port.name, port]));
  const rows = ports
    .filter(({ name, endpoint }) => `${name} ${endpoint}`.toLowerCase().includes(search.toLowerCase()))
    .map((port): Row => ({ port, figures: figuresOf.get(port.name) }));
  const number = (title: string, of: (figures: PortFigures) => number) => ({
    title,
    isNumber: true,
    of: (row: Row) => (row.figures === undefined ? '' : short(of(row.figures))),
    by: (row: Row) => (row.figures === undefined ? 0 : of(row.figures)),
  });
  return html`
    <label class="search">Search <input type="search" value=${search} onInput=${(event: InputEvent) => setSearch((event.target as HTMLInputElement).value)} /></label>
    <${Table} label="Ports" rows=${rows} keyOf=${({ port }: Row) => port.name} empty="There is no such port." columns=${[
      {
        title: 'Port',
        of: ({ port }: Row) => html`<a href=${`#ports/${encodeURIComponent(port.name)}`}>${port.name}</a>`,
        by: ({ port }: Row) => port.name,
      },
      {
        title: 'State',
        of: ({ port }: Row) => html`<${Badge} state=${port.state} isShut=${port.shut !== null} />`,
        by: ({ port }: Row) => port.state,
      },
      number('In, frames/s', ({ rates }) => rates.rxPackets[0] ?? 0),
      number('Out, frames/s', ({ rates }) => rates.txPackets[0] ?? 0),
      number('In, bit/s', ({ rates }) => 8 * (rates.rxBytes[0] ?? 0)),
      number('Out, bit/s', ({ rates }) => 8 * (rates.txBytes[0] ?? 0)),
      number('Dropped', ({ totals }) => totals.dropped),
      { title: 'VLAN', of: ({ port }: Row) => vlanText(port) },
      { title: 'What it waits for', of: ({ port }: Row) => port.reason ?? '' },
    ]} />`;
}

function vlanText({ settings }: PortReport): string {
  const { vlanMode, tag, trunks } = settings;
  if (vlanMode === 'access') return String(tag);
  return `${vlanMode}${tag === null ? '' : ` ${tag}`}${trunks === null ? '' : ` [${trunks.join(', ')}]`}`;
}

type Plug = { readonly qemu: string | null; readonly libvirt: string | null };

function OnePort({ name, state }: { name: string; state: State }): VNode {
  const path = encodeURIComponent(name);
  const { answer: port, problem } = useAnswer<PortReport>(`/v1/ports/${path}`, 1000);
  const { answer: plug } = useAnswer<Plug>(`/plug/${path}`, 60_000);
  const figures = state.figures?.ports.find((each) => each.name === name);
  if (port === null)
    return html`<p class="hint">${problem ?? 'Asking…'}</p><p><a href="#ports">All ports</a></p>`;
  const drops = Object.entries(port.drops).filter(([, count]) => count > 0);
  return html`
    <p><a href="#ports">All ports</a></p>
    <h3>${port.name} <${Badge} state=${port.state} isShut=${port.shut !== null} /></h3>
    <p>${port.kind}, ${port.endpoint}</p>
    ${port.reason !== null && html`<p class="reason" role="status">${port.reason}</p>`}
    ${port.advice !== null && html`<p class="hint">${port.advice.what}: ${port.advice.why}. What to do: ${port.advice.fix}.</p>`}
    <dl class="figures">
      <${Figure} label="In" value=${rate(figures?.rates.rxPackets)} unit="frames/s" />
      <${Figure} label="Out" value=${rate(figures?.rates.txPackets)} unit="frames/s" />
      <${Figure} label="In, all" value=${grouped(port.counters.ingressFrames)} unit="frames" />
      <${Figure} label="Out, all" value=${grouped(port.counters.egressFrames)} unit="frames" />
      <${Figure} label="Queue pairs" value=${String(port.queuePairs)} />
      <${Figure} label="MTU" value=${port.mtu === null ? 'unknown' : String(port.mtu)} />
    </dl>
    <section aria-labelledby="port-drops"><h4 id="port-drops">Dropped</h4>
      <${Table} label="Drops" rows=${drops} keyOf=${([reason]: [string, number]) => reason} empty="Nothing." columns=${[
        { title: 'Reason', of: ([reason]: [string, number]) => html`<code>${reason}</code>` },
        { title: 'Frames', isNumber: true, of: ([, count]: [string, number]) => grouped(count) },
      ]} /></section>
    <section aria-labelledby="port-queues"><h4 id="port-queues">Queues</h4>
      <${Table} label="Queues" rows=${port.queues} keyOf=${(queue: PortReport['queues'][number]) => String(queue.index)} empty="None yet." columns=${[
        { title: 'Queue', of: ({ index }: PortReport['queues'][number]) => index },
        { title: 'Worker', of: ({ worker }: PortReport['queues'][number]) => worker ?? '' },
        {
          title: 'Frames',
          isNumber: true,
          of: ({ frames }: PortReport['queues'][number]) => grouped(frames),
        },
        { title: 'Signals', isNumber: true, of: ({ calls }: PortReport['queues'][number]) => grouped(calls) },
      ]} /></section>
    <${Settings} port=${port} />
    ${plug?.qemu && html`<${Copyable} label="QEMU" text=${plug.qemu} />`}
    ${plug?.libvirt && html`<${Copyable} label="libvirt, in <devices>" text=${plug.libvirt} />`}`;
}

/** What the port is set to; one setting can be changed as `ringway set` does. */
function Settings({ port }: { port: PortReport }): VNode {
  const [said, setSaid] = useState<{ text: string; isBad: boolean } | null>(null);
  const rows = Object.entries(port.settings).filter(([, value]) => value !== null);
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const form = event.target as HTMLFormElement;
    const data = new FormData(form);
    const key = String(data.get('key'));
    const text = String(data.get('value')).trim();
    const body = JSON.stringify({ [key]: settingOf(text) });
    try {
      await ask(`/v1/ports/${encodeURIComponent(port.name)}`, { method: 'PATCH', body });
      setSaid({ text: `${key} is ${text === '' ? 'as if left out' : text} now.`, isBad: false });
      form.reset();
    } catch (error) {
      setSaid({ text: (error as Error).message, isBad: true });
    }
  };
  return html`<section aria-labelledby="port-settings"><h4 id="port-settings">Settings</h4>
    <details><summary>${rows.length} settings</summary><dl class="settings">${rows.map(
      ([key, value]) => html`<div><dt>${key}</dt><dd><code>${JSON.stringify(value)}</code></dd></div>`,
    )}</dl></details>
    <form class="inline" onSubmit=${submit}>
      <label>Setting <input name="key" list="keys" required /></label>
      <datalist id="keys">${Object.keys(port.settings).map((key) => html`<option value=${key} />`)}</datalist>
      <label>Value <input name="value" placeholder="empty: as if left out" /></label>
      <button>Change</button>
    </form>
    ${said !== null && html`<p class=${said.isBad ? 'wrong shown' : 'hint'} role="status">${said.text}</p>`}
  </section>`;
}

/** As `ringway set` takes it: lists by commas or +. */
function settingOf(text: string): unknown {
  if (text === '') return null;
  return /[,+]/.test(text) ? text.split(/[,+]/).map((part) => part.trim()) : text;
}
