/**
 * The host's end of a guest's shell: sends commands over the second serial port, one at a time, and finds each
 * one's output and exit code between the markers. The guest's end and the protocol: guest-scripts.ts.
 * Owns its connection and the queue of commands. Used by linux-guest.ts.
 */
import type { Socket } from 'node:net';
import { settlesWithin, withDeadline } from './deadline.ts';

export interface CommandResult {
  /** 0 to 255; 128 + N when signal N ended it. */
  code: number;
  /** Standard output and error, exactly as written. */
  output: string;
}

interface RunningCommand {
  number: number;
  begun: boolean;
  settle: (result: CommandResult) => void;
  fail: (reason: Error) => void;
}

/** How long a command may take to end after Ctrl-C before the shell counts as lost. */
const interruptGraceMs = 10_000;
/** A guest boots within 3 s, and within minutes where guests share two cores with busy-polling threads and other work. */
export const BOOT_TIMEOUT_MS = 240_000;

export class GuestShell {
  readonly #socket: Socket;
  readonly #token: string;
  readonly #readyWaiters = new Set<() => void>();
  #text = '';
  #bootCount = 0;
  #lastNumber = 0;
  #current: RunningCommand | undefined;
  #queue: Promise<unknown> = Promise.resolve();
  #lostReason: string | undefined;

  constructor(socket: Socket, token: string) {
    this.#socket = socket;
    this.#token = token;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#receive(text));
    socket.on('error', () => {});
    socket.on('close', () => this.#lose('QEMU has closed the serial port'));
  }

  /** How often the guest has come up. */
  get bootCount(): number {
    return this.#bootCount;
  }

  /** Resolves once the guest has come up `count` times. */
  async waitForBoot(count: number): Promise<void> {
    while (this.#bootCount < count) {
      await new Promise<void>((resolve) => this.#readyWaiters.add(resolve));
    }
  }

  /** Runs a command after those asked for earlier have ended. */
  run(command: string, timeoutMs: number): Promise<CommandResult> {
    return this.#enqueue(() => this.#runNow(command, timeoutMs));
  }

  /** Runs a command that makes the guest boot again; resolves when its shell is back. */
  runUntilBoot(command: string, timeoutMs: number): Promise<void> {
    return this.#enqueue(async () => {
      const back = this.waitForBoot(this.#bootCount + 1);
      this.#begin(command).catch(() => {});
      await withDeadline(back, timeoutMs, () => `the guest was not back ${timeoutMs} ms after: ${command}`);
    });
  }

  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => {});
    return result;
  }

  async #runNow(command: string, timeoutMs: number): Promise<CommandResult> {
    const result = this.#begin(command);
    if (await settlesWithin(result, timeoutMs)) return result;
    if (this.#current === undefined) return result; // it failed, or ended just now
    this.#socket.write('\x03');
    if (!(await settlesWithin(result, interruptGraceMs))) {
      const output = this.#text;
      this.#lose(`the guest's shell did not answer after: ${command}`);
      throw new Error(`${this.#lostReason}; its output so far:\n${output}`);
    }
    const { output } = await result;
    throw new Error(`not done after ${timeoutMs} ms: ${command}; its output so far:\n${output}`);
  }

  #begin(command: string): Promise<CommandResult> {
    if (this.#lostReason !== undefined) return Promise.reject(new Error(this.#lostReason));
    if (hasControlCharacters(command)) {
      return Promise.reject(new Error('control characters do not pass the serial port'));
    }
    const number = ++this.#lastNumber;
    const lines = command.split('\n');
    return new Promise((settle, fail) => {
      this.#current = { number, begun: false, settle, fail };
      this.#socket.write(`${number} ${lines.length}\n${lines.join('\n')}\n`);
    });
  }

  #receive(text: string): void {
    this.#text += text;
    // Each turn takes one marker and what stands before it.
    while (this.#takeMarker()) {}
  }

  /** Finds the next whole marker in the text and acts on it. Returns false when there is none. */
  #takeMarker(): boolean {
    const start = this.#text.indexOf(`${this.#token} `);
    const end = start < 0 ? -1 : this.#text.indexOf('\n', start);
    if (end < 0) return false;
    const before = this.#text.slice(0, start);
    const [word, number, code] = this.#text.slice(start + this.#token.length + 1, end).split(' ');
    this.#text = this.#text.slice(end + 1);
    if (word === 'ready') this.#comeUp();
    else this.#advanceCommand(word!, Number(number), Number(code), before);
    return true;
  }

  #advanceCommand(word: string, number: number, code: number, output: string): void {
    const command = this.#current;
    if (command === undefined || command.number !== number) return;
    if (word === 'begin') command.begun = true;
    if (word !== 'end' || !command.begun) return;
    this.#current = undefined;
    command.settle({ code, output });
  }

  #comeUp(): void {
    this.#bootCount++;
    this.#current?.fail(new Error('the guest booted again while the command ran'));
    this.#current = undefined;
    for (const waiter of this.#readyWaiters) waiter();
    this.#readyWaiters.clear();
  }

  #lose(reason: string): void {
    this.#lostReason ??= reason;
    this.#current?.fail(new Error(this.#lostReason));
    this.#current = undefined;
  }
}

function hasControlCharacters(command: string): boolean {
  for (let i = 0; i < command.length; i++) {
    const unit = command.charCodeAt(i);
    if (unit === 0x7f || (unit < 0x20 && unit !== 0x0a && unit !== 0x09)) return true;
  }
  return false;
}
