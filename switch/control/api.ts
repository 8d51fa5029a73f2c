/**
 * The control API: what the process tells about itself, and changes while it runs, as JSON over HTTP; the transport is
 * serve.ts. Main thread; a request never reaches a worker.
 */
import { type Context, Hono } from 'hono';
import { z } from 'zod';
import { FRAME_BYTES_MAX, MTU_MAX, macHiOf, macLoOf } from '../../protocol/ethernet.ts';
import { groupMac, isIpv4Group, isIpv6Group } from '../../protocol/group-messages.ts';
import { formatIp, parseIp } from '../../protocol/ip-text.ts';
import { HostError } from '../../src/host/errors.ts';
import { printableJson } from '../../src/host/printable.ts';
import { SocketPathError } from '../../src/host/unix-socket.ts';
import { TuningError } from '../../src/port/contract.ts';
import { VLANS } from '../../src/queue/policy.ts';
import type { ApplyReport } from '../apply/configuration.ts';
import type { CaptureReport, StartedCapture } from '../capture/captures.ts';
import { stationMac } from '../config/kinds/values.ts';
import { resolvePlugin } from '../config/plugins.ts';
import { type PortConfig, resolvePort } from '../config/resolve.ts';
import { ConfigError, type SettingFault, type SettingMap } from '../config/settings.ts';
import { EXPOSITION_TYPE, expositionStream } from '../figures/exposition.ts';
import type { FiguresReport } from '../figures/report.ts';
import type { FiguresSnapshot } from '../figures/snapshot.ts';
import { isAlwaysFlooded } from '../l2/groups/snoop.ts';
import type { PluginSpec } from '../plugin/bundle.ts';
import { NoSuchPluginError, type PluginNotes, type PluginReport } from '../plugin/plugin-table.ts';
import { NoSuchPortError, PortConflictError } from '../port-errors.ts';
import type { MdbReport } from '../snooping/report.ts';
import type { TraceQuestion, TraceReport } from '../trace/report.ts';
import type { Books } from './books.ts';
import { LASTING_TYPE } from './client-stream.ts';
import { listPieces, piecesStream } from './pieces.ts';
import { PROBLEM_TYPE, problemText } from './problem.ts';
import type { FdbReport, PortReport, WorkReport } from './report.ts';

/** What the API reports from and changes. */
export type ControlSource = {
  /** Each is made when it is taken. */
  ports(): Iterable<PortReport>;
  /** Null: there is none of that name. */
  port(name: string): PortReport | null;
  totals(): Books;
  fdb(): FdbReport;
  workers(): WorkReport[];
  figures(version: string): FiguresSnapshot;
  figuresReport(version: string): FiguresReport;
  /** @throws NoSuchPortError */
  trace(question: TraceQuestion): Promise<TraceReport>;
  mdb(): MdbReport;
  /** @throws NoSuchPortError, PortConflictError */
  addGroup(change: GroupChange): void;
  removeGroup(change: GroupChange): void;
  flushGroups(which: { readonly port: string | null; readonly vlan: number | null }): void;
  /** `settings`: as they were given. @throws ConfigError, SocketPathError, HostError, PortConflictError */
  addPort(config: PortConfig, settings: unknown): Promise<void>;
  /** Settings by name, as JSON has them; null: as if left out. @throws ConfigError, TuningError, NoSuchPortError */
  changePort(name: string, change: unknown): Promise<void>;
  /** @throws NoSuchPortError */
  removePort(name: string): Promise<void>;
  /** `query`: as CaptureQuery. @throws ConfigError, NoSuchPortError, PortConflictError, HostError */
  startCapture(query: unknown): Promise<StartedCapture>;
  captures(): CaptureReport[];
  /** False: there is none of that number. */
  endCapture(id: number): boolean;
  /** The VLAN of the port's frames without a tag. @throws NoSuchPortError */
  untaggedVlanOf(portName: string): number;
  /** @throws NoSuchPortError, PortConflictError */
  addAddress(mac: string, vlan: number, portName: string): void;
  /** Null: in the one in which it is known. @throws PortConflictError */
  removeAddress(mac: string, vlan: number | null): void;
  /** Null: of any; `isAll`: static ones too. Answers how many there were. @throws NoSuchPortError, PortConflictError */
  flushAddresses(portName: string | null, vlan: number | null, isAll: boolean): number;
  plugins(): PluginReport[];
  /** @throws NoSuchPluginError */
  pluginNotes(name: string): PluginNotes;
  /** @throws ConfigError, PortConflictError */
  addPlugin(spec: PluginSpec): Promise<void>;
  /** Left out: all. @throws ConfigError, NoSuchPluginError, PortConflictError */
  reloadPlugins(names?: readonly string[]): Promise<void>;
  /** @throws NoSuchPluginError, PortConflictError */
  removePlugin(name: string): Promise<void>;
  /** Left out: there is none that could be shown or applied. */
  readonly configuration?: {
    /** What runs, as a configuration. */
    shown(): SettingMap;
    /** Has the switch be as these settings say, or tells what would be done. @throws as Configuration.apply */
    apply(request: ApplyRequest): Promise<ApplyReport>;
  };
  /** Left out: it cannot be taken over. @throws PortConflictError, HostError */
  takeOver?(socketName: string, formats: readonly number[]): void;
};

