/**
 * The file in which the rings of all ports have their records (src/vring/ring-record.ts), so that a Ringway that was killed,
 * or only stopped, takes up the rings of guests that come again exactly where it stood. One file a switch, beside its
 * sockets, mapped into the arena: workers write to it as to any memory, and what they wrote is there when the process is
 * not any more. It is used by one process at a time, which holds a lock on it.
 *
 * What is in it is believed of the same boot (a later one has other guests), in the same format, and of a ring with the
 * same name, number, size and place in the same file. A record stays until its front-end was told where the ring stands,
 * or another ring of that port takes its place: also while a port is removed and added again, and while nobody runs.
 * Losing the file, or its end, while it is used loses no more than that. Main thread.
 */
import assert from 'node:assert/strict';
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  type Stats,
  statfsSync,
  statSync,
  writeSync,
} from 'node:fs';
import { crc32 } from 'node:zlib';
import { closeFd } from '../host/descriptor.ts';
import { lockFile } from '../host/file-lock.ts';
import type { Arena } from '../memory/arena.ts';
import type { ArenaView } from '../memory/arena-view.ts';
import { RECORD_BYTES, RECORD_FORMAT, type RingIdentity, RingRecord } from '../vring/ring-record.ts';
import type { LastRun } from './ring-start.ts';

const HEADER_BYTES = 4096;
const MAGIC = Buffer.from('RINGWAY\0');
const FORMAT_OFFSET = 8;
const RECORD_BYTES_OFFSET = 12;
const BOOT_OFFSET = 16;
const BOOT_BYTES = 36;
const CHECK_OFFSET = 60;
const FILE_MODE = 0o600;
/** The file grows by so many records: whole pages. */
const GROWTH_RECORDS = 64;
const RECORDS_MAX = 8192;
/** Of ports that are not there so many rings are remembered; then the oldest ones go. */
const LEFT_MAX = 1024;
const BOOT_ID_PATH = '/proc/sys/kernel/random/boot_id';
/** statfs: file systems that are memory. */
const MEMORY_FILE_SYSTEMS = [0x0102_1994, 0x8584_58f6];

/** The records of one port, which is there until it lets go of them. */
export type PortRecords = {
  /** Where its rings stood when they were used last, as far as their front-ends were not told. */
  lastRuns(): Map<number, LastRun>;
  /**
   * The ring is put to use, and stands at `position` (a packed ring's, with its wrap counter in bit 15). Null: there is room
   * for no more records.
   */
  begin(identity: Omit<RingIdentity, 'portName'>, position: number): RingRecord | null;
  /** The ring's front-end was told where it stands. */
  forget(queueIndex: number): void;
  /** The port has ended; what is in its records stays. */
  release(): void;
};

export type RecordsEvents = {
  info(message: string): void;
  warn(message: string): void;
};

/** The file as it is open in this process. */
type OpenFile = { readonly fd: number; readonly offset: number };

export class RingRecords {
  readonly path: string;
  readonly #arena: Arena;
  readonly #arenaView: ArenaView;
  readonly #events: RecordsEvents;
  readonly #bootId: string;
  readonly #records: RingRecord[] = [];
  /** Names of ports that are there. */
  readonly #present = new Set<string>();
  /** Null: it is made when the first ring needs a record. */
  #file: OpenFile | null = null;
  /** It could not be made. */
  #isGivenUp = false;
  #age = 0;

  /** Opens the file where it is there, and takes it for this process. What is amiss is told by `events`. */
  constructor(
    path: string,
    arena: Arena,
    arenaView: ArenaView,
    events: RecordsEvents,
    bootId: string = readBootId(),
    /** Of the file, from the process that uses it until this one does: its lock comes with it. */
    handedFd: number | null = null,
  ) {
    this.path = path;
    this.#arena = arena;
    this.#arenaView = arenaView;
    this.#events = events;
    this.#bootId = bootId;
    if (handedFd !== null) this.#takeOver(handedFd);
    else if (statSync(path, { throwIfNoEntry: false }) !== undefined) this.#openFile();
  }

  /** Of the open file; null: there is none. */
  get fd(): number | null {
    return this.#file?.fd ?? null;
  }

