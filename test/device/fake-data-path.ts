/**
 * A data path without workers: it records what a device orders, lets the test delay an order's promise, and
 * checks what every data path relies on (nothing attached twice, nothing detached that is not attached,
 * descriptors open and memory mapped for as long as a ring is attached). Used by the tests of device and port.
 */
import { expect } from 'vitest';
import type { DataPath } from '../../src/device/data-path.ts';
import { describeFd } from '../../src/host/descriptor.ts';
import type { Arena } from '../../src/memory/arena.ts';
import type { RingAttachment } from '../../src/vring/contract.ts';

export type OrderKind = 'attach' | 'detach' | 'setEnabled' | 'setCallFd' | 'setFrameLimit';

/** An order kind whose promises wait for the test. */
export type Hold = {
  /** Resolves when the first such order has come. */
  readonly called: Promise<void>;
  /** Lets this order, and later ones of its kind, be done. */
  release(): void;
};

export class FakeDataPath implements DataPath {
  /** Every order as text, in order: `attach 0`, `detach 0`, `enable 0 true`, `call 0`, `limit 1522`. */
  log: string[] = [];
  readonly attached = new Map<number, RingAttachment>();
  frameBytesMax: number | null = null;
  /** What a device did that no data path could work with. */
  readonly violations: string[] = [];
  /** Called at each setEnabled, in the middle of it. */
  onSetEnabled: () => void = () => {};
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
    this.#require(!this.attached.has(ring.ringIndex), `ring ${ring.ringIndex} is attached twice`);
    this.attached.set(ring.ringIndex, ring);
    this.log.push(`attach ${ring.ringIndex}`);
    this.checkAttached();
    await this.#obey('attach');
  }

  async detach(portId: number, ringIndex: number): Promise<void> {
    this.#requireRing('detach', portId, ringIndex);
    this.#require(!this.#detaching.has(ringIndex), `ring ${ringIndex} is detached twice at once`);
    this.#detaching.add(ringIndex);
    this.log.push(`detach ${ringIndex}`);
    await this.#obey('detach');
    this.#detaching.delete(ringIndex);
    // Until now a worker may have used all of it.
    this.checkAttached();
    this.attached.delete(ringIndex);
  }

  async setEnabled(portId: number, ringIndex: number, enabled: boolean): Promise<void> {
    this.#requireRing('setEnabled', portId, ringIndex);
    this.log.push(`enable ${ringIndex} ${enabled}`);
    this.#update(ringIndex, { enabled });
    this.onSetEnabled();
    await this.#obey('setEnabled');
  }

  async setCallFd(portId: number, ringIndex: number, callFd: number): Promise<void> {
    this.#requireRing('setCallFd', portId, ringIndex);
    this.log.push(`call ${ringIndex}`);
    await this.#obey('setCallFd');
    // Both descriptors, the old and the new, are open until the order is done.
    this.checkAttached();
    this.#update(ringIndex, { callFd });
    this.checkAttached();
  }

  async setFrameLimit(portId: number, frameBytesMax: number): Promise<void> {
    this.#require(portId === this.#portId, `setFrameLimit for port ${portId}`);
    this.log.push(`limit ${frameBytesMax}`);
    this.frameBytesMax = frameBytesMax;
    await this.#obey('setFrameLimit');
  }

  /** Whether everything that is attached could be used by a worker right now. */
  checkAttached(): void {
    for (const { ringIndex, kickFd, callFd, map } of this.attached.values()) {
      for (const fd of [kickFd, callFd]) {
        if (fd < 0) continue;
        const what = describeFd(fd);
        this.#require(
          /^(anon_inode:\[eventfd\]|pipe:)/.test(what),
          `ring ${ringIndex} has ${what} for ${fd}`,
        );
      }
      const sharedBytes = map.reduce((sum, { start, end }) => sum + end - start, 0);
      this.#require(this.#arena.mappedBytes >= sharedBytes, `memory of ring ${ringIndex} is not mapped`);
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

  #update(ringIndex: number, change: Partial<RingAttachment>): void {
    const ring = this.attached.get(ringIndex);
    if (ring !== undefined) this.attached.set(ringIndex, { ...ring, ...change });
  }

  #requireRing(what: string, portId: number, ringIndex: number): void {
    this.#require(portId === this.#portId, `${what} for port ${portId}`);
    this.#require(this.attached.has(ringIndex), `${what} of ring ${ringIndex}, which is not attached`);
  }

  #require(holds: boolean, violation: string): void {
    if (!holds) this.violations.push(violation);
  }
}
