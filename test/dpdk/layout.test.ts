/**
 * The offsets of src/dpdk/layout.ts against those that the C compiler finds in the headers of the DPDK that is
 * installed; and what is said where DPDK, or a DPDK that is known, is missing.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  type DpdkLayout,
  HEADROOM_BYTES,
  LAYOUTS,
  MBUF_TX_HIGH,
  releaseOfAbi,
  TX_OFFLOAD,
} from '../../src/dpdk/layout.ts';
import { abisIn, missing } from '../../src/dpdk/library.ts';
import { findProgram } from '../peers/index.ts';
import { softwareMissing } from '../peers/software.ts';

const folder = mkdtempSync(join(tmpdir(), 'ringway-dpdk-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Where else headers may lie, for another release than the one installed: a folder with `dpdk` in it. */
const INCLUDE = process.env.RINGWAY_DPDK_INCLUDE ?? '/usr/include';
const skipReason = !existsSync(`${INCLUDE}/dpdk/rte_ethdev.h`)
  ? softwareMissing('headers: apt install libdpdk-dev')
  : findProgram('gcc') === undefined
    ? softwareMissing('gcc')
    : null;

/** For each number of the layout: its path there, and how C asks for it. */
const ASKED: readonly (readonly [string, string])[] = [
  ['mbuf.sizeBytes', 'sizeof(struct rte_mbuf)'],
  ['mbuf.bufAddr', 'offsetof(struct rte_mbuf, buf_addr)'],
  ['mbuf.dataOff', 'offsetof(struct rte_mbuf, data_off)'],
  ['mbuf.nbSegs', 'offsetof(struct rte_mbuf, nb_segs)'],
  ['mbuf.olFlags', 'offsetof(struct rte_mbuf, ol_flags)'],
  ['mbuf.packetType', 'offsetof(struct rte_mbuf, packet_type)'],
  ['mbuf.pktLen', 'offsetof(struct rte_mbuf, pkt_len)'],
  ['mbuf.dataLen', 'offsetof(struct rte_mbuf, data_len)'],
  ['mbuf.bufLen', 'offsetof(struct rte_mbuf, buf_len)'],
  ['mbuf.pool', 'offsetof(struct rte_mbuf, pool)'],
  ['mbuf.next', 'offsetof(struct rte_mbuf, next)'],
  ['mbuf.txOffload', 'offsetof(struct rte_mbuf, tx_offload)'],
  ['ethConf.sizeBytes', 'sizeof(struct rte_eth_conf)'],
  ['ethConf.rxMqMode', 'offsetof(struct rte_eth_conf, rxmode.mq_mode)'],
  ['ethConf.rxMtu', 'offsetof(struct rte_eth_conf, rxmode.mtu)'],
  ['ethConf.rxOffloads', 'offsetof(struct rte_eth_conf, rxmode.offloads)'],
  ['ethConf.txOffloads', 'offsetof(struct rte_eth_conf, txmode.offloads)'],
  ['ethConf.rssHf', 'offsetof(struct rte_eth_conf, rx_adv_conf.rss_conf.rss_hf)'],
  ['devInfo.sizeBytes', 'sizeof(struct rte_eth_dev_info)'],
  ['devInfo.device', 'offsetof(struct rte_eth_dev_info, device)'],
  ['devInfo.driverName', 'offsetof(struct rte_eth_dev_info, driver_name)'],
  ['devInfo.maxMtu', 'offsetof(struct rte_eth_dev_info, max_mtu)'],
  ['devInfo.maxRxQueues', 'offsetof(struct rte_eth_dev_info, max_rx_queues)'],
  ['devInfo.maxTxQueues', 'offsetof(struct rte_eth_dev_info, max_tx_queues)'],
  ['devInfo.rxOffloadCapa', 'offsetof(struct rte_eth_dev_info, rx_offload_capa)'],
  ['devInfo.txOffloadCapa', 'offsetof(struct rte_eth_dev_info, tx_offload_capa)'],
  ['devInfo.txSegmentsMax', 'offsetof(struct rte_eth_dev_info, tx_desc_lim.nb_seg_max)'],
  ['devInfo.rssOffloads', 'offsetof(struct rte_eth_dev_info, flow_type_rss_offloads)'],
  ['ethLink.sizeBytes', 'sizeof(struct rte_eth_link)'],
  ['ethStats.sizeBytes', 'sizeof(struct rte_eth_stats)'],
  ['fpOps.sizeBytes', 'sizeof(struct rte_eth_fp_ops)'],
  ['fpOps.rxPktBurst', 'offsetof(struct rte_eth_fp_ops, rx_pkt_burst)'],
  ['fpOps.rxqData', 'offsetof(struct rte_eth_fp_ops, rxq.data)'],
  ['fpOps.txPktBurst', 'offsetof(struct rte_eth_fp_ops, tx_pkt_burst)'],
  ['fpOps.txPktPrepare', 'offsetof(struct rte_eth_fp_ops, tx_pkt_prepare)'],
  ['fpOps.txqData', 'offsetof(struct rte_eth_fp_ops, txq.data)'],
  ['mempool.opsIndex', 'offsetof(struct rte_mempool, ops_index)'],
  ['mempoolOps.tableOffset', 'offsetof(struct rte_mempool_ops_table, ops)'],
  ['mempoolOps.sizeBytes', 'sizeof(struct rte_mempool_ops)'],
  ['mempoolOps.dequeue', 'offsetof(struct rte_mempool_ops, dequeue)'],
];

