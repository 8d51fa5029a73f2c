/**
 * Says in words what a forwarder did with a traced frame, from what it left behind (trace-run.ts). Decides nothing: where a
 * port was passed over, it asks the port's own objects why. Any thread.
 */
import { formatMac } from '../../protocol/ethernet.ts';
import { vlanOf } from '../../src/queue/frame-tags.ts';
import { OFFLOAD_CHECKSUM } from '../../src/queue/requests.ts';
import { DROP, DROP_REASONS, type DropReason } from '../l2/drop-reasons.ts';
import { isBarred } from '../l2/flood.ts';
import {
  type ForwardingPort,
  STAGE_GUARD,
  STAGE_LEARN,
  STAGE_LIMIT,
  STAGE_LOOP_PROBES,
  STAGE_SNOOP,
} from '../l2/forwarding-port.ts';
import { GROUP_REPORT } from '../l2/groups/snoop.ts';
import { isLinkLocal } from '../l2/link-local.ts';
import { COUNT_OFFERED } from '../l2/port-counts.ts';
import { type FrameTag, frameTexts, tagsOf, tagText } from './frame-text.ts';
import type { PlacedFrame } from './queues.ts';
import type {
  TraceDrop,
  TracedFrame,
  TraceQuestion,
  TraceReceiver,
  TraceReport,
  TraceStep,
} from './report.ts';
import { isStation } from './seen-fdb.ts';
import type { PluginFinding, TracedPort, TraceFindings } from './trace-run.ts';

/** Reasons for which a frame comes to no stage. */
const UNTAKEN: ReadonlySet<DropReason> = new Set([
  'tooLong',
  'tooShort',
  'tooScattered',
  'badChecksumRequest',
  'badSegmentRequest',
  'tooManySegments',
  'receiveOff',
  'loopShut',
]);
const BY_VLAN: ReadonlySet<DropReason> = new Set([
  'vlanNotAllowed',
  'taggedOnAccess',
  'cvlanNotAllowed',
  'truncatedTag',
]);
const BY_PLUGIN: ReadonlySet<DropReason> = new Set(['plugin', 'pluginFailed']);
/** Those of a frame that passed all checks, and was learned from. */
const UNSENT: ReadonlySet<DropReason> = new Set([
  'samePort',
  'noReceiver',
  'noMember',
  'linkLocal',
  'protected',
  'stormUnknown',
]);

const CHECKS: readonly (readonly [bit: number, name: string])[] = [
  [STAGE_LOOP_PROBES, 'loops'],
  [STAGE_LIMIT, 'limits'],
  [STAGE_GUARD, 'guards'],
  [STAGE_SNOOP, 'snooping'],
];

export class Explainer {
  readonly #question: TraceQuestion;
  readonly #from: TracedPort;
  readonly #ports: readonly TracedPort[];
  readonly #findings: TraceFindings;
  readonly #tick: number;
  readonly #tags: readonly FrameTag[];

  constructor(
    question: TraceQuestion,
    from: TracedPort,
    ports: readonly TracedPort[],
    findings: TraceFindings,
    tick: number,
  ) {
    this.#question = question;
    this.#from = from;
    this.#ports = ports;
    this.#findings = findings;
    this.#tick = tick;
    this.#tags = tagsOf(question.frame);
  }

  report(): TraceReport {
    const { frame, port } = this.#question;
    const { sender, fdb, outer } = this.#findings;
    const drops = dropsOf(sender, 'sender');
    const receivers = this.#receivers();
    const isAdmitted = !drops.some(({ name }) => UNTAKEN.has(name) || BY_VLAN.has(name));
    const isSent = isAdmitted && drops.every(({ name }) => UNSENT.has(name));
    const learned = isSent ? (fdb.learnings[0] ?? null) : null;
    const isFlooded = isSent && !drops.some(({ name }) => name === 'linkLocal') && this.#target() === null;
    return {
      port,
      bytes: frame.length,
      frame: frameTexts(frame, frame.length),
      steps: this.#steps(drops, isAdmitted, isSent),
      vlan: isAdmitted ? vlanOf(outer) : null,
      learns:
        learned === null || !isStation(learned.macLo, learned.macHi)
          ? null
          : { mac: formatMac(learned.macLo, learned.macHi), vlan: learned.vlan, port },
      receivers,
      passedOver: isFlooded ? this.#passedOver(receivers) : [],
      drops,
      result: this.#result(drops, receivers, isFlooded && !this.#findings.isToMembers),
    };
  }

