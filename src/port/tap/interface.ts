/**
 * TAP interfaces: makes one or attaches to one that is there, configures it, and hands over a descriptor for
 * each queue. What stands in the way is a TapError with the fix. Owns the descriptors until `close`. An attached
 * interface is known by its descriptor, because its name and its network namespace may be changed by anybody. The
 * kernel's side is tuntap.rst. Main thread.
 */
import { closeFd, closeFds } from '../../host/descriptor.ts';
import { checked, ERRNO, HostError } from '../../host/errors.ts';
import { libc } from '../../host/libc.ts';
import { type OffloadSettings, offloadBits } from '../../queue/offloads.ts';
import {
  OFFLOAD_CHECKSUM,
  OFFLOAD_ECN,
  OFFLOAD_TSO4,
  OFFLOAD_TSO6,
  OFFLOAD_USO4,
  OFFLOAD_USO6,
} from '../../queue/requests.ts';
import type { IpPrefix } from './ip-prefix.ts';
import {
  inNetworkNamespace,
  NetworkNamespaceError,
  namespaceIdentity,
  namespaceTitle,
} from './network-namespace.ts';
import { type Link, RouteSocket } from './rtnetlink.ts';

/** A virtio-net header with its count of buffers stands before each frame, in both directions. */
export const TAP_HEADER_BYTES = 12;
/** The largest MTU that the kernel gives a TAP interface. */
export const TAP_MTU_MAX = 65_521;
export const TAP_NAME_BYTES_MAX = 15;

const TUN_DEVICE = '/dev/net/tun';
const O_RDWR = 2;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const TUNGETIFF = 0x800454d2;
/** Answers a descriptor of the namespace that the interface is in. */
const TUNGETDEVNETNS = 0x54e3;
const TUNSETVNETHDRSZ = 0x400454d8;
const IFF_TAP = 0x0002;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
/** TUN_F_* by what they stand for. */
const TUN_FLAGS: readonly (readonly [offload: number, flag: number])[] = [
  [OFFLOAD_CHECKSUM, 0x01],
  [OFFLOAD_TSO4, 0x02],
  [OFFLOAD_TSO6, 0x04],
  [OFFLOAD_ECN, 0x08],
  [OFFLOAD_USO4, 0x20],
  [OFFLOAD_USO6, 0x40],
];
/** struct ifreq: the name in 16 bytes, then here the flags. */
const IFREQ_BYTES = 40;
const IFREQ_FLAGS = 16;

export type TapOptions = {
  readonly interfaceName: string;
  /** A name below /run/netns, or a path; null: the namespace of this process. */
  readonly namespace: string | null;
  readonly queueCount: number;
  /** Null: as it is; 1,500 on a new interface. */
  readonly mtu: number | null;
  /** Null: as it is; a random one on a new interface. */
  readonly mac: Uint8Array | null;
  /** Added to those that the interface has. */
  readonly addresses: readonly IpPrefix[];
  /** False: neither brought up nor taken down. */
  readonly bringUp: boolean;
  /** What the kernel leaves to us and takes from us undone. */
  readonly offloads: OffloadSettings;
};

/** Where an attached interface is by now, and how it is. */
export type TapNow = {
  readonly name: string;
  /** The namespace that it was moved to, in words for the user; null: it is where it was attached to. */
  readonly movedTo: string | null;
  /** Null: it is in a namespace that Ringway may not enter. */
  readonly link: Link | null;
};

/** Why the interface cannot be had now; `message` is one line with the fix. */
export class TapError extends Error {
  override name = 'TapError';
}

export class TapInterface {
  /** One for each queue; non-blocking. */
  readonly fds: readonly number[];
  /** When it was attached, or as it was set since. */
  mtu: number;
  readonly #namespace: string | null;
  /** What had the namespace's name when the interface was attached to; null: no name was given. */
  readonly #namespaceIdentity: string | null;
  /** The namespace that the interface was in then; null: the kernel does not tell. */
  readonly #homeIdentity: string | null;
  readonly #route: RouteSocket;

  private constructor(options: TapOptions, fds: readonly number[], mtu: number, route: RouteSocket) {
    this.#namespace = options.namespace;
    this.#namespaceIdentity = this.#identityOfName();
    this.fds = fds;
    this.#homeIdentity = this.#inItsNamespace((path) => namespaceIdentity(path));
    this.mtu = mtu;
    this.#route = route;
  }

