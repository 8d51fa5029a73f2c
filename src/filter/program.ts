/**
 * Programs of the classic BPF, as libpcap compiles expressions to them (libpcap.ts): the form of an instruction, which
 * programs may run, and how far into a frame one looks. A program may come from anywhere, by the control socket too; what
 * `checkProgram` has passed ends, and touches nothing but the frame and its own sixteen words (translate.ts). Any thread.
 *
 * McCanne and Jacobson, "The BSD Packet Filter" (1993); pcap-filter(7); bpf(4) of the BSDs.
 */

/** `code` is of 16 bits, `jt` and `jf` of 8, `k` of 32, all without a sign: as `tcpdump -ddd` prints them. */
export type BpfInstruction = {
  readonly code: number;
  readonly jt: number;
  readonly jf: number;
  readonly k: number;
};

export type BpfProgram = readonly BpfInstruction[];

/** What was asked to be filtered by cannot be; one line for the user. */
export class FilterError extends Error {
  override name = 'FilterError';
}

/** As many as the BSDs' and Linux' kernels take is 4,096; libpcap itself has no limit, and lists of addresses are long. */
export const BPF_INSTRUCTIONS_MAX = 16_384;
export const BPF_WORDS = 16;

/** Classes, by the lowest three bits of a code. */
export const BPF_LD = 0;
export const BPF_LDX = 1;
export const BPF_ST = 2;
export const BPF_STX = 3;
export const BPF_ALU = 4;
export const BPF_JMP = 5;
export const BPF_RET = 6;
export const BPF_MISC = 7;
/** Sizes and modes of loads. */
export const BPF_W = 0x00;
export const BPF_H = 0x08;
export const BPF_B = 0x10;
export const BPF_IMM = 0x00;
export const BPF_ABS = 0x20;
export const BPF_IND = 0x40;
export const BPF_MEM = 0x60;
export const BPF_LEN = 0x80;
export const BPF_MSH = 0xa0;
/** Operations. */
export const BPF_ADD = 0x00;
export const BPF_SUB = 0x10;
export const BPF_MUL = 0x20;
export const BPF_DIV = 0x30;
export const BPF_OR = 0x40;
export const BPF_AND = 0x50;
export const BPF_LSH = 0x60;
export const BPF_RSH = 0x70;
export const BPF_NEG = 0x80;
export const BPF_MOD = 0x90;
export const BPF_XOR = 0xa0;
export const BPF_JA = 0x00;
export const BPF_JEQ = 0x10;
export const BPF_JGT = 0x20;
export const BPF_JGE = 0x30;
export const BPF_JSET = 0x40;
/** Operands: `k`, X, or (RET only) A. */
export const BPF_K = 0x00;
export const BPF_X = 0x08;
export const BPF_A = 0x10;
export const BPF_TAX = 0x00;
export const BPF_TXA = 0x80;

const ALU_OPERATIONS = [
  BPF_ADD,
  BPF_SUB,
  BPF_MUL,
  BPF_DIV,
  BPF_OR,
  BPF_AND,
  BPF_LSH,
  BPF_RSH,
  BPF_MOD,
  BPF_XOR,
];
const CONDITIONS = [BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET];

/** All codes that there are. */
export const BPF_CODES: ReadonlySet<number> = new Set([
  ...[BPF_W, BPF_H, BPF_B].flatMap((size) => [BPF_LD | size | BPF_ABS, BPF_LD | size | BPF_IND]),
  ...[BPF_IMM, BPF_MEM, BPF_LEN].flatMap((mode) => [BPF_LD | BPF_W | mode, BPF_LDX | BPF_W | mode]),
  BPF_LDX | BPF_B | BPF_MSH,
  BPF_ST,
  BPF_STX,
  ...ALU_OPERATIONS.flatMap((operation) => [BPF_ALU | operation | BPF_K, BPF_ALU | operation | BPF_X]),
  BPF_ALU | BPF_NEG,
  BPF_JMP | BPF_JA,
  ...CONDITIONS.flatMap((condition) => [BPF_JMP | condition | BPF_K, BPF_JMP | condition | BPF_X]),
  BPF_RET | BPF_K,
  BPF_RET | BPF_A,
  BPF_MISC | BPF_TAX,
  BPF_MISC | BPF_TXA,
]);

