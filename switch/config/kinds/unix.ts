/** Ports of kind `unix`: QEMU's netdevs `stream`, `dgram` and `socket`, for guests with any card. */
import { resolve } from 'node:path';
import { z } from 'zod';
import type { Port, PortContext } from '../../../src/port/contract.ts';
import { UnixDatagramPort } from '../../../src/port/unix/dgram.ts';
import { UnixStreamPort } from '../../../src/port/unix/stream.ts';
import type { PortKindSpec } from './contract.ts';
import { fileMode, type HostFacts, mtu, owner, socketPath } from './values.ts';

const MTU_DEFAULT = 9000;

function schema(host: HostFacts) {
  return z
    .strictObject(
      {
        kind: z.literal('unix'),
        socket: socketPath,
        transport: z.enum(['stream', 'dgram'], 'stream or dgram').default('stream'),
        role: z.enum(['server', 'client'], 'server or client').optional(),
        peer: socketPath.optional(),
        mode: fileMode.optional(),
        owner: owner(host).optional(),
        mtu: mtu.default(MTU_DEFAULT),
      },
      'a map of settings, with socket at least',
    )
    .check(({ value: port, issues }) => {
      const refuse = (key: string, message: string) =>
        issues.push({ code: 'custom', path: [key], message, input: port });
      if (port.transport === 'dgram') {
        if (port.peer === undefined) refuse('peer', "path of QEMU's own socket, needed with transport dgram");
        else if (resolve(port.peer) === resolve(port.socket)) refuse('peer', 'another path than socket');
        if (port.role !== undefined) refuse('role', 'only with transport stream');
        return;
      }
      if (port.peer !== undefined) refuse('peer', 'only with transport dgram');
      if (port.role === 'client' && port.mode !== undefined) refuse('mode', 'only with role server');
      if (port.role === 'client' && port.owner !== undefined) refuse('owner', 'only with role server');
    });
}

export type UnixSettings = z.output<ReturnType<typeof schema>>;

function create(settings: UnixSettings, context: PortContext): Port {
  const options = {
    socketPath: settings.socket,
    mtu: settings.mtu,
    listen: {
      ...(settings.mode !== undefined && { mode: settings.mode }),
      ...(settings.owner !== undefined && { owner: settings.owner }),
    },
  };
  if (settings.transport === 'dgram') {
    return new UnixDatagramPort({ ...options, peerPath: settings.peer! }, context);
  }
  return new UnixStreamPort({ ...options, role: settings.role ?? 'server' }, context);
}

export const UNIX: PortKindSpec<UnixSettings> = { endpointKey: 'socket', schema, create };
