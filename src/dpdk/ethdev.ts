/**
 * One Ethernet port of DPDK: found by its device, configured, started, asked, stopped and taken away again. Main
 * thread; frames are moved by burst.ts, in any thread, at the places that `rxQueues` and `txQueues` name.
 */

import { BESIDE_MTU_BYTES } from '../../protocol/ethernet.ts';
import { errnoText } from '../host/errors.ts';
import { viewMemory } from '../host/mapping.ts';
import { printable } from '../host/printable.ts';
import type { Arena } from '../memory/arena.ts';
import type { OffloadSettings } from '../queue/offloads.ts';
import { BURST_MBUFS, CHAINED_MBUFS_MAX, type DpdkQueueLocation, queueOf } from './burst.ts';
import { checkDevice, type DeviceName, needsDmaMapping, parseDevice } from './device.ts';
import type { Eal } from './eal.ts';
import { LINK_FULL_DUPLEX, LINK_UP, MQ_RX_RSS, RX_OFFLOAD_SCATTER, TX_OFFLOAD } from './layout.ts';
import { DpdkError } from './library.ts';
import { CACHED_MBUFS_MAX, FRAME_MBUFS_MAX, MbufPool } from './mempool.ts';
import { chooseTxOffloads } from './tx-offloads.ts';

export type EthPortOptions = {
  /** Receive and transmit queues, as many of each. */
  readonly queueCount: number;
  /** Null: the device's own. */
  readonly mtu: number | null;
  readonly promiscuous: boolean;
  /** Threads that will receive or send, for the size of the pool. */
  readonly threadCount: number;
  /** What frames may leave to the device; left out: nothing, as when it refuses to be set up so. */
  readonly offloads?: OffloadSettings;
};

export type EthLink = {
  readonly up: boolean;
  /** Null: the device does not say. */
  readonly speedMbps: number | null;
  readonly fullDuplex: boolean;
};

/** struct rte_eth_stats, by its own names; counters since the port was started. */
export type EthStatistics = Readonly<Record<string, number>>;

const DESCRIPTORS = 512;
/** Of a transmit queue whose frames may need FRAME_MBUFS_MAX of them each. */
const DESCRIPTORS_OF_LONG_FRAMES = 2048;
const ANY_SOCKET = 0xffffffff;
const NOT_SUPPORTED = -95;
const SPEED_UNKNOWN = 0xffffffff;

export class EthPort {
  readonly portId: number;
  readonly device: DeviceName;
  readonly driver: string;
  readonly mtu: number;
  /** TX_OFFLOAD bits (layout.ts) that it was set up with. */
  readonly txOffloads: number;
  /** Text such as `02:00:00:00:00:01`. */
  readonly mac: string;
  /** What was asked for and the device does not do; one sentence each. */
  readonly warnings: readonly string[];
  readonly rxQueues: readonly DpdkQueueLocation[];
  readonly txQueues: readonly DpdkQueueLocation[];
  readonly pool: MbufPool;
  /** Of a receive queue. */
  readonly descriptorCount: number;
  readonly #eal: Eal;
  readonly #handle: number;
  readonly #isPromiscuous: boolean;

  private constructor(setup: PortSetup, pool: MbufPool) {
    const { eal, portId, info } = setup;
    this.#eal = eal;
    this.portId = portId;
    this.device = setup.device;
    this.driver = info.driver;
    this.mtu = setup.mtu;
    this.txOffloads = setup.txOffloads;
    this.warnings = setup.warnings;
    this.descriptorCount = setup.rxDescriptors;
    this.mac = macOf(eal, portId);
    this.pool = pool;
    this.#handle = info.handle;
    this.#isPromiscuous = setup.options.promiscuous;
    const locate = (direction: 'rx' | 'tx', list0: number): DpdkQueueLocation[] =>
      Array.from({ length: setup.options.queueCount }, (_, i) => ({
        ...queueOf(eal.dpdk, portId, i, direction),
        txOffloads: direction === 'rx' ? 0 : setup.txOffloads,
        pool: pool.location,
        list: list0 + i,
      }));
    this.rxQueues = locate('rx', 0);
    this.txQueues = locate('tx', setup.options.queueCount);
  }

  /** Adds the device, sets it up and starts it. @throws DpdkError, ArenaFullError; then the device is gone again */
  static open(eal: Eal, arena: Arena, deviceText: string, options: EthPortOptions): EthPort {
    checkDevice(parseDevice(deviceText));
    return EthPort.#open(eal, arena, deviceText, options, null);
  }

