/** Settings of ports of kind `unix`, from the command line and from a file, and the QEMU lines they lead to. */
import { describe, expect, it } from 'vitest';
import { UnixDatagramPort } from '../../../../src/port/unix/dgram.ts';
import { UnixStreamPort } from '../../../../src/port/unix/stream.ts';
import { guestLine } from '../../../../switch/cli/guest-line.ts';
import { settingsOf } from '../../../../switch/cli/options.ts';
import { parseConfigText } from '../../../../switch/config/file.ts';
import { UNIX, type UnixSettings } from '../../../../switch/config/kinds/unix.ts';
import { type PortConfig, resolveConfig, type SwitchConfig } from '../../../../switch/config/resolve.ts';
import { ConfigError } from '../../../../switch/config/settings.ts';
import { UnixWorld } from '../../../port/unix-world.ts';

const HOST = {
  pinnableCpus: () => [0],
  passwd: () => 'root:x:0:0::/:/bin/sh\n',
  group: () => 'kvm:x:104:\n',
};

const fromOptions = (...port: string[]): SwitchConfig => resolveConfig([settingsOf({ port })], HOST);
const fromFile = (text: string): SwitchConfig => resolveConfig([parseConfigText('f.yaml', text)], HOST);
const portOf = (text: string): PortConfig => fromOptions(text).ports[0];

function refusal(text: string): string {
  try {
    fromOptions(text);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  return 'not refused';
}

describe('settings of a unix port', () => {
  it('is a stream that Ringway listens for, unless told otherwise', () => {
    expect(portOf('e0=unix:/r/e0.sock')).toEqual({
      name: 'e0',
      kind: 'unix',
      socket: '/r/e0.sock',
      transport: 'stream',
      flood: true,
      receive: true,
      forwardBpdu: false,
    });
  });

  it('reads alike from the command line and from a file', () => {
    const line = 'e1=unix:/r/e1.sock,transport=dgram,peer=/r/q.sock,mode=0660,owner=root:kvm,mtu=1500';
    const text = `ports:
      e1: { kind: unix, socket: /r/e1.sock, transport: dgram, peer: /r/q.sock, mode: 0660, owner: 'root:kvm', mtu: 1500 }`;
    expect(fromFile(text).ports[0]).toEqual(portOf(line));
    expect(portOf(line)).toMatchObject({
      mode: 0o660,
      owner: { uid: 0, gid: 104 },
      mtu: 1500,
      peer: '/r/q.sock',
    });
  });

  it.each([
    [',transport=dgram', "peer: missing (path of QEMU's own socket, needed with transport dgram)"],
    [',transport=dgram,peer=/r/../r/a.sock', 'another path than socket'],
    [',transport=dgram,peer=/r/q,role=server', 'only with transport stream'],
    [',peer=/r/q', 'only with transport dgram'],
    [',role=client,mode=0660', 'only with role server'],
    [',role=client,owner=root:kvm', 'only with role server'],
    [',role=both', 'server or client'],
    [',transport=seqpacket', 'stream or dgram'],
    [',mtu=67', '68 to 65535'],
    [',queues=2', 'unknown setting'],
    [`,transport=dgram,peer=/${'p'.repeat(107)}`, 'at most 107 bytes'],
  ])('refuses %s', (rest, message) => {
    expect(refusal(`a=unix:/r/a.sock${rest}`)).toContain(message);
  });

  it('says where in the file', () => {
    expect(() => fromFile('ports:\n  e0:\n    kind: unix\n    socket: /r/e0\n    transprt: dgram\n')).toThrow(
      'f.yaml:5: ports.e0.transprt: unknown setting (did you mean transport?)',
    );
  });

  it('refuses a socket that another port has, of whatever kind', () => {
    expect(() => fromOptions('a=/r/a.sock', 'b=unix:/r/../r/a.sock')).toThrow('it is the socket of port a');
  });

  it('makes the port of its transport', async () => {
    const world = new UnixWorld();
    const make = (text: string) => UNIX.create(portOf(text) as UnixSettings, world.context);
    try {
      const stream = make('a=unix:/r/a.sock,role=client');
      expect(stream).toBeInstanceOf(UnixStreamPort);
      expect(stream.details).toEqual({ transport: 'stream', role: 'client' });
      const datagrams = make('a=unix:/r/a.sock,transport=dgram,peer=/r/q.sock,mtu=1500');
      expect(datagrams).toBeInstanceOf(UnixDatagramPort);
      expect(datagrams.details).toEqual({ transport: 'dgram', peer: '/r/q.sock' });
      expect(datagrams).toMatchObject({ kind: 'unix', endpoint: '/r/a.sock', mtu: 1500 });
    } finally {
      await world.stop();
    }
  });
});

describe('the QEMU line of a unix port', () => {
  it.each([
    ['', '-netdev stream,id=net0,server=off,addr.type=unix,addr.path=/r/a.sock '],
    [',role=client', '-netdev stream,id=net0,server=on,addr.type=unix,addr.path=/r/a.sock '],
    [
      ',transport=dgram,peer=/r/q.sock',
      '-netdev dgram,id=net0,local.type=unix,local.path=/r/q.sock,remote.type=unix,remote.path=/r/a.sock ',
    ],
  ])('with %s', (rest, netdev) => {
    const line = guestLine(portOf(`a=unix:/r/a.sock${rest}`))!;
    expect(line).toContain(netdev);
    expect(line).toMatch(/-device e1000,netdev=net0,mac=52:54:00(:[0-9a-f]{2}){3}$/);
    expect(line).not.toContain('share=on');
  });
});
