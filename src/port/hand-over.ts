/**
 * What a port is to a process that hands itself over to its successor, and to that successor. Of the same port both steps
 * are taken: in the old process `freeze`, `handOver`, `setRest` twice, `positions`; in the new one it is made, `takeOver`,
 * `start`, `goOnAt`, `setRest` twice, `thaw`. As long as the new one has not begun to use rings, the old one goes on by
 * `setRest('none')` and `thaw`. Everything handed is plain JSON, with descriptors as numbers. Main thread.
 */
import type { DeviceRest } from '../device/device.ts';
import { type HandedMessage, type HandedRing, HandOverError } from '../device/hand-over.ts';
import type { HandedNet } from '../device/net/net-device.ts';
import type { RingLayoutKind } from '../vring/attachment.ts';
import type { Port } from './contract.ts';

/** A listening socket and its file; numbers of 64 bits are texts. */
export type HandedListener = {
  readonly fd: number;
  readonly file: { readonly dev: string; readonly ino: string } | null;
};

export type HandedConnection = {
  readonly fd: number;
  readonly isSilent: boolean;
  /** Of a message of which only the beginning has come; bytes in base64. */
  readonly halfRead: { readonly bytes: string; readonly fds: readonly number[] };
  /** Features that were offered, as a decimal number. */
  readonly offered: string;
  readonly messages: readonly HandedMessage[];
};

/** A guest that was served before, as VhostUserPort remembers it; `offered` as above. */
export type HandedGuest = { readonly pid: number | null; readonly offered: string };

export type HandedLastRun = {
  readonly index: number;
  readonly layout: RingLayoutKind;
  readonly size: number;
  readonly place: string | null;
  readonly base: number | null;
  readonly availNext: number;
  readonly usedNext: number;
};

/** What a port of kind `vhost-user` is made from in the next process. */
export type HandedPort = {
  readonly kind: 'vhost-user';
  readonly listener: HandedListener | null;
  readonly connection: HandedConnection | null;
  readonly lastServed: HandedGuest | null;
  readonly mayInsist: HandedGuest | null;
  readonly lastToAsk: number | null;
  readonly lastWhy: string | null;
  readonly lastRuns: readonly HandedLastRun[];
};

/** Where a port at rest stands. */
export type PortPositions = {
  readonly rings: readonly HandedRing[];
  /** Null: it has no connection. */
  readonly net: HandedNet | null;
  /** Of each queue, as in QueueState. */
  readonly counts: readonly (readonly number[])[];
};

/** A port as it is told to who comes after a sudden end of this process; of its rings, what was said of them. */
export type PortNote = { readonly handed: HandedPort; readonly positions: PortPositions };

/** Notes one port. */
export interface PortKeeper {
  /** What was noted does not hold from now on, until it is noted anew, which is soon after the last such call. */
  outdate(): void;
  /** What was noted is no longer all: it is noted anew soon, and holds until then. */
  renew(): void;
  /** There is nothing to note any more. */
  forget(): void;
}

/**
 * Begins to note a port. `note` answers what it is; null: not now. It throws HandOverError when there is no way to tell.
 */
export type KeepPort = (note: () => PortNote | null) => PortKeeper;

export interface HandOver {
  /** Resolves when nothing is read from its peer any more, and nobody is let in. Frames flow. */
  freeze(): Promise<void>;
  /** Of a frozen port; its descriptors stay its own. @throws HandOverError */
  handOver(): HandedPort;
  /** What to begin with instead of the outside; before `start`, which takes it. It is frozen and at rest then. */
  takeOver(handed: HandedPort): void;
  /**
   * As `takeOver`, of a process that came to a sudden end: `takeUp` follows instead of `goOnAt`, and what goes wrong ends
   * the connection.
   */
  takeUpLater(handed: HandedPort): void;
  setRest(rest: DeviceRest): Promise<void>;
  /** Of a port at rest. @throws HandOverError when it is not any more what was handed over */
  positions(): PortPositions;
  /** The other process has let go of the rings. @throws HandOverError when they cannot go on here */
  goOnAt(positions: PortPositions): Promise<void>;
  /** Answers why its peer was let go of; null: it goes on, or there is none. */
  takeUp(noted: PortPositions): Promise<string | null>;
  /** Its peer is read again, and others are let in. */
  thaw(): void;
}

/** The port with what it takes to hand it over. @throws HandOverError when its kind cannot be */
export function movable(port: Port): Port & HandOver {
  if (!('freeze' in port))
    throw new HandOverError(`port ${port.name} is of kind ${port.kind}, which cannot be handed over`);
  return port as Port & HandOver;
}

/** The same with other numbers for its descriptors, in the order in which `translate` is asked for them. */
export function withDescriptors(port: HandedPort, translate: (fd: number) => number): HandedPort {
  const { listener, connection } = port;
  return {
    ...port,
    listener: listener === null ? null : { ...listener, fd: translate(listener.fd) },
    connection:
      connection === null
        ? null
        : {
            ...connection,
            fd: translate(connection.fd),
            halfRead: { ...connection.halfRead, fds: connection.halfRead.fds.map(translate) },
            messages: connection.messages.map((message) => ({ ...message, fds: message.fds.map(translate) })),
          },
  };
}
