/**
 * Asks the control API, and shakes hands with another port, again and again, and tells how long each took. A process of
 * its own: `observer.ts CONTROL_SOCKET PORT_SOCKET DURATION_MS`, started by starving.ts.
 */
import { EmbeddedGuest } from '../../src/frontend/index.ts';
import { askControl } from '../../switch/control/client.ts';

export type Observed = { readonly apiMs: readonly number[]; readonly handshakeMs: readonly number[] };

const PAUSE_MS = 20;

const [controlSocket, guestSocket, durationMs] = process.argv.slice(2);
const endMs = performance.now() + Number(durationMs);

async function timed(action: () => Promise<void>): Promise<number[]> {
  const spentMs: number[] = [];
  while (performance.now() < endMs) {
    const startMs = performance.now();
    await action();
    spentMs.push(performance.now() - startMs);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  return spentMs;
}

const [apiMs, handshakeMs] = await Promise.all([
  timed(async () => {
    await askControl(controlSocket, '/v1/ports');
  }),
  timed(async () => {
    const guest = await EmbeddedGuest.connect({ socketPath: guestSocket, waitMs: 10_000 });
    guest.close();
  }),
]);
process.send?.({ apiMs, handshakeMs } satisfies Observed);
process.disconnect();
