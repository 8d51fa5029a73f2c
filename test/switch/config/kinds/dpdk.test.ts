/** Settings of DPDK ports: what is accepted, and the one line that says why something is not. */
import { describe, expect, it } from 'vitest';
import { settingsOf } from '../../../../switch/cli/options.ts';
import { parseConfigText } from '../../../../switch/config/file.ts';
import { resolveConfig, type SwitchConfig } from '../../../../switch/config/resolve.ts';
import { ConfigError } from '../../../../switch/config/settings.ts';

const fromOption = (port: string): SwitchConfig => resolveConfig([settingsOf({ port: [port] })]);

describe('a DPDK port', () => {
  it('takes what is not left to its device, from options as from a file', () => {
    const file = resolveConfig([
      parseConfigText(
        'r.yaml',
        'ports: { up: { kind: dpdk, device: "net_null0,size=64", offloads: { csum: on, tso: off } } }',
      ),
    ]);
    expect(file.ports).toEqual([
      {
        name: 'up',
        kind: 'dpdk',
        device: 'net_null0,size=64',
        queues: 1,
        promiscuous: true,
        offloads: { csum: true, tso: false },
        flood: true,
        receive: true,
        forwardBpdu: false,
      },
    ]);
    expect(fromOption('up=dpdk:net_null0;size=64,offloads=csum+no-tso').ports).toEqual(file.ports);
  });

  it('knows no others', () => {
    expect(() => fromOption('up=dpdk:net_null0,offloads=no-uso')).toThrow(ConfigError);
    expect(() => fromOption('up=dpdk:net_null0,offloads=no-uso')).toThrow(
      /^--port up: offloads: no-uso is not allowed \(csum, tso joined by \+, with no- before what is off\)$/,
    );
  });
});
