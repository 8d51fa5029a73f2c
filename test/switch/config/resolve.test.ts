/** Settings from files and options: what is accepted, and the one line that says why something is not. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunOptions, settingsOf } from '../../../switch/cli/options.ts';
import { COMMON_PORT_FIELDS } from '../../../switch/config/common-port.ts';
import { parseConfigText, readConfigFile, readConfigFileAgain } from '../../../switch/config/file.ts';
import { socketOf } from '../../../switch/config/kinds/index.ts';
import type { HostFacts } from '../../../switch/config/kinds/values.ts';
import { resolveConfig, type SwitchConfig } from '../../../switch/config/resolve.ts';
import { ConfigError } from '../../../switch/config/settings.ts';
import { SNOOPING_DEFAULTS } from '../../../switch/snooping/settings.ts';

const HOST: HostFacts = {
  pinnableCpus: () => [0, 2, 3],
  passwd: () => 'root:x:0:0:root:/root:/bin/sh\nlibvirt-qemu:x:64055:109::/:/bin/false\n',
  group: () => 'root:x:0:\nkvm:x:109:root\n',
};

function fromFile(text: string, options: RunOptions = {}): SwitchConfig {
  return resolveConfig([parseConfigText('r.yaml', text), settingsOf(options)], HOST);
}

function fromOptions(options: RunOptions): SwitchConfig {
  return resolveConfig([settingsOf(options)], HOST);
}

function messageOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as ConfigError).message;
  }
  throw new Error('accepted');
}

const PORT_A = {
  name: 'a',
  kind: 'vhost-user',
  socket: '/x/a.sock',
  role: 'server',
  queues: 16,
  configSpace: false,
  flood: true,
  receive: true,
  forwardBpdu: false,
};

describe('snooping', () => {
  const of = (text: string): SwitchConfig['snooping'] =>
    resolveConfig([parseConfigText('r.yaml', `ports: { a: { socket: /x/a.sock } }\nsnooping: ${text}\n`)])
      .snooping;

  it('is off, or on, or as a map says', () => {
    expect(of('on')).toEqual({ ...SNOOPING_DEFAULTS, enabled: true });
    expect(of('off')).toEqual(SNOOPING_DEFAULTS);
    expect(of('{ enabled: off, groups: 5 }')).toEqual({ ...SNOOPING_DEFAULTS, groups: 5 });
    expect(of('{}')).toEqual({ ...SNOOPING_DEFAULTS, enabled: true });
  });

  it.each([
    ['maybe', 'maybe is not allowed (on or off)'],
    ['{ querier: [10.0.0.1, 10.0.0.2] }', 'querier: a list is not allowed (an address of IPv4, one of IPv6'],
    ['{ querier: 239.1.1.1 }', 'querier: 239.1.1.1 is not allowed'],
    ['{ querier: 2001:db8::1 }', 'querier: 2001:db8::1 is not allowed'],
    ['{ groups: 0 }', 'groups: 0 is not allowed (1 to 65536)'],
    ['{ group: 7 }', 'group: unknown setting (did you mean groups?)'],
    ['{ vlans: 4096 }', 'vlans: 4096 is not allowed'],
  ])('cannot be %s', (text, message) => {
    expect(() => of(text)).toThrow(message);
  });
});

describe('accepted', () => {
  it('fills in every default', () => {
    expect(fromOptions({ port: ['a=/x/a.sock'] })).toEqual({
      plugins: [],
      ports: [PORT_A],
      cpus: null,
      poll: 'adaptive',
      idleUs: 100,
      fdb: { capacity: 8192, ageSeconds: 300 },
      arenaBytes: 2 ** 40,
      vlanLimit: 1,
      snooping: SNOOPING_DEFAULTS,
      controlSocket: '/x/ringway.sock',
      positionsFile: '/x/ringway.positions',
      stateFile: '/x/ringway.ports.json',
    });
  });

  describe('files that nobody named', () => {
    it.each<[string[], string | undefined, string | null, string | null]>([
      [['/x/a'], '/y/switch1.sock', '/y/switch1.positions', '/y/switch1.ports.json'],
      [['/x/a'], '/y/switch1', '/y/switch1.positions', '/y/switch1.ports.json'],
      [['/x/a'], 'none', '/x/ringway.positions', null],
      [['/x/ringway.positions', '/y/b'], undefined, null, '/x/ringway.ports.json'],
    ])('lie beside the control socket: %j, %s', (sockets, control, positionsFile, stateFile) => {
      const port = sockets.map((socket, i) => `p${i}=${socket}`);
      const config = fromOptions({ port, ...(control !== undefined && { control }) });
      expect(config).toMatchObject({ positionsFile, stateFile });
    });

    it('are none where there is no socket', () => {
      const config = fromOptions({ port: ['p=pcap:/x/a'] });
      expect(config).toMatchObject({ positionsFile: null, stateFile: null });
    });
  });

  describe('a control socket that nobody named', () => {
    const F = `/${'f'.repeat(99)}`;
    it.each<[string[], string | null]>([
      [['/x/ringway.sock'], '/x/ringway-control.sock'],
      [['/x/a', '/x/ringway.sock'], '/x/ringway-control.sock'],
      [['/x/ringway.sock', '/y/b'], '/x/ringway-control.sock'],
      [['/x/ringway.sock', '/x/ringway-control.sock', '/y/b'], '/y/ringway.sock'],
      [[`${F}/1234567`.slice(0, 107)], null],
      [[`${F}/s`, '/y/b'], '/y/ringway.sock'],
    ])("is in no port's way: %j", (sockets, controlSocket) => {
      const config = fromOptions({ port: sockets.map((socket, i) => `p${i}=${socket}`) });
      expect(config.ports.map(socketOf)).toEqual(sockets);
      expect(config.controlSocket).toBe(controlSocket);
      expect(config.controlObstacle).toBe(
        controlSocket === null
          ? 'no socket of at most 107 bytes can lie beside that of a port: name one with --control PATH'
          : undefined,
      );
    });

    it('is not missed where there is no socket at all, or none is wanted', () => {
      expect(fromOptions({ port: ['p=pcap:/x/a'] })).not.toHaveProperty('controlObstacle');
      expect(fromOptions({ port: [`p=${F}/s`], control: 'none' })).not.toHaveProperty('controlObstacle');
    });
  });

  it('reads every setting of a file', () => {
    const text = `
ports:
  vm0:
    socket: /run/vm0.sock
    role: server
    mode: 0660
    owner: libvirt-qemu:kvm
    queues: 127
    configSpace: on
    mac: 02:00:00:00:00:0A
    mtu: 9000
  7: { socket: ./vm1.sock, role: client }
cpus: [2, 3]
poll: busy
idleUs: 0
fdb: { capacity: 1048576, ageSeconds: 1 }
arena: 512GiB
vlanLimit: 0
snooping:
  floodUnregistered: off
  vlans: [10, 20-21]
  querier: [10.0.0.254, fe80::1]
  ageSeconds: 260
  groups: 64
control: /run/c.sock
positions: /dev/shm/positions
state: none
`;
    expect(fromFile(text)).toEqual({
      ports: [
        {
          name: '7',
          kind: 'vhost-user',
          socket: './vm1.sock',
          role: 'client',
          queues: 16,
          configSpace: false,
          flood: true,
          receive: true,
          forwardBpdu: false,
        },
        {
          name: 'vm0',
          socket: '/run/vm0.sock',
          kind: 'vhost-user',
          role: 'server',
          mode: 0o660,
          owner: { uid: 64055, gid: 109 },
          queues: 127,
          configSpace: true,
          mac: '02:00:00:00:00:0a',
          mtu: 9000,
          flood: true,
          receive: true,
          forwardBpdu: false,
        },
      ],
      cpus: [2, 3],
      poll: 'busy',
      plugins: [],
      idleUs: 0,
      fdb: { capacity: 1_048_576, ageSeconds: 1 },
      arenaBytes: 2 ** 39,
      vlanLimit: 2,
      snooping: {
        enabled: true,
        floodUnregistered: false,
        vlans: [10, 20, 21],
        querier: ['10.0.0.254', 'fe80::1'],
        ageSeconds: 260,
        groups: 64,
      },
      controlSocket: '/run/c.sock',
      positionsFile: '/dev/shm/positions',
      stateFile: null,
    });
  });

  it('reads every option', () => {
    const config = fromOptions({
      port: ['a=/x/a=b.sock,mode=0o600,owner=7:8,queues=1,config-space=on,mac=02:00:00:00:00:01,mtu=68'],
      cpus: '3,0',
      poll: 'busy',
      idleUs: '1000000',
      arena: '4294967296',
      fdbCapacity: '1',
      fdbAge: '1000000',
      vlanLimit: '2',
      snooping: true,
      querier: '10.0.0.254',
      control: 'none',
      positions: 'none',
      state: '/x/state',
    });
    expect(config).toEqual({
      ports: [
        {
          name: 'a',
          socket: '/x/a=b.sock',
          kind: 'vhost-user',
          role: 'server',
          mode: 0o600,
          owner: { uid: 7, gid: 8 },
          queues: 1,
          configSpace: true,
          mac: '02:00:00:00:00:01',
          mtu: 68,
          flood: true,
          receive: true,
          forwardBpdu: false,
        },
      ],
      cpus: [3, 0],
      poll: 'busy',
      plugins: [],
      idleUs: 1_000_000,
      fdb: { capacity: 1, ageSeconds: 1_000_000 },
      arenaBytes: 2 ** 32,
      vlanLimit: 2,
      snooping: { ...SNOOPING_DEFAULTS, enabled: true, querier: ['10.0.0.254'] },
      controlSocket: null,
      positionsFile: null,
      stateFile: '/x/state',
    });
  });

  it('lets options add ports, replace them whole and override the rest key by key', () => {
    const file = `
ports:
  a: { socket: /x/a.sock, queues: 4 }
  b: { socket: /x/b.sock, queues: 4 }
fdb: { capacity: 100, ageSeconds: 20 }
poll: busy
`;
    const config = fromFile(file, {
      port: ['b=/y/b.sock', 'c=/y/c.sock'],
      fdbAge: '30',
      poll: 'adaptive',
    });
    expect(config.ports).toMatchObject([
      { name: 'a', socket: '/x/a.sock', queues: 4 },
      { name: 'b', socket: '/y/b.sock', queues: 16 },
      { name: 'c', socket: '/y/c.sock', queues: 16 },
    ]);
    expect(config.fdb).toEqual({ capacity: 100, ageSeconds: 30 });
    expect(config.poll).toBe('adaptive');
  });

  it.each([
    ['660', 0o660],
    ['0660', 0o660],
    ['0o660', 0o660],
    ['007', 0o007],
  ])('takes mode %s as octal digits', (mode, bits) => {
    expect(fromFile(`ports: { a: { socket: /x/a, mode: ${mode} } }`).ports).toMatchObject([{ mode: bits }]);
  });

  it.each([
    ['4g', 2 ** 32],
    ['4096M', 2 ** 32],
    ['4TiB', 2 ** 42],
    ['4194304KiB', 2 ** 32],
  ])('takes arena %s', (arena, bytes) => {
    expect(fromOptions({ port: ['a=/x/a'], arena }).arenaBytes).toBe(bytes);
  });

  it('takes cpus as one text, and a socket path of 107 bytes', () => {
    const socket = `/${'s'.repeat(106)}`;
    expect(fromFile(`ports: { a: { socket: ${socket} } }\ncpus: 2,3\ncontrol: none`).cpus).toEqual([2, 3]);
  });

  it('accepts the example in the documentation of config.ts', () => {
    const source = readFileSync(new URL('../../../switch/config/resolve.ts', import.meta.url), 'utf8');
    const example = [...source.split('*/')[0].matchAll(/^ \* {5}(.*)$/gm)].map(([, line]) => line).join('\n');
    const cpus = { ...HOST, pinnableCpus: () => [2, 3] };
    const config = resolveConfig([parseConfigText('example', example)], cpus);
    expect(config.ports.map(({ name }) => name)).toEqual(['vm0', 'uml0', 'uplink', 'customer']);
    expect(config.ports[0]).toMatchObject({ owner: { uid: 64055, gid: 109 } });
  });
});

