/** The file of ring records: what of it is believed by whom, how it grows, and what may happen to it while it is used. */
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type PortRecords, RingRecords } from '../../src/device/ring-records.ts';
import { RECORD_BYTES, STAND } from '../../src/vring/ring-record.ts';
import { arena, arenaView } from './world.ts';

const BOOT = '01234567-89ab-cdef-0123-456789abcdef';
const HEADER_BYTES = 4096;

let folder = '';
let path = '';
const opened: RingRecords[] = [];
/** What the last one that was opened had to say. */
let said: string[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-records-'));
  path = join(folder, 'ringway.positions');
});
afterEach(() => {
  for (const records of opened.splice(0)) records.close();
  rmSync(folder, { recursive: true, force: true });
});

function open(bootId = BOOT): RingRecords {
  said = [];
  const warn = (text: string): void => void said.push(text.replace(`${path}: `, ''));
  const records = new RingRecords(path, arena, arenaView, { info: () => {}, warn }, bootId);
  opened.push(records);
  return records;
}

const NOT_USED = 'ring positions of before are not used: ';
const NOT_KEPT = 'ring positions are not kept, and packed rings will not survive a kill: ';

/** The process is gone, without a word. */
function kill(records: RingRecords): void {
  const bytes = readFileSync(path);
  records.close();
  opened.splice(opened.indexOf(records), 1);
  writeFileSync(path, bytes, { mode: 0o600 });
}

const RING = {
  queueIndex: 1,
  layout: 'packed',
  size: 256,
  place: '26:4294967301:73728',
  base: 0x8000_8000,
  isFromGuest: true,
  inOrder: true,
} as const;

function begin(port: PortRecords, queueIndex = 1, position = 0x8007): Int32Array {
  const record = port.begin({ ...RING, queueIndex }, position);
  if (record === null) throw new Error('there is room');
  return record.standing.words;
}

describe('a record', () => {
  it('is there for the next process, as the ring was left', () => {
    const first = open();
    begin(first.ofPort('vm0'))[STAND] = 0x0009;
    begin(first.ofPort('vm1'), 0);
    kill(first);
    const second = open();
    expect(said).toEqual([]);
    const runs = second.ofPort('vm0').lastRuns();
    expect([...runs.keys()]).toEqual([1]);
    const { layout, size, place, base } = RING;
    expect(runs.get(1)).toMatchObject({ layout, size, place, base, indices: null });
    expect(runs.get(1)?.interrupted).toMatchObject({ size, isFromGuest: true, inOrder: true });
    expect(runs.get(1)?.interrupted?.standing.words[STAND]).toBe(0x0009);
    expect([...second.ofPort('vm1').lastRuns().keys()]).toEqual([0]);
    expect(second.ofPort('vm2').lastRuns().size).toBe(0);
  });

  it('stays while its ring is not taken up, however often the process ends', () => {
    let records = open();
    begin(records.ofPort('vm0'));
    for (let end = 0; end < 3; end++) {
      kill(records);
      records = open();
      begin(records.ofPort('vm1'), end);
    }
    expect(records.ofPort('vm0').lastRuns().size).toBe(1);
    expect(records.ofPort('vm1').lastRuns().size).toBe(3);
  });

  it('is gone when the front-end was told where the ring stands', () => {
    const records = open();
    const port = records.ofPort('vm0');
    begin(port);
    port.forget(1);
    expect(port.lastRuns().size).toBe(0);
    begin(port);
    port.release();
    expect(records.ofPort('vm0').lastRuns().size).toBe(1);
  });

  it('is the same one for the same ring, and another for another ring of that number', () => {
    const port = open().ofPort('vm0');
    const words = begin(port, 1, 0x8001);
    expect(begin(port, 1, 0x8002)).toBe(words);
    expect(port.begin({ ...RING, place: '26:9:0' }, 0x8000)?.standing.words).toBe(words);
    expect(port.lastRuns().get(1)?.place).toBe('26:9:0');
  });

  it('that was being written is not believed', () => {
    const records = open();
    begin(records.ofPort('vm0'));
    kill(records);
    const bytes = readFileSync(path);
    // A size that no checksum goes with.
    bytes.writeInt32LE(128, HEADER_BYTES + 4 * 4);
    writeFileSync(path, bytes);
    expect(open().ofPort('vm0').lastRuns().size).toBe(0);
  });

  it('is found for more rings than the file had room for', () => {
    const records = open();
    for (let port = 0; port < 40; port++)
      for (let ring = 0; ring < 4; ring++) begin(records.ofPort(`vm${port}`), ring);
    expect(statSync(path).size).toBe(HEADER_BYTES + 192 * RECORD_BYTES);
    kill(records);
    const again = open();
    for (let port = 0; port < 40; port++) expect(again.ofPort(`vm${port}`).lastRuns().size).toBe(4);
  });

  it('of a port that is not there any more goes when there are too many of them, the oldest first', () => {
    const records = open();
    const kept = records.ofPort('kept');
    begin(kept);
    for (let number = 0; number < 1100; number++) {
      const port = records.ofPort(`vm${number}`);
      begin(port);
      port.release();
    }
    expect(statSync(path).size).toBeLessThanOrEqual(HEADER_BYTES + 1088 * RECORD_BYTES);
    expect(kept.lastRuns().size).toBe(1);
    expect(records.ofPort('vm0').lastRuns().size).toBe(0);
    expect(records.ofPort('vm1099').lastRuns().size).toBe(1);
  });
});

