/**
 * A data path without workers: it records what a device orders, lets the test delay an order's promise, and
 * checks what every data path relies on (nothing attached twice, nothing detached that is not attached,
 * descriptors open and memory mapped for as long as a ring is attached). Used by the tests of device and port.
 */
import { expect } from 'vitest';
import { describeFd } from '../../src/host/descriptor.ts';
import type { Arena } from '../../src/memory/arena.ts';
import { type AddressMap, type GpaMap, isIovaMap } from '../../src/memory/gpa-translator.ts';
import type { DataPath } from '../../src/queue/data-path.ts';
import type { PortPolicy } from '../../src/queue/policy.ts';
import type { RingAttachment } from '../../src/vring/attachment.ts';
import type { RingLog } from '../../src/vring/dirty-log.ts';

export type OrderKind = 'attach' | 'detach' | 'setCallFd' | 'setMemory' | 'setLog' | 'announce' | 'setPolicy';

/** An order kind whose promises wait for the test. */
export type Hold = {
  /** Resolves when the first such order has come. */
  readonly called: Promise<void>;
  /** Lets this order, and later ones of its kind, be done. */
  release(): void;
};

/** As most tests have it: not behind an IOMMU. */
export type AttachedRing = RingAttachment & { readonly map: GpaMap };

export class FakeDataPath implements DataPath {
  /** Every order as text, in order: `attach 0`, `detach 0`, `call 0`, `memory`, `limit 1522`. */
  log: string[] = [];
  readonly attached = new Map<number, AttachedRing>();
  /** Queues that nobody touches. */
  paused: readonly number[] = [];
  linkMtu: number | null = null;
  /** OFFLOAD_* bits. */
  takes = 0;
  /** What a device did that no data path could work with. */
  readonly violations: string[] = [];
  readonly #detaching = new Set<number>();
  readonly #arena: Arena;
  readonly #portId: number;
  readonly #holds = new Map<OrderKind, { arrived(): void; readonly released: Promise<void> }>();

  constructor(arena: Arena, portId: number) {
    this.#arena = arena;
    this.#portId = portId;
  }

  hold(kind: OrderKind): Hold {
    const called = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    this.#holds.set(kind, { arrived: called.resolve, released: released.promise });
    return {
      called: called.promise,
      release: () => {
        this.#holds.delete(kind);
        released.resolve();
      },
    };
  }

  /** The orders since the last call. */
  takeLog(): string[] {
    const { log } = this;
    this.log = [];
    return log;
  }

  async attach(ring: RingAttachment): Promise<void> {
    this.#require(ring.portId === this.#portId, `attach for port ${ring.portId}`);
    this.#require(!this.attached.has(ring.queueIndex), `ring ${ring.queueIndex} is attached twice`);
    this.attached.set(ring.queueIndex, ring as AttachedRing);
    this.log.push(`attach ${ring.queueIndex}`);
    this.checkAttached();
    await this.#obey('attach');
  }

  async detach(portId: number, queueIndex: number): Promise<void> {
    this.#requireRing('detach', portId, queueIndex);
    this.#require(!this.#detaching.has(queueIndex), `ring ${queueIndex} is detached twice at once`);
    this.#detaching.add(queueIndex);
    this.log.push(`detach ${queueIndex}`);
    await this.#obey('detach');
    this.#detaching.delete(queueIndex);
    // Until now a worker may have used all of it.
    this.checkAttached();
    this.attached.delete(queueIndex);
  }

  async setCallFd(portId: number, queueIndex: number, callFd: number): Promise<void> {
    this.#requireRing('setCallFd', portId, queueIndex);
    this.log.push(`call ${queueIndex}`);
    await this.#obey('setCallFd');
    // Both descriptors, the old and the new, are open until the order is done.
    this.checkAttached();
    this.#update(queueIndex, { callFd });
    this.checkAttached();
  }

  async setMemory(
    portId: number,
    map: AddressMap,
    _isLonger: boolean,
    paused: readonly number[] = [],
  ): Promise<void> {
    this.#require(portId === this.#portId, `setMemory for port ${portId}`);
    this.log.push(['memory', ...paused].join(' '));
    await this.#obey('setMemory');
    // Until now a worker may have used all that it knew.
    this.checkAttached();
    for (const queueIndex of this.attached.keys()) this.#update(queueIndex, { map });
    this.paused = paused;
    this.checkAttached();
  }

  async setLog(portId: number, queueIndex: number, log: RingLog | null): Promise<void> {
    this.#requireRing('setLog', portId, queueIndex);
    this.log.push(`log ${queueIndex}`);
    await this.#obey('setLog');
    // Until now a worker may have marked in the old one.
    this.checkAttached();
    this.#update(queueIndex, { log });
    this.checkAttached();
  }

  async announce(portId: number, mac: readonly number[]): Promise<void> {
    this.#require(portId === this.#portId, `announce for port ${portId}`);
    this.log.push(`announce ${Buffer.from(mac).toString('hex')}`);
    await this.#obey('announce');
  }

  async setPolicy(portId: number, { linkMtu, takes }: Partial<PortPolicy>): Promise<void> {
    this.#require(portId === this.#portId, `setPolicy for port ${portId}`);
    if (takes !== undefined) this.takes = takes;
    if (linkMtu !== undefined) {
      this.log.push(`limit ${linkMtu}`);
      this.linkMtu = linkMtu;
    }
    await this.#obey('setPolicy');
  }

  /** Whether everything that is attached could be used by a worker right now. */
  checkAttached(): void {
    for (const { queueIndex, kickFd, callFd, map, log } of this.attached.values()) {
      for (const fd of [kickFd, callFd, log?.signalFd ?? -1]) {
        if (fd < 0) continue;
        const what = describeFd(fd);
        this.#require(
          /^(anon_inode:\[eventfd\]|socket:)/.test(what),
          `ring ${queueIndex} has ${what} for ${fd}`,
        );
      }
      // Behind an IOMMU many addresses may be one byte of it.
      const ranges = isIovaMap(map as AddressMap) ? [] : map;
      const sharedBytes = ranges.reduce((sum, { start, end }) => sum + end - start, log?.sizeBytes ?? 0);
      this.#require(this.#arena.mappedBytes >= sharedBytes, `memory of ring ${queueIndex} is not mapped`);
    }
  }

  expectSound(): void {
    this.checkAttached();
    expect(this.violations).toEqual([]);
  }

  async #obey(kind: OrderKind): Promise<void> {
    const hold = this.#holds.get(kind);
    hold?.arrived();
    await hold?.released;
  }

  #update(queueIndex: number, change: Partial<RingAttachment>): void {
    const ring = this.attached.get(queueIndex);
    if (ring !== undefined) this.attached.set(queueIndex, { ...ring, ...change } as AttachedRing);
  }

  #requireRing(what: string, portId: number, queueIndex: number): void {
    this.#require(portId === this.#portId, `${what} for port ${portId}`);
    this.#require(this.attached.has(queueIndex), `${what} of ring ${queueIndex}, which is not attached`);
  }

  #require(holds: boolean, violation: string): void {
    if (!holds) this.violations.push(violation);
  }
}
