/**
 * The TAP port on real interfaces in a network namespace of its own: frames both ways in bursts, configuration,
 * and everything that stands in the way of an interface or takes it away.
 */

import { spawnSync } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EpollSet } from '../../src/host/epoll.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { libc } from '../../src/host/libc.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { TuningError } from '../../src/port/contract.ts';
import { TAP_MTU_MAX, TapInterface, type TapOptions } from '../../src/port/tap/interface.ts';
import { type IpPrefix, parseIpPrefix } from '../../src/port/tap/ip-prefix.ts';
import { TapPort } from '../../src/port/tap/port.ts';
import { Batch } from '../../src/queue/batch.ts';
import { COUNT_LOST, QueueState } from '../../src/queue/state.ts';
import { type OpenFds, openedSince, openFds } from '../host/open-fds.ts';
import { softwareMissing } from '../peers/software.ts';
import { Random } from '../vring/random.ts';
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
const hasEthtool = spawnSync('ethtool', ['--version']).status === 0;
const noEthtool = hasEthtool ? null : softwareMissing('ethtool');
const TUNSETOFFLOAD = 0x400454d0;
const arena = Arena.reserve(2 ** 32);
const arenaView = new ArenaView(arena.location);
descriptorLoop();

const TAP = 'tap0';
const MAC = '02:00:00:00:00:09';

let before: OpenFds;
let namespace: TestNamespace;
let dataPath: TestDataPath;
let events: Events;
let ports: TapPort[];
let others: { close(): void }[];

beforeEach(() => {
  before = openFds();
  namespace = new TestNamespace().add({ ipv6: true });
  dataPath = new TestDataPath(arena, arenaView);
  events = new Events();
  ports = [];
  others = [];
});

afterEach(async () => {
  for (const port of ports) await port.stop();
  for (const other of others) other.close();
  expect(dataPath.ingress.size + dataPath.egress.size).toBe(0);
  dataPath.close();
  namespace.remove();
  expect(arena.mappedBytes).toBe(0);
  expect(openedSince(before)).toEqual([]);
});

function optionsWith(some: Partial<TapOptions>): TapOptions {
  return {
    interfaceName: TAP,
    namespace: namespace.name,
    queueCount: 1,
    mtu: null,
    mac: null,
    addresses: [],
    bringUp: true,
    offloads: {},
    ...some,
  };
}

async function start(some: Partial<TapOptions> = {}): Promise<TapPort> {
  const port = new TapPort(optionsWith(some), {
    id: 3,
    name: 'host',
    arena,
    arenaView,
    dataPath,
    events: events.sink,
  });
  ports.push(port);
  dataPath.onQueueFailed = (queueIndex) => port.queueFailed(queueIndex);
  await port.start();
  return port;
}

/** The host's side of the interface. */
function hostSide(): PacketSocket {
  const socket = new PacketSocket(namespace, TAP);
  others.push(socket);
  return socket;
}

/** Someone else's queues of an interface. */
function openElsewhere(some: Partial<TapOptions> = {}): TapInterface {
  const tap = TapInterface.open(optionsWith(some));
  others.push(tap);
  return tap;
}

function prefixes(...texts: string[]): IpPrefix[] {
  return texts.map((text) => parseIpPrefix(text)!);
}

/** A frame to and from made-up stations, of the ethertype that the tests look at. */
function frameOf(random: Random, sizeBytes: number): Uint8Array {
  const frame = random.bytes(sizeBytes);
  // Both stations' addresses: no group, locally administered.
  frame[0] = 2;
  frame[6] = 2;
  frame[12] = TEST_ETHERTYPE >> 8;
  frame[13] = TEST_ETHERTYPE & 0xff;
  return frame;
}

function framesOf(seed: number, count: number, sizeMax: number): Uint8Array[] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => frameOf(random, random.between(14, sizeMax)));
}

/** Whether the host leaves it to the interface to cut TCP's data into frames; needs the program ethtool. */
function segmentationOffload(): string | undefined {
  const [program, ...args] = namespace.exec('ethtool', '-k', TAP);
  const { stdout } = spawnSync(program!, args, { encoding: 'utf8' });
  return /tcp-segmentation-offload: (\w+)/.exec(stdout)?.[1];
}

