/** The control API against a made-up source, over a real UNIX socket, asked by the real client. */
import { existsSync, lstatSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ADVICE, namedAdvice } from '../../../src/advice.ts';
import { closeFd } from '../../../src/host/descriptor.ts';
import { listenUnix, SocketPathError } from '../../../src/host/unix-socket.ts';
import type { PortKind } from '../../../src/port/contract.ts';
import { formatFdb } from '../../../switch/cli/fdb.ts';
import { formatMdb } from '../../../switch/cli/mdb.ts';
import { formatPorts } from '../../../switch/cli/ports.ts';
import { jsonText } from '../../../switch/cli/table.ts';
import { effectiveSettings } from '../../../switch/config/common-port.ts';
import { offloadNamesOf } from '../../../switch/config/kinds/index.ts';
import type { PortConfig } from '../../../switch/config/resolve.ts';
import { type ControlSource, controlApi } from '../../../switch/control/api.ts';
import { NO_BOOKS } from '../../../switch/control/books.ts';
import { askControl } from '../../../switch/control/client.ts';
import { ControlError } from '../../../switch/control/control-error.ts';
import type { FdbReport, PortReport } from '../../../switch/control/report.ts';
import { serveControl } from '../../../switch/control/serve.ts';
import { DROP_REASONS, type DropReason } from '../../../switch/l2/drop-reasons.ts';
import { NoSuchPortError, PortConflictError } from '../../../switch/port-errors.ts';
import type { MdbReport } from '../../../switch/snooping/report.ts';
import type { TraceReport } from '../../../switch/trace/report.ts';
import { NO_FDB, portSnapshot, snapshot } from '../figures/snapshots.ts';

function portReport(name: string, changes: Partial<PortReport> = {}): PortReport {
  return {
    name,
    kind: 'vhost-user',
    endpoint: `/run/ringway/${name}.sock`,
    state: 'running',
    reason: null,
    advice: null,
    shut: null,
    queuePairs: 2,
    mtu: null,
    settings: effectiveSettings({ flood: true, receive: true, forwardBpdu: false }, []),
    details: { role: 'server', features: ['VERSION_1'], protocolFeatures: ['MQ'], memoryBytes: 2 ** 32 },
    queues: [],
    counters: {
      ...NO_BOOKS.counters,
      ingressFrames: 1_234_567,
      ingressBytes: 99,
      egressFrames: 8,
      egressBytes: 7,
    },
    drops: dropCounts({}),
    ...changes,
  };
}

function dropCounts(counts: Partial<Record<DropReason, number>>): Record<DropReason, number> {
  const zeros = Object.fromEntries(DROP_REASONS.map(({ name }) => [name, 0])) as Record<DropReason, number>;
  return { ...zeros, ...counts };
}

const FDB: FdbReport = {
  capacity: 8192,
  ageSeconds: 300,
  moved: { vm0: 0, vm1: 2 },
  entries: [
    { mac: '02:00:00:00:00:02', vlan: 7, port: 'vm1', ageSeconds: 0, static: false },
    { mac: '02:00:00:00:00:02', vlan: 0, port: 'vm1', ageSeconds: 12, static: true },
    { mac: '02:00:00:00:00:01', vlan: 0, port: 'vm0', ageSeconds: 299, static: false },
  ],
};

