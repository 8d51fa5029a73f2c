/**
 * A plugin in one thread: what its factory made, checked, with what it declared. In a worker it counts into the worker's part of
 * the plugin's counters; what it notes and logs waits here until the worker tells the main thread (worker-plugins.ts).
 */
import { COUNT_UNSAID, COUNTS_FIRST, type OnFault } from './bundle.ts';
import {
  type Counter,
  type DropReason,
  INTERFACE_VERSION,
  type Plugin,
  type PluginContext,
  type PluginPort,
} from './interface.ts';
import { withoutRooms } from './modules.ts';

/** Notes and lines of a second that are told. */
const SAYINGS_MAX = 256;
const NAME = /^[A-Za-z][A-Za-z0-9_-]{0,40}$/;
const NAME_ALLOWED = 'a name has 1 to 41 letters, digits, dashes and underscores';

/** What a plugin has to be and is not; the message says it as one line. */
export class PluginError extends Error {
  override name = 'PluginError';
}

/** A port as plugins know it, by its name for good. */
export class NamedPort implements PluginPort {
  readonly name: string;
  id = -1;

  constructor(name: string) {
    this.name = name;
  }
}

/** The ports of a thread by name and by id. */
export class NamedPorts {
  readonly #byName = new Map<string, NamedPort>();
  readonly #byId: (NamedPort | undefined)[] = [];

  named(name: string): NamedPort {
    const port = this.#byName.get(name) ?? new NamedPort(name);
    this.#byName.set(name, port);
    return port;
  }

  withId(id: number): NamedPort | undefined {
    return this.#byId[id];
  }

  get all(): NamedPort[] {
    return this.#byId.filter((port) => port !== undefined);
  }

  add(id: number, name: string): NamedPort {
    const port = this.named(name);
    port.id = id;
    while (this.#byId.length <= id) this.#byId.push(undefined);
    this.#byId[id] = port;
    return port;
  }

  remove(id: number): NamedPort | undefined {
    const port = this.#byId[id];
    this.#byId[id] = undefined;
    if (port !== undefined) port.id = -1;
    return port;
  }
}

/** What a factory declares. In the trial it is gathered; in a worker it has to be the same. */
export class Declared {
  readonly drops: { readonly name: string; readonly text: string }[] = [];
  readonly counters: string[] = [];
  isClosed = false;

  addDrop(name: string, text: string): number {
    this.#check(
      name,
      this.drops.some((drop) => drop.name === name),
    );
    this.drops.push({ name, text });
    return this.drops.length - 1;
  }

  addCounter(name: string): number {
    this.#check(name, this.counters.includes(name));
    this.counters.push(name);
    return this.counters.length - 1;
  }

  #check(name: string, isThere: boolean): void {
    if (this.isClosed) throw new PluginError(`${name} is declared outside of the factory`);
    if (!NAME.test(name)) throw new PluginError(`${name} cannot be declared (${NAME_ALLOWED})`);
    if (isThere) throw new PluginError(`${name} is declared twice`);
  }
}

/** What waits to be told. */
export type Sayings = {
  readonly lines: readonly string[];
  readonly notes: readonly (readonly [key: string, value: string | null])[];
};

class WorkerCounter implements Counter {
  declare private readonly counts: Float64Array;
  declare private readonly at: number;

  constructor(counts: Float64Array, at: number) {
    this.counts = counts;
    this.at = at;
  }

  add(count: number): void {
    this.counts[this.at] += count;
  }
}

export class Context implements PluginContext {
  readonly name: string;
  readonly #ports: NamedPorts;
  readonly #declared: Declared;
  /** How many reasons it has, where that is known: counters stand behind theirs. */
  readonly #dropCount: number;
  readonly #counts: Float64Array;
  #lines: string[] = [];
  #notes: [string, string | null][] = [];

  constructor(name: string, ports: NamedPorts, declared: Declared, dropCount: number, counts: Float64Array) {
    this.name = name;
    this.#ports = ports;
    this.#declared = declared;
    this.#dropCount = dropCount;
    this.#counts = counts;
  }

