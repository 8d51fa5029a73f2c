/**
 * A memory file as a front-end has it: sparse, written and read by file offset (never through the arena), and
 * described as regions. Used by the tests of memory, device and port.
 */
import { readSync, writeSync } from 'node:fs';
import type { MemRegion } from '../../protocol/vhost-user/codec.ts';
import { closeFd } from '../../src/host/descriptor.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';

/** Where the front-end has its guest's address 0, unless a test says otherwise. */
export const UVA_BASE = 0x7f00_0000_0000n;

export class GuestFile {
  readonly fd: number;
  readonly sizeBytes: number;
  #open = true;

  constructor(sizeBytes: number, name = 'guest') {
    this.fd = createMemoryFile(name, sizeBytes);
    this.sizeBytes = sizeBytes;
  }

  /** The whole file as one region from guest address 0, but for what is given. */
  region(but: Partial<MemRegion> = {}): MemRegion {
    return { gpa: 0n, sizeBytes: BigInt(this.sizeBytes), uva: UVA_BASE, mmapOffset: 0n, ...but };
  }

  write(offset: number, bytes: Uint8Array | readonly number[]): void {
    const data = Uint8Array.from(bytes);
    writeSync(this.fd, data, 0, data.length, offset);
  }

  read(offset: number, sizeBytes: number): Uint8Array {
    const bytes = new Uint8Array(sizeBytes);
    readSync(this.fd, bytes, 0, sizeBytes, offset);
    return bytes;
  }

  read16(offset: number): number {
    const [low, high] = this.read(offset, 2);
    return low! | (high! << 8);
  }

  write16(offset: number, value: number): void {
    this.write(offset, [value & 0xff, (value >> 8) & 0xff]);
  }

  close(): void {
    if (this.#open) closeFd(this.fd);
    this.#open = false;
  }
}
