/** Lines over the last minutes, by uPlot. In the browser. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import type uPlotType from 'uplot';
import { short } from './format.ts';
import { HISTORY_SECONDS } from './store.ts';

/** From a script of its own, which has no module. */
declare const uPlot: typeof uPlotType;

export type Line = { readonly label: string; readonly values: readonly number[] };

const HEIGHT_PX = 180;
const COLOURS = ['--line1', '--line2', '--line3', '--line4', '--line5'];

/** `times` in seconds since 1970. `summary`: what the chart shows, for who does not see it. */
export function Chart({
  times,
  lines,
  summary,
}: {
  times: readonly number[];
  lines: readonly Line[];
  summary: string;
}): VNode {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlotType | null>(null);
  const labels = lines.map(({ label }) => label).join('\n');
  const data = [times, ...lines.map(({ values }) => values)] as unknown as uPlotType.AlignedData;
  // Another set of lines is another plot.
  useEffect(() => {
    const element = place.current;
    if (element === null) return;
    const made = new uPlot(optionsFor(element, labels.split('\n')), data, element);
    plot.current = made;
    const observer = new ResizeObserver(() =>
      made.setSize({ width: element.clientWidth, height: HEIGHT_PX }),
    );
    observer.observe(element);
    const scheme = matchMedia('(prefers-color-scheme: dark)');
    const redraw = (): void => made.redraw();
    scheme.addEventListener('change', redraw);
    return () => {
      observer.disconnect();
      scheme.removeEventListener('change', redraw);
      made.destroy();
      plot.current = null;
    };
  }, [labels]);
  useEffect(() => plot.current?.setData(data));
  return html`<div class="chart" role="img" aria-label=${summary} ref=${place}></div>`;
}

function optionsFor(element: HTMLElement, labels: readonly string[]): uPlotType.Options {
  const colour = (name: string) => (): string => getComputedStyle(element).getPropertyValue(name);
  const axis = {
    stroke: colour('--quiet'),
    grid: { stroke: colour('--rule'), width: 1 },
    ticks: { show: false },
  };
  return {
    width: element.clientWidth,
    height: HEIGHT_PX,
    cursor: { drag: { x: false, y: false } },
    scales: {
      // As long from the first second on; where there is one time only, uPlot itself would say that it ends years later.
      x: { range: endingAtLast },
      y: { range: (_, __, max) => [0, Math.max(max * 1.1, 1)] },
    },
    axes: [axis, { ...axis, size: 56, values: (_, ticks) => ticks.map(short) }],
    series: [
      {},
      ...labels.map((label, i) => ({
        label,
        stroke: colour(COLOURS[i % COLOURS.length]),
        width: 2,
        points: { show: false },
        value: (_: uPlotType, value: number | null) => (value === null ? '' : short(value)),
      })),
    ],
  };
}

function endingAtLast({ data: [times] }: uPlotType): [number, number] {
  const last = times[times.length - 1] ?? 0;
  return [last - HISTORY_SECONDS, last];
}
