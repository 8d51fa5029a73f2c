/**
 * What a descriptor that a peer sent is, found out without asking the file itself anything. A file of FUSE or of a
 * network may never answer, not even to `fstat` or `close` (its flush cannot be interrupted); closing a TCP socket may
 * wait (SO_LINGER), and so may closing a device, or a UNIX socket in which such a descriptor lies unread. What becomes
 * of descriptors: peer-fds.ts. Main thread.
 */
import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';
import {
  describeFd,
  isReadWrite,
  knowsSeals,
  onlyNamesFile,
  socketOption,
  unixSocketFd,
} from './descriptor.ts';
import { libc } from './libc.ts';

const SO_ACCEPTCONN = 30;
const SHUT_RD = 0;
/** Some hundreds of mounts. A peer may have a hundred thousand in a namespace of its own, and each costs 30 µs. */
const MOUNTS_BYTES_MAX = 2 ** 17;
/** Major number of /dev/null, /dev/zero and their like. */
const MEMORY_DEVICES = 1;

/**
 * Local file systems, which answer by themselves: as a peer may have them in a mount namespace of its own (libvirt
 * gives one to each QEMU), because only root can mount them.
 */
const DISKS = new Set(['bcachefs', 'btrfs', 'ext2', 'ext3', 'ext4', 'f2fs', 'xfs', 'zfs']);
/**
 * Those that anybody can mount in a namespace of his own; in ours, root did. `overlay` may lie over a file system that
 * does not answer, but what is open for writing in it lies on its upper one, which cannot be a remote one.
 */
const OURS = new Set([...DISKS, 'overlay', 'ramfs', 'tmpfs', 'hugetlbfs', 'devtmpfs']);
/** Answered by the kernel itself; nothing that is not one of its own is asked of them, not even `fstat`. */
const KERNEL = new Set(['proc', 'sysfs', 'cgroup', 'cgroup2']);
/** Without a name in any file system, and closed at once. */
const ANONYMOUS = /^anon_inode:\[(eventfd|eventpoll|inotify|signalfd|timerfd)\]$/;

/**
 * `storage`: memory (memfd, tmpfs, hugetlbfs), or a file or folder of a local file system: its close may be long, but
 * nobody can hold it up; `plain`: another thing that answers, such as an eventfd, a pipe, a UNIX socket in which no
 * descriptor lies: closed at once, unless somebody watches it; `unasked`: all others.
 */
type PeerFileKind = 'storage' | 'plain' | 'unasked';

/** `fileSystem`: as mountinfo calls it, `ext4`, `fuse.sshfs`; null when it was not looked for or nobody has it mounted. */
export type PeerFile = { readonly kind: PeerFileKind; readonly fileSystem: string | null };

/**
 * What was found out of some descriptors, for as long as all of them are held: then the number of a mount means one
 * mount, and none of them can become another.
 */
export class PeerFiles {
  readonly #files = new Map<number, PeerFile>();
  readonly #mountInfos = new Map<number | 'self', string>();

  at(fd: number, peerPid: number | null): PeerFile {
    let file = this.#files.get(fd);
    if (file === undefined) {
      const kind = kindByItself(fd);
      file = kind === null ? this.#onDisk(fd, peerPid) : { kind, fileSystem: null };
      this.#files.set(fd, file);
    }
    return file;
  }

  forget(fd: number): void {
    this.#files.delete(fd);
  }

  forgetAll(): void {
    this.#files.clear();
    this.#mountInfos.clear();
  }

  #onDisk(fd: number, peerPid: number | null): PeerFile {
    const id = mountIdOf(fd);
    const ours = this.#typeOfMount(id, 'self');
    const fileSystem = ours ?? (peerPid === null ? null : this.#typeOfMount(id, peerPid));
    return { kind: kindOnFileSystem(fd, fileSystem, ours !== null), fileSystem };
  }

