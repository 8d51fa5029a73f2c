/**
 * Ports whose policy takes something from them: `receives: false`, what they send is dropped by that name before
 * anything is done with it; `floods: false`, nothing is flooded to them; `forwardsLinkLocal`, which alone lets frames to the
 * addresses that bridges keep to their link pass. Fake queues; any traffic is in forwarder-fuzz.
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

describe('frames to 01:80:C2:00:00:00 to 0F', () => {
  const linkLocal = (last: number): Mac => [1, 0x80, 0xc2, 0, 0, last];
  const PAUSE = ethernet(linkLocal(1), 1, { type: 0x8808 });
  const drops = () => ports.map((port) => port.drops);

  it.each(Array.from({ length: 16 }, (_, last) => last))(
    '%i goes to nobody but a mirror, by name',
    (last) => {
      world.send(ports[0], ethernet(linkLocal(last), 1));
      expect(received()).toEqual([0, 0, 0, 1]);
      expect(drops()).toEqual([{ linkLocal: 1 }, {}, {}, {}]);
    },
  );

  it.each<[string, Mac]>([
    ['10', linkLocal(0x10)],
    ['ff', linkLocal(0xff)],
    ['the next 256 of them', [1, 0x80, 0xc2, 0, 1, 0]],
    ['another group', [1, 0x80, 0xc2, 1, 0, 0]],
    ['the broadcast address', ALL],
  ])('but not those to %s', (_, dst) => {
    world.send(ports[0], ethernet(dst, 1));
    expect(received()).toEqual([0, 1, 1, 1]);
  });

  it.each([
    ['alone', [], 0],
    ['many alike', [PAUSE, PAUSE, PAUSE], 0],
    ['between frames to one address', [ethernet(2, 1), ethernet(2, 1)], 2],
    ['between frames to several addresses and to all', [ethernet(2, 1), ethernet(3, 1), ethernet(ALL, 1)], 2],
  ])('%s in a burst: all other frames go their way', (_, others, toFirst) => {
    world.send(ports[0], PAUSE, ...others, PAUSE);
    const pauses = 2 + others.filter((frame) => frame === PAUSE).length;
    expect(drops()).toEqual([{ linkLocal: pauses }, {}, {}, {}]);
    expect(ports[1].received).toHaveLength(toFirst);
    for (const port of ports.slice(0, 3)) expect(port.received).not.toContainEqual(PAUSE);
  });

  it('is dropped by that name too where there is nobody else', () => {
    const alone = new FakeSwitch(1);
    alone.send(alone.ports[0], PAUSE, ethernet(ALL, 1));
    expect(alone.ports[0].drops).toEqual({ linkLocal: 1, noReceiver: 1 });
  });

  it('are flooded from a port that has forwardsLinkLocal, and from no other', () => {
    world.follow(ports[0], { forwardsLinkLocal: true });
    const others = [ethernet(2, 1), PAUSE, ethernet(ALL, 1)];
    world.send(ports[0], PAUSE);
    world.send(ports[0], ...others);
    expect(received()).toEqual([0, 4, 3, 4]);
    world.send(ports[1], ethernet(linkLocal(1), 2));
    expect(drops()).toEqual([{}, { linkLocal: 1 }, {}, {}]);
    expect(received()).toEqual([0, 4, 3, 4]);
  });

  it('are learned from, as any', () => {
    world.send(ports[2], ethernet(linkLocal(2), 7));
    world.send(ports[0], ethernet(7, 1));
    expect(received()).toEqual([0, 0, 1, 1]);
  });
});
