/** What the switch refuses of a port to be added, in the words of who added it. */
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { inOptionWords } from '../../../switch/cli/change-ports.ts';
import { changedSettings, portSettings } from '../../../switch/cli/options.ts';
import { COMMON_PORT_FIELDS } from '../../../switch/config/common-port.ts';
import {
  endpointKeyOf,
  knownPortSettings,
  PORT_KINDS,
  withWholePaths,
} from '../../../switch/config/kinds/index.ts';
import { type PortConfig, resolveChange, resolvePort } from '../../../switch/config/resolve.ts';
import { ConfigError, faultError, portSubject, type SettingFault } from '../../../switch/config/settings.ts';
import { toOptionKey } from '../../../switch/config/spelling.ts';
import { ControlError } from '../../../switch/control/control-error.ts';

/** As the control API refuses, and the client throws. */
function refusal(text: string, otherwise?: SettingFault): ControlError {
  const [name, settings] = Object.entries(portSettings([text], 'port'))[0];
  try {
    resolvePort(name, settings);
    if (otherwise !== undefined) throw faultError(portSubject(otherwise.path), otherwise);
  } catch (error) {
    if (error instanceof ConfigError) return new ControlError(error.message, 'refused', error.faults);
  }
  throw new Error(`${text} is accepted`);
}

function told(text: string, otherwise?: SettingFault): string {
  const error = inOptionWords(refusal(text, otherwise));
  // Which is exit code 2.
  expect(error).toBeInstanceOf(ConfigError);
  return (error as ConfigError).message;
}

/** What `ringway set a` says of these pairs when a port has these settings. */
function toldOfChange(port: PortConfig, ...pairs: string[]): string {
  try {
    resolveChange(port, changedSettings(pairs));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const refused = inOptionWords(new ControlError(error.message, 'refused', error.faults));
    expect(refused).toBeInstanceOf(ConfigError);
    return (refused as ConfigError).message;
  }
  throw new Error(`${pairs} are accepted`);
}

it('a path that is missing stays so, and is not the folder of who adds the port', () => {
  expect(withWholePaths({ socket: '', mode: '0660' })).toEqual({ socket: '', mode: '0660' });
  expect(withWholePaths({ socket: 'a.sock' })).toEqual({ socket: resolve('a.sock') });
});

describe('a change that the switch refuses', () => {
  const port = resolvePort('a', { socket: '/x' });
  const trunk = resolvePort('a', { socket: '/x', trunks: [10, 20] });
  const MODES = 'access, trunk, native-tagged, native-untagged or dot1q-tunnel';

  it('is told whole, in the order of the command', () => {
    expect(toldOfChange(port, 'tags=10', 'vlan-mode=zz', 'mtu=1', 'trunks=x')).toBe(
      'port a: tags: unknown setting (did you mean tag?); ' +
        `port a: vlan-mode: zz is not allowed (${MODES}); ` +
        'port a: mtu: 1 is not allowed (68 to 65535); ' +
        'port a: trunks: x is not allowed (VLANs, 0 to 4095: a list, in an option joined by +, for example 10+20+100-199)',
    );
    expect(toldOfChange(port, 'socket=/x', 'tag=9999')).toBe(
      'port a: socket: cannot be changed while the port runs (remove the port and add it again); ' +
        'port a: tag: 9999 is not allowed (0 to 4095)',
    );
  });

  it.each([
    ['vlan_mode', 'vlan-mode'],
    ['vlanMode', 'vlan-mode'],
    ['forward_bpdu', 'forward-bpdu'],
    ['priorityTags', 'priority-tags'],
    ['qinq_ethtype', 'qinq-ethtype'],
  ])('says for %s that %s may have been meant', (slip, meant) => {
    expect(toldOfChange(port, `${slip}=access`)).toBe(
      `port a: ${slip}: unknown setting (did you mean ${meant}?)`,
    );
  });

  it('names what can be changed as options are written', () => {
    const changeable = Object.keys(COMMON_PORT_FIELDS).map(toOptionKey);
    expect(changeable).toEqual(expect.arrayContaining(['vlan-mode', 'frames-in-burst']));
    expect(toldOfChange(port, 'colour=red')).toBe(
      `port a: colour: unknown setting (what can be changed is ${changeable.join(', ')}, offloads)`,
    );
    expect(toldOfChange(port, 'vlan-mode=access')).toBe(
      'port a: tag: missing (a VLAN, 0 to 4095, with vlan-mode access)',
    );
  });

  it('says what the port has from before, and how that is taken back', () => {
    expect(toldOfChange(trunk, 'tag=10')).toBe(
      'port a: trunks: a list, which the port has from before, is not allowed ' +
        '(only with vlan-mode trunk, native-tagged, native-untagged, and it is access): ' +
        'the same command with trunks= takes it back',
    );
    expect(resolveChange(trunk, changedSettings(['trunks=', 'tag=10']))).toMatchObject({ tag: 10 });
  });

  it('names the parts of a text that are wrong, and what is allowed on a command line', () => {
    const allowed = 'csum, tso, ecn, uso joined by +, with no- before what is off';
    expect(toldOfChange(port, 'offloads=no-foo+no-tso+no-bar')).toBe(
      `port a: offloads: no-foo is not allowed (${allowed}); port a: offloads: no-bar is not allowed (${allowed})`,
    );
  });
});

