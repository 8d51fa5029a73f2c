/**
 * What `ringway top` shows: lines of text from a report, for a terminal of any size. Everything is said in letters; colours only
 * stress it. Pure.
 */
import { printable } from '../../src/host/printable.ts';
import { RATE_SECONDS } from '../figures/rates.ts';
import type { FiguresReport, PortFigures, WorkerFiguresReport } from '../figures/report.ts';
import { DROP_REASONS, type DropReason } from '../l2/drop-reasons.ts';
import { shortNumber, spanText } from './numbers.ts';

export type ViewName = 'ports' | 'drops' | 'workers';
export const VIEW_NAMES: readonly ViewName[] = ['ports', 'drops', 'workers'];

/** What the user chose. */
export type Choice = {
  readonly view: ViewName;
  /** Title of the column that is sorted by, of each view. */
  readonly sort: Readonly<Record<ViewName, string>>;
  readonly isReversed: boolean;
  /** Which of RATE_SECONDS. */
  readonly span: number;
  /** Rows that are passed over. */
  readonly first: number;
};

export const FIRST_CHOICE: Choice = {
  view: 'ports',
  sort: { ports: 'PORT', drops: 'DROPS/S', workers: 'WORKER' },
  isReversed: false,
  span: 0,
  first: 0,
};

/** A report, and the one before it, which may be missing. */
export type Seen = { readonly now: FiguresReport; readonly before: FiguresReport | null };

export type Emphasis = 'title' | 'bad' | 'notice' | 'faint';
/** How a text is stressed; the answer has the same letters. */
export type Style = (text: string, how: Emphasis) => string;
export const PLAIN: Style = (text) => text;

type Cell = { readonly text: string; readonly how?: Emphasis };
type Column<Row> = {
  readonly title: string;
  readonly width: number;
  readonly isLeft?: true;
  /** Takes what is left of the line. */
  readonly isWide?: true;
  readonly cell: (row: Row, span: number) => Cell;
  /** Larger ones come first; left out: by the text, smaller ones first. */
  readonly order?: (row: Row, span: number) => number;
};

const BITS_PER_BYTE = 8;
const BUSY_SHARE = 0.9;
const NAME_WIDTH = 15;

/** A column of numbers, largest first. */
function numbers<Row>(
  title: string,
  width: number,
  value: (row: Row, span: number) => number | null,
  how: (value: number) => Emphasis | null = () => null,
): Column<Row> {
  return {
    title,
    width,
    cell: (row, span) => {
      const number = value(row, span);
      if (number === null) return { text: '-' };
      const stress = how(number);
      return { text: shortNumber(number), ...(stress !== null && { how: stress }) };
    },
    order: (row, span) => value(row, span) ?? -1,
  };
}

const badIfAny = (value: number): Emphasis | null => (value > 0 ? 'bad' : null);
const rate = (list: readonly number[], span: number): number => list[span] ?? 0;

const PORT_COLUMNS: readonly Column<PortFigures>[] = [
  { title: 'PORT', width: NAME_WIDTH, isLeft: true, isWide: true, cell: ({ name }) => ({ text: name }) },
  {
    title: 'STATE',
    width: 11,
    isLeft: true,
    cell: ({ state, isShut }) =>
      isShut ? { text: 'shut', how: 'bad' } : { text: state, ...(state !== 'running' && { how: 'notice' }) },
  },
  numbers('RX/S', 7, ({ rates }, span) => rate(rates.rxPackets, span)),
  numbers('RX BIT/S', 8, ({ rates }, span) => BITS_PER_BYTE * rate(rates.rxBytes, span)),
  numbers('TX/S', 7, ({ rates }, span) => rate(rates.txPackets, span)),
  numbers('TX BIT/S', 8, ({ rates }, span) => BITS_PER_BYTE * rate(rates.txBytes, span)),
  numbers('DROPS/S', 8, ({ rates }, span) => rate(rates.dropped, span), badIfAny),
  numbers('DROPPED', 8, ({ totals }) => totals.dropped),
];

type DropRow = {
  readonly port: string;
  readonly reason: DropReason;
  readonly text: string;
  readonly count: number;
  /** Null: not known yet. */
  readonly perSecond: number | null;
};

const DROP_COLUMNS: readonly Column<DropRow>[] = [
  { title: 'PORT', width: NAME_WIDTH, isLeft: true, cell: ({ port }) => ({ text: port }) },
  { title: 'REASON', width: 19, isLeft: true, cell: ({ reason }) => ({ text: reason }) },
  numbers('DROPS/S', 8, ({ perSecond }) => perSecond, badIfAny),
  numbers('DROPPED', 8, ({ count }) => count),
  { title: 'WHAT THE PORT DID', width: 20, isLeft: true, isWide: true, cell: ({ text }) => ({ text }) },
];

