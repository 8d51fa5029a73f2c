/** What a kind of port is to the configuration: its settings, and the port that comes of them. */
import type { z } from 'zod';
import type { Port, PortContext, PortKind } from '../../../src/port/contract.ts';
import type { HostFacts } from './values.ts';

export type PortKindSpec<Settings extends { readonly kind: PortKind }> = {
  /** The setting that says what it is attached to; `--port NAME=KIND:…` fills it. Two ports never share one. */
  readonly endpointKey: keyof Settings & string;
  /** A strict object with every setting, from text; its `kind` is a literal. */
  readonly schema: (host: HostFacts) => z.ZodObject & z.ZodType<Settings>;
  /** Makes the port without touching the outside; that is for its `start`. */
  readonly create: (settings: Settings, context: PortContext) => Port;
};
