/**
 * Memory of a guest that is not there when it is touched (SIGBUS): zeros are read, work goes on, the arena tells whose
 * it was and nobody else's is concerned; everything else ends the process as ever. What a port makes of it:
 * test/port/lost-memory.test.ts; with a whole switch: test/real/lost-memory.test.ts.
 */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { ARM64_LISTING, assemblyOf, machineCode, X64_LISTING } from '../../src/host/bus-fault-code.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { peersForTests } from '../peers/packages.ts';
import { Random } from '../vring/random.ts';
import type { Touch } from './faulting-thread.ts';
import { arena, file, MIB, memory, PAGE, remove, view } from './memory-world.ts';

// Made at the first use: not a leak of the test that happens to be first.
descriptorLoop();

const paths: string[] = [];
afterEach(() => {
  for (const path of paths.splice(0)) rmSync(path, { recursive: true });
});

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'ringway-losses-'));
  paths.push(path);
  return path;
}

/** A file that nobody can seal, as one region; answers its descriptor and where it lies in the arena. */
function addFile(sizeBytes: number, gpa = 0n): { fd: number; offset: number } {
  const path = join(folder(), 'ram');
  const fd = openSync(path, 'w+');
  ftruncateSync(fd, sizeBytes);
  const region = { gpa, uva: 0x7f00_0000_0000n + gpa, sizeBytes: BigInt(sizeBytes), mmapOffset: 0n };
  memory.add(region, fd);
  return { fd, offset: memory.regions.find((mapped) => mapped.gpa === Number(gpa))!.arenaOffset };
}

async function touch(touches: Omit<Touch, 'location' | 'barrier' | 'threads'>[]): Promise<number[]> {
  const common = { location: arena.location, barrier: new SharedArrayBuffer(4), threads: touches.length };
  const program = fileURLToPath(new URL('./faulting-thread.ts', import.meta.url));
  const workers = touches.map(
    (one) => new Worker(program, { workerData: { ...common, ...one } satisfies Touch }),
  );
  const exits = workers.map((worker) => once(worker, 'exit'));
  const sums = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0] as number));
  await Promise.all(exits);
  return sums;
}

describe('memory that is not there', () => {
  it('reads as zeros, takes writes and copies, and is told of', async () => {
    const guest = addFile(3 * MIB);
    const whole = file(MIB);
    memory.add(whole.region({ gpa: 0x4000_0000n, uva: 0x1000_0000n }), whole.fd);
    const other = memory.regions[1]!.arenaOffset;
    whole.write(0, [7, 8, 9]);
    view.u8[guest.offset] = 5;
    const told = new Promise<void>((resolve) => {
      const watch = arena.watchLosses(() => {
        watch.close();
        resolve();
      });
    });
    ftruncateSync(guest.fd, 0);
    expect(memory.lostRegion).toBeNull();
    expect(view.u8[guest.offset]).toBe(0);
    view.u8[guest.offset + 5 * PAGE] = 6;
    expect(view.u8[guest.offset + 5 * PAGE]).toBe(6);
    // A copy out of it and one into it: the second lies in another unit of 2 MiB.
    view.u8.copyWithin(other, guest.offset, guest.offset + 2);
    view.u8.copyWithin(guest.offset + 2.5 * MIB, other, other + 3);
    expect([...whole.read(0, 3)]).toEqual([0, 0, 9]);
    expect([...view.bytesAt(guest.offset + 2.5 * MIB, 3)]).toEqual([0, 0, 9]);
    expect(memory.lostRegion?.gpa).toBe(0);
    expect(arena.wasLost(other, MIB)).toBe(false);
    await told;
    closeSync(guest.fd);
  });

  it('is forgotten when it is unmapped, and what comes there next is well', () => {
    const first = addFile(PAGE);
    ftruncateSync(first.fd, 0);
    expect(view.u8[first.offset]).toBe(0);
    expect(memory.lostRegion).not.toBeNull();
    memory.clear();
    const next = addFile(PAGE);
    expect(next.offset).toBe(first.offset);
    view.u8[next.offset] = 3;
    expect(memory.lostRegion).toBeNull();
    for (const { fd } of [first, next]) closeSync(fd);
  });

  it('may share 2 MiB with what stays when it is removed, which is still covered then', () => {
    const guests = [addFile(PAGE), addFile(PAGE, BigInt(PAGE)), addFile(PAGE, BigInt(2 * PAGE))];
    expect(guests.map(({ offset }) => offset - guests[0]!.offset)).toEqual([0, PAGE, 2 * PAGE]);
    const { gpa, uva, sizeBytes } = memory.regions[1]!;
    remove({ gpa: BigInt(gpa), uva: BigInt(uva), sizeBytes: BigInt(sizeBytes), mmapOffset: 0n });
    ftruncateSync(guests[2]!.fd, 0);
    expect(view.u8[guests[2]!.offset]).toBe(0);
    expect(memory.lostRegion).not.toBeNull();
    for (const { fd } of guests) closeSync(fd);
  });

  it.each([
    ['the same pages', 0, PAGE],
    ['different pages of the same units', PAGE, 8 * PAGE],
    ['far apart', 16 * MIB, PAGE],
  ])('is met by several threads at once: %s', async (_what, apartBytes, strideBytes) => {
    const guest = addFile(128 * MIB);
    ftruncateSync(guest.fd, 0);
    const touches = [0, 1, 2, 3, 4, 5].map((n) => ({
      offset: guest.offset + n * apartBytes,
      sizeBytes: 16 * MIB,
      strideBytes,
    }));
    expect(await touch(touches)).toEqual([0, 0, 0, 0, 0, 0]);
    expect(arena.wasLost(guest.offset, 128 * MIB)).toBe(true);
    closeSync(guest.fd);
  });

  it('is met at random, part by part, beside what is there (seeded)', () => {
    const random = new Random(9);
    const guests = [0, 1, 2, 3].map((n) =>
      addFile((random.between(1, 2000) * 7 + 1) * PAGE, BigInt(n) << 32n),
    );
    const lost = guests.filter(() => random.chance(50));
    for (const { fd } of lost) ftruncateSync(fd, 0);
    for (let round = 0; round < 2000; round++) {
      const at = random.between(0, 3);
      const { sizeBytes } = memory.regions[at]!;
      const offset = guests[at]!.offset + random.between(0, sizeBytes - 1);
      view.u8[offset] = round & 0xff;
      expect(view.u8[offset]).toBe(round & 0xff);
    }
    for (const [at, guest] of guests.entries()) {
      expect(arena.wasLost(guest.offset, memory.regions[at]!.sizeBytes)).toBe(lost.includes(guest));
      closeSync(guest.fd);
    }
  });
});

