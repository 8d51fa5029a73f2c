/** What a front-end makes up, by the name of a file that it sends, is text wherever it is shown. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { closeFd } from '../../src/host/descriptor.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import { connectUnix } from '../../src/host/unix-socket.ts';
import { formatPorts } from '../../switch/cli/ports.ts';
import { jsonText } from '../../switch/cli/table.ts';
import { resolveConfig } from '../../switch/config/resolve.ts';
import { LinesOut } from '../../switch/lines-out.ts';
import { createLogger } from '../../switch/log.ts';
import { Switch } from '../../switch/switch.ts';
import { bit, none, P, ScriptedFrontEnd, u64 } from '../vhost-user/scripted-front-end.ts';

const HOSTILE = 'vm\u001b]0;title\u0007\u001b[2J\n{"level":"fatal"}\u009b1m\u202e';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-text-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

it('in the reason of the port, on the terminal, in JSON and in the log', async () => {
  const socket = join(folder, 'a.sock');
  let log = '';
  const output = {
    write: (bytes: Uint8Array) => {
      log += Buffer.from(bytes).toString();
      return bytes.length;
    },
    awaitReady: () => true,
  };
  const config = resolveConfig([
    {
      values: { ports: { a: { socket } }, control: 'none', arena: '8GiB' },
      subject: (path) => path.join('.'),
      keyName: (key) => key,
    },
  ]);
  const running = await Switch.start(config, createLogger('debug', new LinesOut({ output }), true));
  const front = new ScriptedFrontEnd(connectUnix(socket));
  const hostile = createMemoryFile(HOSTILE, 4096);
  try {
    front.send('SET_PROTOCOL_FEATURES', u64(bit(P.REPLY_ACK)));
    front.send('SET_OWNER', none());
    expect(await front.ack('SET_VRING_KICK', u64(0), [hostile])).toBe(1n);
    const [port] = running.ports();
    expect(port.reason).toContain(
      '/memfd:vm\\x1b]0;title\\x07\\x1b[2J\\x0a{"level":"fatal"}\\x9b1m\\u202e (deleted)',
    );
    for (const text of [port.reason ?? '', formatPorts([port]), jsonText(port), log]) {
      for (const part of ['\u001b[2J', '\u0007', '\u009b', '\u202e', '\n{"level"'])
        expect(text).not.toContain(part);
    }
    expect(log).toContain('\\x1b]0;title');
  } finally {
    closeFd(hostile);
    front.close();
    await running.stop();
  }
});
