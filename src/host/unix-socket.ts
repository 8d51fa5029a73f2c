/**
 * UNIX sockets: listening, binding, connecting, and the stream sockets that carry file descriptors (SCM_RIGHTS),
 * which Node's own `net` cannot. Everything is non-blocking and close-on-exec. Used by the main thread and by the
 * embedded front-end, never by a worker.
 */
import { chmodSync, chownSync, lstatSync, rmSync, unlinkSync } from 'node:fs';
import { closeFd, pollFd, setSocketOption } from './descriptor.ts';
import { checked, ERRNO, HostError } from './errors.ts';
import { lastErrno, libc } from './libc.ts';
import { reserveAddressSpace, viewMemory } from './mapping.ts';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const STREAM = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
const DATAGRAM = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
const SOL_SOCKET = 1;
const SO_OOBINLINE = 10;
const SO_PEERCRED = 17;
/** Linux 6.16. */
const SO_PASSRIGHTS = 83;
const SCM_RIGHTS = 1;
/** Descriptors that the kernel sends with one message at most (SCM_MAX_FD). */
export const SCM_FDS_MAX = 253;
const MSG_PEEK = 0x2;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CTRUNC = 0x8;
const MSG_CMSG_CLOEXEC = 0x40000000;
const LISTEN_BACKLOG = 16;
const POLLERR = 0x8;
const POLLHUP = 0x10;
const POLLRDHUP = 0x2000;

/** sockaddr_un: two bytes of family, then the path and its closing zero within 108 bytes. */
export const SOCKET_PATH_BYTES_MAX = 107;

/** Why a socket path cannot be used; `message` is one line for the user. */
export class SocketPathError extends Error {
  override name = 'SocketPathError';
}

export type ListenOptions = {
  /** Permission bits of the socket file, for example 0o660. */
  readonly mode?: number;
  readonly owner?: { readonly uid: number; readonly gid: number };
  readonly refusesDescriptors?: boolean;
};

/**
 * Listens at `path`. A socket file that no process listens on any more is taken over.
 * @throws SocketPathError when the path is too long, in use, or its folder is missing or closed to us.
 */
export function listenUnix(path: string, options: ListenOptions = {}): number {
  return boundSocket(path, STREAM, options, (fd) => {
    checked(libc.listen(fd, LISTEN_BACKLOG), 'listen', `listening at ${path}`);
  });
}

/** A datagram socket at `path`; takes over and throws as `listenUnix`. */
export function bindDatagram(path: string, options: ListenOptions = {}): number {
  return boundSocket(path, DATAGRAM, options, () => {});
}

/** Why no datagram can be sent to `path` now; null: a datagram socket is bound there. */
export function datagramObstacle(path: string): HostError | null {
  const address = socketAddress(path);
  const fd = newSocket(DATAGRAM);
  try {
    if (libc.connect(fd, address, address.length) === 0) return null;
    const errno = lastErrno();
    // It is connected to another socket than this one made for asking: to the one that will send, one must hope.
    return errno === ERRNO.EPERM ? null : new HostError('connect', errno, `reaching ${path}`);
  } finally {
    closeFd(fd);
  }
}

/**
 * A datagram socket that sends to `address`: a path, or `@` and a name without a file (unix(7), "Abstract sockets").
 * @throws SocketPathError, HostError when nobody is there
 */
export function connectDatagram(address: string): number {
  const isAbstract = address.startsWith('@');
  const bytes = socketAddress(isAbstract ? address.slice(1) : address);
  // A zero byte in front, and none behind.
  const sockaddr = isAbstract ? Uint8Array.of(AF_UNIX, 0, 0, ...bytes.subarray(2, -1)) : bytes;
  const fd = newSocket(DATAGRAM);
  if (libc.connect(fd, sockaddr, sockaddr.length) === 0) return fd;
  const errno = lastErrno();
  closeFd(fd);
  throw new HostError('connect', errno, `reaching ${address}`);
}