/** Equality of many bytes, much faster than `toEqual`. */
function expectSame(frames: readonly Uint8Array[], expected: readonly Uint8Array[]): void {
  expect(frames.length).toBe(expected.length);
  for (const [i, frame] of frames.entries()) {
    if (Buffer.compare(frame, expected[i]) !== 0) expect(frame, `frame ${i}`).toEqual(expected[i]);
  }
}

function sum(frames: readonly Uint8Array[]): number {
  return frames.reduce((total, frame) => total + frame.length, 0);
}

describe.skipIf(unavailable !== null)(titleWith('frames of a TAP port', unavailable), () => {
  it.each([1500, 9000, TAP_MTU_MAX])('go both ways in bursts, MTU %i', async (mtu) => {
    const port = await start({ mtu });
    const host = hostSide();
    expect(port.status).toEqual({ state: 'running', reason: null });
    expect(port.mtu).toBe(mtu);
    expect(dataPath.linkMtu).toBe(mtu);

    const out = framesOf(1, 150, mtu + 14);
    for (let i = 0; i < out.length; i += 50) {
      expect(dataPath.place(0, out.slice(i, i + 50))).toBe(0);
      expectSame(await host.receive(50), out.slice(i, i + 50));
    }

    const inward = framesOf(2, 150, mtu + 14);
    for (let i = 0; i < inward.length; i += 50) {
      // All of them wait before the first is looked at.
      dataPath.polls = false;
      for (const frame of inward.slice(i, i + 50)) host.send(frame);
      dataPath.polls = true;
      await dataPath.until(() => dataPath.received.length >= i + 50);
    }
    expectSame(dataPath.received, inward);
    const { counters } = port;
    expect(counters).toMatchObject({ egressFrames: 150, egressBytes: sum(out) });
    // The host sends some of its own, router solicitations for example.
    expect(counters.ingressFrames).toBeGreaterThanOrEqual(150);
    expect(counters.ingressBytes).toBeGreaterThanOrEqual(sum(inward));
  });

  it('go over more than one burst at once', async () => {
    await start();
    const host = hostSide();
    const out = framesOf(3, 130, 200);
    dataPath.place(0, out);
    expect(await host.receive(130)).toEqual(out);
    dataPath.polls = false;
    for (const frame of out) host.send(frame);
    dataPath.polls = true;
    await dataPath.until(() => dataPath.received.length >= 130);
    expect(dataPath.received).toEqual(out);
  });

  it('go by every queue of several', async () => {
    const port = await start({ queueCount: 4 });
    const host = hostSide();
    expect(port.queues.map(({ started }) => started)).toEqual(new Array(8).fill(true));
    for (let pair = 0; pair < 4; pair++) {
      const out = framesOf(pair, 20, 1514);
      dataPath.place(2 * pair, out);
      expect(await host.receive(20)).toEqual(out);
    }
    const inward = framesOf(9, 100, 1514);
    for (const frame of inward) host.send(frame);
    await dataPath.until(() => dataPath.received.length >= 100);
    // Which queue the host chooses is its own affair, and so is the order over queues.
    const sorted = (frames: Uint8Array[]): string[] =>
      frames.map((f) => Buffer.from(f).toString('hex')).sort();
    expect(sorted(dataPath.received)).toEqual(sorted(inward));
  });

  it('wake whoever sleeps', async () => {
    await start();
    const host = hostSide();
    dataPath.polls = false;
    const queue = dataPath.ingress.get(1)!;
    const epoll = new EpollSet();
    try {
      epoll.add(queue.wakeFd);
      // What the host sends by itself goes first.
      const batch = new Batch();
      while (!queue.armWake()) if (queue.gather(batch) > 0) queue.finish();
      host.send(framesOf(5, 1, 100)[0]);
      expect(epoll.wait(10_000)).toBe(1);
      expect(epoll.readyFd(0)).toBe(queue.wakeFd);
      expect(queue.acknowledgeWake()).toBe(true);
      expect(queue.gather(batch)).toBeGreaterThan(0);
      epoll.remove(queue.wakeFd);
    } finally {
      epoll.close();
    }
  });

  it('come in as long as the interface has them by now, and the changed MTU is said', async () => {
    const port = await start({ mtu: 1500, offloads: { csum: false } });
    namespace.ip(`link set ${TAP} mtu ${TAP_MTU_MAX}`);
    const host = hostSide();
    const longest = frameOf(new Random(7), TAP_MTU_MAX + 14);
    host.send(longest);
    await dataPath.until(() => dataPath.received.length > 0);
    expectSame(dataPath.received, [longest]);
    expect(port.counters.ingressFrames).toBe(dataPath.taken);
    expect(port.status.reason).toContain(
      `the MTU of tap0 is ${TAP_MTU_MAX} now, and Ringway goes by 1500: ringway set host mtu=${TAP_MTU_MAX}`,
    );
  });

  it('follow an MTU that is set while they flow', async () => {
    const port = await start();
    const tune = (mtu: number | null): Promise<void> => port.tune({ mtu, offloads: {} });
    await tune(9000);
    expect([namespace.link(TAP).mtu, port.mtu, dataPath.linkMtu]).toEqual([9000, 9000, 9000]);
    expect(port.status).toEqual({ state: 'running', reason: null });
    const host = hostSide();
    const frames = [frameOf(new Random(8), 9014)];
    host.send(frames[0]);
    await dataPath.until(() => dataPath.received.length > 0);
    expectSame(dataPath.received, frames);
    dataPath.place(0, frames);
    expectSame(await host.receive(1), frames);
    // Taken back: it is the interface's own.
    await tune(null);
    expect([namespace.link(TAP).mtu, port.mtu]).toEqual([9000, 9000]);
    namespace.ip(`link delete ${TAP}`);
    await events.said(/^attached to tap0$/, 2);
    expect(port.mtu).toBe(1500);
  });

  it('keep the MTU of an interface that was moved away', async () => {
    const port = await start();
    const elsewhere = new TestNamespace();
    elsewhere.add();
    try {
      namespace.ip(`link set ${TAP} netns ${elsewhere.name}`);
      await expect(port.tune({ mtu: 9000, offloads: {} })).rejects.toThrow(TuningError);
      expect([elsewhere.link(TAP).mtu, port.options.mtu]).toEqual([1500, null]);
    } finally {
      elsewhere.remove();
    }
  });

  it('are lost while the link is down, which is no fault', async () => {
    const port = await start();
    const host = hostSide();
    namespace.ip(`link set ${TAP} down`);
    expect(port.status).toEqual({ state: 'running', reason: 'tap0 is down: ip link set tap0 up' });
    dataPath.place(0, framesOf(8, 10, 100));
    expect(new QueueState(port.states, 0).counts[COUNT_LOST]).toBe(10);
    expect(port.counters.egressFrames).toBe(0);
    namespace.ip(`link set ${TAP} up`);
    expect(port.status).toEqual({ state: 'running', reason: null });
    const out = framesOf(9, 10, 100);
    const arrived = host.receive(10);
    dataPath.place(0, out);
    expect(await arrived).toEqual(out);
  });
});

