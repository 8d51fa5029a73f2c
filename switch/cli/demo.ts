/** `ringway demo`: the switch between two embedded guests, to see it work without a virtual machine. */
import type { Command } from 'commander';
import { resolveConfig, type SwitchConfig } from '../config/resolve.ts';
import type { PortReport } from '../control/report.ts';
import type { RunningSwitch } from '../demo/demo.ts';
import { TEST_FRAME_BYTES_MAX, TEST_FRAME_BYTES_MIN } from '../demo/test-frame.ts';
import { createLogger } from '../log.ts';
import { CliError, EXIT } from './cli-error.ts';
import { settingsOf } from './options.ts';

type Options = { readonly seconds: string; readonly frameSize: string; readonly json?: true };

const SECONDS_MAX = 86_400;

export function addDemo(program: Command): void {
  program
    .command('demo')
    .description('Send frames between two built-in guests through the switch, and check every byte.')
    .option('--seconds <n>', 'how long', '10')
    .option('--frame-size <bytes>', 'bytes of each frame without FCS', String(TEST_FRAME_BYTES_MIN))
    .option('--json', 'print only the result, as JSON')
    .action(async (options: Options) => {
      const seconds = wholeNumber('--seconds', options.seconds, 1, SECONDS_MAX);
      const frameSizeBytes = wholeNumber(
        '--frame-size',
        options.frameSize,
        TEST_FRAME_BYTES_MIN,
        TEST_FRAME_BYTES_MAX,
      );
      const { runDemo } = await import('../demo/demo.ts');
      const exitCode = await runDemo({ seconds, frameSizeBytes, json: options.json ?? false, startSwitch });
      // It has said why itself.
      if (exitCode !== EXIT.done) throw new CliError('', exitCode);
    });
}

async function startSwitch(sockets: { a: string; b: string }): Promise<RunningSwitch> {
  const { Switch } = await import('../switch.ts');
  const running = await Switch.start(demoConfig(sockets), createLogger('warn'));
  return {
    failed: running.failed,
    portCounters: async () => countersOf(running.ports()),
    stop: () => running.stop(),
  };
}

function demoConfig(sockets: { a: string; b: string }): SwitchConfig {
  return resolveConfig([settingsOf({ port: [`a=${sockets.a}`, `b=${sockets.b}`], control: 'none' })]);
}

function countersOf(ports: readonly PortReport[]): { forwardedFrames: number; droppedFrames: number } {
  const drops = ports.flatMap((port) => Object.values(port.drops));
  return {
    forwardedFrames: ports.reduce((sum, port) => sum + port.counters.egressFrames, 0),
    droppedFrames: drops.reduce((sum, count) => sum + count, 0),
  };
}

function wholeNumber(option: string, text: string, min: number, max: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new CliError(`${option}: ${text} is not allowed (${min} to ${max})`, EXIT.usage);
}
