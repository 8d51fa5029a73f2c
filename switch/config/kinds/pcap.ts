/** Ports of kind `pcap`: a capture file that frames are written to or come from. */
import { resolve } from 'node:path';
import { z } from 'zod';
import { CAPTURED_BYTES_MAX } from '../../../protocol/pcap.ts';
import type { Port, PortContext } from '../../../src/port/contract.ts';
import { PcapPort } from '../../../src/port/pcap/port.ts';
import type { PortKindSpec } from './contract.ts';
import { portObject, refusing } from './port-object.ts';
import { pathOf, wholeNumber } from './values.ts';

/** The longest Ethernet header with two tags, so that a frame remains one. */
const SNAP_BYTES_MIN = 22;
const ROTATE_BYTES_MIN = 10_000;

function schema() {
  return portObject('file', {
    kind: z.literal('pcap'),
    file: pathOf('path of a capture file'),
    direction: z.enum(['write', 'read'], 'write or read').default('write'),
    snapBytes: wholeNumber(SNAP_BYTES_MIN, CAPTURED_BYTES_MAX).optional(),
    rotateBytes: wholeNumber(ROTATE_BYTES_MIN, Number.MAX_SAFE_INTEGER).optional(),
    rotateSeconds: wholeNumber(1, 10 ** 9).optional(),
    files: wholeNumber(1, 10_000).optional(),
    repeat: z.enum(['once', 'loop'], 'once or loop').optional(),
    pace: z.enum(['recorded', 'full'], 'recorded or full').optional(),
  }).check(
    refusing((port, refuse) => {
      const isRead = port.direction === 'read';
      if (isRead && port.mirror !== undefined) refuse('mirror', 'only with direction write');
      const isRotated = port.rotateBytes !== undefined || port.rotateSeconds !== undefined;
      if (isRead && port.rotateBytes !== undefined) refuse('rotateBytes', 'only with direction write');
      if (isRead && port.rotateSeconds !== undefined) refuse('rotateSeconds', 'only with direction write');
      if (!isRotated && port.files !== undefined) refuse('files', 'only with rotateBytes or rotateSeconds');
      if (!isRead && port.repeat !== undefined) refuse('repeat', 'only with direction read');
      if (!isRead && port.pace !== undefined) refuse('pace', 'only with direction read');
    }),
  );
}

export type PcapSettings = z.output<ReturnType<typeof schema>>;

function create(settings: PcapSettings, context: PortContext): Port {
  return new PcapPort(
    {
      file: settings.file,
      direction: settings.direction,
      mirror: settings.mirror ?? null,
      snapBytes: settings.snapBytes ?? 0,
      ...(settings.rotateBytes !== undefined && { rotateBytes: settings.rotateBytes }),
      ...(settings.rotateSeconds !== undefined && { rotateSeconds: settings.rotateSeconds }),
      ...(settings.files !== undefined && { files: settings.files }),
      repeat: settings.repeat ?? 'once',
      pace: settings.pace ?? 'recorded',
    },
    context,
  );
}

export const PCAP: PortKindSpec<PcapSettings> = {
  endpointKey: 'file',
  endpointLook: /\.pcap(ng)?$/i,
  claimOf: (settings) => resolve(settings.file),
  socketOf: () => null,
  // Nothing is switched to a port that reads its capture, and there is nothing to copy to it.
  getsNothing: (settings) => settings.direction === 'read',
  pathKeys: ['file'],
  mapKeys: {},
  listKeys: [],
  changeable: {},
  schema,
  create,
};
