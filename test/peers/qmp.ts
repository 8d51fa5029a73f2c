/**
 * A client of QEMU's machine protocol (QEMU's docs/interop/qmp-spec.rst): commands and events as lines of JSON.
 * Owns its connection. Used by linux-guest.ts; tests reach it as `LinuxGuest.qmp()`.
 */
import type { Socket } from 'node:net';
import { withDeadline } from './deadline.ts';

export interface QmpEvent {
  event: string;
  data: Record<string, unknown>;
}

interface Reply {
  resolve: (value: unknown) => void;
  reject: (reason: Error) => void;
}

export class QmpClient {
  readonly #socket: Socket;
  readonly #replies = new Map<number, Reply>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #negotiated: Promise<unknown>;
  #lastId = 0;
  #pending = '';
  #closed = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#receive(text));
    socket.on('error', () => {});
    socket.on('close', () => this.#close());
    // QEMU reads it when it gets to its main loop, so there is no need to wait for its greeting.
    this.#negotiated = this.#send('qmp_capabilities', {});
    this.#negotiated.catch(() => {});
  }

  /** Runs a command; resolves with what QEMU returns, rejects with QEMU's description of the error. */
  async execute(command: string, args: Record<string, unknown> = {}, timeoutMs = 30_000): Promise<unknown> {
    const reply = this.#negotiated.then(() => this.#send(command, args));
    return withDeadline(reply, timeoutMs, () => `QMP ${command}: no answer after ${timeoutMs} ms`);
  }

  /** Resolves with the first event from now on that `matches`. Call it before what causes the event. */
  waitForEvent(matches: (event: QmpEvent) => boolean, timeoutMs = 30_000): Promise<QmpEvent> {
    let listener: ((event: QmpEvent) => void) | undefined;
    const found = new Promise<QmpEvent>((resolve) => {
      listener = (event) => {
        if (matches(event)) resolve(event);
      };
      this.#listeners.add(listener);
    });
    return withDeadline(found, timeoutMs, () => `QMP: the event did not come in ${timeoutMs} ms`).finally(
      () => this.#listeners.delete(listener!),
    );
  }

  #send(command: string, args: Record<string, unknown>): Promise<unknown> {
    if (this.#closed) return Promise.reject(new Error(`QMP ${command}: QEMU has closed the connection`));
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#replies.set(id, { resolve, reject });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    });
  }

  #receive(text: string): void {
    const lines = (this.#pending + text).split('\n');
    this.#pending = lines.pop()!;
    for (const line of lines) if (line.trim() !== '') this.#handle(JSON.parse(line));
  }

  #handle(message: Record<string, unknown>): void {
    if (typeof message.event === 'string') {
      const event = { event: message.event, data: (message.data ?? {}) as Record<string, unknown> };
      for (const listener of this.#listeners) listener(event);
      return;
    }
    const id = message.id as number;
    const reply = this.#replies.get(id);
    if (reply === undefined) return;
    this.#replies.delete(id);
    if ('error' in message) reply.reject(new Error((message.error as { desc: string }).desc));
    else reply.resolve(message.return);
  }

  #close(): void {
    this.#closed = true;
    for (const reply of this.#replies.values())
      reply.reject(new Error('QMP: QEMU has closed the connection'));
    this.#replies.clear();
  }
}
