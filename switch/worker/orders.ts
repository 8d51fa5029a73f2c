/**
 * What the main thread and a poll worker say to each other. Orders go over a MessagePort; the worker, which
 * never returns to its event loop, looks for them when the epoch in its control block has moved, and answers
 * each one when it is done. `WorkerOrder` is posted, so it is plain data.
 */

import type { MessagePort } from 'node:worker_threads';
import type { ArenaLocation } from '../../src/memory/arena.ts';
import type { AddressMap } from '../../src/memory/gpa-translator.ts';
import type { AddressMiss } from '../../src/memory/iotlb.ts';
import type { QueueAttachment } from '../../src/port/kinds.ts';
import type { PortPolicy } from '../../src/queue/policy.ts';
import type { RingLog } from '../../src/vring/dirty-log.ts';
import type { CaptureSetup } from '../l2/capture-ring.ts';
import type { Flapping } from '../l2/fdb/moves.ts';
import type { ProbeSeen } from '../l2/loop-probes.ts';
import type { PluginOrder, PluginReport } from '../plugin/worker-plugins.ts';

export type WorkerOrder =
  | {
      readonly kind: 'addPort';
      readonly portId: number;
      readonly name: string;
      readonly counts: SharedArrayBuffer;
      readonly meters: SharedArrayBuffer;
    }
  | { readonly kind: 'removePort'; readonly portId: number }
  | { readonly kind: 'attach'; readonly queue: QueueAttachment }
  | { readonly kind: 'detach'; readonly portId: number; readonly queueIndex: number }
  | {
      readonly kind: 'setCallFd';
      readonly portId: number;
      readonly queueIndex: number;
      readonly callFd: number;
    }
  | {
      readonly kind: 'setMemory';
      readonly portId: number;
      readonly map: AddressMap;
      readonly isLonger: boolean;
      readonly paused: readonly number[];
    }
  | {
      readonly kind: 'setLog';
      readonly portId: number;
      readonly queueIndex: number;
      readonly log: RingLog | null;
    }
  | { readonly kind: 'announce'; readonly portId: number; readonly mac: readonly number[] }
  /** A frame of the switch's own, for these ports; null: for all of the VLAN. */
  | {
      readonly kind: 'emitInVlan';
      readonly frame: Uint8Array;
      readonly vlan: number;
      readonly portIds: readonly number[] | null;
    }
  /** Send a frame of the switch's own out of the port. */
  | { readonly kind: 'emit'; readonly portId: number; readonly frame: Uint8Array }
  | { readonly kind: 'setPolicy'; readonly portId: number; readonly policy: PortPolicy }
  | { readonly kind: 'startCapture'; readonly capture: CaptureSetup }
  | { readonly kind: 'endCapture'; readonly id: number }
  | PluginOrder
  /** Nothing is to be done: the answer tells that the worker's loop turns. */
  | { readonly kind: 'answer' }
  | { readonly kind: 'pin'; readonly cpu: number }
  | { readonly kind: 'stop' };

export type NumberedOrder = { readonly number: number; readonly order: WorkerOrder };

/** What is posted: orders between which nothing is forwarded, but for what a queue that is let go of still holds. */
export type OrderMessage = readonly NumberedOrder[];

export type WorkerReport =
  | PluginReport
  | { readonly kind: 'done'; readonly numbers: readonly number[] }
  /** Messages wait in its ring (l2/groups/message-ring.ts). */
  | { readonly kind: 'snooped' }
  /** Frames of the switch's own that came in again, and addresses that move again and again. */
  | {
      readonly kind: 'loops';
      readonly probes: readonly ProbeSeen[];
      readonly flapping: readonly Flapping[];
    }
  | { readonly kind: 'queueFailed'; readonly portId: number; readonly queueIndex: number }
  /** It goes on when a map comes (`setMemory`) that has the first of these. */
  | {
      readonly kind: 'queueWaits';
      readonly portId: number;
      readonly queueIndex: number;
      readonly misses: readonly AddressMiss[];
    };

/**
 * A worker's part of the arena. A little more than its forwarder needs, and a figure of its own, so that the main thread
 * does not load the forwarder for it; pages cost nothing until they are touched.
 */
export const WORKER_SCRATCH_BYTES = 2 ** 24;

/** Words (int32) of a worker's control block; each worker has a cache line of its own. */
export const CONTROL_EPOCH = 0;
/** 1 while the worker is about to block or blocks; orders then also need its wake-up descriptor. */
export const CONTROL_SLEEPING = 1;
/** Seconds since the start, counted by the main thread. */
export const CONTROL_TICK = 2;
/** Turns of the loop that found no frame, counted by the worker; 32 bits, running. */
export const CONTROL_EMPTY_TURNS = 3;
/** 1 once the process ends: the worker does not block any more, so that it can be ended at any moment. */
export const CONTROL_NEVER_BLOCKS = 4;
/** 1 while the worker has taken frames from queues that it could not give to anybody yet. */
export const CONTROL_HOLDS_FRAMES = 5;
/** Number of the plugin that the worker is calling, 0 of none, and how many calls there were: 32 bits, running. */
export const CONTROL_PLUGIN = 6;
export const CONTROL_PLUGIN_CALLS = 7;
export const CONTROL_BYTES = 64;

export type PollMode = 'adaptive' | 'busy';

/** Given to a worker at its start. */
export type WorkerSetup = {
  readonly index: number;
  readonly workerCount: number;
  /** Processor to pin the thread to; null: none. */
  readonly cpu: number | null;
  readonly poll: PollMode;
  /** Adaptive: how long to spin without work before blocking. */
  readonly idleUs: number;
  readonly arena: ArenaLocation;
  readonly fdb: SharedArrayBuffer;
  /** Addresses that moved lately, of MOVES_BYTES. */
  readonly moves: SharedArrayBuffer;
  /** The address that frames have by which the switch looks for loops. */
  readonly probeMac: Uint8Array;
  /** Of WORKER_SCRATCH_BYTES in the arena. */
  readonly scratchOffset: number;
  /** VLAN tags of a frame that are looked at, 1 or 2. */
  readonly vlanLimit: number;
  /** Where groups of IP go, and where messages about them are handed over; null: they are flooded. */
  readonly groups: { readonly table: SharedArrayBuffer; readonly messages: SharedArrayBuffer } | null;
  readonly control: SharedArrayBuffer;
  /** Of WORKER_FIGURES_BYTES (worker-figures.ts). */
  readonly figures: SharedArrayBuffer;
  /** An eventfd that wakes the worker when it blocks. */
  readonly wakeFd: number;
  readonly orders: MessagePort;
};
