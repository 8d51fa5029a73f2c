/**
 * Makes a Debian package with Node inside: `npm run package [-- --output FOLDER]`. It needs nothing but dpkg-deb, which all
 * Debian systems have, and what it makes is installed, upgraded and removed as everything else there.
 *
 * In it, /usr/lib/ringway is what `npm install ringway node` would have made there; /usr/bin/ringway is the command, which
 * finds the Node beside it. Of the packages that come along only those are left out that nobody runs.
 */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';
import { writeDocuments } from './documents.ts';

const ROOT = join(import.meta.dirname, '../..');
const HOME = 'usr/lib/ringway/node_modules';
/** Debian's names of what Node calls them. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };

const { values } = parseArgs({ options: { output: { type: 'string', default: ROOT } } });

const POSTINST = `#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
`;
/** An upgrade leaves the running one alone: systemctl reload replaces it without an interruption. */
const PRERM = `#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then systemctl disable --now ringway || true; fi
`;

function run(command: string, args: readonly string[], cwd = ROOT): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
  });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}: ${stdout}${stderr}`);
  return stdout;
}

/** Of the packages that are used at run time, and nothing else of them than what runs. */
function copyPackages(target: string): void {
  const folders = run('npm', ['ls', '--omit=dev', '--all', '--parseable']).trim().split('\n').slice(1);
  for (const folder of folders) {
    cpSync(folder, join(target, relative(join(ROOT, 'node_modules'), folder)), {
      recursive: true,
      dereference: true,
      filter: (path) => !/\.(md|map|d\.[cm]?ts)$/.test(path) && !/\/zod\/src(\/|$)|\/\.bin(\/|$)/.test(path),
    });
  }
  const node = join(ROOT, 'node_modules/node');
  mkdirSync(join(target, 'node/bin'), { recursive: true });
  for (const path of ['package.json', 'bin/node'])
    cpSync(join(node, path), join(target, 'node', path), {
      dereference: true,
      force: true,
      errorOnExist: false,
    });
}

function sizeKib(folder: string): number {
  return Number(run('du', ['-sk', folder]).split('\t')[0]);
}

const { version, description } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
const architecture = ARCHITECTURES[process.arch];
if (architecture === undefined) throw new Error(`there is no package for ${process.arch}`);
const work = mkdtempSync(join(tmpdir(), 'ringway-deb-'));
try {
  const root = join(work, 'root');
  const home = join(root, HOME);
  run('npm', ['pack', '--pack-destination', work]);
  mkdirSync(join(home, 'ringway'), { recursive: true });
  const archive = readdirSync(work).find((name) => name.endsWith('.tgz')) ?? '';
  run('tar', ['-xzf', join(work, archive), '--strip-components=1', '-C', join(home, 'ringway')]);
  copyPackages(home);
  mkdirSync(join(root, 'usr/bin'), { recursive: true });
  symlinkSync('../lib/ringway/node_modules/ringway/switch/cli/ringway.sh', join(root, 'usr/bin/ringway'));
  await writeDocuments(root);
  const documents = join(root, 'usr/share/doc/ringway');
  mkdirSync(documents, { recursive: true });
  for (const name of readdirSync(join(ROOT, 'docs'))) cpSync(join(ROOT, 'docs', name), join(documents, name));
  cpSync(join(ROOT, 'LICENSE'), join(documents, 'copyright'));
  writeFileSync(join(documents, 'changelog.gz'), gzipSync(readFileSync(join(ROOT, 'CHANGELOG.md'))));

  const control = `Package: ringway
Version: ${version}
Architecture: ${architecture}
Maintainer: The Ringway project <ringway@localhost>
Installed-Size: ${sizeKib(root)}
Depends: libc6 (>= 2.28), libstdc++6, libgcc-s1
Recommends: qemu-system-x86 | qemu-system-arm
Suggests: libpcap0.8, libvirt-daemon-system
Section: net
Priority: optional
Description: ${description}
 Guests' network cards by vhost-user, beside TAP interfaces, other UNIX
 sockets, capture files and network cards by DPDK. Node is inside.
`;
  const scripts = join(root, 'DEBIAN');
  mkdirSync(scripts);
  writeFileSync(join(scripts, 'control'), control);
  for (const [name, text] of Object.entries({ postinst: POSTINST, prerm: PRERM })) {
    writeFileSync(join(scripts, name), text);
    chmodSync(join(scripts, name), 0o755);
  }
  run('chmod', ['-R', 'u=rwX,go=rX', root]);
  const target = join(resolve(values.output), `ringway_${version}_${architecture}.deb`);
  mkdirSync(dirname(target), { recursive: true });
  run('dpkg-deb', ['--root-owner-group', '-Zxz', '-z1', '--build', root, target]);
  process.stdout.write(`${target}\n`);
} finally {
  rmSync(work, { recursive: true, force: true });
}
