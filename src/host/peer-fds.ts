/**
 * Descriptors that a peer sent: what each is, found out without asking the file itself anything, and closing them. A
 * file of FUSE or of a network may never answer, not even to `fstat` or `close` (its flush cannot be interrupted);
 * closing a TCP socket may wait (SO_LINGER), and so may closing a device, or a UNIX socket in which such a descriptor
 * lies unread. Such a descriptor is never used and never closed: it is kept until the process ends, counted, and a port
 * that brought many is not served any more. There is no way out of that: only `close` takes a descriptor out of a
 * process, and a thread that waits in it holds everything that the process has, even after SIGKILL. Main thread.
 */
import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';
import { type Budget, processDescriptors } from './budgets.ts';
import { closeFd, describeFd, socketOption, unixSocketFd } from './descriptor.ts';
import { closeElsewhere } from './elsewhere.ts';
import { ERRNO, HostError } from './errors.ts';
import { libc } from './libc.ts';
import { acceptUnix, peek, type Received, receive, SCM_FDS_MAX } from './unix-socket.ts';

const F_GETFL = 3;
const F_GET_SEALS = 1034;
const O_ACCMODE = 3;
const O_RDWR = 2;
const O_PATH = 0o10000000;
const SO_ACCEPTCONN = 30;
const SHUT_RD = 0;
const SHUT_RDWR = 2;
/** Reads; more than a socket's buffer holds messages. */
const UNREAD_MAX = 4096;
/** Some hundreds of mounts. A peer may have a hundred thousand in a namespace of its own, and each costs 30 µs. */
const MOUNTS_BYTES_MAX = 2 ** 17;
const UNREAD_BYTES = 8192;
/** Reads and descriptors; some milliseconds. */
const UNREAD_PER_TURN = 512;
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
 * `memory`: memfd, tmpfs, hugetlbfs; `disk`: a file or folder of a local file system; `plain`: another thing that is
 * closed at once, such as an eventfd, a pipe, a UNIX socket in which no descriptor lies; `unasked`: all others.
 */
export type PeerFileKind = 'memory' | 'disk' | 'plain' | 'unasked';

/** How many descriptors of one port were never closed; lives as long as the port. */
export class KeptFds {
  /** Of one port, until it is not served any more; and of all, from where on the first one of a port is too many. */
  static readonly #PORT_MAX = 16;
  static readonly #ALL_MAX = 512;
  static #total = 0;
  readonly #budget: Budget;
  #count = 0;

  /** What is kept, or held for a while, lowers what others get of `budget`. */
  constructor(budget = processDescriptors()) {
    this.#budget = budget;
  }

  get count(): number {
    return this.#count;
  }

  /** Whether no further front-end of the port should be let in. */
  get isTooMany(): boolean {
    const isScarce = KeptFds.#total >= KeptFds.#ALL_MAX || this.#budget.used > this.#budget.max;
    return this.#count >= (isScarce ? 1 : KeptFds.#PORT_MAX);
  }

  /** How many more the process may open for peers. */
  get room(): number {
    return this.#budget.room;
  }

  add(): void {
    this.#count++;
    KeptFds.#total++;
    this.#budget.add(1);
  }

  /** Of a message that is being read or handled; less than 0: no longer. */
  hold(count: number): void {
    this.#budget.add(count);
  }
}

/** What is done with the descriptors of one connection. */
export class PeerFds {
  /** The process at the other end, or null. Its mount namespace may know a file's file system when ours does not. */
  readonly peerPid: number | null;
  readonly #kept: KeptFds;
  readonly #keptBefore: number;
  /** Of descriptors that are held now. */
  readonly #looks = new Looks();
  /** Came with a message that is not handled yet. */
  #heldCount = 0;

  constructor(peerPid: number | null = null, kept = new KeptFds()) {
    this.peerPid = peerPid;
    this.#kept = kept;
    this.#keptBefore = kept.count;
  }

