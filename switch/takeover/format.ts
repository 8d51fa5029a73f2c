/**
 * The format in which a Ringway hands itself over to its successor, checked when it comes: records of JSON, each with its
 * descriptors, which the JSON names by their place among them. FORMAT is raised with any change of it; whoever is asked in
 * another one refuses by name. Order of the records, each after the answer to the one before:
 *
 *     successor       running one
 *     (asks by the control API, with its formats)
 *                     state       what every port is made from; the fronts are frozen, frames flow
 *     ready           (all is mapped, the workers run)
 *                     positions   nobody uses the rings any more
 *     done            (every ring can go on)
 *                     go          it ends; the rings are the successor's
 *
 * Whoever gives up closes the connection; until `go` is sent, the running one goes on. Main thread.
 */
import { z } from 'zod';
import type { HandedPort, HandedVhostUserPort, PortPositions } from '../../src/port/hand-over.ts';
import type { Books } from '../control/books.ts';
import type { HandedStore } from '../service/store.ts';

export const FORMAT = 1;

const Text64 = z.string().regex(/^\d{1,20}$/);
const Descriptor = z.int().nonnegative();
const Layout = z.enum(['split', 'packed']);
const Word = z.int();
const HandedNotice = z.object({ index: Word, isDue: z.boolean() });
const Guest = z.object({ pid: z.int().nullable(), offered: Text64 });

const Listener = z.object({
  path: z.string(),
  fd: Descriptor,
  file: z.object({ dev: Text64, ino: Text64 }).nullable(),
});

const VhostUser = z.object({
  kind: z.literal('vhost-user'),
  endpoint: z.string(),
  role: z.enum(['server', 'client']),
  listener: Listener.nullable(),
  connection: z
    .object({
      fd: Descriptor,
      isSilent: z.boolean(),
      halfRead: z.object({ bytes: z.base64(), fds: z.array(Descriptor) }),
      offered: Text64,
      messages: z.array(z.object({ name: z.string(), payload: z.base64(), fds: z.array(Descriptor) })),
      refusal: z.string().nullable(),
    })
    .nullable(),
  lastServed: Guest.nullable(),
  mayInsist: Guest.nullable(),
  lastToAsk: z.int().nullable(),
  lastWhy: z.string().nullable(),
  lastRuns: z.array(
    z.object({
      index: Word,
      layout: Layout,
      size: Word,
      place: z.string().nullable(),
      base: Word.nullable(),
      availNext: Word,
      usedNext: Word,
    }),
  ),
});

const Tap = z.object({ kind: z.literal('tap'), endpoint: z.string(), fds: z.array(Descriptor) });

const Unix = z.object({
  kind: z.literal('unix'),
  endpoint: z.string(),
  peer: z.string(),
  transport: z.enum(['stream', 'dgram']),
  listener: Listener.nullable(),
  fd: Descriptor.nullable(),
});

const Pcap = z.object({
  kind: z.literal('pcap'),
  endpoint: z.string(),
  direction: z.enum(['write', 'read']),
  fd: Descriptor.nullable(),
  ended: z.string().nullable(),
});

export const VhostUserState: z.ZodType<HandedVhostUserPort> = VhostUser;
const PortState: z.ZodType<HandedPort> = z.discriminatedUnion('kind', [VhostUser, Tap, Unix, Pcap]);

export const Positions: z.ZodType<PortPositions> = z.object({
  rings: z.array(
    z.object({
      index: Word,
      base: Word.nullable(),
      ranAs: Layout.nullable(),
      goesOn: z.boolean(),
      addressesAreOld: z.boolean(),
      addressesWereUsed: z.boolean(),
      wasOwnQueue: z.boolean(),
      wasRemarkedOn: z.boolean(),
      enabled: z.boolean(),
      availNext: Word,
      usedNext: Word,
      fault: Word,
      reason: z.string().nullable(),
      kickIsOurs: z.boolean(),
      stoodAtReset: Word.nullable(),
    }),
  ),
  device: z
    .object({
      status: Word,
      featuresRefused: z.boolean(),
      isLogBehind: z.boolean(),
      inBand: z.object({
        endReason: z.string().nullable(),
        refusedCount: Word,
        halfRead: z.base64(),
        unsent: z.base64(),
        calls: z.array(HandedNotice),
        errors: z.array(HandedNotice),
        unanswered: z.array(z.object({ name: z.enum(['VRING_CALL', 'VRING_ERR']), index: Word })),
      }),
    })
    .nullable(),
  net: z
    .object({
      askedForQueues: z.boolean(),
      activePairs: Word.nullable(),
      takes: Word,
      filter: z.object({
        on: z.array(z.string()),
        mac: z.hex().nullable(),
        unicastMacs: z.hex(),
        multicastMacs: z.hex(),
        vlans: z.array(Word),
      }),
    })
    .nullable(),
  left: z.array(z.base64()),
  capture: z.object({ progress: z.array(z.number()), interfaces: z.array(Word) }).nullable(),
  counts: z.array(z.array(z.number())),
});

const Numbers = z.record(z.string(), z.number());
const GoneBooks: z.ZodType<Books> = z.object({ counters: Numbers, drops: Numbers }) as never;
const Store: z.ZodType<HandedStore> = z.object({
  max: Word,
  files: z.array(z.object({ name: z.string(), key: z.string() })),
  notes: z.record(z.string(), Descriptor),
});

/** An address that was learned: as FdbEntry, but for the port's name and seconds since it was seen. */
const Address = z.tuple([z.int(), z.int(), z.int(), z.string(), z.int()]);

export const RECORDS = {
  state: z.object({
    record: z.literal('state'),
    format: z.literal(FORMAT),
    ports: z.record(z.string(), PortState),
    /** The file of positions, whose lock goes with it; null: there is none. */
    positionsFile: z.object({ path: z.string(), fd: Descriptor }).nullable(),
    fdb: z.array(Address),
    /** Members of groups and ports of routers (switch/snooping/snooping.ts); left out: none are known. */
    groups: z
      .object({
        members: z.array(z.tuple([z.int(), z.string(), z.string(), z.int().nullable()])),
        routers: z.array(z.tuple([z.int(), z.string(), z.int()])),
      })
      .optional(),
    /** Ports that are shut because of a loop, by name (switch/loop-guard.ts); left out: none is. */
    shut: z.record(z.string(), z.object({ why: z.string(), secondsLeft: z.int().nonnegative() })).optional(),
    /** What the process was told as a service (switch/service/service.ts); null: it is none. */
    service: z
      .object({
        notifyAddress: z.string(),
        watchdogUs: Word.nullable(),
        /** The manager's descriptor store (switch/service/store.ts); null: it has none. */
        store: Store.nullable(),
      })
      .nullable(),
  }),
  ready: z.object({ record: z.literal('ready') }),
  positions: z.object({
    record: z.literal('positions'),
    ports: z.record(
      z.string(),
      z.object({ positions: Positions, workerCounts: z.record(z.string(), z.number()) }),
    ),
    /** Of ports that were removed. */
    gone: GoneBooks,
    /** When rings began to rest, by the clock that all processes share. */
    restNs: Text64,
  }),
  done: z.object({ record: z.literal('done') }),
  go: z.object({ record: z.literal('go') }),
} as const;

export type RecordName = keyof typeof RECORDS;
export type RecordOf<Name extends RecordName> = z.output<(typeof RECORDS)[Name]>;
export type SwitchState = Omit<RecordOf<'state'>, 'record' | 'format'>;
export type SwitchPositions = Omit<RecordOf<'positions'>, 'record'>;
