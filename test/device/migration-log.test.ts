/**
 * The messages of a migration (vhost-user.rst, "Migration"): the log of dirty pages, given, switched on and off and
 * exchanged while rings run; what a hostile front-end makes of them; SEND_RARP; and rings that go on behind another
 * device with the base that the first one answered. What is marked: test/vring/dirty-log.test.ts.
 */
import { fstatSync, openSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DESC_F_AVAIL, DESC_F_USED } from '../../protocol/virtio/packed-ring.ts';
import { ANNOUNCEMENTS_MAX, AnnouncementLimit } from '../../src/device/net/announcements.ts';
import { closeFd, createEventFd } from '../../src/host/descriptor.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import { QueueState, STATE_AVAIL_NEXT, STATE_USED_NEXT } from '../../src/queue/state.ts';
import { STAND, StandingWords, standWord } from '../../src/vring/ring-record.ts';
import { takeMarks } from '../memory/changed-pages.ts';
import { GuestFile, UVA_BASE } from '../memory/guest-file.ts';
import { bit, F, log, none, P, ringAddress, state, table, u64 } from '../vhost-user/scripted-front-end.ts';
import { ControlDriver } from './control-driver.ts';
import {
  arena,
  arenaView,
  FEATURES,
  GUEST_BYTES,
  PROTOCOL_FEATURES,
  ringOffsets,
  ringPlace,
  World,
} from './world.ts';

const LOGGING = FEATURES | bit(F.LOG_ALL);
const PACKED = FEATURES | bit(F.PACKED);
const LOG_BYTES = GUEST_BYTES / 4096 / 8;
const F_LOG = 1;
const PROTOCOL = PROTOCOL_FEATURES | bit(P.LOG_SHMFD, P.RARP);
/** Guest address 0 is the file's beginning. */
const page = (offset: number): number => Math.floor(offset / 4096);

let world: World;

/** Rings 0 and 1 run; nothing is logged. */
async function run(features = FEATURES): Promise<void> {
  world = new World();
  await world.negotiate(features, PROTOCOL);
  await world.shareMemory();
  await world.startRings(0, 1);
  world.dataPath.takeLog();
}

afterEach(() => world.dispose());

/** Gives a log in a file of its own, which is closed here; answers the reply. */
async function giveLog(sizeBytes = LOG_BYTES, offset = 0, fileBytes = 4096): Promise<Uint8Array> {
  const fd = createMemoryFile('log', fileBytes);
  world.front.send('SET_LOG_BASE', log(sizeBytes, offset), [fd]);
  closeFd(fd);
  return (await world.front.reply()).payload;
}

/** What ring 0 is to mark its own pages by. */
function ownPages(): readonly { firstPage: number; lastPage: number }[] | undefined {
  return world.dataPath.attached.get(0)!.log?.ownPages;
}

