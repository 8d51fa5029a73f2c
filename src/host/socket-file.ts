/**
 * The file of a UNIX socket that this process has bound, so that it can be removed at the end, and only if it still
 * is that one: another process may have put its own in its place. Main thread.
 */
import { lstatSync, unlinkSync } from 'node:fs';

export class SocketFile {
  readonly #path: string;
  readonly #device: bigint;
  readonly #inode: bigint;

  /** The file at `path`, right after a socket was bound there. @throws Node's error when it is gone already */
  constructor(path: string) {
    const { dev, ino } = lstatSync(path, { bigint: true });
    this.#path = path;
    this.#device = dev;
    this.#inode = ino;
  }

  /**
   * Removes the file unless another has taken its place. Call it before the socket is closed: until then the
   * kernel gives the number of its inode to no other file.
   */
  remove(): void {
    try {
      const { dev, ino } = lstatSync(this.#path, { bigint: true });
      if (dev === this.#device && ino === this.#inode) unlinkSync(this.#path);
    } catch {
      // Gone already, or its folder is: somebody tidied up.
    }
  }
}
