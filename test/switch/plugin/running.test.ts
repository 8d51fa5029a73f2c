/**
 * Plugins of a whole switch, with workers and control API, while frames pass: reloaded without losing one or letting one pass
 * undecided, taken out when they throw or do not end, added and removed.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { EmbeddedGuest } from '../../../src/frontend/index.ts';
import { descriptorLoop } from '../../../src/host/event-loop.ts';
import { settingsOf } from '../../../switch/cli/options.ts';
import { formatNotes, formatPlugins } from '../../../switch/cli/plugin.ts';
import { resolveConfig } from '../../../switch/config/resolve.ts';
import { controlApi } from '../../../switch/control/api.ts';
import { imbalances } from '../../../switch/control/books.ts';
import { createLogger } from '../../../switch/log.ts';
import type { PluginNotes, PluginReport } from '../../../switch/plugin/plugin-table.ts';
import { Switch } from '../../../switch/switch.ts';
import type { TraceReport } from '../../../switch/trace/report.ts';
import { PluginFolder } from './plugin-world.ts';

const WAIT_MS = { timeout: 20_000 };
const NAMES = ['a', 'b'];
const macOf = (name: string): number[] => [2, 0, 0, 0, 0, name.charCodeAt(0)];
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function frameOf(to: string, from: string, number: number, sizeBytes = 60): Uint8Array {
  const frame = new Uint8Array(sizeBytes).fill(number & 0xff);
  frame.set([...macOf(to), ...macOf(from), 0x88, 0xb5]);
  return frame;
}

/** Drops frames of a size, does what stands in `body` of others, and notes what comes and goes. */
const rule = (body = '', dropped = 61): string => `import type { PluginFactory } from 'ringway/plugin';

const factory: PluginFactory = (settings, context) => {
  const no = context.dropReason('no', 'sent a frame of that size');
  const seen = context.counter('seen');
  const other = settings.number('other', { default: 0 });
  return {
    version: 1,
    decide(frames) {
      for (let i = 0; i < frames.count; i++) {
        const size = frames.sizes[i];
        seen.add(1);
        if (size === ${dropped} || size === other) frames.drop(i, no);
        ${body}
      }
    },
    portAdded(port) { context.note('port ' + port.name, 'there as ' + port.id); },
    portRemoved(port) { context.note('port ' + port.name, null); },
    tick(seconds) { context.note('tick', String(seconds > 0)); },
  };
};
export default factory;
`;

