/**
 * One end of a vhost-user connection: bytes and descriptors of a stream socket to whole messages and back, in
 * order, one at a time. Both ends use it; a `ChannelRole` says what they differ in. It owns the socket, and every
 * descriptor that comes until it hands it to the message handler. Form of the stream only: what a message means
 * is the business of back-end.ts and requests.ts. The thread that made it. vhost-user.rst, "Message
 * Specification", "Header".
 */
import assert from 'node:assert/strict';
import { decodeHeader, type Header } from '../../protocol/vhost-user/codec.ts';
import {
  FDS_MAX,
  FLAG_REPLY,
  FLAG_VERSION,
  FLAG_VERSION_MASK,
  HEADER_BYTES,
  PAYLOAD_BYTES_MAX,
} from '../../protocol/vhost-user/messages.ts';
import { BudgetError } from '../host/budgets.ts';
import { closeFds, duplicateFd, pollFd } from '../host/descriptor.ts';
import { HostError } from '../host/errors.ts';
import { descriptorLoop, type Watch } from '../host/event-loop.ts';
import { PeerFds } from '../host/peer-fds.ts';
import { turnBudget } from '../host/turn-budget.ts';
import { send } from '../host/unix-socket.ts';
import { PeerError } from './peer-error.ts';

export type Message = { readonly header: Header; readonly payload: Uint8Array; readonly fds: number[] };

/** How a channel ended: `left`, the other end closed it between two messages, as one does that is done. */
export type ChannelEnd = 'left' | 'broken';

/** Takes over the message's descriptors. A promise keeps further messages waiting until it settles. */
export type MessageHandler = (message: Message) => void | Promise<void>;

export type ChannelRole = {
  /** What the other end is called in reasons. */
  readonly peer: 'front-end' | 'back-end';
  /** Which messages the other end may send here. */
  readonly accepts: 'requests' | 'replies';
  /** Most bytes kept for a socket that is full; beyond that the other end does not read, and the channel ends. */
  readonly unsentBytesMax: number;
};

/** Answers requests. Keeps nothing: the socket's own buffer holds more replies than a front-end ever waits for. */
export const BACK_END_ROLE: ChannelRole = { peer: 'front-end', accepts: 'requests', unsentBytesMax: 0 };
/** Sends requests, and may be faster than the back-end, which does what it is told before it reads on. */
export const FRONT_END_ROLE: ChannelRole = {
  peer: 'back-end',
  accepts: 'replies',
  unsentBytesMax: 4 * 2 ** 20,
};

/**
 * Messages handled in one turn of the event loop at most, so that a peer that sends without pause starves nobody; less
 * when they take long, or when other peers have used the turn up (turn-budget.ts).
 */
export const MESSAGES_PER_TURN = 32;
const POLLIN = 1;
/** Between two looks at a socket that was full. */
const FULL_SOCKET_MS = 1;
/** Between two looks at whether what the other end sent is closed. */
const CONGESTED_MS = 2;
/** The other end is gone. What it sent before can still be read, so it is the reading side that ends the channel. */
const GONE = new Set(['EPIPE', 'ECONNRESET']);

/** `fds` are duplicates of the sender's, which it may close meanwhile. */
type Unsent = { readonly bytes: Uint8Array; readonly fds: readonly number[] };

class PeerLeft extends PeerError {}

/** A message of which only the beginning has come. */
export type HalfRead = { readonly bytes: Uint8Array; readonly fds: readonly number[] };

const NOTHING_READ: HalfRead = { bytes: new Uint8Array(0), fds: [] };

export class Channel {
  readonly #fd: number;
  readonly #role: ChannelRole;
  readonly #onMessage: MessageHandler;
  readonly #onEnd: (reason: string, end: ChannelEnd) => void;
  readonly #peerFds: PeerFds;
  readonly #onReading: (() => void) | null;
  #watch: Watch | null = null;
  #isOpen = true;
  #isHandling = false;
  #isPaused = false;
  #handledThisTurn = 0;
  /** What has come of the current message. */
  readonly #received = new Uint8Array(HEADER_BYTES + PAYLOAD_BYTES_MAX);
  #receivedBytes = 0;
  #receivedFds: number[] = [];
  #unsent: Unsent[] = [];
  #unsentBytes = 0;
  #retry: NodeJS.Timeout | null = null;
  #relief: NodeJS.Timeout | null = null;
  #peerIsGone = false;