/** Runs faulting-program.ts, and answers what ended it. */
function endOf(...args: string[]): { signal: string | null; status: number | null; output: string } {
  const program = fileURLToPath(new URL('./faulting-program.ts', import.meta.url));
  const { signal, status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], {
    encoding: 'utf8',
  });
  return { signal, status, output: stdout + stderr };
}

describe('everything else ends the process as it would have', () => {
  it.each(['other memory', 'memory of our own in the arena', 'kill -BUS'])('%s', (what) => {
    expect(endOf(what)).toEqual({ signal: 'SIGBUS', status: null, output: '' });
    expect(endOf(what, 'survive')).toEqual({ signal: 'SIGBUS', status: null, output: '0 true\n' });
  });

  it('but what was survived does not', () => {
    expect(endOf('nothing', 'survive')).toEqual({ signal: null, status: 0, output: '0 true\n' });
  });
});

const assemblers = await peersForTests(['assemblers']);

describe.skipIf(assemblers.skip)(assemblers.title('the machine code'), () => {
  it.each([
    ['x86-64', 'as', '.intel_syntax noprefix\n', X64_LISTING],
    ['arm64', 'aarch64-linux-gnu-as', '', ARM64_LISTING],
  ])('is what its assembly says: %s', (_arch, assembler, prefix, listing) => {
    const object = join(folder(), 'code.o');
    const input = `${prefix}${assemblyOf(listing)}`;
    expect(spawnSync(assembler, ['-o', object], { input, encoding: 'utf8' }).stderr).toBe('');
    const text = textOf(object);
    expect(Buffer.from(text.subarray(0, machineCode(listing).length)).toString('hex')).toBe(
      Buffer.from(machineCode(listing)).toString('hex'),
    );
  });
});

/** The `.text` of an ELF object of 64 bits, little-endian. */
function textOf(path: string): Uint8Array {
  const bytes = readFileSync(path);
  const sections = Number(bytes.readBigUInt64LE(0x28));
  const sizeBytes = bytes.readUInt16LE(0x3a);
  const count = bytes.readUInt16LE(0x3c);
  for (let i = 0; i < count; i++) {
    const at = sections + i * sizeBytes;
    // SHT_PROGBITS that is executable: SHF_EXECINSTR.
    if (bytes.readUInt32LE(at + 4) !== 1 || (bytes.readUInt32LE(at + 8) & 4) === 0) continue;
    const offset = Number(bytes.readBigUInt64LE(at + 0x18));
    return bytes.subarray(offset, offset + Number(bytes.readBigUInt64LE(at + 0x20)));
  }
  throw new Error('no code was assembled');
}
