/**
 * Signalling by a descriptor that a peer shares, without ever waiting for the peer. Such a descriptor is an open file
 * of both sides: the peer may take O_NONBLOCK off it at any moment, and fill it, and a plain `write` then waits for
 * ever. So no plain `write`:
 *
 * - An eventfd is signalled by the kernel itself. A read of /dev/null is submitted as asynchronous I/O (io_submit(2))
 *   that asks for a signal to the eventfd when it is done (IOCB_FLAG_RESFD), and it is done at once. What the kernel
 *   adds to an eventfd of its own accord it adds without waiting: a full counter stays full.
 * - A UNIX socket is sent to with MSG_DONTWAIT, which holds for the call and not for the open file.
 *
 * Any other kind of file could make us wait, pipes with them: whoever writes to a pipe from memory that never answers
 * holds the pipe's lock meanwhile, and then an open, a read and a write of it wait, O_NONBLOCK or not.
 *
 * Any thread; each has a submission context of its own, made at its first signal and given back by `closePeerSignals`.
 * Nothing is allocated for a signal. Measured against other ways in docs/architecture.md, "Signals".
 */
import { closeFd, setNonBlocking, signalFd, unixSocketFd } from './descriptor.ts';
import { checked } from './errors.ts';
import { libc } from './libc.ts';
import { releaseAddressSpace, reserveAddressSpace, viewMemory } from './mapping.ts';

const IS_X64 = process.arch === 'x64';
/** Numbers of the calls, which glibc has no functions for: of x86-64, and of the table that newer machines share. */
const SYS_IO_SETUP = IS_X64 ? 206 : 0;
const SYS_IO_DESTROY = IS_X64 ? 207 : 1;
const SYS_IO_GETEVENTS = IS_X64 ? 208 : 4;
const SYS_IO_SUBMIT = IS_X64 ? 209 : 2;

const O_CLOEXEC = 0o2000000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

/** Completions that the kernel keeps for us, and how many are left there before they are taken out. */
const COMPLETIONS_MAX = 64;
const COMPLETIONS_TAKEN_OUT_AT = 32;

/** Places in a thread's page: what is handed to the kernel must not move. */
const PAGE_BYTES = 4096;
const LIST_AT = 0;
const CONTEXT_AT = 8;
const NO_TIME_AT = 16;
const ONE_AT = 32;
/** struct iocb: opcode at 16, file at 20, flags at 56, descriptor to signal at 60. The rest is zero: read 0 bytes. */
const REQUEST_AT = 64;
const REQUEST_FILE_AT = REQUEST_AT + 20;
const REQUEST_FLAGS_AT = REQUEST_AT + 56;
const REQUEST_SIGNAL_AT = REQUEST_AT + 60;
const IOCB_FLAG_RESFD = 1;
/** struct io_event, of 32 bytes each; nobody reads them. */
const EVENTS_AT = 1024;

class ThreadSignals {
  readonly page = reserveAddressSpace(PAGE_BYTES);
  readonly #bytes = viewMemory(this.page, PAGE_BYTES);
  readonly #signalFd = new Int32Array(this.#bytes, REQUEST_SIGNAL_AT, 1);
  /** What is read: always there, and at its end at once. -1: this kernel has no asynchronous I/O for us. */
  #file = -1;
  #context = 0;
  #completions = 0;

  constructor() {
    const view = new DataView(this.#bytes);
    view.setBigUint64(ONE_AT, 1n, true);
    if (libc.syscall3(SYS_IO_SETUP, COMPLETIONS_MAX, this.page + CONTEXT_AT, 0) < 0) return;
    this.#context = Number(view.getBigUint64(CONTEXT_AT, true));
    this.#file = checked(libc.open('/dev/null', O_CLOEXEC), 'open', 'opening /dev/null');
    view.setBigUint64(LIST_AT, BigInt(this.page + REQUEST_AT), true);
    view.setInt32(REQUEST_FILE_AT, this.#file, true);
    view.setInt32(REQUEST_FLAGS_AT, IOCB_FLAG_RESFD, true);
  }

  get neverWaits(): boolean {
    return this.#file >= 0;
  }

  signalEventFd(fd: number): boolean {
    if (this.#file < 0) return signalAnyhow(fd);
    this.#signalFd[0] = fd;
    const submitted = libc.syscall3(SYS_IO_SUBMIT, this.#context, 1, this.page + LIST_AT);
    if (++this.#completions === COMPLETIONS_TAKEN_OUT_AT) this.#takeOut();
    return submitted === 1;
  }

  close(): void {
    if (this.#file >= 0) {
      libc.syscall3(SYS_IO_DESTROY, this.#context, 0, 0);
      closeFd(this.#file);
    }
    releaseAddressSpace(this.page, PAGE_BYTES);
  }

  #takeOut(): void {
    this.#completions = 0;
    const { page } = this;
    libc.syscall5(SYS_IO_GETEVENTS, this.#context, 0, COMPLETIONS_MAX, page + EVENTS_AT, page + NO_TIME_AT);
  }
}

/** Leaves a peer that means harm the moment between two calls. */
function signalAnyhow(fd: number): boolean {
  setNonBlocking(fd);
  return signalFd(fd);
}

let signalsOfThread: ThreadSignals | null = null;

function threadSignals(): ThreadSignals {
  signalsOfThread ??= new ThreadSignals();
  return signalsOfThread;
}

/**
 * False where the kernel has no asynchronous I/O, or no more of it (/proc/sys/fs/aio-max-nr): eventfds are then made
 * non-blocking again before each signal, which holds against everybody but a peer that means harm.
 */
export function peerSignalsNeverWait(): boolean {
  return threadSignals().neverWaits;
}

/** At the end of a thread, whose signals are all forgotten then. */
export function closePeerSignals(): void {
  signalsOfThread?.close();
  signalsOfThread = null;
}

/** The way to signal by one descriptor: an eventfd or a UNIX socket. The caller keeps it open meanwhile. */
export class PeerSignal {
  readonly #fd: number;
  readonly #isSocket: boolean;
  readonly #signals = threadSignals();

  constructor(fd: number) {
    this.#fd = fd;
    this.#isSocket = unixSocketFd(fd);
  }

  /**
   * Answers false when the other side is gone or the socket is full: then a wake-up waits there already, and a dead
   * peer's connection says so by itself.
   */
  send(): boolean {
    if (!this.#isSocket) return this.#signals.signalEventFd(this.#fd);
    return libc.sendAt(this.#fd, this.#signals.page + ONE_AT, 8, MSG_DONTWAIT | MSG_NOSIGNAL) === 8;
  }
}
