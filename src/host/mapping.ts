/**
 * Address space: reserving it, mapping files into it, putting zero pages back, and seeing it as ArrayBuffers.
 * Addresses are numbers; sizes and offsets are in bytes.
 */
import './node-version.ts';
import koffi from 'koffi';
import { checked, ERRNO, HostError } from './errors.ts';
import { libc } from './libc.ts';

const PROT_READ = 1;
const PROT_WRITE = 2;
const PROT_EXEC = 4;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
const MADV_DONTDUMP = 16;
const MADV_POPULATE_READ = 22;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;

/** As mincore(2) answers, on every processor that Ringway runs on. */
const PAGE_BYTES = 4096;
const LOOK_BYTES = 2 ** 28;
/** Of a guest whose pages are scattered so much that this would take long, the first ones. */
const RUNS_MAX = 4096;

const READ_WRITE = PROT_READ | PROT_WRITE;
const ZERO_PAGES = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

/** Reserves zero pages that cost nothing until they are touched, left out of core dumps. */
export function reserveAddressSpace(sizeBytes: number): number {
  const doing = `reserving ${sizeBytes} bytes of address space`;
  const address = checked(libc.mmap(0, sizeBytes, READ_WRITE, ZERO_PAGES, -1, 0), 'mmap', doing);
  checked(libc.madvise(address, sizeBytes, MADV_DONTDUMP), 'madvise(MADV_DONTDUMP)', doing);
  return address;
}

export function releaseAddressSpace(address: number, sizeBytes: number): void {
  checked(libc.munmap(address, sizeBytes), 'munmap', `releasing ${sizeBytes} bytes of address space`);
}

/** Makes memory executable and read-only; for the one piece of machine code (bus-faults.ts). */
export function makeExecutable(address: number, sizeBytes: number): void {
  checked(libc.mprotect(address, sizeBytes, PROT_READ | PROT_EXEC), 'mprotect', 'making code executable');
}

/** Maps part of a file shared over an address that this process reserved before. */
export function mapFileAt(
  address: number,
  sizeBytes: number,
  fd: number,
  fileOffset: number,
  doing: string,
): void {
  checked(libc.mmap(address, sizeBytes, READ_WRITE, MAP_SHARED | MAP_FIXED, fd, fileOffset), 'mmap', doing);
  checked(libc.madvise(address, sizeBytes, MADV_DONTDUMP), 'madvise(MADV_DONTDUMP)', doing);
}

/** Puts zero pages over a mapping; a stray access then reads zeros instead of ending the process. */
export function mapZeroPagesAt(address: number, sizeBytes: number): void {
  const doing = `unmapping ${sizeBytes} bytes`;
  checked(libc.mmap(address, sizeBytes, READ_WRITE, ZERO_PAGES | MAP_FIXED, -1, 0), 'mmap', doing);
  checked(libc.madvise(address, sizeBytes, MADV_DONTDUMP), 'madvise(MADV_DONTDUMP)', doing);
}

/** As `mapZeroPagesAt`, by another thread: what was mapped there may be the last of a large file. */
export function mapZeroPagesSoon(address: number, sizeBytes: number, onDone: () => void): void {
  libc.mmapAsync(address, sizeBytes, READ_WRITE, ZERO_PAGES | MAP_FIXED, -1, 0, (_, result) => {
    const doing = `unmapping ${sizeBytes} bytes`;
    // Its errno is not known; only memory for the kernel's own tables can be missing.
    if (result < 0) throw new HostError('mmap', ERRNO.ENOMEM, doing);
    checked(libc.madvise(address, sizeBytes, MADV_DONTDUMP), 'madvise(MADV_DONTDUMP)', doing);
    onDone();
  });
}

/**
 * Enters those pages of a file into this process's page tables that are in memory already, so that no worker waits for the
 * kernel when it first touches each of them; none is made by it. By another thread. Where the kernel does not know how (before
 * Linux 5.14), or the file has shrunk meanwhile, that is left out.
 */
export async function enterPages(address: number, sizeBytes: number): Promise<void> {
  let runs = 0;
  for (let offset = 0; offset < sizeBytes; offset += LOOK_BYTES) {
    const bytes = Math.min(LOOK_BYTES, sizeBytes - offset);
    const isThere = new Uint8Array(Math.ceil(bytes / PAGE_BYTES));
    if (libc.mincore(address + offset, bytes, isThere) !== 0) return;
    for (let page = 0; page < isThere.length; page++) {
      if ((isThere[page] & 1) === 0) continue;
      const first = page;
      while (page < isThere.length && (isThere[page] & 1) !== 0) page++;
      if (++runs > RUNS_MAX) return;
      await enterRun(address + offset + first * PAGE_BYTES, (page - first) * PAGE_BYTES);
    }
  }
}

function enterRun(address: number, sizeBytes: number): Promise<void> {
  return new Promise((resolve) => {
    libc.madviseAsync(address, sizeBytes, MADV_POPULATE_READ, () => resolve());
  });
}

/** Maps a file shared, anywhere. */
export function mapFile(sizeBytes: number, fd: number, doing: string): number {
  return checked(libc.mmap(0, sizeBytes, READ_WRITE, MAP_SHARED, fd, 0), 'mmap', doing);
}

/** An anonymous memory file that can be sealed and passed on. */
export function createMemoryFile(name: string, sizeBytes: number): number {
  const doing = `creating a memory file of ${sizeBytes} bytes`;
  const fd = checked(libc.memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), 'memfd_create', doing);
  checked(libc.ftruncate(fd, sizeBytes), 'ftruncate', doing);
  return fd;
}

/**
 * Memory as an ArrayBuffer. It does not own the memory: the caller keeps the mapping alive for as long as
 * the buffer is used.
 */
export function viewMemory(address: number, sizeBytes: number): ArrayBuffer {
  return koffi.view(BigInt(address), sizeBytes);
}
