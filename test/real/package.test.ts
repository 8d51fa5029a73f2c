/**
 * The Debian package in a system that has nothing else: installed, two guests talk by two commands, then as the service of its
 * unit, whole, with guests from outside; upgraded under their frames, and removed again.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EmbeddedGuest } from '../../src/frontend/index.ts';
import { ASSET_PATHS } from '../../switch/web/assets.ts';
import { NumberedFlow, takeAll } from '../numbered-flow.ts';
import { BareSystem } from '../peers/bare-system.ts';
import { runProgram } from '../peers/child.ts';
import { controlGroupsObstacle } from '../peers/control-groups.ts';
import { peersForTests } from '../peers/index.ts';

const ROOT = join(import.meta.dirname, '../..');
const MAKE_MS = 280_000;
const WAIT_MS = 20_000;
const UNTIL_MS = 60_000;
const OLDER = '0.0.1';
const PROGRAM = '/usr/lib/ringway/node_modules';
const DROP_INS = '/etc/systemd/system/ringway.service.d';
const CONTROL = '--control /run/ringway';
const NAMES = ['a', 'b'] as const;
const CONFIG = `
ports:
  a: { socket: /run/ringway/a.sock, owner: "me:me" }
  b: { socket: /run/ringway/b.sock, plugins: [mine] }
  denied: { kind: pcap, file: /home/me/denied.pcap }
  allowed: { kind: pcap, file: /home/me/captures/allowed.pcap }
plugins:
  mine: { file: /etc/mine.ts }
web: /run/ringway/web.sock
control: /run/ringway/ringway.sock
`;
/** A file of the user's own: TypeScript that imports `ringway/plugin`. */
const PLUGIN = join(ROOT, 'switch/plugin/examples/dhcp-recorder.ts');

const peers = await peersForTests(['debootstrap']);
const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
/** Made and fetched anew, which is forbidden with what may be installed. */
const obstacle =
  process.env.RINGWAY_INSTALL_PEERS === '0'
    ? 'RINGWAY_INSTALL_PEERS=0 forbids to fetch a system'
    : controlGroupsObstacle();

async function succeed(command: string, args: readonly string[]): Promise<string> {
  const { code, output } = await runProgram(command, args, { timeoutMs: MAKE_MS, cwd: ROOT });
  expect(code, `${command} ${args.join(' ')}: ${output}`).toBe(0);
  return output;
}

