/** Settings that every kind of port has: accepted by each, alike in a file and on the command line, and what they decide. */
import { describe, expect, it } from 'vitest';
import { settingsOf } from '../../../switch/cli/options.ts';
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

const fromOption = (port: string): PortConfig => resolveConfig([settingsOf({ port: [port] })]).ports[0];
const fromFile = (text: string): PortConfig => resolveConfig([parseConfigText('r.yaml', text)]).ports[0];

describe.each(PORT_KINDS)('a port of kind %s', (kind) => {
  const option = (rest: string): PortConfig => fromOption(`a=${kind}:${ENDPOINTS[kind]}${rest}`);
  const file = (rest: string): PortConfig =>
    fromFile(`ports: { a: { kind: ${kind}, ${endpointKeyOf(kind)}: ${ENDPOINTS[kind]}${rest} } }`);

  it('has every common setting, by default', () => {
    expect(knownPortSettings(kind)).toEqual(expect.arrayContaining(Object.keys(COMMON_PORT_FIELDS)));
    expect(option('')).toMatchObject({ kind, flood: true });
    expect(file('')).toEqual(option(''));
  });

  it.each([
    ['on', true],
    ['off', false],
    ['true', true],
    ['false', false],
  ])('takes flood=%s', (text, floods) => {
    expect(option(`,flood=${text}`)).toMatchObject({ flood: floods });
    expect(file(`, flood: ${text}`)).toEqual(option(`,flood=${text}`));
    expect(policyOf(option(`,flood=${text}`))).toEqual({ floods });
  });

  it('says what flood may be, and where it stands', () => {
    expect(() => option(',flood=some')).toThrow('--port a: flood: some is not allowed (on or off)');
    expect(() => file(', flood: some')).toThrow('r.yaml:1: ports.a.flood: some is not allowed (on or off)');
    expect(() => file(', flod: on')).toThrow('r.yaml:1: ports.a.flod: unknown setting (did you mean flood?)');
  });
});
