/**
 * Between a connection and the handlers: checks each message against the table (known, negotiated, size,
 * descriptors), calls its handler, and sends what is owed: the message's own reply with its descriptors, or with
 * REPLY_ACK an acknowledgement, never both. What a handler refuses becomes a nack where one was asked for,
 * otherwise the end of the connection. Main thread. vhost-user.rst, "Communication".
 */
import assert from 'node:assert/strict';
import { hasBit } from '../../protocol/bits.ts';
import { decodeBody, encodeBody, encodeMessage, FormError } from '../../protocol/vhost-user/codec.ts';
import { PROTOCOL_FEATURE } from '../../protocol/vhost-user/features.ts';
import {
  type Body,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  MESSAGES,
  type MessageName,
  type MessageSpec,
  messageName,
  VRING_FD_NONE,
} from '../../protocol/vhost-user/messages.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import { closeFds } from '../host/descriptor.ts';
import { HostError } from '../host/errors.ts';
import { PeerFds } from '../host/peer-fds.ts';
import { MemoryError } from '../memory/peer-mapping.ts';
import { BACK_END_ROLE, Channel, type ChannelEnd, type HalfRead, type Message } from './channel.ts';
import { type Answer, type BackEnd, handle } from './handlers.ts';
import { IncomingFds } from './incoming-fds.ts';
import { PeerError } from './peer-error.ts';

export type SessionEvents = {
  /** The first message has come; it is not handled yet. */
  readonly onBegin?: () => void;
  /** Something is about to be taken from the connection. */
  readonly onReading?: () => void;
  /** A message was refused but the connection goes on. */
  readonly onRefused: (reason: string) => void;
  /** The connection is closed; the device still holds its rings and memory. */
  readonly onEnd: (reason: string, end: ChannelEnd) => void;
};

/** What is to be known of a connection that is taken over. */
export type HandedSession = { readonly isSilent: boolean; readonly halfRead: HalfRead };

const ACK_DONE = 0n;
const ACK_REFUSED = 1n;

export class Session {
  readonly #backEnd: BackEnd;
  readonly #channel: Channel;
  readonly #events: SessionEvents;
  readonly #peerFds: PeerFds;
  /** Aborted when the connection has ended. */
  readonly #gone = new AbortController();
  /** No message has come. */
  isSilent: boolean;
  /** The message being handled; resolves when it is done with. */
  #current: Promise<void> = Promise.resolve();

