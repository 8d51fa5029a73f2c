/** Whether a process shares its memory: sample texts of /proc/PID/maps, and real processes. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { closeFd, fileFacts } from '../../src/host/descriptor.ts';
import { createMemoryFile, mapFile, releaseAddressSpace } from '../../src/host/mapping.ts';
import { type FileId, mapsPrivately, SharingScan } from '../../src/memory/sharing.ts';

const MAPS = `55d0c0a00000-55d0c0a21000 r--p 00000000 fe:01 1835021                    /usr/bin/qemu-system-x86_64
7f1a00000000-7f1a40000000 rw-s 00000000 00:0f 91234                      /dev/hugepages/qemu_back_mem.mem.x (deleted)
7f1a40000000-7f1a80000000 rw-p 00000000 00:01 2053                       /memfd:ram (deleted)
7f1a80000000-7f1a80001000 rw-p 00000000 00:01 20                         /memfd:other
7f1a80001000-7f1a80002000 rw-s 00001000 00:01 20                         /memfd:other
7f1a90000000-7f1a90001000 rw-p 00000000 00:00 0
7f1aa0000000-7f1aa0001000 rw-p 00000000 103:15 77                        /mnt/a b
7f1ab0000000-7f1ab0001000 rw-p 00000000 08:f0001 78                     /mnt/big minor`;

/** As fstat gives it. */
const device = (major: number, minor: number): number =>
  (minor & 0xff) + major * 256 + Math.floor(minor / 256) * 2 ** 20;

const scanned = (files: readonly FileId[], text: string, pieceChars = text.length): boolean => {
  const scan = new SharingScan(files);
  for (let at = 0; at < text.length; at += pieceChars) scan.feed(text.slice(at, at + pieceChars));
  return scan.finish();
};

describe('a scan', () => {
  it.each([
    ['a shared mapping', device(0, 0x0f), 91_234, false],
    ['a private mapping', device(0, 1), 2053, true],
    ['a private and a shared one', device(0, 1), 20, false],
    ['the same inode on another device', device(0, 2), 2053, false],
    ['an inode whose number only begins alike', device(0, 1), 205, false],
    ['a large major number', device(0x103, 0x15), 77, true],
    ['a minor number over 255, on the last line', device(8, 0xf_0001), 78, true],
    ['a file that is not mapped', device(0, 0x0f), 1, false],
  ])('sees %s, in whatever pieces the text comes', (_what, deviceNumber, inode, isPrivate) => {
    const files = [{ device: deviceNumber, inode }];
    for (const pieceChars of [1, 7, 100, MAPS.length])
      expect(scanned(files, MAPS, pieceChars)).toBe(isPrivate);
  });

  it('sees one private file among several', () => {
    const files = [
      { device: device(0, 0x0f), inode: 91_234 },
      { device: device(0, 1), inode: 2053 },
    ];
    expect(scanned(files, MAPS)).toBe(true);
    expect(scanned(files.slice(0, 1), MAPS)).toBe(false);
  });

  it('is done once all files were seen shared', () => {
    const scan = new SharingScan([{ device: device(0, 0x0f), inode: 91_234 }]);
    const [first, second] = MAPS.split('\n');
    scan.feed(`${first}\n`);
    expect(scan.isDone).toBe(false);
    scan.feed(`${second}\n`);
    expect(scan.isDone).toBe(true);
  });

  it('knows nothing from no text', () => expect(scanned([{ device: 1, inode: 1 }], '')).toBe(false));
});

describe('mapsPrivately', () => {
  const { signal } = new AbortController();

  it('is false of a file that this process shares, or does not map', async () => {
    const fd = createMemoryFile('x', 8192);
    const files = [fileFacts(fd)];
    expect(await mapsPrivately(process.pid, files, signal)).toBe(false);
    const address = mapFile(8192, fd, 'testing');
    expect(await mapsPrivately(process.pid, files, signal)).toBe(false);
    releaseAddressSpace(address, 8192);
    closeFd(fd);
  });

  it('is true of a file that another process maps privately', async () => {
    // Every process maps the program that it runs copy-on-write.
    const child = spawn('cat', { stdio: ['pipe', 'pipe', 'ignore'] });
    try {
      child.stdin.write('x');
      await once(child.stdout, 'data');
      const { dev, ino } = statSync(`/proc/${child.pid}/exe`);
      expect(await mapsPrivately(child.pid!, [{ device: dev, inode: ino }], signal)).toBe(true);
    } finally {
      child.kill();
      await once(child, 'exit');
    }
  });

  it('is false of a process that does not exist', async () => {
    expect(await mapsPrivately(2 ** 22 + 1, [{ device: 1, inode: 1 }], signal)).toBe(false);
  });
});
