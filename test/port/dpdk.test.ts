/** A DPDK port without workers: what it attaches, how it says what is missing, and how it comes back. */
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { DpdkPort, type DpdkPortOptions } from '../../src/port/dpdk/port.ts';
import type { QueueAttachment } from '../../src/port/kinds.ts';
import type { DataPath } from '../../src/queue/data-path.ts';
import type { PortPolicy } from '../../src/queue/policy.ts';
import { OFFLOAD_CHECKSUM } from '../../src/queue/requests.ts';
import { whyNoDpdk } from '../dpdk/dpdk-here.ts';
import { runProgram } from '../peers/index.ts';

const why = whyNoDpdk();
const OPTIONS: DpdkPortOptions = {
  device: 'net_ring0',
  queueCount: 1,
  mtu: null,
  promiscuous: true,
  offloads: {},
  ealArguments: ['--no-huge'],
};

/** Remembers what is attached; every order is done at once. */
class Recorder implements DataPath {
  readonly attached = new Map<number, QueueAttachment>();
  linkMtu = 0;
  takes = -1;
  async attach(queue: QueueAttachment): Promise<void> {
    this.attached.set(queue.queueIndex, queue);
  }
  async detach(_portId: number, queueIndex: number): Promise<void> {
    this.attached.delete(queueIndex);
  }
  async setCallFd(): Promise<void> {}
  async setMemory(): Promise<void> {}
  async setLog(): Promise<void> {}
  async announce(): Promise<void> {}
  async setPolicy(_portId: number, { linkMtu, takes }: Partial<PortPolicy>): Promise<void> {
    this.linkMtu = linkMtu ?? this.linkMtu;
    this.takes = takes ?? this.takes;
  }
}

describe.skipIf(why !== null)(`a dpdk port (${why ?? 'DPDK is here'})`, () => {
  const arena = Arena.reserve(2 ** 32);
  const arenaView = new ArenaView(arena.location);
  const ports: DpdkPort[] = [];
  const dummy = `rwt${process.pid}`;

  const make = (options: Partial<DpdkPortOptions> = {}) => {
    const dataPath = new Recorder();
    const log: string[] = [];
    const tell = (message: string): void => void log.push(message);
    const port = new DpdkPort(
      { ...OPTIONS, ...options },
      {
        id: 7,
        name: 'up',
        arena,
        arenaView,
        dataPath,
        events: { info: tell, warn: tell, disconnected: () => {} },
      },
    );
    ports.push(port);
    return { port, dataPath, log };
  };
  afterEach(async () => {
    for (const port of ports.splice(0)) await port.stop();
    expect(arena.mappedBytes).toBe(0);
  });
  afterAll(async () => {
    await runProgram('ip', ['link', 'del', dummy]);
  });

  it('attaches every queue, tells about its device, and lets go', async () => {
    const { port, dataPath, log } = make({ queueCount: 2 });
    expect(port.status).toEqual({ state: 'waiting', reason: 'not started yet' });
    await port.start();
    expect(port.status).toEqual({ state: 'running', reason: null });
    expect([...dataPath.attached.keys()]).toEqual([0, 1, 2, 3]);
    expect(dataPath.linkMtu).toBe(1500);
    expect(dataPath.takes).toBe(0);
    expect(port.mtu).toBe(1500);
    expect(port.queues.map(({ direction, started }) => [direction, started])).toEqual([
      ['egress', true],
      ['ingress', true],
      ['egress', true],
      ['ingress', true],
    ]);
    expect(port.details).toMatchObject({
      driver: 'net_ring',
      memory: 'no hugepages (EAL runs with --no-huge)',
      link: { up: true },
      offloads: [],
      statistics: { ipackets: 0, opackets: 0 },
    });
    expect(port.details.dpdk).toMatch(/^DPDK 2\d\.\d+/);
    expect(log[0]).toMatch(/runs with no hugepages/);
    await port.stop();
    expect(dataPath.attached.size).toBe(0);
    expect(port.status.state).toBe('stopped');
    expect(port.details).toMatchObject({ driver: null, link: null, statistics: null });
  });

  it('is stopped for good by what only another configuration mends', async () => {
    const { port } = make({ queueCount: 17 });
    await port.start();
    expect(port.status.state).toBe('stopped');
    expect(port.status.reason).toMatch(/has 16 queues each way, not 17/);
  });

  it('waits for a device that another port has, and takes it when it is free', async () => {
    const first = make();
    await first.port.start();
    const second = make();
    await second.port.start();
    expect(second.port.status).toEqual({
      state: 'waiting',
      reason: 'net_ring0 is in use by another port',
    });
    await first.port.stop();
    // It may have told of it before the first one had ended.
    await vi.waitUntil(() => second.port.status.state === 'running');
  });

  it.skipIf(process.getuid?.() !== 0)('comes and goes with its interface', async () => {
    const { port, dataPath } = make({ device: `net_af_packet3,iface=${dummy}` });
    await port.start();
    expect(port.status).toEqual({
      state: 'waiting',
      reason: `net_af_packet3 needs the interface ${dummy}, which does not exist`,
    });
    await runProgram('ip', ['link', 'add', dummy, 'type', 'veth', 'peer', 'name', `${dummy}p`]);
    await vi.waitUntil(() => port.status.state === 'running');
    expect(port.status).toEqual({ state: 'running', reason: `${dummy} is down: ip link set ${dummy} up` });
    expect(port.details.driver).toBe('net_af_packet');
    await runProgram('ip', ['link', 'set', dummy, 'up']);
    expect(port.status.reason).toBeNull();
    await runProgram('ip', ['link', 'del', dummy]);
    await vi.waitUntil(() => port.status.state === 'waiting');
    await vi.waitUntil(() => dataPath.attached.size === 0);
  });

  it.skipIf(process.getuid?.() !== 0)('takes what its device does, unless it is switched off', async () => {
    const device = `net_tap0,iface=${dummy}t`;
    const { port, dataPath } = make({ device });
    await port.start();
    expect(port.details.offloads).toEqual(['UDP_CKSUM', 'TCP_CKSUM']);
    expect(dataPath.takes).toBe(OFFLOAD_CHECKSUM);
    await port.stop();
    expect(port.details.offloads).toBeNull();
    const off = make({ device, offloads: { csum: false } });
    await off.port.start();
    expect(off.port.details.offloads).toEqual([]);
    expect(off.dataPath.takes).toBe(0);
  });

  it('says that the options of EAL come too late', async () => {
    const { port, log } = make({ device: 'net_null5', ealArguments: ['-m', '77'] });
    await port.start();
    expect(port.status.state).toBe('running');
    expect(log[0]).toMatch(/runs already with the options of another port/);
  });
});
