/**
 * A front-end that does what a test writes down, byte by byte if need be, good or hostile. It builds messages
 * by itself from the specification's layouts instead of using the codec under test. One end of a socket;
 * the session under test has the other, in the same thread.
 */
import { closeFd, closeFds, createEventFd } from '../../src/host/descriptor.ts';
import { descriptorLoop, type Watch } from '../../src/host/event-loop.ts';
import { receive, send } from '../../src/host/unix-socket.ts';

/** vhost-user.rst, "Front-end message types". */
export const ID = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  RESET_OWNER: 4,
  SET_MEM_TABLE: 5,
  SET_LOG_BASE: 6,
  SET_LOG_FD: 7,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  SEND_RARP: 19,
  NET_SET_MTU: 20,
  SET_BACKEND_REQ_FD: 21,
  IOTLB_MSG: 22,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
  GET_INFLIGHT_FD: 31,
  SET_INFLIGHT_FD: 32,
  RESET_DEVICE: 34,
  VRING_KICK: 35,
  GET_MAX_MEM_SLOTS: 36,
  ADD_MEM_REG: 37,
  REM_MEM_REG: 38,
  SET_STATUS: 39,
  GET_STATUS: 40,
  GET_VRING_BASE_SKIP_DRAIN: 45,
} as const;
export type Request = keyof typeof ID;

export const NEED_REPLY = 8;
const VERSION_1 = 1;

/** Bits of GET_FEATURES and GET_PROTOCOL_FEATURES. */
export const bit = (...numbers: number[]): bigint =>
  numbers.reduce((mask, n) => mask | (1n << BigInt(n)), 0n);
export const F = {
  MRG_RXBUF: 15,
  CTRL_VQ: 17,
  MQ: 22,
  LOG_ALL: 26,
  INDIRECT: 28,
  EVENT_IDX: 29,
  PROTOCOL: 30,
  VERSION_1: 32,
  ACCESS_PLATFORM: 33,
  PACKED: 34,
  IN_ORDER: 35,
  RING_RESET: 40,
};
export const P = {
  MQ: 0,
  LOG_SHMFD: 1,
  RARP: 2,
  REPLY_ACK: 3,
  MTU: 4,
  BACKEND_REQ: 5,
  CONFIG: 9,
  INFLIGHT: 12,
  RESET: 13,
  IN_BAND: 14,
  MEM_SLOTS: 15,
  STATUS: 16,
  SKIP_DRAIN: 23,
};

const EMPTY = new Uint8Array(0);

export function bytesOf(sizeBytes: number, fill: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  fill(new DataView(bytes.buffer));
  return bytes;
}

export const none = (): Uint8Array => EMPTY;
export const u64 = (value: bigint | number): Uint8Array =>
  bytesOf(8, (view) => view.setBigUint64(0, BigInt(value), true));
/** Two u32: index and number. */
export const state = (index: number, num: number): Uint8Array =>
  bytesOf(8, (view) => {
    view.setUint32(0, index, true);
    view.setUint32(4, num, true);
  });

export type Region = { gpa: bigint; sizeBytes: bigint; uva: bigint; mmapOffset: bigint };

function putRegion(view: DataView, at: number, region: Readonly<Region>): void {
  view.setBigUint64(at, region.gpa, true);
  view.setBigUint64(at + 8, region.sizeBytes, true);
  view.setBigUint64(at + 16, region.uva, true);
  view.setBigUint64(at + 24, region.mmapOffset, true);
}

/** ADD_MEM_REG and REM_MEM_REG. */
export const region = (value: Readonly<Region>): Uint8Array =>
  bytesOf(40, (view) => putRegion(view, 8, value));

/** SET_MEM_TABLE; `room` regions are sent although only those given are counted. */
export const table = (regions: readonly Readonly<Region>[], room = regions.length): Uint8Array =>
  bytesOf(8 + 32 * room, (view) => {
    view.setUint32(0, regions.length, true);
    for (const [i, value] of regions.entries()) putRegion(view, 8 + 32 * i, value);
  });

export type Iotlb = { iova: bigint; sizeBytes: bigint; uva: bigint; access: number; type: number };

/** IOTLB_MSG, of either side; with the padding that QEMU's has, or without. */
export const iotlb = (
  { iova = 0n, sizeBytes = 0n, uva = 0n, access = 0, type }: Partial<Iotlb> & Pick<Iotlb, 'type'>,
  paddingBytes = 6,
): Uint8Array =>
  bytesOf(26 + paddingBytes, (view) => {
    view.setBigUint64(0, iova, true);
    view.setBigUint64(8, sizeBytes, true);
    view.setBigUint64(16, uva, true);
    view.setUint8(24, access);
    view.setUint8(25, type);
  });

export type RingPlace = { descUva: bigint; availUva: bigint; usedUva: bigint };

export const ringAddress = (
  index: number,
  { descUva, availUva, usedUva }: RingPlace,
  flags = 0,
  logGpa = 0n,
): Uint8Array =>
  bytesOf(40, (view) => {
    view.setUint32(0, index, true);
    view.setUint32(4, flags, true);
    view.setBigUint64(8, descUva, true);
    view.setBigUint64(16, usedUva, true);
    view.setBigUint64(24, availUva, true);
    view.setBigUint64(32, logGpa, true);
  });

/** SET_LOG_BASE. */
export const log = (sizeBytes: bigint | number, offset: bigint | number = 0): Uint8Array =>
  bytesOf(16, (view) => {
    view.setBigUint64(0, BigInt(sizeBytes), true);
    view.setBigUint64(8, BigInt(offset), true);
  });

