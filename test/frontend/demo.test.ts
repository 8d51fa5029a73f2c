/**
 * The demo: its guests must tell a switch that works from one that loses, repeats, holds back or changes
 * frames, and nothing may be left behind however it ends.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type DemoOptions, type RunningSwitch, runDemo } from '../../switch/demo/demo.ts';
import { type GuestCounts, NO_COUNTS } from '../../switch/demo/messages.ts';
import { type DemoResult, isGood, Progress, resultOf, resultText } from '../../switch/demo/report.ts';
import {
  addressWords,
  checkFrame,
  KIND_CORRUPTED,
  KIND_DATA,
  KIND_OTHER,
  writeFrame,
} from '../../switch/demo/test-frame.ts';
import { LocalSwitch, type Tamper } from './local-switch.ts';

const MAC_A = Uint8Array.of(2, 0, 0, 0, 0, 1);
const MAC_B = Uint8Array.of(2, 0, 0, 0, 0, 2);

let output = '';
let errors = '';
let folder: string;
let childrenBefore: string[];
const folderBefore = process.env.TMPDIR;

beforeEach(() => {
  output = '';
  errors = '';
  folder = mkdtempSync(join(tmpdir(), 'ringway-demo-test-'));
  process.env.TMPDIR = folder;
  childrenBefore = childProcesses();
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    output += text;
    return true;
  });
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    errors += text;
    return true;
  });
});

afterEach(() => {
  vi.restoreAllMocks();
  if (folderBefore === undefined) delete process.env.TMPDIR;
  else process.env.TMPDIR = folderBefore;
  const left = readdirSync(folder);
  rmSync(folder, { recursive: true });
  expect(left).toEqual([]);
  expect(childProcesses()).toEqual(childrenBefore);
});

/** Processes whose parent is this one. */
function childProcesses(): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      // Field 4, after the name in brackets, which may hold anything.
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(')').at(-1)!.split(' ');
      return /^\d+$/.test(pid) && fields[2] === String(process.pid);
    } catch {
      return false;
    }
  });
}

function startLocal(tamper?: Tamper, started?: (made: LocalSwitch) => void): DemoOptions['startSwitch'] {
  return async ({ a, b }): Promise<RunningSwitch> => {
    const made = new LocalSwitch([{ socketPath: a }, { socketPath: b }], tamper);
    started?.(made);
    return {
      failed: new Promise<never>(() => {}),
      portCounters: async () => ({ forwardedFrames: made.frames - made.drops, droppedFrames: made.drops }),
      stop: () => made.stop(),
    };
  };
}

async function runJson(tamper?: Tamper, frameSizeBytes = 64): Promise<{ code: number; result: DemoResult }> {
  const code = await runDemo({ seconds: 0.4, frameSizeBytes, json: true, startSwitch: startLocal(tamper) });
  expect(output.trimEnd().split('\n').length).toBe(1);
  return { code, result: JSON.parse(output) as DemoResult };
}

/** Leaves the guests' greeting alone and counts the frames after it: the first one is number 1. */
function tamperData(tamper: Tamper): Tamper {
  let number = 0;
  return (frame) => {
    if (frame.u8[frame.index + KIND_OFFSET] !== KIND_DATA) return 'pass';
    number++;
    return tamper(frame, number);
  };
}

const KIND_OFFSET = 15;

describe('with a switch that works', () => {
  it.each([60, 61, 63, 1514, 9014])('%i-byte frames all arrive intact', async (frameSizeBytes) => {
    const { code, result } = await runJson(undefined, frameSizeBytes);
    expect(result).toMatchObject({ frameSizeBytes, lost: 0, corrupted: 0, misordered: 0, drops: 0 });
    expect(result.framesForwarded).toBeGreaterThan(0);
    // The end of the greeting may be among what the switch counted.
    expect(result.switchForwarded - result.framesForwarded).toBeLessThan(10);
    expect(result.switchForwarded).toBeGreaterThanOrEqual(result.framesForwarded);
    expect(code).toBe(0);
  });

  it('says so in words without --json', async () => {
    const options = { seconds: 1.3, frameSizeBytes: 64, json: false, startSwitch: startLocal() };
    expect(await runDemo(options)).toBe(0);
    expect(output).toMatch(/^ +\d+ s .* frames\/s .* Gbit\/s {2}lost 0 {2}corrupted 0\n/);
    expect(output).toContain('Every frame arrived once, intact and in order.');
  });
});

