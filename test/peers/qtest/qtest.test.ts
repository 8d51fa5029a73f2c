/** Tests of the guests in qtest mode by themselves, without Ringway. */

import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { temporaryFolder } from '../child.ts';
import { peersForTests } from '../packages.ts';
import { Testpmd } from '../testpmd.ts';
import { type NetDriver, type NicOptions, QtestGuest, QtestMachine } from './index.ts';

const peers = await peersForTests(['qemu']);
const withTestpmd = await peersForTests(['qemu', 'testpmd']);
const GPA = 0x40_0000;

async function startGuest(name: string): Promise<QtestGuest> {
  const guest = await QtestGuest.start({ name, memoryMiB: 64, dimmSlots: 1 });
  onTestFinished(() => guest.close());
  return guest;
}

describe.skipIf(peers.skip)(peers.title('a guest in qtest mode'), () => {
  test('has memory that QEMU and the test both see', async () => {
    const guest = await startGuest('a');
    guest.memory.u8.set([1, 2, 3], GPA);
    expect([...(await guest.qtest.read(GPA, 3))]).toEqual([1, 2, 3]);
    const bytes = Uint8Array.from({ length: 100_000 }, (_, i) => i * 7);
    await guest.qtest.write(GPA, bytes);
    expect(Buffer.compare(guest.memory.u8.subarray(GPA, GPA + bytes.length), bytes)).toBe(0);
  });

  test('gets memory while it runs, and lets go of it', async () => {
    const guest = await startGuest('a');
    const { memory } = await guest.plugDimm('dimm', 128);
    memory.u8.set([4, 5], 4096);
    expect([...(await guest.qtest.read(memory.gpaOf(4096), 2))]).toEqual([4, 5]);
    await guest.unplugDimm('dimm');
    expect(await guest.machine.qmp('query-memory-devices')).toEqual([]);
  });

  test('comes back from a reset with its memory', async () => {
    const guest = await startGuest('a');
    guest.memory.u8.set([6], GPA);
    await guest.systemReset();
    expect(await guest.machine.qmp('query-status')).toMatchObject({ status: 'running' });
    expect(guest.memory.u8[GPA]).toBe(6);
  });

  test('migrates, and goes on in the memory of the other machine', async () => {
    const guest = await startGuest('source');
    const target = await QtestMachine.start({ name: 'target', memoryMiB: 64, dimmSlots: 1, incoming: true });
    await guest.qtest.write(GPA, Uint8Array.of(7, 8));
    const source = await guest.migrateTo(target, {
      beforeSwitch: async () => {
        await guest.qtest.write(GPA + 1, Uint8Array.of(9));
      },
    });
    onTestFinished(() => source.stop());
    expect(guest.machine).toBe(target);
    expect([...guest.memory.u8.subarray(GPA, GPA + 2)]).toEqual([7, 9]);
    guest.memory.u8[GPA] = 10;
    expect(target.memory.u8[GPA]).toBe(10);
    expect(source.memory.u8[GPA]).toBe(7);
    expect([...(await guest.qtest.read(GPA, 2))]).toEqual([10, 9]);
  });

  test('says what QEMU said when it does not start', async () => {
    await expect(QtestMachine.start({ name: 'a', qemuArgs: ['-device', 'nothing'] })).rejects.toThrow(
      /'nothing' is not a valid device model name/,
    );
  });
});

describe.skipIf(withTestpmd.skip)(
  withTestpmd.title('a guest in qtest mode with a card behind testpmd'),
  () => {
    test.each(['split', 'packed'] as const)(
      'sends and receives, and goes on after a migration: %s',
      async (layout) => {
        const folder = await temporaryFolder('ringway-qtest-peer-');
        const nics = [0, 1].map(
          (port): NicOptions => ({
            id: 'nic',
            slot: 4,
            socketPath: join(folder.path, `${port}.sock`),
            mac: '52:54:00:00:00:01',
          }),
        );
        const testpmd = await Testpmd.start({
          vdevs: nics.map(({ socketPath }, port) => `net_vhost${port},iface=${socketPath}`),
          args: ['--port-topology=loop', '--forward-mode=macswap'],
        });
        onTestFinished(async () => {
          await testpmd.stop();
          await folder.remove();
        });
        await testpmd.command('start');
        const guest = await QtestGuest.start({ name: 'source', nics: [nics[0]] });
        onTestFinished(() => guest.close());
        const driver = guest.nic('nic');
        await driver.initialise({ layout });
        const echo = new Echo(driver);
        await echo.frames(300);
        const target = await QtestMachine.start({ name: 'target', nics: [nics[1]], incoming: true });
        let isOver = false;
        const migration = guest.migrateTo(target).finally(() => {
          isOver = true;
        });
        // Rejects only together with the wait for it, below.
        migration.catch(() => {});
        while (!isOver) await echo.frame(() => isOver);
        const source = await migration;
        onTestFinished(() => source.stop());
        await echo.frames(300);
        // QEMU stops one ring after the other: a frame that testpmd has taken from the first finds no way into the second.
        expect(echo.lost).toBeLessThanOrEqual(1);
      },
    );
  },
);

/** Sends numbered frames one after the other, and awaits each before the next. They come back in their order, if at all. */
class Echo {
  /** Frames that did not come back before the one after them. */
  lost = 0;
  readonly #driver: NetDriver;
  #next = 0;
  /** Sent, and not seen again yet. */
  #first = 0;

  constructor(driver: NetDriver) {
    this.#driver = driver;
  }

  async frames(count: number): Promise<void> {
    for (let i = 0; i < count; i++) await this.frame();
  }

  /** Answers when the frame is back, or, without it, once there is no sense in waiting for it. */
  async frame(isLeft: () => boolean = () => false): Promise<void> {
    const number = this.#next++;
    const deadline = AbortSignal.timeout(20_000);
    const until = async <T>(what: () => T | null | undefined): Promise<T> => {
      for (let got = what(); ; got = what()) {
        if (got !== null && got !== undefined) return got;
        if (deadline.aborted) throw new Error(`frame ${number} did not come back`);
        await delay(1);
      }
    };
    const pair = () => this.#driver.pairs[0];
    // The guest stands still for a moment of its migration.
    expect(await until(() => pair()?.send(this.#frame(number)))).toBe(true);
    while (this.#first <= number) {
      const back = await until(() => pair()?.receive() ?? (isLeft() ? 'left' : null));
      if (back === 'left') return;
      const payload = back.subarray(12);
      const came = new DataView(payload.buffer, payload.byteOffset).getUint32(8);
      expect(came).toBeGreaterThanOrEqual(this.#first);
      expect([...payload]).toEqual([...this.#frame(came).subarray(12)]);
      this.lost += came - this.#first;
      this.#first = came + 1;
    }
  }

  #frame(number: number): Uint8Array {
    const frame = new Uint8Array(100 + (number % 1000));
    frame.set(this.#driver.mac);
    frame.set([2, 0, 0, 0, 0, 1], 6);
    new DataView(frame.buffer).setUint32(20, number);
    return frame;
  }
}
