/**
 * A memory file with one text that outlives this process in the descriptor store. At every moment it says whether the text
 * holds. A write to one page is done whole or not at all by a process that is killed, so: the text is written to where the
 * text that holds does not lie, and then the head, which says where. Main thread.
 *
 * Head, 48 bytes, numbers little-endian: magic, 8 bytes; format; state; then of the text its offset in the file, its bytes
 * and its CRC-32; the CRC-32 of these three; how many processes began with the text since it was written; and to whom it was
 * left since: number and start of that process (8 bytes), or zeros.
 */
import { fstatSync, readSync, writeSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { closeFd } from '../../src/host/descriptor.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import type { ProcessIdentity } from '../../src/host/process-identity.ts';

const MAGIC = Buffer.from('RWNOTE\0\0');
const FORMAT = 1;
const FORMAT_OFFSET = 8;
const STATE_OFFSET = 12;
const PLACE_OFFSET = 16;
const CHECK_OFFSET = 28;
const BEGUN_OFFSET = 32;
const SUCCESSOR_OFFSET = 36;
const SUCCESSOR_BYTES = 12;
const HEAD_BYTES = 48;
const TEXT_OFFSET = 4096;
const TEXT_BYTES_MAX = 2 ** 28;

/**
 * `holds`: all is as the text says. `outdated`: something was said since. `over`: there is nothing any more that it tells
 * of. The first is the state of a file without a text.
 */
const STATES = ['empty', 'holds', 'outdated', 'over'] as const;
export type NoteState = (typeof STATES)[number];

type Place = { readonly offset: number; readonly bytes: number };

export class NoteFile {
  readonly fd: number;
  #state: NoteState;
  #place: Place;
  #text: string | null;
  #begunCount: number;
  /** To whom it was left, when it was opened; null: to nobody. */
  readonly successor: ProcessIdentity | null;
  /** Another process may have changed the state. */
  #isSure = true;

  private constructor(
    fd: number,
    state: NoteState,
    place: Place,
    text: string | null,
    begunCount = 0,
    successor: ProcessIdentity | null = null,
  ) {
    this.#begunCount = begunCount;
    this.successor = successor;
    this.fd = fd;
    this.#state = state;
    this.#place = place;
    this.#text = text;
  }

  /** @throws HostError */
  static create(): NoteFile {
    const note = new NoteFile(createMemoryFile('ringway-note', HEAD_BYTES), 'empty', NOWHERE, null);
    note.#writeHead('empty', NOWHERE, 0);
    return note;
  }

  /** Takes over a descriptor; answers why it is none that this Ringway knows, and then does not. */
  static open(fd: number): NoteFile | string {
    const head = Buffer.alloc(HEAD_BYTES);
    const { size } = fstatSync(fd);
    if (readSync(fd, head, 0, HEAD_BYTES, 0) < HEAD_BYTES || !head.subarray(0, MAGIC.length).equals(MAGIC))
      return 'it is no note';
    const format = head.readUInt32LE(FORMAT_OFFSET);
    if (format !== FORMAT) return `it is in format ${format}, and this Ringway knows ${FORMAT}`;
    const state = STATES[head.readUInt32LE(STATE_OFFSET)];
    const place = { offset: head.readUInt32LE(PLACE_OFFSET), bytes: head.readUInt32LE(PLACE_OFFSET + 4) };
    const isWhole = head.readUInt32LE(CHECK_OFFSET) === crc32(head.subarray(PLACE_OFFSET, CHECK_OFFSET));
    if (state === undefined || !isWhole) return 'its head is not whole';
    if (state === 'empty') return new NoteFile(fd, state, NOWHERE, null);
    if (place.offset + place.bytes > size) return 'its text is not whole';
    const bytes = Buffer.alloc(place.bytes);
    const isRead = readSync(fd, bytes, 0, place.bytes, place.offset) === place.bytes;
    if (!isRead || crc32(bytes) !== head.readUInt32LE(PLACE_OFFSET + 8)) return 'its text is not whole';
    const pid = head.readUInt32LE(SUCCESSOR_OFFSET);
    const startTicks = Number(head.readBigUInt64LE(SUCCESSOR_OFFSET + 4));
    const successor = pid === 0 ? null : { pid, startTicks };
    return new NoteFile(fd, state, place, bytes.toString(), head.readUInt32LE(BEGUN_OFFSET), successor);
  }

  /** As `open`, of a note that another process leaves to this one, and may mark until then. Its text stays as it is. */
  static adopt(fd: number): NoteFile | string {
    const note = NoteFile.open(fd);
    if (typeof note !== 'string') note.#isSure = false;
    return note;
  }

  /** How many processes, this one too, began with the text and did not come to write it anew. */
  countBegun(): number {
    this.#begunCount++;
    this.#writeWord(BEGUN_OFFSET, this.#begunCount);
    return this.#begunCount;
  }

  get state(): NoteState {
    return this.#state;
  }

  /** The last one; null: there was none. */
  get text(): string | null {
    return this.#text;
  }

  /** From now on this text holds. @throws Node's error when there is no memory; then it is as before */
  write(text: string): void {
    if (text === this.#text) {
      if (this.#begunCount > 0) this.#writeWord(BEGUN_OFFSET, 0);
      this.#begunCount = 0;
      this.mark('holds');
      return;
    }
    const bytes = Buffer.from(text);
    if (bytes.length > TEXT_BYTES_MAX) throw new Error(`a note of ${bytes.length} bytes`);
    const offset =
      this.#place.offset - TEXT_OFFSET >= bytes.length ? TEXT_OFFSET : this.#place.offset + this.#place.bytes;
    for (let at = 0; at < bytes.length; ) at += writeSync(this.fd, bytes, at, bytes.length - at, offset + at);
    this.#place = { offset, bytes: bytes.length };
    this.#text = text;
    this.#writeHead('holds', this.#place, crc32(bytes));
  }

  /** A file without a text stays so. */
  mark(state: Exclude<NoteState, 'empty'>): void {
    if (this.#state === 'empty' || (this.#isSure && state === this.#state)) return;
    this.#isSure = true;
    this.#state = state;
    this.#writeWord(STATE_OFFSET, STATES.indexOf(state));
  }

  /** What it tells of is that process's from now on, and so is the note. */
  leaveTo({ pid, startTicks }: ProcessIdentity): void {
    this.#writeSuccessor(pid, startTicks);
  }

  /** It is this one's after all. */
  takeBack(): void {
    this.#writeSuccessor(0, 0);
  }

  #writeSuccessor(pid: number, startTicks: number): void {
    const bytes = Buffer.alloc(SUCCESSOR_BYTES);
    bytes.writeUInt32LE(pid, 0);
    bytes.writeBigUInt64LE(BigInt(startTicks), 4);
    writeSync(this.fd, bytes, 0, bytes.length, SUCCESSOR_OFFSET);
  }

  close(): void {
    closeFd(this.fd);
  }

  #writeWord(offset: number, value: number): void {
    const word = Buffer.alloc(4);
    word.writeUInt32LE(value);
    writeSync(this.fd, word, 0, word.length, offset);
  }

  #writeHead(state: NoteState, { offset, bytes }: Place, textCheck: number): void {
    const head = Buffer.alloc(HEAD_BYTES);
    MAGIC.copy(head);
    head.writeUInt32LE(FORMAT, FORMAT_OFFSET);
    head.writeUInt32LE(STATES.indexOf(state), STATE_OFFSET);
    head.writeUInt32LE(offset, PLACE_OFFSET);
    head.writeUInt32LE(bytes, PLACE_OFFSET + 4);
    head.writeUInt32LE(textCheck, PLACE_OFFSET + 8);
    head.writeUInt32LE(crc32(head.subarray(PLACE_OFFSET, CHECK_OFFSET)), CHECK_OFFSET);
    writeSync(this.fd, head, 0, head.length, 0);
    this.#isSure = true;
    this.#state = state;
    this.#begunCount = 0;
  }
}

const NOWHERE: Place = { offset: TEXT_OFFSET, bytes: 0 };
