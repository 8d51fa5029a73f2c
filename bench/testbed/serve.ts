/**
 * What a container of the testbed runs: `guest-a` or `guest-b`, a QEMU guest with the card of the row that
 * TESTBED_ROW names, or `testpmd`; `taps`, the bridge with a tap for each guest; `health NAME`, whether that one
 * answers; `accelerator`, which one works. The first three take orders at /run/testbed/NAME.sock and end when what
 * they started ends.
 *
 *   TESTBED_ROW        row of the table (default vhost-user)
 *   TESTBED_ACCEL      auto, kvm or tcg (default auto)
 *   TESTBED_HUGEPAGES  on: guests of vhost-user rows and testpmd take hugepages from /dev/hugepages (default off)
 */
import { setTimeout as delay } from 'node:timers/promises';
import { LinuxGuest, runProgram } from '../../test/peers/index.ts';
import { ACCELERATOR_CHOICES, type AcceleratorChoice, chooseAccelerator } from './accelerator.ts';
import { GUEST_NAMES, type GuestName, type GuestPlace, guestOptions, portOf, socketOf } from './guest.ts';
import { measureTestpmd, startTestpmd } from './host-rows.ts';
import { giveOrder, listenForOrders, type Order, ordersSocket, SOCKET_FOLDER } from './orders.ts';
import { type ContainerRowName, GUEST_ROWS, isContainerRowName } from './rows.ts';
import { tapBridgeCommands } from './tap-bridge.ts';

const HUGEPAGES_FOLDER = '/dev/hugepages';
const HEALTH_TIMEOUT_MS = 5000;
const LOOK_AGAIN_MS = 1000;

async function main([what, name]: readonly string[]): Promise<void> {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(0));
  const guest = GUEST_NAMES.find((letter) => what === `guest-${letter}`);
  if (guest !== undefined) return serveGuest(guest);
  if (what === 'testpmd') return serveTestpmd();
  if (what === 'taps') return makeTaps();
  if (what === 'accelerator') {
    process.stdout.write(`${await chooseAccelerator('auto')}\n`);
    return;
  }
  if (what === 'health' && name !== undefined) {
    await giveOrder(ordersSocket(name), { order: 'health' }, HEALTH_TIMEOUT_MS);
    return;
  }
  throw new Error('what to run: guest-a, guest-b, testpmd, taps, accelerator or health NAME');
}

async function serveGuest(letter: GuestName): Promise<void> {
  const accelerator = await chooseAccelerator(acceleratorChoice());
  const row = rowOfGuests();
  const { attachment } = GUEST_ROWS[row];
  const place: GuestPlace = {
    socketPath:
      attachment === 'unix' || attachment === 'vhost-user'
        ? socketOf(SOCKET_FOLDER, portOf(attachment, letter))
        : null,
    namespace: null,
    hugepagesPath: hugepagesPath(),
    accelerator,
  };
  const guest = await LinuxGuest.start(guestOptions(row, letter, place));
  await listenForOrders(ordersSocket(`guest-${letter}`), async (order: Order) => {
    if (order.order === 'health') return accelerator;
    if (order.order === 'run') return guest.runOk(order.command, { timeoutMs: order.timeoutMs });
    throw new Error('a guest is not measured by itself');
  });
  const code = await guest.exited;
  throw new Error(`QEMU ended with code ${code}: ${guest.qemuErrors.trim()}`);
}

async function serveTestpmd(): Promise<void> {
  const load = await startTestpmd(SOCKET_FOLDER, hugepagesPath());
  await listenForOrders(ordersSocket('testpmd'), async (order: Order) => {
    if (order.order === 'health') return load.pid;
    if (order.order === 'measure') return measureTestpmd(load, order.seconds);
    throw new Error('testpmd runs no commands');
  });
  await untilEnded(load.pid);
  throw new Error('testpmd ended');
}

/** Resolves when a child of this process is no more. */
async function untilEnded(pid: number): Promise<void> {
  for (;;) {
    try {
      process.kill(pid, 0);
    } catch {
      return;
    }
    await delay(LOOK_AGAIN_MS);
  }
}

/** In the network namespace that the guests' containers share with this one. */
async function makeTaps(): Promise<void> {
  for (const line of tapBridgeCommands()) {
    const { code, output } = await runProgram('ip', line.split(' '));
    // After a restart of the container the namespace is new, so nothing is there yet.
    if (code !== 0) throw new Error(`ip ${line}: ${output.trim()}`);
  }
  await listenForOrders(ordersSocket('taps'), async () => null);
}

function rowOfGuests(): Exclude<ContainerRowName, 'virtio-user'> {
  const row = process.env.TESTBED_ROW || 'vhost-user';
  if (!isContainerRowName(row) || row === 'virtio-user') throw new Error(`TESTBED_ROW: ${row} has no guests`);
  return row;
}

function acceleratorChoice(): AcceleratorChoice {
  const choice = ACCELERATOR_CHOICES.find((known) => known === (process.env.TESTBED_ACCEL || 'auto'));
  if (choice === undefined) throw new Error(`TESTBED_ACCEL: one of ${ACCELERATOR_CHOICES.join(', ')}`);
  return choice;
}

function hugepagesPath(): string | null {
  return process.env.TESTBED_HUGEPAGES === 'on' ? HUGEPAGES_FOLDER : null;
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exit(1);
}
