/**
 * A whole switch with its worker's thread, and a front-end that does to its call and kick descriptors what it likes:
 * the others' frames go on, and an idle worker sleeps.
 */
import { mkdtempSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EmbeddedGuest, type EmbeddedGuestOptions } from '../../../src/frontend/index.ts';
import { closeFd } from '../../../src/host/descriptor.ts';
import { settingsOf } from '../../../switch/cli/options.ts';
import { resolveConfig } from '../../../switch/config/resolve.ts';
import { createLogger } from '../../../switch/log.ts';
import { Switch } from '../../../switch/switch.ts';
import { fillAndBlock, semaphore } from '../../host/shared-descriptors.ts';

const NAMES = ['sender', 'receiver', 'hostile'] as const;
type Name = (typeof NAMES)[number];
/** For everybody. */
const FRAME = Uint8Array.from({ length: 60 }, (_, i) => (i < 6 ? 0xff : i));

let folder: string;
let running: Switch;
const guests: EmbeddedGuest[] = [];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-shared-'));
  const port = NAMES.map((name) => `${name}=${join(folder, name)}.sock`);
  running = await Switch.start(
    resolveConfig([settingsOf({ port, control: 'none' })]),
    createLogger('silent'),
  );
});

afterEach(async () => {
  for (const guest of guests.splice(0)) guest.close();
  await running.stop();
  rmSync(folder, { recursive: true });
});

async function connect(name: Name, options: Partial<EmbeddedGuestOptions> = {}): Promise<EmbeddedGuest> {
  const socketPath = `${join(folder, name)}.sock`;
  const guest = await EmbeddedGuest.connect({ socketPath, waitMs: 10_000, ...options });
  guests.push(guest);
  return guest;
}

const portOf = (name: Name) => running.ports().find((port) => port.name === name)!;

describe('a call descriptor that is full and blocking', () => {
  it.each(['split', 'packed'] as const)('stops no worker, in a %s ring', async (layout) => {
    const [sender, receiver, hostile] = [
      await connect('sender'),
      await connect('receiver'),
      await connect('hostile', { layout }),
    ];
    expect(hostile.layout).toBe(layout);
    const [{ toGuest, fromGuest }] = hostile.pairs;
    const callFds = [toGuest.ring.callFd, fromGuest.ring.callFd];
    // The switch signals once when it gets the descriptor.
    for (const fd of callFds) empty(fd);
    for (const fd of callFds) fillAndBlock(fd);
    try {
      const callsBefore = portOf('hostile').queues.map(({ calls }) => calls);
      for (let round = 0; round < 100; round++) {
        for (const { ring } of [toGuest, fromGuest]) ring.arm();
        expect(hostile.send(FRAME)).toBe(true);
        expect(await receiver.received()).toEqual(FRAME);
        expect(sender.send(FRAME)).toBe(true);
        expect(await receiver.received()).toEqual(FRAME);
        while (hostile.receive() !== null);
      }
      const calls = portOf('hostile').queues.map(({ calls }, i) => calls - callsBefore[i]);
      for (const count of calls) expect(count).toBeGreaterThan(0);
      expect(portOf('sender')).toMatchObject({ state: 'running', reason: null });
    } finally {
      // Whoever waits for them goes on.
      for (const fd of callFds) readSync(fd, new Uint8Array(8));
    }
  });
});

describe('a kick descriptor that stays readable', () => {
  it('keeps no idle worker awake, and its signals are noticed', async () => {
    const [receiver, hostile] = [await connect('receiver'), await connect('hostile')];
    const kickFd = semaphore(2 ** 31 - 1);
    await hostile.session.request('SET_VRING_KICK', { index: 1, polled: false }, { fds: [kickFd] });
    await untilWorkerSleeps();
    // The guest kicks by the descriptor that was there before, which nobody watches any more.
    expect(hostile.send(FRAME)).toBe(true);
    writeSync(kickFd, new BigUint64Array([1n]));
    expect(await receiver.received()).toEqual(FRAME);
    await untilWorkerSleeps();
    closeFd(kickFd);
  });
});

function empty(fd: number): void {
  writeSync(fd, new BigUint64Array([1n]));
  readSync(fd, new Uint8Array(8));
}

/** Until the worker polled nothing between many looks in a row; for ever, where it never sleeps. */
async function untilWorkerSleeps(): Promise<void> {
  let before = -1;
  for (let same = 0; same < 20; ) {
    await delay(10);
    const { emptyTurns } = running.workers()[0];
    same = emptyTurns === before ? same + 1 : 0;
    before = emptyTurns;
  }
}
