/**
 * Builds the root file system of the Linux guests: a cpio archive ("newc", see Linux'
 * Documentation/driver-api/early-userspace/buffer-format.rst) with busybox, iperf3, ethtool, the kernel modules
 * the guests load, and the script that answers commands on the second serial port.
 * Owns: the archive's bytes and its file in the cache folder. Called by linux-guest.ts only, on any thread.
 *
 * The archive is not compressed: QEMU copies it into the guest at once, and gunzip under emulation is slower.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { guestInitScript, guestShellScript } from './guest-scripts.ts';

/**
 * Modules loaded at every boot; their dependencies come with them. Some kernels have some of them built in, and
 * the cloud kernel lacks the drivers of emulated cards.
 */
const bootModules = ['virtio_pci', 'virtio_net', 'e1000', 'e1000e', '8139cp'];
/** Modules a test may load with `modprobe NAME`. */
const optionalModules = ['8021q', 'pktgen'];

interface ArchiveEntry {
  path: string;
  mode: number;
  data: Buffer;
  deviceMajor?: number;
  deviceMinor?: number;
}

const typeDirectory = 0o040000;
const typeFile = 0o100000;
const typeSymlink = 0o120000;
const typeCharacterDevice = 0o020000;

/** Writes a cpio archive in the "newc" format. Parents must come before their children. */
export function writeCpio(entries: readonly ArchiveEntry[]): Buffer {
  const chunks: Buffer[] = [];
  const trailer: ArchiveEntry = { path: 'TRAILER!!!', mode: 0, data: Buffer.alloc(0) };
  [...entries, trailer].forEach((entry, index) => {
    const name = Buffer.from(`${entry.path}\0`);
    const fields = [
      index + 1, // inode
      entry.mode,
      0, // uid
      0, // gid
      1, // links
      0, // mtime: constant, so that equal contents give an equal archive
      entry.data.length,
      0, // major and minor of the device the file is on
      0,
      entry.deviceMajor ?? 0,
      entry.deviceMinor ?? 0,
      name.length,
      0, // checksum: unused in this format
    ];
    const header = Buffer.from(`070701${fields.map((n) => n.toString(16).padStart(8, '0')).join('')}`);
    chunks.push(header, name, padding(header.length + name.length), entry.data, padding(entry.data.length));
  });
  return Buffer.concat(chunks);
}

function padding(lengthBytes: number): Buffer {
  return Buffer.alloc((4 - (lengthBytes % 4)) % 4);
}

/** Collects entries and makes the folders above each one. */
class ArchiveBuilder {
  readonly entries: ArchiveEntry[] = [];
  readonly #paths = new Set<string>();

  directory(path: string): void {
    if (path === '.' || this.#paths.has(path)) return;
    this.directory(dirname(path));
    this.#add({ path, mode: typeDirectory | 0o755, data: Buffer.alloc(0) });
  }

  file(path: string, data: Buffer | string, permissions: number): void {
    this.#addBelow({ path, mode: typeFile | permissions, data: Buffer.from(data) });
  }

  symlink(path: string, target: string): void {
    this.#addBelow({ path, mode: typeSymlink | 0o777, data: Buffer.from(target) });
  }

  characterDevice(path: string, deviceMajor: number, deviceMinor: number): void {
    const mode = typeCharacterDevice | 0o600;
    this.#addBelow({ path, mode, data: Buffer.alloc(0), deviceMajor, deviceMinor });
  }

  #addBelow(entry: ArchiveEntry): void {
    this.directory(dirname(entry.path));
    this.#add(entry);
  }

  #add(entry: ArchiveEntry): void {
    if (this.#paths.has(entry.path)) return;
    this.#paths.add(entry.path);
    this.entries.push(entry);
  }
}

export interface InitramfsSources {
  /** Static busybox on this machine. */
  busyboxPath: string;
  /** Programs to take along with their shared libraries. */
  programPaths: string[];
  /** Folder `lib/modules/VERSION` of the guest's kernel. */
  modulesFolder: string;
}

/** Builds the archive, or finds it in the cache. Returns the file's path. */
export function buildInitramfs(sources: InitramfsSources, cacheFolder: string): string {
  const path = join(cacheFolder, `initramfs-${sourcesDigest(sources)}.cpio`);
  if (exists(path)) return path;
  const archive = new ArchiveBuilder();
  addBase(archive, sources.busyboxPath);
  for (const program of sources.programPaths) addProgram(archive, program);
  const bootList = addModules(archive, sources.modulesFolder);
  archive.file('init', guestInitScript(bootList), 0o755);
  archive.file('shell', guestShellScript, 0o755);
  mkdirSync(cacheFolder, { recursive: true });
  // Another process may build the same file: rename makes the last one win whole.
  const partial = `${path}.${process.pid}.${Date.now()}`;
  writeFileSync(partial, writeCpio(archive.entries));
  renameSync(partial, path);
  return path;
}

