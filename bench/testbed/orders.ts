/**
 * How a measurement in one container reaches a guest or testpmd in another: one order and one reply, each a line of
 * JSON, for each connection to a UNIX socket on the volume that they share. Owns the server's socket. Trusts both
 * ends: they are of one image.
 */
import { rmSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';

export type Order =
  | { readonly order: 'health' }
  /** Runs shell commands in the guest; answers their output. */
  | { readonly order: 'run'; readonly command: string; readonly timeoutMs: number }
  /** Lets testpmd's frames go round; answers frames per second. */
  | { readonly order: 'measure'; readonly seconds: number };

type Reply = { readonly value: unknown } | { readonly error: string };

/** In every container of the testbed: the switch's sockets, and those for orders. */
export const SOCKET_FOLDER = '/run/ringway';
const ORDERS_FOLDER = '/run/testbed';

/** Where a service of docker/compose.yaml takes orders. */
export const ordersSocket = (service: string): string => join(ORDERS_FOLDER, `${service}.sock`);

/** Past a command's own limit, for the way there and back. */
const REPLY_GRACE_MS = 30_000;

/** Listens at `path` and carries out each order by `serve`, whose rejection is the reply's error. */
export async function listenForOrders(
  path: string,
  serve: (order: Order) => Promise<unknown>,
): Promise<Server> {
  rmSync(path, { force: true });
  const server = createServer((socket) => {
    socket.on('error', () => {});
    void answer(socket, serve);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  return server;
}

async function answer(socket: Socket, serve: (order: Order) => Promise<unknown>): Promise<void> {
  let reply: Reply;
  try {
    const order = JSON.parse(await firstLineOf(socket)) as Order;
    reply = { value: (await serve(order)) ?? null };
  } catch (error) {
    reply = { error: (error as Error).message };
  }
  socket.end(`${JSON.stringify(reply)}\n`);
}

/** Gives an order and answers the reply's value. @throws with the reply's error, or when none came in time */
export async function giveOrder(path: string, order: Order, timeoutMs: number): Promise<unknown> {
  const socket = createConnection(path);
  const late = new Error(`no reply from ${path} after ${timeoutMs} ms`);
  const timer = setTimeout(() => socket.destroy(late), timeoutMs);
  try {
    socket.write(`${JSON.stringify(order)}\n`);
    const reply = JSON.parse(await firstLineOf(socket)) as Reply;
    if ('error' in reply) throw new Error(reply.error);
    return reply.value;
  } finally {
    clearTimeout(timer);
    socket.destroy();
  }
}

async function firstLineOf(socket: Socket): Promise<string> {
  socket.setEncoding('utf8');
  let text = '';
  return new Promise((resolve, reject) => {
    socket.on('data', (part: string) => {
      text += part;
      const end = text.indexOf('\n');
      if (end >= 0) resolve(text.slice(0, end));
    });
    socket.on('error', reject);
    socket.on('close', () => reject(new Error('the other end closed the connection')));
  });
}

/** A guest in another container, as far as commands are run in it. */
export class RemoteGuest {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  async runOk(command: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const timeoutMs = options.timeoutMs ?? 30_000;
    const order: Order = { order: 'run', command, timeoutMs };
    return String(await giveOrder(this.#path, order, timeoutMs + REPLY_GRACE_MS));
  }
}
