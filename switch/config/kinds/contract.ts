/** What a kind of port is to the configuration: its settings, and the port that comes of them. */
import type { z } from 'zod';
import type { Port, PortContext, PortKind } from '../../../src/port/contract.ts';
import type { HostFacts } from './values.ts';

/** Of which ports a port gets copies, by name. */
export type CopiedPorts = 'all' | readonly string[];

export type PortKindSpec<Settings extends { readonly kind: PortKind }> = {
  /** The setting that says what it is attached to; `--port NAME=KIND:…` fills it. */
  readonly endpointKey: keyof Settings & string;
  /** What only endpoints of this kind look like, though the kind was not named; null: there is no telling. */
  readonly endpointLook: RegExp | null;
  /** What the port has for itself alone: no two ports may have the same. Paths are made absolute. */
  readonly claimOf: (settings: Settings) => string;
  /** Path of its UNIX socket, beside which the control socket lies; null: it has none. */
  readonly socketOf: (settings: Settings) => string | null;
  /** Neither frames nor copies go to it. */
  readonly getsNothing: (settings: Settings) => boolean;
  /** Settings that are paths, relative to where they are given. */
  readonly pathKeys: readonly (keyof Settings & string)[];
  /** Settings that are maps, and the keys in them. */
  readonly mapKeys: Readonly<Record<string, readonly string[]>>;
  /** Settings that are lists. */
  readonly listKeys: readonly (keyof Settings & string)[];
  /** Of its own settings, those that can be changed while the port runs, beside what every port has. */
  readonly changeable: Readonly<Record<string, z.ZodType>>;
  /** A strict object with every setting, from text; its `kind` is a literal (port-object.ts). */
  readonly schema: (host: HostFacts) => z.ZodObject & z.ZodType<Settings>;
  /** Makes the port without touching the outside; that is for its `start`. */
  readonly create: (settings: Settings, context: PortContext) => Port;
};
