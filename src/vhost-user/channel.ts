/**
 * One vhost-user connection: bytes and descriptors to whole messages and back, in order, one at a time. It
 * owns the socket and every descriptor until it hands them to the handler. Form of the stream only; what a
 * message means is the session's business. Main thread. vhost-user.rst, "Message Specification", "Header".
 */
import { decodeHeader, encodeMessage, type Header } from '../../protocol/vhost-user/codec.ts';
import {
  FDS_MAX,
  FLAG_REPLY,
  FLAG_VERSION,
  FLAG_VERSION_MASK,
  HEADER_BYTES,
  PAYLOAD_BYTES_MAX,
} from '../../protocol/vhost-user/messages.ts';
import { closeFd, closeFds } from '../host/descriptor.ts';
import { HostError } from '../host/errors.ts';
import { descriptorLoop, type Watch } from '../host/event-loop.ts';
import { receive, send } from '../host/unix-socket.ts';
import { PeerError } from './peer-error.ts';

export type Message = { readonly header: Header; readonly payload: Uint8Array; readonly fds: number[] };

/** Takes over the message's descriptors. A promise keeps further messages waiting until it settles. */
export type MessageHandler = (message: Message) => void | Promise<void>;

export class Connection {
  readonly #fd: number;
  readonly #onMessage: MessageHandler;
  readonly #onEnd: (reason: string) => void;
  #watch: Watch | null = null;
  #open = true;
  #handling = false;
  /** What has come of the current message. */
  #received = new Uint8Array(HEADER_BYTES + PAYLOAD_BYTES_MAX);
  #receivedBytes = 0;
  #fds: number[] = [];

  /** Takes over `fd`. `onEnd` is called once, with the reason, after the socket is closed. */
  constructor(fd: number, onMessage: MessageHandler, onEnd: (reason: string) => void) {
    this.#fd = fd;
    this.#onMessage = onMessage;
    this.#onEnd = onEnd;
    this.#listen();
  }

  /** Sends a reply to `header`: its request, version 1 and the reply flag alone. */
  reply(header: Header, payload: Uint8Array, fds: readonly number[] = []): void {
    const message = encodeMessage(header.request, FLAG_REPLY, payload);
    if (!this.#open) return;
    try {
      if (send(this.#fd, message, fds) !== message.length)
        this.end('the front-end does not read its replies');
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.end(`the connection broke: ${error.message}`);
    }
  }

  /** Closes the connection. A message being handled is finished by its handler, whose reply goes nowhere. */
  end(reason: string): void {
    if (!this.#open) return;
    this.#open = false;
    this.#watch?.close();
    closeFds(this.#fds);
    this.#fds = [];
    closeFd(this.#fd);
    this.#onEnd(reason);
  }

  #listen(): void {
    this.#watch = descriptorLoop().watch(this.#fd, () => this.#pump());
  }

  /** Handles what has come, until there is no whole message or a handler needs time. */
  #pump(): void {
    while (this.#open && !this.#handling) {
      const message = this.#nextMessage();
      if (message === null) return;
      const handled = this.#onMessage(message);
      if (handled !== undefined) this.#waitFor(handled);
    }
  }

  /** Not watched meanwhile: the set is level triggered and would wake us for what we do not read yet. */
  #waitFor(handled: Promise<void>): void {
    this.#handling = true;
    this.#watch?.close();
    void handled.then(() => {
      this.#handling = false;
      if (!this.#open) return;
      this.#listen();
      this.#pump();
    });
  }

  #nextMessage(): Message | null {
    try {
      return this.#assemble();
    } catch (error) {
      if (!(error instanceof PeerError || error instanceof HostError)) throw error;
      this.end(error.message);
      return null;
    }
  }

  #assemble(): Message | null {
    if (this.#receivedBytes < HEADER_BYTES && !this.#fill(HEADER_BYTES)) return null;
    const header = decodeHeader(this.#received.subarray(0, HEADER_BYTES));
    checkHeader(header);
    const messageBytes = HEADER_BYTES + header.sizeBytes;
    if (this.#receivedBytes < messageBytes && !this.#fill(messageBytes)) return null;
    const message = { header, payload: this.#received.slice(HEADER_BYTES, messageBytes), fds: this.#fds };
    this.#receivedBytes = 0;
    this.#fds = [];
    return message;
  }

  /** Reads until `wantedBytes` of the message are here; false when the rest has not come. */
  #fill(wantedBytes: number): boolean {
    while (this.#receivedBytes < wantedBytes) {
      const { bytes, fds, closed, truncated } = receive(this.#fd, wantedBytes - this.#receivedBytes);
      const atStart = this.#receivedBytes === 0;
      this.#fds.push(...fds);
      if (truncated) {
        throw new PeerError(
          'descriptors were cut off: too many came, or this process may open no more files',
        );
      }
      if (this.#fds.length > FDS_MAX) {
        throw new PeerError(`a message carried more than ${FDS_MAX} descriptors`);
      }
      if (fds.length > 0 && !atStart) {
        throw new PeerError('descriptors came with the middle of a message instead of its first byte');
      }
      if (closed) {
        throw new PeerError(
          atStart ? 'the front-end closed the connection' : 'the connection ended within a message',
        );
      }
      if (bytes.length === 0) return false;
      this.#received.set(bytes, this.#receivedBytes);
      this.#receivedBytes += bytes.length;
    }
    return true;
  }
}

function checkHeader(header: Header): void {
  if ((header.flags & FLAG_VERSION_MASK) !== FLAG_VERSION) {
    throw new PeerError(
      `message ${header.request} is of protocol version ${header.flags & FLAG_VERSION_MASK}, not 1`,
    );
  }
  if ((header.flags & FLAG_REPLY) !== 0)
    throw new PeerError(`message ${header.request} is marked as a reply`);
  if (header.sizeBytes > PAYLOAD_BYTES_MAX) {
    throw new PeerError(`message ${header.request} announces a payload of ${header.sizeBytes} bytes`);
  }
}
