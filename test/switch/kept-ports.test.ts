/** Ports that are added at run time, across starts: what is kept, what the configuration overrides, and a file that is bad. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type PortConfig, resolvePort } from '../../switch/config/resolve.ts';
import type { GroupChange } from '../../switch/control/api.ts';
import { KeptPorts, type PortHost } from '../../switch/kept-ports.ts';
import type { Logger } from '../../switch/log.ts';
import type { PluginSpec } from '../../switch/plugin/bundle.ts';
import { NoSuchPortError } from '../../switch/port-errors.ts';

const NOTHING = { ports: [], plugins: [] };

let folder = '';
let path = '';
let lines: string[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-kept-'));
  path = join(folder, 'ringway.ports.json');
  lines = [];
});
afterEach(() => rmSync(folder, { recursive: true }));

const log = {
  info: (about: unknown, text?: string) => lines.push(`info ${textOf(about, text)}`),
  warn: (about: unknown, text?: string) => lines.push(`warn ${textOf(about, text)}`),
} as unknown as Logger;

function textOf(about: unknown, text?: string): string {
  if (typeof about === 'string') return about;
  const { port, plugin } = about as { port?: string; plugin?: string };
  return `${port ?? plugin} ${text}`;
}

/** A switch that has the ports that it is given, and refuses those of some names. */
class FakeHost implements PortHost {
  readonly ports = new Map<string, PortConfig>();
  readonly refused = new Set<string>();
  /** PORT GROUP VLAN */
  readonly members = new Set<string>();
  readonly plugins = new Set<string>();

  async addPort(config: PortConfig): Promise<void> {
    if (this.refused.has(config.name)) throw new Error('its socket is taken');
    this.ports.set(config.name, config);
  }

  async changePort(name: string): Promise<void> {
    if (!this.ports.has(name)) throw new NoSuchPortError(name);
  }

  async removePort(name: string): Promise<void> {
    if (!this.ports.delete(name)) throw new NoSuchPortError(name);
    for (const member of this.members) if (member.startsWith(`${name} `)) this.members.delete(member);
  }

  addGroup({ port, group, vlan }: GroupChange): void {
    if (!this.ports.has(port)) throw new NoSuchPortError(port);
    this.members.add(`${port} ${group.join('.')} ${vlan}`);
  }

  removeGroup({ port, group, vlan }: GroupChange): void {
    this.members.delete(`${port} ${group.join('.')} ${vlan}`);
  }

  restoreAddresses(): void {}

  async addPlugin({ name }: PluginSpec): Promise<void> {
    if (this.refused.has(name)) throw new Error('a syntax error');
    this.plugins.add(name);
  }

  async removePlugin(name: string): Promise<void> {
    this.plugins.delete(name);
  }

  async setPlugins(specs: readonly PluginSpec[]): Promise<void> {
    this.plugins.clear();
    for (const { name } of specs) this.plugins.add(name);
  }
}

/** As a start of the switch, with these ports in its configuration. */
async function start(...configured: string[]): Promise<{ host: FakeHost; kept: KeptPorts; names: string[] }> {
  const host = new FakeHost();
  return startAt(host, configured);
}

async function startAt(
  host: FakeHost,
  configured: readonly string[],
  plugins: readonly PluginSpec[] = [],
): Promise<{ host: FakeHost; kept: KeptPorts; names: string[] }> {
  const kept = new KeptPorts(path, log);
  const configs = configured.map((name) => resolvePort(name, { socket: `/x/${name}.sock` }));
  const changed = kept.changed({ ports: configs, plugins }, true);
  for (const { name } of changed.plugins) host.plugins.add(name);
  for (const config of changed.ports) host.ports.set(config.name, config);
  const restored = await kept.restore(host);
  kept.restoreGroups();
  kept.forgetOthers();
  return { host, kept, names: restored.map(({ name }) => name) };
}

const add = (kept: KeptPorts, name: string, settings: object = {}): Promise<void> => {
  const all = { socket: join(folder, `${name}.sock`), ...settings };
  return kept.addPort(resolvePort(name, all), all);
};

