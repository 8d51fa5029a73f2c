/**
 * The control API: what the process tells about itself, and changes while it runs, as JSON over HTTP on a UNIX
 * socket. `controlApi` is
 * the API without a transport, `serveControl` the transport without knowledge of the API. Main thread; a
 * request never reaches a worker.
 */
import { createAdaptorServer, type ServerType } from '@hono/node-server';
import { type Context, Hono } from 'hono';
import { BoundSocket } from '../../src/host/bound-socket.ts';
import { HostError } from '../../src/host/errors.ts';
import { listenUnix, SocketPathError } from '../../src/host/unix-socket.ts';
import { type PortConfig, resolvePort } from '../config/resolve.ts';
import { ConfigError, type SettingFault } from '../config/settings.ts';
import { NoSuchPortError, PortConflictError } from '../port-errors.ts';
import type { Books } from './books.ts';
import type { FdbReport, PortReport, WorkReport } from './report.ts';

/** What the API reports from and changes. */
export type ControlSource = {
  ports(): PortReport[];
  totals(): Books;
  fdb(): FdbReport;
  workers(): WorkReport[];
  /** @throws ConfigError, SocketPathError, HostError, PortConflictError */
  addPort(config: PortConfig): Promise<void>;
  /** @throws NoSuchPortError */
  removePort(name: string): Promise<void>;
};

/** Answer of GET /v1/version. */
export type VersionReport = { readonly version: string; readonly node: string; readonly pid: number };

/** Only the user that runs Ringway (and root) may ask: reports name other users' sockets and addresses. */
const CONTROL_SOCKET_MODE = 0o600;

/**
 * GET /v1/ports, /v1/ports/:name, /v1/totals, /v1/fdb, /v1/workers, /v1/version; PUT /v1/ports/:name with a port's
 * settings adds it, DELETE /v1/ports/:name removes it. Whatever goes wrong is a Refusal with a status.
 */
export function controlApi(source: ControlSource, version: string): Hono {
  const api = new Hono();
  api.get('/v1/ports', (context) => context.json(source.ports()));
  api.get('/v1/ports/:name', (context) => {
    const name = context.req.param('name');
    const port = portNamed(source, name);
    return port === undefined ? noSuchPort(context, name) : context.json(port);
  });
  api.put('/v1/ports/:name', async (context) => {
    const name = context.req.param('name');
    await source.addPort(resolvePort(name, await jsonOf(context)));
    const added = portNamed(source, name);
    // It may have been removed since.
    return added === undefined ? noSuchPort(context, name) : context.json(added, 201);
  });
  api.delete('/v1/ports/:name', async (context) => {
    const name = context.req.param('name');
    await source.removePort(name);
    return context.json({ removed: name });
  });
  api.get('/v1/totals', (context) => context.json(source.totals()));
  api.get('/v1/fdb', (context) => context.json(source.fdb()));
  api.get('/v1/workers', (context) => context.json(source.workers()));
  api.get('/v1/version', (context) => {
    const report: VersionReport = { version, node: process.versions.node, pid: process.pid };
    return context.json(report);
  });
  api.notFound((context) =>
    context.json({ error: `there is no ${context.req.method} ${context.req.path}` }, 404),
  );
  api.onError((error, context) => context.json(refusalOf(error), statusOf(error)));
  return api;
}

function portNamed(source: ControlSource, name: string): PortReport | undefined {
  return source.ports().find((port) => port.name === name);
}

function noSuchPort(context: Context, name: string): Response {
  return context.json({ error: `there is no port ${name}` }, 404);
}

/** @throws ConfigError when the body is not JSON */
async function jsonOf(context: Context): Promise<unknown> {
  try {
    return await context.req.json();
  } catch {
    throw new ConfigError('the settings of a port are needed, as a JSON object');
  }
}

/** Answer to whatever goes wrong; `fault` says which setting it is about, for who words it another way. */
export type Refusal = { readonly error: string; readonly fault?: SettingFault };

function refusalOf(error: Error): Refusal {
  const fault = error instanceof ConfigError ? error.fault : null;
  return { error: error.message, ...(fault !== null && { fault }) };
}

/** What was asked for cannot be; whatever else is thrown is a bug of ours. */
const STATUS_OF_REFUSAL = [
  [ConfigError, 400],
  [SocketPathError, 400],
  [HostError, 400],
  [NoSuchPortError, 404],
  [PortConflictError, 409],
] as const;

function statusOf(error: Error): 400 | 404 | 409 | 500 {
  return STATUS_OF_REFUSAL.find(([type]) => error instanceof type)?.[1] ?? 500;
}

/**
 * Serves `api` at the socket until the answered object is closed, which also removes the socket. A socket
 * that no process listens on is taken over; one whose file was removed is made anew, which `warn` is told of.
 * @throws SocketPathError
 */
export async function serveControl(
  socketPath: string,
  api: Hono,
  warn: (message: string) => void = () => {},
): Promise<{ close(): Promise<void> }> {
  const newServer = (): ServerType => createAdaptorServer({ fetch: api.fetch, overrideGlobalObjects: false });
  const servers = [newServer()];
  // Bound by our own code, which knows stale sockets and sets the mode before anyone can connect.
  const bind = (): number => listenUnix(socketPath, { mode: CONTROL_SOCKET_MODE });
  const socket = new BoundSocket(socketPath, bind, {
    renewed: (fd) => {
      // It closes its socket, and ends when its last connection does.
      servers[0].close();
      servers.unshift(newServer());
      void listening(servers[0], fd).catch((error: Error) => warn(`control API: ${error.message}`));
    },
    info: (message) => warn(`control API: ${message}`),
    warn: (message) => warn(`control API: ${message}`),
  });
  socket.open();
  try {
    await listening(servers[0], socket.fd);
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
