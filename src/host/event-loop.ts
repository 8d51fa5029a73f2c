/**
 * Ties descriptors that Node cannot watch itself (sockets that carry descriptors, eventfds) to Node's event
 * loop: all of them sit in one epoll set, and libuv watches that set as a single descriptor (measured: half
 * the latency of an asynchronous `epoll_wait` on a pool thread, and no thread is held). Main thread and
 * front-end processes; one instance a thread.
 */
import './node-version.ts';
import koffi from 'koffi';
import { EpollSet } from './epoll.ts';

export type Watch = { close(): void };

/** Events handled before Node's other work gets its turn again. */
const EVENTS_PER_TURN = 64;

export class DescriptorLoop {
  readonly #epoll = new EpollSet();
  readonly #callbacks = new Map<number, () => void>();
  #handle: ReturnType<typeof koffi.node.poll> | null = null;

  /**
   * Calls `onReadable` whenever `fd` has data or its other end is gone, until the watch is closed. The watch
   * must be closed before `fd` is. An open watch keeps the process alive.
   */
  watch(fd: number, onReadable: () => void): Watch {
    this.#epoll.add(fd);
    return this.#watched(fd, onReadable);
  }

  /** As `watch`, of an eventfd that nobody here reads: `onSignal` is called once for what was signalled meanwhile. */
  watchSignals(fd: number, onSignal: () => void): Watch {
    this.#epoll.addSignals(fd);
    return this.#watched(fd, onSignal);
  }

  #watched(fd: number, onReadable: () => void): Watch {
    this.#callbacks.set(fd, onReadable);
    this.#handle ??= koffi.node.poll(this.#epoll.fd, { readable: true }, () => this.#dispatch());
    if (this.#callbacks.size === 1) this.#handle.ref();
    let open = true;
    return {
      close: () => {
        if (!open) return;
        open = false;
        this.#epoll.remove(fd);
        this.#callbacks.delete(fd);
        // Never closed: libuv frees a closed handle later, and a second one for the same set would abort.
        if (this.#callbacks.size === 0) this.#handle?.unref();
      },
    };
  }

  #dispatch(): void {
    const count = this.#epoll.wait(0);
    for (let i = 0; i < Math.min(count, EVENTS_PER_TURN); i++) {
      // An earlier callback of this turn may have closed the watch, or closed and reopened the number:
      // callbacks therefore expect to find nothing to read.
      this.#callbacks.get(this.#epoll.readyFd(i))?.();
    }
  }
}

let loopOfThread: DescriptorLoop | null = null;

/** This thread's loop. */
export function descriptorLoop(): DescriptorLoop {
  loopOfThread ??= new DescriptorLoop();
  return loopOfThread;
}
