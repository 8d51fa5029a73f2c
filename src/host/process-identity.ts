/** Which process it is, for who finds its number written down somewhere: numbers are used again. Main thread. */
import { readFileSync } from 'node:fs';

/** `startTicks`: since the machine was started, field 22 of proc_pid_stat(5). */
export type ProcessIdentity = { readonly pid: number; readonly startTicks: number };

/** Null: there is no such process, or one that has ended and is not buried yet. */
export function identityOf(pid: number): ProcessIdentity | null {
  try {
    const fields = statFields(pid);
    return fields[0] === 'Z' ? null : { pid, startTicks: Number(fields[19]) };
  } catch {
    return null;
  }
}

/** What proc_pid_stat(5) has behind the name: state, parent, group, session, terminal … @throws Node's error: it is gone */
export function statFields(pid: number | 'self'): string[] {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  // The name in parentheses may have any characters.
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

export function isAlive({ pid, startTicks }: ProcessIdentity): boolean {
  return identityOf(pid)?.startTicks === startTicks;
}
