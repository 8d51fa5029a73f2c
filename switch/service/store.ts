/**
 * The descriptor store of a service manager (sd_notify(3), FDSTORE=1): what makes a crash of this process unseen by guests.
 * Of every vhost-user port the manager keeps the connection, the listening socket, the guest's memory, kicks, calls and what
 * else came as a descriptor, and beside them a note (note-file.ts) of what the front-end said. The process that is started
 * next gets all of it (LISTEN_FDS) and goes on; where the rings stand is in the guests' memory and in the file of positions.
 *
 * A note holds or it does not: before anything is taken from a connection it is marked as outdated, and a while after the
 * last message it is written anew, once the manager has what it names. A process that ends in between leaves a connection
 * that nobody can go on with, and it is ended: the front-end connects again. So no message is carried out twice or lost
 * without the front-end knowing, and one that makes this process crash is not met again and again.
 *
 * An open file has one name in the store, whoever uses it: the manager keeps no second descriptor of it. Main thread.
 */
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { z } from 'zod';
import { HandOverError } from '../../src/device/hand-over.ts';
import { closeFd, describeFd, duplicateFd, openFileKey, socketOption } from '../../src/host/descriptor.ts';
import type { KeptDescriptor, NotifySocket } from '../../src/host/notify.ts';
import { PeerFds } from '../../src/host/peer-fds.ts';
import { isAlive, type ProcessIdentity } from '../../src/host/process-identity.ts';
import { SocketFile } from '../../src/host/socket-file.ts';
import { datagramObstacle, removeListenerFile } from '../../src/host/unix-socket.ts';
import { type KeepPort, NO_POSITIONS, type PortNote, withDescriptors } from '../../src/port/hand-over.ts';
import type { PortConfig } from '../config/resolve.ts';
import type { Logger } from '../log.ts';
import { NoteFile } from './note-file.ts';
import { type NoteText, parseNote } from './note-text.ts';
import { type MemoStore, PortMemo, type StoredFile } from './port-memo.ts';

const SO_ACCEPTCONN = 30;
/** So many processes begin with what is noted of a port; if the last one did not come far either, it may be why. */
const BEGUN_MAX = 3;
/** Notes of all ports take no more than a fifth of this thread. */
const PAUSE_FACTOR = 4;
const LET_GO_MS = 2000;
const LOOK_AGAIN_MS = 5;
const NAME = /^ringway-[a-z]+-(\d{1,15})$/;

/** What the manager keeps, for another process of the same service; of which each file has a name. */
export type HandedStore = {
  readonly max: number;
  readonly files: readonly { readonly name: string; readonly key: string }[];
  /** The ports' notes, as descriptors. */
  readonly notes: Readonly<Record<string, number>>;
};

/** What a process that came to a sudden end left of a port. */
type LeftPort = {
  readonly endpoint: string;
  readonly names: readonly string[];
  readonly file: NoteFile;
  readonly note: PortNote;
};

export class DescriptorStore implements MemoStore {
  readonly #socket: NotifySocket;
  readonly #log: Logger;
  #max: number;
  #lastNumber = 0;
  #nextNoteMs = 0;
  readonly #files = new Map<string, StoredFile>();
  readonly #memos = new Set<PortMemo>();
  readonly #left = new Map<string, LeftPort>();
  /** Notes of ports that another process was to go on with. */
  readonly #others: z.output<typeof NoteText>[] = [];
  /** Notes that a process which is taken over from leaves to this one, by port. */
  readonly #adopted = new Map<string, number>();
  /** Came with the start of this process, by name, until all ports are there. */
  readonly #kept = new Map<string, number>();
  /** All ports are there: what none of them uses is to be removed once each is noted. */
  #isComplete = false;

  /** `max`: so many descriptors the manager keeps. */
  constructor(socket: NotifySocket, max: number, log: Logger) {
    this.#socket = socket;
    this.#max = max;
    this.#log = log;
  }

