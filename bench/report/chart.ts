/**
 * The chart that the README shows: median throughput by frame size, one bar for each switch, with the spread
 * of the rounds. Drawn from the results file by ECharts as SVG text, without a browser:
 *
 *     node bench/report/chart.ts bench/results/latest.json bench/results/chart.svg
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { BarChart, CustomChart } from 'echarts/charts';
import { GridComponent, LegendComponent, TitleComponent } from 'echarts/components';
import * as echarts from 'echarts/core';
import { SVGRenderer } from 'echarts/renderers';
import type { PeerName } from '../plan.ts';
import { spreadOf } from '../statistics.ts';
import { placeOfAll } from './place.ts';
import type { Results, ThroughputResult } from './results.ts';
import { LOAD_TITLES, PEER_TITLES } from './titles.ts';

const WIDTH = 840;
const HEIGHT = 420;
const FONT = 'system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif';
/** Light text on a dark ground of its own, so that it looks the same on a light and on a dark page. */
const GROUND = '#161b22';
const TEXT = '#e6edf3';
const FAINT_TEXT = '#9aa4af';
const LINES = '#30363d';
/** Told apart by brightness too. */
const PEER_COLOURS: Readonly<Record<PeerName, string>> = {
  ringway: '#58a6ff',
  other: '#a371f7',
  ovs: '#d29922',
  testpmd: '#6e7681',
};
/** From left to right. */
const PEERS_DRAWN: readonly PeerName[] = ['ringway', 'other', 'ovs', 'testpmd'];
const WHISKER_PX = 4;

/** SVG text; null when there is no throughput to draw. */
export function drawChart(results: Pick<Results, 'facts' | 'rounds' | 'throughput'>): string | null {
  const load = results.throughput?.[0]?.load;
  const rows = results.throughput?.filter((row) => row.load === load) ?? [];
  const peers = PEERS_DRAWN.filter((peer) => rows.some((row) => row.framesPerSecond[peer] !== undefined));
  if (load === undefined || peers.length === 0) return null;
  echarts.use([BarChart, CustomChart, GridComponent, LegendComponent, TitleComponent, SVGRenderer]);
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height: HEIGHT });
  chart.setOption(chartOption(results, load, rows, peers));
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}

function chartOption(
  { facts, rounds }: Pick<Results, 'facts' | 'rounds'>,
  load: ThroughputResult['load'],
  rows: readonly ThroughputResult[],
  peers: readonly PeerName[],
): echarts.EChartsCoreOption {
  return {
    animation: false,
    backgroundColor: GROUND,
    textStyle: { fontFamily: FONT, color: TEXT },
    title: {
      text: 'Frames forwarded on one core, both ways together',
      subtext:
        `Million frames per second, median of ${rounds} rounds with their range. Generator: ${LOAD_TITLES[load]}.\n` +
        `${facts.cpu}, ${facts.hypervisor}, ${facts.date}`,
      left: 20,
      top: 14,
      textStyle: { color: TEXT, fontSize: 17, fontWeight: 600, fontFamily: FONT },
      subtextStyle: { color: FAINT_TEXT, fontSize: 12, lineHeight: 17, fontFamily: FONT },
    },
    legend: {
      bottom: 12,
      data: peers.map((peer) => PEER_TITLES[peer]),
      textStyle: { color: TEXT, fontSize: 13, fontFamily: FONT },
      itemGap: 28,
      itemWidth: 14,
      itemHeight: 14,
    },
    grid: { left: 56, right: 24, top: 92, bottom: 76 },
    xAxis: {
      type: 'category',
      data: rows.map(({ frameBytes, coreRoundTripNs }) => `${frameBytes}, ${placeOfAll(coreRoundTripNs)}`),
      name: 'bytes per frame, and how the two processors lay to each other',
      nameLocation: 'middle',
      nameGap: 28,
      nameTextStyle: { color: FAINT_TEXT },
      axisLabel: { color: TEXT, fontSize: 13 },
      axisLine: { lineStyle: { color: LINES } },
      axisTick: { show: false },
    },
    yAxis: {
      type: 'value',
      max: axisMax(rows),
      axisLabel: { color: FAINT_TEXT },
      splitLine: { lineStyle: { color: LINES } },
    },
    series: [
      ...peers.map((peer) => barsOf(peer, rows)),
      ...peers.map((peer, i) => whiskersOf(peer, i, peers.length, rows)),
    ],
  };
}

function barsOf(peer: PeerName, rows: readonly ThroughputResult[]): object {
  return {
    type: 'bar',
    name: PEER_TITLES[peer],
    color: PEER_COLOURS[peer],
    barMaxWidth: 40,
    barGap: '12%',
    label: {
      show: true,
      position: 'insideBottom',
      formatter: ({ value }: { value: number }) => value.toFixed(1),
      distance: 6,
      color: '#ffffff',
      fontSize: 11,
      textBorderColor: GROUND,
      textBorderWidth: 2,
    },
    data: rows.map(({ framesPerSecond }) => {
      const values = framesPerSecond[peer];
      return values === undefined ? null : Number((spreadOf(values).median / 1e6).toFixed(1));
    }),
  };
}

/** The whiskers reach above the bars, which alone the chart would make room for. */
function axisMax(rows: readonly ThroughputResult[]): number {
  const all = rows.flatMap(({ framesPerSecond }) => Object.values(framesPerSecond).flat());
  const max = Math.max(...all) / 1e6;
  const step = max > 10 ? 5 : 1;
  return Math.ceil(max / step) * step;
}

/** ECharts has no error bars; this is its way to draw them over grouped bars. */
function whiskersOf(peer: PeerName, index: number, count: number, rows: readonly ThroughputResult[]): object {
  return {
    type: 'custom',
    z: 3,
    silent: true,
    data: rows.flatMap(({ framesPerSecond }, row) => {
      const values = framesPerSecond[peer];
      if (values === undefined || values.length < 2) return [];
      const { min, max } = spreadOf(values);
      return [[row, min / 1e6, max / 1e6]];
    }),
    renderItem: (_: unknown, api: WhiskerApi) => {
      const bar = api.barLayout({ count, barMaxWidth: 40, barGap: '12%' })[index];
      const [x, top] = api.coord([api.value(0), api.value(2)]) as [number, number];
      const [, bottom] = api.coord([api.value(0), api.value(1)]) as [number, number];
      const middle = x + bar.offsetCenter;
      const shape = (x1: number, y1: number, x2: number, y2: number): object => ({
        type: 'line',
        shape: { x1, y1, x2, y2 },
        style: { stroke: TEXT, lineWidth: 1.2 },
      });
      return {
        type: 'group',
        children: [
          shape(middle, top, middle, bottom),
          shape(middle - WHISKER_PX, top, middle + WHISKER_PX, top),
          shape(middle - WHISKER_PX, bottom, middle + WHISKER_PX, bottom),
        ],
      };
    },
  };
}

type WhiskerApi = {
  value(dimension: number): number;
  coord(data: readonly number[]): number[];
  barLayout(options: object): { offsetCenter: number }[];
};

if (import.meta.main) {
  const [from, to] = process.argv.slice(2);
  if (from === undefined || to === undefined) throw new Error('usage: chart.ts RESULTS.json CHART.svg');
  const svg = drawChart(JSON.parse(readFileSync(from, 'utf8')) as Results);
  if (svg === null) throw new Error(`${from} has no throughput to draw`);
  writeFileSync(to, `${svg}\n`);
}
