/**
 * DPDK's virtio-user driver as testpmd's ports use it: the arguments that choose a kind of ring, and which of its
 * receive and transmit functions ("paths") the driver took, by its log. It falls back to another path without an
 * error, so a test has to look. Owns nothing; called by tests. As of DPDK 22.11, drivers/net/virtio/virtio_ethdev.c.
 */
import { readFileSync } from 'node:fs';

export type VirtioUserRings = {
  readonly packed: boolean;
  readonly inOrder: boolean;
  readonly mergeable: boolean;
  /** The driver does it where it can. */
  readonly vectorized: boolean;
};

export type VirtioUserOptions = VirtioUserRings & {
  readonly index: number;
  readonly socketPath: string;
  readonly queuePairs: number;
  readonly mac: string;
  /** testpmd listens. */
  readonly server: boolean;
};

/** One entry of `TestpmdOptions.vdevs`. */
export function virtioUserVdev(options: VirtioUserOptions): string {
  const { index, socketPath, queuePairs, mac, server } = options;
  const bit = (value: boolean): number => (value ? 1 : 0);
  const rings =
    `packed_vq=${bit(options.packed)},in_order=${bit(options.inOrder)},` +
    `mrg_rxbuf=${bit(options.mergeable)},vectorized=${bit(options.vectorized)}`;
  const size = `queues=${queuePairs},queue_size=512`;
  return `net_virtio_user${index},path=${socketPath},${size},${rings}${server ? ',server=1' : ''},mac=${mac}`;
}

/** More arguments for DPDK: with them the driver may use 512-bit instructions, and says which path it takes. */
export const VIRTIO_USER_EAL_ARGS: readonly string[] = [
  '--force-max-simd-bitwidth=512',
  '--log-level=pmd.net.virtio.init:info',
];

export type VirtioPaths = { readonly rx: string; readonly tx: string };

/** The paths that the driver took, as it calls them, for each port that it set up, from all that testpmd wrote. */
export function virtioPathsOf(output: string): VirtioPaths[] {
  const paths: { rx: string; tx: string }[] = [];
  for (const [, path, side, port] of output.matchAll(/virtio: using (.+) (Rx|Tx) path on port (\d+)/g)) {
    paths[Number(port)] ??= { rx: '', tx: '' };
    paths[Number(port)][side === 'Rx' ? 'rx' : 'tx'] = path;
  }
  return paths;
}

/** The paths that the driver takes when the back-end offers all of it. */
export function expectedVirtioPaths(rings: VirtioUserRings): VirtioPaths {
  return rings.packed ? packedPaths(rings) : splitPaths(rings);
}

function packedPaths({ inOrder, mergeable, vectorized }: VirtioUserRings): VirtioPaths {
  const isVectorized = vectorized && inOrder && hasAvx512();
  const plain = mergeable ? 'packed ring mergeable buffer' : 'packed ring standard';
  return {
    rx: isVectorized && !mergeable ? 'packed ring vectorized' : plain,
    tx: isVectorized ? 'packed ring vectorized' : 'packed ring standard',
  };
}

function splitPaths({ inOrder, mergeable, vectorized }: VirtioUserRings): VirtioPaths {
  if (inOrder) return { rx: 'inorder', tx: 'inorder' };
  if (mergeable) return { rx: 'mergeable buffer', tx: 'standard' };
  return { rx: vectorized ? 'vectorized' : 'standard', tx: 'standard' };
}

/** What the packed vectorized path needs of the processor. */
function hasAvx512(): boolean {
  const flags =
    readFileSync('/proc/cpuinfo', 'utf8')
      .match(/^flags.*$/m)?.[0]
      .split(' ') ?? [];
  return ['avx512f', 'avx512bw', 'avx512vl'].every((flag) => flags.includes(flag));
}

/**
 * Frames that may lie in a receive queue without the driver taking them: the vectorized path of split rings takes
 * four at a time.
 */
export function framesLeftLyingMax({ rx }: VirtioPaths): number {
  return rx === 'vectorized' ? 3 : 0;
}
