/**
 * Memory by message: tables and single regions, checked whole before anything changes, and nothing taken
 * away before the workers let go.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, copyFileSync, fstatSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { closeFds, createEventFd } from '../../src/host/descriptor.ts';
import { holdUnmappings } from '../host/held-calls.ts';
import { GuestFile, UVA_BASE } from '../memory/guest-file.ts';
import { bit, F, region, state, table, u64 } from '../vhost-user/scripted-front-end.ts';
import { arena, arenaView, FEATURES, GUEST_BYTES, ringOffsets, ringPlace, World } from './world.ts';

let world: World;
afterEach(() => world.dispose());

async function turns(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
}

/** `count` regions of a page each, side by side. */
function pages(count: number, from = 0) {
  return Array.from({ length: count }, (_, i) => {
    const at = BigInt((from + i) * 4096);
    return world.guest.region({ gpa: at, uva: UVA_BASE + at, sizeBytes: 4096n, mmapOffset: at });
  });
}

describe('SET_MEM_TABLE', () => {
  it.each([0, 1, 2, 8, 32])('maps %i regions', async (count) => {
    world = new World();
    await world.negotiate();
    const { front, guest } = world;
    const fds = new Array<number>(count).fill(guest.fd);
    expect(await front.ack('SET_MEM_TABLE', table(pages(count)), fds)).toBe(0n);
    expect(world.device.memoryBytes).toBe(count * 4096);
    expect(arena.mappedBytes).toBe(count * 4096);
  });

  it('takes room for two regions although one is counted (User-Mode Linux)', async () => {
    world = new World();
    await world.negotiate();
    expect(await world.front.ack('SET_MEM_TABLE', table(pages(1), 2), [world.guest.fd])).toBe(0n);
    expect(world.device.memoryBytes).toBe(4096);
  });

  it('refuses more regions than a table can hold', async () => {
    world = new World();
    await world.negotiate();
    const fds = new Array<number>(32).fill(world.guest.fd);
    expect(await world.front.ack('SET_MEM_TABLE', table(pages(33)), fds)).toBe(1n);
    expect(world.refused[0]).toMatch(/memory table of 33 regions; at most 32 fit/);
  });

  it('changes nothing when one of its regions is bad', async () => {
    world = new World();
    await world.run();
    const { front, guest, dataPath } = world;
    const small = new GuestFile(4096);
    const event = createEventFd();
    const good = guest.region();
    const bad: readonly [ReturnType<GuestFile['region']>, number, RegExp][] = [
      [guest.region({ gpa: 0x1000n, uva: 0x1000n }), guest.fd, /overlaps/],
      [
        small.region({ gpa: 1n << 40n, uva: 0x1000n, sizeBytes: 8192n }),
        small.fd,
        /needs 8192 bytes; its file has 4096/,
      ],
      [guest.region({ gpa: 1n << 40n, uva: 0x1000n, sizeBytes: 0n }), guest.fd, /is empty/],
      [guest.region({ gpa: 2n ** 64n - 1n, uva: 0x1000n }), guest.fd, /out of range/],
      [guest.region({ gpa: 1n << 40n, uva: 0x1000n }), event, /no memory file/],
    ];
    for (const [second, fd, why] of bad) {
      expect(await front.ack('SET_MEM_TABLE', table([good, second]), [guest.fd, fd])).toBe(1n);
      expect(world.refused.at(-1)).toMatch(why);
    }
    expect(dataPath.takeLog()).toEqual([]);
    expect([...dataPath.attached.keys()]).toEqual([0, 1]);
    expect(arena.mappedBytes).toBe(GUEST_BYTES);
    small.close();
    closeFds([event]);
  });

  it('is acknowledged only after the workers let go of the old table', async () => {
    world = new World();
    await world.run();
    const { front, dataPath, guest } = world;
    const other = new GuestFile(GUEST_BYTES);
    guest.write(0, [0xa5]);
    other.write(0, [0x5a]);
    const before = dataPath.attached.get(0)!.map[0].arenaOffset;
    const hold = dataPath.hold('detach');
    front.send('SET_MEM_TABLE', table([other.region()]), [other.fd], 8);
    await hold.called;
    await turns();
    expect(front.repliesNow()).toEqual([]);
    expect(arenaView.u8[before]).toBe(0xa5);
    expect(dataPath.attached.size).toBe(2);
    hold.release();
    expect((await front.reply()).u64).toBe(0n);
    expect(dataPath.takeLog()).toEqual(['detach 0', 'detach 1', 'attach 0', 'attach 1']);
    expect(arenaView.u8[before]).toBe(0);
    const after = dataPath.attached.get(0)!.map[0].arenaOffset;
    expect(arenaView.u8[after]).toBe(0x5a);
    expect(arena.mappedBytes).toBe(GUEST_BYTES);
    other.close();
  });

  it('leaves everything where it lies when it comes again as it was', async () => {
    world = new World();
    await world.run();
    const { arenaOffset } = world.dataPath.attached.get(0)!.map[0];
    await world.shareMemory();
    expect(world.dataPath.takeLog()).toEqual([]);
    expect(world.dataPath.attached.get(0)!.map[0].arenaOffset).toBe(arenaOffset);
    expect(arena.mappedBytes).toBe(GUEST_BYTES);
  });

  it('detaches no ring that lies where it lay when regions come and go (a memory device without slots)', async () => {
    world = new World();
    await world.run();
    const { front, dataPath, guest } = world;
    const { arenaOffset } = dataPath.attached.get(0)!.map[0];
    const more = new GuestFile(8192);
    const device = more.region({ gpa: 1n << 32n, uva: 1n << 32n });
    expect(await front.ack('SET_MEM_TABLE', table([guest.region(), device]), [guest.fd, more.fd])).toBe(0n);
    expect(dataPath.takeLog()).toEqual(['memory']);
    expect(dataPath.attached.get(1)!.map.map(({ start, end }) => [start, end])).toEqual([
      [0, GUEST_BYTES],
      [2 ** 32, 2 ** 32 + 8192],
    ]);
    expect(await front.ack('SET_MEM_TABLE', table([guest.region()]), [guest.fd])).toBe(0n);
    expect(dataPath.takeLog()).toEqual(['memory']);
    expect(dataPath.attached.get(0)!.map).toEqual([{ start: 0, end: GUEST_BYTES, arenaOffset }]);
    expect(arena.mappedBytes).toBe(GUEST_BYTES);
    more.close();
  });

  it('keeps what was there when a later region of it is bad', async () => {
    world = new World();
    await world.run();
    const { front, guest } = world;
    guest.write(0, [0xa5]);
    const bad = guest.region({ gpa: 1n << 32n, uva: 1n << 32n, mmapOffset: 4096n });
    expect(await front.ack('SET_MEM_TABLE', table([guest.region(), bad]), [guest.fd, guest.fd])).toBe(1n);
    expect(arenaView.u8[world.dataPath.attached.get(0)!.map[0].arenaOffset]).toBe(0xa5);
    expect(world.dataPath.takeLog()).toEqual([]);
  });

  it('leaves nothing mapped when the connection ends while it waits', async () => {
    world = new World();
    await world.run();
    const { front, dataPath, guest } = world;
    const hold = dataPath.hold('detach');
    for (const sizeBytes of [GUEST_BYTES / 2, GUEST_BYTES / 4]) {
      front.send('SET_MEM_TABLE', table([guest.region({ sizeBytes: BigInt(sizeBytes) })]), [guest.fd]);
    }
    await hold.called;
    front.close();
    const ending = world.session.end('the port was stopped');
    hold.release();
    await ending;
  });

  it('places rings anew: those that lie in it run, the others say why', async () => {
    world = new World();
    await world.run();
    const { front, dataPath, guest } = world;
    const { desc } = ringOffsets(1);
    // Ends where ring 1 begins.
    front.send('SET_MEM_TABLE', table([guest.region({ sizeBytes: BigInt(desc) })]), [guest.fd]);
    expect(await front.settle()).toEqual([]);
    expect([...dataPath.attached.keys()]).toEqual([0]);
    expect(world.ring(1).reason).toBe('its descriptor table (4096 bytes) does not lie in the shared memory');
    // The same rings elsewhere in the file.
    front.send('SET_MEM_TABLE', table([guest.region({ uva: UVA_BASE + 0x10_0000n })]), [guest.fd]);
    expect(await front.settle()).toEqual([]);
    const { arenaOffset } = dataPath.attached.get(1)!.map[0];
    expect(dataPath.attached.get(1)!.descOffset - arenaOffset).toBe(
      Number(ringPlace(1).descUva - UVA_BASE) - 0x10_0000,
    );
  });
});