/**
 * @throws FilterError unless the program ends for every frame: jumps go forward, to an instruction of its own, the last one
 * returns; codes are known, scratch words are among the sixteen, and it never divides by a constant zero.
 */
export function checkProgram(program: BpfProgram): void {
  if (program.length === 0) throw new FilterError('the filter program is empty');
  if (program.length > BPF_INSTRUCTIONS_MAX)
    throw new FilterError(
      `the filter program has ${program.length} instructions (at most ${BPF_INSTRUCTIONS_MAX})`,
    );
  for (const [at, instruction] of program.entries()) {
    const why = faultOf(instruction, program.length - at - 1);
    if (why !== null) throw new FilterError(`the filter program is not valid: instruction ${at} ${why}`);
  }
}

/** `behind`: how many instructions follow. */
function faultOf({ code, jt, jf, k }: BpfInstruction, behind: number): string | null {
  if (!isWithin(code, 2 ** 16) || !isWithin(jt, 2 ** 8) || !isWithin(jf, 2 ** 8) || !isWithin(k, 2 ** 32))
    return 'has a field that is no number of its size';
  if (!BPF_CODES.has(code)) return `has the unknown code ${code}`;
  const kind = code & 7;
  if (behind === 0 && kind !== BPF_RET) return 'is the last one and does not return';
  if (kind === BPF_JMP) {
    const isFar = code === (BPF_JMP | BPF_JA) ? k >= behind : Math.max(jt, jf) >= behind;
    return isFar ? 'jumps out of the program' : null;
  }
  const usesWord = kind === BPF_ST || kind === BPF_STX || (kind <= BPF_LDX && (code & 0xe0) === BPF_MEM);
  if (usesWord && k >= BPF_WORDS) return `uses scratch word ${k} (there are ${BPF_WORDS})`;
  if (kind !== BPF_ALU || (code & BPF_X) !== 0) return null;
  const operation = code & 0xf0;
  if ((operation === BPF_DIV || operation === BPF_MOD) && k === 0) return 'divides by zero';
  return (operation === BPF_LSH || operation === BPF_RSH) && k > 31 ? `shifts by ${k} bits` : null;
}

function isWithin(value: number, end: number): boolean {
  return Number.isInteger(value) && value >= 0 && value < end;
}

/** Most that `4 * ([k] & 15)` can be. */
const HEADER_LENGTH_MAX = 60;

/**
 * How many bytes from a frame's beginning decide what the program says of it, so that no more need be copied to ask it:
 * Infinity where X may be anything. The frame's length is not counted, which the program is told.
 */
export function reachBytes(program: BpfProgram): number {
  let reach = 0;
  let xMax = 0;
  for (const { code, k } of program) {
    if (code === (BPF_LDX | BPF_B | BPF_MSH)) {
      xMax = Math.max(xMax, HEADER_LENGTH_MAX);
      reach = Math.max(reach, k + 1);
    } else if (code === (BPF_LDX | BPF_W | BPF_IMM)) xMax = Math.max(xMax, k);
    else if ((code & 7) === BPF_LDX || code === (BPF_MISC | BPF_TAX)) xMax = Number.POSITIVE_INFINITY;
  }
  for (const { code, k } of program) {
    if ((code & 7) !== BPF_LD) continue;
    const mode = code & 0xe0;
    if (mode === BPF_ABS) reach = Math.max(reach, k + sizeOf(code));
    else if (mode === BPF_IND) reach = Math.max(reach, xMax + k + sizeOf(code));
  }
  return reach;
}

/** Bytes of a load. */
export function sizeOf(code: number): number {
  const size = code & 0x18;
  return size === BPF_W ? 4 : size === BPF_H ? 2 : 1;
}
