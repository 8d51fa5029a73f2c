/**
 * Asking and awaiting: sends requests over a channel that accepts replies, and matches what comes to what was
 * asked, in order, because replies come in the order of their requests. The front-end asks so, and a back-end over the
 * channel that SET_BACKEND_REQ_FD brings it (src/device/in-band.ts), with another table of requests.
 * The thread of its channel. vhost-user.rst, "Communication" and REPLY_ACK.
 */
import assert from 'node:assert/strict';
import { type BodyValues, decodeBody, encodeBody, encodeMessage } from '../../protocol/vhost-user/codec.ts';
import { type Body, FLAG_NEED_REPLY, FLAG_REPLY, FLAG_VERSION } from '../../protocol/vhost-user/messages.ts';
import { closeFds } from '../host/descriptor.ts';
import type { PeerFds } from '../host/peer-fds.ts';
import { Channel, type ChannelRole, type HalfRead, type Message } from './channel.ts';

/** A row of a table of requests, as far as asking needs it. */
export type RequestSpec = { readonly id: number; readonly body: Body; readonly reply: Body | null };

export type RequestOptions = {
  /** Descriptors to send along; the caller keeps them. */
  readonly fds?: readonly number[];
  /** Ask for an acknowledgement (REPLY_ACK); default: `replyAck`. */
  readonly needReply?: boolean;
};

/** A connection as another process had it: nothing is read or sent before `resume`. */
export type HandedRequests = { readonly halfRead: HalfRead; readonly unsent: Uint8Array };

type Pending = { resolve(message: Message): void; reject(error: Error): void };

export class Requests {
  /** Whether requests without a reply of their own ask for an acknowledgement. */
  replyAck = false;
  readonly #peer: ChannelRole['peer'];
  readonly #toError: (reason: string) => Error;
  readonly #channel: Channel;
  readonly #peerFds: PeerFds | null;
  readonly #pending: Pending[] = [];
  #endReason: string | null = null;

  /**
   * Takes over `fd`. `toError` makes what callers get when the other end refuses, hangs up or gives no proper
   * answer. `onEnd` is called once, when the connection has ended from either side. `peerFds` closes what an other end
   * sends that is not trusted.
   */
  constructor(
    fd: number,
    role: ChannelRole,
    toError: (reason: string) => Error,
    onEnd: (reason: string) => void,
    peerFds: PeerFds | null = null,
    handed: HandedRequests | null = null,
  ) {
    assert.equal(role.accepts, 'replies', 'who asks must accept replies');
    this.#peer = role.peer;
    this.#toError = toError;
    this.#peerFds = peerFds;
    this.#channel = new Channel(
      fd,
      role,
      (message) => this.#settleOldest(message),
      (reason) => {
        this.#endReason = reason;
        for (const pending of this.#pending.splice(0)) pending.reject(this.#ended());
        onEnd(reason);
      },
      peerFds ?? undefined,
      handed?.halfRead,
      handed?.unsent,
    );
  }

  get fd(): number {
    return this.#channel.fd;
  }

  get isOpen(): boolean {
    return this.#channel.isOpen;
  }

  /** Something waits to be sent because the other end does not read. */
  get isFull(): boolean {
    return this.#channel.isFull;
  }

  /** Reads nothing, and sends nothing of what waits for room; nothing is to be asked. */
  pause(): void {
    this.#channel.pause();
  }

  resume(): void {
    this.#channel.resume();
  }

  /** While it is paused; null: it has ended. Descriptors that came are left out: no answer has any. */
  handOver(): (HandedRequests & { readonly fd: number }) | null {
    if (!this.isOpen) return null;
    const { fd, halfRead, unsent } = this.#channel;
    return { fd, halfRead: { ...halfRead, fds: [] }, unsent };
  }

  /**
   * Sends a request and waits for its reply, or for the acknowledgement if one is asked for. Answers the reply's
   * body; null where the request has none. `name` is for reasons.
   * @throws what `toError` makes, when the other end refuses or hangs up
   */
  async ask(
    name: string,
    spec: RequestSpec,
    body: BodyValues[Body],
    options: RequestOptions = {},
  ): Promise<BodyValues[Body]> {
    const wantsAck = spec.reply === null && (options.needReply ?? this.replyAck);
    const flags = wantsAck || options.needReply === true ? FLAG_NEED_REPLY : 0;
    this.sendRaw(encodeMessage(spec.id, flags, encodeBody(spec.body, body as never)), options.fds);
    if (spec.reply === null && !wantsAck) return null;
    return this.answer(name, spec);
  }

  /** What was asked is answered next, after what is awaited already; by `ask`, or by another process. @throws as `ask` */
  async answer(name: string, spec: RequestSpec): Promise<BodyValues[Body]> {
    const { header, payload, fds } = await this.nextMessage();
    // No request that is asked so far is answered with descriptors.
    this.#close(fds);
    if (header.request !== spec.id || header.flags !== (FLAG_VERSION | FLAG_REPLY)) {
      this.end(`the ${this.#peer} answered ${name} with request ${header.request}, flags ${header.flags}`);
      throw this.#ended();
    }
    if (spec.reply !== null) return decodeBody(spec.reply, payload);
    const status = decodeBody('u64', payload);
    if (status !== 0n) throw this.#toError(`the ${this.#peer} refused ${name} (status ${status})`);
    return null;
  }

  /** Sends bytes as they are; descriptors go with the first one and stay the caller's. */
  sendRaw(bytes: Uint8Array, fds: readonly number[] = []): void {
    this.#channel.send(bytes, fds);
  }

  /** The next message that comes, whatever it answers. The caller owns its descriptors. @throws as `ask` */
  nextMessage(): Promise<Message> {
    return new Promise((resolve, reject) => {
      if (this.isOpen) this.#pending.push({ resolve, reject });
      else reject(this.#ended());
    });
  }

  end(reason: string): void {
    this.#channel.end(reason);
  }

  #settleOldest(message: Message): void {
    const pending = this.#pending.shift();
    if (pending !== undefined) {
      pending.resolve(message);
      return;
    }
    this.#close(message.fds);
    this.end(`the ${this.#peer} sent message ${message.header.request} that nothing asked for`);
  }

  #close(fds: readonly number[]): void {
    if (this.#peerFds === null) closeFds(fds);
    else this.#peerFds.closeRest(fds);
  }

  #ended(): Error {
    return this.#toError(this.#endReason ?? 'the connection has ended');
  }
}
