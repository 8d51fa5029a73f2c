/**
 * A front-end that sends without pause, as its kind says (FLOODS), until it is ended; tells when it begins. A process
 * of its own: `flooder.ts KIND SOCKET`, started by starving.ts.
 */
import { maskOf } from '../../protocol/bits.ts';
import { type BodyValues, encodeBody, encodeMessage } from '../../protocol/vhost-user/codec.ts';
import { PROTOCOL_FEATURE } from '../../protocol/vhost-user/features.ts';
import {
  type BodyOf,
  FLAG_NEED_REPLY,
  MESSAGES,
  type MessageName,
} from '../../protocol/vhost-user/messages.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../../protocol/virtio/split-ring.ts';
import { closeFd } from '../../src/host/descriptor.ts';
import { HostError } from '../../src/host/errors.ts';
import { createMemoryFile, mapFile, viewMemory } from '../../src/host/mapping.ts';
import { connectUnix, receive, send } from '../../src/host/unix-socket.ts';
import { BackEndError, FrontEndSession } from '../../src/vhost-user/front-end.ts';

export type FloodKind = keyof typeof FLOODS;

const AGAIN_MS = 1;
const RING_COUNT = 32;
const REGION_COUNT = 500;
const PAGE_BYTES = 4096;
const MEMORY_BYTES = 16 * 2 ** 20;
const RING_SIZE = 32_768;
const F = VIRTIO_FEATURE;
const FEATURES = maskOf(F.PROTOCOL_FEATURES, F.VERSION_1, F.INDIRECT_DESC, F.NET_MRG_RXBUF);

function message<Name extends MessageName>(
  name: Name,
  body: BodyValues[BodyOf<Name>],
  flags = 0,
): Uint8Array {
  const { id, body: form } = MESSAGES[name];
  return encodeMessage(id, flags, encodeBody(form, body as never));
}

function tellReady(): void {
  process.send?.('ready');
}

class Flooder {
  readonly #path: string;
  #fd = -1;
  #session: FrontEndSession | null = null;

  constructor(path: string) {
    this.#path = path;
  }

