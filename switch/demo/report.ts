/** The demo's figures: what they mean, the line once a second and the lines or the JSON at the end. */
import type { GuestCounts } from './messages.ts';

/** What `ringway demo --json` prints. Rates are over the time in which the guests sent. */
export type DemoResult = {
  readonly seconds: number;
  readonly frameSizeBytes: number;
  readonly framesPerSecond: number;
  /** Of Ethernet frames without preamble, FCS and gap. */
  readonly gbitPerSecond: number;
  /** Frames that arrived with every byte right and in order, both directions together. */
  readonly framesForwarded: number;
  readonly lost: number;
  readonly corrupted: number;
  /** Frames that came twice or late. */
  readonly misordered: number;
  /** What the switch counted for its two ports. */
  readonly switchForwarded: number;
  readonly drops: number;
};

export type Measured = {
  readonly seconds: number;
  readonly frameSizeBytes: number;
  /** Both guests, when they stopped sending and when nothing more came. */
  readonly whenStopped: readonly GuestCounts[];
  readonly atEnd: readonly GuestCounts[];
  readonly switchForwarded: number;
  readonly drops: number;
};

/** Where the demo's lines go. */
export type Output = { write(text: string): unknown; readonly isTTY?: boolean };

export function resultOf(measured: Measured): DemoResult {
  const { seconds, frameSizeBytes, whenStopped, atEnd, switchForwarded, drops } = measured;
  const framesPerSecond = sum(whenStopped, 'received') / seconds;
  const framesForwarded = sum(atEnd, 'received');
  const corrupted = sum(atEnd, 'corrupted');
  const misordered = sum(atEnd, 'misordered');
  return {
    seconds: rounded(seconds, 3),
    frameSizeBytes,
    framesPerSecond: Math.round(framesPerSecond),
    gbitPerSecond: rounded(gbitPerSecond(framesPerSecond, frameSizeBytes), 3),
    framesForwarded,
    lost: Math.max(0, sum(atEnd, 'sent') - framesForwarded - corrupted - misordered),
    corrupted,
    misordered,
    switchForwarded,
    drops,
  };
}

/** Whether the switch did what it should: frames flowed, and each came once, intact and in order. */
export function isGood({ framesForwarded, lost, corrupted, misordered }: DemoResult): boolean {
  return framesForwarded > 0 && lost === 0 && corrupted === 0 && misordered === 0;
}

export function resultText(result: DemoResult): string {
  const count = (value: number): string => value.toLocaleString('en-US');
  return [
    `${count(result.framesForwarded)} frames of ${result.frameSizeBytes} bytes in ${result.seconds} s`,
    `${count(result.framesPerSecond)} frames/s, ${result.gbitPerSecond.toFixed(2)} Gbit/s`,
    `lost ${count(result.lost)}, corrupted ${count(result.corrupted)}, out of order ${count(result.misordered)}, ` +
      `dropped by the switch ${count(result.drops)}`,
    isGood(result) ? 'Every frame arrived once, intact and in order.' : 'Something went wrong, see above.',
    '',
  ].join('\n');
}

const LINE_MS = 1000;

/** Tells once a second how it goes: one line that is written over on a terminal, otherwise line after line. */
export class Progress {
  readonly #output: Output;
  readonly #frameSizeBytes: number;
  readonly #guests: readonly { readonly counts: GuestCounts }[];
  readonly #timer: NodeJS.Timeout;
  readonly #startMs = performance.now();
  #lastMs = this.#startMs;
  #lastReceived = 0;
  #wroteLine = false;

  /** `guests` are looked at each time; their counts change. */
  constructor(output: Output, frameSizeBytes: number, guests: readonly { readonly counts: GuestCounts }[]) {
    this.#output = output;
    this.#frameSizeBytes = frameSizeBytes;
    this.#guests = guests;
    this.#timer = setInterval(() => this.#tell(), LINE_MS);
  }

  end(): void {
    clearInterval(this.#timer);
    if (this.#wroteLine && this.#output.isTTY === true) this.#output.write('\n');
  }

  #tell(): void {
    const nowMs = performance.now();
    const counts = this.#guests.map((guest) => guest.counts);
    const received = sum(counts, 'received');
    const framesPerSecond = ((received - this.#lastReceived) * 1000) / (nowMs - this.#lastMs);
    this.#lastReceived = received;
    this.#lastMs = nowMs;
    const line = [
      `${Math.round((nowMs - this.#startMs) / 1000)} s`.padStart(6),
      `${Math.round(framesPerSecond).toLocaleString('en-US')} frames/s`.padStart(22),
      `${gbitPerSecond(framesPerSecond, this.#frameSizeBytes).toFixed(2)} Gbit/s`.padStart(14),
      `  lost ${sum(counts, 'missing')}  corrupted ${sum(counts, 'corrupted')}`,
    ].join('');
    this.#output.write(this.#output.isTTY === true ? `\r\x1b[K${line}` : `${line}\n`);
    this.#wroteLine = true;
  }
}

function sum(counts: readonly GuestCounts[], what: keyof GuestCounts): number {
  return counts.reduce((total, guest) => total + guest[what], 0);
}

function gbitPerSecond(framesPerSecond: number, frameSizeBytes: number): number {
  return (framesPerSecond * frameSizeBytes * 8) / 1e9;
}

function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
