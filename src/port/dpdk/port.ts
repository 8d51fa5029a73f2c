/**
 * A port that is a DPDK device: a network card taken from the kernel, or one of DPDK's virtual devices. DPDK is
 * loaded when the first such port starts. What is missing (DPDK, the device, its interface) is told by `status` and
 * tried again with pauses. Main thread.
 */
import { MTU_MAX } from '../../../protocol/ethernet.ts';
import { downInterface, missingInterface } from '../../dpdk/device.ts';
import { Eal, wordsOf } from '../../dpdk/eal.ts';
import { type EthLink, EthPort, type EthStatistics } from '../../dpdk/ethdev.ts';
import { DpdkError } from '../../dpdk/library.ts';
import { takenBy, txOffloadNames } from '../../dpdk/tx-offloads.ts';
import { allowedCpus } from '../../host/affinity.ts';
import type { OffloadSettings } from '../../queue/offloads.ts';
import { type PortCounters, QueueState, queueStates, sumCounters } from '../../queue/state.ts';
import type { Port, PortContext, PortQueue, PortStatus } from '../contract.ts';
import { Supervisor, type Trouble } from '../supervisor.ts';
import type { DpdkAttachment } from './queues.ts';

export type DpdkPortOptions = {
  /** `0000:03:00.0`, or a virtual device with its arguments: `net_af_packet0,iface=eth0`. */
  readonly device: string;
  readonly queueCount: number;
  /** Null: the device's own. */
  readonly mtu: number | null;
  readonly promiscuous: boolean;
  /** What is left to the device where it can; what is not named is on. */
  readonly offloads: OffloadSettings;
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
  /** Transmit offloads in use, by DPDK's names. */
  readonly offloads: readonly string[] | null;
  readonly statistics: EthStatistics | null;
};

const PAUSES = { minMs: 100, maxMs: 2000 };
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
  readonly #supervisor: Supervisor;
  #watch: NodeJS.Timeout | null = null;

  constructor(options: DpdkPortOptions, context: PortContext) {
    this.id = context.id;
    this.name = context.name;
    this.endpoint = options.device;
    this.options = options;
    this.states = queueStates(2 * options.queueCount);
    this.#context = context;
    this.#supervisor = new Supervisor(
      {
        open: () => {},
        attend: () => null,
        attach: () => this.#attach(),
        release: () => this.#release(),
        close: () => {},
        explain,
        describe: (isHeld, reason) => this.#describe(isHeld, reason),
      },
      context.events,
      PAUSES,
    );
  }

  get status(): PortStatus {
    return this.#supervisor.status;
  }

  get mtu(): number | null {
    return this.#eth?.mtu ?? null;
  }

  get mtuMax(): number {
    return this.mtu ?? MTU_MAX;
  }

  async tune(): Promise<void> {}

  get queues(): readonly PortQueue[] {
    return Array.from({ length: 2 * this.options.queueCount }, (_, index) => ({
      index,
      direction: index % 2 === 0 ? 'egress' : 'ingress',
      size: this.#eth?.descriptorCount ?? 0,
      started: this.#attached.includes(index),
      enabled: this.#attached.includes(index),
      inUse: this.#attached.includes(index),
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
      offloads: eth === null ? null : txOffloadNames(eth.txOffloads),
      statistics: eth?.statistics ?? null,
    };
  }

  start(): Promise<void> {
    return this.#supervisor.start();
  }

  stop(): Promise<void> {
    return this.#supervisor.stop();
  }

  /** A DPDK queue has no faults. */
  queueFailed(): void {}

  async #attach(): Promise<void> {
    const eth = this.#open();
    this.#eth = eth;
    await this.#attachQueues(eth);
    this.#watch = setInterval(() => this.#look(eth), LOOK_MS);
    this.#context.events.info(`attached to ${this.endpoint} (driver ${eth.driver}, address ${eth.mac})`);
    for (const warning of eth.warnings) this.#context.events.warn(warning);
  }

  #open(): EthPort {
    const { options, eal } = { options: this.options, eal: this.#eal() };
    return EthPort.open(eal, this.#context.arena, options.device, {
      queueCount: options.queueCount,
      mtu: options.mtu,
      promiscuous: options.promiscuous,
      offloads: options.offloads,
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
    await dataPath.setPolicy(this.id, { linkMtu: eth.mtu, takes: takenBy(eth.txOffloads) });
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

  #look(eth: EthPort): void {
    const words = wordsOf(Eal.current?.takeLog() ?? '');
    if (words !== '') this.#context.events.warn(words);
    const missing = missingInterface(eth.device);
    if (missing !== null) this.#supervisor.lose({ reason: missing, retry: 'soon' });
  }

  /** Detaches and closes, as far as it had come. */
  async #release(): Promise<void> {
    const eth = this.#eth;
    if (eth === null) return;
    if (this.#watch !== null) clearInterval(this.#watch);
    this.#watch = null;
    const { dataPath } = this.#context;
    const attached = this.#attached;
    this.#attached = [];
    await Promise.all(attached.map((queueIndex) => dataPath.detach(this.id, queueIndex)));
    this.#eth = null;
    eth.close();
  }

  #describe(isHeld: boolean, reason: string | null): PortStatus {
    if (this.#eth === null || !isHeld) return { state: 'waiting', reason: reason ?? 'not attached yet' };
    return { state: 'running', reason: warningOf(this.#eth) };
  }
}

function warningOf(eth: EthPort): string | null {
  if (!eth.link.up) return `${eth.device.name} has no link: look at the cable and at the other side`;
  return downInterface(eth.device) ?? eth.warnings[0] ?? null;
}

/** What the outside may lack now and have later, and what only another configuration mends. */
function explain(error: unknown): Trouble | null {
  if (!(error instanceof DpdkError)) return null;
  return { reason: error.message, retry: error.mayPass ? 'later' : 'never' };
}

function memoryOf(eal: Eal): string {
  return eal.usesHugepages ? MEMORY_HUGE : MEMORY_PLAIN;
}