/** The same package with another number. */
async function renumbered(archive: string, other: string, work: string): Promise<string> {
  const folder = join(work, 'other');
  await succeed('dpkg-deb', ['--raw-extract', archive, folder]);
  for (const path of ['DEBIAN/control', `${PROGRAM}/ringway/package.json`]) {
    const text = readFileSync(join(folder, path), 'utf8');
    writeFileSync(join(folder, path), text.replace(/^(\s*"?version"?: "?)[\d.]+/im, `$1${other}`));
  }
  await succeed('dpkg-deb', ['--root-owner-group', '-Znone', '--build', folder, join(work, 'other.deb')]);
  return join(work, 'other.deb');
}

describe.skipIf(peers.skip || obstacle !== null)(
  peers.title(`the Debian package${obstacle === null ? '' : ` (skipped: ${obstacle})`}`),
  () => {
    let work = '';
    let archive = '';
    let system: BareSystem;
    let filesBefore = '';

    beforeAll(async () => {
      work = mkdtempSync(join(tmpdir(), 'ringway-package-'));
      const started = BareSystem.start();
      started.catch(() => {});
      const output = await succeed('npm', ['run', '-s', 'package', '--', '--output', work]);
      archive = output.trim().split('\n').at(-1) ?? '';
      const older = await renumbered(archive, OLDER, work);
      system = await started;
      await succeed('cp', [archive, system.pathOf('tmp/new.deb')]);
      await succeed('cp', [older, system.pathOf('tmp/old.deb')]);
      await system.run('useradd --create-home me && install -d -o me /home/me/captures');
      filesBefore = await files();
    });

    afterAll(async () => {
      await system?.stop();
      rmSync(work, { recursive: true, force: true });
    });

    /** Of the system as it is installed, without dpkg's books and logs. */
    function files(): Promise<string> {
      return system.run('find / -xdev -path /var/lib/dpkg -prune -o -path /var/log -prune -o -print | sort');
    }

    const read = (path: string): Buffer => readFileSync(system.pathOf(path));
    const page = (path: string): string => gunzipSync(read(path)).toString();
    const shown = (...properties: string[]): Promise<string> =>
      system.run(`systemctl show ringway --value ${properties.map((name) => `-p ${name}`).join(' ')}`);

    test('has two guests talk by two commands', async () => {
      await system.run('dpkg -i /tmp/old.deb');
      const said = await system.run('ringway demo --seconds 1');
      expect(said).toContain('Every frame arrived once, intact and in order.');
    });

    test('is what it says it is', async () => {
      expect(await system.run('ringway --version')).toBe(`${OLDER}\n`);
      expect(await system.run('dpkg --verify ringway')).toBe('');
      expect((await system.tryRun('command -v node')).code).not.toBe(0);
      const listed = (await succeed('dpkg-deb', ['--contents', archive])).trim().split('\n');
      const entries = listed
        .map((line) => line.split(/\s+/))
        .map(([mode, owner, , , , path]) => ({ mode, owner, path }));
      expect(new Set(entries.map(({ owner }) => owner))).toEqual(new Set(['root/root']));
      const modes = { d: 'drwxr-xr-x', l: 'lrwxrwxrwx', '-': '-rw-r--r--' } as const;
      const others = entries.filter(({ mode }) => mode !== modes[mode[0] as keyof typeof modes]);
      expect(others.map(({ mode, path }) => [mode, path])).toEqual([
        ['-rwxr-xr-x', `.${PROGRAM}/node/bin/node`],
        ['-rwxr-xr-x', `.${PROGRAM}/ringway/switch/cli/ringway.sh`],
      ]);
      const copyright = read('usr/share/doc/ringway/copyright').toString();
      for (const name of ['node', 'koffi', 'hono', 'zod', 'pino', 'preact'])
        expect(copyright, name).toContain(`Files: usr/lib/ringway/node_modules/${name}/*\n`);
      expect(copyright).toContain('Copyright Node.js contributors.');
    });

    test('has its pages, completions and unit where they are looked for', async () => {
      expect(page('usr/share/man/man1/ringway.1.gz')).toMatch(/^\.TH/m);
      expect(page('usr/share/man/man1/ringway-run.1.gz')).toContain('\\-\\-takeover');
      expect(page('usr/share/doc/ringway/changelog.gz')).toContain(`ringway (${version})`);
      const completes = 'source /usr/share/bash-completion/completions/ringway; complete -p ringway';
      expect(await system.run(`bash -c '${completes}'`)).toContain('ringway');
      for (const path of ['zsh/vendor-completions/_ringway', 'fish/vendor_completions.d/ringway.fish'])
        expect(read(`usr/share/${path}`).toString()).toContain('install-service');
      expect(await shown('LoadState', 'UnitFileState')).toBe('loaded\ndisabled\n');
      // No second one, which would hide that of the next package.
      const packaged = '/usr/lib/systemd/system/ringway.service';
      expect(await system.run('ringway install-service')).toContain(`brought the same along: ${packaged}\n`);
      expect((await system.tryRun('test -e /etc/systemd/system/ringway.service')).code).toBe(1);
      expect(await system.run('systemd-analyze verify --man=no ringway.service')).not.toContain('ringway');
    });

    describe('as a service', () => {
      let guests: EmbeddedGuest[] = [];
      let flows: NumberedFlow[] = [];

      afterAll(() => {
        for (const guest of guests) guest.close();
      });

      /** Frames flow until it is done. */
      async function meanwhile<T>(work: Promise<T>): Promise<T> {
        let isDone = false;
        const done = work.finally(() => {
          isDone = true;
        });
        while (!isDone) {
          if (!flows.map((flow) => flow.step()).includes(true))
            await Promise.race([done, ...flows.map((flow) => flow.interrupt())]);
          else await new Promise(setImmediate);
          for (const { session } of guests) expect(session.isClosed).toBe(false);
        }
        return work;
      }

      async function untilSo(
        what: string,
        ask: () => Promise<string>,
        holds: (value: string) => boolean,
      ): Promise<void> {
        const endMs = performance.now() + UNTIL_MS;
        for (;;) {
          const value = (await meanwhile(ask())).trim();
          if (holds(value)) return;
          expect(performance.now(), `${what} is ${value}`).toBeLessThan(endMs);
        }
      }

      function until(property: string, holds: (value: string) => boolean): Promise<void> {
        return untilSo(property, () => shown(property), holds);
      }

      test('runs by its unit, with guests from outside', async () => {
        writeFileSync(system.pathOf('etc/ringway.yaml'), CONFIG);
        writeFileSync(system.pathOf('etc/mine.ts'), readFileSync(PLUGIN));
        await system.run(
          `mkdir ${DROP_INS} && echo '[Service]\nReadWritePaths=/home/me/captures' >${DROP_INS}/own.conf`,
        );
        await system.run('systemctl enable --now ringway');
        guests = await Promise.all(
          NAMES.map((name, i) =>
            EmbeddedGuest.connect({
              socketPath: system.pathOf(`run/ringway/${name}.sock`),
              role: 'client',
              mac: `02:00:00:00:00:0${i}`,
              layout: name === 'a' ? 'packed' : 'split',
              waitMs: WAIT_MS,
            }),
          ),
        );
        flows = [new NumberedFlow(guests[0], guests[1]), new NumberedFlow(guests[1], guests[0])];
        await until('StatusText', (text) => text === '3 of 4 ports running');
        expect(await system.run(`ringway ports ${CONTROL}`)).toContain(
          'cannot open /home/me/denied.pcap: EROFS',
        );
        expect(await system.run(`ls -l /run/ringway/a.sock`)).toMatch(/^srwxr-xr-x \d+ me +me /);
        expect(await system.run(`ringway plugin list ${CONTROL}`)).toMatch(/^mine +running/m);
        expect(await system.run(`ringway trace --in b ${CONTROL}`)).toContain('mine passes it');
      });

      test('serves its page', async () => {
        const paths = ASSET_PATHS.map((path) => path.replace(/\.ts$/, '.js'));
        for (const path of paths) {
          const { status, type, text } = await fetched(system.pathOf('run/ringway/web.sock'), path);
          expect([path, status]).toEqual([path, 200]);
          expect(type).toMatch(/^(text\/(html|css|javascript)|image\/svg\+xml)/);
          expect(text).not.toMatch(/\.ts["']/);
          expect(text.length).toBeGreaterThan(0);
        }
      });

      test('is upgraded, and its guests notice nothing', async () => {
        const before = (await shown('MainPID')).trim();
        await meanwhile(system.run('dpkg -i /tmp/new.deb'));
        await until('MainPID', (pid) => pid !== before && pid !== '0');
        // The manager is told of the new process first, and all it says until that one speaks is of the one before.
        const versionNow = async (): Promise<string> => {
          const asked = await fetched(system.pathOf('run/ringway/ringway.sock'), '/v1/version');
          return JSON.parse(asked.text).version;
        };
        await untilSo(
          'its version',
          () => versionNow().catch(String),
          (now) => now === version,
        );
        await until('StatusText', (text) => text === '3 of 4 ports running');
        expect(await shown('NRestarts', 'ActiveState')).toBe('0\nactive\n');
        expect(await system.run('ringway --version')).toBe(`${version}\n`);
        await takeAll(flows, () => '', UNTIL_MS);
        expect(flows.map(({ twice }) => twice)).toEqual([0, 0]);
      });
    });

    test('leaves nothing behind but what others wrote', async () => {
      await system.run('dpkg --purge ringway');
      expect(await shown('LoadState')).toBe('not-found\n');
      expect((await system.tryRun('ls -d /run/ringway /tmp/ringway*')).code).not.toBe(0);
      const left = new Set((await files()).split('\n'));
      for (const file of filesBefore.split('\n')) left.delete(file);
      const others = ['/etc/ringway.yaml', '/etc/mine.ts', '/home/me/captures/allowed.pcap'];
      expect([...left].filter((path) => !path.startsWith('/root/.cache')).sort()).toEqual(others.sort());
    });
  },
);

type Fetched = { readonly status: number; readonly type: string; readonly text: string };

function fetched(socketPath: string, path: string): Promise<Fetched> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path, headers: { 'accept-encoding': 'gzip' } }, (answer) => {
      const parts: Buffer[] = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('end', () => {
        const bytes = Buffer.concat(parts);
        const text = (answer.headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes).toString();
        resolve({ status: answer.statusCode ?? 0, type: answer.headers['content-type'] ?? '', text });
      });
    });
    asked.once('error', reject).end();
  });
}