  /** `refusal`: why it was not set up with offloads. */
  static #open(
    eal: Eal,
    arena: Arena,
    deviceText: string,
    options: EthPortOptions,
    refusal: string | null,
  ): EthPort {
    const { device, portId } = eal.addDevice(deviceText);
    let handle = 0;
    let pool: MbufPool | null = null;
    let txOffloads = 0;
    try {
      const info = infoOf(eal, portId);
      handle = info.handle;
      const setup = new PortSetup(eal, device, portId, info, options);
      txOffloads = setup.txOffloads;
      if (refusal !== null) setup.warnings.push(refusal);
      setup.configure();
      pool = setup.createPool(arena);
      setup.setUpQueues(pool);
      setup.start();
      return new EthPort(setup, pool);
    } catch (error) {
      eal.dpdk.functions.ethClose(portId);
      eal.removeDevice(device, handle);
      pool?.destroy();
      if (txOffloads === 0 || !(error instanceof DpdkError)) throw error;
      // What it says it can do may be what it refuses.
      const { offloads: _, ...plain } = options;
      const note = `the device's checksums and segmentation are not used, since with them: ${error.message}`;
      return EthPort.#open(eal, arena, deviceText, plain, note);
    }
  }

  get link(): EthLink {
    const words = new Uint32Array(this.#eal.dpdk.layout.ethLink.sizeBytes / 4);
    this.#eal.dpdk.functions.ethLink(this.portId, words);
    const [speed, flags] = [words[0], words[1]];
    return {
      up: (flags & LINK_UP) !== 0,
      speedMbps: speed === 0 || speed === SPEED_UNKNOWN ? null : speed,
      fullDuplex: (flags & LINK_FULL_DUPLEX) !== 0,
    };
  }

  get statistics(): EthStatistics {
    const { sizeBytes, fields } = this.#eal.dpdk.layout.ethStats;
    const words = new BigUint64Array(sizeBytes / 8);
    this.#eal.dpdk.functions.ethStats(this.portId, words);
    return Object.fromEntries(fields.map((name, i) => [name, Number(words[i])]));
  }

  /** Stops it and takes the device away. No thread may use its queues any more. */
  close(): void {
    const { functions } = this.#eal.dpdk;
    // An interface of the kernel would stay promiscuous after its device is gone.
    if (this.#isPromiscuous) functions.ethPromiscuousOff(this.portId);
    functions.ethStop(this.portId);
    functions.ethClose(this.portId);
    this.#eal.removeDevice(this.device, this.#handle);
    this.pool.destroy();
  }
}

type PortInfo = {
  readonly handle: number;
  readonly driver: string;
  readonly maxMtu: number;
  readonly maxRxQueues: number;
  readonly maxTxQueues: number;
  readonly rxOffloads: bigint;
  readonly txOffloads: number;
  readonly txSegmentsMax: number;
  readonly rssOffloads: bigint;
};

/** The steps from a device that was found to one that runs, in their order. */
class PortSetup {
  readonly eal: Eal;
  readonly device: DeviceName;
  readonly portId: number;
  readonly info: PortInfo;
  readonly options: EthPortOptions;
  readonly warnings: string[] = [];
  /** TX_OFFLOAD bits. */
  readonly txOffloads: number;
  mtu = 0;
  rxDescriptors = DESCRIPTORS;
  txDescriptors = DESCRIPTORS;

  constructor(eal: Eal, device: DeviceName, portId: number, info: PortInfo, options: EthPortOptions) {
    this.eal = eal;
    this.device = device;
    this.portId = portId;
    this.info = info;
    this.options = options;
    const { driver, txOffloads, txSegmentsMax } = info;
    const abilities = { driver, offloads: txOffloads, segmentsMax: txSegmentsMax };
    const { offloads } = options;
    this.txOffloads = offloads === undefined ? 0 : chooseTxOffloads(abilities, offloads, FRAME_MBUFS_MAX);
  }

  get #mayBeLong(): boolean {
    return (this.txOffloads & TX_OFFLOAD.MULTI_SEGS) !== 0;
  }

  configure(): void {
    const { info, options, eal, portId } = this;
    const queuesMax = Math.min(info.maxRxQueues, info.maxTxQueues);
    if (options.queueCount > queuesMax) {
      throw new DpdkError(
        `${this.device.name} has ${queuesMax} queues each way, not ${options.queueCount}: lower queues, or ask the driver for more in the device's arguments (such as qpairs=)`,
        false,
      );
    }
    if (options.mtu !== null && info.maxMtu !== 0 && options.mtu > info.maxMtu) {
      throw new DpdkError(`${this.device.name} has no MTU above ${info.maxMtu}: lower mtu`, false);
    }
    const { functions } = eal.dpdk;
    this.#check(
      'cannot be configured',
      functions.ethConfigure(portId, options.queueCount, options.queueCount, this.#conf()),
    );
    if (options.mtu !== null) this.#setMtu(options.mtu);
    const mtu = new Uint16Array(1);
    this.#check('has no MTU', functions.ethGetMtu(portId, mtu));
    this.mtu = mtu[0];
    const rx = new Uint16Array([DESCRIPTORS]);
    const tx = new Uint16Array([this.#mayBeLong ? DESCRIPTORS_OF_LONG_FRAMES : DESCRIPTORS]);
    this.#check('has no queues', functions.ethAdjustDescriptors(portId, rx, tx));
    this.rxDescriptors = rx[0];
    this.txDescriptors = tx[0];
  }

  createPool(arena: Arena): MbufPool {
    const { queueCount, threadCount } = this.options;
    const chained = this.#mayBeLong ? CHAINED_MBUFS_MAX : 0;
    const inQueues = queueCount * (this.rxDescriptors + this.txDescriptors + 2 * BURST_MBUFS + chained);
    const pool = MbufPool.create(this.eal, arena, {
      mbufCount: inQueues + Math.ceil((threadCount + 1) * CACHED_MBUFS_MAX) + BURST_MBUFS,
      frameBytesMax: this.mtu + BESIDE_MTU_BYTES,
      listCount: 2 * queueCount,
    });
    try {
      if (needsDmaMapping(this.device)) pool.mapForDevice(this.device, this.info.handle);
    } catch (error) {
      pool.destroy();
      throw error;
    }
    return pool;
  }

  setUpQueues(pool: MbufPool): void {
    const { functions } = this.eal.dpdk;
    const { portId } = this;
    const socket = functions.ethSocket(portId) < 0 ? ANY_SOCKET : functions.ethSocket(portId);
    for (let queue = 0; queue < this.options.queueCount; queue++) {
      const rx = functions.ethRxQueueSetup(portId, queue, this.rxDescriptors, socket, 0, pool.location.pool);
      this.#check(`refuses receive queue ${queue}`, rx);
      const tx = functions.ethTxQueueSetup(portId, queue, this.txDescriptors, socket, 0);
      this.#check(`refuses transmit queue ${queue}`, tx);
    }
  }

  start(): void {
    const { functions } = this.eal.dpdk;
    this.#check('does not start', functions.ethStart(this.portId));
    const { promiscuous } = this.options;
    const set = promiscuous ? functions.ethPromiscuousOn : functions.ethPromiscuousOff;
    const result = set(this.portId);
    if (result < 0 && promiscuous) {
      this.warnings.push(`promiscuous mode cannot be turned on (${errnoText(-result)})`);
    }
  }

  /** struct rte_eth_conf: zeros are DPDK's defaults. */
  #conf(): Uint8Array {
    const { ethConf } = this.eal.dpdk.layout;
    const { info, options } = this;
    const conf = new DataView(new ArrayBuffer(ethConf.sizeBytes));
    if (options.mtu !== null) conf.setUint32(ethConf.rxMtu, options.mtu, true);
    // Frames longer than an mbuf; pools are made so that there should be none.
    conf.setBigUint64(ethConf.rxOffloads, info.rxOffloads & RX_OFFLOAD_SCATTER, true);
    conf.setBigUint64(ethConf.txOffloads, BigInt(this.txOffloads), true);
    if (options.queueCount > 1 && info.rssOffloads !== 0n) {
      conf.setUint32(ethConf.rxMqMode, MQ_RX_RSS, true);
      conf.setBigUint64(ethConf.rssHf, info.rssOffloads, true);
    }
    return new Uint8Array(conf.buffer);
  }

  #setMtu(mtu: number): void {
    const result = this.eal.dpdk.functions.ethSetMtu(this.portId, mtu);
    // Then it is what the configuration said.
    if (result === NOT_SUPPORTED) return;
    this.#check(`refuses the MTU ${mtu}`, result);
  }

  #check(what: string, result: number): void {
    if (result < 0) throw this.eal.errorOf(`${this.device.name} ${what}`, result);
  }
}

