/**
 * The control API's transport: HTTP on a UNIX socket, without knowledge of the API, and on TCP for the figures. Only the user of this process can
 * connect, so clients are not hostile, but they are forgotten in a debugger, stopped, or leak connections: none of that
 * may keep another one from being answered, hold memory for ever, or take all descriptors. Main thread.
 */
import assert from 'node:assert';
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { getRequestListener, type HttpBindings } from '@hono/node-server';
import { BoundSocket } from '../../src/host/bound-socket.ts';
import { listenUnix } from '../../src/host/unix-socket.ts';
import { ClientStream, EVENTS_TYPE, LASTING_TYPE } from './client-stream.ts';
import { PROBLEM_TYPE, problemText } from './problem.ts';

/** Only the user that runs Ringway (and root) may ask: reports name other users' sockets and addresses. */
const CONTROL_SOCKET_MODE = 0o600;

/** Limits for clients; a test has its own. */
export type ControlLimits = {
  /** Time for a request's head, and for all of it. */
  readonly headMs: number;
  readonly requestMs: number;
  /** A connection on which nothing moves for so long is closed: no request comes, or the answer is not read. */
  readonly idleMs: number;
  /**
   * With one more, the one is closed that has gone longest without a new request; one whose answer lasts only if as many as half
   * do. Where strangers can connect, they would end them otherwise, by connecting.
   */
  readonly connectionsMax: number;
};

const LIMITS: ControlLimits = { headMs: 5000, requestMs: 10_000, idleMs: 30_000, connectionsMax: 64 };
/** An answer that lasts is not read on for so long: by a process that was stopped, and forgotten. */
const STREAM_IDLE_MS = 600_000;
/** How often Node looks for requests that take too long, in parts of the shortest time for one. */
const LOOKS = 5;

/** Answers a request, which came in as `bindings` say; the API's `fetch`. */
export type ControlHandler = {
  readonly fetch: (request: Request, bindings: HttpBindings) => Response | Promise<Response>;
};

/**
 * Serves `api` at the socket until the answered object is closed, which also removes the socket. A socket
 * that no process listens on is taken over; one whose file was removed is made anew, which `warn` is told of.
 * @throws SocketPathError
 */
export async function serveControl(
  socketPath: string,
  api: ControlHandler,
  warn: (message: string) => void = () => {},
  limits: ControlLimits = LIMITS,
  mode = CONTROL_SOCKET_MODE,
): Promise<{ close(): Promise<void> }> {
  const servers = [httpServer(api, limits)];
  // Bound by our own code, which knows stale sockets and sets the mode before anyone can connect.
  const bind = (): number => listenUnix(socketPath, { mode, refusesDescriptors: true });
  const socket = new BoundSocket(socketPath, bind, {
    renewed: (fd) => {
      // It closes its socket, and ends when its last connection does.
      servers[0].close();
      servers.unshift(httpServer(api, limits));
      void listening(servers[0], { fd }).catch((error: Error) => warn(`control API: ${error.message}`));
    },
    info: (message) => warn(`control API: ${message}`),
    warn: (message) => warn(`control API: ${message}`),
  });
  socket.open();
  try {
    await listening(servers[0], { fd: socket.fd });
  } catch (error) {
    socket.release();
    throw error;
  }
  return {
    close: async () => {
      socket.release();
      await Promise.all(servers.map(closed));
    },
  };
}

/** As `serveControl`, at an address and port. @throws Error of Node, with a code */
export async function serveTcp(
  host: string,
  port: number,
  api: ControlHandler,
  limits: ControlLimits = LIMITS,
): Promise<{ readonly port: number; close(): Promise<void> }> {
  const server = httpServer(api, limits);
  await listening(server, { host, port });
  const address = server.address();
  assert(address !== null && typeof address === 'object', 'it listens at an address');
  return { port: address.port, close: () => closed(server) };
}

