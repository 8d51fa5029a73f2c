/** Lines for an output that does not take them: nothing waits, nothing throws, what is lost is counted and told. */
import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../src/host/errors.ts';
import { LinesOut } from '../../switch/lines-out.ts';
import { createLogger } from '../../switch/log.ts';

/** Takes `room` bytes, then answers `errno`. */
class Reader {
  room = Number.POSITIVE_INFINITY;
  errno: number = ERRNO.EAGAIN;
  text = '';
  /** How often somebody waited for it, and what it then has room for. */
  waits = 0;
  roomAfterWait = 0;
  readonly timers: (() => void)[] = [];

  write(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, this.room);
    if (taken === 0) return -this.errno;
    this.room -= taken;
    this.text += Buffer.from(bytes.subarray(0, taken)).toString();
    return taken;
  }

  awaitReady(): boolean {
    this.waits++;
    this.room += this.roomAfterWait;
    return this.room > 0;
  }

  /** Lets the time pass until it is tried again. */
  later(): void {
    for (const timer of this.timers.splice(0)) timer();
  }
}

function world(keptBytesMax: number): { reader: Reader; lines: LinesOut; lost: string[] } {
  const reader = new Reader();
  const later = (callback: () => void) => void reader.timers.push(callback);
  const lines = new LinesOut({ output: reader, keptBytesMax, later });
  const lost: string[] = [];
  lines.onLost = (count, why) => {
    lost.push(`${count}: ${why}`);
    lines.write(`lost ${count}\n`);
  };
  return { reader, lines, lost };
}

describe('lines', () => {
  it('are written at once while they are taken', () => {
    const { reader, lines, lost } = world(100);
    for (const text of ['a\n', 'b\n']) lines.write(text);
    expect([reader.text, reader.timers.length, lost]).toEqual(['a\nb\n', 0, []]);
  });

  it('that are taken in part are finished later, before any other', () => {
    const { reader, lines } = world(100);
    reader.room = 3;
    lines.write('first\n');
    lines.write('second\n');
    expect(reader.text).toBe('fir');
    reader.later();
    expect(reader.text).toBe('fir');
    reader.room = 5;
    reader.later();
    reader.room = 100;
    reader.later();
    expect(reader.text).toBe('first\nsecond\n');
    expect(reader.timers).toEqual([]);
  });

  it.each([
    ['nobody reads', ERRNO.EAGAIN, 'nobody read them'],
    ['the disk is full', ERRNO.ENOSPC, 'ENOSPC (no space left on device)'],
    ['the reader is gone', ERRNO.EPIPE, 'EPIPE (broken pipe)'],
    ['the terminal is gone', ERRNO.EIO, 'EIO (input or output error)'],
  ])(
    'for which there is no room any more are counted, and told where they are missing: %s',
    (_, errno, why) => {
      const { reader, lines, lost } = world(10);
      Object.assign(reader, { room: 0, errno });
      for (let i = 0; i < 8; i++) lines.write(`line${i}\n`);
      for (let i = 0; i < 3; i++) reader.later();
      expect([reader.text, lost]).toEqual(['', []]);
      reader.room = 1000;
      reader.later();
      lines.write('after\n');
      expect(reader.text).toBe('line0\nlost 7\nafter\n');
      expect(lost).toEqual([`7: ${why}`]);
    },
  );

  it('of a short one that would fit are lost too once one was: the gap is in one place', () => {
    const { reader, lines } = world(10);
    reader.room = 0;
    for (const text of ['12345678\n', 'too long\n', '\n']) lines.write(text);
    reader.room = 1000;
    reader.later();
    expect(reader.text).toBe('12345678\nlost 2\n');
  });
});

describe('a line longer than all that is kept', () => {
  it('is written, and nothing is lost for it', () => {
    const { reader, lines } = world(10);
    lines.write(`${'x'.repeat(50)}\n`);
    lines.write('next\n');
    expect(reader.text).toBe(`${'x'.repeat(50)}\nnext\n`);
  });
});

describe('the end of the process', () => {
  it('waits for a slow reader, as often as it takes something', () => {
    const { reader, lines } = world(1000);
    reader.room = 0;
    for (let i = 0; i < 5; i++) lines.write(`line${i}\n`);
    reader.roomAfterWait = 10;
    lines.end();
    expect(reader.text).toBe('line0\nline1\nline2\nline3\nline4\n');
    expect(reader.waits).toBe(3);
  });

  it('does not wait for one that takes nothing, nor where waiting is of no use', () => {
    const { reader, lines } = world(1000);
    reader.room = 0;
    lines.write('line\n');
    lines.end();
    expect(reader.waits).toBe(1);
    reader.errno = ERRNO.ENOSPC;
    lines.end();
    expect(reader.waits).toBe(1);
    lines.end(0);
    expect(reader.text).toBe('');
  });
});

describe('the log', () => {
  it('tells what was lost as a line of its own', () => {
    const { reader, lines } = world(10);
    const log = createLogger('info', lines, false);
    reader.room = 0;
    for (const message of ['one', 'two', 'three']) log.info(message);
    log.debug('not counted');
    reader.room = 10_000;
    reader.later();
    expect(JSON.parse(reader.text.split('\n')[1])).toMatchObject({
      level: 'warn',
      lostLines: 2,
      msg: 'lines of this log were lost: nobody read them',
    });
  });

  const PEER = 'vm\u001b[2J\u009b1m\n{"level":"fatal"}\u202e\u2028\ud800 ümlaut';
  const SHOWN = 'vm\\x1b[2J\\x9b1m\\x0a{"level":"fatal"}\\u202e\\u2028\\ud800 ümlaut';

  it('shows what a peer made up as text, in JSON', () => {
    const { reader, lines } = world(10_000);
    createLogger('info', lines, false).info({ port: PEER }, `said ${PEER}`);
    expect(JSON.parse(reader.text)).toMatchObject({ port: SHOWN, msg: `said ${SHOWN}` });
    expect(reader.text).toMatch(/^[\x20-\x7e\u00a0-\u2027]*\n$/);
  });

  it('and on a terminal', () => {
    const { reader, lines } = world(10_000);
    createLogger('info', lines, true).warn({ port: PEER }, `said ${PEER}`);
    expect(reader.text).toContain(`said ${SHOWN}`);
    expect(reader.text).not.toContain('\u001b[2J');
    expect(reader.text).not.toMatch(/[\u0080-\u009f\u202e\u2028]/);
  });
});
