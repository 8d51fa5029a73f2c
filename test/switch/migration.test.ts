/**
 * A guest that is migrated while frames flow to it, by a front-end that does what QEMU does: it takes marks out of the log
 * and copies the pages, and exchanges the log and switches it on and off meanwhile. A real switch with two workers. What
 * the copy has in the end must be what the guest has, in all pages that only the device writes to.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { maskOf } from '../../protocol/bits.ts';
import { PROTOCOL_FEATURE } from '../../protocol/vhost-user/features.ts';
import { VRING_FLAG_LOG } from '../../protocol/vhost-user/messages.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import { EmbeddedGuest, GUEST_PROTOCOL_FEATURES } from '../../src/frontend/index.ts';
import { closeFd } from '../../src/host/descriptor.ts';
import { createMemoryFile, mapFile, mapZeroPagesAt, viewMemory } from '../../src/host/mapping.ts';
import { resolveConfig } from '../../switch/config/resolve.ts';
import { Switch } from '../../switch/switch.ts';
import { Random, seeds } from '../vring/random.ts';
import { LAYOUT_KINDS } from '../vring/ring-worlds.ts';

const PAGE_BYTES = 4096;
const STEPS = 150;
const LOG_ALL = maskOf(VIRTIO_FEATURE.LOG_ALL);
const PROTOCOL_FEATURES = GUEST_PROTOCOL_FEATURES | maskOf(PROTOCOL_FEATURE.LOG_SHMFD, PROTOCOL_FEATURE.RARP);

let folder: string;
let running: Switch;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-migration-'));
  const ports = Object.fromEntries(['a', 'b'].map((name) => [name, { socket: join(folder, name) }]));
  const config = resolveConfig([
    {
      values: { ports, arena: '16GiB', cpus: '0,1' },
      subject: (path) => path.join('.'),
      keyName: (key) => key,
    },
  ]);
  running = await Switch.start({ ...config, controlSocket: null }, pino({ level: 'silent' }));
});
afterEach(async () => {
  await running.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** The front-end's side of migrating `guest`. */
class Migration {
  readonly #guest: EmbeddedGuest;
  readonly #copy: Buffer;
  readonly #logBytes: number;
  readonly #gpa: number;
  #log: { address: number; bytes: number; words: Int32Array } | null = null;
  syncs = 0;

  constructor(guest: EmbeddedGuest) {
    this.#guest = guest;
    this.#gpa = Number(guest.memory.regions[0].gpa);
    this.#copy = Buffer.from(guest.memory.u8);
    this.#logBytes = Math.ceil((this.#gpa + guest.memory.sizeBytes) / PAGE_BYTES / 8);
  }

