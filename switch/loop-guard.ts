/**
 * Finds loops that lie outside of the switch and shuts one of the ports that they go through for a while. Two signs: a
 * frame that the switch sent out of a guarded port itself comes in again (protocol/loop-probe.ts), or an address moves
 * between ports again and again (l2/fdb/moves.ts). Main thread.
 *
 * Which port is shut must not be for guests to say. A probe carries a number that nobody can guess, is good for a few
 * seconds, and leaves by one port only: who shows it has been behind that port. Where it comes in by a guarded port, that one is shut,
 * never another: so who plays a frame that he was sent harms his own port. Of a loop through two guarded ports both see
 * each other's probes; the younger one is shut, and the older one only when it alone brings probes, again and again. Where
 * it comes in by a port that is not guarded, which its operator wants to run in any case, it is the port that it was sent
 * by. Of an address that moves, it is who claims it from the one that had it first, and only if that port is guarded; the
 * one that had it first never is.
 */
import { formatMac } from '../protocol/ethernet.ts';
import { LOOP_PROBE_NUMBER_BYTES, loopProbe } from '../protocol/loop-probe.ts';
import { randomBytes } from '../src/host/random.ts';
import type { LoopGuardPolicy } from '../src/queue/policy.ts';
import type { Flapping } from './l2/fdb/moves.ts';
import type { ProbeSeen } from './l2/loop-probes.ts';

/** Seconds between two probes of a port. */
const PROBE_TICKS = 2;
/** Those that are older have no meaning any more. */
const PROBE_GOOD_TICKS = 6;
/** So many probes of a younger port come in by an older one, and none the other way, until the older one is shut. */
const ONE_WAY_MAX = 3;

/** A port as it is to this. */
export type GuardedPort = {
  readonly id: number;
  readonly name: string;
  readonly guard: LoopGuardPolicy;
  readonly shutSeconds: number;
  /** Of frames without a tag. */
  readonly vlan: number;
  readonly isRunning: boolean;
};

export type LoopGuardHost = {
  /** Those that are there, the oldest first. */
  ports(): readonly GuardedPort[];
  /** Sends a frame out of the port. */
  send(portId: number, frame: Uint8Array): void;
  /** Nothing goes to the port or comes from it, or again. */
  setShut(portId: number, isShut: boolean): void;
  warn(port: string, text: string): void;
  info(port: string, text: string): void;
};

/** A port that is shut. */
export type ShutReport = { readonly why: string; readonly secondsLeft: number };

type Sent = { readonly portId: number; readonly vlan: number; readonly tick: number };
type Shut = { readonly why: string; readonly untilTick: number };

/** The source of all probes of this process: an address of a single station, given out by nobody. */
export function probeMac(): Uint8Array {
  return Uint8Array.of(0x02, 0x52, 0x57, ...randomBytes(3));
}

export class LoopGuard {
  readonly #host: LoopGuardHost;
  readonly #mac: Uint8Array;
  /** By number, in the order in which they were sent. */
  readonly #sent = new Map<string, Sent>();
  readonly #lastSentTick = new Map<number, number>();
  readonly #shut = new Map<number, Shut>();
  /** By the ports' ids, `younger>older`: probes that went only this way. */
  readonly #oneWay = new Map<string, number>();
  #tick = 0;

  constructor(host: LoopGuardHost, mac: Uint8Array) {
    this.#host = host;
    this.#mac = mac;
  }