describe('a log', () => {
  beforeEach(() => run());

  it('is answered with what was sent, is mapped, and is not used before it is asked for', async () => {
    expect(await giveLog()).toEqual(log(LOG_BYTES));
    expect(arena.mappedBytes).toBe(GUEST_BYTES + 4096);
    expect(world.dataPath.takeLog()).toEqual([]);
    expect(world.dataPath.attached.get(0)!.log).toBeNull();
  });

  it('is switched on and off while rings run, which go on', async () => {
    await giveLog();
    world.front.send('SET_FEATURES', u64(LOGGING));
    await world.front.settle();
    expect(world.dataPath.takeLog()).toEqual(['log 0', 'log 1']);
    expect(world.dataPath.attached.get(1)!.log).toMatchObject({ sizeBytes: LOG_BYTES, signalFd: -1 });
    // QEMU says it again for each pair of queues.
    world.front.send('SET_FEATURES', u64(LOGGING));
    await world.front.settle();
    expect(world.dataPath.takeLog()).toEqual([]);
    world.front.send('SET_FEATURES', u64(FEATURES));
    await world.front.settle();
    expect(world.dataPath.takeLog()).toEqual(['log 0', 'log 1']);
    expect(world.dataPath.attached.get(1)!.log).toBeNull();
  });

  it('may come after it was asked for', async () => {
    world.front.send('SET_FEATURES', u64(LOGGING));
    await world.front.settle();
    expect(world.dataPath.attached.get(0)!.log).toBeNull();
    await giveLog();
    expect(world.dataPath.attached.get(0)!.log).not.toBeNull();
  });

  it('has the used ring by the address that the ring is given for it, and only with its flag', async () => {
    await giveLog();
    world.front.send('SET_FEATURES', u64(LOGGING));
    await world.front.settle();
    expect(ownPages()).toEqual([]);
    world.dataPath.takeLog();
    world.front.send('SET_VRING_ADDR', ringAddress(0, ringPlace(0), F_LOG, 0x5ff0n));
    await world.front.settle();
    // A used ring of 256 entries is 2,054 bytes long. The ring runs on.
    expect(world.dataPath.takeLog()).toEqual(['log 0']);
    expect(ownPages()).toEqual([{ firstPage: 5, lastPage: 6 }]);
    world.front.send('SET_VRING_ADDR', ringAddress(0, ringPlace(0), 0, 0x5ff0n));
    await world.front.settle();
    expect(ownPages()).toEqual([]);
  });

  it.each([2n ** 42n, 2n ** 53n, 2n ** 64n - 1n])('does not reach the address %s', async (logGpa) => {
    await giveLog();
    world.front.send('SET_FEATURES', u64(LOGGING));
    world.front.send('SET_VRING_ADDR', ringAddress(0, ringPlace(0), F_LOG, logGpa));
    await world.front.settle();
    expect(ownPages()).toEqual([]);
  });

  it('is exchanged while rings run: the old one is unmapped when nobody marks in it', async () => {
    await giveLog();
    world.front.send('SET_FEATURES', u64(LOGGING));
    await world.front.settle();
    const before = world.dataPath.attached.get(0)!.log!.offset;
    const hold = world.dataPath.hold('setLog');
    const given = giveLog(2 * LOG_BYTES);
    await hold.called;
    expect(arena.mappedBytes).toBe(GUEST_BYTES + 2 * 4096);
    hold.release();
    expect(await given).toEqual(log(2 * LOG_BYTES));
    expect(arena.mappedBytes).toBe(GUEST_BYTES + 4096);
    expect(world.dataPath.attached.get(0)!.log!.offset).not.toBe(before);
  });

  it('leaves one mapping and no descriptor behind, however often it is given', async () => {
    for (let i = 0; i < 300; i++) await giveLog();
    expect(arena.mappedBytes).toBe(GUEST_BYTES + 4096);
  });

  it('is part of the attachment of rings that start later', async () => {
    await giveLog();
    world.front.send('SET_FEATURES', u64(LOGGING));
    await world.startRings(2);
    expect(world.dataPath.attached.get(2)!.log).toMatchObject({ sizeBytes: LOG_BYTES });
  });

  it('that does not reach all of the memory is said, for as long as it is used', async () => {
    await giveLog(LOG_BYTES / 2);
    expect(world.device.logWarning).toBeNull();
    world.front.send('SET_FEATURES', u64(LOGGING));
    await world.front.settle();
    expect(world.device.logWarning).toBe(
      'its log of dirty pages ends at guest address 0x200000, and its memory at 0x400000: what is written beyond is lost when it is migrated',
    );
    await giveLog();
    expect(world.device.logWarning).toBeNull();
  });

  it('is said to be too short when memory is plugged in, until a longer one comes; rings go on', async () => {
    await giveLog();
    world.front.send('SET_FEATURES', u64(LOGGING));
    await world.front.settle();
    const dimm = new GuestFile(8192);
    const gpa = 1n << 32n;
    world.dataPath.takeLog();
    expect(await world.addMemory({ gpa, uva: gpa }, dimm)).toBe(0n);
    expect(world.device.logWarning).toMatch(/^its log of dirty pages ends at guest address 0x400000/);
    const longBytes = Math.ceil((2 ** 32 + 8192) / 4096 / 8);
    await giveLog(longBytes, 0, 2 ** 18);
    expect(world.device.logWarning).toBeNull();
    expect(world.dataPath.takeLog()).toEqual(['memory', 'log 0', 'log 1']);
    expect(world.dataPath.attached.get(0)!.log).toMatchObject({ sizeBytes: longBytes });
    dimm.close();
  });

  it('has a descriptor that is signalled, exchanged like the log', async () => {
    await giveLog();
    world.front.send('SET_FEATURES', u64(LOGGING));
    world.front.send('SET_LOG_FD', none(), [world.front.eventFd()]);
    await world.front.settle();
    const first = world.dataPath.attached.get(0)!.log!.signalFd;
    expect(first).toBeGreaterThanOrEqual(0);
    world.dataPath.takeLog();
    world.front.send('SET_LOG_FD', none(), [world.front.eventFd()]);
    await world.front.settle();
    expect(world.dataPath.takeLog()).toEqual(['log 0', 'log 1']);
    world.dataPath.expectSound();
  });
});

