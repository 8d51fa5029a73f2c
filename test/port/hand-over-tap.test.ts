/**
 * A TAP port that is handed over, on a real interface that ends with the last process that has it open: it stays, with its
 * frames, and what the new settings want of it is done afterwards.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeFd, duplicateFd } from '../../src/host/descriptor.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { type HandedPort, type PortPositions, withDescriptors } from '../../src/port/hand-over.ts';
import type { TapOptions } from '../../src/port/tap/interface.ts';
import { parseIpPrefix } from '../../src/port/tap/ip-prefix.ts';
import { TapPort } from '../../src/port/tap/port.ts';
import { type OpenFds, openedSince, openFds } from '../host/open-fds.ts';
import { Events } from './events.ts';
import {
  PacketSocket,
  TEST_ETHERTYPE,
  TestDataPath,
  TestNamespace,
  tapUnavailable,
  titleWith,
} from './tap-world.ts';

const unavailable = tapUnavailable();
const arena = Arena.reserve(2 ** 32);
const arenaView = new ArenaView(arena.location);
descriptorLoop();
const TAP = 'tap0';

/** A port with its data path, as one process has it. */
class Side {
  readonly dataPath = new TestDataPath(arena, arenaView);
  readonly events = new Events();
  readonly port: TapPort;

  constructor(options: TapOptions) {
    const { dataPath, events } = this;
    const context = { id: 3, name: 'host', arena, arenaView, dataPath, events: events.sink };
    this.port = new TapPort(options, context);
    dataPath.onQueueFailed = (queueIndex) => this.port.queueFailed(queueIndex);
  }

  #hasEnded = false;

  async end(): Promise<void> {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    await this.port.stop();
    this.dataPath.close();
  }
}

const sent = <Value>(value: Value): Value => JSON.parse(JSON.stringify(value)) as Value;

describe.skipIf(unavailable !== null)(titleWith('a TAP port that is handed over', unavailable), () => {
  let before: OpenFds;
  let namespace: TestNamespace;
  let sides: Side[];
  let host: PacketSocket | null;

  beforeEach(() => {
    before = openFds();
    namespace = new TestNamespace().add();
    sides = [];
    host = null;
  });
  afterEach(async () => {
    for (const side of sides) await side.end();
    host?.close();
    namespace.remove();
    expect(openedSince(before)).toEqual([]);
  });

  function side(some: Partial<TapOptions> = {}): Side {
    const made = new Side({
      interfaceName: TAP,
      namespace: namespace.name,
      queueCount: 1,
      mtu: null,
      mac: null,
      addresses: [],
      bringUp: true,
      offloads: {},
      ...some,
    });
    sides.push(made);
    return made;
  }

  async function begin(some: Partial<TapOptions> = {}): Promise<Side> {
    const first = side(some);
    await first.port.start();
    host = new PacketSocket(namespace, TAP);
    return first;
  }

  function frame(number: number): Uint8Array {
    const bytes = new Uint8Array(80).fill(number);
    bytes.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9]);
    new DataView(bytes.buffer).setUint16(12, TEST_ETHERTYPE);
    return bytes;
  }

  async function handed({ port }: Side): Promise<HandedPort> {
    await port.freeze();
    return withDescriptors(sent(port.handOver()), duplicateFd);
  }

  async function rest({ port }: Side): Promise<void> {
    await port.setResting(true);
  }

  async function goOn({ port }: Side): Promise<void> {
    await port.setResting(false);
    port.thaw();
  }

  async function takeOver(old: Side, some: Partial<TapOptions> = {}): Promise<Side> {
    const next = side(some);
    next.port.takeOver(await handed(old));
    await next.port.start();
    await next.port.freeze();
    await rest(old);
    const positions: PortPositions = sent(old.port.positions());
    await next.port.goOnAt(positions);
    // It waits in the interface: nobody reads it now.
    host!.send(frame(1));
    await goOn(next);
    await old.end();
    return next;
  }

  it('keeps its interface, and frames go on both ways', async () => {
    const old = await begin();
    const { ifindex } = namespace.link(TAP);
    host!.send(frame(0));
    await old.dataPath.until(() => old.dataPath.received.length === 1);
    const next = await takeOver(old);
    await next.dataPath.until(() => next.dataPath.received.length === 1);
    expect(next.dataPath.received[0]).toEqual(frame(1));
    expect(namespace.link(TAP).ifindex).toBe(ifindex);
    next.dataPath.place(0, [frame(2)]);
    expect(await host!.receive(1)).toEqual([frame(2)]);
    expect(next.port.status).toEqual({ state: 'running', reason: null });
    expect(next.port.counters).toMatchObject({ ingressFrames: 2, egressFrames: 1 });
    // And it ends with the last one.
    await next.end();
    expect(namespace.has(TAP)).toBe(false);
  });

  it('gets what the new settings say of it, after the takeover', async () => {
    const old = await begin({ queueCount: 2, mtu: 1400 });
    const more = { queueCount: 2, mtu: 1300, addresses: [parseIpPrefix('10.9.0.1/24')!] };
    const next = side(more);
    next.port.takeOver(await handed(old));
    await next.port.start();
    expect(namespace.link(TAP).mtu).toBe(1400);
    await rest(old);
    await next.port.goOnAt(sent(old.port.positions()));
    await goOn(next);
    await old.end();
    expect(namespace.link(TAP).mtu).toBe(1300);
    expect(namespace.ip(`addr show ${TAP}`)).toContain('10.9.0.1/24');
    expect([next.port.mtu, next.dataPath.linkMtu]).toEqual([1300, 1300]);
    expect([...next.dataPath.ingress.keys()]).toEqual([1, 3]);
  });

  it('goes on when the other one comes to nothing', async () => {
    const old = await begin();
    const next = side({ mtu: 1300 });
    next.port.takeOver(await handed(old));
    await next.port.start();
    await rest(old);
    old.port.positions();
    await goOn(old);
    await next.end();
    expect(namespace.link(TAP).mtu).toBe(1500);
    host!.send(frame(5));
    await old.dataPath.until(() => old.dataPath.received.length === 1);
  });

  it('is not handed over when its interface was deleted meanwhile', async () => {
    const old = await begin();
    const next = side();
    next.port.takeOver(await handed(old));
    await next.port.start();
    namespace.ip(`link del ${TAP}`);
    await old.events.said(/was deleted/);
    await rest(old);
    expect(() => old.port.positions()).toThrow(`${TAP} was lost or found meanwhile`);
  });

  it('is not taken over with another number of queues', async () => {
    const old = await begin({ queueCount: 2 });
    const next = side();
    const offered = await handed(old);
    expect(() => next.port.takeOver(offered)).toThrow(
      'its number of queues is 2 in the running Ringway, and 1 in the settings',
    );
    withDescriptors(offered, (fd) => {
      closeFd(fd);
      return -1;
    });
  });
});
