/** Memory of an embedded guest: what its parts hand out, and that a guest's views move with it to another file. */
import { afterEach, describe, expect, test } from 'vitest';
import { EmbeddedMemory } from '../../src/frontend/guest-memory.ts';

const MIB = 2 ** 20;
const memories: EmbeddedMemory[] = [];

afterEach(() => {
  for (const memory of memories.splice(0)) memory.close();
});

function memoryOf(sizeBytes: number): EmbeddedMemory {
  const memory = new EmbeddedMemory(sizeBytes);
  memories.push(memory);
  return memory;
}

describe('a part of the memory', () => {
  test('hands out the same bytes again, zeroed, once it was cleared', () => {
    const part = memoryOf(MIB).part(2 ** 16);
    const first = part.allocate(1000);
    part.u8.fill(7, first, first + 1000);
    part.clear();
    expect(part.allocate(1000)).toBe(first);
    expect(part.u8.subarray(first, first + 1000).every((byte) => byte === 0)).toBe(true);
  });

  test('lies apart from what else is handed out, and says when it is used up', () => {
    const memory = memoryOf(MIB);
    const before = memory.allocate(100);
    const part = memory.part(8192);
    const after = memory.allocate(100);
    const [first, second] = [part.allocate(4096), part.allocate(4096)];
    expect(before + 100).toBeLessThanOrEqual(first);
    expect(second + 4096).toBeLessThanOrEqual(after);
    expect(() => part.allocate(1)).toThrow('used up');
    expect(part.gpaOf(second)).toBe(memory.gpaOf(second));
  });

  test('gives each piece pages of its own where that is asked for', () => {
    const part = memoryOf(MIB).part(2 ** 16, 4096);
    expect(part.allocate(10) % 4096).toBe(0);
    expect(part.allocate(10) % 4096).toBe(0);
  });
});

describe('memory that moves', () => {
  test("goes on in the other's file, with the same typed arrays", () => {
    const [here, there] = [memoryOf(MIB), memoryOf(MIB)];
    const view = new Uint8Array(here.buffer, 4096, 16);
    view.fill(1);
    there.u8.fill(2, 4096, 4112);
    here.moveInto(there);
    expect(view[0]).toBe(2);
    view[1] = 3;
    expect(there.u8[4097]).toBe(3);
  });

  test('must have the same size', () => {
    expect(() => memoryOf(MIB).moveInto(memoryOf(2 * MIB))).toThrow(RangeError);
  });
});
