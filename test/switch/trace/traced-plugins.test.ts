/** A trace asks plugins, in a thread that is ended when they take too long, and says what each does with the frame. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { DEFAULT_VLAN, type PortPolicy } from '../../../src/queue/policy.ts';
import { tryPlugin } from '../../../switch/plugin/trial.ts';
import type { TracedPlugin } from '../../../switch/trace/asked-plugins.ts';
import { frameOf } from '../../../switch/trace/frame-of.ts';
import type { TraceReport } from '../../../switch/trace/report.ts';
import { arena, ethernet } from '../l2/frames.ts';
import { PluginFolder, specOf } from '../plugin/plugin-world.ts';
import { TracedSwitch } from './fake-trace.ts';

const EXAMPLES = fileURLToPath(new URL('../../../switch/plugin/examples', import.meta.url));
const folder = new PluginFolder();
afterAll(() => {
  folder.close();
  arena.release();
});

let files = 0;
/** With a reason `no`, the function `decide` with a frame's number `i`, and what stands before it in the factory. */
async function plugin(decide: string, before = '', change = {}): Promise<TracedPlugin> {
  const text = `import type { PluginFactory } from 'ringway/plugin';
const factory: PluginFactory = (settings, context) => {
  const no = context.dropReason('no', 'sent what it should not');
  const [p1, p2, gone] = ['p1', 'p2', 'gone'].map((name) => context.port(name));
  ${before}
  return { version: 1, decide(frames) { for (let i = 0; i < frames.count; i++) { ${decide} } } };
};
export default factory;
`;
  const spec = specOf(folder.write(`rule${++files}.ts`, text), {}, { name: `rule${files}`, ...change });
  return { bundle: await tryPlugin(spec), reason: null };
}

const nameOf = ({ bundle }: TracedPlugin): string => bundle.spec.name;
const steps = (report: TraceReport, stage: string): string[] =>
  report.steps.filter((step) => step.stage === stage).map(({ text }) => text);
/** What is said of each plugin, without its name. */
const said = (report: TraceReport): string[] =>
  steps(report, 'plugins')
    .slice(1)
    .map((text) => text.slice(text.indexOf(' ') + 1));
const access = (tag: number): Partial<PortPolicy> => ({ vlan: { ...DEFAULT_VLAN, mode: 'access', tag } });
const FRAME = ethernet(2, 1);

