/**
 * Ports whose policy takes something from them: `receives: false`, what they send is dropped by that name before
 * anything is done with it; `floods: false`, nothing is flooded to them. Fake queues; any traffic is in forwarder-fuzz.
 */
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import type { FakePort } from './fake-switch.ts';
import { FakeSwitch } from './fake-switch.ts';
import { arena, ethernet, type Mac } from './frames.ts';

const ALL: Mac = [255, 255, 255, 255, 255, 255];
/** Nobody's address. */
const NOBODY = 9;

let world: FakeSwitch;
let ports: FakePort[];

/** Port `n` has the address `n + 1`; the last port gets copies of the first one's frames. */
beforeEach(() => {
  world = new FakeSwitch(1, 1, 1);
  for (const port of world.ports.slice(1)) world.send(port, ethernet(NOBODY, port.state.id + 1));
  world.addMirror(3, [0]);
  ports = world.ports;
  for (const { to } of ports) for (const queue of to) queue.received.length = 0;
});
afterAll(() => arena.release());

const received = (): number[] => ports.map((port) => port.received.length);

describe('what a port with receives: false sends', () => {
  beforeEach(() => world.follow(ports[0], { receives: false }));

  it.each([
    ['to an address behind another port', [ethernet(2, 1), ethernet(2, 1)]],
    ['to addresses behind several ports', [ethernet(2, 1), ethernet(3, 1), ethernet(2, 1)]],
    ['to nobody known, and to all', [ethernet(NOBODY, 1), ethernet(ALL, 1)]],
    ['to itself', [ethernet(1, 1)]],
  ])('%s is dropped by that name; nobody gets it, a mirror neither', (_, frames) => {
    expect(world.send(ports[0], ...frames)).toBe(frames.length);
    expect(received()).toEqual([0, 0, 0, 0]);
    expect(ports.map(({ drops }) => drops)).toEqual([{ receiveOff: frames.length }, {}, {}, {}]);
    expect(ports[0].from.waiting).toEqual([]);
  });

  it('is dropped by no other name, although it could not have been forwarded', () => {
    world.send(ports[0], ethernet(2, 1), { untaken: 'tooShort' }, { untaken: 'tooLong' });
    world.send(ports[0], { untaken: 'tooScattered' });
    expect(ports[0].drops).toEqual({ receiveOff: 4 });
  });

  it('is not learned, also where the address is known elsewhere', () => {
    world.send(ports[0], ethernet(ALL, 1), ethernet(ALL, 3));
    expect(
      world.fdb
        .entries()
        .map(({ port }) => port)
        .sort(),
    ).toEqual([1, 2]);
  });

  it('is forwarded as soon as the port may send again', () => {
    world.send(ports[0], ethernet(2, 1));
    world.follow(ports[0], {});
    world.send(ports[0], ethernet(2, 1));
    expect(received()).toEqual([0, 1, 0, 1]);
    expect(ports[0].drops).toEqual({ receiveOff: 1 });
  });

  it('does not keep it from being sent to', () => {
    world.send(ports[1], ethernet(ALL, 2), ethernet(1, 2));
    expect(received()).toEqual([2, 0, 2, 2]);
  });
});

describe('a port with floods: false', () => {
  beforeEach(() => world.follow(ports[2], { floods: false }));

  it('gets what is for an address behind it, in whatever burst, and nothing that is flooded', () => {
    const frames = [ethernet(3, 1), ethernet(ALL, 1), ethernet(3, 1), ethernet(NOBODY, 1)];
    world.send(ports[0], ...frames);
    expect(ports[2].received).toEqual([frames[0], frames[2]]);
    expect(ports[1].received).toEqual([frames[1], frames[3]]);
  });

  it('leaves a broadcast without a receiver where all others are like it', () => {
    world.follow(ports[1], { floods: false });
    world.send(ports[0], ethernet(ALL, 1), ethernet(ALL, 1));
    expect(received()).toEqual([0, 0, 0, 2]);
    expect(ports[0].drops).toEqual({ noReceiver: 2 });
  });
});
