/**
 * What C code writes for people, brought back as text: a stream (FILE) over a memory file, and the process's own
 * two outputs turned into that file for as long as a call takes. Main thread.
 */
import { ftruncateSync, readSync } from 'node:fs';
import { closeFd, duplicateFd, fileFacts } from './descriptor.ts';
import { checked, HostError } from './errors.ts';
import { lastErrno, libc } from './libc.ts';
import { createMemoryFile } from './mapping.ts';

const IOFBF_NONE = 2;
const TEXT_BYTES_MAX = 2 ** 20;
const OUTPUTS = [1, 2] as const;

export class OutputCapture {
  readonly #fd: number;
  /** Address of a C stream that appends to the file, unbuffered. It is never closed: C code keeps it. */
  readonly stream: number;

  /** @throws HostError */
  constructor(name: string) {
    this.#fd = createMemoryFile(name, 0);
    this.stream = libc.fdopen(this.#fd, 'a');
    if (this.stream === 0) throw new HostError('fdopen', lastErrno(), 'opening a stream');
    libc.setvbuf(this.stream, 0, IOFBF_NONE, 0);
  }

  /** What was written since the last call; of very much the last 1 MiB. */
  take(): string {
    const { sizeBytes } = fileFacts(this.#fd);
    const bytes = new Uint8Array(Math.min(sizeBytes, TEXT_BYTES_MAX));
    const read =
      bytes.length === 0 ? 0 : readSync(this.#fd, bytes, 0, bytes.length, sizeBytes - bytes.length);
    ftruncateSync(this.#fd, 0);
    return Buffer.from(bytes.subarray(0, read)).toString();
  }

  /** Runs `action` with standard output and standard error of the whole process going to the file. */
  during<T>(action: () => T): T {
    const saved = OUTPUTS.map((fd) => duplicateFd(fd));
    try {
      for (const fd of OUTPUTS) checked(libc.dup2(this.#fd, fd), 'dup2', 'redirecting the outputs');
      return action();
    } finally {
      libc.fflush(0);
      for (const [i, fd] of OUTPUTS.entries()) {
        checked(libc.dup2(saved[i], fd), 'dup2', 'restoring the outputs');
        closeFd(saved[i]);
      }
    }
  }
}