describe('ADD_MEM_REG and REM_MEM_REG', () => {
  it('share memory region by region', async () => {
    world = new World();
    await world.negotiate();
    const [first, second] = pages(2) as [ReturnType<GuestFile['region']>, ReturnType<GuestFile['region']>];
    expect(await world.addMemory(first)).toBe(0n);
    expect(await world.addMemory(second)).toBe(0n);
    expect(world.device.memoryBytes).toBe(8192);
    expect(await world.front.ack('REM_MEM_REG', region(first))).toBe(0n);
    // The specification allows a descriptor here, to be closed unseen.
    expect(await world.front.ack('REM_MEM_REG', region(second), [world.guest.fd])).toBe(0n);
    expect([world.device.memoryBytes, arena.mappedBytes]).toEqual([0, 0]);
  });

  it('start a ring once all of it is shared', async () => {
    world = new World();
    await world.negotiate();
    const { desc, avail } = ringOffsets(0);
    const parts = [
      { gpa: 0n, uva: UVA_BASE, sizeBytes: BigInt(avail), mmapOffset: 0n },
      {
        gpa: BigInt(avail),
        uva: UVA_BASE + BigInt(avail),
        sizeBytes: BigInt(GUEST_BYTES - avail),
        mmapOffset: BigInt(avail),
      },
    ] as const;
    expect(await world.addMemory(parts[0])).toBe(0n);
    world.sendRing(0);
    world.front.send('SET_VRING_ENABLE', state(0, 1));
    await world.front.settle();
    expect(world.ring(0).reason).toMatch(/avail ring .* does not lie in the shared memory/);
    expect(await world.addMemory(parts[1])).toBe(0n);
    expect(world.ring(0).reason).toBeNull();
    expect(world.dataPath.attached.get(0)).toMatchObject({ queueIndex: 0 });
    expect(world.dataPath.attached.get(0)!.descOffset % 4096).toBe(desc % 4096);
    // Running rings get the longer map, or the shorter one.
    expect(await world.front.ack('REM_MEM_REG', region(parts[1]))).toBe(0n);
    expect(world.dataPath.attached.size).toBe(0);
    expect(world.ring(0).reason).toMatch(/avail ring/);
  });

  it('disturb no ring while ten regions are added and removed; those who use them know before the answer', async () => {
    world = new World();
    await world.run(FEATURES | bit(F.CTRL_VQ));
    await world.startRings(2);
    expect(world.ring(2).user).toBe('control');
    const { front, dataPath } = world;
    dataPath.takeLog();
    const opened = vi.spyOn(world.net, 'openOwnQueue');
    const dimm = new GuestFile(8192);
    const regions = Array.from({ length: 10 }, (_, i) => {
      const at = (1n << 32n) + BigInt(i * 8192);
      return dimm.region({ gpa: at, uva: at });
    });
    for (const [i, each] of regions.entries()) {
      const hold = dataPath.hold('setMemory');
      front.send('ADD_MEM_REG', region(each), [dimm.fd], 8);
      await hold.called;
      await turns();
      expect(front.repliesNow()).toEqual([]);
      hold.release();
      expect((await front.reply()).u64).toBe(0n);
      expect(dataPath.takeLog()).toEqual(['memory']);
      expect(dataPath.attached.get(0)!.map.at(-1)!.end).toBe(2 ** 32 + (i + 1) * 8192);
    }
    expect(opened).not.toHaveBeenCalled();
    for (const each of regions.reverse()) {
      const before = arena.mappedBytes;
      const hold = dataPath.hold('setMemory');
      front.send('REM_MEM_REG', region(each), [], 8);
      await hold.called;
      await turns();
      expect([front.repliesNow(), arena.mappedBytes]).toEqual([[], before]);
      hold.release();
      expect((await front.reply()).u64).toBe(0n);
      expect(arena.mappedBytes).toBe(before - 8192);
      expect(dataPath.takeLog()).toEqual(['memory']);
    }
    dimm.close();
  });

  it('detach only the rings that lie in what is removed', async () => {
    world = new World();
    await world.negotiate();
    const { front, guest, dataPath } = world;
    const at = BigInt(ringOffsets(1).desc);
    const first = guest.region({ sizeBytes: at });
    const second = guest.region({ gpa: at, uva: UVA_BASE + at, mmapOffset: at, sizeBytes: 0x4000n });
    for (const each of [first, second]) expect(await world.addMemory(each)).toBe(0n);
    await world.startRings(0, 1);
    dataPath.takeLog();
    expect(await front.ack('REM_MEM_REG', region(second))).toBe(0n);
    expect(dataPath.takeLog()).toEqual(['detach 1', 'memory']);
    expect([...dataPath.attached.keys()]).toEqual([0]);
    expect(world.ring(1).reason).toBe('its descriptor table (4096 bytes) does not lie in the shared memory');
    expect(await world.addMemory(second)).toBe(0n);
    expect(dataPath.takeLog()).toEqual(['memory', 'attach 1']);
    expect(world.ring(1).reason).toBeNull();
  });

  it('answer a removal only after the workers let go', async () => {
    world = new World();
    await world.run();
    const { front, dataPath, guest } = world;
    guest.write(0, [0xa5]);
    const { arenaOffset } = dataPath.attached.get(0)!.map[0];
    const hold = dataPath.hold('detach');
    front.send('REM_MEM_REG', region(guest.region()), [], 8);
    await hold.called;
    await turns();
    expect([front.repliesNow(), arenaView.u8[arenaOffset]]).toEqual([[], 0xa5]);
    hold.release();
    expect((await front.reply()).u64).toBe(0n);
    expect([arenaView.u8[arenaOffset], arena.mappedBytes, dataPath.attached.size]).toEqual([0, 0, 0]);
  });

  it('refuse to remove what does not match, and disturb nothing', async () => {
    world = new World();
    await world.run();
    const { front, guest } = world;
    for (const but of [{ gpa: 1n }, { uva: 1n }, { sizeBytes: 4096n }]) {
      expect(await front.ack('REM_MEM_REG', region(guest.region(but)))).toBe(1n);
    }
    expect(world.dataPath.takeLog()).toEqual([]);
  });

  it('refuse to add what overlaps, is empty or too large for its file, and disturb nothing', async () => {
    world = new World();
    await world.run();
    for (const but of [
      { gpa: 0x1000n },
      { sizeBytes: 0n },
      { mmapOffset: 4096n },
      { sizeBytes: 2n ** 64n - 1n },
    ]) {
      expect(await world.addMemory(but)).toBe(1n);
    }
    expect(world.dataPath.takeLog()).toEqual([]);
    expect(arena.mappedBytes).toBe(GUEST_BYTES);
  });

  it('take 509 regions and no more', async () => {
    world = new World();
    await world.negotiate();
    const { front, guest } = world;
    expect((await front.request('GET_MAX_MEM_SLOTS')).u64).toBe(509n);
    const all = pages(510);
    for (const each of all.slice(0, 509)) {
      if ((await front.ack('ADD_MEM_REG', region(each), [guest.fd])) !== 0n) expect.fail('refused');
    }
    expect(await front.ack('ADD_MEM_REG', region(all[509]), [guest.fd])).toBe(1n);
    expect(world.refused.at(-1)).toBe('ADD_MEM_REG: all 509 memory slots are in use');
    expect(world.device.memoryBytes).toBe(509 * 4096);
  });

  it('do not detach twice for a region that is there already (QEMU before 8.1)', async () => {
    world = new World();
    await world.run();
    expect(await world.addMemory()).toBe(0n);
    expect(world.dataPath.takeLog()).toEqual([]);
  });

  it('keep the workers on a region that was added twice and removed once', async () => {
    world = new World();
    await world.run();
    expect(await world.addMemory()).toBe(0n);
    expect(await world.front.ack('REM_MEM_REG', region(world.guest.region()))).toBe(0n);
    expect([...world.dataPath.attached.keys()]).toEqual([0, 1]);
    expect(await world.front.ack('REM_MEM_REG', region(world.guest.region()))).toBe(0n);
    expect(world.dataPath.attached.size).toBe(0);
  });
});