describe('with a switch that does not', () => {
  it('ends when it fails', async () => {
    const failed = Promise.reject(new Error('it cannot go on'));
    failed.catch(() => {});
    const startSwitch: DemoOptions['startSwitch'] = async (sockets) => ({
      ...(await startLocal()(sockets)),
      failed,
    });
    const demo = runDemo({ seconds: 60, frameSizeBytes: 64, json: true, startSwitch });
    await expect(demo).rejects.toThrow('it cannot go on');
  });

  it('counts what is lost', async () => {
    const { code, result } = await runJson(tamperData((_f, number) => (number % 64 === 0 ? 'drop' : 'pass')));
    expect(result.lost).toBeGreaterThan(0);
    expect(result).toMatchObject({ corrupted: 0, misordered: 0 });
    expect(code).toBe(1);
  });

  it('counts what comes twice', async () => {
    const { code, result } = await runJson(tamperData((_f, number) => (number === 50 ? 'twice' : 'pass')));
    expect(result).toMatchObject({ corrupted: 0, misordered: 1 });
    expect(code).toBe(1);
  });

  // The destination address, the type, the sequence number, the length, the pattern, the last byte.
  it.each([0, 5, 16, 20, 24, 40, 63])('counts what is changed in byte %i', async (at) => {
    const { code, result } = await runJson(
      tamperData(({ u8, index }, number) => {
        if (number === 50) u8[index + at] ^= 0x10;
        return 'pass';
      }),
    );
    expect(result.corrupted).toBe(1);
    expect(code).toBe(1);
  });

  it('fails when nothing gets through', async () => {
    let made: LocalSwitch | null = null;
    const startSwitch = startLocal(
      tamperData((_f, number) => {
        // The greeting went through; then the switch dies.
        if (number === 100) void made?.stop();
        return 'pass';
      }),
      (started) => {
        made = started;
      },
    );
    expect(await runDemo({ seconds: 20, frameSizeBytes: 64, json: true, startSwitch })).toBe(1);
    expect(errors).toMatch(/^ringway: guest [ab]: the switch closed the connection\n$/);
    expect(output).toBe('');
  });
});

describe('ending', () => {
  it.each(['SIGINT', 'SIGTERM'] as const)('%s ends it early with a result', async (signal) => {
    const startSwitch = startLocal((_f, number) => {
      if (number === 2000) process.emit(signal);
      return 'pass';
    });
    expect(await runDemo({ seconds: 600, frameSizeBytes: 64, json: true, startSwitch })).toBe(0);
    expect(JSON.parse(output)).toMatchObject({ lost: 0, corrupted: 0 });
    expect(process.listenerCount(signal)).toBe(0);
  });

  it('passes on why the switch could not start', async () => {
    const startSwitch = async (): Promise<RunningSwitch> => {
      throw new Error('no switch today');
    };
    await expect(runDemo({ seconds: 1, frameSizeBytes: 64, json: true, startSwitch })).rejects.toThrow(
      'no switch',
    );
  });

  it.each([
    { seconds: 0, frameSizeBytes: 64 },
    { seconds: Number.NaN, frameSizeBytes: 64 },
    { seconds: 1, frameSizeBytes: 59 },
    { seconds: 1, frameSizeBytes: 9015 },
    { seconds: 1, frameSizeBytes: 64.5 },
  ])('refuses $seconds s of $frameSizeBytes bytes', async (options) => {
    await expect(runDemo({ ...options, json: true, startSwitch: startLocal() })).rejects.toThrow(RangeError);
  });
});

