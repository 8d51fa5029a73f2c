/**
 * Raw frames out of a Linux guest, for tests of what a guest may not send: a program of some hundred bytes that the guest
 * gets over its shell, since its busybox has nothing that sends any frame. It reads a sockaddr_ll and a frame from its
 * standard input, and sends the frame by a packet socket. For x86-64, as the guests are.
 */
import type { LinuxGuest } from '../peers/index.ts';

const PATH = '/bin/send-frame';
const LOAD_ADDRESS = 0x400000;
const HEADERS_BYTES = 64 + 56;
const AF_PACKET = 17;
const SOCKADDR_BYTES = 20;

const CODE = [
  // fd = socket(AF_PACKET, SOCK_RAW, 0)
  ...[0xb8, 41, 0, 0, 0, 0xbf, AF_PACKET, 0, 0, 0, 0xbe, 3, 0, 0, 0, 0x31, 0xd2, 0x0f, 0x05, 0x89, 0xc3],
  // n = read(0, buffer on the stack, 4096)
  ...[
    0x31, 0xc0, 0x31, 0xff, 0x48, 0x81, 0xec, 0, 0x20, 0, 0, 0x48, 0x89, 0xe6, 0xba, 0, 0x10, 0, 0, 0x0f,
    0x05,
  ],
  // sendto(fd, buffer + 20, n - 20, 0, buffer, 20)
  ...[
    0x8d,
    0x50,
    0xec,
    0x48,
    0x8d,
    0x74,
    0x24,
    SOCKADDR_BYTES,
    0x89,
    0xdf,
    0x45,
    0x31,
    0xd2,
    0x49,
    0x89,
    0xe0,
  ],
  ...[0x41, 0xb9, SOCKADDR_BYTES, 0, 0, 0, 0xb8, 44, 0, 0, 0, 0x0f, 0x05],
  // exit(1 where that failed, otherwise 0)
  ...[0x48, 0xc1, 0xe8, 0x3f, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05],
];

/** An ELF file with one segment, which begins at its first byte. */
function program(): Uint8Array {
  const bytes = new Uint8Array(HEADERS_BYTES + CODE.length);
  const view = new DataView(bytes.buffer);
  const word64 = (at: number, value: number): void => view.setBigUint64(at, BigInt(value), true);
  // 64 bits, little-endian, an executable for x86-64.
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, 62, true);
  view.setUint32(20, 1, true);
  word64(24, LOAD_ADDRESS + HEADERS_BYTES);
  word64(32, 64);
  view.setUint16(52, 64, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, 1, true);
  // To be loaded, read and executed.
  view.setUint32(64, 1, true);
  view.setUint32(68, 5, true);
  word64(80, LOAD_ADDRESS);
  word64(88, LOAD_ADDRESS);
  word64(96, bytes.length);
  word64(104, bytes.length);
  word64(112, 0x1000);
  bytes.set(CODE, HEADERS_BYTES);
  return bytes;
}

const escaped = (bytes: Iterable<number>): string =>
  [...bytes].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('');

/** Sends frames from one interface of the guest. */
export class RawFrames {
  readonly #guest: LinuxGuest;
  readonly #address: readonly number[];

  private constructor(guest: LinuxGuest, address: readonly number[]) {
    this.#guest = guest;
    this.#address = address;
  }

  static async prepare(guest: LinuxGuest, interfaceName: string): Promise<RawFrames> {
    await guest.runOk(`printf '${escaped(program())}' > ${PATH} && chmod +x ${PATH}`);
    const index = Number(await guest.runOk(`cat /sys/class/net/${interfaceName}/ifindex`));
    const address = new DataView(new ArrayBuffer(SOCKADDR_BYTES));
    address.setUint16(0, AF_PACKET, true);
    address.setInt32(4, index, true);
    return new RawFrames(guest, [...new Uint8Array(address.buffer)]);
  }

  async send(frame: Iterable<number>): Promise<void> {
    await this.#guest.runOk(`printf '${escaped([...this.#address, ...frame])}' | ${PATH}`);
  }
}