/** Every number in a layout, by its path. */
function numbersOf(layout: DpdkLayout): Map<string, number> {
  return new Map(
    Object.entries(layout).flatMap(([part, fields]) =>
      typeof fields === 'string'
        ? []
        : Object.entries(fields)
            .filter(([, value]) => typeof value === 'number')
            .map(([field, value]): [string, number] => [`${part}.${field}`, value as number]),
    ),
  );
}

/** Compiles a program that prints, one a line, and runs it. */
function askCompiler(expressions: readonly string[]): bigint[] {
  const source = join(folder, 'layout.c');
  const program = join(folder, 'layout');
  const lines = expressions.map((each) => `printf("%llu\\n", (unsigned long long)(${each}));`);
  const headers = [
    'stdio.h',
    'stddef.h',
    'string.h',
    'rte_mbuf.h',
    'rte_ethdev.h',
    'rte_mempool.h',
    'rte_version.h',
  ];
  writeFileSync(
    source,
    `${headers.map((name) => `#include <${name}>`).join('\n')}\nint main(void) {\n${lines.join('\n')}\nreturn 0;\n}\n`,
  );
  const machine = process.arch === 'x64' ? ['-march=corei7'] : [];
  const triplet = process.arch === 'x64' ? 'x86_64-linux-gnu' : 'aarch64-linux-gnu';
  const include = [`-I${INCLUDE}/dpdk`, `-I${INCLUDE}/${triplet}/dpdk`, '-include', 'rte_config.h'];
  execFileSync('gcc', [...machine, ...include, '-o', program, source], { stdio: 'pipe' });
  return execFileSync(program, { encoding: 'utf8' }).trim().split('\n').map(BigInt);
}

describe.skipIf(skipReason !== null)(`layout (${skipReason ?? 'compiled with gcc'})`, () => {
  const [year] = skipReason === null ? askCompiler(['RTE_VER_YEAR']) : [0n];
  const layout = LAYOUTS.get(Number(year) + 1);

  it.skipIf(layout === undefined)(`of DPDK ${year} is what the compiler says`, () => {
    const found = askCompiler(ASKED.map(([, expression]) => expression));
    const compiled = new Map(ASKED.map(([path], i) => [path, Number(found[i])]));
    expect(compiled).toEqual(numbersOf(layout!));
  });

  it.skipIf(layout === undefined)('of constants and of counters too', () => {
    const bits = (flag: string): string =>
      `({ union { struct rte_eth_link link; unsigned words[2]; } u = { { 0 } }; u.link.${flag} = 1; u.words[1]; })`;
    const found = askCompiler([
      'RTE_PKTMBUF_HEADROOM',
      'RTE_ETH_RX_OFFLOAD_SCATTER',
      'RTE_ETH_MQ_RX_RSS',
      bits('link_duplex'),
      bits('link_status'),
      'RTE_MEMPOOL_F_NO_IOVA_CONTIG',
    ]);
    expect(found).toEqual([BigInt(HEADROOM_BYTES), 1n << 13n, 1n, 1n, 4n, 0x20n]);
    const names = Object.keys(TX_OFFLOAD) as (keyof typeof TX_OFFLOAD)[];
    expect(askCompiler(names.map((name) => `RTE_ETH_TX_OFFLOAD_${name}`))).toEqual(
      names.map((name) => BigInt(TX_OFFLOAD[name])),
    );
    const flags = Object.keys(MBUF_TX_HIGH) as (keyof typeof MBUF_TX_HIGH)[];
    expect(askCompiler(flags.map((name) => `RTE_MBUF_F_TX_${name}`))).toEqual(
      flags.map((name) => BigInt(MBUF_TX_HIGH[name]) << 32n),
    );
    const lengths = (fields: string): string =>
      `({ struct rte_mbuf m; memset(&m, 0, sizeof m); ${fields} m.tx_offload; })`;
    expect(
      askCompiler([
        lengths('m.l2_len = 127; '),
        lengths('m.l3_len = 511; '),
        lengths('m.l4_len = 255; '),
        lengths('m.tso_segsz = 65535; '),
      ]),
    ).toEqual([0x7fn, 0x1ffn << 7n, 0xffn << 16n, 0xffffn << 24n]);
    const counters = layout!.ethStats.fields;
    const offsets = askCompiler(counters.map((name) => `offsetof(struct rte_eth_stats, ${name})`));
    expect(offsets).toEqual(counters.map((_, i) => BigInt(8 * i)));
  });
});

describe('a machine without a known DPDK', () => {
  const libraries = (...abis: readonly number[]): string => {
    const path = mkdtempSync(join(folder, 'lib-'));
    for (const abi of abis) symlinkSync('/dev/null', join(path, `librte_eal.so.${abi}`));
    symlinkSync('/dev/null', join(path, 'librte_eal.so.23.0'));
    symlinkSync('/dev/null', join(path, 'librte_eal.a'));
    return path;
  };

  it('is told which packages to install', () => {
    expect(abisIn([libraries(), join(folder, 'none')])).toEqual([]);
    expect(missing([]).message).toMatch(/^DPDK is not installed: apt install dpdk librte-meta-allpmds/);
  });

  it('is told that its DPDK is not known, by name', () => {
    expect(abisIn([libraries(24), libraries(21, 24)])).toEqual([24, 21]);
    expect(missing([24]).message).toBe('DPDK ABI 24 (23.11) is not known: install 22.11 or 24.11');
    expect(missing([22]).message).toContain('22 (21.11)');
  });

  it('is told that a known DPDK is not found by the loader', () => {
    expect(missing([25]).message).toContain('run ldconfig');
  });

  it('knows releases by their ABI', () => {
    for (const [abi, { release }] of LAYOUTS) expect(releaseOfAbi(abi)).toBe(release);
  });
});
