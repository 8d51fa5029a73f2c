/** Which port is shut when there are signs of a loop, for how long, and that no guest can have another one's port shut. */
import { beforeEach, describe, expect, it } from 'vitest';
import { LOOP_PROBE_NUMBER_AT, LOOP_PROBE_NUMBER_BYTES } from '../../protocol/loop-probe.ts';
import { type GuardedPort, LoopGuard } from '../../switch/loop-guard.ts';

const MAC = Uint8Array.of(2, 0x52, 0x57, 1, 2, 3);
const ADDRESS = { macLo: 0x01000002, macHi: 0x0500, vlan: 0 };

let ports: GuardedPort[];
let sent: { portId: number; number: string }[];
let shut: Set<number>;
let log: string[];
let guard: LoopGuard;
let tick: number;

function port(id: number, changes: Partial<GuardedPort> = {}): GuardedPort {
  return { id, name: `vm${id}`, guard: 'on', shutSeconds: 60, vlan: 0, isRunning: true, ...changes };
}

beforeEach(() => {
  ports = [port(0), port(1), port(2)];
  sent = [];
  shut = new Set();
  log = [];
  tick = 0;
  guard = new LoopGuard(
    {
      ports: () => ports,
      send: (portId, frame) => {
        const number = frame.subarray(LOOP_PROBE_NUMBER_AT, LOOP_PROBE_NUMBER_AT + LOOP_PROBE_NUMBER_BYTES);
        sent.push({ portId, number: Buffer.from(number).toString('hex') });
      },
      setShut: (portId, isShut) => void (isShut ? shut.add(portId) : shut.delete(portId)),
      warn: (name, text) => log.push(`${name} ${text}`),
      info: (name, text) => log.push(`${name} ${text}`),
    },
    MAC,
  );
});

function pass(seconds: number): void {
  for (let i = 0; i < seconds; i++) guard.onTick(++tick);
}

/** The last probe of port `from` comes in by port `by`. */
function comes(from: number, by: number, vlan = 0): void {
  const probe = sent.findLast(({ portId }) => portId === from);
  guard.probeSeen({ portId: by, vlan, number: probe?.number ?? '' });
}

describe('a port that was shut in the process before', () => {
  it('is shut for as long as was left, and then open', () => {
    guard.takeOver(1, { why: 'a loop', secondsLeft: 7 });
    expect([...shut]).toEqual([1]);
    expect(log).toEqual(['vm1 is shut for 7 s more because of a loop: a loop']);
    pass(6);
    expect(guard.shutOf(1)).toEqual({ why: 'a loop', secondsLeft: 1 });
    pass(1);
    expect([guard.shutOf(1), ...shut]).toEqual([null]);
  });

  it('is open where it is not guarded any more, or is gone', () => {
    ports = [port(0, { guard: 'off' })];
    guard.takeOver(0, { why: 'a loop', secondsLeft: 7 });
    guard.takeOver(1, { why: 'a loop', secondsLeft: 7 });
    expect([...shut]).toEqual([]);
  });
});

