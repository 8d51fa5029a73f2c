/**
 * A vhost-user network card as QEMU is told of it: by its command line, or by QMP while it runs. Owns nothing.
 */
export type NicOptions = {
  /** Names the card, its netdev (`net-ID`) and its chardev (`char-ID`). */
  readonly id: string;
  /** Of PCI bus 0: 3 to 31. */
  readonly slot: number;
  /** UNIX socket of the vhost-user connection. */
  readonly socketPath: string;
  readonly mac: string;
  /** Default 1. */
  readonly queuePairs?: number;
  /** QEMU listens and waits for the back-end, instead of connecting to it. */
  readonly server?: boolean;
  /** As client: connect again this many seconds after the back-end has gone. Default 1. */
  readonly reconnectS?: number;
  /** More properties of the device, such as `{ mrg_rxbuf: false, rx_queue_size: 1024 }`. */
  readonly properties?: Readonly<Record<string, unknown>>;
};

const chardevOf = ({ id }: NicOptions): string => `char-${id}`;
const netdevOf = ({ id }: NicOptions): string => `net-${id}`;

function netdev(options: NicOptions): Record<string, unknown> {
  const { queuePairs = 1 } = options;
  return { type: 'vhost-user', id: netdevOf(options), chardev: chardevOf(options), queues: queuePairs };
}

/**
 * Without MSI-X: QEMU before 8.0 crashes as soon as a vhost-user card uses it without KVM. Rings of both layouts are
 * offered, and the driver chooses.
 */
function device(options: NicOptions): Record<string, unknown> {
  const { id, slot, mac, queuePairs = 1, properties = {} } = options;
  return {
    driver: 'virtio-net-pci',
    id,
    netdev: netdevOf(options),
    mac,
    addr: `0x${slot.toString(16)}`,
    romfile: '',
    'disable-legacy': 'on',
    vectors: 0,
    mq: queuePairs > 1,
    packed: true,
    ...properties,
  };
}

export function nicArgs(options: NicOptions): string[] {
  const { socketPath, server = false, reconnectS = 1 } = options;
  const role = server ? ',server=on' : `,reconnect=${reconnectS}`;
  return [
    ...['-chardev', `socket,id=${chardevOf(options)},path=${socketPath}${role}`],
    ...['-netdev', JSON.stringify(netdev(options))],
    ...['-device', JSON.stringify(device(options))],
  ];
}

export type QmpCommand = readonly [command: string, args: Record<string, unknown>];

/** What plugs the card in, in this order. */
export function plugCommands(options: NicOptions): QmpCommand[] {
  const { socketPath, server = false, reconnectS = 1 } = options;
  const addr = { type: 'unix', data: { path: socketPath } };
  const data = server ? { addr, server, wait: false } : { addr, server, reconnect: reconnectS };
  return [
    ['chardev-add', { id: chardevOf(options), backend: { type: 'socket', data } }],
    ['netdev_add', netdev(options)],
    ['device_add', device(options)],
  ];
}

/** What takes the rest away once the card itself is gone; the chardev goes with its netdev. */
export function removeCommand(options: NicOptions): QmpCommand {
  return ['netdev_del', { id: netdevOf(options) }];
}