describe('the log of packed rings', () => {
  beforeEach(() => run(PACKED));

  it('has the descriptors and the event suppression, where they lie and where they are said to', async () => {
    const { desc, used } = ringOffsets(0);
    await giveLog();
    world.front.send('SET_FEATURES', u64(PACKED | bit(F.LOG_ALL)));
    world.front.send('SET_VRING_ADDR', ringAddress(0, ringPlace(0), F_LOG, 0x7000n));
    await world.front.settle();
    expect(ownPages()).toEqual([
      { firstPage: page(desc), lastPage: page(desc + 256 * 16 - 1) },
      { firstPage: page(used), lastPage: page(used) },
      { firstPage: 7, lastPage: 7 },
    ]);
  });

  it('has them by guest address, wherever they lie in the arena', async () => {
    await world.dispose();
    world = new World();
    const other = world;
    await other.negotiate(PACKED | bit(F.LOG_ALL), PROTOCOL);
    const half = BigInt(GUEST_BYTES / 2);
    const { desc } = ringOffsets(0);
    // The rings lie in the first half, which comes second in the guest's addresses.
    const parts = [
      other.guest.region({ gpa: 2n * half, sizeBytes: half }),
      other.guest.region({ gpa: 0n, uva: UVA_BASE + half, mmapOffset: half, sizeBytes: half }),
    ];
    other.front.send('SET_MEM_TABLE', table(parts), [other.guest.fd, other.guest.fd]);
    const fd = createMemoryFile('log', 4096);
    expect((await other.front.request('SET_LOG_BASE', log(2 * LOG_BYTES), [fd])).payload).toHaveLength(16);
    closeFd(fd);
    other.sendRing(0, { base: 0x8000_8000 });
    other.front.send('SET_VRING_ADDR', ringAddress(0, ringPlace(0), F_LOG));
    other.front.send('SET_VRING_ENABLE', state(0, 1));
    await other.front.settle();
    const [first] = other.dataPath.attached.get(0)!.log!.ownPages;
    expect(first.firstPage).toBe(page(GUEST_BYTES + desc));
  });
});