  /** @throws TapError, or HostError for what has no better words */
  static open(options: TapOptions): TapInterface {
    try {
      return inNetworkNamespace(options.namespace, () => TapInterface.#openHere(options));
    } catch (error) {
      throw error instanceof NetworkNamespaceError ? new TapError(error.message) : error;
    }
  }

  /** One that another process attached to, as it is. Takes over the descriptors. @throws TapError, HostError */
  static takeOver(options: TapOptions, fds: readonly number[]): TapInterface {
    const where = libc.ioctlValue(fds[0], TUNGETDEVNETNS, 0);
    const namespace = where < 0 ? options.namespace : `/proc/self/fd/${where}`;
    try {
      return inNetworkNamespace(namespace, () => {
        const route = new RouteSocket();
        try {
          const name = nameOf(fds[0]) ?? options.interfaceName;
          return new TapInterface(options, fds, linkNamed(route, name).mtu, route);
        } catch (error) {
          route.close();
          throw error;
        }
      });
    } catch (error) {
      throw error instanceof NetworkNamespaceError ? new TapError(error.message) : error;
    } finally {
      if (where >= 0) closeFd(where);
    }
  }

  /** To the settings, as far as they say something. @throws TapError, HostError */
  adapt(options: TapOptions): void {
    const now = this.now();
    if (now === null || now.movedTo !== null) return;
    setOffloads(this.fds[0], now.name, options.offloads);
    configure(this.#route, { ...options, interfaceName: now.name });
    this.mtu = linkNamed(this.#route, now.name).mtu;
  }

  static #openHere(options: TapOptions): TapInterface {
    const { interfaceName } = options;
    const route = new RouteSocket();
    const fds: number[] = [];
    try {
      const before = route.link(interfaceName);
      if (before !== null) checkUsable(before, options);
      const isMultiQueue = options.queueCount > 1 || before?.tun?.isMultiQueue === true;
      for (let i = 0; i < options.queueCount; i++) fds.push(openQueue(interfaceName, isMultiQueue));
      setOffloads(fds[0], interfaceName, options.offloads);
      configure(route, options);
      return new TapInterface(options, fds, linkNamed(route, interfaceName).mtu, route);
    } catch (error) {
      closeFds(fds);
      route.close();
      throw error;
    }
  }

  /** Null: it was deleted. */
  now(): TapNow | null {
    const name = nameOf(this.fds[0]);
    if (name === null) return null;
    return (
      this.#inItsNamespace((path): TapNow => {
        const identity = namespaceIdentity(path);
        if (identity === this.#homeIdentity) return this.#here(name);
        return { name, movedTo: namespaceTitle(identity), link: linkIn(path, name) };
      }) ?? this.#here(name)
    );
  }

  /** @throws TapError */
  setMtu(mtu: number): void {
    const now = this.now();
    if (now === null || now.link === null || now.movedTo !== null) {
      const where = now === null ? 'was deleted' : `was moved to ${now.movedTo}: set its MTU there`;
      throw new TapError(`${now?.name ?? 'the interface'} ${where}`);
    }
    const { link } = now;
    if (mtu !== link.mtu) explained(now.name, () => this.#route.setMtu(link, mtu));
    this.mtu = mtu;
  }

  /** @throws TapError */
  setOffloads(offloads: OffloadSettings): void {
    explained('the interface', () => setOffloads(this.fds[0], 'the interface', offloads));
  }

  /** False: the namespace that the interface is in lost its name, or the name is another one's by now. */
  isNamespaceCurrent(): boolean {
    return this.#identityOfName() === this.#namespaceIdentity || this.now()?.movedTo != null;
  }

  /** The kernel removes the interface unless it is persistent. */
  close(): void {
    closeFds(this.fds);
    this.#route.close();
  }

  #identityOfName(): string | null {
    return this.#namespace === null ? null : namespaceIdentity(this.#namespace);
  }

  /** In the namespace where it was attached to, as far as one can tell. */
  #here(name: string): TapNow {
    const link = this.#route.link(name);
    return { name, movedTo: link === null ? 'another network namespace' : null, link };
  }

  /**
   * What `action` answers about the path of the interface's namespace; null where the kernel does not tell that
   * (before Linux 5.2, or without CAP_NET_ADMIN). Nothing of the namespace is kept, which would keep it alive.
   */
  #inItsNamespace<T>(action: (path: string) => T): T | null {
    const fd = libc.ioctlValue(this.fds[0], TUNGETDEVNETNS, 0);
    if (fd < 0) return null;
    try {
      return action(`/proc/self/fd/${fd}`);
    } finally {
      closeFd(fd);
    }
  }
}

/** Of the interface that the descriptor is attached to; null: it was deleted. */
function nameOf(fd: number): string | null {
  const request = new Uint8Array(IFREQ_BYTES);
  if (libc.ioctl(fd, TUNGETIFF, request) < 0) return null;
  return Buffer.from(request.subarray(0, request.indexOf(0))).toString('latin1');
}

/** An interface in another namespace; null: that may not be entered. */
function linkIn(namespace: string, name: string): Link | null {
  try {
    return inNetworkNamespace(namespace, () => {
      const route = new RouteSocket();
      try {
        return route.link(name);
      } finally {
        route.close();
      }
    });
  } catch (error) {
    if (error instanceof NetworkNamespaceError || error instanceof HostError) return null;
    throw error;
  }
}

