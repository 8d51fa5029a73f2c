/** The command line as a user meets it: the real program in a process of its own. No peers. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { EventEmitter } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { closeFd } from '../../../src/host/descriptor.ts';
import { listenUnix } from '../../../src/host/unix-socket.ts';
import { guestLine } from '../../../switch/cli/guest-line.ts';
import { findControl } from '../../../switch/cli/running.ts';
import { stopRequested } from '../../../switch/cli/signals.ts';
import { PORT_KINDS } from '../../../switch/config/kinds/index.ts';
import type { PortConfig } from '../../../switch/config/resolve.ts';

const MAIN = fileURLToPath(new URL('../../../switch/cli/main.ts', import.meta.url));
const WRAPPER = fileURLToPath(new URL('../../../switch/cli/ringway.js', import.meta.url));

// Many start a process or twenty, one after the other, and a busy machine takes five seconds for each.
vi.setConfig({ testTimeout: 300_000 });

type Ended = { code: number | null; signal: NodeJS.Signals | null; stdout: string; stderr: string };

let folder = '';
let environment: NodeJS.ProcessEnv = {};
const started: ChildProcess[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-cli-'));
  const runtime = join(folder, 'runtime');
  mkdirSync(runtime);
  const { RINGWAY_CONTROL: _, ...rest } = process.env;
  environment = { ...rest, XDG_RUNTIME_DIR: runtime, TMPDIR: folder, NO_COLOR: '1' };
});

afterEach(async () => {
  await Promise.all(
    started.splice(0).map(async (child) => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await exited;
    }),
  );
  rmSync(folder, { recursive: true, force: true });
});

/** The program with its output so far; `ended` when it is over. */
class Program {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  stdout = '';
  stderr = '';
  readonly #output = new EventEmitter();

  constructor(args: readonly string[], program = MAIN) {
    this.child = spawn(process.execPath, [program, ...args], { env: environment, stdio: 'pipe' });
    started.push(this.child);
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
      this.#output.emit('more');
    });
    this.ended = new Promise((resolve) => {
      this.child.once('close', (code, signal) => {
        resolve({ code, signal, stdout: this.stdout, stderr: this.stderr });
        this.#output.emit('more');
      });
    });
  }

  /** Resolves when the log has said it. @throws Error when the program ended without */
  async logged(message: string): Promise<void> {
    while (!this.stderr.includes(`"msg":"${message}"`)) {
      if (this.child.exitCode !== null) throw new Error(`ended with ${this.child.exitCode}: ${this.stderr}`);
      await new Promise((resolve) => this.#output.once('more', resolve));
    }
  }
}

function ringway(...args: string[]): Promise<Ended> {
  return new Program(args).ended;
}

async function running(...args: string[]): Promise<Program> {
  const program = new Program(['run', ...args]);
  await program.logged('running');
  return program;
}

function notes(): string[] {
  const path = join(folder, 'runtime', `ringway-${process.getuid!()}`);
  return existsSync(path) ? readdirSync(path) : [];
}

/** Names in the folder that the test did not put there. */
function leftBehind(): string[] {
  return readdirSync(folder).filter((name) => name !== 'runtime');
}

