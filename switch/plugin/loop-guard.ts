/**
 * Has the loops of a plugin's code count their turns, so that one that does not end is the plugin's fault and not the end of a
 * worker, which nothing could interrupt: `while (a)` becomes `while (turn() && (a))`, where `turn` throws once there were too
 * many (turn-budget.ts). `for … of` ends with what it goes over. What this cannot bound, as a regular expression that goes
 * back and forth or a package's code, the main thread notices (plugin-watch.ts). In the trial's thread.
 */
import { type AnyNode, parse } from 'acorn';
import { TURN_NAME } from './turn-budget.ts';

type Insertion = { readonly at: number; readonly text: string };

/**
 * `source`: JavaScript of a module, whose lines stay where they are. @throws SyntaxError
 */
export function guardLoops(source: string): string {
  const insertions: Insertion[] = [];
  visit(parse(source, { ecmaVersion: 'latest', sourceType: 'module', allowHashBang: true }), (node) => {
    if (node.type === 'WhileStatement' || node.type === 'DoWhileStatement') guard(node.test, insertions);
    else if (node.type !== 'ForStatement') return;
    else if (node.test) guard(node.test, insertions);
    else
      insertions.push({
        at: behindFirstSemicolon(source, node.init?.end ?? node.start),
        text: ` ${TURN_NAME}()`,
      });
  });
  return insertions
    .sort((a, b) => b.at - a.at)
    .reduce((text, { at, text: added }) => text.slice(0, at) + added + text.slice(at), source);
}

function guard(test: { readonly start: number; readonly end: number }, insertions: Insertion[]): void {
  insertions.push({ at: test.start, text: `${TURN_NAME}() && (` }, { at: test.end, text: ')' });
}

/** Of `for (init; …`, where between `from` and the semicolon nothing but blanks and comments stand, or `for (`. */
function behindFirstSemicolon(source: string, from: number): number {
  const between = /(?:\/\*[\s\S]*?\*\/|\/\/[^\n]*|[^;])*?;/y;
  between.lastIndex = from;
  between.test(source);
  return between.lastIndex;
}

/** Calls `tell` of the node and of all within it. */
function visit(node: AnyNode, tell: (node: AnyNode) => void): void {
  tell(node);
  for (const part of Object.values(node)) {
    for (const inner of Array.isArray(part) ? part : [part]) if (isNode(inner)) visit(inner, tell);
  }
}

function isNode(value: unknown): value is AnyNode {
  return typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string';
}