const PORTS = [portReport('vm0'), portReport('vm1', { state: 'waiting', reason: 'waits for a front-end' })];
const WORKERS = [{ index: 0, atMs: 12.5, emptyTurns: 4_294_967_295 }];
const TRACE: TraceReport = {
  port: 'vm0',
  bytes: 0,
  frame: [],
  steps: [],
  vlan: null,
  learns: null,
  receivers: [],
  passedOver: [],
  drops: [],
  result: '',
};
const MDB: MdbReport = {
  enabled: true,
  capacity: 2048,
  ageSeconds: 300,
  floodUnregistered: false,
  groups: [
    { vlan: 10, group: '239.1.1.1', port: 'vm0', ageSeconds: 3, leftSeconds: 297 },
    { vlan: 10, group: 'ff05::7', port: 'vm1', ageSeconds: 9, leftSeconds: null },
  ],
  routers: [{ vlan: null, port: 'up', leftSeconds: null }],
  queriers: [{ vlan: 10, address: '10.0.0.254', port: null, ageSeconds: 0 }],
  lostMessages: 4,
  evicted: 0,
};
/** Of groups. */
const asked: string[] = [];
const unchanged = (): Promise<void> => Promise.reject(new Error('nothing is to be changed here'));
const SOURCE: ControlSource = {
  ports: () => PORTS,
  port: (name) => PORTS.find((port) => port.name === name) ?? null,
  fdb: () => FDB,
  totals: () => NO_BOOKS,
  workers: () => WORKERS,
  figures: () => snapshot({ ports: [portSnapshot('vm0')] }),
  figuresReport: (version) => ({
    version,
    upSeconds: 1,
    fdb: NO_FDB,
    drops: NO_BOOKS.drops,
    ports: [],
    workers: [],
  }),
  trace: async ({ port, frame, segmentBytes }) => {
    if (port !== 'vm0') throw new NoSuchPortError(port);
    return { ...TRACE, bytes: frame.length, result: `${Buffer.from(frame).toString('hex')} ${segmentBytes}` };
  },
  mdb: () => MDB,
  addGroup: ({ port, vlan, group }) => {
    if (port !== 'vm0') throw new NoSuchPortError(port);
    asked.push(`add ${group.join('.')} ${vlan}`);
  },
  removeGroup: () => {
    throw new PortConflictError('it is no member');
  },
  flushGroups: ({ port, vlan }) => void asked.push(`flush ${port} ${vlan}`),
  addPort: unchanged,
  changePort: unchanged,
  removePort: unchanged,
  startCapture: async () => ({ id: 7, stream: new ReadableStream() }),
  captures: () => [],
  endCapture: () => false,
  untaggedVlanOf: () => 30,
  addAddress: () => {},
  removeAddress: () => {},
  flushAddresses: () => 0,
  plugins: () => [],
  pluginNotes: () => [],
  addPlugin: unchanged,
  reloadPlugins: unchanged,
  removePlugin: unchanged,
};
const API = controlApi(SOURCE, '1.2.3');

let folder = '';
let socketPath = '';
const closers: (() => unknown)[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-control-'));
  socketPath = join(folder, 'c.sock');
});

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
  rmSync(folder, { recursive: true, force: true });
});

async function serve(api = API): Promise<{ close(): Promise<void> }> {
  const server = await serveControl(socketPath, api);
  closers.push(() => server.close());
  return server;
}

async function errorOf(asked: Promise<unknown>): Promise<ControlError> {
  const error = await asked.then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(ControlError);
  return error as ControlError;
}

