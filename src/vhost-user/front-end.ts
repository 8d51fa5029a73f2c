/**
 * One vhost-user connection seen from the front-end: requests out, replies in, in order. Knows the form of
 * messages (protocol tables), not what they do; net-device.ts does the handshake. Main thread of the process
 * that plays the guest. vhost-user.rst, "Message Specification" and "Reply handling".
 */
import {
  type BodyValues,
  decodeBody,
  decodeHeader,
  encodeBody,
  encodeMessage,
} from '../../protocol/vhost-user/codec.ts';
import {
  type Body,
  type BodyOf,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  FLAG_VERSION,
  HEADER_BYTES,
  MESSAGES,
  type MessageName,
  PAYLOAD_BYTES_MAX,
  type ReplyOf,
} from '../../protocol/vhost-user/messages.ts';
import { closeFd, closeFds } from '../host/descriptor.ts';
import { HostError } from '../host/errors.ts';
import { descriptorLoop, type Watch } from '../host/event-loop.ts';
import { acceptUnix, connectUnix, listenUnix, receive, send } from '../host/unix-socket.ts';

/** The back-end ended the connection, refused a request, or answered something that is no answer. */
export class BackEndError extends Error {
  override name = 'BackEndError';
}

/** What `request` resolves to: the message's own reply, or null for a message that has none. */
export type ReplyValue<Name extends MessageName> =
  ReplyOf<Name> extends Body ? BodyValues[ReplyOf<Name>] : null;

export type RequestOptions = {
  /** Descriptors to send along; the caller keeps them. */
  readonly fds?: readonly number[];
  /** Ask for an acknowledgement (REPLY_ACK); default: the session's `replyAck`. */
  readonly needReply?: boolean;
};

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
/** Between two looks at a socket that was full. */
const FULL_SOCKET_MS = 1;

type Pending = { resolve(message: RawMessage): void; reject(error: Error): void };
type Outgoing = { bytes: Uint8Array; fds: readonly number[] };

export class FrontEndSession {
  /** Resolves when the connection has ended, from either side. */
  readonly closed: Promise<void>;
  /** Whether requests without a reply of their own ask for an acknowledgement. */
  replyAck = false;
  readonly #fd: number;
  readonly #watch: Watch;
  readonly #pending: Pending[] = [];
  readonly #outgoing: Outgoing[] = [];
  #received: Uint8Array = new Uint8Array(0);
  #receivedFds: number[] = [];
  #retry: NodeJS.Timeout | null = null;
  #isClosed = false;
  #resolveClosed!: () => void;

  /** Takes over a connected stream socket. */
  constructor(fd: number) {
    this.#fd = fd;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.#watch = descriptorLoop().watch(fd, () => this.#onReadable());
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
    return this.#isClosed;
  }

  /**
   * Sends a request and waits for its reply, or for the acknowledgement if one is asked for.
   * @throws BackEndError when the back-end refuses or hangs up
   */
  async request<Name extends MessageName>(
    name: Name,
    body: BodyValues[BodyOf<Name>],
    options: RequestOptions = {},
  ): Promise<ReplyValue<Name>> {
    const spec = MESSAGES[name];
    const acknowledged = spec.reply === null && (options.needReply ?? this.replyAck);
    const asksForAck = acknowledged || options.needReply === true;
    const payload = encodeBody(spec.body, body as never);
    this.sendRaw(encodeMessage(spec.id, asksForAck ? FLAG_NEED_REPLY : 0, payload), options.fds ?? []);
    if (spec.reply === null && !acknowledged) return null as ReplyValue<Name>;
    const reply = await this.rawReply();
    closeFds(reply.fds);
    if (reply.request !== spec.id || reply.flags !== (FLAG_VERSION | FLAG_REPLY)) {
      throw this.#broken(`answered ${name} with request ${reply.request}, flags ${reply.flags}`);
    }
    if (!acknowledged) return decodeBody(spec.reply as Body, reply.payload) as ReplyValue<Name>;
    const status = decodeBody('u64', reply.payload);
    if (status !== 0n) throw new BackEndError(`the back-end refused ${name} (status ${status})`);
    return null as ReplyValue<Name>;
  }

  /** Sends bytes as they are; descriptors go with the first one and stay the caller's. Hostile tests use it. */
  sendRaw(bytes: Uint8Array, fds: readonly number[] = []): void {
    if (this.#isClosed) return;
    this.#outgoing.push({ bytes, fds });
    this.#flush();
  }

  /** The next message that comes, whatever it is. @throws BackEndError when the connection ends first */
  rawReply(): Promise<RawMessage> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) reject(new BackEndError('the back-end closed the connection'));
      else this.#pending.push({ resolve, reject });
    });
  }

  close(): void {
    this.#end(new BackEndError('the connection was closed on this side'));
  }

  #onReadable(): void {
    while (!this.#isClosed) {
      const received = this.#read();
      if (received === null) return;
      this.#receivedFds.push(...received.fds);
      this.#received = Buffer.concat([this.#received, received.bytes]);
      this.#dispatch();
      if (received.closed) this.#end(new BackEndError('the back-end closed the connection'));
    }
  }

  #read(): ReturnType<typeof receive> | null {
    try {
      const received = receive(this.#fd, HEADER_BYTES + PAYLOAD_BYTES_MAX);
      return received.bytes.length === 0 && !received.closed ? null : received;
    } catch (error) {
      this.#end(error instanceof Error ? error : new Error(String(error)));
      return null;
    }
  }

  #dispatch(): void {
    while (this.#received.length >= HEADER_BYTES) {
      const { request, flags, sizeBytes } = decodeHeader(this.#received);
      if (sizeBytes > PAYLOAD_BYTES_MAX) {
        this.#broken(`sent a message of ${sizeBytes} bytes`);
        return;
      }
      if (this.#received.length < HEADER_BYTES + sizeBytes) return;
      const payload = this.#received.slice(HEADER_BYTES, HEADER_BYTES + sizeBytes);
      this.#received = this.#received.subarray(HEADER_BYTES + sizeBytes);
      const fds = this.#receivedFds;
      this.#receivedFds = [];
      const pending = this.#pending.shift();
      if (pending === undefined) {
        closeFds(fds);
        this.#broken(`sent message ${request} that nothing asked for`);
        return;
      }
      pending.resolve({ request, flags, payload: Uint8Array.from(payload), fds });
    }
  }

  #flush(): void {
    this.#retry = null;
    while (this.#outgoing.length > 0 && !this.#isClosed) {
      const next = this.#outgoing[0];
      let sentBytes: number;
      try {
        sentBytes = send(this.#fd, next.bytes, next.fds);
      } catch (error) {
        // What the back-end answered before it hung up can still be read: the reading side ends the session.
        if (error instanceof HostError) this.#outgoing.length = 0;
        else throw error;
        return;
      }
      if (sentBytes === next.bytes.length) this.#outgoing.shift();
      else if (sentBytes > 0) this.#outgoing[0] = { bytes: next.bytes.subarray(sentBytes), fds: [] };
      else {
        this.#retry = setTimeout(() => this.#flush(), FULL_SOCKET_MS);
        return;
      }
    }
  }

  #broken(what: string): BackEndError {
    const error = new BackEndError(`the back-end ${what}`);
    this.#end(error);
    return error;
  }

  #end(error: Error): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#watch.close();
    closeFd(this.#fd);
    closeFds(this.#receivedFds);
    for (const pending of this.#pending.splice(0)) pending.reject(error);
    this.#resolveClosed();
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
