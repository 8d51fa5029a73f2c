/** A trace says what the forwarder then does, whatever the settings and the frame; and changes nothing. */
import { afterAll, describe, expect, it } from 'vitest';
import { DEFAULT_VLAN, type PortPolicy, type VlanPolicy } from '../../../src/queue/policy.ts';
import { formatTrace } from '../../../switch/cli/trace.ts';
import { DROP, DROP_REASONS } from '../../../switch/l2/drop-reasons.ts';
import { frameOf } from '../../../switch/trace/frame-of.ts';
import { PLACED_HEAD_BYTES } from '../../../switch/trace/queues.ts';
import type { TraceReport } from '../../../switch/trace/report.ts';
import { Random, seeds } from '../../vring/random.ts';
import type { FakePort } from '../l2/fake-switch.ts';
import { arena, ethernet, type Mac } from '../l2/frames.ts';
import { randomTagged, randomVlan } from '../l2/random-vlans.ts';
import { data, join, query } from '../snooping/group-frames.ts';
import { SnoopedSwitch } from '../snooping/snooped-switch.ts';
import { TracedSwitch } from './fake-trace.ts';

afterAll(() => arena.release());

const BROADCAST = [255, 255, 255, 255, 255, 255];
const MACS: readonly Mac[] = [1, 2, 3, 4, BROADCAST, [1, 0, 0x5e, 0, 0, 7], [1, 0x80, 0xc2, 0, 0, 2]];

const vlan = (change: Partial<VlanPolicy>): { vlan: VlanPolicy } => ({
  vlan: { ...DEFAULT_VLAN, ...change },
});
const access = (tag: number) => vlan({ mode: 'access', tag });
const stages = (report: TraceReport): string[] => report.steps.map(({ stage }) => stage);
const stepOf = (report: TraceReport, stage: string): string =>
  report.steps
    .filter((step) => step.stage === stage)
    .map(({ text }) => text)
    .join('; ');

