/** The options of the commands that ask a running process. */
import type { Command } from 'commander';
import { CONTROL_VARIABLE } from './running.ts';

export type AskOptions = { readonly json?: true; readonly control?: string };

const WHICH_PROCESS = `
Which process is asked: the one whose control socket is given with --control
(the socket, or the folder it lies in, by default that of the first port's
socket), else the one named by ${CONTROL_VARIABLE}, else the only one that this
user runs.`;

export function addAskOptions(command: Command): Command {
  return addControlOption(command.option('--json', 'print the JSON of the control API'));
}

/** For commands that ask or change a process, whatever they print. */
export function addControlOption(command: Command): Command {
  return command
    .option('--control <path>', 'control socket of the process to ask, or its folder')
    .addHelpText('after', WHICH_PROCESS);
}