  /** As vhost_dev_log_resize: the new log is given, then the old one is looked at for the last time. */
  async giveLog(): Promise<void> {
    const bytes = Math.ceil(this.#logBytes / PAGE_BYTES) * PAGE_BYTES;
    const fd = createMemoryFile('log', bytes);
    const address = mapFile(bytes, fd, 'mapping a log');
    await this.#guest.session.request(
      'SET_LOG_BASE',
      { sizeBytes: BigInt(bytes), offset: 0n },
      { fds: [fd] },
    );
    closeFd(fd);
    this.sync();
    if (this.#log !== null) mapZeroPagesAt(this.#log.address, this.#log.bytes);
    this.#log = { address, bytes, words: new Int32Array(viewMemory(address, bytes)) };
  }

  /** As vhost_dev_set_log; all of the memory counts as written when it begins. */
  async setLogging(isOn: boolean): Promise<void> {
    const { session, features, memory, pairs } = this.#guest;
    await session.request('SET_FEATURES', isOn ? features | LOG_ALL : features);
    const rings = pairs.flatMap((pair) => [pair.toGuest.ring, pair.fromGuest.ring]);
    for (const [index, { layout }] of rings.entries()) {
      await session.request('SET_VRING_ADDR', {
        index,
        flags: isOn ? VRING_FLAG_LOG : 0,
        descUva: memory.uvaOf(layout.descOffset),
        usedUva: memory.uvaOf(layout.deviceOffset),
        availUva: memory.uvaOf(layout.driverOffset),
        logGpa: BigInt(memory.gpaOf(layout.deviceOffset)),
      });
    }
    if (isOn) this.#copy.set(memory.u8);
  }

  sync(): void {
    if (this.#log === null) return;
    const { words } = this.#log;
    const { u8 } = this.#guest.memory;
    for (let word = Math.floor(this.#gpa / PAGE_BYTES / 32); word < words.length; word++) {
      const marks = Atomics.exchange(words, word, 0);
      if (marks === 0) continue;
      this.syncs++;
      for (let bit = 0; bit < 32; bit++) {
        const at = (word * 32 + bit) * PAGE_BYTES - this.#gpa;
        if ((marks & (1 << bit)) !== 0) this.#copy.set(u8.subarray(at, at + PAGE_BYTES), at);
      }
    }
  }

  /** Offsets of bytes of the receive buffers that the copy has otherwise. */
  stale(): number[] {
    const { memory, pairs } = this.#guest;
    const stale: number[] = [];
    for (const { toGuest } of pairs) {
      for (const offset of toGuest.ring.bufferOffsets) {
        const end = offset + toGuest.ring.bufferBytes;
        if (Buffer.compare(memory.u8.subarray(offset, end), this.#copy.subarray(offset, end)) !== 0)
          stale.push(offset);
      }
    }
    return stale;
  }
}

describe.each(LAYOUT_KINDS)('a guest with %s rings', (layout) => {
  it.each(seeds(3))('is whole on the other side, seed %i', async (seed) => {
    const random = new Random(seed);
    const connect = (name: string): Promise<EmbeddedGuest> =>
      EmbeddedGuest.connect({
        socketPath: join(folder, name),
        mac: `52:54:00:00:00:0${name}`,
        layout,
        protocolFeatures: PROTOCOL_FEATURES,
        waitMs: 10_000,
      });
    const [a, b] = [await connect('a'), await connect('b')];
    const migration = new Migration(b);
    b.send(frameTo(random, [255, 255, 255, 255, 255, 255], b.mac, 60));
    await a.received();
    await migration.giveLog();
    await migration.setLogging(true);
    let received = 0;
    // The workers may not have had much of the machine by then.
    const isMuch = (): boolean => received > 100 && migration.syncs > 10;
    for (let step = 0; step < STEPS || (!isMuch() && step < 100 * STEPS); step++) {
      for (let left = random.between(0, 40); left > 0; left--) {
        a.send(frameTo(random, b.mac, a.mac, random.pick([60, 200, 1514])));
      }
      if (random.chance(15)) await migration.giveLog();
      if (random.chance(10)) {
        await migration.setLogging(false);
        await migration.setLogging(true);
      }
      if (random.chance(50)) migration.sync();
      if (random.chance(30)) await new Promise(setImmediate);
      while (b.receive() !== null) received++;
    }
    const bases = await b.stop();
    migration.sync();
    expect(migration.stale()).toEqual([]);
    expect(migration.syncs).toBeGreaterThan(10);
    expect(received).toBeGreaterThan(100);
    // It goes on as if nothing had been.
    await migration.setLogging(false);
    await b.restart(bases);
    while (b.receive() !== null);
    a.send(frameTo(random, b.mac, a.mac, 60));
    await b.received();
    expect(running.ports().map(({ reason }) => reason)).toEqual([null, null]);
    a.close();
    b.close();
  });
});

it('SEND_RARP tells everybody where the guest is now', async () => {
  const guest = await EmbeddedGuest.connect({
    socketPath: join(folder, 'a'),
    protocolFeatures: PROTOCOL_FEATURES,
    waitMs: 10_000,
  });
  const other = await EmbeddedGuest.connect({ socketPath: join(folder, 'b'), waitMs: 10_000 });
  await guest.session.request('SEND_RARP', 0x0700_0000_5452n);
  expect((await other.received()).subarray(0, 14)).toEqual(
    Uint8Array.of(255, 255, 255, 255, 255, 255, 0x52, 0x54, 0, 0, 0, 7, 0x80, 0x35),
  );
  expect(running.fdb().entries).toMatchObject([{ mac: '52:54:00:00:00:07', port: 'a' }]);
  guest.close();
  other.close();
});

function frameTo(
  random: Random,
  to: ArrayLike<number>,
  from: ArrayLike<number>,
  sizeBytes: number,
): Uint8Array {
  const frame = random.bytes(sizeBytes);
  frame.set(to);
  frame.set(from, 6);
  frame.set([0x08, 0x00], 12);
  return frame;
}