/**
 * Removes the file of a socket that another process listened at, if it leads there: tried by connecting. Who waits to be
 * accepted there is let go of, and connects again.
 */
export function removeListenerFile(listenFd: number, letGo: (fd: number) => void): void {
  const path = boundPath(listenFd);
  if (path === null) return;
  const acceptAll = (): (number | null)[] => {
    const pids: (number | null)[] = [];
    for (let fd = acceptUnix(listenFd); fd !== null; fd = acceptUnix(listenFd)) {
      pids.push(peerPid(fd));
      letGo(fd);
    }
    return pids;
  };
  acceptAll();
  let fd = -1;
  try {
    fd = connectUnix(path);
    if (acceptAll().includes(process.pid)) unlinkSync(path);
  } catch {
    // It leads nowhere: whoever binds it next takes it over.
  } finally {
    if (fd >= 0) closeFd(fd);
  }
}

function boundPath(fd: number): string | null {
  const address = new Uint8Array(2 + SOCKET_PATH_BYTES_MAX + 1);
  const length = new Uint8Array(new Uint32Array([address.length]).buffer);
  if (libc.getsockname(fd, address, length) < 0) return null;
  const text = Buffer.from(address.subarray(2, new DataView(length.buffer).getUint32(0, true)));
  const end = text.indexOf(0);
  return text.length === 0 || end === 0 ? null : text.subarray(0, end < 0 ? text.length : end).toString();
}

function boundSocket(
  path: string,
  type: number,
  options: ListenOptions,
  finish: (fd: number) => void,
): number {
  const address = socketAddress(path);
  const fd = newSocket(type);
  // Those that are accepted inherit it.
  if (options.refusesDescriptors) refuseDescriptors(fd);
  try {
    bindTakingOverStale(fd, path, address);
    try {
      if (options.mode !== undefined) chmodSync(path, options.mode);
      if (options.owner !== undefined) changeOwner(path, options.owner.uid, options.owner.gid);
      finish(fd);
    } catch (error) {
      rmSync(path, { force: true });
      throw error;
    }
    return fd;
  } catch (error) {
    closeFd(fd);
    throw readablePathError(error, path);
  }
}

/** A new connection, or null when none waits. */
export function acceptUnix(listenFd: number): number | null {
  const fd = libc.accept4(listenFd, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0) return readingAll(fd);
  const errno = lastErrno();
  if (errno === ERRNO.EAGAIN || errno === ERRNO.ECONNABORTED || errno === ERRNO.EINTR) return null;
  throw new HostError('accept4', errno, 'accepting a connection');
}

/**
 * Connects to a listening socket.
 * @throws HostError with code ENOENT, ECONNREFUSED or EAGAIN (the backlog is full) when nobody serves it yet.
 */
export function connectUnix(path: string, refusesDescriptors = false): number {
  const address = socketAddress(path);
  const fd = readingAll(newSocket(STREAM));
  if (refusesDescriptors) refuseDescriptors(fd);
  const result = libc.connect(fd, address, address.length);
  if (result === 0) return fd;
  const errno = lastErrno();
  closeFd(fd);
  throw new HostError('connect', errno, `connecting to ${path}`);
}

/**
 * Asks the kernel to take no descriptors from the other side, which gets EPERM then. Otherwise it throws away those that
 * nobody reads with what they came with, and that may wait for as long as their owner likes (peer-fds.ts). Kernels before
 * Linux 6.16 cannot.
 */
function refuseDescriptors(fd: number): void {
  setSocketOption(fd, SO_PASSRIGHTS, 0);
}

/** Urgent bytes and their descriptors are read like others: the kernel throws away those that are passed over. */
function readingAll(fd: number): number {
  setSocketOption(fd, SO_OOBINLINE, 1);
  return fd;
}

