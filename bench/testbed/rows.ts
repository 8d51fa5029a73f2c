/**
 * The rows of the table of the field: which card two guests have, what is between them, and the form in which a
 * row's figures are kept. Pure; used by everything in this folder.
 */
import type { OffloadSettings } from '../../src/queue/offloads.ts';
import type { CardModel, KernelFlavor } from '../../test/peers/index.ts';
import { spreadOf } from '../statistics.ts';

/** Rows that docker/testbed.sh measures as well: what they need is in its containers. */
export const CONTAINER_ROW_NAMES = [
  'e1000',
  'virtio-tap',
  'virtio-unix',
  'vhost-user',
  'vhost-user-2',
  'virtio-user',
] as const;
export const ROW_NAMES = [
  ...CONTAINER_ROW_NAMES,
  'vhost-user-no-tso',
  'vhost-user-no-offloads',
  'ovs-dpdk',
  'ovs-dpdk-tso',
  'guest-to-host',
  'guest-to-host-no-offloads',
] as const;
export type ContainerRowName = (typeof CONTAINER_ROW_NAMES)[number];
export type RowName = (typeof ROW_NAMES)[number];
/** `virtio-user` has testpmd where the others have guests. */
export type GuestRowName = Exclude<RowName, 'virtio-user'>;

export type GuestRow = {
  readonly title: string;
  /**
   * What the guests' cards are attached to. `tap` is Linux's own bridge and `ovs` a vhost-user port of Open vSwitch;
   * the others are ports of Ringway.
   */
  readonly attachment: 'tap' | 'unix' | 'vhost-user' | 'ovs';
  /** `host`: there is one guest, and this machine receives by Ringway's port of kind `tap`. */
  readonly receiver: 'guest' | 'host';
  readonly model: CardModel;
  readonly queuePairs: number;
  /** Only Debian's generic kernel has the drivers of emulated cards. */
  readonly kernel: KernelFlavor;
  /** Setting `offloads` of Ringway's ports: what is not offered. */
  readonly offloads: OffloadSettings;
  /** Open vSwitch's `userspace-tso-enable`. */
  readonly ovsTso: boolean;
};

const VIRTIO = {
  receiver: 'guest',
  model: 'virtio-net-pci',
  queuePairs: 1,
  kernel: 'cloud',
  offloads: {},
  ovsTso: false,
} as const;
const VHOST_USER = { ...VIRTIO, attachment: 'vhost-user' } as const;
/** Whoever has no checksum offload has none at all. */
const NO_OFFLOADS = { csum: false } as const;

export const GUEST_ROWS: Readonly<Record<GuestRowName, GuestRow>> = {
  e1000: {
    ...VIRTIO,
    title: 'emulated e1000, tap bridge',
    attachment: 'tap',
    model: 'e1000',
    kernel: 'generic',
  },
  'virtio-tap': { ...VIRTIO, title: 'virtio-net in QEMU, tap bridge', attachment: 'tap' },
  'virtio-unix': { ...VIRTIO, title: 'virtio-net in QEMU, Ringway unix port', attachment: 'unix' },
  'vhost-user': { ...VHOST_USER, title: 'vhost-user, 1 queue pair' },
  'vhost-user-2': { ...VHOST_USER, title: 'vhost-user, 2 queue pairs', queuePairs: 2 },
  'vhost-user-no-tso': { ...VHOST_USER, title: 'vhost-user without TSO', offloads: { tso: false } },
  'vhost-user-no-offloads': { ...VHOST_USER, title: 'vhost-user without offloads', offloads: NO_OFFLOADS },
  'ovs-dpdk': { ...VIRTIO, title: 'OVS-DPDK', attachment: 'ovs' },
  'ovs-dpdk-tso': { ...VIRTIO, title: 'OVS-DPDK, userspace TSO', attachment: 'ovs', ovsTso: true },
  'guest-to-host': { ...VHOST_USER, title: 'vhost-user, tap port to this host', receiver: 'host' },
  'guest-to-host-no-offloads': {
    ...VHOST_USER,
    title: 'the same without offloads',
    receiver: 'host',
    offloads: NO_OFFLOADS,
  },
};

export const VIRTIO_USER_TITLE = 'virtio-user, testpmd without guests';

export const titleOf = (row: RowName): string =>
  row === 'virtio-user' ? VIRTIO_USER_TITLE : GUEST_ROWS[row].title;

/** Runs the guests' processors: the host's own through KVM, or emulated by QEMU. */
export const ACCELERATORS = ['kvm', 'tcg'] as const;
export type Accelerator = (typeof ACCELERATORS)[number];

export const FIGURES = ['frames', 'tcp'] as const;
export type Figure = (typeof FIGURES)[number];

/** One measurement of a row. Null: there is no such figure in this row, or it was not asked for. */
export type Sample = {
  /** Frames of 64 bytes that arrived, per second. */
  readonly framesPerSecond: number | null;
  /** Payload that iperf3's server received. */
  readonly tcpBitsPerSecond: number | null;
  /** Processor time of the switch's process for each second of TCP, in seconds. A bridge has no process. */
  readonly switchCpus: number | null;
};

/** Its figures are the medians of its samples. */
export type MeasuredRow = Sample & {
  readonly row: RowName;
  /** Null: no guests. */
  readonly accelerator: Accelerator | null;
  /** In the order of their rounds; at least one. */
  readonly samples: readonly Sample[];
};

/** `notMeasured` is one sentence that says why. */
export type RowResult = MeasuredRow | { readonly row: RowName; readonly notMeasured: string };

/** @throws RangeError when there are no samples */
export function measuredRow(
  row: RowName,
  accelerator: Accelerator | null,
  samples: readonly Sample[],
): MeasuredRow {
  const median = (figure: keyof Sample): number | null => {
    const values = samples.map((sample) => sample[figure]).filter((value) => value !== null);
    return samples.length > 0 && values.length === 0 ? null : spreadOf(values).median;
  };
  return {
    row,
    accelerator,
    framesPerSecond: median('framesPerSecond'),
    tcpBitsPerSecond: median('tcpBitsPerSecond'),
    switchCpus: median('switchCpus'),
    samples,
  };
}

export function isRowName(text: string): text is RowName {
  return (ROW_NAMES as readonly string[]).includes(text);
}

export function isContainerRowName(text: string): text is ContainerRowName {
  return (CONTAINER_ROW_NAMES as readonly string[]).includes(text);
}
