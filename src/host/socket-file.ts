/**
 * The file of a UNIX socket that this process has bound, so that it can be removed at the end, and only if it still
 * is that one: another process may have put its own in its place. Main thread.
 */
import { lstatSync, unlinkSync } from 'node:fs';

/** What stands at a socket's path: its own file, nothing that could be found, or something else. */
export type Standing = 'ours' | 'nothing' | 'another';

/** Of the file, as stat(2) has it. */
export type SocketFileIdentity = { readonly dev: bigint; readonly ino: bigint };

export class SocketFile {
  readonly #path: string;
  readonly #device: bigint;
  readonly #inode: bigint;

  /**
   * The file at `path`, right after a socket was bound there, or with the `identity` that another process knew it by.
   * @throws Node's error when it is gone already and no identity is given
   */
  constructor(path: string, identity: SocketFileIdentity | null = null) {
    const { dev, ino } = identity ?? lstatSync(path, { bigint: true });
    this.#path = path;
    this.#device = dev;
    this.#inode = ino;
  }

  get identity(): SocketFileIdentity {
    return { dev: this.#device, ino: this.#inode };
  }

  /** Ask while the socket is open: until it is closed the kernel gives the number of its inode to no other file. */
  standing(): Standing {
    try {
      const { dev, ino } = lstatSync(this.#path, { bigint: true });
      return dev === this.#device && ino === this.#inode ? 'ours' : 'another';
    } catch {
      // Somebody tidied up: the file is gone, or its folder, or the way there.
      return 'nothing';
    }
  }

  /** Removes the file unless another has taken its place. Call it before the socket is closed, as `standing`. */
  remove(): void {
    if (this.standing() !== 'ours') return;
    try {
      unlinkSync(this.#path);
    } catch {
      // Gone since, or in a folder that became read-only: it leads nowhere, and the next one takes it over.
    }
  }
}