/** `path`: of the file that they were read from, whole; null: of none. */
export type ApplyRequest = {
  readonly settings: unknown;
  readonly path: string | null;
  readonly dryRun: boolean;
};

/** A member of a group, of four or sixteen bytes. */
export type GroupChange = { readonly port: string; readonly vlan: number; readonly group: Uint8Array };

/** Answer of GET /v1/version. */
export type VersionReport = { readonly version: string; readonly node: string; readonly pid: number };

/** `bytes`: zeros are added up to so many; `segmentBytes`: the frame is to be cut into segments with so much payload. */
const Trace = z.object({
  port: z.string(),
  frame: z.string().regex(/^([0-9a-f]{2})+$/i),
  bytes: z.int().min(1).max(FRAME_BYTES_MAX).optional(),
  segmentBytes: z.int().min(1).max(MTU_MAX).optional(),
});
type TraceBody = {
  readonly port: string;
  readonly frame: string;
  readonly bytes?: number | undefined;
  readonly segmentBytes?: number | null | undefined;
};
const TRACE_ALLOWED = `a trace needs a port and a frame in hex digits; beside them there may be bytes, 1 to ${FRAME_BYTES_MAX}, and segmentBytes, 1 to ${MTU_MAX}`;
const Vlan = z.int().min(0).max(4095);
const NewAddress = z.strictObject({ port: z.string(), vlan: Vlan.optional() });
const Flush = z.strictObject({
  port: z.string().optional(),
  vlan: Vlan.optional(),
  static: z.boolean().optional(),
});
const ADDRESS_NEEDED = 'a body { "port": NAME, "vlan": 0 to 4095 } is needed; vlan may be left out';
const FLUSH_NEEDED = 'a body with any of { "port": NAME, "vlan": 0 to 4095, "static": true } is needed';

const Apply = z.strictObject({
  settings: z.unknown(),
  path: z.string().optional(),
  dryRun: z.boolean().optional(),
});
const APPLY_NEEDED =
  'a body { "settings": CONFIGURATION } is needed; beside it there may be dryRun, true or false, and path, where they were read';

const NO_CONFIGURATION = 'this Ringway has no configuration';

const Takeover = z.object({ socket: z.string(), formats: z.array(z.int()) });

const Reload = z.object({ plugins: z.array(z.string()).optional() });

