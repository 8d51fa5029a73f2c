/** Descriptors whose close is held up by their other end, as a hostile front-end can hold up that of an eventfd. */
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { expect } from 'vitest';
import { libc } from '../../src/host/libc.ts';
import { reserveAddressSpace } from '../../src/host/mapping.ts';

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SO_LINGER = 13;
const MSG_DONTWAIT = 0x40;
const LINGER_S = 3600;
const ZEROS_BYTES = 2 ** 16;

export class LingeringPeers {
  readonly #peers: Socket[] = [];
  readonly #server = createServer({ pauseOnConnect: true }, (socket) => this.#peers.push(socket));
  readonly #zeros = reserveAddressSpace(ZEROS_BYTES);

  static async listen(): Promise<LingeringPeers> {
    const made = new LingeringPeers();
    made.#server.listen(0, '127.0.0.1');
    await once(made.#server, 'listening');
    return made;
  }

  /** A descriptor whose close waits until the other end has read everything, or has gone. */
  async connect(): Promise<number> {
    const fd = libc.socket(AF_INET, SOCK_STREAM, 0);
    const { port } = this.#server.address() as { port: number };
    const address = new Uint8Array([
      AF_INET,
      0,
      port >> 8,
      port & 255,
      127,
      0,
      0,
      1,
      ...new Array(8).fill(0),
    ]);
    const accepted = once(this.#server, 'connection');
    expect(libc.connect(fd, address, address.length)).toBe(0);
    await accepted;
    const linger = new Uint8Array(new Int32Array([1, LINGER_S]).buffer);
    expect(libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, linger, linger.length)).toBe(0);
    while (libc.sendAt(fd, this.#zeros, ZEROS_BYTES, MSG_DONTWAIT) > 0);
    return fd;
  }

  /** All closes go on. */
  release(): void {
    for (const peer of this.#peers.splice(0)) peer.destroy();
  }

  async close(): Promise<void> {
    this.release();
    this.#server.close();
    await once(this.#server, 'close');
  }
}
