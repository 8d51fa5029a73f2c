/**
 * Network interfaces as the kernel's route netlink knows them (rtnetlink(7)): what an interface is, its MTU,
 * addresses and whether it is up. A socket speaks to the namespace that the thread was in when it was opened,
 * also later from another one. Requests are answered before `write` returns. Main thread.
 */
import { closeFd } from '../../host/descriptor.ts';
import { checked, ERRNO, HostError } from '../../host/errors.ts';
import { libc } from '../../host/libc.ts';
import type { IpPrefix } from './ip-prefix.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const NETLINK_ROUTE = 0;

const NLMSG_ERROR = 2;
const RTM_NEWLINK = 16;
const RTM_GETLINK = 18;
const RTM_NEWADDR = 20;
const NLM_F_REQUEST = 1;
const NLM_F_ACK = 4;
const NLM_F_REPLACE = 0x100;
const NLM_F_CREATE = 0x400;

const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINKINFO = 18;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const IFLA_TUN_TYPE = 3;
const IFLA_TUN_PERSIST = 6;
const IFLA_TUN_MULTI_QUEUE = 7;
const IFLA_TUN_NUM_QUEUES = 8;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFF_UP = 1;
/** Of a `tun` interface that carries Ethernet frames. */
const TUN_TYPE_TAP = 2;

const HEADER_BYTES = 16;
const IFINFO_BYTES = 16;
const IFADDR_BYTES = 8;
const ANSWER_BYTES_MAX = 32_768;

export type Link = {
  readonly index: number;
  /** `tun`, `veth`, `bridge` and so on; empty for hardware and the loopback. */
  readonly kind: string;
  readonly mtu: number;
  readonly mac: Uint8Array;
  readonly isUp: boolean;
  /** Of a TUN or TAP interface, otherwise null. */
  readonly tun: TunLink | null;
};

export type TunLink = {
  readonly isTap: boolean;
  readonly isPersistent: boolean;
  readonly isMultiQueue: boolean;
  /** Queues that programs have open now; 0 where the kernel does not say (single queue). */
  readonly queueCount: number;
};

type Attribute = readonly [type: number, value: Uint8Array];

export class RouteSocket {
  readonly #fd: number;
  readonly #answer = new Uint8Array(ANSWER_BYTES_MAX);
  #sequence = 0;

  constructor() {
    const type = SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC;
    this.#fd = checked(libc.socket(AF_NETLINK, type, NETLINK_ROUTE), 'socket', 'opening a netlink socket');
  }

