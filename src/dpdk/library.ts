/**
 * DPDK's libraries and the functions of theirs that are used, declared once. Nothing is loaded before `loadDpdk`
 * is called; each thread that uses DPDK calls it. Functions answer as in C: below zero is minus an errno.
 * Pointers are numbers. Inline functions of DPDK's headers are in no library: burst.ts does what they do.
 */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { SharedLibrary } from '../host/shared-library.ts';
import { type DpdkLayout, LAYOUTS, releaseOfAbi } from './layout.ts';

/** DPDK or a device is not as it must be; the message says why and how to mend it. */
export class DpdkError extends Error {
  override name = 'DpdkError';
  /** Whether it may be well later without this process being started again. */
  readonly mayPass: boolean;

  constructor(message: string, mayPass = true) {
    super(message);
    this.mayPass = mayPass;
  }
}

export type Dpdk = {
  /** 23 or 25. */
  readonly abi: number;
  readonly layout: DpdkLayout;
  readonly functions: DpdkFunctions;
  /** Addresses of what is exported and not called through `functions`. */
  readonly addresses: {
    readonly ethFpOps: number;
    readonly mempoolOpsTable: number;
    readonly pktmbufInit: number;
  };
};

const INSTALL = 'apt install dpdk librte-meta-allpmds (Debian 12 has 22.11, Debian 13 has 24.11)';
const FOLDERS = [
  '/usr/lib/x86_64-linux-gnu',
  '/usr/lib/aarch64-linux-gnu',
  '/usr/lib64',
  '/usr/lib',
  '/usr/local/lib/x86_64-linux-gnu',
  '/usr/local/lib/aarch64-linux-gnu',
  '/usr/local/lib64',
  '/usr/local/lib',
];

let loaded: Dpdk | null = null;

/** DPDK as this thread sees it. @throws DpdkError when it is not installed or of an unknown ABI */
export function loadDpdk(): Dpdk {
  loaded ??= load(findAbi());
  return loaded;
}

/** Opened on the way, so that the newest known ABI is the one that the system's loader finds. */
function findAbi(): number {
  for (const abi of [...LAYOUTS.keys()].sort((a, b) => b - a)) {
    try {
      SharedLibrary.open(`librte_eal.so.${abi}`);
      return abi;
    } catch (error) {
      const message = (error as Error).message;
      if (!message.includes('No such file')) {
        throw new DpdkError(`librte_eal.so.${abi} cannot be loaded: ${message}`);
      }
    }
  }
  throw missing(abisIn([...(process.env.LD_LIBRARY_PATH ?? '').split(':').filter(Boolean), ...FOLDERS]));
}

/** Why DPDK cannot be used where libraries of these ABIs are there. */
export function missing(abis: readonly number[]): DpdkError {
  const known = [...LAYOUTS.values()].map(({ release }) => release).join(' or ');
  const [abi] = abis;
  if (abi === undefined) return new DpdkError(`DPDK is not installed: ${INSTALL}`);
  if (LAYOUTS.has(abi)) {
    return new DpdkError(`DPDK is there but the loader does not find it: run ldconfig`);
  }
  return new DpdkError(`DPDK ABI ${abi} (${releaseOfAbi(abi)}) is not known: install ${known}`);
}

