/**
 * Two guests that pass numbered frames to each other, one at a time, and at any message tell how many did not arrive and
 * how long the longest pause between two arrivals was. A process of its own: `peer-bystanders.ts SOCKET SOCKET`, started
 * by peers.ts.
 */
import { EmbeddedGuest } from '../../src/frontend/index.ts';

export type BystandersReport = {
  readonly sent: number;
  readonly lost: number;
  readonly pauseMs: number;
  /** The pause went on until it was asked. */
  readonly isOver: boolean;
};

/** A frame that did not come by then is not waited for; it may still come. */
const GIVE_UP_MS = 1000;
const FRAME_BYTES = 64;

const guests = await Promise.all(
  process.argv
    .slice(2)
    .map((socketPath, i) =>
      EmbeddedGuest.connect({ socketPath, waitMs: 10_000, mac: `52:54:00:00:01:0${i}` }),
    ),
);
const [first, second] = guests;
let sent = 0;
let arrived = 0;
let pauseMs = 0;
let lastMs = performance.now();
let awaited = -1;
let wake = (): void => {};

function note(frame: Uint8Array, from: EmbeddedGuest): void {
  if (Buffer.compare(frame.subarray(6, 12), from.mac) !== 0) return;
  const now = performance.now();
  pauseMs = Math.max(pauseMs, now - lastMs);
  lastMs = now;
  arrived++;
  if (new DataView(frame.buffer, frame.byteOffset).getUint32(20) === awaited) wake();
}

async function listen(guest: EmbeddedGuest, from: EmbeddedGuest): Promise<never> {
  for (;;) note(await guest.received(), from);
}

async function pass(from: EmbeddedGuest, to: EmbeddedGuest): Promise<void> {
  const frame = new Uint8Array(FRAME_BYTES);
  frame.set(to.mac);
  frame.set(from.mac, 6);
  new DataView(frame.buffer).setUint32(20, sent);
  awaited = sent++;
  const came = new Promise<void>((resolve) => {
    wake = resolve;
  });
  from.send(frame);
  let timer: NodeJS.Timeout | undefined;
  const gaveUp = new Promise((resolve) => {
    timer = setTimeout(resolve, GIVE_UP_MS);
  });
  await Promise.race([came, gaveUp]);
  clearTimeout(timer);
}

let isAsked = false;
process.once('disconnect', () => process.exit());
process.once('message', () => {
  isAsked = true;
});
void listen(first, second);
void listen(second, first);
// Addresses are learned and queues are up before anything counts.
for (const [from, to] of [guests, [second, first]]) {
  while (arrived === 0) await pass(from, to);
  arrived = 0;
}
[sent, arrived, pauseMs, lastMs] = [0, 0, 0, performance.now()];
process.send?.('ready');
while (!isAsked) {
  await pass(first, second);
  await pass(second, first);
}
const sinceMs = performance.now() - lastMs;
const report: BystandersReport = {
  sent,
  lost: sent - arrived,
  pauseMs: Math.max(pauseMs, sinceMs),
  isOver: sinceMs >= GIVE_UP_MS,
};
process.send?.(report, () => process.exit());