const WORKER_COLUMNS: readonly Column<WorkerFiguresReport>[] = [
  {
    title: 'WORKER',
    width: 7,
    isLeft: true,
    cell: ({ index }) => ({ text: String(index) }),
    order: ({ index }) => -index,
  },
  {
    title: 'BUSY',
    width: 6,
    cell: ({ rates }, span) => {
      const share = rate(rates.busyShare, span);
      return { text: `${(100 * share).toFixed(0)} %`, ...(share >= BUSY_SHARE && { how: 'bad' }) };
    },
    order: ({ rates }, span) => rate(rates.busyShare, span),
  },
  numbers('RX/S', 7, ({ rates }, span) => rate(rates.packets, span)),
  numbers('NS/PKT', 7, ({ rates }, span) => rates.nsPerPacket[span] ?? null),
  numbers('BURST', 6, ({ rates }, span) => rates.packetsPerBurst[span] ?? null),
  numbers('SLEEPS/S', 9, ({ rates }, span) => rate(rates.sleeps, span)),
  numbers('GC', 5, ({ totals }) => totals.collections),
  {
    title: '% BURSTS 1/2/4/8/16/32/64',
    width: 26,
    isLeft: true,
    isWide: true,
    cell: ({ totals: { bursts } }) => ({ text: sharesText(bursts) }),
  },
];

function sharesText(counts: readonly number[]): string {
  const sum = counts.reduce((total, count) => total + count, 0);
  return counts.map((count) => (sum === 0 ? '-' : ((100 * count) / sum).toFixed(0))).join('/');
}

/** Titles by which a view can be sorted. */
export function titlesOf(view: ViewName): readonly string[] {
  const columns: readonly { readonly title: string }[] =
    view === 'ports' ? PORT_COLUMNS : view === 'drops' ? DROP_COLUMNS : WORKER_COLUMNS;
  return columns.map(({ title }) => title);
}

const TEXT_OF_REASON = new Map<DropReason, string>(DROP_REASONS.map(({ name, text }) => [name, text]));

function dropRows({ now, before }: Seen): DropRow[] {
  const seconds = before === null ? 0 : now.upSeconds - before.upSeconds;
  return now.ports.flatMap(({ name: port, drops }) => {
    const earlier = before?.ports.find(({ name }) => name === port)?.drops;
    return (Object.entries(drops) as [DropReason, number][]).map(([reason, count]): DropRow => {
      const perSecond = seconds > 0 ? Math.max(0, count - (earlier?.[reason] ?? 0)) / seconds : null;
      return { port, reason, text: TEXT_OF_REASON.get(reason) ?? '', count, perSecond };
    });
  });
}

/** A table's title and rows, cut to the width. */
type Table = { readonly title: string; readonly rows: readonly string[] };

export function tableOf(seen: Seen, choice: Choice, width: number, style: Style): Table {
  switch (choice.view) {
    case 'ports':
      return laidOut(PORT_COLUMNS, seen.now.ports, choice, width, style);
    case 'drops':
      return laidOut(DROP_COLUMNS, dropRows(seen), choice, width, style);
    case 'workers':
      return laidOut(WORKER_COLUMNS, seen.now.workers, choice, width, style);
  }
}

function laidOut<Row>(
  all: readonly Column<Row>[],
  rows: readonly Row[],
  { view, sort, isReversed, span }: Choice,
  width: number,
  style: Style,
): Table {
  const columns = fittingColumns(all, width);
  const fixed = columns.reduce((sum, column) => sum + column.width + 1, -1);
  const spare = width - fixed;
  const widthOf = (column: Column<Row>): number => column.width + (column.isWide === true ? spare : 0);
  const padded = (column: Column<Row>, { text, how }: Cell): string => {
    const cut = fitted(printable(text), widthOf(column));
    const room = ' '.repeat(widthOf(column) - cut.length);
    const shown = how === undefined ? cut : style(cut, how);
    return column.isLeft === true ? shown + room : room + shown;
  };
  const by = all.find(({ title }) => title === sort[view]) ?? all[0];
  // The column that is sorted by is marked in letters too.
  const titles = columns.map((column) =>
    padded(column, { text: column === by ? `${isReversed ? '^' : '*'}${column.title}` : column.title }),
  );
  const sorted = rows.toSorted((a, b) => compared(by, a, b, span));
  if (isReversed) sorted.reverse();
  const lines = sorted.map((row) =>
    columns.map((column) => padded(column, column.cell(row, span))).join(' '),
  );
  return { title: style(fitted(titles.join(' '), width), 'title'), rows: lines };
}

/** The first ones that have room; what of the very first one has none is cut. */
function fittingColumns<Row>(columns: readonly Column<Row>[], width: number): readonly Column<Row>[] {
  const fitting: Column<Row>[] = [];
  let left = width;
  for (const column of columns) {
    if (column.width > left) break;
    fitting.push(column);
    left -= column.width + 1;
  }
  return fitting.length > 0 ? fitting : [{ ...columns[0], width }];
}

