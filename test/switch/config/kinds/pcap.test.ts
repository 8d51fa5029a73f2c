/** Settings of ports of kind `pcap`: what is accepted, what is refused and why, and whose frames are copied. */
import { describe, expect, it } from 'vitest';
import { type RunOptions, settingsOf } from '../../../../switch/cli/options.ts';
import { parseConfigText } from '../../../../switch/config/file.ts';
import { copiesOf } from '../../../../switch/config/kinds/index.ts';
import { type PortConfig, resolveConfig } from '../../../../switch/config/resolve.ts';

function fromOptions(...port: string[]): PortConfig[] {
  const options: RunOptions = { port, control: 'none' };
  return resolveConfig([settingsOf(options)]).ports;
}

const fromFile = (text: string): PortConfig[] => resolveConfig([parseConfigText('r.yaml', text)]).ports;

describe('accepted', () => {
  it('is a file alone: everything switched to the port is written', () => {
    const [port] = fromOptions('cap0=pcap:/tmp/a.pcapng');
    expect(port).toEqual({
      name: 'cap0',
      kind: 'pcap',
      file: '/tmp/a.pcapng',
      direction: 'write',
      flood: true,
      receive: true,
      forwardBpdu: false,
    });
    expect(copiesOf(port)).toBeNull();
  });

  it('is a mirror, in an option with names joined by +, in a file as a list', () => {
    const option = fromOptions('cap0=pcap:a,mirror=vm0+vm1,snap-bytes=96')[0];
    const file = fromFile('ports: { cap0: { kind: pcap, file: a, mirror: [vm0, vm1], snapBytes: 96 } }')[0];
    expect(option).toEqual(file);
    expect(option).toMatchObject({ mirror: ['vm0', 'vm1'], snapBytes: 96 });
    expect(copiesOf(option)).toEqual(['vm0', 'vm1']);
  });

  it('is a mirror of all ports', () => {
    expect(copiesOf(fromOptions('cap0=pcap:a,mirror=all')[0])).toBe('all');
    expect(copiesOf(fromFile('ports: { c: { kind: pcap, file: a, mirror: [all] } }')[0])).toBe('all');
  });

  it('is a capture to read, to which nothing is switched', () => {
    const [port] = fromOptions('replay=pcap:a.pcap,direction=read,repeat=loop,pace=full');
    expect(port).toMatchObject({ direction: 'read', repeat: 'loop', pace: 'full' });
    expect(copiesOf(port)).toEqual([]);
  });

  it('leaves ports of other kinds alone', () => {
    expect(copiesOf(fromOptions('vm0=/tmp/vm0.sock')[0])).toBeNull();
  });
});

describe('refused', () => {
  it.each([
    ['cap0=pcap:', '--port cap0: file: nothing is not allowed (path of a capture file)'],
    ['cap0=pcap:a,direction=both', '--port cap0: direction: both is not allowed (write or read)'],
    ['cap0=pcap:a,repeat=loop', '(only with direction read)'],
    ['cap0=pcap:a,pace=full', '(only with direction read)'],
    ['cap0=pcap:a,direction=read,mirror=all', '(only with direction write)'],
    [
      'cap0=pcap:a,mirror=',
      '(all, or names of ports: a list, in an option joined by +, for example vm0+vm1)',
    ],
    ['cap0=pcap:a,snap-bytes=21', '--port cap0: snap-bytes: 21 is not allowed (22 to 262144)'],
    ['cap0=pcap:a,mirror=vm0+cap0', '--port cap0: mirror: cap0 is not allowed (a port cannot mirror itself)'],
    ['cap0=pcap:a,files=3', '--port cap0: files: 3 is not allowed (only with rotateBytes or rotateSeconds)'],
    ['cap0=pcap:a,direction=read,rotate-seconds=5', '(only with direction write)'],
    ['cap0=pcap:a,rotate-bytes=10', '--port cap0: rotate-bytes: 10 is not allowed (10000 to '],
    ['cap0=pcap:a,socket=b', 'unknown setting'],
  ])('%s', (option, message) => {
    expect(() => fromOptions(option)).toThrow(message);
  });

  it('is a file of two ports, however it is spelled', () => {
    expect(() => fromOptions('a=pcap:./x/../c.pcap', 'b=pcap:c.pcap')).toThrow(
      '--port b: file: c.pcap is not allowed (it is the file of port a)',
    );
  });
});
