/**
 * What a port of the switch is to the process around it, whatever its kind (vhost-user now). The workers do
 * not see this: they see the queues that a port attaches to the data path. Main thread.
 */

/** `waiting`: for its peer; `negotiating`: connected; `running`: a queue is in use; `stopped`: see `reason`. */
export type PortState = 'waiting' | 'negotiating' | 'running' | 'stopped';

export type PortStatus = {
  readonly state: PortState;
  /** One sentence on what it waits for or what went wrong, with the fix where one is known; null: all is well. */
  readonly reason: string | null;
};

/** Where a port tells what happened; the process logs it with the port's name. */
export type PortEvents = {
  info(message: string): void;
  warn(message: string): void;
  /** The peer is gone and no worker uses anything of it any more. */
  disconnected(): void;
};

export interface Port {
  readonly id: number;
  readonly name: string;
  readonly status: PortStatus;
  /** Begins to serve. @throws SocketPathError when its socket cannot be had */
  start(): void;
  /** Lets go of its peer and of everything that it attached; resolves when no worker uses it. */
  stop(): Promise<void>;
  /** A worker stopped one of its queues because of a fault of the guest. */
  ringFailed(ringIndex: number): void;
}
