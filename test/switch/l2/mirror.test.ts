/**
 * Copies of frames for mirror ports: who gets which, that a mirror port gets nothing else, and that what it loses is
 * its own loss. Queues without guests.
 */
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { DEFAULT_VLAN } from '../../../src/queue/policy.ts';
import type { Forwarder } from '../../../switch/l2/forwarder.ts';
import { Random, seeds } from '../../vring/random.ts';
import type { FakeEgressQueue } from './fake-queues.ts';
import { type FakePort, FakeSwitch } from './fake-switch.ts';
import { arena, ethernet, type Mac } from './frames.ts';
import { randomTagged, randomVlan } from './random-vlans.ts';

const BROADCAST: Mac = [255, 255, 255, 255, 255, 255];

afterAll(() => arena.release());

/** A port with one queue, and what it sent. */
class TestPort {
  readonly port: FakePort;
  readonly to: FakeEgressQueue;
  readonly sent: Uint8Array[] = [];

  constructor(port: FakePort) {
    this.port = port;
    this.to = port.to[0];
  }

  send(...frames: Uint8Array[]): void {
    this.sent.push(...frames);
    world.send(this.port, ...frames);
  }

  get drops(): FakePort['drops'] {
    return this.port.drops;
  }
}

let world: FakeSwitch;
let forwarder: Forwarder;
let faults: FakeSwitch['faults'];
let ports: TestPort[];

/** A port that gets copies of the frames of these ports. */
function addMirror(id: number, sourceIds: readonly number[]): TestPort {
  return new TestPort(world.addMirror(id, sourceIds));
}

beforeEach(() => {
  world = new FakeSwitch(1, 1, 1);
  ({ forwarder, faults } = world);
  ports = world.ports.map((port) => new TestPort(port));
  // Where everyone is: addresses 1, 2 and 3.
  for (const [i, port] of ports.entries()) port.send(ethernet(BROADCAST, i + 1));
  for (const port of ports) {
    port.to.received.length = 0;
    port.sent.length = 0;
  }
});

describe('copies', () => {
  it('are made of frames that come in from a mirrored port, before they are delivered, and of those to it', () => {
    const mirror = addMirror(5, [0]);
    const there = ethernet(2, 1);
    const back = ethernet(1, 2);
    ports[0].send(there);
    ports[1].send(back);
    ports[1].send(ethernet(3, 2));
    expect(mirror.to.ways).toEqual(['vm0>', 'vm0<']);
    expect(mirror.to.received).toEqual([there, back]);
    expect(ports[1].to.received).toEqual([there]);
  });

  it('come twice of a frame between two mirrored ports, once for each', () => {
    const mirror = addMirror(5, [0, 1]);
    ports[0].send(ethernet(2, 1));
    expect(mirror.to.ways).toEqual(['vm0>', 'vm1<']);
  });

  it('come to every port that mirrors, and a flooded frame comes to none of them otherwise', () => {
    const first = addMirror(5, [0]);
    const second = addMirror(6, [0, 2]);
    const frame = ethernet(BROADCAST, 1);
    ports[0].send(frame);
    expect(first.to.ways).toEqual(['vm0>']);
    expect(second.to.ways).toEqual(['vm0>', 'vm2<']);
    expect(first.to.received).toEqual([frame]);
  });

  it('are not made of frames that were not delivered', () => {
    const mirror = addMirror(5, [1]);
    ports[1].to.bufferCount = 0;
    ports[0].send(ethernet(2, 1));
    expect(mirror.to.ways).toEqual([]);
    expect(ports[1].drops).toEqual({ noBuffer: 1 });
  });

  it('do not keep two other ports from being each other’s only one', () => {
    forwarder.removePort(2);
    const mirror = addMirror(5, []);
    ports[0].send(...Array.from({ length: 8 }, () => ethernet(9, 1)));
    expect(ports[1].to.received).toHaveLength(8);
    expect(mirror.to.received).toEqual([]);
    expect(mirror.drops).toEqual({});
  });

  it('end when the mirror port goes', () => {
    const mirror = addMirror(5, [0, 1]);
    forwarder.removePort(5);
    ports[0].send(...Array.from({ length: 4 }, () => ethernet(2, 1)));
    expect(mirror.to.ways).toEqual([]);
    expect(ports[1].to.received).toHaveLength(4);
  });

  it('begin for a port that is added later', () => {
    const mirror = addMirror(5, [0, 7]);
    const late = new TestPort(world.addPort(7));
    late.send(ethernet(1, 8));
    expect(mirror.to.ways).toEqual(['vm7>', 'vm0<']);
  });
});

