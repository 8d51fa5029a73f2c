/** A process as a descriptor, which becomes readable when the process ends (pidfd_open(2), Linux 5.3). */
import { libc } from './libc.ts';

/** On every architecture. */
const SYS_PIDFD_OPEN = 434;

/** Close-on-exec, as all of them; null where the kernel cannot, and for a process that is gone. */
export function openProcess(pid: number): number | null {
  const fd = libc.syscall3(SYS_PIDFD_OPEN, pid, 0, 0);
  return fd < 0 ? null : fd;
}