  /** What the process before left. */
  takeKept(kept: readonly KeptDescriptor[]): void {
    for (const { fd, name } of kept) {
      const number = NAME.exec(name)?.[1];
      if (number === undefined) continue;
      this.#kept.set(name, fd);
      this.#lastNumber = Math.max(this.#lastNumber, Number(number));
      const key = openFileKey(fd);
      if (key !== null && !this.#files.has(key)) this.#files.set(key, { name, key, users: new Set() });
    }
    const named = new Set<string>();
    for (const [name, fd] of this.#kept) {
      if (name.startsWith('ringway-note-')) for (const other of this.#takeNote(fd)) named.add(other);
    }
    for (const [name, fd] of this.#kept)
      if (name.startsWith('ringway-socket-') && !named.has(name)) endSocket(duplicateFd(fd));
    this.#letOthersBe();
  }

  /**
   * Resolves when the manager has let go of sockets that another process was to go on with, so that they can be bound again
   * where that one is gone too; or has not for a while.
   */
  async untilLetGo(): Promise<void> {
    const deadline = AbortSignal.timeout(LET_GO_MS);
    const paths = this.#others
      .filter(({ handed }) => handed.listener !== null)
      .map(({ endpoint }) => pathOf(endpoint));
    const isServed = (path: string): boolean =>
      !['ECONNREFUSED', 'ENOENT'].includes(datagramObstacle(path)?.code ?? '');
    while (paths.some(isServed) && !deadline.aborted) await sleep(LOOK_AGAIN_MS);
  }

  /** Of a process that was taken over from: the manager keeps it until this one has told it what it needs itself. */
  takeOver({ max, files, notes }: HandedStore): void {
    this.#max = max;
    for (const [port, fd] of Object.entries(notes)) this.#adopted.set(port, fd);
    for (const { name, key } of files) {
      this.#files.set(key, { name, key, users: new Set() });
      this.#lastNumber = Math.max(this.#lastNumber, Number(NAME.exec(name)?.[1] ?? 0));
    }
  }

  handOver(): HandedStore {
    const files = [...this.#files.values()].map(({ name, key }) => ({ name, key }));
    const notes = Object.fromEntries([...this.#memos].map(({ port, noteFd }) => [port, noteFd]));
    return { max: this.#max, files, notes };
  }

  /** What was left of a port with these settings, before its keeper is asked for; null: nothing. Its descriptors are the caller's. */
  leftOf(config: PortConfig): PortNote | null {
    const left = this.#matching(config);
    if (left === null) return null;
    return { ...left.note, handed: withDescriptors(left.note.handed, duplicateFd) };
  }

  /** Null: ports of its kind are not kept. */
  keeperOf(config: PortConfig): KeepPort | null {
    if (config.kind !== 'vhost-user') return null;
    return (note) => {
      const left = this.#matching(config);
      this.#left.delete(config.name);
      const file = left?.file ?? this.#adopt(config.name);
      const memo = new PortMemo(this, config.name, endpointOf(config), file, note);
      this.#memos.add(memo);
      return memo;
    };
  }

  /** All ports are there. What was left of others is let go of. */
  complete(): void {
    for (const name of [...this.#left.keys()]) this.#drop(name);
    const notes = new Set([...this.#memos].map(({ noteFd }) => noteFd));
    // None is the last of its file: who uses it has its own, and the manager has one.
    for (const fd of [...this.#kept.values(), ...this.#adopted.values()]) if (!notes.has(fd)) closeFd(fd);
    this.#kept.clear();
    this.#adopted.clear();
    this.#isComplete = true;
    for (const memo of this.#memos) memo.renew();
  }

  /** Another process goes on with all of it, and with what was noted; null: nobody can tell which, so it notes all anew. */
  leaveTo(successor: ProcessIdentity | null): void {
    for (const memo of this.#memos) memo.leaveTo(successor);
  }

  /** It does not, after all. */
  comeBack(): void {
    for (const memo of this.#memos) memo.comeBack();
  }

  /** The manager takes messages again. */
  caughtUp(): void {
    for (const memo of this.#memos) memo.caughtUp();
  }

  get nextNoteMs(): number {
    return this.#nextNoteMs;
  }

  spent(ms: number): void {
    this.#nextNoteMs = performance.now() + PAUSE_FACTOR * ms;
  }

  /** As of NotifySocket. */
  get isBehind(): boolean {
    return this.#socket.isBehind;
  }

  warn(port: string, text: string): void {
    this.#log.warn({ port }, text);
  }

  /** The file behind a descriptor, in the store from now on. @throws HandOverError */
  fileOf(fd: number, user: PortMemo): StoredFile {
    const key = openFileKey(fd);
    if (key === null) throw new HandOverError('this kernel does not tell its eventfds apart');
    const known = this.#files.get(key);
    if (known !== undefined) {
      known.users.add(user);
      return known;
    }
    if (this.#files.size >= this.#max)
      throw new HandOverError(`the service manager keeps no more than ${this.#max} descriptors`);
    const name = `ringway-${kindOf(fd)}-${++this.#lastNumber}`;
    const file = { name, key, users: new Set([user]) };
    this.#files.set(key, file);
    this.#socket.send(['FDSTORE=1', 'FDPOLL=0', `FDNAME=${name}`], [fd]);
    return file;
  }

  notUsed(file: StoredFile, user: PortMemo): void {
    file.users.delete(user);
    if (file.users.size === 0) this.#remove(file);
  }

  noted(): void {
    if (!this.#isComplete || [...this.#memos].some((memo) => !memo.isNoted)) return;
    this.#isComplete = false;
    for (const file of [...this.#files.values()]) if (file.users.size === 0) this.#remove(file);
  }

  forgot(memo: PortMemo): void {
    this.#memos.delete(memo);
    this.noted();
  }

  /** What another process goes on with is neither used nor ended; the manager is to keep none of it. */
  #letOthersBe(): void {
    const used = new Set([...this.#left.values()].flatMap(({ names }) => names));
    for (const name of this.#others.flatMap(({ names }) => names)) {
      const fd = this.#kept.get(name);
      if (fd === undefined || used.has(name)) continue;
      const file = [...this.#files.values()].find((other) => other.name === name);
      if (file !== undefined) this.#remove(file);
      this.#kept.delete(name);
      closeFd(fd);
    }
  }

  #remove(file: StoredFile): void {
    this.#files.delete(file.key);
    this.#socket.send(['FDSTOREREMOVE=1', `FDNAME=${file.name}`]);
  }

  /** Answers the names in it, if it says any. */
  #takeNote(fd: number): readonly string[] {
    const file = NoteFile.open(fd);
    if (typeof file === 'string') {
      this.#log.warn(`what was noted of a port is not used: ${file}`);
      return [];
    }
    const { text, state } = file;
    const note = text === null ? null : parseNote(text);
    if (note === null) return [];
    if (state === 'over' || (file.successor !== null && isAlive(file.successor))) this.#others.push(note);
    else {
      const { port, endpoint, names } = note;
      this.#left.set(port, { endpoint, names, file, note: this.#usable(note, file) });
    }
    return note.names;
  }

  /** With descriptors of this process. Without the connection, which is ended, where nobody can go on with it. */
  #usable({ port, names, handed, positions }: z.output<typeof NoteText>, file: NoteFile): PortNote {
    const isWhole = names.every((name) => this.#kept.has(name));
    const at = (index: number): number => this.#kept.get(names[index] ?? '') ?? -1;
    const isFatal = file.countBegun() > BEGUN_MAX;
    if (isWhole && !isFatal && file.state === 'holds')
      return { handed: withDescriptors(handed, at), positions };
    const { connection, listener } = handed;
    if (connection !== null) {
      const fd = at(connection.fd);
      if (fd >= 0) endConnection(duplicateFd(fd));
      const why = isFatal
        ? `${BEGUN_MAX} processes came to a sudden end when they had begun with it`
        : 'its front-end had just said something';
      this.#log.warn(
        { port },
        `its front-end has to connect again after the sudden end: ${isWhole ? why : 'some of its descriptors were not kept'}`,
      );
    }
    const listening = listener === null || at(listener.fd) < 0 ? null : { ...listener, fd: at(listener.fd) };
    return {
      handed: { ...handed, listener: listening, connection: null },
      positions: NO_POSITIONS,
    };
  }

  /** The note of a port that is taken over, which refuses other settings than those it tells of; null: there is none. */
  #adopt(portName: string): NoteFile | null {
    const fd = this.#adopted.get(portName);
    const file = fd === undefined ? null : NoteFile.adopt(fd);
    return typeof file === 'string' ? null : file;
  }

  /** Lets go of what is in the way of a port with these settings. */
  #matching(config: PortConfig): LeftPort | null {
    const endpoint = endpointOf(config);
    for (const [name, left] of this.#left)
      if ((name === config.name) !== (left.endpoint === endpoint)) this.#drop(name);
    return this.#left.get(config.name) ?? null;
  }

  #drop(portName: string): void {
    const left = this.#left.get(portName);
    if (left === undefined) return;
    this.#left.delete(portName);
    const { connection, listener } = left.note.handed;
    if (connection !== null) endConnection(duplicateFd(connection.fd));
    if (listener !== null) {
      const { file, fd } = listener;
      if (file !== null)
        new SocketFile(pathOf(left.endpoint), { dev: BigInt(file.dev), ino: BigInt(file.ino) }).remove();
      new PeerFds().closeListener(duplicateFd(fd));
    }
    left.file.mark('over');
  }
}

/** What a port of the same name must have in common with the one that was left. */
function endpointOf(config: PortConfig): string {
  return config.kind === 'vhost-user' ? `${config.role} ${resolve(config.socket)}` : config.kind;
}

function pathOf(endpoint: string): string {
  return endpoint.slice(endpoint.indexOf(' ') + 1);
}

/** Also where others have descriptors of it: its peer is told. */
function endConnection(fd: number): void {
  new PeerFds().closeConnection(fd);
}

/** Of which nobody knows what it was for. */
function endSocket(fd: number): void {
  const peerFds = new PeerFds();
  if (socketOption(fd, SO_ACCEPTCONN) !== 1) {
    peerFds.closeConnection(fd);
    return;
  }
  removeListenerFile(fd, (connection) => peerFds.closeConnection(connection));
  peerFds.closeListener(fd);
}

function kindOf(fd: number): string {
  const what = describeFd(fd);
  if (what.startsWith('socket:')) return 'socket';
  if (what.startsWith('anon_inode:')) return 'event';
  return what.startsWith('/memfd:ringway-note') ? 'note' : 'memory';
}
