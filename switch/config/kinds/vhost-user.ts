/** Ports of kind `vhost-user`: a guest whose QEMU hands over its memory at a UNIX socket. */
import { resolve } from 'node:path';
import { z } from 'zod';
import { parseMac } from '../../../protocol/ethernet.ts';
import { SWITCHABLE_FEATURE_NAMES, type SwitchableFeature } from '../../../src/device/net/options.ts';
import type { Port, PortContext } from '../../../src/port/contract.ts';
import { VhostUserPort } from '../../../src/port/vhost-user/port.ts';
import type { PortKindSpec } from './contract.ts';
import { portObject, refusing } from './port-object.ts';
import { listenOptionsOf, refuseOthersFile, socketFields, socketRole } from './socket-settings.ts';
import { type HostFacts, mtu, onOff, queuePairs, stationMac } from './values.ts';

/** Queue pairs offered when nothing is said. */
export const VHOST_USER_QUEUES = 16;

const OPTION_OF_FEATURE: Readonly<Record<SwitchableFeature, string>> = {
  packed: 'packed',
  inOrder: 'in-order',
  mergeable: 'mergeable',
  indirect: 'indirect',
  eventIdx: 'event-idx',
};
const FEATURES_ALLOWED =
  `a map of ${SWITCHABLE_FEATURE_NAMES.join(', ')} to on or off, ` +
  `in an option ${Object.values(OPTION_OF_FEATURE).join(', ')} joined by +, with no- before what is off`;

/** A map in a file; on the command line one text: `no-packed+no-in-order`, and without `no-` what stays on. */
const features = z.preprocess(
  (value) => (typeof value === 'string' ? featuresOf(value) : value),
  z.strictObject(
    {
      packed: onOff.exactOptional(),
      inOrder: onOff.exactOptional(),
      mergeable: onOff.exactOptional(),
      indirect: onOff.exactOptional(),
      eventIdx: onOff.exactOptional(),
    } satisfies Record<SwitchableFeature, z.ZodType>,
    FEATURES_ALLOWED,
  ),
);

/** As the map in a file; null for a text that names something else, or something twice. */
function featuresOf(text: string): Record<string, string> | null {
  const named = new Map<string, string>();
  for (const word of text.split('+')) {
    const isOff = word.startsWith('no-');
    const option = isOff ? word.slice('no-'.length) : word;
    const feature = SWITCHABLE_FEATURE_NAMES.find((each) => OPTION_OF_FEATURE[each] === option);
    if (feature === undefined || named.has(feature)) return null;
    named.set(feature, isOff ? 'off' : 'on');
  }
  return Object.fromEntries(named);
}

function schema(host: HostFacts) {
  return portObject('socket', {
    kind: z.literal('vhost-user').default('vhost-user'),
    ...socketFields(host),
    role: socketRole.default('server'),
    queues: queuePairs.default(VHOST_USER_QUEUES),
    features: features.optional(),
    configSpace: onOff.default(false),
    mac: stationMac.optional(),
    mtu: mtu.optional(),
  }).check(
    refusing((port, refuse) => {
      refuseOthersFile(port, refuse);
      if (port.configSpace) return;
      const needed = 'only with config-space=on, in a file configSpace: on';
      if (port.mac !== undefined) refuse('mac', needed);
      if (port.mtu !== undefined) refuse('mtu', needed);
    }),
  );
}

export type VhostUserSettings = z.output<ReturnType<typeof schema>>;

function create(settings: VhostUserSettings, context: PortContext): Port {
  return new VhostUserPort(
    {
      socketPath: settings.socket,
      role: settings.role,
      listen: listenOptionsOf(settings),
      device: {
        queuePairsMax: settings.queues,
        configSpace: settings.configSpace,
        mac: settings.mac === undefined ? null : parseMac(settings.mac),
        mtu: settings.mtu ?? null,
        features: settings.features ?? {},
      },
    },
    context,
  );
}

export const VHOST_USER: PortKindSpec<VhostUserSettings> = {
  endpointKey: 'socket',
  endpointLook: null,
  claimOf: (settings) => resolve(settings.socket),
  socketOf: (settings) => settings.socket,
  copiesOf: () => null,
  pathKeys: ['socket'],
  mapKeys: { features: SWITCHABLE_FEATURE_NAMES },
  schema,
  create,
};
