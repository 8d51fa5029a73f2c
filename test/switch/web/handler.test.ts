/** Who may ask what at the page's address, what its files are, and what it is told while it is open. No browser. */
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { Hono } from 'hono';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { ControlSource } from '../../../switch/control/api.ts';
import type { PortReport } from '../../../switch/control/report.ts';
import { serveControl, serveTcp } from '../../../switch/control/serve.ts';
import type { FiguresReport } from '../../../switch/figures/report.ts';
import { ASSET_PATHS, assetAt } from '../../../switch/web/assets.ts';
import { eventStream } from '../../../switch/web/events.ts';
import { type WebSource, webHandler } from '../../../switch/web/handler.ts';
import { pageApi } from '../../../switch/web/listener.ts';
import { cookieOf } from '../../../switch/web/token.ts';

const TOKEN = 'a-token-of-many-letters';
const BYTES_MAX = 150 * 1024;

const api = new Hono();
api.get('/v1/ports', (context) => context.json([]));
api.post('/v1/trace', (context) => context.json({}));

let ports: PortReport[] = [];
const source: WebSource = {
  figures: () => ({ version: '1' }) as FiguresReport,
  ports: () => ports,
  glances: () => ports.map(({ name, reason }) => `${name} ${reason}`),
  plug: (name) => (name === 'vm 0' ? { qemu: 'qemu', libvirt: null } : null),
};

let closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  await Promise.all(closing.map((close) => close()));
  closing = [];
  ports = [];
});

async function serve(token: string | null = TOKEN): Promise<string> {
  const server = await serveTcp('127.0.0.1', 0, webHandler(api, source, token));
  closing.push(() => server.close());
  return `http://127.0.0.1:${server.port}`;
}

