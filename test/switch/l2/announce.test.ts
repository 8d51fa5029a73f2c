/** A frame of the switch's own by which everybody learns that a guest lives behind a port now (SEND_RARP). Fake queues. */
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { macHiOf, macLoOf } from '../../../protocol/ethernet.ts';
import { rarpFrame } from '../../../protocol/rarp.ts';
import { DEFAULT_VLAN } from '../../../src/queue/policy.ts';
import { type FakePort, FakeSwitch } from './fake-switch.ts';
import { arena, ethernet } from './frames.ts';

const MAC = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const ADDRESS = { macLo: macLoOf(Uint8Array.from(MAC)), macHi: macHiOf(Uint8Array.from(MAC)) };

let world: FakeSwitch;
let ports: FakePort[];
beforeEach(() => {
  world = new FakeSwitch(1, 1, 1);
  world.addMirror(3, [1]);
  ports = world.ports;
});
afterAll(() => arena.release());

const received = (): number[] => ports.map((port) => port.received.length);

function announce(portId: number): void {
  world.forwarder.announce(portId, MAC);
  world.check();
}

describe('an announcement', () => {
  it('is a reverse ARP request of the guest for itself, in a frame of 60 bytes', () => {
    announce(1);
    expect(Buffer.from(ports[0].received[0]).toString('hex')).toBe(
      'ffffffffffff525400123456803500010800060400035254001234560000000052540012345600000000' +
        '00'.repeat(18),
    );
    expect(ports[0].received[0]).toEqual(rarpFrame(MAC));
  });

  it('goes to all ports but that one, copies with it, and is learned there', () => {
    announce(1);
    expect(received()).toEqual([1, 0, 1, 1]);
    expect(world.fdb.entries()).toMatchObject([{ ...ADDRESS, port: 1, vlan: 0 }]);
  });

  it('takes the guest from the port where it was', () => {
    world.send(ports[0], ethernet(9, 1));
    world.forwarder.announce(0, MAC);
    announce(2);
    expect(world.fdb.entries().find(({ macLo }) => macLo === ADDRESS.macLo)).toMatchObject({ port: 2 });
  });

  it('is in the VLAN of its port, and nowhere else', () => {
    world.follow(ports[1], { vlan: { ...DEFAULT_VLAN, mode: 'access', tag: 10 } });
    world.follow(ports[0], { vlan: { ...DEFAULT_VLAN, mode: 'access', tag: 20 } });
    announce(1);
    expect(received()).toEqual([0, 0, 1, 1]);
    // A trunk sees whose it is.
    expect([...ports[2].received[0].subarray(12, 18)]).toEqual([0x81, 0, 0, 10, 0x80, 0x35]);
    expect(world.fdb.entries()).toMatchObject([{ ...ADDRESS, port: 1, vlan: 10 }]);
  });

  it('is dropped where what the port sends is dropped', () => {
    world.follow(ports[1], { receives: false });
    announce(1);
    expect(received()).toEqual([0, 0, 0, 0]);
    expect(ports[1].drops).toEqual({ receiveOff: 1 });
    expect(world.fdb.entries()).toEqual([]);
  });

  it('for a port that is gone is none', () => {
    world.forwarder.removePort(1);
    world.forwarder.announce(1, MAC);
    expect(received()).toEqual([0, 0, 0, 0]);
  });

  it('does not disturb the bursts around it', () => {
    for (let i = 0; i < 3; i++) {
      world.send(ports[0], ethernet(9, 1), ethernet(9, 1));
      announce(1);
    }
    expect(received()).toEqual([3, 6, 9, 3 + 6]);
  });
});