  /** How many of this connection were kept. */
  get keptCount(): number {
    return this.#kept.count - this.#keptBefore;
  }

  /** Whether no further front-end of the port should be let in. */
  get isTooMany(): boolean {
    return this.#kept.isTooMany;
  }

  /**
   * Reads from a peer, as `receive` of unix-socket.ts. Not what brings more descriptors than may be opened: the kernel
   * would close in our name those that are too many. They count as held until `close`.
   * @throws HostError, with EMFILE in that case
   */
  receive(fd: number, bytesMax: number): Received {
    const received = this.#receive(fd, bytesMax);
    this.#heldCount += received.fds.length;
    this.#kept.hold(received.fds.length);
    return received;
  }

  /**
   * Why it cannot be taken; null: it can be used without waiting for anybody. What is looked up for it is remembered
   * until `close`, which ends each message's handling.
   */
  obstacle(fd: number): string | null {
    const { kind, fileSystem } = this.#looks.at(fd, this.peerPid);
    if (kind !== 'unasked') return null;
    const what = describeFd(fd);
    if (what.startsWith('socket:') && unixSocketFd(fd))
      return `the descriptor is ${what}, which listens or holds descriptors itself, and may never be closed`;
    return `the descriptor is ${what}${fileSystem === null ? '' : ` on ${fileSystem}`}, which may never answer; taken are eventfds, pipes, UNIX sockets, and memory in memfds, on tmpfs, hugetlbfs or a local disk`;
  }

  /** Never throws and never waits. */
  close(fds: readonly number[]): void {
    for (const fd of fds) this.#close(fd);
    this.#looks.forgetAll();
    this.#kept.hold(-this.#heldCount);
    this.#heldCount = 0;
  }

  /**
   * Ends and closes a connection. What waits in it unread goes first, because the kernel would close the descriptors
   * among it in our name; what is too much for one turn of the event loop, in the next ones. Never throws and never
   * waits; when too many of them must be kept, or none may be opened, so is the connection.
   */
  closeConnection(fd: number): void {
    libc.shutdown(fd, SHUT_RDWR);
    this.#closeUnread(fd, UNREAD_MAX);
  }

  /** Closes a listening socket, and before it the connections that nobody accepted. Never throws and never waits. */
  closeListener(fd: number): void {
    // Nobody can connect from now on.
    libc.shutdown(fd, SHUT_RD);
    try {
      for (let next = acceptUnix(fd); next !== null; next = acceptUnix(fd)) this.closeConnection(next);
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      // The process may open no more files, and somebody still waits.
      this.#kept.add();
      return;
    }
    closeFd(fd);
  }

  #close(fd: number): void {
    const { kind } = this.#looks.at(fd, this.peerPid);
    // Its number may be another file's from now on.
    this.#looks.forget(fd);
    if (kind === 'unasked' || (unixSocketFd(fd) && !isEmptyForEver(fd))) this.#kept.add();
    else closeElsewhere(fd, this.#kept);
  }

