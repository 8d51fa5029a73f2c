/** The features that a vhost-user port is told not to offer: both ways to write them, and what is refused. */
import { describe, expect, it } from 'vitest';
import { Arena } from '../../../../src/memory/arena.ts';
import { ArenaView } from '../../../../src/memory/arena-view.ts';
import { VhostUserPort } from '../../../../src/port/vhost-user/port.ts';
import { settingsOf } from '../../../../switch/cli/options.ts';
import { parseConfigText } from '../../../../switch/config/file.ts';
import { createPort } from '../../../../switch/config/kinds/index.ts';
import { type PortConfig, resolveConfig, resolvePort } from '../../../../switch/config/resolve.ts';
import { DelayedWorkers } from '../../delayed-workers.ts';

const fromOption = (rest: string): PortConfig =>
  resolveConfig([settingsOf({ port: [`a=/r/a.sock${rest}`] })]).ports[0];
const fromFile = (features: string): PortConfig =>
  resolveConfig([parseConfigText('r.yaml', `ports: { a: { socket: /r/a.sock, features: ${features} } }`)])
    .ports[0];

describe('features of a vhost-user port', () => {
  it.each([
    ['no-packed', '{ packed: off }', { packed: false }],
    ['no-packed+no-in-order', '{ packed: off, inOrder: false }', { packed: false, inOrder: false }],
    [
      'ring-reset+iommu+in-band+no-skip-drain',
      '{ ringReset: on, iommu: on, inBand: on, skipDrain: off }',
      { ringReset: true, iommu: true, inBand: true, skipDrain: false },
    ],
    ['packed+no-event-idx', '{ packed: on, eventIdx: off }', { packed: true, eventIdx: false }],
    [
      'no-mergeable+no-indirect+no-event-idx+no-packed+no-in-order',
      '{ packed: off, inOrder: off, mergeable: off, indirect: off, eventIdx: off }',
      { packed: false, inOrder: false, mergeable: false, indirect: false, eventIdx: false },
    ],
  ])('are %s, in a file %s', (option, file, features) => {
    expect(fromOption(`,features=${option}`)).toMatchObject({ features });
    expect(fromFile(file)).toEqual(fromOption(`,features=${option}`));
    expect(fromFile(option)).toEqual(fromFile(file));
    expect(resolvePort('a', { socket: '/r/a.sock', features })).toEqual(fromFile(file));
  });

  it('are all offered when nothing is said', () => {
    expect(fromOption('')).not.toHaveProperty('features');
    expect(fromFile('{}')).toMatchObject({ features: {} });
  });

  it('come to the device', () => {
    const arena = Arena.reserve(2 ** 32);
    const port = createPort(fromOption(',features=no-packed'), {
      id: 0,
      name: 'a',
      arena,
      arenaView: new ArenaView(arena.location),
      dataPath: new DelayedWorkers(1),
      events: { info: () => {}, warn: () => {}, disconnected: () => {} },
    });
    expect(port).toBeInstanceOf(VhostUserPort);
    expect(port).toMatchObject({ options: { device: { features: { packed: false } } } });
    arena.release();
  });

  const ALLOWED =
    'a map of packed, inOrder, mergeable, indirect, eventIdx, ringReset, iommu, inBand, skipDrain to on or off';
  const ALLOWED_IN_OPTION =
    'packed, in-order, mergeable, indirect, event-idx, ring-reset, iommu, in-band, skip-drain joined by +, with no- before what is off';

  it.each<[string, ...string[]]>([
    ['', 'nothing'],
    ['no-pack', 'no-pack'],
    ['no-packed+', 'no-packed+'],
    ['no-packed,no-in-order', 'no-packed,no-in-order'],
    ['inOrder', 'inOrder'],
    ['no-no-packed', 'no-no-packed'],
    ['no-foo+packed+no-bar', 'no-foo', 'no-bar'],
  ])('cannot be %j, and what of it is wrong is told in the words of who wrote it', (text, ...wrong) => {
    const told = (subject: string, allowed: string): string =>
      wrong.map((part) => `${subject}: ${part} is not allowed (${allowed})`).join('; ');
    // A comma ends the setting on a command line.
    if (!text.includes(',')) {
      const message = told('--port a: features', ALLOWED_IN_OPTION);
      expect(() => fromOption(`,features=${text}`)).toThrow(expect.objectContaining({ message }));
    }
    const message = told('r.yaml:1: ports.a.features', ALLOWED);
    expect(() => fromFile(`"${text}"`)).toThrow(expect.objectContaining({ message }));
  });

  it('cannot name one twice', () => {
    expect(() => fromOption(',features=no-packed+packed')).toThrow(
      '--port a: features: packed is not allowed (it is named twice)',
    );
  });

  it.each([
    ['[packed]', `r.yaml:1: ports.a.features: a list is not allowed (${ALLOWED})`],
    ['{ packed: maybe }', 'r.yaml:1: ports.a.features.packed: maybe is not allowed (on or off)'],
    ['{ packd: off }', 'r.yaml:1: ports.a.features.packd: unknown setting (did you mean packed?)'],
    [
      '{ checksum: off }',
      'r.yaml:1: ports.a.features.checksum: unknown setting (there are packed, inOrder, mergeable, indirect, eventIdx, ringReset, iommu, inBand, skipDrain)',
    ],
  ])('cannot be %s in a file', (features, message) => {
    expect(() => fromFile(features)).toThrow(message);
  });

  it('are of this kind only', () => {
    expect(() => resolvePort('a', { kind: 'tap', interface: 'tap0', features: { packed: false } })).toThrow(
      'port a: features: unknown setting',
    );
  });
});
