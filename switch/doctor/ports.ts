/** The ports of the running switch and its plugins, by what it reports of them. */
import { adviceOnReason } from '../../src/advice-on-reasons.ts';
import { queueStoppedText } from '../../src/port/contract.ts';
import type { PortReport } from '../control/report.ts';
import type { PluginReport } from '../plugin/plugin-table.ts';
import { type Finding, finding } from './findings.ts';

/** What a guest's driver has agreed on that takes large segments, and one that sends them. */
const TAKES_SEGMENTS = 'NET_GUEST_TSO4';
const SENDS_SEGMENTS = 'NET_HOST_TSO4';

export function checkPorts(ports: readonly PortReport[]): Finding[] {
  return [...ports.flatMap(reasonFindings), ...mtuFindings(ports), ...offloadFindings(ports)];
}

export function checkPlugins(plugins: readonly PluginReport[]): Finding[] {
  return plugins.flatMap(({ name, state, reason }) =>
    state === 'failed' ? [finding('pluginFailed', `plugin ${name}: ${reason ?? 'no reason'}`)] : [],
  );
}

/** One for each advice: what stopped one queue stopped the others as well. */
function reasonFindings({ name, kind, reason, queues }: PortReport): Finding[] {
  const ofQueues = queues.flatMap((queue) =>
    queue.reason === null || reason?.includes(queue.reason)
      ? []
      : [queueStoppedText(queue.index, queue.reason)],
  );
  const findings = [...(reason === null ? [] : [reason]), ...ofQueues].map((text) =>
    finding(adviceOnReason(kind, text), `port ${name}: ${text}`),
  );
  return findings.filter((found, i) => findings.findIndex((other) => other.name === found.name) === i);
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