  #receive(fd: number, bytesMax: number): Received {
    const { room } = this.#kept;
    if (room >= SCM_FDS_MAX) return receive(fd, bytesMax);
    const { sizeBytes, hasFds, closed } = peek(fd, bytesMax);
    // Something may have come since, with whatever it brings.
    if (sizeBytes === 0) return { bytes: new Uint8Array(0), fds: [], closed, truncated: false };
    if (hasFds && (unreadFds(fd) ?? SCM_FDS_MAX) > room)
      throw new HostError('recvmsg', ERRNO.EMFILE, 'reading descriptors from a connection');
    // No more than that: nobody else reads here, so it is still what comes first.
    return receive(fd, sizeBytes);
  }

  #closeUnread(fd: number, readsLeft: number): void {
    let work = 0;
    for (let left = readsLeft; left > 0; left--) {
      const unread = this.#tryReceive(fd);
      if (unread === 'nothing') {
        this.#looks.forgetAll();
        closeFd(fd);
        return;
      }
      if (unread === 'too many') break;
      for (const one of unread) this.#close(one);
      if (this.#kept.isTooMany) break;
      work += 1 + unread.length;
      if (work < UNREAD_PER_TURN) continue;
      setImmediate(() => this.#closeUnread(fd, left - 1));
      return;
    }
    this.#looks.forgetAll();
    this.#kept.add();
  }

  /** The descriptors that came with what is read now. */
  #tryReceive(fd: number): readonly number[] | 'nothing' | 'too many' {
    try {
      const { bytes, fds } = this.#receive(fd, UNREAD_BYTES);
      return bytes.length === 0 && fds.length === 0 ? 'nothing' : fds;
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      return error.code === 'EMFILE' ? 'too many' : 'nothing';
    }
  }
}

/** What a descriptor is. `peerPid`: as `PeerFds.peerPid`. */
export function kindOfPeerFile(fd: number, peerPid: number | null): PeerFileKind {
  return new Looks().at(fd, peerPid).kind;
}

/** `fileSystem`: as mountinfo calls it, `ext4`, `fuse.sshfs`; null when it was not looked for or nobody has it mounted. */
type PeerFile = { readonly kind: PeerFileKind; readonly fileSystem: string | null };

/**
 * What was found out of some descriptors, for as long as all of them are held: then the number of a mount means one
 * mount, and none of them can become another.
 */
class Looks {
  readonly #files = new Map<number, PeerFile>();
  readonly #mountInfos = new Map<number | 'self', string>();

  at(fd: number, peerPid: number | null): PeerFile {
    let file = this.#files.get(fd);
    if (file === undefined) {
      const flags = libc.fcntl(fd, F_GETFL, 0);
      const kind = kindByItself(fd, flags);
      file = kind === null ? this.#onDisk(fd, flags, peerPid) : { kind, fileSystem: null };
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

  #onDisk(fd: number, flags: number, peerPid: number | null): PeerFile {
    const id = mountIdOf(fd);
    const ours = this.#typeOfMount(id, 'self');
    const fileSystem = ours ?? (peerPid === null ? null : this.#typeOfMount(id, peerPid));
    return { kind: kindOnFileSystem(fd, flags, fileSystem, ours !== null), fileSystem };
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
function kindByItself(fd: number, flags: number): PeerFileKind | null {
  // It only names its file, and closing it does not reach the file.
  if ((flags & O_PATH) !== 0) return 'plain';
  // Only files of tmpfs (memfds too) and hugetlbfs know of seals; the kernel looks at no more than which they are.
  if (libc.fcntl(fd, F_GET_SEALS, 0) >= 0) return 'memory';
  const name = describeFd(fd);
  // The names of files begin with a slash, so these are no file's.
  if (name.startsWith('pipe:') || ANONYMOUS.test(name)) return 'plain';
  if (name.startsWith('socket:')) return unixSocketFd(fd) && !mayHoldDescriptors(fd) ? 'plain' : 'unasked';
  return name.startsWith('/') ? null : 'unasked';
}

function kindOnFileSystem(fd: number, flags: number, type: string | null, isOurs: boolean): PeerFileKind {
  if (type === null) return 'unasked';
  if (isOurs && KERNEL.has(type)) return 'plain';
  if (!DISKS.has(type) && (!isOurs || !OURS.has(type))) return 'unasked';
  if (type === 'overlay' && (flags & O_ACCMODE) !== O_RDWR) return 'unasked';
  return kindOfNode(fd);
}

function kindOfNode(fd: number): PeerFileKind {
  try {
    const stat = fstatSync(fd);
    if (stat.isFile() || stat.isDirectory()) return 'disk';
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
function unreadFds(fd: number): number | null {
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
function isEmptyForEver(fd: number): boolean {
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