const MACS =
  'addresses of single stations: a list, in an option joined by +, for example 02:00:00:00:00:01+02:00:00:00:00:02';
const A = 'ports: { a: { socket: /x/a.sock } }\n';
const LONG = `/${'s'.repeat(107)}`;

describe('refused in a file', () => {
  it.each([
    ['', 'no port: give --port NAME=SOCKET, or ports in a file named with --config'],
    ['# nothing\n', 'no port: give --port NAME=SOCKET, or ports in a file named with --config'],
    ['ports: {}', 'no port: give --port NAME=SOCKET, or ports in a file named with --config'],
    ['just text', 'r.yaml:1: a map of settings is needed, with ports at least'],
    ['- a\n- b', 'r.yaml:1: a map of settings is needed, with ports at least'],
    ['ports:', 'r.yaml:1: ports: nothing is not allowed (a map of port names)'],
    ['\nports: [a]', 'r.yaml:2: ports: a list is not allowed (a map of port names)'],
    ['ports:\n  a: /x', 'r.yaml:2: ports.a: /x is not allowed (a map of settings, with socket at least)'],
    ['ports:\n  a: { queues: 2 }', 'r.yaml:2: ports.a.socket: missing (path of a UNIX socket)'],
    ['ports:\n  a:\n    socket:', 'r.yaml:3: ports.a.socket: nothing is not allowed (path of a UNIX socket)'],
    [
      'ports:\n\n  vm0:\n    socket: /x\n    queues: 300',
      'r.yaml:5: ports.vm0.queues: 300 is not allowed (1 to 127)',
    ],
    ['ports: { a: { socket: /x, queues: 0 } }', 'r.yaml:1: ports.a.queues: 0 is not allowed (1 to 127)'],
    ['ports: { a: { socket: /x, queues: two } }', 'r.yaml:1: ports.a.queues: two is not allowed (1 to 127)'],
    ['ports: { a: { socket: /x, queues: 1.5 } }', 'r.yaml:1: ports.a.queues: 1.5 is not allowed (1 to 127)'],
    [
      'ports: { a: { socket: /x, queues: [1] } }',
      'r.yaml:1: ports.a.queues: a list is not allowed (1 to 127)',
    ],
    [
      'ports: { a: { socket: /x, role: master } }',
      'r.yaml:1: ports.a.role: master is not allowed (server or client)',
    ],
    [
      'ports: { a: { socket: /x, mode: 0689 } }',
      'r.yaml:1: ports.a.mode: 0689 is not allowed (permission bits in octal, 0000 to 0777, for example 0660)',
    ],
    [
      'ports: { a: { socket: /x, mode: 4755 } }',
      'r.yaml:1: ports.a.mode: 4755 is not allowed (permission bits in octal, 0000 to 0777, for example 0660)',
    ],
    [
      'ports: { a: { socket: /x, owner: root } }',
      'r.yaml:1: ports.a.owner: root is not allowed (USER:GROUP, names or numbers)',
    ],
    [
      'ports: { a: { socket: /x, owner: nobody1:kvm } }',
      'r.yaml:1: ports.a.owner: nobody1:kvm is not allowed (there is no user nobody1)',
    ],
    [
      'ports: { a: { socket: /x, owner: root:wheel1 } }',
      'r.yaml:1: ports.a.owner: root:wheel1 is not allowed (there is no group wheel1)',
    ],
    [
      'ports: { a: { socket: /x, owner: "4294967295:0" } }',
      'r.yaml:1: ports.a.owner: 4294967295:0 is not allowed (there is no user 4294967295)',
    ],
    [
      'ports: { a: { socket: /x, role: client, mode: 0600 } }',
      'r.yaml:1: ports.a.mode: 0600 is not allowed (only with role server)',
    ],
    [
      'ports: { a: { socket: /x, role: client, owner: 1:1 } }',
      'r.yaml:1: ports.a.owner: 1:1 is not allowed (only with role server)',
    ],
    [
      'ports: { a: { socket: /x, configSpace: maybe } }',
      'r.yaml:1: ports.a.configSpace: maybe is not allowed (on or off)',
    ],
    [
      'ports: { a: { socket: /x, mac: 02:00:00:00:00:01 } }',
      'r.yaml:1: ports.a.mac: 02:00:00:00:00:01 is not allowed (only with config-space=on, in a file configSpace: on)',
    ],
    [
      'ports: { a: { socket: /x, configSpace: on, mac: 01:00:00:00:00:01 } }',
      'r.yaml:1: ports.a.mac: 01:00:00:00:00:01 is not allowed (the address of a single station, for example 02:00:00:00:00:01)',
    ],
    [
      'ports: { a: { socket: /x, configSpace: on, mac: 00:00:00:00:00:00 } }',
      'r.yaml:1: ports.a.mac: 00:00:00:00:00:00 is not allowed (the address of a single station, for example 02:00:00:00:00:01)',
    ],
    [
      'ports: { a: { socket: /x, configSpace: on, mtu: 67 } }',
      'r.yaml:1: ports.a.mtu: 67 is not allowed (68 to 65535)',
    ],
    [
      `ports: { a: { socket: ${LONG} } }`,
      `r.yaml:1: ports.a.socket: ${LONG} is not allowed (at most 107 bytes, not 108)`,
    ],
    [
      `ports: { a: { socket: "/${'ü'.repeat(54)}" } }`,
      `r.yaml:1: ports.a.socket: "/${'ü'.repeat(54)}" is not allowed (at most 107 bytes, not 109)`,
    ],
    [
      'ports: { a: { socket: "/x\\0" } }',
      'r.yaml:1: ports.a.socket: "/x\\u0000" is not allowed (no zero byte)',
    ],
    ['ports:\n  a: { socket: /x }\n  a: { socket: /y }', 'r.yaml:3: ports.a: given twice'],
    [
      'ports:\n  a: { socket: /x/s }\n  b:\n    socket: /x/../x/s',
      'r.yaml:4: ports.b.socket: /x/../x/s is not allowed (it is the socket of port a)',
    ],
    [
      'ports: { "a b": { socket: /x } }',
      'r.yaml:1: ports.a b: not allowed (port names are 1 to 31 letters, digits, dots, dashes and underscores)',
    ],
    ['ports:\n  __proto__: { socket: /x }', 'r.yaml:2: ports.__proto__: unknown setting'],
    ['ports:\n  a:\n    scoket: /x', 'r.yaml:3: ports.a.scoket: unknown setting (did you mean socket?)'],
    [
      'ports: { a: { socket: /x, colour: red } }',
      'r.yaml:1: ports.a.colour: unknown setting (there are kind, socket, mode, owner, role, queues, features, offloads, configSpace, mac, ' +
        `${Object.keys(COMMON_PORT_FIELDS).join(', ')})`,
    ],
    [
      'ports: { a: { socket: /x, config-space: on } }',
      'r.yaml:1: ports.a.config-space: unknown setting (did you mean configSpace?)',
    ],
    [`${A}idleus: 3`, 'r.yaml:2: idleus: unknown setting (did you mean idleUs?)'],
    [`${A}__proto__: { poll: busy }`, 'r.yaml:2: __proto__: unknown setting'],
    [`${A}fdb: { size: 3 }`, 'r.yaml:2: fdb.size: unknown setting (there are capacity, ageSeconds)'],
    [`${A}fdb: 3`, 'r.yaml:2: fdb: 3 is not allowed (a map with capacity and ageSeconds)'],
    [`${A}fdb:\n  capacity: 1048577`, 'r.yaml:3: fdb.capacity: 1048577 is not allowed (1 to 1048576)'],
    [`${A}fdb: { ageSeconds: 0 }`, 'r.yaml:2: fdb.ageSeconds: 0 is not allowed (1 to 1000000)'],
    [
      'ports:\n  a: { socket: /x, staticMacs: 02:00:00:00:00:01 }\n  b: { socket: /y, staticMacs: "02:00:00:00:00:01@5+02:00:00:00:00:01@0" }',
      'r.yaml:3: ports.b.staticMacs: 02:00:00:00:00:01 is not allowed (in VLAN 0 it is one of port a)',
    ],
    [
      'ports: { a: { socket: /x, staticMacs: 02:00:00:00:00:01 }, b: { socket: /y, tag: 7, staticMacs: "02:00:00:00:00:01" },\n  c: { socket: /z, staticMacs: 02:00:00:00:00:01@7+02:00:00:00:00:01 } }',
      'r.yaml:2: ports.c.staticMacs: 02:00:00:00:00:01 is not allowed (in VLAN 7 it is one of port b)',
    ],
    [
      `ports: { ${Array.from({ length: 4097 }, (_, i) => `p${i}: none`).join(', ')} }`,
      'r.yaml:1: ports: 4097 are not allowed (4096 at most)',
    ],
    [
      'ports: { a: { socket: /x, macs: [some, 02:00:00:00:00:01, other] } }',
      `r.yaml:1: ports.a.macs.0: some is not allowed (${MACS}); r.yaml:1: ports.a.macs.2: other is not allowed (${MACS})`,
    ],
    [
      `${A}plugins: [/p/one.ts, /q/one.ts]`,
      'r.yaml:2: plugins: /q/one.ts is not allowed (a file with another name than /p/one.ts, or a map in which each has a name)',
    ],
    [`${A}poll: sometimes`, 'r.yaml:2: poll: sometimes is not allowed (adaptive or busy)'],
    [`${A}idleUs: -1`, 'r.yaml:2: idleUs: -1 is not allowed (0 to 1000000)'],
    [`${A}idleUs: 1000001`, 'r.yaml:2: idleUs: 1000001 is not allowed (0 to 1000000)'],
    [`${A}cpus: []`, 'r.yaml:2: cpus: a list is not allowed (a list of CPU numbers, for example 2,3)'],
    [`${A}cpus: 2-3`, 'r.yaml:2: cpus: 2-3 is not allowed (a list of CPU numbers, for example 2,3)'],
    [`${A}cpus:\n- 2\n- two`, 'r.yaml:4: cpus: two is not allowed (a list of CPU numbers, for example 2,3)'],
    [`${A}cpus: [0, 1]`, 'r.yaml:2: cpus: 1 is not allowed (this process may use 0, 2, 3)'],
    [`${A}cpus: [0, 2, 0]`, 'r.yaml:2: cpus: 0 is not allowed (it is named twice)'],
    [`${A}arena: 1GiB`, 'r.yaml:2: arena: 1GiB is not allowed (4GiB to 4TiB, for example 512GiB)'],
    [`${A}arena: 5TiB`, 'r.yaml:2: arena: 5TiB is not allowed (4GiB to 4TiB, for example 512GiB)'],
    [`${A}arena: lots`, 'r.yaml:2: arena: lots is not allowed (4GiB to 4TiB, for example 512GiB)'],
    [`${A}control: /x/a.sock`, 'r.yaml:2: control: /x/a.sock is not allowed (it is the socket of port a)'],
    [
      `${A}positions: /x/a.sock`,
      'r.yaml:2: positions: /x/a.sock is not allowed (it is the socket of port a)',
    ],
    [`${A}control: /x/c\nstate: /x/c`, 'r.yaml:3: state: /x/c is not allowed (it is the control socket)'],
    [
      `${A}state: /x/c\npositions: /x/c`,
      'r.yaml:3: positions: /x/c is not allowed (it is the file of state)',
    ],
    [`${A}control: ${LONG}`, `r.yaml:2: control: ${LONG} is not allowed (at most 107 bytes, not 108)`],
    ['ports: &p { a: { socket: /x } }\nfdb: *p', 'r.yaml:2: fdb: aliases are not supported'],
    ['ports: { [a]: 1 }', 'r.yaml:1: the name of a setting must be plain text'],
  ])('%j', (text, message) => {
    expect(messageOf(() => fromFile(text))).toBe(message);
  });

  it.each([['ports: {\n'], ['a: b: c'], ['\tports: x'], ['a: 1\n---\nb: 2'], ['"open']])(
    'what is not YAML, in one line with the file and the line: %j',
    (text) => {
      expect(messageOf(() => fromFile(text))).toMatch(/^r\.yaml:\d+: not YAML: [^\n]+$/);
    },
  );

  it('the same in 2,000 damaged copies of a good file: a ConfigError of one line, or a configuration', () => {
    const good = `ports:\n  vm0: { socket: /x/a, mode: 0660 }\n  b:\n    socket: /x/b\ncpus: [0, 2]\nfdb: {capacity: 9}\n`;
    let state = 20_240_607;
    const random = (below: number) => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    const pieces = [
      ':',
      ',',
      '{',
      '}',
      '[',
      ']',
      '\n',
      '"',
      '&a ',
      '*a',
      '- ',
      '? ',
      '|',
      '!',
      '\0',
      '9',
      ' ',
    ];
    let refused = 0;
    for (let i = 0; i < 2000; i++) {
      const at = random(good.length);
      const damaged = good.slice(0, at) + pieces[random(pieces.length)] + good.slice(at + random(4));
      try {
        expect(fromFile(damaged).ports.length).toBeGreaterThan(0);
      } catch (error) {
        expect(error).toBeInstanceOf(ConfigError);
        expect((error as Error).message).not.toContain('\n');
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(500);
  });
});

describe('refused in options', () => {
  it.each<[RunOptions, string]>([
    [{}, 'no port: give --port NAME=SOCKET, or ports in a file named with --config'],
    [{ port: ['a'] }, '--port a: not of the form NAME=SOCKET[,key=value]…'],
    [{ port: ['__proto__=/x'] }, '--port __proto__=/x: not of the form NAME=SOCKET[,key=value]…'],
    [{ port: ['a=/x,__proto__=1'] }, '--port a: __proto__=1: not of the form key=value'],
    [{ port: ['=/x'] }, '--port =/x: not of the form NAME=SOCKET[,key=value]…'],
    [{ port: ['a='] }, '--port a: socket: nothing is not allowed (path of a UNIX socket)'],
    [
      { port: ['a=tapp:x'] },
      '--port a: tapp:x is not allowed (there is no kind of port tapp: did you mean tap:x? A socket of that name is ./tapp:x)',
    ],
    [
      { port: ['a=PCAP:/x,mirror=all'] },
      '--port a: PCAP:/x is not allowed (there is no kind of port PCAP: did you mean pcap:/x? A socket of that name is ./PCAP:/x)',
    ],
    [
      { port: ['a=/tmp/out.pcapng'] },
      '--port a: /tmp/out.pcapng is not allowed (did you mean pcap:/tmp/out.pcapng? A vhost-user socket of that name is vhost-user:/tmp/out.pcapng)',
    ],
    [
      { port: ['a=0000:03:00.0'] },
      '--port a: 0000:03:00.0 is not allowed (did you mean dpdk:0000:03:00.0? A vhost-user socket of that name is vhost-user:0000:03:00.0)',
    ],
    [{ port: ['a=/x,server'] }, '--port a: server: not of the form key=value'],
    [{ port: ['a=/x,queues=300'] }, '--port a: queues: 300 is not allowed (1 to 127)'],
    [{ port: ['a=/x,queues=1,queues=2'] }, '--port a: queues: given twice'],
    [{ port: ['a=/x,socket=/y'] }, '--port a: socket: given twice'],
    [
      { port: ['a=/x,config-spce=on'] },
      '--port a: config-spce: unknown setting (did you mean config-space?)',
    ],
    // As in a file: here the names have dashes, each of them.
    [
      { port: ['a=/x,configSpace=on'] },
      '--port a: configSpace: unknown setting (did you mean config-space?)',
    ],
    [
      { port: ['a=/x,forwardBpdu=on'] },
      '--port a: forwardBpdu: unknown setting (did you mean forward-bpdu?)',
    ],
    [{ port: ['a=pcap:/x,snapBytes=64'] }, '--port a: snapBytes: unknown setting (did you mean snap-bytes?)'],
    [{ port: ['a=/x,Queues=2'] }, '--port a: Queues: unknown setting (did you mean queues?)'],
    [{ port: ['a=/x,-queues=2'] }, '--port a: -queues: unknown setting (did you mean queues?)'],
    [{ port: ['a=/x,config-space=1'] }, '--port a: config-space: 1 is not allowed (on or off)'],
    [{ port: ['a=/x', 'a=/y'] }, '--port a: given twice'],
    [{ port: ['a=/x', 'b=/x'] }, '--port b: socket: /x is not allowed (it is the socket of port a)'],
    [{ port: ['a=/x'], cpus: '0,9' }, '--cpus: 9 is not allowed (this process may use 0, 2, 3)'],
    [{ port: ['a=/x'], cpus: '' }, '--cpus: nothing is not allowed (a list of CPU numbers, for example 2,3)'],
    [
      { port: ['a=/x', 'b=/x'], cpus: '0,9,8' },
      '--port b: socket: /x is not allowed (it is the socket of port a); ' +
        '--cpus: 9 is not allowed (this process may use 0, 2, 3); --cpus: 8 is not allowed (this process may use 0, 2, 3)',
    ],
    [{ port: ['a=/x'], cpus: '2,2' }, '--cpus: 2 is not allowed (it is named twice)'],
    [{ port: ['a=/x'], idleUs: '1e3' }, '--idle-us: 1e3 is not allowed (0 to 1000000)'],
    [{ port: ['a=/x'], fdbCapacity: '0' }, '--fdb-capacity: 0 is not allowed (1 to 1048576)'],
    [{ port: ['a=/x'], fdbAge: 'x' }, '--fdb-age: x is not allowed (1 to 1000000)'],
    [{ port: ['a=/x'], poll: 'no' }, '--poll: no is not allowed (adaptive or busy)'],
    [{ port: ['a=/x'], arena: '1' }, '--arena: 1 is not allowed (4GiB to 4TiB, for example 512GiB)'],
    [{ port: ['a=/x'], control: '/x' }, '--control: /x is not allowed (it is the socket of port a)'],
  ])('%j', (options, message) => {
    expect(messageOf(() => fromOptions(options))).toBe(message);
  });

  it.each([
    ...['tap', 'unix', 'pcap', 'dpdk', 'vhost-user'].flatMap((kind) => [
      [kind.toUpperCase(), kind],
      [`${kind}s`, kind],
      [kind.slice(0, -1), kind],
      [`${kind}0`, kind],
    ]),
    ['vhost', 'vhost-user'],
    ['vhostuser', 'vhost-user'],
    ['uinx', 'unix'],
    ['pcapng', 'pcap'],
  ])('takes no port of kind %s for a socket, but asks for %s', (word, kind) => {
    expect(messageOf(() => fromOptions({ port: [`a=${word}:/x`] }))).toContain(`did you mean ${kind}:/x?`);
  });

  it.each(['OUT.PCAP', 'a.pcap', './a.pcapng', '03:00.1', 'net_af_packet0;iface=eth0'])(
    'takes %s for no socket unless told so',
    (path) => {
      expect(messageOf(() => fromOptions({ port: [`a=${path}`] }))).toContain('did you mean ');
      expect(fromOptions({ port: [`a=vhost-user:${path}`] }).ports).toMatchObject([{ socket: path }]);
    },
  );

  it.each(['./tapp:x', './PCAP:x', '/r/tap:x', 'guest:1', 'a:b', 'vm0.sock', 'pcap', '/x/pcap', '/x.pcap/a'])(
    'takes %s for the path of a socket',
    (path) => expect(fromOptions({ port: [`a=${path}`] }).ports).toMatchObject([{ socket: path }]),
  );

  it('names the source that set the value: option over file, file under option', () => {
    expect(messageOf(() => fromFile(`${A}poll: never`, { poll: 'always' }))).toMatch(/^--poll: always/);
    expect(messageOf(() => fromFile(`${A}poll: never`, { idleUs: '7' }))).toMatch(/^r\.yaml:2: poll: never/);
    expect(messageOf(() => fromFile(A, { port: ['b=/x/a.sock'] }))).toMatch(/^--port b: socket/);
    expect(messageOf(() => fromFile('ports: 3', { port: ['b=/x/a.sock'] }))).toMatch(/^r\.yaml:1: ports: 3/);
  });
});

describe('files', () => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'ringway-config-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('are read, and named when they cannot be', () => {
    const path = join(folder, 'r.yaml');
    writeFileSync(path, A);
    expect(resolveConfig([readConfigFile(path)], HOST).ports).toEqual([PORT_A]);
    const missing = join(folder, 'no.yaml');
    expect(messageOf(() => readConfigFile(missing))).toBe(`cannot read ${missing}: no such file`);
    expect(messageOf(() => readConfigFile(folder))).toBe(`cannot read ${folder}: it is a folder`);
    expect(readConfigFileAgain(path).values).toEqual(readConfigFile(path).values);
    expect(messageOf(() => readConfigFileAgain(missing))).toBe(`cannot read ${missing}: no such file`);
    expect(messageOf(() => readConfigFileAgain(folder))).toBe(`cannot read ${folder}: it is a folder`);
    const pipe = join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    expect(messageOf(() => readConfigFileAgain(pipe))).toBe(`cannot read ${pipe}: it is no plain file`);
  });
});

