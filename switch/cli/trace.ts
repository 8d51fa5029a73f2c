/** `ringway trace`: what the running process would do with a frame, step by step, and why. */
import { type Command, InvalidArgumentError } from 'commander';
import { FRAME_BYTES_MAX, MTU_MAX, parseMac } from '../../protocol/ethernet.ts';
import { parseIp } from '../../protocol/ip-text.ts';
import { askControl } from '../control/client.ts';
import { type FrameWords, frameOf, type IpWords } from '../trace/frame-of.ts';
import type { TracedFrame, TraceReceiver, TraceReport } from '../trace/report.ts';
import { type AskOptions, addAskOptions } from './ask-options.ts';
import { CliError, EXIT } from './cli-error.ts';
import { findControl } from './running.ts';
import { formatCount, jsonText } from './table.ts';

type TraceOptions = AskOptions & {
  readonly in: string;
  readonly frame?: string;
  readonly src?: Uint8Array;
  readonly dst?: Uint8Array;
  readonly vlan?: readonly number[];
  readonly priority?: number;
  readonly type?: number;
  readonly arp?: { readonly sender: Uint8Array; readonly target: Uint8Array };
  readonly ip?: IpWords;
  readonly size?: number;
  readonly segments?: number;
};

const BROADCAST = Uint8Array.from([255, 255, 255, 255, 255, 255]);
const SOMEBODY = Uint8Array.from([2, 0, 0, 0, 0, 1]);
const FRAME_BYTES = 60;
const PORT_MAX = 65_535;
/** Beyond it the zeros are left to the switch: a request has its bounds. */
const SENT_BYTES_MAX = 4096;

const EXAMPLES = `
Examples:
  # An ARP request of vm0 in VLAN 10
  ringway trace --in vm0 --src 02:00:00:00:00:01 --vlan 10 --arp 10.0.0.1,10.0.0.2
  # A TCP segment; its flow decides on the queue of a port that has several
  ringway trace --in vm0 --dst 02:00:00:00:00:02 --ip 10.0.0.1,10.0.0.2,tcp,40000,80
  # 32 KiB that are to be cut into segments of 1,448 bytes
  ringway trace --in vm0 --dst 02:00:00:00:00:02 --ip 10.0.0.1,10.0.0.2,tcp --size 32768 --segments 1448
  # A frame from a capture
  ringway trace --in vm0 --frame ffffffffffff02000000000108060001080006040001…

Nothing is sent, learned or counted.`;

export function addTrace(program: Command): void {
  const command = program
    .command('trace')
    .description('Tell what the running ringway would do with a frame, step by step, and why.')
    .requiredOption('--in <port>', 'the port that the frame comes in from')
    .option('--frame <hex>', 'the whole frame in hex digits, from the destination on, in place of all below')
    .option('--src <mac>', 'source address (default 02:00:00:00:00:01)', macOf)
    .option('--dst <mac>', 'destination address (default ff:ff:ff:ff:ff:ff)', macOf)
    .option('--vlan <number>', 'VLAN tag; 100+10: an 802.1ad tag of 100 and within it one of 10', vlansOf)
    .option('--priority <number>', 'of the tags, 0 to 7', (text) => numberOf(text, 0, 7))
    .option('--type <number>', 'EtherType, for example 0x88cc', (text) => numberOf(text, 0, PORT_MAX))
    .option('--arp <sender,target>', 'an ARP request: IPv4 addresses of who asks and who is asked for', arpOf)
    .option(
      '--ip <packet>',
      'SRC,DST[,PROTOCOL[,SPORT,DPORT]]: IPv4 or IPv6 addresses, tcp, udp, icmp or a number (default udp), ports',
      ipOf,
    )
    .option('--size <bytes>', 'of the frame, filled with zeros', (text) =>
      numberOf(text, 14, FRAME_BYTES_MAX),
    )
    .option('--segments <bytes>', 'ask for segments with so much payload (TCP and UDP)', (text) =>
      numberOf(text, 1, MTU_MAX),
    )
    .addHelpText('after', EXAMPLES);
  addAskOptions(command).action(async (options: TraceOptions) => {
    const frame = bytesOf(options);
    const sent = frame.length > SENT_BYTES_MAX && frame.subarray(SENT_BYTES_MAX).every((byte) => byte === 0);
    const body = {
      port: options.in,
      frame: Buffer.from(sent ? frame.subarray(0, SENT_BYTES_MAX) : frame).toString('hex'),
      bytes: frame.length,
      ...(options.segments !== undefined && { segmentBytes: options.segments }),
    };
    const control = await findControl(options.control);
    const report = await askControl<TraceReport>(control, '/v1/trace', { method: 'POST', body });
    process.stdout.write(options.json ? jsonText(report) : formatTrace(report));
  });
}

