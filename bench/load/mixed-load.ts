/**
 * Embedded guests as load generator between many ports, where every guest sends to all others in turn
 * (mixing.ts). Owns the guests' process; main thread.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { LoadFigures, LoadGenerator, LoadTarget, Window, WindowWatch } from './contract.ts';
import { CONNECT_MS_MAX, guestPlans } from './embedded-load.ts';
import { addressOf, formatAddress } from './frames.ts';
import { GuestProcess } from './guest-client.ts';

/** For each guest: the targets' queues of 256 never fill, since what is sent is spread over all of them. */
const FRAMES_IN_FLIGHT_PER_GUEST = 64;
/** Open vSwitch remembers for each flow what to do with it, and looks at that again twice a second. */
const SETTLE_MS = 2000;
const ORDER_MS_MAX = 20_000;
/** The watch looks at this part of the window, in its middle: the process cannot tell when the window begins. */
const WATCHED_SHARE = 0.8;

export class MixedLoad implements LoadGenerator {
  readonly addresses: readonly string[];
  readonly #guests: GuestProcess;
  /** Once frames came through: a switch may take a moment before it forwards for new ports. */
  #isAnnounced = false;

  private constructor(addresses: readonly string[], guests: GuestProcess) {
    this.addresses = addresses;
    this.#guests = guests;
  }

  static async start(target: LoadTarget, cpu: number): Promise<MixedLoad> {
    const guests = new GuestProcess(cpu);
    try {
      await guests.order({ kind: 'connect', guests: guestPlans(target, 1) }, CONNECT_MS_MAX);
    } catch (error) {
      await guests.stop();
      throw error;
    }
    const addresses = target.sockets.map((_, guest) => formatAddress(addressOf(guest, 0)));
    return new MixedLoad(addresses, guests);
  }

  get pid(): number {
    return this.#guests.pid;
  }

  /** @throws when frames were lost, or came to a guest that they were not for */
  async measure(window: Window, watch?: WindowWatch): Promise<LoadFigures> {
    if (!this.#isAnnounced) await this.#announce(window.frameBytes);
    const order = { kind: 'mix', ...window, inFlight: FRAMES_IN_FLIGHT_PER_GUEST } as const;
    const mixing = this.#guests.order(order, window.warmUpMs + window.windowMs + ORDER_MS_MAX);
    const watching = watch === undefined ? Promise.resolve() : watchMiddle(window, watch);
    const [{ framesPerSecond, emptyLookShare, framesLost, framesStrayed }] = await Promise.all([
      mixing,
      watching,
    ]);
    if (framesPerSecond === 0) throw new Error('no frame came through');
    if (framesLost > 0 || framesStrayed > 0) {
      throw new Error(`${framesLost} frames were lost, ${framesStrayed} came to a guest they were not for`);
    }
    this.#isAnnounced = true;
    return { framesPerSecond, emptyLookShare };
  }

  async stop(): Promise<void> {
    await this.#guests.stop();
  }

  /** What the switch floods, because it has not learned its target yet, must not be part of what is measured. */
  async #announce(frameBytes: number): Promise<void> {
    await this.#guests.order({ kind: 'announce', frameBytes }, ORDER_MS_MAX);
    await delay(SETTLE_MS);
  }
}

async function watchMiddle({ warmUpMs, windowMs }: Window, watch: WindowWatch): Promise<void> {
  await delay(warmUpMs + (windowMs * (1 - WATCHED_SHARE)) / 2);
  await watch.begins();
  await delay(windowMs * WATCHED_SHARE);
  await watch.ends();
}
