/**
 * `ringway demo`: a switch with two embedded guests that send each other frames and check every byte of what
 * they receive. Starts the switch through a callback and the guests as processes; tells the figures once a
 * second and at the end. Main thread; leaves no process and no file behind.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { StopSignal } from '../ignored-signals.ts';
import { GuestError, GuestProcess } from './guest-process.ts';
import { exitCodeOf, Interruption } from './interruption.ts';
import type { GuestCounts, GuestPlan } from './messages.ts';
import { type DemoResult, isGood, Progress, resultOf, resultText } from './report.ts';
import { TEST_FRAME_BYTES_MAX, TEST_FRAME_BYTES_MIN } from './test-frame.ts';

export type RunningSwitch = {
  /** Frames delivered and dropped since the start, over both ports. */
  portCounters(): Promise<{ forwardedFrames: number; droppedFrames: number }>;
  /** Rejects when it cannot go on. */
  readonly failed: Promise<never>;
  stop(): Promise<void>;
};

export type DemoOptions = {
  /** How long the guests send; more than 0. */
  readonly seconds: number;
  /** Bytes of each frame with its Ethernet header, without FCS; TEST_FRAME_BYTES_MIN to _MAX. */
  readonly frameSizeBytes: number;
  /** Print one JSON object at the end and nothing else on stdout. */
  readonly json: boolean;
  /** Starts a switch with two ports that listen at these socket paths. */
  readonly startSwitch: (sockets: { a: string; b: string }) => Promise<RunningSwitch>;
};

const WINDOW_FRAMES = 256;
/** Room for every frame on the way, in whichever direction. */
const RING_SIZE = 1024;
const MAC_A = '52:54:00:00:00:0a';
const MAC_B = '52:54:00:00:00:0b';
/** Time for the guests to connect and to hear each other. */
const READY_MS_MAX = 15_000;
/** Time for a guest to answer an order; it drains for up to two seconds. */
const ANSWER_MS_MAX = 10_000;

/**
 * Runs the demo and answers the exit code: 0 when frames flowed and none was lost or corrupted, else 1.
 * @throws RangeError for options that cannot be; what `startSwitch` throws
 */
export async function runDemo(options: DemoOptions): Promise<number> {
  checkOptions(options);
  const folder = mkdtempSync(join(tmpdir(), 'ringway-demo-'));
  const sockets = { a: join(folder, 'a.sock'), b: join(folder, 'b.sock') };
  const interruption = new Interruption();
  let running: RunningSwitch | null = null;
  let guests: GuestProcess[] = [];
  try {
    running = await options.startSwitch(sockets);
    guests = startGuests(sockets, options.frameSizeBytes);
    const result = await exchange(options, guests, running, interruption);
    process.stdout.write(options.json ? `${JSON.stringify(result)}\n` : resultText(result));
    return isGood(result) ? 0 : 1;
  } catch (error) {
    if (!(error instanceof DemoError || error instanceof GuestError)) throw error;
    process.stderr.write(`ringway: ${error.message}\n`);
    return error instanceof DemoError ? error.exitCode : 1;
  } finally {
    interruption.close();
    await Promise.all(guests.map((guest) => guest.end()));
    try {
      await running?.stop();
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
}

/** What ends the demo before it has a result. */
class DemoError extends Error {
  override name = 'DemoError';
  readonly exitCode: number;

  constructor(message: string, exitCode = 1) {
    super(message);
    this.exitCode = exitCode;
  }
}

function checkOptions({ seconds, frameSizeBytes }: DemoOptions): void {
  if (!(seconds > 0)) throw new RangeError(`the demo cannot last ${seconds} seconds`);
  if (
    !Number.isInteger(frameSizeBytes) ||
    frameSizeBytes < TEST_FRAME_BYTES_MIN ||
    frameSizeBytes > TEST_FRAME_BYTES_MAX
  ) {
    throw new RangeError(
      `frames of ${frameSizeBytes} bytes are not possible: ${TEST_FRAME_BYTES_MIN} to ${TEST_FRAME_BYTES_MAX}`,
    );
  }
}

function startGuests(sockets: { a: string; b: string }, frameSizeBytes: number): GuestProcess[] {
  const common = { frameSizeBytes, windowFrames: WINDOW_FRAMES, ringSize: RING_SIZE };
  const a: GuestPlan = {
    ...common,
    socketPath: sockets.a,
    mac: MAC_A,
    peerMac: MAC_B,
    senderId: 1,
    peerId: 2,
  };
  const b: GuestPlan = {
    ...common,
    socketPath: sockets.b,
    mac: MAC_B,
    peerMac: MAC_A,
    senderId: 2,
    peerId: 1,
  };
  return [new GuestProcess('a', a), new GuestProcess('b', b)];
}

/** Everything from the guests' first contact to the figures. @throws DemoError */
async function exchange(
  options: DemoOptions,
  guests: readonly GuestProcess[],
  running: RunningSwitch,
  interruption: Interruption,
): Promise<DemoResult> {
  const givenUp = endedBy(interruption.twice, 'before it had a result');
  const orFailure = <T>(what: Promise<T>): Promise<T> =>
    Promise.race([what, givenUp, running.failed, ...guests.map((guest) => guest.failed())]);
  const allHeard = (kind: 'ready' | 'stopped' | 'result', withinMs: number): Promise<GuestCounts[]> =>
    orFailure(within(withinMs, Promise.all(guests.map((guest) => guest.heard(kind))), kind));

  const early = endedBy(interruption.once, 'before the first frame');
  await Promise.race([allHeard('ready', READY_MS_MAX), early]);
  const before = await running.portCounters();
  const progress = options.json ? null : new Progress(process.stdout, options.frameSizeBytes, guests);
  const startMs = performance.now();
  for (const guest of guests) guest.tell({ kind: 'start' });
  try {
    await orFailure(interruption.orAfter(options.seconds * 1000));
  } finally {
    progress?.end();
  }
  for (const guest of guests) guest.tell({ kind: 'stop' });
  const whenStopped = await allHeard('stopped', ANSWER_MS_MAX);
  const seconds = (performance.now() - startMs) / 1000;
  for (const [i, guest] of guests.entries()) guest.tell({ kind: 'drain', peerSent: whenStopped[1 - i].sent });
  const atEnd = await allHeard('result', ANSWER_MS_MAX);
  const after = await running.portCounters();
  return resultOf({
    seconds,
    frameSizeBytes: options.frameSizeBytes,
    whenStopped,
    atEnd,
    switchForwarded: after.forwardedFrames - before.forwardedFrames,
    drops: after.droppedFrames - before.droppedFrames,
  });
}

async function endedBy(signalled: Promise<StopSignal>, when: string): Promise<never> {
  const signal = await signalled;
  throw new DemoError(`the demo was ended by ${signal} ${when}`, exitCodeOf(signal));
}

/** What the user is told when a guest does not get as far as `kind` in time. */
const LATE: Readonly<Record<'ready' | 'stopped' | 'result', string>> = {
  ready: 'the two guests did not hear each other through the switch',
  stopped: 'a guest did not stop when it was told to',
  result: 'a guest did not tell its result',
};

async function within<T>(ms: number, what: Promise<T>, kind: keyof typeof LATE): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new DemoError(`${LATE[kind]} (${ms / 1000} s)`)), ms);
  });
  try {
    return await Promise.race([what, late]);
  } finally {
    clearTimeout(timer);
  }
}
