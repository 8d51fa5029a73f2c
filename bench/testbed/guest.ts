/**
 * One of a row's guests: where its card is attached, and the options it is started with. The same inside and
 * outside of containers. Pure.
 */
import { join } from 'node:path';
import {
  emulatedCardArgs,
  type LinuxGuestOptions,
  sharedMemoryArgs,
  vhostUserCardArgs,
} from '../../test/peers/index.ts';
import { type Accelerator, GUEST_ROWS, type GuestRow, type GuestRowName } from './rows.ts';

export const GUEST_NAMES = ['a', 'b'] as const;
export type GuestName = (typeof GUEST_NAMES)[number];

export const GUEST_MIB = 192;
/** The generator and the card's interrupts get one each. */
const GUEST_CPUS = 2;
/** The switch may be restarted under running guests. */
const RECONNECT_S = 1;

/** Where a guest finds what its card is attached to. */
export type GuestPlace = {
  /** Socket of its port at the switch; null: its card is a tap of the bridge. */
  readonly socketPath: string | null;
  /** Network namespace of the bridge; null: the one this process is in. */
  readonly namespace: string | null;
  /** A mounted hugetlbfs for the guest's memory; null: pages of 4 KiB. Used for vhost-user only. */
  readonly hugepagesPath: string | null;
  readonly accelerator: Accelerator;
};

/** The guests of a row: the first sends. */
export function guestsOf({ receiver }: GuestRow): readonly GuestName[] {
  return receiver === 'host' ? GUEST_NAMES.slice(0, 1) : GUEST_NAMES;
}

/** Kinds of Ringway's ports for guests. */
export type RingwayGuestPort = Extract<GuestRow['attachment'], 'unix' | 'vhost-user'>;

/** Ports of Ringway for the guests of a row. */
export function portOf(attachment: RingwayGuestPort, guest: GuestName): string {
  return attachment === 'unix' ? `unix-${guest}` : `vhost-${guest}`;
}

export const socketOf = (folder: string, port: string): string => join(folder, `${port}.sock`);
export const tapOf = (guest: GuestName): string => `tap-${guest}`;
const macOf = (guest: GuestName): string => `52:54:00:00:00:0${GUEST_NAMES.indexOf(guest) + 1}`;

export function guestOptions(name: GuestRowName, guest: GuestName, place: GuestPlace): LinuxGuestOptions {
  const row = GUEST_ROWS[name];
  return {
    name: guest,
    cpus: GUEST_CPUS,
    kernel: row.kernel,
    accel: place.accelerator,
    ...(row.attachment === 'tap' && place.namespace !== null ? { networkNamespace: place.namespace } : {}),
    ...(usesVhostUser(row) ? {} : { memoryMiB: GUEST_MIB }),
    qemuArgs: cardArgs(row, guest, place),
  };
}

/** The guests' memory is shared with the switch. */
export function usesVhostUser({ attachment }: GuestRow): boolean {
  return attachment === 'vhost-user' || attachment === 'ovs';
}

function cardArgs(row: GuestRow, guest: GuestName, place: GuestPlace): string[] {
  const mac = macOf(guest);
  const { model, queuePairs } = row;
  const socketPath = place.socketPath ?? '';
  switch (row.attachment) {
    case 'tap':
      return emulatedCardArgs({
        model,
        mac,
        netdev: `tap,ifname=${tapOf(guest)},script=no,downscript=no,vhost=off`,
      });
    case 'unix':
      return emulatedCardArgs({
        model,
        mac,
        netdev: `stream,server=off,addr.type=unix,addr.path=${socketPath}`,
      });
    case 'vhost-user':
    case 'ovs': {
      const hugepages = place.hugepagesPath === null ? {} : { hugepagesPath: place.hugepagesPath };
      return [
        ...sharedMemoryArgs({ memoryMiB: GUEST_MIB, ...hugepages }),
        // Open vSwitch connects to QEMU, which waits for it; Ringway is connected to.
        ...vhostUserCardArgs({
          index: 1,
          socketPath,
          mac,
          queuePairs,
          ...(row.attachment === 'ovs' ? { server: true } : { reconnectS: RECONNECT_S }),
        }),
      ];
    }
  }
}
