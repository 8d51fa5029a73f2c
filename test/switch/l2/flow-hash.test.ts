/** The flow hash: one flow stays on one queue, different flows spread. */
import { afterAll, describe, expect, it } from 'vitest';
import { Batch, IN_PIECES } from '../../../src/queue/batch.ts';
import { FrameHead } from '../../../src/queue/frame-head.ts';
import { readHeads } from '../../../src/queue/heads.ts';
import { flowHash, queueOfHash } from '../../../switch/l2/flow-hash.ts';
import { Random } from '../../vring/random.ts';
import { arena, arenaView, ethernet, type Flow, FrameBench, ipPacket } from './frames.ts';

afterAll(() => arena.release());

const bench = new FrameBench();
const batch = new Batch();
const head = new FrameHead();

function hashOf(bytes: Uint8Array, misalignment = 0): number {
  batch.clear();
  bench.single(batch, bytes, misalignment);
  readHeads(batch, arenaView.windows);
  head.show(batch, 0, arenaView.windows);
  return flowHash(head);
}

function hashOfPieces(bytes: Uint8Array, sizes: readonly number[]): number {
  batch.clear();
  bench.pieces(batch, bytes, sizes);
  readHeads(batch, arenaView.windows);
  if (batch.windowOf(0) !== IN_PIECES) expect.fail('a frame in pieces was laid in one');
  head.show(batch, 0, arenaView.windows);
  return flowHash(head);
}

function randomFlow(random: Random, version: 4 | 6 = random.pick([4, 6] as const)): Flow {
  const address = () => [...random.bytes(version === 4 ? 4 : 16)];
  return {
    version,
    src: address(),
    dst: address(),
    protocol: random.pick([6, 17, 132]),
    srcPort: random.between(0, 65_535),
    dstPort: random.between(0, 65_535),
  };
}

const etherType = (flow: Flow): number => (flow.version === 4 ? 0x0800 : 0x86dd);
const TAGS: readonly (readonly number[])[] = [[], [100], [200, 100]];

