/**
 * The virtio-net header of a frame that is handed over with what it asks for, to a receiver that takes it: for virtqueues
 * and for TAP interfaces with IFF_VNET_HDR. Three little-endian words, made of the request as it was checked and never of
 * what its sender wrote. `pushedBytes`: of a VLAN tag that is put in behind the addresses. Hot path.
 */
import * as NET from '../../protocol/virtio/net.ts';
import type { Batch } from '../queue/batch.ts';
import * as REQUESTS from '../queue/requests.ts';

const { DATA_VALID, NEEDS_CSUM } = NET.NET_HDR_F;
const { NONE, TCPV4, TCPV6, UDP_L4, ECN } = NET.NET_HDR_GSO;
const { OFFLOAD_ECN, OFFLOAD_SEGMENTS, OFFLOAD_TSO4, OFFLOAD_TSO6 } = REQUESTS;

/** flags, gso_type and hdr_len, which is 0 unless the frame is to be segmented. */
export function requestWord0(batch: Batch, frame: number, pushedBytes: number): number {
  const needs = batch.needsOf(frame);
  if (needs === 0) return batch.isToldValid(frame) ? DATA_VALID : 0;
  if ((needs & OFFLOAD_SEGMENTS) === 0) return NEEDS_CSUM | (NONE << 8);
  const kind = (needs & OFFLOAD_TSO4) !== 0 ? TCPV4 : (needs & OFFLOAD_TSO6) !== 0 ? TCPV6 : UDP_L4;
  const type = (needs & OFFLOAD_ECN) !== 0 ? kind | ECN : kind;
  return NEEDS_CSUM | (type << 8) | ((batch.requests.headerBytesOf(frame) + pushedBytes) << 16);
}

/** gso_size and csum_start. */
export function requestWord1(batch: Batch, frame: number, pushedBytes: number): number {
  const needs = batch.needsOf(frame);
  if (needs === 0) return 0;
  const size = (needs & OFFLOAD_SEGMENTS) === 0 ? 0 : batch.requests.segmentBytesOf(frame);
  return size | ((batch.requests.csumStartOf(frame) + pushedBytes) << 16);
}

/** csum_offset and num_buffers. */
export function requestWord2(batch: Batch, frame: number, bufferCount: number): number {
  const offset = batch.needsOf(frame) === 0 ? 0 : batch.requests.csumOffsetOf(frame);
  return offset | (bufferCount << 16);
}