/** Two sockets connected to each other, for tests and for processes started together. */
export function socketPair(): [number, number] {
  const fds = new Int32Array(2);
  checked(libc.socketpair(AF_UNIX, STREAM, 0, fds), 'socketpair', 'creating a pair of sockets');
  return [readingAll(fds[0]), readingAll(fds[1])];
}

/** Process id of the other end at the time it connected, or null when the kernel does not tell (0). */
export function peerPid(fd: number): number | null {
  const credentials = new Uint8Array(12);
  const length = new Uint8Array(new Uint32Array([credentials.length]).buffer);
  if (libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, length) < 0) return null;
  return new DataView(credentials.buffer).getInt32(0, true) || null;
}

/** Whether the other end of a connection is closed, also while something that came before is unread. */
export function isHungUp(fd: number): boolean {
  return (pollFd(fd, POLLRDHUP, 0) & (POLLRDHUP | POLLHUP | POLLERR)) !== 0;
}

/**
 * One thread's memory for recvmsg and sendmsg: the structures point at each other, so they live at fixed
 * addresses. struct msghdr { name, namelen, iov, iovlen, control, controllen, flags } is 56 bytes.
 */
class ScratchMemory {
  static readonly MSGHDR = 0;
  static readonly IOVEC = 64;
  static readonly CONTROL = 128;
  static readonly CONTROL_BYTES = 16 + 4 * SCM_FDS_MAX;
  static readonly DATA = 4096;
  static readonly DATA_BYTES = 8192;
  readonly address = reserveAddressSpace(ScratchMemory.DATA + ScratchMemory.DATA_BYTES);
  readonly bytes = new Uint8Array(viewMemory(this.address, ScratchMemory.DATA + ScratchMemory.DATA_BYTES));
  readonly view = new DataView(this.bytes.buffer);

  /** Fills in the msghdr for `dataBytes` at DATA and `controlBytes` at CONTROL; answers its address. */
  prepare(dataBytes: number, controlBytes: number): number {
    const { view, address } = this;
    this.bytes.fill(0, ScratchMemory.MSGHDR, ScratchMemory.MSGHDR + 56);
    setPointer(view, ScratchMemory.IOVEC, address + ScratchMemory.DATA);
    setPointer(view, ScratchMemory.IOVEC + 8, dataBytes);
    setPointer(view, ScratchMemory.MSGHDR + 16, address + ScratchMemory.IOVEC);
    setPointer(view, ScratchMemory.MSGHDR + 24, 1);
    setPointer(view, ScratchMemory.MSGHDR + 32, controlBytes === 0 ? 0 : address + ScratchMemory.CONTROL);
    setPointer(view, ScratchMemory.MSGHDR + 40, controlBytes);
    return address + ScratchMemory.MSGHDR;
  }
}

let scratchOfThread: ScratchMemory | null = null;

function scratch(): ScratchMemory {
  scratchOfThread ??= new ScratchMemory();
  return scratchOfThread;
}

export type Received = {
  /** What came, at most as much as was asked for. Empty with `closed` false: nothing waits. */
  readonly bytes: Uint8Array;
  /** Descriptors that came with these bytes; the caller owns them. */
  readonly fds: number[];
  readonly closed: boolean;
  /** More descriptors came than fit: those that did are in `fds`, the rest were dropped by the kernel. */
  readonly truncated: boolean;
};

