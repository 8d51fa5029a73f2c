/**
 * The commands of `ringway` as commander's tree. A command's file is loaded when it is the one that was given: what the
 * others need is a good part of the time that it takes to start. Who asks for all of them gets all.
 */
import { Command } from 'commander';
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

A port is a vhost-user socket unless it says otherwise: tap:, unix:, pcap: or
dpdk: before what it is attached to (ringway run --help).

Exit codes: 0 done, 1 failed while running, or no ringway is running to be
asked, 2 what was asked for cannot be: wrong options, configuration or socket
path, a limit of the system, an old Node, or the running one refuses it.`;

/** Puts commands into the tree. */
type Adder = (program: Command) => void;

/** Files with their commands, in the order of `--help`. */
const FILES: readonly { readonly names: readonly string[]; readonly load: () => Promise<Adder> }[] = [
  { names: ['run'], load: async () => (await import('./run.ts')).addRun },
  { names: ['ports'], load: async () => (await import('./ports.ts')).addPorts },
  { names: ['top'], load: async () => (await import('./top.ts')).addTop },
  { names: ['fdb'], load: async () => (await import('./fdb.ts')).addFdb },
  { names: ['mdb'], load: async () => (await import('./mdb.ts')).addMdb },
  {
    names: ['add', 'set', 'remove'],
    load: async () => (await import('./change-ports.ts')).addChangePorts,
  },
  {
    names: ['apply', 'show'],
    load: async () => (await import('./configuration.ts')).addConfiguration,
  },
  { names: ['trace'], load: async () => (await import('./trace.ts')).addTrace },
  { names: ['capture'], load: async () => (await import('./capture.ts')).addCapture },
  { names: ['extcap'], load: async () => (await import('./extcap.ts')).addExtcap },
  { names: ['plugin'], load: async () => (await import('./plugin.ts')).addPlugin },
  { names: ['demo'], load: async () => (await import('./demo.ts')).addDemo },
  { names: ['doctor'], load: async () => (await import('./doctor.ts')).addDoctor },
  {
    names: ['install-service'],
    load: async () => (await import('./install-service.ts')).addInstallService,
  },
  {
    names: ['completion'],
    load: async () => {
      const { addCompletion } = await import('./completion.ts');
      return (program) => addCompletion(program, () => buildProgram());
    },
  },
];

/** Asks for no command at all. */
const OF_THE_PROGRAM = ['-V', '--version'];

/** Called by Wireshark, not by people. */
const FOR_PROGRAMS = ['extcap'];

/** Names of the commands that people give. */
export const COMMAND_NAMES: readonly string[] = FILES.flatMap(({ names }) => names).filter(
  (name) => !FOR_PROGRAMS.includes(name),
);

/**
 * With the command that `first` names, the first word of the command line; with all of them when it names none, as of
 * `--help`, or of a slip that is to be answered with the name that was meant.
 */
export async function buildProgram(first?: string): Promise<Command> {
  const program = new Command('ringway')
    .description('A software switch for virtual machines: vhost-user, one copy per frame.')
    .version(ringwayVersion(), '-V, --version')
    .addHelpText('after', EXAMPLES)
    .exitOverride()
    // Errors are printed by main.ts, as one line each.
    .configureOutput({ writeErr: () => {} });
  const ofOne = FILES.filter(({ names }) => names.some((name) => name === first));
  const wanted = ofOne.length > 0 || OF_THE_PROGRAM.some((option) => option === first) ? ofOne : FILES;
  for (const add of await Promise.all(wanted.map(({ load }) => load()))) add(program);
  return program;
}