  /** The interface of that name, or null when there is none. */
  link(name: string): Link | null {
    const body = packet(new Uint8Array(IFINFO_BYTES), [[IFLA_IFNAME, Buffer.from(`${name}\0`)]]);
    try {
      return readLink(this.#request(RTM_GETLINK, 0, body, `looking for interface ${name}`));
    } catch (error) {
      if (error instanceof HostError && error.errno === ERRNO.ENODEV) return null;
      throw error;
    }
  }

  /** @throws HostError; EPERM without CAP_NET_ADMIN */
  setMtu(link: Link, mtu: number): void {
    this.#change(link, 0, 0, [[IFLA_MTU, u32(mtu)]], `setting the MTU ${mtu}`);
  }

  setMac(link: Link, mac: Uint8Array): void {
    this.#change(link, 0, 0, [[IFLA_ADDRESS, mac]], 'setting the MAC address');
  }

  setUp(link: Link, isUp: boolean): void {
    this.#change(link, isUp ? IFF_UP : 0, IFF_UP, [], isUp ? 'bringing it up' : 'taking it down');
  }

  /** Adds an address; one that is there already stays. */
  addAddress(link: Link, address: IpPrefix): void {
    const head = new Uint8Array(IFADDR_BYTES);
    head[0] = address.family === 4 ? AF_INET : AF_INET6;
    head[1] = address.prefixBits;
    new DataView(head.buffer).setUint32(4, link.index, true);
    const body = packet(head, [
      [IFA_LOCAL, address.bytes],
      [IFA_ADDRESS, address.bytes],
    ]);
    const flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    this.#request(RTM_NEWADDR, flags, body, `adding the address ${address.text}`);
  }

  close(): void {
    closeFd(this.#fd);
  }

  #change(link: Link, flags: number, mask: number, attributes: readonly Attribute[], doing: string): void {
    const head = new Uint8Array(IFINFO_BYTES);
    const view = new DataView(head.buffer);
    view.setInt32(4, link.index, true);
    view.setUint32(8, flags, true);
    view.setUint32(12, mask, true);
    this.#request(RTM_NEWLINK, NLM_F_ACK, packet(head, attributes), doing);
  }

  /** The body of the answer; empty for a mere acknowledgement. @throws HostError with the errno it answers */
  #request(type: number, flags: number, body: Uint8Array, doing: string): Uint8Array {
    const message = new Uint8Array(HEADER_BYTES + body.length);
    const view = new DataView(message.buffer);
    view.setUint32(0, message.length, true);
    view.setUint16(4, type, true);
    view.setUint16(6, NLM_F_REQUEST | flags, true);
    view.setUint32(8, ++this.#sequence, true);
    message.set(body, HEADER_BYTES);
    checked(libc.write(this.#fd, message, message.length), 'write', doing);
    const bytes = checked(libc.read(this.#fd, this.#answer, ANSWER_BYTES_MAX), 'read', doing);
    const answer = new DataView(this.#answer.buffer, 0, bytes);
    if (answer.getUint16(4, true) !== NLMSG_ERROR) return this.#answer.slice(HEADER_BYTES, bytes);
    const errno = -answer.getInt32(HEADER_BYTES, true);
    if (errno !== 0) throw new HostError('netlink', errno, doing);
    return new Uint8Array(0);
  }
}

function readLink(body: Uint8Array): Link {
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  const attributes = readAttributes(body.subarray(IFINFO_BYTES));
  const info = readAttributes(attributes.get(IFLA_LINKINFO) ?? new Uint8Array(0));
  const kind = textOf(info.get(IFLA_INFO_KIND));
  return {
    index: view.getInt32(4, true),
    kind,
    mtu: numberOf(attributes.get(IFLA_MTU)),
    mac: Uint8Array.from(attributes.get(IFLA_ADDRESS) ?? []),
    isUp: (view.getUint32(8, true) & IFF_UP) !== 0,
    tun: kind === 'tun' ? readTun(readAttributes(info.get(IFLA_INFO_DATA) ?? new Uint8Array(0))) : null,
  };
}

function readTun(attributes: ReadonlyMap<number, Uint8Array>): TunLink {
  return {
    isTap: numberOf(attributes.get(IFLA_TUN_TYPE)) === TUN_TYPE_TAP,
    isPersistent: numberOf(attributes.get(IFLA_TUN_PERSIST)) !== 0,
    isMultiQueue: numberOf(attributes.get(IFLA_TUN_MULTI_QUEUE)) !== 0,
    queueCount: numberOf(attributes.get(IFLA_TUN_NUM_QUEUES)),
  };
}

/** struct rtattr: length with this head of four bytes, type, value; each begins at a multiple of four. */
function readAttributes(bytes: Uint8Array): Map<number, Uint8Array> {
  const attributes = new Map<number, Uint8Array>();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + 4 <= bytes.length; ) {
    const length = view.getUint16(at, true);
    if (length < 4) break;
    // Above the type's 14 bits stand flags.
    attributes.set(view.getUint16(at + 2, true) & 0x3fff, bytes.subarray(at + 4, at + length));
    at += padded(length);
  }
  return attributes;
}

function packet(head: Uint8Array, attributes: readonly Attribute[]): Uint8Array {
  const sizeBytes = attributes.reduce((sum, [, value]) => sum + padded(4 + value.length), head.length);
  const bytes = new Uint8Array(sizeBytes);
  const view = new DataView(bytes.buffer);
  bytes.set(head);
  let at = head.length;
  for (const [type, value] of attributes) {
    view.setUint16(at, 4 + value.length, true);
    view.setUint16(at + 2, type, true);
    bytes.set(value, at + 4);
    at += padded(4 + value.length);
  }
  return bytes;
}

function padded(sizeBytes: number): number {
  return (sizeBytes + 3) & ~3;
}

function u32(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array([value]).buffer);
}

/** A little-endian number of one to four bytes; 0 when absent. */
function numberOf(value: Uint8Array | undefined): number {
  return (value ?? new Uint8Array(0)).reduceRight((sum, byte) => sum * 256 + byte, 0);
}

function textOf(value: Uint8Array | undefined): string {
  return Buffer.from(value ?? [])
    .toString('latin1')
    .replace(/\0.*$/, '');
}
