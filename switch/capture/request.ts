/**
 * What a capture may be asked for, as the control API takes it: the form, the limits, and all that is wrong at once.
 * Filters come as programs, which whoever asks has had libpcap compile (src/filter/libpcap.ts). Main thread, and the
 * commands that ask.
 */
import { z } from 'zod';
import { CAPTURED_BYTES_MAX } from '../../protocol/pcap.ts';
import { type BpfProgram, checkProgram, FilterError } from '../../src/filter/program.ts';
import { ConfigError } from '../config/settings.ts';
import { requestRefusalText } from '../config/wording.ts';

export const DIRECTIONS = ['in', 'out', 'both'] as const;

const INSTRUCTION = 'an instruction of four numbers, of 16, 8, 8 and 32 bits';
const u = (bits: number) =>
  z
    .int(INSTRUCTION)
    .min(0, INSTRUCTION)
    .max(2 ** bits - 1, INSTRUCTION);

/** As `tcpdump -ddd` prints an instruction: code, jumps if true and if false, operand. */
const Instruction = z.tuple([u(16), u(8), u(8), u(32)], INSTRUCTION);

const FIELDS = {
  /** Names of ports; `all`: those that there are. */
  ports: z.array(z.string(), 'names of ports, or all').min(1, 'names of ports, or all'),
  direction: z.enum(DIRECTIONS, 'in, out or both').default('both'),
  vlan: z
    .int('a VLAN, 0 to 4095')
    .min(0, 'a VLAN, 0 to 4095')
    .max(4095, 'a VLAN, 0 to 4095')
    .nullable()
    .default(null),
  snapBytes: z
    .int(`bytes of each frame, 1 to ${CAPTURED_BYTES_MAX}`)
    .min(1, `bytes of each frame, 1 to ${CAPTURED_BYTES_MAX}`)
    .max(CAPTURED_BYTES_MAX, `bytes of each frame, 1 to ${CAPTURED_BYTES_MAX}`)
    .default(CAPTURED_BYTES_MAX),
  count: z.int('how many frames, 1 or more').min(1, 'how many frames, 1 or more').nullable().default(null),
  program: z.array(Instruction, 'instructions of four numbers each').nullable().default(null),
};
const Request = z.strictObject(FIELDS, `an object with ${Object.keys(FIELDS).join(', ')}`);

/** What is asked for: what `POST /v1/captures` takes. */
export type CaptureQuery = z.input<typeof Request>;

export type CaptureRequest = Omit<z.output<typeof Request>, 'program'> & {
  readonly program: BpfProgram | null;
};

/** @throws ConfigError with all that is wrong */
export function captureRequestOf(body: unknown): CaptureRequest {
  const parsed = Request.safeParse(body, { reportInput: true });
  if (!parsed.success) {
    const faults = parsed.error.issues.flatMap((issue) => {
      const { path, message, input } = issue;
      if (issue.code === 'unrecognized_keys')
        return issue.keys.map((key) => ({
          path: [key],
          text: `${key}: unknown (there are ${Object.keys(FIELDS).join(', ')})`,
        }));
      const what = path.length === 0 ? 'the request' : path.join('.');
      return [{ path: path.map(String), text: `${what}: ${requestRefusalText(input, message)}` }];
    });
    throw new ConfigError(`no such capture: ${faults.map(({ text }) => text).join('; ')}`, faults);
  }
  const program = parsed.data.program?.map(([code, jt, jf, k]) => ({ code, jt, jf, k })) ?? null;
  try {
    if (program !== null) checkProgram(program);
  } catch (error) {
    if (!(error instanceof FilterError)) throw error;
    throw new ConfigError(error.message, [{ path: ['program'], text: error.message }]);
  }
  return { ...parsed.data, program };
}