describe('plugins of a switch that runs', () => {
  let folder: PluginFolder;
  let running: Switch;
  let api: ReturnType<typeof controlApi>;
  const guests = new Map<string, EmbeddedGuest>();
  const guest = (name: string): EmbeddedGuest => guests.get(name) as EmbeddedGuest;

  beforeAll(() => descriptorLoop());

  beforeEach(async () => {
    folder = new PluginFolder();
    const file = folder.write('rule.ts', rule());
    const port = NAMES.map((name) => `${name}=${folder.path}/${name}.sock`);
    const options = { port, plugin: [`${file},other=62`], control: 'none', cpus: '0,1' };
    running = await Switch.start(resolveConfig([settingsOf(options)]), createLogger('silent'));
    api = controlApi(running, '1');
    for (const name of NAMES) {
      const socketPath = `${folder.path}/${name}.sock`;
      guests.set(name, await EmbeddedGuest.connect({ socketPath, waitMs: 10_000 }));
    }
    guest('b').send(frameOf('a', 'b', 0));
    await guest('a').received();
  });

  afterEach(async () => {
    await running.allTurn();
    for (const { name, counters, drops } of running.ports())
      expect(imbalances(name, { counters, drops }, false)).toEqual([]);
    expect(imbalances('all', running.totals(), true)).toEqual([]);
    for (const each of guests.values()) each.close();
    await running.stop();
    folder.close();
  });

  async function ask<T>(path: string, method = 'GET', body?: object): Promise<T> {
    const init = body === undefined ? { method } : { method, body: JSON.stringify(body) };
    const response = await api.request(path, init);
    const answer = (await response.json()) as T & { detail?: string };
    if (response.status >= 300) throw new Error(`${response.status} ${answer.detail}`);
    return answer;
  }
  const reload = (): Promise<PluginReport[]> => ask('/v1/plugins', 'POST', {});
  const report = async (): Promise<PluginReport> => (await ask<PluginReport[]>('/v1/plugins'))[0];
  const dropsOf = (name: string) => running.port(name)?.drops;

  it('decide, count and are told about', async () => {
    guest('a').send(frameOf('b', 'a', 1, 61));
    guest('a').send(frameOf('b', 'a', 2, 62));
    guest('a').send(frameOf('b', 'a', 3, 63));
    expect(await guest('b').received()).toEqual(frameOf('b', 'a', 3, 63));
    expect(dropsOf('a')?.plugin).toBe(2);
    const plugin = await report();
    expect(plugin).toMatchObject({
      name: 'rule',
      settings: { other: '62' },
      state: 'running',
      frames: 4,
      drops: [{ name: 'no', text: 'sent a frame of that size', frames: 2 }],
      counters: { seen: 4 },
    });
    expect(formatPlugins([plugin])).toMatch(
      /^PLUGIN +STATE +FRAMES +DROPPED +FILE\nrule +running +4 +2 +\/.*rule\.ts\n {2}dropped 2: sent a frame of that size \(no\)\n {2}seen 4\n/,
    );
  });

  it('are asked by a trace, which counts nothing', async () => {
    const trace = (sizeBytes: number): Promise<TraceReport> =>
      ask('/v1/trace', 'POST', {
        port: 'a',
        frame: Buffer.from(frameOf('b', 'a', 1, sizeBytes)).toString('hex'),
      });
    for (const dropped of [61, 62])
      expect((await trace(dropped)).result).toBe('dropped by rule: it sent a frame of that size (no)');
    const { steps, result } = await trace(63);
    expect(steps).toContainEqual({ stage: 'plugins', text: 'rule passes it' });
    expect(result).toBe('goes to b');
    expect(await report()).toMatchObject({ frames: 1, counters: { seen: 1 } });
    expect(dropsOf('a')?.plugin).toBe(0);
  });

  it('are reloaded without losing a frame', async () => {
    let sent = 0;
    let received = 0;
    let isReloading = true;
    const pass = async (): Promise<void> => {
      while (isReloading || received < sent) {
        while (isReloading && sent - received < 16 && guest('a').send(frameOf('b', 'a', sent))) sent++;
        for (let frame = guest('b').receive(); frame !== null; frame = guest('b').receive()) {
          expect(frame).toEqual(frameOf('b', 'a', received));
          received++;
        }
        await turn();
      }
    };
    const passing = pass();
    for (let round = 0; round < 10; round++) {
      folder.write('rule.ts', rule('', 70 + round));
      const [{ reloads }] = await reload();
      expect(reloads).toBe(round + 1);
      const before = received;
      await vi.waitUntil(() => received > before, WAIT_MS);
    }
    isReloading = false;
    await passing;
    expect(received).toBe(sent);
    // The first frame came from b.
    expect(await report()).toMatchObject({
      frames: sent + 1,
      counters: { seen: sent + 1 },
      drops: [{ frames: 0 }],
    });
    guest('a').send(frameOf('b', 'a', 1, 79));
    guest('a').send(frameOf('b', 'a', 2));
    expect(await guest('b').received()).toEqual(frameOf('b', 'a', 2));
    expect(dropsOf('a')?.plugin).toBe(1);
  });

  it.each([
    ['is none', 'export default 1;\n', /^400 plugin rule \(.*rule\.ts\): its default export is no function$/],
    ['throws at a trial', rule("throw new Error('no');"), /^400 plugin rule \(.*\): Error: no /],
  ])('go on as they were when what is to come %s', async (_, text, message) => {
    folder.write('rule.ts', text);
    await expect(reload()).rejects.toThrow(message);
    guest('a').send(frameOf('b', 'a', 1, 61));
    guest('a').send(frameOf('b', 'a', 2));
    expect(await guest('b').received()).toEqual(frameOf('b', 'a', 2));
    expect(await report()).toMatchObject({ state: 'running', reloads: 0, frames: 3 });
  });

  it.each([
    ['throw', "if (size === 64) throw new Error('not that');", /^Error: not that \(\S*rule\.ts:\d+:\d+\)$/],
    ['do not end', 'if (size === 64) for (;;);', /^TurnsError: a loop did not end/],
  ])('that %s are taken out, and new code brings them back', async (_, body, reason) => {
    folder.write('rule.ts', rule(body));
    await reload();
    guest('a').send(frameOf('b', 'a', 1));
    await guest('b').received();
    guest('a').send(frameOf('b', 'a', 2, 64));
    await vi.waitUntil(() => dropsOf('a')?.pluginFailed === 1, WAIT_MS);
    await vi.waitUntil(async () => (await report()).state === 'failed', WAIT_MS);
    expect((await report()).reason).toMatch(reason);
    // In the other worker too, once it has been told.
    await running.allTurn();
    guest('b').send(frameOf('a', 'b', 2));
    await vi.waitUntil(() => dropsOf('b')?.pluginFailed === 1, WAIT_MS);
    expect(formatPlugins([await report()])).toMatch(
      /; what it was to decide on is dropped until it is reloaded\n/,
    );
    folder.write('rule.ts', rule());
    await reload();
    guest('a').send(frameOf('b', 'a', 3));
    expect(await guest('b').received()).toEqual(frameOf('b', 'a', 3));
    expect(await report()).toMatchObject({ state: 'running', reason: null });
  });

  it('are told of ports and of the time, and what they note is shown', async () => {
    const notes = (): Promise<PluginNotes> => ask('/v1/plugins/rule/notes');
    await vi.waitUntil(async () => (await notes()).some(({ key }) => key === 'tick'), WAIT_MS);
    expect((await notes()).toSorted((x, y) => (x.key < y.key ? -1 : 1))).toEqual([
      { key: 'port a', value: 'there as 0' },
      { key: 'port b', value: 'there as 1' },
      { key: 'tick', value: 'true' },
    ]);
    expect(formatNotes(await notes())).toMatch(/^KEY +NOTE\n/);
    await ask('/v1/ports/c', 'PUT', { socket: `${folder.path}/c.sock` });
    await vi.waitUntil(async () => (await notes()).some(({ key }) => key === 'port c'), WAIT_MS);
    await ask('/v1/ports/c', 'DELETE');
    await vi.waitUntil(async () => !(await notes()).some(({ key }) => key === 'port c'), WAIT_MS);
  });

  it('are passed by the frames of ports that name others, or none', async () => {
    await ask('/v1/ports/a', 'PATCH', { plugins: 'none' });
    expect(running.port('a')?.settings.plugins).toEqual([]);
    guest('a').send(frameOf('b', 'a', 1, 61));
    expect(await guest('b').received()).toEqual(frameOf('b', 'a', 1, 61));
    await expect(ask('/v1/ports/a', 'PATCH', { plugins: ['rule', 'rlue'] })).rejects.toThrow(
      '400 port a: plugins: rlue is not allowed (there are rule)',
    );
    await ask('/v1/ports/a', 'PATCH', { plugins: ['rule'] });
    guest('a').send(frameOf('b', 'a', 2, 61));
    await vi.waitUntil(() => dropsOf('a')?.plugin === 1, WAIT_MS);
    await expect(ask('/v1/plugins/rule', 'DELETE')).rejects.toThrow('409 plugin rule is named by a');
  });

  it('come and go', async () => {
    const file = folder.write('more.ts', rule('', 65));
    await ask('/v1/plugins/more', 'PUT', { file: 'more.ts', folder: folder.path, onFault: 'pass' });
    await expect(ask('/v1/plugins/more', 'PUT', { file })).rejects.toThrow(
      '400 plugin more is there already',
    );
    await expect(ask('/v1/plugins/other', 'PUT', { file, limit: 1, budgetUs: 1 })).rejects.toThrow(
      '400 plugin other: budgetUs: 1 is not allowed (10 to 1000000)',
    );
    await expect(ask('/v1/plugins/other', 'PUT', { file, limit: 1 })).rejects.toThrow(
      /limit: unknown setting \(there are other\)$/,
    );
    guest('a').send(frameOf('b', 'a', 1, 65));
    guest('a').send(frameOf('b', 'a', 2));
    expect(await guest('b').received()).toEqual(frameOf('b', 'a', 2));
    await ask('/v1/plugins/more', 'DELETE');
    await ask('/v1/plugins/rule', 'DELETE');
    guest('a').send(frameOf('b', 'a', 3, 65));
    expect(await guest('b').received()).toEqual(frameOf('b', 'a', 3, 65));
    expect(await ask('/v1/plugins')).toEqual([]);
    await expect(ask('/v1/plugins/rule', 'DELETE')).rejects.toThrow('404 there is no plugin rule');
    await expect(ask('/v1/plugins/rule/notes')).rejects.toThrow('404 there is no plugin rule');
  });
});

