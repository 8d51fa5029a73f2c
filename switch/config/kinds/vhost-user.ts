/** Ports of kind `vhost-user`: a guest whose QEMU hands over its memory at a UNIX socket. */
import { resolve } from 'node:path';
import { z } from 'zod';
import { parseMac } from '../../../protocol/ethernet.ts';
import { SWITCHABLE_FEATURE_NAMES, type SwitchableFeature } from '../../../src/device/net/options.ts';
import type { Port, PortContext } from '../../../src/port/contract.ts';
import { VhostUserPort } from '../../../src/port/vhost-user/port.ts';
import { OFFLOAD_NAMES } from '../../../src/queue/offloads.ts';
import type { PortKindSpec } from './contract.ts';
import { offloads } from './offloads.ts';
import { onOffMap } from './on-off-map.ts';
import { portObject, refusing } from './port-object.ts';
import { listenOptionsOf, refuseOthersFile, socketFields, socketRole } from './socket-settings.ts';
import { type HostFacts, onOff, queuePairs, stationMac } from './values.ts';

/** Queue pairs offered when nothing is said. */
export const VHOST_USER_QUEUES = 16;

const OPTION_OF_FEATURE: Readonly<Record<SwitchableFeature, string>> = {
  packed: 'packed',
  inOrder: 'in-order',
  mergeable: 'mergeable',
  indirect: 'indirect',
  eventIdx: 'event-idx',
  ringReset: 'ring-reset',
  iommu: 'iommu',
  inBand: 'in-band',
  skipDrain: 'skip-drain',
};
const features = onOffMap(OPTION_OF_FEATURE);

function schema(host: HostFacts) {
  return portObject('socket', {
    kind: z.literal('vhost-user').default('vhost-user'),
    ...socketFields(host),
    role: socketRole.default('server'),
    queues: queuePairs.default(VHOST_USER_QUEUES),
    features: features.optional(),
    offloads: offloads.optional(),
    configSpace: onOff.default(false),
    mac: stationMac.optional(),
  }).check(
    refusing((port, refuse) => {
      refuseOthersFile(port, refuse);
      if (port.configSpace || port.mac === undefined) return;
      refuse('mac', 'only with config-space=on, in a file configSpace: on');
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
        offloads: settings.offloads ?? {},
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
  getsNothing: () => false,
  pathKeys: ['socket'],
  mapKeys: { features: SWITCHABLE_FEATURE_NAMES, offloads: OFFLOAD_NAMES },
  listKeys: [],
  changeable: { offloads: offloads.optional() },
  schema,
  create,
};
