/**
 * One vhost-user connection seen from the front-end: requests out, replies in, in order. Knows the form of
 * messages (protocol tables), not what they do; src/frontend/ does the handshake. The thread that plays the
 * guest. vhost-user.rst, "Message Specification" and "Reply handling".
 */
import type { BodyValues } from '../../protocol/vhost-user/codec.ts';
import {
  type Body,
  type BodyOf,
  MESSAGES,
  type MessageName,
  type ReplyOf,
} from '../../protocol/vhost-user/messages.ts';
import { closeFd } from '../host/descriptor.ts';
import { HostError } from '../host/errors.ts';
import { descriptorLoop } from '../host/event-loop.ts';
import { acceptUnix, connectUnix, listenUnix } from '../host/unix-socket.ts';
import { FRONT_END_ROLE } from './channel.ts';
import { type RequestOptions, Requests } from './requests.ts';

/** The back-end ended the connection, refused a request, or answered something that is no answer. */
export class BackEndError extends Error {
  override name = 'BackEndError';
}

/** What `request` resolves to: the message's own reply, or null for a message that has none. */
export type ReplyValue<Name extends MessageName> =
  ReplyOf<Name> extends Body ? BodyValues[ReplyOf<Name>] : null;

/** A message as it came. The caller owns `fds`. */
export type RawMessage = {
  readonly request: number;
  readonly flags: number;
  readonly payload: Uint8Array;
  readonly fds: number[];
};

export type ReachOptions = {
  /** How long to try until the socket is served (client), or to wait for a connection (server); default 0: try once. */
  readonly waitMs?: number;
  readonly signal?: AbortSignal;
};

const RETRY_MS_FIRST = 5;
const RETRY_MS_MAX = 200;

export class FrontEndSession {
  /** Resolves when the connection has ended, from either side. */
  readonly closed: Promise<void>;
  readonly #requests: Requests;

  /** Takes over a connected stream socket. */
  constructor(fd: number) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#requests = new Requests(
      fd,
      FRONT_END_ROLE,
      (reason) => new BackEndError(reason),
      () => resolve(),
    );
  }

  /** Connects to a back-end that listens. @throws HostError when nobody serves `path` within `waitMs` */
  static async connect(path: string, options: ReachOptions = {}): Promise<FrontEndSession> {
    const deadlineMs = performance.now() + (options.waitMs ?? 0);
    for (let pauseMs = RETRY_MS_FIRST; ; pauseMs = Math.min(pauseMs * 2, RETRY_MS_MAX)) {
      options.signal?.throwIfAborted();
      try {
        return new FrontEndSession(connectUnix(path));
      } catch (error) {
        if (!isNotServedYet(error) || performance.now() >= deadlineMs) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }

  /** Listens at `path` for one back-end; the socket file stays until the caller removes it. */
  static async accept(path: string, options: ReachOptions = {}): Promise<FrontEndSession> {
    const listenFd = listenUnix(path);
    try {
      return new FrontEndSession(await acceptOne(listenFd, path, options));
    } finally {
      closeFd(listenFd);
    }
  }

  get isClosed(): boolean {
    return !this.#requests.isOpen;
  }

  /** Whether requests without a reply of their own ask for an acknowledgement. */
  get replyAck(): boolean {
    return this.#requests.replyAck;
  }

  set replyAck(asks: boolean) {
    this.#requests.replyAck = asks;
  }

  /**
   * Sends a request and waits for its reply, or for the acknowledgement if one is asked for.
   * @throws BackEndError when the back-end refuses or hangs up
   */
  async request<Name extends MessageName>(
    name: Name,
    body: BodyValues[BodyOf<Name>],
    options?: RequestOptions,
  ): Promise<ReplyValue<Name>> {
    // The table pairs a name with the body of its reply, which the compiler cannot follow here.
    return (await this.#requests.ask(name, MESSAGES[name], body, options)) as ReplyValue<Name>;
  }

  /** Sends bytes as they are; descriptors go with the first one and stay the caller's. Hostile tests use it. */
  sendRaw(bytes: Uint8Array, fds: readonly number[] = []): void {
    this.#requests.sendRaw(bytes, fds);
  }

  /** The next reply that comes, whatever it answers. @throws BackEndError when the connection ends first */
  async rawReply(): Promise<RawMessage> {
    const { header, payload, fds } = await this.#requests.nextMessage();
    return { request: header.request, flags: header.flags, payload, fds };
  }

  close(): void {
    this.#requests.end('the connection was closed on this side');
  }
}

function isNotServedYet(error: unknown): boolean {
  return error instanceof HostError && ['ENOENT', 'ECONNREFUSED', 'EAGAIN'].includes(error.code);
}

function acceptOne(listenFd: number, path: string, { waitMs, signal }: ReachOptions): Promise<number> {
  return new Promise((resolve, reject) => {
    const end = (finish: () => void): void => {
      watch.close();
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      finish();
    };
    const onAbort = (): void => end(() => reject(signal?.reason));
    const watch = descriptorLoop().watch(listenFd, () => {
      const fd = acceptUnix(listenFd);
      if (fd !== null) end(() => resolve(fd));
    });
    const timer = setTimeout(
      () => end(() => reject(new BackEndError(`no back-end connected to ${path}`))),
      // Node's timers reach 2^31 - 1 ms; a wait without end is that long.
      Math.min(waitMs ?? 0, 2 ** 31 - 1),
    );
    signal?.addEventListener('abort', onAbort);
  });
}
