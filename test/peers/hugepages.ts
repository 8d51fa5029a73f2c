/**
 * Hugepages of 2 MiB for one test: raises the kernel's count by what the test asks for and mounts a hugetlbfs of
 * just that size on a fresh folder. Every caller adds its own pages, so tests that run at once do not take each
 * other's. Needs root.
 * Owns: its mount and the pages it added, until `release()` or the end of the process.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runProgram } from './child.ts';
import { withFileLock } from './file-lock.ts';

const poolFolder = '/sys/kernel/mm/hugepages/hugepages-2048kB';
const lockPath = '/run/ringway-hugepages.lock';
const lockTimeoutMs = 60_000;

export interface Hugepages {
  /** The mounted hugetlbfs. */
  path: string;
  /** Unmounts it, removes the folder and gives the pages back. End the users of the pages before. */
  release(): Promise<void>;
}

export interface HugepagesOptions {
  /** Default true: the mount reserves its pages, so that nobody else takes them. QEMU and DPDK both accept it. */
  reserve?: boolean;
}

/** Returns a mounted hugetlbfs with `count` pages of 2 MiB, or why there is none, in one plain sentence. */
export async function takeHugepages(
  count: number,
  options: HugepagesOptions = {},
): Promise<Hugepages | { unavailable: string }> {
  if (process.getuid?.() !== 0)
    return { unavailable: 'Hugepages need root, to raise their number and to mount.' };
  let added = 0;
  let folder: string | undefined;
  try {
    added = await withFileLock(lockPath, lockTimeoutMs, async () => raisePool(count));
    if (added < count) throw new Error(`the kernel gave ${added} of ${count} hugepages`);
    folder = await mkdtemp(join(tmpdir(), 'ringway-hugepages-'));
    await mount(folder, count, options.reserve ?? true);
    return heldPages(folder, count);
  } catch (error) {
    if (folder !== undefined) await rmdir(folder).catch(() => {});
    if (added > 0) await withFileLock(lockPath, lockTimeoutMs, async () => lowerPool(added));
    return { unavailable: `Hugepages are not to be had: ${(error as Error).message}.` };
  }
}

async function mount(folder: string, count: number, reserve: boolean): Promise<void> {
  const size = `size=${count * 2}M${reserve ? `,min_size=${count * 2}M` : ''}`;
  const line = ['-t', 'hugetlbfs', '-o', `pagesize=2M,${size}`, 'hugetlbfs', folder];
  const { code, output } = await runProgram('mount', line);
  if (code !== 0) throw new Error(`mount said: ${output.trim()}`);
}

function heldPages(folder: string, count: number): Hugepages {
  let released = false;
  const atExit = (): void => {
    // The lock would need another process and some time; at exit, the small risk of a lost update is taken.
    spawnSync('umount', ['-l', folder]);
    lowerPool(count);
    rmdirSync(folder);
  };
  process.on('exit', atExit);
  return {
    path: folder,
    release: async () => {
      if (released) return;
      released = true;
      process.off('exit', atExit);
      const { code, output } = await runProgram('umount', [folder]);
      if (code !== 0) await runProgram('umount', ['-l', folder]);
      await withFileLock(lockPath, lockTimeoutMs, async () => lowerPool(count));
      await rmdir(folder);
      if (code !== 0) throw new Error(`the hugepages were still in use: ${output.trim()}`);
    },
  };
}

/** Adds `count` pages to the pool; returns how many it got. */
function raisePool(count: number): number {
  const before = poolNumber('nr_hugepages');
  writeFileSync(`${poolFolder}/nr_hugepages`, String(before + count));
  return poolNumber('nr_hugepages') - before;
}

/** Takes `count` pages out of the pool, as far as they are neither in use nor reserved. */
function lowerPool(count: number): void {
  const total = poolNumber('nr_hugepages');
  const spare = poolNumber('free_hugepages') - poolNumber('resv_hugepages');
  writeFileSync(`${poolFolder}/nr_hugepages`, String(total - Math.max(0, Math.min(count, spare))));
}

function poolNumber(name: string): number {
  return Number(readFileSync(`${poolFolder}/${name}`, 'utf8'));
}