describe('what a mirror port loses', () => {
  it('is counted as its own drop: no room, not ready, stopped', () => {
    const mirror = addMirror(5, [0]);
    mirror.to.bufferCount = 0;
    ports[0].send(ethernet(2, 1));
    expect(mirror.drops).toEqual({ noBuffer: 1 });
    mirror.port.state.setQueues([]);
    ports[0].send(ethernet(2, 1));
    expect(mirror.drops).toEqual({ noBuffer: 1, notReady: 1 });
    mirror.port.state.setQueues([mirror.to]);
    mirror.to.failsNext = true;
    ports[0].send(ethernet(2, 1));
    expect(mirror.drops).toEqual({ noBuffer: 1, notReady: 1, queueStopped: 1 });
    expect(faults).toEqual([mirror.to]);
    expect(ports[1].to.received).toHaveLength(3);
    expect([ports[0].drops, ports[1].drops]).toEqual([{}, {}]);
  });

  it('is nothing while another worker writes: it is waited for with no other queue open', () => {
    const mirror = addMirror(5, [1]);
    mirror.to.isBusy = true;
    ports[0].send(ethernet(2, 1), ethernet(2, 1));
    expect(mirror.to.ways).toEqual(['vm1<', 'vm1<']);
    expect(ports[1].to.received).toHaveLength(2);
    expect(mirror.drops).toEqual({});
  });
});

describe('any traffic', () => {
  it('shows each mirror, for each of its ports, what that port sent and got, in order', () => {
    for (let seed = 0; seed < 60; seed++) {
      const random = new Random(seed);
      const all = [0, 1, 2];
      const mirrors = [5, 6].map((id) => {
        const sources = all.filter(() => random.chance(50));
        return { to: addMirror(id, sources).to, sources };
      });
      for (const port of ports) {
        port.to.received.length = 0;
        port.sent.length = 0;
      }
      for (let turn = 0; turn < 12; turn++) {
        const sender = random.pick(ports);
        const frames = Array.from({ length: random.between(1, 6) }, () =>
          ethernet(random.pick([1, 2, 3, 9, BROADCAST]), sender.port.state.id + 1, {
            payload: [random.between(0, 255)],
          }),
        );
        sender.send(...frames);
      }
      for (const { to, sources } of mirrors) {
        expect(new Set(to.ways.map((way) => Number(way[2])))).toEqual(
          new Set(
            sources.filter((id) => {
              return ports[id].sent.length + ports[id].to.received.length > 0;
            }),
          ),
        );
        for (const id of sources) {
          const seen = (way: string) => to.received.filter((_, i) => to.ways[i] === way);
          expect(seen(`vm${id}>`), `seed ${seed}`).toEqual(ports[id].sent);
          expect(seen(`vm${id}<`), `seed ${seed}`).toEqual(ports[id].to.received);
        }
      }
      for (const id of [5, 6]) forwarder.removePort(id);
    }
  });
});

