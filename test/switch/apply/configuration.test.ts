/**
 * A running switch that becomes as a configuration says, against a host that is only a table: what is told, that only what
 * differs is touched, that a refusal anywhere leaves all as it was, and that what is shown starts the same again. Seeded.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Configuration } from '../../../switch/apply/configuration.ts';
import { parseConfigText } from '../../../switch/config/file.ts';
import {
  type PortConfig,
  resolveChange,
  resolveConfig,
  type SwitchConfig,
} from '../../../switch/config/resolve.ts';
import { jsonSource, type SettingSource } from '../../../switch/config/settings.ts';
import type { GroupChange } from '../../../switch/control/api.ts';
import { KeptPorts, type PortHost } from '../../../switch/kept-ports.ts';
import type { Logger } from '../../../switch/log.ts';
import type { PluginSpec } from '../../../switch/plugin/bundle.ts';
import { NoSuchPortError, PortConflictError } from '../../../switch/port-errors.ts';
import type { KeptAddress } from '../../../switch/static-addresses.ts';
import { Random, seeds } from '../../vring/random.ts';

const NO_OPTIONS: SettingSource = jsonSource({});

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-apply-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const log = { info: () => {}, warn: () => {}, error: () => {} } as unknown as Logger;

/** Ports and plugins as the switch has them. */
class FakeHost implements PortHost {
  readonly ports = new Map<string, PortConfig>();
  pluginSpecs: readonly PluginSpec[] = [];
  /** PORT GROUP VLAN */
  readonly members = new Set<string>();
  addresses: readonly KeptAddress[] = [];
  onKept: (kept: readonly KeptAddress[]) => void = () => {};
  /** What was done, in order. */
  readonly done: string[] = [];
  /** How many more things may be done before one is refused. */
  left = Number.POSITIVE_INFINITY;

  get portConfigs(): readonly PortConfig[] {
    return [...this.ports.values()];
  }

  #note(text: string): void {
    if (this.left-- === 0) throw new PortConflictError('refused by the test');
    this.done.push(text);
  }

  async addPort(config: PortConfig): Promise<void> {
    this.#note(`add ${config.name}`);
    if (this.ports.has(config.name)) throw new PortConflictError(`port ${config.name} exists already`);
    const socket = (port: PortConfig): unknown => Object.entries(port).find(([key]) => key === 'socket')?.[1];
    if (this.portConfigs.some((port) => socket(port) === socket(config)))
      throw new PortConflictError('taken');
    this.ports.set(config.name, config);
  }

  addGroup({ port, group, vlan }: GroupChange): void {
    this.members.add(`${port} ${group.join('.')} ${vlan}`);
  }

  addAddress(address: KeptAddress): void {
    this.addresses = [...this.addresses, address];
    this.onKept(this.addresses);
  }

  restoreAddresses(before: readonly KeptAddress[]): void {
    const isThere = (one: KeptAddress): boolean =>
      this.addresses.some(({ mac, vlan }) => mac === one.mac && vlan === one.vlan);
    this.addresses = [...this.addresses, ...before.filter((one) => !isThere(one))];
    this.onKept(this.addresses);
  }

  async changePort(name: string, change: unknown): Promise<void> {
    this.#note(`change ${name}`);
    const port = this.ports.get(name);
    if (port === undefined) throw new NoSuchPortError(name);
    this.ports.set(name, resolveChange(port, change));
  }

  async removePort(name: string): Promise<void> {
    this.#note(`remove ${name}`);
    if (!this.ports.delete(name)) throw new NoSuchPortError(name);
    for (const member of this.members) if (member.startsWith(`${name} `)) this.members.delete(member);
    this.addresses = this.addresses.filter(({ port }) => port !== name);
    this.onKept(this.addresses);
  }

  async setPlugins(specs: readonly PluginSpec[]): Promise<void> {
    this.#note(`plugins ${specs.map(({ name }) => name).join(' ')}`);
    const names = specs.map(({ name }) => name);
    const orphan = this.portConfigs.find(
      ({ plugins }) => plugins?.some((name) => !names.includes(name)) === true,
    );
    // A frame would pass that was not decided on.
    if (orphan !== undefined) throw new Error(`${orphan.name} names a plugin that is gone`);
    this.pluginSpecs = specs;
  }

  async tryPlugins(): Promise<void> {}
  removeGroup(): void {}
  async addPlugin(): Promise<void> {}
  async removePlugin(): Promise<void> {}
}

