/** Settings of a port's own UNIX socket, which kinds `vhost-user` and `unix` have in common. */
import { z } from 'zod';
import type { ListenOptions } from '../../../src/host/unix-socket.ts';
import type { Refuse } from './port-object.ts';
import { fileMode, type HostFacts, owner, socketPath } from './values.ts';

export const socketRole = z.enum(['server', 'client'], 'server or client');

export function socketFields(host: HostFacts) {
  return { socket: socketPath, mode: fileMode.optional(), owner: owner(host).optional() };
}

type SocketFileSettings = {
  readonly mode?: number | undefined;
  readonly owner?: { readonly uid: number; readonly gid: number } | undefined;
};

/** In role client the socket file is not ours: its mode and owner are the other side's business. */
export function refuseOthersFile(
  settings: SocketFileSettings & { readonly role?: 'server' | 'client' | undefined },
  refuse: Refuse,
): void {
  if (settings.role !== 'client') return;
  if (settings.mode !== undefined) refuse('mode', 'only with role server');
  if (settings.owner !== undefined) refuse('owner', 'only with role server');
}

export function listenOptionsOf(settings: SocketFileSettings): ListenOptions {
  return {
    ...(settings.mode !== undefined && { mode: settings.mode }),
    ...(settings.owner !== undefined && { owner: settings.owner }),
  };
}
