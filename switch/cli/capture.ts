/**
 * `ringway capture`: frames of running ports as pcapng, into a file or a pipe, until ^C. What it asks for is a stream of the
 * control socket, which comes as it is written; this process only looks at where blocks begin and end, so that what it
 * leaves is whole, and counts. Filter expressions become programs here (src/filter/libpcap.ts).
 */
import { createWriteStream, fstatSync, open } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { promisify } from 'node:util';
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
import { giveUpOutput } from './standard-output.ts';
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

Frames that the switch drops have the reason as their comment (in Wireshark:
frame.comment). Frames that the reader is too slow for are lost, and counted in
the capture's statistics and at its end.`;

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
      await captureTo(
        control,
        query,
        async () => (isPiped ? outputOf(STDOUT_FD) : openOutput(options.write)),
        true,
      );
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

/** Who waits to read from a path that is a pipe is waited for. @throws CliError */
export async function openOutput(path: string): Promise<Writable> {
  try {
    return outputOf(await promisify(open)(path, 'w', FILE_MODE));
  } catch (error) {
    throw new CliError(`${path} cannot be written: ${(error as Error).message}`, EXIT.usage);
  }
}

/**
 * A pipe that is full must neither be taken for a fault nor hold up a thread: the process would not end before its reader
 * goes on.
 */
function outputOf(fd: number): Writable {
  const stat = fstatSync(fd);
  if (!stat.isFIFO() && !stat.isSocket()) return createWriteStream('', { fd, autoClose: fd !== STDOUT_FD });
  return fd === STDOUT_FD ? process.stdout : new Socket({ fd, readable: false });
}

/**
 * Resolves when the capture has ended: by itself, by a signal, or because nobody reads on. `tells`: says at its end what
 * there was, and why it ended. @throws ControlError, CliError
 */
export async function captureTo(
  control: string,
  query: CaptureQuery,
  openOut: () => Promise<Writable>,
  tells: boolean,
): Promise<void> {
  const response = await streamControl(control, '/v1/captures', { method: 'POST', body: query });
  const output = await openOut();
  const counter = new BlockCounter();
  const id = response.headers[CAPTURE_HEADER.toLowerCase()];
  let signals = 0;
  const late = Promise.withResolvers<void>();
  const giveUp = (): void => {
    response.destroy();
    giveUpOutput();
    late.resolve();
  };
  const end = (): void => {
    // Once: what was captured still comes. Twice, or if it does not: what is here is whole.
    if (++signals > 1) giveUp();
    setTimeout(giveUp, ENDING_MS).unref();
    void askControl(control, `/v1/captures/${id}`, { method: 'DELETE' }).catch(() => response.destroy());
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, end);
  const why = await copyBlocks(response, output, counter, late.promise);
  if (!tells) return;
  const lost =
    counter.lost === 0 ? '' : `, ${formatCount(counter.lost)} lost (whoever reads it was too slow)`;
  const comment = why ?? (counter.comment === '' ? 'the connection to the switch ended' : counter.comment);
  const frames = `${formatCount(counter.packets)} ${counter.packets === 1 ? 'frame' : 'frames'}`;
  linesOut(STDERR_FD).write(`ringway: ${frames} captured${lost}; ${comment}\n`);
}

/**
 * Whole blocks as they come, until the stream ends or it is `late`. Answers why it ended, where that was the output's
 * doing; null: it was not. @throws CliError
 */
async function copyBlocks(
  response: IncomingMessage,
  output: Writable,
  counter: BlockCounter,
  late: Promise<void>,
): Promise<string | null> {
  let failure: NodeJS.ErrnoException | null = null;
  output.on('error', (error) => {
    failure ??= error;
    response.destroy();
  });
  // Of the last block; also when it could not be written.
  let written = Promise.resolve();
  try {
    for await (const chunk of response) {
      const whole = counter.wholeBlocks(chunk as Buffer);
      if (failure === null && whole.length > 0)
        written = new Promise((resolve) => output.write(whole, () => resolve()));
      if (output.writableNeedDrain) await Promise.race([written, late]);
      if (failure !== null) break;
    }
  } catch (error) {
    // Destroyed by us, or the switch is gone.
    if (!(error instanceof Error)) throw error;
  }
  await Promise.race([written, late]);
  if (output !== process.stdout) output.destroy();
  const found = failure as NodeJS.ErrnoException | null;
  if (found === null) return null;
  if (found.code === 'EPIPE') return 'nobody reads it any more';
  throw new CliError(`writing the capture failed: ${found.message}`);
}
