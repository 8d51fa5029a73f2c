/**
 * A device, its session and a scripted front-end on the two ends of a socket pair, with a fake data path
 * instead of workers. `dispose` does what a port does when the front-end is gone, and checks that nothing is
 * left.
 */
import { expect } from 'vitest';
import type { Device } from '../../src/device/device.ts';
import { NetDevice } from '../../src/device/net/net-device.ts';
import { type DeviceOptions, ringCountMax } from '../../src/device/net/options.ts';
import type { LastRun } from '../../src/device/ring-start.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { PeerFds } from '../../src/host/peer-fds.ts';
import { socketPair } from '../../src/host/unix-socket.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { queueStates } from '../../src/queue/state.ts';
import { Session } from '../../src/vhost-user/back-end.ts';
import { type OpenFds, openedSince, openFds } from '../host/open-fds.ts';
import { GuestFile, UVA_BASE } from '../memory/guest-file.ts';
import {
  bit,
  F,
  P,
  type RingPlace,
  region,
  ringAddress,
  ScriptedFrontEnd,
  state,
  table,
  u64,
} from '../vhost-user/scripted-front-end.ts';
import { FakeDataPath } from './fake-data-path.ts';

export const PORT_ID = 7;

// Made at the first use: not a leak of the test that happens to be first.
descriptorLoop();

export const arena = Arena.reserve(2 ** 34);
export const arenaView = new ArenaView(arena.location);

/** Bytes of guest memory that one ring of up to 256 descriptors gets in these tests. */
const RING_STRIDE_BYTES = 0x4000;
/** Where rings begin in the guest's memory. */
const RINGS_OFFSET = 0x10_0000;

export const GUEST_BYTES = 4 * 2 ** 20;

/** Where ring `index` lies in the guest's file: descriptors, avail ring and used ring. */
export function ringOffsets(index: number): { desc: number; avail: number; used: number } {
  const at = RINGS_OFFSET + index * RING_STRIDE_BYTES;
  return { desc: at, avail: at + 0x2000, used: at + 0x3000 };
}

export function ringPlace(index: number, uvaBase = UVA_BASE): RingPlace {
  const { desc, avail, used } = ringOffsets(index);
  return {
    descUva: uvaBase + BigInt(desc),
    availUva: uvaBase + BigInt(avail),
    usedUva: uvaBase + BigInt(used),
  };
}

export const OPTIONS: DeviceOptions = { queuePairsMax: 4, configSpace: false, mac: null, mtu: null };
export const FEATURES = bit(F.VERSION_1, F.PROTOCOL, F.MRG_RXBUF);
export const PROTOCOL_FEATURES = bit(P.MQ, P.REPLY_ACK, P.MTU, P.MEM_SLOTS);

export class World {
  readonly dataPath = new FakeDataPath(arena, PORT_ID);
  readonly front: ScriptedFrontEnd;
  readonly net: NetDevice;
  readonly session: Session;
  readonly peerFds: PeerFds;
  readonly guest: GuestFile;
  readonly states: SharedArrayBuffer;
  /** What is known of rings of before. */
  readonly lastRuns = new Map<number, LastRun>();
  /** What was refused without ending the connection. */
  readonly refused: string[] = [];
  /** What the device had to say for the log. */
  readonly remarks: string[] = [];
  changes = 0;
  endReason: string | null = null;
  readonly ended: Promise<string>;
  readonly #before: OpenFds;

  constructor(options: Partial<DeviceOptions> = {}, peerPid: number | null = null) {
    this.#before = openFds();
    const [frontFd, backFd] = socketPair();
    const { promise, resolve } = Promise.withResolvers<string>();
    this.ended = promise;
    this.guest = new GuestFile(GUEST_BYTES);
    const all = { ...OPTIONS, ...options };
    this.peerFds = new PeerFds(peerPid);
    this.states = queueStates(ringCountMax(all.queuePairsMax));
    this.net = new NetDevice(all, {
      portId: PORT_ID,
      arena,
      arenaView,
      dataPath: this.dataPath,
      states: this.states,
      peerFds: this.peerFds,
      onChange: () => {
        this.changes++;
      },
      onRemark: (remark) => this.remarks.push(remark),
      lastRuns: this.lastRuns,
    });
    const events = {
      onRefused: (reason: string) => this.refused.push(reason),
      onEnd: (reason: string) => {
        this.endReason = reason;
        resolve(reason);
      },
    };
    this.session = new Session(backFd, this.net, events, this.peerFds);
    this.front = new ScriptedFrontEnd(frontFd);
  }

  get device(): Device {
    return this.net.device;
  }

  /** Negotiates features and protocol features, nothing else. */
  async negotiate(features = FEATURES, protocolFeatures = PROTOCOL_FEATURES): Promise<void> {
    this.front.send('SET_OWNER');
    if (protocolFeatures !== 0n) this.front.send('SET_PROTOCOL_FEATURES', u64(protocolFeatures));
    this.front.send('SET_FEATURES', u64(features));
    expect(await this.front.settle()).toEqual([]);
  }

  /** Shares the whole guest file. */
  async shareMemory(uva = UVA_BASE): Promise<void> {
    this.front.send('SET_MEM_TABLE', table([this.guest.region({ uva })]), [this.guest.fd]);
    expect(await this.front.settle()).toEqual([]);
  }

  async addMemory(but: Parameters<GuestFile['region']>[0] = {}, guest = this.guest): Promise<bigint> {
    return this.front.ack('ADD_MEM_REG', region(guest.region(but)), [guest.fd]);
  }

  /** Sends all that makes ring `index` run, but ENABLE. */
  sendRing(index: number, { size = 256, base = 0, uva = UVA_BASE } = {}): void {
    const { front } = this;
    front.send('SET_VRING_NUM', state(index, size));
    front.send('SET_VRING_BASE', state(index, base));
    front.send('SET_VRING_ADDR', ringAddress(index, ringPlace(index, uva)));
    front.send('SET_VRING_CALL', u64(index), [front.eventFd()]);
    front.send('SET_VRING_KICK', u64(index), [front.eventFd()]);
  }

  /** Makes rings run and enables them. */
  async startRings(...indices: number[]): Promise<void> {
    for (const index of indices) this.sendRing(index);
    for (const index of indices) this.front.send('SET_VRING_ENABLE', state(index, 1));
    expect(await this.front.settle()).toEqual([]);
    this.dataPath.expectSound();
  }

  /** Negotiated, memory shared, rings 0 and 1 running. */
  async run(features = FEATURES): Promise<void> {
    await this.negotiate(features);
    await this.shareMemory();
    await this.startRings(0, 1);
    expect([...this.dataPath.attached.keys()]).toEqual([0, 1]);
    this.dataPath.takeLog();
  }

  ring(index: number): Device['rings'][number] {
    return this.device.rings.find((ring) => ring.index === index)!;
  }

  /** The front-end hangs up, or was hung up on; checks that nothing of it is left. */
  async dispose(): Promise<void> {
    this.front.close();
    await this.ended;
    await this.session.settled();
    await this.net.release();
    await this.device.memoryLooked();
    this.guest.close();
    this.dataPath.expectSound();
    expect(this.dataPath.attached.size).toBe(0);
    expect(this.device.rings).toEqual([]);
    expect(arena.mappedBytes).toBe(0);
    expect(openedSince(this.#before)).toEqual([]);
  }
}
