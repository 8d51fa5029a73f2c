/** Orders from one container to another, over a real UNIX socket. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { giveOrder, listenForOrders, type Order, RemoteGuest } from '../../bench/testbed/orders.ts';

const LIMIT_MS = 10_000;

let folder: string;
let path: string;
let server: Server | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-test-'));
  path = join(folder, 'orders.sock');
});

afterEach(() => {
  server?.close();
  server = undefined;
  rmSync(folder, { recursive: true, force: true });
});

describe('an order', () => {
  it('is carried out and answered', async () => {
    const seen: Order[] = [];
    server = await listenForOrders(path, async (order) => {
      seen.push(order);
      return 12.5;
    });
    const order: Order = { order: 'measure', seconds: 3 };
    expect(await giveOrder(path, order, LIMIT_MS)).toBe(12.5);
    expect(seen).toEqual([order]);
  });

  it('runs a command in a guest, whatever characters it and its output have', async () => {
    const text = `lines\nof "text" ${'ä'.repeat(100_000)}\n`;
    server = await listenForOrders(path, async (order) => (order.order === 'run' ? order.command : 'no'));
    expect(await new RemoteGuest(path).runOk(text)).toBe(text);
  });

  it('that fails tells why', async () => {
    server = await listenForOrders(path, async () => {
      throw new Error('guest a: code 1 from: false');
    });
    await expect(new RemoteGuest(path).runOk('false')).rejects.toThrow('guest a: code 1 from: false');
  });

  it('replaces the socket that a killed container left behind', async () => {
    const first = await listenForOrders(path, async () => 'first');
    server = await listenForOrders(path, async () => 'second');
    expect(await giveOrder(path, { order: 'health' }, LIMIT_MS)).toBe('second');
    first.close();
  });

  it('fails when nobody listens, when nothing is answered and when the answer breaks off', async () => {
    await expect(giveOrder(path, { order: 'health' }, LIMIT_MS)).rejects.toThrow('ENOENT');
    server = await listenForOrders(path, () => new Promise(() => {}));
    await expect(giveOrder(path, { order: 'health' }, 20)).rejects.toThrow('no reply');
    server.close();
    rmSync(path, { force: true });
    server = createServer((socket) => socket.end('{"value":'));
    await new Promise<void>((resolve) => server!.listen(path, resolve));
    await expect(giveOrder(path, { order: 'health' }, LIMIT_MS)).rejects.toThrow('closed the connection');
  });
});
