/**
 * The embedded guest with each ring layout, in order and not: what it negotiates, the bases that it names, and
 * that its rings outlive a stop and a lost back-end. The other side is a tiny device with the naive twins.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { hasBit, maskOf } from '../../protocol/bits.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import { BackEndError, EmbeddedGuest, type EmbeddedGuestOptions } from '../../src/frontend/index.ts';
import type { RingLayoutKind } from '../../src/vring/attachment.ts';
import { Random } from '../vring/random.ts';
import { TinyDevice } from './tiny-device.ts';

const { EVENT_IDX, IN_ORDER, INDIRECT_DESC, NET_MRG_RXBUF, RING_PACKED, VERSION_1 } = VIRTIO_FEATURE;
const PLAIN = maskOf(VERSION_1, NET_MRG_RXBUF, EVENT_IDX, INDIRECT_DESC);
const OFFERED = PLAIN | maskOf(RING_PACKED, IN_ORDER);
/** Not a power of two where that is possible. */
const SIZES: Readonly<Record<RingLayoutKind, number>> = { split: 4, packed: 5 };
/** Where a ring stands after so many buffers of one descriptor, all used. */
const BASES: Readonly<Record<RingLayoutKind, (count: number) => number>> = {
  split: (count) => count,
  packed: (count) => {
    const lap = Math.floor(count / SIZES.packed);
    return ((count % SIZES.packed) + (lap % 2 === 0 ? 0x8000 : 0)) * 0x1_0001;
  },
};
const KINDS = [
  ['split', false],
  ['split', true],
  ['packed', false],
  ['packed', true],
] as const;

let folder: string;
let socketPath: string;
const closing: (() => void)[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-layouts-'));
  socketPath = join(folder, 'guest.sock');
});

afterEach(() => {
  for (const close of closing.splice(0).reverse()) close();
  rmSync(folder, { recursive: true });
});

function startDevice(offered = OFFERED): TinyDevice {
  const device = new TinyDevice(socketPath, offered);
  closing.push(() => device.close());
  return device;
}

async function connect(options: Partial<EmbeddedGuestOptions>): Promise<EmbeddedGuest> {
  const guest = await EmbeddedGuest.connect({ socketPath, ...options });
  closing.push(() => guest.close());
  return guest;
}

function frame(seed: number): Uint8Array {
  return new Random(seed).bytes(60 + (seed % 100));
}

/** The frames from `first` to `end` come back one by one. */
function echo(guest: EmbeddedGuest, device: TinyDevice, first: number, end: number): void {
  for (let i = first; i < end; i++) {
    expect(guest.send(frame(i))).toBe(true);
    expect(device.turn()).toBe(1);
    expect(guest.receive()).toEqual(frame(i));
  }
}

describe('the embedded guest negotiates', () => {
  it('split rings in any order unless told otherwise', async () => {
    startDevice();
    const guest = await connect({});
    expect(guest.layout).toBe('split');
    expect(hasBit(guest.features, IN_ORDER)).toBe(false);
  });

  it('what its features say where no layout is asked for', async () => {
    startDevice();
    const guest = await connect({ features: OFFERED });
    expect(guest.layout).toBe('packed');
    expect(hasBit(guest.features, IN_ORDER)).toBe(true);
  });

  it('split rings if they are asked for, whatever its features say', async () => {
    startDevice();
    const guest = await connect({ features: OFFERED, layout: 'split', inOrder: false });
    expect(guest.features).toBe(PLAIN);
  });

  it.each<[string, Partial<EmbeddedGuestOptions>]>([
    ['packed rings', { layout: 'packed' }],
    ['buffers used in order', { inOrder: true }],
  ])('nothing if the back-end does not offer %s', async (what, options) => {
    startDevice(PLAIN);
    await expect(connect(options)).rejects.toThrow(new BackEndError(`the back-end does not offer ${what}`));
  });
});

describe.each(KINDS)('the embedded guest with a %s ring, in order: %s', (layout, inOrder) => {
  const options = { layout, inOrder, ringSize: SIZES[layout] };

  it('sends and receives in every lap', async () => {
    const device = startDevice();
    const guest = await connect(options);
    expect(device.bases).toEqual(layout === 'split' ? [0, 0] : [0x8000_8000, 0x8000_8000]);
    echo(guest, device, 0, 30);
  });

  it('is woken by the interrupt that it asked for', async () => {
    const device = startDevice();
    const guest = await connect(options);
    for (let i = 0; i < 12; i++) {
      const coming = guest.received();
      guest.send(frame(i));
      device.turn();
      expect(await coming).toEqual(frame(i));
    }
  });

  it('goes on where it stopped, with what was offered meanwhile', async () => {
    const device = startDevice();
    const guest = await connect(options);
    for (let start = 0, next = 0; start < 5; start++) {
      echo(guest, device, next, next + 3);
      next += 3;
      const bases = await guest.stop();
      expect(bases).toEqual([BASES[layout](next), BASES[layout](next)]);
      guest.send(frame(next));
      expect(device.turn()).toBe(0);
      await guest.restart(bases);
      expect(device.turn()).toBe(1);
      expect(guest.receive()).toEqual(frame(next));
      next++;
    }
  });

  it('names the next base to a back-end that lost its memory, and loses no frame', async () => {
    const device = startDevice();
    const guest = await connect(options);
    for (let loss = 0, next = 0; loss < 5; loss++) {
      echo(guest, device, next, next + 2);
      next += 2;
      // Used before the loss and looked at after it; offered and not used; offered after the loss.
      guest.send(frame(next));
      expect(device.turn()).toBe(1);
      guest.send(frame(next + 1));
      device.hangUp();
      await guest.closed;
      guest.send(frame(next + 2));
      await guest.reconnect();
      expect(device.turn()).toBe(2);
      for (let i = 0; i < 3; i++) expect(guest.receive()).toEqual(frame(next + i));
      expect(guest.receive()).toBeNull();
      next += 3;
    }
  });
});
