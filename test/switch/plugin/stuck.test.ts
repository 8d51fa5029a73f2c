/**
 * A plugin from which a worker does not come back: the process ends as after a fault of its own, and the next one serves. How
 * many looks it takes is PluginWatch's, which is tried without a clock in header-fields-fuzz.test.ts.
 */
import { expect, it } from 'vitest';
import { EmbeddedGuest } from '../../../src/frontend/index.ts';
import { settlesWithin } from '../../peers/deadline.ts';
import { RingwayProcess } from '../../real/ringway-process.ts';
import { PluginFolder } from './plugin-world.ts';

/** What no count of turns bounds; trials have no frame of that EtherType. */
const WAYS: readonly [string, string][] = [
  ['waits', 'Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);'],
  ['tries all ways of a regular expression', "/^(a+)+$/.test('a'.repeat(60) + 'b');"],
];

/** Longer than a worker takes for anything, and shorter than it may be in a plugin. */
const ANSWERED_MS = 1500;

const ruleOf = (body: string): string => `export default () => ({ version: 1, decide(frames) {
  for (let i = 0; i < frames.count; i++) if (frames.etherTypes[i] === 0x88b6) ${body}
} });\n`;

const STOPS = [false, true] as const;
const TRIED = WAYS.flatMap(([way, code]) => STOPS.map((isStopped) => ({ way, code, isStopped })));

it.each(TRIED)(
  'a plugin that $way ends the process with code 1 and its name, being stopped: $isStopped',
  {
    timeout: 120_000,
  },
  async ({ code, isStopped }) => {
    const folder = new PluginFolder();
    const args = ['--plugin', folder.write('rule.ts', ruleOf(code))];
    const ringway = await RingwayProcess.start({ ports: ['a'], args });
    try {
      const guest = await EmbeddedGuest.connect({ socketPath: ringway.socket('a'), waitMs: 10_000 });
      const frame = new Uint8Array(64);
      frame.set([2, 0, 0, 0, 0, 1, ...guest.mac, 0x88, 0xb6]);
      expect(guest.send(frame)).toBe(true);
      if (isStopped) {
        // A worker that is in the plugin answers nothing.
        while (await settlesWithin(ringway.set('a', { protected: true }), ANSWERED_MS));
        ringway.endInOrder();
      }
      expect(await ringway.ended).toBe(1);
      expect(ringway.log).toMatch(/^ringway: ended: plugin rule does not come back in worker 0$/m);
      guest.close();
      folder.write('rule.ts', ruleOf('frames.u8(i, 0);'));
      await ringway.restart();
    } finally {
      expect(await ringway.stop()).toBe(0);
      folder.close();
    }
  },
);