/** Sizes and times stand for the contents: reading 20 MB for each guest would cost more than it is worth. */
function sourcesDigest(sources: InitramfsSources): string {
  const digest = createHash('sha256');
  for (const path of [sources.busyboxPath, ...sources.programPaths, sources.modulesFolder]) {
    const stats = statSync(path);
    digest.update(`${path} ${stats.size} ${stats.mtimeMs}\n`);
  }
  digest.update(guestInitScript([])).update(guestShellScript);
  digest.update(readFileSync(import.meta.filename));
  return digest.digest('hex').slice(0, 16);
}

function addBase(archive: ArchiveBuilder, busyboxPath: string): void {
  for (const folder of ['dev', 'proc', 'sys', 'tmp', 'bin', 'etc', 'run']) archive.directory(folder);
  archive.symlink('sbin', 'bin');
  // The kernel opens /dev/console before /init can mount devtmpfs.
  archive.characterDevice('dev/console', 5, 1);
  archive.file('bin/busybox', readFileSync(busyboxPath), 0o755);
  const applets = execFileSync(busyboxPath, ['--list'], { encoding: 'utf8' }).split('\n');
  for (const applet of applets) if (applet !== '') archive.symlink(`bin/${basename(applet)}`, 'busybox');
  archive.file('etc/passwd', 'root:x:0:0:root:/:/bin/sh\n', 0o644);
  archive.file('etc/hosts', '127.0.0.1 localhost\n', 0o644);
}

function addProgram(archive: ArchiveBuilder, path: string): void {
  archive.file(`bin/${basename(path)}`, readFileSync(path), 0o755);
  for (const library of sharedLibraries(path)) {
    // At the path the dynamic linker looks for, with the bytes of the file behind the links.
    archive.file(library.slice(1), readFileSync(realpathSync(library)), 0o755);
  }
}

function sharedLibraries(path: string): string[] {
  const listing = execFileSync('ldd', [path], { encoding: 'utf8' });
  return [...listing.matchAll(/(?:=> )?(\/\S+) \(0x/g)].map((match) => match[1]);
}

/** Adds the modules and `modules.dep`; returns the paths to insert at boot, in order. */
function addModules(archive: ArchiveBuilder, modulesFolder: string): string[] {
  const files = new Map(findModules(modulesFolder).map((path) => [moduleName(path), path]));
  const guestFolder = `lib/modules/${basename(modulesFolder)}`;
  const guestPath = (name: string): string => `modules/${basename(files.get(name)!)}`;
  const bootOrder = dependencyOrder(bootModules, files);
  const wanted = dependencyOrder([...bootModules, ...optionalModules], files);
  let dependencyTable = '';
  archive.directory(guestFolder);
  archive.symlink(`${guestFolder}/modules`, '/modules');
  for (const name of wanted) {
    archive.file(guestPath(name), readFileSync(files.get(name)!), 0o644);
    const needed = dependencyOrder([name], files).filter((other) => other !== name);
    dependencyTable += `${guestPath(name)}: ${needed.reverse().map(guestPath).join(' ')}\n`;
  }
  archive.file(`${guestFolder}/modules.dep`, dependencyTable, 0o644);
  archive.file(`${guestFolder}/modules.alias`, 'alias rtnl-link-vlan 8021q\n', 0o644);
  return bootOrder.map((name) => `/${guestPath(name)}`);
}

function findModules(folder: string): string[] {
  const paths = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  return paths.filter((path) => path.endsWith('.ko')).map((path) => join(folder, path));
}

/** The kernel takes `-` and `_` in module names as the same. */
function moduleName(path: string): string {
  return basename(path, '.ko').replaceAll('-', '_');
}

/** The modules and all they depend on, dependencies first. Names without a file are built into the kernel. */
function dependencyOrder(names: readonly string[], files: ReadonlyMap<string, string>): string[] {
  const ordered: string[] = [];
  const visit = (name: string): void => {
    const path = files.get(name);
    if (path === undefined || ordered.includes(name)) return;
    moduleDependencies(path).forEach(visit);
    ordered.push(name);
  };
  names.forEach(visit);
  return ordered;
}

/** A module's `.modinfo` section holds zero-terminated `key=value` strings. */
function moduleDependencies(path: string): string[] {
  const match = /\0depends=([^\0]*)\0/.exec(readFileSync(path, 'latin1'));
  const list = match?.[1] ?? '';
  return list === '' ? [] : list.split(',').map((name) => name.replaceAll('-', '_'));
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}
