/**
 * Two plugins that say anything about any frame, beside a switch that does the same frame by frame (the naive twin below). Each
 * port has to get the same frames; the books are checked after every burst.
 */
import { afterAll, describe, expect, it } from 'vitest';
import type { Frames, PluginFactory } from '../../../switch/plugin/interface.ts';
import { Random } from '../../vring/random.ts';
import type { Waiting } from '../l2/fake-queues.ts';
import { arena, ethernet, type Mac } from '../l2/frames.ts';
import { PluginWorld } from './plugin-world.ts';

const SEEDS = 40 * Number(process.env.RINGWAY_SEARCH ?? 1);
const BURSTS = 25;
const PORTS = 4;
/** A port that no frame comes from, and one that is not there. */
const GONE = 9;
const ALL: Mac = [255, 255, 255, 255, 255, 255];
const TYPE = 0x88b5;

afterAll(() => arena.release());

/** What one plugin says about one frame. */
type Saying = {
  readonly drop: boolean;
  readonly redirect: number | null;
  readonly vlan: number | null;
  readonly mirror: number | null;
};

type Frame = {
  readonly dst: number | null;
  readonly src: number;
  readonly tag: number;
  readonly serial: number;
  readonly sizeBytes: number;
  readonly sayings: readonly [Saying, Saying];
};

const bytesOf = ({ dst, src, serial, sizeBytes }: Frame, tag: number): Uint8Array =>
  ethernet(dst ?? ALL, src, {
    tags: tag === 0 ? [] : [tag],
    type: TYPE,
    payload: [serial >> 8, serial & 255],
    sizeBytes: sizeBytes + (tag === 0 ? 0 : 4),
  });

/** Frame by frame, as docs/plugins.md says it. */
class NaiveTwin {
  readonly #learned = new Map<string, number>();
  readonly received: string[][] = Array.from({ length: PORTS }, () => []);

  burst(sender: number, frames: readonly Frame[]): void {
    const left = frames.flatMap((frame) => this.#decide(sender, frame));
    for (const { frame, tag } of left) this.#learned.set(`${frame.src} ${tag & 0xfff}`, sender);
    for (const { frame, tag, to } of left) {
      const target = to ?? this.#learned.get(`${frame.dst} ${tag & 0xfff}`);
      for (let port = 0; port < PORTS; port++) {
        const isFor = target === undefined ? port !== sender : port === target && port !== sender;
        if (isFor) this.received[port].push(hexOf(bytesOf(frame, tag)));
      }
    }
  }

  #decide(sender: number, frame: Frame): { frame: Frame; tag: number; to: number | null }[] {
    let { tag } = frame;
    let to: number | null = null;
    for (const { drop, redirect, vlan, mirror } of frame.sayings) {
      if (mirror !== null && mirror !== GONE && mirror !== sender)
        this.received[mirror].push(hexOf(bytesOf(frame, tag)));
      if (vlan !== null) tag = vlan === 0 ? 0 : (tag & 0xe000) | vlan;
      if (drop || redirect === GONE) return [];
      to = redirect ?? to;
    }
    return [{ frame, tag, to }];
  }
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

function sayingOf(random: Random, isWild: boolean): Saying {
  const chance = isWild ? 3 : 12;
  const port = (): number => (random.between(0, 8 - 1) === 0 ? GONE : random.between(0, PORTS - 1));
  return {
    drop: random.between(0, chance + 1) === 0,
    redirect: random.between(0, chance - 1) === 0 ? port() : null,
    vlan: random.between(0, chance - 1) === 0 ? random.between(0, 4 - 1) : null,
    mirror: isWild && random.between(0, 4 - 1) === 0 ? port() : null,
  };
}

describe('plugins', () => {
  it.each(Array.from({ length: SEEDS }, (_, seed) => seed))(
    'seed %i: decide as one frame by frame',
    (seed) => {
      const random = new Random(seed);
      const world = new PluginWorld(...Array.from({ length: PORTS }, () => 1));
      const twin = new NaiveTwin();
      const isWild = seed % 2 === 1;
      const bySerial = new Map<number, Frame>();
      const factoryOf =
        (which: 0 | 1): PluginFactory =>
        (_settings, context) => {
          const no = context.dropReason('no', '');
          const ports = [...Array(PORTS).keys(), GONE].map((id) => [id, context.port(`vm${id}`)] as const);
          const portOf = new Map(ports);
          const say = (frames: Frames, i: number, { drop, redirect, vlan, mirror }: Saying): void => {
            const named = (id: number) => portOf.get(id) ?? context.port('nowhere');
            if (mirror !== null) frames.mirror(i, named(mirror));
            if (vlan === 0) frames.removeVlan(i);
            else if (vlan !== null) frames.setVlan(i, vlan);
            if (redirect !== null) frames.redirect(i, named(redirect));
            if (drop) frames.drop(i, no);
          };
          return {
            version: 1,
            reads: which === 0 ? 'headers' : 'ethernet',
            decide(frames) {
              for (let i = 0; i < frames.count; i++) {
                const serial = which === 0 ? frames.u16(i, 14) : frames.marks[i];
                if (which === 0) frames.mark(i, serial);
                const frame = bySerial.get(serial);
                if (frame === undefined) throw new Error(`no frame ${serial}`);
                expect(frames.vlans[i]).toBeLessThan(5);
                expect(frames.sources[i]).toBe(0x020000000000 + frame.src);
                expect(frames.sizes[i]).toBe(frame.sizeBytes);
                say(frames, i, frame.sayings[which]);
              }
            },
          };
        };
      world.plug(factoryOf(0));
      world.plug(factoryOf(1));
      let serial = 1;
      for (let burst = 0; burst < BURSTS; burst++) {
        const sender = random.between(0, PORTS - 1);
        const isAlike = random.between(0, 3 - 1) === 0;
        const dst = random.between(0, 6 - 1) + 1;
        const frames = Array.from({ length: 1 + random.between(0, 64 - 1) }, (): Frame => {
          const other = random.between(0, 7 - 1);
          return {
            dst: isAlike ? dst : other === 0 ? null : other,
            src: sender + 1,
            tag:
              isAlike || random.between(0, 2 - 1) === 0
                ? 0
                : random.between(0, 4 - 1) | (random.between(0, 2 - 1) * 0x6000),
            serial: serial++,
            sizeBytes: 60 + random.between(0, isAlike ? 0 : 199),
            sayings: [sayingOf(random, isWild), sayingOf(random, isWild)],
          };
        });
        for (const frame of frames) bySerial.set(frame.serial, frame);
        const waiting = frames.map((frame): Waiting => {
          // Of a tag of VLAN 0 without priority nothing is left, so no frame here has one.
          const bytes = bytesOf(frame, frame.tag);
          if (isAlike || random.between(0, 3 - 1) > 0) return { bytes };
          return random.between(0, 2 - 1) === 0
            ? { bytes, misalignment: random.between(0, 4 - 1) }
            : { bytes, pieces: [1 + random.between(0, 30 - 1), 1 + random.between(0, 30 - 1)] };
        });
        world.send(world.ports[sender], ...waiting);
        twin.burst(sender, frames);
        expect(world.pluginFaults).toEqual([]);
      }
      for (const [id, port] of world.ports.entries()) {
        const got = port.received.map(hexOf);
        // Copies come before the frames that they are of.
        if (isWild) expect(got.sort()).toEqual(twin.received[id].sort());
        else expect(got).toEqual(twin.received[id]);
      }
    },
  );
});
