/**
 * What plugins see of headers, beside a parser that reads each frame by itself: addresses, protocols, ports, where runs of one
 * flow begin and end. Frames of few flows, so that many repeat; some are fragments, cut short, or have options.
 */
import { afterAll, expect, it } from 'vitest';
import type { FrameHeaders, Frames } from '../../../switch/plugin/interface.ts';
import { PluginWatch } from '../../../switch/plugin/plugin-watch.ts';
import { Random, seeds } from '../../vring/random.ts';
import type { Waiting } from '../l2/fake-queues.ts';
import { arena, ethernet, type Flow, ipPacket } from '../l2/frames.ts';
import { PluginWorld } from './plugin-world.ts';

afterAll(() => arena.release());

const BURSTS = 15;
const LOOKED_AT = 128;

type Seen = { ip: number; from: number; to: number; protocol: number; ports: [number, number]; l4: number };
const NONE: Seen = { ip: 0, from: 0, to: 0, protocol: -1, ports: [-1, -1], l4: 0 };

/** RFC 791 and RFC 8200, of one frame without tags. */
function parsed(frame: Uint8Array): Seen {
  const head = Buffer.from(frame.subarray(0, LOOKED_AT));
  const type = head.readUInt16BE(12);
  const withPorts = (seen: Seen, at: number, mayHavePorts: boolean): Seen => {
    if (at >= head.length) return seen;
    const hasPorts = mayHavePorts && [6, 17, 132].includes(seen.protocol) && at + 4 <= head.length;
    return {
      ...seen,
      l4: at,
      ports: hasPorts ? [head.readUInt16BE(at), head.readUInt16BE(at + 2)] : [-1, -1],
    };
  };
  if (type === 0x800 && head.length >= 34 && head[14] >> 4 === 4 && (head[14] & 15) >= 5) {
    const seen = { ...NONE, ip: 4, from: head.readInt32BE(26), to: head.readInt32BE(30), protocol: head[23] };
    const fragment = head.readUInt16BE(20);
    if ((fragment & 0x1fff) !== 0) return seen;
    return withPorts(seen, 14 + 4 * (head[14] & 15), (fragment & 0x3fff) === 0);
  }
  if (type !== 0x86dd || head.length < 54 || head[14] >> 4 !== 6) return NONE;
  const seen = { ...NONE, ip: 6, from: head.readInt32BE(34), to: head.readInt32BE(50) };
  let protocol = head[20];
  let at = 54;
  while ([0, 43, 60].includes(protocol) && at + 8 <= head.length) {
    const sizeBytes = 8 * (head[at + 1] + 1);
    protocol = head[at];
    at += sizeBytes;
  }
  if ([0, 43, 60].includes(protocol)) return seen;
  return withPorts({ ...seen, protocol }, at, true);
}

const seenOf = (frames: Frames, headers: FrameHeaders, i: number): Seen => {
  const six = headers.ipVersions[i] === 6;
  return {
    ip: headers.ipVersions[i],
    from: six ? headers.ipv6Sources[4 * i + 3] : headers.ipv4Sources[i],
    to: six ? headers.ipv6Destinations[4 * i + 3] : headers.ipv4Destinations[i],
    protocol: headers.protocols[i],
    ports: [headers.l4Sources[i], headers.l4Destinations[i]],
    l4: frames.count > 0 ? headers.l4Offsets[i] : -1,
  };
};

function randomFrame(random: Random, isPlain: boolean): Uint8Array {
  const isFour = isPlain || random.chance(70);
  const last = random.between(1, 2);
  const address = isFour ? [10, 0, 0, last] : [0xfd, ...Array(14).fill(0), last];
  const flow: Flow = {
    version: isFour ? 4 : 6,
    src: address,
    dst: isFour ? [10, 0, random.between(1, 2), 1] : address,
    protocol: isPlain ? 17 : random.pick([1, 6, 17, 17, 0]),
    srcPort: 1024,
    dstPort: random.between(53, 54),
  };
  const options = isPlain
    ? { id: random.between(0, 255), ttl: random.between(1, 64) }
    : {
        id: random.between(0, 255),
        fragment: random.pick([0, 0, 0x4000, 0x2000, 0x2001, 1]),
        optionWords: random.pick([0, 0, 0, 2]),
      };
  // Of an extension header: what is next, and its length.
  const packet = ipPacket(flow, { ...options, payload: Array(random.between(0, 8)).fill(0) });
  const src = isPlain || random.chance(80) ? 1 : 3;
  const frame = ethernet(2, src, {
    type: isFour ? 0x800 : 0x86dd,
    payload: packet,
    sizeBytes: isPlain ? 60 : 0,
  });
  return isPlain || random.chance(85) ? frame : frame.slice(0, random.between(14, frame.length));
}

it.each(seeds(30))('are those of the frames (seed %i)', (seed) => {
  const random = new Random(seed);
  const world = new PluginWorld(1, 1);
  let sent: Uint8Array[] = [];
  let repeats = 0;
  world.plug(() => ({
    version: 1,
    reads: 'headers',
    decide(frames) {
      let runEnd = 0;
      for (let i = 0; i < frames.count; i++) {
        const expected = parsed(sent[i]);
        if (frames.repeats[i] === 0) {
          expect(runEnd).toBe(i);
          runEnd = frames.runEnds[i];
          expect(seenOf(frames, frames.firsts, i)).toEqual(expected);
        } else {
          repeats++;
          expect([frames.sources[i], expected]).toEqual([frames.sources[i - 1], parsed(sent[i - 1])]);
        }
      }
      expect(runEnd).toBe(frames.count);
      for (let i = 0; i < frames.count; i++) expect(seenOf(frames, frames, i)).toEqual(parsed(sent[i]));
    },
  }));
  for (let burst = 0; burst < BURSTS; burst++) {
    const isPlain = random.chance(50);
    const frame = randomFrame(random, isPlain);
    sent = Array.from({ length: random.between(1, 64) }, () =>
      random.chance(60) ? frame : randomFrame(random, isPlain),
    );
    const waiting = sent.map(
      (bytes): Waiting =>
        isPlain || random.chance(70)
          ? { bytes }
          : { bytes, pieces: [random.between(1, 20), random.between(1, 20)] },
    );
    world.send(world.ports[0], ...waiting);
    expect(world.pluginFaults).toEqual([]);
  }
  expect(repeats).toBeGreaterThan(20);
});

it('a plugin from which a worker does not come back is noticed at the third look, and no other', () => {
  const watch = new PluginWatch();
  const looks: [plugin: number, calls: number][] = [
    [0, 0],
    [3, 5],
    [3, 5],
    [3, 6],
    [3, 6],
    [0, 6],
    [3, 7],
    [3, 7],
    [3, 7],
  ];
  for (const [plugin, calls] of looks) expect(watch.look(plugin, calls)).toBeNull();
  expect(watch.look(3, 7)).toBe(3);
});