function infoOf(eal: Eal, portId: number): PortInfo {
  const { devInfo } = eal.dpdk.layout;
  const bytes = new Uint8Array(devInfo.sizeBytes);
  const result = eal.dpdk.functions.ethInfo(portId, bytes);
  if (result < 0) throw eal.errorOf(`port ${portId} does not describe itself`, result);
  const view = new DataView(bytes.buffer);
  return {
    handle: Number(view.getBigUint64(devInfo.device, true)),
    driver: textAt(Number(view.getBigUint64(devInfo.driverName, true))),
    maxMtu: view.getUint16(devInfo.maxMtu, true),
    maxRxQueues: view.getUint16(devInfo.maxRxQueues, true),
    maxTxQueues: view.getUint16(devInfo.maxTxQueues, true),
    rxOffloads: view.getBigUint64(devInfo.rxOffloadCapa, true),
    // All that are known lie in the lower half.
    txOffloads: view.getUint32(devInfo.txOffloadCapa, true),
    txSegmentsMax: view.getUint16(devInfo.txSegmentsMax, true),
    rssOffloads: view.getBigUint64(devInfo.rssOffloads, true),
  };
}

function macOf(eal: Eal, portId: number): string {
  const mac = new Uint8Array(6);
  eal.dpdk.functions.ethMac(portId, mac);
  return Buffer.from(mac)
    .toString('hex')
    .replace(/..(?!$)/g, '$&:');
}

/** A short C text. */
function textAt(address: number): string {
  if (address === 0) return 'unknown';
  const bytes = new Uint8Array(viewMemory(address, 64));
  return printable(Buffer.from(bytes.subarray(0, bytes.indexOf(0))).toString());
}
