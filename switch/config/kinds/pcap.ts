/** Ports of kind `pcap`: a capture file that frames are written to or come from. */
import { z } from 'zod';
import { CAPTURED_BYTES_MAX } from '../../../protocol/pcap.ts';
import type { Port, PortContext } from '../../../src/port/contract.ts';
import { PcapPort } from '../../../src/port/pcap/port.ts';
import type { PortKindSpec } from './contract.ts';
import { pathOf, wholeNumber } from './values.ts';

const MIRROR_ALLOWED = 'all, or names of ports: a list, in an option joined by +, for example vm0+vm1';
/** The longest Ethernet header with two tags, so that a frame remains one. */
const SNAP_BYTES_MIN = 22;

const mirror = z
  .preprocess(
    (value) => (typeof value === 'string' ? value.split(/[+, ]+/) : value),
    z.array(z.string(MIRROR_ALLOWED).min(1, MIRROR_ALLOWED), MIRROR_ALLOWED).min(1, MIRROR_ALLOWED),
  )
  .transform((names): 'all' | readonly string[] =>
    names.length === 1 && names[0] === 'all' ? 'all' : names,
  );

function schema() {
  return z
    .strictObject(
      {
        kind: z.literal('pcap'),
        file: pathOf('path of a capture file'),
        direction: z.enum(['write', 'read'], 'write or read').default('write'),
        mirror: mirror.optional(),
        snapBytes: wholeNumber(SNAP_BYTES_MIN, CAPTURED_BYTES_MAX).optional(),
        repeat: z.enum(['once', 'loop'], 'once or loop').optional(),
        pace: z.enum(['recorded', 'full'], 'recorded or full').optional(),
      },
      'a map of settings, with file at least',
    )
    .check(({ value: port, issues }) => {
      const refuse = (key: string, message: string) =>
        issues.push({ code: 'custom', path: [key], message, input: port });
      const isRead = port.direction === 'read';
      if (isRead && port.mirror !== undefined) refuse('mirror', 'only with direction write');
      if (!isRead && port.repeat !== undefined) refuse('repeat', 'only with direction read');
      if (!isRead && port.pace !== undefined) refuse('pace', 'only with direction read');
    });
}

export type PcapSettings = z.output<ReturnType<typeof schema>>;

function create(settings: PcapSettings, context: PortContext): Port {
  return new PcapPort(
    {
      file: settings.file,
      direction: settings.direction,
      mirror: settings.mirror ?? null,
      snapBytes: settings.snapBytes ?? 0,
      repeat: settings.repeat ?? 'once',
      pace: settings.pace ?? 'recorded',
    },
    context,
  );
}

export const PCAP: PortKindSpec<PcapSettings> = { endpointKey: 'file', schema, create };

/**
 * Of which ports a port gets copies, instead of frames that are switched to it: none for one that reads its
 * capture. Null: frames are switched to it as to any other.
 */
export function copiedPorts(
  settings: { readonly kind: string } | PcapSettings,
): 'all' | readonly string[] | null {
  if (settings.kind !== 'pcap' || !('direction' in settings)) return null;
  return settings.direction === 'read' ? [] : (settings.mirror ?? null);
}