describe.skipIf(unavailable !== null)(titleWith('configuration of a TAP interface', unavailable), () => {
  it('is what was asked for, and the interface goes with the port', async () => {
    const mac = Uint8Array.from(MAC.split(':'), (byte) => Number.parseInt(byte, 16));
    const addresses = prefixes('10.1.0.1/24', '10.2.0.1/16', 'fd00:1::1/64');
    const port = await start({ mtu: 1400, mac, addresses });
    const [shown] = JSON.parse(namespace.ip(`-j -d addr show ${TAP}`));
    expect(shown).toMatchObject({
      mtu: 1400,
      address: MAC,
      flags: expect.arrayContaining(['UP', 'LOWER_UP']),
    });
    expect(shown.linkinfo.info_data).toMatchObject({
      type: 'tap',
      pi: false,
      vnet_hdr: true,
      persist: false,
    });
    const held = shown.addr_info.map(
      (a: { local: string; prefixlen: number }) => `${a.local}/${a.prefixlen}`,
    );
    expect(held).toEqual(expect.arrayContaining(['10.1.0.1/24', '10.2.0.1/16', 'fd00:1::1/64']));
    expect(port.details).toEqual({
      namespace: namespace.name,
      movedTo: null,
      interface: TAP,
      mac: MAC,
      up: true,
      persistent: false,
    });
    await port.stop();
    expect(namespace.has(TAP)).toBe(false);
    expect(port.status.state).toBe('stopped');
  });

  it('leaves an interface that is there as it is, and leaves it there', async () => {
    namespace.ip(`tuntap add ${TAP} mode tap`);
    namespace.ip(`link set ${TAP} mtu 3000 address ${MAC}`);
    const port = await start({ bringUp: false });
    expect(port.status).toEqual({ state: 'running', reason: 'tap0 is down: ip link set tap0 up' });
    expect(port.mtu).toBe(3000);
    expect(dataPath.linkMtu).toBe(3000);
    expect(port.details).toMatchObject({ mac: MAC, up: false, persistent: true });
    await port.stop();
    expect(namespace.link(TAP)).toMatchObject({ mtu: 3000, address: MAC });
  });

  it.skipIf(!hasEthtool)(titleWith('takes back the offloads of another program', noEthtool), async () => {
    namespace.ip(`tuntap add ${TAP} mode tap`);
    const other = openElsewhere();
    const TUN_F_CSUM_AND_TSO4 = 3;
    expect(libc.ioctlValue(other.fds[0], TUNSETOFFLOAD, TUN_F_CSUM_AND_TSO4)).toBe(0);
    expect(segmentationOffload()).toBe('on');
    closerOf(other)();
    await start({ offloads: { tso: false } });
    expect(segmentationOffload()).toBe('off');
  });

  it('takes an interface of several queues with one', async () => {
    namespace.ip(`tuntap add ${TAP} mode tap multi_queue`);
    const port = await start({ queueCount: 1 });
    expect(port.status).toEqual({ state: 'running', reason: null });
  });
});