/** What TUNSETIFF would refuse with EINVAL only, and what it would not refuse but should. */
function checkUsable({ kind, tun }: Link, { interfaceName, queueCount }: TapOptions): void {
  if (tun === null) {
    const what = kind === '' ? '' : ` (it is of kind ${kind})`;
    throw new TapError(`${interfaceName} exists but is no TAP interface${what}: name another interface`);
  }
  if (!tun.isTap) {
    throw new TapError(
      `${interfaceName} is a TUN interface, which has no Ethernet frames: ` +
        `delete it (ip link delete ${interfaceName}), or name another interface`,
    );
  }
  if (queueCount > 1 && !tun.isMultiQueue) {
    throw new TapError(
      `${interfaceName} was made for a single queue: set queues=1, or make it again with ` +
        `ip tuntap add ${interfaceName} mode tap multi_queue`,
    );
  }
  // The kernel would share the traffic out between both programs.
  if (tun.isMultiQueue && tun.queueCount > 0) throw takenError(interfaceName);
}

function openQueue(interfaceName: string, isMultiQueue: boolean): number {
  const fd = openTunDevice();
  try {
    attach(fd, interfaceName, isMultiQueue);
    const doing = `preparing ${interfaceName}`;
    const headerBytes = new Uint8Array(new Int32Array([TAP_HEADER_BYTES]).buffer);
    checked(libc.ioctl(fd, TUNSETVNETHDRSZ, headerBytes), 'ioctl(TUNSETVNETHDRSZ)', doing);
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/**
 * Has the kernel hand over frames of the interface, of all its queues, that ask for these offloads, or for fewer where it
 * does not know UDP's (before Linux 6.2).
 */
function setOffloads(fd: number, interfaceName: string, settings: OffloadSettings): void {
  const offloads = offloadBits(settings);
  if (libc.ioctlValue(fd, TUNSETOFFLOAD, tunFlags(offloads)) === 0) return;
  const known = offloads & ~(OFFLOAD_USO4 | OFFLOAD_USO6);
  const doing = `preparing ${interfaceName}`;
  checked(libc.ioctlValue(fd, TUNSETOFFLOAD, tunFlags(known)), 'ioctl(TUNSETOFFLOAD)', doing);
}

function tunFlags(offloads: number): number {
  return TUN_FLAGS.reduce((flags, [bit, flag]) => ((offloads & bit) === 0 ? flags : flags | flag), 0);
}

function openTunDevice(): number {
  try {
    return checked(libc.open(TUN_DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC), 'open', `opening ${TUN_DEVICE}`);
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    const { errno } = error;
    if (errno === ERRNO.ENOENT || errno === ERRNO.ENODEV || errno === ERRNO.ENXIO) {
      throw new TapError(
        `${TUN_DEVICE} is not there: load the module (modprobe tun), or give the container the device ` +
          `(--device ${TUN_DEVICE})`,
      );
    }
    if (errno === ERRNO.EACCES || errno === ERRNO.EPERM) {
      throw new TapError(
        `${TUN_DEVICE} may not be opened: run Ringway as root, or give the container the device ` +
          `(--device ${TUN_DEVICE})`,
      );
    }
    throw error;
  }
}

function attach(fd: number, interfaceName: string, isMultiQueue: boolean): void {
  const request = new Uint8Array(IFREQ_BYTES);
  request.set(Buffer.from(interfaceName));
  const flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (isMultiQueue ? IFF_MULTI_QUEUE : 0);
  new DataView(request.buffer).setUint16(IFREQ_FLAGS, flags, true);
  try {
    checked(libc.ioctl(fd, TUNSETIFF, request), 'ioctl(TUNSETIFF)', `attaching to ${interfaceName}`);
  } catch (error) {
    throw error instanceof HostError ? attachError(error, interfaceName) : error;
  }
}

function attachError(error: HostError, interfaceName: string): Error {
  if (error.errno === ERRNO.EPERM) {
    return new TapError(
      `Ringway may not make or attach to ${interfaceName}: run it as root or give it CAP_NET_ADMIN`,
    );
  }
  if (error.errno === ERRNO.EBUSY) return takenError(interfaceName);
  return error;
}

function takenError(interfaceName: string): TapError {
  return new TapError(
    `another program has ${interfaceName} open: end that program, or name another interface`,
  );
}

/** Changes only what is not so already, so that an interface that is prepared needs no privilege. */
function configure(route: RouteSocket, options: TapOptions): void {
  const { interfaceName, mtu, mac, addresses, bringUp } = options;
  const link = linkNamed(route, interfaceName);
  explained(interfaceName, () => {
    if (mac !== null && !sameBytes(mac, link.mac)) route.setMac(link, mac);
    if (mtu !== null && mtu !== link.mtu) route.setMtu(link, mtu);
    for (const address of addresses) route.addAddress(link, address);
    if (bringUp && !link.isUp) route.setUp(link, true);
  });
}

/** @throws TapError for what the kernel refuses */
function explained(interfaceName: string, action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    const fix = error.errno === ERRNO.EPERM ? ': run Ringway as root or give it CAP_NET_ADMIN' : '';
    throw new TapError(`${interfaceName}: ${error.message}${fix}`);
  }
}

function linkNamed(route: RouteSocket, interfaceName: string): Link {
  const link = route.link(interfaceName);
  if (link === null) throw new TapError(`${interfaceName} was deleted while it was being attached to`);
  return link;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