  /** Takes over `fd`. `handed`: as another process had it; then nothing is read before `resume`. */
  constructor(
    fd: number,
    backEnd: BackEnd,
    events: SessionEvents,
    peerFds = new PeerFds(),
    handed: HandedSession | null = null,
  ) {
    this.isSilent = handed?.isSilent ?? true;
    this.#backEnd = backEnd;
    this.#events = events;
    this.#peerFds = peerFds;
    this.#channel = new Channel(
      fd,
      BACK_END_ROLE,
      (message) => {
        this.#current = this.#handle(message);
        return this.#current;
      },
      (reason, end) => {
        this.#gone.abort();
        events.onEnd(reason, end);
      },
      peerFds,
      handed?.halfRead,
      undefined,
      events.onReading ?? null,
    );
  }

  /** Aborted when the connection has ended. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  /** A message is being carried out. */
  get isHandling(): boolean {
    return this.#channel.isHandling;
  }

  /** Reads nothing more; resolves when the message that is being handled is answered. */
  async pause(): Promise<void> {
    this.#channel.pause();
    await this.settled();
  }

  /** Reads on. */
  resume(): void {
    this.#channel.resume();
  }

  /** The connection and what was read of it, while no message is being carried out; null: it has ended. */
  handOver(): (HandedSession & { readonly fd: number }) | null {
    const { isSilent } = this;
    const { fd, halfRead, isOpen } = this.#channel;
    return isOpen ? { fd, halfRead, isSilent } : null;
  }

  /** Closes the connection; resolves when the handler that is at work, if any, has come to its end. */
  async end(reason: string): Promise<void> {
    this.#channel.end(reason);
    await this.settled();
  }

  settled(): Promise<void> {
    return this.#current;
  }

  async #handle(message: Message): Promise<void> {
    if (this.isSilent) {
      this.isSilent = false;
      this.#events.onBegin?.();
    }
    const name = messageName(message.header.request);
    const fds = new IncomingFds(message.fds, this.#peerFds, this.#gone.signal);
    let refusal = 'a message with descriptors';
    try {
      if (name === null) throw new PeerError(`message ${message.header.request} is unknown`);
      const spec: MessageSpec = MESSAGES[name];
      this.#checkGate(name, spec);
      checkFds(spec, message);
      const body = decodeBody(spec.body, message.payload);
      this.#reply(name, message, await handle(this.#backEnd.handlers, name, body, fds));
    } catch (error) {
      if (!isRefusal(error)) throw error;
      refusal = error.message;
      this.#refuse(name, message, error.message);
    } finally {
      fds.closeRest();
      if (this.#peerFds.keptCount > 0)
        this.#channel.end(`${refusal}; it is kept open, because closing it may wait too`);
    }
  }

  #checkGate(name: MessageName, { gate, deviceGate }: MessageSpec): void {
    if (deviceGate !== undefined && !hasBit(this.#backEnd.features, VIRTIO_FEATURE[deviceGate])) {
      throw new PeerError(`${name} although ${deviceGate} was not negotiated`);
    }
    if (gate !== null && !hasBit(this.#backEnd.protocolFeatures, PROTOCOL_FEATURE[gate])) {
      throw new PeerError(`${name} although ${gate} was not negotiated`);
    }
  }

  #reply(name: MessageName, message: Message, answer: Answer<Body> | undefined): void {
    const { reply }: MessageSpec = MESSAGES[name];
    assert.equal(
      answer !== undefined,
      reply !== null,
      `what ${name} is answered with is what its table says`,
    );
    if (reply !== null && answer !== undefined) {
      this.#send(message, encodeBody(reply, answer.body as never), answer.fds);
      closeFds(answer.fds);
    } else if (this.#wantsAck(message)) {
      this.#send(message, encodeBody('u64', ACK_DONE));
    }
  }

  #refuse(name: MessageName | null, message: Message, why: string): void {
    // Nobody is there to be told.
    if (!this.#channel.isOpen) return;
    const reason = name === null || why.startsWith(name) ? why : `${name}: ${why}`;
    const hasOwnReply = name !== null && MESSAGES[name].reply !== null;
    if (hasOwnReply || !this.#wantsAck(message)) {
      this.#channel.end(reason);
      return;
    }
    this.#send(message, encodeBody('u64', ACK_REFUSED));
    this.#events.onRefused(reason);
  }

  /** The request's number, version 1 and the reply flag alone, whatever flags the request had. */
  #send({ header }: Message, payload: Uint8Array, fds: readonly number[] = []): void {
    this.#channel.send(encodeMessage(header.request, FLAG_REPLY, payload), fds);
  }

  #wantsAck({ header }: Message): boolean {
    const name = messageName(header.request);
    const { isAlwaysAcked }: Partial<MessageSpec> = name === null ? {} : MESSAGES[name];
    if (isAlwaysAcked === true && hasBit(this.#backEnd.features, VIRTIO_FEATURE.ACCESS_PLATFORM)) return true;
    return (
      (header.flags & FLAG_NEED_REPLY) !== 0 &&
      hasBit(this.#backEnd.protocolFeatures, PROTOCOL_FEATURE.REPLY_ACK)
    );
  }
}

/** The peer's fault or the system's refusal; anything else is a bug of ours and must not be swallowed. */
export function isRefusal(error: unknown): error is Error {
  return (
    error instanceof PeerError ||
    error instanceof FormError ||
    error instanceof MemoryError ||
    error instanceof HostError
  );
}

function checkFds(spec: MessageSpec, message: Message): void {
  const { payload, fds } = message;
  const [least, most] = expectedFds(spec, payload);
  if (fds.length >= least && fds.length <= most) return;
  const expected = least === most ? `${least}` : `${least} or ${most}`;
  throw new PeerError(`${fds.length} descriptors came; ${expected} expected`);
}

/** How few and how many descriptors the message may carry. A payload too short for its form fails later. */
function expectedFds(spec: MessageSpec, payload: Uint8Array): readonly [number, number] {
  switch (spec.fds) {
    case 'none':
      return [0, 0];
    case 'one':
      return [1, 1];
    case 'optionalOne':
      return [0, 1];
    case 'perRegion': {
      const regionCount = payload.length >= 4 ? decodeBody('memTable', payload).length : 0;
      return [regionCount, regionCount];
    }
    case 'unlessPolled': {
      const polled = payload.length === 8 && (decodeBody('u64', payload) & VRING_FD_NONE) !== 0n;
      return polled ? [0, 0] : [1, 1];
    }
  }
}