  #steps(drops: readonly TraceDrop[], isAdmitted: boolean, isSent: boolean): TraceStep[] {
    const { sender } = this.#findings;
    const first = drops[0];
    const steps: TraceStep[] = [{ stage: 'in', text: this.#from.text }];
    if (this.#from.view.worker === null)
      steps.push({ stage: 'in', text: 'no frame comes in from it now; this is what would become of one' });
    if (first !== undefined && UNTAKEN.has(first.name))
      return [...steps, { stage: 'in', text: dropText(first) }];
    if (!isAdmitted && first !== undefined)
      return [
        ...steps,
        { stage: 'vlan', text: `${this.#modeText()}; ${this.#tagsText()}` },
        { stage: 'vlan', text: dropText(first) },
      ];
    steps.push({
      stage: 'vlan',
      text: `${this.#modeText()}; ${this.#tagsText()}: it is in ${this.#admittedText()}`,
    });
    const isByPlugin = first !== undefined && BY_PLUGIN.has(first.name);
    const isChecked = isSent || first === undefined || isByPlugin;
    const names = CHECKS.filter(([bit]) => (sender.stages & bit) !== 0).map(([, name]) => name);
    if (names.length > 0)
      steps.push({ stage: 'checks', text: `${names.join(', ')}: ${isChecked ? 'passed' : dropText(first)}` });
    if (isChecked) steps.push(...this.#pluginSteps());
    if (!isSent) return steps;
    steps.push({ stage: 'learn', text: this.#learnText() }, { stage: 'look up', text: this.#lookUpText() });
    if (first !== undefined) steps.push({ stage: 'send', text: dropText(first) });
    return steps;
  }

  #pluginSteps(): TraceStep[] {
    const { plugins, unasked } = this.#findings;
    if (unasked !== null)
      return [
        {
          stage: 'plugins',
          text: `could not be asked (${unasked}): what follows is as if there were none`,
        },
      ];
    if (plugins.length === 0) return [];
    const texts = plugins.map((plugin, i) => `${plugin.name} ${this.#pluginText(plugin, i)}`);
    return [
      { stage: 'plugins', text: 'asked as they are at the start, before they have seen any frame' },
      ...texts.map((text): TraceStep => ({ stage: 'plugins', text })),
    ];
  }

  #pluginText(
    { fault, asked, drop, isNowhere, isRedirected, isMirrored, onFault }: PluginFinding,
    at: number,
  ): string {
    if (fault !== null) {
      const fate = onFault === 'drop' ? 'what it was to decide on is dropped' : 'frames pass without it';
      return asked === null
        ? `was taken out, and ${fate}: ${fault}`
        : `would be taken out, and ${fate}: ${fault}`;
    }
    if (drop !== null) return `drops it: it ${drop.text} (${drop.name})`;
    if (isNowhere) return 'sends it to a port that is not there: dropped';
    const said = [
      ...(isMirrored ? ['has it mirrored'] : []),
      ...this.#vlanChange(asked, at),
      ...(isRedirected
        ? [this.#redirector() === at ? `sends it to ${this.#nameOf(this.#findings.target)}` : 'redirects it']
        : []),
    ];
    return said.length === 0 ? 'passes it' : said.join(', ');
  }

  /** What a plugin made of the tags that it saw. */
  #vlanChange(asked: PluginFinding['asked'], at: number): string[] {
    const { plugins, outer, inner } = this.#findings;
    const after = plugins.slice(at + 1).find((next) => next.asked !== null)?.asked ?? { outer, inner };
    if (asked === null || (asked.outer === after.outer && asked.inner === after.inner)) return [];
    return [`puts it into ${vlanText(after)}`];
  }

  /** Which plugin says where the frame goes; -1: none does. */
  #redirector(): number {
    return this.#findings.plugins.findLastIndex(({ isRedirected }) => isRedirected);
  }

  #modeText(): string {
    const { mode, tag, trunks, cvlans } = this.#from.view.policy.vlan;
    const of = mode === 'trunk' ? '' : ` of VLAN ${tag}`;
    const carried = mode === 'dot1q-tunnel' ? cvlans : mode === 'access' ? null : trunks;
    if (mode === 'access') return `an access port${of}`;
    return `${mode}${of}, ${carried === null ? 'all VLANs' : `${carried.length} VLANs`} carried`;
  }

  #tagsText(): string {
    return this.#tags.length === 0
      ? 'the frame has no tag'
      : `the frame has an ${this.#tags.map(tagText).join(' and an ')}`;
  }

