/**
 * The program of a process that plays embedded guests for the benchmark: pinned to the generator's
 * processor, it takes orders over Node's channel to its parent and ends with it. Started by guest-client.ts.
 */

import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import { EmbeddedGuest, GUEST_FEATURES } from '../../src/frontend/index.ts';
import { pinThread } from '../../src/host/affinity.ts';
import { announceAddresses, circulate } from './circulation.ts';
import {
  GUEST_CPU_VARIABLE,
  type GuestAnswers,
  type GuestOrder,
  type GuestPlan,
  type GuestReply,
} from './guest-orders.ts';
import { measureFirstFrames, measureRoundTrips } from './latency-loops.ts';
import { announceGuests, mix } from './mixing.ts';

/** Time for a back-end to be reached, or to come. */
const REACH_MS = 20_000;
const LEARN_MS_MAX = 60_000;
const CONNECTS_AT_ONCE = 16;
/** As testpmd's virtio-user ports: signals by flag, not by index; the back-end polls anyway. */
const FEATURES = GUEST_FEATURES & ~(1n << BigInt(VIRTIO_FEATURE.EVENT_IDX));

const guests: EmbeddedGuest[] = [];
/** A back-end that hangs up is told about with the answer to the next order. */
let lostGuest = -1;

pinThread(Number(process.env[GUEST_CPU_VARIABLE]));
process.on('disconnect', () => process.exit(0));
process.on('message', (order: GuestOrder) => {
  obey(order).then(
    (answer) => reply({ kind: 'done', answer }),
    (error: Error) => reply({ kind: 'failed', message: error.message }),
  );
});

function reply(message: GuestReply): void {
  process.send?.(message);
}

async function obey(order: GuestOrder): Promise<GuestAnswers[keyof GuestAnswers]> {
  if (lostGuest >= 0) throw new Error(`the switch closed the connection of guest ${lostGuest}`);
  switch (order.kind) {
    case 'connect':
      return connect(order.guests, order.atOnce ?? CONNECTS_AT_ONCE);
    case 'circulate':
      return circulate(pairOfGuests(), order);
    case 'learn':
      return { framesSent: announceAddresses(pairOfGuests(), order.addressesPerGuest, LEARN_MS_MAX) };
    case 'announce':
      return announceGuests(guests, order.frameBytes);
    case 'mix':
      return mix(guests, order);
    case 'roundTrips':
      return measureRoundTrips(pairOfGuests(), order.samples, order.frameBytes);
    case 'firstFrames':
      return measureFirstFrames(pairOfGuests(), order.samples, order.gapMs);
  }
}

async function connect(plans: readonly GuestPlan[], atOnce: number): Promise<GuestAnswers['connect']> {
  const startMs = performance.now();
  for (let done = 0; done < plans.length; done += atOnce) {
    const some = plans.slice(done, done + atOnce);
    const connected = await Promise.all(
      some.map((plan) => EmbeddedGuest.connect({ ...plan, waitMs: REACH_MS, features: FEATURES })),
    );
    for (const guest of connected) {
      const index = guests.push(guest) - 1;
      void guest.closed.then(() => {
        lostGuest = index;
      });
    }
  }
  return { elapsedMs: performance.now() - startMs };
}

function pairOfGuests(): readonly [EmbeddedGuest, EmbeddedGuest] {
  const [a, b] = guests;
  if (a === undefined || b === undefined) throw new Error('two guests have to be connected first');
  return [a, b];
}
