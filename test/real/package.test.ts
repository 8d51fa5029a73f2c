/**
 * The Debian package in a system that has nothing else: built, installed into a fresh debootstrap, two guests talk by two
 * commands, and removed again. The bare system is fetched once and kept.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runProgram } from '../peers/child.ts';
import { peersForTests } from '../peers/index.ts';
import { cacheFolder } from '../peers/packages.ts';

const SUITE = 'bookworm';
const ROOT = join(import.meta.dirname, '../..');
const FETCH_MS = 600_000;
const peers = await peersForTests(['debootstrap']);
const obstacle = process.getuid?.() === 0 ? null : 'debootstrap and chroot: needs root';

/** Where apt gets packages from here. */
function mirror(): string {
  const lists = ['/etc/apt/sources.list', '/etc/apt/sources.list.d/debian.sources'].filter((path) =>
    existsSync(path),
  );
  const text = lists.map((path) => readFileSync(path, 'utf8')).join('\n');
  return (
    process.env.DEBIAN_MIRROR ??
    /^(?:deb |URIs: *)(?:\[.*\] )?(https?:\S+)/m.exec(text)?.[1] ??
    'http://deb.debian.org/debian'
  );
}

/** An archive of a bare system. */
async function baseSystem(work: string): Promise<string> {
  const archive = join(cacheFolder(), `debootstrap-${SUITE}.tar`);
  if (existsSync(archive)) return archive;
  const folder = join(work, 'base');
  await succeed('debootstrap', ['--variant=minbase', SUITE, folder, mirror()]);
  await succeed('tar', [
    '-C',
    folder,
    '--exclude=./var/cache/apt/archives/*.deb',
    '-cf',
    `${archive}.new`,
    '.',
  ]);
  renameSync(`${archive}.new`, archive);
  rmSync(folder, { recursive: true });
  return archive;
}

async function succeed(command: string, args: readonly string[], cwd?: string): Promise<string> {
  const { code, output } = await runProgram(command, args, {
    timeoutMs: FETCH_MS,
    ...(cwd !== undefined && { cwd }),
  });
  expect(code, `${command} ${args.join(' ')}: ${output}`).toBe(0);
  return output;
}

describe.skipIf(peers.skip || obstacle !== null)(
  peers.title(`the Debian package${obstacle === null ? '' : ` (skipped: ${obstacle})`}`),
  () => {
    let work = '';
    let system = '';
    let archive = '';

    beforeAll(async () => {
      work = mkdtempSync(join(tmpdir(), 'ringway-package-'));
      const output = await succeed('npm', ['run', '-s', 'package', '--', '--output', work], ROOT);
      archive = output.trim().split('\n').at(-1) ?? '';
      system = join(work, 'system');
      mkdirSync(system);
      await succeed('tar', ['-C', system, '-xf', await baseSystem(work)]);
      await succeed('cp', [archive, join(system, 'ringway.deb')]);
    }, 2 * FETCH_MS);

    afterAll(() => rmSync(work, { recursive: true, force: true }));

    /** A shell's command in it, in processes and mounts of its own; `/proc` is there. */
    const inside = (command: string): Promise<string> =>
      succeed('unshare', [
        '--mount',
        '--pid',
        '--fork',
        '--kill-child',
        'sh',
        '-c',
        `mount -t proc proc ${system}/proc && exec chroot ${system} /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root sh -ec ${quoted(command)}`,
      ]);

    test('two commands to two guests that talk', async () => {
      await inside('dpkg -i /ringway.deb');
      const said = await inside('ringway demo --seconds 1');
      expect(said).toContain('Every frame arrived once, intact and in order.');
    });

    test('runs, answers, and is found where such programs are', async () => {
      const said = await inside(`
        ringway --version; command -v node && exit 1
        ringway run --port a=/run/a.sock --port b=/run/b.sock 2>/tmp/log & pid=$!
        until ringway ports --control /run; do kill -0 $pid; sleep 0.1; done
        kill $pid; wait $pid; ls /root/.cache/ringway`);
      expect(said).toMatch(/^a +waiting/m);
      for (const path of [
        'usr/share/man/man1/ringway-run.1.gz',
        'usr/share/bash-completion/completions/ringway',
        'usr/share/zsh/vendor-completions/_ringway',
        'usr/share/fish/vendor_completions.d/ringway.fish',
        'usr/lib/systemd/system/ringway.service',
        'usr/share/doc/ringway/copyright',
      ])
        expect(existsSync(join(system, path)), path).toBe(true);
    });

    test('leaves nothing behind when it is removed', async () => {
      await inside('dpkg -r ringway');
      expect(existsSync(join(system, 'usr/lib/ringway'))).toBe(false);
      expect(existsSync(join(system, 'usr/bin/ringway'))).toBe(false);
    });
  },
);

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
