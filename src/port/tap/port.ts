/**
 * A port that is a TAP interface: the way between the switch and the host's own network stack. The interface
 * may be missing, taken or deleted; the port says so, tries again with pauses and comes back by itself. Main thread.
 */
import { FRAME_BYTES_MAX, formatMac, macHiOf, macLoOf } from '../../../protocol/ethernet.ts';
import { HandOverError } from '../../device/hand-over.ts';
import { errnoText, HostError } from '../../host/errors.ts';
import { offloadBits } from '../../queue/offloads.ts';
import { type PortCounters, sumCounters } from '../../queue/state.ts';
import {
  type Port,
  type PortContext,
  type PortQueue,
  type PortStatus,
  type PortTuning,
  TuningError,
} from '../contract.ts';
import {
  type HandedPort,
  type HandedTapPort,
  type HandOver,
  handedAs,
  NO_RINGS,
  NOTHING_LEFT,
  type PortPositions,
  requireSame,
} from '../hand-over.ts';
import { StagedPairs } from '../staged/pairs.ts';
import { Supervisor } from '../supervisor.ts';
import {
  TAP_HEADER_BYTES,
  TAP_MTU_MAX,
  TapError,
  TapInterface,
  type TapNow,
  type TapOptions,
} from './interface.ts';
import { EBADFD, type TapAttachment } from './queues.ts';

/** What `ringway ports --json` shows of this kind only. */
export type TapDetails = {
  /** The namespace that was configured, and the one that the interface was moved to since, in words. */
  readonly namespace: string | null;
  readonly movedTo: string | null;
  /** The interface's name by now. Null, as what follows, while not attached. */
  readonly interface: string | null;
  readonly mac: string | null;
  readonly up: boolean | null;
  /** Whether the interface stays when Ringway ends. */
  readonly persistent: boolean | null;
};

const PAUSES = { minMs: 100, maxMs: 2000 };
/** How often a namespace is looked for; nothing tells of its end. */
const NAMESPACE_LOOK_MS = 2000;
const BURST_FRAMES_MAX = 64;
/** Of a frame in a slot, whatever the MTU: what is to be segmented is longer. One byte more, so that a longer one shows. */
const SLOT_FRAME_BYTES = FRAME_BYTES_MAX + 1;

export class TapPort implements Port, HandOver {
  readonly id: number;
  readonly name: string;
  readonly kind = 'tap';
  readonly endpoint: string;
  options: TapOptions;
  readonly #context: PortContext;
  readonly #pairs: StagedPairs;
  #tap: TapInterface | null = null;
  readonly #supervisor: Supervisor;
  #namespaceWatch: NodeJS.Timeout | null = null;
  /** Resolved when the port is thawed; null: it is not frozen. */
  #frozen: PromiseWithResolvers<void> | null = null;
  /** What is taken over, until it is. */
  #handed: HandedTapPort | null = null;
  /** What was handed over. */
  #handedTap: TapInterface | null = null;
  /** It was taken over, and not yet adapted to the settings. */
  #isAsItWas = false;

