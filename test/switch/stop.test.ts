/**
 * A Ringway that is stopped in order in the middle of anything: guests send and talk, stations at UNIX sockets come and
 * go, ports are added, changed and removed, another process takes over. It ends with code 0, soon, and says no
 * more than that. What becomes of frames is in kill-and-back.test.ts. More times: RINGWAY_SEARCH=10.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { EmbeddedGuest } from '../../src/frontend/index.ts';
import { closeFd } from '../../src/host/descriptor.ts';
import { connectUnix, send } from '../../src/host/unix-socket.ts';
import { askControl } from '../../switch/control/client.ts';
import { withDeadline } from '../peers/deadline.ts';
import { pcapFile } from '../protocol/naive-capture.ts';
import { RingwayProcess } from '../real/ringway-process.ts';
import { Random } from '../vring/random.ts';

const TIMES = Math.round(4 * Number(process.env.RINGWAY_SEARCH ?? 1));
const WAIT_MS = 20_000;
/** By then all of what goes on has begun, and some of it is over. */
const LATEST_MS = 120;
/** When it is stopped, of the time that a takeover takes. */
const PERCENT = [50, 110] as const;
const BURST_FRAMES = 64;
const NAMES = ['a', 'b'] as const;
const ALL = [255, 255, 255, 255, 255, 255];
const HELLO = Buffer.from([0, 0, 0, 60, ...ALL, 2, 0, 0, 0, 0, 0x0c, 0x88, 0xb5, ...new Uint8Array(46)]);

/** What goes on until it is over; whatever of it fails because Ringway ends is no matter. */
class Goings {
  readonly #ringway: RingwayProcess;
  readonly #random: Random;
  readonly #work: Promise<void>[] = [];
  readonly #closing: (() => void)[] = [];
  #isOver = false;

  constructor(ringway: RingwayProcess, random: Random) {
    this.#ringway = ringway;
    this.#random = random;
  }

  begin(step: () => unknown, pauseMs: () => number): void {
    this.#work.push(this.#repeat(step, pauseMs));
  }

  /** Resolves when nothing of it is left. */
  async end(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#work);
    for (const close of this.#closing) close();
  }

  async #repeat(step: () => unknown, pauseMs: () => number): Promise<void> {
    while (!this.#isOver) {
      await (async () => step())().catch(() => {});
      await sleep(pauseMs());
    }
  }