/** A change outside that lets the port attach after all. */
type Remedy = () => void;

/** Each makes something stand in the way and says how it is removed. */
const OBSTACLES: readonly {
  readonly title: string;
  readonly options?: Partial<TapOptions>;
  readonly reason: string;
  readonly place: () => Remedy;
}[] = [
  {
    title: 'taken by another program',
    reason: 'another program has tap0 open: end that program, or name another interface',
    place: () => closerOf(openElsewhere()),
  },
  {
    title: 'taken by another program with several queues',
    options: { queueCount: 2 },
    reason: 'another program has tap0 open: end that program, or name another interface',
    place: () => closerOf(openElsewhere({ queueCount: 2 })),
  },
  {
    title: 'of another kind',
    reason: 'tap0 exists but is no TAP interface (it is of kind bridge): name another interface',
    place: () => obstacle(`link add ${TAP} type bridge`),
  },
  {
    title: 'a TUN interface',
    reason:
      'tap0 is a TUN interface, which has no Ethernet frames: delete it (ip link delete tap0), ' +
      'or name another interface',
    place: () => obstacle(`tuntap add ${TAP} mode tun`),
  },
  {
    title: 'made for a single queue',
    options: { queueCount: 2 },
    reason:
      'tap0 was made for a single queue: set queues=1, or make it again with ' +
      'ip tuntap add tap0 mode tap multi_queue',
    place: () => obstacle(`tuntap add ${TAP} mode tap`),
  },
  {
    title: 'in a namespace that is not there',
    reason: 'there is no network namespace /run/netns/NAMESPACE: make it with ip netns add NAMESPACE',
    place: () => {
      namespace.remove();
      return () => namespace.add();
    },
  },
];

function obstacle(command: string): Remedy {
  namespace.ip(command);
  return () => namespace.ip(`link delete ${TAP}`);
}

function closerOf(tap: TapInterface): Remedy {
  return () => {
    others.splice(others.indexOf(tap), 1);
    tap.close();
  };
}

