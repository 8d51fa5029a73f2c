/** Where Prometheus asks: who may, for what, and how an address that cannot be had is told. */
import { chmodSync, existsSync, lstatSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ListenAddress } from '../../../switch/config/kinds/values.ts';
import { ConfigError } from '../../../switch/config/settings.ts';
import { readToken, serveFigures } from '../../../switch/figures/listener.ts';
import { snapshot } from './snapshots.ts';

const TOKEN = 'a-token-of-some-length';
let folder = '';
const closers: (() => Promise<unknown>)[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-metrics-'));
});

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
  rmSync(folder, { recursive: true, force: true });
});

/** A port that nobody has. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : expect.fail('no port');
}

/** Answers the port. */
async function serveAtFreePort(token: string | null = null): Promise<number> {
  for (;;) {
    const port = await freePort();
    try {
      await serve({ host: '127.0.0.1', port }, token);
      return port;
    } catch (error) {
      // A test that runs beside this one has got it meanwhile.
      if (!(error instanceof ConfigError && error.message.includes('EADDRINUSE'))) throw error;
    }
  }
}

async function serve(address: ListenAddress, token: string | null = null): Promise<void> {
  const server = await serveFigures(
    address,
    token,
    () => snapshot(),
    () => {},
  );
  closers.push(() => server.close());
}

type Answer = { readonly status: number; readonly type: string; readonly text: string };

function ask(
  where: { readonly port: number } | { readonly socketPath: string },
  { path = '/metrics', method = 'GET', headers = {} as Record<string, string> } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request(
      { host: '127.0.0.1', ...where, path, method, headers, agent: false },
      (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part: string) => {
          text += part;
        });
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, type: response.headers['content-type'] ?? '', text }),
        );
      },
    );
    asked.on('error', reject);
    asked.end();
  });
}

describe('at an address', () => {
  it('there are figures and nothing else', async () => {
    const port = await serveAtFreePort();
    const answer = await ask({ port });
    expect(answer).toMatchObject({ status: 200, type: 'text/plain; version=0.0.4; charset=utf-8' });
    expect(answer.text).toMatch(/^# HELP ringway_build_info .*\n# TYPE ringway_build_info gauge\n/);
    expect(await ask({ port }, { method: 'HEAD' })).toMatchObject({ status: 200, text: '' });
    expect((await ask({ port }, { path: '/' })).text).toContain('/metrics');
    expect((await ask({ port }, { path: '/v1/ports' })).status).toBe(404);
    expect((await ask({ port }, { method: 'DELETE', path: '/v1/ports/vm0' })).status).toBe(405);
  });

  it('who asks by a name that may lead anywhere is refused, by an address not', async () => {
    const port = await serveAtFreePort();
    const statusFor = async (host: string): Promise<number> =>
      (await ask({ port }, { headers: { host } })).status;
    expect(await statusFor(`evil.example:${port}`)).toBe(403);
    expect(await statusFor('127.0.0.1.evil.example')).toBe(403);
    for (const host of [
      `127.0.0.1:${port}`,
      'localhost',
      `localhost:${port}`,
      '[::1]',
      `[::1]:${port}`,
      '10.0.0.1',
    ])
      expect(await statusFor(host), host).toBe(200);
  });

  it('with a token only who has it is answered, by whatever name', async () => {
    const port = await serveAtFreePort(TOKEN);
    const statusFor = async (headers: Record<string, string>): Promise<number> =>
      (await ask({ port }, { headers })).status;
    expect(await statusFor({})).toBe(401);
    expect(await statusFor({ authorization: 'Bearer something-else-of-a-length' })).toBe(401);
    expect(await statusFor({ authorization: `Basic ${TOKEN}` })).toBe(401);
    expect(await statusFor({ authorization: `Bearer ${TOKEN}`, host: 'switch.example' })).toBe(200);
  });

  it('that another one has it is told in a line', async () => {
    const port = await serveAtFreePort();
    const again = serve({ host: '127.0.0.1', port });
    await expect(again).rejects.toThrow(ConfigError);
    await expect(again).rejects.toThrow(`metrics: 127.0.0.1:${port}: listen EADDRINUSE`);
  });
});

it('at a UNIX socket its group may ask, and it goes with the process', async () => {
  const path = join(folder, 'm.sock');
  await serve({ path });
  expect(lstatSync(path).mode & 0o777).toBe(0o660);
  expect((await ask({ socketPath: path }, { headers: { host: 'anything' } })).status).toBe(200);
  await closers.pop()?.();
  expect(existsSync(path)).toBe(false);
});

describe('a token', () => {
  let warnings: string[] = [];
  const warn = (message: string): unknown => warnings.push(message);
  beforeEach(() => {
    warnings = [];
  });

  const fileWith = (text: string): string => {
    const path = join(folder, 'token');
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  };

  it('is what a file has, without the end of the line', () => {
    expect(readToken('metricsToken', fileWith(`${TOKEN}\n`), warn)).toBe(TOKEN);
    expect(warnings).toEqual([]);
  });

  it.each(['', 'short', 'of some length but with blanks'])('is not %o', (text) => {
    expect(() => readToken('metricsToken', fileWith(text), warn)).toThrow(
      /metricsToken: .* is not allowed \(a file with a token/,
    );
  });

  it('is warned of where others may read its file', () => {
    const path = fileWith(TOKEN);
    chmodSync(path, 0o644);
    expect(readToken('webToken', path, warn)).toBe(TOKEN);
    expect(warnings).toEqual([`webToken: others may read or change ${path}: chmod o= ${path}`]);
  });

  it('must be there', () => {
    expect(() => readToken('metricsToken', join(folder, 'none'), warn)).toThrow(
      /metricsToken: cannot read .*none: no such file \(a file with a token/,
    );
  });
});