type World = {
  readonly host: FakeHost;
  readonly kept: KeptPorts;
  readonly configuration: Configuration;
  readonly started: SwitchConfig;
};

/** A switch that was started with that file. */
async function start(file: SettingSource, options: SettingSource = NO_OPTIONS): Promise<World> {
  const host = new FakeHost();
  const kept = new KeptPorts(join(folder, 'state.json'), log);
  const started = resolveConfig([file, options]);
  const { ports, plugins } = kept.changed(started, true);
  for (const port of ports) await host.addPort(port);
  host.pluginSpecs = plugins;
  await kept.restore(host);
  host.onKept = (addresses) => kept.keepAddresses(addresses);
  const configuration = new Configuration({ running: host, kept, log, started, file, options });
  host.done.length = 0;
  return { host, kept, configuration, started };
}

const yaml = (text: string): SettingSource => parseConfigText('new.yaml', text);
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
const byName = (ports: readonly PortConfig[]): unknown =>
  plain([...ports].sort((a, b) => (a.name < b.name ? -1 : 1)));
const state = (): string | null => {
  const path = join(folder, 'state.json');
  return existsSync(path) ? readFileSync(path, 'utf8') : null;
};

const BEFORE = `
ports:
  a: { socket: /r/a.sock, tag: 10 }
  b: { socket: /r/b.sock, queues: 2, rateIn: 10M }
  c: { socket: /r/c.sock }
plugins:
  one: { file: /p/one.ts }
  two: { file: /p/two.ts, rules: x }
`;
const AFTER = `
ports:
  a: { socket: /r/a.sock, tag: 20, trunks: [1, 2], vlanMode: native-untagged }
  b: { socket: /r/b.sock, queues: 4 }
  d: { socket: /r/c.sock, plugins: [three] }
plugins:
  two: { file: /p/two.ts, rules: y }
  three: { file: /p/three.ts }
`;