describe('answers', () => {
  it('ports, one port, the forwarding table, the workers and the version', async () => {
    await serve();
    expect(await askControl(socketPath, '/v1/ports')).toEqual(PORTS);
    expect(await askControl(socketPath, '/v1/ports/vm1')).toEqual(PORTS[1]);
    expect(await askControl(socketPath, '/v1/fdb')).toEqual(FDB);
    expect(await askControl(socketPath, '/v1/workers')).toEqual(WORKERS);
    const version = { version: '1.2.3', node: process.versions.node, pid: process.pid };
    expect(await askControl(socketPath, '/v1/version')).toEqual(version);
    expect(await askControl(socketPath, '/v1/figures')).toMatchObject({ version: '1.2.3', ports: [] });
  });

  it('as text for Prometheus', async () => {
    const response = await API.request('/metrics');
    expect(response.headers.get('Content-Type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(await response.text()).toContain(
      'ringway_interface_rx_packets_total{port="vm0",type="vhost-user"} ',
    );
  });

  it('what the source says at that moment, not what it said first', async () => {
    let asked = 0;
    await serve(controlApi({ ...SOURCE, ports: () => [portReport(`p${asked++}`)] }, '1'));
    expect(await askControl(socketPath, '/v1/ports')).toMatchObject([{ name: 'p0' }]);
    expect(await askControl(socketPath, '/v1/ports')).toMatchObject([{ name: 'p1' }]);
  });

  it('a thousand ports whole, and others have their turn meanwhile', async () => {
    const reports = Array.from({ length: 1000 }, (_, i) => portReport(`p${i}`));
    let turns = 0;
    let isOver = false;
    const count = (): void => {
      turns++;
      if (!isOver) setImmediate(count);
    };
    const during = new Set<number>();
    function* each(): Generator<PortReport> {
      for (const report of reports) {
        during.add(turns);
        yield report;
      }
    }
    const response = await controlApi({ ...SOURCE, ports: each }, '1').request('/v1/ports');
    count();
    expect(await response.json()).toEqual(reports);
    isOver = true;
    expect(during.size).toBeGreaterThan(3);
    expect(await (await controlApi({ ...SOURCE, ports: () => [] }, '1').request('/v1/ports')).json()).toEqual(
      [],
    );
  });

  it('members of groups, and changes them', async () => {
    await serve();
    expect(await askControl(socketPath, '/v1/mdb')).toEqual(MDB);
    const ask = (path: string, method: 'PUT' | 'DELETE'): Promise<unknown> =>
      askControl(socketPath, path, { method });
    await ask('/v1/mdb/vm0/239.1.1.1?vlan=7', 'PUT');
    await ask('/v1/mdb/vm0/239.1.1.2', 'PUT');
    await ask('/v1/mdb?vlan=7', 'DELETE');
    await ask('/v1/mdb', 'DELETE');
    expect(asked.splice(0)).toEqual([
      'add 239.1.1.1 7',
      'add 239.1.1.2 30',
      'flush null 7',
      'flush null null',
    ]);
    expect(await errorOf(ask('/v1/mdb/vm0/ff05%3A%3A1', 'DELETE'))).toMatchObject({ status: 409 });
    expect(await errorOf(ask('/v1/mdb/x/239.1.1.1', 'PUT'))).toMatchObject({ status: 404 });
    for (const bad of ['10.0.0.1', 'fe80::1', '239.1.1', '239.1.1.1?vlan=4096', '239.1.1.1?vlan=-1'])
      expect(await errorOf(ask(`/v1/mdb/vm0/${bad}`, 'PUT'))).toMatchObject({ status: 400 });
    expect(formatMdb(MDB)).toBe(
      [
        'VLAN  GROUP               PORT         AGE   LEFT',
        '  10  239.1.1.1           vm0          3 s  297 s',
        '  10  ff05::7             vm1          9 s  stays',
        ' all  router              up                stays',
        '  10  querier 10.0.0.254  this switch',
        '2 of at most 2,048 groups; frames to others go to routers alone',
        '4 messages were lost: too many came at once',
        '',
      ].join('\n'),
    );
  });

  it('what would become of a frame', async () => {
    const trace = (body: unknown): Promise<TraceReport> =>
      askControl<TraceReport>(socketPath, '/v1/trace', { method: 'POST', body });
    await serve();
    expect(await trace({ port: 'vm0', frame: '00fF', bytes: 4, segmentBytes: 9 })).toEqual({
      ...TRACE,
      bytes: 4,
      result: '00ff0000 9',
    });
    expect(await trace({ port: 'vm0', frame: '0102' })).toMatchObject({ result: '0102 null' });
    expect(await errorOf(trace({ port: 'vm7', frame: '00' }))).toMatchObject({ status: 404 });
    for (const frame of ['', '0', '0g', 7, undefined])
      expect(await errorOf(trace({ port: 'vm0', frame }))).toMatchObject({ status: 400 });
    for (const bytes of [0, 65_558, 1.5, '60'])
      expect(await errorOf(trace({ port: 'vm0', frame: '00', bytes }))).toMatchObject({ status: 400 });
  });

  it('a table of 20,000 addresses whole', async () => {
    const entries = Array.from({ length: 20_000 }, (_, i) => ({ ...FDB.entries[0], vlan: i }));
    await serve(controlApi({ ...SOURCE, fdb: () => ({ ...FDB, entries }) }, '1'));
    const answer = await askControl<FdbReport>(socketPath, '/v1/fdb');
    expect(answer.entries).toEqual(entries);
  });

  it.each([
    ['/v1/ports/vm9', 404, 'there is no port vm9'],
    ['/v1/ports/%2e%2e%2fvm0', 404, 'there is no port ../vm0'],
    ['/', 404, 'there is no GET /'],
    ['/v2/ports', 404, 'there is no GET /v2/ports'],
  ])('%s with status %i', async (path, status, error) => {
    const response = await API.request(path);
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ status, detail: error });
    await serve();
    // A refusal in words needs no number.
    expect(await errorOf(askControl(socketPath, path))).toMatchObject({ message: error, status });
  });

  it('nothing to other methods', async () => {
    const response = await API.request('/v1/ports', { method: 'POST', body: '{}' });
    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({ detail: 'there is no POST /v1/ports' });
  });

  it('a port added with its settings, and removed again', async () => {
    const configs: PortConfig[] = [];
    const ports: PortReport[] = [];
    const source: ControlSource = {
      ...SOURCE,
      ports: () => ports,
      port: (name) => ports.find((port) => port.name === name) ?? null,
      addPort: async (config) => {
        if (ports.some(({ name }) => name === config.name)) {
          throw new PortConflictError(`port ${config.name} exists already`);
        }
        configs.push(config);
        ports.push(portReport(config.name));
      },
      removePort: async (name) => {
        const index = ports.findIndex((port) => port.name === name);
        if (index < 0) throw new NoSuchPortError(name);
        ports.splice(index, 1);
      },
    };
    await serve(controlApi(source, '1'));
    const body = { socket: '/x/vm7.sock', queues: 4, configSpace: true, mtu: '9000', receive: 'off' };
    const added = await askControl(socketPath, '/v1/ports/vm7', { method: 'PUT', body });
    expect(added).toMatchObject({ name: 'vm7' });
    expect(configs).toEqual([
      {
        name: 'vm7',
        kind: 'vhost-user',
        socket: '/x/vm7.sock',
        role: 'server',
        queues: 4,
        configSpace: true,
        mtu: 9000,
        flood: true,
        receive: false,
        forwardBpdu: false,
      },
    ]);
    const again = askControl(socketPath, '/v1/ports/vm7', { method: 'PUT', body });
    expect(await errorOf(again)).toMatchObject({ message: 'port vm7 exists already', status: 409 });
    expect(await askControl(socketPath, '/v1/ports/vm7', { method: 'DELETE' })).toEqual({ removed: 'vm7' });
    const gone = askControl(socketPath, '/v1/ports/vm7', { method: 'DELETE' });
    expect(await errorOf(gone)).toMatchObject({ message: 'there is no port vm7', status: 404 });
  });

  it.each<['PUT' | 'POST', string, string, string]>([
    ['PUT', '/v1/plugins/__proto__', '{"file":"/x.ts"}', 'plugin __proto__: not allowed (plugin names are'],
    ['PUT', '/v1/plugins/p', '{"file":"/x.ts","__proto__":"1"}', 'plugin p: __proto__: unknown setting'],
    [
      'PUT',
      '/v1/plugins/p',
      '{"folder":7}',
      'plugin p: folder: not allowed (a path, as text); file: missing (path',
    ],
    ['PUT', '/v1/plugins/p', '{', 'the settings of a plugin are needed'],
    ['POST', '/v1/plugins', '{', 'the names of plugins are needed'],
    ['POST', '/v1/trace', '{', 'a trace needs a port'],
    ['PUT', '/v1/fdb/02:00:00:00:00:01', '{', 'a body { "port": NAME'],
    ['POST', '/v1/fdb/flush', '{', 'a body with any of'],
    ['PUT', '/v1/mdb/vm0/224.0.0.1', '', '224.0.0.1 is not allowed (its frames go to all ports in any case)'],
  ])('%s %s with %s is refused, and by what is needed there', async (method, path, body, message) => {
    const response = await controlApi(SOURCE, '1').request(path, { method, ...(body !== '' && { body }) });
    expect(response.status).toBe(400);
    expect(((await response.json()) as { detail: string }).detail).toContain(message);
  });

  it.each([
    ['vm7', 'nonsense', 'the settings of a port are needed, as a JSON object'],
    ['vm7', '{}', 'port vm7: socket: missing (path of a UNIX socket)'],
    ['vm7', '[]', 'port vm7: a list is not allowed (a map of settings, with socket at least)'],
    ['vm7', '{"socket":"/x","queues":0}', 'port vm7: queues: 0 is not allowed (1 to 127)'],
    ['vm7', '{"socket":"/x","colour":1}', 'port vm7: colour: unknown setting'],
    ['a b', '{"socket":"/x"}', 'port a b: not allowed (port names are'],
    ['vm7', '{"socket":"/taken"}', 'address in use'],
    [
      'vm7',
      '['.repeat(30_000) + ']'.repeat(30_000),
      'port vm7: not allowed (lists and maps in one another too',
    ],
    [
      'vm7',
      `${'{"a":'.repeat(9)}1${'}'.repeat(9)}`,
      'port vm7: not allowed (lists and maps in one another too',
    ],
    ['vm7', `{"socket":"/x","colour":${'['.repeat(9000)}${']'.repeat(9000)}}`, 'in one another too deeply'],
    ['vm7', '{"socket":"/\\u001b[2J\u202e"}', 'address in use'],
    ['vm7', '{"__proto__":{"socket":"/x"}}', '__proto__: unknown setting'],
  ])('400 and the reason for port %s of %s', async (name, body, reason) => {
    const addPort = (): Promise<void> => Promise.reject(new SocketPathError('address in use'));
    const api = controlApi({ ...SOURCE, ports: () => [], addPort }, '1');
    const path = `/v1/ports/${encodeURIComponent(name)}`;
    const response = await api.request(path, { method: 'PUT', body });
    expect(response.status).toBe(400);
    expect(((await response.json()) as { detail: string }).detail).toContain(reason);
  });

  it('413 for more settings than there can be', async () => {
    const body = JSON.stringify({ socket: 'x'.repeat(2 ** 16) });
    const response = await controlApi(SOURCE, '1').request('/v1/ports/vm7', { method: 'PUT', body });
    expect(response.status).toBe(413);
    expect(await response.json()).toMatchObject({ detail: 'more than 65536 bytes of settings' });
  });

  it('text of a peer so that a terminal shows it, and as it is', async () => {
    const reason = 'memory file vm\u001b[2J\u009b1m\u202e\u2028';
    const api = controlApi({ ...SOURCE, ports: () => [portReport('vm0', { reason })] }, '1');
    const text = await (await api.request('/v1/ports')).text();
    expect(text).toMatch(/^[\x20-\x7e]*$/);
    expect(JSON.parse(text)).toMatchObject([{ reason }]);
    expect(await (await api.request('/v1/ports/x%1by')).json()).toMatchObject({
      detail: 'there is no port x\\x1by',
    });
  });

  it('the setting that was refused, for the client to word', async () => {
    await serve();
    const body = { socket: '/x', queues: 0 };
    const error = await errorOf(askControl(socketPath, '/v1/ports/vm7', { method: 'PUT', body }));
    expect(error.faults).toEqual([{ path: ['ports', 'vm7', 'queues'], text: '0 is not allowed (1 to 127)' }]);
    expect((await errorOf(askControl(socketPath, '/v1/ports/vm9'))).faults).toEqual([]);
  });

  it('a port whose settings were changed', async () => {
    const changes: unknown[] = [];
    const changePort = async (name: string, change: unknown): Promise<void> => {
      changes.push([name, change]);
    };
    await serve(controlApi({ ...SOURCE, changePort }, '1'));
    const body = { tag: 10, trunks: null };
    expect(await askControl(socketPath, '/v1/ports/vm0', { method: 'PATCH', body })).toEqual(PORTS[0]);
    expect(changes).toEqual([['vm0', body]]);
  });

  it('addresses that are added, forgotten and flushed', async () => {
    const asked: unknown[] = [];
    const source: ControlSource = {
      ...SOURCE,
      addAddress: (...all) => void asked.push(['add', ...all]),
      removeAddress: (...all) => void asked.push(['remove', ...all]),
      flushAddresses: (...all) => asked.push(['flush', ...all]),
    };
    await serve(controlApi(source, '1'));
    const ask = (path: string, method: 'PUT' | 'DELETE' | 'POST', body?: unknown): Promise<unknown> =>
      askControl(socketPath, path, { method, ...(body !== undefined && { body }) });
    const path = '/v1/fdb/02:00:00:00:00:0A';
    expect(await ask(path, 'PUT', { port: 'vm0', vlan: 7 })).toEqual({ added: '02:00:00:00:00:0a' });
    await ask(path, 'PUT', { port: 'vm0' });
    expect(await ask(`${path}?vlan=7`, 'DELETE')).toEqual({ removed: '02:00:00:00:00:0a' });
    await ask(path, 'DELETE');
    expect(await ask('/v1/fdb/flush', 'POST', { port: 'vm0', vlan: 3, static: true })).toEqual({
      removed: 5,
    });
    await ask('/v1/fdb/flush', 'POST', {});
    expect(asked).toEqual([
      ['add', '02:00:00:00:00:0a', 7, 'vm0'],
      ['add', '02:00:00:00:00:0a', 30, 'vm0'],
      ['remove', '02:00:00:00:00:0a', 7],
      ['remove', '02:00:00:00:00:0a', null],
      ['flush', 'vm0', 3, true],
      ['flush', null, null, false],
    ]);
    for (const wrong of [
      ask('/v1/fdb/01:00:00:00:00:01', 'PUT', { port: 'vm0' }),
      ask(path, 'PUT', { port: 'vm0', vlan: 4096 }),
      ask(path, 'PUT', { vlan: 1 }),
      ask(`${path}?vlan=x`, 'DELETE'),
      ask('/v1/fdb/flush', 'POST', { ports: 'vm0' }),
    ])
      expect(await errorOf(wrong)).toMatchObject({ status: 400 });
  });

  it('500 and the reason when the source throws', async () => {
    const source: ControlSource = {
      ...SOURCE,
      fdb: () => {
        throw new Error('out of order');
      },
    };
    const response = await controlApi(source, '1').request('/v1/fdb');
    expect(response.status).toBe(500);
    expect(await response.json()).toMatchObject({ detail: 'out of order' });
    await serve(controlApi(source, '1'));
    const error = await errorOf(askControl(socketPath, '/v1/fdb'));
    expect(error.message).toBe(`${socketPath} answered 500: out of order`);
  });
});

