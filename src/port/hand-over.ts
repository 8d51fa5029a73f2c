/**
 * What a port is to a process that hands itself over to its successor, and to that successor. Of the same port both steps
 * are taken: in the old process `freeze`, `handOver`, `setResting(true)`, `positions`; in the new one it is made, `takeOver`,
 * `start`, `goOnAt`, `setResting(false)`, `thaw`. As long as the new one has not begun to use rings, the old one goes on by
 * `setResting(false)` and `thaw`. Everything handed is plain JSON, with descriptors as numbers. Main thread.
 */
import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import {
  type HandedDevice,
  type HandedMessage,
  type HandedRing,
  HandOverError,
} from '../device/hand-over.ts';
import type { HandedNet } from '../device/net/net-device.ts';
import type { HandedSocket } from '../host/bound-socket.ts';
import type { RingLayoutKind } from '../vring/attachment.ts';
import type { Port } from './contract.ts';
import type { SocketRole } from './peer-socket.ts';

/** A listening socket and its file; numbers of 64 bits are texts. */
export type HandedListener = {
  readonly path: string;
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
  /** What was refused last, for the user; null: nothing. */
  readonly refusal: string | null;
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

/** What a port is made from in the next process. */
export type HandedPort = HandedVhostUserPort | HandedTapPort | HandedUnixPort | HandedPcapPort;

export type HandedUnixPort = {
  readonly kind: 'unix';
  readonly endpoint: string;
  readonly transport: 'stream' | 'dgram';
  /** Stream: who listens. Datagrams: where they go. */
  readonly peer: string;
  /** A socket of datagrams stands here, too. */
  readonly listener: HandedListener | null;
  /** Stream: the connection; null: there is none. */
  readonly fd: number | null;
};

export type HandedPcapPort = {
  readonly kind: 'pcap';
  readonly endpoint: string;
  readonly direction: 'write' | 'read';
  /** Null: it is not open. */
  readonly fd: number | null;
  /** Why it is not read on, ever; null: it is, or is tried again. */
  readonly ended: string | null;
};

/** How far a capture file is read or written. */
export type HandedCapture = {
  /** As PROGRESS_* has them. */
  readonly progress: readonly number[];
  /** Written: hash of the name of the port that each interface in the file is of. */
  readonly interfaces: readonly number[];
};

export type HandedTapPort = {
  readonly kind: 'tap';
  readonly endpoint: string;
  /** Of each queue; empty: it was not attached. */
  readonly fds: readonly number[];
};

export type HandedVhostUserPort = {
  readonly kind: 'vhost-user';
  readonly endpoint: string;
  readonly role: SocketRole;
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
  readonly device: HandedDevice | null;
  readonly net: HandedNet | null;
  /** By queue: what lies between two frames of a stream, and was not sent or not used; in base64. */
  readonly left: readonly string[];
  readonly capture: HandedCapture | null;
  /** Of each queue, as in QueueState. */
  readonly counts: readonly (readonly number[])[];
};

/** A port as it is told to who comes after a sudden end of this process; of its rings, what was said of them. */
export type PortNote = { readonly handed: HandedVhostUserPort; readonly positions: PortPositions };

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
  /**
   * What to begin with instead of the outside; before `start`, which takes it. It is frozen and at rest then.
   * @throws HandOverError: it is something else in the new settings
   */
  takeOver(handed: HandedPort): void;
  /** Lets go of what workers use of it, or has them use it again. Resolves when nobody does, or they do. */
  setResting(isResting: boolean): Promise<void>;
  /** Of a port at rest. @throws HandOverError when it is not any more what was handed over */
  positions(): PortPositions;
  /** The other process has let go of the rings. @throws HandOverError when they cannot go on here */
  goOnAt(positions: PortPositions): Promise<void>;
  /** Its peer is read again, and others are let in. */
  thaw(): void;
}

/** What a port has whose peer is to see nothing of a sudden end of the process before. */
export interface TakeUp {
  /**
   * As `takeOver`, of a process that came to a sudden end: `takeUp` follows instead of `goOnAt`, and what goes wrong ends
   * the connection.
   */
  takeUpLater(handed: HandedVhostUserPort): void;
  /** Answers why its peer was let go of; null: it goes on, or there is none. */
  takeUp(noted: PortPositions): Promise<string | null>;
}

/** Whether its kind can be handed over. */
export function isMovable(port: Port): port is Port & HandOver {
  return 'freeze' in port;
}

/** The port with what it takes to hand it over. @throws HandOverError when its kind cannot be */
export function movable(port: Port): Port & HandOver {
  if (!isMovable(port))
    throw new HandOverError(`port ${port.name} is of kind ${port.kind}, which cannot be handed over`);
  return port;
}

/** A port of which there was a note. */
export function takenUp(port: Port): Port & HandOver & TakeUp {
  assert('takeUp' in port, `port ${port.name} of kind ${port.kind} was never noted`);
  return port as Port & HandOver & TakeUp;
}

/** What a port has not that is of other kinds: of kind vhost-user; all others. */
export const NO_RINGS = { rings: [], device: null, net: null } as const;
export const NO_POSITIONS: PortPositions = { ...NO_RINGS, left: [], capture: null, counts: [] };
export const NOTHING_LEFT = { left: [], capture: null } as const;

/** `path`: where it listens, perhaps relative to where this process runs. */
export function listenerOf(path: string, socket: HandedSocket | null): HandedListener | null {
  if (socket === null) return null;
  const { fd, file } = socket;
  return {
    path: resolve(path),
    fd,
    file: file === null ? null : { dev: String(file.dev), ino: String(file.ino) },
  };
}

export function socketOf(listener: HandedListener | null): HandedSocket | null {
  if (listener === null) return null;
  const { fd, file } = listener;
  return { fd, file: file === null ? null : { dev: BigInt(file.dev), ino: BigInt(file.ino) } };
}

/** @throws HandOverError: the port is of another kind, or at another place, in the new settings */
export function handedAs<Kind extends HandedPort['kind']>(
  kind: Kind,
  endpoint: string,
  handed: HandedPort,
): Extract<HandedPort, { readonly kind: Kind }> {
  requireSame('kind', handed.kind, kind);
  requireSame('place', handed.endpoint, endpoint);
  return handed as Extract<HandedPort, { readonly kind: Kind }>;
}

/** @throws HandOverError */
export function requireSame(what: string, running: string | number, own: string | number): void {
  if (running !== own)
    throw new HandOverError(`its ${what} is ${running} in the running Ringway, and ${own} in the settings`);
}

/** The same with other numbers for its descriptors, in the order in which `translate` is asked for them. */
export function withDescriptors<Handed extends HandedPort>(
  port: Handed,
  translate: (fd: number) => number,
): Handed {
  return translated(port, translate) as Handed;
}

function translated(port: HandedPort, translate: (fd: number) => number): HandedPort {
  const listener = 'listener' in port ? translatedListener(port.listener, translate) : null;
  if (port.kind === 'tap') return { ...port, fds: port.fds.map(translate) };
  if (port.kind === 'pcap') return { ...port, fd: port.fd === null ? null : translate(port.fd) };
  if (port.kind === 'unix') return { ...port, listener, fd: port.fd === null ? null : translate(port.fd) };
  const { connection } = port;
  return {
    ...port,
    listener,
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

function translatedListener(
  listener: HandedListener | null,
  translate: (fd: number) => number,
): HandedListener | null {
  return listener === null ? null : { ...listener, fd: translate(listener.fd) };
}