describe('wrong usage: exit code 2 and one line', () => {
  it.each<[string[], string]>([
    [
      [],
      'name a command: run, ports, top, fdb, mdb, add, set, remove, apply, show, trace, capture, plugin, demo, doctor, install-service or completion (see --help)',
    ],
    [['prots'], "unknown command 'prots' (Did you mean ports?)"],
    [['--frob'], "unknown option '--frob'"],
    [['run', '--prot', 'a=/x'], "unknown option '--prot' (Did you mean --port?)"],
    [['run', 'extra'], "too many arguments for 'run'. Expected 0 arguments but got 1."],
    [['run', '--config'], "option '--config <file>' argument missing"],
    [['run'], 'no port: give --port NAME=SOCKET, or ports in a file named with --config'],
    [['run', '--port', 'a=/x,queues=300'], '--port a: queues: 300 is not allowed (1 to 127)'],
    [['run', '--config', '/nonexistent.yaml'], 'cannot read /nonexistent.yaml: no such file'],
    [
      ['run', '--port', 'a=/x', '--log-level', 'loud'],
      "option '--log-level <level>' argument 'loud' is invalid. Allowed choices are fatal, error, warn, info, debug, trace, silent.",
    ],
    [['ports', '--jsno'], "unknown option '--jsno' (Did you mean --json?)"],
    [['demo', '--seconds', '0'], '--seconds: 0 is not allowed (1 to 86400)'],
    [['demo', '--frame-size', '1e9'], '--frame-size: 1e9 is not allowed (60 to 9014)'],
  ])('%j', async (args, line) => {
    expect(await ringway(...args)).toEqual({
      code: 2,
      signal: null,
      stdout: '',
      stderr: `ringway: ${line}\n`,
    });
  });
});

describe('help and version', () => {
  it.each([
    [['--help']],
    [['help']],
    [['run', '--help']],
    [['ports', '-h']],
    [['fdb', '-h']],
    [['demo', '-h']],
  ])('%j goes to stdout', async (args) => {
    const { code, stdout, stderr } = await ringway(...args);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^Usage: ringway /);
  });

  it('has examples, and says where the process to ask is looked for', async () => {
    expect((await ringway('--help')).stdout).toContain('ringway run --config /etc/ringway.yaml');
    expect((await ringway('run', '--help')).stdout).toContain('--port vm0=/run/ringway/vm0.sock');
    expect((await ringway('ports', '--help')).stdout).toContain('RINGWAY_CONTROL');
  });

  it('names every kind of port, and where they are described', async () => {
    const [brief, run] = [(await ringway('--help')).stdout, (await ringway('run', '--help')).stdout];
    for (const kind of PORT_KINDS) {
      expect(brief).toMatch(new RegExp(`\\b${kind}\\b`));
      expect(run).toMatch(new RegExp(`\\b${kind}\\b`));
    }
    expect(run).toContain('docs/ports.md');
    expect((await ringway('add', '--help')).stdout).toContain('ringway run --help');
  });

  it('tells the version of package.json, also through the installed command', async () => {
    const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
    const version = `${JSON.parse(text).version}\n`;
    expect((await ringway('--version')).stdout).toBe(version);
    expect((await new Program(['--version'], WRAPPER).ended).stdout).toBe(version);
  });
});

