/**
 * The habits of front-ends, each as a script of what it sends: a first start, a pause, another process of ours in the
 * place of the one before (reconnection), and a start from a saved state. Behind the script is a real driver, and each
 * ends with frames that flow in both directions, those of meanwhile among them, or with a reason on the port. Messages are
 * built here and not by the front-end of src/frontend, which has habits of its own.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EmbeddedGuest, EmbeddedMemory } from '../../src/frontend/index.ts';
import { ReceiveQueue } from '../../src/frontend/receive-queue.ts';
import { SendQueue } from '../../src/frontend/send-queue.ts';
import { closeFd, createEventFd } from '../../src/host/descriptor.ts';
import { connectUnix } from '../../src/host/unix-socket.ts';
import { LocalSwitch } from '../frontend/local-switch.ts';
import {
  bit,
  config,
  F,
  NEED_REPLY,
  P,
  type Request,
  region,
  ringAddress,
  ScriptedFrontEnd,
  state,
  table,
  u64,
} from '../vhost-user/scripted-front-end.ts';
import { Random } from '../vring/random.ts';
import { splitLayout } from '../vring/ring-worlds.ts';

/** A power of two; the transmit rings of QEMU 10 are longer. */
const RING_SIZE = 64;
const PAIRS = 4;
const RINGS = 2 * PAIRS + 1;
const FEATURES = bit(F.VERSION_1, F.MRG_RXBUF, F.PROTOCOL);

let folder: string;
let sockets: [string, string];
let running: LocalSwitch;
let partner: EmbeddedGuest;
let machine: Machine;
const closing: (() => void | Promise<void>)[] = [];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-habits-'));
  sockets = [join(folder, 'a.sock'), join(folder, 'b.sock')];
  startSwitch();
  partner = await EmbeddedGuest.connect({ socketPath: sockets[1] });
  machine = new Machine();
});

afterEach(async () => {
  machine.close();
  partner.close();
  await running.stop();
  for (const close of closing.splice(0)) await close();
  rmSync(folder, { recursive: true });
});

function startSwitch(): void {
  running = new LocalSwitch(sockets.map((socketPath) => ({ socketPath, queuePairsMax: PAIRS })));
}

/** The process of ours ends, what is sent waits in the rings, and another one takes its place. */
async function replaceSwitch(): Promise<void> {
  await running.stop();
  machine.hangUp();
  machine.send(frame(50));
  startSwitch();
  await partner.reconnect({ waitMs: 20_000 });
}

const frame = (seed: number): Uint8Array => new Random(seed).bytes(100);

/** One pair of rings as a guest's driver has it, and a front-end that says what its script says. */
class Machine {
  readonly memory = new EmbeddedMemory(2 ** 22);
  front = new ScriptedFrontEnd(connectUnix(sockets[0]));
  toGuest!: ReceiveQueue;
  fromGuest!: SendQueue;
  /** Rings 2 and up, that are given to us with nothing in them. */
  readonly #idlePlaces = Array.from({ length: RINGS }, () => this.memory.allocate(0x4000, 4096));
  readonly #callFd = createEventFd();
  readonly #kickFds = [createEventFd(), createEventFd()];
  flags = 0;

  constructor() {
    this.loadDriver();
  }

  /** The driver makes new rings, elsewhere. */
  loadDriver(): void {
    const options = {
      memory: this.memory,
      layout: 'split' as const,
      size: RING_SIZE,
      headerBytes: 12,
      eventIdx: false,
      indirect: false,
      inOrder: false,
      mergeable: true,
      bufferBytes: 2048,
    };
    this.toGuest = new ReceiveQueue(options);
    this.fromGuest = new SendQueue(options);
    for (const [i, { ring }] of [this.toGuest, this.fromGuest].entries()) {
      ring.kickFd = this.#kickFds[i];
      ring.callFd = this.#callFd;
    }
    this.toGuest.fill();
  }

  async say(name: Request, payload?: Uint8Array, fds: readonly number[] = []): Promise<void> {
    this.front.send(name, payload, fds, this.flags);
    if (this.flags === NEED_REPLY) expect([name, (await this.front.reply()).u64]).toEqual([name, 0n]);
  }

