/**
 * A port that is a DPDK device: a network card taken from the kernel, or one of DPDK's virtual devices. DPDK is
 * loaded when the first such port starts. What is missing (DPDK, the device, its interface) is told by `status` and
 * tried again with pauses. Main thread.
 */
import { downInterface, missingInterface } from '../../dpdk/device.ts';
import { Eal, wordsOf } from '../../dpdk/eal.ts';
import { type EthLink, EthPort, type EthStatistics } from '../../dpdk/ethdev.ts';
import { DpdkError } from '../../dpdk/library.ts';
import { allowedCpus } from '../../host/affinity.ts';
import { HostError } from '../../host/errors.ts';
import { ArenaFullError } from '../../memory/arena.ts';
import { type PortCounters, QueueState, queueStates, sumCounters } from '../../queue/state.ts';
import type { Port, PortContext, PortQueue, PortStatus } from '../contract.ts';
import type { DpdkAttachment } from './queues.ts';

export type DpdkPortOptions = {
  /** `0000:03:00.0`, or a virtual device with its arguments: `net_af_packet0,iface=eth0`. */
  readonly device: string;
  readonly queueCount: number;
  /** Null: the device's own. */
  readonly mtu: number | null;
  readonly promiscuous: boolean;
  /** Options for EAL; those of the first DPDK port in the process count. */
  readonly ealArguments: readonly string[];
};

/** What `ringway ports --json` shows of this kind only; null while the device is not attached. */
export type DpdkDetails = {
  /** `DPDK 22.11.11`. */
  readonly dpdk: string | null;
  readonly memory: string | null;
  readonly driver: string | null;
  readonly mac: string | null;
  readonly link: EthLink | null;
  readonly statistics: EthStatistics | null;
};

const RETRY_MIN_MS = 100;
const RETRY_MAX_MS = 2000;
/** How often the device is looked after; no driver tells that its interface went away. */
const LOOK_MS = 1000;
const MEMORY_HUGE = 'hugepages';
const MEMORY_PLAIN = 'no hugepages (EAL runs with --no-huge)';

export class DpdkPort implements Port {
  readonly id: number;
  readonly name: string;
  readonly kind = 'dpdk';
  readonly endpoint: string;
  readonly options: DpdkPortOptions;
  readonly states: SharedArrayBuffer;
  readonly #context: PortContext;
  #eth: EthPort | null = null;
  #attached: number[] = [];
  /** Attaching and letting go, one after the other. */
  #work: Promise<void> = Promise.resolve();
  #isReleasing = false;
  #retry: NodeJS.Timeout | null = null;
  #retryMs = RETRY_MIN_MS;
  #watch: NodeJS.Timeout | null = null;
  #stopped = false;
  #isFinal = false;
  #reason: string | null = null;

  constructor(options: DpdkPortOptions, context: PortContext) {
    this.id = context.id;
    this.name = context.name;
    this.endpoint = options.device;
    this.options = options;
    this.states = queueStates(2 * options.queueCount);
    this.#context = context;
  }

