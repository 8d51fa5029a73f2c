/** A note file at each moment at which its process may come to its end. */
import { fstatSync, readSync, writeSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { closeFds, duplicateFd } from '../../../src/host/descriptor.ts';
import { createMemoryFile } from '../../../src/host/mapping.ts';
import { NoteFile } from '../../../switch/service/note-file.ts';
import { Random } from '../../vring/random.ts';

const HEAD_BYTES = 36;
const STATE_OFFSET = 12;
const closing: (() => unknown)[] = [];
afterEach(() => {
  for (const close of closing.splice(0).reverse()) close();
});

function created(): NoteFile {
  const file = NoteFile.create();
  closing.push(() => file.close());
  return file;
}

/** As the next process finds it. */
function found(fd: number): { state: string; text: string | null } | string {
  const own = duplicateFd(fd);
  closing.push(() => closeFds([own]));
  const file = NoteFile.open(own);
  return typeof file === 'string' ? file : { state: file.state, text: file.text };
}

function contentOf(fd: number): Buffer {
  const bytes = Buffer.alloc(fstatSync(fd).size);
  readSync(fd, bytes, 0, bytes.length, 0);
  return bytes;
}

describe('a note file', () => {
  it('has no text first, and then the last one', () => {
    const file = created();
    expect(found(file.fd)).toEqual({ state: 'empty', text: null });
    file.mark('outdated');
    expect(found(file.fd)).toEqual({ state: 'empty', text: null });
    for (const text of ['one', 'another, which is longer', 'two']) {
      file.write(text);
      expect(found(file.fd)).toEqual({ state: 'holds', text });
      file.mark('outdated');
      expect(found(file.fd)).toEqual({ state: 'outdated', text });
      file.write(text);
      expect(found(file.fd)).toEqual({ state: 'holds', text });
    }
    file.mark('over');
    expect(found(file.fd)).toEqual({ state: 'over', text: 'two' });
  });

  it('goes on in the process that it is left to, whatever it was marked as until then', () => {
    for (const last of ['holds', 'outdated'] as const) {
      const file = created();
      file.write('text');
      const adopted = NoteFile.adopt(file.fd) as NoteFile;
      if (last === 'outdated') file.mark('outdated');
      file.leaveTo({ pid: 7, startTicks: 8 });
      expect(found(file.fd)).toEqual({ state: last, text: 'text' });
      expect((NoteFile.open(file.fd) as NoteFile).successor).toEqual({ pid: 7, startTicks: 8 });
      const next = last === 'holds' ? 'outdated' : 'holds';
      if (next === 'outdated') adopted.mark('outdated');
      else adopted.write('text');
      expect(found(file.fd)).toEqual({ state: next, text: 'text' });
      adopted.write('its own');
      expect(found(file.fd)).toEqual({ state: 'holds', text: 'its own' });
      expect((NoteFile.open(file.fd) as NoteFile).successor).toBeNull();
    }
  });

  it.each([1, 2, 3])('has the old text until the new one is whole: seed %i', (seed) => {
    const random = new Random(seed);
    const file = created();
    let before = 'first';
    file.write(before);
    for (let round = 0; round < 50; round++) {
      file.mark('outdated');
      const head = contentOf(file.fd).subarray(0, HEAD_BYTES);
      const text = String(round).padEnd(random.between(1, 20_000), '.');
      file.write(text);
      // All that was written before the head: the process came to its end there.
      const after = contentOf(file.fd);
      head.copy(after);
      const copy = createMemoryFile('copy', 0);
      closing.push(() => closeFds([copy]));
      writeSync(copy, after, 0, after.length, 0);
      expect(found(copy)).toEqual({ state: 'outdated', text: before });
      expect(found(file.fd)).toEqual({ state: 'holds', text });
      before = text;
    }
    expect(fstatSync(file.fd).size).toBeLessThan(4096 + 4 * 20_000);
  });

  it('counts who began with it, until it is written', () => {
    const file = created();
    file.write('text');
    for (const times of [1, 2]) {
      const next = NoteFile.open(file.fd);
      if (typeof next === 'string') throw new Error(next);
      expect(next.countBegun()).toBe(times);
    }
    const next = NoteFile.open(file.fd);
    if (typeof next === 'string') throw new Error(next);
    expect(next.countBegun()).toBe(3);
    next.write('text');
    expect(next.countBegun()).toBe(1);
    next.write('other');
    expect(next.countBegun()).toBe(1);
  });

  it('is refused by name where it is none, or not whole', () => {
    const other = createMemoryFile('other', 4096);
    closing.push(() => closeFds([other]));
    expect(found(other)).toBe('it is no note');
    const breaks: [number, string][] = [
      [8, 'it is in format 7, and this Ringway knows 1'],
      [STATE_OFFSET, 'its head is not whole'],
      [20, 'its head is not whole'],
      [28, 'its head is not whole'],
      [4097, 'its text is not whole'],
    ];
    for (const [offset, why] of breaks) {
      const file = created();
      file.write('text');
      writeSync(file.fd, Uint8Array.of(7), 0, 1, offset);
      expect(found(file.fd)).toBe(why);
    }
  });
});
