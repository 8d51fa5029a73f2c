/**
 * Two vhost-user ports wired to each other in the test's own thread: what one guest sends the other receives,
 * queue pair by queue pair. The data path turns once in each turn of Node's loop, so tests need no workers
 * and see every step. `tamper` makes it a bad switch on purpose.
 */

import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import type { AddressMap } from '../../src/memory/gpa-translator.ts';
import type { HandedPort } from '../../src/port/hand-over.ts';
import { VhostUserPort } from '../../src/port/vhost-user/port.ts';
import { BATCH_FRAMES_MAX, Batch } from '../../src/queue/batch.ts';
import type { EgressQueue, IngressQueue } from '../../src/queue/contract.ts';
import type { DataPath } from '../../src/queue/data-path.ts';
import { readHeads } from '../../src/queue/heads.ts';
import type { RingAttachment } from '../../src/vring/attachment.ts';
import type { RingLog } from '../../src/vring/dirty-log.ts';
import { FromGuest } from '../../src/vring/from-guest.ts';
import { ToGuest } from '../../src/vring/to-guest.ts';

const arena = Arena.reserve(2 ** 32);
const arenaView = new ArenaView(arena.location);

/** A frame in the arena, in one piece. */
export type TamperFrame = { readonly u8: Uint8Array; readonly index: number };
/** What to do with a frame, the `number`-th of all; it may change the frame's bytes in the arena. */
export type Tamper = (frame: TamperFrame, number: number) => 'pass' | 'drop' | 'twice';

export type LocalPort = {
  readonly socketPath: string;
  readonly role?: 'server' | 'client';
  readonly queuePairsMax?: number;
};

export class LocalSwitch {
  readonly ports: readonly VhostUserPort[];
  readonly warnings: string[] = [];
  frames = 0;
  drops = 0;
  readonly #path: LocalDataPath;
  #running = true;

  /** Of which each port has begun to serve. */
  readonly started: Promise<unknown>;

  /** `handed`: what each port takes over, frozen and at rest. */
  constructor(
    ports: readonly LocalPort[],
    tamper: Tamper | null = null,
    handed: readonly HandedPort[] | null = null,
  ) {
    this.#path = new LocalDataPath(this, tamper);
    this.ports = ports.map(
      ({ socketPath, role, queuePairsMax }, id) =>
        new VhostUserPort(
          {
            socketPath,
            role: role ?? 'server',
            listen: {},
            device: { queuePairsMax: queuePairsMax ?? 4, configSpace: false, mac: null, mtu: null },
          },
          {
            id,
            name: `port${id}`,
            arena,
            arenaView,
            dataPath: this.#path,
            events: {
              info: () => {},
              warn: (message) => this.warnings.push(message),
              disconnected: () => {},
            },
          },
        ),
    );
    for (const [i, port] of this.ports.entries()) if (handed !== null) port.takeOver(handed[i]);
    this.started = Promise.all(this.ports.map((port) => port.start()));
    this.#turn();
  }

  /** A ring of a port as the data path has it; undefined: not attached. */
  ring(portId: number, queueIndex: number): RingAttachment | undefined {
    return this.#path.attachment(portId, queueIndex);
  }

  /** Somebody else uses what the ports had. */
  abandon(): void {
    this.#running = false;
  }

  async stop(): Promise<void> {
    for (const port of this.ports) await port.stop();
    this.#running = false;
  }

  #turn(): void {
    if (!this.#running) return;
    this.#path.poll();
    setImmediate(() => this.#turn());
  }
}

class LocalDataPath implements DataPath {
  readonly #owner: LocalSwitch;
  readonly #tamper: Tamper | null;
  readonly #attached = new Map<string, RingAttachment>();
  readonly #ingress = new Map<string, IngressQueue>();
  readonly #egress = new Map<string, EgressQueue>();
  readonly #batch = new Batch();
  /** Room for every frame twice. */
  readonly #order = new Int32Array(2 * BATCH_FRAMES_MAX);

  constructor(owner: LocalSwitch, tamper: Tamper | null) {
    this.#owner = owner;
    this.#tamper = tamper;
  }

  attachment(portId: number, queueIndex: number): RingAttachment | undefined {
    return this.#attached.get(keyOf(portId, queueIndex));
  }

  async attach(ring: RingAttachment): Promise<void> {
    const key = keyOf(ring.portId, ring.queueIndex);
    this.#attached.set(key, ring);
    if (ring.direction === 'ingress') this.#ingress.set(key, new FromGuest(arenaView, ring));
    else this.#egress.set(key, new ToGuest(arenaView, ring, false));
  }

  async detach(portId: number, queueIndex: number): Promise<void> {
    const key = keyOf(portId, queueIndex);
    for (const queues of [this.#attached, this.#ingress, this.#egress]) queues.delete(key);
  }

  async setCallFd(portId: number, queueIndex: number, callFd: number): Promise<void> {
    const key = keyOf(portId, queueIndex);
    (this.#ingress.get(key) ?? this.#egress.get(key))?.setCallFd(callFd);
  }

  async setMemory(portId: number, map: AddressMap): Promise<void> {
    for (const queue of [...this.#ingress.values(), ...this.#egress.values()]) {
      if (queue.portId === portId) queue.setMemory(map);
    }
  }

  async setLog(portId: number, queueIndex: number, log: RingLog | null): Promise<void> {
    const key = keyOf(portId, queueIndex);
    (this.#ingress.get(key) ?? this.#egress.get(key))?.setLog(log);
  }

  async announce(): Promise<void> {}

  async setPolicy(): Promise<void> {}

  poll(): void {
    for (const from of this.#ingress.values()) {
      this.#forward(from, this.#egress.get(keyOf(1 - from.portId, from.queueIndex - 1)));
    }
  }

  #forward(from: IngressQueue, to: EgressQueue | undefined): void {
    const batch = this.#batch;
    if (from.gather(batch) === 0) return;
    if (batch.count > 0) {
      const count = this.#choose();
      // What was tampered with is part of the frame, so its addresses are read after that.
      readHeads(batch, arenaView.windows);
      if (to === undefined) this.#owner.drops += batch.count;
      else this.#deliver(to, count);
    }
    from.finish();
  }

  /** Fills the order with the frames that go on, and answers how many. */
  #choose(): number {
    const batch = this.#batch;
    let count = 0;
    for (let frame = 0; frame < batch.count; frame++) {
      const number = this.#owner.frames++;
      for (let left = this.#timesOf(frame, number); left > 0; left--) this.#order[count++] = frame;
    }
    return count;
  }

  #timesOf(frame: number, number: number): number {
    if (this.#tamper === null) return 1;
    const batch = this.#batch;
    const { u8 } = arenaView.windows[batch.windowOf(frame)];
    const fate = this.#tamper({ u8, index: batch.indexOf(frame) }, number);
    return { pass: 1, drop: 0, twice: 2 }[fate];
  }

  #deliver(to: EgressQueue, count: number): void {
    to.begin();
    to.place(this.#batch, this.#order, count);
    to.end();
    this.#owner.drops += this.#batch.refusedCount;
  }
}

function keyOf(portId: number, queueIndex: number): string {
  return `${portId}:${queueIndex}`;
}
