/**
 * What the front-end has said about one ring so far, and the descriptors that came for it. Whether the ring runs is
 * decided from it in ring-start.ts. Main thread.
 */
import type { VringAddr } from '../../protocol/vhost-user/codec.ts';
import type { PeerFds } from '../host/peer-fds.ts';
import {
  type QueueState,
  STATE_AVAIL_NEXT,
  STATE_FAULT,
  STATE_LOCK,
  STATE_USED_NEXT,
} from '../queue/state.ts';
import type { RingLayoutKind } from '../vring/attachment.ts';
import { RING_FAULT } from '../vring/faults.ts';
import type { HandedRing } from './hand-over.ts';
import type { RingPlaces } from './ring-places.ts';
import type { RingIndices } from './ring-start.ts';
import { type KickFd, NO_KICK } from './signal-fd.ts';

/** Who uses the ring now: nobody, the workers, or this thread (the control virtqueue). */
export type RingUser = 'none' | 'workers' | 'control';

export class Ring {
  readonly index: number;
  readonly state: QueueState;
  /** Entries; 0: not said yet. */
  size = 0;
  addresses: VringAddr | null = null;
  /** They are of a run before the base that was set last. */
  addressesAreOld = false;
  /** As SET_VRING_BASE said or GET_VRING_BASE answered last; null: neither. ring-start.ts knows its form. */
  base: number | null = null;
  /** The layout in which the ring ran since its base was set; null: it did not. */
  ranAs: RingLayoutKind | null = null;
  /** The indices in `state` are those of the present run; otherwise it begins at its base. */
  goesOn = false;
  /** Where it stood when the device was reset, for who asks afterwards; null: it was not, or the ring was used since. */
  stoodAtReset: number | null = null;
  started = false;
  enabled: boolean;
  user: RingUser = 'none';
  /** It was served as the device's own queue when its partner was not started yet, or of late. */
  wasOwnQueue = false;
  /** Its user does not touch it: behind an IOMMU, where it lies has no translation now, and may have it again. */
  isPaused = false;
  /** Where it lies while it has a user. */
  places: RingPlaces | null = null;
  /** Why a started ring does not run; null when it does or is not expected to. */
  reason: string | null = null;
  /**
   * It was decided that the ring cannot run, and nothing came since that may change that. The decision looks through
   * the ring's whole descriptor area and the table of memory, so it is not made anew for messages about other rings.
   */
  isHopeless = false;
  /** Its user may have come to its end between a burst and its signal. */
  mayOweSignal = false;
  /** That its base was put right is said once, however often a front-end starts it. */
  wasRemarkedOn = false;
  kick: KickFd = NO_KICK;
  callFd = -1;
  /** The front-end said that the driver looks by itself (SET_VRING_CALL without a descriptor). */
  isNeverCalled = false;
  errorFd = -1;
  readonly #peerFds: PeerFds;
  /** The ring was in use since its addresses came. */
  #addressesWereUsed = false;

  constructor(index: number, state: QueueState, enabled: boolean, peerFds: PeerFds) {
    this.index = index;
    this.state = state;
    this.enabled = enabled;
    this.#peerFds = peerFds;
  }

  get fault(): number {
    return this.state.words[STATE_FAULT];
  }

  /** As in `state`; good while the ring `goesOn`. */
  get indices(): RingIndices {
    const { words } = this.state;
    return { availNext: words[STATE_AVAIL_NEXT], usedNext: words[STATE_USED_NEXT] };
  }

  handOver(): HandedRing {
    const { index, base, ranAs, goesOn, addressesAreOld, wasOwnQueue, wasRemarkedOn, enabled } = this;
    const { fault, reason, kick } = this;
    return {
      index,
      base,
      ranAs,
      goesOn,
      addressesAreOld,
      addressesWereUsed: this.#addressesWereUsed,
      wasOwnQueue,
      wasRemarkedOn,
      enabled,
      ...this.indices,
      fault,
      reason,
      kickIsOurs: kick.isOurs === true,
      stoodAtReset: this.stoodAtReset,
    };
  }

