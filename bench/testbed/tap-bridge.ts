/**
 * A bridge of Linux with one tap for each guest, in a network namespace of its own: what Ringway is compared with.
 * Needs root.
 */
import { existsSync } from 'node:fs';
import { findProgram } from '../../test/peers/index.ts';
import type { NetworkNamespace } from '../../test/peers/namespaces.ts';
import { GUEST_NAMES, tapOf } from './guest.ts';

/** Why there can be no taps in a namespace here, in one sentence; null when there can. */
export function tapObstacle(): string | null {
  if (process.getuid?.() !== 0) return 'taps in a network namespace need root.';
  if (!existsSync('/dev/net/tun')) return 'there is no /dev/net/tun here (modprobe tun).';
  if (findProgram('ip') === undefined) return 'the program ip is missing (package iproute2).';
  return null;
}

/** It is gone with its namespace. @throws with what `ip` said */
export async function makeTapBridge(namespace: NetworkNamespace): Promise<void> {
  for (const line of tapBridgeCommands()) await namespace.ip(line);
}

/** Arguments of `ip`, one line for each call. */
export function tapBridgeCommands(): string[] {
  return [
    'link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0',
    'link set br0 up',
    ...GUEST_NAMES.map(tapOf).flatMap((tap) => [
      `tuntap add dev ${tap} mode tap`,
      `link set ${tap} master br0`,
      `link set ${tap} up`,
    ]),
  ];
}