describe('disconnecting', () => {
  it('unmaps all memory after the workers let go, and a new connection begins from nothing', async () => {
    world = new World();
    await world.run();
    const { arenaOffset } = world.dataPath.attached.get(0)!.map[0];
    world.guest.write(0, [0xa5]);
    const hold = world.dataPath.hold('detach');
    world.front.close();
    await world.ended;
    const releasing = world.device.release();
    await hold.called;
    await turns();
    expect(arenaView.u8[arenaOffset]).toBe(0xa5);
    hold.release();
    await releasing;
    expect([arenaView.u8[arenaOffset], arena.mappedBytes]).toEqual([0, 0]);
  });
});

describe('memory that is not really shared', () => {
  it('is told of, with the fix (QEMU with share=off)', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ringway-private-'));
    const library = join(folder, 'library.so');
    // A process maps its libraries copy-on-write, as QEMU maps its guest's memory with share=off.
    const libm = /(\S+libm\.so\S*)$/m.exec(readFileSync('/proc/self/maps', 'utf8'))![1];
    copyFileSync(libm, library);
    const child = spawn('cat', { env: { LD_PRELOAD: library }, stdio: ['pipe', 'pipe', 'ignore'] });
    try {
      child.stdin.write('x');
      await once(child.stdout, 'data');
      world = new World({}, child.pid!);
      await world.negotiate();
      const fd = openSync(library, 'r+');
      const sizeBytes = BigInt(fstatSync(fd).size);
      const shared = { gpa: 0n, uva: UVA_BASE, sizeBytes, mmapOffset: 0n };
      expect(await world.front.ack('ADD_MEM_REG', region(shared), [fd])).toBe(0n);
      closeSync(fd);
      await world.device.memoryLooked();
      expect(world.changes).toBe(2);
      expect(world.device.memoryWarning).toMatch(/private copy .* share=on/);
      expect(await world.front.ack('REM_MEM_REG', region(shared))).toBe(0n);
      expect(world.device.memoryWarning).toBeNull();
    } finally {
      child.kill();
      await once(child, 'exit');
      rmSync(folder, { recursive: true });
    }
  });

  it('is not suspected when the front-end does not map it, or is not known', async () => {
    world = new World({}, process.pid);
    await world.negotiate();
    expect(await world.addMemory()).toBe(0n);
    await world.device.memoryLooked();
    expect(world.device.memoryWarning).toBeNull();
    world.front.send('SET_VRING_BASE', state(0, 0));
    world.front.send('SET_VRING_CALL', u64(0x100));
    expect(await world.front.settle()).toEqual([]);
  });
});

