/**
 * What ports may not have in common, and a port not with the control socket: the one place where it is checked, for
 * the ports of a configuration and for those that come and go while the switch runs. Main thread.
 */
import assert from 'node:assert';
import { resolve } from 'node:path';
import { claimOf, copiesOf, endpointKeyOf, endpointOf, getsNothing } from './kinds/index.ts';
import type { PortConfig } from './resolve.ts';
import type { SettingFault } from './settings.ts';

export class Claims {
  /** What is taken, and by what, in words for the user. */
  readonly #owners = new Map<string, string>();

  /** Takes what the port has for itself alone. Null: taken; otherwise nothing has changed. */
  claim(port: PortConfig): SettingFault | null {
    const key = endpointKeyOf(port.kind);
    const owner = this.ownerOf(claimOf(port));
    if (owner !== null) {
      return { path: ['ports', port.name, key], text: `${endpointOf(port)} is not allowed (${owner})` };
    }
    this.#owners.set(claimOf(port), `it is the ${key} of port ${port.name}`);
    return null;
  }

  /** The path of the control socket, which no port may have. */
  claimControlSocket(path: string): void {
    assert(this.ownerOf(resolve(path)) === null, 'the configuration was checked');
    this.#owners.set(resolve(path), 'it is the control socket');
  }

  /** Gives back what `claim` took. */
  release(port: PortConfig): void {
    assert(this.#owners.delete(claimOf(port)), 'what is given back was taken');
  }

  /** In words: why it is not free; null: it is. */
  ownerOf(claim: string): string | null {
    return this.#owners.get(claim) ?? null;
  }
}

/** What cannot be whatever other ports there are. */
export function clashInItself(port: PortConfig): SettingFault | null {
  const path = ['ports', port.name, 'mirror'];
  if (port.mirror !== undefined && getsNothing(port)) return { path, text: 'only with direction write' };
  const copied = copiesOf(port);
  if (copied === null || copied === 'all' || !copied.includes(port.name)) return null;
  const text = `${port.name} is not allowed (a port cannot mirror itself)`;
  return { path, text };
}
