/** What a device's text names, what Linux knows about it, EAL's options, and the settings of a port. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { checkPciDevice, interfacesOf, missingInterface, parseDevice } from '../../src/dpdk/device.ts';
import { ealArguments, wordsOf } from '../../src/dpdk/eal.ts';
import { DPDK } from '../../switch/config/kinds/dpdk.ts';
import { THIS_HOST } from '../../switch/config/kinds/values.ts';

const folder = mkdtempSync(join(tmpdir(), 'ringway-dpdk-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('a device', () => {
  it('is a PCI address, with or without its domain', () => {
    expect(parseDevice('0000:03:00.0')).toEqual({
      devargs: '0000:03:00.0',
      name: '0000:03:00.0',
      isPci: true,
    });
    expect(parseDevice('3b:00.1;queues=2').devargs).toBe('0000:3b:00.1,queues=2');
    expect(parseDevice('3B:00.1').name).toBe('0000:3b:00.1');
  });

  it('is a virtual one with arguments, whose commas may be written as semicolons', () => {
    const device = parseDevice(' net_af_packet0;iface=veth0;qpairs=2 ');
    expect(device).toEqual({
      devargs: 'net_af_packet0,iface=veth0,qpairs=2',
      name: 'net_af_packet0',
      isPci: false,
    });
    expect(interfacesOf(device)).toEqual(['veth0']);
  });

  it.each(['', ',', '0000:03:00.9', '03:00', '/dev/vfio/1', 'net null0'])('is not %j', (text) => {
    expect(() => parseDevice(text)).toThrow(/names no device/);
  });

  it('stands on interfaces where its driver uses them', () => {
    expect(interfacesOf(parseDevice('net_pcap0,rx_iface=a,tx_iface=b'))).toEqual(['a', 'b']);
    expect(interfacesOf(parseDevice('net_af_xdp0,iface=c,start_queue=0'))).toEqual(['c']);
    // These arguments name an interface to be made, and a socket.
    expect(interfacesOf(parseDevice('net_tap0,iface=d'))).toEqual([]);
    expect(interfacesOf(parseDevice('net_vhost0,iface=/tmp/e'))).toEqual([]);
  });

  it('names an interface that is not there', () => {
    expect(missingInterface(parseDevice('net_af_packet0,iface=lo'))).toBeNull();
    expect(missingInterface(parseDevice('net_af_packet0,iface=no-such0'))).toBe(
      'net_af_packet0 needs the interface no-such0, which does not exist',
    );
  });
});

describe('a PCI device', () => {
  const make = (address: string, driver: string | null, hasIommu: boolean): string => {
    const path = join(folder, address);
    mkdirSync(path);
    if (driver !== null) symlinkSync(`../../drivers/${driver}`, join(path, 'driver'));
    if (hasIommu) mkdirSync(join(path, 'iommu_group'));
    return address;
  };

  it('is fine behind an IOMMU and bound to vfio-pci', () => {
    expect(() => checkPciDevice(make('0000:01:00.0', 'vfio-pci', true), folder)).not.toThrow();
  });

  it('is fine with a driver that shares it with the kernel', () => {
    expect(() => checkPciDevice(make('0000:01:00.1', 'mlx5_core', false), folder)).not.toThrow();
  });

  it.each([
    ['0000:02:00.0', 'e1000e', true, /bound to the kernel's driver e1000e: dpdk-devbind.py --bind=vfio-pci/],
    ['0000:02:00.1', 'e1000e', true, /or driverctl set-override 0000:02:00.1 vfio-pci/],
    ['0000:02:00.2', null, true, /bound to no driver: dpdk-devbind.py/],
    ['0000:02:00.3', 'vfio-pci', false, /no IOMMU before it.*intel_iommu=on/],
    ['0000:02:00.4', 'uio_pci_generic', true, /bind it to vfio-pci/],
  ])('%s with driver %s, IOMMU %s is refused', (address, driver, hasIommu, reason) => {
    expect(() => checkPciDevice(make(address, driver, hasIommu), folder)).toThrow(reason);
  });

  it('is refused where there is none', () => {
    expect(() => checkPciDevice('0000:09:00.0', folder)).toThrow(/there is no PCI device 0000:09:00.0/);
  });
});

describe("EAL's options", () => {
  const names = (args: readonly string[]): string[] => args.map((each) => each.split('=')[0]);

  it('are chosen so that nothing is pinned, shared or taken', () => {
    const args = ealArguments({ hugepages: 'never' });
    expect(args.find((each) => each.startsWith('--lcores='))).toMatch(/^--lcores=0@\([\d,]+\)$/);
    expect(names(args)).toEqual(
      expect.arrayContaining(['--no-telemetry', '--file-prefix', '--iova-mode', '--no-shconf', '--no-huge']),
    );
    expect(args).not.toContain('--in-memory');
  });

  it('give way to those that are given', () => {
    const given = ['-l', '0', '--file-prefix=mine', '-m', '128', '--no-huge', '--no-pci'];
    const args = ealArguments({ arguments: given });
    expect(args.slice(-given.length)).toEqual(given);
    for (const name of ['--file-prefix', '-m', '--no-huge']) {
      expect(names(args).filter((each) => each === name)).toHaveLength(1);
    }
    expect(names(args)).not.toContain('--lcores');
    expect(names(args)).not.toContain('-a');
  });

  it('fail in words without the greetings', () => {
    const log = [
      'EAL: Detected CPU lcores: 2',
      'EAL: Detected NUMA nodes: 1',
      "open_single_rx_pcap(): Couldn't open /x: No such file",
      'EAL: Driver cannot attach the device (net_pcap0)',
      'EAL: Failed to attach device on primary process',
      '',
    ].join('\n');
    expect(wordsOf(log)).toBe("open_single_rx_pcap(): Couldn't open /x: No such file");
    expect(wordsOf('EAL: Detected CPU lcores: 2\n')).toBe('');
  });
});

describe('settings of a dpdk port', () => {
  const parse = (settings: Record<string, string>) =>
    DPDK.schema(THIS_HOST).safeParse({ kind: 'dpdk', ...settings });

  it('have defaults', () => {
    expect(parse({ device: 'net_null0' }).data).toEqual({
      kind: 'dpdk',
      device: 'net_null0',
      queues: 1,
      promiscuous: true,
      flood: true,
      receive: true,
      forwardBpdu: false,
    });
  });

  it('take a semicolon for a comma in the device and in EAL options', () => {
    const { data } = parse({
      device: 'net_af_packet0;iface=a',
      eal: '-l 0;1  --no-huge',
      promiscuous: 'off',
    });
    expect(data).toMatchObject({
      device: 'net_af_packet0,iface=a',
      eal: ['-l', '0,1', '--no-huge'],
      promiscuous: false,
    });
  });

  it.each([
    [{}, 'device'],
    [{ device: '03:00' }, 'device'],
    [{ device: 'net_null0', queues: '17' }, 'queues'],
    [{ device: 'net_null0', mtu: '67' }, 'mtu'],
    [{ device: 'net_null0', eal: 'no-huge' }, 'eal'],
  ])('%j are refused for %s', (settings, key) => {
    expect(parse(settings as Record<string, string>).error?.issues[0]?.path).toEqual([key]);
  });
});
