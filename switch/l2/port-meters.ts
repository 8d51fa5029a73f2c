/**
 * The buckets of one port: what it may send and be sent, and what of it is flooded (limits.ts). They are made once any is
 * needed: most ports have no limits.
 */
import type { LimitsPolicy } from '../../src/queue/policy.ts';
import { METER_BYTES, Meter } from './meter.ts';

/** Tokens of the dearest frame: 64 KiB, or what is cut into 128 segments (src/offload/request.ts). */
const BITS_MAX = 2 ** 16 * 8;
const FRAMES_MAX = 128;

const METERS = 7;
export const PORT_METERS_BYTES = METERS * METER_BYTES;

/** The buckets of one port; `memory`, of PORT_METERS_BYTES, is that of all workers. */
export class PortMeters {
  declare readonly bitsIn: Meter;
  declare readonly framesIn: Meter;
  declare readonly bitsOut: Meter;
  declare readonly framesOut: Meter;
  declare readonly broadcast: Meter;
  declare readonly multicast: Meter;
  declare readonly unknown: Meter;

  constructor(memory: SharedArrayBuffer) {
    this.bitsIn = new Meter(memory, 0);
    this.framesIn = new Meter(memory, 1);
    this.bitsOut = new Meter(memory, 2);
    this.framesOut = new Meter(memory, 3);
    this.broadcast = new Meter(memory, 4);
    this.multicast = new Meter(memory, 5);
    this.unknown = new Meter(memory, 6);
  }

  follow(limits: LimitsPolicy, nowUs: number): void {
    this.bitsIn.follow(limits.bitsIn, BITS_MAX, nowUs);
    this.framesIn.follow(limits.framesIn, FRAMES_MAX, nowUs);
    this.bitsOut.follow(limits.bitsOut, BITS_MAX, nowUs);
    this.framesOut.follow(limits.framesOut, FRAMES_MAX, nowUs);
    this.broadcast.follow(limits.broadcast, FRAMES_MAX, nowUs);
    this.multicast.follow(limits.multicast, FRAMES_MAX, nowUs);
    this.unknown.follow(limits.unknown, FRAMES_MAX, nowUs);
  }

  get limitsWhatComesIn(): boolean {
    return this.bitsIn.isOn || this.framesIn.isOn || this.broadcast.isOn || this.multicast.isOn;
  }

  get limitsWhatGoesOut(): boolean {
    return this.bitsOut.isOn || this.framesOut.isOn;
  }
}

/** Of ports without limits. */
export const NO_METERS = new PortMeters(new SharedArrayBuffer(PORT_METERS_BYTES));
