/**
 * What a service manager is told by the process that it started (sd_notify(3)): datagrams of `NAME=value` lines, with
 * descriptors for its store. The receiver is never waited for: what it does not take is kept and tried again, in order.
 * Main thread.
 */
import { closeFd, closeFds, duplicateFd, setCloseOnExec, setSocketOption } from './descriptor.ts';
import { HostError } from './errors.ts';
import { connectDatagram, SocketPathError, send } from './unix-socket.ts';

const SO_SNDBUF = 7;
/** As much as the system allows: a message takes a kilobyte of it. */
const SEND_BUFFER_BYTES = 8 * 2 ** 20;
const TRY_AGAIN_MS = 10;
/** The receiver, or the kernel for this user's descriptors, takes no more for now. */
const FULL = new Set(['ETOOMANYREFS', 'ENOBUFS', 'ENOMEM']);

/** `fds` are duplicates. */
type Unsent = { readonly text: string; readonly fds: readonly number[] };

export class NotifySocket {
  readonly #address: string;
  readonly #onCaughtUp: () => void;
  #fd = -1;
  #unsent: Unsent[] = [];
  #timer: NodeJS.Timeout | null = null;

  /** `address`: as of connectDatagram. `onCaughtUp` is called when all was sent after a time when it was not. */
  constructor(address: string, onCaughtUp: () => void = () => {}) {
    this.#address = address;
    this.#onCaughtUp = onCaughtUp;
  }

  /** Something waits to be sent. */
  get isBehind(): boolean {
    return this.#unsent.length > 0;
  }

  /** Descriptors stay the caller's. Where nobody listens the message is lost. */
  send(lines: readonly string[], fds: readonly number[] = []): void {
    const text = lines.join('\n');
    if (!this.isBehind && this.#trySend(text, fds)) return;
    // Of what only says how things are, the last is enough.
    if (fds.length === 0 && this.#unsent.some((other) => other.text === text && other.fds.length === 0))
      return;
    this.#unsent.push({ text, fds: fds.map(duplicateFd) });
    this.#timer ??= setTimeout(() => this.#flush(), TRY_AGAIN_MS);
  }

  /** What the receiver does not take at once is lost. */
  close(): void {
    this.#flush();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    for (const { fds } of this.#unsent) closeFds(fds);
    this.#unsent = [];
    this.#disconnect();
  }

  #flush(): void {
    this.#timer = null;
    for (let next = this.#unsent[0]; next !== undefined; next = this.#unsent[0]) {
      if (!this.#trySend(next.text, next.fds)) {
        this.#timer = setTimeout(() => this.#flush(), TRY_AGAIN_MS);
        return;
      }
      this.#unsent.shift();
      closeFds(next.fds);
    }
    this.#onCaughtUp();
  }

  /** False: not now. */
  #trySend(text: string, fds: readonly number[]): boolean {
    try {
      this.#connect();
      return send(this.#fd, Buffer.from(text), fds) > 0;
    } catch (error) {
      if (!(error instanceof HostError || error instanceof SocketPathError)) throw error;
      if (error instanceof HostError && FULL.has(error.code)) return false;
      // Another one may listen there the next time.
      this.#disconnect();
      return true;
    }
  }

  #connect(): void {
    if (this.#fd >= 0) return;
    this.#fd = connectDatagram(this.#address);
    setSocketOption(this.#fd, SO_SNDBUF, SEND_BUFFER_BYTES);
  }

  #disconnect(): void {
    if (this.#fd >= 0) closeFd(this.#fd);
    this.#fd = -1;
  }
}

/** A descriptor that the manager kept, close-on-exec, with its name. */
export type KeptDescriptor = { readonly fd: number; readonly name: string };

export type ServiceEnvironment = {
  /** Null: no manager wants to be told anything. */
  readonly notifyAddress: string | null;
  /** Within which time it wants a sign of life, again and again; null: it does not. */
  readonly watchdogUs: number | null;
  /** So many descriptors it keeps; 0: none, or it does not say. */
  readonly storeMax: number;
  readonly kept: readonly KeptDescriptor[];
};

/** SD_LISTEN_FDS_START */
const FIRST_KEPT_FD = 3;
const KEPT_MAX = 2 ** 20;
const VARIABLES = [
  'NOTIFY_SOCKET',
  'WATCHDOG_USEC',
  'WATCHDOG_PID',
  'FDSTORE',
  'LISTEN_PID',
  'LISTEN_FDS',
  'LISTEN_FDNAMES',
] as const;

/** Takes from the environment what a service manager put there for this process, so that no child takes it for its own. */
export function takeServiceEnvironment(
  environment: NodeJS.ProcessEnv = process.env,
  pid = process.pid,
): ServiceEnvironment {
  const [address, watchdogUs, watchdogPid, storeMax, listenPid, listenFds, names] = VARIABLES.map((name) => {
    const value = environment[name];
    delete environment[name];
    return value;
  });
  const isWatched = watchdogPid === undefined || Number(watchdogPid) === pid;
  const isKept = listenPid !== undefined && Number(listenPid) === pid;
  const keptNames = names?.split(':') ?? [];
  const isAddress = address !== undefined && /^[/@]./.test(address);
  const kept = Array.from({ length: isKept ? Math.min(countOf(listenFds), KEPT_MAX) : 0 }, (_, i) => ({
    fd: FIRST_KEPT_FD + i,
    name: keptNames[i] ?? '',
  }));
  return {
    notifyAddress: isAddress ? address : null,
    watchdogUs: isWatched ? countOf(watchdogUs) || null : null,
    storeMax: countOf(storeMax),
    kept: kept.filter(({ fd }) => setCloseOnExec(fd)),
  };
}

function countOf(text: string | undefined): number {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : 0;
}
