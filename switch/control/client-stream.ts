/**
 * A client's connection as the HTTP server is given it: what the client sent comes a line at a time, and nothing comes
 * while a whole request waits for its answer to be taken. A request's head ends with an empty line, so two requests
 * never reach the server in one piece: Node's own pipelining handles at once all that one read brings, 3,000 requests
 * for one, and keeps all their answers. What is read ahead is what the socket's buffer holds. Main thread.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { turnBudget } from '../../src/host/turn-budget.ts';

const LINE_FEED = 0x0a;
/** Of answers that last until somebody ends them; all others come to their end by themselves. */
export const LASTING_TYPE = 'application/x-pcapng';
export const EVENTS_TYPE = 'text/event-stream';

export class ClientStream extends Duplex {
  readonly #socket: Socket;
  /** Came, and not handed on yet. */
  #rest: Buffer = Buffer.alloc(0);
  #hasEnded = false;
  #isWanted = false;
  #isScheduled = false;
  #isStreaming = false;
  #request: IncomingMessage | null = null;
  #answer: ServerResponse | null = null;

  /** Takes over the socket. */
  constructor(socket: Socket) {
    // Nothing is asked for before what was handed on last is used up.
    super({ readableHighWaterMark: 1 });
    this.#socket = socket;
    socket.on('readable', () => {
      if (this.#isStreaming) this.#endWithPeer();
      else this.#schedule();
    });
    socket.on('end', () => {
      this.#hasEnded = true;
      if (this.#isStreaming) this.destroy();
      else this.#schedule();
    });
    socket.on('timeout', () => this.emit('timeout'));
    socket.on('error', (error) => this.destroy(error));
    socket.on('close', () => this.destroy());
  }

  /** The server has a request, whose body may still come; the next one comes when it is answered. */
  begin(request: IncomingMessage, answer: ServerResponse): void {
    this.#request = request;
    this.#answer = answer;
    answer.once('close', () => {
      this.#request = null;
      this.#answer = null;
      this.#schedule();
    });
  }

  /**
   * The answer lasts, and nothing else is asked for on this connection: it ends at once when the client hangs up or says
   * anything. It may move nothing for so long.
   */
  beginStream(idleMs: number): void {
    this.#isStreaming = true;
    this.setTimeout(idleMs);
    this.#endWithPeer();
  }

  /** As `beginStream` has said. */
  get isLasting(): boolean {
    return this.#isStreaming;
  }

  #endWithPeer(): void {
    // The end is only told to who reads.
    if (this.#socket.read() !== null || this.#rest.length > 0 || this.#hasEnded) this.destroy();
  }

  /** Something of an answer has gone out, and nothing else can. */
  get isAnswering(): boolean {
    return this.#answer?.headersSent === true;
  }

  /** Emits `timeout` when nothing moved on the socket for so long; Node's server asks for it as of a socket. */
  setTimeout(timeoutMs: number): this {
    this.#socket.setTimeout(timeoutMs);
    return this;
  }

  /** Closes when all that was written has gone out, whatever the client still sends; asked for likewise. */
  destroySoon(): void {
    this.end();
    if (this.writableFinished) this.destroy();
    else this.once('finish', () => this.destroy());
  }

  override _read(): void {
    this.#isWanted = true;
    this.#schedule();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#socket.write(chunk, done);
  }

  override _final(done: () => void): void {
    this.#socket.end(done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }

  /** Not at once: `_read` is called before the piece that was handed on last has come to the server. */
  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    if (turnBudget().isSpent()) setImmediate(() => this.#handOn());
    else process.nextTick(() => this.#handOn());
  }

  #handOn(): void {
    this.#isScheduled = false;
    if (!this.#isWanted || this.destroyed || this.#request?.complete === true) return;
    if (this.#rest.length === 0) this.#rest = (this.#socket.read() as Buffer | null) ?? this.#rest;
    if (this.#rest.length === 0 && !this.#hasEnded) return;
    this.#isWanted = false;
    if (this.#rest.length === 0) {
      this.push(null);
      return;
    }
    const lineBytes = this.#rest.indexOf(LINE_FEED) + 1 || this.#rest.length;
    const line = this.#rest.subarray(0, lineBytes);
    this.#rest = this.#rest.subarray(lineBytes);
    this.push(line);
  }
}
