/**
 * The contract between the back-end's side of a connection (back-end.ts) and the device behind it: one handler a
 * message, typed by the table in protocol/, so that a message without a handler does not compile. Handlers get
 * messages of good form, one at a time, on the main thread; they throw a PeerError to refuse one.
 */
import type { BodyValues } from '../../protocol/vhost-user/codec.ts';
import type { Body, BodyOf, MessageName, ReplyOf } from '../../protocol/vhost-user/messages.ts';
import type { IncomingFds } from './incoming-fds.ts';

/** What a message's own reply carries. The session takes over the descriptors and closes them once they are sent. */
export type Answer<B extends Body> = { readonly body: BodyValues[B]; readonly fds: readonly number[] };

export function answer<Value>(
  body: Value,
  fds: readonly number[] = [],
): { body: Value; fds: readonly number[] } {
  return { body, fds };
}

/** An answer where the message has a reply of its own, nothing otherwise. */
type Outcome<Name extends MessageName> =
  ReplyOf<Name> extends Body ? Answer<ReplyOf<Name>> | Promise<Answer<ReplyOf<Name>>> : void | Promise<void>;

export type Handlers = {
  readonly [Name in MessageName]: (body: BodyValues[BodyOf<Name>], fds: IncomingFds) => Outcome<Name>;
};

/** What a connection needs of the device that it drives. */
export type BackEnd = {
  /** Negotiated: they gate messages and acknowledgements. */
  readonly protocolFeatures: bigint;
  readonly features: bigint;
  readonly handlers: Handlers;
};

/** Calls the handler of `name`. The table pairs names with bodies, which the compiler cannot follow here. */
export function handle(
  handlers: Handlers,
  name: MessageName,
  body: BodyValues[Body],
  fds: IncomingFds,
): Answer<Body> | undefined | Promise<Answer<Body> | undefined> {
  const handler = handlers[name] as (
    body: BodyValues[Body],
    fds: IncomingFds,
  ) => Answer<Body> | undefined | Promise<Answer<Body> | undefined>;
  return handler(body, fds);
}