  constructor(options: TapOptions, context: PortContext) {
    this.id = context.id;
    this.name = context.name;
    this.endpoint = options.interfaceName;
    this.options = options;
    this.#context = context;
    this.#pairs = new StagedPairs(context, {
      pairCount: options.queueCount,
      slotCount: BURST_FRAMES_MAX,
      frameBytesMax: SLOT_FRAME_BYTES,
      headerBytes: TAP_HEADER_BYTES,
    });
    this.#supervisor = new Supervisor(
      {
        open: () => {},
        attend: () => this.#attend(),
        attach: () => this.#attach(),
        release: () => this.#release(),
        close: () => {},
        explain: (error) => (error instanceof TapError ? { reason: error.message } : null),
        describe: (isHeld, reason) => this.#describe(isHeld, reason),
      },
      context.events,
      PAUSES,
    );
  }

  get states(): SharedArrayBuffer {
    return this.#pairs.states;
  }

  get status(): PortStatus {
    return this.#supervisor.status;
  }

  get mtu(): number | null {
    return this.#tap?.mtu ?? null;
  }

  get mtuMax(): number {
    return TAP_MTU_MAX;
  }

  /** The interface gets the MTU, and the kernel the offloads, at once; without an interface, when there is one. */
  async tune({ mtu, offloads }: PortTuning): Promise<void> {
    const tap = this.#tap;
    try {
      if (mtu !== null) tap?.setMtu(mtu);
      tap?.setOffloads(offloads);
    } catch (error) {
      throw error instanceof TapError ? new TuningError(error.message) : error;
    }
    this.options = { ...this.options, mtu, offloads };
    if (tap === null) return;
    await this.#context.dataPath.setPolicy(this.id, { linkMtu: tap.mtu, takes: offloadBits(offloads) });
  }

  get queues(): readonly PortQueue[] {
    return this.#pairs.queues(faultText);
  }

  get counters(): PortCounters {
    return sumCounters(this.states, this.options.queueCount);
  }

  get details(): TapDetails {
    const now = this.#tap?.now() ?? null;
    const link = now?.link ?? null;
    return {
      namespace: this.options.namespace,
      movedTo: now?.movedTo ?? null,
      interface: now?.name ?? null,
      mac: link === null ? null : formatMac(macLoOf(link.mac), macHiOf(link.mac)),
      up: link?.isUp ?? null,
      persistent: link?.tun?.isPersistent ?? null,
    };
  }

  start(): Promise<void> {
    return this.#supervisor.start();
  }

  stop(): Promise<void> {
    this.#frozen?.resolve();
    return this.#supervisor.stop();
  }

  queueFailed(queueIndex: number): void {
    const fault = this.#pairs.faultOf(queueIndex);
    // The other queues of a deleted interface tell the same.
    if (fault !== 0) this.#lose(`${this.endpoint}: ${faultText(fault)}; Ringway tries to attach again`);
  }

  async freeze(): Promise<void> {
    this.#frozen ??= Promise.withResolvers();
  }

  handOver(): HandedTapPort {
    this.#handedTap = this.#tap;
    return { kind: 'tap', endpoint: this.endpoint, fds: this.#tap?.fds ?? [] };
  }

  takeOver(any: HandedPort): void {
    const handed = handedAs('tap', this.endpoint, any);
    const { fds } = handed;
    if (fds.length > 0) requireSame('number of queues', fds.length, this.options.queueCount);
    this.#handed = handed;
    this.#isAsItWas = fds.length > 0;
    this.#frozen = Promise.withResolvers();
    void this.#pairs.setResting(true);
  }

  setResting(isResting: boolean): Promise<void> {
    return this.#pairs.setResting(isResting);
  }

  positions(): PortPositions {
    if (this.#handedTap !== this.#tap)
      throw new HandOverError(`${this.endpoint} was lost or found meanwhile`);
    return { ...NO_RINGS, ...NOTHING_LEFT, counts: this.#pairs.counts() };
  }

  async goOnAt({ counts }: PortPositions): Promise<void> {
    if (this.#isAsItWas && this.#tap === null)
      throw new HandOverError(`${this.endpoint}: ${this.status.reason}`);
    this.#pairs.takeOverCounts(counts);
  }

  thaw(): void {
    this.#frozen?.resolve();
    this.#frozen = null;
    this.#handedTap = null;
    this.#adapt();
  }

  /** The interface gets what the settings have for it, now that no other process goes by others. */
  #adapt(): void {
    if (!this.#isAsItWas) return;
    this.#isAsItWas = false;
    const tap = this.#tap;
    if (tap === null) return;
    try {
      tap.adapt(this.options);
    } catch (error) {
      if (!(error instanceof TapError) && !(error instanceof HostError)) throw error;
      this.#context.events.warn(`it stays as it was: ${error.message}`);
    }
    void this.#context.dataPath.setPolicy(this.id, { linkMtu: tap.mtu });
  }

  /** What is taken over is there; otherwise nothing is attached to while the port is frozen. */
  #attend(): Promise<boolean> | null {
    const isTaking = this.#handed !== null && this.#handed.fds.length > 0;
    if (this.#frozen === null || isTaking) return null;
    this.#handed = null;
    return this.#frozen.promise.then(() => true);
  }

  #lose(reason: string): void {
    this.#supervisor.lose({ reason, retry: 'soon' });
  }

  /** A descriptor keeps a namespace alive that has lost its name, with nobody in it. */
  #watchNamespace(tap: TapInterface): void {
    if (this.options.namespace === null) return;
    this.#namespaceWatch = setInterval(() => {
      if (!tap.isNamespaceCurrent()) this.#lose(`the network namespace ${this.options.namespace} is gone`);
    }, NAMESPACE_LOOK_MS);
  }

  async #attach(): Promise<void> {
    const handed = this.#handed;
    this.#handed = null;
    this.#tap =
      handed === null ? TapInterface.open(this.options) : TapInterface.takeOver(this.options, handed.fds);
    await this.#attachQueues(this.#tap);
    this.#watchNamespace(this.#tap);
    if (handed === null) this.#context.events.info(`attached to ${this.endpoint}`);
  }

  async #attachQueues(tap: TapInterface): Promise<void> {
    await this.#pairs.attach(tap.mtu, (base): TapAttachment => {
      return { ...base, kind: 'tap', fd: tap.fds[base.queueIndex >> 1] };
    });
    await this.#context.dataPath.setPolicy(this.id, { takes: offloadBits(this.options.offloads) });
  }

  /** Detaches and closes, as far as it had come. */
  async #release(): Promise<void> {
    const tap = this.#tap;
    if (tap === null) return;
    if (this.#namespaceWatch !== null) clearInterval(this.#namespaceWatch);
    this.#namespaceWatch = null;
    await this.#pairs.detach();
    this.#tap = null;
    tap.close();
  }

  #describe(isHeld: boolean, reason: string | null): PortStatus {
    if (!isHeld) return { state: 'waiting', reason: reason ?? 'not attached yet' };
    const now = this.#tap?.now() ?? null;
    if (now === null) return { state: 'waiting', reason: `${this.endpoint} was deleted` };
    return { state: 'running', reason: this.#warningOf(now) };
  }

  #warningOf(now: TapNow): string | null {
    const warnings = [this.#whereabouts(now), this.#linkWarning(now)].filter((text) => text !== null);
    return warnings.length === 0 ? null : warnings.join('; ');
  }

  /** Frames go on wherever it is; only the next attachment looks for the name that was configured. */
  #whereabouts({ name, movedTo }: TapNow): string | null {
    const isRenamed = name !== this.endpoint;
    if (movedTo === null) return isRenamed ? `${this.endpoint} was renamed to ${name}` : null;
    return `${this.endpoint} was moved to ${movedTo}${isRenamed ? ` and renamed to ${name}` : ''}`;
  }

  #linkWarning({ name, movedTo, link }: TapNow): string | null {
    const { mtu } = this;
    if (link === null) return null;
    if (!link.isUp) return `${name} is down: ip link set ${name} up${movedTo === null ? '' : ' there'}`;
    if (link.mtu === mtu) return null;
    return (
      `the MTU of ${this.endpoint} is ${link.mtu} now, and Ringway goes by ${mtu}: ` +
      `ringway set ${this.name} mtu=${link.mtu}`
    );
  }
}

function faultText(fault: number): string {
  return fault === EBADFD ? 'the interface was deleted' : errnoText(fault);
}
