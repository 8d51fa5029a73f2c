/** A front-end that is refused without pause, at a real switch: what is logged about it, and who is answered meanwhile. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { maskOf } from '../../protocol/bits.ts';
import { encodeBody, encodeMessage } from '../../protocol/vhost-user/codec.ts';
import { PROTOCOL_FEATURE } from '../../protocol/vhost-user/features.ts';
import { FLAG_NEED_REPLY, MESSAGES } from '../../protocol/vhost-user/messages.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import { EmbeddedGuest, FrontEndSession } from '../../src/frontend/index.ts';
import { resolveConfig } from '../../switch/config/resolve.ts';
import { LINES_AT_ONCE } from '../../switch/log-rate.ts';
import { Switch } from '../../switch/switch.ts';

const REFUSED = 100;
const ROUNDS = 10;

let folder: string;
let lines: string[];
let running: Switch;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-noisy-'));
  lines = [];
  const ports = Object.fromEntries(['noisy', 'quiet'].map((name) => [name, { socket: join(folder, name) }]));
  const config = resolveConfig([
    { values: { ports, arena: '16GiB' }, subject: (path) => path.join('.'), keyName: (key) => key },
  ]);
  running = await Switch.start(
    { ...config, controlSocket: null },
    pino({ level: 'info' }, { write: (line: string) => void lines.push(line) }),
  );
});
afterEach(async () => {
  await running.stop();
  rmSync(folder, { recursive: true, force: true });
});

it('writes a bounded log, and another guest connects meanwhile', async () => {
  const noisy = await FrontEndSession.connect(join(folder, 'noisy'));
  await noisy.request('SET_FEATURES', maskOf(VIRTIO_FEATURE.PROTOCOL_FEATURES));
  await noisy.request('SET_PROTOCOL_FEATURES', maskOf(PROTOCOL_FEATURE.REPLY_ACK));
  const { id, body } = MESSAGES.SET_VRING_NUM;
  const refused = encodeMessage(id, FLAG_NEED_REPLY, encodeBody(body, { index: 0, num: 0 }));
  for (let round = 0; round < ROUNDS; round++) {
    const replies = Array.from({ length: REFUSED }, () => noisy.rawReply());
    for (let i = 0; i < REFUSED; i++) noisy.sendRaw(refused);
    const guest = await EmbeddedGuest.connect({ socketPath: join(folder, 'quiet'), waitMs: 10_000 });
    guest.close();
    expect((await Promise.all(replies)).every(({ payload }) => payload[0] === 1)).toBe(true);
  }
  const ofNoisy = lines.filter((line) => line.includes('"port":"noisy"'));
  expect(ofNoisy.length).toBeGreaterThan(2);
  // One a second besides, however long the machine takes.
  expect(ofNoisy.length).toBeLessThan(3 * LINES_AT_ONCE);
  expect(running.ports().find(({ name }) => name === 'noisy')?.reason).toContain('ring size 0');
  noisy.close();
});