/** Of an answer with a capture: its number. */
export const CAPTURE_HEADER = 'X-Ringway-Capture';
const SETTINGS_NEEDED = 'the settings of a port are needed, as a JSON object';
const PLUGIN_NEEDED = 'the settings of a plugin are needed, as a JSON object with its file';
const RELOAD_NEEDED = 'the names of plugins are needed, or none';
const TAKEOVER_NEEDED = 'a takeover needs a socket and its formats';
const CAPTURE_NEEDED = 'what to capture is needed, as a JSON object';

const JSON_HEADERS = { 'Content-Type': 'application/json' };

/** More than the settings of any port, and the longest program of a filter. */
const BODY_BYTES_MAX = 2 ** 16;
const CAPTURE_BODY_BYTES_MAX = 2 ** 19;
/** Of a configuration: as many ports as there can be, with a good deal of settings each. */
const CONFIG_BODY_BYTES_MAX = 2 ** 24;

/** Every request is told in openapi.ts. Whatever goes wrong is a problem (problem.ts). */
export function controlApi(source: ControlSource, version: string): Hono {
  const api = new Hono();
  api.get('/v1/ports', (context) => list(context, source.ports()));
  api.get('/v1/ports/:name', (context) => {
    const name = context.req.param('name');
    const port = source.port(name);
    return port === null ? noSuchPort(context, name) : json(context, port);
  });
  api.put('/v1/ports/:name', async (context) => {
    const name = context.req.param('name');
    const settings = await jsonOf(context);
    await source.addPort(resolvePort(name, settings), settings);
    const added = source.port(name);
    // It may have been removed since.
    return added === null ? noSuchPort(context, name) : json(context, added, 201);
  });
  api.patch('/v1/ports/:name', async (context) => {
    const name = context.req.param('name');
    await source.changePort(name, await jsonOf(context));
    const changed = source.port(name);
    return changed === null ? noSuchPort(context, name) : json(context, changed);
  });
  api.delete('/v1/ports/:name', async (context) => {
    const name = context.req.param('name');
    await source.removePort(name);
    return json(context, { removed: name });
  });
  api.get('/v1/plugins', (context) => json(context, source.plugins()));
  api.post('/v1/plugins', async (context) => {
    const { data } = Reload.safeParse(await jsonOf(context, RELOAD_NEEDED));
    if (data === undefined) return refuse(context, RELOAD_NEEDED, 400);
    await source.reloadPlugins(data.plugins);
    return json(context, source.plugins());
  });
  api.get('/v1/plugins/:name/notes', (context) =>
    json(context, source.pluginNotes(context.req.param('name'))),
  );
  api.put('/v1/plugins/:name', async (context) => {
    const name = context.req.param('name');
    await source.addPlugin(resolvePlugin(name, await jsonOf(context, PLUGIN_NEEDED)));
    return json(context, source.plugins().find((plugin) => plugin.name === name) ?? null, 201);
  });
  api.delete('/v1/plugins/:name', async (context) => {
    const name = context.req.param('name');
    await source.removePlugin(name);
    return json(context, { removed: name });
  });
  api.get('/v1/totals', (context) => json(context, source.totals()));
  api.get('/v1/fdb', (context) => json(context, source.fdb()));
  api.put('/v1/fdb/:mac', async (context) => {
    const mac = stationOf(context.req.param('mac'));
    const { data } = NewAddress.safeParse(await jsonOf(context, ADDRESS_NEEDED));
    if (data === undefined) return refuse(context, ADDRESS_NEEDED, 400);
    source.addAddress(mac, data.vlan ?? source.untaggedVlanOf(data.port), data.port);
    return json(context, { added: mac }, 201);
  });
  api.delete('/v1/fdb/:mac', (context) => {
    const mac = stationOf(context.req.param('mac'));
    source.removeAddress(mac, vlanIn(context));
    return json(context, { removed: mac });
  });
  api.post('/v1/fdb/flush', async (context) => {
    const { data } = Flush.safeParse(await jsonOf(context, FLUSH_NEEDED));
    if (data === undefined) return refuse(context, FLUSH_NEEDED, 400);
    const { port = null, vlan = null } = data;
    return json(context, { removed: source.flushAddresses(port, vlan, data.static === true) });
  });
  api.get('/v1/workers', (context) => json(context, source.workers()));
  api.get('/v1/figures', (context) => json(context, source.figuresReport(version)));
  api.get('/metrics', (context) =>
    context.body(expositionStream(source.figures(version)), 200, { 'Content-Type': EXPOSITION_TYPE }),
  );
  api.get('/v1/version', (context) => {
    const report: VersionReport = { version, node: process.versions.node, pid: process.pid };
    return json(context, report);
  });
  api.get('/v1/openapi.json', async (context) => {
    const { openApi } = await import('./openapi.ts');
    return json(context, openApi(version, { Apply, NewAddress, Flush, Reload, Trace, Takeover }));
  });
  api.get('/v1/mdb', (context) => json(context, source.mdb()));
  api.put('/v1/mdb/:port/:group', (context) => {
    source.addGroup(joinableOf(groupChangeOf(context, source)));
    return json(context, source.mdb());
  });
  api.delete('/v1/mdb/:port/:group', (context) => {
    source.removeGroup(groupChangeOf(context, source));
    return json(context, source.mdb());
  });
  api.delete('/v1/mdb', (context) => {
    source.flushGroups({ port: context.req.query('port') ?? null, vlan: vlanIn(context) });
    return json(context, source.mdb());
  });
  api.post('/v1/trace', async (context) => {
    const { data } = Trace.safeParse(await jsonOf(context, TRACE_ALLOWED));
    if (data === undefined) return refuse(context, TRACE_ALLOWED, 400);
    return json(context, await source.trace(questionOf(data)));
  });
  api.get('/v1/captures', (context) => json(context, source.captures()));
  api.post('/v1/captures', async (context) => {
    const { id, stream } = await source.startCapture(
      await jsonOf(context, CAPTURE_NEEDED, CAPTURE_BODY_BYTES_MAX),
    );
    return context.body(stream, 200, { 'Content-Type': LASTING_TYPE, [CAPTURE_HEADER]: String(id) });
  });
  api.delete('/v1/captures/:id', (context) => {
    const id = context.req.param('id');
    return source.endCapture(Number(id))
      ? json(context, { ended: Number(id) })
      : refuse(context, `there is no capture ${id}`, 404);
  });
  api.get('/v1/config', (context) => {
    const { configuration } = source;
    return configuration === undefined
      ? refuse(context, NO_CONFIGURATION, 409)
      : json(context, configuration.shown());
  });
  api.post('/v1/config', async (context) => {
    const { data } = Apply.safeParse(await jsonOf(context, APPLY_NEEDED, CONFIG_BODY_BYTES_MAX));
    if (data?.settings === undefined) return refuse(context, APPLY_NEEDED, 400);
    if (source.configuration === undefined) return refuse(context, NO_CONFIGURATION, 409);
    const { settings, path = null, dryRun = false } = data;
    return json(context, await source.configuration.apply({ settings, path, dryRun }));
  });
  api.post('/v1/takeover', async (context) => {
    const { data } = Takeover.safeParse(await jsonOf(context, TAKEOVER_NEEDED));
    if (data === undefined) return refuse(context, TAKEOVER_NEEDED, 400);
    if (source.takeOver === undefined) return refuse(context, 'this Ringway cannot be taken over', 409);
    source.takeOver(data.socket, data.formats);
    return json(context, { pid: process.pid });
  });
  api.notFound((context) => refuse(context, `there is no ${context.req.method} ${context.req.path}`, 404));
  api.onError((error, context) =>
    refuse(context, error.message, statusOf(error), error instanceof ConfigError ? error.faults : []),
  );
  return api;
}