  /** proc(5), /proc/PID/mountinfo: `id parent major:minor root point options [tags] - type source options`. */
  #typeOfMount(id: number, pid: number | 'self'): string | null {
    let info = this.#mountInfos.get(pid);
    if (info === undefined) {
      info = readStart(`/proc/${pid}/mountinfo`, MOUNTS_BYTES_MAX);
      this.#mountInfos.set(pid, info);
    }
    const line = new RegExp(`^${id} .*? - (\\S+) `, 'm').exec(info);
    // Whoever mounts a FUSE file system may choose the end of its type.
    return line?.[1]?.replaceAll(/[^\w.-]/g, '?') ?? null;
  }
}

/** Null: it is a file, and hangs on where that is. */
function kindByItself(fd: number): PeerFileKind | null {
  // It only names its file, and closing it does not reach the file.
  if (onlyNamesFile(fd)) return 'plain';
  if (knowsSeals(fd)) return 'storage';
  const name = describeFd(fd);
  // The names of files begin with a slash, so these are no file's.
  if (name.startsWith('pipe:') || ANONYMOUS.test(name)) return 'plain';
  if (name.startsWith('socket:')) return unixSocketFd(fd) && !mayHoldDescriptors(fd) ? 'plain' : 'unasked';
  return name.startsWith('/') ? null : 'unasked';
}

function kindOnFileSystem(fd: number, type: string | null, isOurs: boolean): PeerFileKind {
  if (type === null) return 'unasked';
  if (isOurs && KERNEL.has(type)) return 'plain';
  if (!DISKS.has(type) && (!isOurs || !OURS.has(type))) return 'unasked';
  if (type === 'overlay' && !isReadWrite(fd)) return 'unasked';
  return kindOfNode(fd);
}

function kindOfNode(fd: number): PeerFileKind {
  try {
    const stat = fstatSync(fd);
    if (stat.isFile() || stat.isDirectory()) return 'storage';
    const isPlain =
      stat.isFIFO() || (stat.isCharacterDevice() && Math.floor(stat.rdev / 256) === MEMORY_DEVICES);
    return isPlain ? 'plain' : 'unasked';
  } catch {
    return 'unasked';
  }
}

/** A mount's number is the same in every namespace, and is not given anew while a file of it is open. */
function mountIdOf(fd: number): number {
  const info = readText(`/proc/self/fdinfo/${fd}`);
  return Number(/^mnt_id:\s*(\d+)$/m.exec(info)?.[1] ?? -1);
}

/** Whether descriptors lie unread in a UNIX socket, or may come to lie there with connections that nobody accepted. */
function mayHoldDescriptors(fd: number): boolean {
  if (socketOption(fd, SO_ACCEPTCONN) === 1) return true;
  return (unreadFds(fd) ?? 0) > 0;
}

/** proc(5), /proc/PID/fdinfo: `scm_fds`; null: kernels before 5.11 do not tell. */
export function unreadFds(fd: number): number | null {
  const count = /^scm_fds:\s*(\d+)$/m.exec(readText(`/proc/self/fdinfo/${fd}`))?.[1];
  return count === undefined ? null : Number(count);
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Whether no descriptor lies in a UNIX socket, nor can be sent into it. What we sent out of it still arrives. */
export function isEmptyForEver(fd: number): boolean {
  libc.shutdown(fd, SHUT_RD);
  return !mayHoldDescriptors(fd);
}

/** The whole lines among the first `bytesMax` bytes. */
function readStart(path: string, bytesMax: number): string {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return '';
  }
  try {
    const bytes = Buffer.alloc(bytesMax);
    let length = 0;
    for (let count = -1; count !== 0 && length < bytesMax; length += count)
      count = readSync(fd, bytes, length, bytesMax - length, null);
    return bytes.toString('utf8', 0, bytes.lastIndexOf(0x0a, length - 1) + 1);
  } catch {
    return '';
  } finally {
    closeSync(fd);
  }
}