  /** It was used by another process, and stands as that left it. Size, addresses and descriptors came by messages. */
  takeOver(handed: HandedRing): void {
    this.base = handed.base;
    this.ranAs = handed.ranAs;
    this.goesOn = handed.goesOn;
    this.addressesAreOld = handed.addressesAreOld;
    this.#addressesWereUsed = handed.addressesWereUsed;
    this.wasOwnQueue = handed.wasOwnQueue;
    this.wasRemarkedOn = handed.wasRemarkedOn;
    this.enabled = handed.enabled;
    this.reason = handed.reason;
    this.stoodAtReset = handed.stoodAtReset;
    if (handed.kickIsOurs) this.kick = { ...this.kick, isOurs: true };
    const { words } = this.state;
    words[STATE_AVAIL_NEXT] = handed.availNext;
    words[STATE_USED_NEXT] = handed.usedNext;
    words[STATE_FAULT] = handed.fault;
  }

  setAddresses(addresses: VringAddr): void {
    this.addresses = addresses;
    this.addressesAreOld = false;
    this.#addressesWereUsed = false;
  }

  /** Whether they name the places where the ring lies while it is in use, however its log changes. */
  staysAt(addresses: VringAddr): boolean {
    if (this.user === 'none' || this.addresses === null) return false;
    const { descUva, availUva, usedUva } = this.addresses;
    return descUva === addresses.descUva && availUva === addresses.availUva && usedUva === addresses.usedUva;
  }

  /**
   * User-Mode Linux frees its rings, and sends a base before the new addresses: a new base never goes with addresses
   * that were in use before it came.
   */
  setBase(base: number): void {
    this.base = base;
    this.stoodAtReset = null;
    this.ranAs = null;
    this.goesOn = false;
    this.addressesAreOld = this.#addressesWereUsed;
  }

  /** The ring is put to use; `indices` are where it begins, null where it goes on. */
  begin(layout: RingLayoutKind, indices: RingIndices | null): void {
    this.#addressesWereUsed = true;
    this.ranAs = layout;
    this.goesOn = true;
    this.stoodAtReset = null;
    if (indices === null) return;
    const { words } = this.state;
    words[STATE_LOCK] = 0;
    this.setIndices(indices);
    words[STATE_FAULT] = RING_FAULT.NONE;
  }

  setIndices({ availNext, usedNext }: RingIndices): void {
    const { words } = this.state;
    words[STATE_AVAIL_NEXT] = availNext;
    words[STATE_USED_NEXT] = usedNext;
  }

  /**
   * The device was reset: all that was said of the ring is forgotten. Call and error descriptors stay, because QEMU sends
   * them once a connection. `stoodAt`: what GET_VRING_BASE would have answered.
   */
  reset(stoodAt: number): void {
    this.stoodAtReset ??= stoodAt;
    this.stop(0);
    this.base = null;
    this.size = 0;
    this.addresses = null;
    this.addressesAreOld = false;
    this.#addressesWereUsed = false;
    this.ranAs = null;
    this.enabled = false;
    this.wasOwnQueue = false;
    this.isHopeless = false;
    this.state.words[STATE_FAULT] = RING_FAULT.NONE;
  }

  /** GET_VRING_BASE: the ring rests at `base` until it is started again. */
  stop(base: number): void {
    this.base = base;
    this.goesOn = false;
    this.started = false;
    this.reason = null;
    this.setKick(NO_KICK);
  }

  /** The kick descriptor, where one came that tells of kicks; otherwise -1, and the ring is polled. */
  get watchedKickFd(): number {
    return this.kick.polledBecause === null ? this.kick.fd : -1;
  }

  setKick(kick: KickFd): void {
    this.#close(this.kick.fd);
    this.kick = kick;
  }

  setCall(fd: number): void {
    this.#close(this.callFd);
    this.callFd = fd;
    this.isNeverCalled = fd < 0;
  }

  setError(fd: number): void {
    this.#close(this.errorFd);
    this.errorFd = fd;
  }

  closeFds(): void {
    this.setKick(NO_KICK);
    this.setCall(-1);
    this.setError(-1);
  }

  #close(fd: number): void {
    if (fd >= 0) this.#peerFds.close([fd]);
  }
}