describe('ports that were added at run time', () => {
  it('are there again, with what was changed of them, in the order in which they were added', async () => {
    const { kept } = await start('vm0');
    await add(kept, 'vm2', { queues: 4, tag: 5, flood: false });
    await add(kept, 'vm1');
    await kept.changePort('vm2', { tag: null, mtu: 1400 });
    lines = [];
    const { host, names } = await start('vm0');
    expect(names).toEqual(['vm2', 'vm1']);
    expect(host.ports.get('vm2')).toMatchObject({ queues: 4, flood: false, mtu: 1400 });
    expect(host.ports.get('vm2')).not.toHaveProperty('tag');
    expect(lines).toEqual(
      ['vm2', 'vm1'].map((name) => `info ${name} is there again, as it was added at run time`),
    );
  });

  it('are gone for good once they were removed', async () => {
    const { kept } = await start();
    await add(kept, 'vm2');
    await kept.removePort('vm2');
    expect((await start()).names).toEqual([]);
    await expect(kept.removePort('vm2')).rejects.toThrow(NoSuchPortError);
  });

  it('are not kept when they could not be added, changed or removed', async () => {
    const { host, kept } = await start();
    host.refused.add('vm2');
    await expect(add(kept, 'vm2')).rejects.toThrow('taken');
    await expect(kept.changePort('vm2', { tag: 1 })).rejects.toThrow(NoSuchPortError);
    expect(existsSync(path)).toBe(false);
  });

  it('lie where they lay, wherever the next switch is started', async () => {
    const { kept } = await start();
    await kept.addPort(resolvePort('vm2', { socket: 'vm2.sock' }), { socket: 'vm2.sock' });
    expect((await start()).host.ports.get('vm2')).toMatchObject({ socket: resolve('vm2.sock') });
  });

  it('are as the configuration says when it names them', async () => {
    const { kept } = await start('vm0');
    await kept.changePort('vm0', { tag: 7 });
    await kept.removePort('vm0');
    await add(kept, 'vm0', { tag: 7 });
    await add(kept, 'vm2');
    const { host, names } = await start('vm0');
    expect(names).toEqual(['vm2']);
    expect(host.ports.get('vm0')).toMatchObject({ socket: '/x/vm0.sock' });
    expect(lines).toContain('info vm0 is as the configuration says, not as it was added at run time');
    // And that is forgotten.
    expect((await start()).names).toEqual(['vm2']);
  });

  it('are tried again at each start, and said to be missing, until they are removed', async () => {
    const { kept } = await start();
    await add(kept, 'vm1');
    await add(kept, 'vm2');
    const host = new FakeHost();
    host.refused.add('vm1');
    const { kept: keptThen, names } = await startAt(host, []);
    expect(names).toEqual(['vm2']);
    expect(lines).toContain('warn vm1 was added at run time, and cannot be had again: its socket is taken');
    await add(keptThen, 'vm3');
    expect((await start()).names).toEqual(['vm1', 'vm2', 'vm3']);
    await keptThen.removePort('vm1');
    expect((await start()).names).toEqual(['vm2', 'vm3']);
  });

  it('are kept nowhere without a file', async () => {
    const kept = new KeptPorts(null, log);
    expect(kept.changed(NOTHING, true)).toEqual(NOTHING);
    expect(await kept.restore(new FakeHost())).toEqual([]);
    await add(kept, 'vm2');
    expect(readdirSync(folder)).toEqual([]);
  });
});

