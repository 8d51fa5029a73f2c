/**
 * What guests do on the network: QEMU's arguments for a vhost-user card, ping and iperf3 with their results parsed.
 * Owns nothing. Called by tests and by linux-guest.ts.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { LinuxGuest } from './linux-guest.ts';
import type { UmlGuest } from './uml-guest.ts';

export interface VhostUserOptions {
  /** UNIX socket of the vhost-user connection. */
  socketPath: string;
  /** "52:54:00:00:00:01". */
  mac: string;
  queuePairs: number;
  memoryMiB: number;
  /** Folder of a mounted hugetlbfs for the guest's memory; without it, it comes from a memfd. */
  hugepagesPath?: string;
  /** QEMU listens and waits for the back-end, instead of connecting to it. */
  server?: boolean;
  /** As client: connect again this many seconds after the back-end has gone. */
  reconnectS?: number;
  /** More properties of the device, such as `packed=on,mrg_rxbuf=off,rx_queue_size=1024`. */
  deviceProperties?: string;
}

/** QEMU's arguments for a guest whose memory a vhost-user back-end can map, with one card behind `socketPath`. */
export function vhostUserArgs(options: VhostUserOptions): string[] {
  return [...sharedMemoryArgs(options), ...vhostUserCardArgs({ ...options, index: 1 })];
}

/** The memory alone: `-m` and a shared backend of the same size. */
export function sharedMemoryArgs(options: { memoryMiB: number; hugepagesPath?: string }): string[] {
  const size = `size=${options.memoryMiB}M`;
  const backend =
    options.hugepagesPath === undefined
      ? ['-object', `memory-backend-memfd,id=mem,${size},share=on`]
      : [
          '-object',
          `memory-backend-file,id=mem,${size},mem-path=${options.hugepagesPath},share=on`,
          '-mem-prealloc',
        ];
  return ['-m', String(options.memoryMiB), ...backend, '-numa', 'node,memdev=mem'];
}

/** One card; `index` tells several apart in one guest (its names are charN and mynetN, the device nicN). */
export function vhostUserCardArgs(
  options: Omit<VhostUserOptions, 'memoryMiB' | 'hugepagesPath'> & { index: number },
): string[] {
  const { index, queuePairs, socketPath } = options;
  const role = options.server === true ? ',server=on' : '';
  const reconnect = options.reconnectS === undefined ? '' : `,reconnect=${options.reconnectS}`;
  // One vector for each ring, one for the control queue, one for changes of the configuration.
  const multiqueue = queuePairs > 1 ? `,mq=on,vectors=${2 * queuePairs + 2}` : '';
  const properties = options.deviceProperties === undefined ? '' : `,${options.deviceProperties}`;
  return [
    '-chardev',
    `socket,id=char${index},path=${socketPath}${role}${reconnect}`,
    '-netdev',
    `type=vhost-user,id=mynet${index},chardev=char${index},queues=${queuePairs}`,
    '-device',
    `virtio-net-pci,id=nic${index},netdev=mynet${index},mac=${options.mac}${multiqueue}${properties}`,
  ];
}

/** Cards that QEMU emulates or provides itself, on any kind of netdev. All but virtio-net need the generic kernel. */
export type CardModel = 'e1000' | 'e1000e' | 'rtl8139' | 'virtio-net-pci';

/** A card of that model on the netdev that `netdev` describes, such as `stream,server=off,…`, without its id. */
export function emulatedCardArgs(options: {
  model: CardModel;
  mac: string;
  netdev: string;
  /** Tells several apart in one guest; default 1. */
  index?: number;
}): string[] {
  const { model, mac, netdev, index = 1 } = options;
  return [
    '-netdev',
    `${netdev},id=mynet${index}`,
    '-device',
    // No boot firmware: the guest never boots from it, and its file may not be installed.
    `${model},id=nic${index},netdev=mynet${index},mac=${mac},romfile=`,
  ];
}

export interface PingOptions {
  /** Default 5. */
  count?: number;
  /** Between requests; default 100. */
  intervalMs?: number;
  /** Payload; default 56. */
  sizeBytes?: number;
  /** How long to wait for the last answer; default 5. */
  waitS?: number;
}

export interface PingResult {
  sent: number;
  received: number;
}

/** Answers what a command printed. */
type RunInGuest = (command: string, timeoutMs: number) => Promise<string>;

/** Between two looks at what the guest's kernel has counted. */
const COUNT_AGAIN_MS = 100;
const COUNT_TIMEOUT_MS = 30_000;
const ECHOES_TIMEOUT_MS = 30_000;

/**
 * Pings from a guest whose shell `run` is. busybox' ping leaves a second or two round trips after its last request as soon as
 * one answer has come, whatever it was told to wait: answers that a busy machine brings later count by the kernel's counters,
 * unless others ping in the guest meanwhile.
 */
