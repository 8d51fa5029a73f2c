/**
 * A virtqueue as the device sees it, whatever its layout: its place in a port, the guest's memory behind it, faults,
 * counters and signalling. What a queue does with the chains builds on it: from-guest.ts, to-guest.ts, and the
 * control queue (src/device/net/). One thread's object; guest memory changes under it, so each field is read once.
 */
import { PeerSignal } from '../host/peer-signal.ts';
import type { ArenaView } from '../memory/arena-view.ts';
import { type AddressMap, GpaTranslator, isIovaMap } from '../memory/gpa-translator.ts';
import { ACCESS_READ, ACCESS_WRITE, type AddressMiss } from '../memory/iotlb.ts';
import {
  COUNT_BYTES,
  COUNT_CALLS,
  COUNT_FRAMES,
  COUNT_SUPPRESSED,
  QueueState,
  STATE_AVAIL_NEXT,
  STATE_FAULT,
} from '../queue/state.ts';
import { missesAhead } from './address-misses.ts';
import type { RingAttachment } from './attachment.ts';
import type { DescriptorList } from './descriptor-list.ts';
import { DirtyLog, type RingLog } from './dirty-log.ts';
import { PARKED, PAUSED, RING_FAULT } from './faults.ts';
import { NO_SENSE, type RingLayout } from './layout.ts';
import { LAYOUTS } from './layouts.ts';

const NO_MISSES: readonly AddressMiss[] = [];

export class Ring {
  declare readonly portId: number;
  declare readonly queueIndex: number;
  declare readonly size: number;
  /** The kick descriptor. The front-end shares it and may make it blocking, so it is watched and never read. */
  declare readonly wakeFd: number;
  readonly wakesBySignal = true;
  /** Null: the driver is never signalled. */
  declare private call: PeerSignal | null;
  /** A RING_FAULT, PARKED or PAUSED. */
  declare fault: number;
  /** STATE_AVAIL_NEXT after this worker's last burst, of a ring that several fill. */
  protected leftAt = 0;
  /** While the ring is parked: what is to be translated, that first without which it cannot go on. */
  misses: readonly AddressMiss[] = NO_MISSES;
  declare readonly state: QueueState;
  declare readonly arena: ArenaView;
  /** Of buffers, as they are used: from the guest they are read, to the guest they are written. */
  declare readonly translator: GpaTranslator;
  /** Of what is only read; without an IOMMU the same one. */
  declare readonly tables: GpaTranslator;
  /** The ring is behind an IOMMU. */
  declare readonly isTranslated: boolean;
  declare readonly indirect: boolean;
  declare readonly headerBytes: number;
  declare protected readonly layout: RingLayout;
  /** Null: what is written to the guest is not logged. */
  declare log: DirtyLog | null;
  /** Frames and bytes since the counters were last published. */
  burstFrames = 0;
  burstBytes = 0;

  constructor(arena: ArenaView, attachment: RingAttachment) {
    this.portId = attachment.portId;
    this.queueIndex = attachment.queueIndex;
    this.size = attachment.size;
    this.wakeFd = attachment.kickFd;
    this.call = signalBy(attachment.callFd);
    this.indirect = attachment.indirect;
    this.headerBytes = attachment.headerBytes;
    this.arena = arena;
    const isWritten = attachment.direction === 'egress';
    this.isTranslated = isIovaMap(attachment.map);
    this.translator = new GpaTranslator(attachment.map, isWritten);
    this.tables = this.isTranslated && isWritten ? new GpaTranslator(attachment.map) : this.translator;
    this.state = new QueueState(attachment.states, attachment.queueIndex);
    this.fault = this.state.words[STATE_FAULT];
    this.layout = LAYOUTS[attachment.layout](arena, attachment);
    this.log = attachment.log === null ? null : new DirtyLog(arena, attachment.log);
    this.loadState();
    this.disarmWake();
    if (attachment.signalsFirst === true) this.signal();
  }

  /** Takes over the positions from the shared state: at attach, and when another worker may have moved them. */
  protected loadState(): void {
    const { words } = this.state;
    this.layout.load(words);
    if (this.fault >= RING_FAULT.NONE) this.fault = words[STATE_FAULT];
    // Another worker used the chain that this one was parked at, and nobody need translate that any more.
    else if (this.fault === PARKED && words[STATE_AVAIL_NEXT] !== this.leftAt) this.#goOn();
  }

