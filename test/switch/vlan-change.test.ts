/**
 * VLANs of a whole switch, with workers and control API, changed while it runs: frames on their way are not lost, a
 * guest is not disconnected, what was learned is forgotten, and what cannot be changes nothing.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EmbeddedGuest } from '../../src/frontend/index.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { formatFdb } from '../../switch/cli/fdb.ts';
import { settingsOf } from '../../switch/cli/options.ts';
import { resolveConfig } from '../../switch/config/resolve.ts';
import { controlApi } from '../../switch/control/api.ts';
import type { FdbReport, PortReport } from '../../switch/control/report.ts';
import { createLogger } from '../../switch/log.ts';
import { Switch } from '../../switch/switch.ts';

const NAMES = ['a', 'b', 'c'];
const macOf = (name: string): number[] => [2, 0, 0, 0, 0, name.charCodeAt(0)];
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function frameOf(to: string, from: string, number: number): Uint8Array {
  const frame = new Uint8Array(60).fill(number & 0xff);
  frame.set([...(to === 'all' ? Array(6).fill(255) : macOf(to)), ...macOf(from), 0x88, 0xb5]);
  return frame;
}

describe('VLANs of ports that run', () => {
  let folder: string;
  let running: Switch;
  let api: ReturnType<typeof controlApi>;
  const guests = new Map<string, EmbeddedGuest>();
  const guest = (name: string): EmbeddedGuest => guests.get(name) as EmbeddedGuest;

  async function set(name: string, change: object): Promise<PortReport> {
    const response = await api.request(`/v1/ports/${name}`, {
      method: 'PATCH',
      body: JSON.stringify(change),
    });
    const answer = await response.json();
    if (response.status !== 200)
      throw new Error(`${response.status} ${(answer as { detail: string }).detail}`);
    return answer as PortReport;
  }

  const fdb = (): FdbReport => running.fdb();
  const placesOf = (): string[] =>
    fdb()
      .entries.map(({ port, vlan }) => `${port} ${vlan}`)
      .sort();

  beforeAll(async () => {
    descriptorLoop();
    folder = mkdtempSync(join(tmpdir(), 'ringway-vlans-'));
    const port = NAMES.map((name) => `${name}=${join(folder, `${name}.sock`)}`);
    running = await Switch.start(
      resolveConfig([settingsOf({ port, control: 'none' })]),
      createLogger('silent'),
    );
    api = controlApi(running, '1');
    for (const name of NAMES) {
      const socketPath = join(folder, `${name}.sock`);
      guests.set(name, await EmbeddedGuest.connect({ socketPath, waitMs: 10_000 }));
    }
  });

  afterAll(async () => {
    for (const each of guests.values()) each.close();
    await running.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  it('part and join', async () => {
    guest('a').send(frameOf('all', 'a', 1));
    expect(await guest('b').received()).toEqual(frameOf('all', 'a', 1));
    expect(await guest('c').received()).toEqual(frameOf('all', 'a', 1));
    expect(placesOf()).toEqual(['a 0']);
    const { settings } = await set('a', { tag: 10 });
    expect(settings).toMatchObject({ vlanMode: 'access', tag: 10, trunks: null });
    expect(placesOf()).toEqual([]);
    await set('b', { tag: '10' });
    guest('a').send(frameOf('all', 'a', 2));
    expect(await guest('b').received()).toEqual(frameOf('all', 'a', 2));
    const tagged = await guest('c').received();
    expect([...tagged.subarray(12, 18)]).toEqual([0x81, 0, 0, 10, 0x88, 0xb5]);
    guest('c').send(frameOf('all', 'c', 3));
    guest('b').send(frameOf('a', 'b', 4));
    expect(await guest('a').received()).toEqual(frameOf('a', 'b', 4));
    // Nobody is told of the other one.
    const unreceived = (): number => running.ports().find(({ name }) => name === 'c')?.drops.noReceiver ?? -1;
    while (unreceived() === 0) await turn();
    expect(unreceived()).toBe(1);
    expect(placesOf()).toEqual(['a 10', 'b 10', 'c 0']);
    expect(formatFdb(fdb())).toMatch(/02:00:00:00:00:61 +10 +a /);
  });

  it('are changed without a loss', async () => {
    await set('a', { tag: 10 });
    await set('b', { tag: 10 });
    let sent = 0;
    let received = 0;
    let isChanging = true;
    const take = async (): Promise<void> => {
      while (isChanging || received < sent) {
        while (isChanging && sent - received < 16 && guest('a').send(frameOf('b', 'a', sent))) sent++;
        for (let frame = guest('b').receive(); frame !== null; frame = guest('b').receive()) {
          expect(frame).toEqual(frameOf('b', 'a', received));
          received++;
        }
        await turn();
      }
    };
    const taking = take();
    for (let change = 0; change < 60; change++) {
      await set(
        'b',
        [{ vlanMode: 'native-untagged' }, { trunks: [1, 2] }, { trunks: null, vlanMode: null }][change % 3],
      );
      await set('a', { priorityTags: change % 2 === 0 ? 'always' : null });
      const before = received;
      while (received === before) await turn();
    }
    isChanging = false;
    await taking;
    expect(received).toBe(sent);
    const states = running.ports().map(({ state, queuePairs }) => `${state} ${queuePairs}`);
    expect(states).toEqual(NAMES.map(() => 'running 1'));
  });

  it('and an MTU, which holds at once', async () => {
    const dropped = (): number => running.ports().find(({ name }) => name === 'b')?.drops.overMtu ?? -1;
    expect(await set('b', { tag: 10, mtu: 68 })).toMatchObject({ mtu: 68, settings: { mtu: 68, tag: 10 } });
    await set('a', { tag: 10 });
    const long = Uint8Array.from([...frameOf('b', 'a', 1), ...Array(23).fill(0)]);
    guest('a').send(long);
    guest('a').send(frameOf('b', 'a', 2));
    expect(await guest('b').received()).toEqual(frameOf('b', 'a', 2));
    expect(dropped()).toBe(1);
    expect(await set('b', { mtu: null })).toMatchObject({ mtu: null, settings: { mtu: null } });
    guest('a').send(long);
    expect(await guest('b').received()).toEqual(long);
    expect(dropped()).toBe(1);
    await expect(set('b', { mtu: 67 })).rejects.toThrow('400 port b: mtu: 67 is not allowed (68 to 65535)');
    await expect(set('b', { offloads: 'no-tso+all' })).rejects.toThrow(
      '400 port b: offloads: all is not allowed',
    );
    const both = await Promise.all([set('b', { mtu: 9000 }), set('b', { flood: false })]);
    expect(both[1].settings).toMatchObject({ mtu: 9000, flood: false });
    await set('b', { mtu: null, flood: true });
  });

  it('are as they were after a change that cannot be, of which all is said', async () => {
    const before = running.ports().map(({ settings }) => settings);
    await expect(set('b', { tag: 4096, trunks: '5', flood: 'off', queues: 3 })).rejects.toThrow(
      '400 port b: tag: 4096 is not allowed (0 to 4095); ' +
        'port b: trunks: 5 is not allowed (only with vlanMode trunk, native-tagged, native-untagged, and it is access); ' +
        'port b: queues: cannot be changed while the port runs (remove the port and add it again)',
    );
    await expect(set('d', { tag: 1 })).rejects.toThrow('404 there is no port d');
    expect(running.ports().map(({ settings }) => settings)).toEqual(before);
  });
});
