/**
 * What gets through from one end to another, wherever they run: frames of 64 bytes from a generator in the first one,
 * counted as they arrive at the second one's card, then TCP by iperf3. The first is a guest; the second is one too, or
 * this machine (host-end.ts). Owns nothing; the ends may be measured again afterwards.
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
import type { Figure, Sample } from './rows.ts';

/** A guest as far as commands are run in it. */
export interface GuestHandle {
  /** Runs shell commands; answers their output. Rejects when the exit code is not 0. */
  runOk(command: string, options?: { timeoutMs?: number }): Promise<string>;
}

export type Ends = readonly [sender: GuestHandle, receiver: GuestHandle];

export type MeasureOptions = {
  /** Length of each measurement. */
  readonly seconds: number;
  readonly queuePairs: number;
  readonly figures: readonly Figure[];
  /** Processor time that the switch has used since its start, in milliseconds. */
  readonly switchTimeMs?: () => number;
};

export const FRAME_BYTES = 64;
/** Its name at either end. */
export const DEVICE = 'eth0';
/** Of the sender and the receiver. */
export const ADDRESSES = ['10.0.0.1', '10.0.0.2'] as const;
/** Streams at once, so that two queue pairs both have work; the same for every row. */
const TCP_STREAMS = 2;
const WARM_UP_S = 1;
const PINGS_MAX = 60;

/** Two guests: their network, and a server of iperf3 in the second one. Resolves when they reach each other. */
export async function setUpGuests([sender, receiver]: Ends, queuePairs: number): Promise<void> {
  await setUpNetwork(receiver, ADDRESSES[1], queuePairs);
  await setUpSender(sender, queuePairs);
  // Guests in containers are measured more than once.
  await receiver.runOk('killall iperf3 2> /dev/null; sleep 0.2');
  await startIperf3Server(receiver);
}

/** The sender alone, where the receiver has its address already. Resolves when it reaches the receiver. */
export async function setUpSender(sender: GuestHandle, queuePairs: number): Promise<void> {
  await setUpNetwork(sender, ADDRESSES[0], queuePairs);
  await untilReached(sender, ADDRESSES[1]);
}

export async function measureEnds(ends: Ends, options: MeasureOptions): Promise<Sample> {
  const { seconds, queuePairs, figures, switchTimeMs } = options;
  const framesPerSecond = figures.includes('frames') ? await measureFrames(ends, seconds, queuePairs) : null;
  if (!figures.includes('tcp')) return { framesPerSecond, tcpBitsPerSecond: null, switchCpus: null };
  const begin = { atMs: performance.now(), switchMs: switchTimeMs?.() ?? 0 };
  const tcpBitsPerSecond = await measureTcp(ends[0], seconds);
  const elapsedMs = performance.now() - begin.atMs;
  const switchCpus = switchTimeMs === undefined ? null : (switchTimeMs() - begin.switchMs) / elapsedMs;
  return { framesPerSecond, tcpBitsPerSecond, switchCpus };
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

/** A bridge forwards, and a card's link is up, only some time after they were set up; a tap of Ringway too. */
async function untilReached(guest: GuestHandle, address: string): Promise<void> {
  const command = `i=0
until ping -c 1 -W 1 ${address} > /dev/null; do
  i=$((i + 1))
  [ $i -lt ${PINGS_MAX} ] || { echo "${address} is not reached"; exit 1; }
done`;
  await guest.runOk(command, { timeoutMs: (PINGS_MAX + 30) * 1000 });
}

async function measureFrames([sender, receiver]: Ends, seconds: number, threads: number): Promise<number> {
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

async function measureTcp(client: GuestHandle, seconds: number): Promise<number> {
  const args = ['-P', String(TCP_STREAMS), '-O', String(WARM_UP_S)];
  const { receivedBitsPerSecond } = await runIperf3(client, ADDRESSES[1], { seconds, args });
  if (!(receivedBitsPerSecond > 0)) throw new Error('iperf3 got nothing through');
  return receivedBitsPerSecond;
}
