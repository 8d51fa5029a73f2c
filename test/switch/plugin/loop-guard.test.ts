/** What is put into a plugin's loops: each that may not end is counted, lines stay, and the code does what it did. */
import { runInThisContext } from 'node:vm';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { guardLoops } from '../../../switch/plugin/loop-guard.ts';
import { allowTurns, installTurns } from '../../../switch/plugin/turn-budget.ts';

beforeAll(() => installTurns());
afterEach(() => allowTurns(0));

/** What the code answers, run with its loops guarded and so many turns. */
function run(body: string, turns = 1000): unknown {
  allowTurns(turns);
  const guarded = guardLoops(`(() => {${body}})();`);
  return runInThisContext(guarded);
}

describe('loops', () => {
  it.each([
    [
      'for (let i = 0; i < 3; i++) out.push(i);',
      'for (let i = (__ringwayTurns(3 - 0), 0); i < 3; i++) out.push(i);',
    ],
    [
      'const n = 4; for (let i = n; i <= n; ++i);',
      'const n = 4; for (let i = (__ringwayTurns(n - n), n); i <= n; ++i);',
    ],
    [
      'let n = 4; for (let i = 0; i < n; i++);',
      'let n = 4; for (let i = 0; __ringwayTurn() && (i < n); i++);',
    ],
    [
      'const n = 4; for (let i = 0; i < n; i++) { i--; }',
      'const n = 4; for (let i = 0; __ringwayTurn() && (i < n); i++) { i--; }',
    ],
    [
      'const n = 4; for (let i = 0; i < n; i++) [i] = [0];',
      'const n = 4; for (let i = 0; __ringwayTurn() && (i < n); i++) [i] = [0];',
    ],
    [
      'const n = 4; function f(n) { for (let i = 0; i < n; i++); }',
      'const n = 4; function f(n) { for (let i = 0; __ringwayTurn() && (i < n); i++); }',
    ],
    ['for (;;) break;', 'for (; __ringwayTurn();) break;'],
    ['for (let a = ";"; /* ; */ ; ) break;', 'for (let a = ";"; __ringwayTurn() /* ; */ ; ) break;'],
    ['while (a) b();', 'while (__ringwayTurn() && (a)) b();'],
    ['do b();\nwhile (a, c)', 'do b();\nwhile (__ringwayTurn() && (a, c))'],
    ['for (const a of b) { c(); }', 'for (const a of b) { __ringwayTurn(); c(); }'],
    [
      'for (const a of b) for (const c of a) d()\nfor (const c in a);',
      'for (const a of b) { __ringwayTurn(); for (const c of a) { __ringwayTurn(); d() } }\nfor (const c in a);',
    ],
    ['if (a) for (b of c) d(); else e();', 'if (a) for (b of c) { __ringwayTurn(); d(); } else e();'],
  ])('%s', (source, guarded) => {
    expect(guardLoops(source)).toBe(guarded);
  });

  it.each([
    ['for (;;);'],
    ['let i = 0; while (true) i++;'],
    ['do {} while (1);'],
    ['const n = 1e9; for (let i = 0; i < n; i++);'],
    ['const n = Infinity; for (let i = 0; i < n; i++) break;'],
    ['const all = { get n() { return 1e9; } }; for (let i = 0; i < all.n; i++);'],
    ['if (1) while (1) if (0) break; else continue;'],
    ['const list = [1]; for (const each of list) list.push(each);'],
    [
      'const endless = { [Symbol.iterator]: () => ({ next: () => ({ done: false }) }) }; for (const each of endless) ;',
    ],
    ['function* all() { yield 1; yield* all(); } for (const each of all()) continue;'],
    ['label: for (;;) { for (;;) continue label; }'],
  ])('that do not end are ended: %s', (body) => {
    expect(() => run(body)).toThrow('a loop did not end: more than 1,000 turns in one call');
  });

  it('do what they did', () => {
    expect(
      run(
        'let sum = 0; const n = 5; for (let i = 0; i <= n; i++) { if (i === 3) continue; for (let k = 0, j = 0; k < i; k++) sum += j++; } do sum++; while (sum < 20); return sum;',
      ),
    ).toBe(20);
    expect(run('const n = -3; for (let i = 0; i < n; i++) return 1; return 2;')).toBe(2);
    expect(() => run('const n = 500; for (let i = 0; i < n; i++); for (let k = 0; k < 501; k++);')).toThrow(
      '1,000 turns',
    );
    expect(run('const n = 500; for (let i = 0; i < n; i++); for (let k = 0; k < 500; k++); return n;')).toBe(
      500,
    );
  });

  it('are not looked for in what is no JavaScript', () => {
    expect(() => guardLoops('for (')).toThrow(SyntaxError);
  });
});
