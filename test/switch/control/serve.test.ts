/**
 * Clients of the control API that know little HTTP, or stop in the middle of it, byte by byte over the real socket:
 * they are answered or let go, and others are answered meanwhile.
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { HttpBindings } from '@hono/node-server';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { askControl } from '../../../switch/control/client.ts';
import { EVENTS_TYPE } from '../../../switch/control/client-stream.ts';
import { type ControlLimits, serveControl } from '../../../switch/control/serve.ts';

/** Times that no test comes near, however little of the machine it gets: a head that lies in the socket is late all the same. */
const LIMITS: ControlLimits = { headMs: 60_000, requestMs: 60_000, idleMs: 60_000, connectionsMax: 4 };
/** Of a server that lets go of those who take their time, for tests that wait for it. */
const IMPATIENT: ControlLimits = { ...LIMITS, headMs: 300, requestMs: 600, idleMs: 1500 };
/** More than sockets and pipes hold. */
const LONG = JSON.stringify('x'.repeat(2 ** 23));

let folder = '';
let socketPath = '';
const servers: { close(): Promise<void> }[] = [];
const sockets: Socket[] = [];

beforeEach(async () => {
  handled.length = 0;
  longAsked = new Promise((resolve) => {
    onLongAsked = resolve;
  });
  folder = mkdtempSync(join(tmpdir(), 'ringway-serve-'));
  socketPath = join(folder, 'c.sock');
  servers.push(await serveControl(socketPath, { fetch: answer }, () => {}, LIMITS));
});

/** Clients come to such a server from here on, in this test. */
async function beImpatient(): Promise<void> {
  socketPath = join(folder, 'impatient.sock');
  servers.push(await serveControl(socketPath, { fetch: answer }, () => {}, IMPATIENT));
}

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await Promise.all(servers.splice(0).map((server) => server.close()));
  rmSync(folder, { recursive: true, force: true });
});

/** The server's end of a connection on which /long was asked for. */
let longAsked: Promise<Socket>;
let onLongAsked: (socket: Socket) => void;

/** The paths of the requests that were handled, and in which turn of the event loop. */
const handled: { readonly pathname: string; readonly turn: number }[] = [];
let turn = 0;
let atWork = 0;
let atWorkMost = 0;

async function answer(request: Request, { incoming }: HttpBindings): Promise<Response> {
  const { pathname } = new URL(request.url);
  handled.push({ pathname, turn });
  if (pathname.startsWith('/slow')) {
    atWorkMost = Math.max(atWorkMost, ++atWork);
    await new Promise((resolve) => setImmediate(resolve));
    atWork--;
  }
  if (pathname === '/long') {
    onLongAsked(incoming.socket);
    return new Response(LONG);
  }
  if (pathname === '/events') {
    const stream = new ReadableStream({ start: (controller) => controller.enqueue(new Uint8Array(1)) });
    return new Response(stream, { headers: { 'Content-Type': EVENTS_TYPE } });
  }
  if (request.method === 'PUT') return Response.json({ body: await request.text().catch(() => 'cut off') });
  return Response.json({ pathname });
}

/** Connected, and `text` sent. It reads nothing until asked to. */
async function client(text = ''): Promise<Socket> {
  const socket = connect(socketPath);
  // A reset is an end too.
  socket.on('error', () => {});
  sockets.push(socket);
  await once(socket, 'connect');
  if (text !== '') socket.write(text);
  return socket;
}

/** All that comes until the other side closes. */
async function untilClosed(socket: Socket): Promise<string> {
  const parts: Buffer[] = [];
  socket.on('data', (part: Buffer) => parts.push(part));
  // What was sent and not read when it was closed comes back as an error, before or after the last answer is here.
  socket.on('error', () => {});
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
  return Buffer.concat(parts).toString();
}

const isServed = (): Promise<unknown> => askControl(socketPath, '/v1/version');

describe('a request', () => {
  it.each([
    ['of HTTP/1.0', 'GET /a HTTP/1.0\r\n\r\n'],
    ['of HTTP/1.0 with a name', 'GET /a HTTP/1.0\r\nHost: x\r\n\r\n'],
    ['without a name', 'GET /a HTTP/1.1\r\nConnection: close\r\n\r\n'],
    ['with an empty name', 'GET /a HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n'],
    [
      'with a path as its name',
      'GET /a HTTP/1.1\r\nHost: %2Frun%2Fringway.sock\r\nConnection: close\r\n\r\n',
    ],
    ['with nonsense as its name', 'GET /a HTTP/1.1\r\nHost: a b@\\[\r\nConnection: close\r\n\r\n'],
    ['for a whole URL', 'GET http://ringway/a HTTP/1.1\r\nHost: ringway\r\nConnection: close\r\n\r\n'],
  ])('%s is answered', async (_, text) => {
    const answered = await untilClosed(await client(text));
    expect(answered).toMatch(/^HTTP\/1\.1 200 /);
    expect(answered).toMatch(/\{"pathname":"\/a"\}$/);
  });

  it.each([
    ['no HTTP at all', 'hello\r\n\r\n', 400, 'no HTTP request: '],
    ['a target that is no path', 'OPTIONS * HTTP/1.1\r\nConnection: close\r\n\r\n', 400, 'URL'],
    [
      'a head without end',
      `GET / HTTP/1.1\r\nX: ${'x'.repeat(20_000)}`,
      431,
      'the head of the request is too long',
    ],
    ['half a head', 'GET / HTTP/1.1\r\nX: ', 408, 'the request did not come to its end in time'],
    ['half a body', 'PUT /a HTTP/1.1\r\nContent-Length: 9\r\n\r\n{', 408, 'did not come to its end in time'],
  ])('that is %s is refused with a reason', async (_, text, status, reason) => {
    if (status === 408) await beImpatient();
    const [head, body] = (await untilClosed(await client(text))).split('\r\n\r\n');
    expect(head).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(head).toMatch(/^content-type: application\/problem\+json/im);
    expect((JSON.parse(body) as { detail: string }).detail).toContain(reason);
  });
});

