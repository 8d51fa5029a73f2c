/**
 * Long frames that wait for guests, at random: several receivers and VLANs, tags that are pushed, lengths about the bounds,
 * guests that offer a few buffers at a time, queues that are closed and opened again, the clock. What a receiver gets is what
 * was sent, in order and once, and the books balance.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { netHeaderOf, netHeaderWords } from '../../../protocol/virtio/net.ts';
import { allocateScratch } from '../../../src/memory/scratch.ts';
import type { EgressQueue } from '../../../src/queue/contract.ts';
import { DEFAULT_POLICY, DEFAULT_VLAN } from '../../../src/queue/policy.ts';
import { COUNT_FRAMES } from '../../../src/queue/state.ts';
import { DROP, DROP_REASONS } from '../../../switch/l2/drop-reasons.ts';
import { createFdbMemory, Fdb } from '../../../switch/l2/fdb/fdb.ts';
import { FORWARDER_SCRATCH_BYTES, Forwarder } from '../../../switch/l2/forwarder.ts';
import { ForwardingPort } from '../../../switch/l2/forwarding-port.ts';
import { COUNT_COPIES, COUNT_FORWARDED, COUNT_OFFERED, PORT_COUNTS } from '../../../switch/l2/port-counts.ts';
import { ALL_OFFLOADS } from '../../offload/offload-world.ts';
import { ASKS_NOTHING, type Request, segmentRequest } from '../../offload/random-requests.ts';
import { Random, seeds } from '../../vring/random.ts';
import { DriverEnd, LAYOUT_KINDS, plainPlan, type RingPlan, RingwayEnd } from '../../vring/ring-worlds.ts';
import { sharedArena, sharedArenaView } from '../../vring/scratch.ts';

const hex = (b: Uint8Array) => Buffer.from(b).toString('hex');
let closeAll: () => void = () => {};
afterEach(() => closeAll());

describe.for(LAYOUT_KINDS)('frames that wait (%s)', (layout) => {
  it.each(seeds(2))('are what was sent, once and in order, or counted (seed %i)', (seed) => {
    const random = new Random(seed);
    const receivers = random.between(1, 10);
    const vlans = random.pick(['none', 'access', 'tunnel'] as const);
    const scratch = allocateScratch(sharedArena, { name: 'forwarder', sizeBytes: FORWARDER_SCRATCH_BYTES });
    const fdb = new Fdb(createFdbMemory({ capacity: 4096, maxPorts: 16, seed: [1, 2] }));
    const forwarder = new Forwarder(
      sharedArenaView,
      fdb,
      () => {
        throw new Error('stopped');
      },
      scratch.offset,
      2,
    );
    const shared = random.chance(30);
    const plans: RingPlan[] = Array.from({ length: receivers + 1 }, (_, portId) =>
      portId === 0
        ? {
            ...plainPlan(layout),
            portId,
            size: 64,
            asks: ALL_OFFLOADS,
            mergeable: true,
            bufferBytes: 2 ** 16 + 64,
            memory: 2 ** 24,
          }
        : {
            ...plainPlan(layout),
            portId,
            asks: ALL_OFFLOADS,
            mergeable: true,
            size: random.pick([64, 128, 256]),
            bufferBytes: random.pick([1536, 2048, 4096]),
            inOrder: random.chance(30),
            memory: 2 ** 23,
          },
    );
    const guests = plans.map((plan) => {
      const driver = new DriverEnd(plan);
      return { driver, device: new RingwayEnd(driver, plan) };
    });
    const queues: EgressQueue[] = guests.map(({ device }) => (shared ? device.openTo(true) : device.to));
    closeAll = () => {
      for (const { driver, device } of guests) {
        device.close();
        driver.memory.close();
      }
      scratch.release();
    };
    const ports = guests.map((_, id) => {
      const port = new ForwardingPort(id, new Float64Array(PORT_COUNTS));
      port.follow({
        ...DEFAULT_POLICY,
        takes: ALL_OFFLOADS,
        vlan:
          id !== 0 || vlans === 'none'
            ? DEFAULT_VLAN
            : vlans === 'access'
              ? { ...DEFAULT_VLAN, mode: 'access', tag: 7 }
              : { ...DEFAULT_VLAN, mode: 'dot1q-tunnel', tag: 100 },
      });
      port.setQueues([queues[id]!]);
      forwarder.addPort(port);
      return port;
    });
    const vid = { none: 0, access: 7, tunnel: 100 }[vlans];
    for (let id = 1; id <= receivers; id++) fdb.learn(2, id << 8, vid, id, 0);
    for (const { driver } of guests.slice(1)) {
      driver.toGuest.refills = false;
      driver.toGuest.fill();
    }
    const sender = guests[0]!;
    const sent = Array.from({ length: receivers + 1 }, () => new Map<number, string>());
    const got = Array.from({ length: receivers + 1 }, () => [] as number[]);
    let number = 0;
    const send = (to: number, one: Request): void => {
      if (sender.driver.fromGuest.reclaim() === 0) return;
      const frame = one.frame.slice();
      const flood = to === 0;
      frame.set(flood ? [255, 255, 255, 255, 255, 255, 2, 1] : [2, 0, 0, 0, 0, to, 2, 1]);
      new DataView(frame.buffer).setUint32(8, ++number);
      const bytes = new Uint8Array(Int32Array.from(netHeaderWords(one.header, 0)).buffer);
      if (!sender.driver.fromGuest.send(frame, { header: bytes })) {
        number--;
        return;
      }
      const tag = vlans === 'none' ? [] : vlans === 'access' ? [0x81, 0, 0, 7] : [0x88, 0xa8, 0, 100];
      const out = Uint8Array.from([...frame.subarray(0, 12), ...tag, ...frame.subarray(12)]);
      const h = one.header;
      const key = `${hex(out)} ${h.flags} ${h.gsoType} ${h.gsoSize} ${h.csumStart === 0 ? 0 : h.csumStart + tag.length} ${h.csumOffset}`;
      for (let id = 1; id <= receivers; id++) if (flood || id === to) sent[id]!.set(number, key);
    };
    const receive = (id: number): boolean => {
      const { toGuest } = guests[id]!.driver;
      const frame = toGuest.receive();
      if (frame === null) return false;
      const h = netHeaderOf(...([...new Int32Array(toGuest.header.buffer)] as [number, number, number]));
      const n = new DataView(frame.buffer, frame.byteOffset).getUint32(8);
      const key = `${hex(frame)} ${h.flags} ${h.gsoType} ${h.gsoSize} ${h.csumStart} ${h.csumOffset}`;
      if (sent[id]!.get(n) !== key)
        expect(key.slice(0, 300), `frame ${n} to ${id}`).toBe(sent[id]!.get(n)?.slice(0, 300));
      got[id]!.push(n);
      return true;
    };
    const offer = (id: number, count: number): void => {
      const { ring } = guests[id]!.driver.toGuest;
      for (; count > 0 && ring.freeCount > 0; count--) ring.offer(ring.takeId(), ring.bufferBytes, 2);
      ring.publish();
    };
    const frameOf = (n: number): Request => {
      const frame = new Uint8Array(n).fill(random.between(0, 255));
      frame.set([0x88, 0xb5], 12);
      if (vlans === 'tunnel' && n > 64 && random.chance(50)) frame.set([0x81, 0, 0, 5, 0x88, 0xb5], 12);
      return { frame, header: ASKS_NOTHING };
    };
    let tick = 0;
    for (let step = 0; step < 400; step++) {
      const to = random.chance(10) ? 0 : random.between(1, receivers);
      for (let left = random.pick([0, 1, 3, 20]); left > 0; left--) {
        let one = random.chance(30)
          ? segmentRequest(random, 40)
          : frameOf(
              random.pick([
                14, 15, 18, 60, 1500, 3000, 4091, 4092, 4093, 4096, 4097, 9000, 65_535, 65_549, 65_550,
              ]),
            );
        if (one.header.flags !== 0 && (one.frame[12] === 0x81 || one.frame[12] === 0x88)) one = frameOf(9000);
        send(random.chance(80) ? to : random.between(1, receivers), one);
      }
      for (let turns = random.pick([1, 1, 5, 70]); turns > 0; turns--)
        forwarder.forwardTurn([sender.device.from]);
      for (let id = 1; id <= receivers; id++) {
        for (let left = random.pick([0, 0, 0, 2, 30]); left > 0; left--) receive(id);
        if (random.chance(40)) offer(id, random.pick([1, 2, 10, 1000]));
      }
      if (random.chance(5)) forwarder.nowTick = ++tick;
      if (random.chance(2)) {
        const id = random.between(1, receivers);
        forwarder.forget(queues[id]!);
        queues[id] = guests[id]!.device.openTo(shared);
        ports[id]!.setQueues([queues[id]!]);
      }
    }
    for (let idle = 0; idle < 150 || forwarder.hasBacklogs; idle++) {
      expect(idle).toBeLessThan(20_000);
      for (let id = 1; id <= receivers; id++) {
        while (receive(id));
        offer(id, 1000);
      }
      forwarder.forwardTurn([sender.device.from]);
    }
    let out = 0,
      refused = 0;
    for (let id = 1; id <= receivers; id++) {
      const { counts } = ports[id]!;
      const list = got[id]!;
      expect(list, 'in order, once').toEqual([...new Set(list)].sort((a, b) => a - b));
      const dropped = DROP_REASONS.reduce((sum, r, at) => sum + (r.side === 'receiver' ? counts[at]! : 0), 0);
      if (counts[COUNT_OFFERED] !== list.length + dropped)
        console.log(
          'DBG',
          seed,
          id,
          'shared',
          shared,
          vlans,
          receivers,
          'offered',
          counts[COUNT_OFFERED],
          'got',
          list.length,
          'dropped',
          dropped,
          'state',
          guests[id]!.device.to.state.counts[COUNT_FRAMES],
          Object.fromEntries(
            DROP_REASONS.map((r, at) => [r.name, counts[at]] as const).filter(([, n]) => n !== 0),
          ),
          plans[id],
        );
      expect(counts[COUNT_OFFERED]).toBe(list.length + dropped);
      expect(guests[id]!.device.to.state.counts[COUNT_FRAMES]).toBe(list.length);
      expect(dropped).toBe(counts[DROP.noBuffer]! + counts[DROP.bufferTooSmall]! + counts[DROP.overMtu]!);
      out += list.length;
      refused += dropped;
    }
    const c = ports[0]!.counts;
    const sdrops = DROP_REASONS.reduce((sum, r, at) => sum + (r.side === 'sender' ? c[at]! : 0), 0);
    expect(number + c[COUNT_COPIES]!).toBe(c[COUNT_FORWARDED]! + sdrops);
    expect(c[COUNT_FORWARDED]).toBe(out + refused);
  });
});
