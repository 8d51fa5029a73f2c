/**
 * The program `ringway`: names the commands and turns whatever goes wrong into one line on stderr and an exit
 * code. 0: done. 1: it failed while running, or there is nobody to ask. 2: what was asked for cannot be, and the user can
 * mend it: the command line, the configuration, a socket path, a limit of the system, the version of Node, what the
 * running process refuses. Everything a command needs is loaded by the command. Main thread; nothing imports this file.
 */
import { Command, CommanderError } from 'commander';
import { endAtOnce, isBusyElsewhere } from '../../src/host/elsewhere.ts';
import { HostError } from '../../src/host/errors.ts';
import { printable } from '../../src/host/printable.ts';
import { SocketPathError } from '../../src/host/unix-socket.ts';
import { ConfigError } from '../config/settings.ts';
import { ControlError } from '../control/client.ts';
import { heededSignals } from '../ignored-signals.ts';
import { linesOut } from '../lines-out.ts';
import { addCapture } from './capture.ts';
import { addChangePorts } from './change-ports.ts';
import { CliError, EXIT } from './cli-error.ts';
import { addConfiguration } from './configuration.ts';
import { addDemo } from './demo.ts';
import { addExtcap } from './extcap.ts';
import { addFdb } from './fdb.ts';
import { addMdb } from './mdb.ts';
import { addPlugin } from './plugin.ts';
import { addPorts } from './ports.ts';
import { addRun } from './run.ts';
import { addTop } from './top.ts';
import { addTrace } from './trace.ts';
import { ringwayVersion } from './version.ts';

const EXAMPLES = `
Examples:
  # Two guests on one switch; prints the QEMU command line of each
  ringway run --port vm0=/run/ringway/vm0.sock --port vm1=/run/ringway/vm1.sock
  # The same from a file, one pinned worker on each of two processors
  ringway run --config /etc/ringway.yaml --cpus 2,3
  # What the running one does
  ringway ports
  ringway fdb --json
  # What passes it, live
  ringway top
  # Another guest, while it runs
  ringway add vm2=/run/ringway/vm2.sock
  # In another VLAN, without a break
  ringway set vm2 tag=10
  # All as a file says by now; what does not differ goes on
  ringway apply /etc/ringway.yaml --dry-run
  # Where a frame would go, and why
  ringway trace --in vm0 --dst 02:00:00:00:00:02 --vlan 10
  # Two guests built in, no QEMU needed
  ringway demo

A port is a vhost-user socket unless it says otherwise: tap:, unix:, pcap: or dpdk: before what it is
attached to (ringway run --help).

Exit codes: 0 done, 1 failed while running, or no ringway is running to be asked, 2 what was asked
for cannot be: wrong options, configuration or socket path, a limit of the system, an old Node, or
the running one refuses it.`;

const STDERR_FD = 2;

function buildProgram(): Command {
  const program = new Command('ringway')
    .description('A software switch for virtual machines: vhost-user, one copy per frame.')
    .version(ringwayVersion(), '-V, --version')
    .addHelpText('after', EXAMPLES)
    .exitOverride()
    // Errors are printed below, as one line each.
    .configureOutput({ writeErr: () => {} });
  addRun(program);
  addPorts(program);
  addFdb(program);
  addMdb(program);
  addChangePorts(program);
  addTop(program);
  addConfiguration(program);
  addTrace(program);
  addCapture(program);
  addExtcap(program);
  addPlugin(program);
  addDemo(program);
  return program;
}

async function main(args: readonly string[]): Promise<number> {
  try {
    if (args.length === 0)
      throw new CliError(
        'name a command: run, ports, top, fdb, mdb, add, set, remove, apply, show, trace, capture, plugin or demo (see --help)',
        EXIT.usage,
      );
    await buildProgram().parseAsync(args, { from: 'user' });
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
  if (error instanceof HostError) return { text: oneLine(error.message), code: EXIT.failed };
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
// An orderly end waits for what a peer may hold up for ever.
if (isBusyElsewhere()) endAtOnce(code);
process.exit(code);