describe('the file', () => {
  const changed = (bytes: Buffer, change: () => unknown): Buffer => {
    change();
    return bytes;
  };
  const damaged = (change: (bytes: Buffer) => Buffer): string | null => {
    const records = open();
    begin(records.ofPort('vm0'));
    kill(records);
    writeFileSync(path, change(readFileSync(path)));
    const again = open();
    const [why = null] = said;
    expect(again.ofPort('vm0').lastRuns().size).toBe(why === null ? 1 : 0);
    begin(again.ofPort('vm0'));
    kill(again);
    // It was begun anew, and is good for the next one.
    const third = open();
    expect(said).toEqual([]);
    expect(third.ofPort('vm0').lastRuns().size).toBe(1);
    return why;
  };

  it.each<[string, (bytes: Buffer) => Buffer, string | null]>([
    ['nothing is wrong with', (bytes) => bytes, null],
    [
      'is of another format',
      (bytes) => changed(bytes, () => bytes.writeUInt32LE(9, 8)),
      'it was written in format 9, and this is 1',
    ],
    ['is of something else', (bytes) => changed(bytes, () => bytes.fill('x', 0, 8)), 'it is no such file'],
    [
      'has another beginning',
      (bytes) => changed(bytes, () => bytes.writeUInt8(1, 20)),
      'its beginning is not whole',
    ],
    ['has half a beginning', (bytes) => bytes.subarray(0, 100), 'its beginning is not whole'],
    ['has half an end', (bytes) => bytes.subarray(0, bytes.length - 7), 'its end is not whole'],
  ])('that %s it', (_what, change, why) => {
    expect(damaged(change)).toBe(why === null ? null : NOT_USED + why);
  });

  it('of before the machine was started is not believed', () => {
    const records = open();
    begin(records.ofPort('vm0'));
    kill(records);
    const other = open('fedcba98-89ab-cdef-0123-456789abcdef');
    expect(said).toEqual([`${NOT_USED}it is of before this machine was started`]);
    expect(other.ofPort('vm0').lastRuns().size).toBe(0);
  });

  it('is used by one process at a time', () => {
    begin(open().ofPort('vm0'));
    const other = open().ofPort('vm0');
    expect(said).toEqual([`${NOT_KEPT}another process uses it`]);
    expect(other.lastRuns().size).toBe(0);
    expect(other.begin(RING, 0)).toBeNull();
  });

  it.each<[string, () => void, RegExp]>([
    ['a link', () => symlinkSync('/dev/null', path), /ELOOP/],
    [
      'a folder',
      () => {
        path = folder;
      },
      /EISDIR/,
    ],
    [
      'for others to write',
      () => {
        writeFileSync(path, '');
        chmodSync(path, 0o666);
      },
      /others may write to it/,
    ],
    [
      'in a folder that is not there',
      () => {
        path = join(folder, 'no', 'x');
      },
      /ENOENT/,
    ],
  ])('is not used when it is %s', (_what, prepare, why) => {
    prepare();
    const port = open().ofPort('vm0');
    expect(port.lastRuns().size).toBe(0);
    expect(port.begin(RING, 0x8000)).toBeNull();
    expect(port.begin(RING, 0x8000)).toBeNull();
    expect(said).toHaveLength(1);
    expect(said[0]).toMatch(why);
  });

  it('is not made before a ring needs it', () => {
    const port = open().ofPort('vm0');
    port.forget(1);
    expect(existsSync(path)).toBe(false);
    begin(port);
    expect(existsSync(path)).toBe(true);
  });

  it('is not left behind when there is nothing in it', () => {
    const records = open();
    const port = records.ofPort('vm0');
    begin(port);
    port.forget(1);
    records.close();
    opened.pop();
    expect(existsSync(path)).toBe(false);
  });

  it('may be cut short while it is used: what is in it is lost, and no more', () => {
    const words = begin(open().ofPort('vm0'));
    truncateSync(path, 0);
    words[STAND] = 5;
    expect(words[STAND]).toBe(5);
  });
});
