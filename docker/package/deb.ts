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
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { constants, gzipSync } from 'node:zlib';
import { writeDocuments } from './documents.ts';
import { copyrightFile, type Licence, licenceOf, licenceOfNode } from './licences.ts';
import { SCRIPTS } from './scripts.ts';

const ROOT = join(import.meta.dirname, '../..');
const MAINTAINER = 'The Ringway project <ringway@localhost>';
const HOME = 'usr/lib/ringway/node_modules';
/** Debian's names of what Node calls them. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };

const { values } = parseArgs({ options: { output: { type: 'string', default: ROOT } } });

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

/** Of a package, what nobody runs: sources, tests, types, what runs elsewhere. Its licences stay beside it. */
const LEFT_OUT = [
  /^(\.|(test|bench|benchmarks|docs?|examples?|node_modules)(\/|$)|tsconfig|eslint)/,
  /\.(map|d\.[cm]?ts|sh|c|cc|h|hh|S|asm|inc|gyp|txt|html|patch|py|cmake)$/,
  /\.md$/,
  /^musl_/,
];
const KEPT = /(^|\/)(licen[cs]e|copying|notice)(\.(md|txt))?$/i;
const PROGRAMS = ['node/bin/node', 'ringway/switch/cli/ringway.sh'];

/** The packages that are used at run time, as far as they are there: some are of other processors. */
function usedPackages(): string[] {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { readonly dev?: true }>;
  };
  return Object.entries(packages)
    .filter(([path, { dev }]) => path !== '' && dev !== true && existsSync(join(ROOT, path)))
    .map(([path]) => path);
}

/** Packages within a package come by themselves. */
function isUsed(path: string): boolean {
  return KEPT.test(path) || !LEFT_OUT.some((pattern) => pattern.test(path));
}

/** Answers their licences. */
function copyPackages(target: string): Licence[] {
  const licences = usedPackages().map((path) => {
    const folder = join(ROOT, path);
    cpSync(folder, join(target, relative('node_modules', path)), {
      recursive: true,
      dereference: true,
      filter: (from) => isUsed(relative(folder, from)),
    });
    return licenceOf(folder, join(ROOT, 'node_modules'));
  });
  const node = join(ROOT, 'node_modules/node');
  mkdirSync(join(target, 'node/bin'), { recursive: true });
  for (const path of ['package.json', 'bin/node'])
    cpSync(join(node, path), join(target, 'node', path), { dereference: true });
  return [...licences, licenceOfNode(node)];
}

function sizeKib(folder: string): number {
  return Number(run('du', ['-sk', folder]).split('\t')[0]);
}

/** In Debian's form; what changed stands in Ringway's own. */
function changelogOf(version: string): string {
  const { mtime } = statSync(join(ROOT, 'CHANGELOG.md'));
  const date = mtime.toUTCString().replace('GMT', '+0000');
  return `ringway (${version}) unstable; urgency=medium\n\n  * See CHANGELOG.md.gz.\n\n -- ${MAINTAINER}  ${date}\n`;
}

const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
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
  const licences = copyPackages(home);
  mkdirSync(join(root, 'usr/bin'), { recursive: true });
  symlinkSync('../lib/ringway/node_modules/ringway/switch/cli/ringway.sh', join(root, 'usr/bin/ringway'));
  await writeDocuments(root);
  const documents = join(root, 'usr/share/doc/ringway');
  mkdirSync(documents, { recursive: true });
  cpSync(join(ROOT, 'docs'), documents, { recursive: true });
  writeFileSync(join(documents, 'copyright'), copyrightFile(HOME, licences));
  const write = (name: string, text: string): void =>
    writeFileSync(join(documents, `${name}.gz`), gzipSync(text, { level: constants.Z_BEST_COMPRESSION }));
  write('CHANGELOG.md', readFileSync(join(ROOT, 'CHANGELOG.md'), 'utf8'));
  write('changelog', changelogOf(version));

  const control = `Package: ringway
Version: ${version}
Architecture: ${architecture}
Maintainer: ${MAINTAINER}
Installed-Size: ${sizeKib(root)}
Depends: libc6 (>= 2.28), libstdc++6, libgcc-s1
Suggests: libpcap0.8, qemu-system, libvirt-daemon-system
Section: net
Priority: optional
Description: software switch for virtual machines, by vhost-user
 Guests' network cards by vhost-user, beside TAP interfaces, other UNIX
 sockets, capture files and network cards by DPDK. Node is inside.
`;
  const scripts = join(root, 'DEBIAN');
  mkdirSync(scripts);
  writeFileSync(join(scripts, 'control'), control);
  for (const [name, text] of Object.entries(SCRIPTS)) {
    writeFileSync(join(scripts, name), text);
    chmodSync(join(scripts, name), 0o755);
  }
  // Modes are the package's own, whatever they are here.
  run('chmod', ['-R', 'u=rwX,go=rX', root]);
  run('find', [join(root, 'usr'), '-type', 'f', '-exec', 'chmod', '644', '{}', '+']);
  for (const path of PROGRAMS) chmodSync(join(home, path), 0o755);
  const target = join(resolve(values.output), `ringway_${version}_${architecture}.deb`);
  mkdirSync(dirname(target), { recursive: true });
  run('dpkg-deb', ['--root-owner-group', '-Zxz', '-z1', '--build', root, target]);
  process.stdout.write(`${target}\n`);
} finally {
  rmSync(work, { recursive: true, force: true });
}
