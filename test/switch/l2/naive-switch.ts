/**
 * The naive twin of forwarding: a Map from VLAN and address to port, and lists. As Ringway's it learns all sources of a burst
 * before it looks up any destination. Slow; independent of switch/l2.
 */
import { DEFAULT_VLAN, type VlanPolicy } from '../../../src/queue/policy.ts';
import type { DropReason } from '../../../switch/l2/drop-reasons.ts';
import { admitted, carries, type Inside, leaving } from './naive-vlan.ts';

/** What the twin asks of the world around it when a frame is to go to a port. */
export interface NaivePorts {
  /** Hands the frame over, or says why it cannot be. */
  place(port: number, frame: Uint8Array): DropReason | null;
  /** The same for a copy of a frame that came in from `source`, or was placed there. */
  placeCopy(port: number, frame: Uint8Array, source: number, isIngress: boolean): DropReason | null;
}

type Drops = Partial<Record<DropReason, number>>;

const isGroup = (frame: Uint8Array, at: number): boolean => (frame[at] & 1) === 1;
const nameAt = (frame: Uint8Array, at: number): string => frame.subarray(at, at + 6).join(':');

export class NaiveSwitch {
  /** By port. */
  readonly drops: Drops[];
  readonly portOf = new Map<string, number>();
  readonly #ports: NaivePorts;
  readonly #portCount: number;
  /** Ports that get copies and nothing else, and of which ports. */
  readonly #copiesOf: Map<number, readonly number[]>;
  /** Ports that get no floods, and ports of which nothing is taken. */
  readonly unflooded = new Set<number>();
  readonly muted = new Set<number>();
  /** Ports whose frames to addresses that bridges do not pass on are flooded. */
  readonly forwardsBpdu = new Set<number>();
  /** Ports that are shut because of a loop. */
  readonly shut = new Set<number>();
  /** Ports that do not talk to each other. */
  readonly protectedPorts = new Set<number>();
  /** VLAN settings of ports that have any. */
  readonly vlans = new Map<number, VlanPolicy>();
  vlanLimit = 1;

  constructor(portCount: number, ports: NaivePorts, copiesOf = new Map<number, readonly number[]>()) {
    this.drops = Array.from({ length: portCount }, () => ({}));
    this.#portCount = portCount;
    this.#ports = ports;
    this.#copiesOf = copiesOf;
  }

  count(port: number, reason: DropReason): void {
    this.drops[port][reason] = (this.drops[port][reason] ?? 0) + 1;
  }

  /** `untaken` of the frames are of no use and are not in the list. */
  burst(sender: number, frames: readonly Uint8Array[], untaken: readonly DropReason[] = []): void {
    if (this.muted.has(sender)) {
      for (let left = frames.length + untaken.length; left > 0; left--) this.count(sender, 'receiveOff');
      return;
    }
    if (this.shut.has(sender)) {
      for (let left = frames.length + untaken.length; left > 0; left--) this.count(sender, 'loopShut');
      return;
    }
    for (const reason of untaken) this.count(sender, reason);
    for (const frame of frames) this.#copy(sender, frame, true);
    const inside: Inside[] = [];
    for (const frame of frames) {
      const result = admitted(frame, this.#vlanOf(sender), this.vlanLimit);
      if (typeof result === 'string') this.count(sender, result);
      else inside.push(result);
    }
    if (!this.#copiesOf.has(sender)) for (const frame of inside) this.#learn(sender, frame);
    for (const frame of inside) this.#forward(sender, frame);
  }

  #vlanOf(port: number): VlanPolicy {
    return this.vlans.get(port) ?? DEFAULT_VLAN;
  }

  #learn(sender: number, { addresses, outer }: Inside): void {
    const source = nameAt(addresses, 6);
    if (isGroup(addresses, 6) || source === '0:0:0:0:0:0') return;
    this.portOf.set(`${outer?.vlan ?? 0} ${source}`, sender);
  }

  #forward(sender: number, frame: Inside): void {
    const { addresses, outer } = frame;
    if (/^1:128:194:0:0:([0-9]|1[0-5])$/.test(nameAt(addresses, 0)) && !this.forwardsBpdu.has(sender)) {
      this.count(sender, 'linkLocal');
      return;
    }
    const key = `${outer?.vlan ?? 0} ${nameAt(addresses, 0)}`;
    const owner = isGroup(addresses, 0) ? undefined : this.portOf.get(key);
    if (owner === sender && !this.#copiesOf.has(owner)) {
      this.count(sender, 'samePort');
      return;
    }
    if (owner !== undefined && !this.#copiesOf.has(owner)) {
      if (this.#mayNotTalk(sender, owner)) this.count(sender, 'protected');
      else if (this.shut.has(owner)) this.count(owner, 'loopShutTo');
      else if (carries(this.#vlanOf(owner), frame, false)) this.#place(owner, frame);
      else this.count(owner, 'vlanNotCarried');
      return;
    }
    const others = Array.from({ length: this.#portCount }, (_, port) => port);
    const targets = others
      .filter((port) => port !== sender && !this.#copiesOf.has(port) && !this.unflooded.has(port))
      .filter((port) => !this.#mayNotTalk(sender, port) && !this.shut.has(port))
      .filter((port) => carries(this.#vlanOf(port), frame, true));
    if (targets.length === 0) this.count(sender, 'noReceiver');
    for (const target of targets) this.#place(target, frame);
  }

  #mayNotTalk(sender: number, port: number): boolean {
    return this.protectedPorts.has(sender) && this.protectedPorts.has(port);
  }

  #place(target: number, inside: Inside): void {
    const frame = leaving(this.#vlanOf(target), inside);
    const reason = this.#ports.place(target, frame);
    if (reason === null) this.#copy(target, frame, false);
    else this.count(target, reason);
  }

  #copy(source: number, frame: Uint8Array, isIngress: boolean): void {
    for (const [mirror, sources] of this.#copiesOf) {
      if (!sources.includes(source)) continue;
      const reason = this.#ports.placeCopy(mirror, frame, source, isIngress);
      if (reason !== null) this.count(mirror, reason);
    }
  }
}
