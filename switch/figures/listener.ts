/**
 * Where Prometheus asks, beside the control socket: GET /metrics and nothing else, at an address or a UNIX socket of its own, for
 * whoever has the token where there is one. Main thread.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { statSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { type ListenAddress, listenText } from '../config/kinds/values.ts';
import { ConfigError } from '../config/settings.ts';
import { readText } from '../config/text-file.ts';
import { type ControlHandler, serveControl, serveTcp } from '../control/serve.ts';
import { EXPOSITION_TYPE, expositionStream } from './exposition.ts';
import type { FiguresSnapshot } from './snapshot.ts';

/** For those who share the socket's group, as an agent that collects figures. */
const SOCKET_MODE = 0o660;
const TOKEN_CHARS_MIN = 16;
/** Of a file's mode: whoever is neither its owner nor of its group may read it, or write. */
const OTHERS = 0o006;
const TOKEN_ALLOWED = `a file with a token of at least ${TOKEN_CHARS_MIN} characters`;

/** `setting`: what the file is named by. @throws ConfigError */
export function readToken(
  setting: 'metricsToken' | 'webToken',
  path: string,
  warn: (message: string) => void,
): string {
  let token: string;
  try {
    token = readText(path).trim();
  } catch (error) {
    throw new ConfigError(`${setting}: ${(error as Error).message} (${TOKEN_ALLOWED})`);
  }
  if (token.length < TOKEN_CHARS_MIN || !/^[\x21-\x7e]+$/.test(token))
    throw new ConfigError(`${setting}: ${path} is not allowed (${TOKEN_ALLOWED})`);
  if ((statSync(path).mode & OTHERS) !== 0)
    warn(`${setting}: others may read or change ${path}: chmod o= ${path}`);
  return token;
}

/** Serves figures until the answered object is closed. @throws ConfigError, SocketPathError */
export async function serveFigures(
  address: ListenAddress,
  token: string | null,
  figures: () => FiguresSnapshot,
  warn: (message: string) => void,
): Promise<{ close(): Promise<void> }> {
  const handler = figuresHandler(figures, token, 'path' in address);
  if ('path' in address) return serveControl(address.path, handler, warn, undefined, SOCKET_MODE);
  try {
    return await serveTcp(address.host, address.port, handler);
  } catch (error) {
    if (!(error instanceof Error && 'syscall' in error)) throw error;
    throw new ConfigError(
      `metrics: ${listenText(address)}: ${error.message} (choose another with --metrics)`,
    );
  }
}

/** `isLocal`: no browser comes by it. */
export function figuresHandler(
  figures: () => FiguresSnapshot,
  token: string | null,
  isLocal: boolean,
): ControlHandler {
  return {
    fetch: (request, { incoming }) => {
      if (token !== null && !hasToken(request, token))
        return text('the token is needed\n', 401, { 'WWW-Authenticate': 'Bearer' });
      // A page in a browser of this host that had its own name lead here could read it otherwise.
      if (token === null && !isLocal && !isAskedByAddress(incoming))
        return text('ask by address, not by name\n', 403);
      const { pathname } = new URL(request.url);
      if (request.method !== 'GET' && request.method !== 'HEAD')
        return text('only GET\n', 405, { Allow: 'GET' });
      if (pathname === '/') return text('Ringway: figures for Prometheus are at /metrics\n', 200);
      if (pathname !== '/metrics') return text('there is only /metrics\n', 404);
      const headers = { 'Content-Type': EXPOSITION_TYPE };
      return new Response(request.method === 'HEAD' ? null : expositionStream(figures()), { headers });
    },
  };
}

function hasToken(request: Request, token: string): boolean {
  const [, given = ''] = /^Bearer (.+)$/i.exec(request.headers.get('Authorization') ?? '') ?? [];
  const digest = (value: string): Buffer => createHash('sha256').update(value).digest();
  return timingSafeEqual(digest(given), digest(token));
}

/** The server puts a host of its own in place of what was sent (serve.ts). */
function isAskedByAddress({ rawHeaders }: IncomingMessage): boolean {
  const at = rawHeaders.findIndex((name, i) => i % 2 === 0 && name.toLowerCase() === 'host');
  if (at < 0) return true;
  const host = (rawHeaders[at + 1] ?? '').replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
  return host === 'localhost' || isIP(host) !== 0;
}

function text(body: string, status: number, headers: Readonly<Record<string, string>> = {}): Response {
  return new Response(body, { status, headers: { 'Content-Type': 'text/plain; charset=utf-8', ...headers } });
}
