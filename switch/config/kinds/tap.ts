/** Ports of kind `tap`: a TAP interface of the host, by which its network stack takes part in the switch. */
import { z } from 'zod';
import { MTU_MIN, parseMac } from '../../../protocol/ethernet.ts';
import type { Port, PortContext } from '../../../src/port/contract.ts';
import { TAP_MTU_MAX, TAP_NAME_BYTES_MAX } from '../../../src/port/tap/interface.ts';
import { parseIpPrefix } from '../../../src/port/tap/ip-prefix.ts';
import { TapPort } from '../../../src/port/tap/port.ts';
import { OFFLOAD_NAMES } from '../../../src/queue/offloads.ts';
import type { PortKindSpec } from './contract.ts';
import { offloads } from './offloads.ts';
import { portObject, refusing } from './port-object.ts';
import { onOff, pathOf, stationMac, wholeNumber } from './values.ts';

const QUEUES_MAX = 16;
const NAME_ALLOWED = `name of an interface: 1 to ${TAP_NAME_BYTES_MAX} bytes, no spaces, no / : %`;
const ADDRESSES_ALLOWED = 'a list of addresses with prefix, for example 10.0.0.1/24+fd00::1/64';

const interfaceName = z
  .string(NAME_ALLOWED)
  .refine((name) => /^[^\s/:%\0]+$/.test(name) && name !== '.' && name !== '..', NAME_ALLOWED)
  .refine((name) => Buffer.byteLength(name) <= TAP_NAME_BYTES_MAX, NAME_ALLOWED);

const ipPrefix = z.string(ADDRESSES_ALLOWED).transform((text, context) => {
  const prefix = parseIpPrefix(text);
  if (prefix !== null) return prefix;
  context.issues.push({ code: 'custom', message: ADDRESSES_ALLOWED, input: text });
  return z.NEVER;
});

/** A list in a file; on the command line, where a comma ends the setting, one text. */
const ipPrefixes = z.preprocess(
  (value) => (typeof value === 'string' ? value.split('+') : value),
  z.array(ipPrefix, ADDRESSES_ALLOWED).min(1, ADDRESSES_ALLOWED),
);

function schema() {
  return portObject('interface', {
    kind: z.literal('tap'),
    interface: interfaceName,
    namespace: pathOf('name or path of a network namespace').optional(),
    queues: wholeNumber(1, QUEUES_MAX).default(1),
    mac: stationMac.optional(),
    addresses: ipPrefixes.optional(),
    up: onOff.default(true),
    offloads: offloads.optional(),
  }).check(
    refusing(({ mtu = 0 }, refuse) => {
      if (mtu > TAP_MTU_MAX) refuse('mtu', `${MTU_MIN} to ${TAP_MTU_MAX}`);
    }),
  );
}

export type TapSettings = z.output<ReturnType<typeof schema>>;

function create(settings: TapSettings, context: PortContext): Port {
  return new TapPort(
    {
      interfaceName: settings.interface,
      namespace: settings.namespace ?? null,
      queueCount: settings.queues,
      mtu: settings.mtu ?? null,
      mac: settings.mac === undefined ? null : parseMac(settings.mac),
      addresses: settings.addresses ?? [],
      bringUp: settings.up,
      offloads: settings.offloads ?? {},
    },
    context,
  );
}

export const TAP: PortKindSpec<TapSettings> = {
  endpointKey: 'interface',
  endpointLook: null,
  claimOf: (settings) => `interface ${settings.interface} in ${settings.namespace ?? 'our namespace'}`,
  socketOf: () => null,
  getsNothing: () => false,
  pathKeys: [],
  mapKeys: { offloads: OFFLOAD_NAMES },
  listKeys: ['addresses'],
  changeable: { offloads: offloads.optional() },
  schema,
  create,
};