  /** Where the frame came into the switch. */
  #admittedText(): string {
    return vlanText(this.#findings.plugins.find(({ asked }) => asked !== null)?.asked ?? this.#findings);
  }

  #learnText(): string {
    const { sender, fdb } = this.#findings;
    const [learned] = fdb.learnings;
    if ((sender.stages & STAGE_LEARN) === 0 || learned === undefined)
      return 'nothing is learned: the port gets copies only';
    const { macLo, macHi, vlan, known } = learned;
    if (!isStation(macLo, macHi))
      return `nothing is learned: ${formatMac(macLo, macHi)} is no station's address`;
    const what = `${formatMac(macLo, macHi)} in VLAN ${vlan}`;
    if (known === null) return `${what} is new, and would be learned behind ${this.#from.name}`;
    if (known.port === this.#from.id)
      return `${what} is known behind ${this.#from.name}, last seen ${this.#ageText(known.lastSeenTick)} ago`;
    if (known.isStatic) return `${what} stays behind ${this.#nameOf(known.port)}, where it was put`;
    return `${what} would move here from ${this.#nameOf(known.port)}, where it was seen ${this.#ageText(known.lastSeenTick)} ago`;
  }

  #lookUpText(): string {
    const { sender, fdb, plugins } = this.#findings;
    const redirector = plugins[this.#redirector()];
    if (redirector !== undefined) return `${redirector.name} has said where it goes`;
    const bytes = this.#question.frame;
    const mac = formatMac(le32(bytes, 0), le32(bytes, 4) & 0xffff);
    if ((bytes[0] & 1) !== 0) {
      if (isLinkLocal(le32(bytes, 0), le32(bytes, 4) & 0xffff)) {
        const isKept = sender.counts[DROP.linkLocal] > 0;
        return `${mac} is an address that bridges keep to their link${isKept ? '' : ', and forward-bpdu is on: flooded'}`;
      }
      if (this.#findings.target === GROUP_REPORT)
        return `${mac} is a group, and the frame a message about groups: to routers`;
      if (this.#findings.isToMembers) return `${mac} is a group: to who joined it, and to routers`;
      return mac === 'ff:ff:ff:ff:ff:ff' ? 'a broadcast: flooded' : `${mac} is a group: flooded`;
    }
    const [{ vlan, found }] = fdb.lookUps;
    if (found === null) return `${mac} is not known in VLAN ${vlan}: flooded`;
    const where = `${mac} in VLAN ${vlan} is behind ${this.#nameOf(found.port)}, last seen ${this.#ageText(found.lastSeenTick)} ago`;
    return this.#target() === null ? `${where}, to which nothing is switched: flooded` : where;
  }

  /** Id of the one port that the frame goes to; null: it is flooded. */
  #target(): number | null {
    if (this.#redirector() >= 0) return this.#findings.target;
    const found = this.#findings.fdb.lookUps[0]?.found ?? null;
    if (found === null || this.#findings.ports.get(found.port)?.isSwitched !== true) return null;
    return found.port;
  }

  /** Every port that frames were offered to: those switched to it, and copies, each on its own. */
  #receivers(): TraceReceiver[] {
    const { ports, placed } = this.#findings;
    return this.#ports.flatMap(({ id, name }) => {
      const port = ports.get(id) as ForwardingPort;
      if (port.counts[COUNT_OFFERED] === 0) return [];
      const drops = dropsOf(port, 'receiver');
      const here = placed.filter(({ portId }) => portId === id);
      const sources = new Set(here.map(({ copyOf }) => copyOf?.portId ?? null));
      if (sources.size === 0) sources.add(port.isSwitched ? null : this.#from.id);
      return [...sources].map((source, i) => ({
        port: name,
        mirrorOf: source === null ? null : this.#nameOf(source),
        frames: here
          .filter(({ copyOf }) => (copyOf?.portId ?? null) === source)
          .map((each) => this.#placed(each)),
        // What was dropped of which of them nobody counts.
        drops: i === 0 ? drops : [],
      }));
    });
  }

  #placed({ queueIndex, sizeBytes, head, needs, segments }: PlacedFrame): TracedFrame {
    const tags = tagsOf(head);
    return {
      queue: queueIndex,
      bytes: sizeBytes,
      tags,
      text: this.#changeText(tags),
      hex: Buffer.from(head).toString('hex'),
      asksChecksum: (needs & OFFLOAD_CHECKSUM) !== 0,
      segments,
    };
  }

  #changeText(tags: readonly FrameTag[]): string {
    const before = this.#tags.map(tagText).join(' and an ');
    const now = tags.map(tagText).join(' and an ');
    if (before === now) return now === '' ? 'without a tag, as it came' : `with its ${now}, as it came`;
    if (now === '') return `without its ${before}`;
    return before === '' ? `with an ${now}` : `with an ${now}, in place of its ${before}`;
  }

