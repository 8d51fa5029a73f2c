/** Figures as Prometheus reads them, by a naive parser. */
import { describe, expect, it } from 'vitest';
import { exposition, expositionStream } from '../../../switch/figures/exposition.ts';
import type { FiguresSnapshot } from '../../../switch/figures/snapshot.ts';
import { COUNT_SIZES, PORT_COUNTS, SIZE_CLASSES } from '../../../switch/l2/port-counts.ts';
import { portSnapshot, snapshot, workerSnapshot } from './snapshots.ts';

const textOf = (all: FiguresSnapshot): string => [...exposition(all)].join('');

/** Samples by name and labels, as they are written. */
function parsed(text: string): Map<string, number> {
  const samples = new Map<string, number>();
  const families: string[] = [];
  for (const line of text.split('\n').slice(0, -1)) {
    const type = /^# TYPE (\w+) (counter|gauge|histogram)$/.exec(line);
    if (type !== null) {
      // A family's lines stand together.
      expect(families).not.toContain(type[1]);
      families.push(type[1]);
      continue;
    }
    if (/^# HELP \w+ .+$/.test(line)) continue;
    const sample = /^(([a-z_]+)(?:\{(?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)+\})?) (\S+)$/.exec(line);
    if (sample === null) expect.fail(`no sample: ${line}`);
    const [, key, name, value] = sample;
    expect(name.replace(/_(bucket|sum|count)$/, '')).toMatch(
      new RegExp(`^${families.at(-1)?.replace(/_(bucket|sum|count)$/, '')}$`),
    );
    expect(samples.has(key), key).toBe(false);
    samples.set(key, Number(value));
  }
  return samples;
}

describe('the text', () => {
  it('has a line for each sample, and numbers as they are', () => {
    const ports = [portSnapshot('vm0', { rxPackets: 2 ** 53, txBytes: 0 })];
    const samples = parsed(textOf(snapshot({ ports })));
    const vm0 = 'port="vm0",type="vhost-user"';
    expect(samples.get(`ringway_interface_rx_packets_total{${vm0}}`)).toBe(2 ** 53);
    expect(samples.get(`ringway_interface_tx_bytes_total{${vm0}}`)).toBe(0);
    expect(samples.get(`ringway_queue_waiting{${vm0},queue="0",direction="rx"}`)).toBe(3);
    expect(samples.get('ringway_plugin_drops_packets_total{plugin="access",reason="denied"}')).toBe(4);
    expect(samples.get('ringway_ports{state="running"}')).toBe(1);
    expect(samples.get('ringway_fdb_capacity')).toBe(8192);
  });

  it('adds classes up, as histograms have them', () => {
    const counts = new Float64Array(PORT_COUNTS);
    for (let size = 0; size < SIZE_CLASSES; size++) counts[COUNT_SIZES + size] = 10 ** size;
    const workers = [workerSnapshot(0, { bursts: [1, 2, 3, 4, 5, 6, 7], frames: 99 })];
    const samples = parsed(
      textOf(snapshot({ ports: [portSnapshot('vm0', { counts, rxBytes: 5 })], workers })),
    );
    const sizes = (le: string): number | undefined =>
      samples.get(`ringway_interface_rx_size_bytes_bucket{port="vm0",type="vhost-user",le="${le}"}`);
    expect([sizes('64'), sizes('128'), sizes('9022'), sizes('+Inf')]).toEqual([1, 11, 1111111, 11111111]);
    expect(samples.get('ringway_interface_rx_size_bytes_count{port="vm0",type="vhost-user"}')).toBe(11111111);
    expect(samples.get('ringway_worker_burst_packets_bucket{worker="0",le="32"}')).toBe(21);
    expect(samples.get('ringway_worker_burst_packets_bucket{worker="0",le="+Inf"}')).toBe(28);
    expect(samples.get('ringway_worker_burst_packets_sum{worker="0"}')).toBe(99);
  });

  it('leaves out what is not known, and escapes what would end a label', () => {
    const [queue] = portSnapshot('vm0').queues;
    const odd = { port: 'a"b\\c\nd', type: 'tap' };
    const ports = [portSnapshot('vm0', { labels: odd, mtu: null, queues: [{ ...queue, waiting: null }] })];
    const text = textOf(snapshot({ ports }));
    parsed(text);
    expect(text).toContain('ringway_interface_rx_bytes_total{port="a\\"b\\\\c\\nd",type="tap"} 64\n');
    expect(text).not.toMatch(/^ringway_(interface_mtu|queue_waiting)/m);
  });

  it('of a thousand ports comes in pieces, and others have their turn between them', async () => {
    const ports = Array.from({ length: 1000 }, (_, i) => portSnapshot(`vm${i}`));
    const all = snapshot({ ports });
    expect(Math.max(...[...exposition(all)].map((piece) => piece.length))).toBeLessThan(2 ** 17);
    let turns = 0;
    let isRead = false;
    const turn = (): void => {
      turns++;
      if (!isRead) setImmediate(turn);
    };
    turn();
    const read = await new Response(expositionStream(all)).text();
    isRead = true;
    expect(read).toBe(textOf(all));
    expect(turns).toBeGreaterThan(20);
  });
});