describe('a configuration that is applied', () => {
  it('is told in lines, and with a dry run only told', async () => {
    const { host, configuration } = await start(yaml(BEFORE));
    const before = plain([host.portConfigs, host.pluginSpecs]);
    const report = await configuration.apply(yaml(AFTER), true, false);
    expect(report.lines).toEqual([
      '- plugin one',
      '~ plugin two: rules x -> y',
      '+ plugin three',
      '- port c, socket /r/c.sock',
      '! port b: queues 2 -> 4, rateIn 10000000 -> default (it is removed and added again: its link goes down for a moment)',
      '~ port a: tag 10 -> 20, vlanMode default -> native-untagged, trunks default -> [1, 2]',
      '+ port d, socket /r/c.sock',
    ]);
    expect(report.applied).toBe(false);
    expect(host.done).toEqual([]);
    expect(plain([host.portConfigs, host.pluginSpecs])).toEqual(before);
  });

  it('is told in the words of a file', async () => {
    const { configuration } = await start(yaml('ports:\n  a: { socket: /r/a.sock, mode: 0600 }\n'));
    const set = 'mode: 0660, owner: 0:107, features: { packed: off }, protected: on, guard: [dhcp, ra]';
    const other = yaml(`ports:\n  a: { socket: /r/a.sock, ${set} }\n`);
    const [line] = (await configuration.apply(other, true, false)).lines;
    expect(line).toContain('mode 0600 -> 0660, owner default -> 0:107, features default -> { packed: off }');
    expect(line).toContain('guard default -> [dhcp, ra]');
    expect(line).toContain('protected default -> on');
  });

  it('comes about, and touches nothing else', async () => {
    const { host, configuration } = await start(yaml(BEFORE));
    expect(await configuration.apply(yaml(AFTER), false, false)).toMatchObject({ applied: true });
    const wanted = resolveConfig([yaml(AFTER)]);
    expect(byName(host.portConfigs)).toEqual(byName(wanted.ports));
    expect(host.pluginSpecs).toEqual(wanted.plugins);
    expect(host.done).toEqual([
      'plugins two three one',
      'change a',
      'remove c',
      'remove b',
      'add b',
      'add d',
      'plugins two three',
    ]);
    const again = await configuration.apply(yaml(AFTER), false, false);
    expect(again).toEqual({ differences: [], lines: [], applied: true });
  });

  it('leaves all as it was when any step is refused', async () => {
    for (let steps = 0; ; steps++) {
      rmSync(join(folder, 'state.json'), { force: true });
      const { host, kept, configuration } = await start(yaml(BEFORE));
      await kept.changePort('c', { tag: '7' });
      for (const port of ['a', 'b', 'c']) {
        kept.addGroup({ port, group: Uint8Array.of(239, 1, 1, 1), vlan: 7 });
        host.addAddress({ mac: `02:00:00:00:00:0${port}`, vlan: 7, port, sticky: false });
      }
      const all = (): unknown =>
        plain([
          byName(host.portConfigs),
          host.pluginSpecs,
          configuration.shown(),
          [...host.members].sort(),
          host.addresses.toSorted((a, b) => (a.port < b.port ? -1 : 1)),
        ]);
      const before = all();
      const stateBefore = state();
      host.left = steps;
      const result = await configuration.apply(yaml(AFTER), false, false).catch((error: Error) => error);
      if (!(result instanceof Error)) {
        expect(steps).toBe(7);
        return;
      }
      expect(result.message).toBe('refused by the test');
      expect(all()).toEqual(before);
      expect(state()).toBe(stateBefore);
    }
  });

  it('leaves a port that is replaced what it has by hand, and keeps it', async () => {
    const { host, kept, configuration } = await start(yaml(BEFORE));
    const addresses = ['a', 'b', 'c'].map((port) => ({
      ...{ mac: `02:00:00:00:00:0${port}`, vlan: 7, port, sticky: false },
    }));
    for (const address of addresses) {
      host.addAddress(address);
      kept.addGroup({ port: address.port, group: Uint8Array.of(239, 1, 1, 1), vlan: 7 });
    }
    await configuration.apply(yaml(AFTER), false, false);
    // a is changed, b is replaced, c is removed.
    expect(host.done).toContain('remove b');
    expect([...host.members].sort()).toEqual(['a 239.1.1.1 7', 'b 239.1.1.1 7']);
    expect(host.addresses.map(({ port }) => port).sort()).toEqual(['a', 'b']);
    const { groups, addresses: inFile } = JSON.parse(state() ?? '');
    expect([groups.length, inFile.length]).toEqual([2, 2]);
  });

  it('takes back nothing that was said of other ports meanwhile', async () => {
    const { host, kept, configuration } = await start(yaml(BEFORE));
    const other = resolveConfig([jsonSource({ ports: { z: { socket: '/r/z.sock' } } })]).ports[0];
    await kept.addPort(other, { socket: '/r/z.sock' });
    host.done.length = 0;
    host.left = 5;
    const file = AFTER.replace('\nplugins:', '\n  z: { socket: /r/z.sock }\nplugins:');
    const refused = configuration.apply(yaml(file), false, false).catch((error: Error) => error.message);
    while (host.done.length === 0) await null;
    const added = { ...other, name: 'y', socket: '/r/y.sock' } as PortConfig;
    const meanwhile = [kept.addPort(added, { socket: '/r/y.sock' }), kept.changePort('z', { mtu: '1400' })];
    expect(await refused).toBe('refused by the test');
    await Promise.all(meanwhile);
    expect(JSON.parse(state() ?? '').ports).toEqual({
      z: { socket: '/r/z.sock', mtu: '1400' },
      y: { socket: '/r/y.sock' },
    });
    expect([...host.ports.keys()].sort()).toEqual(['a', 'b', 'c', 'y', 'z']);
  });

  it('is waited for by whoever wants all to stay as it is, with those that wait for their turn', async () => {
    const { host, configuration } = await start(yaml(BEFORE));
    const seen: string[] = [];
    const note = (what: string) => (): void => void seen.push(what);
    const all = [
      configuration.apply(yaml(AFTER), false, false).then(note('first')),
      configuration.settled().then(note('settled')),
      configuration.apply(yaml(BEFORE), false, false).then(note('second')),
    ];
    await Promise.all(all);
    expect(seen).toEqual(['first', 'second', 'settled']);
    const { length } = host.done;
    await configuration.settled();
    expect([length > 10, host.done.length]).toEqual([true, length]);
  });

  it('is not, where only another process can have it; and the options of the start hold', async () => {
    const options = jsonSource({ idleUs: 50 });
    const { host, configuration } = await start(yaml(`${BEFORE}\ncpus: [0]\n`), options);
    const other = `${BEFORE}\nfdb: { ageSeconds: 10 }\nidleUs: 7\nmetrics: 127.0.0.1:9600\nweb: /r/web.sock\n`;
    const { lines } = await configuration.apply(yaml(other), true, false);
    expect(lines).toEqual([
      'x cpus: [0] -> default (not while it runs: start another one with --takeover)',
      'x fdb: ageSeconds 300 -> 10 (not while it runs: start another one with --takeover)',
      'x metrics: default -> 127.0.0.1:9600 (not while it runs: start another one with --takeover)',
      'x web: default -> /r/web.sock (not while it runs: start another one with --takeover)',
    ]);
    await expect(configuration.apply(yaml(other), false, false)).rejects.toThrow(
      'nothing was changed, because a running switch keeps cpus, fdb, metrics, web',
    );
    expect(host.done).toEqual([]);
  });

  it('says itself which ports and plugins there are, where it is not the file of the start; there options hold', async () => {
    const options = jsonSource({
      ports: { a: { socket: '/r/a.sock' }, b: { socket: '/r/b.sock' } },
      plugins: { one: { file: '/p/one.ts' } },
    });
    const { host, kept, configuration } = await start(jsonSource({}), options);
    await kept.changePort('a', { tag: '10' });
    const shown = configuration.shown();
    expect((await configuration.apply(jsonSource(shown), true, false)).lines).toEqual([]);
    const other = yaml('ports:\n  a: { socket: /r/a.sock, tag: 20 }\n  c: { socket: /r/c.sock }\n');
    expect((await configuration.apply(other, false, false)).lines).toEqual([
      '- port b, socket /r/b.sock',
      '~ port a: tag 10 -> 20',
      '+ port c, socket /r/c.sock',
    ]);
    expect(host.portConfigs.map(({ name, tag }) => [name, tag])).toEqual([
      ['a', 20],
      ['c', undefined],
    ]);
    expect((await configuration.apply(other, true, false)).lines).toEqual([]);
    // As the next start would have it, which the options begin anew.
    expect((await configuration.apply(other, true, true)).lines).toEqual([
      '~ port a: tag 20 -> default',
      '+ port b, socket /r/b.sock',
    ]);
  });

  it('is shown with whole paths, for whoever reads it elsewhere', async () => {
    const settings = {
      control: 'c.sock',
      state: 'none',
      metrics: '[::1]:9600',
      web: './w.sock',
      webToken: 't',
    };
    const file = jsonSource({ ports: { a: { socket: 'a.sock' } }, ...settings });
    const { configuration } = await start(file);
    const shown = configuration.shown();
    expect(shown).toEqual({
      ports: { a: { socket: resolve('a.sock') } },
      control: resolve('c.sock'),
      state: 'none',
      metrics: '[::1]:9600',
      web: resolve('w.sock'),
      webToken: resolve('t'),
    });
    expect((await configuration.apply(jsonSource(shown), true, false)).lines).toEqual([]);
  });

  it('says all that is wrong, by the line on which it stands', async () => {
    const { configuration } = await start(yaml(BEFORE));
    const wrong = yaml('ports:\n  a: { socket: /r/a.sock, tag: 9999 }\n  b: { sockt: /r/b.sock }\n');
    await expect(configuration.apply(wrong, true, false)).rejects.toThrow(
      /new\.yaml:2: ports\.a\.tag: 9999 is not allowed .*; new\.yaml:3: ports\.b\.sockt: unknown setting/,
    );
  });

  it('is what the next start has anyway, where it is its own file; otherwise what was done is kept', async () => {
    const own = await start(yaml(BEFORE));
    await own.kept.changePort('a', { tag: '11' });
    await own.configuration.apply(yaml(AFTER), false, true);
    expect(state()).toBeNull();
    expect(byName((await start(yaml(AFTER))).host.portConfigs)).toEqual(byName(own.host.portConfigs));

    const other = await start(yaml(BEFORE));
    await other.configuration.apply(yaml(`${BEFORE}  `.replace('tag: 10', 'tag: 12')), false, false);
    const { host, kept } = { host: new FakeHost(), kept: new KeptPorts(join(folder, 'state.json'), log) };
    const { ports } = kept.changed(resolveConfig([yaml(BEFORE)]), true);
    for (const port of ports) await host.addPort(port);
    expect(host.ports.get('a')).toMatchObject({ tag: 12 });
  });
});

