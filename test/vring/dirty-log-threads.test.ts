/**
 * Marks in a log that several threads set and a front-end takes away at the same time: it takes the marks, then copies the
 * pages, again and again, and when all are done its copy is the guest's memory. A mark before the write, or one that is
 * left out because it seemed to be there, would leave an old page.
 */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { allocateScratch } from '../../src/memory/scratch.ts';
import { LogFile } from './logged-guest.ts';
import { type Marking, TURN_DONE, TURN_GO } from './marking-thread.ts';
import { sharedArena, sharedArenaView } from './scratch.ts';

const PAGES = 64;
const WRITES = 4;
const PROGRAM = fileURLToPath(new URL('./marking-thread.ts', import.meta.url));

it.each([
  {
    what: 'of one thread, taken meanwhile,',
    threadCount: 1,
    rounds: 4000,
    takesMeanwhile: true,
  },
  { what: 'of two threads in one word', threadCount: 2, rounds: 4000, takesMeanwhile: false },
])('$what leave the front-end with the memory that the guest has', async (row) => {
  const { threadCount, rounds, takesMeanwhile } = row;
  const guest = allocateScratch(sharedArena, { name: 'marked', sizeBytes: PAGES * 4096 });
  const log = new LogFile(sharedArena, sharedArenaView.u8, PAGES / 8);
  const turn = new SharedArrayBuffer(8);
  const turns = new Int32Array(turn);
  const common: Omit<Marking, 'firstPage'> = {
    location: sharedArena.location,
    log: { offset: log.memory.offset, sizeBytes: log.memory.sizeBytes, ownPages: [], signalFd: -1 },
    guestOffset: guest.offset,
    pages: PAGES,
    rounds,
    writes: WRITES,
    stride: threadCount,
    turn,
  };
  const threads = Array.from(
    { length: threadCount },
    (_, firstPage) => new Worker(PROGRAM, { workerData: { ...common, firstPage } satisfies Marking }),
  );
  const ends = threads.map((thread) => once(thread, 'exit'));
  await Promise.all(threads.map((thread) => once(thread, 'online')));
  const words = new Int32Array(sharedArenaView.buffer, log.memory.offset, PAGES / 32);
  const memory = new Int32Array(sharedArenaView.buffer, guest.offset, PAGES * 1024);
  const copy = new Int32Array(PAGES);
  const sync = (): void => {
    for (let word = 0; word < words.length; word++) {
      const marks = Atomics.exchange(words, word, 0);
      for (let bit = 0; bit < 32; bit++) {
        if ((marks & (1 << bit)) === 0) continue;
        const page = word * 32 + bit;
        copy[page] = memory[page * 1024];
      }
    }
  };
  const stale: string[] = [];
  for (let round = 1; round <= rounds; round++) {
    Atomics.store(turns, TURN_GO, round);
    for (;;) {
      const done = Atomics.load(turns, TURN_DONE);
      if (done === round * threadCount) break;
      if (takesMeanwhile) sync();
      else Atomics.wait(turns, TURN_DONE, done);
    }
    sync();
    for (let page = 0; page < PAGES; page++)
      if (copy[page] !== memory[page * 1024]) stale.push(`round ${round}, page ${page}`);
  }
  await Promise.all(ends);
  expect(stale).toEqual([]);
  log.close();
  guest.release();
});
