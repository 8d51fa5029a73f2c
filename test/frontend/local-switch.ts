/**
 * Two vhost-user ports wired to each other in the test's own thread: what one guest sends the other receives,
 * queue pair by queue pair. The data path turns once in each turn of Node's loop, so tests need no workers
 * and see every step. `tamper` makes it a bad switch on purpose.
 */

import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { VhostUserPort } from '../../src/port/vhost-user/port.ts';
import { type EgressQueue, type IngressQueue, TAKE_FAULT, TAKE_FRAME } from '../../src/queue/contract.ts';
import type { DataPath } from '../../src/queue/data-path.ts';
import { Frame } from '../../src/queue/frame.ts';
import type { RingAttachment } from '../../src/vring/attachment.ts';
import { SplitFromGuest } from '../../src/vring/split-from-guest.ts';
import { SplitToGuest } from '../../src/vring/split-to-guest.ts';

const arena = Arena.reserve(2 ** 32);
const arenaView = new ArenaView(arena.location);
const BURST_FRAMES_MAX = 64;

/** What to do with the frame, the `number`-th of all; it may change the frame's bytes in the arena. */
export type Tamper = (frame: Frame, number: number, arenaView: ArenaView) => 'pass' | 'drop' | 'twice';

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

  constructor(ports: readonly LocalPort[], tamper: Tamper = () => 'pass') {
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
    for (const port of this.ports) port.start();
    this.#turn();
  }

  /** A ring of a port as the data path has it; undefined: not attached. */
  ring(portId: number, queueIndex: number): RingAttachment | undefined {
    return this.#path.attachment(portId, queueIndex);
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

type Attached = { ring: RingAttachment; queue: SplitFromGuest | SplitToGuest };

class LocalDataPath implements DataPath {
  readonly #owner: LocalSwitch;
  readonly #tamper: Tamper;
  readonly #attached = new Map<string, Attached>();
  readonly #frame = new Frame(arenaView);

  constructor(owner: LocalSwitch, tamper: Tamper) {
    this.#owner = owner;
    this.#tamper = tamper;
  }

  attachment(portId: number, queueIndex: number): RingAttachment | undefined {
    return this.#attached.get(`${portId}:${queueIndex}`)?.ring;
  }

  async attach(ring: RingAttachment): Promise<void> {
    const queue =
      ring.direction === 'ingress'
        ? new SplitFromGuest(arenaView, ring)
        : new SplitToGuest(arenaView, ring, false);
    this.#attached.set(`${ring.portId}:${ring.queueIndex}`, { ring, queue });
  }

  async detach(portId: number, queueIndex: number): Promise<void> {
    this.#attached.delete(`${portId}:${queueIndex}`);
  }

  async setCallFd(portId: number, queueIndex: number, callFd: number): Promise<void> {
    const queue = this.#attached.get(`${portId}:${queueIndex}`)?.queue;
    if (queue === undefined) return;
    queue.callFd = callFd;
    queue.signal();
  }

  async setPolicy(): Promise<void> {}

  poll(): void {
    for (const { ring, queue } of this.#attached.values()) {
      if (!(queue instanceof SplitFromGuest)) continue;
      const target = this.#attached.get(`${1 - ring.portId}:${ring.queueIndex - 1}`)?.queue;
      this.#forward(queue, target instanceof SplitToGuest ? target : null);
    }
  }

  #forward(from: IngressQueue, to: EgressQueue | null): void {
    to?.begin();
    for (let left = BURST_FRAMES_MAX; left > 0 && from.available() > 0; left--) {
      const result = from.take(this.#frame);
      if (result === TAKE_FAULT) break;
      if (result === TAKE_FRAME) this.#deliver(to);
      from.release();
    }
    to?.end();
    from.publish();
  }

  #deliver(to: EgressQueue | null): void {
    const fate = this.#tamper(this.#frame, this.#owner.frames++, arenaView);
    const times = { pass: 1, drop: 0, twice: 2 }[fate];
    if (to === null) this.#owner.drops++;
    else for (let i = 0; i < times; i++) if (to.give(this.#frame) !== 0) this.#owner.drops++;
  }
}