describe('a hostile log', () => {
  beforeEach(() => run(LOGGING));

  it.each([
    ['is empty', 0n, 0n, 4096, 'the log is empty'],
    ['is longer than its file', 4097n, 0n, 4096, 'the log needs 4097 bytes; its file has 4096'],
    ['begins behind its file', 1n, 4096n, 4096, 'the log needs 4097 bytes; its file has 4096'],
    ['is too long for any guest', 2n ** 27n + 1n, 0n, 2 ** 28, 'longer than 134217728'],
    ['has a length that overflows', 2n ** 64n - 1n, 0n, 4096, 'longer than 134217728'],
    ['has an offset that overflows', 64n, 2n ** 64n - 64n, 4096, 'is out of range'],
    ['has a sum that overflows', 64n, 2n ** 64n - 1n, 4096, 'is out of range'],
  ])(
    'that %s ends the connection, and nothing is mapped',
    async (_, sizeBytes, offset, fileBytes, reason) => {
      const fd = createMemoryFile('log', fileBytes);
      world.front.send('SET_LOG_BASE', log(sizeBytes, offset), [fd]);
      closeFd(fd);
      expect(await world.ended).toContain(reason);
      expect(arena.mappedBytes).toBe(GUEST_BYTES);
    },
  );

  it('that is an eventfd is no shared memory', async () => {
    world.front.send('SET_LOG_BASE', log(8), [world.front.eventFd()]);
    expect(await world.ended).toBe('SET_LOG_BASE: the descriptor of the log is no shared memory');
  });

  it('that is a file on disk is none either', async () => {
    const fd = openSync(import.meta.filename, 'r');
    world.front.send('SET_LOG_BASE', log(8), [fd]);
    closeFd(fd);
    expect(await world.ended).toMatch(/no shared memory|may never answer/);
  });

  it('that cannot be written to is refused', async () => {
    const fd = createMemoryFile('log', 4096);
    const readOnly = openSync(`/proc/self/fd/${fd}`, 'r');
    world.front.send('SET_LOG_BASE', log(8), [readOnly]);
    closeFd(readOnly);
    closeFd(fd);
    expect(await world.ended).toMatch(/EACCES/);
  });

  it('is refused while the log before is used, which is let go of with the connection', async () => {
    await giveLog();
    const fd = createMemoryFile('log', 4096);
    world.front.send('SET_LOG_BASE', log(0), [fd]);
    closeFd(fd);
    expect(await world.ended).toContain('the log is empty');
  });

  it('is signalled by nothing that may wait', async () => {
    expect(
      await world.front.ack(
        'SET_LOG_FD',
        none(),
        [createMemoryFile('no', 1)].map((fd) => world.front.own(fd)),
      ),
    ).toBe(1n);
    const fd = createEventFd();
    expect(await world.front.ack('SET_LOG_FD', none(), [fd])).toBe(0n);
    closeFd(fd);
  });
});

describe('the answers of the control queue', () => {
  it('are marked, and its used ring', async () => {
    world = new World({ queuePairsMax: 2 });
    const features = LOGGING | bit(F.CTRL_VQ, F.MQ);
    await world.negotiate(features, PROTOCOL);
    await world.shareMemory();
    await giveLog();
    const control = new ControlDriver(world, 4);
    await control.start();
    world.front.send('SET_VRING_ADDR', ringAddress(4, ringPlace(4), F_LOG, BigInt(ringOffsets(4).used)));
    await world.front.settle();
    // The guest's memory was mapped first.
    const bytes = arenaView.u8.subarray(2 * 2 ** 21, 2 * 2 ** 21 + LOG_BYTES);
    takeMarks(bytes);
    expect(await control.command([0, 0], [1])).toBe(0);
    const marks = takeMarks(bytes);
    expect([...marks].sort((a, b) => a - b)).toEqual([page(ringOffsets(4).used), page(0x20_0000)]);
    // By another log, and by none.
    await giveLog();
    world.front.send('SET_FEATURES', u64(features & ~bit(F.LOG_ALL)));
    await world.front.settle();
    expect(await control.command([0, 0], [1])).toBe(0);
    expect(takeMarks(bytes).size).toBe(0);
  });
});

describe('SEND_RARP', () => {
  beforeEach(() => run());

  it('has the guest announced', async () => {
    expect(await world.front.ack('SEND_RARP', u64(0x5634_1200_5452n))).toBe(0n);
    expect(world.dataPath.takeLog()).toEqual(['announce 525400123456']);
  });

  it.each([0n, 0x0001n, 0xffff_ffff_ffffn])('refuses the address %s, which no guest has', async (mac) => {
    expect(await world.front.ack('SEND_RARP', u64(mac))).toBe(1n);
    expect(world.dataPath.takeLog()).toEqual([]);
  });

  it('is done without a frame when it comes too often', async () => {
    for (let i = 0; i < ANNOUNCEMENTS_MAX + 1; i++) world.front.send('SEND_RARP', u64(0x5634_1200_5452n));
    expect(await world.front.settle()).toEqual([]);
    // One more where the clock has gone on that far meanwhile.
    expect(world.dataPath.takeLog().length).toBeGreaterThanOrEqual(ANNOUNCEMENTS_MAX);
    for (let i = 0; i < 1000; i++) await world.front.ack('SEND_RARP', u64(0x5634_1200_5452n));
    expect(world.dataPath.takeLog().length).toBeLessThan(1000);
  });

  it('is bounded to so many at once, and so many a second', () => {
    const limit = new AnnouncementLimit(5000);
    const takes = (nowMs: number): number => {
      let count = 0;
      while (limit.take(nowMs)) count++;
      return count;
    };
    expect(takes(5000)).toBe(ANNOUNCEMENTS_MAX);
    expect(takes(5500)).toBe(ANNOUNCEMENTS_MAX / 2);
    expect(takes(105_500)).toBe(ANNOUNCEMENTS_MAX);
  });
});

