/**
 * Filters: expressions as libpcap compiles them, and the functions made of their programs, which must say of every frame
 * what libpcap's own interpreter says.
 */
import { afterAll, describe, expect, it } from 'vitest';
import { compileExpression, loadLibpcap } from '../../src/filter/libpcap.ts';
import {
  BPF_ABS,
  BPF_ALU,
  BPF_CODES,
  BPF_DIV,
  BPF_IND,
  BPF_INSTRUCTIONS_MAX,
  BPF_JEQ,
  BPF_JMP,
  BPF_LD,
  BPF_LDX,
  BPF_LSH,
  BPF_MEM,
  BPF_MISC,
  BPF_RET,
  BPF_ST,
  BPF_STX,
  BPF_TXA,
  BPF_WORDS,
  type BpfInstruction,
  type BpfProgram,
  checkProgram,
  FilterError,
  reachBytes,
} from '../../src/filter/program.ts';
import { type FrameFilter, frameFilter, sourceOf } from '../../src/filter/translate.ts';
import { Random } from '../vring/random.ts';
import { Interpreter } from './interpreter.ts';
import { whyNoLibpcap } from './libpcap-here.ts';
import { randomFrame } from './random-frames.ts';

const SEARCH = Number(process.env.RINGWAY_SEARCH ?? 1);
const why = whyNoLibpcap();

const EXPRESSIONS = [
  '',
  'ip',
  'ip6',
  'arp',
  'arp or rarp',
  'tcp',
  'udp',
  'icmp',
  'icmp6',
  'sctp',
  'igmp',
  'not ip',
  'broadcast',
  'multicast',
  'ether broadcast',
  'ip multicast',
  'ip6 multicast',
  'host 10.0.0.1',
  'src host 10.0.0.1 and dst host 10.0.0.2',
  'net 192.168.0.0/16',
  'net 10.0.0.0/30',
  'ip6 net 2001::/16',
  'ip6 host fe80::1',
  'ether host 02:00:00:00:00:01',
  'ether src 52:54:00:12:34:56',
  'port 53',
  'udp port 53',
  'tcp port 80 or tcp port 443',
  'src port 22',
  'dst portrange 50-100',
  'tcp portrange 20-30 and not host 10.0.0.2',
  'portrange 1-65535',
  'vlan',
  'vlan 5',
  'vlan 5 and ip',
  'vlan 5 and vlan 6',
  'vlan and udp port 67',
  'not vlan',
  'mpls',
  'mpls 1 and ip',
  'pppoes',
  'pppoes and ip host 10.0.0.1',
  'pppoed',
  'len > 60',
  'less 60',
  'greater 100',
  'len & 1 = 1',
  'ip[0] & 0xf != 5',
  'ip[6:2] & 0x1fff = 0',
  'tcp[tcpflags] & (tcp-syn|tcp-fin) != 0',
  'tcp[tcpflags] = tcp-syn',
  'tcp[13] = 2 or tcp[13] = 18',
  'tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420',
  'udp[8:4] - ip[4:2] > 7 * ip[8]',
  'ip[2:2] % 3 = 1',
  'ip[2:2] / 3 = 20',
  'ip[8] / ip[1] = 1',
  'ip[2:2] ^ 0x55 = 0x41',
  'ip[8] << 24 > 0x30000000',
  'ether[0] & 1 = 0 and ip[16] >= 224',
  'ether[100:4] = 0',
  'ether proto 0x88cc',
  'stp',
  'llc',
  'iso',
  'ip proto 89',
  'ip proto \\tcp',
  'ip6 proto 58',
  'icmp[icmptype] = icmp-echo',
  'icmp6[0] = 135 or icmp6[0] = 136',
  'geneve',
  'udp port 67 or udp port 68',
  '(tcp or udp) and not (port 22 or port 53) and (net 10 or net 192.168)',
  `host ${Array.from({ length: 400 }, (_, i) => `10.1.${i >> 8}.${i & 255}`).join(' or ')} or 10.0.0.2`,
];

/** The same program by both of its forms. */
function forms(program: BpfProgram): FrameFilter[] {
  const asSwitch = new Function('bytes', 'start', 'sizeBytes', 'frameBytes', sourceOf(program, -1));
  return [frameFilter(program), asSwitch as FrameFilter];
}