  /** Whether a chain waits beyond those that were walked. */
  hasWaiting(): boolean {
    if (this.fault !== RING_FAULT.NONE) return false;
    const waiting = this.layout.waiting();
    if (waiting === NO_SENSE) this.fail(RING_FAULT.AVAIL_JUMP);
    return waiting > 0;
  }

  /** Reads the next waiting chain into the list; answers a RING_FAULT. Call only when one waits. */
  walk(list: DescriptorList): number {
    return this.layout.walk(this, list);
  }

  /** Marks the first walked chain used, with so many bytes written to it. */
  useWalked(writtenBytes: number): void {
    this.layout.useWalked(writtenBytes);
  }

  /**
   * Stops the ring: nothing more is taken from it or given to it. Where only a translation lacks it is parked instead, and
   * takes the chain anew when it has come.
   */
  fail(
    fault: number,
    translator = fault === RING_FAULT.INDIRECT_ADDRESS ? this.tables : this.translator,
  ): void {
    if (this.isTranslated && this.#isMiss(fault)) {
      this.#park(translator);
      return;
    }
    this.fault = fault;
    this.layout.forgetWalked();
    this.state.words[STATE_FAULT] = fault;
  }

  /** Makes used chains visible to the driver, keeps the shared state up to date, signals if asked for. */
  publish(): void {
    const isWanted = this.layout.publish();
    if (isWanted) this.signal();
    if (this.log !== null) this.log.markOwn();
    this.layout.store(this.state.words);
    if (this.burstFrames !== 0) {
      const { counts } = this.state;
      counts[COUNT_FRAMES] += this.burstFrames;
      counts[COUNT_BYTES] += this.burstBytes;
      if (!isWanted) counts[COUNT_SUPPRESSED] += 1;
      this.burstFrames = 0;
      this.burstBytes = 0;
    }
  }

  signal(): void {
    if (this.call === null) return;
    this.state.counts[COUNT_CALLS] += 1;
    this.call.send();
  }

  /** A signal may have gone to the old descriptor, so the driver is signalled once. */
  setCallFd(callFd: number): void {
    this.call = signalBy(callFd);
    this.signal();
  }

  /**
   * Never during a burst: nothing is remembered of where frames and buffers lie. `isPaused`: nothing of the ring is touched
   * until this is called again.
   */
  setMemory(map: AddressMap, isPaused = false): void {
    this.translator.follow(map);
    if (this.tables !== this.translator) this.tables.follow(map);
    if (this.fault === PARKED && !isPaused && this.#isMissing(this.misses[0])) return;
    if (this.fault > RING_FAULT.NONE) return;
    this.#goOn();
    if (isPaused) this.fault = PAUSED;
  }

  #goOn(): void {
    this.misses = NO_MISSES;
    this.fault = this.state.words[STATE_FAULT];
  }

  #isMissing({ iova, access }: AddressMiss): boolean {
    const translator = (access & ACCESS_WRITE) === 0 ? this.tables : this.translator;
    const lo = Number(BigInt.asIntN(32, iova));
    return translator.locateSome(lo, Number(BigInt.asIntN(32, iova >> 32n)), 0, 1) < 0;
  }

  #isMiss(fault: number): boolean {
    return fault === RING_FAULT.BUFFER_ADDRESS || fault === RING_FAULT.INDIRECT_ADDRESS;
  }

  /** `translator` did not find something. Allocates. */
  #park(translator: GpaTranslator): void {
    const isWritten = translator !== this.tables;
    const iova = (BigInt(translator.missedHi >>> 0) << 32n) | BigInt(translator.missedLo >>> 0);
    const first = { iova, access: isWritten ? ACCESS_WRITE : ACCESS_READ };
    this.layout.forgetWalked();
    this.misses = missesAhead(this, this.layout, first);
    this.fault = PARKED;
  }

  /** Between bursts: what is written from now on is marked there. */
  setLog(log: RingLog | null): void {
    this.log = log === null ? null : new DirtyLog(this.arena, log);
  }

  /** Asks the driver to kick for the next chain; false when one came meanwhile. */
  armWake(): boolean {
    if (this.fault === PAUSED) return true;
    this.layout.armWake();
    if (this.log !== null) this.log.markOwn();
    return !this.hasWaiting();
  }

  disarmWake(): void {
    if (this.fault === PAUSED) return;
    this.layout.disarmWake();
    if (this.log !== null) this.log.markOwn();
  }

  acknowledgeWake(): boolean {
    return true;
  }
}

function signalBy(callFd: number): PeerSignal | null {
  return callFd < 0 ? null : new PeerSignal(callFd);
}
