/**
 * `ringway capture`: frames of running ports as pcapng, into a file or a pipe, until ^C. What it asks for is a stream of the
 * control socket, which comes as it is written; this process only looks at where blocks begin and end, so that what it
 * leaves is whole, and counts. Filter expressions become programs here (src/filter/libpcap.ts).
 */
import { createWriteStream, type WriteStream } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import type { Command } from 'commander';
import { CAPTURED_BYTES_MAX } from '../../protocol/pcap.ts';
import { compileExpression } from '../../src/filter/libpcap.ts';
import { FilterError } from '../../src/filter/program.ts';
import type { CaptureQuery } from '../capture/request.ts';
import { DIRECTIONS } from '../capture/request.ts';
import { CAPTURE_HEADER } from '../control/api.ts';
import { askControl, streamControl } from '../control/client.ts';
import { linesOut } from '../lines-out.ts';
import { type AskOptions, addControlOption } from './ask-options.ts';
import { BlockCounter } from './block-counter.ts';
import { CliError, EXIT } from './cli-error.ts';
import { findControl } from './running.ts';
import { formatCount } from './table.ts';

const STDOUT_FD = 1;
const STDERR_FD = 2;
/** Frames hold whatever guests say to each other: the file is for its owner. */
const FILE_MODE = 0o600;
/** After ^C, for what was captured so far. */
const ENDING_MS = 2000;

const HELP = `
Examples:
  # Look on in Wireshark, also from another machine
  ringway capture vm0 -w - | wireshark -k -i -
  ssh host ringway capture vm0 -w - | wireshark -k -i -
  # What vm0 asks DNS for, and what becomes of it
  ringway capture vm0 --dir in --filter 'udp port 53' -w dns.pcapng
  # The first hundred frames of VLAN 5 that pass any port, 96 bytes of each
  ringway capture all --vlan 5 --snaplen 96 --count 100 -w vlan5.pcapng

Frames that the switch drops have the reason as their comment (in Wireshark: frame.comment). Frames
that the reader is too slow for are lost, and counted in the capture's statistics and at its end.`;

export type CaptureOptions = {
  readonly dir: string;
  readonly vlan?: string;
  readonly filter?: string;
  readonly snaplen?: string;
  readonly count?: string;
};

export function addCapture(program: Command): void {
  const command = program
    .command('capture <port...>')
    .description('Capture frames of running ports as pcapng, until ^C; all: of every port that there is.')
    .option('--dir <in|out|both>', 'frames from the ports, to them, or both', 'both')
    .option('--vlan <n>', 'only frames of this VLAN, 0 to 4095')
    .option('--filter <expression>', 'only these (pcap-filter(7)); needs libpcap')
    .option('--snaplen <bytes>', 'keep so much of each frame')
    .option('--count <n>', 'end after so many frames')
    .requiredOption('-w, --write <file>', 'file to write, which is emptied first; -: standard output')
    .addHelpText('after', HELP);
  addControlOption(command).action(
    async (ports: string[], options: CaptureOptions & AskOptions & { readonly write: string }) => {
      const query = queryOf(ports, options);
      const control = await findControl(options.control);
      const isPiped = options.write === '-';
      await captureTo(control, query, () => openOutput(isPiped ? STDOUT_FD : options.write), true);
    },
  );
}