describe('a port to be added whose text is of another form', () => {
  it.each([
    ['up', 'port up: not of the form NAME=SOCKET[,key=value]…'],
    [
      'up=tap:tap0,trunks=10,20,30-39,mtu=1500',
      'port up: 20: not of the form key=value (a list is joined by +: trunks=10+20+30-39)',
    ],
    [
      'up=/x,offloads=no-tso,no-uso',
      'port up: no-uso: not of the form key=value (a list is joined by +: off',
    ],
    ['up=/x,queues=2,server', 'port up: server: not of the form key=value'],
    ['up=/x,mtu=1500,mtu=1', 'port up: mtu: given twice'],
    ['up=tapp:x', 'port up: tapp:x is not allowed (there is no kind of port tapp'],
  ])('%s', (text, message) => {
    expect(() => portSettings([text], 'port')).toThrow(message);
  });

  it('nor are pairs of a change', () => {
    expect(() => changedSettings(['trunks=10', '20'])).toThrow(
      '20: not of the form key=value (a list is joined by +: trunks=10+20)',
    );
    expect(() => changedSettings(['mtu=1500', '20'])).toThrow(
      expect.objectContaining({ message: '20: not of the form key=value' }),
    );
  });
});

describe('a refusal of the switch', () => {
  const KEYS = PORT_KINDS.flatMap((kind) =>
    knownPortSettings(kind)
      .filter((key) => key !== toOptionKey(key))
      .map((key) => [kind, key]),
  );

  it.each(KEYS)('names the settings as options are written: of kind %s, %s', (kind, key) => {
    expect(told(`a=${kind}:/x,${key}=on`)).toContain(
      `port a: ${key}: unknown setting (did you mean ${toOptionKey(key)}?)`,
    );
  });

  it.each(PORT_KINDS)('lists them so, of kind %s', (kind) => {
    const names = knownPortSettings(kind).map(toOptionKey).join(', ');
    const text = `port a: colour: unknown setting (there are ${names})`;
    expect(told(`a=${kind}:/x,colour=red`)).toContain(text);
  });

  it('that only the switch can find is told with its place, and names nothing that is spelled another way', () => {
    const clash = { path: ['ports', 'a', 'socket'], text: '/x is not allowed (it is the socket of port b)' };
    expect(told('a=/x', clash)).toBe('port a: socket: /x is not allowed (it is the socket of port b)');
    for (const kind of PORT_KINDS) expect(toOptionKey(endpointKeyOf(kind))).toBe(endpointKeyOf(kind));
  });

  it('that is about no setting stays as it is', () => {
    const error = new ControlError('port a exists already', 'refused');
    expect(inOptionWords(error)).toBe(error);
  });
});
