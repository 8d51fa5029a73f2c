/**
 * Small frames from Linux' packet generator in one guest (Documentation/networking/pktgen.rst), counted by the card
 * of another: the shell commands for both, and what the second one's counters say. Pure.
 */
import { formatCount } from '../../switch/cli/table.ts';

export type GeneratorOptions = {
  /** Frames without check sequence, in bytes. */
  readonly frameBytes: number;
  readonly destinationMac: string;
  readonly device: string;
  /** One thread for each queue of the card; thread N runs on processor N. */
  readonly threads: number;
};

/** Nobody has it: the receiving guest drops the packets as soon as it has counted them. */
const DESTINATION = '10.0.0.99';
/** Packets come from this many UDP ports in turn, so that they are many flows. */
const SOURCE_PORTS = 64;
const FOLDER = '/proc/net/pktgen';

/** Loads the generator and tells each thread what to send. */
export function generatorSetUp(options: GeneratorOptions): string {
  const threads = Array.from({ length: options.threads }, (_, thread) => thread);
  return ['modprobe pktgen', ...threads.flatMap((thread) => threadSetUp(thread, options))].join('\n');
}

function threadSetUp(thread: number, options: GeneratorOptions): string[] {
  const { device, frameBytes, destinationMac } = options;
  const name = `${device}@${thread}`;
  const settings = [
    'count 0', // until it is stopped
    'delay 0',
    `pkt_size ${frameBytes}`,
    `dst ${DESTINATION}`,
    `dst_mac ${destinationMac}`,
    `udp_src_min ${1024 + thread * SOURCE_PORTS}`,
    `udp_src_max ${1024 + (thread + 1) * SOURCE_PORTS}`,
    'udp_dst_min 9',
    'udp_dst_max 9',
    `queue_map_min ${thread}`,
    `queue_map_max ${thread}`,
  ];
  return [
    `echo rem_device_all > ${FOLDER}/kpktgend_${thread}`,
    `echo add_device ${name} > ${FOLDER}/kpktgend_${thread}`,
    ...settings.map((setting) => `echo ${setting} > ${FOLDER}/${name}`),
  ];
}

/** The command that starts it does not come back before it is stopped, so it runs in the background. */
export const generatorStart = `(echo start > ${FOLDER}/pgctrl) < /dev/null > /dev/null 2>&1 &
echo $! > /tmp/pktgen.pid`;
/**
 * A signal ends the wait for the threads and with it the threads' work; not SIGINT, which a shell's background
 * commands ignore. Fails when a thread sends on, since that would spoil what is measured next.
 */
export const generatorStop = `kill -TERM $(cat /tmp/pktgen.pid)
i=0
while grep -q 'Running: eth' ${FOLDER}/kpktgend_*; do
  i=$((i + 1))
  [ $i -lt 100 ] || { echo "the packet generator does not stop"; exit 1; }
  sleep 0.1
done`;

/** Prints the card's counters and the time before and after a pause. */
export function countingCommand(device: string, seconds: number): string {
  const look = 'cat /proc/uptime rx_packets rx_bytes';
  return `cd /sys/class/net/${device}/statistics && ${look} && sleep ${seconds} && ${look}`;
}

export type CountedFrames = { readonly seconds: number; readonly frames: number; readonly bytes: number };

/** What `countingCommand` printed. @throws when it is something else, or nothing arrived */
export function parseCounting(output: string): CountedFrames {
  const lines = output.trim().split('\n');
  const numbers = lines.map((line) => Number(line.trim().split(' ')[0]));
  if (numbers.length !== 6 || numbers.some((number) => !Number.isFinite(number))) {
    throw new Error(`the guest's counters read: ${output.trim()}`);
  }
  const [upBefore, framesBefore, bytesBefore, upAfter, framesAfter, bytesAfter] = numbers as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const counted = {
    seconds: upAfter - upBefore,
    frames: framesAfter - framesBefore,
    bytes: bytesAfter - bytesBefore,
  };
  if (!(counted.seconds > 0) || counted.frames <= 0) throw new Error('no frame arrived at the second guest');
  return counted;
}

/** Frames per second. @throws when the frames were not of the size that was sent, to half a byte on average */
export function framesPerSecondOf(counted: CountedFrames, frameBytes: number): number {
  const meanBytes = counted.bytes / counted.frames;
  if (Math.abs(meanBytes - frameBytes) > 0.5) {
    const count = formatCount(counted.frames);
    throw new Error(`${count} frames of ${meanBytes.toFixed(1)} bytes where ${frameBytes} were sent`);
  }
  return counted.frames / counted.seconds;
}
