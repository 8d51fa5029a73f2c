/**
 * Ringway as a service of systemd, by the unit of docs/operating.md: ready, a sign of life, killed under traffic, and taken
 * over by a reload, while two embedded guests stay connected and count their frames.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EmbeddedGuest } from '../../src/frontend/index.ts';
import { flowUntil, NumberedFlow, takeAll } from '../numbered-flow.ts';
import { controlGroupsObstacle } from '../peers/control-groups.ts';
import { peersForTests } from '../peers/index.ts';
import { SystemdManager } from '../peers/systemd-manager.ts';

const peers = await peersForTests(['systemd']);
const obstacle = controlGroupsObstacle();
const KILLS = 5;
const BURST_FRAMES_MAX = 64;
const WAIT_MS = 20_000;
const UNTIL_MS = 120_000;
/** Logged by each process when all of it is there. */
const RUNS = '"msg":"running"';
const NAMES = ['a', 'b'] as const;
const MACS = { a: '02:00:00:00:00:0a', b: '02:00:00:00:00:0b' } as const;
const OPERATING = fileURLToPath(new URL('../../docs/operating.md', import.meta.url));
const PROGRAM = fileURLToPath(new URL('../../switch/cli/main.ts', import.meta.url));

/**
 * The unit of the documentation, with this checkout, these ports and shorter times; without what a user's own manager cannot
 * do: raise limits, take capabilities, and give it a view of files of its own. The rest of its hardening is there.
 */
function unitText(folder: string): string {
  const unit = /```ini\n# \/etc\/systemd\/system\/ringway\.service\n([\s\S]*?)```/.exec(
    readFileSync(OPERATING, 'utf8'),
  );
  const ports = NAMES.map((name) => `--port ${name}=${join(folder, 's', `${name}.sock`)}`).join(' ');
  const control = `--control ${join(folder, 's', 'control.sock')}`;
  return (unit?.[1] ?? '')
    .replaceAll('/opt/ringway/switch/cli/ringway.sh', `${process.execPath} ${PROGRAM}`)
    .replaceAll('--config /etc/ringway.yaml', `${ports} ${control}`)
    .replace(/WatchdogSec=.*/, 'WatchdogSec=8')
    .replace(/^(RuntimeDirectory|CacheDirectory|Limit|Protect|Device|Capability).*\n/gm, '')
    .replace('[Service]', `[Service]\nStandardError=append:${join(folder, 'log')}`);
}