function httpServer(
  api: ControlHandler,
  { headMs, requestMs, idleMs, connectionsMax }: ControlLimits,
): Server {
  const fetch = async (request: Request, bindings: HttpBindings): Promise<Response> => {
    const response = await api.fetch(request, bindings);
    if ([LASTING_TYPE, EVENTS_TYPE].includes(response.headers.get('Content-Type') ?? '')) {
      const client: unknown = bindings.incoming.socket;
      if (client instanceof ClientStream) client.beginStream(STREAM_IDLE_MS);
    }
    return response;
  };
  const answer = getRequestListener((request, bindings) => fetch(request, bindings as HttpBindings), {
    overrideGlobalObjects: false,
    errorHandler: (error) => refusal(400, error instanceof Error ? error.message : String(error)),
  });
  const turns = new RequestTurns();
  const server = createServer(
    {
      // HTTP/1.0 has none, and clients of UNIX sockets make up all kinds: at this socket there is one host.
      requireHostHeader: false,
      headersTimeout: headMs,
      requestTimeout: requestMs,
      connectionsCheckingInterval: Math.ceil(headMs / LOOKS),
    },
    async (incoming: IncomingMessage, outgoing: ServerResponse) => {
      const client: unknown = incoming.socket;
      assert(client instanceof ClientStream, 'the server is given nothing else');
      connections.asks(client);
      client.begin(incoming, outgoing);
      incoming.headers.host = 'localhost';
      await turns.next();
      if (!outgoing.destroyed) await answer(incoming, outgoing);
    },
  );
  server.timeout = idleMs;
  const connections = new Connections(connectionsMax);
  // In place of Node's own listener, which takes any stream.
  const [serve] = server.listeners('connection');
  server.removeAllListeners('connection');
  server.on('connection', (socket: Socket) => {
    const client = new ClientStream(socket);
    connections.add(client);
    serve.call(server, client);
  });
  server.on('clientError', (error: NodeJS.ErrnoException, client: Duplex) => {
    if (!client.writable || (client as ClientStream).isAnswering) client.destroy();
    else client.end(rawRefusal(error), () => client.destroy());
  });
  return server;
}

/**
 * Requests of all clients: one is handled in each turn of the event loop, however many wait, so that others get their
 * turns between any two of them.
 */
class RequestTurns {
  readonly #waiting: (() => void)[] = [];

  /** Resolves when it is the caller's turn. */
  next(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      if (this.#waiting.length === 1) setImmediate(() => this.#goOn());
    });
  }

  #goOn(): void {
    this.#waiting.shift()?.();
    if (this.#waiting.length > 0) setImmediate(() => this.#goOn());
  }
}

/** Of connections, those that may have an answer that lasts and stay. */
const LASTING_SHARE = 0.5;

/** Those that are open, the one first that has gone longest without a new request. */
class Connections {
  readonly #max: number;
  readonly #clients = new Set<ClientStream>();

  constructor(max: number) {
    this.#max = max;
  }

  add(client: ClientStream): void {
    if (this.#clients.size >= this.#max) {
      const given = this.#givenUp();
      this.#clients.delete(given);
      given.destroy();
    }
    this.#clients.add(client);
    client.once('close', () => this.#clients.delete(client));
  }

  #givenUp(): ClientStream {
    const all = [...this.#clients];
    const others = all.filter(({ isLasting }) => !isLasting);
    return (all.length - others.length > this.#max * LASTING_SHARE ? all : others)[0];
  }

  asks(client: ClientStream): void {
    if (this.#clients.delete(client)) this.#clients.add(client);
  }
}

/** What cannot be understood as a request is refused in the form that all refusals have. */
function rawRefusal(error: NodeJS.ErrnoException): string {
  const [status, text] = REFUSALS[error.code ?? ''] ?? [400, `no HTTP request: ${error.message}`];
  const body = problemText(status, text);
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    'Connection: close',
    `Content-Type: ${PROBLEM_TYPE}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
  ];
  return `${head.join('\r\n')}\r\n\r\n${body}`;
}

const REFUSALS: Readonly<Record<string, readonly [status: number, text: string]>> = {
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'the request did not come to its end in time'],
  HPE_HEADER_OVERFLOW: [431, 'the head of the request is too long'],
};

function refusal(status: number, text: string): Response {
  const headers = { 'Content-Type': PROBLEM_TYPE };
  return new Response(problemText(status, text), { status, headers });
}

type Where = { readonly fd: number } | { readonly host: string; readonly port: number };

function listening(server: Server, where: Where): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
