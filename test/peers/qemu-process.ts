/** What all of QEMU's processes here have in common: sockets that it connects to as it starts, and how it ends. Owns nothing. */
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import type { Child } from './child.ts';

/** A socket at which one connection is awaited. */
export type OneConnection = { readonly connection: Promise<Socket>; close(): void };

/** Listens on a path. QEMU is the client: it connects as it starts. */
export async function acceptOne(path: string): Promise<OneConnection> {
  const server = createServer();
  const connection = new Promise<Socket>((resolve) => server.once('connection', resolve));
  server.listen(path);
  await once(server, 'listening');
  return { connection, close: () => void server.close() };
}

/** The child's exit code, once all it wrote has been read and `cleanUp` has run. */
export async function endOf(child: Child, cleanUp: () => Promise<void>): Promise<number | null> {
  const outputRead = once(child.process, 'close');
  const code = await child.exited;
  await outputRead;
  await cleanUp();
  return code;
}