describe('a mirror of some frames', () => {
  it('gets those of one direction', () => {
    const [inwards, outwards] = [addMirror(5, []), addMirror(6, [])];
    world.setMirror(inwards.port, [0], { out: false });
    world.setMirror(outwards.port, [0], { in: false });
    ports[0].send(ethernet(2, 1));
    ports[1].send(ethernet(1, 2));
    expect(inwards.to.ways).toEqual(['vm0>']);
    expect(outwards.to.ways).toEqual(['vm0<']);
  });

  it('gets those of its VLANs, an access port’s too, and another list once that is set', () => {
    world.follow(ports[1].port, { vlan: { ...DEFAULT_VLAN, mode: 'access', tag: 5 } });
    const mirror = addMirror(5, []);
    world.setMirror(mirror.port, [0, 1], { vlans: [5] });
    ports[0].send(ethernet(9, 1, { tags: [5] }), ethernet(9, 1, { tags: [6] }), ethernet(9, 1));
    ports[1].send(ethernet(8, 2));
    expect(mirror.to.ways).toEqual(['vm0>', 'vm1<', 'vm1>', 'vm0<']);
    world.setMirror(mirror.port, [0, 1], { vlans: [0, 6] });
    mirror.to.ways.length = 0;
    ports[0].send(ethernet(9, 1, { tags: [5] }), ethernet(9, 1, { tags: [6] }), ethernet(9, 1));
    expect(mirror.to.ways).toEqual(['vm0>', 'vm0>']);
  });

  it('gets none that are longer than its MTU allows, tags aside', () => {
    const mirror = addMirror(5, []);
    world.setMirror(mirror.port, [0], { outputVlan: 9 });
    mirror.port.state.frameBytesMax = 1514;
    ports[0].send(
      ethernet(2, 1, { sizeBytes: 1514 }),
      ethernet(2, 1, { tags: [3], sizeBytes: 1518 }),
      ethernet(2, 1, { sizeBytes: 1515 }),
    );
    expect(mirror.to.received.map(({ length }) => length)).toEqual([1518, 1522]);
    expect(mirror.drops).toEqual({ overMtu: 1 });
  });

  it.each(seeds(30))('gets a tag in front of all others, and nobody else does, seed %i', (seed) => {
    const random = new Random(seed);
    for (const { port } of ports) world.follow(port, { vlan: randomVlan(random) });
    const [plain, tagged] = [addMirror(5, []), addMirror(6, [])];
    world.setMirror(tagged.port, [0, 1, 2], { outputVlan: 0x123 });
    world.setMirror(plain.port, [0, 1, 2]);
    for (let burst = 0; burst < 30; burst++) {
      const sender = random.pick(ports);
      const same = random.chance(50) ? randomTagged(random, 0) : null;
      const frames = Array.from({ length: random.between(1, 20) }, (_, i) => {
        const head = ethernet(random.pick([1, 2, 3, 9, BROADCAST]), sender.port.state.id + 1).subarray(0, 12);
        const tags = same ?? randomTagged(random, 5);
        return Uint8Array.from([...head, ...tags, 8, 0, i, burst, ...random.bytes(40)]);
      });
      sender.send(...frames);
    }
    expect(tagged.to.ways).toEqual(plain.to.ways);
    expect(tagged.to.received.length).toBeGreaterThan(20);
    for (const [i, frame] of plain.to.received.entries()) {
      const rest = frame.subarray(12);
      const copy = Buffer.from(tagged.to.received[i]);
      const expected = Buffer.from([...frame.subarray(0, 12), 0x81, 0, 0x01, 0x23, ...rest]);
      // Two that are pushed are as many as can be: the first one gives way.
      const instead = Buffer.from([...frame.subarray(0, 12), 0x81, 0, 0x01, 0x23, ...rest.subarray(4)]);
      expect(
        copy.equals(expected) || copy.equals(instead),
        `${copy.toString('hex')} of ${Buffer.from(frame).toString('hex')}`,
      ).toBe(true);
      if (tagged.to.ways[i].endsWith('>')) expect(copy.equals(expected)).toBe(true);
    }
    for (const [i, port] of ports.entries()) {
      const seen = plain.to.received.filter((_, k) => plain.to.ways[k] === `vm${i}<`);
      expect(seen).toEqual(port.to.received);
    }
  });
});
