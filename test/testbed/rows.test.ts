/** What each row's guests and Ringway's ports are started with. Nothing is started. */
import { describe, expect, it } from 'vitest';
import { GUEST_NAMES, guestOptions, guestsOf, portOf } from '../../bench/testbed/guest.ts';
import { GUEST_ROWS, type GuestRowName } from '../../bench/testbed/rows.ts';
import { rowPorts, testpmdPorts } from '../../bench/testbed/switch-process.ts';
import { resolveConfig } from '../../switch/config/resolve.ts';
import { jsonPortSource } from '../../switch/config/settings.ts';

const FOLDER = '/run/somewhere';
const NAMESPACE = 'somewhere-1';

function argsOf(row: GuestRowName, guest: 'a' | 'b' = 'a'): string {
  const place = {
    socketPath: GUEST_ROWS[row].attachment === 'tap' ? null : `${FOLDER}/x.sock`,
    namespace: null,
    hugepagesPath: null,
    accelerator: 'tcg',
  } as const;
  return guestOptions(row, guest, place).qemuArgs.join(' ');
}

/** As the switch understands them. */
function resolved(ports: Readonly<Record<string, object>>): Readonly<Record<string, unknown>>[] {
  const sources = Object.entries(ports).map(([name, settings]) => jsonPortSource(name, settings));
  return resolveConfig(sources).ports.map((port) => ({ ...port }));
}

function portsOf(row: GuestRowName): Readonly<Record<string, unknown>>[] {
  const settings = GUEST_ROWS[row];
  const { attachment } = settings;
  if (attachment !== 'unix' && attachment !== 'vhost-user') throw new Error(`${row} has no ports of Ringway`);
  const namespace = settings.receiver === 'host' ? NAMESPACE : null;
  return resolved(rowPorts(settings, attachment, FOLDER, namespace));
}

describe('ports of Ringway', () => {
  const names = Object.keys(GUEST_ROWS) as GuestRowName[];
  const ringwayRows = names.filter((row) => /^(unix|vhost-user)$/.test(GUEST_ROWS[row].attachment));

  it.each(ringwayRows)('%s: one for each guest, and one for this machine where it receives', (row) => {
    const { receiver, attachment } = GUEST_ROWS[row];
    const kind = attachment as 'unix' | 'vhost-user';
    const guestPorts = guestsOf(GUEST_ROWS[row]).map((guest) => portOf(kind, guest));
    const expected = [...guestPorts, ...(receiver === 'host' ? ['host'] : [])];
    expect(portsOf(row).map(({ name }) => name)).toEqual(expected);
    expect(guestPorts).toHaveLength(receiver === 'host' ? 1 : GUEST_NAMES.length);
  });

  it.each([
    ['vhost-user', {}],
    ['vhost-user-no-tso', { tso: false }],
    ['vhost-user-no-offloads', { csum: false }],
    ['guest-to-host', {}],
    ['guest-to-host-no-offloads', { csum: false }],
  ] as const)('%s: all of them have the row’s offloads', (row, offloads) => {
    for (const port of portsOf(row)) expect(port).toMatchObject({ offloads });
    for (const port of portsOf(row))
      expect(Object.keys(port.offloads as object)).toEqual(Object.keys(offloads));
  });

  it('give this machine the address that the sender looks for, at an interface named as a guest’s', () => {
    const tap = portsOf('guest-to-host').find(({ kind }) => kind === 'tap');
    expect(tap).toMatchObject({ interface: 'eth0', namespace: NAMESPACE });
    expect(rowPorts(GUEST_ROWS['guest-to-host'], 'vhost-user', FOLDER, NAMESPACE)).toMatchObject({
      host: { addresses: ['10.0.0.2/24'] },
    });
  });

  it('are two for testpmd', () => {
    expect(resolved(testpmdPorts(FOLDER))).toHaveLength(2);
  });
});

describe('guests', () => {
  it('wait for Open vSwitch, and connect to Ringway', () => {
    for (const row of ['ovs-dpdk', 'ovs-dpdk-tso'] as const) {
      expect(argsOf(row)).toContain(`path=${FOLDER}/x.sock,server=on`);
    }
    expect(argsOf('vhost-user')).toContain(`path=${FOLDER}/x.sock,reconnect=1`);
  });

  it('share their memory with a switch that serves their rings, and only then', () => {
    for (const row of ['vhost-user', 'ovs-dpdk', 'guest-to-host'] as const) {
      expect(argsOf(row)).toContain('share=on');
    }
    for (const row of ['virtio-tap', 'virtio-unix', 'e1000'] as const) {
      expect(argsOf(row)).not.toContain('share=on');
    }
  });

  it('differ in their addresses', () => {
    expect(argsOf('vhost-user', 'a')).toContain('mac=52:54:00:00:00:01');
    expect(argsOf('vhost-user', 'b')).toContain('mac=52:54:00:00:00:02');
  });

  it('have the same card, processors and memory in all rows that are compared by TCP', () => {
    const rows = Object.keys(GUEST_ROWS).filter((row) => row !== 'e1000' && row !== 'vhost-user-2');
    for (const row of rows as GuestRowName[]) {
      expect(GUEST_ROWS[row]).toMatchObject({ model: 'virtio-net-pci', queuePairs: 1, kernel: 'cloud' });
    }
  });
});
