/**
 * `ringway extcap`: the ports of the running process in Wireshark's list of interfaces. Wireshark starts programs that lie in a
 * certain folder, again and again, with the options that are named in its manual (extcap(4)): which interfaces there are,
 * of which kind, with which settings; and to capture, into a named pipe. `--install` puts a program there that calls this.
 */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { CAPTURED_BYTES_MAX } from '../../protocol/pcap.ts';
import { compileExpression } from '../../src/filter/libpcap.ts';
import { FilterError } from '../../src/filter/program.ts';
import { printable } from '../../src/host/printable.ts';
import { askControl } from '../control/client.ts';
import type { PortReport } from '../control/report.ts';
import { linesOut } from '../lines-out.ts';
import { addControlOption } from './ask-options.ts';
import { captureTo, openOutput, queryOf } from './capture.ts';
import { CliError, EXIT } from './cli-error.ts';
import { findControl } from './running.ts';
import { ownCommand, ringwayVersion } from './version.ts';

const STDOUT_FD = 1;
/** Before a port's name, in the names of interfaces. */
const PREFIX = 'ringway-';
const ALL = 'all';
const DEFAULT_FOLDER = join(homedir(), '.local/lib/wireshark/extcap');

type ExtcapOptions = {
  readonly install?: string | true;
  readonly control?: string;
  readonly extcapInterfaces?: true;
  readonly extcapInterface?: string;
  readonly extcapDlts?: true;
  readonly extcapConfig?: true;
  readonly extcapCaptureFilter?: string;
  readonly capture?: true;
  readonly fifo?: string;
  readonly dir: string;
  readonly vlan?: string;
  readonly snaplen?: string;
};

const HELP = `
Wireshark calls this; a user installs it:
  # For this user (Wireshark 4.2 and later look there)
  ringway extcap --install
  # For all, and for Debian 12's Wireshark 4.0
  sudo ringway extcap --install /usr/lib/x86_64-linux-gnu/wireshark/extcap
  # Then there are interfaces ringway-PORT
  tshark -D`;

export function addExtcap(program: Command): void {
  const command = program
    .command('extcap')
    .description('Ports as interfaces of Wireshark: the program that its list of interfaces calls.')
    .option('--install [folder]', `put a program into Wireshark's folder (${DEFAULT_FOLDER})`)
    .option('--extcap-interfaces', 'tell which interfaces there are')
    .option('--extcap-version <version>', "Wireshark's")
    .option('--extcap-interface <name>', 'the interface that the others are about')
    .option('--extcap-dlts', 'tell the kind of its packets')
    .option('--extcap-config', 'tell its settings')
    .option(
      '--extcap-capture-filter <expression>',
      'capture these only; without --capture: say what is wrong with it',
    )
    .option('--capture', 'capture')
    .option('--fifo <path>', 'into this named pipe')
    .option('--dir <in|out|both>', 'as of ringway capture', 'both')
    .option('--vlan <n>', 'as of ringway capture')
    .option('--snaplen <bytes>', 'as of ringway capture')
    .allowUnknownOption()
    .allowExcessArguments()
    .addHelpText('after', HELP);
  addControlOption(command).action(run);
}

async function run(options: ExtcapOptions): Promise<void> {
  if (options.install !== undefined) {
    say(install(options.install === true ? DEFAULT_FOLDER : options.install, options.control));
  } else if (options.extcapInterfaces === true) say(await interfaces(options.control));
  else if (options.extcapDlts === true) say(['dlt {number=1}{name=EN10MB}{display=Ethernet}']);
  else if (options.extcapConfig === true) say(SETTINGS);
  else if (options.capture === true) await capture(options);
  else if (options.extcapCaptureFilter !== undefined) say(faultOf(options.extcapCaptureFilter));
  else
    throw new CliError('name one of the options that Wireshark gives, or --install (see --help)', EXIT.usage);
}

function say(lines: readonly string[]): void {
  linesOut(STDOUT_FD).write(lines.map((line) => `${line}\n`).join(''));
}

/** Where no Ringway runs, or several, there are none: this is asked whenever Wireshark starts. */
async function interfaces(control: string | undefined): Promise<string[]> {
  const own = `extcap {version=${ringwayVersion()}}{display=Ringway}`;
  try {
    const ports = await askControl<PortReport[]>(await findControl(control), '/v1/ports');
    const named = ports.map(
      ({ name, kind, endpoint }) =>
        `interface {value=${PREFIX}${name}}{display=${shown(`Ringway port ${name}, ${kind}: ${endpoint}`)}}`,
    );
    const isNamedAll = ports.some(({ name }) => name === ALL);
    return [
      own,
      ...named,
      ...(isNamedAll || ports.length === 0
        ? []
        : [`interface {value=${PREFIX}${ALL}}{display=Ringway, all ports}`]),
    ];
  } catch {
    return [own];
  }
}

/** A brace would end the sentence. */
function shown(text: string): string {
  return printable(text).replaceAll(/[{}]/g, '');
}

const SETTINGS = [
  'arg {number=0}{call=--dir}{display=Direction}{tooltip=Frames from the port, to it, or both}{type=selector}',
  'value {arg=0}{value=both}{display=Both}{default=true}',
  'value {arg=0}{value=in}{display=From the port}{default=false}',
  'value {arg=0}{value=out}{display=To the port}{default=false}',
  'arg {number=1}{call=--vlan}{display=VLAN}{tooltip=Only frames of this VLAN, 0 to 4095; empty: of all}{type=string}{validation=^[0-9]{0,4}$}',
  `arg {number=2}{call=--snaplen}{display=Bytes of each frame}{tooltip=So much is kept}{type=integer}{range=1,${CAPTURED_BYTES_MAX}}{default=${CAPTURED_BYTES_MAX}}`,
];

/** What Wireshark shows beside its filter; nothing: it is fine. */
function faultOf(expression: string): string[] {
  try {
    compileExpression(expression);
    return [];
  } catch (error) {
    if (error instanceof FilterError) return [error.message];
    throw error;
  }
}

async function capture(options: ExtcapOptions): Promise<void> {
  const { extcapInterface = '', extcapCaptureFilter, fifo, dir, vlan, snaplen } = options;
  if (!extcapInterface.startsWith(PREFIX))
    throw new CliError(`there is no interface ${extcapInterface}`, EXIT.usage);
  if (fifo === undefined) throw new CliError('--capture needs --fifo', EXIT.usage);
  const query = queryOf([extcapInterface.slice(PREFIX.length)], {
    dir,
    ...(vlan !== undefined && { vlan }),
    ...(snaplen !== undefined && { snaplen }),
    ...(extcapCaptureFilter !== undefined && { filter: extcapCaptureFilter }),
  });
  await captureTo(await findControl(options.control), query, () => openOutput(fifo), false);
}

/** @throws CliError */
function install(folder: string, control: string | undefined): string[] {
  const path = join(resolve(folder), 'ringway');
  const asked = control === undefined ? '' : ` --control ${quoted(resolve(control))}`;
  const script = `#!/bin/sh\n# Ports of a running Ringway as interfaces of Wireshark.\nexec ${quoted(ownCommand())} extcap${asked} "$@"\n`;
  try {
    mkdirSync(resolve(folder), { recursive: true });
    writeFileSync(path, script);
    chmodSync(path, 0o755);
  } catch (error) {
    throw new CliError(`${path} cannot be written: ${(error as Error).message}`, EXIT.usage);
  }
  return [
    `${path} is there; tshark -D and Wireshark list the ports of a running ringway if they look in that folder (tshark -G folders)`,
  ];
}

/** As one word of a shell. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
