/**
 * What the front-end has said about one ring so far, and the descriptors that came for it. The device
 * (device.ts) decides from it when the ring runs. Main thread.
 */
import type { VringAddr } from '../../protocol/vhost-user/codec.ts';
import { closeFd } from '../host/descriptor.ts';
import type { QueueState } from '../queue/state.ts';
import { STATE_AVAIL_NEXT, STATE_FAULT } from '../queue/state.ts';

/** Who uses the ring now: nobody, the workers, or this thread (the control virtqueue). */
export type RingUser = 'none' | 'workers' | 'control';

export class Ring {
  readonly index: number;
  readonly state: QueueState;
  size = 0;
  addresses: VringAddr | null = null;
  /** Where the avail index starts, 16 bits; current only while the ring is stopped. */
  base = 0;
  started = false;
  enabled: boolean;
  /** The driver's indices were taken over since the last start. */
  initialised = false;
  user: RingUser = 'none';
  /** Why a started ring does not run; null when it does or was not started. */
  reason: string | null = null;
  kickFd = -1;
  callFd = -1;
  errorFd = -1;

  constructor(index: number, state: QueueState, enabled: boolean) {
    this.index = index;
    this.state = state;
    this.enabled = enabled;
  }

  get isConfigured(): boolean {
    return this.size !== 0 && this.addresses !== null;
  }

  /** Index of the next chain to take, for GET_VRING_BASE. */
  currentBase(): number {
    return this.initialised ? this.state.words[STATE_AVAIL_NEXT] : this.base;
  }

  get fault(): number {
    return this.state.words[STATE_FAULT];
  }

  setKick(fd: number): void {
    if (this.kickFd >= 0) closeFd(this.kickFd);
    this.kickFd = fd;
  }

  setCall(fd: number): void {
    if (this.callFd >= 0) closeFd(this.callFd);
    this.callFd = fd;
  }

  setError(fd: number): void {
    if (this.errorFd >= 0) closeFd(this.errorFd);
    this.errorFd = fd;
  }

  closeFds(): void {
    this.setKick(-1);
    this.setCall(-1);
    this.setError(-1);
  }
}
