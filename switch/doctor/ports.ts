/** The ports of the running switch, by what it reports of them. */
import { ADVICE, type AdviceName } from '../../src/advice.ts';
import type { PortReport } from '../control/report.ts';
import { type Finding, finding } from './findings.ts';

const WITH_REASON = (Object.keys(ADVICE) as AdviceName[]).filter((name) => 'reason' in ADVICE[name]);
/** What a guest's driver has agreed on that takes large segments, and one that sends them. */
const TAKES_SEGMENTS = 'NET_GUEST_TSO4';
const SENDS_SEGMENTS = 'NET_HOST_TSO4';

export function checkPorts(ports: readonly PortReport[]): Finding[] {
  return [...ports.flatMap(reasonFindings), ...mtuFindings(ports), ...offloadFindings(ports)];
}

function reasonFindings({ name, reason, queues }: PortReport): Finding[] {
  const reasons = [reason, ...queues.map((queue) => queue.reason)].filter(
    (text) => text !== null && text !== undefined,
  );
  return [...new Set(reasons)].map((text) => {
    const advice = WITH_REASON.find((each) => text.includes(reasonOf(each)));
    return advice === undefined
      ? finding('portReason', `port ${name}: ${text}`)
      : finding(advice, `port ${name}`);
  });
}

function reasonOf(name: AdviceName): string {
  const advice = ADVICE[name];
  return 'reason' in advice ? advice.reason : '';
}

function mtuFindings(ports: readonly PortReport[]): Finding[] {
  const mtus = ports.map(({ name, mtu }) => `${name} ${mtu ?? 'unknown'}`).join(', ');
  return ports.flatMap(({ name, drops }) =>
    drops.overMtu > 0 ? [finding('mtuMismatch', `port ${name}: ${drops.overMtu} frames; MTUs: ${mtus}`)] : [],
  );
}

function offloadFindings(ports: readonly PortReport[]): Finding[] {
  const guests = ports.flatMap(({ name, kind, state, details }) =>
    kind === 'vhost-user' && state === 'running' && Array.isArray(details.features)
      ? [{ name, features: details.features as readonly string[] }]
      : [],
  );
  return guests.flatMap(({ name, features }) => {
    const senders = guests.filter((other) => other.name !== name && other.features.includes(SENDS_SEGMENTS));
    if (features.includes(TAKES_SEGMENTS) || senders.length === 0) return [];
    return [
      finding(
        'offloadMismatch',
        `port ${name}; ${senders.map((sender) => sender.name).join(', ')} may send them`,
      ),
    ];
  });
}
