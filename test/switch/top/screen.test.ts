/** The lines of `ringway top`, without a terminal. */
import { stripVTControlCharacters } from 'node:util';
import { describe, expect, it } from 'vitest';
import { shortNumber, spanText } from '../../../switch/top/numbers.ts';
import {
  type Choice,
  type Emphasis,
  FIRST_CHOICE,
  PLAIN,
  pressed,
  type Seen,
  screen,
  tableOf,
  VIEW_NAMES,
  wholeText,
} from '../../../switch/top/screen.ts';
import { styleFor } from '../../../switch/top/terminal.ts';
import { figuresReport, portFigures, workerFigures } from './reports.ts';

const rates = (rxPackets: number, dropped = 0) => {
  const of = (value: number): number[] => [value, value / 10, value / 60];
  return {
    rxPackets: of(rxPackets),
    rxBytes: of(rxPackets * 64),
    txPackets: of(0),
    txBytes: of(0),
    dropped: of(dropped),
  };
};
const PORTS = [
  portFigures('vm10', { rates: rates(5) }),
  portFigures('vm9', { rates: rates(12_300_000, 3), drops: { noBuffer: 30, samePort: 1 } }),
  portFigures('a-port-with-a-name-of-31-letters', { state: 'waiting', drops: { overMtu: 7 } }),
];
const NOW = figuresReport({ ports: PORTS, workers: [workerFigures(0, 0.5), workerFigures(1, 0.99)] });
const SEEN: Seen = { now: NOW, before: null };

/** The first word of each row. */
const order = (choice: Partial<Choice>, seen = SEEN): string[] =>
  tableOf(seen, { ...FIRST_CHOICE, ...choice }, 80, PLAIN).rows.map((row) => row.trim().split(/\s+/)[0]);

describe('numbers', () => {
  it.each([
    [0, '0'],
    [0.01, '<0.1'],
    [0.5, '0.5'],
    [9.97, '10'],
    [7, '7'],
    [999.4, '999'],
    [999.6, '1.00k'],
    [1234, '1.23k'],
    [12_345, '12.3k'],
    [123_456, '123k'],
    [999_600, '1.00M'],
    [2 ** 53, '9.01P'],
    [1e18, '1000P'],
  ])('%d is %s', (value, text) => {
    expect(shortNumber(value)).toBe(text);
  });

  it.each([
    [59.9, '59s'],
    [60, '1:00'],
    [11_525, '3:12:05'],
    [2 * 86_400 + 5, '2d 0:00:05'],
  ])('%d seconds are %s', (seconds, text) => {
    expect(spanText(seconds)).toBe(text);
  });
});

