/** `ringway top`: what passes the running process, live in a terminal; into a pipe one snapshot. */
import type { Command } from 'commander';
import { askControl } from '../control/client.ts';
import { ControlError } from '../control/control-error.ts';
import { RATE_SECONDS } from '../figures/rates.ts';
import type { FiguresReport } from '../figures/report.ts';
import { heededSignals } from '../ignored-signals.ts';
import {
  type Choice,
  FIRST_CHOICE,
  pressed,
  rowsIn,
  type Seen,
  screen,
  tableOf,
  titlesOf,
  VIEW_NAMES,
  type ViewName,
  wholeText,
} from '../top/screen.ts';
import { canPlaceText, styleFor, Terminal } from '../top/terminal.ts';
import { type AskOptions, addAskOptions } from './ask-options.ts';
import { CliError, EXIT } from './cli-error.ts';
import { findControl } from './running.ts';
import { jsonText } from './table.ts';

const PERIOD_MS = 1000;
const PIPE_WIDTH = 80;

type TopOptions = AskOptions & {
  readonly view?: string;
  readonly sort?: string;
  readonly reverse?: true;
  readonly over?: string;
  readonly once?: true;
};

const DETAILS = `
Rates are packets and bits a second, over 1, 10 or 60 seconds; RX is what comes
in from a port. Keys:
  p d w, Tab   ports, drops by reason, workers
  s S r        sort by the next column, by the one before, the other way round
  t            over 1, 10 or 60 seconds
  up down      rows that have no room (also k, j, PgUp, PgDn)
  q, Ctrl-C    end
Where the output is no terminal, or a dumb one (TERM=dumb), one snapshot of all
three is printed. NO_COLOR is heeded.

Examples:
  ringway top
  ringway top --view workers --over 10
  ssh host ringway top | head`;

export function addTop(program: Command): void {
  const command = program
    .command('top')
    .description('Show live what passes the running ringway: rates, drops by reason, workers.')
    .option('--view <name>', `begin with ${VIEW_NAMES.join(', ')}`)
    .option('--sort <column>', 'sort by the column of that title, for example rx/s')
    .option('--reverse', 'the other way round')
    .option('--over <seconds>', `rates over ${RATE_SECONDS.join(', ')} seconds (default: 1)`)
    .option('--once', 'print one snapshot, also into a terminal')
    .addHelpText('after', DETAILS);
  addAskOptions(command).action(async (options: TopOptions) => {
    const choice = choiceOf(options);
    const control = await findControl(options.control);
    const ask = (): Promise<FiguresReport> => askControl<FiguresReport>(control, '/v1/figures');
    const isLive =
      canPlaceText(process.stdout, process.env) && options.once !== true && options.json !== true;
    if (isLive) {
      await live(ask, choice);
      return;
    }
    const now = await ask();
    const width = process.stdout.isTTY ? process.stdout.columns : PIPE_WIDTH;
    process.stdout.write(options.json ? jsonText(now) : wholeText({ now, before: null }, choice, width));
  });
}

/** @throws CliError */
function choiceOf({ view = 'ports', sort, reverse, over = '1' }: TopOptions): Choice {
  const name = VIEW_NAMES.find((each) => each === view);
  if (name === undefined) throw wrong('--view', view, VIEW_NAMES);
  const span = RATE_SECONDS.findIndex((seconds) => String(seconds) === over);
  if (span < 0) throw wrong('--over', over, RATE_SECONDS);
  const isReversed = reverse === true;
  return { ...FIRST_CHOICE, view: name, span, isReversed, sort: sortOf(name, sort) };
}

/** @throws CliError */
function sortOf(view: ViewName, sort: string | undefined): Choice['sort'] {
  if (sort === undefined) return FIRST_CHOICE.sort;
  const titles = titlesOf(view);
  const title = titles.find((each) => each.toLowerCase() === sort.toLowerCase());
  if (title === undefined) throw wrong('--sort', sort, titles);
  return { ...FIRST_CHOICE.sort, [view]: title };
}

function wrong(option: string, value: string, allowed: readonly (string | number)[]): CliError {
  return new CliError(`${option}: ${value} is not allowed (${allowed.join(', ')})`, EXIT.usage);
}

/** Until the user ends it. @throws ControlError when the process that is asked is gone */
async function live(ask: () => Promise<FiguresReport>, first: Choice): Promise<void> {
  let seen: Seen = { now: await ask(), before: null };
  let choice = first;
  let notice: string | null = null;
  const style = styleFor(process.env);
  const terminal = new Terminal(process.stdin.isTTY ? process.stdin : null, process.stdout);
  const ended = Promise.withResolvers<void>();
  const show = (): void =>
    terminal.show(screen(seen, choice, terminal.width, terminal.height, style, notice));
  const onKey = (key: string): void => {
    const { rows } = tableOf(seen, choice, terminal.width, style);
    const next = pressed(choice, key, rowsIn(terminal.height), rows.length);
    if (next === null) {
      ended.resolve();
      return;
    }
    choice = next;
    show();
  };
  for (const signal of heededSignals()) process.once(signal, () => ended.resolve());
  // A terminal that is gone.
  process.stdout.on('error', () => ended.resolve());
  terminal.enter(onKey, show);
  show();
  let timer: NodeJS.Timeout | undefined;
  const look = async (): Promise<void> => {
    try {
      seen = { now: await ask(), before: seen.now };
      notice = null;
    } catch (error) {
      if (!(error instanceof ControlError) || error.kind === 'unserved') throw error;
      // It may be busy, or on its way to another process.
      notice = error.message;
    }
    show();
    timer = setTimeout(() => void look().catch(ended.reject), PERIOD_MS);
  };
  timer = setTimeout(() => void look().catch(ended.reject), PERIOD_MS);
  try {
    await ended.promise;
  } finally {
    clearTimeout(timer);
    terminal.leave();
  }
}
