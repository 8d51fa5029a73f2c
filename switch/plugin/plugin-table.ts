/**
 * The plugins of the switch: tried, loaded by every worker, reloaded, taken out when they fail, and reported. What is asked for is
 * done one after the other. A change comes about in all workers or in none: they load what is new beside what is in use, and
 * only when each has it they use it, each between two bursts. Main thread.
 */

import { ConfigError } from '../config/settings.ts';
import type { Logger } from '../log.ts';
import { LogRate } from '../log-rate.ts';
import {
  COUNT_MIRRORED,
  COUNT_NOWHERE,
  COUNT_REDIRECTED,
  COUNT_SEEN,
  COUNT_UNSAID,
  COUNTS_FIRST,
  countsOf,
  isSamePlugin,
  type OnFault,
  type PluginBundle,
  type PluginSpec,
} from './bundle.ts';
import { refusedPlugin, tryPlugin } from './trial.ts';
import type { PluginOrder, PluginReport as WorkerReport } from './worker-plugins.ts';

/** Keys that a plugin notes at most. */
const NOTES_MAX = 10_000;

/** The workers, as far as plugins need them. */
export type PluginWorkers = {
  readonly workerCount: number;
  /** Resolves when every worker has done it; what they report of it has come by then. */
  orderPlugins(order: PluginOrder): Promise<void>;
};

/** What is told of a plugin, as `ringway plugin list --json` has it. */
export type PluginReport = {
  readonly name: string;
  readonly file: string;
  readonly settings: PluginSpec['settings'];
  /** failed: it was taken out, and what is to be decided by it is dropped or passes, as `onFault` says. */
  readonly state: 'running' | 'failed';
  /** Why it failed. */
  readonly reason: string | null;
  readonly onFault: OnFault;
  readonly reads: 'ethernet' | 'headers';
  /** How often its code was exchanged. */
  readonly reloads: number;
  /** Frames, of all workers together, since it was added. */
  readonly frames: number;
  readonly redirected: number;
  readonly mirrored: number;
  /** Dropped because they were redirected to a port that was not there. */
  readonly nowhere: number;
  /** Dropped by the plugin's reasons. */
  readonly drops: readonly { readonly name: string; readonly text: string; readonly frames: number }[];
  /** Its own counters. */
  readonly counters: Readonly<Record<string, number>>;
  /** Notes and log lines that were left out because they were too many. */
  readonly unsaid: number;
  readonly noteCount: number;
};

export type PluginNotes = readonly { readonly key: string; readonly value: string }[];

/** What was asked for is not there. */
export class NoSuchPluginError extends Error {
  override name = 'NoSuchPluginError';
  constructor(plugin: string) {
    super(`there is no plugin ${plugin}`);
  }
}

class Entry {
  bundle: PluginBundle;
  counts: SharedArrayBuffer;
  /** What earlier code of it counted, by name. */
  before: ReadonlyMap<string, number> = new Map();
  reason: string | null = null;
  reloads = 0;
  readonly notes = new Map<string, string>();
  readonly rate: LogRate;

  constructor(bundle: PluginBundle, counts: SharedArrayBuffer, rate: LogRate) {
    this.bundle = bundle;
    this.counts = counts;
    this.rate = rate;
  }
}

