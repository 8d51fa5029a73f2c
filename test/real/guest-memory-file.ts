/**
 * A guest's whole memory as its QEMU has it, read from outside: for comparing two guests that stand still. Only for memory
 * in a memfd (`sharedMemoryArgs` of test/peers).
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** `pid`: of QEMU. */
export function readGuestMemory(pid: number): Buffer {
  const folder = `/proc/${pid}/fd`;
  const fd = readdirSync(folder).find((name) => {
    try {
      return readlinkSync(`${folder}/${name}`).startsWith('/memfd:memory-backend-memfd');
    } catch {
      return false;
    }
  });
  if (fd === undefined) throw new Error(`process ${pid} has no memory in a memfd`);
  return readFileSync(`${folder}/${fd}`);
}
