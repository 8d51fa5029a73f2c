/**
 * TCP connections between two Linux guests that go on for as long as a test likes, both ways at once, with a checksum of
 * all bytes at both ends; and a time line of what the switch delivered, with what was done meanwhile. The guests' own
 * programs do it (busybox): a sender numbers blocks of random bytes. Called by tests with real guests.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { type LinuxGuest, untilListens } from '../peers/index.ts';
import type { RingwayProcess } from './ringway-process.ts';

const BLOCK_KIB = 256;
const END_TIMEOUT_MS = 120_000;
const SAMPLE_MS = 100;
const BAR_WIDTH = 40;

export type TransferEnd = { readonly blocks: number; readonly sentSum: string; readonly receivedSum: string };

/** One connection, from one guest to another. A guest may be on another machine in the end (`follow`). */
export class LongTransfer {
  #from: LinuxGuest;
  #to: LinuxGuest;
  readonly #name: string;

  private constructor(name: string, from: LinuxGuest, to: LinuxGuest) {
    this.#name = name;
    this.#from = from;
    this.#to = to;
  }

  /** `address`: of the receiver. Resolves when the first bytes may flow. */
  static async start(
    name: string,
    from: LinuxGuest,
    to: LinuxGuest,
    address: string,
    port: number,
  ): Promise<LongTransfer> {
    const file = `/tmp/${name}`;
    // Either nc ends the connection when its own input ends.
    const receive = [
      `mkfifo ${file}.open`,
      `(sleep 100000 > ${file}.open &)`,
      `nc -l -p ${port} < ${file}.open | sha256sum > ${file}.part`,
      `mv ${file}.part ${file}.received`,
    ].join('; ');
    await to.runOk(`(${receive}) > /dev/null 2>&1 &`);
    await untilListens(to, port);
    const blocks = [
      'n=0',
      `while [ ! -e ${file}.stop ]; do echo "block $n"; cat ${file}.block; n=$((n+1)); done`,
      `echo $n > ${file}.blocks`,
    ].join('; ');
    await from.runOk(
      [
        `dd if=/dev/urandom of=${file}.block bs=1024 count=${BLOCK_KIB} 2> /dev/null`,
        `mkfifo ${file}.copy`,
        `(sha256sum < ${file}.copy > ${file}.sent) > /dev/null 2>&1 &`,
        `((${blocks}) | tee ${file}.copy | nc ${address} ${port} > /dev/null) > /dev/null 2>&1 &`,
      ].join('\n'),
    );
    return new LongTransfer(name, from, to);
  }

  /** `moved` goes on as `now`. */
  follow(moved: LinuxGuest, now: LinuxGuest): void {
    if (this.#from === moved) this.#from = now;
    if (this.#to === moved) this.#to = now;
  }

  /** Ends it in order: the sender's last block, then the connection; answers both sums. */
  async end(): Promise<TransferEnd> {
    const name = this.#name;
    const options = { timeoutMs: END_TIMEOUT_MS };
    await this.#from.runOk(`touch /tmp/${name}.stop`);
    const sumOf = async (guest: LinuxGuest, file: string): Promise<string> => {
      const text = await guest.runOk(`until [ -s ${file} ]; do sleep 0.1; done; cat ${file}`, options);
      return text.split(/\s/)[0];
    };
    return {
      receivedSum: await sumOf(this.#to, `/tmp/${name}.received`),
      sentSum: await sumOf(this.#from, `/tmp/${name}.sent`),
      blocks: Number(await this.#from.runOk(`cat /tmp/${name}.blocks`)),
    };
  }
}

type Sample = { readonly atMs: number; readonly bytes: number };

/** What was delivered to some ports, ten times a second, by the counters of a switch that may be killed and replaced. */
export class TimeLine {
  readonly #ringway: RingwayProcess;
  readonly #ports: readonly string[];
  readonly #startMs = performance.now();
  readonly #samples: Sample[] = [];
  readonly #events: { readonly atMs: number; readonly text: string }[] = [];
  readonly #last = new Map<string, number>();
  #total = 0;
  #isOver = false;
  readonly #sampling: Promise<void>;

  constructor(ringway: RingwayProcess, ports: readonly string[]) {
    this.#ringway = ringway;
    this.#ports = ports;
    this.#sampling = this.#sample();
  }

  /** Bytes delivered so far. */
  get bytes(): number {
    return this.#total;
  }

  event(text: string): void {
    this.#events.push({ atMs: performance.now() - this.#startMs, text });
  }

  /** Resolves when so many bytes more were delivered. @throws Error after a minute without any */
  async untilBytes(count: number): Promise<void> {
    const goal = this.#total + count;
    let seen = this.#total;
    let deadline = AbortSignal.timeout(60_000);
    while (this.#total < goal) {
      await delay(SAMPLE_MS);
      if (this.#total > seen) deadline = AbortSignal.timeout(60_000);
      seen = this.#total;
      if (deadline.aborted) throw new Error(`the transfer stands still:\n${this.text()}`);
    }
  }

  async end(): Promise<void> {
    this.#isOver = true;
    await this.#sampling;
  }

  /** Longest time without a byte that began after that event and before the next one. */
  pauseAfterMs(text: string): number {
    const index = this.#events.findIndex((event) => event.text === text);
    const from = this.#events[index].atMs;
    const to = this.#events[index + 1]?.atMs ?? Number.POSITIVE_INFINITY;
    let longest = 0;
    let lastMs = from;
    for (const { atMs, bytes } of this.#samples) {
      if (atMs < from || bytes === 0) continue;
      if (lastMs < to) longest = Math.max(longest, atMs - lastMs);
      lastMs = atMs;
    }
    return Math.round(longest);
  }

  /** A line for each half second, and one for each event. */
  text(): string {
    const stepMs = 500;
    const lines: string[] = [];
    const most = Math.max(1, ...this.#perStep(stepMs));
    for (const [i, bytes] of this.#perStep(stepMs).entries()) {
      const bar = '#'.repeat(Math.round((bytes / most) * BAR_WIDTH));
      const rate = ((bytes * 8) / (stepMs * 1000)).toFixed(0).padStart(6);
      lines.push(`${((i * stepMs) / 1000).toFixed(1).padStart(6)} s ${rate} Mbit/s ${bar}`);
      for (const { atMs, text } of this.#events)
        if (atMs >= i * stepMs && atMs < (i + 1) * stepMs)
          lines.push(`${(atMs / 1000).toFixed(2).padStart(7)} s <- ${text}`);
    }
    return lines.join('\n');
  }

  #perStep(stepMs: number): number[] {
    const steps: number[] = [];
    for (const { atMs, bytes } of this.#samples) {
      const step = Math.floor(atMs / stepMs);
      while (steps.length <= step) steps.push(0);
      steps[step] += bytes;
    }
    return steps;
  }

  async #sample(): Promise<void> {
    while (!this.#isOver) {
      const reports = await this.#ringway.ports().catch(() => []);
      let bytes = 0;
      for (const { name, counters } of reports) {
        if (!this.#ports.includes(name)) continue;
        const before = this.#last.get(name) ?? 0;
        // Another process begins at 0.
        bytes += counters.egressBytes - (counters.egressBytes < before ? 0 : before);
        this.#last.set(name, counters.egressBytes);
      }
      this.#total += bytes;
      this.#samples.push({ atMs: performance.now() - this.#startMs, bytes });
      await delay(SAMPLE_MS);
    }
  }
}
