/**
 * Between a connection and the handlers: checks each message against the table (known, negotiated, size,
 * descriptors), calls its handler, and sends what is owed: the message's own reply, or with REPLY_ACK an
 * acknowledgement, never both. What a handler refuses becomes a nack where one was asked for, otherwise the
 * end of the connection. Main thread.
 */
import { hasBit } from '../../protocol/bits.ts';
import { type BodyValues, decodeBody, encodeBody, FormError } from '../../protocol/vhost-user/codec.ts';
import { PROTOCOL_FEATURE } from '../../protocol/vhost-user/features.ts';
import {
  type Body,
  FLAG_NEED_REPLY,
  MESSAGES,
  type MessageName,
  type MessageSpec,
  messageName,
  VRING_FD_NONE,
} from '../../protocol/vhost-user/messages.ts';
import type { Device } from '../device/device.ts';
import { handle } from '../device/net/handlers.ts';
import { HostError } from '../host/errors.ts';
import { MemoryError } from '../memory/guest-memory.ts';
import { Connection, type Message } from './channel.ts';
import { IncomingFds } from './incoming-fds.ts';
import { PeerError } from './peer-error.ts';

export type SessionEvents = {
  /** A message was refused but the connection goes on. */
  readonly onRefused: (reason: string) => void;
  /** The connection is closed; the device still holds its rings and memory. */
  readonly onEnd: (reason: string) => void;
};

export class Session {
  readonly #device: Device;
  readonly #connection: Connection;
  readonly #events: SessionEvents;
  /** The message being handled; resolves when it is done with. */
  #current: Promise<void> = Promise.resolve();

  /** Takes over `fd`. */
  constructor(fd: number, device: Device, events: SessionEvents) {
    this.#device = device;
    this.#events = events;
    this.#connection = new Connection(
      fd,
      (message) => {
        this.#current = this.#handle(message);
        return this.#current;
      },
      events.onEnd,
    );
  }

  /** Closes the connection; resolves when the handler that is at work, if any, has come to its end. */
  async end(reason: string): Promise<void> {
    this.#connection.end(reason);
    await this.settled();
  }

  settled(): Promise<void> {
    return this.#current;
  }

  async #handle(message: Message): Promise<void> {
    const name = messageName(message.header.request);
    const fds = new IncomingFds(message.fds);
    try {
      if (name === null) throw new PeerError(`message ${message.header.request} is unknown`);
      const spec: MessageSpec = MESSAGES[name];
      this.#checkGate(name, spec);
      checkFds(spec, message);
      const reply = await handle(name, this.#device, decodeBody(spec.body, message.payload), fds);
      this.#answer(spec.reply, message, reply);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      this.#refuse(name, message, error.message);
    } finally {
      fds.closeRest();
    }
  }

  #checkGate(name: MessageName, { gate }: MessageSpec): void {
    if (gate !== null && !hasBit(this.#device.protocolFeatures, PROTOCOL_FEATURE[gate])) {
      throw new PeerError(`${name} although ${gate} was not negotiated`);
    }
  }

  #answer(replyBody: Body | null, message: Message, reply: BodyValues[Body] | undefined): void {
    if (replyBody !== null) {
      this.#connection.reply(message.header, encodeBody(replyBody, reply as never));
    } else if (this.#wantsAck(message)) {
      this.#connection.reply(message.header, encodeBody('u64', 0n));
    }
  }

  #refuse(name: MessageName | null, message: Message, why: string): void {
    const reason = name === null || why.startsWith(name) ? why : `${name}: ${why}`;
    const hasOwnReply = name !== null && MESSAGES[name].reply !== null;
    if (hasOwnReply || !this.#wantsAck(message)) {
      this.#connection.end(reason);
      return;
    }
    this.#connection.reply(message.header, encodeBody('u64', 1n));
    this.#events.onRefused(reason);
  }

  #wantsAck(message: Message): boolean {
    return (
      (message.header.flags & FLAG_NEED_REPLY) !== 0 &&
      hasBit(this.#device.protocolFeatures, PROTOCOL_FEATURE.REPLY_ACK)
    );
  }
}

/** The peer's fault or the system's refusal; anything else is a bug of ours and must not be swallowed. */
function isRefusal(error: unknown): error is Error {
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
