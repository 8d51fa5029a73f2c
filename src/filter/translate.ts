/**
 * Makes a function of a checked BPF program, once, so that a frame costs as much as a hand-written condition: V8 compiles
 * it like any other code of ours. Any thread; the function allocates nothing and keeps nothing.
 *
 * As libpcap's own interpreter (`pcap_offline_filter`): A, X and scratch words are 32 bits without a sign and begin as 0; a
 * load from outside the frame and a division by zero reject it. What stands in the source are numbers of the program, and
 * nothing else of whoever wrote it.
 *
 * All jumps go forward, so a jump is a `break` out of a block that ends where it goes to; blocks are nested, and
 * V8's parser takes only so many of them: programs of more targets are a loop around a `switch`.
 */
import {
  BPF_ABS,
  BPF_ADD,
  BPF_ALU,
  BPF_AND,
  BPF_DIV,
  BPF_IMM,
  BPF_IND,
  BPF_JA,
  BPF_JEQ,
  BPF_JGE,
  BPF_JGT,
  BPF_JMP,
  BPF_JSET,
  BPF_LD,
  BPF_LDX,
  BPF_LEN,
  BPF_LSH,
  BPF_MEM,
  BPF_MISC,
  BPF_MOD,
  BPF_MSH,
  BPF_MUL,
  BPF_NEG,
  BPF_OR,
  BPF_RET,
  BPF_RSH,
  BPF_ST,
  BPF_STX,
  BPF_SUB,
  BPF_TAX,
  BPF_X,
  BPF_XOR,
  type BpfInstruction,
  type BpfProgram,
  checkProgram,
  sizeOf,
} from './program.ts';

/**
 * Answers how many bytes of the frame are wanted, 0: it is not. The frame is `bytes[start]` and so on, of which `sizeBytes`
 * may be looked at; it was `frameBytes` long.
 */
export type FrameFilter = (bytes: Uint8Array, start: number, sizeBytes: number, frameBytes: number) => number;

/** More targets than this: a switch. Some 1,500 nested blocks are too many for a stack of 1 MiB. */
const NESTED_MAX = 256;

/** @throws FilterError as `checkProgram` */
export function frameFilter(program: BpfProgram): FrameFilter {
  checkProgram(program);
  const source = sourceOf(program);
  // The arguments' names are those of the type.
  return new Function('bytes', 'start', 'sizeBytes', 'frameBytes', source) as FrameFilter;
}

/** The function's body. `nestedMax`: for tests. */
export function sourceOf(program: BpfProgram, nestedMax = NESTED_MAX): string {
  const targets = targetsOf(program);
  const words = [...new Set(program.flatMap((each) => (usesWord(each) ? [`m${each.k} = 0`] : [])))];
  const variables = `'use strict';\nlet a = 0, x = 0, i = 0${words.map((word) => `, ${word}`).join('')};`;
  const body = targets.length <= nestedMax ? nested(program, targets) : switched(program, targets);
  return [variables, ...body].join('\n');
}

/** Instructions that are jumped to, in order. */
function targetsOf(program: BpfProgram): number[] {
  const targets = program.flatMap(({ code, jt, jf, k }, at) => {
    if ((code & 7) !== BPF_JMP) return [];
    return code === (BPF_JMP | BPF_JA) ? [at + 1 + k] : [at + 1 + jt, at + 1 + jf];
  });
  return [...new Set(targets)].sort((first, second) => first - second);
}

function usesWord({ code }: BpfInstruction): boolean {
  const kind = code & 7;
  return kind === BPF_ST || kind === BPF_STX || (kind <= BPF_LDX && (code & 0xe0) === BPF_MEM);
}

function nested(program: BpfProgram, targets: readonly number[]): string[] {
  const isTarget = new Set(targets);
  const opening = targets.toReversed().map((target) => `l${target}: {`);
  const lines = program.flatMap((instruction, at) => [
    ...(isTarget.has(at) ? ['}'] : []),
    textOf(instruction, (distance) => (distance === 0 ? '' : `break l${at + 1 + distance};`)),
  ]);
  return [...opening, ...lines];
}

function switched(program: BpfProgram, targets: readonly number[]): string[] {
  const isTarget = new Set(targets);
  const lines = program.flatMap((instruction, at) => [
    ...(isTarget.has(at) ? [`case ${at}:`] : []),
    textOf(instruction, (distance) => (distance === 0 ? '' : `at = ${at + 1 + distance}; continue;`)),
  ]);
  return ['let at = -1;', 'for (;;) switch (at) { case -1:', ...lines, '}'];
}

