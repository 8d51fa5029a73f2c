/** One port resolved alone: what the switch around it would refuse is none of its business. */
import { describe, expect, it } from 'vitest';
import { resolvePort } from '../../../switch/config/resolve.ts';
import { ConfigError, type SettingFault } from '../../../switch/config/settings.ts';

const LONGEST = `/${'s'.repeat(106)}`;

/** Of settings of a port that are refused. */
function faultsOf(settings: object): readonly SettingFault[] {
  try {
    resolvePort('a', settings);
  } catch (error) {
    if (error instanceof ConfigError) return error.faults;
    throw error;
  }
  return [];
}

describe('a port alone', () => {
  it('is told of a hundred things that cannot be, not of all of a thousand', () => {
    const unknown = Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`a${i}`, 'x']));
    const wrong = { socket: '/x', trunks: Array.from({ length: 1000 }, (_, i) => `x${i}`) };
    for (const settings of [unknown, wrong]) {
      const faults = faultsOf(settings);
      expect(faults).toHaveLength(100);
      expect(faults[0].text).toMatch(/^(unknown setting|x0 is not allowed)/);
    }
  });

  it('is what its settings say, as JSON or as text', () => {
    const port = resolvePort('a', { socket: '/r/a.sock', queues: 2, flood: false, receive: false });
    expect(port).toEqual({
      name: 'a',
      kind: 'vhost-user',
      socket: '/r/a.sock',
      role: 'server',
      queues: 2,
      configSpace: false,
      flood: false,
      receive: false,
      forwardBpdu: false,
    });
    expect(resolvePort('a', { socket: '/r/a.sock', queues: '2', flood: 'off', receive: 'off' })).toEqual(
      port,
    );
  });

  it.each([
    ['as long as a path can be, beside which no control socket would fit', LONGEST],
    ['named as a control socket is', '/r/ringway.sock'],
  ])('may have a socket %s', (_, socket) => {
    expect(resolvePort('a', { socket })).toMatchObject({ socket });
  });

  it.each([
    [{}, 'port a: socket: missing (path of a UNIX socket)'],
    [[], 'port a: a list is not allowed (a map of settings, with socket at least)'],
    ['/r/a.sock', 'port a: /r/a.sock is not allowed (a map of settings, with socket at least)'],
    [null, 'port a: null is not allowed (a map of settings, with socket at least)'],
    [{ socket: `${LONGEST}x` }, `port a: socket: ${LONGEST}x is not allowed (at most 107 bytes, not 108)`],
    [{ socket: '/r/a', quees: 2 }, 'port a: quees: unknown setting (did you mean queues?)'],
    [
      { socket: '/r/a', role: 'client', mode: '0600' },
      'port a: mode: 0600 is not allowed (only with role server)',
    ],
    [{ kind: 'tun' }, 'port a: kind: tun is not allowed (vhost-user, tap, unix, pcap, dpdk)'],
    [
      { kind: 'pcap', file: 'f', mirror: ['b', 'a'] },
      'port a: mirror: a is not allowed (a port cannot mirror itself)',
    ],
  ])('is refused by name: %j', (settings, message) => {
    expect(() => resolvePort('a', settings)).toThrow(ConfigError);
    expect(() => resolvePort('a', settings)).toThrow(message);
  });

  it.each(['', 'a b', 'x'.repeat(32), '__proto__', '../a'])('cannot be named %j', (name) => {
    expect(() => resolvePort(name, { socket: '/r/a' })).toThrow(
      `port ${name}: not allowed (port names are 1 to 31 letters`,
    );
  });

  it.each(['constructor', 'toString', '__proto__'])('cannot be of kind %s', (kind) => {
    expect(() => resolvePort('a', { kind, socket: '/r/a' })).toThrow(`port a: kind: ${kind} is not allowed`);
  });

  it('is refused with the setting that it is about, for who words it another way', () => {
    expect.assertions(1);
    try {
      resolvePort('a', { socket: '/r/a', queues: 0 });
    } catch (error) {
      expect(error).toMatchObject({
        faults: [{ path: ['ports', 'a', 'queues'], text: '0 is not allowed (1 to 127)' }],
      });
    }
  });
});