describe('what was set of ports of the configuration', () => {
  const VM0 = { socket: '/x/vm0.sock', tag: 7 };

  /** As a start with vm0 so in its configuration; answers it as it is started. */
  async function startWith(
    settings: object,
    isRestored = true,
    plugins: readonly PluginSpec[] = [],
  ): Promise<{ kept: KeptPorts; vm0: PortConfig }> {
    const host = new FakeHost();
    const kept = new KeptPorts(path, log);
    const configured = { ports: [resolvePort('vm0', settings)], plugins };
    const [vm0] = kept.changed(configured, isRestored).ports;
    host.ports.set('vm0', vm0);
    await kept.restore(host);
    kept.forgetOthers();
    return { kept, vm0 };
  }

  it('holds at the next start, and the one after it', async () => {
    const { kept } = await startWith(VM0);
    await kept.changePort('vm0', { tag: 8, mtu: 1400 });
    await kept.changePort('vm0', { flood: false, mtu: null });
    for (let i = 0; i < 2; i++) {
      const { vm0 } = await startWith(VM0);
      expect(vm0).toMatchObject({ tag: 8, flood: false });
      expect(vm0).not.toHaveProperty('mtu');
    }
    expect(lines.at(-1)).toBe('info vm0 is as it was set at run time');
  });

  it('also where the configuration says something, and it was set to nothing', async () => {
    const { kept } = await startWith(VM0);
    await kept.changePort('vm0', { tag: null });
    const { vm0 } = await startWith(VM0);
    expect(vm0).not.toHaveProperty('tag');
  });

  it('is over once the configuration says something else of the port', async () => {
    const { kept } = await startWith(VM0);
    await kept.changePort('vm0', { tag: 8 });
    expect((await startWith({ ...VM0, flood: false })).vm0).toMatchObject({ tag: 7, flood: false });
    expect(lines).toContain('info vm0 is as the configuration says now, not as it was set at run time');
    // For good.
    expect((await startWith(VM0)).vm0).toMatchObject({ tag: 7, flood: true });
    expect(existsSync(path)).toBe(false);
  });

  it('is over once the configuration says something of what was set, where it said nothing', async () => {
    const { kept } = await startWith({ socket: VM0.socket });
    await kept.changePort('vm0', { tag: 8 });
    expect((await startWith({ ...VM0, tag: 9 })).vm0).toMatchObject({ tag: 9 });
    expect(existsSync(path)).toBe(false);
  });

  it('holds in a later version, which knows more settings', async () => {
    const { kept } = await startWith(VM0);
    await kept.changePort('vm0', { tag: 8 });
    const state = JSON.parse(readFileSync(path, 'utf8'));
    delete state.configured.vm0.forwardBpdu;
    writeFileSync(path, JSON.stringify(state));
    expect((await startWith(VM0)).vm0).toMatchObject({ tag: 8 });
  });

  it('is left out with a line in the log where it cannot be', async () => {
    const { kept } = await startWith(VM0);
    await kept.changePort('vm0', { tag: 8 });
    writeFileSync(path, readFileSync(path, 'utf8').replace('"tag": 8', '"tag": 8000'));
    expect((await startWith(VM0)).vm0).toMatchObject({ tag: 7 });
    expect(lines.at(-1)).toMatch(/^warn vm0 was set at run time, and cannot be so again: .*8000/);
  });

  it('is left out where it names a plugin that is not there any more', async () => {
    const { kept } = await startWith(VM0, true, [pluginOf('access')]);
    await kept.changePort('vm0', { plugins: ['access'] });
    expect((await startWith(VM0, true, [pluginOf('access')])).vm0).toMatchObject({ plugins: ['access'] });
    expect((await startWith(VM0)).vm0).not.toHaveProperty('plugins');
    expect(lines.at(-1)).toBe(
      'warn vm0 was set at run time, and cannot be so again: plugins: access is not allowed (there are no plugins)',
    );
  });

  it('is not there without being restored, and goes with its port', async () => {
    const { kept } = await startWith(VM0);
    await kept.changePort('vm0', { tag: 8 });
    expect((await startWith(VM0, false)).vm0).toMatchObject({ tag: 7 });
    await kept.removePort('vm0');
    expect(existsSync(path)).toBe(false);
  });
});

describe('members of groups by hand', () => {
  const GROUP = Uint8Array.of(239, 1, 1, 1);
  const change = (port: string, vlan = 10): GroupChange => ({ port, vlan, group: GROUP });

  it('are members again, of ports of the configuration and of added ones', async () => {
    const { kept } = await start('vm0');
    await add(kept, 'vm1');
    kept.addGroup(change('vm0'));
    kept.addGroup(change('vm1'));
    kept.addGroup(change('vm1', 11));
    kept.removeGroup(change('vm1', 11));
    for (let i = 0; i < 2; i++) {
      const { host } = await start('vm0');
      expect([...host.members]).toEqual(['vm0 239.1.1.1 10', 'vm1 239.1.1.1 10']);
    }
  });

  it('are kept while their port is not there, and gone once it is removed', async () => {
    const { kept } = await start('vm0');
    kept.addGroup(change('vm0'));
    const { kept: next, host } = await start();
    expect([...host.members]).toEqual([]);
    expect(lines).toEqual([
      'warn vm0 was made a member of 239.1.1.1 in VLAN 10 at run time, and cannot be one again: there is no port vm0',
    ]);
    await add(next, 'vm0');
    expect([...host.members]).toEqual(['vm0 239.1.1.1 10']);
    await next.removePort('vm0');
    expect(existsSync(path)).toBe(false);
  });

  it('are not kept when there is no such port', async () => {
    const { kept } = await start();
    expect(() => kept.addGroup(change('vm9'))).toThrow('there is no port vm9');
    expect(existsSync(path)).toBe(false);
  });
});