/** @throws ConfigError, NoSuchPortError */
function groupChangeOf(context: Context, source: ControlSource): GroupChange {
  const { port = '', group: text = '' } = context.req.param() as Record<string, string>;
  const group = parseIp(text);
  if (group === null || !(group.length === 4 ? isIpv4Group(group) : isIpv6Group(group)))
    throw new ConfigError(`${text} is not allowed (a group of IPv4 or IPv6, for example 239.1.2.3)`);
  return { port, group, vlan: vlanIn(context) ?? source.untaggedVlanOf(port) };
}

/** @throws ConfigError of a group that is never joined */
function joinableOf(change: GroupChange): GroupChange {
  const mac = groupMac(change.group);
  if (isAlwaysFlooded(macLoOf(mac), macHiOf(mac)))
    throw new ConfigError(
      `${formatIp(change.group)} is not allowed (its frames go to all ports in any case)`,
    );
  return change;
}

/** Null: none is named. @throws ConfigError */
function vlanIn(context: Context): number | null {
  const text = context.req.query('vlan');
  if (text === undefined) return null;
  if (!/^\d{1,4}$/.test(text) || Number(text) >= VLANS)
    throw new ConfigError(`vlan: ${text} is not allowed (0 to ${VLANS - 1})`);
  return Number(text);
}