  /** Negotiates and shares memory: one region for rings, and as many small ones as are wanted. */
  async begin(features: bigint, smallRegions = 0): Promise<Uint8Array> {
    this.#fd = connectUnix(this.#path);
    this.#session = new FrontEndSession(this.#fd);
    const protocol = maskOf(
      PROTOCOL_FEATURE.MQ,
      PROTOCOL_FEATURE.REPLY_ACK,
      PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS,
    );
    await this.#session.request('SET_OWNER', null);
    await this.#session.request('SET_PROTOCOL_FEATURES', protocol);
    await this.#session.request('SET_FEATURES', features);
    const fd = createMemoryFile('flooder', MEMORY_BYTES);
    const region = (gpa: number, sizeBytes: number): BodyValues['memRegion'] => ({
      gpa: BigInt(gpa),
      uva: BigInt(gpa),
      sizeBytes: BigInt(sizeBytes),
      mmapOffset: 0n,
    });
    await this.#session.request('ADD_MEM_REG', region(0, MEMORY_BYTES), { fds: [fd] });
    for (let i = 0; i < smallRegions; i++) {
      const gpa = 2 ** 32 + 2 * i * PAGE_BYTES;
      await this.#session.request('ADD_MEM_REG', region(gpa, PAGE_BYTES), {
        fds: [fd],
        needReply: i % 8 === 0,
      });
    }
    const bytes = new Uint8Array(viewMemory(mapFile(MEMORY_BYTES, fd, 'mapping'), MEMORY_BYTES));
    closeFd(fd);
    return bytes;
  }

  /** A ring at so many bytes of the memory; polled. */
  async startRing(index: number, size: number, offset: number): Promise<void> {
    const session = this.#session as FrontEndSession;
    const at = BigInt(offset);
    await session.request('SET_VRING_NUM', { index, num: size });
    const areas = { descUva: at, availUva: at + 2n ** 20n, usedUva: at + 2n ** 21n };
    await session.request('SET_VRING_ADDR', { index, flags: 0, logGpa: 0n, ...areas });
    await session.request('SET_VRING_KICK', { index, polled: true });
    await session.request('SET_VRING_ENABLE', { index, num: 1 });
    await session.request('GET_FEATURES', null);
  }

  /** Sends the messages again and again, and reads what comes. */
  flood(messages: readonly Uint8Array[]): never {
    tellReady();
    const bytes = Buffer.concat(Array.from({ length: 200 }, () => messages).flat());
    for (let sent = 0; ; ) {
      sent += this.#trySend(bytes.subarray(sent % bytes.length));
      while (receive(this.#fd, 65_536).bytes.length > 0);
    }
  }

  #trySend(bytes: Uint8Array): number {
    return send(this.#fd, bytes, []);
  }
}

const owner = message('SET_OWNER', null);
const enables = Array.from({ length: RING_COUNT }, (_, index) =>
  [0, 1].map((num) => message('SET_VRING_ENABLE', { index, num })),
).flat();

const FLOODS = {
  /** For comparison: it connects and is silent. */
  none: async (flooder: Flooder) => {
    await flooder.begin(FEATURES);
    tellReady();
    return new Promise<never>(() => {});
  },
  /** What costs least, as often as can be. */
  owner: async (flooder: Flooder) => {
    await flooder.begin(FEATURES);
    return flooder.flood([owner]);
  },
  enable: async (flooder: Flooder) => {
    await flooder.begin(FEATURES);
    for (let index = 0; index < RING_COUNT; index++) await flooder.startRing(index, 256, 0);
    return flooder.flood(enables);
  },
  refused: async (flooder: Flooder) => {
    await flooder.begin(FEATURES);
    return flooder.flood([message('SET_VRING_NUM', { index: 0, num: 0 }, FLAG_NEED_REPLY)]);
  },
  /** Rings that cannot be placed are looked at anew for each of these. */
  settling: async (flooder: Flooder) => {
    await flooder.begin(FEATURES, REGION_COUNT);
    for (let index = 0; index < RING_COUNT; index++) await flooder.startRing(index, RING_SIZE, 2 ** 40);
    const address = { flags: 0, logGpa: 0n, descUva: 2n ** 41n, availUva: 0n, usedUva: 0n };
    return flooder.flood(
      Array.from({ length: RING_COUNT }, (_, index) => message('SET_VRING_ADDR', { index, ...address })),
    );
  },
  /** All rings are packed and of the largest size, and are judged anew whenever the features change. */
  features: async (flooder: Flooder) => {
    const packed = FEATURES | maskOf(F.RING_PACKED);
    await flooder.begin(packed, REGION_COUNT);
    for (let index = 0; index < RING_COUNT; index++) await flooder.startRing(index, RING_SIZE, 0);
    return flooder.flood(
      [packed, packed | maskOf(F.EVENT_IDX)].map((features) => message('SET_FEATURES', features)),
    );
  },
  /** MAC tables of 64 KiB, as many as a control queue holds. */
  control: async (flooder: Flooder) => {
    const memory = await flooder.begin(FEATURES | maskOf(F.NET_CTRL_VQ));
    const view = new DataView(memory.buffer, memory.byteOffset);
    const [tableOffset, commandOffset, answerOffset] = [8 * 2 ** 20, 9 * 2 ** 20, 10 * 2 ** 20];
    const describe = (at: number, gpa: number, sizeBytes: number, word: number): void => {
      view.setBigUint64(at, BigInt(gpa), true);
      view.setUint32(at + 8, sizeBytes, true);
      view.setUint32(at + 12, word, true);
    };
    describe(tableOffset, commandOffset, 65_536, DESC_F_NEXT | (1 << 16));
    describe(tableOffset + 16, answerOffset, 1, DESC_F_WRITE);
    for (let i = 0; i < RING_SIZE; i++) describe(16 * i, tableOffset, 32, DESC_F_INDIRECT);
    memory.set([1, 0], commandOffset);
    view.setUint32(commandOffset + 2, 10_900, true);
    const avail = new Uint16Array(memory.buffer, memory.byteOffset + 2 ** 20, 2);
    const used = new Uint16Array(memory.buffer, memory.byteOffset + 2 ** 21, 2);
    avail[1] = RING_SIZE;
    await flooder.startRing(2, RING_SIZE, 0);
    tellReady();
    for (;;) Atomics.store(avail, 1, used[1] + RING_SIZE);
  },
  /** Is thrown out for what it says, and comes again. */
  reconnect: async (flooder: Flooder) => {
    await flooder.begin(FEATURES, 1);
    return flooder.flood([message('SET_VRING_NUM', { index: 0, num: 0 })]);
  },
} as const;

process.once('disconnect', () => process.exit());
const [kind, socketPath] = process.argv.slice(2);
for (;;) {
  try {
    await FLOODS[kind as FloodKind](new Flooder(socketPath));
  } catch (error) {
    // It was thrown out, for one because it was not given the processor for long and read no replies.
    if (!(error instanceof HostError || error instanceof BackEndError)) throw error;
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}
