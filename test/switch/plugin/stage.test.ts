/**
 * What plugins decide and see, frame by frame: fake queues around the real forwarder. The books are checked after every burst
 * (fake-switch.ts).
 */
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { createMessageRing, MessageRing } from '../../../switch/l2/groups/message-ring.ts';
import { Snoop } from '../../../switch/l2/groups/snoop.ts';
import { createGroupMemory, GroupTable } from '../../../switch/l2/groups/table.ts';
import type { DropReason, Frames, Plugin, PluginPort } from '../../../switch/plugin/interface.ts';
import { ipv4, ipv4Range, ipv4Text, mac, macText } from '../../../switch/plugin/interface.ts';
import { MEASURED_EVERY, SLOW_IN_A_ROW_MAX } from '../../../switch/plugin/stage.ts';
import { FakeSwitch } from '../l2/fake-switch.ts';
import { arena, arenaView, ethernet, ipPacket, type Mac } from '../l2/frames.ts';
import { data } from '../snooping/group-frames.ts';
import { PluginWorld } from './plugin-world.ts';

const ALL: Mac = [255, 255, 255, 255, 255, 255];

let world: PluginWorld;

/** Port `n` has the address `n + 1`. */
beforeEach(() => {
  world = new PluginWorld(1, 1, 1);
  for (const port of world.ports) world.send(port, ethernet(9, port.state.id + 1));
  for (const { to } of world.ports) for (const queue of to) queue.received.length = 0;
});
afterAll(() => arena.release());

const received = (): number[] => world.ports.map((port) => port.received.length);
const drops = () => world.ports.map((port) => port.drops);
/** Has a plugin decide about each frame. */
const plug = (decide: (frames: Frames, frame: number) => void, plugin: Partial<Plugin> = {}) =>
  world.plug(() => ({
    version: 1,
    decide(frames) {
      for (let frame = 0; frame < frames.count; frame++) decide(frames, frame);
    },
    ...plugin,
  }));

const TCP = {
  version: 4 as const,
  src: [10, 0, 0, 1],
  dst: [10, 0, 1, 1],
  protocol: 6,
  srcPort: 1024,
  dstPort: 443,
};