/** Reads up to `maxBytes` (at most 8,192) and the descriptors that come with them. @throws HostError */
export function receive(fd: number, maxBytes: number): Received {
  const memory = scratch();
  const wantedBytes = Math.min(maxBytes, ScratchMemory.DATA_BYTES);
  const msg = memory.prepare(wantedBytes, ScratchMemory.CONTROL_BYTES);
  const count = libc.recvmsg(fd, msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (count < 0) {
    const errno = lastErrno();
    if (errno === ERRNO.EAGAIN || errno === ERRNO.EINTR) return NOTHING;
    if (errno === ERRNO.ECONNRESET) return { ...NOTHING, closed: true };
    throw new HostError('recvmsg', errno, 'reading from a connection');
  }
  const flags = memory.view.getInt32(ScratchMemory.MSGHDR + 48, true);
  return {
    bytes: memory.bytes.slice(ScratchMemory.DATA, ScratchMemory.DATA + count),
    fds: descriptorsIn(memory),
    closed: count === 0,
    truncated: (flags & MSG_CTRUNC) !== 0,
  };
}

/**
 * What `receive` would read now, without taking or opening any of it: how many bytes, 0: nothing waits or the other end
 * is closed; and whether descriptors come with them (true also when they come right behind). @throws HostError
 */
export function peek(
  fd: number,
  maxBytes: number,
): { readonly sizeBytes: number; readonly hasFds: boolean; readonly closed: boolean } {
  const memory = scratch();
  // Without room for descriptors: that some are there is then told as that they were cut off.
  const msg = memory.prepare(Math.min(maxBytes, ScratchMemory.DATA_BYTES), 0);
  const count = libc.recvmsg(fd, msg, MSG_DONTWAIT | MSG_PEEK);
  if (count < 0) {
    const errno = lastErrno();
    if (errno !== ERRNO.EAGAIN && errno !== ERRNO.EINTR && errno !== ERRNO.ECONNRESET)
      throw new HostError('recvmsg', errno, 'reading from a connection');
    return { sizeBytes: 0, hasFds: false, closed: errno === ERRNO.ECONNRESET };
  }
  const flags = memory.view.getInt32(ScratchMemory.MSGHDR + 48, true);
  return { sizeBytes: count, hasFds: (flags & MSG_CTRUNC) !== 0, closed: count === 0 };
}

const NOTHING: Received = { bytes: new Uint8Array(0), fds: [], closed: false, truncated: false };

/**
 * Sends bytes (at most 8,192) with descriptors, which the caller keeps. Answers how many bytes went; 0 when
 * the socket is full. Descriptors travel with the first byte. `flags`: of send(2), more of them. @throws HostError
 */
export function send(fd: number, bytes: Uint8Array, fds: readonly number[] = [], flags = 0): number {
  const memory = scratch();
  const sentBytes = Math.min(bytes.length, ScratchMemory.DATA_BYTES);
  memory.bytes.set(bytes.subarray(0, sentBytes), ScratchMemory.DATA);
  const controlBytes = fds.length === 0 ? 0 : writeDescriptors(memory, fds);
  const msg = memory.prepare(sentBytes, controlBytes);
  const count = libc.sendmsg(fd, msg, MSG_DONTWAIT | MSG_NOSIGNAL | flags);
  if (count >= 0) return count;
  const errno = lastErrno();
  if (errno === ERRNO.EAGAIN || errno === ERRNO.EINTR) return 0;
  throw new HostError('sendmsg', errno, 'writing to a connection');
}

/** struct cmsghdr { size_t len; int level; int type; } followed by the descriptors, padded to 8 bytes. */
function descriptorsIn(memory: ScratchMemory): number[] {
  const { view } = memory;
  const fds: number[] = [];
  const end = ScratchMemory.CONTROL + view.getUint32(ScratchMemory.MSGHDR + 40, true);
  for (let at = ScratchMemory.CONTROL; at + 16 <= end; ) {
    const length = view.getUint32(at, true);
    if (length < 16) break;
    if (view.getInt32(at + 8, true) === SOL_SOCKET && view.getInt32(at + 12, true) === SCM_RIGHTS) {
      for (let fdAt = at + 16; fdAt + 4 <= at + length; fdAt += 4) fds.push(view.getInt32(fdAt, true));
    }
    at += (length + 7) & ~7;
  }
  return fds;
}

function writeDescriptors(memory: ScratchMemory, fds: readonly number[]): number {
  const { view } = memory;
  setPointer(view, ScratchMemory.CONTROL, 16 + 4 * fds.length);
  view.setInt32(ScratchMemory.CONTROL + 8, SOL_SOCKET, true);
  view.setInt32(ScratchMemory.CONTROL + 12, SCM_RIGHTS, true);
  for (const [i, fd] of fds.entries()) view.setInt32(ScratchMemory.CONTROL + 16 + 4 * i, fd, true);
  return (16 + 4 * fds.length + 7) & ~7;
}

function setPointer(view: DataView, offset: number, value: number): void {
  view.setBigUint64(offset, BigInt(value), true);
}

function newSocket(type: number): number {
  return checked(libc.socket(AF_UNIX, type, 0), 'socket', 'creating a UNIX socket');
}

/** @throws SocketPathError when no socket can have this path */
export function checkSocketPath(path: string): void {
  socketAddress(path);
}

/** struct sockaddr_un. @throws SocketPathError when no socket can have this path */
export function socketAddress(path: string): Uint8Array {
  const pathBytes = Buffer.from(path);
  if (pathBytes.length > SOCKET_PATH_BYTES_MAX) {
    throw new SocketPathError(
      `socket path of ${pathBytes.length} bytes is too long (at most ${SOCKET_PATH_BYTES_MAX}): ${path}`,
    );
  }
  if (pathBytes.length === 0 || pathBytes.includes(0))
    throw new SocketPathError('socket path is empty or holds a zero byte');
  const address = new Uint8Array(2 + pathBytes.length + 1);
  address[0] = AF_UNIX;
  address.set(pathBytes, 2);
  return address;
}

function bindTakingOverStale(fd: number, path: string, address: Uint8Array): void {
  if (libc.bind(fd, address, address.length) === 0) return;
  const errno = lastErrno();
  if (errno !== ERRNO.EADDRINUSE) throw new HostError('bind', errno, `creating socket ${path}`);
  if (!lstatSync(path).isSocket()) {
    throw new SocketPathError(`${path} exists and is not a socket`);
  }
  if (isServed(path)) throw inUse(path);
  unlinkSync(path);
  checked(libc.bind(fd, address, address.length), 'bind', `creating socket ${path}`);
}

/** Before there is anything to undo. @throws SocketPathError when it is known that a process has the socket at `path` open */
export function refuseServed(path: string): void {
  const obstacle = datagramObstacle(path);
  if (obstacle === null || obstacle.code === 'EPROTOTYPE') throw inUse(path);
}

function inUse(path: string): SocketPathError {
  return new SocketPathError(`socket ${path} is in use by a running process`);
}

/**
 * Whether a process has the socket at `path` open: only an attempt to connect tells across namespaces. As a datagram
 * socket, so that who listens there for streams sees nothing of it.
 */
function isServed(path: string): boolean {
  const code = datagramObstacle(path)?.code;
  // EPROTOTYPE: a stream's; EACCES: we may not even ask. Neither is ours to take.
  return code !== 'ECONNREFUSED' && code !== 'ENOENT';
}

function changeOwner(path: string, uid: number, gid: number): void {
  try {
    chownSync(path, uid, gid);
  } catch (error) {
    throw new SocketPathError(`cannot give socket ${path} to ${uid}:${gid}: ${(error as Error).message}`);
  }
}

function readablePathError(error: unknown, path: string): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  const folder = path.slice(0, path.lastIndexOf('/')) || (path.startsWith('/') ? '/' : '.');
  switch (code) {
    case 'ENOENT':
      return new SocketPathError(`folder ${folder} of socket ${path} does not exist`);
    case 'ENOTDIR':
      return new SocketPathError(`${folder} of socket ${path} is not a folder`);
    case 'EACCES':
    case 'EPERM':
      return new SocketPathError(`no permission to create socket ${path}`);
    case 'EROFS':
      return new SocketPathError(`cannot create socket ${path}: read-only file system`);
    default:
      if (error instanceof SocketPathError || error instanceof HostError || typeof code !== 'string')
        return error;
      return new SocketPathError(`cannot create socket ${path}: ${code}`);
  }
}