describe('a client that', () => {
  it('sends a byte now and then is let go, and others are served', async () => {
    await beImpatient();
    const slow = await client();
    const closed = untilClosed(slow);
    const text = 'GET / HTTP/1.1\r\nX-Slow: 1234567890';
    let at = 0;
    const drip = setInterval(() => slow.write(text[at++ % text.length]), 20);
    await isServed();
    expect(await closed).toMatch(/^(HTTP\/1\.1 408 |$)/);
    clearInterval(drip);
  });

  it('does not read its answer is let go, and others are served', async () => {
    await beImpatient();
    const deaf = await client('GET /long HTTP/1.1\r\n\r\n');
    deaf.pause();
    await isServed();
    const theirs = await longAsked;
    if (!theirs.closed) await once(theirs, 'close');
    expect(deaf.bytesRead).toBeLessThan(LONG.length);
  });

  it('says nothing at all is let go', async () => {
    await beImpatient();
    expect(await untilClosed(await client())).toMatch(/^(HTTP\/1\.1 408 |$)/);
  });

  it('opens hundreds of connections has the newest of them; others are served', async () => {
    const many: Socket[] = [];
    for (let i = 0; i < 300; i++) many.push(await client('GET '));
    await isServed();
    const open = many.filter((socket) => !socket.closed && !socket.readableEnded);
    await Promise.all(open.slice(0, -LIMITS.connectionsMax).map((socket) => once(socket.resume(), 'close')));
    await isServed();
  });

  it('asks again on a connection keeps it while others come and go', async () => {
    const kept = await client();
    let text = '';
    kept.on('data', (part: Buffer) => {
      text += part.toString();
    });
    for (let i = 1; i <= 3; i++) {
      kept.write(`GET /${i} HTTP/1.1\r\n\r\n`);
      while (!text.includes(`"/${i}"`)) await once(kept, 'data');
      for (let others = 0; others < LIMITS.connectionsMax - 1; others++) (await client()).destroy();
    }
    expect(kept.closed).toBe(false);
  });

  it('connects again and again has no answer ended that lasts, while there are few of those', async () => {
    const lasting: Socket[] = [];
    for (let i = 0; i < 2; i++) {
      const socket = await client('GET /events HTTP/1.1\r\n\r\n');
      await once(socket, 'data');
      lasting.push(socket);
    }
    for (let i = 0; i < 50; i++) await client();
    await isServed();
    expect(lasting.map(({ closed, readableEnded }) => closed || readableEnded)).toEqual([false, false]);
    const more = await client('GET /events HTTP/1.1\r\n\r\n');
    await once(more, 'data');
    await client();
    await client();
    await Promise.race(lasting.map((socket) => once(socket.resume(), 'close')));
    await isServed();
  });

  it('is connected in whatever way does not hold up the end', async () => {
    for (const text of ['', 'GET ', 'GET /long HTTP/1.1\r\n\r\n']) (await client(text)).pause();
    await Promise.all(servers.map((server) => server.close()));
  });
});

describe('requests that are sent without waiting for answers', () => {
  const paths = (): string[] => handled.map(({ pathname }) => pathname);

  it('wait while the client does not read', async () => {
    const deaf = await client(`GET /long HTTP/1.1\r\n\r\n${'GET /a HTTP/1.1\r\n\r\n'.repeat(2000)}`);
    deaf.pause();
    await longAsked;
    await isServed();
    expect(paths()).toEqual(['/long', '/v1/version']);
    deaf.resume();
    while (paths().filter((path) => path === '/a').length < 2000) await once(deaf, 'data');
  });

  it.each([
    ['without a body', (path: string) => `GET ${path} HTTP/1.1\r\n\r\n`],
    ['with line ends of one byte before them', (path: string) => `\n\nGET ${path} HTTP/1.1\r\n\r\n`],
    ['with a body', (path: string) => `PUT ${path} HTTP/1.1\r\nContent-Length: 5\r\n\r\na\nb\n\n`],
    [
      'with a body without a line end',
      (path: string) => `PUT ${path} HTTP/1.1\r\nContent-Length: 1\r\n\r\na`,
    ],
    [
      'in chunks',
      (path: string) => `PUT ${path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n`,
    ],
  ])('%s are handled one after the other, also for a client that sends nothing more', async (_, request) => {
    atWorkMost = 0;
    const names = Array.from({ length: 50 }, (__, i) => `/slow/${i}`);
    const eager = await client();
    eager.end(names.map(request).join(''));
    const answers = await untilClosed(eager);
    expect(answers.match(/HTTP\/1\.1 200 /g)).toHaveLength(50);
    expect([paths(), atWorkMost]).toEqual([names, 1]);
  });

  it('by many clients are handled one in each turn of the event loop', async () => {
    let counting = true;
    const count = (): void => {
      turn++;
      if (counting) setImmediate(count);
    };
    count();
    const all = Array.from({ length: LIMITS.connectionsMax }, async () => {
      const one = await client();
      one.end('GET /a HTTP/1.1\r\n\r\n'.repeat(20));
      return untilClosed(one);
    });
    await Promise.all(all);
    counting = false;
    expect(handled).toHaveLength(20 * LIMITS.connectionsMax);
    expect(new Set(handled.map((each) => each.turn)).size).toBe(handled.length);
  });
});
