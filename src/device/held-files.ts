/**
 * The files of a guest's memory, its log and its in-flight region, kept open beside their mappings, so that they can be
 * handed over to the next process: from a mapping alone no descriptor can be made without privileges. One descriptor a
 * file, however many regions lie in it. Where the budget has no room for one, that one is closed, and the guest can only
 * not be handed over. Main thread.
 */
import type { DescriptorShare } from '../host/budgets.ts';
import { fileFacts } from '../host/descriptor.ts';
import type { PeerFds } from '../host/peer-fds.ts';

/** Which file it is, whatever descriptor leads to it. */
export type FileIdentity = { readonly device: number; readonly inode: number };

export class HeldFiles {
  readonly #peerFds: PeerFds;
  readonly #share: DescriptorShare | null;
  readonly #fds = new Map<string, number>();

  /** `share`: what the front-end may have of descriptors; null: as many as it likes. */
  constructor(peerFds: PeerFds, share: DescriptorShare | null) {
    this.#peerFds = peerFds;
    this.#share = share;
  }

  /** Takes over the descriptor of a file that was mapped: keeps it, or closes it where one is kept or there is no room. */
  take(fd: number): void {
    const key = keyOf(fileFacts(fd));
    if (!this.#fds.has(key) && (this.#share === null || this.#share.takeFile())) this.#fds.set(key, fd);
    else this.#peerFds.close([fd]);
  }

  /** Null: it was not kept. */
  fdOf(file: FileIdentity): number | null {
    return this.#fds.get(keyOf(file)) ?? null;
  }

  /** Closes those of files of which nothing is in use any more. */
  keepOnly(used: readonly FileIdentity[]): void {
    const keys = new Set(used.map(keyOf));
    for (const [key, fd] of this.#fds) {
      if (keys.has(key)) continue;
      this.#fds.delete(key);
      this.#share?.giveFile();
      this.#peerFds.close([fd]);
    }
  }
}

function keyOf({ device, inode }: FileIdentity): string {
  return `${device}:${inode}`;
}
