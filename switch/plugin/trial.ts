/**
 * Tries a plugin before any frame meets it, in a thread of its own that is ended when it takes too long. Main thread.
 */
import { printable } from '../../src/host/printable.ts';
import { ConfigError, type SettingFault } from '../config/settings.ts';
import type { PluginBundle, PluginSpec } from './bundle.ts';
import type { PluginSettingFault } from './settings.ts';
import { answerOf, NoAnswerError } from './short-thread.ts';
import type { TrialInput, TrialResult } from './trial-run.ts';

const TRIAL_MS = 10_000;
const PROGRAM = new URL(
  import.meta.url.endsWith('.ts') ? './trial-thread.ts' : './trial-thread.js',
  import.meta.url,
);

/** Nobody finds it in the configuration. */
const KEPT = ', added at run time: `ringway run --no-restore` begins without what was';

let lastNumber = 0;

/** A plugin that cannot be: the message names its file, its settings and all that is wrong with them. */
export function refusedPlugin(
  { name, file, isKept }: PluginSpec,
  faults: readonly PluginSettingFault[],
): ConfigError {
  const told = faults.map((fault): { subject: string; fault: SettingFault } => ({
    subject: `plugin ${name} (${file}${isKept ? KEPT : ''})${fault.name === '' ? '' : `: ${fault.name}`}`,
    fault: {
      path: ['plugins', name, ...(fault.name === '' ? [] : [fault.name])],
      text: printable(fault.text),
    },
  }));
  return new ConfigError(told.map(({ subject, fault }) => `${subject}: ${fault.text}`).join('; '));
}

/** @throws ConfigError, also when it has not come to an end after `limitMs` */
export async function tryPlugin(spec: PluginSpec, limitMs = TRIAL_MS): Promise<PluginBundle> {
  const result = await resultOf(spec, limitMs);
  if ('faults' in result) throw refusedPlugin(spec, result.faults);
  return result.bundle;
}

async function resultOf(spec: PluginSpec, limitMs: number): Promise<TrialResult> {
  const input: TrialInput = { number: ++lastNumber, spec };
  try {
    return await answerOf(PROGRAM, input, { name: `trial of ${spec.name}`, limitMs, when: 'tried' });
  } catch (error) {
    if (error instanceof NoAnswerError) return { faults: [{ name: '', text: error.message }] };
    throw error;
  }
}
