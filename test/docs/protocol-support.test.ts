/**
 * docs/protocol-support.md is true: its tables have every message and feature that there is, what they say of each is what
 * a port does, and the tests that they name are there.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { hasBit } from '../../protocol/bits.ts';
import { PROTOCOL_FEATURE } from '../../protocol/vhost-user/features.ts';
import {
  BACK_END_MESSAGES,
  MESSAGES,
  type MessageName,
  type MessageSpec,
  messageName,
} from '../../protocol/vhost-user/messages.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import {
  type DeviceOptions,
  offeredFeatures,
  offeredProtocolFeatures,
} from '../../src/device/net/options.ts';
import { VHOST_USER_QUEUES } from '../../switch/config/kinds/vhost-user.ts';

const REPOSITORY = join(import.meta.dirname, '../..');
const TEXT = readFileSync(join(REPOSITORY, 'docs/protocol-support.md'), 'utf8');

type Row = { number: number; name: string; ringway: string; test: string };

/** The rows of the one table under a heading. */
function tableUnder(heading: string): Row[] {
  const section = TEXT.split(/^## /m).find((part) => part.startsWith(`${heading}\n`)) ?? '';
  const lines = section.split('\n').filter((line) => /^\| \d/.test(line));
  return lines.map((line) => {
    const cells = line.split('|').map((cell) => cell.trim());
    expect(cells, line).toHaveLength(7);
    const [, number, name, ringway, , test] = cells;
    return { number: Number(number), name, ringway, test };
  });
}

const TO_US = tableUnder('Messages from the front-end');
const TO_THEM = tableUnder('Messages to the front-end');
const PROTOCOL = tableUnder('Protocol features');
const DEVICE = tableUnder('Features of the device');

const DEFAULTS: DeviceOptions = {
  queuePairsMax: VHOST_USER_QUEUES,
  configSpace: false,
  mac: null,
  mtu: null,
};
/** What each setting that the tables name makes of them. */
const SETTINGS: Readonly<Record<string, Partial<DeviceOptions>>> = {
  'config-space=on': { configSpace: true },
  'config-space=on,mac=ADDRESS': { configSpace: true, mac: Uint8Array.of(2, 0, 0, 0, 0, 1) },
  'features=in-band': { features: { inBand: true } },
  'features=skip-drain': { features: { skipDrain: true } },
  'features=ring-reset': { features: { ringReset: true } },
  'features=iommu': { features: { iommu: true } },
};

const names = (rows: readonly Row[]): Record<string, number> =>
  Object.fromEntries(rows.map(({ name, number }) => [name, number]));

describe('the table of messages', () => {
  it('has every message that is known, and says which feature gates it', () => {
    const taken = TO_US.filter(({ ringway }) => ringway !== 'no');
    expect(names(taken)).toEqual(
      Object.fromEntries(Object.entries(MESSAGES).map(([name, { id }]) => [name, id])),
    );
    for (const { name, ringway } of taken) {
      const { gate, deviceGate }: MessageSpec = MESSAGES[name as MessageName];
      expect([name, ringway]).toEqual([name, gate ?? deviceGate ?? 'always']);
    }
  });

  it('says "no" of messages that are unknown, and leaves no number out', () => {
    for (const { number, ringway } of TO_US) expect(messageName(number) === null).toBe(ringway === 'no');
    expect(TO_US.map(({ number }) => number)).toEqual(
      Array.from({ length: 45 }, (_, i) => i + 1).filter((number) => number !== 44),
    );
  });

  it('has what the back-end asks', () => {
    const asked = TO_THEM.filter(({ ringway }) => ringway !== 'no');
    expect(names(asked)).toEqual(
      Object.fromEntries(Object.entries(BACK_END_MESSAGES).map(([name, { id }]) => [name, id])),
    );
  });
});

describe.each([
  ['protocol features', PROTOCOL, PROTOCOL_FEATURE, offeredProtocolFeatures],
  ['features of the device', DEVICE, VIRTIO_FEATURE, offeredFeatures],
] as const)('the table of %s', (_, rows, bits, offered) => {
  it('has every one that has a name', () => {
    expect(names(rows)).toEqual(bits);
  });

  it('says of each what a port offers, and with which setting', () => {
    const byDefault = offered(DEFAULTS);
    for (const { name, number, ringway } of rows) {
      expect([name, hasBit(byDefault, number)]).toEqual([name, ringway === 'offered']);
      if (ringway === 'offered' || ringway === 'no') continue;
      const setting = SETTINGS[ringway];
      expect(setting, ringway).toBeDefined();
      expect([name, hasBit(offered({ ...DEFAULTS, ...setting }), number)]).toEqual([name, true]);
    }
  });

  it('has no feature that some setting offers and the table does not', () => {
    const all = Object.values(SETTINGS).reduce(
      (sum, setting) => sum | offered({ ...DEFAULTS, ...setting }),
      0n,
    );
    const none = rows.filter(({ ringway, number }) => ringway === 'no' && hasBit(all, number));
    expect(none).toEqual([]);
  });
});

describe('the tests that the tables name', () => {
  it.each([...TO_US, ...TO_THEM, ...PROTOCOL, ...DEVICE])('are there: $name', ({ test }) => {
    const [, file, name] = /^`([^`]+)` "(.+)"$/.exec(test) ?? [];
    const path = join(REPOSITORY, 'test', file ?? '');
    expect(existsSync(path), test).toBe(true);
    const titles = readFileSync(path, 'utf8').matchAll(
      /\bx?(?:it|test)\b[^\n]*|^\s+(['"`]).*\1,$|\)\(\s*(['"`]).*/gm,
    );
    expect(
      [...titles].some(([line]) => line.includes(name ?? '\n')),
      test,
    ).toBe(true);
  });
});
