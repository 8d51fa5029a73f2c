/** The switch with its ports and what passes on each link; totals over time; how busy the workers are. In the browser. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import type { FiguresReport, PortFigures } from '../../figures/report.ts';
import { Chart } from './chart.ts';
import { grouped, short } from './format.ts';
import { Figure, Meter, useIsNarrow } from './parts.ts';
import type { State } from './store.ts';

export function Overview({ state }: { state: State }): VNode {
  const { history } = state;
  const figures = state.figures as FiguresReport;
  const last = history.at(-1);
  const running = figures.ports.filter((port) => port.state === 'running').length;
  const drops = Object.values(last?.drops ?? {}).reduce((sum, count) => sum + count, 0);
  const times = history.map(({ atSeconds }) => atSeconds);
  return html`
    <dl class="figures">
      <${Figure} label="Ports running" value=${`${running} of ${figures.ports.length}`} />
      <${Figure} label="In" value=${short(last?.rxPackets ?? 0)} unit="frames/s" />
      <${Figure} label="Out" value=${short(last?.txPackets ?? 0)} unit="frames/s" />
      <${Figure} label="Out" value=${short(last?.txBits ?? 0)} unit="bit/s" />
      <${Figure} label="Dropped" value=${short(drops)} unit="frames/s" />
      <${Figure} label="Addresses" value=${`${grouped(figures.fdb.entries)} of ${grouped(figures.fdb.capacity)}`} />
    </dl>
    <section aria-labelledby="topology"><h3 id="topology">Ports and their links</h3><${Topology} ports=${figures.ports} /></section>
    <section aria-labelledby="traffic"><h3 id="traffic">Frames a second</h3>
      <${Chart} times=${times} summary=${`${short(last?.rxPackets ?? 0)} frames a second in, ${short(last?.txPackets ?? 0)} out`}
        lines=${[
          { label: 'in', values: history.map(({ rxPackets }) => rxPackets) },
          { label: 'out', values: history.map(({ txPackets }) => txPackets) },
        ]} /></section>
    <section aria-labelledby="workers"><h3 id="workers">Workers</h3>
      ${figures.workers.map(
        ({ index, rates }) => html`<div key=${index}>
        <${Meter} label=${`Worker ${index} busy`} share=${rates.busyShare[0] ?? 0} />
        <p class="hint">${workText(rates)}</p>
      </div>`,
      )}
    </section>`;
}

type WorkerRates = FiguresReport['workers'][number]['rates'];

function workText({ packets, nsPerPacket, packetsPerBurst, sleeps }: WorkerRates): string {
  const ns = Math.round(nsPerPacket[0] ?? 0);
  return `${short(packets[0] ?? 0)} frames/s, ${ns} ns a frame, ${short(packetsPerBurst[0] ?? 0)} frames a burst, ${short(sleeps[0] ?? 0)} sleeps/s`;
}

const ROW_PX = 34;
const COLUMN_PX = 360;
const BOX_PX = 150;
const BUS_PX = 26;

/** Ports on both sides of the switch, on a phone on one; a link is as thick as what passes, and told in numbers. */
function Topology({ ports }: { ports: readonly PortFigures[] }): VNode {
  const sides = useIsNarrow() ? 1 : 2;
  const rows = Math.ceil(ports.length / sides);
  const height = Math.max(1, rows) * ROW_PX + 8;
  const width = sides * COLUMN_PX + BUS_PX;
  const yOf = (i: number): number => 4 + Math.floor(i / sides) * ROW_PX + ROW_PX / 2;
  return html`<svg class="topology" viewBox=${`0 0 ${width} ${height}`} role="list" aria-label="Ports of the switch">
    <rect class="bus" x=${COLUMN_PX} y="4" width=${BUS_PX} height=${height - 8} rx="6" />
    ${ports.map((port, i) => html`<${Link} key=${port.name} port=${port} isLeft=${i % sides === 0} y=${yOf(i)} />`)}
  </svg>`;
}

function Link({ port, isLeft, y }: { port: PortFigures; isLeft: boolean; y: number }): VNode {
  const { name, rates, state, isShut } = port;
  const [rx, tx] = [rates.rxBytes[0] ?? 0, rates.txBytes[0] ?? 0];
  const bits = 8 * (rx + tx);
  const thickness = bits <= 0 ? 1 : Math.min(12, 1 + Math.log10(1 + bits / 1e4) * 2);
  const x = isLeft ? 0 : COLUMN_PX + BUS_PX + COLUMN_PX - BOX_PX;
  const from = isLeft ? BOX_PX : COLUMN_PX + BUS_PX;
  const to = isLeft ? COLUMN_PX : COLUMN_PX + BUS_PX + COLUMN_PX - BOX_PX;
  const kind = isShut ? 'bad' : state === 'running' ? 'ok' : 'wait';
  const text = `in ${short(8 * rx)}, out ${short(8 * tx)} bit/s`;
  return html`<g role="listitem">
    <a href=${`#ports/${encodeURIComponent(name)}`} aria-label=${`${name}: ${isShut ? 'shut' : state}, ${text}`}>
      <line class=${`wire ${kind}`} x1=${from} x2=${to} y1=${y} y2=${y} stroke-width=${thickness.toFixed(1)} />
      <rect class=${`box ${kind}`} x=${x} y=${y - 12} width=${BOX_PX} height="24" rx="4" />
      <text x=${x + 8} y=${y + 4}>${name.length > 18 ? `${name.slice(0, 17)}…` : name}</text>
      <text class="small" x=${(from + to) / 2} y=${y - 8} text-anchor="middle">${text}</text>
    </a>
  </g>`;
}
