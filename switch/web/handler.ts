/**
 * The web page and the control API (`pageApi` of listener.ts) at one address, for whoever has the token: the page's files, and
 * what it is told while it is open. Main thread; loaded only where there is a page.
 */
import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { gunzipSync } from 'node:zlib';
import type { HttpBindings } from '@hono/node-server';
import { EVENTS_TYPE } from '../control/client-stream.ts';
import { PROBLEM_TYPE, problemText } from '../control/problem.ts';
import type { ControlHandler } from '../control/serve.ts';
import { type Asset, assetAt } from './assets.ts';
import { type EventSource, eventStream } from './events.ts';
import { cookieOf, goneCookieOf, hasToken, isToken } from './token.ts';

const TOKEN_BYTES_MAX = 4096;

export type WebSource = EventSource & {
  /** Lines and XML that plug a guest into a port; null: there is no such port, or no guest goes there. */
  plug(portName: string): { readonly qemu: string | null; readonly libvirt: string | null } | null;
};

/** `token`: null where only those come who may anyway. */
export function webHandler(api: ControlHandler, source: WebSource, token: string | null): ControlHandler {
  return {
    fetch: async (request, bindings) => {
      const { pathname } = new URL(request.url);
      const isReading = request.method === 'GET' || request.method === 'HEAD';
      if (pathname === '/login' && request.method === 'POST') return logIn(request, bindings, token);
      const asset = isReading ? assetAt(pathname) : null;
      // What is shown to who has no token is the same for all.
      if (asset !== null && pathname !== '/') return answerWith(asset, request.headers);
      if (token !== null && !hasToken(request.headers, token))
        return pathname === '/' ? redirect('/login') : refuse(401, 'the token is needed');
      if (asset !== null) return answerWith(asset, request.headers);
      if (!isReading && !isOfPage(bindings.incoming)) return refuse(403, 'asked for by another site');
      if (pathname === '/logout') return logOut(token);
      if (pathname === '/events' && isReading) return events(source);
      const port = /^\/plug\/([^/]+)$/.exec(pathname)?.[1];
      if (port !== undefined && isReading) return plug(source, decodeURIComponent(port));
      return api.fetch(request, bindings);
    },
  };
}

/** Of the page itself; other pages may be of the next port of this host, and a cookie goes to that too. */
function isOfPage({ rawHeaders, headers }: IncomingMessage): boolean {
  const origin = headers.origin;
  if (origin === undefined)
    return headers['sec-fetch-site'] === undefined || headers['sec-fetch-site'] === 'same-origin';
  const at = rawHeaders.findIndex((name, i) => i % 2 === 0 && name.toLowerCase() === 'host');
  return at >= 0 && origin.replace(/^https?:\/\//, '') === rawHeaders[at + 1];
}

async function logIn(request: Request, bindings: HttpBindings, token: string | null): Promise<Response> {
  if (!isOfPage(bindings.incoming)) return refuse(403, 'asked for by another site');
  const given = await formToken(request);
  if (token !== null && (given === null || !isToken(given, token))) return redirect('/login#wrong');
  return redirect('/', token === null ? {} : { 'Set-Cookie': cookieOf(token) });
}

function logOut(token: string | null): Response {
  return redirect('/login', token === null ? {} : { 'Set-Cookie': goneCookieOf(token) });
}

/** Null: there is none, or more than any is long. */
async function formToken({ body }: Request): Promise<string | null> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of body ?? []) {
    bytes += part.length;
    if (bytes > TOKEN_BYTES_MAX) return null;
    parts.push(part);
  }
  return new URLSearchParams(Buffer.concat(parts).toString()).get('token')?.trim() ?? null;
}

function events(source: EventSource): Response {
  const headers = { ...SAFE_HEADERS, 'Content-Type': EVENTS_TYPE, 'Cache-Control': 'no-store' };
  return new Response(eventStream(source), { headers });
}

function plug(source: WebSource, portName: string): Response {
  const lines = source.plug(portName);
  if (lines === null) return refuse(404, `there is no port ${portName}`);
  const headers = { ...SAFE_HEADERS, 'Content-Type': 'application/json', 'Cache-Control': 'no-store' };
  return new Response(JSON.stringify(lines), { headers });
}

/** Compressed, but for who does not take it so: curl by itself. */
function answerWith({ type, gzip }: Asset, asked: Headers): Response {
  const takesGzip = /\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))/i.test(asked.get('accept-encoding') ?? '');
  const isPage = type.startsWith('text/html');
  const headers = {
    ...SAFE_HEADERS,
    'Content-Type': type,
    ...(takesGzip && { 'Content-Encoding': 'gzip' }),
    Vary: 'Accept-Encoding',
    // Another version of Ringway has other files at the same paths.
    'Cache-Control': 'no-cache',
    ...(isPage && { 'Content-Security-Policy': policy() }),
  };
  return new Response(takesGzip ? Buffer.from(gzip) : gunzipSync(gzip), { headers });
}

const SAFE_HEADERS = {
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'same-origin',
  'X-Frame-Options': 'DENY',
};

let policyText: string | null = null;

/** Nothing from elsewhere, and of what stands in the page only the map of its modules. uPlot sets styles of its elements. */
function policy(): string {
  if (policyText !== null) return policyText;
  const html = assetText('/');
  const [, map = ''] = /<script type="importmap">([\s\S]*?)<\/script>/.exec(html) ?? [];
  const hash = createHash('sha256').update(map).digest('base64');
  policyText = [
    "default-src 'none'",
    `script-src 'self' 'sha256-${hash}'`,
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
  ].join('; ');
  return policyText;
}

function assetText(path: string): string {
  const asset = assetAt(path);
  return asset === null ? '' : gunzipSync(asset.gzip).toString();
}

function redirect(path: string, headers: Readonly<Record<string, string>> = {}): Response {
  return new Response(null, { status: 303, headers: { ...SAFE_HEADERS, Location: path, ...headers } });
}

function refuse(status: number, detail: string): Response {
  return new Response(problemText(status, detail), {
    status,
    headers: { ...SAFE_HEADERS, 'Content-Type': PROBLEM_TYPE },
  });
}