export class PluginTable {
  readonly #workers: PluginWorkers;
  readonly #log: Logger;
  /** In the order in which frames pass them. */
  #entries = new Map<string, Entry>();
  /** What workers refused to load, by the bundle's number. */
  readonly #refusals = new Map<number, string>();
  /** What is asked for, one after the other. Never rejects. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(workers: PluginWorkers, log: Logger) {
    this.#workers = workers;
    this.#log = log;
  }

  /**
   * Once, before any other. Workers have none by themselves, so where there are none nothing waits for them, who may still load
   * their program. @throws ConfigError, which names all that cannot be; then there are none
   */
  start(specs: readonly PluginSpec[]): Promise<void> {
    if (specs.length === 0) return Promise.resolve();
    return this.#inTurn(async () => {
      const tried = await Promise.allSettled(specs.map((spec) => tryPlugin(spec)));
      throwAll(tried);
      const bundles = tried.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
      for (const bundle of bundles) this.#enter(bundle, await this.#loaded(bundle));
      await this.#use();
    });
  }

  has(name: string): boolean {
    return this.#entries.has(name);
  }

  get names(): readonly string[] {
    return [...this.#entries.keys()];
  }

  /** @throws ConfigError when it cannot be, or is there already */
  add(spec: PluginSpec): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#entries.has(spec.name)) throw new ConfigError(`plugin ${spec.name} is there already`);
      const bundle = await tryPlugin(spec);
      this.#enter(bundle, await this.#loaded(bundle));
      await this.#use();
      this.#log.info({ plugin: spec.name }, 'is there');
    });
  }

  /**
   * Exchanges the code of these, or of all, for what their files have now; no frame is lost or passes undecided. Where one cannot
   * be, the others are not exchanged either. @throws ConfigError, NoSuchPluginError
   */
  reload(names: readonly string[] = this.names): Promise<void> {
    return this.#inTurn(async () => {
      const entries = names.map((name) => this.#entry(name));
      const tried = await Promise.allSettled(entries.map(({ bundle }) => tryPlugin(bundle.spec)));
      throwAll(tried);
      const loaded: { entry: Entry; bundle: PluginBundle; counts: SharedArrayBuffer }[] = [];
      for (const [i, entry] of entries.entries()) {
        const result = tried[i];
        if (result.status === 'fulfilled')
          loaded.push({ entry, bundle: result.value, counts: await this.#loaded(result.value) });
      }
      const old = loaded.map(({ entry }) => ({ ...entry }));
      for (const { entry, bundle, counts } of loaded) {
        entry.bundle = bundle;
        entry.counts = counts;
        entry.reason = null;
        entry.reloads++;
      }
      await this.#use();
      // Only now nobody counts there any more.
      for (const [i, { entry }] of loaded.entries())
        entry.before = countedBy(old[i], this.#workers.workerCount);
      this.#log.info({ plugins: names }, 'have new code');
    });
  }

  /** @throws NoSuchPluginError */
  remove(name: string): Promise<void> {
    return this.#inTurn(async () => {
      this.#entry(name);
      this.#entries.delete(name);
      await this.#use();
      this.#log.info({ plugin: name }, 'is gone');
    });
  }

  /**
   * Has these be the plugins from now on, in this order. Those that are there already with the same settings go on as they
   * are; no frame passes undecided. @throws ConfigError with all that cannot be: then all is as it was
   */
  replaceAll(specs: readonly PluginSpec[]): Promise<void> {
    return this.#inTurn(async () => {
      const olds = specs.map((spec) => this.#entries.get(spec.name));
      const isSame = specs.map((spec, i) => olds[i] !== undefined && isSamePlugin(olds[i].bundle.spec, spec));
      const tried = await Promise.allSettled(
        specs.filter((_, i) => !isSame[i]).map((spec) => tryPlugin(spec)),
      );
      throwAll(tried);
      const bundles = tried.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
      const entries = new Map<string, Entry>();
      for (const [i, { name }] of specs.entries()) {
        const old = olds[i];
        const bundle = isSame[i] ? undefined : bundles.shift();
        const entry = bundle === undefined ? old : this.#entryOf(bundle, await this.#loaded(bundle));
        if (entry !== undefined) entries.set(name, entry);
      }
      this.#entries = entries;
      await this.#use();
      // Only now nobody counts in what was before.
      for (const [i, { name }] of specs.entries()) {
        const [old, entry] = [olds[i], entries.get(name)];
        if (old !== undefined && entry !== undefined && old !== entry)
          entry.before = countedBy(old, this.#workers.workerCount);
      }
      this.#log.info({ plugins: this.names }, 'are the plugins now');
    });
  }

  /** Of those that are not there with the same settings. @throws ConfigError with all that cannot be */
  async try(specs: readonly PluginSpec[]): Promise<void> {
    const fresh = specs.filter((spec) => {
      const old = this.#entries.get(spec.name);
      return old === undefined || !isSamePlugin(old.bundle.spec, spec);
    });
    throwAll(await Promise.allSettled(fresh.map((spec) => tryPlugin(spec))));
  }

  get specs(): readonly PluginSpec[] {
    return [...this.#entries.values()].map(({ bundle }) => bundle.spec);
  }

  /** In their order, with why each was taken out. */
  get loaded(): { readonly bundle: PluginBundle; readonly reason: string | null }[] {
    return [...this.#entries.values()].map(({ bundle, reason }) => ({ bundle, reason }));
  }

  /** What a worker tells. */
  heard(report: WorkerReport): void {
    if (report.kind === 'pluginRefused') {
      this.#refusals.set(report.number, report.reason);
      return;
    }
    const entry = [...this.#entries.values()].find(({ bundle }) => bundle.number === report.number);
    if (entry === undefined) return;
    if (report.kind === 'pluginFailed') this.#failed(entry, report.reason);
    else this.#said(entry, report);
  }

  /** The seconds since the start. */
  tick(seconds: number): void {
    if (this.#entries.size > 0) void this.#workers.orderPlugins({ kind: 'tickPlugins', seconds });
  }

  /** The name of the plugin of that number. */
  nameOf(number: number): string {
    const entry = [...this.#entries.values()].find(({ bundle }) => bundle.number === number);
    return entry?.bundle.spec.name ?? `#${number}`;
  }

  reports(): PluginReport[] {
    return [...this.#entries.values()].map((entry) => this.#reportOf(entry));
  }

  /** @throws NoSuchPluginError */
  notes(name: string): PluginNotes {
    return [...this.#entry(name).notes].map(([key, value]) => ({ key, value }));
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work);
    this.#last = done.catch(() => {});
    return done;
  }

  #entry(name: string): Entry {
    const entry = this.#entries.get(name);
    if (entry === undefined) throw new NoSuchPluginError(name);
    return entry;
  }

  #enter(bundle: PluginBundle, counts: SharedArrayBuffer): void {
    this.#entries.set(bundle.spec.name, this.#entryOf(bundle, counts));
  }

  #entryOf(bundle: PluginBundle, counts: SharedArrayBuffer): Entry {
    const plugin = bundle.spec.name;
    return new Entry(bundle, counts, new LogRate((level, message) => this.#log[level]({ plugin }, message)));
  }

  /** Every worker has it. Answers what they will count into. @throws ConfigError; then none has it for long */
  async #loaded(bundle: PluginBundle): Promise<SharedArrayBuffer> {
    const counts = new SharedArrayBuffer(countsOf(bundle) * 8 * this.#workers.workerCount);
    await this.#workers.orderPlugins({ kind: 'loadPlugin', bundle, counts });
    const refusal = this.#refusals.get(bundle.number);
    if (refusal === undefined) return counts;
    this.#refusals.delete(bundle.number);
    await this.#use();
    throw refusedPlugin(bundle.spec, [{ name: '', text: refusal }]);
  }

  async #use(): Promise<void> {
    const numbers = [...this.#entries.values()].map(({ bundle }) => bundle.number);
    await this.#workers.orderPlugins({ kind: 'usePlugins', numbers });
  }

  #failed(entry: Entry, reason: string): void {
    if (entry.reason !== null) return;
    entry.reason = reason;
    const { number, spec, onFault } = entry.bundle;
    const fate = onFault === 'drop' ? 'what it was to decide on is dropped' : 'frames pass without it';
    this.#log.error({ plugin: spec.name }, `was taken out, and ${fate}: ${reason}`);
    void this.#workers.orderPlugins({ kind: 'failPlugin', number });
  }

  #said({ notes, rate }: Entry, report: WorkerReport & { kind: 'pluginSaid' }): void {
    for (const line of report.lines) rate.note('info', line);
    for (const [key, value] of report.notes) {
      if (value === null) notes.delete(key);
      else if (notes.size < NOTES_MAX || notes.has(key)) notes.set(key, value);
    }
  }

  #reportOf(entry: Entry): PluginReport {
    const { bundle, reason, reloads, notes } = entry;
    const { spec, onFault, readsHeaders, drops, counters } = bundle;
    const counted = countedBy(entry, this.#workers.workerCount);
    const of = (name: string): number => counted.get(name) ?? 0;
    return {
      name: spec.name,
      file: spec.file,
      settings: spec.settings,
      state: reason === null ? 'running' : 'failed',
      reason,
      onFault,
      reads: readsHeaders ? 'headers' : 'ethernet',
      reloads,
      frames: of('frames'),
      redirected: of('redirected'),
      mirrored: of('mirrored'),
      nowhere: of('nowhere'),
      drops: drops.map(({ name, text }) => ({ name, text, frames: of(`drop ${name}`) })),
      counters: Object.fromEntries(counters.map((name) => [name, of(`counter ${name}`)])),
      unsaid: of('unsaid'),
      noteCount: notes.size,
    };
  }
}

/** By name, of all workers and of earlier code. */
function countedBy(
  { bundle, counts, before }: Pick<Entry, 'bundle' | 'counts' | 'before'>,
  workerCount: number,
): Map<string, number> {
  const { drops, counters } = bundle;
  const size = countsOf(bundle);
  const words = new Float64Array(counts);
  const named: [string, number][] = [
    ['frames', COUNT_SEEN],
    ['redirected', COUNT_REDIRECTED],
    ['mirrored', COUNT_MIRRORED],
    ['nowhere', COUNT_NOWHERE],
    ['unsaid', COUNT_UNSAID],
    ...drops.map(({ name }, i): [string, number] => [`drop ${name}`, COUNTS_FIRST + i]),
    ...counters.map((name, i): [string, number] => [`counter ${name}`, COUNTS_FIRST + drops.length + i]),
  ];
  const sums = new Map(before);
  for (const [name, at] of named) {
    let sum = before.get(name) ?? 0;
    for (let worker = 0; worker < workerCount; worker++) sum += words[worker * size + at];
    sums.set(name, sum);
  }
  return sums;
}

/** One error with all that cannot be. @throws */
function throwAll(results: readonly PromiseSettledResult<unknown>[]): void {
  const reasons = results.flatMap((result) => (result.status === 'rejected' ? [result.reason as Error] : []));
  const bug = reasons.find((reason) => !(reason instanceof ConfigError));
  if (bug !== undefined) throw bug;
  if (reasons.length > 0) throw new ConfigError(reasons.map(({ message }) => message).join('; '));
}
