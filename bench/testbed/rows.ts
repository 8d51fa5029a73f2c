/**
 * The rows of the table of the field: which card two guests have, what is between them, and the form in which a
 * row's figures are kept. Pure; used by everything in this folder.
 */
import type { CardModel, KernelFlavor } from '../../test/peers/index.ts';

export const ROW_NAMES = [
  'e1000',
  'virtio-tap',
  'virtio-unix',
  'vhost-user',
  'vhost-user-2',
  'virtio-user',
] as const;
export type RowName = (typeof ROW_NAMES)[number];
/** `virtio-user` has testpmd where the others have two guests. */
export type GuestRowName = Exclude<RowName, 'virtio-user'>;

export type GuestRow = {
  readonly title: string;
  /** What the guests' cards are attached to. `tap` is Linux's own bridge; the others are ports of Ringway. */
  readonly attachment: 'tap' | 'unix' | 'vhost-user';
  readonly model: CardModel;
  readonly queuePairs: number;
  /** Only Debian's generic kernel has the drivers of emulated cards. */
  readonly kernel: KernelFlavor;
};

export const GUEST_ROWS: Readonly<Record<GuestRowName, GuestRow>> = {
  e1000: {
    title: 'emulated e1000, tap bridge',
    attachment: 'tap',
    model: 'e1000',
    queuePairs: 1,
    kernel: 'generic',
  },
  'virtio-tap': {
    title: 'virtio-net in QEMU, tap bridge',
    attachment: 'tap',
    model: 'virtio-net-pci',
    queuePairs: 1,
    kernel: 'cloud',
  },
  'virtio-unix': {
    title: 'virtio-net in QEMU, Ringway unix port',
    attachment: 'unix',
    model: 'virtio-net-pci',
    queuePairs: 1,
    kernel: 'cloud',
  },
  'vhost-user': {
    title: 'vhost-user, 1 queue pair',
    attachment: 'vhost-user',
    model: 'virtio-net-pci',
    queuePairs: 1,
    kernel: 'cloud',
  },
  'vhost-user-2': {
    title: 'vhost-user, 2 queue pairs',
    attachment: 'vhost-user',
    model: 'virtio-net-pci',
    queuePairs: 2,
    kernel: 'cloud',
  },
};

export const VIRTIO_USER_TITLE = 'virtio-user, testpmd without guests';

export const titleOf = (row: RowName): string =>
  row === 'virtio-user' ? VIRTIO_USER_TITLE : GUEST_ROWS[row].title;

/** Runs the guests' processors: the host's own through KVM, or emulated by QEMU. */
export const ACCELERATORS = ['kvm', 'tcg'] as const;
export type Accelerator = (typeof ACCELERATORS)[number];

export type MeasuredRow = {
  readonly row: RowName;
  /** Frames of 64 bytes that arrived, per second. */
  readonly framesPerSecond: number;
  /** Payload that iperf3's server received; null: there is no TCP in this row. */
  readonly tcpBitsPerSecond: number | null;
  /** Null: no guests. */
  readonly accelerator: Accelerator | null;
};

/** `notMeasured` is one sentence that says why. */
export type RowResult = MeasuredRow | { readonly row: RowName; readonly notMeasured: string };

export function isRowName(text: string): text is RowName {
  return (ROW_NAMES as readonly string[]).includes(text);
}
