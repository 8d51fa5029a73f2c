/**
 * The frames that embedded guests send: small UDP datagrams with addresses that name the guest and, where
 * many are asked for, a number. Buffers are filled once; afterwards only the target's number is written.
 * Guest process, its one thread.
 */
import type { EmbeddedGuest } from '../../src/frontend/index.ts';

const UDP_HEADERS_BYTES = 42;
const RECLAIM_MS_MAX = 1000;
const IPV4 = 14;
const UDP = 34;

/** `guest` counts from 0, `number` below 2^24: 02, guest, 0, number. */
export function addressOf(guest: number, number: number): Uint8Array {
  return Uint8Array.of(0x02, guest + 1, 0, number >>> 16, (number >>> 8) & 255, number & 255);
}

export function formatAddress(address: Uint8Array): string {
  return Array.from(address, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/**
 * Writes a frame from `guest` to the other into every free transmit buffer. With several queue pairs every
 * buffer is a flow of its own, so that the switch spreads them; with one pair all are the same flow.
 */
export function fillBuffers(embedded: EmbeddedGuest, guest: number, frameBytes: number): void {
  for (const [pairIndex, { fromGuest }] of embedded.pairs.entries()) {
    const { ring } = fromGuest;
    const deadlineMs = performance.now() + RECLAIM_MS_MAX;
    let free = fromGuest.reclaim();
    while (free < ring.size) {
      if (performance.now() > deadlineMs)
        throw new Error(
          `guest ${guest}: the switch keeps ${ring.size - free} of ${ring.size} transmit buffers of pair ${pairIndex}`,
        );
      free = fromGuest.reclaim();
    }
    fromGuest.clearHeaders();
    for (const [id, offset] of ring.bufferOffsets.entries()) {
      const flow = embedded.pairs.length === 1 ? 0 : pairIndex * ring.size + id;
      const start = offset + ring.headerBytes;
      embedded.memory.u8.set(datagram(guest, frameBytes, flow), start);
    }
  }
}

/** Little-endian words to write a target's address with: the first four bytes, then the last two. */
export function targetLow(guest: number, number: number): number {
  return 0x02 | ((guest + 1) << 8) | ((number >>> 16) << 24);
}

export function targetHigh(number: number): number {
  return ((number >>> 8) & 255) | ((number & 255) << 8);
}

function datagram(guest: number, frameBytes: number, flow: number): Uint8Array {
  const frame = new Uint8Array(frameBytes);
  const view = new DataView(frame.buffer);
  frame.set(addressOf(1 - guest, 0), 0);
  frame.set(addressOf(guest, 0), 6);
  view.setUint16(12, 0x0800);
  if (frameBytes < UDP_HEADERS_BYTES) return frame;
  view.setUint8(IPV4, 0x45);
  view.setUint16(IPV4 + 2, frameBytes - IPV4);
  view.setUint8(IPV4 + 8, 64);
  view.setUint8(IPV4 + 9, 17);
  frame.set([198, 18, 0, 1 + guest], IPV4 + 12);
  frame.set([198, 18, 0, 2 - guest], IPV4 + 16);
  view.setUint16(IPV4 + 10, ipv4Checksum(view));
  view.setUint16(UDP, 1024 + flow);
  view.setUint16(UDP + 2, 9);
  view.setUint16(UDP + 4, frameBytes - UDP);
  return frame;
}

function ipv4Checksum(view: DataView): number {
  let sum = 0;
  for (let at = IPV4; at < IPV4 + 20; at += 2) sum += view.getUint16(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
