/**
 * What workers do about loops: frames of our own go out and are known when they come in again, addresses that move again
 * and again are told of, and a port that is shut is as if it were not there. Fake queues.
 */
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { loopProbe } from '../../../protocol/loop-probe.ts';
import { DEFAULT_VLAN } from '../../../src/queue/policy.ts';
import { createFdbMemory, Fdb } from '../../../switch/l2/fdb/fdb.ts';
import { CLAIMS_MAX, MOVES_BYTES, Moves, QUIET_TICKS } from '../../../switch/l2/fdb/moves.ts';
import type { FakePort } from './fake-switch.ts';
import { FakeSwitch } from './fake-switch.ts';
import { arena, ethernet, type Mac } from './frames.ts';

const ALL: Mac = [255, 255, 255, 255, 255, 255];
/** Of a FakeSwitch. */
const OURS = new Uint8Array(6);
const OTHERS = Uint8Array.of(2, 0x52, 0x57, 9, 9, 9);
const NUMBER = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
const HEX = Buffer.from(NUMBER).toString('hex');

let world: FakeSwitch;
let ports: FakePort[];

beforeEach(() => {
  world = new FakeSwitch(1, 1, 1);
  ports = world.ports;
});
afterAll(() => arena.release());

const received = (): number[] => ports.map((port) => port.received.length);
const probe = (mac = OURS): Uint8Array => loopProbe(mac, NUMBER);

describe('a frame of our own', () => {
  it('goes out of its port and of no other, and the books balance', () => {
    world.forwarder.emit(1, probe());
    world.check();
    expect(received()).toEqual([0, 1, 0]);
    expect(ports[1].received).toEqual([probe()]);
    expect(world.fdb.size).toBe(0);
  });

  it.each([
    ['an access port', { mode: 'access', tag: 5 }, []],
    ['native-untagged', { mode: 'native-untagged', tag: 5 }, []],
    ['native-tagged', { mode: 'native-tagged', tag: 5 }, [0x81, 0, 0, 5]],
    ['a tunnel', { mode: 'dot1q-tunnel', tag: 5 }, []],
    ['a trunk with VLAN 0', { mode: 'trunk', trunks: [0, 5] }, []],
  ] as const)('leaves %s as its own frames without a tag would', (_, vlan, tag) => {
    world.follow(ports[1], { vlan: { ...DEFAULT_VLAN, ...vlan } });
    world.forwarder.emit(1, probe());
    world.check();
    expect(ports[1].received).toEqual([
      Uint8Array.from([...probe().subarray(0, 12), ...tag, ...probe().subarray(12)]),
    ]);
  });

  it('does not go out where frames without a tag are in no VLAN, nor of a port that is shut', () => {
    world.follow(ports[1], { vlan: { ...DEFAULT_VLAN, trunks: [5] } });
    world.follow(ports[2], { isShut: true });
    for (const id of [1, 2, 7]) world.forwarder.emit(id, probe());
    world.check();
    expect(received()).toEqual([0, 0, 0]);
  });

  it('that comes in again goes nowhere and is told of, while any port is guarded', () => {
    world.send(ports[0], probe());
    expect(received()).toEqual([0, 1, 1]);
    world.follow(ports[1], { loopGuard: 'probe' });
    world.send(ports[0], ethernet(ALL, 1), probe(), ethernet(ALL, 1), probe(OTHERS));
    world.send(ports[1], probe());
    expect(received()).toEqual([0, 4, 4]);
    expect(ports[0].drops).toEqual({ loopProbe: 1 });
    expect(world.forwarder.loopProbes.seen).toEqual([
      { portId: 0, vlan: 0, number: HEX },
      { portId: 1, vlan: 0, number: HEX },
    ]);
    expect([...world.fdb.entries()].map(({ macLo }) => macLo & 255).sort()).toEqual([2, 2]);
    world.follow(ports[1], {});
    world.send(ports[0], probe());
    expect(received()).toEqual([0, 5, 5]);
  });

  it('is known in pieces and with a tag, and told of with its VLAN', () => {
    world.follow(ports[0], { loopGuard: 'on' });
    const tagged = Uint8Array.from([...probe().subarray(0, 12), 0x81, 0, 0, 7, ...probe().subarray(12)]);
    world.send(ports[2], { bytes: tagged, pieces: [13, 8] }, { bytes: probe(), pieces: [3] }, tagged);
    const seen = world.forwarder.loopProbes.seen.map(({ vlan, number }) => `${vlan} ${number}`);
    expect(seen).toEqual([`7 ${HEX}`, `0 ${HEX}`, `7 ${HEX}`]);
  });

  it('is told of eight times a second, and too short not at all; all are dropped', () => {
    world.follow(ports[0], { loopGuard: 'on' });
    world.send(ports[1], probe().slice(0, 33));
    for (let i = 0; i < 3; i++) world.send(ports[1], ...Array.from({ length: 20 }, () => probe()));
    expect(world.forwarder.loopProbes.seen).toHaveLength(7);
    expect(ports[1].drops).toEqual({ loopProbe: 61 });
    world.forwarder.nowTick++;
    world.send(ports[1], probe());
    expect(world.forwarder.loopProbes.seen).toHaveLength(8);
  });
});

