/**
 * Ringway for the testbed, as a user would start it: the command line in a process of its own with the default
 * settings but for its ports' offloads and its worker's processor. Owns the process; the caller owns the folder of its
 * sockets.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { askControl } from '../../switch/control/client.ts';
import type { PortReport } from '../../switch/control/report.ts';
import { type Child, startChild, TextLog } from '../../test/peers/index.ts';
import { signalProcess } from '../peers/contract.ts';
import { guestsOf, portOf, type RingwayGuestPort, socketOf } from './guest.ts';
import { ADDRESSES, DEVICE } from './measure.ts';
import type { GuestRow } from './rows.ts';

const PROGRAM = fileURLToPath(new URL('../../switch/cli/ringway.js', import.meta.url));
const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 10_000;
const ASK_AGAIN_MS = 50;

/** Ports for testpmd. */
export const TESTPMD_PORTS = ['testpmd-0', 'testpmd-1'] as const;

export type SwitchSettings = {
  /** By name, as in a configuration file. */
  readonly ports: Readonly<Record<string, object>>;
  /** Processor of its worker; null: not pinned. */
  readonly cpu: number | null;
};

export class SwitchProcess {
  readonly #child: Child;
  readonly #errors: TextLog;
  readonly #control: string;

  private constructor(child: Child, control: string) {
    this.#child = child;
    this.#control = control;
    this.#errors = new TextLog(child.process.stderr);
    child.process.stdout.resume();
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Resolves when it answers. */
  static async start(folder: string, { ports, cpu }: SwitchSettings): Promise<SwitchProcess> {
    const control = join(folder, 'ringway.sock');
    const config = join(folder, 'ringway.json');
    const cpus = cpu === null ? {} : { cpus: [cpu] };
    await writeFile(config, JSON.stringify({ ports, control, ...cpus }));
    const args = [PROGRAM, 'run', '--config', config, '--log-level', 'warn'];
    const started = new SwitchProcess(await startChild(process.execPath, args), control);
    try {
      await started.#untilAnswers();
    } catch (error) {
      await started.stop();
      throw error;
    }
    return started;
  }

  /** Also when it was paused. */
  async stop(): Promise<void> {
    signalProcess(this.#child.pid, 'SIGCONT');
    if (!this.#child.hasExited()) this.#child.process.kill('SIGTERM');
    const stopped = await Promise.race([
      this.#child.exited.then(() => true),
      delay(STOP_TIMEOUT_MS, false, { ref: false }),
    ]);
    if (!stopped) this.#child.kill();
    await this.#child.exited;
  }

  async #untilAnswers(): Promise<void> {
    const deadlineMs = performance.now() + START_TIMEOUT_MS;
    while (!(await this.#answers())) {
      if (this.#child.hasExited() || performance.now() > deadlineMs) {
        const lines = this.#errors.text.trim().split('\n');
        throw new Error(`Ringway did not start: ${lines.at(-1)}`);
      }
      await delay(ASK_AGAIN_MS);
    }
  }

  async #answers(): Promise<boolean> {
    try {
      return (await askControl<PortReport[]>(this.#control, '/v1/ports')).length > 0;
    } catch {
      return false;
    }
  }
}

/** Settings of a row's ports by name; those of a namespace if this machine is to receive in it. */
export function rowPorts(
  row: GuestRow,
  kind: RingwayGuestPort,
  folder: string,
  namespace: string | null,
): Record<string, object> {
  const offloads = kind === 'unix' ? {} : { offloads: row.offloads };
  const names = guestsOf(row).map((guest) => portOf(kind, guest));
  const guestPorts = socketPorts(folder, names, { kind, ...offloads });
  if (namespace === null) return guestPorts;
  const addresses = [`${ADDRESSES[1]}/24`];
  return { ...guestPorts, host: { kind: 'tap', interface: DEVICE, namespace, addresses, ...offloads } };
}

export function testpmdPorts(folder: string): Record<string, object> {
  return socketPorts(folder, TESTPMD_PORTS, { kind: 'vhost-user' });
}

function socketPorts(folder: string, names: readonly string[], settings: object): Record<string, object> {
  return Object.fromEntries(names.map((name) => [name, { ...settings, socket: socketOf(folder, name) }]));
}
