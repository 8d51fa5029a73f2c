/** What is counted of the frames from a port beside its books: lengths by class, and frames to groups. */
import { describe, expect, it } from 'vitest';
import { SAMPLED_BURSTS } from '../../../switch/l2/frame-classes.ts';
import {
  COUNT_BROADCAST,
  COUNT_MULTICAST,
  COUNT_SIZES,
  SIZE_BOUNDS,
  SIZE_CLASSES,
} from '../../../switch/l2/port-counts.ts';
import { type FakePort, FakeSwitch } from './fake-switch.ts';
import { ethernet } from './frames.ts';

const sizesOf = ({ state }: FakePort): number[] => [
  ...state.counts.subarray(COUNT_SIZES, COUNT_SIZES + SIZE_CLASSES),
];
const classOf = (bytes: number): number => {
  const size = SIZE_BOUNDS.findIndex((bound) => bytes <= bound);
  return size < 0 ? SIZE_BOUNDS.length : size;
};
const frames = (count: number, sizeBytes: number, dst: Parameters<typeof ethernet>[0] = 2): Uint8Array[] =>
  Array.from({ length: count }, () => ethernet(dst, 1, { sizeBytes }));

describe('lengths of frames', () => {
  it('of bursts with one length are exact', () => {
    const { ports, ...fake } = new FakeSwitch(1, 1);
    const [sender] = ports;
    const expected = new Array<number>(SIZE_CLASSES).fill(0);
    const lengths = [60, ...SIZE_BOUNDS.flatMap((bound) => [bound, bound + 1]), 14, 15, 1514, 65_000];
    for (const [i, sizeBytes] of lengths.entries()) {
      sender.from.fill(...frames(i + 1, sizeBytes));
      fake.forwarder.forwardBurst(sender.from);
      expected[classOf(sizeBytes)] += i + 1;
    }
    expect(sizesOf(sender)).toEqual(expected);
  });

  it('of bursts with several are counted for all by one in so many', () => {
    const fake = new FakeSwitch(1, 1);
    const [sender] = fake.ports;
    for (let burst = 0; burst < 10 * SAMPLED_BURSTS; burst++)
      fake.send(sender, ...frames(3, 60), ...frames(1, 1514));
    const sizes = sizesOf(sender);
    expect(sizes[classOf(60)]).toBe(30 * SAMPLED_BURSTS);
    expect(sizes[classOf(1514)]).toBe(10 * SAMPLED_BURSTS);
  });

  it('are those that frames came in with, also of frames that go nowhere', () => {
    const fake = new FakeSwitch(1, 1);
    const [sender] = fake.ports;
    fake.follow(sender, { receives: false });
    fake.send(sender, ...frames(5, 300));
    expect(sizesOf(sender)[classOf(300)]).toBe(5);
  });
});

describe('frames to groups', () => {
  const BROADCAST = [255, 255, 255, 255, 255, 255];
  const GROUP = [1, 0, 0x5e, 1, 2, 3];
  const counted = ({ state }: FakePort): number[] => [
    state.counts[COUNT_MULTICAST],
    state.counts[COUNT_BROADCAST],
  ];

  it('are counted by kind, alone in a burst and among others', () => {
    const fake = new FakeSwitch(1, 1, 1);
    const [sender, other] = fake.ports;
    fake.send(sender, ...frames(4, 60, BROADCAST));
    expect(counted(sender)).toEqual([0, 4]);
    fake.send(sender, ...frames(3, 60, GROUP));
    expect(counted(sender)).toEqual([3, 4]);
    fake.send(sender, ...frames(2, 60, GROUP), ...frames(5, 60), ...frames(1, 60, BROADCAST));
    expect(counted(sender)).toEqual([5, 5]);
    // Those that are not forwarded, too.
    fake.send(sender, ...frames(1, 60, [1, 0x80, 0xc2, 0, 0, 0]));
    expect(counted(sender)).toEqual([6, 5]);
    expect(counted(other)).toEqual([0, 0]);
  });

  it('that look like broadcast but are not', () => {
    const fake = new FakeSwitch(1, 1);
    fake.send(fake.ports[0], ...frames(1, 60, [255, 255, 255, 255, 255, 254]));
    expect(counted(fake.ports[0])).toEqual([1, 0]);
  });

  it('of several VLANs', () => {
    const fake = new FakeSwitch(1, 1);
    const tagged = (tag: number, dst: readonly number[]): Uint8Array => ethernet(dst, 1, { tags: [tag] });
    fake.send(fake.ports[0], tagged(1, GROUP), tagged(2, BROADCAST), tagged(3, GROUP));
    expect(counted(fake.ports[0])).toEqual([2, 1]);
  });
});