describe('a port that is shut', () => {
  beforeEach(() => {
    world.send(ports[1], ethernet(9, 2));
    for (const port of ports) port.to[0].received.length = 0;
    for (const { states, state } of ports) {
      new Uint8Array(states).fill(0);
      state.counts.fill(0);
    }
    world.follow(ports[1], { isShut: true });
  });

  it('gets nothing, by name where its address is known', () => {
    world.send(ports[0], ethernet(2, 1), ethernet(ALL, 1), ethernet(2, 1));
    expect(received()).toEqual([0, 0, 1]);
    expect(ports[1].drops).toEqual({ loopShutTo: 2 });
  });

  it('sends nothing', () => {
    world.send(ports[1], ethernet(ALL, 2), { untaken: 'tooLong' });
    expect(received()).toEqual([0, 0, 0]);
    expect(ports[1].drops).toEqual({ loopShut: 2 });
  });

  it('is there again when it is open', () => {
    world.follow(ports[1], {});
    world.send(ports[0], ethernet(2, 1), ethernet(ALL, 1));
    world.send(ports[1], ethernet(ALL, 2));
    expect(received()).toEqual([1, 2, 2]);
  });

  it('keeps the name of what else it may not send', () => {
    world.follow(ports[1], { isShut: true, receives: false });
    world.send(ports[1], ethernet(ALL, 2));
    expect(ports[1].drops).toEqual({ receiveOff: 1 });
  });
});

describe('addresses that move', () => {
  let fdb: Fdb;
  let moves: Moves;

  beforeEach(() => {
    fdb = new Fdb(createFdbMemory({ capacity: 8192, maxPorts: 8 }));
    moves = new Moves(new SharedArrayBuffer(MOVES_BYTES));
    fdb.moves = moves;
    for (const port of [0, 1, 2]) moves.setGuarded(port, true);
  });

  /** The address is seen on these ports in turn, so many times. */
  function flap(mac: number, turns: number, onPorts: readonly number[], tick: number): void {
    for (let i = 0; i < turns; i++) for (const port of onPorts) fdb.learn(mac, 0, 0, port, tick);
  }

  it('again and again are told of with who claims them, who is not the one that had them first', () => {
    flap(2, CLAIMS_MAX + 1, [0, 1], 5);
    expect(moves.flapping).toEqual([{ portId: 1, firstPortId: 0, macLo: 2, macHi: 0, vlan: 0 }]);
  });

  it('between two ports while a third one had them are told of with one of the two', () => {
    fdb.learn(2, 0, 3, 2, 0);
    for (let i = 0; i < CLAIMS_MAX; i++) fdb.learn(2, 0, 3, i % 2, 1);
    expect(moves.flapping).toEqual([{ portId: 1, firstPortId: 2, macLo: 2, macHi: 0, vlan: 3 }]);
  });

  it('now and then are not', () => {
    for (let tick = 0; tick < 400; tick++) flap(2, 1, [0, 1], tick);
    expect(moves.flapping).toEqual([]);
  });

  it('are not where the port that claims them is not guarded', () => {
    moves.setGuarded(1, false);
    flap(2, 100, [0, 1], 5);
    expect(moves.flapping).toEqual([]);
    expect(moves.isOn).toBe(true);
  });

  it('do not make who sent with them a while ago the first', () => {
    flap(2, 1, [0, 1], 0);
    // Its guest was silent for long, and is back.
    flap(2, CLAIMS_MAX + 1, [0, 1], QUIET_TICKS - 1);
    expect(moves.flapping.map(({ portId }) => portId)).toEqual([1]);
  });

  it('and stay for long are where they belong', () => {
    flap(2, 1, [0, 1], 0);
    flap(2, CLAIMS_MAX + 1, [1, 2], QUIET_TICKS + 1);
    expect(moves.flapping).toEqual([{ portId: 2, firstPortId: 1, macLo: 2, macHi: 0, vlan: 0 }]);
  });

  it('in their thousands displace no note of another one', () => {
    fdb.learn(2, 0, 0, 0, 0);
    fdb.learn(2, 0, 0, 1, 0);
    for (let i = 1; i < 6000; i++) flap((i << 8) | 2, 1, [1, 2], 1);
    // The one that had it first is back, and the other one goes on.
    flap(2, CLAIMS_MAX, [0, 1], 2);
    expect(moves.flapping).toEqual([{ portId: 1, firstPortId: 0, macLo: 2, macHi: 0, vlan: 0 }]);
  });

  it('are forgotten with the port that had them', () => {
    flap(2, CLAIMS_MAX - 1, [0, 1], 5);
    fdb.forgetMoves(moves, 0);
    flap(2, 2, [2, 1], 5);
    expect(moves.flapping).toEqual([]);
  });

  it('are told of so often a second', () => {
    for (let i = 1; i < 100; i++) flap((i << 8) | 2, CLAIMS_MAX + 1, [0, 1], 5);
    expect(moves.flapping).toHaveLength(16);
  });
});
