/** How switches and generators are called in tables and in the chart. Pure. */
import type { LoadKind } from '../load/contract.ts';
import type { PeerName } from '../plan.ts';

export const PEER_TITLES: Readonly<Record<PeerName, string>> = {
  ringway: 'Ringway',
  other: 'Ringway, other checkout',
  ovs: 'OVS-DPDK',
  testpmd: 'testpmd vhost copy',
};

export const LOAD_TITLES: Readonly<Record<LoadKind, string>> = {
  'macswap-vectorised': 'testpmd macswap, vectorised receive path',
  'macswap-default': 'testpmd macswap, default receive path (mergeable buffers)',
  'io-vectorised': 'testpmd io, vectorised receive path',
  'io-default': 'testpmd io, default receive path (mergeable buffers)',
  embedded: 'embedded front-end',
};
