/** Addresses that stay behind a port: by its settings, given, or sticking; and what of them is there after the next start. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KeptPorts } from '../../switch/kept-ports.ts';
import { createFdbMemory, Fdb } from '../../switch/l2/fdb/fdb.ts';
import { NoSuchPortError, PortConflictError } from '../../switch/port-errors.ts';
import { type AddressedPort, type KeptAddress, StaticAddresses } from '../../switch/static-addresses.ts';

const MAC = '02:00:00:00:00:01';
const OTHER = '02:00:00:00:00:02';
const [LO, HI, OTHER_HI] = [2, 0x100, 0x200];

const vm = (id: number, more: Partial<AddressedPort> = {}): AddressedPort => ({
  id,
  name: `vm${id}`,
  staticMacs: [],
  sticks: false,
  ...more,
});

let fdb: Fdb;
let kept: readonly KeptAddress[];
let addresses: StaticAddresses;

function begin(before: readonly KeptAddress[] = []): void {
  fdb = new Fdb(createFdbMemory({ capacity: 8, maxPorts: 8 }));
  kept = before;
  addresses = new StaticAddresses(fdb, before);
  addresses.onKept = (now) => {
    kept = now;
  };
}

beforeEach(() => begin());

describe('those of the settings', () => {
  it('are there with the port, change with its settings, and are not kept', () => {
    expect(addresses.followPort(vm(1, { staticMacs: [{ mac: MAC, vlan: 0 }] }), 0)).toEqual([]);
    expect(fdb.lookup(LO, HI, 0)).toBe(1);
    addresses.followPort(vm(1, { staticMacs: [{ mac: OTHER, vlan: 5 }] }), 0);
    expect([fdb.lookup(LO, HI, 0), fdb.lookup(LO, OTHER_HI, 5)]).toEqual([-1, 1]);
    addresses.forgetPort(1, 'vm1');
    expect([fdb.size, kept]).toEqual([0, []]);
  });

  it('are told when there is no room', () => {
    const staticMacs = [1, 2, 3, 4, 5].map((vlan) => ({ mac: MAC, vlan }));
    expect(addresses.followPort(vm(1, { staticMacs }), 0)).toEqual([{ mac: MAC, vlan: 5 }]);
  });

  it('cannot be removed by hand, or be another port’s', () => {
    addresses.followPort(vm(1, { staticMacs: [{ mac: MAC, vlan: 0 }] }), 0);
    addresses.followPort(vm(2), 0);
    expect(() => addresses.remove(MAC, 0)).toThrow('is one of the static-macs of port vm1: change those');
    expect(() => addresses.add(MAC, 0, 'vm2', 0)).toThrow(PortConflictError);
    expect(addresses.flush(null, null, true)).toBe(0);
    expect(fdb.lookup(LO, HI, 0)).toBe(1);
  });
});

describe('those that were given', () => {
  beforeEach(() => {
    addresses.followPort(vm(1), 0);
    addresses.followPort(vm(2), 0);
  });

  it('are kept, and there again with their port, whatever its number is then', () => {
    addresses.add(MAC, 3, 'vm1', 0);
    expect(kept).toEqual([{ mac: MAC, vlan: 3, port: 'vm1', sticky: false }]);
    begin(kept);
    addresses.followPort(vm(6, { name: 'vm1' }), 0);
    expect(fdb.lookup(LO, HI, 3)).toBe(6);
  });

  it('go when they are removed, given to another port, or flushed with all that is static', () => {
    addresses.add(MAC, 3, 'vm1', 0);
    addresses.add(MAC, 3, 'vm2', 0);
    expect([fdb.lookup(LO, HI, 3), kept.length]).toEqual([2, 1]);
    expect(addresses.flush(null, null, false)).toBe(0);
    expect(addresses.flush('vm1', null, true)).toBe(0);
    expect(addresses.flush('vm2', 3, true)).toBe(1);
    expect([fdb.size, kept]).toEqual([0, []]);
    addresses.add(MAC, 3, 'vm1', 0);
    addresses.remove(MAC, 3);
    expect([fdb.size, kept]).toEqual([0, []]);
  });

  it('go for good with their port when that is removed, not when the switch ends', () => {
    addresses.add(MAC, 3, 'vm1', 0);
    addresses.forgetPort(1, 'vm1');
    expect([fdb.size, kept.length]).toEqual([0, 1]);
    addresses.dropPort('vm1');
    expect(kept).toEqual([]);
  });

  it('are there again when what took their port away is taken back', () => {
    addresses.followPort(vm(1), 0);
    addresses.followPort(vm(2), 0);
    addresses.add(MAC, 0, 'vm1', 0);
    addresses.add(OTHER, 0, 'vm2', 0);
    const before = kept;
    addresses.forgetPort(1, 'vm1');
    addresses.dropPort('vm1');
    addresses.followPort(vm(3, { name: 'vm1' }), 0);
    addresses.restore(before, 0);
    expect([fdb.lookup(LO, HI, 0), fdb.lookup(LO, OTHER_HI, 0)]).toEqual([3, 2]);
    expect(new Set(kept)).toEqual(new Set(before));
  });

  it('need a port that is there, and an address that is known', () => {
    expect(() => addresses.add(MAC, 0, 'vm9', 0)).toThrow(NoSuchPortError);
    expect(() => addresses.flush('vm9', null, false)).toThrow(NoSuchPortError);
    expect(() => addresses.remove(MAC, 0)).toThrow(`${MAC} is not known in VLAN 0`);
    fdb.learn(LO, HI, 0, 1, 0);
    addresses.remove(MAC, 0);
    expect(fdb.size).toBe(0);
  });

  it('are removed from the VLAN in which they are known where none is named', () => {
    addresses.followPort(vm(1), 0);
    expect(() => addresses.remove(MAC, null)).toThrow(`${MAC} is not known`);
    fdb.learn(LO, HI, 7, 1, 0);
    addresses.remove(MAC, null);
    expect(fdb.size).toBe(0);
    addresses.add(MAC, 5, 'vm1', 0);
    fdb.learn(LO, HI, 9, 1, 0);
    expect(() => addresses.remove(MAC, null)).toThrow(`${MAC} is known in VLANs 5, 9: name one`);
    expect([fdb.lookup(LO, HI, 5), fdb.lookup(LO, HI, 9)]).toEqual([1, 1]);
  });
});

describe('those that stick', () => {
  beforeEach(() => {
    addresses.followPort(vm(1, { sticks: true }), 0);
    fdb.learnUpTo(LO, HI, 0, 1, 0, 2, true);
    addresses.noteSticky();
  });

  it('are kept, and there again while the port has the setting', () => {
    expect(kept).toEqual([{ mac: MAC, vlan: 0, port: 'vm1', sticky: true }]);
    begin(kept);
    addresses.followPort(vm(1, { sticks: true }), 0);
    expect(fdb.staticsOf(1)).toBe(1);
    addresses.followPort(vm(1), 0);
    expect([fdb.size, kept]).toEqual([0, []]);
  });

  it('are found once', () => {
    const before = kept;
    addresses.noteSticky();
    expect(kept).toBe(before);
  });
});

describe('the file of ports', () => {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ringway-addresses-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('has them, and is gone when there is nothing in it', () => {
    const path = join(folder, 'state.json');
    const log = pino({ level: 'silent' });
    const NOTHING = { ports: [], plugins: [] };
    const one: KeptAddress = { mac: MAC, vlan: 7, port: 'vm1', sticky: true };
    const file = new KeptPorts(path, log);
    file.changed(NOTHING, true);
    expect(file.addresses).toEqual([]);
    file.keepAddresses([one]);
    const next = new KeptPorts(path, log);
    next.changed(NOTHING, true);
    expect(next.addresses).toEqual([one]);
    const without = new KeptPorts(path, log);
    without.changed(NOTHING, false);
    expect(without.addresses).toEqual([]);
    next.keepAddresses([]);
    expect(() => readFileSync(path)).toThrow('ENOENT');
  });
});
