/** Settings of TAP ports: what is accepted, and the one line that says why something is not. */
import { describe, expect, it } from 'vitest';
import { parseIpPrefix } from '../../../../src/port/tap/ip-prefix.ts';
import { settingsOf } from '../../../../switch/cli/options.ts';
import { parseConfigText } from '../../../../switch/config/file.ts';
import { endpointOf } from '../../../../switch/config/kinds/index.ts';
import { resolveConfig, type SwitchConfig } from '../../../../switch/config/resolve.ts';
import { ConfigError } from '../../../../switch/config/settings.ts';

const fromOption = (port: string): SwitchConfig => resolveConfig([settingsOf({ port: [port] })]);
const fromFile = (text: string): SwitchConfig => resolveConfig([parseConfigText('r.yaml', text)]);

function messageOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as ConfigError).message;
  }
  throw new Error('accepted');
}

describe('a TAP port', () => {
  it('needs no more than an interface', () => {
    const { ports, controlSocket } = fromOption('host=tap:tap0');
    expect(ports).toEqual([
      {
        name: 'host',
        kind: 'tap',
        interface: 'tap0',
        queues: 1,
        up: true,
        flood: true,
        receive: true,
        forwardBpdu: false,
      },
    ]);
    expect(ports.map(endpointOf)).toEqual(['tap0']);
    expect(controlSocket).toBeNull();
  });

  it('takes every setting, from options as from a file', () => {
    const file = fromFile(`
ports:
  host:
    kind: tap
    interface: fifteen-bytes-0
    namespace: blue
    queues: 16
    mtu: 65521
    mac: 02:00:00:00:00:0A
    addresses: [10.0.0.1/24, "fd00::1/64"]
    up: off
`);
    expect(file.ports).toEqual([
      {
        name: 'host',
        kind: 'tap',
        interface: 'fifteen-bytes-0',
        namespace: 'blue',
        queues: 16,
        mtu: 65_521,
        mac: '02:00:00:00:00:0a',
        addresses: [parseIpPrefix('10.0.0.1/24'), parseIpPrefix('fd00::1/64')],
        up: false,
        flood: true,
        receive: true,
        forwardBpdu: false,
      },
    ]);
    const option =
      'host=tap:fifteen-bytes-0,namespace=blue,queues=16,mtu=65521,mac=02:00:00:00:00:0a,' +
      'addresses=10.0.0.1/24+fd00::1/64,up=off';
    expect(fromOption(option).ports).toEqual(file.ports);
  });
});

const NAME = 'name of an interface: 1 to 15 bytes, no spaces, no / : %';
const ADDRESSES = 'a list of addresses with prefix, for example 10.0.0.1/24+fd00::1/64';

describe('refused', () => {
  it.each([
    ['host=tap:', `interface: nothing is not allowed (${NAME})`],
    ['host=tap:sixteen-bytes-00', `interface: sixteen-bytes-00 is not allowed (${NAME})`],
    ['host=tap:ääääääää', `interface: "ääääääää" is not allowed (${NAME})`],
    ['host=tap:a/b', `interface: a/b is not allowed (${NAME})`],
    ['host=tap:a b', `interface: "a b" is not allowed (${NAME})`],
    ['host=tap:tap%d', `interface: tap%d is not allowed (${NAME})`],
    ['host=tap:..', `interface: .. is not allowed (${NAME})`],
    ['host=tap:tap0,queues=17', 'queues: 17 is not allowed (1 to 16)'],
    ['host=tap:tap0,queues=0', 'queues: 0 is not allowed (1 to 16)'],
    ['host=tap:tap0,mtu=65522', 'mtu: 65522 is not allowed (68 to 65521)'],
    [
      'host=tap:tap0,mac=01:00:00:00:00:01',
      'mac: 01:00:00:00:00:01 is not allowed (the address of a single station, for example 02:00:00:00:00:01)',
    ],
    ['host=tap:tap0,addresses=10.0.0.1', `addresses: 10.0.0.1 is not allowed (${ADDRESSES})`],
    ['host=tap:tap0,addresses=10.0.0.1/33', `addresses: 10.0.0.1/33 is not allowed (${ADDRESSES})`],
    ['host=tap:tap0,addresses=10.0.0.256/8', `addresses: 10.0.0.256/8 is not allowed (${ADDRESSES})`],
    ['host=tap:tap0,addresses=fd00::1/129', `addresses: fd00::1/129 is not allowed (${ADDRESSES})`],
    ['host=tap:tap0,addresses=fe80::1%lo/64', `addresses: fe80::1%lo/64 is not allowed (${ADDRESSES})`],
    ['host=tap:tap0,addresses=', `addresses: nothing is not allowed (${ADDRESSES})`],
    ['host=tap:tap0,up=maybe', 'up: maybe is not allowed (on or off)'],
    ['host=tap:tap0,namespace=', 'namespace: nothing is not allowed (name or path of a network namespace)'],
    ['host=tap:tap0,mtus=1500', 'mtus: unknown setting (did you mean mtu?)'],
    ['host=tap:tap0,socket=/x', undefined],
  ])('%s', (option, message) => {
    const said = messageOf(() => fromOption(option));
    if (message === undefined) expect(said).toMatch(/^--port host: socket: unknown setting/);
    else expect(said).toBe(`--port host: ${message}`);
  });

  it('two ports of one interface', () => {
    const text = 'ports:\n  a: { kind: tap, interface: tap0 }\n  b: { kind: tap, interface: tap0 }\n';
    expect(messageOf(() => fromFile(text))).toBe(
      'r.yaml:3: ports.b.interface: tap0 is not allowed (it is the interface of port a)',
    );
  });
});

describe('addresses with prefix', () => {
  it.each([
    ['10.0.0.1/24', '0a000001', 24],
    ['0.0.0.0/0', '00000000', 0],
    ['::/0', '00000000000000000000000000000000', 0],
    ['1::/16', '00010000000000000000000000000000', 16],
    ['::ffff:1.2.3.4/128', '00000000000000000000ffff01020304', 128],
    ['1:2:3:4:5:6:7:8/64', '00010002000300040005000600070008', 64],
    ['1:0:0:4::8/64', '00010000000000040000000000000008', 64],
  ])('%s', (text, hex, prefixBits) => {
    const prefix = parseIpPrefix(text)!;
    expect(Buffer.from(prefix.bytes).toString('hex')).toBe(hex);
    expect(prefix).toMatchObject({ prefixBits, text, family: hex.length === 8 ? 4 : 6 });
  });

  it.each(['', '/', '10.0.0.1', '10.0.0.1/', '10.0.0.1/24/8', '::1/-1', 'a/8', '10.0.0.1/0x8'])(
    'not %j',
    (text) => expect(parseIpPrefix(text)).toBeNull(),
  );
});
