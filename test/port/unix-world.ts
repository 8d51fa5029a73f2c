/**
 * What the tests of UNIX ports stand in: an arena, a data path that the test itself turns, and the other side of
 * the socket. Test thread only.
 */
import { closeFd } from '../../src/host/descriptor.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import type { Port, PortContext } from '../../src/port/contract.ts';
import { openEgress, openIngress, type QueueAttachment } from '../../src/port/kinds.ts';
import type { UnixAttachment } from '../../src/port/unix/queues.ts';
import { AS_THEY_CAME, Batch } from '../../src/queue/batch.ts';
import type { EgressQueue, IngressQueue } from '../../src/queue/contract.ts';
import type { DataPath } from '../../src/queue/data-path.ts';
import { gatherHead, readHeads } from '../../src/queue/heads.ts';
import type { PortPolicy } from '../../src/queue/policy.ts';
import { COUNT_FRAMES, COUNT_LOST, QueueState } from '../../src/queue/state.ts';
import { Events } from './events.ts';

export const arena = Arena.reserve(2 ** 32);
export const arenaView = new ArenaView(arena.location);
const SOURCE_BYTES = 2 ** 20;
/** Longer than anything takes, also where there is much else to do; a test may take longer. */
const TURN_MS_MAX = 20_000;

/** One port's queues, which the test fills and empties. */
export class UnixWorld implements DataPath {
  readonly events = new Events();
  readonly context: PortContext;
  port: Port | null = null;
  ingress: IngressQueue | null = null;
  egress: EgressQueue | null = null;
  attachments: UnixAttachment[] = [];
  linkMtu = 0;
  /** Frames that were taken and cannot be forwarded. */
  tooShort = 0;
  tooLong = 0;
  /** A worker has let go of a queue, or uses it, when this resolves. */
  answers: Promise<void> = Promise.resolve();
  readonly #batch = new Batch();
  readonly #sourceOffset: number;
  #turning = true;

  constructor() {
    this.context = {
      id: 5,
      name: 'u0',
      arena,
      arenaView,
      dataPath: this,
      events: this.events.sink,
    };
    const fd = createMemoryFile('source', SOURCE_BYTES);
    this.#sourceOffset = arena.map({
      fd,
      fileOffset: 0,
      sizeBytes: SOURCE_BYTES,
      pageBytes: 4096,
      preferredOffset: null,
    });
    closeFd(fd);
  }

  async attach(attachment: QueueAttachment): Promise<void> {
    await this.answers;
    this.attachments.push(attachment as UnixAttachment);
    if (attachment.direction === 'ingress') this.ingress = openIngress(arenaView, attachment);
    else this.egress = openEgress(arenaView, attachment, false);
  }

  async detach(_portId: number, queueIndex: number): Promise<void> {
    await this.answers;
    this.attachments = this.attachments.filter((attachment) => attachment.queueIndex !== queueIndex);
    if (queueIndex % 2 === 1) this.ingress = null;
    else this.egress = null;
  }

  async setCallFd(): Promise<void> {}
  async setMemory(): Promise<void> {}
  async setLog(): Promise<void> {}
  async announce(): Promise<void> {}

  async setPolicy(_portId: number, { linkMtu }: Partial<PortPolicy>): Promise<void> {
    this.linkMtu = linkMtu ?? this.linkMtu;
  }

  /** Everything that has come in by now; tells the port of faults as a worker would. */
  receive(): Buffer[] {
    const frames: Buffer[] = [];
    const queue = this.ingress;
    while (queue !== null && !queue.armWake()) {
      if (queue.gather(this.#batch) === 0) continue;
      for (let frame = 0; frame < this.#batch.count; frame++) frames.push(this.#copyOfFrame(frame));
      this.tooShort += this.#batch.tooShort;
      this.tooLong += this.#batch.tooLong;
      queue.finish();
    }
    for (const each of [queue, this.egress]) if (each?.fault) this.port!.queueFailed(each.queueIndex);
    return frames;
  }

  /** One burst, of as much as a worker takes in a turn; tells the port of faults. */
  takeBurst(): Buffer[] {
    const queue = this.ingress;
    if (queue === null || queue.gather(this.#batch) === 0) {
      if (queue?.fault) this.port!.queueFailed(queue.queueIndex);
      return [];
    }
    const frames = Array.from({ length: this.#batch.count }, (_, frame) => this.#copyOfFrame(frame));
    queue.finish();
    return frames;
  }

  /** Turns the data path until `count` frames have come in. */
  async receiveCount(count: number): Promise<Buffer[]> {
    const frames: Buffer[] = [];
    await this.turnUntil(() => {
      frames.push(...this.receive());
      return frames.length >= count;
    });
    return frames;
  }

  /** Places a burst on the port, frame by frame; answers how many the queue refused. */
  send(frames: readonly Uint8Array[]): number {
    const queue = this.egress!;
    let refused = 0;
    queue.begin();
    for (const bytes of frames) {
      // At another place each time, so that alignments vary.
      const offset = this.#sourceOffset + 64 + (bytes.length % 64);
      arenaView.u8.set(bytes, offset);
      this.#batch.clear();
      this.#batch.add(Math.floor(offset / 2 ** 30), offset % 2 ** 30, bytes.length);
      readHeads(this.#batch, arenaView.windows);
      queue.place(this.#batch, AS_THEY_CAME, 1);
      refused += this.#batch.refusedCount;
    }
    queue.end();
    if (queue.fault !== 0) this.port!.queueFailed(queue.queueIndex);
    return refused;
  }

  get sentCount(): number {
    return new QueueState(this.port!.states, 0).counts[COUNT_FRAMES];
  }

  get lostCount(): number {
    return new QueueState(this.port!.states, 0).counts[COUNT_LOST];
  }

  /** Turns the data path, and Node's loop with it, until `holds` does. */
  async turnUntil(holds: () => boolean): Promise<void> {
    const deadline = AbortSignal.timeout(TURN_MS_MAX);
    while (this.#turning && !holds()) {
      if (deadline.aborted) {
        const seen = { said: this.events.all, status: this.port?.status, counters: this.port?.counters };
        throw new Error(`not within ${TURN_MS_MAX} ms: ${holds}; ${JSON.stringify(seen)}`);
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async untilState(state: string): Promise<void> {
    await this.turnUntil(() => {
      this.receive();
      return this.port!.status.state === state;
    });
  }

  async stop(): Promise<void> {
    this.#turning = false;
    await this.port?.stop();
    arena.unmap(this.#sourceOffset);
  }

  #copyOfFrame(frame: number): Buffer {
    const bytes = Buffer.alloc(this.#batch.bytesOf(frame));
    gatherHead(this.#batch, frame, arenaView.windows, bytes, bytes.length);
    return bytes;
  }
}

/** A frame's length in four bytes, then the frame: as QEMU's stream sockets carry it. */
export function framed(frames: readonly Uint8Array[]): Buffer {
  return Buffer.concat(
    frames.flatMap((frame) => {
      const prefix = Buffer.alloc(4);
      prefix.writeUInt32BE(frame.length);
      return [prefix, frame];
    }),
  );
}

/** The naive twin of the stream's ingress: whole frames of `bytes`, and how many bytes they took. */
export function unframed(bytes: Buffer): { frames: Buffer[]; usedBytes: number } {
  const frames: Buffer[] = [];
  let at = 0;
  while (at + 4 <= bytes.length) {
    const end = at + 4 + bytes.readUInt32BE(at);
    if (end > bytes.length) break;
    frames.push(bytes.subarray(at + 4, end));
    at = end;
  }
  return { frames, usedBytes: at };
}