/** @throws CliError */
function bytesOf(options: TraceOptions): Uint8Array {
  if (options.frame !== undefined) {
    const others = (['src', 'dst', 'vlan', 'priority', 'type', 'arp', 'ip'] as const).filter(
      (key) => options[key] !== undefined,
    );
    if (others.length > 0)
      throw new CliError(`--${others[0]}: not with --frame, which is the whole frame`, EXIT.usage);
    const text = options.frame.replace(/[\s:]/g, '');
    if (!/^([0-9a-f]{2})+$/i.test(text)) throw new CliError('--frame: not pairs of hex digits', EXIT.usage);
    const bytes = Buffer.from(text, 'hex');
    const frame = new Uint8Array(Math.max(bytes.length, options.size ?? 0));
    frame.set(bytes);
    return frame;
  }
  if (options.arp !== undefined && options.ip !== undefined)
    throw new CliError('--arp: not with --ip', EXIT.usage);
  const words: FrameWords = {
    src: options.src ?? SOMEBODY,
    dst: options.dst ?? BROADCAST,
    vlans: options.vlan ?? [],
    priority: options.priority ?? 0,
    type: options.type ?? null,
    arp: options.arp ?? null,
    ip: options.ip ?? null,
    sizeBytes: options.size ?? FRAME_BYTES,
  };
  return frameOf(words);
}

/** What happened, top to bottom; the last line is what became of it. */
export function formatTrace(report: TraceReport): string {
  const rows: [string, string][] = [
    ...report.frame.map((text, i): [string, string] => [i === 0 ? 'frame' : '', text]),
    ...report.steps.map(({ stage, text }): [string, string] => [stage, text]),
    ...report.receivers.flatMap(receiverRows),
    ...report.passedOver.map(({ port, text }): [string, string] => ['', `${port}: not: ${text}`]),
    ['result', report.result],
  ];
  const width = Math.max(...rows.map(([title]) => title.length));
  let last = '';
  return rows
    .map(([title, text]) => {
      const shown = title === last ? '' : title;
      if (title !== '') last = title;
      return `${shown.padEnd(width)}  ${text}\n`;
    })
    .join('');
}

function receiverRows({ port, mirrorOf, frames, drops }: TraceReceiver): [string, string][] {
  const title = mirrorOf === null ? 'send' : 'copy';
  const what = mirrorOf === null ? port : `${port} (mirror of ${mirrorOf})`;
  return [
    ...grouped(frames).map((text): [string, string] => [title, `${what}: ${text}`]),
    ...drops.map(({ name, text, frames: count }): [string, string] => [
      title,
      `${what}: dropped${count > 1 ? ` ${formatCount(count)}` : ''}: ${text} (${name})`,
    ]),
  ];
}

/** Frames that are alike, as segments are, in one line. */
function grouped(frames: readonly TracedFrame[]): string[] {
  const counts = new Map<string, number>();
  for (const frame of frames) {
    const text = placedText(frame);
    counts.set(text, (counts.get(text) ?? 0) + 1);
  }
  return [...counts].map(([text, count]) => (count === 1 ? text : `${formatCount(count)} frames: ${text}`));
}

function placedText({ queue, bytes, text, asksChecksum, segments }: TracedFrame): string {
  const asks =
    segments > 1
      ? [`to be cut into ${formatCount(segments)} segments there`]
      : asksChecksum
        ? ['its checksum is completed there']
        : [];
  return [text, `${formatCount(bytes)} bytes`, `queue ${queue}`, ...asks].join(', ');
}

function macOf(text: string): Uint8Array {
  const mac = parseMac(text);
  if (mac === null) throw new InvalidArgumentError('Not an address such as 02:00:00:00:00:01.');
  return mac;
}

function numberOf(text: string, min: number, max: number): number {
  const number = /^(0x[0-9a-f]{1,8}|\d{1,10})$/i.test(text) ? Number(text) : Number.NaN;
  if (!(number >= min && number <= max)) throw new InvalidArgumentError(`Allowed is ${min} to ${max}.`);
  return number;
}

function vlansOf(text: string): number[] {
  const vlans = text.split('+').map((each) => numberOf(each, 0, 4095));
  if (vlans.length > 2) throw new InvalidArgumentError('At most two tags.');
  return vlans;
}

function ipAddressOf(text: string | undefined): Uint8Array {
  const address = parseIp(text ?? '');
  if (address === null) throw new InvalidArgumentError('Not an address such as 10.0.0.1 or fe80::1.');
  return address;
}

function arpOf(text: string): { sender: Uint8Array; target: Uint8Array } {
  const [sender, target, ...rest] = text.split(',').map(ipAddressOf);
  if (target?.length !== 4 || sender.length !== 4 || rest.length > 0)
    throw new InvalidArgumentError('Two IPv4 addresses: who asks, and who is asked for.');
  return { sender, target };
}

function ipOf(text: string): IpWords {
  const [first, second, protocol = 'udp', srcPort = '1024', dstPort = '1024', ...rest] = text.split(',');
  const [src, dst] = [ipAddressOf(first), ipAddressOf(second)];
  if (src.length !== dst.length || rest.length > 0)
    throw new InvalidArgumentError('Two IPv4 or two IPv6 addresses, a protocol, two ports.');
  return {
    src,
    dst,
    protocol:
      protocol === 'tcp' || protocol === 'udp' || protocol === 'icmp' ? protocol : numberOf(protocol, 0, 255),
    srcPort: numberOf(srcPort, 0, PORT_MAX),
    dstPort: numberOf(dstPort, 0, PORT_MAX),
  };
}
