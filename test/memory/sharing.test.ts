/** Whether a process shares its memory: sample texts of /proc/PID/maps, and real processes. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { closeFd, fileFacts } from '../../src/host/descriptor.ts';
import { createMemoryFile, mapFile, releaseAddressSpace } from '../../src/host/mapping.ts';
import { sharingInMaps, sharingOfFile } from '../../src/memory/sharing.ts';

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

describe('sharingInMaps', () => {
  it.each([
    ['a shared mapping', device(0, 0x0f), 91_234, 'shared'],
    ['a private mapping', device(0, 1), 2053, 'private'],
    ['a private and a shared one', device(0, 1), 20, 'shared'],
    ['the same inode on another device', device(0, 2), 2053, 'unknown'],
    ['an inode whose number only begins alike', device(0, 1), 205, 'unknown'],
    ['a large major number', device(0x103, 0x15), 77, 'private'],
    ['a minor number over 255', device(8, 0xf_0001), 78, 'private'],
    ['a file that is not mapped', device(0, 0x0f), 1, 'unknown'],
  ])('finds %s', (_what, deviceNumber, inode, expected) => {
    expect(sharingInMaps(MAPS, deviceNumber, inode)).toBe(expected);
  });

  it('knows nothing from no text', () => expect(sharingInMaps('', 1, 1)).toBe('unknown'));
});

describe('sharingOfFile', () => {
  it('sees a shared mapping of this process', () => {
    const fd = createMemoryFile('x', 8192);
    const { device: deviceNumber, inode } = fileFacts(fd);
    expect(sharingOfFile(process.pid, deviceNumber, inode)).toBe('unknown');
    const address = mapFile(8192, fd, 'testing');
    expect(sharingOfFile(process.pid, deviceNumber, inode)).toBe('shared');
    releaseAddressSpace(address, 8192);
    expect(sharingOfFile(process.pid, deviceNumber, inode)).toBe('unknown');
    closeFd(fd);
  });

  it('sees a private mapping of another process', async () => {
    // Every process maps the program that it runs copy-on-write.
    const child = spawn('cat', { stdio: ['pipe', 'pipe', 'ignore'] });
    try {
      child.stdin.write('x');
      await once(child.stdout, 'data');
      const { dev, ino } = statSync(`/proc/${child.pid}/exe`);
      expect(sharingOfFile(child.pid!, dev, ino)).toBe('private');
    } finally {
      child.kill();
      await once(child, 'exit');
    }
  });

  it('knows nothing of a process that does not exist', () => {
    expect(sharingOfFile(2 ** 22 + 1, 1, 1)).toBe('unknown');
  });
});
