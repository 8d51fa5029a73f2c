/**
 * This process as a service of a manager such as systemd (sd_notify(3)): tells when it is ready, how it is, when it ends,
 * and that it lives. Without a manager nothing is told. Main thread.
 */
import { NotifySocket, type ServiceEnvironment } from '../../src/host/notify.ts';
import { identityOf } from '../../src/host/process-identity.ts';
import type { Logger } from '../log.ts';
import { DescriptorStore, type HandedStore } from './store.ts';

/** Between two looks at whether the manager is to be told another status. */
const STATUS_MS = 2000;

/** What the service does, as far as it is told. */
export type Served = {
  portCounts(): { readonly running: number; readonly all: number };
  /** Resolves when every worker's loop has turned. */
  allTurn(): Promise<void>;
};

/** What the next process of the same service needs to know that its own start does not tell. */
export type HandedService = {
  readonly notifyAddress: string;
  readonly watchdogUs: number | null;
  readonly store: HandedStore | null;
};

export class Service {
  /** Where ports are kept for the next process; null: nowhere. */
  readonly store: DescriptorStore | null;
  readonly #address: string | null;
  readonly #socket: NotifySocket | null;
  readonly #watchdogUs: number | null;
  readonly #isSuccessor: boolean;
  readonly #timers: NodeJS.Timeout[] = [];
  #status = '';
  #isAlive = true;

  /** `before`: of the process that this one takes over from; null: there is none, or it is no service. */
  constructor(environment: ServiceEnvironment, log: Logger, before: HandedService | null = null) {
    const { notifyAddress, watchdogUs, storeMax, kept } = environment;
    this.#address = before?.notifyAddress ?? notifyAddress;
    this.#watchdogUs = before?.watchdogUs ?? watchdogUs;
    this.#isSuccessor = before !== null;
    this.#socket =
      this.#address === null ? null : new NotifySocket(this.#address, () => this.store?.caughtUp());
    const isKept = before === null ? storeMax > 0 : before.store !== null;
    this.store = this.#socket === null || !isKept ? null : new DescriptorStore(this.#socket, storeMax, log);
    if (before?.store != null) this.store?.takeOver(before.store);
    else this.store?.takeKept(kept);
  }

  /** All ports are there. */
  ready(served: Served): void {
    this.store?.complete();
    if (this.#socket === null) return;
    this.#status = statusOf(served);
    this.#socket.send([
      'READY=1',
      `STATUS=${this.#status}`,
      ...(this.#isSuccessor ? [`MAINPID=${process.pid}`, 'WATCHDOG=1'] : []),
    ]);
    this.#every(STATUS_MS, () => this.#tellStatus(served));
    if (this.#watchdogUs !== null) this.#every(this.#watchdogUs / 2000, () => this.#tellAlive(served));
  }

  /** Null: it is none. */
  handOver(): HandedService | null {
    if (this.#address === null) return null;
    return {
      notifyAddress: this.#address,
      watchdogUs: this.#watchdogUs,
      store: this.store?.handOver() ?? null,
    };
  }

  /**
   * Another process is about to go on in this one's place. The manager is told before this one ends, which it would take
   * for the end of the service. `pid`: null where nobody knows.
   */
  letGo(pid: number | null): void {
    if (pid !== null) this.#socket?.send([`MAINPID=${pid}`]);
    this.store?.leaveTo(pid === null ? null : identityOf(pid));
  }

  /** It does not, after all. */
  goOn(): void {
    this.#socket?.send([`MAINPID=${process.pid}`]);
    this.store?.comeBack();
  }

  /** An orderly stop begins. */
  stopping(): void {
    this.#clearTimers();
    this.#socket?.send(['STOPPING=1', 'STATUS=stopping']);
  }

  /** Another process of the service goes on, or none: nothing more is told. */
  close(): void {
    this.#clearTimers();
    this.#socket?.close();
  }

  #every(periodMs: number, call: () => void): void {
    const timer = setInterval(call, periodMs);
    timer.unref();
    this.#timers.push(timer);
  }

  #clearTimers(): void {
    for (const timer of this.#timers.splice(0)) clearInterval(timer);
  }

  #tellStatus(served: Served): void {
    const status = statusOf(served);
    if (status === this.#status) return;
    this.#status = status;
    this.#socket?.send([`STATUS=${status}`]);
  }

  /** Only once every worker has answered, as a sleeping one does too. One that does not keeps the manager from being told. */
  #tellAlive(served: Served): void {
    if (!this.#isAlive) return;
    this.#isAlive = false;
    void served.allTurn().then(() => {
      this.#isAlive = true;
      if (this.#timers.length > 0) this.#socket?.send(['WATCHDOG=1']);
    });
  }
}

function statusOf(served: Served): string {
  const { running, all } = served.portCounts();
  return `${running} of ${all} ports running`;
}