describe.skipIf(unavailable !== null)(titleWith('a TAP interface that is', unavailable), () => {
  it.each(OBSTACLES)('$title is waited for', async ({ options, reason, place }) => {
    const remedy = place();
    const ownNamespace = readlinkSync('/proc/thread-self/ns/net');
    const port = await start(options);
    const said = reason.replaceAll('NAMESPACE', namespace.name);
    expect(port.status).toEqual({ state: 'waiting', reason: said });
    expect(events.all.filter((text) => text.startsWith('warning'))).toEqual([`warning: ${said}`]);
    expect(readlinkSync('/proc/thread-self/ns/net')).toBe(ownNamespace);
    remedy();
    await events.said(/^attached to tap0$/);
    expect(port.status).toEqual({ state: 'running', reason: null });
    const host = hostSide();
    const out = framesOf(1, 3, 100);
    dataPath.place(0, out);
    expect(await host.receive(3)).toEqual(out);
  });

  it('deleted comes back', async () => {
    const port = await start({ queueCount: 2 });
    const firstFrames = framesOf(1, 5, 100);
    dataPath.place(0, firstFrames);
    namespace.ip(`link delete ${TAP}`);
    await events.said(/^warning: tap0: the interface was deleted; Ringway tries to attach again$/);
    await events.said(/^attached to tap0$/, 2);
    expect(events.all).toEqual([
      'attached to tap0',
      'warning: tap0: the interface was deleted; Ringway tries to attach again',
      'disconnected',
      'attached to tap0',
    ]);
    const host = hostSide();
    const out = framesOf(2, 5, 100);
    dataPath.place(2, out);
    expect(await host.receive(5)).toEqual(out);
    // The counters go on.
    expect(port.counters.egressFrames).toBe(10);
  });

  it('deleted is noticed by the sender too', async () => {
    const port = await start();
    dataPath.polls = false;
    namespace.ip(`link delete ${TAP}`);
    expect(port.status).toEqual({ state: 'waiting', reason: 'tap0 was deleted' });
    dataPath.place(0, framesOf(1, 5, 100));
    const queue = dataPath.egress.get(0)!;
    expect(queue.fault).not.toBe(0);
    expect(port.queues[0].reason).toBe('the interface was deleted');
    expect(port.counters.egressFrames).toBe(0);
    expect(new QueueState(port.states, 0).counts[COUNT_LOST]).toBe(5);
    port.queueFailed(0);
    await events.said(/^attached to tap0$/, 2);
  });

  it('in a namespace that was removed comes back with a new one', async () => {
    await start();
    namespace.remove();
    await events.said(/^warning: the network namespace .* is gone$/);
    namespace.add({ ipv6: true });
    await events.said(/^attached to tap0$/, 2);
    const host = hostSide();
    const out = framesOf(2, 5, 100);
    dataPath.place(0, out);
    expect(await host.receive(5)).toEqual(out);
  });

  it('renamed is followed, and so is its end', async () => {
    const port = await start();
    namespace.ip(`link set ${TAP} name other0`);
    expect(port.status).toEqual({ state: 'running', reason: 'tap0 was renamed to other0' });
    expect(port.details).toMatchObject({ interface: 'other0', movedTo: null, up: true });
    await expectBothWays(namespace, 'other0');
    // Another one of the configured name is not taken for it.
    namespace.ip(`tuntap add ${TAP} mode tap`);
    expect(port.status).toEqual({ state: 'running', reason: 'tap0 was renamed to other0' });
    namespace.ip('link delete other0');
    await events.said(/^attached to tap0$/, 2);
    expect(port.details).toMatchObject({ interface: TAP, persistent: true });
  });

  it('moved to another namespace is followed there, renamed too, and comes back after its end', async () => {
    const port = await start();
    const elsewhere = new TestNamespace().add();
    others.push({ close: () => elsewhere.remove() });
    namespace.ip(`link set ${TAP} netns ${elsewhere.name}`);
    const moved = `tap0 was moved to the network namespace ${elsewhere.name}`;
    // The kernel takes down what it moves.
    expect(port.status).toEqual({
      state: 'running',
      reason: `${moved}; tap0 is down: ip link set tap0 up there`,
    });
    elsewhere.ip(`link set ${TAP} up`);
    expect(port.status).toEqual({ state: 'running', reason: moved });
    expect(port.details).toMatchObject({
      movedTo: `the network namespace ${elsewhere.name}`,
      namespace: namespace.name,
      up: true,
      persistent: false,
    });
    await expectBothWays(elsewhere, TAP);
    elsewhere.ip(`link set ${TAP} down`);
    elsewhere.ip(`link set ${TAP} name other0 up`);
    expect(port.status.reason).toBe(`${moved} and renamed to other0`);
    await expectBothWays(elsewhere, 'other0');
    // Asking about it does not keep the namespace alive: the interface ends with it.
    elsewhere.remove();
    await events.said(/^warning: tap0: the interface was deleted; Ringway tries to attach again$/);
    await events.said(/^attached to tap0$/, 2);
    expect(port.status).toEqual({ state: 'running', reason: null });
    await expectBothWays(namespace, TAP);
  });

  it('moved away outlives the namespace that it came from', async () => {
    const port = await start();
    const elsewhere = new TestNamespace().add();
    others.push({ close: () => elsewhere.remove() });
    namespace.ip(`link set ${TAP} netns ${elsewhere.name}`);
    elsewhere.ip(`link set ${TAP} up`);
    namespace.remove();
    // Longer than it takes to notice that a namespace is gone; nothing tells of what must not happen.
    await new Promise((resolve) => setTimeout(resolve, 2500));
    expect(port.status).toEqual({
      state: 'running',
      reason: `tap0 was moved to the network namespace ${elsewhere.name}`,
    });
    expect(events.all).toEqual(['attached to tap0']);
    await expectBothWays(elsewhere, TAP);
  });

  async function expectBothWays(there: TestNamespace, name: string): Promise<void> {
    const host = new PacketSocket(there, name);
    try {
      const out = framesOf(1, 3, 100);
      dataPath.place(0, out);
      expectSame(await host.receive(3), out);
      const already = dataPath.received.length;
      const inward = framesOf(2, 3, 100);
      for (const frame of inward) host.send(frame);
      await dataPath.until(() => dataPath.received.length >= already + 3);
      expectSame(dataPath.received.slice(already), inward);
    } finally {
      host.close();
    }
  }

  it('missing when the port is stopped is not waited for any longer', async () => {
    namespace.remove();
    const port = await start();
    await port.stop();
    expect(port.status).toEqual({ state: 'stopped', reason: 'the port was stopped' });
  });
});

