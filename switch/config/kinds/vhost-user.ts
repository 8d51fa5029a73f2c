/** Ports of kind `vhost-user`: a guest whose QEMU hands over its memory at a UNIX socket. */
import { z } from 'zod';
import { parseMac } from '../../../protocol/ethernet.ts';
import type { Port, PortContext } from '../../../src/port/contract.ts';
import { VhostUserPort } from '../../../src/port/vhost-user/port.ts';
import type { PortKindSpec } from './contract.ts';
import { fileMode, type HostFacts, mtu, onOff, owner, queuePairs, socketPath, stationMac } from './values.ts';

/** Queue pairs offered when nothing is said. */
export const VHOST_USER_QUEUES = 16;

function schema(host: HostFacts) {
  return z
    .strictObject(
      {
        kind: z.literal('vhost-user').default('vhost-user'),
        socket: socketPath,
        role: z.enum(['server', 'client'], 'server or client').default('server'),
        mode: fileMode.optional(),
        owner: owner(host).optional(),
        queues: queuePairs.default(VHOST_USER_QUEUES),
        configSpace: onOff.default(false),
        mac: stationMac.optional(),
        mtu: mtu.optional(),
      },
      'a map of settings, with socket at least',
    )
    .check(({ value: port, issues }) => {
      const refuse = (key: string, message: string) =>
        issues.push({ code: 'custom', path: [key], message, input: port });
      if (port.role === 'client' && port.mode !== undefined) refuse('mode', 'only with role server');
      if (port.role === 'client' && port.owner !== undefined) refuse('owner', 'only with role server');
      if (!port.configSpace && port.mac !== undefined)
        refuse('mac', 'only with config-space=on, in a file configSpace: on');
      if (!port.configSpace && port.mtu !== undefined)
        refuse('mtu', 'only with config-space=on, in a file configSpace: on');
    });
}

export type VhostUserSettings = z.output<ReturnType<typeof schema>>;

function create(settings: VhostUserSettings, context: PortContext): Port {
  return new VhostUserPort(
    {
      socketPath: settings.socket,
      role: settings.role,
      listen: {
        ...(settings.mode !== undefined && { mode: settings.mode }),
        ...(settings.owner !== undefined && { owner: settings.owner }),
      },
      device: {
        queuePairsMax: settings.queues,
        configSpace: settings.configSpace,
        mac: settings.mac === undefined ? null : parseMac(settings.mac),
        mtu: settings.mtu ?? null,
      },
    },
    context,
  );
}

export const VHOST_USER: PortKindSpec<VhostUserSettings> = { endpointKey: 'socket', schema, create };