describe('a trace says', () => {
  it('where an unknown frame is flooded to, who is passed over, and why', () => {
    const traced = new TracedSwitch([access(10), {}, access(20), { floods: false }, { copiesOf: [] }]);
    const report = traced.trace(0, ethernet(2, 1));
    expect(stages(report)).toEqual(['in', 'vlan', 'learn', 'look up']);
    expect(report.vlan).toBe(10);
    expect(report.learns).toEqual({ mac: '02:00:00:00:00:01', vlan: 10, port: 'p0' });
    expect(report.receivers).toMatchObject([
      {
        port: 'p1',
        mirrorOf: null,
        frames: [{ bytes: 64, tags: [{ kind: '802.1q', vlan: 10 }], text: 'with an 802.1Q tag of VLAN 10' }],
      },
    ]);
    expect(report.passedOver).toEqual([
      { port: 'p2', text: 'does not carry VLAN 10' },
      { port: 'p3', text: 'has flood off' },
      { port: 'p4', text: 'gets copies only' },
    ]);
    expect(report.result).toBe('flooded to p1');
    expect(formatTrace(report)).toMatchInlineSnapshot(`
      "frame    02:00:00:00:00:01 > 02:00:00:00:00:02, 60 bytes
               IPv4 0.0.0.0 > 0.0.0.0, TTL 0, protocol 0
      in       p0: vhost-user, running
      vlan     an access port of VLAN 10; the frame has no tag: it is in VLAN 10
      learn    02:00:00:00:00:01 in VLAN 10 is new, and would be learned behind p0
      look up  02:00:00:00:00:02 is not known in VLAN 10: flooded
      send     p1: with an 802.1Q tag of VLAN 10, 64 bytes, queue 0
               p2: not: does not carry VLAN 10
               p3: not: has flood off
               p4: not: gets copies only
      result   flooded to p1
      "
    `);
  });

  it('behind which port an address is known, since when, and that one would move', () => {
    const traced = new TracedSwitch([{}, {}, {}]);
    const { fake } = traced;
    fake.send(fake.ports[1], ethernet(1, 2));
    fake.send(fake.ports[2], ethernet(2, 1));
    fake.forwarder.nowTick = 7;
    const report = traced.trace(0, ethernet(2, 1));
    expect(stepOf(report, 'look up')).toBe('02:00:00:00:00:02 in VLAN 0 is behind p1, last seen 7 s ago');
    expect(stepOf(report, 'learn')).toContain('would move here from p2, where it was seen 7 s ago');
    expect(report.result).toBe('goes to p1');
    expect(report.passedOver).toEqual([]);
  });

  it.each([
    ['linkLocal', [{}, {}], ethernet([1, 0x80, 0xc2, 0, 0, 2], 1), 'send'],
    ['noReceiver', [{}, { floods: false }], ethernet(2, 1), 'send'],
    ['taggedOnAccess', [access(10), {}], ethernet(2, 1, { tags: [11] }), 'vlan'],
    ['vlanNotAllowed', [vlan({ trunks: [5] }), {}], ethernet(2, 1), 'vlan'],
    ['receiveOff', [{ receives: false }, {}], ethernet(2, 1), 'in'],
  ] as const)('which stage dropped it: %s', (name, policies, frame, stage) => {
    const report = new TracedSwitch(policies as readonly Partial<PortPolicy>[]).trace(0, frame);
    expect(report.drops).toMatchObject([{ name, frames: 1 }]);
    expect(report.steps.at(-1)).toMatchObject({ stage, text: expect.stringContaining(`(${name})`) });
    expect(report.result).toContain(`(${name})`);
    expect(report.receivers.flatMap(({ frames }) => frames)).toEqual([]);
  });

  it('what a receiver drops', () => {
    const report = new TracedSwitch([{}, { mtu: 100 }]).trace(0, ethernet(2, 1, { sizeBytes: 200 }));
    expect(report.receivers).toMatchObject([
      { port: 'p1', frames: [], drops: [{ name: 'overMtu', frames: 1 }] },
    ]);
    expect(report.result).toContain('overMtu');
  });

  it('of whom a port gets a copy', () => {
    const report = new TracedSwitch([{}, {}, { copiesOf: [{ portId: 1, name: 'p1' }] }]).trace(
      0,
      ethernet(2, 1),
    );
    expect(report.receivers.map(({ port, mirrorOf }) => [port, mirrorOf])).toEqual([
      ['p1', null],
      ['p2', 'p1'],
    ]);
    expect(report.result).toBe('flooded to p1; copied to p2');
  });

  it('who joined a group, and where messages about groups go', () => {
    const snooped = new SnoopedSwitch([{}, {}, {}, {}], { floodUnregistered: false });
    const traced = new TracedSwitch([{}, {}, {}, {}], {
      fake: snooped.fake,
      groupTable: snooped.groupMemory,
    });
    snooped.send(1, join('239.1.2.3'));
    const report = traced.trace(0, data('239.1.2.3'));
    expect(stepOf(report, 'checks')).toBe('snooping: passed');
    expect(stepOf(report, 'look up')).toBe('01:00:5e:01:02:03 is a group: to who joined it, and to routers');
    expect(report.result).toBe('goes to p1');
    expect(report.passedOver.map(({ port }) => port)).toEqual(['p2', 'p3']);
    expect(traced.trace(2, join('239.1.2.3')).drops).toMatchObject([{ name: 'noMember' }]);
    snooped.send(3, query(4, null, { src: '10.0.0.1' }));
    const message = traced.trace(2, join('239.1.2.3'));
    expect(stepOf(message, 'look up')).toContain('a message about groups: to routers');
    expect(message.result).toBe('goes to p3');
    // Nothing came of it.
    snooped.settle();
    expect(snooped.groups()).toEqual(['0 239.1.2.3 p1']);
    expect(traced.trace(0, data('224.0.0.251')).result).toBe('flooded to p1, p2, p3');
  });

  it('into which segments a frame is cut for whom, and who gets it whole', () => {
    const frame = frameOf({
      src: Uint8Array.from([2, 0, 0, 0, 0, 1]),
      dst: Uint8Array.from(BROADCAST),
      vlans: [],
      priority: 0,
      type: null,
      arp: null,
      ip: {
        src: Uint8Array.from([10, 0, 0, 1]),
        dst: Uint8Array.from([10, 0, 0, 2]),
        protocol: 'tcp',
        srcPort: 1,
        dstPort: 2,
      },
      sizeBytes: 54 + 2500,
    });
    const report = new TracedSwitch([{}, {}, { takes: 127 }]).trace(0, frame, 1000);
    const [cut, whole] = report.receivers;
    expect(cut.frames.map(({ bytes, segments }) => [bytes, segments])).toEqual([
      [1054, 1],
      [1054, 1],
      [554, 1],
    ]);
    expect(whole.frames).toMatchObject([{ bytes: 2554, segments: 3, asksChecksum: true }]);
    expect(formatTrace(report)).toContain('2 frames: without a tag, as it came, 1,054 bytes');
    const bad = new TracedSwitch([{}, {}]).trace(0, ethernet(2, 1), 1000);
    expect(bad.drops).toMatchObject([{ name: 'badSegmentRequest' }]);
  });
});

