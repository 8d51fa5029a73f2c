/**
 * Moving bursts of frames through UNIX sockets: bytes and vectors of messages at addresses in the arena, without
 * ever waiting. Answers are counts, or an errno below zero, so that nothing is thrown or allocated on the hot path.
 * Worker threads; the buffers are set by the main thread.
 */
import { setSocketOption } from '../../host/descriptor.ts';
import { ERRNO } from '../../host/errors.ts';
import { lastErrno, libc } from '../../host/libc.ts';

const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

const IOVEC_BYTES = 16;
/** struct msghdr { name, namelen, iov, iovlen, control, controllen, flags }, and the length that mmsghdr adds. */
const MESSAGE_BYTES = 64;
const NAME_OFFSET = 0;
const NAME_BYTES_OFFSET = 8;
const IOV_OFFSET = 16;
const IOV_COUNT_OFFSET = 24;
const MESSAGE_LENGTH_OFFSET = 56;
/** Room for a struct sockaddr_un. */
const NAME_ROOM_BYTES = 128;

/**
 * Asks for socket buffers of that size; gets what the system allows (net.core.wmem_max and rmem_max, unless this
 * process may override them).
 */
export function setSocketBuffers(fd: number, sendBytes: number, receiveBytes: number): void {
  setSocketOption(fd, SO_SNDBUFFORCE, sendBytes) || setSocketOption(fd, SO_SNDBUF, sendBytes);
  setSocketOption(fd, SO_RCVBUFFORCE, receiveBytes) || setSocketOption(fd, SO_RCVBUF, receiveBytes);
}

/** Bytes received, 0 when the other side closed the connection, or an errno below zero. */
export function receiveBytes(fd: number, address: number, sizeBytes: number): number {
  return countOrErrno(libc.recvAt(fd, address, sizeBytes, MSG_DONTWAIT));
}

/** Bytes sent, which may be fewer than given, or an errno below zero. */
export function sendBytes(fd: number, address: number, sizeBytes: number): number {
  return countOrErrno(libc.sendAt(fd, address, sizeBytes, MSG_DONTWAIT | MSG_NOSIGNAL));
}

/** As `sendBytes`, of all that a message's vector names; the message is of a `MessageTable`. */
export function sendVector(fd: number, messageAddress: number): number {
  return countOrErrno(libc.sendmsg(fd, messageAddress, MSG_DONTWAIT | MSG_NOSIGNAL));
}

/** Datagrams received into the table's messages, at most `count`; or an errno below zero. */
export function receiveMessages(fd: number, tableAddress: number, count: number): number {
  // MSG_TRUNC: a message's length is the datagram's, even when that is longer than its room.
  return countOrErrno(libc.recvmmsg(fd, tableAddress, count, MSG_DONTWAIT | MSG_TRUNC, 0));
}

/** Datagrams sent, the first of `count`; or an errno below zero when not even the first could be. */
export function sendMessages(fd: number, tableAddress: number, count: number): number {
  return countOrErrno(libc.sendmmsg(fd, tableAddress, count, MSG_DONTWAIT | MSG_NOSIGNAL));
}

function countOrErrno(result: number): number {
  return result >= 0 ? result : -lastErrno();
}

/** Whether an errno below zero says only that there is nothing, or no room, right now. */
export function isForNow(result: number): boolean {
  return result === -ERRNO.EAGAIN || result === -ERRNO.EINTR || result === -ERRNO.ENOBUFS;
}

/**
 * The structures that the calls above take, in memory whose address is known: messages, the vectors they point at,
 * and the address of a receiver. Filled once; per burst only lengths change.
 */
export class MessageTable {
  declare readonly address: number;
  /** All of the memory that `index` is counted in. */
  declare private readonly words: Int32Array;
  declare private readonly messagesIndex: number;
  declare private readonly vectorsIndex: number;
  declare private readonly nameIndex: number;
  declare private readonly nameAddress: number;
  declare private readonly vectorsAddress: number;

  /** Bytes that a table needs. */
  static sizeBytes(messageCount: number, vectorCount: number): number {
    return messageCount * MESSAGE_BYTES + vectorCount * IOVEC_BYTES + NAME_ROOM_BYTES;
  }

  /** The table begins at byte `index` of `words`, a multiple of 8, which is at `address`; it holds zeros. */
  constructor(words: Int32Array, index: number, address: number, messageCount: number, vectorCount: number) {
    this.address = address;
    this.words = words;
    this.messagesIndex = index;
    const vectorsOffset = messageCount * MESSAGE_BYTES;
    this.vectorsIndex = index + vectorsOffset;
    this.vectorsAddress = address + vectorsOffset;
    this.nameIndex = this.vectorsIndex + vectorCount * IOVEC_BYTES;
    this.nameAddress = this.vectorsAddress + vectorCount * IOVEC_BYTES;
  }

  /** Message `message` is what `vectorCount` vectors from `vector` on name. */
  setMessage(message: number, vector: number, vectorCount: number): void {
    const at = this.messagesIndex + message * MESSAGE_BYTES;
    this.#setAddress(at + IOV_OFFSET, this.vectorsAddress + vector * IOVEC_BYTES);
    this.words[(at + IOV_COUNT_OFFSET) >> 2] = vectorCount;
  }

  /** Who gets the messages: a struct sockaddr_un. */
  setReceiver(sockaddr: Uint8Array, messageCount: number): void {
    const name = new Uint8Array(this.words.buffer, this.words.byteOffset + this.nameIndex, NAME_ROOM_BYTES);
    name.fill(0);
    name.set(sockaddr);
    for (let message = 0; message < messageCount; message++) {
      const at = this.messagesIndex + message * MESSAGE_BYTES;
      this.#setAddress(at + NAME_OFFSET, this.nameAddress);
      this.words[(at + NAME_BYTES_OFFSET) >> 2] = sockaddr.length;
    }
  }

  setVector(vector: number, address: number, sizeBytes: number): void {
    this.#setAddress(this.vectorsIndex + vector * IOVEC_BYTES, address);
    this.setVectorBytes(vector, sizeBytes);
  }

  setVectorBytes(vector: number, sizeBytes: number): void {
    this.words[(this.vectorsIndex + vector * IOVEC_BYTES + 8) >> 2] = sizeBytes;
  }

  setVectorCount(message: number, vectorCount: number): void {
    this.words[(this.messagesIndex + message * MESSAGE_BYTES + IOV_COUNT_OFFSET) >> 2] = vectorCount;
  }

  /** Of a received datagram. */
  messageBytes(message: number): number {
    return this.words[(this.messagesIndex + message * MESSAGE_BYTES + MESSAGE_LENGTH_OFFSET) >> 2];
  }

  #setAddress(index: number, address: number): void {
    this.words[index >> 2] = (address % 2 ** 32) | 0;
    this.words[(index >> 2) + 1] = Math.floor(address / 2 ** 32);
  }
}
