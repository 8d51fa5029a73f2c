/** Ports of kind `dpdk`: network cards and virtual devices by DPDK's drivers. */
import { z } from 'zod';
import { parseDevice } from '../../../src/dpdk/device.ts';
import { DPDK_OFFLOAD_NAMES } from '../../../src/dpdk/tx-offloads.ts';
import type { Port, PortContext } from '../../../src/port/contract.ts';

import { DpdkPort } from '../../../src/port/dpdk/port.ts';
import type { PortKindSpec } from './contract.ts';
import { onOffMap } from './on-off-map.ts';
import { portObject } from './port-object.ts';
import { onOff, wholeNumber } from './values.ts';

const QUEUES_MAX = 16;
const DEVICE_ALLOWED =
  'a PCI address such as 0000:03:00.0, or a virtual device such as net_af_packet0,iface=eth0 (on a command line with ; for the comma)';
const EAL_ALLOWED = 'options of EAL with spaces between them, for example -m 256';

/** Where a comma would end the setting, `;` stands for it. */
const withCommas = (text: string): string => text.trim().replaceAll(';', ',');

const device = z.string(DEVICE_ALLOWED).transform((text, context) => {
  try {
    return parseDevice(text).devargs;
  } catch {
    context.issues.push({ code: 'custom', message: DEVICE_ALLOWED, input: text });
    return z.NEVER;
  }
});

const ealOptions = z
  .string(EAL_ALLOWED)
  .transform(withCommas)
  .pipe(z.string(EAL_ALLOWED).startsWith('-', EAL_ALLOWED))
  .transform((text) => text.split(/\s+/));

function schema() {
  return portObject('device', {
    kind: z.literal('dpdk'),
    device,
    queues: wholeNumber(1, QUEUES_MAX).default(1),
    promiscuous: onOff.default(true),
    eal: ealOptions.optional(),
    offloads: onOffMap({ csum: 'csum', tso: 'tso' }).optional(),
  });
}

export type DpdkSettings = z.output<ReturnType<typeof schema>>;

function create(settings: DpdkSettings, context: PortContext): Port {
  return new DpdkPort(
    {
      device: settings.device,
      queueCount: settings.queues,
      mtu: settings.mtu ?? null,
      promiscuous: settings.promiscuous,
      offloads: settings.offloads ?? {},
      ealArguments: settings.eal ?? [],
    },
    context,
  );
}

export const DPDK: PortKindSpec<DpdkSettings> = {
  endpointKey: 'device',
  endpointLook: /^([0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\b|^net_/i,
  claimOf: (settings) => `device ${settings.device}`,
  socketOf: () => null,
  getsNothing: () => false,
  pathKeys: [],
  mapKeys: { offloads: DPDK_OFFLOAD_NAMES },
  listKeys: [],
  changeable: {},
  schema,
  create,
};