const CONFIGURATIONS = 40;
const FRAMES = 40;

function randomFrame(random: Random): Uint8Array {
  const payload = [...random.bytes(random.between(0, 30))];
  const plain = ethernet(random.pick(MACS), random.pick(MACS.slice(0, 4)), {
    type: random.pick([0x0800, 0x86dd, 0x0806, 0x1234]),
    payload,
    sizeBytes: 14 + payload.length,
  });
  const bytes = [...plain.subarray(0, 12), ...randomTagged(random, 10), ...plain.subarray(12)];
  return Uint8Array.from(random.chance(10) ? bytes.slice(0, random.between(14, 26)) : bytes);
}

function randomPolicy(random: Random, id: number, count: number): Partial<PortPolicy> {
  if (id === count - 1 && random.chance(30))
    return { copiesOf: [{ portId: random.between(0, id), name: '' }] };
  return {
    vlan: random.chance(40) ? DEFAULT_VLAN : randomVlan(random),
    floods: random.chance(90),
    receives: random.chance(95),
    forwardsLinkLocal: random.chance(30),
    mtu: random.pick([65_535, 68]),
  };
}

const countsOf = ({ state }: FakePort): number[] => DROP_REASONS.map(({ name }) => state.counts[DROP[name]]);

describe('a trace foretells', () => {
  it.each(seeds(CONFIGURATIONS))('what ports are given and what is dropped: seed %i', (seed) => {
    const random = new Random(seed);
    const count = random.between(2, 5);
    const policies = Array.from({ length: count }, (_, id) => randomPolicy(random, id, count));
    const traced = new TracedSwitch(policies, {
      vlanLimit: random.pick([1, 2]),
      queues: random.pick([1, 1, 3]),
    });
    const { fake } = traced;
    for (let n = 0; n < FRAMES; n++) {
      const from = random.between(0, count - 1);
      const frame = randomFrame(random);
      fake.forwarder.nowTick = n;
      const before = JSON.stringify(fake.fdb.entries());
      const report = traced.trace(from, frame);
      expect(JSON.stringify(fake.fdb.entries())).toBe(before);
      const countsBefore = fake.ports.map(countsOf);
      fake.send(fake.ports[from], frame);
      const dropped = fake.ports.map((port, id) =>
        countsOf(port).map((total, reason) => total - countsBefore[id][reason]),
      );
      for (const [id, port] of fake.ports.entries()) {
        const mine = report.receivers.filter(({ port: name }) => name === `p${id}`);
        const foretold = mine.flatMap(({ frames }) => frames.map(({ queue, hex }) => `${queue} ${hex}`));
        const given = port.to.flatMap((queue) =>
          queue.received
            .splice(0)
            .map(
              (bytes) =>
                `${queue.queueIndex} ${Buffer.from(bytes).subarray(0, PLACED_HEAD_BYTES).toString('hex')}`,
            ),
        );
        expect(foretold.sort()).toEqual(given.sort());
        const drops = [...(id === from ? report.drops : []), ...mine.flatMap((receiver) => receiver.drops)];
        const counts = DROP_REASONS.map(({ name }) =>
          drops.filter((drop) => drop.name === name).reduce((sum, { frames }) => sum + frames, 0),
        );
        expect(counts).toEqual(dropped[id]);
      }
    }
  });
});
