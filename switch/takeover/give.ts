/** The running Ringway's side of a takeover: hands everything over, or goes on as if nothing had been. Main thread. */
import { basename, dirname, join } from 'node:path';
import { HandOverError } from '../../src/device/hand-over.ts';
import { collectGarbage } from '../../src/host/collect-garbage.ts';
import { HostError } from '../../src/host/errors.ts';
import { favour, runAtOnce } from '../../src/host/favour.ts';
import { connectUnix } from '../../src/host/unix-socket.ts';
import { withDescriptors } from '../../src/port/hand-over.ts';
import type { Logger } from '../log.ts';
import { PortConflictError } from '../port-errors.ts';
import { FORMAT, type SwitchPositions, type SwitchState } from './format.ts';
import { TakeoverLink } from './link.ts';
import { TakeoverError } from './takeover-error.ts';

/** To map, compile and warm up; frames flow meanwhile. */
const READY_MS = 120_000;
/** Frames wait meanwhile. */
const DONE_MS = 2000;
const STOPPING = 'the switch is being stopped';

/** What is handed over: the switch. */
export type Giver = {
  /** Resolves when nothing changes any more by itself. @throws HandOverError, PortConflictError */
  freeze(): Promise<void>;
  /** Descriptors are this process's own, by number. @throws HandOverError */
  handOver(): SwitchState;
  /** Resolves when no worker uses any ring. */
  rest(): Promise<void>;
  /** @throws HandOverError */
  positions(): SwitchPositions;
  /** Right before the process of that number is told to go on; null: it is not known. */
  letGo?(pid: number | null): void;
  /** Everything is as it was. */
  goOn(): Promise<void>;
};

export class TakeoverServer {
  /** Resolves when the successor has everything: this process is to end, and to touch nothing. */
  readonly handedOver: Promise<void>;
  readonly #resolve: () => void;
  /** The takeover at work, or the last one: whether the successor has everything. */
  #giving = Promise.resolve(false);
  /** The successor is told to go on. */
  #hasLetGo = false;
  /** This process ends by itself. */
  #isOver = false;
  readonly #giver: Giver;
  readonly #controlSocket: string;
  readonly #log: Logger;
  #isAtWork = false;

  constructor(giver: Giver, controlSocket: string, log: Logger) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.handedOver = promise;
    this.#resolve = resolve;
    this.#giver = giver;
    this.#controlSocket = controlSocket;
    this.#log = log;
  }

  /**
   * Begins to hand over to who listens at a socket beside the control socket, of that file name.
   * @throws PortConflictError, HostError when that cannot be
   */
  begin(name: string, formats: readonly number[]): void {
    if (!formats.includes(FORMAT))
      throw new PortConflictError(
        `takeover in format ${formats.join(' or ')} was asked for; this Ringway knows format ${FORMAT}: restart it instead`,
      );
    if (this.#isAtWork) throw new PortConflictError('another takeover is at work');
    if (this.#isOver) throw new PortConflictError(STOPPING);
    // Who may ask here may have all that is here, but no file of others is to be connected to.
    const path = join(dirname(this.#controlSocket), basename(name));
    const link = new TakeoverLink(connectUnix(path));
    this.#isAtWork = true;
    this.#giving = this.#give(link);
  }

  /**
   * This process is to end by itself: no successor is told to go on from now on. Answers whether one was already, and has
   * everything.
   */
  async end(): Promise<boolean> {
    this.#isOver = true;
    return this.#hasLetGo && (await this.#giving);
  }

  async #give(link: TakeoverLink): Promise<boolean> {
    this.#log.info('is being taken over');
    try {
      await this.#handOver(link);
    } catch (error) {
      if (![TakeoverError, HandOverError, HostError, PortConflictError].some((type) => error instanceof type))
        throw error;
      link.close();
      this.#hasLetGo = false;
      // Ports are stopped, and the successor learns by the connection's end that it has nothing.
      if (this.#isOver) return false;
      await this.#giver.goOn();
      this.#isAtWork = false;
      this.#log.warn(`takeover came to nothing, and all goes on as before: ${(error as Error).message}`);
      return false;
    }
    this.#resolve();
    return true;
  }

  /** @throws TakeoverError where this process has come to its end meanwhile */
  async #step<T>(work: Promise<T>): Promise<T> {
    const result = await work;
    if (this.#isOver) throw new TakeoverError(STOPPING);
    return result;
  }

  async #handOver(link: TakeoverLink): Promise<void> {
    const giver = this.#giver;
    await this.#step(giver.freeze());
    const { state, fds } = numbered(giver.handOver());
    await this.#step(link.send<'state'>({ record: 'state', format: FORMAT, ...state }, fds));
    collectGarbage();
    await this.#step(link.next('ready', READY_MS));
    // Once for nothing, so that it is compiled when frames wait for it, and what is in the way is known before.
    JSON.stringify(giver.positions());
    const disfavour = favour();
    // Not the workers: the successor's are on the same processors.
    const calm = runAtOnce((thread) => thread === process.pid);
    try {
      await this.#step(giver.rest());
      await this.#step(link.send<'positions'>({ record: 'positions', ...giver.positions() }));
      await this.#step(link.next('done', DONE_MS));
      this.#hasLetGo = true;
      giver.letGo?.(link.peerPid);
      await link.send<'go'>({ record: 'go' });
    } finally {
      calm();
      disfavour();
    }
  }
}

/** Descriptors by their place among those that are sent. */
function numbered(state: SwitchState): { readonly state: SwitchState; readonly fds: readonly number[] } {
  const fds: number[] = [];
  const translated = withStateDescriptors(state, (fd) => fds.push(fd) - 1);
  return { state: translated, fds };
}

/** The same with other numbers for its descriptors. */
export function withStateDescriptors(state: SwitchState, translate: (fd: number) => number): SwitchState {
  const ports = Object.entries(state.ports).map(([name, port]) => [name, withDescriptors(port, translate)]);
  const { positionsFile, service } = state;
  const store = service?.store ?? null;
  const notes = Object.entries(store?.notes ?? {}).map(([port, fd]) => [port, translate(fd)]);
  return {
    ...state,
    ports: Object.fromEntries(ports),
    positionsFile: positionsFile === null ? null : { ...positionsFile, fd: translate(positionsFile.fd) },
    ...(service !== null &&
      store !== null && { service: { ...service, store: { ...store, notes: Object.fromEntries(notes) } } }),
  };
}