  /** Takes over `fd`. `onEnd` is called once, with the reason, after the socket is closed. */
  constructor(
    fd: number,
    role: ChannelRole,
    onMessage: MessageHandler,
    onEnd: (reason: string, end: ChannelEnd) => void,
    peerFds = new PeerFds(),
    /** Given: the connection is taken over, and nothing is read of it or sent of `unsent` before `resume`. */
    halfRead: HalfRead | null = null,
    unsent: Uint8Array = new Uint8Array(0),
    /** Something is about to be taken from the socket; null: nobody wants to know. */
    onReading: (() => void) | null = null,
  ) {
    this.#onReading = onReading;
    const { bytes, fds } = halfRead ?? NOTHING_READ;
    this.#received.set(bytes);
    this.#receivedBytes = bytes.length;
    this.#receivedFds = [...fds];
    this.#isPaused = halfRead !== null;
    this.#fd = fd;
    this.#role = role;
    this.#onMessage = onMessage;
    this.#onEnd = onEnd;
    this.#peerFds = peerFds;
    if (unsent.length > 0) this.#unsent.push({ bytes: unsent, fds: [] });
    this.#unsentBytes = unsent.length;
    if (!this.#isPaused) this.#listen();
  }

  get fd(): number {
    return this.#fd;
  }

  /** While the channel is paused and no message is being handled. */
  get halfRead(): HalfRead {
    return { bytes: this.#received.slice(0, this.#receivedBytes), fds: this.#receivedFds };
  }

  /** What waits for room in the socket, while the channel is paused. */
  get unsent(): Uint8Array {
    assert(
      this.#unsent.every(({ fds }) => fds.length === 0),
      'nobody hands over descriptors that were not sent',
    );
    return Buffer.concat(this.#unsent.map(({ bytes }) => bytes));
  }

  /**
   * Reads nothing more, and sends nothing of what waits for room; a message that is being handled is handled to its end,
   * and answered.
   */
  pause(): void {
    this.#isPaused = true;
    this.#watch?.close();
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#retry = null;
  }

  /** Reads on. */
  resume(): void {
    assert(this.#isPaused, 'only a channel that was paused is resumed');
    this.#isPaused = false;
    if (this.#unsent.length > 0) this.#flush();
    if (!this.#isHandling && this.#relief === null) this.#resume();
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** A message was read, and its handler is at work. */
  get isHandling(): boolean {
    return this.#isHandling;
  }

  /** Something waits to be sent because the other end does not read. */
  get isFull(): boolean {
    return this.#unsent.length > 0;
  }

  /** Sends a message; descriptors go with its first byte and stay the caller's. Once the channel ended: nothing. */
  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    if (!this.#isOpen || this.#peerIsGone) return;
    const sentBytes = this.#unsent.length > 0 ? 0 : this.#trySend(bytes, fds);
    if (sentBytes === null || sentBytes === bytes.length) return;
    this.#unsentBytes += bytes.length - sentBytes;
    if (this.#unsentBytes > this.#role.unsentBytesMax) {
      this.end(`the ${this.#role.peer} does not read its ${this.#whatPeerReads()}`);
      return;
    }
    // Descriptors have gone with the first byte, if any went.
    this.#unsent.push({ bytes: bytes.slice(sentBytes), fds: sentBytes > 0 ? [] : fds.map(duplicateFd) });
    if (!this.#isPaused) this.#retry ??= setTimeout(() => this.#flush(), FULL_SOCKET_MS);
  }

  /** Closes the socket, once. A message being handled is finished by its handler; what it sends goes nowhere. */
  end(reason: string): void {
    this.#end(reason, 'broken');
  }

  #end(reason: string, end: ChannelEnd): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#watch?.close();
    if (this.#relief !== null) clearTimeout(this.#relief);
    this.#forgetUnsent();
    // Otherwise it is the handler's message that holds descriptors, and none came after it.
    if (!this.#isHandling) this.#peerFds.closeRest(this.#receivedFds);
    this.#receivedFds = [];
    this.#peerFds.closeConnection(this.#fd);
    this.#onEnd(reason, end);
  }

  #whatPeerReads(): string {
    return this.#role.accepts === 'requests' ? 'replies' : 'requests';
  }

  /** How many bytes went out; null when nothing can be sent any more. */
  #trySend(bytes: Uint8Array, fds: readonly number[]): number | null {
    try {
      return send(this.#fd, bytes, fds);
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#peerIsGone = GONE.has(error.code);
      if (!this.#peerIsGone) this.end(`the connection broke: ${error.message}`);
      this.#forgetUnsent();
      return null;
    }
  }

  #flush(): void {
    this.#retry = null;
    for (let next = this.#unsent.shift(); next !== undefined; next = this.#unsent.shift()) {
      const sentBytes = this.#trySend(next.bytes, next.fds);
      if (sentBytes === null || sentBytes > 0) closeFds(next.fds);
      if (sentBytes === null) return;
      this.#unsentBytes -= sentBytes;
      if (sentBytes === next.bytes.length) continue;
      const fds = sentBytes > 0 ? [] : next.fds;
      this.#unsent.unshift({ bytes: next.bytes.subarray(sentBytes), fds });
      this.#retry = setTimeout(() => this.#flush(), FULL_SOCKET_MS);
      return;
    }
  }

  #forgetUnsent(): void {
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#retry = null;
    for (const { fds } of this.#unsent) closeFds(fds);
    this.#unsent = [];
    this.#unsentBytes = 0;
  }

  #listen(): void {
    this.#watch = descriptorLoop().watch(this.#fd, () => {
      this.#handledThisTurn = 0;
      this.#pump();
    });
  }

  /** Handles what has come, until there is no whole message, a handler needs time or others must have their turn. */
  #pump(): void {
    while (this.#isOpen && !this.#isHandling && !this.#isPaused) {
      if (this.#mustBreathe()) {
        this.#breathe();
        return;
      }
      if (this.#peerFds.isCongested) {
        this.#waitForRelief();
        return;
      }
      const message = this.#nextMessage();
      if (message === null) return;
      this.#handledThisTurn++;
      const handled = this.#onMessage(message);
      if (handled !== undefined) this.#waitFor(handled);
    }
  }

  /** Not watched meanwhile: the set is level triggered and would wake us for what we do not read yet. */
  #waitFor(handled: Promise<void>): void {
    this.#isHandling = true;
    this.#watch?.close();
    void handled.then(() => {
      this.#isHandling = false;
      this.#resume();
    });
  }

  /** One message a turn is always handled. */
  #mustBreathe(): boolean {
    if (this.#handledThisTurn >= MESSAGES_PER_TURN) return true;
    return turnBudget().isSpent() && this.#handledThisTurn > 0;
  }

  /** Handlers often settle at once, and Node runs settled promises before everything else: so count over them too. */
  #breathe(): void {
    this.#watch?.close();
    setImmediate(() => {
      this.#handledThisTurn = 0;
      this.#resume();
    });
  }

  /** Whoever sends descriptors faster than they can be closed is read later, or not at all if he holds that up. */
  #waitForRelief(): void {
    const { hangText } = this.#peerFds;
    if (hangText !== null) {
      this.end(hangText);
      return;
    }
    this.#watch?.close();
    this.#relief = setTimeout(() => {
      this.#relief = null;
      this.#handledThisTurn = 0;
      this.#resume();
    }, CONGESTED_MS);
  }

  #resume(): void {
    if (!this.#isOpen || this.#isPaused) return;
    this.#watch?.close();
    this.#listen();
    this.#pump();
  }

  #nextMessage(): Message | null {
    try {
      return this.#assemble();
    } catch (error) {
      if (![PeerError, HostError, BudgetError].some((type) => error instanceof type)) throw error;
      this.#end((error as Error).message, error instanceof PeerLeft ? 'left' : 'broken');
      return null;
    }
  }

  #assemble(): Message | null {
    if (this.#receivedBytes < HEADER_BYTES && !this.#fill(HEADER_BYTES)) return null;
    const header = decodeHeader(this.#received.subarray(0, HEADER_BYTES));
    checkHeader(header, this.#role);
    const messageBytes = HEADER_BYTES + header.sizeBytes;
    if (this.#receivedBytes < messageBytes && !this.#fill(messageBytes)) return null;
    const payload = this.#received.slice(HEADER_BYTES, messageBytes);
    const message = { header, payload, fds: this.#receivedFds };
    this.#receivedBytes = 0;
    this.#receivedFds = [];
    return message;
  }

  /** False: there is nothing to be read. */
  #tellReading(): boolean {
    if (this.#onReading === null) return true;
    if (pollFd(this.#fd, POLLIN, 0) === 0) return false;
    this.#onReading();
    return true;
  }

  /** Reads until `wantedBytes` of the message are here, and never beyond them; false when the rest has not come. */
  #fill(wantedBytes: number): boolean {
    while (this.#receivedBytes < wantedBytes) {
      if (!this.#tellReading()) return false;
      const { bytes, fds, closed, truncated } = this.#peerFds.receive(
        this.#fd,
        wantedBytes - this.#receivedBytes,
      );
      const isFirstByte = this.#receivedBytes === 0;
      this.#receivedFds.push(...fds);
      if (truncated) {
        throw new PeerError(
          'descriptors were cut off: too many came, or this process may open no more files',
        );
      }
      if (this.#receivedFds.length > FDS_MAX) {
        throw new PeerError(`a message carried more than ${FDS_MAX} descriptors`);
      }
      if (fds.length > 0 && !isFirstByte) {
        throw new PeerError('descriptors came with the middle of a message instead of its first byte');
      }
      if (closed) {
        if (isFirstByte) throw new PeerLeft(`the ${this.#role.peer} closed the connection`);
        throw new PeerError('the connection ended within a message');
      }
      if (bytes.length === 0) return false;
      this.#received.set(bytes, this.#receivedBytes);
      this.#receivedBytes += bytes.length;
    }
    return true;
  }
}

function checkHeader({ request, flags, sizeBytes }: Header, { accepts }: ChannelRole): void {
  const version = flags & FLAG_VERSION_MASK;
  if (version !== FLAG_VERSION) {
    throw new PeerError(`message ${request} is of protocol version ${version}, not 1`);
  }
  const isReply = (flags & FLAG_REPLY) !== 0;
  if (isReply && accepts === 'requests') throw new PeerError(`message ${request} is marked as a reply`);
  if (!isReply && accepts === 'replies') throw new PeerError(`message ${request} is not marked as a reply`);
  if (sizeBytes > PAYLOAD_BYTES_MAX) {
    throw new PeerError(`message ${request} announces a payload of ${sizeBytes} bytes`);
  }
}
