/** Guest memory: what is accepted and refused, where it lies, and what unmapping leaves. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { MemRegion } from '../../protocol/vhost-user/codec.ts';
import { busFaults } from '../../src/host/bus-faults.ts';
import { closeFd, createEventFd } from '../../src/host/descriptor.ts';
import { HostError } from '../../src/host/errors.ts';
import { MemoryError } from '../../src/memory/peer-mapping.ts';
import { UVA_BASE } from './guest-file.ts';
import { arena, file, GIB, locate, MIB, memory, PAGE, remove, view } from './memory-world.ts';

describe('GuestMemory', () => {
  it('shows the file at the guest and the user address', () => {
    const guest = file(16 * PAGE);
    guest.write(5 * PAGE + 3, [11, 22, 33]);
    memory.add(guest.region({ gpa: 0x10_0000n }), guest.fd);
    const offset = locate(memory.gpaMap(), 0x10_0000 + 5 * PAGE + 3, 3);
    expect([...view.bytesAt(offset, 3)]).toEqual([11, 22, 33]);
    expect(memory.offsetOfUva(UVA_BASE + BigInt(5 * PAGE + 3), 3)).toBe(offset);
    view.u8[offset] = 99;
    expect([...guest.read(5 * PAGE + 3, 3)]).toEqual([99, 22, 33]);
    expect(memory.sizeBytes).toBe(16 * PAGE);
  });

  it('lays neighbouring regions side by side, so that a buffer may cross from one to the next', () => {
    const guest = file(4 * MIB);
    memory.add(guest.region({ sizeBytes: BigInt(MIB) }), guest.fd);
    memory.add(
      guest.region({
        gpa: BigInt(MIB),
        uva: UVA_BASE + BigInt(MIB),
        sizeBytes: BigInt(3 * MIB),
        mmapOffset: BigInt(MIB),
      }),
      guest.fd,
    );
    expect(memory.gpaMap()).toEqual([{ start: 0, end: 4 * MIB, arenaOffset: memory.regions[0].arenaOffset }]);
    expect(locate(memory.gpaMap(), MIB - 10, 20)).toBeGreaterThanOrEqual(0);
    expect(memory.offsetOfUva(UVA_BASE + BigInt(MIB - 10), 20)).not.toBeNull();
  });

  it('does not pretend that neighbours by guest address are neighbours by user address', () => {
    const guest = file(2 * MIB);
    memory.add(guest.region({ sizeBytes: BigInt(MIB) }), guest.fd);
    memory.add(
      guest.region({
        gpa: BigInt(MIB),
        uva: UVA_BASE + BigInt(8 * MIB),
        sizeBytes: BigInt(MIB),
        mmapOffset: BigInt(MIB),
      }),
      guest.fd,
    );
    expect(memory.gpaMap()).toHaveLength(1);
    expect(memory.offsetOfUva(UVA_BASE + BigInt(MIB - 10), 20)).toBeNull();
    expect(memory.offsetOfUva(UVA_BASE + BigInt(MIB - 10), 10)).not.toBeNull();
  });

  it('maps a guest of 6 GiB with its hole below 4 GiB', () => {
    const guest = file(6 * GIB);
    guest.write(3 * GIB - 1, [1]);
    guest.write(3 * GIB, [2]);
    guest.write(6 * GIB - 1, [3]);
    memory.add(guest.region({ sizeBytes: BigInt(3 * GIB) }), guest.fd);
    memory.add(
      guest.region({
        gpa: BigInt(4 * GIB),
        uva: UVA_BASE + BigInt(3 * GIB),
        sizeBytes: BigInt(3 * GIB),
        mmapOffset: BigInt(3 * GIB),
      }),
      guest.fd,
    );
    const map = memory.gpaMap();
    const byteAt = (gpa: number) => view.u8[locate(map, gpa, 1)];
    expect([byteAt(3 * GIB - 1), byteAt(4 * GIB), byteAt(7 * GIB - 1)]).toEqual([1, 2, 3]);
    // The hole, and buffers that reach into it or wrap around.
    for (const [gpa, sizeBytes] of [
      [3 * GIB, 1],
      [3 * GIB - 1, 2],
      [4 * GIB - 1, 1],
      [4 * GIB - 1, 2],
      [7 * GIB - 1, 2],
      [7 * GIB, 1],
      [2 ** 53, 1],
      [2 ** 64 - 2 ** 12, 2 ** 13],
      [3 * GIB - MIB + 1, MIB],
    ] as const) {
      expect(locate(map, gpa, sizeBytes), `${gpa} + ${sizeBytes}`).toBe(-1);
    }
    // By user address the halves are one.
    expect(memory.offsetOfUva(UVA_BASE + BigInt(3 * GIB - 1), 1)).not.toBeNull();
    expect(memory.offsetOfUva(2n ** 64n - 1n, 1)).toBeNull();
  });

  it.each([
    ['empty', { sizeBytes: 0n }, /is empty/],
    [
      'a byte longer than its file',
      { sizeBytes: BigInt(4 * PAGE + 1) },
      /needs 16385 bytes; its file has 16384/,
    ],
    ['beyond its file by the mmap offset', { mmapOffset: 1n }, /needs 16385 bytes/],
    [
      'with mmap offset + size over 64 bits',
      { mmapOffset: 2n ** 64n - 4096n },
      /mmap offset .* is out of range/,
    ],
    ['with a size of 2^64 - 1', { sizeBytes: 2n ** 64n - 1n }, /out of range/],
    ['with a guest address that overflows', { gpa: 2n ** 64n - 4096n }, /guest address .* is out of range/],
    ['with a user address that overflows', { uva: 2n ** 64n - 1n }, /user address .* is out of range/],
  ])('refuses a region %s', (_what, but, message) => {
    const guest = file(4 * PAGE);
    expect(() => memory.add(guest.region(but), guest.fd)).toThrow(message);
    expect(() => memory.add(guest.region(but), guest.fd)).toThrow(MemoryError);
    expect(memory.regions).toEqual([]);
  });

  it.each([
    ['guest addresses', { uva: UVA_BASE + 0x10_0000n }],
    ['user addresses', { gpa: 0x10_0000n }],
    ['guest addresses from above', { gpa: 0x5000n, uva: UVA_BASE + 0x10_0000n }],
    ['guest addresses from below', { gpa: 0n, uva: UVA_BASE + 0x10_0000n }],
    ['user addresses from below', { gpa: 0x10_0000n, uva: UVA_BASE - 0x3fffn }],
  ])('refuses overlapping %s', (_what, but) => {
    const guest = file(4 * PAGE);
    memory.add(guest.region({ gpa: 0x2000n }), guest.fd);
    expect(() => memory.add(guest.region({ gpa: 0x2000n, ...but }), guest.fd)).toThrow(/overlaps/);
    expect(memory.regions).toHaveLength(1);
  });

  it('takes regions that only touch', () => {
    const guest = file(4 * PAGE);
    const size = BigInt(4 * PAGE);
    memory.add(guest.region({ gpa: size, uva: UVA_BASE + size }), guest.fd);
    memory.add(guest.region(), guest.fd);
    memory.add(guest.region({ gpa: 2n * size, uva: UVA_BASE + 2n * size }), guest.fd);
    expect(memory.regions.map(({ gpa }) => gpa)).toEqual([0, 4 * PAGE, 8 * PAGE]);
  });

  it.each([
    ['an eventfd', () => createEventFd(), MemoryError],
    ['a folder', () => openSync('/', 'r'), MemoryError],
    ['a device', () => openSync('/dev/zero', 'r+'), MemoryError],
    ['an empty file of /proc', () => openSync('/proc/self/maps', 'r'), MemoryError],
  ])('refuses %s as memory', (_what, open, error) => {
    const region: MemRegion = { gpa: 0n, uva: UVA_BASE, sizeBytes: 4096n, mmapOffset: 0n };
    const fd = open();
    expect(() => memory.add(region, fd)).toThrow(error);
    closeFd(fd);
  });

  it('refuses a file that is open for reading only', () => {
    const folder = mkdtempSync(join(tmpdir(), 'ringway-memory-'));
    const path = join(folder, 'ram');
    const fd = openSync(path, 'w');
    ftruncateSync(fd, PAGE);
    closeSync(fd);
    const region: MemRegion = { gpa: 0n, uva: UVA_BASE, sizeBytes: 4096n, mmapOffset: 0n };
    const readable = openSync(path, 'r');
    expect(() => memory.add(region, readable)).toThrow(/mmap failed with EACCES \(permission denied\)/);
    closeFd(readable);
    rmSync(folder, { recursive: true });
  });

  it('leaves no hole in the arena when a file refuses to be mapped', () => {
    // A file of sysfs has a size and lets the kernel begin; only then does it say no.
    const fd = openSync('/sys/kernel/mm/transparent_hugepage/enabled', 'r+');
    const region: MemRegion = { gpa: 0n, uva: UVA_BASE, sizeBytes: 4096n, mmapOffset: 0n };
    expect(() => memory.add(region, fd)).toThrow(HostError);
    closeFd(fd);
    expect(holesIn(arena.location.address, arena.location.sizeBytes)).toEqual([]);
  });

  it('says that the arena is full', () => {
    const guest = file(65 * GIB);
    expect(() => memory.add(guest.region(), guest.fd)).toThrow(
      /no 69793218560 bytes left in the arena of 68719476736 bytes: raise the arena size/,
    );
    expect(() => memory.add(guest.region(), guest.fd)).toThrow(MemoryError);
  });

  it('seals a memory file only where its shrinking ends the process: sealing waits for who writes to it', () => {
    const guest = file(4 * PAGE);
    memory.add(guest.region(), guest.fd);
    if (busFaults() === null) expect(() => ftruncateSync(guest.fd, PAGE)).toThrow(/EPERM/);
    else ftruncateSync(guest.fd, PAGE);
  });

  it('keeps its mapping when the front-end closes its descriptors', () => {
    const guest = file(4 * PAGE);
    guest.write(0, [1, 2, 3]);
    memory.add(guest.region(), guest.fd);
    guest.close();
    expect([...view.bytesAt(locate(memory.gpaMap(), 0, 3), 3)]).toEqual([1, 2, 3]);
  });

  it('removes only what matches in guest address, user address and size', () => {
    const guest = file(4 * PAGE);
    memory.add(guest.region(), guest.fd);
    for (const but of [
      { gpa: 0x1000n },
      { uva: UVA_BASE + 1n },
      { sizeBytes: 0x1000n },
      { gpa: 2n ** 64n - 1n },
    ]) {
      expect(() => remove(guest.region(but))).toThrow(MemoryError);
    }
    expect(memory.regions).toHaveLength(1);
    // The offset within the file is no part of what identifies a region.
    remove(guest.region({ mmapOffset: 77n }));
    expect(memory.regions).toEqual([]);
    expect(() => remove(guest.region())).toThrow(/there is no region at 0x0 of 16384 bytes/);
  });

  it('leaves zeros where a region was, whatever is written there later', () => {
    const guest = file(4 * PAGE);
    guest.write(0, new Uint8Array(4 * PAGE).fill(0xaa));
    memory.add(guest.region(), guest.fd);
    const offset = locate(memory.gpaMap(), 0, 1);
    expect(view.u8[offset]).toBe(0xaa);
    remove(guest.region());
    expect(view.bytesAt(offset, 4 * PAGE)).toEqual(new Uint8Array(4 * PAGE));
    view.u8.fill(0x55, offset, offset + 4 * PAGE);
    expect(guest.read(0, 4 * PAGE)).toEqual(new Uint8Array(4 * PAGE).fill(0xaa));
    view.u8.fill(0, offset, offset + 4 * PAGE);
  });

  it('counts a region that is added again (QEMU before 8.1 does so for every queue pair)', () => {
    const guest = file(4 * PAGE);
    memory.add(guest.region(), guest.fd);
    memory.add(guest.region(), guest.fd);
    expect(memory.regions).toHaveLength(1);
    expect(arena.mappedBytes).toBe(4 * PAGE);
    remove(guest.region());
    expect(memory.regions).toHaveLength(1);
    remove(guest.region());
    expect(memory.regions).toEqual([]);
  });

  it('takes no other file for a region that it has', () => {
    const guest = file(4 * PAGE);
    const other = file(4 * PAGE);
    memory.add(guest.region(), guest.fd);
    expect(() => memory.add(other.region(), other.fd)).toThrow(/overlaps/);
  });
});

/** Parts of a range of addresses that nothing is mapped at, from /proc/self/maps. */
function holesIn(start: number, sizeBytes: number): string[] {
  const holes: string[] = [];
  let at = start;
  for (const line of readFileSync('/proc/self/maps', 'utf8').split('\n')) {
    const range = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line);
    if (range === null) continue;
    const [from, to] = [Number.parseInt(range[1], 16), Number.parseInt(range[2], 16)];
    if (to <= at || from >= start + sizeBytes) continue;
    if (from > at) holes.push(`${at.toString(16)}-${from.toString(16)}`);
    at = to;
  }
  return holes;
}