describe('a descriptor whose file answers with errors', () => {
  it.each([
    ['SET_MEM_TABLE', () => table(pages(1))],
    ['ADD_MEM_REG', () => region(world.guest.region())],
    ['SET_VRING_KICK', () => u64(0)],
    ['SET_VRING_CALL', () => u64(0)],
    ['SET_VRING_ERR', () => u64(0)],
    ['SET_OWNER', () => new Uint8Array(0)],
  ] as const)('is refused with %s', async (request, payload) => {
    world = new World();
    await world.negotiate();
    const child = spawn('sleep', ['1000'], { stdio: 'ignore' });
    const fd = openSync(`/proc/${child.pid}/fd`, 'r');
    child.kill();
    await once(child, 'exit');
    // ESRCH or ENOENT.
    expect(() => fstatSync(fd)).toThrow();
    expect(await world.front.ack(request, payload(), [fd])).toBe(1n);
    expect(world.refused).toHaveLength(1);
    closeSync(fd);
  });
});

describe('memory for which there is room only when that of others is unmapped', () => {
  /** More than half of the arena. */
  const LARGE_BYTES = arena.location.sizeBytes / 2 + 2 ** 30;
  let large: GuestFile;
  let held: ReturnType<typeof holdUnmappings>;

  /** Another guest that has just left; that of the test before is gone for good. */
  async function leave(): Promise<void> {
    await vi.waitUntil(() => arena.nextDeparture() === null);
    large = new GuestFile(LARGE_BYTES);
    held = holdUnmappings();
    const placement = { fd: large.fd, fileOffset: 0, sizeBytes: LARGE_BYTES, pageBytes: 4096 };
    arena.unmap(arena.map({ ...placement, preferredOffset: null, mayBeLost: true }));
    expect(held.count).toBe(1);
  }

  /** The message has come, and waits for room. */
  const untilItWaits = (): Promise<unknown> => vi.waitUntil(() => world.device.memoryWarning !== null);

  afterEach(async () => {
    held.release();
    large.close();
    await vi.waitUntil(() => arena.nextDeparture() === null);
  });

  it.each(['ADD_MEM_REG', 'SET_MEM_TABLE'] as const)('is waited for by %s', async (request) => {
    world = new World();
    await world.negotiate();
    await leave();
    const body = request === 'ADD_MEM_REG' ? region(large.region()) : table([large.region()]);
    const acknowledged = world.front.ack(request, body, [large.fd]);
    await untilItWaits();
    expect([world.refused, world.device.memoryBytes, world.front.repliesNow()]).toEqual([[], 0, []]);
    expect([world.device.memoryWarning, world.changes]).toEqual([
      expect.stringMatching(
        /^waits for the memory of guests that have gone to be unmapped: no \d+ bytes left in the arena of \d+ bytes: raise the arena size$/,
      ),
      1,
    ]);
    held.release();
    expect(await acknowledged).toBe(0n);
    expect(world.device.memoryWarning).toBeNull();
    expect([world.refused, world.device.memoryBytes]).toEqual([[], LARGE_BYTES]);
  });

  it('is refused when there is not enough then, either', async () => {
    world = new World();
    await world.negotiate();
    await leave();
    const larger = new GuestFile(2 * LARGE_BYTES);
    const acknowledged = world.front.ack('ADD_MEM_REG', region(larger.region()), [larger.fd]);
    await untilItWaits();
    expect(world.refused).toEqual([]);
    held.release();
    expect(await acknowledged).toBe(1n);
    expect(world.refused).toEqual([expect.stringMatching(/no \d+ bytes left in the arena/)]);
    larger.close();
  });

  it('is not waited for any more when the connection is ended', async () => {
    world = new World();
    await world.negotiate();
    await leave();
    world.front.send('SET_MEM_TABLE', table([large.region()]), [large.fd]);
    await untilItWaits();
    await world.session.end('the port was stopped');
    expect([world.refused, world.endReason, held.count]).toEqual([[], 'the port was stopped', 1]);
  });
});