  async ask(name: Request, payload?: Uint8Array): Promise<bigint> {
    return (await this.front.request(name, payload)).u64;
  }

  async memTable(parts = 1, room = parts): Promise<void> {
    const { sizeBytes, fd } = this.memory;
    const [{ gpa, uva }] = this.memory.regions;
    const each = BigInt(sizeBytes / parts);
    const regions = Array.from({ length: parts }, (_, i) => {
      const at = BigInt(i) * each;
      return { gpa: gpa + at, uva: uva + at, sizeBytes: each, mmapOffset: at };
    });
    const fds = regions.map(() => fd);
    await this.say('SET_MEM_TABLE', table(regions, room), fds);
  }

  async addMemory(): Promise<void> {
    for (const each of this.memory.regions) await this.say('ADD_MEM_REG', region(each), [this.memory.fd]);
  }

  async num(index: number): Promise<void> {
    await this.say('SET_VRING_NUM', state(index, RING_SIZE));
  }

  async base(index: number, value: number): Promise<void> {
    await this.say('SET_VRING_BASE', state(index, value));
  }

  async addr(index: number): Promise<void> {
    await this.say('SET_VRING_ADDR', ringAddress(index, this.#placeOf(index)));
  }

  async call(index: number): Promise<void> {
    await this.say('SET_VRING_CALL', u64(index), [this.#callFd]);
  }

  async kick(index: number): Promise<void> {
    await this.say('SET_VRING_KICK', u64(index), [this.#kickFds[index % 2]]);
  }

  async enable(index: number, value: 0 | 1): Promise<void> {
    await this.say('SET_VRING_ENABLE', state(index, value));
  }

  /** GET_VRING_BASE. */
  async stop(index: number): Promise<number> {
    const { payload } = await this.front.request('GET_VRING_BASE', state(index, 0));
    return new DataView(payload.buffer).getUint32(4, true);
  }

  /** The driver's avail index as the memory has it. */
  avail(index: number): number {
    return index > 1 ? 0 : splitLayout(this.#ring(index)).avail[1];
  }

  /** Where the used ring stands. */
  used(index: number): number {
    return index > 1 ? 0 : this.#ring(index).layout.base();
  }

  send(bytes: Uint8Array): void {
    expect(this.fromGuest.send(bytes)).toBe(true);
  }

  async settle(): Promise<void> {
    expect(await this.front.settle()).toEqual([]);
  }

  hangUp(): void {
    this.front.close();
  }

  connect(): void {
    this.front = new ScriptedFrontEnd(connectUnix(sockets[0]));
    this.flags = 0;
  }

  close(): void {
    this.front.close();
    for (const { ring } of [this.toGuest, this.fromGuest]) ring.abandon(new Error('the test is over'));
    for (const fd of [this.#callFd, ...this.#kickFds]) closeFd(fd);
    this.memory.close();
  }

  #ring(index: number) {
    return [this.toGuest, this.fromGuest][index].ring;
  }

  #placeOf(index: number) {
    if (index > 1) {
      const descUva = this.memory.uvaOf(this.#idlePlaces[index]);
      return { descUva, availUva: descUva + 0x2000n, usedUva: descUva + 0x3000n };
    }
    const { layout, memory } = this.#ring(index);
    return {
      descUva: memory.uvaOf(layout.descOffset),
      availUva: memory.uvaOf(layout.driverOffset),
      usedUva: memory.uvaOf(layout.deviceOffset),
    };
  }
}

/** Both directions, more than once round each ring. */
async function expectFlow(): Promise<void> {
  for (let i = 0; i < 2 * RING_SIZE; i++) {
    machine.send(frame(i));
    expect(await partner.received()).toEqual(frame(i));
    partner.send(frame(1000 + i));
    expect(await machine.toGuest.received()).toEqual(frame(1000 + i));
  }
  const { status } = running.ports[0];
  expect(status).toEqual({ state: 'running', reason: null });
}

type Habits = {
  readonly name: string;
  firstStart(): Promise<void>;
  /** A machine is paused, and goes on after what happens meanwhile. */
  pause(meanwhile: () => void): Promise<void>;
  /** To another process of ours, with rings that were used; null: it cannot. */
  readonly reconnect: (() => Promise<void>) | null;
  /** The whole machine was saved and starts in another process; the rings are as they were. */
  readonly restore: (() => Promise<void>) | null;
};

/** Of what QEMU and virtio-user keep to one pair at a time. */
const FIRST_PAIR = [0, 1] as const;
const EVERY_RING = Array.from({ length: RINGS }, (_, index) => index);

function qemu(version: 7.2 | 10): Habits {
  const handshake = async (): Promise<void> => {
    // All of it once for each pair on the one connection.
    for (let pair = 0; pair < 2; pair++) {
      await machine.ask('GET_FEATURES');
      const offered = await machine.ask('GET_PROTOCOL_FEATURES');
      await machine.say('SET_PROTOCOL_FEATURES', u64(offered & bit(P.MQ, P.REPLY_ACK, P.MEM_SLOTS)));
      expect(await machine.ask('GET_QUEUE_NUM')).toBeGreaterThanOrEqual(2n);
      await machine.ask('GET_MAX_MEM_SLOTS');
      if (pair === 0) await machine.say('SET_OWNER');
      await machine.ask('GET_FEATURES');
      for (const index of FIRST_PAIR) await machine.call(2 * pair + index);
    }
  };
  const start = async (baseOf: (index: number) => number, sharesMemory = true): Promise<void> => {
    for (let pair = 0; pair < 2; pair++) {
      machine.flags = 0;
      await machine.say('SET_FEATURES', u64(FEATURES));
      machine.flags = NEED_REPLY;
      // Before 8.1 each region again for each pair.
      if (sharesMemory && (pair === 0 || version === 7.2)) await machine.addMemory();
      machine.flags = 0;
      for (const index of FIRST_PAIR.map((each) => 2 * pair + each)) {
        await machine.num(index);
        await machine.base(index, baseOf(index));
        machine.flags = NEED_REPLY;
        await machine.addr(index);
        machine.flags = 0;
        await machine.kick(index);
        await machine.call(index);
      }
      for (const index of FIRST_PAIR) await machine.enable(2 * pair + index, pair === 0 ? 1 : 0);
    }
    await machine.settle();
  };
  const used = (index: number): number => machine.used(index);
  return {
    name: `QEMU ${version}`,
    async firstStart() {
      await handshake();
      await start(() => 0);
    },
    async pause(meanwhile) {
      const bases: number[] = [];
      for (const index of [0, 1, 2, 3]) {
        if (version === 10) await machine.enable(index, 0);
        bases[index] = await machine.stop(index);
      }
      meanwhile();
      await start((index) => bases[index], false);
    },
    async reconnect() {
      await handshake();
      await start(used);
    },
    async restore() {
      await handshake();
      await start(used);
    },
  };
}

const VIRTIO_USER: Habits = (() => {
  const handshake = async (): Promise<void> => {
    await machine.say('SET_OWNER');
    await machine.ask('GET_FEATURES');
    await machine.ask('GET_PROTOCOL_FEATURES');
    await machine.say('SET_PROTOCOL_FEATURES', u64(bit(P.MQ, P.REPLY_ACK)));
    await machine.ask('GET_QUEUE_NUM');
  };
  const start = async (): Promise<void> => {
    for (const index of FIRST_PAIR) await machine.call(index);
    await machine.say('SET_FEATURES', u64(FEATURES));
    await machine.memTable();
    for (const index of FIRST_PAIR) {
      await machine.num(index);
      // Also of rings that were used.
      await machine.base(index, 0);
      await machine.addr(index);
      await machine.kick(index);
    }
    for (const index of FIRST_PAIR) await machine.enable(index, 1);
    await machine.settle();
  };
  return {
    name: "DPDK's virtio-user",
    async firstStart() {
      await handshake();
      await start();
    },
    async pause(meanwhile) {
      for (const index of FIRST_PAIR) await machine.enable(index, 0);
      for (const index of FIRST_PAIR) await machine.stop(index);
      meanwhile();
      await start();
    },
    async reconnect() {
      await handshake();
      await start();
    },
    restore: null,
  };
})();

const USER_MODE_LINUX: Habits = (() => {
  const start = async (): Promise<void> => {
    await machine.say('SET_FEATURES', u64(FEATURES));
    // Room for two regions although one is counted.
    await machine.memTable(1, 2);
    for (const index of FIRST_PAIR) {
      await machine.num(index);
      await machine.base(index, 0);
      await machine.addr(index);
      await machine.call(index);
      await machine.kick(index);
    }
    for (const index of FIRST_PAIR) await machine.enable(index, 1);
    await machine.settle();
  };
  return {
    name: 'User-Mode Linux',
    async firstStart() {
      await machine.say('SET_OWNER');
      await machine.ask('GET_FEATURES');
      await machine.ask('GET_PROTOCOL_FEATURES');
      await machine.say('SET_PROTOCOL_FEATURES', u64(bit(P.REPLY_ACK)));
      machine.flags = NEED_REPLY;
      await start();
    },
    /** Its driver is unloaded and loaded again; the old rings' memory belongs to somebody else then. */
    async pause(meanwhile) {
      for (const index of [1, 0]) await machine.enable(index, 0);
      await machine.ask('GET_FEATURES');
      const old = machine.toGuest.ring.layout.deviceOffset;
      const { u8 } = machine.memory;
      u8.fill(0xa5, old, old + 4 + 8 * RING_SIZE);
      machine.loadDriver();
      meanwhile();
      await start();
      expect(u8.subarray(old, old + 4 + 8 * RING_SIZE).every((byte) => byte === 0xa5)).toBe(true);
    },
    reconnect: null,
    restore: null,
  };
})();

/** Makes as many rings as GET_QUEUE_NUM says and starts them all; the guest uses one pair. */
const CROSVM: Habits = (() => {
  const handshake = async (): Promise<void> => {
    await machine.ask('GET_FEATURES');
    await machine.say('SET_OWNER');
    await machine.say('SET_FEATURES', u64(bit(F.PROTOCOL)));
    await machine.ask('GET_PROTOCOL_FEATURES');
    await machine.say('SET_PROTOCOL_FEATURES', u64(bit(P.MQ)));
    expect(await machine.ask('GET_QUEUE_NUM')).toBe(BigInt(RINGS));
    // Not negotiated.
    const reply = await machine.front.request('GET_CONFIG', config(0, new Uint8Array(12)));
    expect(reply.payload).toHaveLength(24);
  };
  const activate = async (baseOf: (index: number) => number): Promise<void> => {
    await machine.say('SET_FEATURES', u64(FEATURES | bit(F.CTRL_VQ, F.MQ)));
    await machine.memTable(32);
    for (const index of EVERY_RING) {
      await machine.num(index);
      await machine.addr(index);
      await machine.base(index, baseOf(index));
      await machine.call(index);
      await machine.kick(index);
      await machine.enable(index, 1);
    }
    await machine.settle();
    const inUse = running.ports[0].queues.filter((queue) => queue.inUse && queue.direction !== 'control');
    expect(inUse.map(({ index }) => index)).toEqual([0, 1]);
  };
  return {
    name: 'crosvm',
    async firstStart() {
      await handshake();
      await activate(() => 0);
    },
    async pause(meanwhile) {
      const bases: number[] = [];
      for (const index of EVERY_RING) bases[index] = await machine.stop(index);
      meanwhile();
      await activate((index) => bases[index]);
    },
    reconnect: null,
    async restore() {
      await handshake();
      await activate((index) => machine.used(index));
    },
  };
})();

const LIBKRUN: Habits = {
  name: 'libkrun',
  async firstStart() {
    await machine.ask('GET_FEATURES');
    await machine.ask('GET_PROTOCOL_FEATURES');
    await machine.say('SET_PROTOCOL_FEATURES', u64(bit(P.MQ)));
    expect(await machine.ask('GET_QUEUE_NUM')).toBeGreaterThanOrEqual(2n);
    await machine.say('SET_FEATURES', u64(FEATURES));
    // Late; and one call descriptor for all rings.
    await machine.say('SET_OWNER');
    await machine.memTable(2);
    for (const index of FIRST_PAIR) {
      await machine.num(index);
      await machine.addr(index);
      await machine.base(index, 0);
      await machine.call(index);
      await machine.kick(index);
      await machine.enable(index, 1);
    }
    await machine.settle();
  },
  async pause(meanwhile) {
    // Its processors stand still; it says nothing.
    meanwhile();
  },
  reconnect: null,
  restore: null,
};

const CLOUD_HYPERVISOR: Habits = (() => {
  const activate = async (): Promise<void> => {
    await machine.say('SET_FEATURES', u64(FEATURES));
    await machine.memTable(2);
    for (const index of FIRST_PAIR) await machine.num(index);
    for (const index of FIRST_PAIR) {
      await machine.addr(index);
      // All that the driver made available, used or not.
      await machine.base(index, machine.avail(index));
      await machine.call(index);
      await machine.kick(index);
    }
    for (const index of FIRST_PAIR) await machine.enable(index, 1);
    await machine.settle();
  };
  const setProtocolOnly = async (): Promise<void> => {
    await machine.say('SET_OWNER');
    await machine.ask('GET_FEATURES');
    await machine.say('SET_PROTOCOL_FEATURES', u64(bit(P.MQ, P.REPLY_ACK, P.MEM_SLOTS)));
    machine.flags = NEED_REPLY;
  };
  return {
    name: 'cloud-hypervisor',
    async firstStart() {
      await machine.say('SET_OWNER');
      await machine.ask('GET_FEATURES');
      await machine.ask('GET_PROTOCOL_FEATURES');
      await machine.say('SET_PROTOCOL_FEATURES', u64(bit(P.MQ, P.REPLY_ACK, P.MEM_SLOTS)));
      machine.flags = NEED_REPLY;
      expect(await machine.ask('GET_QUEUE_NUM')).toBeGreaterThanOrEqual(2n * BigInt(PAIRS));
      await activate();
    },
    async pause(meanwhile) {
      for (const index of FIRST_PAIR) await machine.enable(index, 0);
      meanwhile();
      for (const index of FIRST_PAIR) await machine.enable(index, 1);
    },
    async reconnect() {
      await setProtocolOnly();
      await activate();
    },
    async restore() {
      await setProtocolOnly();
      await activate();
    },
  };
})();

const ALL = [qemu(7.2), qemu(10), VIRTIO_USER, USER_MODE_LINUX, CROSVM, LIBKRUN, CLOUD_HYPERVISOR];

describe.each(ALL)('$name', (habits) => {
  it('starts', async () => {
    await habits.firstStart();
    await expectFlow();
  });

  it('pauses and goes on, and what was sent meanwhile comes', async () => {
    await habits.firstStart();
    await expectFlow();
    await habits.pause(() => machine.send(frame(50)));
    expect(await partner.received()).toEqual(frame(50));
    await expectFlow();
  });

  it('is served by another process of ours, or the port says that it went', async () => {
    await habits.firstStart();
    await expectFlow();
    if (habits.reconnect === null) {
      machine.hangUp();
      await expect.poll(() => running.ports[0].status.reason).toMatch(/the front-end closed the connection/);
      return;
    }
    await replaceSwitch();
    machine.connect();
    await habits.reconnect();
    expect(await partner.received()).toEqual(frame(50));
    await expectFlow();
  });
});

const RESTORED = ALL.flatMap(({ restore, ...habits }) => (restore === null ? [] : [{ ...habits, restore }]));

describe.each(RESTORED)('$name', ({ firstStart, restore }) => {
  it('is restored from a saved state', async () => {
    await firstStart();
    await expectFlow();
    await replaceSwitch();
    machine.connect();
    await restore();
    expect(await partner.received()).toEqual(frame(50));
    await expectFlow();
  });
});