describe('a plugin', () => {
  it('that decides nothing changes nothing', () => {
    plug(() => {});
    world.send(world.ports[0], ethernet(2, 1), ethernet(3, 1), ethernet(ALL, 1));
    expect(received()).toEqual([0, 2, 2]);
    expect(drops()).toEqual([{}, {}, {}]);
  });

  it('drops frames by a reason of its own, and the others keep their order', () => {
    const instance = world.plug((_settings, context) => {
      const other = context.dropReason('other', '');
      const odd = context.dropReason('odd', '');
      return {
        version: 1,
        decide(frames) {
          for (let i = 0; i < frames.count; i++)
            if ((frames.sizes[i] & 1) === 1) frames.drop(i, i > 2 ? odd : other);
        },
      };
    });
    const frames = [60, 61, 62, 63, 64, 65].map((sizeBytes) => ethernet(2, 1, { sizeBytes }));
    world.send(world.ports[0], ...frames);
    expect(world.ports[1].received).toEqual([frames[0], frames[2], frames[4]]);
    expect(drops()).toEqual([{ plugin: 3 }, {}, {}]);
    expect([...instance.counts.subarray(0, 7)]).toEqual([6, 0, 0, 0, 0, 1, 2]);
  });

  it('drops all of a burst', () => {
    world.plug((_settings, context) => {
      const no = context.dropReason('no', '');
      return {
        version: 1,
        decide(frames) {
          for (let i = 0; i < frames.count; i++) frames.drop(i, no);
        },
      };
    });
    world.send(world.ports[0], ethernet(2, 1), ethernet(8, 7));
    expect(received()).toEqual([0, 0, 0]);
    expect(drops()).toEqual([{ plugin: 2 }, {}, {}]);
    expect(world.fdb.entries().map(({ macHi }) => macHi)).toHaveLength(3);
  });

  it('sends frames where nobody learned to send them, all or some, and to all no more', () => {
    const to2 = world.names.named('vm2');
    plug((frames, i) => {
      if (frames.sizes[i] !== 60) frames.redirect(i, to2);
    });
    const frames = [
      ethernet(2, 1),
      ethernet(2, 1, { sizeBytes: 70 }),
      ethernet(ALL, 1, { sizeBytes: 80 }),
      ethernet(ALL, 1),
    ];
    world.send(world.ports[0], ...frames);
    expect(world.ports[1].received).toEqual([frames[0], frames[3]]);
    expect(world.ports[2].received).toEqual([frames[1], frames[2], frames[3]]);
    world.send(world.ports[0], frames[1], frames[1]);
    expect(received()).toEqual([0, 2, 5]);
    world.send(world.ports[2], frames[1]);
    expect(drops()).toEqual([{}, {}, { samePort: 1 }]);
  });

  it('sends frames there also where groups are snooped and some of the burst go to one', () => {
    const options = { capacity: 8, portsMax: 64, floodsUnregistered: true, vlans: null };
    const table = new GroupTable(createGroupMemory(options));
    FakeSwitch.snoop = new Snoop(arenaView, table, new MessageRing(createMessageRing()), () => {});
    world = new PluginWorld(1, 1, 1);
    FakeSwitch.snoop = null;
    world.send(world.ports[1], ethernet(9, 2));
    for (const { to } of world.ports) for (const queue of to) queue.received.length = 0;
    const to2 = world.names.named('vm2');
    plug((frames, i) => {
      if (frames.sizes[i] !== 60) frames.redirect(i, to2);
    });
    const [plain, group] = [ethernet(2, 1), data('239.1.2.3')];
    const long = [ethernet(2, 1, { sizeBytes: 70 }), Uint8Array.of(...data('239.1.2.3'), 0, 0)];
    world.send(world.ports[0], group, long[0], plain, long[1]);
    expect(world.ports[1].received).toEqual([group, plain]);
    expect(world.ports[2].received).toEqual([group, ...long]);
  });

  it('loses what it sends to a port that is not there, or that gets nothing but copies', () => {
    const gone = world.names.named('vm7');
    const mirror = world.addMirror(3, []);
    world.names.add(3, 'vm3');
    const instance = plug((frames, i) => frames.redirect(i, i === 0 ? gone : world.nameOf(mirror)));
    world.send(world.ports[0], ethernet(2, 1), ethernet(2, 1));
    expect(drops().slice(0, 3)).toEqual([{ plugin: 2 }, {}, {}]);
    expect(instance.counts[3]).toBe(2);
  });

  it('puts frames into a VLAN and takes them out of one', () => {
    world.follow(world.ports[1], {
      vlan: {
        mode: 'access',
        tag: 7,
        trunks: null,
        cvlans: null,
        priorityTags: 'never',
        serviceTag: '802.1ad',
      },
    });
    plug((frames, i) => {
      if (frames.vlans[i] === 0) frames.setVlan(i, frames.sizes[i] === 60 ? 7 : 8);
      else if (frames.vlans[i] === 9) frames.removeVlan(i);
    });
    const plain = ethernet(ALL, 1);
    const longer = ethernet(ALL, 1, { sizeBytes: 70 });
    world.send(world.ports[0], plain, longer, ethernet(ALL, 1, { tags: [0x6009] }));
    expect(world.ports[1].received).toEqual([plain]);
    const tagged = (tag: number, sizeBytes: number) => ethernet(ALL, 1, { tags: [tag], sizeBytes });
    expect(world.ports[2].received).toEqual(
      [tagged(7, 64), tagged(8, 74), plain.subarray(0, 56)].map((bytes) => Uint8Array.from(bytes)),
    );
    expect(
      world.fdb
        .entries()
        .map(({ vlan }) => vlan)
        .sort(),
    ).toEqual([0, 0, 0, 7, 8]);
  });

  it('has copies made, of frames that it drops too, with their tags', () => {
    const to2 = world.names.named('vm2');
    world.plug((_settings, context) => {
      const no = context.dropReason('no', '');
      return {
        version: 1,
        decide(frames) {
          for (let i = 0; i < frames.count; i++) {
            frames.mirror(i, to2);
            if (i > 0) frames.drop(i, no);
          }
        },
      };
    });
    const frames = [
      ethernet(2, 1),
      ethernet(2, 1, { tags: [5] }),
      ethernet(2, 1, { tags: [5, 6] }),
      ethernet(2, 1),
    ];
    world.send(world.ports[0], ...frames);
    expect(world.ports[1].received).toEqual([frames[0]]);
    expect(world.ports[2].received).toEqual(frames);
  });

  it('sees what an earlier one decided and marked', () => {
    const seen: unknown[] = [];
    world.plug((_settings, context) => {
      const no = context.dropReason('no', '');
      return {
        version: 1,
        decide(frames) {
          frames.mark(1, 5);
          frames.mark(2, 6);
          frames.setVlan(2, 3);
          frames.drop(0, no);
        },
      };
    });
    world.plug(() => ({
      version: 1,
      decide({ count, sizes, marks, vlans }) {
        for (let i = 0; i < count; i++) seen.push([sizes[i], marks[i], vlans[i]]);
      },
    }));
    world.send(
      world.ports[0],
      ethernet(2, 1),
      ethernet(2, 1, { sizeBytes: 61 }),
      ethernet(2, 1, { sizeBytes: 62 }),
    );
    expect(seen).toEqual([
      [61, 5, 0],
      [62, 6, 3],
    ]);
  });
});

