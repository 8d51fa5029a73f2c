/**
 * A stateless access list: the first rule of a file that fits a frame decides about it. Example of a plugin; docs/plugins.md
 * explains it line by line.
 *
 * Rules are lines `allow|deny PROTOCOL FROM TO`, with tcp, udp, sctp, icmp, a number or any for the protocol, and `any`, an IPv4
 * address or a range with a port or several behind it, as 10.0.0.0/8:1024-65535. What is neither IPv4 nor IPv6 passes; a rule with
 * an address is about IPv4 alone.
 */
import { type FrameHeaders, ipv4Range, type PluginFactory, PROTOCOL } from 'ringway/plugin';

const PROTOCOLS: Readonly<Record<string, number>> = { any: -1, ...PROTOCOL };
const PORT_MAX = 65_535;

/** A rule is so many numbers in one array: a loop over it is faster than one over objects. */
const RULE_WORDS = 10;
const FORM = 'rules of the form allow|deny PROTOCOL FROM TO, for example: allow tcp any 10.0.0.0/8:80-443';

/** Flows that were decided on and are remembered: their addresses, ports and protocol, and what was decided. */
const FLOWS = 4096;
const FLOW_WORDS = 8;

/** @throws Error with what is wrong */
function parsedEnd(text: string): { address: number; mask: number; first: number; last: number } {
  const [range = '', ports] = text.split(':');
  const { address, mask } = range === 'any' ? { address: 0, mask: 0 } : ipv4Range(range);
  if (ports === undefined) return { address, mask, first: -1, last: PORT_MAX };
  const [first = Number.NaN, last = first] = ports
    .split('-')
    .map((port) => (/^\d+$/.test(port) ? Number(port) : Number.NaN));
  if (!(first <= last && last <= PORT_MAX)) throw new Error(`${ports} are no ports`);
  return { address, mask, first, last };
}

function parsedRule(text: string): number[] {
  const [action, protocol = '', from, to, ...rest] = text.split(/\s+/);
  const number = /^\d{1,3}$/.test(protocol) ? Number(protocol) : PROTOCOLS[protocol];
  const isForm =
    (action === 'allow' || action === 'deny') && number !== undefined && from && to && rest.length === 0;
  if (!isForm) throw new Error(`${text} is no rule`);
  const source = parsedEnd(from);
  const destination = parsedEnd(to);
  return [
    action === 'allow' ? 1 : 0,
    number,
    source.address,
    source.mask,
    destination.address,
    destination.mask,
    source.first,
    source.last,
    destination.first,
    destination.last,
  ];
}

const factory: PluginFactory = (settings, context) => {
  const isAllowedByDefault = settings.choice('default', ['allow', 'deny'], 'deny') === 'allow';
  const parsed: number[] = [];
  for (const { number, text } of settings.lines('rules')) {
    try {
      parsed.push(...parsedRule(text));
    } catch (error) {
      settings.refuse('rules', `${FORM}; line ${number}: ${(error as Error).message}`);
    }
  }
  const rules = Int32Array.from(parsed);
  const rulesEnd = rules.length;
  const denied = context.dropReason('denied', 'sent a frame that a rule of the access list denies');
  const unlisted = context.dropReason('unlisted', 'sent a frame that no rule of the access list is about');
  const newFlows = context.counter('newFlows');
  const flows = new Int32Array(FLOWS * FLOW_WORDS).fill(-2);

  /** 1: allowed, 0: denied, -1: no rule is about it. */
  function ruleFor(
    protocol: number,
    source: number,
    destination: number,
    from: number,
    to: number,
    is4: boolean,
  ): number {
    for (let at = 0; at < rulesEnd; at += RULE_WORDS) {
      if (rules[at + 1] >= 0 && rules[at + 1] !== protocol) continue;
      if (is4) {
        if ((source & rules[at + 3]) !== rules[at + 2] || (destination & rules[at + 5]) !== rules[at + 4])
          continue;
      } else if ((rules[at + 3] | rules[at + 5]) !== 0) continue;
      if (from >= rules[at + 6] && from <= rules[at + 7] && to >= rules[at + 8] && to <= rules[at + 9])
        return rules[at];
    }
    return -1;
  }

  /** The same, of flows that were met before without looking at the rules. */
  function decisionOn(headers: FrameHeaders, frame: number): number {
    const version = headers.ipVersions[frame];
    if (version === 0) return 1;
    const protocol = headers.protocols[frame];
    const source = headers.ipv4Sources[frame];
    const destination = headers.ipv4Destinations[frame];
    const from = headers.l4Sources[frame];
    const to = headers.l4Destinations[frame];
    const hash = Math.imul(source ^ Math.imul(destination, 31) ^ (from << 16) ^ to ^ protocol, 0x9e3779b1);
    const at = (hash >>> 20) * FLOW_WORDS;
    const isKnown =
      flows[at] === source &&
      flows[at + 1] === destination &&
      flows[at + 2] === from &&
      flows[at + 3] === to &&
      flows[at + 4] === protocol &&
      flows[at + 5] === version;
    if (isKnown) return flows[at + 6];
    newFlows.add(1);
    const decision = ruleFor(protocol, source, destination, from, to, version === 4);
    flows[at] = source;
    flows[at + 1] = destination;
    flows[at + 2] = from;
    flows[at + 3] = to;
    flows[at + 4] = protocol;
    flows[at + 5] = version;
    flows[at + 6] = decision;
    return decision;
  }

  return {
    version: 1,
    reads: 'headers',
    decide(frames) {
      const { count, firsts, runEnds } = frames;
      // Most frames are of the flow of the one before: a run of them is decided on at once.
      for (let first = 0; first < count; first = runEnds[first]) {
        const decision = decisionOn(firsts, first);
        if (decision === 1 || (decision < 0 && isAllowedByDefault)) continue;
        const reason = decision === 0 ? denied : unlisted;
        for (let frame = first; frame < runEnds[first]; frame++) frames.drop(frame, reason);
      }
    },
  };
};

export default factory;
