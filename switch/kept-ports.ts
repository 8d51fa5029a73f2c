/**
 * Ports that were added while the switch ran, kept in a file so that the next start has them again: their settings as they
 * were given, with what `ringway set` changed of them since. The configuration wins: a port that it names is as it says,
 * whatever was added, changed or removed under that name. Nothing in the file stops the start, and nothing of it is left
 * out without a line in the log. Main thread.
 */
import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { z } from 'zod';
import { kindOf, pathKeysOf } from './config/kinds/index.ts';
import { type PortConfig, resolvePort } from './config/resolve.ts';
import { isSettingMap } from './config/settings.ts';
import type { ControlSource } from './control/api.ts';
import type { Logger } from './log.ts';
import { NoSuchPortError } from './port-errors.ts';

/** Of the file; one of another format is not read. */
const STATE_FORMAT = 1;
const FILE_MODE = 0o600;
const FILE_BYTES_MAX = 2 ** 24;

/** Settings of one port by name, as JSON has them. */
type Settings = Readonly<Record<string, unknown>>;

const State = z.object({ format: z.int(), ports: z.record(z.string(), z.record(z.string(), z.unknown())) });

/** What ports are added to and taken from. */
export type PortHost = Pick<ControlSource, 'addPort' | 'changePort' | 'removePort'>;

export class KeptPorts implements PortHost {
  readonly #path: string | null;
  readonly #host: PortHost;
  readonly #log: Logger;
  readonly #ports = new Map<string, Settings>();
  /** Those of the file that could not be had again; they stay in it. */
  readonly #missing = new Set<string>();

  /** `path`: null where nothing is kept. */
  constructor(path: string | null, host: PortHost, log: Logger) {
    this.#path = path;
    this.#host = host;
    this.#log = log;
  }

  /** Adds the ports of the file that the configuration does not name; answers those that are there. */
  async restore(configured: readonly PortConfig[]): Promise<PortConfig[]> {
    const restored: PortConfig[] = [];
    const kept = this.#read();
    for (const [name, settings] of kept) {
      if (configured.some((port) => port.name === name)) {
        this.#log.info({ port: name }, 'is as the configuration says, not as it was added at run time');
        continue;
      }
      this.#ports.set(name, settings);
      try {
        const config = resolvePort(name, settings);
        await this.#host.addPort(config, settings);
        restored.push(config);
        this.#log.info({ port: name }, 'is there again, as it was added at run time');
      } catch (error) {
        this.#missing.add(name);
        this.#log.warn({ port: name }, `was added at run time, and cannot be had again: ${messageOf(error)}`);
      }
    }
    if (this.#ports.size < kept.size) this.#write();
    return restored;
  }

  async addPort(config: PortConfig, settings: unknown): Promise<void> {
    await this.#host.addPort(config, settings);
    this.#missing.delete(config.name);
    this.#ports.set(config.name, withWholePaths(isSettingMap(settings) ? settings : {}));
    this.#write();
  }

  async changePort(name: string, change: unknown): Promise<void> {
    await this.#host.changePort(name, change);
    const settings = this.#ports.get(name);
    if (settings === undefined || !isSettingMap(change)) return;
    const changed = Object.entries({ ...settings, ...change }).filter(([, value]) => value != null);
    this.#ports.set(name, Object.fromEntries(changed));
    this.#write();
  }

  /** Also forgets a port of the file that could not be had again. @throws NoSuchPortError */
  async removePort(name: string): Promise<void> {
    try {
      await this.#host.removePort(name);
    } catch (error) {
      if (!(error instanceof NoSuchPortError) || !this.#missing.delete(name)) throw error;
    }
    if (this.#ports.delete(name)) this.#write();
  }

  #read(): Map<string, Settings> {
    const path = this.#path;
    if (path === null) return new Map();
    try {
      const stat = statSync(path, { throwIfNoEntry: false });
      if (stat === undefined) return new Map();
      if (stat.uid !== process.geteuid?.() || (stat.mode & 0o022) !== 0)
        throw new Error('others may write to it');
      if (stat.size > FILE_BYTES_MAX) throw new Error(`it is larger than ${FILE_BYTES_MAX} bytes`);
      const { format, ports } = parsed(readFileSync(path, 'utf8'));
      if (format !== STATE_FORMAT) throw new Error(`its format is ${format}, and this is ${STATE_FORMAT}`);
      return new Map(Object.entries(ports));
    } catch (error) {
      this.#log.warn(`ports that were added at run time are not there again: ${path}: ${messageOf(error)}`);
      this.#setAside(path);
      return new Map();
    }
  }

  /** What cannot be understood is not written over. */
  #setAside(path: string): void {
    try {
      renameSync(path, `${path}.unread`);
      this.#log.warn(`it is now ${path}.unread`);
    } catch (error) {
      this.#log.warn(`and it cannot be put aside: ${messageOf(error)}`);
    }
  }

  /** Whole or not at all: a file beside it takes its place. */
  #write(): void {
    const path = this.#path;
    if (path === null) return;
    if (this.#ports.size === 0) {
      rmSync(path, { force: true });
      return;
    }
    const state = { format: STATE_FORMAT, ports: Object.fromEntries(this.#ports) };
    try {
      writeFileSync(`${path}.new`, `${JSON.stringify(state, null, 2)}\n`, { mode: FILE_MODE });
      renameSync(`${path}.new`, path);
    } catch (error) {
      this.#log.warn(`ports will not be as they are now after a restart: ${path}: ${messageOf(error)}`);
    }
  }
}

function parsed(text: string): z.output<typeof State> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new Error('it is no JSON');
  }
  const { data } = State.safeParse(json);
  if (data === undefined) throw new Error('it is not of the form that Ringway writes');
  return data;
}

/** Paths are relative to the folder in which the switch was started, and the next one may be started elsewhere. */
function withWholePaths(settings: Settings): Settings {
  const pathKeys = pathKeysOf(kindOf(settings));
  return Object.fromEntries(
    Object.entries(settings).map(([key, value]) => [
      key,
      pathKeys.includes(key) && typeof value === 'string' ? resolve(value) : value,
    ]),
  );
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
