/**
 * `ringway trace` beside Open vSwitch's `ofproto/trace`: the same ports, the same addresses learned, the same frame; both
 * must name the same receivers with the same tags. One difference is meant: a mirror of Open vSwitch has the frame with a
 * tag of the VLAN that it is in, Ringway's as it came in from the port.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DEFAULT_VLAN, type VlanPolicy } from '../../src/queue/policy.ts';
import { formatTrace } from '../../switch/cli/trace.ts';
import { peersForTests } from '../peers/index.ts';
import { OvsDummy, tagWords } from '../peers/ovs-dummy.ts';
import { arena, ethernet } from '../switch/l2/frames.ts';
import { TracedSwitch } from '../switch/trace/fake-trace.ts';

const peers = await peersForTests(['ovs-dummy']);

const BRIDGE = 'b4';
const PORTS = 4;
const MIRROR_PORT = 3;
const GROUP = [1, 0, 0x5e, 1, 1, 1];

type Case = {
  readonly ports: readonly Partial<VlanPolicy>[];
  /** Frames that both learn from first: port and frame. */
  readonly before?: readonly (readonly [port: number, frame: Uint8Array])[];
  readonly from: number;
  readonly frame: Uint8Array;
  readonly vlanLimit?: number;
  readonly mirrors?: boolean;
  /** Ports that get the frame. */
  readonly receivers: readonly number[];
};

const access = (tag: number): Partial<VlanPolicy> => ({ mode: 'access', tag });
const TRUNK = {};

const CASES: Readonly<Record<string, Case>> = {
  'an unknown address on access ports': {
    ports: [access(10), access(10), access(20), TRUNK],
    from: 0,
    frame: ethernet(2, 1),
    receivers: [1, 3],
  },
  'a known address on a trunk': {
    ports: [access(10), access(10), TRUNK, TRUNK],
    before: [[2, ethernet(1, 2, { tags: [10] })]],
    from: 0,
    frame: ethernet(2, 1),
    receivers: [2],
  },
  'a frame of a trunk, with a priority, to an access port': {
    ports: [{ trunks: [10, 20] }, access(10), access(20), { trunks: [20] }],
    from: 0,
    frame: ethernet(2, 1, { tags: [(5 << 13) | 10] }),
    receivers: [1],
  },
  'a native VLAN, tagged and untagged': {
    ports: [access(7), { mode: 'native-tagged', tag: 7 }, { mode: 'native-untagged', tag: 7 }, access(8)],
    from: 0,
    frame: ethernet([255, 255, 255, 255, 255, 255], 1),
    receivers: [1, 2],
  },
  'a customer VLAN into a tunnel (QinQ)': {
    ports: [{ mode: 'dot1q-tunnel', tag: 100 }, TRUNK, { mode: 'dot1q-tunnel', tag: 100 }, access(100)],
    from: 0,
    frame: ethernet(2, 1, { tags: [5] }),
    vlanLimit: 2,
    receivers: [1, 2],
  },
  'a VLAN that the sender does not carry': {
    ports: [{ trunks: [10] }, TRUNK, TRUNK, TRUNK],
    from: 0,
    frame: ethernet(2, 1, { tags: [11] }),
    receivers: [],
  },
  'a tag on an access port': {
    ports: [access(10), TRUNK, TRUNK, TRUNK],
    from: 0,
    frame: ethernet(2, 1, { tags: [10] }),
    receivers: [],
  },
  "an address on the sender's own port": {
    ports: [TRUNK, TRUNK, TRUNK, TRUNK],
    before: [[0, ethernet(1, 2)]],
    from: 0,
    frame: ethernet(2, 1),
    receivers: [],
  },
  'an address that bridges keep to their link': {
    ports: [TRUNK, TRUNK, TRUNK, TRUNK],
    from: 0,
    frame: ethernet([1, 0x80, 0xc2, 0, 0, 0x0e], 1, { type: 0x88cc }),
    receivers: [],
  },
  'a known address of another VLAN': {
    ports: [access(10), access(20), TRUNK, access(10)],
    before: [[1, ethernet(1, 2)]],
    from: 0,
    frame: ethernet(2, 1),
    receivers: [2, 3],
  },
  'a group': {
    ports: [TRUNK, access(0), access(1), TRUNK],
    from: 0,
    frame: ethernet(GROUP, 1),
    receivers: [1, 3],
  },
  'a mirror': {
    ports: [access(10), access(10), TRUNK, TRUNK],
    before: [[1, ethernet(1, 2)]],
    from: 0,
    frame: ethernet(2, 1),
    mirrors: true,
    receivers: [1, MIRROR_PORT],
  },
};

describe.skipIf(peers.skip)(peers.title("a trace beside Open vSwitch's ofproto/trace"), () => {
  let folder: string;
  let ovs: OvsDummy;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ringway-ovs-'));
    ovs = await OvsDummy.start(folder, [PORTS]);
  }, 60_000);

  afterAll(async () => {
    await ovs?.stop();
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    arena.release();
  });

  it.each(Object.entries(CASES))('%s', async (_, { ports, before = [], from, frame, ...rest }) => {
    const { vlanLimit = 1, mirrors = false, receivers } = rest;
    const textOf = (port: string, tags: readonly string[]): string =>
      mirrors && port === `p${MIRROR_PORT}` ? port : `${port} ${tags.join(' ')}`;
    const policies = ports.map((vlan): VlanPolicy => ({ ...DEFAULT_VLAN, ...vlan }));
    const ours = new TracedSwitch(
      policies.map((vlan, id) =>
        mirrors && id === MIRROR_PORT ? { vlan, copiesOf: [{ portId: from, name: `p${from}` }] } : { vlan },
      ),
      { vlanLimit },
    );
    await ovs.configure(BRIDGE, policies, vlanLimit);
    if (mirrors) await ovs.mirror(BRIDGE, MIRROR_PORT, from);
    for (const [port, each] of before) {
      await ovs.send(BRIDGE, port, [each]);
      ours.fake.send(ours.fake.ports[port], each);
    }
    const theirs = await ovs.trace(BRIDGE, from, frame);
    await ovs.mirror(BRIDGE, null);
    const report = ours.trace(from, frame);
    const given = report.receivers.flatMap(({ port, frames }) =>
      frames.map(({ hex }) => textOf(port, tagWords(Buffer.from(hex, 'hex')))),
    );
    const expected = theirs.outputs.map(({ port, tags }) => textOf(`p${port}`, tags));
    expect(given.sort(), `${formatTrace(report)}${theirs.text}`).toEqual(expected.sort());
    expect(new Set(theirs.outputs.map(({ port }) => port))).toEqual(new Set(receivers));
  });
});