function questionOf({ port, frame, bytes = 0, segmentBytes = null }: TraceBody): TraceQuestion {
  const given = Buffer.from(frame, 'hex');
  const whole = new Uint8Array(Math.max(given.length, bytes));
  whole.set(given);
  return { port, frame: whole.subarray(0, FRAME_BYTES_MAX), segmentBytes };
}

/** What text of others is in it stays what it is, and does nothing to a terminal that it is shown on as it came. */
function json(context: Context, value: unknown, status: 200 | 201 = 200): Response {
  return context.body(printableJson(JSON.stringify(value)), status, JSON_HEADERS);
}

/** As `json`; a long one without keeping others from their turn. */
function list(context: Context, values: Iterable<unknown>): Response {
  return context.body(piecesStream(listPieces(values)), 200, JSON_HEADERS);
}

function refuse(
  context: Context,
  text: string,
  status: Status,
  faults: readonly SettingFault[] = [],
): Response {
  return context.body(problemText(status, text, faults), status, { 'Content-Type': PROBLEM_TYPE });
}

function noSuchPort(context: Context, name: string): Response {
  return refuse(context, `there is no port ${name}`, 404);
}

/** In small letters. @throws ConfigError */
function stationOf(text: string): string {
  const { data } = stationMac.safeParse(text);
  if (data === undefined)
    throw new ConfigError(
      `${text} is not allowed (the address of a single station, for example 02:00:00:00:00:01)`,
    );
  return data;
}

/** @throws ConfigError when the body is not JSON, BodyTooLongError */
async function jsonOf(
  context: Context,
  needed = SETTINGS_NEEDED,
  bytesMax = BODY_BYTES_MAX,
): Promise<unknown> {
  const text = await bodyOf(context.req.raw, bytesMax);
  try {
    return JSON.parse(text);
  } catch {
    throw new ConfigError(needed);
  }
}

class BodyTooLongError extends Error {
  override name = 'BodyTooLongError';
}

/** Read in parts, so that of one without end no more than the limit is ever held. */
async function bodyOf({ body }: Request, bytesMax: number): Promise<string> {
  const parts: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const part of body ?? []) {
    sizeBytes += part.length;
    if (sizeBytes > bytesMax) throw new BodyTooLongError(`more than ${bytesMax} bytes of settings`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}

/** What was asked for cannot be; whatever else is thrown is a bug of ours. */
const STATUS_OF_REFUSAL = [
  [ConfigError, 400],
  [SocketPathError, 400],
  [HostError, 400],
  [TuningError, 400],
  [NoSuchPortError, 404],
  [NoSuchPluginError, 404],
  [PortConflictError, 409],
  [BodyTooLongError, 413],
] as const;

type Status = 400 | 404 | 409 | 413 | 500;

function statusOf(error: Error): Status {
  return STATUS_OF_REFUSAL.find(([type]) => error instanceof type)?.[1] ?? 500;
}
