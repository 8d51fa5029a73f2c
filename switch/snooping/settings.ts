/** What snooping is set to: of the switch, and of a port. Plain data; by the words of Open vSwitch where it has them. */

export type SnoopingSettings = {
  readonly enabled: boolean;
  /** Whether frames to groups that nobody joined go to all ports, or to routers alone. */
  readonly floodUnregistered: boolean;
  /** VLANs whose groups are looked at; null: all. */
  readonly vlans: readonly number[] | null;
  /** Sources of queries of our own, one for IPv4 and one for IPv6 at most; none: we ask nothing. */
  readonly querier: readonly string[];
  /** A member is forgotten that was not heard of for so long. */
  readonly ageSeconds: number;
  /** Groups remembered at most. */
  readonly groups: number;
};

export const SNOOPING_DEFAULTS: SnoopingSettings = {
  enabled: false,
  floodUnregistered: true,
  vlans: null,
  querier: [],
  ageSeconds: 300,
  groups: 2048,
};

export const GROUPS_MAX = 65_536;

/** `mrouter`: whether a router is behind the port: as it shows, always, never. */
export type PortSnooping = { readonly mrouter: 'auto' | 'on' | 'off'; readonly fastLeave: boolean };