function compared<Row>({ order, cell }: Column<Row>, a: Row, b: Row, span: number): number {
  if (order !== undefined) return order(b, span) - order(a, span);
  return cell(a, span).text.localeCompare(cell(b, span).text, 'en', { numeric: true });
}

function fitted(text: string, width: number): string {
  return text.length <= width ? text : width <= 1 ? text.slice(0, width) : `${text.slice(0, width - 1)}~`;
}

/** Two lines about the switch as a whole. */
export function summary({ now }: Seen, { span }: Choice, width: number): string[] {
  const { ports, workers, fdb } = now;
  const sum = (of: (port: PortFigures) => readonly number[]): string =>
    shortNumber(ports.reduce((total, port) => total + rate(of(port), span), 0));
  const running = ports.filter(({ state }) => state === 'running').length;
  const busy = workers.map(({ rates }) => `${(100 * rate(rates.busyShare, span)).toFixed(0)} %`);
  return [
    `ringway ${now.version}  up ${spanText(now.upSeconds)}  ports ${running}/${ports.length}  rx ${sum(({ rates }) => rates.rxPackets)}/s  tx ${sum(({ rates }) => rates.txPackets)}/s  dropped ${sum(({ rates }) => rates.dropped)}/s`,
    `over ${RATE_SECONDS[span]} s  workers busy ${busy.join(', ')}  addresses ${shortNumber(fdb.entries)}/${shortNumber(fdb.capacity)}  moved ${shortNumber(fdb.moved)}  evicted ${shortNumber(fdb.evicted)}`,
  ].map((line) => fitted(line, width));
}

const KEYS = 'q quit  p ports  d drops  w workers  s sort  r reverse  t 1/10/60 s  up/down';
/** Lines that are no rows: summary, title, keys. */
const OTHER_LINES = 4;

/** So many rows of a table have room. */
export function rowsIn(height: number): number {
  return Math.max(1, height - OTHER_LINES);
}

/** All lines of a terminal of that size, at most. `notice`: in place of the keys. */
export function screen(
  seen: Seen,
  choice: Choice,
  width: number,
  height: number,
  style: Style,
  notice: string | null = null,
): string[] {
  const { title, rows } = tableOf(seen, choice, width, style);
  const room = rowsIn(height);
  const first = Math.max(0, Math.min(choice.first, rows.length - room));
  const shown = rows.slice(first, first + room);
  const nothing = { ports: 'There are no ports.', drops: 'Nothing was dropped.', workers: '' }[choice.view];
  const body = rows.length === 0 ? [nothing] : shown;
  const more = rows.length > room ? `  ${first + 1}-${first + shown.length} of ${rows.length}` : '';
  const last = style(fitted(notice ?? `${KEYS}${more}`, width), notice === null ? 'faint' : 'bad');
  const blanks = new Array<string>(Math.max(0, height - OTHER_LINES - body.length)).fill('');
  return [...summary(seen, choice, width), title, ...body, ...blanks, last].slice(0, height);
}

/** One snapshot of all views, for who reads it later or by a program. */
export function wholeText(seen: Seen, choice: Choice, width: number): string {
  const parts = VIEW_NAMES.map((view) => {
    const { title, rows } = tableOf(seen, { ...choice, view }, width, PLAIN);
    return rows.length === 0 ? [] : ['', title, ...rows];
  });
  const lines = [...summary(seen, choice, width), ...parts.flat()];
  return `${lines.map((line) => line.trimEnd()).join('\n')}\n`;
}

/** What a key does to the choice; null: it ends. Other keys do nothing. `rowCount`: of the table that is shown. */
export function pressed(choice: Choice, key: string, room: number, rowCount: number): Choice | null {
  const scrolled = (rows: number): Choice => ({
    ...choice,
    first: Math.max(0, Math.min(choice.first + rows, rowCount - room)),
  });
  const view = VIEW_NAMES.find((name) => name[0] === key);
  if (view !== undefined) return { ...choice, view, first: 0 };
  switch (key) {
    case 'q':
    case '\x03':
      return null;
    case 's':
    case 'S': {
      const titles = titlesOf(choice.view);
      const step = key === 's' ? 1 : titles.length - 1;
      const next = titles[(titles.indexOf(choice.sort[choice.view]) + step) % titles.length];
      return { ...choice, first: 0, sort: { ...choice.sort, [choice.view]: next } };
    }
    case 'r':
      return { ...choice, isReversed: !choice.isReversed };
    case 't':
      return { ...choice, span: (choice.span + 1) % RATE_SECONDS.length };
    case '\t':
      return {
        ...choice,
        first: 0,
        view: VIEW_NAMES[(VIEW_NAMES.indexOf(choice.view) + 1) % VIEW_NAMES.length],
      };
    case '\x1b[A':
    case 'k':
      return scrolled(-1);
    case '\x1b[B':
    case 'j':
      return scrolled(1);
    case '\x1b[5~':
      return scrolled(-room);
    case '\x1b[6~':
      return scrolled(room);
    default:
      return choice;
  }
}
