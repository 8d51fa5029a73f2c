/**
 * DPDK from TypeScript: EAL, Ethernet ports, pools of mbufs and bursts, without the switch. `ringway/dpdk`. A
 * program needs an arena (`Arena`), in which frames lie, and a view of it in each thread (`ArenaView`).
 */
export { Arena, type ArenaLocation } from '../memory/arena.ts';
export { ArenaView } from '../memory/arena-view.ts';

export { copyBytes } from '../queue/copy.ts';
export { BURST_MBUFS, type DpdkQueueLocation, RxBurst, TxBurst } from './burst.ts';
export { Eal, type EalOptions } from './eal.ts';
export { type EthLink, EthPort, type EthPortOptions, type EthStatistics } from './ethdev.ts';
export { type Dpdk, DpdkError, loadDpdk } from './library.ts';
export { MbufPool, type MbufPoolLocation, type MbufPoolShape } from './mempool.ts';
export { registerThread } from './threads.ts';