  #passedOver(receivers: readonly TraceReceiver[]): { port: string; text: string }[] {
    const got = new Set(receivers.filter(({ mirrorOf }) => mirrorOf === null).map(({ port }) => port));
    return this.#ports
      .filter(({ id, name }) => id !== this.#from.id && !got.has(name))
      .map(({ id, name }) => ({
        port: name,
        text: this.#whyNot(this.#findings.ports.get(id) as ForwardingPort),
      }));
  }

  #whyNot(port: ForwardingPort): string {
    const { outer, inner } = this.#findings;
    if (!port.isSwitched) return 'gets copies only';
    if (isBarred(port, this.#findings.sender)) return 'is shut, or protected as the sender is';
    if (this.#findings.isToMembers) return 'has not joined, and has no router behind it';
    if (!port.isFlooded) return 'has flood off';
    if (!port.vlan.takesFlood(outer, inner)) return `does not carry ${vlanText(this.#findings)}`;
    return 'is kept from it by its settings or those of the sender';
  }

  #result(drops: readonly TraceDrop[], receivers: readonly TraceReceiver[], isFlooded: boolean): string {
    const own = receivers.filter(({ mirrorOf }) => mirrorOf === null);
    const copies = receivers.filter(({ mirrorOf, frames }) => mirrorOf !== null && frames.length > 0);
    const given = own.filter(({ frames }) => frames.length > 0).map(({ port }) => port);
    const lost = own.flatMap(({ port, drops: lostThere }) =>
      lostThere.map((drop) => `${port} ${drop.text} (${drop.name})`),
    );
    const parts = [
      ...(drops.length > 0 ? [this.#dropText(drops[0])] : []),
      ...(given.length > 0 ? [`${isFlooded ? 'flooded to' : 'goes to'} ${given.join(', ')}`] : []),
      ...(lost.length > 0 ? [`dropped: ${lost.join('; ')}`] : []),
      ...(copies.length > 0 ? [`copied to ${[...new Set(copies.map(({ port }) => port))].join(', ')}`] : []),
    ];
    return parts.join('; ');
  }

  /** Of one by a plugin: the plugin's own reason. */
  #dropText(drop: TraceDrop): string {
    const plugin = BY_PLUGIN.has(drop.name) ? this.#findings.plugins.at(-1) : undefined;
    if (plugin === undefined) return dropText(drop);
    if (plugin.drop === null) return `${dropText(drop)} by ${plugin.name}`;
    return `dropped by ${plugin.name}: it ${plugin.drop.text} (${plugin.drop.name})`;
  }

  #nameOf(id: number): string {
    return this.#ports.find((port) => port.id === id)?.name ?? `#${id}`;
  }

  #ageText(lastSeenTick: number): string {
    return `${this.#tick - lastSeenTick} s`;
  }
}

function vlanText({ outer, inner }: { readonly outer: number; readonly inner: number }): string {
  return inner === 0
    ? `VLAN ${vlanOf(outer)}`
    : `VLAN ${vlanOf(outer)}, and within it in VLAN ${vlanOf(inner)}`;
}

/** A port's drops on one side, those that are not zero. */
function dropsOf({ counts }: ForwardingPort, side: 'sender' | 'receiver'): TraceDrop[] {
  return DROP_REASONS.filter((reason) => reason.side === side && counts[DROP[reason.name]] > 0).map(
    ({ name, text }) => ({ name, text, frames: counts[DROP[name]] }),
  );
}

function dropText({ name, text }: TraceDrop): string {
  return `dropped: it ${text} (${name})`;
}

/** As the hot path has it; what is not there is 0. */
function le32(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24) | 0;
}
