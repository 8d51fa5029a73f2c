/** The embedded front-end as load generator, where testpmd is not to be had or cannot do it. */
import {
  FRAMES_IN_FLIGHT,
  type LoadFigures,
  type LoadGenerator,
  type LoadTarget,
  RING_SIZE,
  type Window,
} from './contract.ts';
import { addressOf, formatAddress } from './frames.ts';
import { GuestProcess } from './guest-client.ts';
import type { GuestPlan } from './guest-orders.ts';

export const CONNECT_MS_MAX = 60_000;
/** Beyond the window: draining, and the start on a busy machine. */
const SLACK_MS = 20_000;

export type EmbeddedLoadOptions = {
  readonly cpu: number;
  readonly queuePairs?: number;
};

export class EmbeddedLoad implements LoadGenerator {
  readonly addresses = [formatAddress(addressOf(0, 0)), formatAddress(addressOf(1, 0))] as const;
  readonly guests: GuestProcess;

  private constructor(guests: GuestProcess) {
    this.guests = guests;
  }

  static async start(target: LoadTarget, options: EmbeddedLoadOptions): Promise<EmbeddedLoad> {
    const guests = new GuestProcess(options.cpu);
    try {
      await guests.order(
        { kind: 'connect', guests: guestPlans(target, options.queuePairs ?? 1) },
        CONNECT_MS_MAX,
      );
    } catch (error) {
      await guests.stop();
      throw error;
    }
    return new EmbeddedLoad(guests);
  }

  get pid(): number {
    return this.guests.pid;
  }

  async measure(window: Window): Promise<LoadFigures> {
    return this.measureTargets(window, 0);
  }

  /** As `measure`, with frames to random addresses of those that `learn` announced. */
  async measureTargets(window: Window, addressesPerGuest: number): Promise<LoadFigures> {
    const order = { kind: 'circulate', ...window, addressesPerGuest, inFlight: FRAMES_IN_FLIGHT } as const;
    const timeoutMs = window.warmUpMs + window.windowMs + SLACK_MS;
    const { framesPerSecond } = await this.guests.order(order, timeoutMs);
    if (framesPerSecond === 0) throw new Error('no frame came through');
    return { framesPerSecond, emptyLookShare: null };
  }

  stop(): Promise<void> {
    return this.guests.stop();
  }
}

export function guestPlans(target: LoadTarget, queuePairs: number): GuestPlan[] {
  return target.sockets.map((socketPath) => ({
    socketPath,
    role: target.generatorRole,
    queuePairs,
    ringSize: RING_SIZE,
  }));
}