describe.skipIf(peers.skip || obstacle !== null)(
  peers.title(`Ringway as a service of systemd${obstacle === null ? '' : ` (skipped: ${obstacle})`}`),
  () => {
    let manager: SystemdManager;
    let guests: EmbeddedGuest[] = [];
    let flows: NumberedFlow[] = [];

    beforeAll(async () => {
      manager = await SystemdManager.start((folder) => {
        mkdirSync(join(folder, 's'));
        return { 'ringway.service': unitText(folder) };
      });
      await manager.run('systemctl --user start ringway');
      guests = await Promise.all(
        NAMES.map((name) =>
          EmbeddedGuest.connect({
            socketPath: join(manager.folder, 's', `${name}.sock`),
            role: 'client',
            mac: MACS[name],
            layout: name === 'a' ? 'packed' : 'split',
            waitMs: WAIT_MS,
          }),
        ),
      );
      flows = [new NumberedFlow(guests[0], guests[1]), new NumberedFlow(guests[1], guests[0])];
    });

    afterAll(async () => {
      for (const guest of guests) guest.close();
      await manager?.stop();
    });

    const log = (): string => readFileSync(join(manager.folder, 'log'), 'utf8');

    const run = (isEnough: () => boolean): Promise<void> =>
      flowUntil(
        flows,
        () => {
          for (const { session } of guests) expect(session.isClosed).toBe(false);
          return isEnough();
        },
        () => log().slice(-5000),
        UNTIL_MS,
      );

    function runFor(frames: number): Promise<void> {
      const goals = flows.map(({ sent }) => sent + frames);
      return run(() => flows.every(({ sent }, i) => sent >= goals[i]));
    }

    /** While frames flow. */
    async function until(holds: (shown: Record<string, string>) => boolean): Promise<Record<string, string>> {
      const deadline = AbortSignal.timeout(UNTIL_MS);
      for (;;) {
        await runFor(100);
        const shown = await manager.show('ringway');
        if (holds(shown)) return shown;
        if (!deadline.aborted) continue;
        const { ActiveState, MainPID, NFileDescriptorStore, NRestarts, StatusText } = shown;
        const seen = JSON.stringify({ ActiveState, MainPID, NFileDescriptorStore, NRestarts, StatusText });
        throw new Error(`the service does not come to what is awaited: ${seen}\n${log().slice(-5000)}`);
      }
    }

    const pidNow = async (): Promise<string> => (await manager.show('ringway')).MainPID;

    test('is ready, says how it is, and has its descriptors kept', async () => {
      await runFor(1000);
      // Notes, listening sockets, connections, memory, kicks and calls.
      const { ActiveState } = await until(
        ({ StatusText, NFileDescriptorStore }) =>
          StatusText === '2 of 2 ports running' && NFileDescriptorStore === '16',
      );
      expect(ActiveState).toBe('active');
    });

    test(`is killed ${KILLS} times, and its guests notice nothing`, async () => {
      for (let kill = 1; kill <= KILLS; kill++) {
        const twice = flows.map((flow) => flow.twice);
        await runFor(1000);
        await manager.run('systemctl --user kill --signal=KILL --kill-who=main ringway');
        await until(({ NRestarts, ActiveState }) => NRestarts === String(kill) && ActiveState === 'active');
        await runFor(1000);
        for (const { session } of guests) expect(session.isClosed).toBe(false);
        for (const [i, flow] of flows.entries())
          expect(flow.twice - twice[i]).toBeLessThanOrEqual(BURST_FRAMES_MAX);
      }
      expect(log()).not.toContain('has to connect again');
    });

    test('is taken over by a reload, and killed afterwards', async () => {
      const before = await pidNow();
      await manager.run('systemctl --user reload ringway');
      const starts = KILLS + 1;
      // The manager is told of the new process before frames flow there, and the status is that of the one before until it says so.
      const { NRestarts } = await until(
        ({ MainPID, StatusText }) =>
          MainPID !== before &&
          StatusText === '2 of 2 ports running' &&
          log().split(RUNS).length - 1 > starts,
      );
      expect(NRestarts).toBe(String(KILLS));
      await manager.run('systemctl --user kill --signal=KILL --kill-who=main ringway');
      await until((shown) => shown.NRestarts === String(KILLS + 1) && shown.ActiveState === 'active');
      await runFor(1000);
      for (const { session } of guests) expect(session.isClosed).toBe(false);
    });

    test('lives for longer than the watchdog waits, and loses no frame', async () => {
      const endMs = performance.now() + 15_000;
      await run(() => performance.now() > endMs);
      await takeAll(flows, log, UNTIL_MS);
      expect((await manager.show('ringway')).NRestarts).toBe(String(KILLS + 1));
      for (const { session } of guests) expect(session.isClosed).toBe(false);
    });

    test('is started anew when it stands still', async () => {
      await manager.run(`kill -STOP ${await pidNow()}`);
      await until(
        ({ NRestarts, ActiveState }) => NRestarts === String(KILLS + 2) && ActiveState === 'active',
      );
      await runFor(1000);
      for (const { session } of guests) expect(session.isClosed).toBe(false);
    });

    test('keeps nothing once it is stopped', async () => {
      await manager.run('systemctl --user stop ringway');
      const shown = await manager.show('ringway');
      expect([shown.ActiveState, shown.NFileDescriptorStore]).toEqual(['inactive', '0']);
    });
  },
);
