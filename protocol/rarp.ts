/**
 * The frame by which a switch learns where a guest is that has moved: a reverse ARP request (RFC 903) in which the guest
 * asks for its own address, as QEMU sends it too. Broadcast, so it passes every switch; nobody answers it any more.
 */
import { ETHERNET_HEADER_BYTES } from './ethernet.ts';

export const ETHERTYPE_RARP = 0x8035;
/** The shortest frame that Ethernet has, without its checksum. */
export const RARP_FRAME_BYTES = 60;

const REVERSE_REQUEST = 3;

/** `mac`: six bytes. */
export function rarpFrame(mac: Iterable<number>): Uint8Array {
  const address = [...mac];
  const frame = new Uint8Array(RARP_FRAME_BYTES);
  const view = new DataView(frame.buffer);
  frame.fill(0xff, 0, 6);
  frame.set(address, 6);
  view.setUint16(12, ETHERTYPE_RARP);
  // Hardware Ethernet, protocol IPv4, their lengths, what is asked; sender and target are the guest itself.
  view.setUint16(ETHERNET_HEADER_BYTES, 1);
  view.setUint16(16, 0x0800);
  frame.set([6, 4], 18);
  view.setUint16(20, REVERSE_REQUEST);
  frame.set(address, 22);
  frame.set(address, 32);
  return frame;
}
