/** A FakeSwitch whose forwarder snoops, with the main thread's part beside it, which acts as soon as a burst is over. */
import type { PortPolicy } from '../../../src/queue/policy.ts';
import { createMessageRing, MessageRing } from '../../../switch/l2/groups/message-ring.ts';
import { Snoop } from '../../../switch/l2/groups/snoop.ts';
import { createGroupMemory, GroupTable } from '../../../switch/l2/groups/table.ts';
import {
  type PortSnooping,
  SNOOPING_DEFAULTS,
  type SnoopingSettings,
} from '../../../switch/snooping/settings.ts';
import { Snooping } from '../../../switch/snooping/snooping.ts';
import { FakeSwitch } from '../l2/fake-switch.ts';
import { arenaView } from '../l2/frames.ts';

export class SnoopedSwitch {
  readonly fake: FakeSwitch;
  readonly snooping: Snooping;
  readonly groupMemory: SharedArrayBuffer;
  /** May be changed between frames. */
  readonly portSettings: PortSnooping[];
  readonly #ring = new MessageRing(createMessageRing());
  #tick = 0;

  constructor(
    policies: readonly Partial<PortPolicy>[],
    settings: Partial<SnoopingSettings> = {},
    ports: readonly Partial<PortSnooping>[] = [],
  ) {
    const all = { ...SNOOPING_DEFAULTS, enabled: true, ...settings };
    this.groupMemory = createGroupMemory({
      capacity: all.groups + 256,
      portsMax: 64,
      floodsUnregistered: all.floodUnregistered,
      vlans: all.vlans,
    });
    FakeSwitch.snoop = new Snoop(arenaView, new GroupTable(this.groupMemory), this.#ring, () => {});
    this.fake = new FakeSwitch(...policies.map(() => 1));
    FakeSwitch.snoop = null;
    for (const [id, policy] of policies.entries()) this.fake.follow(this.fake.ports[id], policy);
    this.portSettings = policies.map((_, id) => ({ mrouter: 'auto', fastLeave: false, ...ports[id] }));
    this.snooping = new Snooping(all, {
      table: new GroupTable(this.groupMemory),
      takeMessages: () => this.#ring.take(),
      lostMessages: () => this.#ring.lost,
      emit: (frame, vlan, portIds) => this.fake.forwarder.emitInVlan(frame, vlan, portIds),
      settingsOf: (id) => this.portSettings[id] ?? null,
      nameOf: (id) => `p${id}`,
      portIds: () => policies.map((_, id) => id),
      vlansInUse: () => [...new Set([0, ...policies.map(({ vlan }) => vlan?.tag ?? 0)])],
    });
    this.snooping.publish();
  }

  /** Answers the ports that got the frames, once for each frame. */
  send(port: number, ...frames: readonly Uint8Array[]): number[] {
    this.fake.send(this.fake.ports[port], ...frames);
    const got = this.taken();
    this.settle();
    return got;
  }

  /** Ports that got frames since the last call; the frames themselves are in `last`. */
  taken(): number[] {
    this.last.length = 0;
    this.lastPorts = this.fake.ports.flatMap(({ to }, id) =>
      to
        .flatMap((queue) => queue.received.splice(0))
        .map((frame) => {
          this.last.push(frame);
          return id;
        }),
    );
    return this.lastPorts;
  }

  readonly last: Uint8Array[] = [];
  lastPorts: number[] = [];

  settle(): void {
    this.snooping.read();
    this.snooping.publish();
  }

  /** So many seconds pass. */
  pass(seconds: number): void {
    for (let i = 0; i < seconds; i++) {
      this.#tick++;
      this.fake.forwarder.nowTick = this.#tick;
      this.snooping.tick(this.#tick);
    }
    this.snooping.publish();
    this.fake.check();
  }

  /** `10 239.1.1.1 p0`, in order. */
  groups(): string[] {
    return this.snooping
      .report()
      .groups.map(({ vlan, group, port }) => `${vlan} ${group} ${port}`)
      .sort();
  }
}
