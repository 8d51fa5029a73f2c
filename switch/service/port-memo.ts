/**
 * What is noted of one port while it lives: outdated before anything is taken from its connection, written anew a while
 * after the last message, once the service manager has what the note names. Main thread.
 */
import type { z } from 'zod';
import { HandOverError } from '../../src/device/hand-over.ts';
import { HostError } from '../../src/host/errors.ts';
import type { ProcessIdentity } from '../../src/host/process-identity.ts';
import { type PortKeeper, type PortNote, withDescriptors } from '../../src/port/hand-over.ts';
import { NoteFile } from './note-file.ts';
import type { NoteText } from './note-text.ts';

/** After the last message; a handshake is noted once, and not at each of its messages. */
const QUIET_MS = 2;
/** Until the next look at a port that cannot be noted for now. */
const BUSY_MS = 10;

/** An open file in the store. */
export type StoredFile = { readonly name: string; readonly key: string; readonly users: Set<PortMemo> };

/** What a memo needs of the store. */
export type MemoStore = {
  /** The manager does not take messages for now. */
  readonly isBehind: boolean;
  /** Nothing is noted before, so that front-ends that talk all the time do not keep this thread busy. */
  readonly nextNoteMs: number;
  /** So long it took to note something. */
  spent(ms: number): void;
  /** The file behind a descriptor, in the store from now on. @throws HandOverError */
  fileOf(fd: number, user: PortMemo): StoredFile;
  notUsed(file: StoredFile, user: PortMemo): void;
  noted(): void;
  forgot(memo: PortMemo): void;
  warn(port: string, text: string): void;
};

/** What is noted of one port. */
export class PortMemo implements PortKeeper {
  readonly #store: MemoStore;
  readonly #port: string;
  readonly #endpoint: string;
  readonly #note: () => PortNote | null;
  readonly #file: NoteFile;
  /** The note's own; null: not in the store yet. */
  #ownFile: StoredFile | null = null;
  #files = new Set<StoredFile>();
  #timer: NodeJS.Timeout | null = null;
  #dueMs = 0;
  #isPending = false;
  #trouble: string | null = null;
  /** It was once, or cannot be. */
  isNoted = false;

  constructor(
    store: MemoStore,
    port: string,
    endpoint: string,
    file: NoteFile | null,
    note: () => PortNote | null,
  ) {
    this.#store = store;
    this.#port = port;
    this.#endpoint = endpoint;
    this.#note = note;
    this.#file = file ?? NoteFile.create();
  }

  get port(): string {
    return this.#port;
  }

  get noteFd(): number {
    return this.#file.fd;
  }

  outdate(): void {
    this.#file.mark('outdated');
    this.renew();
  }

  renew(): void {
    this.#isPending = true;
    this.#dueMs = performance.now() + QUIET_MS;
    this.#timer ??= setTimeout(() => this.#onTimer(), QUIET_MS).unref();
  }

  caughtUp(): void {
    if (this.#isPending) this.renew();
  }

  leaveTo(successor: ProcessIdentity | null): void {
    this.#stopTimer();
    if (successor === null) this.#file.mark('over');
    else this.#file.leaveTo(successor);
  }

  comeBack(): void {
    this.#file.takeBack();
    this.renew();
  }

  forget(): void {
    this.#stopTimer();
    this.#file.mark('over');
    for (const file of this.#files) this.#store.notUsed(file, this);
    if (this.#ownFile !== null) this.#store.notUsed(this.#ownFile, this);
    this.#file.close();
    this.#store.forgot(this);
  }

  #stopTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#isPending = false;
  }

  #onTimer(): void {
    this.#timer = null;
    const leftMs = Math.max(this.#dueMs, this.#store.nextNoteMs) - performance.now();
    // Otherwise it is called when the manager has caught up.
    if (leftMs <= 0.5 && this.#store.isBehind) return;
    if (leftMs > 0.5 || !this.#tryWrite()) {
      this.#timer = setTimeout(() => this.#onTimer(), leftMs > 0.5 ? leftMs : BUSY_MS).unref();
      return;
    }
    this.isNoted ||= !this.#isPending;
    this.#store.noted();
  }

  /** False: not now. */
  #tryWrite(): boolean {
    const beganMs = performance.now();
    try {
      const note = this.#note();
      if (note === null) return false;
      this.#write(note);
      this.#trouble = null;
    } catch (error) {
      const isRefusal = error instanceof HandOverError || error instanceof HostError;
      // Of memory there may be none for the file.
      if (!isRefusal && !(error instanceof Error && 'syscall' in error)) throw error;
      this.#file.mark('outdated');
      this.#isPending = false;
      if (this.#trouble !== error.message)
        this.#store.warn(this.#port, `a crash would be seen by its front-end: ${error.message}`);
      this.#trouble = error.message;
    } finally {
      this.#store.spent(performance.now() - beganMs);
    }
    return true;
  }

  #write({ handed, positions }: PortNote): void {
    this.#ownFile ??= this.#store.fileOf(this.#file.fd, this);
    const files: StoredFile[] = [];
    const before = this.#files;
    const translate = (fd: number): number => {
      const file = this.#store.fileOf(fd, this);
      before.add(file);
      const at = files.indexOf(file);
      return at >= 0 ? at : files.push(file) - 1;
    };
    const translated = withDescriptors(handed, translate);
    // What the manager does not have yet must not be named.
    if (this.#store.isBehind) return;
    const names = files.map(({ name }) => name);
    const note: z.input<typeof NoteText> = {
      port: this.#port,
      endpoint: this.#endpoint,
      names,
      handed: translated,
      positions,
    };
    this.#file.write(JSON.stringify(note));
    this.#isPending = false;
    this.#files = new Set(files);
    for (const file of before) if (!this.#files.has(file)) this.#store.notUsed(file, this);
  }
}