describe('the test frames', () => {
  const addresses = addressWords(MAC_B, MAC_A);

  function written(frameBytes: number): { i32: Int32Array; u8: Uint8Array } {
    const i32 = new Int32Array(3000);
    const u8 = new Uint8Array(i32.buffer);
    u8.fill(0xcc);
    writeFrame(i32, u8, 64, frameBytes, addresses, 1, KIND_DATA, 12_345);
    return { i32, u8 };
  }

  it.each([60, 61, 62, 63, 64, 1514, 9014])('of %i bytes show every change of one byte', (frameBytes) => {
    const { i32, u8 } = written(frameBytes);
    const check = (): number => checkFrame(i32, u8, 64, frameBytes, frameBytes, addresses, 1);
    expect(check()).toBe(KIND_DATA);
    expect([...u8.subarray(64, 70)]).toEqual([...MAC_B]);
    expect([...u8.subarray(76, 78)]).toEqual([0x88, 0xb5]);
    expect(u8[63]).toBe(0xcc);
    expect(u8[64 + frameBytes]).toBe(0xcc);
    for (let at = 64; at < 64 + frameBytes; at++) {
      u8[at] ^= 1;
      expect(check()).toBe(at === 76 || at === 77 ? KIND_OTHER : KIND_CORRUPTED);
      u8[at] ^= 1;
    }
  });

  it('show a wrong length and a wrong sender', () => {
    const { i32, u8 } = written(100);
    expect(checkFrame(i32, u8, 64, 96, 100, addresses, 1)).toBe(KIND_CORRUPTED);
    expect(checkFrame(i32, u8, 64, 100, 100, addresses, 2)).toBe(KIND_CORRUPTED);
    expect(checkFrame(i32, u8, 64, 20, 100, addresses, 1)).toBe(KIND_OTHER);
  });
});

describe('the figures', () => {
  const counts = (changes: Partial<GuestCounts>): GuestCounts => ({ ...NO_COUNTS, ...changes });

  it('add up both guests', () => {
    const result = resultOf({
      seconds: 2,
      frameSizeBytes: 1000,
      whenStopped: [counts({ sent: 1000, received: 900 }), counts({ sent: 1000, received: 1100 })],
      atEnd: [
        counts({ sent: 1000, received: 990, corrupted: 1 }),
        counts({ sent: 1005, received: 1000, misordered: 2 }),
      ],
      switchForwarded: 2000,
      drops: 12,
    });
    expect(result).toEqual({
      seconds: 2,
      frameSizeBytes: 1000,
      framesPerSecond: 1000,
      gbitPerSecond: 0.008,
      framesForwarded: 1990,
      lost: 12,
      corrupted: 1,
      misordered: 2,
      switchForwarded: 2000,
      drops: 12,
    });
    expect(isGood(result)).toBe(false);
    expect(resultText(result)).toContain('lost 12, corrupted 1, out of order 2, dropped by the switch 12');
  });

  it('stay on one line of a terminal', () => {
    vi.useFakeTimers();
    try {
      const written: string[] = [];
      const guests = [{ counts: NO_COUNTS }, { counts: NO_COUNTS }];
      const progress = new Progress({ write: (text) => written.push(text), isTTY: true }, 64, guests);
      vi.advanceTimersByTime(1000);
      guests[0].counts = counts({ received: 2_000_000, missing: 3 });
      vi.advanceTimersByTime(1000);
      progress.end();
      vi.advanceTimersByTime(5000);
      expect(written.length).toBe(3);
      expect(written[1].startsWith('\r\x1b[K')).toBe(true);
      expect(written[1]).toMatch(/ 2 s +2,000,000 frames\/s +1\.02 Gbit\/s {2}lost 3 {2}corrupted 0$/);
      expect(written[2]).toBe('\n');
    } finally {
      vi.useRealTimers();
    }
  });
});