describe.skipIf(why !== null)(`filters (${why ?? 'libpcap is here'})`, () => {
  const interpreter = why === null ? new Interpreter() : null!;
  afterAll(() => interpreter?.close());
  /** In the middle of other bytes, as in a ring. */
  const around = new Uint8Array(1024).fill(0xff);
  const START = 301;

  function compare(
    program: BpfProgram,
    filters: readonly FrameFilter[],
    frame: Uint8Array,
    frameBytes: number,
  ): number {
    around.set(frame, START);
    const wanted = interpreter.run(frame, frame.length, frameBytes);
    for (const filter of filters) {
      const answer = filter(around, START, frame.length, frameBytes);
      if (answer !== wanted)
        expect.fail(
          `${answer} instead of ${wanted} for ${Buffer.from(frame).toString('hex')}: ${JSON.stringify(program)}`,
        );
    }
    around.fill(0xff, START, START + frame.length);
    return wanted;
  }

  const random = new Random(31);
  const frames = Array.from({ length: 4000 }, () => randomFrame(random));
  const accepted = new Map<string, number>();

  it.each(EXPRESSIONS)('say of frames what libpcap says: %s', (expression) => {
    const program = compileExpression(expression);
    interpreter.load(program);
    const filters = forms(program);
    const reach = Math.min(reachBytes(program), 1500);
    let count = 0;
    for (const frame of frames) {
      const frameBytes = frame.length + (frame.length % 7 === 0 ? 1000 : 0);
      const wanted = compare(program, filters, frame, frameBytes);
      if (wanted !== 0) count++;
      // No more than that need be looked at.
      const seen = Math.min(frame.length, reach);
      around.set(frame.subarray(0, seen), START);
      if (filters[0](around, START, seen, frameBytes) !== wanted) expect.fail(`of the first ${seen} bytes`);
      around.fill(0xff, START, START + seen);
    }
    accepted.set(expression, count);
    expect(count).toBeLessThanOrEqual(frames.length);
  });

  it('of nearly all expressions take some frames and leave others', () => {
    const deciding = [...accepted.values()].filter((count) => count > 0 && count < frames.length);
    expect(accepted.size).toBe(EXPRESSIONS.length);
    expect(deciding.length).toBeGreaterThan(EXPRESSIONS.length - 10);
  });

  it.each(Array.from({ length: 20 * SEARCH }, (_, seed) => seed))(
    'say of frames what libpcap says: random programs, seed %i',
    (seed) => {
      const random = new Random(seed);
      for (let round = 0; round < 40; round++) {
        const program = randomProgram(random);
        checkProgram(program);
        expect(interpreter.takes(program)).toBe(true);
        interpreter.load(program);
        const filters = forms(program);
        for (let i = 0; i < 50; i++) {
          const frame = frames[random.between(0, frames.length - 1)];
          compare(program, filters, frame, random.chance(50) ? frame.length : random.between(0, 70_000));
        }
      }
    },
  );

  it('are refused in the words of libpcap', () => {
    expect(() => compileExpression('port')).toThrow(FilterError);
    expect(() => compileExpression('tcp prot 80')).toThrow('the filter expression is not valid: ');
    expect(() => compileExpression('vlan 4096')).toThrow('greater than maximum 4095');
    expect(() => compileExpression('inbound')).toThrow('direction');
    expect(() => compileExpression('ip6 protochain 58')).toThrow('protochain');
    expect(() => compileExpression('ip broadcast')).toThrow('netmask');
    expect(() => compileExpression('ip\0x')).toThrow(FilterError);
  });

  it('name the package to install where there is no libpcap', () => {
    expect(() => loadLibpcap(['libnone-of-that-name.so.1'])).toThrow('apt install libpcap0.8');
  });
});