describe('the fields of frames', () => {
  it('are those of the frames, whatever pieces they lie in', () => {
    const seen: Record<string, unknown>[] = [];
    const into = new Uint8Array(2000);
    plug(
      (frames, i) => {
        seen.push({
          mac: [macText(frames.destinations[i]), macText(frames.sources[i])],
          type: frames.etherTypes[i],
          vlan: frames.vlans[i],
          ip: [frames.ipVersions[i], ipv4Text(frames.ipv4Sources[i]), ipv4Text(frames.ipv4Destinations[i])],
          ip6: [...Array(4).keys()].map((word) => frames.ipv6Sources[4 * i + word]),
          l4: [frames.protocols[i], frames.l4Sources[i], frames.l4Destinations[i], frames.l4Offsets[i]],
          bytes: [frames.u8(i, 14), frames.u16(i, 12), frames.u8(i, 1000), frames.u8(i, -1)],
          copied: frames.copy(i, 10, into),
          first: into[4],
        });
      },
      { reads: 'headers' },
    );
    const packet = ethernet(2, 1, { payload: ipPacket(TCP) });
    const six = {
      ...TCP,
      version: 6 as const,
      src: [0xfd, ...Array(14).fill(0), 1],
      dst: Array(16).fill(2),
      protocol: 17,
    };
    world.send(
      world.ports[0],
      packet,
      { bytes: packet, pieces: [3, 20, 1] },
      { bytes: ethernet(2, 1, { payload: ipPacket(six), type: 0x86dd, tags: [12] }), misalignment: 1 },
      ethernet(2, 1, { payload: ipPacket(TCP, { fragment: 0x2000 }) }),
      ethernet(2, 1, { payload: ipPacket(TCP, { optionWords: 2 }) }),
      { bytes: ethernet(2, 1, { payload: [0x45], sizeBytes: 0 }) },
    );
    const common = { mac: ['02:00:00:00:00:02', '02:00:00:00:00:01'], ip6: [0, 0, 0, 0] };
    const ip = [4, '10.0.0.1', '10.0.1.1'];
    const four = { ...common, type: 0x800, vlan: 0, ip, bytes: [0x45, 0x800, 0, 0], copied: 50, first: 0x45 };
    expect(seen).toEqual([
      { ...four, l4: [6, 1024, 443, 34] },
      { ...four, l4: [6, 1024, 443, 34] },
      {
        ...common,
        type: 0x86dd,
        vlan: 12,
        ip: [6, '0.0.0.0', '0.0.0.0'],
        ip6: [0xfd000000 | 0, 0, 0, 1],
        l4: [17, 1024, 443, 54],
        bytes: [0x60, 0x86dd, 0, 0],
        copied: 48,
        first: 0x60,
      },
      { ...four, l4: [6, -1, -1, 34] },
      { ...four, l4: [6, 1024, 443, 42], bytes: [0x47, 0x800, 0, 0], first: 0x47 },
      { ...four, ip: [0, '0.0.0.0', '0.0.0.0'], l4: [-1, -1, -1, 0], copied: 5 },
    ]);
  });

  it('are decided on as they were when they were looked at, whatever the guest writes meanwhile', () => {
    plug(
      (frames, i) => {
        expect(frames.l4Destinations[i]).toBe(443);
        expect(frames.u16(i, 36)).toBe(443);
      },
      { reads: 'headers' },
    );
    const packet = ethernet(2, 1, { payload: ipPacket(TCP), sizeBytes: 200 });
    world.log.onPlace = () => arenaBytes().fill(255);
    world.send(world.ports[0], packet);
    expect(world.ports[1].received[0].subarray(0, 128)).toEqual(packet.subarray(0, 128));
  });
});

/** Of port 0's frames (fake-queues.ts). */
const arenaBytes = () => arenaView.u8.subarray(2 ** 26, 2 ** 26 + 2 ** 20);