describe('plugins that cannot be', () => {
  const folder = new PluginFolder();
  afterAll(() => folder.close());

  it('keep the switch from starting, all told at once', async () => {
    const files = [
      folder.write('one.ts', 'export default 1;\n'),
      folder.write('two.ts', 'export const a = 1;\n'),
    ];
    const config = resolveConfig([
      settingsOf({ port: [`a=${folder.path}/a.sock`], plugin: files, control: 'none' }),
    ]);
    await expect(Switch.start(config, createLogger('silent'))).rejects.toThrow(
      /^plugin one \(.*one\.ts\): its default export is no function; plugin two \(.*two\.ts\): it has no default export$/,
    );
  });

  it('are told with the other mistakes of a configuration', () => {
    const options = {
      port: ['a=/tmp/a.sock,plugins=tow', 'b=/tmp/b.sock,plugins=none,mtu=1'],
      plugin: ['two.ts,budget-us=x,as=2'],
    };
    expect(() => resolveConfig([settingsOf({ ...options, control: 'none' })])).toThrow(
      /^--port b: mtu: 1 is not allowed \(68 to 65535\); --plugin 2: not allowed \(plugin names are .*\)$/,
    );
    expect(() =>
      resolveConfig([settingsOf({ port: options.port.slice(0, 1), plugin: ['two.ts'], control: 'none' })]),
    ).toThrow('--port a: plugins: tow is not allowed (there are two)');
    expect(() => settingsOf({ plugin: ['two.ts', '/etc/two.ts'] })).toThrow(
      '--plugin two: given twice (as=NAME gives one another name)',
    );
  });
});
