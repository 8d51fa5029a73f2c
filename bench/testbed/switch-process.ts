/**
 * Ringway for the testbed, as a user would start it: the command line in a process of its own with the default
 * settings, one worker that is not pinned. Owns the process; the caller owns the folder of its sockets.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { askControl } from '../../switch/control/client.ts';
import type { PortReport } from '../../switch/control/report.ts';
import { type Child, startChild, TextLog } from '../../test/peers/index.ts';
import { GUEST_NAMES, portOf, socketOf } from './guest.ts';
import type { GuestRow } from './rows.ts';

const PROGRAM = fileURLToPath(new URL('../../switch/cli/ringway.js', import.meta.url));
const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 10_000;
const ASK_AGAIN_MS = 50;

/** Ports for testpmd. */
export const TESTPMD_PORTS = ['testpmd-0', 'testpmd-1'] as const;

export type PortNeeds = Exclude<GuestRow['attachment'], 'tap'> | 'testpmd';

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

  /** Starts it with the ports that are needed; resolves when it answers. */
  static async start(folder: string, needs: PortNeeds): Promise<SwitchProcess> {
    const control = join(folder, 'ringway.sock');
    const config = join(folder, 'ringway.json');
    await writeFile(config, JSON.stringify({ ports: portSettings(folder, needs), control }));
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

  async stop(): Promise<void> {
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

function portSettings(folder: string, needs: PortNeeds): Record<string, object> {
  const ports = needs === 'testpmd' ? TESTPMD_PORTS : GUEST_NAMES.map((guest) => portOf(needs, guest));
  const kind = needs === 'unix' ? 'unix' : 'vhost-user';
  return Object.fromEntries(ports.map((port) => [port, { kind, socket: socketOf(folder, port) }]));
}