describe('a plugin that fails', () => {
  const failing = (onFault: 'drop' | 'pass') =>
    world.plug(
      () => ({
        version: 1,
        decide(frames) {
          frames.setVlan(0, 5);
          if (frames.count === 2) throw new Error('two are too many');
        },
      }),
      onFault,
    );

  it('is taken out, and what it was to decide on is dropped, by name', () => {
    failing('drop');
    world.send(world.ports[0], ethernet(2, 1), ethernet(2, 1));
    world.send(world.ports[0], ethernet(2, 1));
    expect(received()).toEqual([0, 0, 0]);
    expect(drops()).toEqual([{ pluginFailed: 3 }, {}, {}]);
    expect(world.pluginFaults).toEqual([
      { name: 'plugin0', reason: expect.stringMatching(/^Error: two are too many/) },
    ]);
  });

  it('is passed by if it is to be, as if it had said nothing', () => {
    failing('pass');
    const frame = ethernet(2, 1);
    world.send(world.ports[0], frame, frame);
    world.send(world.ports[0], frame);
    expect(world.ports[1].received).toEqual([frame, frame, frame]);
    expect(drops()).toEqual([{}, {}, {}]);
  });

  it.each([
    [
      'what has no text',
      () => {
        throw Object.create(null);
      },
      'it threw what cannot be shown',
    ],
    [
      'an error that throws when it is asked',
      () => {
        throw Object.defineProperty(new Error('no'), 'message', {
          get() {
            throw new Error('never');
          },
        });
      },
      'it threw what cannot be shown',
    ],
    [
      'more text than anybody reads',
      () => {
        throw new Error('a'.repeat(2 ** 20));
      },
      `Error: ${'a'.repeat(993)}…`,
    ],
    [
      'in an async function',
      async () => {
        throw new Error('later');
      },
      'its decide answers an object: it has to be done when it returns, and may be no async function and no generator',
    ],
    [
      'in a generator',
      function* () {
        yield 1;
      },
      'its decide answers an object: it has to be done when it returns, and may be no async function and no generator',
    ],
    [
      'a port that is none',
      (frames: Frames) => frames.redirect(0, {} as PluginPort),
      'RangeError: a port that is none: those of context.port(name) are',
    ],
    [
      'a reason that is none',
      (frames: Frames) => frames.drop(0, {} as DropReason),
      'RangeError: a reason of another plugin',
    ],
  ] as const)('by %s is taken out like any other', (_, decide, reason) => {
    world.plug((_settings, context) => {
      context.dropReason('no', '');
      return { version: 1, decide };
    });
    world.send(world.ports[0], ethernet(2, 1));
    expect(drops()).toEqual([{ pluginFailed: 1 }, {}, {}]);
    expect(world.pluginFaults).toEqual([{ name: 'plugin0', reason: expect.stringContaining(reason) }]);
  });

  it('is one that is too slow again and again, not one whose thread had to wait now and then', () => {
    let slowUs = 2000;
    plug(() => {
      world.nowUs += slowUs;
    });
    for (let burst = 1; burst < SLOW_IN_A_ROW_MAX; burst++) world.send(world.ports[0], ethernet(2, 1));
    slowUs = 1000;
    for (let burst = 0; burst < MEASURED_EVERY; burst++) world.send(world.ports[0], ethernet(2, 1));
    slowUs = 2000;
    for (let burst = 1; burst < SLOW_IN_A_ROW_MAX; burst++) world.send(world.ports[0], ethernet(2, 1));
    expect(world.pluginFaults).toEqual([]);
    world.send(world.ports[0], ethernet(2, 1));
    expect(world.pluginFaults).toEqual([
      {
        name: 'plugin0',
        reason: 'it took 2000 µs for a burst of 1, as for the 15 before it (allowed: 1000 µs)',
      },
    ]);
  });
});

describe('text', () => {
  it('of addresses is what it says', () => {
    expect(macText(mac('02:0a:00:00:00:ff'))).toBe('02:0a:00:00:00:ff');
    expect(ipv4Text(ipv4('192.168.0.255'))).toBe('192.168.0.255');
    expect(ipv4Range('10.1.2.3/8')).toEqual({ address: 10 << 24, mask: 0xff000000 | 0 });
    expect(ipv4Range('10.1.2.3')).toEqual({ address: ipv4('10.1.2.3'), mask: -1 });
    expect(ipv4Range('0.0.0.0/0')).toEqual({ address: 0, mask: 0 });
    for (const text of ['10.0.0', '10.0.0.256', '10.0.0.1/33', '1.2.3.4/8/8', ''])
      expect(() => ipv4Range(text)).toThrow(RangeError);
    expect(() => mac('02:00')).toThrow(RangeError);
  });
});
