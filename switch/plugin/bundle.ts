/** A plugin that was tried, as the main thread hands it to the workers: plain data. */
import { isDeepStrictEqual } from 'node:util';
import type { PluginModules } from './modules.ts';
import type { PluginSettingValues } from './settings.ts';

/** What becomes of frames once a plugin was taken out. */
export type OnFault = 'drop' | 'pass';

/** A plugin as it is configured. */
export type PluginSpec = {
  readonly name: string;
  /** Absolute. */
  readonly file: string;
  readonly settings: PluginSettingValues;
  /** Paths in its settings are relative to this. */
  readonly folder: string;
  /** Null: as the plugin says itself. */
  readonly onFault: OnFault | null;
  /** Microseconds that a call for a burst may take, again and again. */
  readonly budgetUs: number;
  /** It was added at run time, and the file of that names it (../kept-ports.ts). */
  readonly isKept?: true;
};

/** Whether they are configured alike. */
export function isSamePlugin(a: PluginSpec, b: PluginSpec): boolean {
  return isDeepStrictEqual({ ...a, isKept: null }, { ...b, isKept: null });
}

export type PluginBundle = {
  /** Of this load; no other has it. */
  readonly number: number;
  readonly spec: PluginSpec;
  readonly modules: PluginModules;
  /** Contents of files that its settings name, by absolute path. */
  readonly texts: readonly (readonly [path: string, text: string])[];
  readonly drops: readonly { readonly name: string; readonly text: string }[];
  readonly counters: readonly string[];
  readonly readsHeaders: boolean;
  readonly onFault: OnFault;
  readonly hasTick: boolean;
};

/** Doubles of a worker's counters of one plugin, before those for its reasons and its own counters. */
export const COUNT_SEEN = 0;
export const COUNT_REDIRECTED = 1;
export const COUNT_MIRRORED = 2;
/** Redirected to a port that was not there, and dropped. */
export const COUNT_NOWHERE = 3;
/** Notes and log lines that were too many. */
export const COUNT_UNSAID = 4;
export const COUNTS_FIRST = 5;

export const BUDGET_US_DEFAULT = 1000;

export function countsOf({ drops, counters }: Pick<PluginBundle, 'drops' | 'counters'>): number {
  return COUNTS_FIRST + drops.length + counters.length;
}