describe('metrics', () => {
  const PORTS = 'ports: { a: { socket: /x/a.sock } }\n';
  const of = (text: string): SwitchConfig['metrics'] => fromFile(PORTS + text).metrics;

  it.each([
    ['127.0.0.1:9600', { host: '127.0.0.1', port: 9600 }],
    ['"[::1]:1"', { host: '::1', port: 1 }],
    ['/run/r/metrics.sock', { path: '/run/r/metrics.sock' }],
    ['./m.sock', { path: './m.sock' }],
  ])('are told at %s', (text, address) => {
    expect(of(`metrics: ${text}\n`)).toEqual({ address, tokenFile: null });
  });

  it('are told nowhere unless somebody says where', () => {
    expect(of('')).toBeUndefined();
    expect(of('metrics: none\n')).toBeUndefined();
    expect(fromOptions({ port: ['a=/x/a.sock'], metrics: '127.0.0.1:9600' }).metrics?.address).toEqual({
      host: '127.0.0.1',
      port: 9600,
    });
  });

  it.each([
    '9600',
    ':9600',
    'localhost:9600',
    '127.0.0.1',
    '127.0.0.1:0',
    '127.0.0.1:65536',
    '::1:9600',
    '"[127.0.0.1]:1"',
  ])('are not told at %s', (text) => {
    expect(messageOf(() => of(`metrics: ${text}\n`))).toMatch(
      /^r\.yaml:2: metrics: .* is not allowed \(ADDRESS:PORT, for example 127\.0\.0\.1:9600/,
    );
  });

  it('are told to other hosts only with a token', () => {
    expect(messageOf(() => of('metrics: 0.0.0.0:9600\n'))).toBe(
      'r.yaml:2: metrics: 0.0.0.0:9600 is not allowed (other hosts can ask there: name a file with a token as well)',
    );
    expect(messageOf(() => fromOptions({ port: ['a=/x/a.sock'], metrics: '[::]:9600' }))).toBe(
      '--metrics: [::]:9600 is not allowed (other hosts can ask there: name a file with a token as well)',
    );
    expect(of('metrics: 10.0.0.1:9600\nmetricsToken: /etc/ringway/token\n')).toEqual({
      address: { host: '10.0.0.1', port: 9600 },
      tokenFile: '/etc/ringway/token',
    });
  });

  it('are not told at a socket that is something else', () => {
    expect(messageOf(() => of('metrics: /x/a.sock\n'))).toContain('it is the socket of port a');
    expect(messageOf(() => of('metrics: /x/c.sock\ncontrol: /x/c.sock\n'))).toContain(
      'it is the control socket',
    );
  });
});
