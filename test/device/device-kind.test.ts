/**
 * A device of another kind than a network device, with one ring and no queue of its own: what device.ts and the
 * handlers of any device do without net/.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Device } from '../../src/device/device.ts';
import type { DeviceKind, OwnQueue } from '../../src/device/device-kind.ts';
import { deviceHandlers } from '../../src/device/handlers.ts';
import { PeerFds } from '../../src/host/peer-fds.ts';
import { socketPair } from '../../src/host/unix-socket.ts';
import { queueStates } from '../../src/queue/state.ts';
import { Session } from '../../src/vhost-user/back-end.ts';
import { answer, type Handlers } from '../../src/vhost-user/handlers.ts';
import { PeerError } from '../../src/vhost-user/peer-error.ts';
import type { RingAttachment } from '../../src/vring/attachment.ts';
import { GuestFile } from '../memory/guest-file.ts';
import {
  bit,
  F,
  P,
  ringAddress,
  ScriptedFrontEnd,
  state,
  table,
  u64,
} from '../vhost-user/scripted-front-end.ts';
import { FakeDataPath } from './fake-data-path.ts';
import { arena, arenaView, GUEST_BYTES, ringPlace } from './world.ts';

const PORT_ID = 3;

class OneRing implements DeviceKind {
  readonly offeredFeatures = bit(F.VERSION_1, F.PROTOCOL, F.PACKED);
  readonly offeredProtocolFeatures = bit(P.REPLY_ACK);
  readonly ringCount = 1;
  readonly ringCountHint = 'there are no more';
  readonly closed: RingAttachment[] = [];
  resets = 0;
  readonly opened: string[] = [];
  servesItself = false;
  faults: (() => void)[] = [];

  directionOf() {
    return 'ingress' as const;
  }
  attachmentOf() {
    return { direction: 'ingress' as const, mergeable: false, headerBytes: 0, asks: 0 };
  }
  isOwnQueue(): boolean {
    return this.servesItself;
  }
  openOwnQueue(attachment: RingAttachment, isNew: boolean, onFault: () => void): OwnQueue {
    this.opened.push(isNew ? 'new' : 'goes on');
    this.faults.push(onFault);
    return { setCallFd() {}, setMemory() {}, setLog() {}, close: () => this.closed.push(attachment) };
  }
  isInUse(): boolean {
    return true;
  }
  async negotiated(): Promise<void> {}

  driverWasReset(): void {
    this.resets++;
  }
}

const refuse = (): never => {
  throw new PeerError('not of this kind of device');
};

describe('a device of another kind', () => {
  let kind: OneRing;
  let device: Device;
  let dataPath: FakeDataPath;
  let front: ScriptedFrontEnd;
  let session: Session;
  let guest: GuestFile;

  beforeEach(async () => {
    kind = new OneRing();
    dataPath = new FakeDataPath(arena, PORT_ID);
    const states = queueStates(kind.ringCount);
    const context = {
      portId: PORT_ID,
      arena,
      arenaView,
      dataPath,
      states,
      peerFds: new PeerFds(),
      onChange: () => {},
      onRemark: () => {},
      lastRuns: new Map(),
    };
    device = new Device(kind, context);
    const handlers: Handlers = {
      ...deviceHandlers(device),
      GET_QUEUE_NUM: () => answer(1n),
      SEND_RARP: refuse,
      NET_SET_MTU: refuse,
      GET_CONFIG: refuse,
      SET_CONFIG: refuse,
    };
    const [frontFd, backFd] = socketPair();
    const backEnd = { handlers, features: 0n, protocolFeatures: kind.offeredProtocolFeatures };
    session = new Session(backFd, backEnd, { onRefused: () => {}, onEnd: () => {} });
    front = new ScriptedFrontEnd(frontFd);
    guest = new GuestFile(GUEST_BYTES);
    front.send('SET_FEATURES', u64(kind.offeredFeatures));
    front.send('SET_MEM_TABLE', table([guest.region()]), [guest.fd]);
    front.send('SET_VRING_NUM', state(0, 5));
    front.send('SET_VRING_ADDR', ringAddress(0, ringPlace(0)));
    front.send('SET_VRING_KICK', u64(0), [front.eventFd()]);
    expect(await front.settle()).toEqual([]);
  });
  afterEach(async () => {
    front.close();
    await session.end('the test is over');
    await device.release();
    guest.close();
    dataPath.expectSound();
    expect([dataPath.attached.size, arena.mappedBytes]).toEqual([0, 0]);
  });

  it('offers and attaches what its kind says', async () => {
    expect((await front.request('GET_FEATURES')).u64).toBe(kind.offeredFeatures);
    front.send('SET_VRING_ENABLE', state(0, 1));
    await front.settle();
    expect(dataPath.attached.get(0)).toMatchObject({
      direction: 'ingress',
      headerBytes: 0,
      asks: 0,
      layout: 'packed',
    });
    expect(await front.ack('SET_VRING_NUM', state(1, 4))).toBe(1n);
  });

  it('hands over to its kind the rings that the kind serves, and tells it of a reset', async () => {
    kind.servesItself = true;
    front.send('SET_VRING_ENABLE', state(0, 1));
    await front.settle();
    expect(dataPath.log).toEqual([]);
    expect(device.directionOf(device.rings[0])).toBe('control');
    const resetsBefore = kind.resets;
    expect((await front.request('GET_VRING_BASE', state(0, 0))).payload).toEqual(state(0, 0x8000_8000));
    expect(kind.closed).toHaveLength(1);
    expect([kind.opened, kind.resets]).toEqual([['new'], resetsBefore]);
    front.send('SET_FEATURES', u64(kind.offeredFeatures));
    await front.settle();
    expect(kind.resets).toBe(resetsBefore + 1);
  });

  it('attaches and detaches when its kind changes its mind', async () => {
    front.send('SET_VRING_ENABLE', state(0, 1));
    await front.settle();
    kind.servesItself = true;
    await device.settleRings();
    kind.servesItself = false;
    await Promise.all([device.settleRings(), device.settleRings()]);
    expect(dataPath.takeLog()).toEqual(['attach 0', 'detach 0', 'attach 0']);
  });
});
