/**
 * The program `ringway`: names the commands and turns whatever goes wrong into one line on stderr and an exit
 * code. 0: done. 1: it failed while running, or there is nobody to ask. 2: what was asked for cannot be, and the user can
 * mend it: the command line, the configuration, a socket path, a limit of the system, the version of Node, what the
 * running process refuses. Everything a command needs is loaded by the command. Main thread; nothing imports this file.
 */
import { CommanderError } from 'commander';
import { endAtOnce, isBusyElsewhere } from '../../src/host/elsewhere.ts';
import { HostError } from '../../src/host/errors.ts';
import { printable } from '../../src/host/printable.ts';
import { SocketPathError } from '../../src/host/unix-socket.ts';
import { ConfigError } from '../config/settings.ts';
import { ControlError } from '../control/control-error.ts';
import { heededSignals } from '../ignored-signals.ts';
import { linesOut } from '../lines-out.ts';
import { WorkerFailure } from '../worker/failure.ts';
import { CliError, EXIT } from './cli-error.ts';
import { buildProgram, COMMAND_NAMES } from './program.ts';
import { outputTaken } from './standard-output.ts';

const STDERR_FD = 2;

async function main(args: readonly string[]): Promise<number> {
  try {
    if (args.length === 0)
      throw new CliError(
        `name a command: ${COMMAND_NAMES.slice(0, -1).join(', ')} or ${COMMAND_NAMES.at(-1)} (see --help)`,
        EXIT.usage,
      );
    await (await buildProgram(args[0])).parseAsync(args, { from: 'user' });
    return EXIT.done;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return EXIT.done;
    const { text, code } = explain(error);
    // Not by process.stderr: who reads it may have stopped reading, and is not waited for.
    if (text !== '') linesOut(STDERR_FD).write(`ringway: ${text}\n`);
    return code;
  }
}

function explain(error: unknown): { text: string; code: number } {
  if (error instanceof CommanderError) {
    const text = error.code === 'commander.help' ? 'name a command (see --help)' : error.message;
    return { text: oneLine(text.replace(/^error: /, '')), code: EXIT.usage };
  }
  if ([ConfigError, SocketPathError].some((type) => error instanceof type)) {
    return { text: oneLine((error as Error).message), code: EXIT.usage };
  }
  if (error instanceof CliError) return { text: oneLine(error.message), code: error.exitCode };
  if (error instanceof ControlError) {
    return { text: oneLine(error.message), code: error.kind === 'refused' ? EXIT.usage : EXIT.failed };
  }
  if (error instanceof HostError || error instanceof WorkerFailure)
    return { text: oneLine(error.message), code: EXIT.failed };
  if (error instanceof Error && 'syscall' in error) {
    return { text: oneLine(error.message), code: EXIT.failed };
  }
  // Our own bug: where it happened is what helps.
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { text: `internal error: ${text}`, code: EXIT.failed };
}

function oneLine(text: string): string {
  return printable(text.replace(/\s*\n\s*/g, ' '));
}

// A reader that closes early (`ringway ports | head -1`) is no fault.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

heededSignals();
// Node would open its debugger, which runs whatever it is told.
process.on('SIGUSR1', () => {});
// Node's own ways to tell of these wait for who reads stderr, and nothing else would happen meanwhile.
process.on('uncaughtException', (error) => {
  linesOut(STDERR_FD).write(`ringway: ${explain(error).text}\n`);
  process.exit(EXIT.failed);
});
process.removeAllListeners('warning');
process.on('warning', ({ name, message }) => {
  linesOut(STDERR_FD).write(`ringway: ${oneLine(`${name}: ${message}`)}\n`);
});

const code = await main(process.argv.slice(2));
await outputTaken();
// An orderly end waits for what a peer may hold up for ever.
if (isBusyElsewhere()) endAtOnce(code);
process.exit(code);
