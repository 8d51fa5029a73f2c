/**
 * One guest of the demo, a process of its own: connects to the switch as QEMU would, sends frames to the
 * other guest and checks what comes back. Started by demo.ts, which it obeys over the IPC channel and with
 * which it ends.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { parseMac } from '../../protocol/ethernet.ts';
import { EmbeddedGuest } from '../../src/frontend/net-device.ts';
import type { FromGuestMessage, GuestPlan, ToGuestMessage } from './messages.ts';
import { Traffic } from './traffic.ts';

const CONNECT_MS_MAX = 10_000;
/** Between turns of Node's event loop, which brings messages. */
const STRETCH_MS = 20;
const PROGRESS_MS = 250;
/** Longest wait for frames that are on their way after the last was sent. */
const DRAIN_MS_MAX = 2000;
/** Room for the virtio-net header before each frame. */
const HEADER_ROOM_BYTES = 64;

function tell(message: FromGuestMessage): void {
  process.send?.(message);
}

type Order = ToGuestMessage | null;

/** The last order that came; taken by the loop between two stretches. */
let order: Order = null;

function takeOrder(): Order {
  const taken = order;
  order = null;
  return taken;
}

async function meetPeer(traffic: Traffic): Promise<void> {
  while (!traffic.heardPeer || !traffic.peerHeard) {
    traffic.sayHello();
    traffic.run(performance.now() + STRETCH_MS);
    await turn();
  }
  // The peer may still have to hear that we heard it.
  traffic.sayHello();
  tell({ kind: 'ready' });
}

/** Runs until the parent has asked for the result and everything that is still to come has come. */
async function exchange(traffic: Traffic): Promise<void> {
  let toldMs = performance.now();
  let drainUntilMs = Number.POSITIVE_INFINITY;
  let awaited = Number.POSITIVE_INFINITY;
  for (;;) {
    traffic.run(performance.now() + STRETCH_MS);
    await turn();
    const taken = takeOrder();
    if (taken?.kind === 'start') traffic.start();
    if (taken?.kind === 'stop') {
      traffic.stop();
      tell({ kind: 'stopped', counts: traffic.counts });
    }
    if (taken?.kind === 'drain') {
      awaited = taken.peerSent;
      drainUntilMs = performance.now() + DRAIN_MS_MAX;
    }
    if (traffic.arrived >= awaited || performance.now() >= drainUntilMs) break;
    if (performance.now() - toldMs < PROGRESS_MS) continue;
    toldMs = performance.now();
    tell({ kind: 'progress', counts: traffic.counts });
  }
  tell({ kind: 'result', counts: traffic.counts });
}

async function main(): Promise<void> {
  const plan = JSON.parse(process.argv[2]) as GuestPlan;
  const peerMac = parseMac(plan.peerMac);
  if (peerMac === null) throw new Error(`${plan.peerMac} is no Ethernet address`);
  const guest = await EmbeddedGuest.connect({
    socketPath: plan.socketPath,
    waitMs: CONNECT_MS_MAX,
    mac: plan.mac,
    ringSize: plan.ringSize,
    bufferBytes: plan.frameSizeBytes + HEADER_ROOM_BYTES,
  });
  guest.closed.then(() => fail('the switch closed the connection'));
  const traffic = new Traffic(guest, plan, peerMac);
  await meetPeer(traffic);
  await exchange(traffic);
  // The connection stays until the parent has read the switch's counters and ends this process.
}

function fail(message: string): void {
  tell({ kind: 'failed', message });
}

// Ctrl-C goes to every process of the terminal's group; the parent decides what it means.
process.on('SIGINT', () => {});
process.on('message', (message: ToGuestMessage) => {
  order = message;
});
process.on('disconnect', () => process.exit(0));
main().catch((error: unknown) => {
  fail(error instanceof Error ? error.message : String(error));
});
