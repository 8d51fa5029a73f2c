/**
 * The smallest back-end that an embedded guest can be tested with, whatever its rings are: it understands the
 * messages without which nothing works (no protocol features, so no acknowledgements), serves each ring by a
 * naive twin, and sends back what the guest sends. One guest at a time; the test says when it looks at the rings.
 */
import { hasBit } from '../../protocol/bits.ts';
import {
  decodeBody,
  decodeHeader,
  encodeBody,
  encodeMessage,
  type MemRegion,
  type VringAddr,
} from '../../protocol/vhost-user/codec.ts';
import {
  FLAG_REPLY,
  HEADER_BYTES,
  type MessageName,
  messageName,
} from '../../protocol/vhost-user/messages.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import { netHeaderBytes } from '../../protocol/virtio/net.ts';
import { closeFd, closeFds, signalFd } from '../../src/host/descriptor.ts';
import { descriptorLoop, type Watch } from '../../src/host/event-loop.ts';
import { mapFile, mapZeroPagesAt, viewMemory } from '../../src/host/mapping.ts';
import { acceptUnix, listenUnix, receive, send } from '../../src/host/unix-socket.ts';
import { NaivePackedRing } from '../vring/naive-packed-ring.ts';
import type { NaiveRing } from '../vring/naive-ring.ts';
import { NaiveSplitRing } from '../vring/naive-split-ring.ts';

type Ring = { size: number; base: number; addr: VringAddr | null; callFd: number; twin: NaiveRing | null };

const newRing = (): Ring => ({ size: 0, base: 0, addr: null, callFd: -1, twin: null });

/** All that lives as long as one connection. */
class Connection {
  readonly fd: number;
  readonly rings = [newRing(), newRing()];
  features = 0n;
  regions: readonly MemRegion[] = [];
  memory: { address: number; bytes: Uint8Array } | null = null;
  received: Uint8Array = new Uint8Array(0);
  receivedFds: number[] = [];

  constructor(fd: number) {
    this.fd = fd;
  }

  has(bit: number): boolean {
    return hasBit(this.features, bit);
  }
}

export class TinyDevice {
  /** Bases that the front-end set, in the order of the messages. */
  readonly bases: number[] = [];
  readonly #offered: bigint;
  readonly #listenFd: number;
  readonly #listenWatch: Watch;
  #connection: Connection | null = null;
  #watch: Watch | null = null;

  constructor(socketPath: string, offered: bigint) {
    this.#offered = offered;
    this.#listenFd = listenUnix(socketPath);
    this.#listenWatch = descriptorLoop().watch(this.#listenFd, () => this.#accept());
  }

  /** Looks at the rings once: what the guest sent goes back as far as there are buffers. Answers the frames. */
  turn(): number {
    const [to, from] = this.#connection?.rings ?? [];
    if (!to?.twin || !from?.twin) return 0;
    let frames = 0;
    while (from.twin.waiting() > 0 && to.twin.waiting() > 0) {
      if (to.twin.give(from.twin.take()) !== 'done') throw new Error('a frame found no room');
      frames++;
    }
    for (const { twin, callFd } of [to, from]) {
      const before = twin!.signals;
      twin!.publish();
      if (twin!.signals > before && callFd >= 0) signalFd(callFd);
    }
    return frames;
  }

  /** Ends the connection and forgets everything about its rings. */
  hangUp(): void {
    const connection = this.#connection;
    if (connection === null) return;
    this.#connection = null;
    this.#watch?.close();
    closeFd(connection.fd);
    closeFds(connection.rings.flatMap(({ callFd }) => (callFd < 0 ? [] : [callFd])));
    closeFds(connection.receivedFds);
    if (connection.memory !== null) mapZeroPagesAt(connection.memory.address, connection.memory.bytes.length);
  }

