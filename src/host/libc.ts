/**
 * Every libc call that Ringway makes, declared once. Linux on a 64-bit little-endian machine; addresses and
 * sizes are JavaScript numbers (user addresses need 47 bits). Nothing outside src/host calls these directly:
 * its neighbours turn results below zero into a HostError. Loaded once in each thread.
 */
import './node-version.ts';
import koffi from 'koffi';

const lib = koffi.load('libc.so.6');
/** What Node has loaded: before glibc 2.34 threads are in a library of their own. */
const loaded = koffi.load(null);

const close = lib.func('int close(int fd)');
const madvise = lib.func('int madvise(intptr_t addr, size_t len, int advice)');
const mmap = lib.func(
  'intptr_t mmap(intptr_t addr, size_t len, int prot, int flags, int fd, int64_t offset)',
);
type Placement = [addr: number, len: number, prot: number, flags: number, fd: number, offset: number];
/** Of a call made by Node's pool of threads. Its errno is lost: it belongs to that thread. */
type Answer = (error: Error | null, result: number) => void;

type Bytes = Uint8Array;

export const libc = {
  // Sockets
  socket: lib.func('int socket(int domain, int type, int protocol)') as (
    d: number,
    t: number,
    p: number,
  ) => number,
  bind: lib.func('int bind(int fd, const void *addr, uint32_t len)') as (
    fd: number,
    a: Bytes,
    n: number,
  ) => number,
  listen: lib.func('int listen(int fd, int backlog)') as (fd: number, backlog: number) => number,
  accept4: lib.func('int accept4(int fd, void *addr, void *len, int flags)') as (
    fd: number,
    addr: null,
    len: null,
    flags: number,
  ) => number,
  connect: lib.func('int connect(int fd, const void *addr, uint32_t len)') as (
    fd: number,
    a: Bytes,
    n: number,
  ) => number,
  socketpair: lib.func('int socketpair(int domain, int type, int protocol, _Out_ int *fds)') as (
    domain: number,
    type: number,
    protocol: number,
    fds: Int32Array,
  ) => number,
  getsockopt: lib.func('int getsockopt(int fd, int level, int name, void *value, void *len)') as (
    fd: number,
    level: number,
    name: number,
    value: Bytes,
    len: Bytes,
  ) => number,
  getsockname: lib.func('int getsockname(int fd, void *addr, void *len)') as (
    fd: number,
    addr: Bytes,
    len: Bytes,
  ) => number,
  shutdown: lib.func('int shutdown(int fd, int how)') as (fd: number, how: number) => number,
  /** `msghdr` is an address in memory that this thread mapped (see ScratchMemory in unix-socket.ts). */
  recvmsg: lib.func('intptr_t recvmsg(int fd, intptr_t msg, int flags)') as (
    fd: number,
    msg: number,
    flags: number,
  ) => number,
  sendmsg: lib.func('intptr_t sendmsg(int fd, intptr_t msg, int flags)') as (
    fd: number,
    msg: number,
    flags: number,
  ) => number,
  setsockopt: lib.func('int setsockopt(int fd, int level, int name, const void *value, uint32_t len)') as (
    fd: number,
    level: number,
    name: number,
    value: Bytes,
    len: number,
  ) => number,
  sendBytes: lib.func('send', 'intptr_t', ['int', 'const void *', 'size_t', 'int']) as (
    fd: number,
    b: Bytes,
    n: number,
    flags: number,
  ) => number,
  /** `recv` and `send` of memory at an address; for what is never longer than 2^31 - 1 bytes. */
  recvAt: lib.func('recv', 'int', ['int', 'intptr_t', 'size_t', 'int']) as (
    fd: number,
    address: number,
    n: number,
    flags: number,
  ) => number,
  sendAt: lib.func('send', 'int', ['int', 'intptr_t', 'size_t', 'int']) as (
    fd: number,
    address: number,
    n: number,
    flags: number,
  ) => number,
  /** `messages` is the address of `count` structs mmsghdr. */
  recvmmsg: lib.func(
    'int recvmmsg(int fd, intptr_t messages, uint32_t count, int flags, intptr_t timeout)',
  ) as (fd: number, messages: number, count: number, flags: number, timeout: 0) => number,
  sendmmsg: lib.func('int sendmmsg(int fd, intptr_t messages, uint32_t count, int flags)') as (
    fd: number,
    messages: number,
    count: number,
    flags: number,
  ) => number,

  // Memory
  mmap: mmap as (...placement: Placement) => number,
  /** By Node's pool of threads. */
  mmapAsync: mmap.async as (...placementAndAnswer: [...Placement, Answer]) => void,
  munmap: lib.func('int munmap(intptr_t addr, size_t len)') as (addr: number, len: number) => number,
  madvise: madvise as (addr: number, len: number, advice: number) => number,
  /** By Node's pool of threads. */
  madviseAsync: madvise.async as (addr: number, len: number, advice: number, answer: Answer) => void,
  mincore: lib.func('int mincore(intptr_t addr, size_t len, void *vec)') as (
    addr: number,
    len: number,
    vec: Bytes,
  ) => number,
  mprotect: lib.func('int mprotect(intptr_t addr, size_t len, int prot)') as (
    addr: number,
    len: number,
    prot: number,
  ) => number,
  memfd_create: lib.func('int memfd_create(const char *name, uint32_t flags)') as (
    name: string,
    flags: number,
  ) => number,
  ftruncate: lib.func('int ftruncate(int fd, int64_t length)') as (fd: number, length: number) => number,

  // Descriptors
  close: close as (fd: number) => number,
  _exit: lib.func('void _exit(int status)') as (status: number) => void,
  /** By Node's pool of threads. */
  closeAsync: close.async as (fd: number, answer: Answer) => void,
  /** Where `close` begins, for a thread that starts there (native-thread.ts). */
  closeAddress: Number(koffi.address(lib.symbol('close'))),
  fcntl: lib.func('int fcntl(int fd, int command, intptr_t argument)') as (
    fd: number,
    command: number,
    argument: number,
  ) => number,
  read: lib.func('intptr_t read(int fd, void *buffer, size_t len)') as (
    fd: number,
    b: Bytes,
    n: number,
  ) => number,
  write: lib.func('intptr_t write(int fd, const void *buffer, size_t len)') as (
    fd: number,
    b: Bytes,
    n: number,
  ) => number,
  eventfd: lib.func('int eventfd(uint32_t initial, int flags)') as (initial: number, flags: number) => number,
  /** `vector` is the address of a struct iovec. */
  preadv2: lib.func('intptr_t preadv2(int fd, intptr_t vector, int count, int64_t offset, int flags)') as (
    fd: number,
    vector: number,
    count: number,
    offset: number,
    flags: number,
  ) => number,
  /** As `read` and `write`, of memory at an address; for what is never longer than 2^31 - 1 bytes. */
  readAt: lib.func('read', 'int', ['int', 'intptr_t', 'size_t']) as (
    fd: number,
    address: number,
    n: number,
  ) => number,
  writeAt: lib.func('write', 'int', ['int', 'intptr_t', 'size_t']) as (
    fd: number,
    address: number,
    n: number,
  ) => number,
  pread: lib.func('intptr_t pread(int fd, intptr_t address, size_t len, int64_t offset)') as (
    fd: number,
    address: number,
    n: number,
    offset: number,
  ) => number,
  flock: lib.func('int flock(int fd, int operation)') as (fd: number, operation: number) => number,
  open: lib.func('int open(const char *path, int flags)') as (path: string, flags: number) => number,
  ioctl: lib.func('int ioctl(int fd, unsigned long request, void *argument)') as (
    fd: number,
    request: number,
    argument: Bytes,
  ) => number,
  /** For requests whose argument is the value itself. */
  ioctlValue: lib.func('ioctl', 'int', ['int', 'unsigned long', 'intptr_t']) as (
    fd: number,
    request: number,
    argument: number,
  ) => number,

  // Calls of the kernel that libc has no function for (io_setup and its like: peer-signal.ts)
  syscall3: lib.func('syscall', 'intptr_t', ['intptr_t', 'intptr_t', 'intptr_t', 'intptr_t']) as (
    number: number,
    a: number,
    b: number,
    c: number,
  ) => number,
  syscall5: lib.func('syscall', 'intptr_t', [
    'intptr_t',
    'intptr_t',
    'intptr_t',
    'intptr_t',
    'intptr_t',
    'intptr_t',
  ]) as (number: number, a: number, b: number, c: number, d: number, e: number) => number,

  // C streams: DPDK logs to a FILE (src/host/output-capture.ts)
  dup2: lib.func('int dup2(int from, int to)') as (from: number, to: number) => number,
  fdopen: lib.func('intptr_t fdopen(int fd, const char *mode)') as (fd: number, mode: string) => number,
  setvbuf: lib.func('int setvbuf(intptr_t stream, intptr_t buffer, int mode, size_t size)') as (
    stream: number,
    buffer: 0,
    mode: number,
    size: number,
  ) => number,
  fflush: lib.func('int fflush(intptr_t stream)') as (stream: 0) => number,

  // Waiting
  epoll_create1: lib.func('int epoll_create1(int flags)') as (flags: number) => number,
  epoll_ctl: lib.func('int epoll_ctl(int epfd, int op, int fd, const void *event)') as (
    epfd: number,
    op: number,
    fd: number,
    event: Bytes,
  ) => number,
  epoll_wait: lib.func('int epoll_wait(int epfd, void *events, int max, int timeoutMs)') as (
    epfd: number,
    events: Bytes,
    max: number,
    timeoutMs: number,
  ) => number,

  /** `entries` are structs pollfd. */
  poll: lib.func('int poll(void *entries, unsigned long count, int timeoutMs)') as (
    entries: Bytes,
    count: number,
    timeoutMs: number,
  ) => number,

  // Signals
  /** `action` is a struct sigaction. */
  sigaction: lib.func('int sigaction(int signal, const void *action, void *old)') as (
    signal: number,
    action: Bytes,
    old: null,
  ) => number,

  // Chance
  getrandom: lib.func('intptr_t getrandom(void *bytes, size_t count, unsigned int flags)') as (
    bytes: Bytes,
    count: number,
    flags: number,
  ) => number,

  // Time
  clock_gettime: lib.func('int clock_gettime(int clock, intptr_t timespec)') as (
    clock: number,
    timespec: number,
  ) => number,

  // Threads
  /** `thread`: 8 bytes that it writes; `attributes`: a pthread_attr_t; `start`: the address of a function. */
  pthread_create: loaded.func(
    'int pthread_create(_Out_ int64_t *thread, const void *attributes, intptr_t start, intptr_t argument)',
  ) as (thread: BigInt64Array, attributes: Bytes, start: number, argument: number) => number,
  pthread_tryjoin_np: loaded.func('int pthread_tryjoin_np(intptr_t thread, intptr_t answer)') as (
    thread: number,
    answer: 0,
  ) => number,
  pthread_attr_init: loaded.func('int pthread_attr_init(void *attributes)') as (attributes: Bytes) => number,
  pthread_attr_setstacksize: loaded.func(
    'int pthread_attr_setstacksize(void *attributes, size_t sizeBytes)',
  ) as (attributes: Bytes, sizeBytes: number) => number,
  /** Puts this thread into the namespace behind `fd`. */
  setns: lib.func('int setns(int fd, int type)') as (fd: number, type: number) => number,
  sched_setaffinity: lib.func('int sched_setaffinity(int pid, size_t size, const void *mask)') as (
    pid: number,
    size: number,
    mask: Bytes,
  ) => number,
  sched_getscheduler: lib.func('int sched_getscheduler(int pid)') as (pid: number) => number,
  sched_setscheduler: lib.func('int sched_setscheduler(int pid, int policy, const void *parameters)') as (
    pid: number,
    policy: number,
    parameters: Int32Array,
  ) => number,
  sched_getaffinity: lib.func('int sched_getaffinity(int pid, size_t size, void *mask)') as (
    pid: number,
    size: number,
    mask: Bytes,
  ) => number,
} as const;

/** The libc error number of this thread's last failed call. */
export function lastErrno(): number {
  return koffi.errno();
}