  dropReason(name: string, text: string): DropReason {
    return { name, index: this.#declared.addDrop(name, String(text)) };
  }

  counter(name: string): Counter {
    const at = COUNTS_FIRST + this.#dropCount + this.#declared.addCounter(name);
    return new WorkerCounter(this.#counts, at);
  }

  port(name: string): PluginPort {
    return this.#ports.named(String(name));
  }

  log(text: string): void {
    if (this.#hasRoom()) this.#lines.push(String(text));
  }

  note(key: string, value: string | null): void {
    if (this.#hasRoom()) this.#notes.push([String(key), value === null ? null : String(value)]);
  }

  /** Null: nothing waits. */
  takeSayings(): Sayings | null {
    if (this.#lines.length + this.#notes.length === 0) return null;
    const sayings = { lines: this.#lines, notes: this.#notes };
    this.#lines = [];
    this.#notes = [];
    return sayings;
  }

  #hasRoom(): boolean {
    if (this.#lines.length + this.#notes.length < SAYINGS_MAX) return true;
    this.#counts[COUNT_UNSAID] += 1;
    return false;
  }
}

/**
 * What `decide` or a hook answered, which is to be nothing: an object is that of an async function or a generator, which has
 * not decided yet, and what it says later would be said of other frames. @throws PluginError
 */
export function checkAnswer(of: 'decide' | 'portAdded' | 'portRemoved' | 'tick', answer: unknown): void {
  if (typeof answer !== 'object' || answer === null) return;
  // What becomes of it nobody asks.
  if (answer instanceof Promise) answer.catch(() => {});
  throw new PluginError(
    `its ${of} answers an object: it has to be done when it returns, and may be no async function and no generator`,
  );
}

/** What a factory answered, if it is a plugin. @throws PluginError, which says what is wrong */
export function checkedPlugin(value: unknown): Plugin {
  if (value instanceof Promise) {
    value.catch(() => {});
    throw new PluginError('its factory answers a promise: it may be no async function');
  }
  if (typeof value !== 'object' || value === null) throw new PluginError('its factory answers no object');
  const plugin = value as Plugin;
  const { version, decide, reads, onFault } = plugin as Readonly<Record<keyof Plugin, unknown>>;
  if (version !== INTERFACE_VERSION) {
    const which =
      version === undefined
        ? 'names no version of the interface'
        : `is for version ${version} of the interface`;
    throw new PluginError(`it ${which}, and this Ringway has version ${INTERFACE_VERSION}`);
  }
  if (typeof decide !== 'function') throw new PluginError('it has no function decide');
  for (const hook of ['portAdded', 'portRemoved', 'tick'] as const) {
    if (plugin[hook] !== undefined && typeof plugin[hook] !== 'function')
      throw new PluginError(`its ${hook} is no function`);
  }
  if (reads !== undefined && reads !== 'ethernet' && reads !== 'headers')
    throw new PluginError(`its reads is ${String(reads)} (ethernet or headers)`);
  if (onFault !== undefined && onFault !== 'drop' && onFault !== 'pass')
    throw new PluginError(`its onFault is ${String(onFault)} (drop or pass)`);
  return plugin;
}

/** Of a plugin in a worker, what the stage looks at. */
export class PluginInstance {
  declare readonly number: number;
  readonly name: string;
  readonly plugin: Plugin;
  readonly context: Context;
  readonly readsHeaders: boolean;
  readonly onFault: OnFault;
  declare readonly reasonCount: number;
  readonly counts: Float64Array;
  readonly budgetUs: number;
  isFailed = false;
  /** Calls until one is measured again, and how many that were took too long, one after the other. */
  untilMeasured = 1;
  slowInARow = 0;

  constructor(
    plugin: Plugin,
    context: Context,
    counts: Float64Array,
    of: {
      readonly number: number;
      readonly readsHeaders: boolean;
      readonly onFault: OnFault;
      readonly reasonCount: number;
      readonly budgetUs: number;
    },
  ) {
    this.plugin = plugin;
    this.name = context.name;
    this.context = context;
    this.counts = counts;
    this.number = of.number;
    this.readsHeaders = of.readsHeaders;
    this.onFault = of.onFault;
    this.reasonCount = of.reasonCount;
    this.budgetUs = of.budgetUs;
  }
}

/** Of a reason; longer ones are cut. */
const REASON_LENGTH_MAX = 1000;

/** One line, with the place in the plugin's file. Whatever was thrown, and whatever happens when it is asked for its text. */
export function reasonOf(error: unknown): string {
  try {
    const text = textOf(error);
    return text.length > REASON_LENGTH_MAX ? `${text.slice(0, REASON_LENGTH_MAX)}…` : text;
  } catch {
    return 'it threw what cannot be shown';
  }
}

function textOf(error: unknown): string {
  if (error instanceof PluginError) return error.message;
  if (!(error instanceof Error)) return `it threw ${String(error)}`;
  const place =
    /\((?:file:\/\/)?(\/ringway-plugin@\d+\/[^)]*)\)|at (?:file:\/\/)?(\/ringway-plugin@\d+\/\S*)/.exec(
      error.stack ?? '',
    );
  const at = place === null ? '' : ` (${withoutRooms(place[1] ?? place[2])})`;
  return `${error.name}: ${error.message}${at}`.replace(/\s*\n\s*/g, ' ');
}