/** @throws CliError, with all that is wrong */
export function queryOf(ports: readonly string[], options: CaptureOptions): CaptureQuery {
  const faults: string[] = [];
  const number = (name: string, text: string | undefined, min: number, max: number): number | null => {
    if (text === undefined || text === '') return null;
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    faults.push(`--${name}: ${text} is not allowed (${min} to ${max})`);
    return null;
  };
  const direction = DIRECTIONS.find((each) => each === options.dir);
  if (direction === undefined) faults.push(`--dir: ${options.dir} is not allowed (in, out or both)`);
  const vlan = number('vlan', options.vlan, 0, 4095);
  const snapBytes = number('snaplen', options.snaplen, 1, CAPTURED_BYTES_MAX);
  const count = number('count', options.count, 1, Number.MAX_SAFE_INTEGER);
  let program: CaptureQuery['program'] = null;
  try {
    if (options.filter !== undefined && options.filter !== '')
      program = compileExpression(options.filter).map(({ code, jt, jf, k }) => [code, jt, jf, k]);
  } catch (error) {
    if (!(error instanceof FilterError)) throw error;
    faults.push(`--filter: ${error.message}`);
  }
  if (faults.length > 0) throw new CliError(faults.join('; '), EXIT.usage);
  return { ports: [...ports], direction, vlan, count, program, ...(snapBytes !== null && { snapBytes }) };
}

/** @throws CliError */
export function openOutput(target: string | number): Promise<WriteStream> {
  const stream =
    typeof target === 'number'
      ? createWriteStream('', { fd: target, autoClose: false })
      : createWriteStream(target, { mode: FILE_MODE });
  if (typeof target === 'number') return Promise.resolve(stream);
  return new Promise((resolve, reject) => {
    stream.once('open', () => resolve(stream));
    stream.once('error', (error) =>
      reject(new CliError(`${target} cannot be written: ${error.message}`, EXIT.usage)),
    );
  });
}

/**
 * Resolves when the capture has ended: by itself, by a signal, or because nobody reads on. `tells`: says at its end what
 * there was, and why it ended. @throws ControlError, CliError
 */
export async function captureTo(
  control: string,
  query: CaptureQuery,
  open: () => Promise<WriteStream>,
  tells: boolean,
): Promise<void> {
  const response = await streamControl(control, '/v1/captures', { method: 'POST', body: query });
  const output = await open();
  const counter = new BlockCounter();
  const id = response.headers[CAPTURE_HEADER.toLowerCase()];
  let signals = 0;
  const end = (): void => {
    // Once: what was captured still comes. Twice, or if it does not: what is here is whole.
    if (++signals > 1) response.destroy();
    setTimeout(() => response.destroy(), ENDING_MS).unref();
    void askControl(control, `/v1/captures/${id}`, { method: 'DELETE' }).catch(() => response.destroy());
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, end);
  const why = await copyBlocks(response, output, counter);
  if (!tells) return;
  const lost =
    counter.lost === 0 ? '' : `, ${formatCount(counter.lost)} lost (whoever reads it was too slow)`;
  const comment = why ?? (counter.comment === '' ? 'the connection to the switch ended' : counter.comment);
  const frames = `${formatCount(counter.packets)} ${counter.packets === 1 ? 'frame' : 'frames'}`;
  linesOut(STDERR_FD).write(`ringway: ${frames} captured${lost}; ${comment}\n`);
}

/** Whole blocks as they come. Answers why it ended, where that was the output's doing; null: the stream ended. */
async function copyBlocks(
  response: IncomingMessage,
  output: WriteStream,
  counter: BlockCounter,
): Promise<string | null> {
  let failure: NodeJS.ErrnoException | null = null;
  output.on('error', (error) => {
    failure = error;
    response.destroy();
  });
  try {
    for await (const chunk of response) {
      const whole = counter.wholeBlocks(chunk as Buffer);
      if (failure === null && whole.length > 0 && !output.write(whole)) await drained(output);
      if (failure !== null) break;
    }
  } catch (error) {
    // Destroyed by us, or the switch is gone.
    if (!(error instanceof Error)) throw error;
  }
  if (failure === null) await new Promise<void>((resolve) => output.end(resolve));
  const found = failure as NodeJS.ErrnoException | null;
  if (found === null) return null;
  if (found.code === 'EPIPE') return 'nobody reads it any more';
  throw new CliError(`writing the capture failed: ${found.message}`);
}

function drained(output: WriteStream): Promise<void> {
  return new Promise((resolve) => {
    output.once('drain', resolve);
    output.once('error', () => resolve());
  });
}
