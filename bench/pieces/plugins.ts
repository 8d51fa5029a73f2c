/** Plugins in a switch without threads (world.ts): tried and loaded as a worker does it, but all in this thread. */
import { fileURLToPath } from 'node:url';
import type { Forwarder } from '../../switch/l2/forwarder.ts';
import type { ForwardingPort } from '../../switch/l2/forwarding-port.ts';
import { BUDGET_US_DEFAULT, countsOf, type PluginSpec } from '../../switch/plugin/bundle.ts';
import { NamedPorts } from '../../switch/plugin/instance.ts';
import { runTrial } from '../../switch/plugin/trial-run.ts';
import { instanceOf } from '../../switch/plugin/worker-plugins.ts';

const RULES = 100;

/** EtherType and a UDP packet from 10.0.0.1:1024 to 10.0.1.1:53. */
export const UDP_PACKET: readonly number[] = [
  ...[8, 0, 0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 1, 1],
  ...[4, 0, 0, 53, 0, 30, 0, 0],
];

const FILES = {
  empty: new URL('./empty-plugin.ts', import.meta.url),
  'access list': new URL('../../switch/plugin/examples/access-list.ts', import.meta.url),
};

/** Has the frames of a port pass it. */
export function plug(forwarder: Forwarder, port: ForwardingPort, which: keyof typeof FILES): void {
  const denied = Array.from({ length: RULES - 1 }, (_, i) => `deny tcp 10.1.0.0/16 any:${i + 1}`);
  const rules = [...denied, 'allow udp 10.0.0.0/24 10.0.1.0/24:53'].join('\n');
  const spec: PluginSpec = {
    name: which,
    file: fileURLToPath(FILES[which]),
    settings: which === 'empty' ? {} : { rules: 'rules' },
    folder: '/',
    onFault: null,
    budgetUs: BUDGET_US_DEFAULT,
  };
  const result = runTrial({ number: 1, spec }, new Map([['/rules', rules]]));
  if ('faults' in result) throw new Error(result.faults.map(({ text }) => text).join('; '));
  const stage = forwarder.addPlugins(new Int32Array(2), ({ name }, reason) => {
    throw new Error(`${name}: ${reason}`);
  });
  const ports = new NamedPorts();
  // A name of its own: V8 keeps what it compiled of the trial.
  const bundle = { ...result.bundle, number: 2 };
  const instance = instanceOf(bundle, ports, new Float64Array(countsOf(bundle)));
  stage.setRun(port, ports.add(port.id, 'port0'), [instance]);
}