  /** Only read until a ring is put to use; one of another format is left alone, because the other process may go on. */
  #takeOver(fd: number): void {
    const why = whyDiscarded(fd, this.#bootId);
    if (why === null) {
      this.#mapFile(fd);
      return;
    }
    this.#isGivenUp = true;
    closeFd(fd);
    this.#events.warn(`ring positions are not kept until the next start: ${this.path}: ${why}`);
  }

  /** Answers whether it is open now; where it cannot be, packed rings are used all the same. */
  #openFile(): boolean {
    if (this.#file !== null || this.#isGivenUp) return this.#file !== null;
    try {
      const fd = openAndLock(this.path);
      try {
        this.#mapFile(fd);
      } catch (error) {
        closeSync(fd);
        throw error;
      }
      if (!MEMORY_FILE_SYSTEMS.includes(statfsSync(this.path).type)) {
        this.#events.info(`${this.path} lies on a disk, which may hold up workers: better on a tmpfs`);
      }
    } catch (error) {
      this.#isGivenUp = true;
      const why = error instanceof Error ? error.message : String(error);
      this.#events.warn(
        `ring positions are not kept, and packed rings will not survive a kill: ${this.path}: ${why}`,
      );
    }
    return this.#file !== null;
  }

  #mapFile(fd: number): void {
    const why = whyDiscarded(fd, this.#bootId);
    if (why !== null) this.#events.warn(`ring positions of before are not used: ${this.path}: ${why}`);
    if (why !== null || fstatSync(fd).size === 0) begin(fd, this.#bootId);
    // The whole length that it may come to; only what the file has is touched.
    const offset = this.#arena.map({
      fd,
      fileOffset: HEADER_BYTES,
      sizeBytes: RECORDS_MAX * RECORD_BYTES,
      pageBytes: 4096,
      preferredOffset: null,
      mayBeLost: true,
    });
    this.#file = { fd, offset };
    const count = Math.floor((fstatSync(fd).size - HEADER_BYTES) / RECORD_BYTES);
    for (let i = 0; i < Math.min(count, RECORDS_MAX); i++) this.#open(offset, i);
    this.#age = Math.max(0, ...this.#records.map(({ age }) => age));
  }

  /** Of the port of that name, until it is released. */
  ofPort(portName: string): PortRecords {
    this.#present.add(portName);
    const used = new Map<number, RingRecord>();
    return {
      lastRuns: () => this.#lastRuns(portName),
      begin: (ring, position) => {
        const { queueIndex } = ring;
        const record = used.get(queueIndex) ?? this.#find(portName, queueIndex);
        if (record === null) return null;
        used.set(queueIndex, record);
        record.begin({ ...ring, portName }, position, ++this.#age);
        return record;
      },
      forget: (queueIndex) => {
        (used.get(queueIndex) ?? this.#known(portName, queueIndex))?.forget();
        used.delete(queueIndex);
      },
      release: () => this.#present.delete(portName),
    };
  }

  /** No worker may use any of it. The file stays for the next process, if it has anything to tell. */
  close(): void {
    if (this.#file === null) return;
    if (this.#records.every(({ identity }) => identity === null)) rmSync(this.path, { force: true });
    this.#arena.unmap(this.#file.offset);
    closeFd(this.#file.fd);
    this.#file = null;
  }

  #lastRuns(portName: string): Map<number, LastRun> {
    const runs = new Map<number, LastRun>();
    for (const record of this.#records) {
      const { identity } = record;
      if (identity === null || identity.portName !== portName) continue;
      const { layout, size, place, base, isFromGuest, inOrder } = identity;
      const interrupted = { size, isFromGuest, inOrder, standing: record.standing };
      runs.set(identity.queueIndex, { layout, size, place, base, indices: null, interrupted });
    }
    return runs;
  }

  #known(portName: string, queueIndex: number): RingRecord | null {
    const isIt = ({ identity }: RingRecord): boolean =>
      identity !== null && identity.portName === portName && identity.queueIndex === queueIndex;
    return this.#records.find(isIt) ?? null;
  }

  /** The ring's own record, else a free one, else the one of a port that is not there which was used longest ago. */
  #find(portName: string, queueIndex: number): RingRecord | null {
    const known =
      this.#known(portName, queueIndex) ?? this.#records.find(({ identity }) => identity === null);
    if (known !== undefined) return known;
    const left = this.#records.filter(({ identity }) => !this.#present.has(identity?.portName ?? ''));
    if (left.length < LEFT_MAX && this.#grow()) return this.#find(portName, queueIndex);
    left.sort((a, b) => a.age - b.age);
    left[0]?.forget();
    return left[0] ?? null;
  }

  #grow(): boolean {
    const count = this.#records.length;
    if (!this.#openFile() || this.#file === null || count + GROWTH_RECORDS > RECORDS_MAX) return false;
    const { fd, offset } = this.#file;
    const zeros = Buffer.alloc(GROWTH_RECORDS * RECORD_BYTES);
    try {
      // Written, so that the pages are there: a hole would be filled when there may be no memory left.
      if (writeSync(fd, zeros, 0, zeros.length, HEADER_BYTES + count * RECORD_BYTES) < zeros.length)
        return false;
    } catch {
      return false;
    }
    for (let i = 0; i < GROWTH_RECORDS; i++) this.#open(offset, count + i);
    return true;
  }

  #open(offset: number, index: number): void {
    assert.equal(index, this.#records.length, 'records are opened in order');
    this.#records.push(new RingRecord(this.#arenaView, offset + index * RECORD_BYTES));
  }
}

/** @throws Error: it cannot be used, and why */
function openAndLock(path: string): number {
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  for (;;) {
    const fd = openSync(path, flags, FILE_MODE);
    const file = fstatSync(fd);
    const fault = whyNotOurs(file) ?? (lockFile(fd) ? null : 'another process uses it');
    if (fault !== null) {
      closeSync(fd);
      throw new Error(fault);
    }
    // It may have been removed, and made anew by another one, before it was locked.
    if (statSync(path, { throwIfNoEntry: false })?.ino === file.ino) return fd;
    closeSync(fd);
  }
}

function whyNotOurs(file: Stats): string | null {
  const { mode, uid } = file;
  if (!file.isFile()) return 'it is no regular file';
  if (uid !== process.geteuid?.()) return 'it belongs to another user';
  return (mode & 0o022) === 0 ? null : 'others may write to it';
}

function whyDiscarded(fd: number, bootId: string): string | null {
  const sizeBytes = fstatSync(fd).size;
  if (sizeBytes === 0) return null;
  const header = Buffer.alloc(HEADER_BYTES);
  if (readSync(fd, header, 0, HEADER_BYTES, 0) < HEADER_BYTES) return 'its beginning is not whole';
  if (!header.subarray(0, MAGIC.length).equals(MAGIC)) return 'it is no such file';
  const format = header.readUInt32LE(FORMAT_OFFSET);
  if (format !== RECORD_FORMAT) return `it was written in format ${format}, and this is ${RECORD_FORMAT}`;
  if (header.readUInt32LE(CHECK_OFFSET) !== crc32(header.subarray(0, CHECK_OFFSET)))
    return 'its beginning is not whole';
  if (header.readUInt32LE(RECORD_BYTES_OFFSET) !== RECORD_BYTES) return 'its records have another size';
  if ((sizeBytes - HEADER_BYTES) % RECORD_BYTES !== 0) return 'its end is not whole';
  const boot = header.subarray(BOOT_OFFSET, BOOT_OFFSET + BOOT_BYTES).toString();
  return boot === bootId.slice(0, BOOT_BYTES) ? null : 'it is of before this machine was started';
}

/** An empty file with nothing but its beginning. */
function begin(fd: number, bootId: string): void {
  const header = Buffer.alloc(HEADER_BYTES);
  MAGIC.copy(header);
  header.writeUInt32LE(RECORD_FORMAT, FORMAT_OFFSET);
  header.writeUInt32LE(RECORD_BYTES, RECORD_BYTES_OFFSET);
  header.write(bootId.slice(0, BOOT_BYTES), BOOT_OFFSET);
  header.writeUInt32LE(crc32(header.subarray(0, CHECK_OFFSET)), CHECK_OFFSET);
  ftruncateSync(fd, 0);
  writeSync(fd, header, 0, header.length, 0);
}

function readBootId(): string {
  return readFileSync(BOOT_ID_PATH, 'utf8').trim();
}