describe('a screen', () => {
  it.each(VIEW_NAMES)('of %s fits into any terminal', (view) => {
    for (const width of [5, 20, 60, 80, 132]) {
      for (const height of [4, 6, 24]) {
        const lines = screen(SEEN, { ...FIRST_CHOICE, view }, width, height, PLAIN);
        expect(lines.length).toBeLessThanOrEqual(height);
        expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(width);
      }
    }
  });

  it('shows ports, whole in 80 columns', () => {
    expect(screen(SEEN, FIRST_CHOICE, 80, 8, PLAIN)).toMatchInlineSnapshot(`
      [
        "ringway 1.2.3  up 3:12:05  ports 2/3  rx 12.3M/s  tx 0/s  dropped 3/s",
        "over 1 s  workers busy 50 %, 99 %  addresses 12/8.19k  moved 0  evicted 0",
        "*PORT            STATE          RX/S RX BIT/S    TX/S TX BIT/S  DROPS/S  DROPPED",
        "a-port-with-a-n~ waiting           0        0       0        0        0        0",
        "vm9              running       12.3M    6.30G       0        0        3        0",
        "vm10             running           5    2.56k       0        0        0        0",
        "",
        "q quit  p ports  d drops  w workers  s sort  r reverse  t 1/10/60 s  up/down",
      ]
    `);
  });

  it('shows drops by their names, and how fast they come once it has seen two reports', () => {
    const ports = [portFigures('vm9', { drops: { noBuffer: 130, samePort: 1 } })];
    const now = { ...NOW, ports, upSeconds: NOW.upSeconds + 2 };
    const seen: Seen = { now, before: NOW };
    expect(tableOf(seen, { ...FIRST_CHOICE, view: 'drops' }, 80, PLAIN)).toMatchInlineSnapshot(`
      {
        "rows": [
          "vm9             noBuffer                  50      130 had no room for a frame t~",
          "vm9             samePort                   0        1 sent a frame to an addres~",
        ],
        "title": "PORT            REASON              *DROPS/S  DROPPED WHAT THE PORT DID         ",
      }
    `);
    expect(tableOf(SEEN, { ...FIRST_CHOICE, view: 'drops' }, 80, PLAIN).rows[0]).toContain(' - ');
  });

  it('shows workers', () => {
    expect(tableOf(SEEN, { ...FIRST_CHOICE, view: 'workers' }, 80, PLAIN)).toMatchInlineSnapshot(`
      {
        "rows": [
          "0         50 %   1.00M      52     32         0     0 25/0/0/0/0/25/50          ",
          "1         99 %   1.00M      52     32         0     0 25/0/0/0/0/25/50          ",
        ],
        "title": "*WORKER   BUSY    RX/S  NS/PKT  BURST  SLEEPS/S    GC % BURSTS 1/2/4/8/16/32/64 ",
      }
    `);
  });

  it('says in letters all that colours say', () => {
    const letters = (text: string): string => stripVTControlCharacters(text);
    const coloured = screen(SEEN, FIRST_CHOICE, 80, 10, styleFor({ TERM: 'xterm' }));
    expect(coloured.map(letters)).toEqual(screen(SEEN, FIRST_CHOICE, 80, 10, PLAIN));
    expect(coloured.join('')).toContain('\u001b[31m');
  });

  it('is without colours where the user wants none', () => {
    const stressed: Emphasis[] = ['title', 'bad', 'notice', 'faint'];
    const none = styleFor({ NO_COLOR: '1' });
    expect(stressed.map((how) => none('x', how))).toEqual([
      '\u001b[7mx\u001b[0m',
      'x',
      'x',
      '\u001b[2mx\u001b[0m',
    ]);
  });

  it('of nothing says so', () => {
    const nothing: Seen = { now: figuresReport({ ports: [], workers: [] }), before: null };
    expect(screen(nothing, FIRST_CHOICE, 80, 10, PLAIN).join('\n')).toContain('There are no ports.');
    expect(wholeText(nothing, FIRST_CHOICE, 80)).toMatch(/^ringway 1\.2\.3 .*\nover 1 s .*\n$/);
  });
});

describe('the order', () => {
  const sort = (title: string): Choice['sort'] => ({ ...FIRST_CHOICE.sort, ports: title });

  it('is that of names with numbers in them, or the largest first', () => {
    expect(order({})).toEqual(['a-port-with-a-n~', 'vm9', 'vm10']);
    expect(order({ sort: sort('RX/S') })).toEqual(['vm9', 'vm10', 'a-port-with-a-n~']);
    expect(order({ sort: sort('RX/S'), isReversed: true })[0]).toBe('a-port-with-a-n~');
  });

  it('is chosen by keys', () => {
    const key = (choice: Choice, text: string): Choice =>
      pressed(choice, text, 10, 3) ?? expect.fail('ended');
    expect(key(FIRST_CHOICE, 's').sort.ports).toBe('STATE');
    expect(key(FIRST_CHOICE, 'S').sort.ports).toBe('DROPPED');
    expect(key(key(FIRST_CHOICE, 'S'), 's')).toEqual(FIRST_CHOICE);
    expect(key(FIRST_CHOICE, 'r').isReversed).toBe(true);
    expect(key(FIRST_CHOICE, 't').span).toBe(1);
    expect(key(key(key(FIRST_CHOICE, 't'), 't'), 't').span).toBe(0);
    expect(key(FIRST_CHOICE, 'd').view).toBe('drops');
    expect(key(key(FIRST_CHOICE, '\t'), '\t').view).toBe('workers');
    expect(key(FIRST_CHOICE, 'x')).toEqual(FIRST_CHOICE);
    expect(pressed(FIRST_CHOICE, 'q', 10, 3)).toBeNull();
    expect(pressed(FIRST_CHOICE, '\u0003', 10, 3)).toBeNull();
  });

  it('has rows that have no room come by keys, and no further', () => {
    const down = (choice: Choice, text: string): Choice =>
      pressed(choice, text, 2, 5) ?? expect.fail('ended');
    expect(down(FIRST_CHOICE, '\u001b[B').first).toBe(1);
    expect(down(FIRST_CHOICE, '\u001b[6~').first).toBe(2);
    expect(down(down(FIRST_CHOICE, '\u001b[6~'), '\u001b[6~').first).toBe(3);
    expect(down(FIRST_CHOICE, 'k').first).toBe(0);
    const few = screen(SEEN, { ...FIRST_CHOICE, first: 99 }, 80, 6, PLAIN);
    expect(few.join('\n')).toMatch(/vm9[\s\S]*vm10/);
  });
});
