/**
 * What a switch under test is to the benchmark: vhost-user sockets that frames go in and out of, busy on one
 * processor. Each peer is a class with a static `start` that resolves when its sockets can be reached. Main thread.
 */
import type { PeerName } from '../plan.ts';

export interface Peer {
  readonly name: PeerName;
  /** Of the process that forwards. */
  readonly pid: number;
  /** One for each port. */
  readonly sockets: readonly string[];
  /** What the load generator is there: `client` connects, `server` listens for the switch. */
  readonly generatorRole: 'client' | 'server';
  /** Stops it from using its processor while another is measured (SIGSTOP), and lets it go on. */
  pause(): void;
  resume(): void;
  /** Addresses that it has learned, in lower case; null when it does not learn. */
  learned(): Promise<readonly string[] | null>;
  /** Call it while all ports are connected and no frame flows. Null when it does not tell how busy it is. */
  workMeter(): Promise<WorkMeter | null>;
  /** Ends it, paused or not, and removes what it left. */
  stop(): Promise<void>;
}

/** Tells how much of a time the forwarding thread worked: was in turns of its loop that moved frames. */
export interface WorkMeter {
  begins(): Promise<void>;
  ends(): Promise<void>;
  /** Between the two, 0 to 1. */
  busyShare(): number;
}

/** Sends SIGSTOP or SIGCONT; a process that has gone is noticed elsewhere. */
export function signalProcess(pid: number, signal: 'SIGSTOP' | 'SIGCONT'): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