const KEYS: Readonly<Record<string, readonly string[]>> = {
  flood: ['on', 'off'],
  mtu: ['1400', '9000'],
  rateIn: ['10M', '20M'],
  framesOut: ['1000'],
  guard: ['dhcp', 'ra'],
  macs: ['02:00:00:00:00:01'],
  queues: ['2', '4'],
  mode: ['0660', '0600'],
  tag: ['5', '6'],
  offloads: ['no-tso'],
  features: ['no-packed'],
};

function shuffled<T>(random: Random, items: readonly T[]): T[] {
  const left = [...items];
  return items.map(() => left.splice(random.between(0, left.length - 1), 1)[0]);
}

function randomFile(random: Random): SettingSource {
  const plugins = ['p', 'q', 'r'].filter(() => random.chance(50));
  const ports: Record<string, Record<string, unknown>> = {};
  // Sockets are shared by names: one that moves from a port to another must be free first.
  const sockets = shuffled(random, ['1', '2', '3', '4', '5', '6']);
  for (const [i, name] of ['a', 'b', 'c', 'd', 'e', 'f'].entries()) {
    if (i > 0 && random.chance(33)) continue;
    const port: Record<string, unknown> = {
      socket: `/r/${random.chance(25) ? sockets[i] : `${i}`}x${sockets[i]}`,
    };
    for (const [key, values] of Object.entries(KEYS)) {
      if (random.chance(33)) port[key] = random.pick(values);
    }
    for (const key of ['offloads', 'features']) {
      if (port[key] !== undefined) port[key] = { [key === 'offloads' ? 'tso' : 'packed']: 'off' };
    }
    // No two ports may have the same one.
    if (random.chance(33)) port.staticMacs = [`02:00:00:00:0${i}:0${random.between(1, 2)}@9`];
    if (random.chance(25)) port.plugins = plugins.length === 0 ? 'none' : [random.pick(plugins)];
    ports[name] = port;
  }
  const settings = Object.fromEntries(
    shuffled(random, plugins).map((name) => [
      name,
      { file: `/p/${name}.ts`, x: String(random.between(0, 1)) },
    ]),
  );
  return jsonSource({ ports, plugins: settings });
}

