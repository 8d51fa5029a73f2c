/**
 * A client of QEMU's qtest protocol (QEMU's docs/devel/qtest.rst): lines of text by which a program does what a
 * processor would: accesses to ports and memory, in the order in which they were asked for.
 * Owns its connection. Called by the other files of this folder; tests reach it as `QtestGuest.qtest`.
 */
import type { Socket } from 'node:net';
import { withDeadline } from '../deadline.ts';

const ANSWER_TIMEOUT_MS = 30_000;
/** Bytes in one line. */
const CHUNK_BYTES = 1 << 15;

type Reply = { resolve(value: string): void; reject(reason: Error): void };
/** Bytes of an access, and the letter that the protocol has for it. */
const WIDTHS = { 1: 'b', 2: 'w', 4: 'l', 8: 'q' } as const;
export type AccessBytes = keyof typeof WIDTHS;

export class QtestClient {
  readonly #socket: Socket;
  /** Of the commands that are not answered, oldest first: QEMU answers in order. */
  readonly #replies: Reply[] = [];
  readonly #onRaise = new Set<(line: number) => void>();
  #pending = '';
  #isClosed = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('latin1');
    socket.on('data', (text: string) => this.#receive(text));
    socket.on('error', () => {});
    socket.on('close', () => this.#close());
  }

  /** One command; answers what follows `OK`. Commands reach QEMU in the order of the calls. */
  command(line: string): Promise<string> {
    return withDeadline(
      this.#send(line),
      ANSWER_TIMEOUT_MS,
      () => `qtest: no answer to ${line.slice(0, 80)}`,
    );
  }

  /** As `command`, and nobody waits for the answer. */
  post(line: string): void {
    this.#send(line).catch(() => {});
  }

  /** A port of the processor. */
  async in(port: number, bytes: 1 | 2 | 4): Promise<number> {
    return Number(await this.command(`in${WIDTHS[bytes]} ${port}`));
  }

  async out(port: number, bytes: 1 | 2 | 4, value: number): Promise<void> {
    await this.command(`out${WIDTHS[bytes]} ${port} ${value >>> 0}`);
  }

  /** A load from a guest-physical address. */
  async load(gpa: number, bytes: 1 | 2 | 4): Promise<number> {
    return Number(await this.command(`read${WIDTHS[bytes]} ${gpa}`));
  }

  async store(gpa: number, bytes: AccessBytes, value: number | bigint): Promise<void> {
    await this.command(storeLine(gpa, bytes, value));
  }

  /** A store that nobody waits for, as a driver's notification is. */
  postStore(gpa: number, bytes: AccessBytes, value: number | bigint): void {
    this.post(storeLine(gpa, bytes, value));
  }

  /** Guest memory through QEMU's own eyes. */
  async read(gpa: number, sizeBytes: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(sizeBytes);
    for (let at = 0; at < sizeBytes; at += CHUNK_BYTES) {
      const count = Math.min(CHUNK_BYTES, sizeBytes - at);
      const hex = await this.command(`read ${gpa + at} ${count}`);
      bytes.set(Buffer.from(hex.slice(2), 'hex'), at);
    }
    return bytes;
  }

  /** Written as a processor writes: QEMU marks the pages as dirty. */
  async write(gpa: number, bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
      const chunk = Buffer.from(bytes.subarray(at, at + CHUNK_BYTES));
      await this.command(`write ${gpa + at} ${chunk.length} 0x${chunk.toString('hex')}`);
    }
  }

  /** As `write`, the same byte everywhere. */
  async fill(gpa: number, sizeBytes: number, byte: number): Promise<void> {
    await this.command(`memset ${gpa} ${sizeBytes} ${byte}`);
  }

  /** Has QEMU tell when a line of the device at that QOM path, an interrupt controller, is raised. */
  async interceptIrqs(path: string): Promise<void> {
    await this.command(`irq_intercept_in ${path}`);
  }

  /** Calls `onRaise` with the number of each line that is raised; answers how to end that. */
  watchIrqs(onRaise: (line: number) => void): () => void {
    this.#onRaise.add(onRaise);
    return () => this.#onRaise.delete(onRaise);
  }

  #send(line: string): Promise<string> {
    if (this.#isClosed) return Promise.reject(new Error(`qtest: QEMU has gone before: ${line.slice(0, 80)}`));
    return new Promise((resolve, reject) => {
      this.#replies.push({ resolve, reject });
      this.#socket.write(`${line}\n`);
    });
  }

  #receive(text: string): void {
    const lines = (this.#pending + text).split('\n');
    this.#pending = lines.pop()!;
    for (const line of lines) this.#handle(line);
  }

  #handle(line: string): void {
    const irq = /^IRQ (raise|lower) (\d+)/.exec(line);
    if (irq !== null) {
      if (irq[1] === 'raise') for (const call of this.#onRaise) call(Number(irq[2]));
      return;
    }
    const reply = this.#replies.shift();
    if (reply === undefined) return;
    if (line.startsWith('OK')) reply.resolve(line.slice(3).trim());
    else reply.reject(new Error(`qtest: ${line}`));
  }

  #close(): void {
    this.#isClosed = true;
    for (const reply of this.#replies.splice(0)) reply.reject(new Error('qtest: QEMU has gone'));
  }
}

function storeLine(gpa: number, bytes: AccessBytes, value: number | bigint): string {
  return `write${WIDTHS[bytes]} ${gpa} ${typeof value === 'bigint' ? value : value >>> 0}`;
}
