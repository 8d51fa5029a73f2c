/**
 * What two hostile guests can make a worker look at, for one frame and in the mean of many turns, whatever their rings
 * are like: descriptors and translations are counted, which no slow machine changes. And two guests beside them, whose
 * every frame arrives as it was sent. The rings are made up by seeds (bench/hostile/search.ts). What they cost in time:
 * `node bench/hostile/main.ts`.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { describePlan, type HostilePair, makePair } from '../../bench/hostile/search.ts';
import { HostileWorld } from '../../bench/hostile/world.ts';
import { GpaTranslator } from '../../src/memory/gpa-translator.ts';
import { CHAIN_DESCRIPTORS_MAX, DescriptorList } from '../../src/vring/descriptor-list.ts';
import { ForwardingPort } from '../../switch/l2/forwarding-port.ts';
import { PORT_COUNTS } from '../../switch/l2/port-counts.ts';
import { seeds } from './random.ts';
import { DriverEnd, plainPlan, RingwayEnd } from './ring-worlds.ts';
import { sharedArena, sharedArenaView } from './scratch.ts';

const SEEDS_PER_TEST = 25;
const GROUPS = seeds(4).map((group) => group * SEEDS_PER_TEST);
const TURNS = 24;

/** A sender's chain, a receiver's, and what of one more was walked before it turned out to be too many. */
const LOOKED_PER_FRAME_MAX = 3 * (CHAIN_DESCRIPTORS_MAX + 1);
/** Each of them once, and buffers that are cut once more for each piece. */
const LOCATED_PER_FRAME_MAX = 2 * LOOKED_PER_FRAME_MAX;
/** In the mean: 64 and four a chain of the sender; 20 a frame to the receiver, and one for 512 bytes of 9,014. */
const LOOKED_PER_TURN_MAX = 64 + 64 * 4 + 64 * (20 + 18);
/** What both may cost once besides. */
const LOOKED_RESERVE = 512 + 1024 + 2 * CHAIN_DESCRIPTORS_MAX;

const counts = { looked: 0, located: 0 };
const undo: (() => void)[] = [];

function countCalls<Name extends string>(
  prototype: Record<Name, (...args: never[]) => unknown>,
  name: Name,
  key: keyof typeof counts,
): void {
  const method = prototype[name];
  prototype[name] = function (this: unknown, ...args: never[]): unknown {
    counts[key]++;
    return method.apply(this, args);
  };
  undo.push(() => {
    prototype[name] = method;
  });
}

/** Two guests that send each other frames with a number in each, and look at what arrives. */
class Bystanders {
  readonly ends: readonly { readonly driver: DriverEnd; readonly device: RingwayEnd }[];
  readonly ports: readonly ForwardingPort[];
  #sent = 0;
  readonly #seen = [0, 0];

  constructor() {
    this.ends = [2, 3].map((portId) => {
      const plan = { ...plainPlan('split'), portId, size: 512, memory: 2 ** 22 };
      const driver = new DriverEnd(plan);
      return { driver, device: new RingwayEnd(driver, plan) };
    });
    this.ports = this.ends.map(({ device }, i) => {
      const port = new ForwardingPort(2 + i, new Float64Array(PORT_COUNTS));
      port.setQueues([device.to]);
      return port;
    });
  }

  send(): void {
    for (const { driver } of this.ends) driver.toGuest.fill();
    for (const [i, { driver }] of this.ends.entries()) {
      expect(driver.fromGuest.send(frameOf(i, this.#sent))).toBe(true);
    }
    this.#sent++;
  }

  /** All that the other one sent so far, in order and whole, and besides only what was sent to everybody. */
  check(): void {
    for (const [i, { driver }] of this.ends.entries()) {
      for (let frame = driver.toGuest.receive(); frame !== null; frame = driver.toGuest.receive()) {
        if (frame[0] === 0xff) continue;
        expect(frame).toEqual(frameOf(1 - i, this.#seen[i]));
        this.#seen[i]++;
      }
    }
    expect(this.#seen).toEqual([this.#sent, this.#sent]);
  }

  close(): void {
    for (const { driver, device } of this.ends) {
      device.close();
      driver.memory.close();
    }
  }
}

/** From one of the two to the other. */
function frameOf(from: number, number: number): Uint8Array {
  const frame = new Uint8Array(200).fill(number & 0xff, 14);
  frame.set([2, 0, 0, 0, 0, 1 - from, 2, 0, 0, 0, 0, from]);
  new DataView(frame.buffer).setUint32(20, number);
  return frame;
}

let world: HostileWorld;
let bystanders: Bystanders;

beforeAll(() => {
  world = new HostileWorld(sharedArena, sharedArenaView);
  bystanders = new Bystanders();
  for (const [i, { device }] of bystanders.ends.entries()) world.join(bystanders.ports[i], device.from);
  countCalls(DescriptorList.prototype as never, 'add', 'looked');
  countCalls(GpaTranslator.prototype as never, 'locate', 'located');
  countCalls(GpaTranslator.prototype as never, 'locateSome', 'located');
});
afterAll(() => {
  for (const restore of undo) restore();
  bystanders.close();
  world.close();
});
beforeEach(() => {
  counts.looked = 0;
  counts.located = 0;
});

const nameOf = ({ from, to }: HostilePair): string => `from: ${describePlan(from)}; to: ${describePlan(to)}`;

describe.each(GROUPS)('hostile rings from seed %i on', (first) => {
  it('cost no more for a frame than a chain may have', () => {
    for (let seed = first; seed < first + SEEDS_PER_TEST; seed++) {
      const pair = makePair(seed);
      world.adopt(pair.from, pair.to);
      world.begin(1);
      counts.looked = 0;
      counts.located = 0;
      world.turn();
      expect(counts.looked, `seed ${seed}, ${nameOf(pair)}`).toBeLessThanOrEqual(LOOKED_PER_FRAME_MAX);
      expect(counts.located, `seed ${seed}, ${nameOf(pair)}`).toBeLessThanOrEqual(LOCATED_PER_FRAME_MAX);
    }
  });

  it('cost no more in the mean of many turns than drivers need, and bystanders lose nothing', () => {
    for (let seed = first; seed < first + SEEDS_PER_TEST; seed++) {
      const pair = makePair(seed);
      world.adopt(pair.from, pair.to);
      world.begin(Number.POSITIVE_INFINITY);
      counts.looked = 0;
      for (let turn = 0; turn < TURNS; turn++) {
        bystanders.send();
        world.turn();
        bystanders.check();
      }
      expect(counts.looked, `seed ${seed}, ${nameOf(pair)}`).toBeLessThanOrEqual(
        LOOKED_RESERVE + TURNS * LOOKED_PER_TURN_MAX,
      );
    }
  });
});
