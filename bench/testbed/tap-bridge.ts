/**
 * A bridge of Linux with one tap for each guest, in a network namespace of its own: what Ringway is compared with.
 * Needs root. Owns: the namespace, and with it the bridge and the taps, until `remove()` or the end of the process.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { findProgram, runProgram } from '../../test/peers/index.ts';
import { GUEST_NAMES, tapOf } from './guest.ts';

export interface TapBridge {
  readonly namespace: string;
  /** End the guests before. */
  remove(): Promise<void>;
}

/** Why there can be no tap bridge here, in one sentence; null when there can. */
export function tapBridgeObstacle(): string | null {
  if (process.getuid?.() !== 0) return 'a bridge and taps need root.';
  if (!existsSync('/dev/net/tun')) return 'there is no /dev/net/tun here (modprobe tun).';
  if (findProgram('ip') === undefined) return 'the program ip is missing (package iproute2).';
  return null;
}

/** @throws with what `ip` said, when the namespace, the bridge or a tap cannot be made */
export async function makeTapBridge(): Promise<TapBridge> {
  const namespace = `ringway-testbed-${process.pid}`;
  await ip('netns', 'add', namespace);
  const atExit = (): void => {
    spawnSync(findProgram('ip')!, ['netns', 'delete', namespace]);
  };
  process.on('exit', atExit);
  const remove = async (): Promise<void> => {
    process.off('exit', atExit);
    await ip('netns', 'delete', namespace);
  };
  try {
    for (const line of tapBridgeCommands()) await ip('-n', namespace, ...line.split(' '));
    return { namespace, remove };
  } catch (error) {
    await remove();
    throw error;
  }
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

async function ip(...args: string[]): Promise<void> {
  const { code, output } = await runProgram('ip', args);
  if (code !== 0) throw new Error(`ip ${args.join(' ')}: ${output.trim()}`);
}