/** GET_CONFIG and SET_CONFIG. */
export const config = (offset: number, bytes: Uint8Array): Uint8Array =>
  bytesOf(12 + bytes.length, (view) => {
    view.setUint32(0, offset, true);
    view.setUint32(4, bytes.length, true);
    new Uint8Array(view.buffer).set(bytes, 12);
  });

/** A whole message. `sizeBytes`: what the header says, which may be a lie. */
export function message(
  request: number,
  payload: Uint8Array,
  flags = 0,
  sizeBytes = payload.length,
): Uint8Array {
  const bytes = bytesOf(12 + payload.length, (view) => {
    view.setUint32(0, request, true);
    view.setUint32(4, flags | VERSION_1, true);
    view.setUint32(8, sizeBytes, true);
  });
  bytes.set(payload, 12);
  return bytes;
}

export type Reply = { request: number; flags: number; payload: Uint8Array; u64: bigint };

export class ScriptedFrontEnd {
  /** Resolves when the other end closed. */
  readonly closed: Promise<void>;
  /** While true, nothing that comes is read. */
  deaf = false;
  /** Descriptors that came, where they are expected; closed with this object. */
  receivedFds: number[] | null = null;
  readonly #fd: number;
  readonly #watch: Watch;
  readonly #waiting: (() => void)[] = [];
  readonly #ownFds: number[] = [];
  #received: Uint8Array = EMPTY;
  #isClosed = false;
  #isDone = false;
  readonly #onClosed: () => void;

  /** Takes over a connected socket. */
  constructor(fd: number) {
    this.#fd = fd;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#onClosed = resolve;
    this.#watch = descriptorLoop().watch(fd, () => this.#read());
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** A fresh eventfd, closed with this object. */
  eventFd(): number {
    return this.own(createEventFd());
  }

  /** Closes `fd` with this object. */
  own(fd: number): number {
    this.#ownFds.push(fd);
    return fd;
  }

  /** Sends bytes as they are. A peer that hung up is not an error here: `closed` tells. */
  sendBytes(bytes: Uint8Array, fds: readonly number[] = []): void {
    try {
      const sent = send(this.#fd, bytes, fds);
      if (sent !== bytes.length) throw new Error(`only ${sent} of ${bytes.length} bytes could be sent`);
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EPIPE')) throw error;
    }
  }

  send(request: Request, payload: Uint8Array = EMPTY, fds: readonly number[] = [], flags = 0): void {
    this.sendBytes(message(ID[request], payload, flags), fds);
  }

  /** Sends and waits for the reply. */
  request(
    request: Request,
    payload: Uint8Array = EMPTY,
    fds: readonly number[] = [],
    flags = 0,
  ): Promise<Reply> {
    this.send(request, payload, fds, flags);
    return this.reply();
  }

  /** Sends with NEED_REPLY; answers the acknowledgement's value: 0 is success. */
  async ack(request: Request, payload: Uint8Array = EMPTY, fds: readonly number[] = []): Promise<bigint> {
    const reply = await this.request(request, payload, fds, NEED_REPLY);
    if (reply.request !== ID[request]) throw new Error(`${request} was acknowledged as ${reply.request}`);
    return reply.u64;
  }

  /** The next message that comes. @throws when the connection ends first */
  async reply(): Promise<Reply> {
    const reply = await this.replyOrEnd();
    if (reply === null) throw new Error('the back-end closed the connection');
    return reply;
  }

  /** The next message that comes, or null when the connection ends first. */
  async replyOrEnd(): Promise<Reply | null> {
    for (;;) {
      const reply = this.#take();
      if (reply !== null) return reply;
      if (this.#isClosed) return null;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** What has come by now and was not taken. */
  repliesNow(): Reply[] {
    this.#read();
    const replies: Reply[] = [];
    for (let reply = this.#take(); reply !== null; reply = this.#take()) replies.push(reply);
    return replies;
  }

  /**
   * Waits until everything sent so far was handled, and answers what came meanwhile; null when the connection
   * ended instead.
   */
  async settle(): Promise<Reply[] | null> {
    this.send('GET_FEATURES');
    const replies: Reply[] = [];
    for (;;) {
      const reply = await this.replyOrEnd();
      if (reply === null) return null;
      if (reply.request === ID.GET_FEATURES) return replies;
      replies.push(reply);
    }
  }

  /** Hangs up. */
  close(): void {
    if (this.#isDone) return;
    this.#isDone = true;
    this.#watch.close();
    closeFd(this.#fd);
    closeFds(this.#ownFds);
    this.#end();
  }

  #read(): void {
    while (!this.#isClosed && !this.deaf) {
      const { bytes, fds, closed } = receive(this.#fd, 8192);
      if (this.receivedFds !== null) this.receivedFds.push(...fds.map((one) => this.own(one)));
      else {
        closeFds(fds);
        if (fds.length > 0) throw new Error('the back-end sent descriptors');
      }
      if (closed) {
        this.#watch.close();
        this.#end();
      }
      if (bytes.length === 0) break;
      this.#received = new Uint8Array(Buffer.concat([this.#received, bytes]));
    }
    for (const wake of this.#waiting.splice(0)) wake();
  }

  #end(): void {
    this.#isClosed = true;
    this.#onClosed();
    for (const wake of this.#waiting.splice(0)) wake();
  }

  #take(): Reply | null {
    if (this.#received.length < 12) return null;
    const view = new DataView(this.#received.buffer, this.#received.byteOffset);
    const sizeBytes = view.getUint32(8, true);
    if (this.#received.length < 12 + sizeBytes) return null;
    const payload = this.#received.slice(12, 12 + sizeBytes);
    const reply = {
      request: view.getUint32(0, true),
      flags: view.getUint32(4, true),
      payload,
      u64: payload.length >= 8 ? view.getBigUint64(12, true) : 0n,
    };
    this.#received = this.#received.slice(12 + sizeBytes);
    return reply;
  }
}
