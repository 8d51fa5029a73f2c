/**
 * Frames of one flow stay in order on each port that gets them, and on one queue of it, whatever else is in their
 * bursts: frames to other ports, floods in between, several queues, copies. Seeded, with queues without guests.
 */
import { afterAll, describe, expect, it } from 'vitest';
import { Random } from '../../vring/random.ts';
import { type FakePort, FakeSwitch } from './fake-switch.ts';
import { arena, ethernet, type Flow, ipPacket, type Mac } from './frames.ts';

const BROADCAST: Mac = [255, 255, 255, 255, 255, 255];
const BURSTS = 60;
const FLOWS = 12;
/** Where the number of a frame stands: behind Ethernet, IPv4 and UDP ports. */
const SRC_PORT_AT = 34;
const NUMBER_AT = 38;

afterAll(() => arena.release());

const be16 = (bytes: Uint8Array, at: number): number => (bytes[at] << 8) | bytes[at + 1];

/** A flow is named by its UDP port and goes to whichever address that says, so it may be known, unknown or a group. */
function frameOf(flow: number, number: number, sizeBytes: number): Uint8Array {
  const packet: Flow = {
    version: 4,
    src: [10, 0, 0, 1],
    dst: [10, 0, 0, 2],
    protocol: 17,
    srcPort: flow,
    dstPort: 9,
  };
  const dst = flow % 4 === 0 ? BROADCAST : 1 + (flow % 7);
  const payload = ipPacket(packet, { payload: [number >> 8, number & 255] });
  return ethernet(dst, 100, { payload, sizeBytes });
}

/** The numbers of each flow's frames on each queue of a port. */
function numbersByFlow({ to }: FakePort): Map<number, number[][]> {
  const found = new Map<number, number[][]>();
  for (const { received } of to) {
    const onQueue = new Map<number, number[]>();
    for (const frame of received) {
      const flow = be16(frame, SRC_PORT_AT);
      onQueue.set(flow, [...(onQueue.get(flow) ?? []), be16(frame, NUMBER_AT)]);
    }
    for (const [flow, numbers] of onQueue) found.set(flow, [...(found.get(flow) ?? []), numbers]);
  }
  return found;
}

describe('the frames of a flow', () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8])('stay in order, on one queue of each port (seed %i)', (seed) => {
    const random = new Random(seed);
    const world = new FakeSwitch(1, 1, 4, 3, 1);
    const { ports } = world;
    if (random.chance(50)) world.addMirror(5, [0, 2]);
    // Of the addresses 1 to 7 some are behind ports of one queue, some behind ports of several, some unknown.
    for (const [id, address] of [1, 2, 3, 4].entries()) world.send(ports[id + 1], ethernet(50, address));
    for (const { to } of ports) for (const queue of to) queue.received.length = 0;
    const sent = new Map<number, number[]>();
    let number = 0;
    for (let burst = 0; burst < BURSTS; burst++) {
      for (const { to } of ports) for (const queue of to) queue.isBusy = random.chance(20);
      const frames = Array.from({ length: random.between(1, 64) }, () => {
        const flow = random.between(0, FLOWS - 1);
        sent.set(flow, [...(sent.get(flow) ?? []), ++number]);
        const bytes = frameOf(flow, number, random.pick([60, 61, 400]));
        return random.chance(20) ? { bytes, pieces: [random.between(1, 50)] } : { bytes };
      });
      world.send(ports[0], ...frames);
    }
    let complete = 0;
    for (const port of ports.slice(1, 5)) {
      for (const [flow, queues] of numbersByFlow(port)) {
        expect(queues, `flow ${flow} on port ${port.state.id}`).toEqual([sent.get(flow)]);
        complete++;
      }
    }
    // Floods reach four ports, flows to a known address one; which addresses the flows have is no chance.
    const reached = [...sent.keys()].map((flow) => (flow % 4 === 0 || flow % 7 >= 4 ? 4 : 1));
    expect(complete).toBe(reached.reduce((sum, count) => sum + count, 0));
  });
});