  /** Comes to a port of kind unix, says something, and goes. */
  station(port: string): void {
    let fd = -1;
    this.begin(
      () => {
        if (fd >= 0) closeFd(fd);
        fd = -1;
        fd = connectUnix(this.#ringway.socket(port));
        send(fd, HELLO);
      },
      () => this.#random.between(0, 10),
    );
    this.#closing.push(() => {
      if (fd >= 0) closeFd(fd);
    });
  }

  /** To the other one, and what comes is thrown away. */
  traffic(guests: readonly EmbeddedGuest[]): void {
    this.#closing.push(() => {
      for (const guest of guests) guest.close();
    });
    const frames = guests.map((guest, i) => {
      const frame = new Uint8Array(1400).fill(i);
      frame.set(guests[1 - i].mac);
      frame.set(guest.mac, 6);
      return frame;
    });
    this.begin(
      () => {
        for (const [i, guest] of guests.entries()) {
          while (guest.receive() !== null);
          for (let count = 0; count < BURST_FRAMES && guest.send(frames[i]); count++);
        }
      },
      () => 0,
    );
  }

  /** Stops and starts its rings. */
  talk({ session }: EmbeddedGuest): void {
    this.begin(
      async () => {
        const state = { index: this.#random.between(0, 1), num: this.#random.between(0, 1) };
        await session.request('SET_VRING_ENABLE', state);
        await session.request('GET_FEATURES', null);
      },
      () => this.#random.between(0, 3),
    );
  }

  /** Ports come, change and go. */
  changes(): void {
    const ask = (method: 'PUT' | 'PATCH' | 'DELETE', body?: object): Promise<unknown> =>
      askControl(this.#ringway.controlSocket, `/v1/ports/${name}`, { method, body });
    const name = 'late';
    const bodies = [
      { socket: join(this.#ringway.folder, 'late.sock') },
      { kind: 'unix', socket: join(this.#ringway.folder, 'late.sock') },
      { kind: 'pcap', file: join(this.#ringway.folder, 'late.pcapng'), mirror: 'all' },
    ];
    this.begin(
      async () => {
        // One that a stop left half way is there again.
        await ask('DELETE').catch(() => {});
        await ask('PUT', this.#random.pick(bodies));
        await ask('PATCH', { protected: true });
      },
      () => this.#random.between(0, 5),
    );
  }
}

/** A replay without end beside what comes to it. */
async function start(random: Random): Promise<RingwayProcess> {
  const folder = mkdtempSync(join(tmpdir(), 'ringway-test-'));
  const replay = join(folder, 'replay.pcap');
  const packet = { seconds: 0, fraction: 0, data: new Uint8Array(HELLO.subarray(4)) };
  writeFileSync(replay, pcapFile(true, 0xa1b2c3d4, [packet]));
  const ringway = await RingwayProcess.start({
    ports: [...NAMES, 'u', 'replay'],
    kinds: { u: 'unix', replay: 'pcap' },
    sockets: { replay },
    portOptions: { replay: ',direction=read,pace=full,repeat=loop' },
    args: random.chance(50) ? ['--cpus', '0,1'] : [],
  });
  onTestFinished(async () => {
    // For books that balance.
    await askControl(ringway.controlSocket, '/v1/ports/replay', { method: 'DELETE' }).catch(() => {});
    expect(await ringway.stop().finally(() => rmSync(folder, { recursive: true }))).toBe(0);
  });
  return ringway;
}

async function connect(ringway: RingwayProcess, random: Random): Promise<EmbeddedGuest[]> {
  const layout = random.pick(['split', 'packed'] as const);
  return Promise.all(
    NAMES.map((name, i) =>
      EmbeddedGuest.connect({
        socketPath: ringway.socket(name),
        mac: `02:00:00:00:00:0${i}`,
        layout,
        waitMs: WAIT_MS,
      }),
    ),
  );
}

/** Whatever goes on with it. */
function begin(goings: Goings, guests: readonly EmbeddedGuest[]): void {
  goings.traffic(guests);
  for (const guest of guests) goings.talk(guest);
  goings.station('u');
  goings.station('u');
  goings.changes();
}

async function expectEnd(ringway: RingwayProcess): Promise<void> {
  const seen = (): string => `it does not end:\n${ringway.log}`;
  expect(await withDeadline(ringway.ended, WAIT_MS, seen), ringway.log).toBe(0);
  expect(ringway.log.split('\n').at(-1)).toContain('"msg":"stopped"');
}

describe('a Ringway that is stopped', () => {
  it(`ends in order whatever goes on, ${TIMES} times`, { timeout: 60_000 * TIMES }, async () => {
    const random = new Random(1);
    const ringway = await start(random);
    for (let time = 0; time < TIMES; time++) {
      const goings = new Goings(ringway, random);
      begin(goings, await connect(ringway, random));
      await sleep(random.between(0, LATEST_MS));
      ringway.endInOrder();
      try {
        await expectEnd(ringway);
      } finally {
        // One that hangs would leave what goes on without an answer.
        ringway.kill();
        await goings.end();
      }
      await ringway.restart();
    }
  });

  it(`ends in order while another process takes over, ${TIMES} times, or has been taken over`, {
    timeout: 60_000 * TIMES,
  }, async ({ annotate }) => {
    const random = new Random(2);
    const ringway = await start(random);
    let taken = 0;
    let tookMs = 0;
    for (let time = 0; time < TIMES; time++) {
      const goings = new Goings(ringway, random);
      const guests = await connect(ringway, random);
      goings.traffic(guests);
      goings.station('u');
      const { pid, ended, log } = ringway;
      let hasEnded = false;
      void ended.then(() => {
        hasEnded = true;
      });
      let isTaken = false;
      try {
        const taking = ringway.takeOver().then(
          () => true,
          () => false,
        );
        await ringway.until(async () => ringway.log.slice(log.length).includes('is being taken over'));
        const begunMs = performance.now();
        // The first one is to tell how long it takes.
        if (time > 0) await sleep((tookMs * random.between(...PERCENT)) / 100);
        if (time > 0 && !hasEnded) process.kill(pid, 'SIGTERM');
        isTaken = await taking;
        if (time === 0) tookMs = performance.now() - begunMs;
        expect(await withDeadline(ended, WAIT_MS, () => ringway.log), ringway.log).toBe(0);
        // All or nothing: whoever was told to go on has guests that noticed nothing.
        if (isTaken)
          for (const { session } of guests)
            expect(await session.request('GET_FEATURES', null)).toBeGreaterThan(0n);
      } finally {
        if (!hasEnded) process.kill(pid, 'SIGKILL');
        await goings.end();
      }
      if (isTaken) taken++;
      // The successor came to nothing.
      else await ringway.restart();
    }
    await annotate(`${taken} of ${TIMES} were taken over`);
  });
});
