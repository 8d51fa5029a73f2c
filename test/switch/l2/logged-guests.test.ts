/**
 * Guests that are migrated while they exchange frames through the forwarder: floods, VLAN tags, segments, bursts that are
 * held and drained, rings that stop in the middle of a burst. Whatever page of a guest changes must be in its log
 * (test/memory/changed-pages.ts), after every turn.
 */
import { expect, it } from 'vitest';
import { netHeaderWords } from '../../../protocol/virtio/net.ts';
import { allocateScratch } from '../../../src/memory/scratch.ts';
import { DEFAULT_POLICY, DEFAULT_VLAN } from '../../../src/queue/policy.ts';
import { RING_FAULT } from '../../../src/vring/faults.ts';
import { createFdbMemory, Fdb } from '../../../switch/l2/fdb/fdb.ts';
import { FORWARDER_SCRATCH_BYTES, Forwarder } from '../../../switch/l2/forwarder.ts';
import { ForwardingPort } from '../../../switch/l2/forwarding-port.ts';
import { PORT_COUNTS } from '../../../switch/l2/port-counts.ts';
import { ALL_OFFLOADS } from '../../offload/offload-world.ts';
import {
  ASKS_NOTHING,
  checksumRequest,
  type Request,
  segmentRequest,
} from '../../offload/random-requests.ts';
import { LoggedGuest } from '../../vring/logged-guest.ts';
import { Random, seeds } from '../../vring/random.ts';
import { DriverEnd, LAYOUT_KINDS, plainPlan, type RingPlan, RingwayEnd } from '../../vring/ring-worlds.ts';
import { sharedArena, sharedArenaView } from '../../vring/scratch.ts';
import { randomTagged, randomVlan } from './random-vlans.ts';

const GUESTS = 4;
const TURNS = 50;
const SEGMENTS_MAX = 60;

type Guest = {
  readonly driver: DriverEnd;
  readonly device: RingwayEnd;
  readonly logged: LoggedGuest;
  readonly port: ForwardingPort;
};

class World {
  readonly random: Random;
  readonly guests: readonly Guest[];
  readonly forwarder: Forwarder;
  faults = 0;
  held = 0;
  readonly #scratch = allocateScratch(sharedArena, { name: 'forwarder', sizeBytes: FORWARDER_SCRATCH_BYTES });