  /** Once a second. */
  onTick(tick: number): void {
    this.#tick = tick;
    for (const [number, { tick: sentTick }] of this.#sent) {
      if (tick - sentTick <= PROBE_GOOD_TICKS) break;
      this.#sent.delete(number);
    }
    for (const port of this.#host.ports()) {
      const shut = this.#shut.get(port.id);
      if (shut !== undefined && tick >= shut.untilTick)
        this.#open(port, 'is open again, to see whether the loop is gone');
      const isDue = tick - (this.#lastSentTick.get(port.id) ?? -PROBE_TICKS) >= PROBE_TICKS;
      if (port.guard !== 'off' && port.isRunning && isDue && !this.#shut.has(port.id)) this.#probe(port);
    }
  }

  #probe({ id, vlan }: GuardedPort): void {
    const number = randomBytes(LOOP_PROBE_NUMBER_BYTES);
    this.#sent.set(number.toString('hex'), { portId: id, vlan, tick: this.#tick });
    this.#lastSentTick.set(id, this.#tick);
    this.#host.send(id, loopProbe(this.#mac, number));
  }

  /** A worker saw what looks like one of our probes. */
  probeSeen({ portId, vlan, number }: ProbeSeen): void {
    const sent = this.#sent.get(number);
    // In another VLAN than it left, it cannot go round.
    if (sent === undefined || sent.vlan !== vlan) return;
    const ports = this.#host.ports();
    const fromAt = ports.findIndex(({ id }) => id === sent.portId);
    const byAt = ports.findIndex(({ id }) => id === portId);
    if (fromAt < 0 || byAt < 0 || this.#shut.has(portId) || this.#shut.has(sent.portId)) return;
    const [from, by] = [ports[fromAt], ports[byAt]];
    if (from === by) {
      this.#close(by, 'a frame that was sent out of it came in by it again');
      return;
    }
    if (by.guard === 'off') {
      // It may have been taken back meanwhile.
      if (from.guard !== 'off')
        this.#close(from, `a frame that was sent out of it came in by port ${by.name}`);
      return;
    }
    const why = `a frame that was sent out of port ${from.name} came in by it`;
    if (byAt > fromAt) {
      this.#oneWay.delete(`${by.id}>${from.id}`);
      this.#close(by, why);
      return;
    }
    const way = `${from.id}>${by.id}`;
    const times = (this.#oneWay.get(way) ?? 0) + 1;
    this.#oneWay.set(way, times);
    if (times < ONE_WAY_MAX) return;
    this.#oneWay.delete(way);
    this.#close(by, why);
  }

  /** A worker saw an address move too often. */
  flapping({ portId, firstPortId, macLo, macHi, vlan }: Flapping): void {
    const ports = this.#host.ports();
    const port = ports.find(({ id }) => id === portId);
    const first = ports.find(({ id }) => id === firstPortId);
    if (port?.guard !== 'on' || first === undefined) return;
    if (this.#shut.has(portId) || this.#shut.has(firstPortId)) return;
    const where = vlan === 0 ? '' : ` in VLAN ${vlan}`;
    this.#close(
      port,
      `the address ${formatMac(macLo, macHi)}${where}, which port ${first.name} had before, moves to it again and again`,
    );
  }

  /** Null: it is not shut. */
  shutOf(portId: number): ShutReport | null {
    const shut = this.#shut.get(portId);
    if (shut === undefined) return null;
    return { why: shut.why, secondsLeft: Math.max(0, shut.untilTick - this.#tick) };
  }

  /** The port is shut as it was in the process before this one, if it is still guarded. */
  takeOver(portId: number, { why, secondsLeft }: ShutReport): void {
    const port = this.#host.ports().find(({ id }) => id === portId);
    if (port === undefined || port.guard === 'off') return;
    this.#shut.set(portId, { why, untilTick: this.#tick + secondsLeft });
    this.#host.setShut(portId, true);
    this.#host.warn(port.name, `is shut for ${secondsLeft} s more because of a loop: ${why}`);
  }

  /** Somebody said anew how the port is guarded: it is open. */
  settle(portId: number): void {
    const port = this.#host.ports().find(({ id }) => id === portId);
    if (port !== undefined && this.#shut.has(portId))
      this.#open(port, 'is open again, as its loop guard was set');
  }

  /** The port is gone, and its number may become another's. */
  forget(portId: number): void {
    this.#shut.delete(portId);
    this.#lastSentTick.delete(portId);
    for (const [number, sent] of this.#sent) if (sent.portId === portId) this.#sent.delete(number);
    for (const way of this.#oneWay.keys()) {
      if (way.split('>').includes(String(portId))) this.#oneWay.delete(way);
    }
  }

  #close({ id, name, shutSeconds }: GuardedPort, why: string): void {
    this.#shut.set(id, { why, untilTick: this.#tick + shutSeconds });
    this.#host.setShut(id, true);
    this.#host.warn(name, `is shut for ${shutSeconds} s because of a loop: ${why}`);
  }

  #open({ id, name }: GuardedPort, text: string): void {
    this.#shut.delete(id);
    this.#host.setShut(id, false);
    this.#host.info(name, text);
  }
}
