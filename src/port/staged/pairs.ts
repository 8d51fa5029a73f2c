/**
 * The queue pairs of a port that is no guest: their room in the arena (src/port/staged/queues.ts) and their place on
 * the data path. Main thread.
 */
import assert from 'node:assert';
import { BESIDE_MTU_BYTES } from '../../../protocol/ethernet.ts';
import { HandOverError } from '../../device/hand-over.ts';
import { errnoText } from '../../host/errors.ts';
import { allocateScratch, type ScratchArea } from '../../memory/scratch.ts';
import { QueueState, queueStates, STATE_FAULT } from '../../queue/state.ts';
import type { PortContext, PortQueue } from '../contract.ts';
import type { QueueAttachment } from '../kinds.ts';
import type { StagedAttachment } from './queues.ts';

const LINE_BYTES = 64;
const PAGE_BYTES = 4096;

export type StagedShape = {
  readonly pairCount: number;
  /** Frames that a queue holds at most: a burst. */
  readonly slotCount: number;
  /** The longest frame that goes either way, without header. */
  readonly frameBytesMax: number;
  /** What stands before a frame in its slot. */
  readonly headerBytes: number;
};

export class StagedPairs {
  /** QueueState blocks of all queues; counters stay when the queues are detached and attached again. */
  readonly states: SharedArrayBuffer;
  readonly #context: PortContext;
  readonly #shape: StagedShape;
  readonly #queueBytes: number;
  readonly #slotBytes: number;
  /** The slots of all queues while attached. */
  #area: ScratchArea | null = null;
  /** Of all queues while attached, also of those that rest. */
  #attachments: readonly QueueAttachment[] = [];
  /** By queue index: those that workers use. */
  readonly #inUse = new Set<number>();
  /** Resolves when workers have let go of all that they were told to. */
  #lettingGo: Promise<void> = Promise.resolve();
  #isResting = false;

  constructor(context: PortContext, shape: StagedShape) {
    this.#context = context;
    this.#shape = shape;
    this.states = queueStates(2 * shape.pairCount);
    // An odd number of cache lines, so that the slots' beginnings do not all fall into the same cache set.
    const lines = Math.ceil((shape.headerBytes + shape.frameBytesMax) / LINE_BYTES);
    this.#slotBytes = (lines | 1) * LINE_BYTES;
    this.#queueBytes = Math.ceil((this.#slotBytes * shape.slotCount) / PAGE_BYTES) * PAGE_BYTES;
  }

  /** Lets go of the queues, or has the workers use them again. Resolves when no worker uses them, or they do. */
  async setResting(isResting: boolean): Promise<void> {
    this.#isResting = isResting;
    if (isResting) await this.#letGo();
    else await Promise.all(this.#attachments.map((attachment) => this.#use(attachment)));
  }

  /** Its peer may go away while it is brought to rest: then both wait for the workers. */
  #letGo(): Promise<void> {
    const { dataPath, id } = this.#context;
    const used = [...this.#inUse];
    this.#inUse.clear();
    const answers = used.map((queueIndex) => dataPath.detach(id, queueIndex));
    this.#lettingGo = Promise.all([this.#lettingGo, ...answers]).then(() => {});
    return this.#lettingGo;
  }

  async #use(attachment: QueueAttachment): Promise<void> {
    const { queueIndex } = attachment;
    if (this.#isResting || this.#inUse.has(queueIndex)) return;
    this.#inUse.add(queueIndex);
    await this.#context.dataPath.attach(attachment);
  }

  /** As the next process counts on; of queues at rest. */
  counts(): number[][] {
    return Array.from({ length: 2 * this.#shape.pairCount }, (_, i) => [
      ...new QueueState(this.states, i).counts,
    ]);
  }

  /** @throws HandOverError: it had more queues */
  takeOverCounts(counts: readonly (readonly number[])[]): void {
    if (counts.length > 2 * this.#shape.pairCount)
      throw new HandOverError('it has fewer queues in the new settings');
    for (const [i, queue] of counts.entries()) new QueueState(this.states, i).counts.set(queue);
  }

  /**
   * Attaches both queues of every pair, egress first; `attachmentOf` adds what the kind needs. `linkMtu`: the port's, as
   * its other side has it.
   * Resolves when the workers use them, but for those that rest. @throws ArenaFullError, HostError
   */
  async attach(linkMtu: number, attachmentOf: (base: StagedAttachment) => QueueAttachment): Promise<void> {
    const { pairCount, headerBytes, slotCount } = this.#shape;
    assert(linkMtu + BESIDE_MTU_BYTES <= this.#shape.frameBytesMax, 'what may be delivered fits into a slot');
    const { arena, dataPath, id } = this.#context;
    assert(this.#area === null, 'queues are detached before they are attached again');
    const sizeBytes = pairCount * 2 * this.#queueBytes;
    const area = allocateScratch(arena, { name: 'ringway-staging', sizeBytes });
    this.#area = area;
    await dataPath.setPolicy(id, { linkMtu });
    this.#attachments = Array.from({ length: 2 * pairCount }, (_, queueIndex) => {
      new QueueState(this.states, queueIndex).words.fill(0);
      const startBytes = queueIndex * this.#queueBytes;
      return attachmentOf({
        portId: id,
        queueIndex,
        direction: queueIndex % 2 === 0 ? 'egress' : 'ingress',
        states: this.states,
        headerBytes,
        slots: {
          offset: area.offset + startBytes,
          address: area.address + startBytes,
          slotBytes: this.#slotBytes,
          slotCount,
        },
      });
    });
    for (const attachment of this.#attachments) await this.#use(attachment);
  }

  /** Resolves when no worker uses the queues; only then may their descriptors be closed. */
  async detach(): Promise<void> {
    this.#attachments = [];
    await this.#letGo();
    this.#area?.release();
    this.#area = null;
  }

  /** The code that a worker stopped the queue with; 0: it runs. */
  faultOf(queueIndex: number): number {
    return new QueueState(this.states, queueIndex).words[STATE_FAULT];
  }

  /** For the user; `reasonOf` puts a fault into words, and takes it for an errno when left out. */
  queues(reasonOf: (fault: number) => string = errnoText): PortQueue[] {
    return Array.from({ length: 2 * this.#shape.pairCount }, (_, index) => {
      const started = this.#attachments.some(({ queueIndex }) => queueIndex === index);
      const fault = started ? this.faultOf(index) : 0;
      return {
        index,
        direction: index % 2 === 0 ? 'egress' : 'ingress',
        size: this.#shape.slotCount,
        started,
        enabled: started,
        inUse: started,
        reason: fault === 0 ? null : reasonOf(fault),
      };
    });
  }
}
