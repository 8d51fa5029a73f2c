/**
 * Ten configurations applied one after the other while testpmd's frames circulate between two ports that none of them
 * changes: ports beside those come, go, change and are replaced, and a plugin is exchanged. No frame is lost.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { stringify } from 'yaml';
import type { ApplyReport } from '../../switch/apply/configuration.ts';
import { parseConfigText } from '../../switch/config/file.ts';
import { askControl } from '../../switch/control/client.ts';
import { peersForTests, Testpmd } from '../peers/index.ts';
import { VIRTIO_USER_EAL_ARGS, virtioUserVdev } from '../peers/virtio-user.ts';
import { RingwayProcess } from './ringway-process.ts';
import { drain, START_COMMAND, tally, untilForwarded } from './testpmd-traffic.ts';

const peers = await peersForTests(['testpmd']);
const PLUGIN = `export default (settings) => {
  settings.text('about', '');
  return { version: 1, decide() {} };
};`;
const MACS = { a: '02:00:00:00:01:01', b: '02:00:00:00:01:02' } as const;
const RINGS = {
  ...{ queuePairs: 1, server: false },
  ...{ packed: false, inOrder: true, mergeable: true, vectorized: false },
};
/** Between two of them each port has received so many frames more. */
const FRAMES_BETWEEN = 20_000;

type Ports = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

/** What is changed: beside a and b, of which each has `plugins: none`. */
const STEPS: readonly { readonly ports: Ports; readonly plugins?: unknown }[] = [
  { ports: { c: {} } },
  { ports: { c: { tag: 10 } } },
  { ports: { c: { tag: 10, rateIn: '1M' }, d: { queues: 2 } } },
  { ports: { c: {}, d: { queues: 4 } } },
  { ports: { d: { queues: 4 }, e: {}, f: {}, g: { tag: 5 } } },
  { ports: { d: { plugins: ['bound'] }, e: {} }, plugins: { bound: { file: '{folder}/pass.ts' } } },
  {
    ports: { d: { plugins: ['bound'] }, e: { vlanMode: 'trunk', trunks: [1, 2] } },
    plugins: { bound: { file: '{folder}/pass.ts', about: 'more' } },
  },
  { ports: { e: { kind: 'pcap', file: '{folder}/e.pcap' } } },
  { ports: { e: { kind: 'pcap', file: '{folder}/e.pcap', mirror: ['d'] }, d: {} } },
  { ports: {} },
];

function configuration(folder: string, step: (typeof STEPS)[number]): string {
  const busy = { a: { plugins: 'none' }, b: { plugins: 'none' } };
  const ports = Object.entries({ ...busy, ...step.ports }).map(([name, settings]) => [
    name,
    'kind' in settings ? settings : { socket: `${folder}/${name}.sock`, ...settings },
  ]);
  const text = stringify({
    ports: Object.fromEntries(ports),
    ...(step.plugins !== undefined && { plugins: step.plugins }),
  });
  return text.replaceAll('{folder}', folder);
}

describe.skipIf(peers.skip)(peers.title('configurations applied under load'), () => {
  test('no frame of ports that do not change is lost', async ({ annotate }) => {
    const folder = mkdtempSync(join(tmpdir(), 'ringway-apply-'));
    const file = join(folder, 'ringway.yaml');
    writeFileSync(join(folder, 'pass.ts'), PLUGIN);
    writeFileSync(file, configuration(folder, { ports: {} }));
    const ringway = await RingwayProcess.start({ ports: [], args: ['--config', file] });
    let testpmd: Testpmd | undefined;
    onTestFinished(async () => {
      await testpmd?.stop();
      expect(await ringway.stop()).toBe(0);
      rmSync(folder, { recursive: true });
    });
    testpmd = await Testpmd.start({
      vdevs: (['a', 'b'] as const).map((name, i) =>
        virtioUserVdev({ ...RINGS, index: i, socketPath: join(folder, `${name}.sock`), mac: MACS[name] }),
      ),
      args: ['--forward-mode=io'],
      ealArgs: VIRTIO_USER_EAL_ARGS,
    });
    for (const name of ['a', 'b']) await ringway.untilState(name, 'running');
    await testpmd.command(START_COMMAND);
    const lines: string[] = [];
    for (const [i, step] of STEPS.entries()) {
      await untilForwarded(testpmd, (i + 1) * FRAMES_BETWEEN);
      const { values: settings } = parseConfigText(file, configuration(folder, step));
      const apply = (dryRun: boolean): Promise<ApplyReport> =>
        askControl(ringway.controlSocket, '/v1/config', {
          method: 'POST',
          body: { settings, path: file, dryRun },
        });
      const told = await apply(true);
      const done = await apply(false);
      expect(done.lines).toEqual(told.lines);
      expect(done.lines.length).toBeGreaterThan(0);
      expect((await apply(true)).lines).toEqual([]);
      lines.push(...done.lines);
    }
    await untilForwarded(testpmd, (STEPS.length + 1) * FRAMES_BETWEEN);
    await testpmd.command('stop');
    const { sent, lost } = tally(await drain(testpmd));
    expect({ lost }).toEqual({ lost: 0 });
    expect(lines.filter((line) => /port [ab]\b/.test(line))).toEqual([]);
    await annotate(
      `${STEPS.length} configurations with ${lines.length} differences, ${sent} frames meanwhile, ${lost} lost`,
    );
  });
});