  get status(): PortStatus {
    if (this.#stopped) return { state: 'stopped', reason: 'the port was stopped' };
    if (this.#eth === null) {
      return { state: this.#isFinal ? 'stopped' : 'waiting', reason: this.#reason ?? 'not started yet' };
    }
    return { state: 'running', reason: this.#warning() };
  }

  get mtu(): number | null {
    return this.#eth?.mtu ?? null;
  }

  get queues(): readonly PortQueue[] {
    return Array.from({ length: 2 * this.options.queueCount }, (_, index) => ({
      index,
      direction: index % 2 === 0 ? 'egress' : 'ingress',
      size: this.#eth?.descriptorCount ?? 0,
      started: this.#attached.includes(index),
      enabled: this.#attached.includes(index),
      reason: null,
    }));
  }

  get counters(): PortCounters {
    return sumCounters(this.states, this.options.queueCount);
  }

  get details(): DpdkDetails {
    const [eal, eth] = [Eal.current, this.#eth];
    return {
      dpdk: eal?.version ?? null,
      memory: eal === null ? null : memoryOf(eal),
      driver: eth?.driver ?? null,
      mac: eth?.mac ?? null,
      link: eth?.link ?? null,
      statistics: eth?.statistics ?? null,
    };
  }

  /** Resolves after the first try. */
  start(): Promise<void> {
    return this.#then(() => this.#attach());
  }

  stop(): Promise<void> {
    this.#stopped = true;
    if (this.#retry !== null) clearTimeout(this.#retry);
    return this.#then(() => this.#release());
  }

  /** A DPDK queue has no faults. */
  queueFailed(): void {}

  #then(action: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(action);
    return this.#work;
  }

  async #attach(): Promise<void> {
    if (this.#stopped) return;
    try {
      this.#eth = this.#open();
      await this.#attachQueues(this.#eth);
    } catch (error) {
      if (!isOutside(error)) throw error;
      await this.#release();
      this.#failed(error);
      return;
    }
    this.#reason = null;
    this.#retryMs = RETRY_MIN_MS;
    this.#watch = setInterval(() => this.#look(), LOOK_MS);
    const { driver, mac, warnings } = this.#eth;
    this.#context.events.info(`attached to ${this.endpoint} (driver ${driver}, address ${mac})`);
    for (const warning of warnings) this.#context.events.warn(warning);
  }

  #open(): EthPort {
    const { options, eal } = { options: this.options, eal: this.#eal() };
    return EthPort.open(eal, this.#context.arena, options.device, {
      queueCount: options.queueCount,
      mtu: options.mtu,
      promiscuous: options.promiscuous,
      threadCount: allowedCpus().length,
    });
  }

  #eal(): Eal {
    const running = Eal.current;
    const { ealArguments } = this.options;
    if (running === null) {
      const eal = Eal.start({ arguments: ealArguments });
      this.#context.events.info(`${eal.version} runs with ${memoryOf(eal)}`);
      return eal;
    }
    if (ealArguments.some((each) => !running.arguments.includes(each))) {
      this.#context.events.warn(
        'DPDK runs already with the options of another port; restart Ringway for others',
      );
    }
    return running;
  }

  /** Egress first, so that what comes in finds a way out. */
  async #attachQueues(eth: EthPort): Promise<void> {
    const { dataPath } = this.#context;
    await dataPath.setPolicy(this.id, { frameBytesMax: eth.frameBytesMax });
    for (let queueIndex = 0; queueIndex < 2 * this.options.queueCount; queueIndex++) {
      new QueueState(this.states, queueIndex).words.fill(0);
      const isEgress = queueIndex % 2 === 0;
      const attachment: DpdkAttachment = {
        kind: 'dpdk',
        portId: this.id,
        queueIndex,
        direction: isEgress ? 'egress' : 'ingress',
        states: this.states,
        location: (isEgress ? eth.txQueues : eth.rxQueues)[queueIndex >> 1],
      };
      this.#attached.push(queueIndex);
      await dataPath.attach(attachment);
    }
  }

  #look(): void {
    if (this.#eth === null || this.#isReleasing) return;
    const words = wordsOf(Eal.current?.takeLog() ?? '');
    if (words !== '') this.#context.events.warn(words);
    const missing = missingInterface(this.#eth.device);
    if (missing === null) return;
    this.#isReleasing = true;
    void this.#then(async () => {
      await this.#release();
      this.#isReleasing = false;
      this.#failed(new DpdkError(missing));
    });
  }

  /** Detaches and closes, as far as it had come. */
  async #release(): Promise<void> {
    const eth = this.#eth;
    if (eth === null) return;
    if (this.#watch !== null) clearInterval(this.#watch);
    const { dataPath, events } = this.#context;
    const attached = this.#attached;
    this.#attached = [];
    await Promise.all(attached.map((queueIndex) => dataPath.detach(this.id, queueIndex)));
    this.#eth = null;
    eth.close();
    events.disconnected();
  }

  #failed(error: Error): void {
    if (this.#stopped) return;
    if (error.message !== this.#reason) this.#context.events.warn(error.message);
    this.#reason = error.message;
    this.#isFinal = error instanceof DpdkError && !error.mayPass;
    if (this.#isFinal) return;
    this.#retry = setTimeout(() => void this.#then(() => this.#attach()), this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MAX_MS);
  }

  #warning(): string | null {
    const eth = this.#eth!;
    if (!eth.link.up) return `${eth.device.name} has no link: look at the cable and at the other side`;
    return downInterface(eth.device) ?? eth.warnings[0] ?? null;
  }
}

/** What the outside may lack now and have later. */
function isOutside(error: unknown): error is Error {
  return error instanceof DpdkError || error instanceof HostError || error instanceof ArenaFullError;
}

function memoryOf(eal: Eal): string {
  return eal.usesHugepages ? MEMORY_HUGE : MEMORY_PLAIN;
}
