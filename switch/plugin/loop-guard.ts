/**
 * Has the loops of a plugin's code count their turns, so that one that does not end is the plugin's fault and not the end of a
 * worker, which nothing could interrupt: `while (a)` becomes `while (turn() && (a))`, where `turn` throws once there were too
 * many (turn-budget.ts). A loop whose turns are known when it begins, as `for (let i = 0; i < count; i++)` with a constant
 * `count`, pays for all of them there; counting each costs some nanoseconds a frame. `for … of` counts too: what it goes over
 * may have no end, or grow as it goes. `for … in` ends with what it goes over.
 * What this cannot bound, as a regular expression that goes back and forth or a package's code, the main thread notices
 * (plugin-watch.ts). In the trial's thread.
 */
import { type AnyNode, type ForStatement, type Pattern, parse, type VariableDeclarator } from 'acorn';
import { TURN_NAME, TURNS_NAME } from './turn-budget.ts';

type Insertion = { readonly at: number; readonly text: string };

/** `source`: JavaScript of a module, whose lines stay where they are. @throws SyntaxError */
export function guardLoops(source: string): string {
  const program = parse(source, { ecmaVersion: 'latest', sourceType: 'module', allowHashBang: true });
  const constants = constantsOf(program);
  const insertions: Insertion[] = [];
  visit(program, (node) => {
    if (node.type === 'WhileStatement' || node.type === 'DoWhileStatement') guard(node.test, insertions);
    else if (node.type === 'ForStatement') guardFor(node, source, constants, insertions);
    else if (node.type === 'ForOfStatement') guardBody(node.body, insertions);
  });
  return insertions
    .sort((a, b) => b.at - a.at)
    .reduce((text, { at, text: added }) => text.slice(0, at) + added + text.slice(at), source);
}

function guardFor(
  loop: ForStatement,
  source: string,
  constants: ReadonlySet<string>,
  insertions: Insertion[],
): void {
  const counted = countedLoop(loop, constants);
  if (counted !== null) {
    const { first, end } = counted;
    const text = `(${TURNS_NAME}(${source.slice(end.start, end.end)} - `;
    insertions.push(
      { at: first.start, text: `${text}${source.slice(first.start, first.end)}), ` },
      { at: first.end, text: ')' },
    );
  } else if (loop.test) guard(loop.test, insertions);
  else {
    const at = behindFirstSemicolon(source, loop.init?.end ?? loop.start);
    insertions.push({ at, text: ` ${TURN_NAME}()` });
  }
}

/** Of a loop that counts up by 1 from a number to a constant, and does nothing else to its counter; null: of any other. */
function countedLoop(
  { init, test, update, body }: ForStatement,
  constants: ReadonlySet<string>,
): { readonly first: AnyNode; readonly end: AnyNode } | null {
  if (init?.type !== 'VariableDeclaration' || init.declarations.length !== 1) return null;
  const { id, init: first } = init.declarations[0] as VariableDeclarator;
  if (id.type !== 'Identifier' || init.kind !== 'let') return null;
  const isFixed = (node: AnyNode | null | undefined): boolean =>
    (node?.type === 'Literal' && typeof node.value === 'number') ||
    (node?.type === 'Identifier' && constants.has(node.name));
  if (!first || !isFixed(first)) return null;
  const isTest =
    test?.type === 'BinaryExpression' &&
    ['<', '<='].includes(test.operator) &&
    test.left.type === 'Identifier' &&
    test.left.name === id.name &&
    isFixed(test.right);
  const isUpdate =
    update?.type === 'UpdateExpression' &&
    update.operator === '++' &&
    update.argument.type === 'Identifier' &&
    update.argument.name === id.name;
  if (!isTest || !isUpdate || assigns(body, id.name)) return null;
  return { first, end: test.right };
}

/** Whether anything within the node may change a variable of that name. */
function assigns(node: AnyNode, name: string): boolean {
  let isAssigned = false;
  visit(node, (inner) => {
    if (inner.type === 'UpdateExpression') isAssigned ||= namesIn(inner.argument).includes(name);
    else if (inner.type === 'AssignmentExpression') isAssigned ||= namesIn(inner.left).includes(name);
    else if (inner.type === 'ForInStatement' || inner.type === 'ForOfStatement')
      isAssigned ||= namesIn(inner.left).includes(name);
  });
  return isAssigned;
}

/** Names that are declared as constants in the module, and nowhere in it as anything else. */
function constantsOf(program: AnyNode): ReadonlySet<string> {
  const constants = new Set<string>();
  const others = new Set<string>();
  const add = (to: Set<string>, patterns: readonly (Pattern | null | undefined)[]): void => {
    for (const pattern of patterns) if (pattern) for (const name of namesIn(pattern)) to.add(name);
  };
  visit(program, (node) => {
    if (node.type === 'VariableDeclaration') {
      add(
        node.kind === 'const' ? constants : others,
        node.declarations.map(({ id }) => id),
      );
    } else if (node.type === 'CatchClause') add(others, [node.param]);
    else if ('params' in node) add(others, [...node.params, ...('id' in node ? [node.id] : [])]);
  });
  return new Set([...constants].filter((name) => !others.has(name)));
}

/** Every name within a pattern; of default values and computed keys too, which are others that change nothing. */
function namesIn(pattern: AnyNode): string[] {
  const names: string[] = [];
  visit(pattern, (node) => {
    if (node.type === 'Identifier') names.push(node.name);
  });
  return names;
}

function guard(test: { readonly start: number; readonly end: number }, insertions: Insertion[]): void {
  insertions.push({ at: test.start, text: `${TURN_NAME}() && (` }, { at: test.end, text: ')' });
}

/** Of a loop without a condition: the count stands before all else in its body. */
function guardBody(body: AnyNode, insertions: Insertion[]): void {
  if (body.type === 'BlockStatement') insertions.push({ at: body.start + 1, text: ` ${TURN_NAME}();` });
  else insertions.push({ at: body.start, text: `{ ${TURN_NAME}(); ` }, { at: body.end, text: ' }' });
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