describe.each([
  [
    'split',
    FEATURES,
    [0x1234, 0x1234],
    0x1234,
    (used: number): void => world.guest.write16(ringOffsets(0).used + 2, used),
  ],
  ['packed', PACKED, [0x8021, 0x8021], 0x8021_8021, (): void => {}],
] as const)('a %s ring', (_, features, words, base, putUsed) => {
  it('goes on behind another device where the first one stopped', async () => {
    await run(features);
    const { words: here } = new QueueState(world.states, 0);
    [here[STATE_AVAIL_NEXT], here[STATE_USED_NEXT]] = words;
    putUsed(words[1]);
    const answered = await world.front.request('GET_VRING_BASE', state(0, 0));
    expect(answered.payload).toEqual(state(0, base));
    const memory = world.guest.read(0, GUEST_BYTES);
    await world.dispose();
    const other = new World();
    world = other;
    other.guest.write(0, memory);
    await other.negotiate(features, PROTOCOL);
    await other.shareMemory();
    other.sendRing(0, { base });
    other.front.send('SET_VRING_ENABLE', state(0, 1));
    expect(await other.front.settle()).toEqual([]);
    expect(other.ring(0)).toMatchObject({ user: 'workers', reason: null });
    const { words: there } = new QueueState(other.states, 0);
    expect([there[STATE_AVAIL_NEXT], there[STATE_USED_NEXT]]).toEqual(words);
    expect(other.remarks).toEqual([]);
  });
});

describe('of a packed ring whose process was killed', () => {
  /** Between marking a descriptor used and marking its page in the log. */
  function leaveInterrupted(): void {
    const standing = new StandingWords(arenaView, undefined);
    standing.words[STAND] = standWord(0x8001, 1, 0);
    standing.ids[0] = 3;
    standing.slots[0] = 1;
    const { desc } = ringOffsets(1);
    world.guest.write16(desc + 14, DESC_F_AVAIL | DESC_F_USED);
    world.guest.write16(desc + 16 + 14, DESC_F_AVAIL);
    const { dev, ino } = fstatSync(world.guest.fd);
    const before = {
      layout: 'packed',
      size: 256,
      place: `${dev}:${ino}:${desc}`,
      base: 0x8000_8000,
    } as const;
    const interrupted = { size: 256, isFromGuest: true, inOrder: false, standing };
    world.lastRuns.set(1, { ...before, indices: null, interrupted });
  }

  function marks(): Set<number> {
    const { offset, sizeBytes } = world.dataPath.attached.get(1)!.log!;
    return takeMarks(arenaView.u8.subarray(offset, offset + sizeBytes));
  }

  async function comeAgain(steps: readonly (() => unknown)[]): Promise<void> {
    world = new World();
    await world.negotiate(PACKED | bit(F.LOG_ALL), PROTOCOL);
    await world.shareMemory();
    leaveInterrupted();
    for (const step of steps) await step();
    expect(await world.front.settle()).toEqual([]);
    expect(world.ring(1)).toMatchObject({ user: 'workers', reason: null });
  }

  function startRing(): void {
    world.sendRing(1, { base: 0x8000_8000 });
    world.front.send('SET_VRING_ENABLE', state(1, 1));
  }

  it.each([
    ['before the ring', [giveLog, startRing]],
    // As QEMU does.
    ['behind it', [startRing, giveLog]],
  ] as const)('all pages are marked, once, when the log comes %s', async (_, steps) => {
    await comeAgain(steps);
    const { desc } = ringOffsets(1);
    expect(world.guest.read16(desc + 16 + 14)).toBe(DESC_F_AVAIL | DESC_F_USED);
    expect(marks()).toEqual(new Set(Array.from({ length: GUEST_BYTES / 4096 }, (_, i) => i)));
    await giveLog();
    expect(marks()).toEqual(new Set());
  });
});
