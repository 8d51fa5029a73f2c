/**
 * A real Prometheus asks a real Ringway each second: what guests sent is what it answers to questions. promtool looks at the text, the
 * alert rules and every question of the dashboard.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EmbeddedGuest } from '../../src/frontend/index.ts';
import { findProgram, runProgram, startChild, TextLog } from '../peers/child.ts';
import { peersForTests } from '../peers/index.ts';
import { freeTcpPort, Prometheus } from '../peers/prometheus.ts';
import { RingwayProcess } from './ringway-process.ts';

const peers = await peersForTests(['prometheus']);

const ALERTS = fileURLToPath(new URL('../../docs/monitoring/alerts.yaml', import.meta.url));
const DASHBOARD = new URL('../../docs/monitoring/dashboard.json', import.meta.url);
const TOKEN = 'a-token-for-prometheus-alone';
const FRAMES = 25;

function broadcast(sizeBytes: number): Uint8Array {
  const bytes = new Uint8Array(sizeBytes).fill(255, 0, 6);
  bytes.set([2, 0, 0, 0, 0, 1, 0x88, 0xb5], 6);
  return bytes;
}

describe.skipIf(peers.skip)(peers.title('Prometheus'), () => {
  let port = 0;
  let ringway: RingwayProcess;
  let prometheus: Prometheus;
  const guests: EmbeddedGuest[] = [];

  beforeAll(async () => {
    port = await freeTcpPort();
    ringway = await RingwayProcess.start({
      ports: ['vm0', 'vm1', 'vm2'],
      args: ['--metrics', `127.0.0.1:${port}`],
    });
    prometheus = await Prometheus.start({ target: `127.0.0.1:${port}`, ruleFiles: [ALERTS] });
    for (const name of ['vm0', 'vm1'])
      guests.push(await EmbeddedGuest.connect({ socketPath: ringway.socket(name), waitMs: 10_000 }));
    const [vm0, vm1] = guests;
    for (let sent = 0; sent < FRAMES; sent++) {
      expect(vm0.pairs[0].send(broadcast(300))).toBe(true);
      await vm1.pairs[0].received();
    }
  });

  afterAll(async () => {
    for (const guest of guests) guest.close();
    await prometheus?.stop();
    expect(await ringway?.stop()).toBe(0);
  });

  test('answers questions with what guests sent', async () => {
    const one = async (question: string): Promise<number | undefined> => {
      const [result] = await prometheus.query(question);
      return result?.value;
    };
    const questions: readonly (readonly [string, number])[] = [
      ['ringway_interface_rx_packets_total{port="vm0",type="vhost-user"}', FRAMES],
      ['sum(ringway_interface_tx_bytes_total)', FRAMES * 300],
      [
        'ringway_interface_rx_size_bytes_bucket{port="vm0",le="512"} - ignoring(le) ringway_interface_rx_size_bytes_bucket{port="vm0",le="256"}',
        FRAMES,
      ],
      ['ringway_interface_rx_broadcast_packets_total{port="vm0"}', FRAMES],
      ['ringway_ports{state="running"}', 2],
      ['ringway_queue_waiting{port="vm0",direction="rx",queue="0"}', 0],
    ];
    for (const [question, value] of questions) {
      await prometheus.until(
        `answers ${question} with ${value}`,
        async () => (await one(question)) === value,
      );
      process.stdout.write(`${question} = ${await one(question)}\n`);
    }
    // Of a frame that nobody could take, by name: vm2 has no guest.
    await prometheus.until('knows of drops', async () => {
      const [drop] = await prometheus.query('ringway_interface_drops_packets_total{port="vm2"}');
      return drop?.labels.reason === 'notReady' && drop.value === FRAMES;
    });
  });

  test('takes the alert rules, and each can be evaluated', async () => {
    const names = [...readFileSync(ALERTS, 'utf8').matchAll(/alert: (\w+)/g)].map(([, name]) => name);
    await prometheus.until('has evaluated all rules', async () => {
      const rules = await prometheus.rules();
      return rules.length === names.length && rules.every(({ health }) => health === 'ok');
    });
    expect((await prometheus.rules()).map(({ name }) => name)).toEqual(names);
  });

  test('understands each question of the dashboard', async () => {
    const { panels } = JSON.parse(readFileSync(DASHBOARD, 'utf8')) as {
      panels: { title: string; targets: { expr: string }[] }[];
    };
    const questions = panels
      .flatMap(({ targets }) => targets.map(({ expr }) => expr))
      .map((expr) => expr.replaceAll('$__rate_interval', '30s').replaceAll(/\$(instance|port)/g, '.*'));
    expect(questions.length).toBeGreaterThan(20);
    for (const question of questions) {
      const answer = await prometheus.query(question);
      // What nobody does here: drops that go on, plugins.
      if (answer.length > 0 || question.endsWith('> 0') || question.includes('plugin')) continue;
      await prometheus.until(
        `answers ${question}`,
        async () => (await prometheus.query(question)).length > 0,
      );
    }
  });

  test('has nothing to say against the text, nor has promtool', async () => {
    const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    const child = await startChild(findProgram('promtool') ?? 'promtool', ['check', 'metrics']);
    const said = new TextLog(child.process.stderr);
    child.process.stdin.end(text);
    expect([await child.exited, said.text]).toEqual([0, '']);
    const rules = await runProgram('promtool', ['check', 'rules', ALERTS]);
    expect(rules.output).toContain('SUCCESS: 8 rules found');
    expect(rules.code).toBe(0);
  });

  test('with a token asks where others are refused', async () => {
    const file = join(ringway.folder, 'token');
    writeFileSync(file, `${TOKEN}\n`, { mode: 0o600 });
    const ownPort = await freeTcpPort();
    const guarded = await RingwayProcess.start({
      ports: ['vm9'],
      args: ['--metrics', `127.0.0.1:${ownPort}`, '--metrics-token', file],
    });
    const asker = await Prometheus.start({ target: `127.0.0.1:${ownPort}`, credentialsFile: file });
    try {
      expect((await fetch(`http://127.0.0.1:${ownPort}/metrics`)).status).toBe(401);
      await asker.until(
        'is answered',
        async () => (await asker.query('up{job="ringway"} == 1')).length === 1,
      );
    } finally {
      await asker.stop();
      await guarded.stop();
    }
  });
});