  close(): void {
    this.hangUp();
    this.#listenWatch.close();
    closeFd(this.#listenFd);
  }

  #accept(): void {
    const fd = acceptUnix(this.#listenFd);
    if (fd === null) return;
    this.hangUp();
    const connection = new Connection(fd);
    this.#connection = connection;
    this.#watch = descriptorLoop().watch(fd, () => this.#onReadable(connection));
  }

  #onReadable(connection: Connection): void {
    const { bytes, fds, closed } = receive(connection.fd, 8192);
    connection.received = Buffer.concat([connection.received, bytes]);
    connection.receivedFds.push(...fds);
    if (closed) this.hangUp();
    while (connection === this.#connection && connection.received.length >= HEADER_BYTES) {
      const { request, sizeBytes } = decodeHeader(connection.received);
      if (connection.received.length < HEADER_BYTES + sizeBytes) return;
      const payload = Uint8Array.from(connection.received.subarray(HEADER_BYTES, HEADER_BYTES + sizeBytes));
      connection.received = connection.received.subarray(HEADER_BYTES + sizeBytes);
      const reply = this.#handle(connection, messageName(request), payload);
      if (reply !== null) send(connection.fd, encodeMessage(request, FLAG_REPLY, reply));
    }
  }

  /** The reply's payload, or null where there is none. */
  #handle(connection: Connection, name: MessageName | null, payload: Uint8Array): Uint8Array | null {
    const { rings } = connection;
    switch (name) {
      case 'GET_FEATURES':
        return encodeBody('u64', this.#offered);
      case 'SET_FEATURES':
        connection.features = decodeBody('u64', payload);
        return null;
      case 'SET_OWNER':
        return null;
      case 'SET_MEM_TABLE':
        this.#map(connection, decodeBody('memTable', payload));
        return null;
      case 'SET_VRING_NUM': {
        const { index, num } = decodeBody('vringState', payload);
        rings[index]!.size = num;
        return null;
      }
      case 'SET_VRING_BASE': {
        const { index, num } = decodeBody('vringState', payload);
        rings[index]!.base = num;
        this.bases.push(num);
        return null;
      }
      case 'SET_VRING_ADDR': {
        const addr = decodeBody('vringAddr', payload);
        rings[addr.index]!.addr = addr;
        return null;
      }
      case 'SET_VRING_KICK': {
        closeFds(connection.receivedFds.splice(0));
        this.#start(connection, rings[decodeBody('vringFd', payload).index]!);
        return null;
      }
      case 'SET_VRING_CALL': {
        const ring = rings[decodeBody('vringFd', payload).index]!;
        if (ring.callFd >= 0) closeFd(ring.callFd);
        ring.callFd = connection.receivedFds.shift() ?? -1;
        return null;
      }
      case 'GET_VRING_BASE': {
        const { index } = decodeBody('vringState', payload);
        const ring = rings[index]!;
        const num = ring.twin?.base() ?? ring.base;
        ring.twin = null;
        return encodeBody('vringState', { index, num });
      }
      default:
        throw new Error(`the tiny device does not know ${name}`);
    }
  }

  /** All regions are parts of one file. */
  #map(connection: Connection, regions: readonly MemRegion[]): void {
    const ends = regions.map(({ mmapOffset, sizeBytes }) => Number(mmapOffset + sizeBytes));
    const sizeBytes = Math.max(...ends);
    const address = mapFile(sizeBytes, connection.receivedFds[0]!, 'mapping the guest of a tiny device');
    closeFds(connection.receivedFds.splice(0));
    connection.regions = regions;
    connection.memory = { address, bytes: new Uint8Array(viewMemory(address, sizeBytes)) };
  }

  #start(connection: Connection, ring: Ring): void {
    const { addr, size, base } = ring;
    if (addr === null || connection.memory === null)
      throw new Error('a ring was started before it was placed');
    const gpa = (uva: bigint): bigint => {
      const region = connection.regions.find((r) => uva >= r.uva && uva < r.uva + r.sizeBytes);
      if (region === undefined) throw new Error(`no region holds the user address ${uva}`);
      return uva - region.uva + region.gpa;
    };
    const mergeable = connection.has(VIRTIO_FEATURE.NET_MRG_RXBUF);
    const options = {
      file: connection.memory.bytes,
      regions: connection.regions,
      size,
      descGpa: gpa(addr.descUva),
      driverGpa: gpa(addr.availUva),
      deviceGpa: gpa(addr.usedUva),
      eventIdx: connection.has(VIRTIO_FEATURE.EVENT_IDX),
      mergeable,
      headerBytes: netHeaderBytes(connection.has(VIRTIO_FEATURE.VERSION_1), mergeable),
      inOrder: connection.has(VIRTIO_FEATURE.IN_ORDER),
      base,
    };
    const isPacked = connection.has(VIRTIO_FEATURE.RING_PACKED);
    ring.twin = isPacked ? new NaivePackedRing(options) : new NaiveSplitRing(options);
  }
}