describe('flowHash', () => {
  it('is the same for every packet of a flow, wherever and however it lies (seeded)', () => {
    const random = new Random(1);
    for (let round = 0; round < 300; round++) {
      const flow = randomFlow(random);
      const type = etherType(flow);
      for (const tags of TAGS) {
        const hashes = new Set<number>();
        for (let packet = 0; packet < 4; packet++) {
          const payload = ipPacket(flow, {
            ttl: random.between(1, 255),
            id: random.between(0, 65_535),
            payload: [...random.bytes(random.between(0, 80))],
          });
          const dontFragment = flow.version === 4 ? 0x40 : (payload[6] as number);
          payload[6] = dontFragment;
          const bytes = ethernet([...random.bytes(6)], [...random.bytes(6)], { tags, type, payload });
          hashes.add(hashOf(bytes, random.between(0, 3)));
          const cuts = [random.between(1, 20), random.between(1, 20), random.between(1, 60)];
          hashes.add(hashOfPieces(bytes, cuts));
        }
        expect(hashes.size).toBe(1);
      }
    }
  });

  it('is a non-negative int31', () => {
    const random = new Random(2);
    for (let round = 0; round < 2000; round++) {
      const hash = hashOf(random.bytes(random.between(14, 200)), random.between(0, 3));
      if (hash !== (hash & 0x7fff_ffff)) expect.fail(`${hash}`);
    }
  });

  it.each(['src', 'dst', 'protocol', 'srcPort', 'dstPort'] as const)('depends on %s', (field) => {
    const random = new Random(3);
    let differences = 0;
    for (let round = 0; round < 100; round++) {
      const flow = randomFlow(random);
      let other = randomFlow(random, flow.version);
      other = {
        ...flow,
        [field]: field === 'protocol' ? { 6: 17, 17: 132, 132: 6 }[flow.protocol] : other[field],
      };
      const [one, two] = [flow, other].map((each) =>
        hashOf(ethernet(1, 2, { type: etherType(each), payload: ipPacket(each) })),
      );
      if (one !== two) differences++;
    }
    expect(differences).toBeGreaterThan(98);
  });

  it.each([0x2000, 0x0001, 0x1fff, 0x3fff])(
    'leaves ports out of fragments (%i), which may lack them',
    (fragment) => {
      const random = new Random(4);
      const flow = randomFlow(random, 4);
      const hashes = [1, 2, 3].map((port) => {
        const payload = ipPacket({ ...flow, srcPort: port, dstPort: port }, { fragment });
        return hashOf(ethernet(1, 2, { payload }));
      });
      expect(new Set(hashes).size).toBe(1);
    },
  );

  it('takes "do not fragment" for no fragment', () => {
    const flow = randomFlow(new Random(5), 4);
    const hash = (port: number) => {
      return hashOf(ethernet(1, 2, { payload: ipPacket({ ...flow, srcPort: port }, { fragment: 0x4000 }) }));
    };
    expect(hash(1)).not.toBe(hash(2));
  });

  it('finds the ports behind IPv4 options', () => {
    const flow = randomFlow(new Random(6), 4);
    for (const optionWords of [1, 5, 10]) {
      const hash = (port: number, id: number) => {
        return hashOf(ethernet(1, 2, { payload: ipPacket({ ...flow, srcPort: port }, { optionWords, id }) }));
      };
      expect(hash(1, 1)).not.toBe(hash(2, 1));
      expect(hash(1, 1)).toBe(hash(1, 2));
    }
  });

  it('looks at no ports of protocols that have none', () => {
    const flow = { ...randomFlow(new Random(7), 4), protocol: 1 };
    const hash = (port: number) => hashOf(ethernet(1, 2, { payload: ipPacket({ ...flow, srcPort: port }) }));
    expect(hash(1)).toBe(hash(2));
  });

  it('uses the addresses of frames that are no IP, or cut short', () => {
    for (const options of [
      { type: 0x0806 },
      { type: 0x0800, sizeBytes: 33 },
      { type: 0x86dd, sizeBytes: 53 },
      { type: 0x8100, sizeBytes: 14 },
      { tags: [1, 2, 3], type: 0x0800 },
    ]) {
      const frames = [ethernet(1, 2, options), ethernet(1, 3, options), ethernet(4, 2, options)];
      expect(new Set(frames.map((bytes) => hashOf(bytes))).size).toBe(3);
      const other = Uint8Array.from(frames[0]);
      if (other.length > 30) other[29] = 0xff;
      expect(hashOf(other)).toBe(hashOf(frames[0]));
    }
  });

  it('reads nothing beyond the frame', () => {
    // The same short frame among different neighbours.
    const flow = randomFlow(new Random(8), 4);
    const whole = ethernet(1, 2, { payload: ipPacket(flow), sizeBytes: 0 });
    for (const length of [14, 20, 33, 34, 35, 37]) {
      const hashes = [0x00, 0xff].map((neighbour) => {
        const around = new Uint8Array(length + 64).fill(neighbour);
        around.set(whole.subarray(0, length));
        batch.clear();
        bench.single(batch, around);
        const [window, index] = [batch.windowOf(0), batch.indexOf(0)];
        batch.clear();
        batch.add(window, index, length);
        head.show(batch, 0, arenaView.windows);
        return flowHash(head);
      });
      expect(hashes[0], `${length} bytes`).toBe(hashes[1]);
    }
  });
});

describe('queueOfHash', () => {
  it.each([1, 2, 3, 4, 7, 8, 16])('spreads 1,000 random flows evenly over %i queues', (count) => {
    const random = new Random(count);
    const perQueue = new Array<number>(count).fill(0);
    for (let i = 0; i < 1000; i++) {
      const flow = randomFlow(random);
      const hash = hashOf(ethernet(1, 2, { type: etherType(flow), payload: ipPacket(flow) }));
      perQueue[queueOfHash(hash, count)]++;
    }
    const fair = 1000 / count;
    // Five standard deviations of a fair draw.
    const slack = 5 * Math.sqrt(fair);
    for (const flows of perQueue) expect(Math.abs(flows - fair)).toBeLessThan(slack);
  });

  it('spreads flows that differ by a port that counts up', () => {
    const flow = randomFlow(new Random(9), 4);
    const perQueue = new Array<number>(4).fill(0);
    for (let port = 0; port < 1000; port++) {
      const payload = ipPacket({ ...flow, srcPort: 32_768 + port });
      perQueue[queueOfHash(hashOf(ethernet(1, 2, { payload })), 4)]++;
    }
    for (const flows of perQueue) expect(Math.abs(flows - 250)).toBeLessThan(80);
  });

  it('is a queue for the smallest and the largest hash', () => {
    for (let count = 1; count <= 127; count++) {
      expect(queueOfHash(0, count)).toBe(0);
      expect(queueOfHash(0x7fff_ffff, count)).toBe(count - 1);
    }
  });
});