describe('socket', () => {
  it('is for its owner only', async () => {
    await serve();
    expect(lstatSync(socketPath).mode & 0o777).toBe(0o600);
  });

  it('is removed at the end, also with a client that keeps its connection', async () => {
    const server = await serve();
    const agent = new Agent({ keepAlive: true });
    closers.push(() => agent.destroy());
    await new Promise<void>((resolve, reject) => {
      const asked = request({ socketPath, path: '/v1/version', agent }, (response) =>
        response.resume().on('end', resolve),
      );
      asked.on('error', reject).end();
    });
    await server.close();
    expect(existsSync(socketPath)).toBe(false);
    expect((await errorOf(askControl(socketPath, '/v1/ports'))).kind).toBe('unserved');
  });

  it('of a process that is gone is taken over', async () => {
    closeFd(listenUnix(socketPath));
    expect(existsSync(socketPath)).toBe(true);
    expect((await errorOf(askControl(socketPath, '/v1/ports'))).message).toBe(
      `no ringway is running at ${socketPath}`,
    );
    await serve();
    expect(await askControl(socketPath, '/v1/ports')).toEqual(PORTS);
  });

  it('is made anew when its file or folder was removed, and goes on answering', async () => {
    const inner = join(folder, 'f');
    socketPath = join(inner, 'c.sock');
    mkdirSync(inner);
    const warnings: string[] = [];
    const server = await serveControl(socketPath, API, (message) => warnings.push(message));
    closers.push(() => server.close());
    rmSync(inner, { recursive: true });
    await vi.waitUntil(() => warnings.length > 0, { timeout: 10_000, interval: 10 });
    mkdirSync(inner);
    await vi.waitUntil(() => existsSync(socketPath), { timeout: 10_000, interval: 10 });
    expect(lstatSync(socketPath).mode & 0o777).toBe(0o600);
    expect(await askControl(socketPath, '/v1/fdb')).toEqual(FDB);
    expect(warnings).toEqual([
      `control API: nobody can reach the socket: its file is gone: folder ${inner} of socket ${socketPath} does not exist`,
      `control API: the file of socket ${socketPath} was gone and was made anew`,
    ]);
  });

  it('of a running process is refused and left alone', async () => {
    await serve();
    await expect(serveControl(socketPath, API)).rejects.toThrow(
      new SocketPathError(`socket ${socketPath} is in use by a running process`),
    );
    expect(await askControl(socketPath, '/v1/ports')).toEqual(PORTS);
  });

  it('that another process put in place meanwhile is not removed', async () => {
    const server = await serve();
    const kept = join(folder, 'other');
    closers.push(() => rmSync(kept, { force: true }));
    rmSync(socketPath);
    // The inode of the removed socket must not be given to the new one.
    writeFileSync(kept, '');
    const fd = listenUnix(socketPath);
    closers.push(() => closeFd(fd));
    await server.close();
    expect(existsSync(socketPath)).toBe(true);
  });

  it.each([
    ['a missing folder', () => join(folder, 'no', 'c.sock'), /^folder .*no of socket .* does not exist$/],
    ['a file that is no socket', () => join(folder, 'file'), /file exists and is not a socket$/],
    ['a path of 108 bytes', () => `/${'s'.repeat(107)}`, /^socket path of 108 bytes is too long/],
  ])('cannot be %s', async (_, path, message) => {
    writeFileSync(join(folder, 'file'), 'kept');
    await expect(serveControl(path(), API)).rejects.toThrow(message);
    await expect(serveControl(path(), API)).rejects.toBeInstanceOf(SocketPathError);
  });

  it('that answers otherwise is named', async () => {
    const server = createServer((socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi'));
    await new Promise<void>((resolve) => server.listen(socketPath, resolve));
    closers.push(() => server.close());
    expect((await errorOf(askControl(socketPath, '/v1/ports'))).message).toBe(
      `${socketPath} does not answer as a ringway control socket`,
    );
  });

  it('that closes without an answer is named', async () => {
    const server = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => server.listen(socketPath, resolve));
    closers.push(() => server.close());
    const error = await errorOf(askControl(socketPath, '/v1/ports'));
    expect(error.message).toBe(
      `${socketPath} does not answer as a ringway control socket: it may be the socket of a port`,
    );
    expect(error.kind).toBe('failed');
  });
});

describe('for people', () => {
  it('ports: a line each, with what is wrong and what was dropped below', () => {
    const vm1 = portReport('vm1', {
      details: { role: 'client' },
      settings: effectiveSettings(
        {
          flood: true,
          receive: true,
          forwardBpdu: false,
          vlanMode: 'native-tagged',
          tag: 3,
          trunks: [1, 5, 6, 7, 9, 10],
        },
        [],
      ),
      state: 'stopped',
      reason: 'the front-end sent a short message',
      advice: namedAdvice('frontEndFault'),
      queuePairs: 0,
      drops: dropCounts({ noBuffer: 1200, overMtu: 1 }),
      queues: [
        {
          index: 3,
          direction: 'ingress',
          size: 256,
          started: false,
          enabled: true,
          inUse: false,
          worker: null,
          frames: 0,
          bytes: 0,
          calls: 0,
          reason: 'a descriptor points outside the guest',
        },
      ],
    });
    expect(formatPorts([PORTS[0], vm1]).split('\n')).toEqual([
      'PORT  STATE    PAIRS         IN  OUT  DROPPED  ATTACHED TO',
      'vm0   running      2  1,234,567    8        0  /run/ringway/vm0.sock',
      'vm1   stopped      0  1,234,567    8    1,201  /run/ringway/vm1.sock (client)',
      '  the front-end sent a short message',
      `  do: ${ADVICE.frontEndFault.fix}`,
      '  vlan-mode native-tagged, tag 3, trunks 1+5-7+9-10',
      '  queue 3 stopped: a descriptor points outside the guest',
      '  dropped 1,200: had no room for a frame to it (noBuffer)',
      '  dropped 1: a frame to it was longer than its MTU (overMtu)',
      '',
    ]);
    expect(formatPorts([])).toBe('There are no ports.\n');
  });

  it('what is set otherwise than by default, and what a guest has of what was switched off', () => {
    const settings = { flood: false, receive: false, forwardBpdu: true, mtu: 1400, offloads: { tso: false } };
    const port = (features: string[]) =>
      portReport('vm0', {
        details: { role: 'server', features },
        settings: effectiveSettings(settings, offloadNamesOf('vhost-user')),
      });
    const text = '  flood off, receive off, forward-bpdu on, mtu 1400, offloads no-tso+no-ecn';
    expect(
      formatPorts([port(['NET_CSUM'])])
        .split('\n')
        .slice(2),
    ).toEqual([text, '']);
    expect(
      formatPorts([port(['NET_GUEST_TSO6'])])
        .split('\n')
        .slice(2),
    ).toEqual([`${text} (its guest keeps tso until its QEMU is started anew)`, '']);
    const offloadsOf = (kind: PortKind): unknown =>
      effectiveSettings(settings, offloadNamesOf(kind)).offloads;
    expect(offloadsOf('unix')).toBeNull();
    expect(offloadsOf('dpdk')).toEqual({ csum: true, tso: false });
  });

  it('a queue that is what the port complains of once, whatever the kind of port', () => {
    const queue = { direction: 'ingress', size: 256, started: true, enabled: true, inUse: false } as const;
    const queueReport = (index: number, reason: string) => {
      return { ...queue, index, reason, worker: null, frames: 0, bytes: 0, calls: 0 };
    };
    const port = portReport('vm0', {
      reason: 'queue 1 stopped: a buffer lies outside the shared memory',
      queues: [1, 3].map((index) => queueReport(index, 'a buffer lies outside the shared memory')),
    });
    expect(formatPorts([port]).split('\n').slice(2)).toEqual([
      '  queue 1 stopped: a buffer lies outside the shared memory',
      '  queue 3 stopped: a buffer lies outside the shared memory',
      '',
    ]);
    const capture = portReport('rec', {
      reason: 'all 3 frames were sent',
      queues: [queueReport(0, 'all 3 frames were sent')],
    });
    expect(formatPorts([capture]).split('\n').slice(2)).toEqual(['  all 3 frames were sent', '']);
  });

  it('what a peer made up as text, whoever passed it on', () => {
    const hostile = 'vm\u001b[2J\n\u202e';
    const queue = {
      index: 1,
      direction: 'egress',
      size: 0,
      started: true,
      enabled: true,
      inUse: true,
      worker: 0,
    } as const;
    const port = portReport('vm0', {
      endpoint: `/run/${hostile}.sock`,
      reason: `sent ${hostile}`,
      queues: [{ ...queue, frames: 0, bytes: 0, calls: 0, reason: `named ${hostile}` }],
    });
    const lines = formatPorts([port]).split('\n');
    const shown = 'vm\\x1b[2J\\x0a\\u202e';
    expect(lines[1]).toMatch(/\/run\/vm\\x1b\[2J\\x0a\\u202e\.sock$/);
    expect(lines.slice(2)).toEqual([`  sent ${shown}`, `  queue 1 stopped: named ${shown}`, '']);
    const json = jsonText([port]);
    expect(json).toMatch(/^[\n\x20-\x7e]*$/);
    expect(JSON.parse(json)).toEqual([port]);
  });

  it('addresses by VLAN, then by address', () => {
    expect(formatFdb(FDB).split('\n')).toEqual([
      'ADDRESS            VLAN  PORT  SILENT FOR',
      '02:00:00:00:00:01     0  vm0        299 s',
      '02:00:00:00:00:02     0  vm1       static',
      '02:00:00:00:00:02     7  vm1          0 s',
      '3 of at most 8,192 addresses; each is forgotten after 300 s of silence',
      'moved there from another port: vm1 2',
      '',
    ]);
    expect(formatFdb({ ...FDB, entries: [] })).toMatch(/^0 of at most/);
  });
});