  constructor(seed: number) {
    const random = new Random(seed);
    this.random = random;
    const fdb = new Fdb(createFdbMemory({ capacity: 256, maxPorts: 16, seed: [1, 2] }));
    const onFault = (): void => {
      this.faults++;
    };
    this.forwarder = new Forwarder(sharedArenaView, fdb, onFault, this.#scratch.offset, random.pick([1, 2]));
    this.guests = Array.from({ length: GUESTS }, (_, id) => this.#guest(id));
  }

  #guest(portId: number): Guest {
    const { random } = this;
    const mergeable = random.chance(50);
    const size = random.pick([16, 32]);
    const plan: RingPlan = {
      ...plainPlan(random.pick(LAYOUT_KINDS)),
      portId,
      size,
      eventIdx: random.chance(50),
      mergeable,
      // A guest that does not merge has room for whole frames, as those of all others.
      bufferBytes: 2 ** 16 + 64,
      memory: 2 * size * 70_000 + 2 ** 17,
      asks: ALL_OFFLOADS,
      receiveShape: () =>
        random.chance(50)
          ? { pieces: [2048] }
          : { pieces: [100, random.between(1, 900), 4096], indirect: true },
    };
    const driver = new DriverEnd(plan);
    const device = new RingwayEnd(driver, plan);
    const logged = new LoggedGuest(sharedArena, sharedArenaView.u8, driver.memory, random.pick([0, 5]));
    device.logIn(logged.log.memory);
    const port = new ForwardingPort(portId, new Float64Array(PORT_COUNTS));
    const vlan = random.chance(40) ? randomVlan(random) : DEFAULT_VLAN;
    port.follow({ ...DEFAULT_POLICY, takes: random.pick([0, 0, ALL_OFFLOADS]), vlan });
    port.setQueues([device.to]);
    this.forwarder.addPort(port);
    return { driver, device, logged, port };
  }

  /** Drivers receive, offer and send; the device does something; answers the pages that changed and are not marked. */
  turn(): number[] {
    const { random, guests, forwarder } = this;
    for (const [id, { driver, device }] of guests.entries()) {
      if (device.to.fault === RING_FAULT.NONE) while (random.chance(95) && driver.toGuest.receive() !== null);
      driver.toGuest.fill();
      for (let left = random.pick([0, 1, 8]); left > 0; left--) this.#send(driver, id);
      driver.fromGuest.flush();
    }
    if (random.chance(3)) this.#spoil(random.pick(guests).driver);
    for (const { logged } of guests) logged.begin();
    const { device, logged } = random.pick(guests);
    const act = random.between(0, 9);
    if (act === 0) forwarder.drain(device.from);
    else if (act === 1) logged.swap(random.pick([0, 3]), (log) => device.logIn(log));
    else if (act === 2) random.chance(50) ? device.from.armWake() : device.from.disarmWake();
    else if (act === 3) forwarder.announce(device.to.portId, [2, 0, 0, 0, 1, device.to.portId]);
    forwarder.forwardTurn(guests.map((guest) => guest.device.from));
    if (guests.some((guest) => guest.device.from.holdsFrames)) this.held++;
    return guests.flatMap((guest) => guest.logged.unmarked());
  }

  #send(driver: DriverEnd, id: number): void {
    const { random } = this;
    const request = this.#request();
    const { frame } = request;
    frame.set(
      random.chance(30) ? [255, 255, 255, 255, 255, 255] : [2, 0, 0, 0, 0, random.between(0, GUESTS)],
    );
    frame.set([2, 0, 0, 0, 0, id], 6);
    const header = new Uint8Array(new Uint32Array(netHeaderWords(request.header, 0)).buffer);
    driver.fromGuest.post(frame, { header, indirect: random.chance(20) });
  }

  #request(): Request {
    const { random } = this;
    if (random.chance(35)) return segmentRequest(random, SEGMENTS_MAX);
    if (random.chance(20)) return checksumRequest(random);
    const tags = random.chance(40) ? randomTagged(random, 5) : [];
    const body = random.bytes(random.pick([60, 60, 300, 1500]));
    return {
      frame: Uint8Array.from([...body.subarray(0, 12), ...tags, ...body.subarray(12)]),
      header: ASKS_NOTHING,
    };
  }

  /** A buffer to receive with lies nowhere: the ring stops when it comes to it. */
  #spoil({ memory, toGuest: { ring } }: DriverEnd): void {
    const slot = this.random.between(0, ring.size - 1);
    memory.i32[ring.layout.descOffset / 4 + 4 * slot + 1] = 0x7fff_ffff;
  }

  close(): void {
    for (const { driver, device, logged } of this.guests) {
      device.close();
      logged.close();
      driver.memory.close();
    }
    this.#scratch.release();
  }
}

const seen = { faults: 0, held: 0, changed: 0 };

it.each(seeds(12))('all that changes in any of them is marked, seed %i', (seed) => {
  const world = new World(seed);
  for (let turn = 0; turn < TURNS; turn++) expect(world.turn(), `turn ${turn}`).toEqual([]);
  seen.faults += world.faults;
  seen.held += world.held;
  seen.changed += world.guests.reduce((sum, { logged }) => sum + logged.changedCount, 0);
  world.close();
});

it('and there was much of everything', () => {
  expect(seen.faults).toBeGreaterThan(5);
  expect(seen.held).toBeGreaterThan(20);
  expect(seen.changed).toBeGreaterThan(5000);
});
