/**
 * Measures what two guests get through to each other, wherever they run: frames of 64 bytes from a generator in the
 * first one, counted as they arrive at the second one's card, then TCP by iperf3. Owns nothing; the guests may be
 * measured again afterwards.
 */
import { runIperf3, startIperf3Server } from '../../test/peers/index.ts';
import {
  countingCommand,
  framesPerSecondOf,
  generatorSetUp,
  generatorStart,
  generatorStop,
  parseCounting,
} from './pktgen.ts';

/** A guest as far as commands are run in it. */
export interface GuestHandle {
  /** Runs shell commands; answers their output. Rejects when the exit code is not 0. */
  runOk(command: string, options?: { timeoutMs?: number }): Promise<string>;
}

export type GuestFigures = { readonly framesPerSecond: number; readonly tcpBitsPerSecond: number };

export const FRAME_BYTES = 64;
const DEVICE = 'eth0';
const ADDRESSES = ['10.0.0.1', '10.0.0.2'] as const;
/** Streams at once, so that two queue pairs both have work; the same for every row. */
const TCP_STREAMS = 2;
const WARM_UP_S = 1;
const PINGS_MAX = 60;

export async function measureGuests(
  guests: readonly [GuestHandle, GuestHandle],
  options: { readonly seconds: number; readonly queuePairs: number },
): Promise<GuestFigures> {
  const { seconds, queuePairs } = options;
  for (const [i, guest] of guests.entries()) await setUpNetwork(guest, ADDRESSES[i], queuePairs);
  await untilReached(guests[0], ADDRESSES[1]);
  const framesPerSecond = await measureFrames(guests, seconds, queuePairs);
  const tcpBitsPerSecond = await measureTcp(guests, seconds);
  return { framesPerSecond, tcpBitsPerSecond };
}

async function setUpNetwork(guest: GuestHandle, address: string, queuePairs: number): Promise<void> {
  const queues = queuePairs > 1 ? [`ethtool -L ${DEVICE} combined ${queuePairs} || true`] : [];
  const commands = [
    `ip addr flush dev ${DEVICE}`,
    `ip link set ${DEVICE} up`,
    `ip addr add ${address}/24 dev ${DEVICE}`,
    ...queues,
  ];
  await guest.runOk(commands.join('\n'));
}

/** A bridge forwards, and a card's link is up, only some time after they were set up. */
async function untilReached(guest: GuestHandle, address: string): Promise<void> {
  const command = `i=0
until ping -c 1 -W 1 ${address} > /dev/null; do
  i=$((i + 1))
  [ $i -lt ${PINGS_MAX} ] || { echo "the guests do not reach each other"; exit 1; }
done`;
  await guest.runOk(command, { timeoutMs: (PINGS_MAX + 30) * 1000 });
}

async function measureFrames(
  [sender, receiver]: readonly [GuestHandle, GuestHandle],
  seconds: number,
  threads: number,
): Promise<number> {
  const destinationMac = (await receiver.runOk(`cat /sys/class/net/${DEVICE}/address`)).trim();
  await sender.runOk(generatorSetUp({ frameBytes: FRAME_BYTES, destinationMac, device: DEVICE, threads }));
  await sender.runOk(generatorStart);
  try {
    await receiver.runOk(`sleep ${WARM_UP_S}`);
    const timeoutMs = seconds * 1000 + 60_000;
    const output = await receiver.runOk(countingCommand(DEVICE, seconds), { timeoutMs });
    return framesPerSecondOf(parseCounting(output), FRAME_BYTES);
  } finally {
    await sender.runOk(generatorStop);
  }
}

async function measureTcp(
  [client, server]: readonly [GuestHandle, GuestHandle],
  seconds: number,
): Promise<number> {
  await server.runOk('killall iperf3 2> /dev/null; sleep 0.2');
  await startIperf3Server(server);
  const args = ['-P', String(TCP_STREAMS), '-O', String(WARM_UP_S)];
  const { receivedBitsPerSecond } = await runIperf3(client, ADDRESSES[1], { seconds, args });
  if (!(receivedBitsPerSecond > 0)) throw new Error('iperf3 got nothing through');
  return receivedBitsPerSecond;
}