describe('run', () => {
  it('listens, answers ports and fdb, and leaves nothing after SIGTERM', async () => {
    const [a, b] = [join(folder, 'a.sock'), join(folder, 'b.sock')];
    const program = await running('--port', `a=${a}`, '--port', `b=${b},queues=1`);
    expect(leftBehind().sort()).toEqual(['a.sock', 'b.sock', 'ringway.sock']);
    expect(notes()).toEqual([`${program.child.pid}.json`]);

    const json = await ringway('ports', '--json');
    expect(JSON.parse(json.stdout)).toMatchObject([
      { name: 'a', endpoint: a, state: 'waiting' },
      { name: 'b', endpoint: b, state: 'waiting' },
    ]);
    const text = await ringway('ports');
    expect(text).toMatchObject({ code: 0, stderr: '' });
    expect(text.stdout).toMatch(/^PORT {2}STATE .*\na +waiting +0 +0 +0 +0 +\S+a\.sock\n/);
    expect(JSON.parse((await ringway('fdb', '--json')).stdout)).toEqual({
      capacity: 8192,
      ageSeconds: 300,
      moved: { a: 0, b: 0 },
      entries: [],
    });
    expect((await ringway('fdb', '--control', folder)).stdout).toMatch(/^0 of at most 8,192 addresses/);
    const traced = await ringway('trace', '--in', 'a', '--arp', '10.0.0.1,10.0.0.2');
    expect(traced).toMatchObject({ code: 0, stderr: '' });
    expect(traced.stdout).toMatch(
      /^frame .*\n +ARP: who has 10\.0\.0\.2, tell 10\.0\.0\.1\n[\s\S]*\(notReady\)\n$/,
    );
    expect(await ringway('trace', '--in', 'c')).toMatchObject({
      code: 2,
      stderr: 'ringway: there is no port c\n',
    });

    program.child.kill('SIGTERM');
    const ended = await program.ended;
    expect(ended).toMatchObject({ code: 0, signal: null });
    expect(ended.stdout).toContain(`path=${a} -netdev`);
    expect(leftBehind()).toEqual([]);
    expect(notes()).toEqual([]);
  });

  // Some twenty processes, one after the other.
  it('gains and loses ports while it runs', async () => {
    const socket = (name: string): string => join(folder, `${name}.sock`);
    const names = async (): Promise<string[]> =>
      JSON.parse((await ringway('ports', '--json')).stdout).map(({ name }: { name: string }) => name);
    const program = await running('--port', `a=${socket('a')}`);
    const done = { code: 0, signal: null, stdout: '', stderr: '' };
    const added = await ringway('add', `b=${socket('b')},queues=2`);
    expect(added).toEqual({ ...done, stdout: expect.stringMatching(/^# b\nqemu-system-x86_64 [^\n]+\n$/) });
    expect(added.stdout).toContain(
      `path=${socket('b')} -netdev type=vhost-user,id=net0,chardev=char0,queues=2 `,
    );
    // The line that `run` would print, and none where no guest is plugged in.
    expect(await ringway('add', `rec=pcap:${socket('rec')}`)).toEqual(done);
    expect(await ringway('remove', 'rec')).toEqual(done);
    rmSync(socket('rec'));
    expect(await names()).toEqual(['a', 'b']);
    expect(leftBehind().sort()).toEqual(['a.sock', 'b.sock', 'ringway.ports.json', 'ringway.sock']);
    expect(await ringway('add', `c=${socket('c')},queues=0`)).toEqual({
      code: 2,
      signal: null,
      stdout: '',
      stderr: 'ringway: port c: queues: 0 is not allowed (1 to 127)\n',
    });
    expect((await ringway('add', `c=${socket('c')},quees=2`)).stderr).toBe(
      'ringway: port c: quees: unknown setting (did you mean queues?)\n',
    );
    expect(await ringway('add', `c=${socket('a')}`)).toEqual({
      code: 2,
      signal: null,
      stdout: '',
      stderr: `ringway: port c: socket: ${socket('a')} is not allowed (it is the socket of port a)\n`,
    });
    expect(await ringway('set', 'b', 'vlan-mode=native-tagged', 'tag=10', 'trunks=5+20-22')).toEqual(done);
    expect(await ringway('set', 'b', 'trunks=', 'flood=off', 'protected=on', 'loop-guard=on')).toEqual(done);
    const limits = ['frames-in=1K', 'rate-out=10M', 'rate-out-burst=64K', 'storm-broadcast=100'];
    expect(await ringway('set', 'b', ...limits)).toEqual(done);
    expect((await ringway('ports')).stdout).toContain(
      '\n  frames-in 1K, rate-out 10M, rate-out-burst 64K, storm-broadcast 100, protected on, loop-guard on\n',
    );
    expect(JSON.parse((await ringway('ports', '--json')).stdout)[1].settings).toEqual({
      flood: false,
      receive: true,
      forwardBpdu: false,
      mtu: null,
      mrouter: 'auto',
      fastLeave: false,
      vlanMode: 'native-tagged',
      tag: 10,
      trunks: null,
      cvlans: null,
      priorityTags: 'never',
      qinqEthtype: '802.1ad',
      mirror: null,
      mirrorDirection: null,
      mirrorVlans: null,
      outputVlan: null,
      macs: null,
      macsMax: null,
      macsSticky: false,
      staticMacs: [],
      ips: null,
      guard: [],
      rateIn: null,
      rateInBurst: null,
      framesIn: 1000,
      framesInBurst: 50,
      rateOut: 10_000_000,
      rateOutBurst: 64_000,
      framesOut: null,
      framesOutBurst: null,
      stormBroadcast: 100,
      stormMulticast: null,
      stormUnknown: null,
      protected: true,
      loopGuard: 'on',
      loopShutSeconds: 60,
      plugins: null,
      offloads: { csum: true, tso: true, ecn: true, uso: true },
    });
    expect(await ringway('fdb', 'add', '02:00:00:00:00:0A', 'b')).toEqual(done);
    expect(await ringway('fdb', 'add', '02:00:00:00:00:0a', 'b', '--vlan', '7')).toEqual(done);
    expect((await ringway('fdb')).stdout).toMatch(
      /\n02:00:00:00:00:0a {5}7 {2}b +static\n02:00:00:00:00:0a {4}10 {2}b +static\n2 of/,
    );
    expect(await ringway('fdb', 'del', '02:00:00:00:00:0a', '--vlan', '10')).toEqual(done);
    expect((await ringway('fdb', 'flush', '--port', 'b')).stdout).toBe('forgot 0 addresses\n');
    expect((await ringway('fdb', 'flush', '--static', '--vlan', '7')).stdout).toBe('forgot 1 address\n');
    expect(await ringway('fdb', 'del', '02:00:00:00:00:0a')).toMatchObject({
      code: 2,
      stderr: 'ringway: 02:00:00:00:00:0a is not known\n',
    });
    expect(await ringway('set', 'b', 'tag=4096', 'priority-tags=no', 'cvlans=1')).toEqual({
      code: 2,
      signal: null,
      stdout: '',
      stderr:
        'ringway: port b: tag: 4096 is not allowed (0 to 4095); ' +
        'port b: priority-tags: no is not allowed (never, if-nonzero or always); ' +
        'port b: cvlans: 1 is not allowed (only with vlan-mode dot1q-tunnel, and it is native-tagged)\n',
    });
    expect((await ringway('set', 'b', 'tag')).stderr).toBe('ringway: tag: not of the form key=value\n');
    expect((await ringway('set', 'x', 'tag=1')).stderr).toContain('there is no port x');
    expect(await ringway('remove', 'a')).toEqual(done);
    expect(await names()).toEqual(['b']);
    expect(await ringway('remove', 'a')).toEqual({
      code: 2,
      signal: null,
      stdout: '',
      stderr: 'ringway: there is no port a\n',
    });
    program.child.kill('SIGTERM');
    expect((await program.ended).code).toBe(0);
    expect(leftBehind()).toEqual(['ringway.ports.json']);
  });

  it('refuses a port that cannot be added with exit code 2 and one line', async () => {
    const socket = join(folder, 'a.sock');
    await running('--port', `a=${socket}`);
    const taken = join(folder, 'taken.sock');
    const fd = listenUnix(taken);
    symlinkSync('loop', join(folder, 'loop'));
    try {
      for (const [text, why] of [
        [`b=${join(folder, 'missing', 'b.sock')}`, `folder ${join(folder, 'missing')} of socket `],
        [`a=${join(folder, 'b.sock')}`, 'port a exists already'],
        [`b=${socket}`, 'it is the socket of port a'],
        [`b=${taken}`, 'is in use by a running process'],
        [`b=${join(folder, 'loop', 'b.sock')}`, 'ELOOP'],
        ['b=/x,configSpace=on', 'port b: configSpace: unknown setting (did you mean config-space?)'],
      ]) {
        const { code, stdout, stderr } = await ringway('add', text);
        expect({ code, stdout, stderr }).toEqual({
          code: 2,
          stdout: '',
          stderr: expect.stringContaining(why),
        });
        expect(stderr).toMatch(/^ringway: [^\n]+\n$/);
      }
    } finally {
      closeFd(fd);
    }
  });

  it('says below a mirror which port it is to mirror and is not there', async () => {
    const port = (name: string): string => `${name}=${join(folder, `${name}.sock`)}`;
    await running(
      '--port',
      port('a'),
      '--port',
      `rec=pcap:${join(folder, 'rec')},mirror=a+vm99,mirror-vlans=5+6`,
    );
    const { stdout } = await ringway('ports');
    expect(stdout).toMatch(
      /^rec +running .*\n {2}vm99 is not there: it is mirrored once it is added\n {2}do: add it, .*\n {2}mirror a\+vm99, mirror-vlans 5-6$/m,
    );
    await ringway('add', port('vm99'));
    expect((await ringway('ports')).stdout).not.toContain('is not there');
  });

  it('writes its log as JSON lines when stderr is no terminal', async () => {
    const program = await running('--port', `a=${join(folder, 'a.sock')}`);
    program.child.kill('SIGINT');
    const { stderr } = await program.ended;
    const lines = stderr.trimEnd().split('\n');
    for (const line of lines) expect(JSON.parse(line)).toMatchObject({ level: 'info' });
    expect(lines.map((line) => JSON.parse(line).msg).slice(-2)).toEqual(['stopping', 'stopped']);
  });

  it('takes its ports from a file, and its control socket from the options', async () => {
    const file = join(folder, 'r.yaml');
    writeFileSync(file, `ports:\n  vm0: { socket: ${join(folder, 'v.sock')}, mode: 0600 }\npoll: busy\n`);
    const control = join(folder, 'control.sock');
    const program = await running('--config', file, '--control', control, '--fdb-capacity', '16');
    expect(JSON.parse((await ringway('fdb', '--json')).stdout).capacity).toBe(16);
    program.child.kill('SIGTERM');
    expect((await program.ended).code).toBe(0);
    expect(leftBehind()).toEqual(['r.yaml']);
  });

  it('without a control API leaves no note and no control socket', async () => {
    const program = await running('--port', `a=${join(folder, 'a.sock')}`, '--control', 'none');
    expect(leftBehind()).toEqual(['a.sock']);
    expect(notes()).toEqual([]);
    program.child.kill('SIGTERM');
    expect((await program.ended).code).toBe(0);
  });

  it('takes over the sockets of one that was killed', async () => {
    const port = `a=${join(folder, 'a.sock')}`;
    const killed = await running('--port', port);
    killed.child.kill('SIGKILL');
    await killed.ended;
    expect(leftBehind().sort()).toEqual(['a.sock', 'ringway.sock']);

    const program = await running('--port', port);
    expect(JSON.parse((await ringway('ports', '--json')).stdout)).toMatchObject([{ name: 'a' }]);
    // Asking has cleared away the note of the dead one.
    expect(notes()).toEqual([`${program.child.pid}.json`]);
    program.child.kill('SIGTERM');
    expect((await program.ended).code).toBe(0);
    expect(leftBehind()).toEqual([]);
  });
});

describe('run that cannot be: exit code 2, one line, nothing left behind', () => {
  async function refused(args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await ringway('run', ...args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(/^ringway: [^\n]+\n$/);
    expect(notes()).toEqual([]);
    return stderr;
  }

  const good = () => ['--port', `good=${join(folder, 'good.sock')}`];

  it('a missing folder', async () => {
    const path = join(folder, 'missing', 'a.sock');
    expect(await refused([...good(), '--port', `a=${path}`])).toContain(
      `folder ${join(folder, 'missing')} of socket ${path} does not exist`,
    );
    expect(leftBehind()).toEqual([]);
  });

  it('a folder in which nobody may create files, not even root', async () => {
    expect(await refused([...good(), '--port', 'a=/sys/a.sock'])).toContain('/sys/a.sock');
    expect(leftBehind()).toEqual([]);
  });

  it('a folder that the system does not find its way to', async () => {
    symlinkSync('loop', join(folder, 'loop'));
    expect(await refused([...good(), '--port', `a=${join(folder, 'loop', 'a.sock')}`])).toContain('ELOOP');
    expect(leftBehind()).toEqual(['loop']);
  });

  it('a socket in use by a running process, which keeps it', async () => {
    const path = join(folder, 'a.sock');
    const fd = listenUnix(path);
    try {
      expect(await refused([...good(), '--port', `a=${path}`])).toContain(
        `socket ${path} is in use by a running process`,
      );
      expect(leftBehind()).toEqual(['a.sock']);
    } finally {
      closeFd(fd);
    }
  });

  it('a file in the place of the socket, which stays', async () => {
    const path = join(folder, 'a.sock');
    writeFileSync(path, 'precious');
    expect(await refused([...good(), '--port', `a=${path}`])).toContain('is not a socket');
    expect(readFileSync(path, 'utf8')).toBe('precious');
    expect(leftBehind()).toEqual(['a.sock']);
  });

  it('a control socket in use', async () => {
    const control = join(folder, 'ringway.sock');
    const fd = listenUnix(control);
    try {
      expect(await refused(good())).toContain(
        `control socket: socket ${control} is in use by a running process (choose another with --control`,
      );
      expect(leftBehind()).toEqual(['ringway.sock']);
    } finally {
      closeFd(fd);
    }
  });

  it('a control socket in use, without a change to what its process has kept', async () => {
    const control = join(folder, 'ringway.sock');
    const kept = join(folder, 'ringway.ports.json');
    const before = JSON.stringify({
      format: 1,
      ports: {},
      configured: { other: { name: 'other', kind: 'vhost-user', socket: join(folder, 'other.sock') } },
      set: { other: { tag: '10' } },
    });
    writeFileSync(kept, before, { mode: 0o600 });
    const fd = listenUnix(control);
    try {
      const args = [...good(), '--log-level', 'warn'];
      expect(await refused(args)).toContain(`control socket: socket ${control} is in use`);
      expect(readFileSync(kept, 'utf8')).toBe(before);
    } finally {
      closeFd(fd);
    }
  });

  it('a limit on addresses that leaves no room for the arena', async () => {
    const command = `ulimit -v 4000000; exec "${process.execPath}" "${MAIN}" run --port "a=${join(folder, 'a.sock')}"`;
    const { status, stdout, stderr } = spawnSync('sh', ['-c', command], {
      env: environment,
      encoding: 'utf8',
    });
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(
      /^ringway: there is no room for the smallest arena: raise the limit on addresses \(ulimit -v, LimitAS=\): [^\n]*ENOMEM[^\n]*\n$/,
    );
    expect(leftBehind()).toEqual([]);
  });

  const answering = (object: string, factory = ''): string =>
    `export default (settings, context) => { ${factory} return ${object}; };\n`;
  const RULE = '{ version: 1, decide() {} }';

  it.each<[string, string, string, RegExp]>([
    ['with a syntax error', 'export default (;\n', '', /: syntax error: /],
    ['without a default export', 'export const a = 1;\n', '', /: it has no default export$/],
    [
      'of another interface',
      answering('{ version: 2, decide() {} }'),
      '',
      /: it is for version 2 of the interf/,
    ],
    [
      'that throws',
      answering(RULE, "throw new Error('not today');"),
      '',
      /: Error: not today \(\S*rule\.ts:1:/,
    ],
    [
      'with bad settings',
      answering(RULE, "settings.number('most', { min: 1, max: 9 }); settings.text('who');"),
      ',most=10,limit=1',
      /: most: 10 is not allowed \(a number, 1 to 9\); .*: who: .*; .*: limit: unknown setting/,
    ],
    [
      'whose file of rules is missing',
      answering(RULE, "settings.lines('rules');"),
      ',rules=/nowhere/a.rules',
      /: rules: .*nowhere\/a\.rules/,
    ],
  ])('a plugin %s', async (_, text, settings, message) => {
    const path = join(folder, 'rule.ts');
    writeFileSync(path, text);
    const told = await refused([...good(), '--plugin', `${path}${settings}`]);
    expect(told.startsWith(`ringway: plugin rule (${path}): `)).toBe(true);
    expect(told.trimEnd()).toMatch(message);
    expect(leftBehind()).toEqual(['rule.ts']);
  });

  it('a plugin that is no file, or a folder', async () => {
    const missing = join(folder, 'missing.ts');
    expect(await refused([...good(), '--plugin', missing, '--plugin', `${folder},as=folder`])).toBe(
      `ringway: plugin missing (${missing}): no such file; plugin folder (${folder}): it is a folder\n`,
    );
    expect(leftBehind()).toEqual([]);
  });

  it('a plugin that was added at run time, and how to begin without it', async () => {
    const path = join(folder, 'rule.ts');
    writeFileSync(path, answering(RULE));
    const program = await running(...good());
    expect(await ringway('plugin', 'add', path)).toMatchObject({ code: 0, stderr: '' });
    program.child.kill('SIGTERM');
    await program.ended;
    writeFileSync(path, 'export const a = 1;\n');
    expect(await refused(good())).toBe(
      `ringway: plugin rule (${path}, added at run time: \`ringway run --no-restore\` begins without what was): it has no default export\n`,
    );
    const without = await running(...good(), '--no-restore');
    expect((await ringway('plugin', 'list')).stdout).toBe('There are no plugins.\n');
    without.child.kill('SIGTERM');
    expect((await without.ended).code).toBe(0);
  });

  it('a processor that does not exist', async () => {
    expect(await refused([...good(), '--cpus', '1023'])).toContain(
      '--cpus: 1023 is not allowed (this process',
    );
    expect(leftBehind()).toEqual([]);
  });
});

describe('finding the process to ask', () => {
  it('says in one line that there is none', async () => {
    expect(await ringway('ports')).toEqual({
      code: 1,
      signal: null,
      stdout: '',
      stderr: 'ringway: no running ringway of this user was found; name its control socket with --control\n',
    });
    const control = join(folder, 'nobody.sock');
    expect(await ringway('fdb', '--control', control)).toMatchObject({
      code: 1,
      stderr: `ringway: no ringway is running at ${control}\n`,
    });
  });

  it("knows a port's socket from a control socket", async () => {
    const path = (name: string): string => join(folder, name);
    const dgram = `d=unix:${path('d.sock')},transport=dgram,peer=${path('d.qemu')}`;
    await running('--port', `v=${path('v.sock')}`, '--port', `u=unix:${path('u.sock')}`, '--port', dgram);
    for (const socket of ['v.sock', 'u.sock', 'd.sock'].map(path)) {
      expect(await ringway('ports', '--control', socket)).toMatchObject({
        code: 1,
        stderr: `ringway: ${socket} does not answer as a ringway control socket: it may be the socket of a port\n`,
      });
    }
  });

  it('names them all when there are several', async () => {
    for (const name of ['one', 'two']) {
      mkdirSync(join(folder, name));
      await running('--port', `${name}=${join(folder, name, 'p.sock')}`);
    }
    const controls = ['one', 'two'].map((name) => join(folder, name, 'ringway.sock'));
    const { code, stderr } = await ringway('ports');
    expect(code).toBe(2);
    expect(stderr).toMatch(/^ringway: several ringways are running: choose one with --control: [^\n]+\n$/);
    for (const control of controls) expect(stderr).toContain(control);
    environment.RINGWAY_CONTROL = controls[1];
    expect(JSON.parse((await ringway('ports', '--json')).stdout)).toMatchObject([{ name: 'two' }]);
  });

  it('trusts no folder that others can write to, and no note it cannot read', async () => {
    const fd = listenUnix(join(folder, 'trap.sock'));
    const noteFolder = join(folder, 'runtime', `ringway-${process.getuid!()}`);
    const within = { XDG_RUNTIME_DIR: join(folder, 'runtime'), TMPDIR: folder };
    const note = JSON.stringify({ pid: 1, control: join(folder, 'trap.sock') });
    try {
      mkdirSync(noteFolder);
      writeFileSync(join(noteFolder, '1.json'), 'not JSON');
      writeFileSync(join(noteFolder, '2.txt'), note);
      await expect(findControl(undefined, within)).rejects.toThrow(/^no running ringway/);
      rmSync(noteFolder, { recursive: true });
      mkdirSync(noteFolder);
      chmodSync(noteFolder, 0o777);
      writeFileSync(join(noteFolder, '1.json'), note);
      await expect(findControl(undefined, within)).rejects.toThrow(/^no running ringway/);
      expect(existsSync(join(noteFolder, '1.json'))).toBe(true);
    } finally {
      closeFd(fd);
    }
  });
});

describe('signals', () => {
  it('the first asks to stop, a repetition within a moment is the same, a later one ends at once', async () => {
    const signals = new EventEmitter();
    const ends: string[] = [];
    let nowMs = 1000;
    const stop = stopRequested({ signals, nowMs: () => nowMs, endNow: (signal) => ends.push(signal) });
    signals.emit('SIGINT', 'SIGINT');
    expect(await stop).toBe('SIGINT');
    nowMs += 249;
    signals.emit('SIGINT', 'SIGINT');
    expect(ends).toEqual([]);
    nowMs += 1;
    signals.emit('SIGTERM', 'SIGTERM');
    expect(ends).toEqual(['SIGTERM']);
  });
});

describe('the line that plugs a guest in', () => {
  const PORT = {
    name: 'vm0',
    kind: 'vhost-user',
    socket: '/r/a.sock',
    role: 'server',
    queues: 16,
    configSpace: false,
    flood: true,
    receive: true,
    forwardBpdu: false,
  } as const satisfies PortConfig;

  it('shares the memory and names the socket and as many vectors as queues need', () => {
    const line = guestLine(PORT);
    expect(line).toContain(
      '-accel kvm -cpu host -smp 2 -m 4096M -object memory-backend-memfd,id=mem,size=4096M,share=on -numa node,memdev=mem',
    );
    expect(line).toContain(
      '-chardev socket,id=char0,path=/r/a.sock -netdev type=vhost-user,id=net0,chardev=char0,queues=2 ',
    );
    expect(line).toMatch(/-device virtio-net-pci,netdev=net0,mac=52:54:00(:[0-9a-f]{2}){3},mq=on,vectors=6$/);
  });

  it('lets QEMU listen in client role', () => {
    expect(guestLine({ ...PORT, role: 'client' })).toContain('path=/r/a.sock,server=on,wait=off ');
  });

  it('has another address for each name, always the same, or the one that was set', () => {
    const macOf = (port: PortConfig) => /mac=([^, ]+)/.exec(guestLine(port)!)![1];
    expect(macOf(PORT)).toBe(macOf({ ...PORT, socket: '/other' }));
    expect(macOf(PORT)).not.toBe(macOf({ ...PORT, name: 'vm1' }));
    expect(macOf({ ...PORT, mac: '02:00:00:00:00:01' })).toBe('02:00:00:00:00:01');
  });

  it('is that of User-Mode Linux where the configuration space is offered, which only connects', () => {
    const port = { ...PORT, configSpace: true } as const;
    expect(guestLine(port)).toBe('linux.uml mem=4096M initrd=initramfs.cpio virtio_uml.device=/r/a.sock:1');
    expect(guestLine({ ...port, role: 'client' })).toMatch(/^qemu-system-x86_64 .*,server=on,wait=off /);
    // The kernel would take these apart, and nothing keeps it from that.
    expect(guestLine({ ...port, socket: '/r/a:b.sock' })).toBeNull();
    expect(guestLine({ ...port, socket: '/r/a b.sock' })).toBeNull();
  });

  it('has no multiqueue and no second processor with one pair, and quotes what QEMU and the shell would take apart', () => {
    const line = guestLine({ ...PORT, queues: 1, socket: "/r/it's, a.sock" });
    expect(line).not.toMatch(/mq=on|queues=|-smp/);
    expect(line).toContain(`-chardev 'socket,id=char0,path=/r/it'\\''s,, a.sock' `);
  });
});