describe('random configurations', () => {
  it('come about from one another, are shown so that a start is the same, and are taken back whole', async () => {
    for (const seed of seeds(15)) {
      const random = new Random(seed);
      rmSync(join(folder, 'state.json'), { force: true });
      const { host, configuration } = await start(randomFile(random));
      for (let round = 0; round < 4; round++) {
        const file = randomFile(random);
        const before = plain([byName(host.portConfigs), host.pluginSpecs, configuration.shown()]);
        host.left = random.chance(33) ? random.between(0, 5) : Number.POSITIVE_INFINITY;
        const result = await configuration
          .apply(file, false, random.chance(50))
          .catch((error: Error) => error);
        host.left = Number.POSITIVE_INFINITY;
        if (result instanceof Error) {
          expect(result.message, `seed ${seed}`).toBe('refused by the test');
          const now = [byName(host.portConfigs), host.pluginSpecs, configuration.shown()];
          expect(plain(now), `seed ${seed}`).toEqual(before);
        } else {
          const wanted = resolveConfig([file]);
          expect(byName(host.portConfigs), `seed ${seed}`).toEqual(byName(wanted.ports));
          expect(plain(host.pluginSpecs), `seed ${seed}`).toEqual(plain(wanted.plugins));
        }
        const shown = resolveConfig([jsonSource(configuration.shown())]);
        expect(byName(shown.ports), `seed ${seed}`).toEqual(byName(host.portConfigs));
        expect(plain(shown.plugins), `seed ${seed}`).toEqual(plain(host.pluginSpecs));
      }
    }
  });
});
