/** What `ringway mdb` tells: the JSON of GET /v1/mdb. */

export type MdbReport = {
  readonly enabled: boolean;
  readonly capacity: number;
  readonly ageSeconds: number;
  readonly floodUnregistered: boolean;
  readonly groups: readonly {
    readonly vlan: number;
    readonly group: string;
    readonly port: string;
    readonly ageSeconds: number;
    /** Null: it was added by hand, and stays. */
    readonly leftSeconds: number | null;
  }[];
  readonly routers: readonly {
    /** Null: of all VLANs. */
    readonly vlan: number | null;
    readonly port: string;
    /** Null: by its settings. */
    readonly leftSeconds: number | null;
  }[];
  readonly queriers: readonly {
    readonly vlan: number;
    readonly address: string;
    /** Null: this switch. */
    readonly port: string | null;
    readonly ageSeconds: number;
  }[];
  /** Messages about groups that nobody read because too many came at once. */
  readonly lostMessages: number;
  /** Memberships that gave way to those of ports with fewer. */
  readonly evicted: number;
};

/** What is said of groups of one port: memberships, and what was not taken. */
export type PortGroups = {
  readonly groups: number;
  /** Wishes to join for which there was no room. */
  readonly refused: number;
  /** Messages that were not as they should be, by what was wrong. */
  readonly bad: Readonly<Record<string, number>>;
};
