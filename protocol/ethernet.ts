/**
 * Ethernet addresses and frame sizes. An address on the hot path is two integers that stay small in V8:
 * `macLo`, the first four bytes on the wire as a little-endian int32, and `macHi`, the last two (0 to 65,535).
 */
export const ETHERNET_HEADER_BYTES = 14;
export const VLAN_TAG_BYTES = 4;
/** The largest packet: an MTU is no more. The smallest MTU is that of IPv4. */
export const MTU_MIN = 68;
export const MTU_MAX = 65_535;
/** Room for a frame besides the packet that an MTU counts: its header and up to two VLAN tags. */
export const BESIDE_MTU_BYTES = ETHERNET_HEADER_BYTES + 2 * VLAN_TAG_BYTES;
/** The smallest and largest frame (without FCS) that Ringway forwards; larger than any MTU that virtio allows. */
export const FRAME_BYTES_MIN = ETHERNET_HEADER_BYTES;
export const FRAME_BYTES_MAX = MTU_MAX + BESIDE_MTU_BYTES;

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_VLAN = 0x8100;
export const ETHERTYPE_QINQ = 0x88a8;
export const ETHERTYPE_IPV6 = 0x86dd;

/** `aa:bb:cc:dd:ee:ff` of the two halves. */
export function formatMac(macLo: number, macHi: number): string {
  const bytes = [macLo, macLo >>> 8, macLo >>> 16, macLo >>> 24, macHi, macHi >>> 8];
  return bytes.map((byte) => (byte & 0xff).toString(16).padStart(2, '0')).join(':');
}

/** The six bytes of `aa:bb:cc:dd:ee:ff`, or null when the text is not an address. */
export function parseMac(text: string): Uint8Array | null {
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text)) return null;
  return Uint8Array.from(text.split(':'), (byte) => Number.parseInt(byte, 16));
}

/** First half of an address held in six bytes, as the hot path keeps it. */
export function macLoOf(bytes: Uint8Array): number {
  return bytes[0] | (bytes[1] << 8) | (bytes[2] << 16) | (bytes[3] << 24);
}

/** Second half of an address held in six bytes, as the hot path keeps it. */
export function macHiOf(bytes: Uint8Array): number {
  return bytes[4] | (bytes[5] << 8);
}
