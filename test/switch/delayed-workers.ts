/**
 * Workers that do nothing but take their time: every order is done some turns of Node's loop later, a seeded number
 * of them. They check what ports may ask of workers and when, and know what is left.
 */
import type { QueueAttachment } from '../../src/port/kinds.ts';
import type { PortPolicy } from '../../src/queue/policy.ts';
import { PORT_COUNTS } from '../../switch/l2/port-counts.ts';
import type { PortWorkers } from '../../switch/port-table.ts';
import { Random } from '../vring/random.ts';

export class DelayedWorkers implements PortWorkers {
  /** What no worker could have obeyed. */
  readonly violations: string[] = [];
  /** Ports that any worker may still know. */
  readonly known = new Set<number>();
  readonly attached = new Map<string, QueueAttachment>();
  readonly policies = new Map<number, Partial<PortPolicy>>();
  /** Ports in the order in which they were added. */
  readonly added: number[] = [];
  /** What every order waits for, too; null: nothing. */
  hold: Promise<void> | null = null;
  readonly #random: Random;
  readonly #turnsMax: number;

  constructor(seed: number, turnsMax = 4) {
    this.#random = new Random(seed);
    this.#turnsMax = turnsMax;
  }

  async addPort(portId: number): Promise<void> {
    this.#require(!this.known.has(portId), `port ${portId} is added before it is forgotten`);
    this.known.add(portId);
    this.added.push(portId);
    await this.#someTime();
  }

  async removePort(portId: number): Promise<Float64Array> {
    this.#require(this.known.has(portId), `port ${portId} is removed but not there`);
    this.#require(this.#queuesOf(portId) === 0, `port ${portId} is removed with queues attached`);
    await this.#someTime();
    this.known.delete(portId);
    this.policies.delete(portId);
    return new Float64Array(PORT_COUNTS);
  }

  async attach(queue: QueueAttachment): Promise<void> {
    const key = `${queue.portId}:${queue.queueIndex}`;
    this.#require(this.known.has(queue.portId), `queue ${key} is attached to a port that is not there`);
    this.#require(!this.attached.has(key), `queue ${key} is attached twice`);
    this.attached.set(key, queue);
    await this.#someTime();
  }

  async detach(portId: number, queueIndex: number): Promise<void> {
    const key = `${portId}:${queueIndex}`;
    this.#require(this.attached.has(key), `queue ${key} is detached but not attached`);
    await this.#someTime();
    this.attached.delete(key);
  }

  async setCallFd(): Promise<void> {
    await this.#someTime();
  }

  async setMemory(): Promise<void> {
    await this.#someTime();
  }

  async setLog(): Promise<void> {
    await this.#someTime();
  }

  async announce(): Promise<void> {
    await this.#someTime();
  }

  async setPolicy(portId: number, change: Partial<PortPolicy>): Promise<void> {
    this.#require(this.known.has(portId), `port ${portId} gets a policy but is not there`);
    this.policies.set(portId, { ...this.policies.get(portId), ...change });
    await this.#someTime();
  }

  #queuesOf(portId: number): number {
    return [...this.attached.values()].filter((queue) => queue.portId === portId).length;
  }

  #require(holds: boolean, otherwise: string): void {
    if (!holds) this.violations.push(otherwise);
  }

  async #someTime(): Promise<void> {
    for (let turn = this.#random.between(0, this.#turnsMax); turn > 0; turn--)
      await new Promise(setImmediate);
    await this.hold;
  }
}
