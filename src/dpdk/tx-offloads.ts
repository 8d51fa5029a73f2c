/**
 * Which transmit offloads a device is set up with, and what it takes of the switch's frames by them (OFFLOAD_* bits,
 * src/queue/requests.ts). Control plane, any thread.
 *
 * Checksums of TCP and UDP, and segmentation of TCP. What DPDK calls segmentation of UDP makes IP fragments with most
 * drivers, so it is not used; whether CWR stays on the first segment no driver says, so frames with it are cut by Ringway.
 */
import { type OffloadSettings, offloadsOn } from '../queue/offloads.ts';
import { OFFLOAD_CHECKSUM, OFFLOAD_TSO4, OFFLOAD_TSO6 } from '../queue/requests.ts';
import { TX_OFFLOAD } from './layout.ts';

const { IPV4_CKSUM, UDP_CKSUM, TCP_CKSUM, TCP_TSO, MULTI_SEGS } = TX_OFFLOAD;

/** Those that a port of the switch may have; what is not named is on. */
export const DPDK_OFFLOAD_NAMES = ['csum', 'tso'] as const;
/** Without segmentation whatever they say: theirs is for IPv4 only, and refuses segments that fill the MTU. */
const DRIVERS_WITHOUT_TSO = new Set(['net_tap', 'net_failsafe']);

/** What a device says about itself. */
export type TxAbilities = {
  readonly driver: string;
  /** TX_OFFLOAD bits. */
  readonly offloads: number;
  /** Most mbufs of a frame. */
  readonly segmentsMax: number;
};

/** TX_OFFLOAD bits to set the device up with. `longestFrameMbufs`: mbufs of the longest frame to be segmented. */
export function chooseTxOffloads(
  abilities: TxAbilities,
  settings: OffloadSettings,
  longestFrameMbufs: number,
): number {
  const has = (bits: number): boolean => (abilities.offloads & bits) === bits;
  const names = offloadsOn(settings);
  const checksums = names.includes('csum') ? abilities.offloads & (UDP_CKSUM | TCP_CKSUM) : 0;
  const segments =
    names.includes('tso') &&
    has(TCP_CKSUM | TCP_TSO | MULTI_SEGS) &&
    abilities.segmentsMax >= longestFrameMbufs &&
    !DRIVERS_WITHOUT_TSO.has(abilities.driver);
  if (!segments) return checksums;
  return checksums | TCP_TSO | MULTI_SEGS | (abilities.offloads & IPV4_CKSUM);
}

/** OFFLOAD_* bits of what frames may ask for; a checksum that the device does not know is put in on the way to it. */
export function takenBy(txOffloads: number): number {
  if ((txOffloads & (UDP_CKSUM | TCP_CKSUM)) === 0) return 0;
  return (txOffloads & TCP_TSO) === 0 ? OFFLOAD_CHECKSUM : OFFLOAD_CHECKSUM | OFFLOAD_TSO4 | OFFLOAD_TSO6;
}

/** DPDK's names of TX_OFFLOAD bits. */
export function txOffloadNames(txOffloads: number): string[] {
  return Object.entries(TX_OFFLOAD).flatMap(([name, bit]) => ((txOffloads & bit) === 0 ? [] : [name]));
}
