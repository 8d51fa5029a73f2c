/**
 * The control API: what the process tells about itself as JSON over HTTP on a UNIX socket. `controlApi` is
 * the API without a transport, `serveControl` the transport without knowledge of the API. Main thread; a
 * request never reaches a worker.
 */
import { lstatSync, unlinkSync } from 'node:fs';
import { createAdaptorServer, type ServerType } from '@hono/node-server';
import { Hono } from 'hono';
import { listenUnix } from '../src/host/unix-socket.ts';
import type { FdbReport, PortReport } from './report.ts';

/** What the API reports from. */
export type ControlSource = { ports(): PortReport[]; fdb(): FdbReport };

/** Answer of GET /v1/version. */
export type VersionReport = { readonly version: string; readonly node: string; readonly pid: number };

/** Only the user that runs Ringway (and root) may ask: reports name other users' sockets and addresses. */
const CONTROL_SOCKET_MODE = 0o600;

/** GET /v1/ports, /v1/ports/:name, /v1/fdb, /v1/version; whatever goes wrong is `{ error }` with a status. */
export function controlApi(source: ControlSource, version: string): Hono {
  const api = new Hono();
  api.get('/v1/ports', (context) => context.json(source.ports()));
  api.get('/v1/ports/:name', (context) => {
    const name = context.req.param('name');
    const port = source.ports().find((candidate) => candidate.name === name);
    return port === undefined ? context.json({ error: `there is no port ${name}` }, 404) : context.json(port);
  });
  api.get('/v1/fdb', (context) => context.json(source.fdb()));
  api.get('/v1/version', (context) => {
    const report: VersionReport = { version, node: process.versions.node, pid: process.pid };
    return context.json(report);
  });
  api.notFound((context) =>
    context.json({ error: `there is no ${context.req.method} ${context.req.path}` }, 404),
  );
  api.onError((error, context) => context.json({ error: error.message }, 500));
  return api;
}

/**
 * Serves `api` at the socket until the answered object is closed, which also removes the socket. A socket
 * that no process listens on is taken over. @throws SocketPathError
 */
export async function serveControl(socketPath: string, api: Hono): Promise<{ close(): Promise<void> }> {
  // Bound by our own code, which knows stale sockets and sets the mode before anyone can connect.
  const fd = listenUnix(socketPath, { mode: CONTROL_SOCKET_MODE });
  const { ino } = lstatSync(socketPath);
  const server = createAdaptorServer({ fetch: api.fetch, overrideGlobalObjects: false });
  try {
    await listening(server, fd);
  } catch (error) {
    removeSocket(socketPath, ino);
    throw error;
  }
  return {
    close: async () => {
      removeSocket(socketPath, ino);
      await closed(server);
    },
  };
}

function listening(server: ServerType, fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ fd }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function closed(server: ServerType): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    if ('closeAllConnections' in server) server.closeAllConnections();
  });
}

/** Removes the file unless another process has put its own in its place meanwhile. */
function removeSocket(path: string, ino: number): void {
  try {
    if (lstatSync(path).ino === ino) unlinkSync(path);
  } catch {
    // Already gone: somebody tidied up.
  }
}