/** ABI numbers of the libraries librte_eal in some folders, newest first. */
export function abisIn(folders: readonly string[]): number[] {
  const abis = folders.flatMap((folder) =>
    namesIn(folder).flatMap((name) => {
      const match = /^librte_eal\.so\.(\d+)$/.exec(name);
      return match === null ? [] : [Number(match[1])];
    }),
  );
  return [...new Set(abis)].sort((a, b) => b - a);
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** `name` is a vdev's or a PCI device's, `device` a struct rte_device. */
export type DpdkFunctions = ReturnType<typeof declare>;

type PortCall = (port: number) => number;

function declare(abi: number) {
  const open = (name: string): SharedLibrary => openPart(name, abi);
  const eal = open('eal');
  // 24.11 has logging in a library of its own.
  const log = abi >= 25 ? open('log') : eal;
  const [mempool, mbuf, ethdev] = [open('mempool'), open('mbuf'), open('ethdev')];
  return {
    version: eal.func<() => string>('const char *rte_version(void)'),
    openLogStream: log.func<(stream: number) => number>('int rte_openlog_stream(intptr_t stream)'),
    ealInit: eal.func<(count: number, args: number) => number>('int rte_eal_init(int argc, intptr_t argv)'),
    devProbe: eal.func<(devargs: string) => number>('int rte_dev_probe(const char *devargs)'),
    devRemove: eal.func<(device: number) => number>('int rte_dev_remove(intptr_t device)'),
    devDmaMap: eal.func<(device: number, address: number, iova: number, n: number) => number>(
      'int rte_dev_dma_map(intptr_t device, intptr_t address, uint64_t iova, size_t length)',
    ),
    devDmaUnmap: eal.func<(device: number, address: number, iova: number, n: number) => number>(
      'int rte_dev_dma_unmap(intptr_t device, intptr_t address, uint64_t iova, size_t length)',
    ),
    extmemRegister: eal.func<
      (address: number, n: number, iovas: 0, count: number, pageBytes: number) => number
    >(
      'int rte_extmem_register(intptr_t address, size_t length, intptr_t iovas, uint32_t n, size_t pageBytes)',
    ),
    extmemUnregister: eal.func<(address: number, n: number) => number>(
      'int rte_extmem_unregister(intptr_t address, size_t length)',
    ),
    threadRegister: eal.func<() => number>('int rte_thread_register(void)'),
    threadUnregister: eal.func<() => void>('void rte_thread_unregister(void)'),

    mempoolCreateEmpty: mempool.func<
      (
        name: string,
        n: number,
        bytes: number,
        cache: number,
        priv: number,
        socket: number,
        flags: number,
      ) => number
    >(
      'intptr_t rte_mempool_create_empty(const char *name, uint32_t n, uint32_t bytes, uint32_t cache, uint32_t priv, int socket, uint32_t flags)',
    ),
    mempoolSetOps: mempool.func<(pool: number, name: string, config: 0) => number>(
      'int rte_mempool_set_ops_byname(intptr_t pool, const char *name, intptr_t config)',
    ),
    mempoolPopulateIova: mempool.func<
      (pool: number, address: number, iova: number, n: number, freeCall: 0, opaque: 0) => number
    >(
      'int rte_mempool_populate_iova(intptr_t pool, intptr_t address, uint64_t iova, size_t length, intptr_t free_cb, intptr_t opaque)',
    ),
    mempoolObjIter: mempool.func<(pool: number, callback: number, opaque: 0) => number>(
      'uint32_t rte_mempool_obj_iter(intptr_t pool, intptr_t callback, intptr_t opaque)',
    ),
    mempoolObjBytes: mempool.func<(bytes: number, flags: number, out: null) => number>(
      'uint32_t rte_mempool_calc_obj_size(uint32_t bytes, uint32_t flags, void *out)',
    ),
    mempoolAvailable: mempool.func<(pool: number) => number>(
      'uint32_t rte_mempool_avail_count(intptr_t pool)',
    ),
    mempoolFree: mempool.func<(pool: number) => void>('void rte_mempool_free(intptr_t pool)'),
    pktmbufPoolInit: mbuf.func<(pool: number, priv: Uint8Array) => void>(
      'void rte_pktmbuf_pool_init(intptr_t pool, void *priv)',
    ),
    /** DPDK's own memory; as a yardstick for the pool in the arena. */
    pktmbufPoolCreate: mbuf.func<
      (name: string, n: number, cache: number, priv: number, room: number, socket: number) => number
    >(
      'intptr_t rte_pktmbuf_pool_create(const char *name, uint32_t n, uint32_t cache, uint16_t priv, uint16_t room, int socket)',
    ),
    pktmbufPoolCreateExtbuf: mbuf.func<
      (
        name: string,
        n: number,
        cache: number,
        priv: number,
        room: number,
        socket: number,
        mem: Uint8Array | BigUint64Array,
        count: number,
      ) => number
    >(
      'intptr_t rte_pktmbuf_pool_create_extbuf(const char *name, uint32_t n, uint32_t cache, uint16_t priv, uint16_t room, int socket, void *memory, uint32_t count)',
    ),
    /** `mbufs`: address of `count` pointers. */
    pktmbufFreeBulk: mbuf.func<(mbufs: number, count: number) => void>(
      'void rte_pktmbuf_free_bulk(intptr_t mbufs, uint32_t count)',
    ),

    ethPortByName: ethdev.func<(name: string, port: Uint16Array) => number>(
      'int rte_eth_dev_get_port_by_name(const char *name, void *port)',
    ),
    ethInfo: ethdev.func<(port: number, info: Uint8Array) => number>(
      'int rte_eth_dev_info_get(uint16_t port, void *info)',
    ),
    ethConfigure: ethdev.func<(port: number, rx: number, tx: number, conf: Uint8Array) => number>(
      'int rte_eth_dev_configure(uint16_t port, uint16_t rx, uint16_t tx, const void *conf)',
    ),
    ethAdjustDescriptors: ethdev.func<(port: number, rx: Uint16Array, tx: Uint16Array) => number>(
      'int rte_eth_dev_adjust_nb_rx_tx_desc(uint16_t port, void *rx, void *tx)',
    ),
    ethRxQueueSetup: ethdev.func<
      (port: number, queue: number, n: number, socket: number, conf: 0, pool: number) => number
    >(
      'int rte_eth_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t n, uint32_t socket, intptr_t conf, intptr_t pool)',
    ),
    ethTxQueueSetup: ethdev.func<(port: number, queue: number, n: number, socket: number, conf: 0) => number>(
      'int rte_eth_tx_queue_setup(uint16_t port, uint16_t queue, uint16_t n, uint32_t socket, intptr_t conf)',
    ),
    ethStart: ethdev.func<PortCall>('int rte_eth_dev_start(uint16_t port)'),
    ethStop: ethdev.func<PortCall>('int rte_eth_dev_stop(uint16_t port)'),
    ethClose: ethdev.func<PortCall>('int rte_eth_dev_close(uint16_t port)'),
    ethPromiscuousOn: ethdev.func<PortCall>('int rte_eth_promiscuous_enable(uint16_t port)'),
    ethPromiscuousOff: ethdev.func<PortCall>('int rte_eth_promiscuous_disable(uint16_t port)'),
    ethGetMtu: ethdev.func<(port: number, mtu: Uint16Array) => number>(
      'int rte_eth_dev_get_mtu(uint16_t port, void *mtu)',
    ),
    ethSetMtu: ethdev.func<(port: number, mtu: number) => number>(
      'int rte_eth_dev_set_mtu(uint16_t port, uint16_t mtu)',
    ),
    ethLink: ethdev.func<(port: number, link: Uint32Array) => number>(
      'int rte_eth_link_get_nowait(uint16_t port, void *link)',
    ),
    ethStats: ethdev.func<(port: number, stats: BigUint64Array) => number>(
      'int rte_eth_stats_get(uint16_t port, void *stats)',
    ),
    ethMac: ethdev.func<(port: number, mac: Uint8Array) => number>(
      'int rte_eth_macaddr_get(uint16_t port, void *mac)',
    ),
    ethSocket: ethdev.func<PortCall>('int rte_eth_dev_socket_id(uint16_t port)'),
  } as const;
}

function load(abi: number): Dpdk {
  const layout = LAYOUTS.get(abi);
  assert(layout !== undefined, `no layout for DPDK ABI ${abi}`);
  return {
    abi,
    layout,
    functions: declare(abi),
    addresses: {
      ethFpOps: openPart('ethdev', abi).addressOf('rte_eth_fp_ops'),
      mempoolOpsTable: openPart('mempool', abi).addressOf('rte_mempool_ops_table'),
      pktmbufInit: openPart('mbuf', abi).addressOf('rte_pktmbuf_init'),
    },
  };
}

function openPart(name: string, abi: number): SharedLibrary {
  try {
    return SharedLibrary.open(`librte_${name}.so.${abi}`);
  } catch (error) {
    throw new DpdkError(`a part of DPDK is missing: ${(error as Error).message}: ${INSTALL}`);
  }
}
