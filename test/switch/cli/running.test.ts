/** The note by which `ringway ports` finds a running process, while somebody tidies up /tmp. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { recordRunning } from '../../../switch/cli/running.ts';

let folder: string;
let forget = () => {};

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-note-'));
});

afterEach(() => {
  forget();
  rmSync(folder, { recursive: true, force: true });
});

const notes = (): string[] => readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();

describe('the note of a running process', () => {
  const inFolder = `ringway-${process.getuid?.()}`;
  const note = `${inFolder}/${process.pid}.json`;

  it.each([
    ['the note', note],
    ['its folder', inFolder],
  ])('is left again when %s was removed, and goes with the process', async (_, what) => {
    forget = recordRunning('/x/c.sock', { TMPDIR: folder }, 5);
    expect(notes()).toEqual([inFolder, note]);
    rmSync(join(folder, what), { recursive: true });
    await vi.waitUntil(() => notes().length === 2, { interval: 1, timeout: 10_000 });
    expect(JSON.parse(readFileSync(join(folder, note), 'utf8'))).toEqual({
      pid: process.pid,
      control: '/x/c.sock',
    });
    forget();
    expect(notes()).toEqual([inFolder]);
  });
});