const bearer = { Authorization: `Bearer ${TOKEN}` };
const get = (url: string, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(url, { headers, redirect: 'manual' });

async function logIn(base: string, token: string): Promise<{ place: string | null; cookie: string }> {
  const response = await fetch(`${base}/login`, {
    method: 'POST',
    body: new URLSearchParams({ token }),
    redirect: 'manual',
  });
  return { place: response.headers.get('Location'), cookie: response.headers.get('Set-Cookie') ?? '' };
}

describe('who has no token', () => {
  it('sees how to show one, and nothing of the switch', async () => {
    const base = await serve();
    expect((await get(`${base}/`)).headers.get('Location')).toBe('/login');
    expect((await get(`${base}/login`)).status).toBe(200);
    for (const path of ['/v1/ports', '/events', '/plug/vm%200', '/nothing'])
      expect((await get(`${base}${path}`)).status, path).toBe(401);
    expect((await get(`${base}/v1/ports`, { Authorization: 'Bearer wrong' })).status).toBe(401);
    expect((await get(`${base}/v1/ports`, { Cookie: `ringway=${TOKEN}` })).status).toBe(401);
    const [name] = cookieOf(TOKEN).split('=');
    expect((await get(`${base}/v1/ports`, { Cookie: `${name}=${TOKEN}` })).status).toBe(401);
  });

  it('gets what it can read', async () => {
    const login = new URL(`${await serve()}/login`);
    const read = async (accepted: string | null): Promise<{ encoding: string | undefined; body: Buffer }> => {
      const headers = accepted === null ? {} : { 'Accept-Encoding': accepted };
      const answer = await new Promise<IncomingMessage>((resolve) => {
        request(login, { headers, agent: false }, resolve).end();
      });
      const parts = await answer.toArray();
      return { encoding: answer.headers['content-encoding'], body: Buffer.concat(parts) };
    };
    const plain = await read(null);
    expect(plain.body.toString()).toContain('<form');
    for (const accepted of ['', 'identity', 'br', 'gzip;q=0', 'br, gzip; q=0.0, identity'])
      expect(await read(accepted), accepted).toEqual(plain);
    for (const accepted of ['gzip', 'br, GZIP;q=0.5', 'gzip, deflate, br']) {
      const { encoding, body } = await read(accepted);
      expect(encoding, accepted).toBe('gzip');
      expect(gunzipSync(body)).toEqual(plain.body);
    }
  });

  it('is told when it was the wrong one, however long', async () => {
    const base = await serve();
    for (const token of ['', 'wrong', 'x'.repeat(10_000)])
      expect(await logIn(base, token)).toEqual({ place: '/login#wrong', cookie: '' });
  });
});

describe('who has it', () => {
  it('gets a cookie that no script and no other site can use, and with it everything', async () => {
    const base = await serve();
    const { place, cookie } = await logIn(base, TOKEN);
    expect(place).toBe('/');
    expect(cookie).toMatch(
      /^ringway-[0-9a-f]{8}=[0-9a-f]{64}; Path=\/; Max-Age=\d+; HttpOnly; SameSite=Strict$/,
    );
    expect(cookie).not.toContain(TOKEN);
    const shown = { Cookie: cookie.split(';')[0] };
    expect((await get(`${base}/`, shown)).status).toBe(200);
    expect(await (await get(`${base}/v1/ports`, shown)).json()).toEqual([]);
    expect(await (await get(`${base}/plug/vm%200`, shown)).json()).toEqual({ qemu: 'qemu', libvirt: null });
    expect((await get(`${base}/plug/other`, shown)).status).toBe(404);
    const post = (path: string, headers: Record<string, string>): Promise<Response> =>
      fetch(`${base}${path}`, { method: 'POST', body: '{}', headers });
    expect((await post('/v1/trace', shown)).status).toBe(200);
    expect((await post('/v1/trace', { ...bearer, Origin: base })).status).toBe(200);
    const out = await get(`${base}/logout`, shown);
    expect(out.headers.get('Set-Cookie')).toContain('Max-Age=0');
  });

  it('keeps it beside that of another Ringway at this host', async () => {
    const other = cookieOf('another-token-of-many-letters').split(';')[0];
    const base = await serve();
    const own = (await logIn(base, TOKEN)).cookie.split(';')[0];
    expect(own.split('=')[0]).not.toBe(other.split('=')[0]);
    for (const cookie of [`${other}; ${own}`, `${own}; ${other}`])
      expect((await get(`${base}/v1/ports`, { Cookie: cookie })).status).toBe(200);
    expect((await get(`${base}/v1/ports`, { Cookie: other })).status).toBe(401);
  });

  it('cannot have the process handed over, however it is asked for', async () => {
    const takeOver = vi.fn();
    const own = pageApi({ takeOver } as unknown as ControlSource, '1');
    const server = await serveTcp('127.0.0.1', 0, webHandler(own, source, TOKEN));
    closing.push(() => server.close());
    for (const path of ['/v1/takeover', '/v1/%74akeover', '/%761/takeover']) {
      const body = JSON.stringify({ socket: 'next', formats: [1] });
      const asked = { method: 'POST', headers: bearer, body };
      expect((await fetch(`http://127.0.0.1:${server.port}${path}`, asked)).status, path).toBe(409);
    }
    expect(takeOver).not.toHaveBeenCalled();
  });

  it('is not another site that has a browser ask', async () => {
    const base = await serve();
    for (const origin of ['http://elsewhere', 'http://127.0.0.1:1', 'null'])
      expect(await askAs(base, { ...bearer, Origin: origin }), origin).toBe(403);
    expect(await askAs(base, { ...bearer, 'Sec-Fetch-Site': 'cross-site' })).toBe(403);
    expect(await askAs(base, { ...bearer, 'Sec-Fetch-Site': 'same-origin' })).toBe(200);
  });

  /** `fetch` would not send these headers. */
  function askAs(base: string, headers: Record<string, string>): Promise<number | undefined> {
    return new Promise((resolve, reject) => {
      const asked = request(`${base}/v1/trace`, { method: 'POST', headers }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      asked.on('error', reject).end('{}');
    });
  }

  it('is whoever can use the socket, where that is a file', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ringway-web-'));
    const path = join(folder, 'web.sock');
    const server = await serveControl(path, webHandler(api, source, null));
    closing.push(async () => {
      await server.close();
      rmSync(folder, { recursive: true });
    });
    const status = await new Promise((resolve, reject) => {
      const asked = request({ socketPath: path, path: '/' }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      asked.on('error', reject).end();
    });
    expect(status).toBe(200);
  });
});

describe('the page', () => {
  it('is small, whole, and asks for nothing elsewhere', async () => {
    const assets = ASSET_PATHS.map((path) => ({ path, asset: assetAt(path) }));
    expect(assets.reduce((sum, { asset }) => sum + (asset?.bytes ?? 0), 0)).toBeLessThan(BYTES_MAX);
    const base = await serve();
    for (const { path, asset } of assets) {
      const response = await get(`${base}${path}`, bearer);
      expect(response.status, path).toBe(200);
      expect(response.headers.get('Content-Type'), path).toBe(asset?.type);
      const text = await response.text();
      expect(text.length, path).toBeGreaterThan(100);
      const addresses = [...text.matchAll(/https?:\/\/[^\s"'`)<]+/g)].map(([address]) => address);
      expect(
        addresses.filter((address) => !address.startsWith('http://www.w3.org/')),
        path,
      ).toEqual(
        path.startsWith('/lib/')
          ? addresses.filter((address) => !address.startsWith('http://www.w3.org/'))
          : [],
      );
    }
    const policy = (await get(`${base}/`, bearer)).headers.get('Content-Security-Policy') ?? '';
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toContain("'unsafe-eval'");
  });

  it('has every file of its folder, and every module that one imports', () => {
    const folder = new URL('../../../switch/web/page/', import.meta.url);
    const files = readdirSync(folder).filter((name) => name.endsWith('.ts'));
    expect(ASSET_PATHS.filter((path) => /^\/[\w-]+\.ts$/.test(path)).toSorted()).toEqual(
      files.map((name) => `/${name}`).toSorted(),
    );
    expect(existsSync(new URL('index.html', folder))).toBe(true);
    expect(assetAt('/../listener.ts')).toBeNull();
    expect(assetAt('/lib/../app.ts')).toBeNull();
  });
});

describe('what it is told', () => {
  const port = (name: string, reason: string | null, frames: number): PortReport =>
    ({ name, reason, shut: null, counters: { ingressFrames: frames } }) as unknown as PortReport;

  it('is figures each time, and the ports when one of them is not what it was', async () => {
    ports = [port('a', null, 1)];
    const reader = eventStream(source, 5).getReader();
    const decoder = new TextDecoder();
    const next = async (): Promise<string[]> => {
      const text = decoder.decode((await reader.read()).value);
      return [...text.matchAll(/^event: (\w+)$/gm)].map(([, name]) => name);
    };
    expect(await next()).toEqual(['ports', 'figures']);
    ports = [port('a', null, 2)];
    expect(await next()).toEqual(['figures']);
    ports = [port('a', 'its guest is gone', 2)];
    // One may have been made before.
    let names = await next();
    if (!names.includes('ports')) names = await next();
    expect(names).toEqual(['ports', 'figures']);
    await reader.cancel();
  });

  it('waits for who does not read, and nothing piles up', async () => {
    vi.useFakeTimers();
    onTestFinished(() => void vi.useRealTimers());
    let asked = 0;
    const counted = { ...source, figures: () => ({ version: String(++asked) }) as FiguresReport };
    const reader = eventStream(counted, 1).getReader();
    await reader.read();
    vi.advanceTimersByTime(50);
    expect(asked).toBeLessThan(4);
    await reader.cancel();
  });
});