describe('a trace with plugins', () => {
  it('says which rule drops a frame, and that none does', async () => {
    const rules = folder.write('access.rules', 'deny tcp any any:23\nallow any any any\n');
    const spec = specOf(join(EXAMPLES, 'access-list.ts'), { rules }, { name: 'access-list' });
    const list = { bundle: await tryPlugin(spec), reason: null };
    const traced = new TracedSwitch([{}, {}]);
    const ip = {
      src: Uint8Array.of(10, 0, 0, 1),
      dst: Uint8Array.of(10, 0, 0, 2),
      protocol: 'tcp',
      srcPort: 1,
    } as const;
    const tcp = (dstPort: number): Uint8Array =>
      frameOf({
        ...{
          src: Uint8Array.of(2, 0, 0, 0, 0, 1),
          dst: Uint8Array.of(2, 0, 0, 0, 0, 2),
          vlans: [],
          priority: 0,
        },
        ...{ type: null, arp: null, sizeBytes: 60, ip: { ...ip, dstPort } },
      });
    const denied = await traced.traceWith([list], 0, tcp(23));
    const why = 'sent a frame that a rule of the access list denies (denied)';
    expect(steps(denied, 'plugins')).toEqual([
      'asked as they are at the start, before they have seen any frame',
      `access-list drops it: it ${why}`,
    ]);
    expect(denied.result).toBe(`dropped by access-list: it ${why}`);
    expect(denied.drops).toMatchObject([{ name: 'plugin', frames: 1 }]);
    expect([denied.learns, denied.receivers, steps(denied, 'look up')]).toEqual([null, [], []]);
    const passed = await traced.traceWith([list], 0, tcp(80));
    expect(said(passed)).toEqual(['passes it']);
    expect(passed.result).toBe('flooded to p1');
  });

  it('says what each does, in their order, until one drops it', async () => {
    const plugins = [
      await plugin('frames.setVlan(i, 20);'),
      await plugin('frames.mirror(i, p2);'),
      await plugin(''),
      await plugin('frames.redirect(i, p2);'),
      await plugin('frames.redirect(i, p1);'),
    ];
    const traced = new TracedSwitch([access(10), access(20), access(10)]);
    const report = await traced.traceWith(plugins, 0, FRAME);
    expect(said(report)).toEqual([
      'puts it into VLAN 20',
      'has it mirrored',
      'passes it',
      'redirects it',
      'sends it to p1',
    ]);
    expect(steps(report, 'vlan')[0]).toContain('it is in VLAN 10');
    expect(report.vlan).toBe(20);
    expect(report.learns).toMatchObject({ vlan: 20 });
    expect(steps(report, 'look up')).toEqual([`${nameOf(plugins[4])} has said where it goes`]);
    expect(report.receivers.map(({ port, mirrorOf, frames }) => [port, mirrorOf, frames.length])).toEqual([
      ['p1', null, 1],
      ['p2', 'p0', 1],
    ]);
    expect(report.result).toBe('goes to p1; copied to p2');
    const dropping = await plugin('frames.drop(i, no);');
    const dropped = await traced.traceWith([plugins[0], dropping, plugins[4]], 0, FRAME);
    expect(said(dropped)).toEqual(['puts it into VLAN 20', 'drops it: it sent what it should not (no)']);
    const nowhere = await traced.traceWith([await plugin('frames.redirect(i, gone);')], 0, FRAME);
    expect(said(nowhere)).toEqual(['sends it to a port that is not there: dropped']);
    expect(nowhere.drops).toMatchObject([{ name: 'plugin' }]);
  });

  it('says what was taken out, and what would be', async () => {
    const traced = new TracedSwitch([{}, {}]);
    const [dropping, passing] = [await plugin(''), await plugin('', '', { onFault: 'pass' })];
    const reason = 'it threw Error: no';
    const dropped = await traced.traceWith([{ ...dropping, reason }, passing], 0, FRAME);
    expect(said(dropped)).toEqual([`was taken out, and what it was to decide on is dropped: ${reason}`]);
    expect(dropped.result).toMatch(/\(pluginFailed\) by rule\d+$/);
    const passed = await traced.traceWith([{ ...passing, reason }, dropping], 0, FRAME);
    expect(said(passed)).toEqual([`was taken out, and frames pass without it: ${reason}`, 'passes it']);
    expect(passed.result).toBe('flooded to p1');
    const throwing = await plugin("if (frames.sizes[i] === 77) throw new Error('oh');");
    const thrown = await traced.traceWith([throwing], 0, ethernet(2, 1, { sizeBytes: 77 }));
    expect(said(thrown)[0]).toMatch(
      /^would be taken out, and what it was to decide on is dropped: Error: oh \(.*rule\d+\.ts:\d+:\d+\)$/,
    );
  });

  it('asks those that frames of the port pass, and none where a frame does not come to them', async () => {
    const dropping = await plugin('frames.drop(i, no);');
    const traced = new TracedSwitch([{}, { plugins: [] }, { ...access(10), plugins: [nameOf(dropping)] }]);
    expect(said(await traced.traceWith([dropping], 0, FRAME))).toHaveLength(1);
    const without = await traced.traceWith([dropping], 1, FRAME);
    expect([steps(without, 'plugins'), without.result]).toEqual([[], 'flooded to p0']);
    const refused = await traced.traceWith([dropping], 2, ethernet(2, 1, { tags: [7] }));
    expect([steps(refused, 'plugins'), refused.drops[0].name]).toEqual([[], 'taggedOnAccess']);
  });

  it('does not wait for one that does not end, and goes on without it', async () => {
    const traced = new TracedSwitch([{}, {}], { pluginsMs: 200 });
    const text = 'a'.repeat(40);
    const endless = await plugin(
      `if (frames.sizes[i] === 77 && /^(a+)+$/.test('${text}!')) frames.drop(i, no);`,
    );
    const report = await traced.traceWith([endless], 0, ethernet(2, 1, { sizeBytes: 77 }));
    expect(steps(report, 'plugins')).toEqual([
      'could not be asked (it did not come to an end within 0.2 s when it was asked): what follows is as if there were none',
    ]);
    expect(report.result).toBe('flooded to p1');
  });
});
