/**
 * Settings that every port has, whatever its kind, and what they decide: a new one is a field here, a field of
 * `PortPolicy` (src/queue/policy.ts), and the stage that acts on it. Main thread.
 */
import type { z } from 'zod';
import type { PortPolicy } from '../../src/queue/policy.ts';
import { onOff } from './kinds/values.ts';

/** Fields of the schema of every kind (kinds/port-object.ts merges them). */
export const COMMON_PORT_FIELDS = {
  /** Whether broadcast, multicast and unknown unicast frames are flooded to the port. */
  flood: onOff.default(true),
  /** Whether frames from the port are forwarded; otherwise the switch drops them all. */
  receive: onOff.default(true),
  /** Whether frames from the port to the addresses that bridges do not pass on (PAUSE, STP, LACP, …) are forwarded. */
  forwardBpdu: onOff.default(false),
};

export type CommonPortSettings = {
  readonly [Key in keyof typeof COMMON_PORT_FIELDS]: z.output<(typeof COMMON_PORT_FIELDS)[Key]>;
};

/** The part of a port's policy that its settings decide; the rest is the port's own, or the switch's. */
export function policyOf(settings: CommonPortSettings): Partial<PortPolicy> {
  return {
    floods: settings.flood,
    receives: settings.receive,
    forwardsLinkLocal: settings.forwardBpdu,
  };
}
