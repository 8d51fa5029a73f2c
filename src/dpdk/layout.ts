/**
 * Where the fields of DPDK's structures lie, for each ABI that is known; in bytes. x86-64 and arm64 builds with
 * DPDK's default options agree; MbufPool looks at a real mbuf before it trusts this (mempool.ts), and
 * test/dpdk/layout.test.ts compares every number with what the C compiler says.
 */

export type DpdkLayout = {
  /** What DPDK calls the release of the ABI. */
  readonly release: string;
  readonly mbuf: {
    readonly sizeBytes: number;
    readonly bufAddr: number;
    /** data_off, refcnt, nb_segs, port: four halfwords, the first at a multiple of 8. */
    readonly dataOff: number;
    readonly nbSegs: number;
    readonly olFlags: number;
    readonly packetType: number;
    readonly pktLen: number;
    readonly dataLen: number;
    readonly bufLen: number;
    readonly pool: number;
    readonly next: number;
    readonly txOffload: number;
  };
  readonly ethConf: {
    readonly sizeBytes: number;
    readonly rxMqMode: number;
    readonly rxMtu: number;
    readonly rxOffloads: number;
    readonly txOffloads: number;
    readonly rssHf: number;
  };
  readonly devInfo: {
    readonly sizeBytes: number;
    readonly device: number;
    readonly driverName: number;
    readonly maxMtu: number;
    readonly maxRxQueues: number;
    readonly maxTxQueues: number;
    readonly rxOffloadCapa: number;
    readonly txOffloadCapa: number;
    readonly rssOffloads: number;
    /** tx_desc_lim.nb_seg_max. */
    readonly txSegmentsMax: number;
  };
  readonly ethLink: { readonly sizeBytes: number };
  readonly ethStats: { readonly sizeBytes: number; readonly fields: readonly string[] };
  /** One element a port of the table rte_eth_fp_ops. */
  readonly fpOps: {
    readonly sizeBytes: number;
    readonly rxPktBurst: number;
    readonly rxqData: number;
    readonly txPktBurst: number;
    readonly txPktPrepare: number;
    readonly txqData: number;
  };
  readonly mempool: { readonly opsIndex: number };
  /** The table rte_mempool_ops_table: what precedes the first element, and an element. */
  readonly mempoolOps: {
    readonly tableOffset: number;
    readonly sizeBytes: number;
    readonly dequeue: number;
  };
};

/** Bytes that DPDK leaves before a frame's data (RTE_PKTMBUF_HEADROOM). */
export const HEADROOM_BYTES = 128;
export const RX_OFFLOAD_SCATTER = 1n << 13n;
/** RTE_ETH_TX_OFFLOAD_* bits, by DPDK's names; the others are not used. */
export const TX_OFFLOAD = {
  IPV4_CKSUM: 1 << 1,
  UDP_CKSUM: 1 << 2,
  TCP_CKSUM: 1 << 3,
  TCP_TSO: 1 << 5,
  MULTI_SEGS: 1 << 15,
} as const;
/** RTE_MBUF_F_TX_* bits of the upper half of ol_flags. */
export const MBUF_TX_HIGH = {
  TCP_SEG: 1 << 18,
  TCP_CKSUM: 1 << 20,
  UDP_CKSUM: 3 << 20,
  IP_CKSUM: 1 << 22,
  IPV4: 1 << 23,
  IPV6: 1 << 24,
} as const;
export const MQ_RX_RSS = 1;
/** Bits of the second word of struct rte_eth_link. */
export const LINK_FULL_DUPLEX = 1;
export const LINK_UP = 4;

/** Eight counters of 64 bits each, from the structure's start. */
const STATISTICS = [
  'ipackets',
  'opackets',
  'ibytes',
  'obytes',
  'imissed',
  'ierrors',
  'oerrors',
  'rx_nombuf',
] as const;

const DPDK_22_11: DpdkLayout = {
  release: '22.11',
  mbuf: {
    sizeBytes: 128,
    bufAddr: 0,
    dataOff: 16,
    nbSegs: 20,
    olFlags: 24,
    packetType: 32,
    pktLen: 36,
    dataLen: 40,
    bufLen: 54,
    pool: 56,
    next: 64,
    txOffload: 72,
  },
  ethConf: { sizeBytes: 2272, rxMqMode: 8, rxMtu: 12, rxOffloads: 24, txOffloads: 72, rssHf: 144 },
  devInfo: {
    sizeBytes: 376,
    device: 0,
    driverName: 8,
    maxMtu: 22,
    maxRxQueues: 44,
    maxTxQueues: 46,
    rxOffloadCapa: 72,
    txOffloadCapa: 80,
    rssOffloads: 112,
    txSegmentsMax: 278,
  },
  ethLink: { sizeBytes: 8 },
  ethStats: { sizeBytes: 704, fields: STATISTICS },
  fpOps: { sizeBytes: 128, rxPktBurst: 0, rxqData: 24, txPktBurst: 64, txPktPrepare: 72, txqData: 88 },
  mempool: { opsIndex: 88 },
  mempoolOps: { tableOffset: 64, sizeBytes: 128, dequeue: 56 },
};

const DPDK_24_11: DpdkLayout = {
  ...DPDK_22_11,
  release: '24.11',
  ethConf: { ...DPDK_22_11.ethConf, sizeBytes: 2280 },
  devInfo: { ...DPDK_22_11.devInfo, maxRxQueues: 48, maxTxQueues: 50 },
  fpOps: { sizeBytes: 128, rxPktBurst: 16, rxqData: 0, txPktBurst: 80, txPktPrepare: 88, txqData: 64 },
};

/** By the number that the libraries' names end in: librte_eal.so.23. */
export const LAYOUTS: ReadonlyMap<number, DpdkLayout> = new Map([
  [23, DPDK_22_11],
  [25, DPDK_24_11],
]);

/** The yearly release that an ABI belongs to. */
export function releaseOfAbi(abi: number): string {
  return `${abi - 1}.11`;
}