describe('probes', () => {
  it('go out of guarded ports that run, every two seconds, each with a number of its own', () => {
    ports = [port(0), port(1, { guard: 'off' }), port(2, { guard: 'probe' }), port(3, { isRunning: false })];
    pass(5);
    expect(sent.map(({ portId }) => portId)).toEqual([0, 2, 0, 2, 0, 2]);
    expect(new Set(sent.map(({ number }) => number)).size).toBe(6);
  });

  it.each([
    [0, 1],
    [1, 0],
  ])('of a loop through two ports have the younger one shut (first %i comes in by %i)', (from, by) => {
    pass(1);
    comes(from, by);
    comes(by, from);
    expect([...shut]).toEqual([1]);
    expect(log).toEqual([
      'vm1 is shut for 60 s because of a loop: a frame that was sent out of port vm0 came in by it',
    ]);
    expect(guard.shutOf(1)).toEqual({
      why: 'a frame that was sent out of port vm0 came in by it',
      secondsLeft: 60,
    });
    expect(guard.shutOf(0)).toBe(null);
  });

  it('that come in only by the older port have that one shut, after three', () => {
    pass(1);
    for (let i = 0; i < 3; i++) {
      expect([...shut]).toEqual([]);
      comes(1, 0);
      pass(2);
    }
    expect([...shut]).toEqual([0]);
  });

  it('that come in where they were sent out have that port shut', () => {
    pass(1);
    comes(0, 0);
    expect([...shut]).toEqual([0]);
    expect(log[0]).toBe(
      'vm0 is shut for 60 s because of a loop: a frame that was sent out of it came in by it again',
    );
  });

  it('that come in by a port that is not guarded have the port shut that sent them', () => {
    ports = [port(0, { guard: 'off' }), port(1)];
    pass(1);
    comes(1, 0);
    expect([...shut]).toEqual([1]);
    expect(log[0]).toContain('a frame that was sent out of it came in by port vm0');
  });

  it('that nobody sent, are old, of another VLAN or of a port that is gone mean nothing', () => {
    pass(1);
    guard.probeSeen({ portId: 1, vlan: 0, number: 'f'.repeat(32) });
    comes(0, 1, 7);
    const [old] = sent;
    pass(10);
    guard.probeSeen({ portId: 1, vlan: 0, number: old.number });
    const last = sent.findLast(({ portId }) => portId === 0);
    guard.forget(0);
    ports = [port(1), port(2), port(0)];
    guard.probeSeen({ portId: 1, vlan: 0, number: last?.number ?? '' });
    expect([...shut]).toEqual([]);
  });

  it('show nothing more of a loop in which a port is shut', () => {
    pass(1);
    comes(0, 1);
    comes(1, 2);
    comes(2, 1);
    for (let i = 0; i < 9; i++) comes(1, 0);
    expect([...shut]).toEqual([1]);
  });

  it('go out in the VLAN that the port is in, and count there', () => {
    ports = [port(0, { vlan: 5 }), port(1, { vlan: 6 })];
    pass(1);
    comes(0, 1, 6);
    expect([...shut]).toEqual([]);
    comes(0, 1, 5);
    expect([...shut]).toEqual([1]);
  });
});

describe('a port that is shut', () => {
  beforeEach(() => {
    ports = [port(0), port(1, { shutSeconds: 5 })];
    pass(1);
    comes(0, 1);
    sent.length = 0;
  });

  it('gets no probes, is open again in time, and is probed at once', () => {
    pass(4);
    expect(guard.shutOf(1)?.secondsLeft).toBe(1);
    expect(sent.filter(({ portId }) => portId === 1)).toEqual([]);
    pass(1);
    expect([...shut]).toEqual([]);
    expect(guard.shutOf(1)).toBe(null);
    expect(log.at(-1)).toBe('vm1 is open again, to see whether the loop is gone');
    expect(sent.filter(({ portId }) => portId === 1)).toHaveLength(1);
  });

  it('is open at once when its guard is set anew', () => {
    guard.settle(0);
    expect([...shut]).toEqual([1]);
    guard.settle(1);
    expect([...shut]).toEqual([]);
    expect(log.at(-1)).toBe('vm1 is open again, as its loop guard was set');
  });

  it('is nothing of the next port of its number', () => {
    guard.forget(1);
    expect(guard.shutOf(1)).toBe(null);
  });
});

describe('an address that moves again and again', () => {
  it('has the port shut that claims it, and never the one that had it first', () => {
    guard.flapping({ portId: 1, firstPortId: 2, ...ADDRESS });
    expect([...shut]).toEqual([1]);
    expect(log).toEqual([
      'vm1 is shut for 60 s because of a loop: the address 02:00:00:01:00:05, which port vm2 had before, moves to it again and again',
    ]);
    guard.flapping({ portId: 2, firstPortId: 1, ...ADDRESS });
    expect([...shut]).toEqual([1]);
  });

  it.each(['off', 'probe'] as const)('does not where that port has loop-guard %s', (how) => {
    ports = [port(0), port(1, { guard: how })];
    guard.flapping({ portId: 1, firstPortId: 0, ...ADDRESS });
    expect([...shut]).toEqual([]);
  });

  it('is told with its VLAN', () => {
    guard.flapping({ portId: 1, firstPortId: 0, ...ADDRESS, vlan: 12 });
    expect(log[0]).toContain('02:00:00:01:00:05 in VLAN 12, which');
  });
});