const TAP_MODULE = fileURLToPath(new URL('../../src/port/tap/interface.ts', import.meta.url));
/** Opens an interface in a process of its own and prints why that cannot be. */
const OPENS_TAP = `
  const { TapInterface } = await import(${JSON.stringify(TAP_MODULE)});
  try {
    TapInterface.open({ interfaceName: 'tap0', namespace: null, queueCount: 1, mtu: null, mac: null,
      addresses: [], bringUp: true });
    console.log('opened');
  } catch (error) { console.log(error.name + ': ' + error.message); }`;

describe.skipIf(unavailable !== null)(titleWith('a process', unavailable), () => {
  it.each([
    {
      lacks: 'the privilege',
      command: ['setpriv', '--bounding-set', '-net_admin', '--inh-caps', '-net_admin'],
      says: 'Ringway may not make or attach to tap0: run it as root or give it CAP_NET_ADMIN',
    },
    {
      lacks: 'the device',
      command: ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs none /dev/net && exec "$@"', 'sh'],
      says:
        '/dev/net/tun is not there: load the module (modprobe tun), or give the container the device ' +
        '(--device /dev/net/tun)',
    },
  ])('that lacks $lacks is told so', ({ command, says }) => {
    const args = [...namespace.exec(...command), process.execPath, '--input-type=module', '-e', OPENS_TAP];
    const { stdout, stderr } = spawnSync(args[0], args.slice(1), { encoding: 'utf8' });
    expect({ stdout: stdout.trim(), stderr }).toEqual({ stdout: `TapError: ${says}`, stderr: '' });
  });
});