/** `go` answers the text of a jump over so many instructions. */
function textOf(instruction: BpfInstruction, go: (distance: number) => string): string {
  const { code, jt, jf, k } = instruction;
  switch (code & 7) {
    case BPF_LD:
      return loadOf(code, k);
    case BPF_LDX:
      return loadXOf(code, k);
    case BPF_ST:
      return `m${k} = a;`;
    case BPF_STX:
      return `m${k} = x;`;
    case BPF_ALU:
      return operationOf(code, k);
    case BPF_JMP:
      if (code === (BPF_JMP | BPF_JA)) return go(k);
      return jt === jf ? go(jt) : `if (${conditionOf(code, k)}) { ${go(jt)} } else { ${go(jf)} }`;
    case BPF_RET:
      return code === (BPF_RET | 0) ? `return ${k};` : 'return a >>> 0;';
    default:
      return code === (BPF_MISC | BPF_TAX) ? 'x = a;' : 'a = x;';
  }
}

function loadOf(code: number, k: number): string {
  const size = sizeOf(code);
  switch (code & 0xe0) {
    case BPF_IMM:
      return `a = ${k | 0};`;
    case BPF_LEN:
      return 'a = frameBytes;';
    case BPF_MEM:
      return `a = m${k};`;
    case BPF_ABS:
      return `if (${k + size} > sizeBytes) return 0; i = start + ${k}; a = ${bytesAt(size)};`;
    case BPF_IND:
      // X is up to 2^32, and so the sum is compared before it is an index.
      return `if ((x >>> 0) + ${k + size} > sizeBytes) return 0; i = start + (x + ${k | 0} | 0); a = ${bytesAt(size)};`;
    default:
      throw new Error(`a load of mode ${code}`);
  }
}

function bytesAt(size: number): string {
  if (size === 1) return 'bytes[i]';
  if (size === 2) return '(bytes[i] << 8) | bytes[i + 1]';
  return '(bytes[i] << 24) | (bytes[i + 1] << 16) | (bytes[i + 2] << 8) | bytes[i + 3]';
}

function loadXOf(code: number, k: number): string {
  switch (code & 0xe0) {
    case BPF_IMM:
      return `x = ${k | 0};`;
    case BPF_LEN:
      return 'x = frameBytes;';
    case BPF_MEM:
      return `x = m${k};`;
    case BPF_MSH:
      return `if (${k + 1} > sizeBytes) return 0; x = (bytes[start + ${k}] & 15) << 2;`;
    default:
      throw new Error(`a load of mode ${code}`);
  }
}

function operationOf(code: number, k: number): string {
  const isX = (code & BPF_X) !== 0;
  const operand = isX ? 'x' : String(k | 0);
  switch (code & 0xf0) {
    case BPF_ADD:
      return `a = (a + ${operand}) | 0;`;
    case BPF_SUB:
      return `a = (a - ${isX ? 'x' : `(${k | 0})`}) | 0;`;
    case BPF_MUL:
      return `a = Math.imul(a, ${operand});`;
    case BPF_DIV:
      return isX ? 'if (x === 0) return 0; a = ((a >>> 0) / (x >>> 0)) | 0;' : `a = ((a >>> 0) / ${k}) | 0;`;
    case BPF_MOD:
      return isX ? 'if (x === 0) return 0; a = ((a >>> 0) % (x >>> 0)) | 0;' : `a = ((a >>> 0) % ${k}) | 0;`;
    case BPF_AND:
      return `a &= ${operand};`;
    case BPF_OR:
      return `a |= ${operand};`;
    case BPF_XOR:
      return `a ^= ${operand};`;
    case BPF_LSH:
      return isX ? 'a = (x >>> 0) < 32 ? a << x : 0;' : `a <<= ${k};`;
    case BPF_RSH:
      return isX ? 'a = (x >>> 0) < 32 ? (a >>> x) | 0 : 0;' : `a = (a >>> ${k}) | 0;`;
    case BPF_NEG:
      return 'a = -a | 0;';
    default:
      throw new Error(`an operation ${code}`);
  }
}

function conditionOf(code: number, k: number): string {
  const isX = (code & BPF_X) !== 0;
  switch (code & 0xf0) {
    case BPF_JEQ:
      return `a === ${isX ? 'x' : k | 0}`;
    case BPF_JGT:
      return `(a >>> 0) > ${isX ? '(x >>> 0)' : k}`;
    case BPF_JGE:
      return `(a >>> 0) >= ${isX ? '(x >>> 0)' : k}`;
    case BPF_JSET:
      return `(a & ${isX ? 'x' : k | 0}) !== 0`;
    default:
      throw new Error(`a condition ${code}${BPF_JA}`);
  }
}