function pluginOf(name: string): PluginSpec {
  return {
    name,
    file: `/etc/${name}.ts`,
    settings: { rules: 'a.rules', ports: ['x', 'y'] },
    folder: '/etc',
    onFault: null,
    budgetUs: 1000,
  };
}

describe('plugins that were added at run time', () => {
  it('are there again behind those of the configuration, in the order in which they were added', async () => {
    const { kept } = await startAt(new FakeHost(), [], [pluginOf('first')]);
    for (const name of ['b', 'a', 'c']) await kept.addPlugin(pluginOf(name));
    await kept.removePlugin('c');
    for (let i = 0; i < 2; i++) {
      const { plugins } = new KeptPorts(path, log).changed({ ports: [], plugins: [pluginOf('first')] }, true);
      const added = ['b', 'a'].map((name) => ({ ...pluginOf(name), isKept: true }));
      expect(plugins).toEqual([pluginOf('first'), ...added]);
    }
    const { kept: next, host } = await start();
    expect([...host.plugins]).toEqual(['b', 'a']);
    for (const name of ['a', 'b']) await next.removePlugin(name);
    expect(existsSync(path)).toBe(false);
  });

  it('are as the configuration says when it names them, and then forgotten', async () => {
    const { kept } = await start();
    await kept.addPlugin(pluginOf('a'));
    const { host } = await startAt(new FakeHost(), [], [{ ...pluginOf('a'), file: '/other.ts' }]);
    expect([...host.plugins]).toEqual(['a']);
    expect(lines).toEqual(['info a is as the configuration says, not as it was added at run time']);
    expect(existsSync(path)).toBe(false);
  });

  it('are not kept when they cannot be', async () => {
    const { kept, host } = await start();
    host.refused.add('a');
    await expect(kept.addPlugin(pluginOf('a'))).rejects.toThrow('a syntax error');
    expect(existsSync(path)).toBe(false);
  });
});

describe('a file of ports', () => {
  const GOOD = JSON.stringify({ format: 1, ports: {} });
  it.each([
    ['is no JSON', GOOD.slice(0, -3), 'it is no JSON'],
    ['is of another form', '{"format":1}', 'it is not of the form that Ringway writes'],
    ['is of another format', GOOD.replace('1', '2'), 'its format is 2, and this is 1'],
  ])('that %s is put aside, with a line in the log, and the switch starts', async (_what, text, why) => {
    writeFileSync(path, text);
    const { kept, names } = await start();
    expect(names).toEqual([]);
    expect(lines[0]).toBe(`warn ports that were added at run time are not there again: ${path}: ${why}`);
    expect(readFileSync(`${path}.unread`, 'utf8')).toBe(text);
    await add(kept, 'vm2');
    expect((await start()).names).toEqual(['vm2']);
  });

  it('that others may write to is not read', async () => {
    writeFileSync(path, GOOD);
    chmodSync(path, 0o666);
    await start();
    expect(lines[0]).toContain('others may write to it');
  });

  it('with a port that nobody can have adds the others', async () => {
    const ports = { 'no name': {}, vm1: { queues: 0, socket: '/x/a' }, vm2: { socket: '/x/b' } };
    writeFileSync(path, JSON.stringify({ format: 1, ports }));
    expect((await start()).names).toEqual(['vm2']);
    expect(lines.filter((line) => line.startsWith('warn'))).toHaveLength(2);
  });

  it('that cannot be written is told, and the port is there all the same', async () => {
    const { host, kept } = await start();
    mkdirSync(`${path}.new`);
    await add(kept, 'vm2');
    expect(host.ports.has('vm2')).toBe(true);
    expect(lines.at(-1)).toMatch(/^warn ports will not be as they are now after a restart: .*EISDIR/);
  });

  it('is whole at any moment: nothing but it is left in its folder', async () => {
    const { kept } = await start();
    await add(kept, 'vm2');
    expect(readdirSync(folder)).toEqual(['ringway.ports.json']);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toMatchObject({ format: 1 });
  });
});
