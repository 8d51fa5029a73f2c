/** Settings that every kind of port has: accepted by each, alike in a file and on the command line, and what they decide. */
import { describe, expect, it } from 'vitest';
import { DEFAULT_POLICY, type PortPolicy } from '../../../src/queue/policy.ts';
import { settingsOf, toOptionKey } from '../../../switch/cli/options.ts';
import { COMMON_PORT_FIELDS, policyOf } from '../../../switch/config/common-port.ts';
import { parseConfigText } from '../../../switch/config/file.ts';
import { endpointKeyOf, knownPortSettings, PORT_KINDS } from '../../../switch/config/kinds/index.ts';
import { type PortConfig, resolveConfig } from '../../../switch/config/resolve.ts';

/** What a port of each kind can be attached to. */
const ENDPOINTS: Readonly<Record<string, string>> = {
  'vhost-user': '/r/a.sock',
  unix: '/r/a.sock',
  tap: 'tap0',
  pcap: '/r/a.pcapng',
  dpdk: 'net_null0',
};

/** Each setting, what it is in a port's policy, and a slip of the pen. */
const SETTINGS = [
  { name: 'flood', inPolicy: 'floods', slip: 'flod' },
  { name: 'receive', inPolicy: 'receives', slip: 'recieve' },
  { name: 'forwardBpdu', inPolicy: 'forwardsLinkLocal', slip: 'forwardBdpu' },
] as const satisfies readonly {
  readonly name: keyof typeof COMMON_PORT_FIELDS;
  readonly inPolicy: keyof PortPolicy;
  readonly slip: string;
}[];

const fromOption = (port: string): PortConfig => resolveConfig([settingsOf({ port: [port] })]).ports[0];
const fromFile = (text: string): PortConfig => resolveConfig([parseConfigText('r.yaml', text)]).ports[0];

describe.each(PORT_KINDS)('a port of kind %s', (kind) => {
  const option = (rest: string): PortConfig => fromOption(`a=${kind}:${ENDPOINTS[kind]}${rest}`);
  const file = (rest: string): PortConfig =>
    fromFile(`ports: { a: { kind: ${kind}, ${endpointKeyOf(kind)}: ${ENDPOINTS[kind]}${rest} } }`);

  it('has every common setting, by default', () => {
    expect(knownPortSettings(kind)).toEqual(expect.arrayContaining(Object.keys(COMMON_PORT_FIELDS)));
    expect(SETTINGS.map(({ name }) => name)).toEqual(Object.keys(COMMON_PORT_FIELDS));
    expect(option('')).toMatchObject({ kind, flood: true, receive: true, forwardBpdu: false });
    expect(file('')).toEqual(option(''));
    expect({ ...DEFAULT_POLICY, ...policyOf(option('')) }).toEqual(DEFAULT_POLICY);
  });

  describe.each(SETTINGS)('$name', ({ name, inPolicy, slip }) => {
    it.each([
      ['on', true],
      ['off', false],
      ['true', true],
      ['false', false],
    ])('may be %s', (text, isOn) => {
      const port = option(`,${toOptionKey(name)}=${text}`);
      expect(port).toMatchObject({ [name]: isOn });
      expect(file(`, ${name}: ${text}`)).toEqual(port);
      expect(policyOf(port)).toEqual({ ...policyOf(option('')), [inPolicy]: isOn });
    });

    it('may be nothing else; the message says so, and where it stands', () => {
      expect(() => option(`,${toOptionKey(name)}=some`)).toThrow(
        `--port a: ${toOptionKey(name)}: some is not allowed (on or off)`,
      );
      expect(() => file(`, ${name}: some`)).toThrow(
        `r.yaml:1: ports.a.${name}: some is not allowed (on or off)`,
      );
      expect(() => file(`, ${slip}: on`)).toThrow(
        `r.yaml:1: ports.a.${slip}: unknown setting (did you mean ${name}?)`,
      );
    });
  });
});