export async function pingFrom(run: RunInGuest, address: string, options: PingOptions): Promise<PingResult> {
  const { count = 5, intervalMs = 100, sizeBytes = 56, waitS = 5 } = options;
  const command = `ping -c ${count} -i ${intervalMs / 1000} -s ${sizeBytes} -W ${waitS} ${address}`;
  const counters = countersCommand(address.includes(':'));
  const timeoutMs = count * intervalMs + waitS * 1000 + 20_000;
  const output = await run(`${counters}; ${command}`, timeoutMs);
  const pinged = parsePing(output);
  const before = parseEchoes(output);
  const deadline = performance.now() + waitS * 1000;
  let received = pinged.received;
  while (received > 0 && received < pinged.sent && performance.now() < deadline) {
    const { sent, answered } = parseEchoes(await run(counters, COUNT_TIMEOUT_MS));
    if (sent - before.sent !== pinged.sent) break;
    received = Math.max(received, Math.min(pinged.sent, answered - before.answered));
    if (received < pinged.sent) await delay(COUNT_AGAIN_MS);
  }
  return { sent: pinged.sent, received };
}

export function parsePing(output: string): PingResult {
  const match = /(\d+) packets transmitted, (\d+) packets received/.exec(output);
  if (match === null) throw new Error(`ping did not say how many answers came: ${output}`);
  return { sent: Number(match[1]), received: Number(match[2]) };
}

/** Echo requests that a kernel has sent, and answers that it was given. */
export type Echoes = { readonly sent: number; readonly answered: number };

function countersCommand(isIpv6: boolean): string {
  return isIpv6 ? 'grep ^Icmp6 /proc/net/snmp6' : 'grep ^Icmp: /proc/net/snmp';
}

/** Of /proc/net/snmp, a line of names above one of counts, or of /proc/net/snmp6, a line for each. */
function parseEchoes(text: string): Echoes {
  const [names = '', counts = ''] = text.match(/^Icmp: .*$/gm) ?? [];
  const values = counts.trim().split(/ +/);
  const count = (name: string, name6: string): number => {
    const at = names.trim().split(/ +/).indexOf(name);
    return Number(values[at] ?? new RegExp(`^Icmp6${name6}\\s+(\\d+)`, 'm').exec(text)?.[1]);
  };
  return { sent: count('OutEchos', 'OutEchos'), answered: count('InEchoReps', 'InEchoReplies') };
}

/** By IPv4, of all programs of the guest since it booted. */
export async function echoesOf(guest: Shell): Promise<Echoes> {
  return parseEchoes(await guest.runOk(countersCommand(false)));
}

/**
 * Resolves with the counts once the kernel was given an answer to each request, or so many more since `before`: ping may leave
 * before its last answer has come, and misses some while it does not run. Nobody may ping any more.
 */
export async function untilEchoesAnswered(
  guest: Shell,
  before: Echoes = { sent: 0, answered: 0 },
): Promise<Echoes> {
  const deadline = performance.now() + ECHOES_TIMEOUT_MS;
  for (;;) {
    const now = await echoesOf(guest);
    const since = { sent: now.sent - before.sent, answered: now.answered - before.answered };
    if (since.answered === since.sent) return since;
    if (performance.now() > deadline) throw new Error(`pings were not answered: ${JSON.stringify(since)}`);
    await delay(COUNT_AGAIN_MS);
  }
}

export interface Iperf3Result {
  sentBytes: number;
  receivedBytes: number;
  receivedBitsPerSecond: number;
  /** UDP only, else 0. */
  lostPackets: number;
}

/** A guest as far as commands are run in it. */
type Shell = Pick<LinuxGuest | UmlGuest, 'runOk'>;

/** Starts `iperf3 -s` in the background; it answers clients until the guest ends. */
export async function startIperf3Server(guest: Shell, port = 5201): Promise<void> {
  await guest.runOk(`iperf3 -s -D -p ${port} > /dev/null 2>&1`);
  await untilListens(guest, port);
}

/** Resolves when something listens on the port. */
export async function untilListens(guest: Shell, port = 5201): Promise<void> {
  // Connections of before, to that port or from it, stay in the table for a while. 0A: TCP_LISTEN.
  const listening = `grep -qi ':${port.toString(16).padStart(4, '0')} [0-9a-f]*:0000 0A ' /proc/net/tcp /proc/net/tcp6`;
  await guest.runOk(`until ${listening}; do sleep 0.05; done`);
}

/** Runs an iperf3 client against a server; `args` such as ['-u', '-b', '50M'] or ['-R'], default 2 seconds. */
export async function runIperf3(
  guest: Shell,
  serverAddress: string,
  options: { seconds?: number; args?: readonly string[]; port?: number } = {},
): Promise<Iperf3Result> {
  const { seconds = 2, args = [], port = 5201 } = options;
  const command = `iperf3 -J -c ${serverAddress} -p ${port} -t ${seconds} ${args.join(' ')}`;
  const output = await guest.runOk(command, { timeoutMs: seconds * 1000 + 60_000 });
  const { end } = JSON.parse(output) as { end: Record<string, Record<string, number>> };
  const sent = end.sum_sent ?? end.sum ?? {};
  const received = end.sum_received ?? end.sum ?? {};
  return {
    sentBytes: sent.bytes ?? 0,
    receivedBytes: received.bytes ?? 0,
    receivedBitsPerSecond: received.bits_per_second ?? 0,
    lostPackets: end.sum?.lost_packets ?? 0,
  };
}
