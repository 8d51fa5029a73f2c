/** Ports of kind `unix`: QEMU's netdevs `stream`, `dgram` and `socket`, for guests with any card. */
import assert from 'node:assert';
import { resolve } from 'node:path';
import { z } from 'zod';
import type { Port, PortContext } from '../../../src/port/contract.ts';
import { UnixDatagramPort } from '../../../src/port/unix/dgram.ts';
import { UnixStreamPort } from '../../../src/port/unix/stream.ts';
import type { PortKindSpec } from './contract.ts';
import { portObject, refusing } from './port-object.ts';
import { listenOptionsOf, refuseOthersFile, socketFields, socketRole } from './socket-settings.ts';
import { type HostFacts, socketPath } from './values.ts';

const MTU_DEFAULT = 9000;

function schema(host: HostFacts) {
  return portObject('socket', {
    kind: z.literal('unix'),
    ...socketFields(host),
    transport: z.enum(['stream', 'dgram'], 'stream or dgram').default('stream'),
    role: socketRole.optional(),
    peer: socketPath.optional(),
  }).check(
    refusing((port, refuse) => {
      if (port.transport === 'dgram') {
        if (port.peer === undefined) refuse('peer', "path of QEMU's own socket, needed with transport dgram");
        else if (resolve(port.peer) === resolve(port.socket)) refuse('peer', 'another path than socket');
        if (port.role !== undefined) refuse('role', 'only with transport stream');
        return;
      }
      if (port.peer !== undefined) refuse('peer', 'only with transport dgram');
      refuseOthersFile(port, refuse);
    }),
  );
}

export type UnixSettings = z.output<ReturnType<typeof schema>>;

function create(settings: UnixSettings, context: PortContext): Port {
  const options = {
    socketPath: settings.socket,
    mtu: settings.mtu ?? MTU_DEFAULT,
    listen: listenOptionsOf(settings),
  };
  if (settings.transport === 'dgram') {
    assert(settings.peer !== undefined, 'the schema asks for it');
    return new UnixDatagramPort({ ...options, peerPath: settings.peer }, context);
  }
  return new UnixStreamPort({ ...options, role: settings.role ?? 'server' }, context);
}

export const UNIX: PortKindSpec<UnixSettings> = {
  endpointKey: 'socket',
  endpointLook: null,
  claimOf: (settings) => resolve(settings.socket),
  socketOf: (settings) => settings.socket,
  getsNothing: () => false,
  pathKeys: ['socket', 'peer'],
  mapKeys: {},
  listKeys: [],
  changeable: {},
  schema,
  create,
};