describe('a program', () => {
  const ret = (k: number): BpfInstruction => ({ code: BPF_RET, jt: 0, jf: 0, k });
  const of = (code: number, k = 0, jt = 0, jf = 0): BpfInstruction => ({ code, jt, jf, k });
  const bad: readonly (readonly [string, BpfProgram])[] = [
    ['is empty', []],
    ['does not return', [of(BPF_LD | BPF_ABS, 0)]],
    ['jumps out of the program', [of(BPF_JMP | BPF_JEQ, 0, 1, 0), ret(0)]],
    ['jumps out of the program', [of(BPF_JMP | BPF_JEQ, 0, 0, 1), ret(0)]],
    ['jumps out of the program', [of(BPF_JMP, 1), ret(0)]],
    ['jumps out of the program', [of(BPF_JMP, 0xffff_ffff), ret(0)]],
    ['unknown code 255', [of(0xff), ret(0)]],
    ['uses scratch word 16', [of(BPF_ST, 16), ret(0)]],
    ['uses scratch word 16', [of(BPF_STX, 16), ret(0)]],
    ['uses scratch word 99', [of(BPF_LD | BPF_MEM, 99), ret(0)]],
    ['uses scratch word 16', [of(BPF_LDX | BPF_MEM, 16), ret(0)]],
    ['divides by zero', [of(BPF_ALU | BPF_DIV, 0), ret(0)]],
    ['shifts by 32 bits', [of(BPF_ALU | BPF_LSH, 32), ret(0)]],
    ['no number of its size', [of(BPF_LD, 2 ** 32), ret(0)]],
    ['no number of its size', [of(BPF_LD, 1.5), ret(0)]],
    ['no number of its size', [of(BPF_LD, Number.NaN), ret(0)]],
    ['no number of its size', [{ code: BPF_LD, jt: -1, jf: 0, k: 0 }, ret(0)]],
    ['at most', new Array<BpfInstruction>(BPF_INSTRUCTIONS_MAX + 1).fill(ret(0))],
  ];
  it.each(bad)('is refused: it %s', (text, program) => {
    expect(() => frameFilter(program)).toThrow(FilterError);
    expect(() => frameFilter(program)).toThrow(text);
  });

  it('may have as many instructions and targets as there can be', () => {
    const pairs = Array.from({ length: BPF_INSTRUCTIONS_MAX / 2 - 1 }, (_, i) => [
      of(BPF_JMP | BPF_JEQ, i + 1, 0, 1),
      ret(i + 1),
    ]);
    const filter = frameFilter([of(BPF_LD | BPF_ABS, 0), ...pairs.flat(), ret(0)]);
    const asked = (value: number): number => {
      const bytes = new Uint8Array(4);
      new DataView(bytes.buffer).setUint32(0, value);
      return filter(bytes, 0, 4, 4);
    };
    expect([1, 2, 8191, 8192, 0].map(asked)).toEqual([1, 2, 8191, 0, 0]);
  });

  it('looks at nothing outside of the frame, whatever X is', () => {
    const bytes = new Uint8Array(100).fill(7);
    for (const x of [0, 1, 3, 4, 0x7fff_ffff, 0x8000_0000, 0xffff_fffc, 0xffff_ffff])
      for (const k of [0, 1, 4, 0x8000_0000, 0xffff_ffff]) {
        const program = [of(BPF_LDX, x), of(BPF_LD | BPF_IND, k), ret(1)];
        expect(frameFilter(program)(bytes, 50, 8, 8)).toBe(x + k + 4 <= 8 ? 1 : 0);
      }
  });
});

/** Valid, of up to 40 instructions, with jumps and loads that mostly stay within a frame. */
function randomProgram(random: Random): BpfProgram {
  const codes = [...BPF_CODES].filter((code) => (code & 7) !== BPF_RET);
  // libpcap does not clear its scratch words.
  const clearing = Array.from({ length: BPF_WORDS }, (_, k) => ({ code: BPF_ST, jt: 0, jf: 0, k }));
  const count = random.between(1, 40);
  const body = Array.from({ length: count }, (_, at): BpfInstruction => {
    const behind = count - at;
    const code = random.chance(8) ? BPF_RET | random.pick([0, 0x10]) : random.pick(codes);
    const jump = (): number => random.between(0, Math.min(behind - 1, random.chance(70) ? 3 : 255));
    return { code, jt: jump(), jf: jump(), k: operandOf(random, code, behind) };
  });
  const ends = [{ code: BPF_MISC | BPF_TXA, jt: 0, jf: 0, k: 0 }].slice(random.between(0, 1));
  const last = { code: BPF_RET | random.pick([0, 0x10]), jt: 0, jf: 0, k: random.next() };
  return [...clearing, ...body, ...ends, last];
}

function operandOf(random: Random, code: number, behind: number): number {
  const kind = code & 7;
  if (code === BPF_JMP) return random.between(0, behind - 1);
  if (kind === BPF_ST || kind === BPF_STX) return random.between(0, BPF_WORDS - 1);
  if (kind <= BPF_LDX) {
    if ((code & 0xe0) === BPF_MEM) return random.between(0, BPF_WORDS - 1);
    return random.chance(80) ? random.between(0, 70) : random.pick([0xffff_ffff, 0x8000_0000, random.next()]);
  }
  if (kind === BPF_ALU && (code & 0x08) === 0) {
    const operation = code & 0xf0;
    if (operation === 0x60 || operation === 0x70) return random.between(0, 31);
    if (operation === 0x30 || operation === 0x90)
      return random.chance(50) ? random.between(1, 9) : (random.next() | 1) >>> 0;
  }
  return random.chance(60)
    ? random.between(0, 255)
    : random.pick([0xffff_ffff, 0x8000_0000, 0x7fff_ffff, random.next()]);
}
