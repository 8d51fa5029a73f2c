/**
 * The vhost-user port in both roles, with real sockets and a fake data path: one front-end at a time, again
 * after it is gone, and nothing left when it is stopped.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import type { DeviceOptions } from '../../src/device/net/options.ts';
import { closeFd } from '../../src/host/descriptor.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { acceptUnix, connectUnix, listenUnix, SocketPathError } from '../../src/host/unix-socket.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { VhostUserPort } from '../../src/port/vhost-user/port.ts';
import { QueueState, STATE_FAULT } from '../../src/queue/state.ts';
import { faultMessage, RING_FAULT } from '../../src/vring/faults.ts';
import { FakeDataPath } from '../device/fake-data-path.ts';
import { type OpenFds, openedSince, openFds } from '../host/open-fds.ts';
import { GuestFile, UVA_BASE } from '../memory/guest-file.ts';
import { runProgram } from '../peers/child.ts';
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
import { Events } from './events.ts';

const PORT_ID = 3;
const GUEST_BYTES = 2 ** 20;
const DEVICE: DeviceOptions = { queuePairsMax: 1, configSpace: false, mac: null, mtu: null };

const arena = Arena.reserve(2 ** 32);
const arenaView = new ArenaView(arena.location);
descriptorLoop();

let before: OpenFds;
let folder: string;
let path: string;
let dataPath: FakeDataPath;
let events: Events;
let port: VhostUserPort;
let guest: GuestFile;
const fronts: ScriptedFrontEnd[] = [];

beforeEach(() => {
  before = openFds();
  folder = mkdtempSync(join(tmpdir(), 'ringway-port-'));
  path = join(folder, 'vm.sock');
  dataPath = new FakeDataPath(arena, PORT_ID);
  events = new Events();
  guest = new GuestFile(GUEST_BYTES);
});

afterEach(async () => {
  for (const front of fronts.splice(0)) front.close();
  await port.stop();
  guest.close();
  rmSync(folder, { recursive: true, force: true });
  dataPath.expectSound();
  expect(dataPath.attached.size).toBe(0);
  expect(arena.mappedBytes).toBe(0);
  // A look at how the front-end maps its memory is waited for by nobody else.
  await vi.waitFor(() => expect(openedSince(before)).toEqual([]));
});

function makePort(role: 'server' | 'client', mode?: number): VhostUserPort {
  port = new VhostUserPort(
    {
      socketPath: path,
      role,
      listen: mode === undefined ? {} : { mode },
      device: DEVICE,
    },
    { id: PORT_ID, name: 'vm0', arena, arenaView, dataPath, events: events.sink },
  );
  return port;
}

function frontEnd(fd: number): ScriptedFrontEnd {
  const front = new ScriptedFrontEnd(fd);
  fronts.push(front);
  return front;
}

const connect = (): ScriptedFrontEnd => frontEnd(connectUnix(path));

/** Makes both rings run. */
async function run(front: ScriptedFrontEnd): Promise<void> {
  front.send('SET_OWNER');
  front.send('SET_PROTOCOL_FEATURES', u64(bit(P.MQ, P.REPLY_ACK)));
  front.send('SET_FEATURES', u64(bit(F.VERSION_1, F.PROTOCOL)));
  front.send('SET_MEM_TABLE', table([guest.region()]), [guest.fd]);
  for (const index of [0, 1]) {
    const at = UVA_BASE + BigInt(index * 0x4000);
    front.send('SET_VRING_NUM', state(index, 256));
    front.send(
      'SET_VRING_ADDR',
      ringAddress(index, { descUva: at, availUva: at + 0x2000n, usedUva: at + 0x3000n }),
    );
    front.send('SET_VRING_KICK', u64(index), [front.eventFd()]);
    front.send('SET_VRING_ENABLE', state(index, 1));
  }
  expect(await front.settle()).toEqual([]);
}

describe('as a server', () => {
  it('waits, negotiates, runs, and waits again', async () => {
    makePort('server').start();
    expect(port.status).toEqual({ state: 'waiting', reason: 'waiting for a front-end to connect' });
    const front = connect();
    await front.request('GET_FEATURES');
    expect(port.status).toEqual({ state: 'negotiating', reason: null });
    await run(front);
    expect(port.status).toEqual({ state: 'running', reason: null });
    expect([...dataPath.attached.keys()]).toEqual([0, 1]);
    front.close();
    await events.said(/front-end gone/);
    expect(events.all.filter((text) => /connected|gone/.test(text))).toEqual([
      'front-end connected',
      'front-end gone: the front-end closed the connection',
    ]);
    // A second life on the same socket.
    const again = connect();
    await run(again);
    expect(port.status.state).toBe('running');
  });

  it('takes a front-end that comes back at once, and says what it may have left for', async () => {
    const ROUNDS = 3;
    makePort('server').start();
    for (let round = 0; round < ROUNDS; round++) {
      const front = connect();
      await front.request('GET_FEATURES');
      front.send('SET_PROTOCOL_FEATURES', u64(bit(P.MQ, P.REPLY_ACK)));
      expect((await front.request('GET_QUEUE_NUM')).u64).toBe(3n);
      front.close();
    }
    const gone = 'the front-end closed the connection; before that: it had asked how many queues there are';
    await events.said(/^front-end gone/, ROUNDS);
    await events.said(/disconnected/, ROUNDS);
    // One that says nothing hides nothing.
    connect().close();
    await events.said(/disconnected/, ROUNDS + 1);
    expect(port.status.reason).toBe(
      `waiting for a front-end to connect (last: ${gone} ` +
        "(the port has one queue pair: raise its queues=, or lower the front-end's))",
    );
    expect(events.all.filter((text) => text.includes('refused'))).toEqual([]);
  });

  it('gives no hint about queues for one that left once, which may have crashed', async () => {
    makePort('server').start();
    const ask = async (): Promise<void> => {
      const front = connect();
      front.send('SET_PROTOCOL_FEATURES', u64(bit(P.MQ, P.REPLY_ACK)));
      await front.request('GET_QUEUE_NUM');
      front.close();
    };
    await ask();
    await events.said(/disconnected/);
    const gone = 'the front-end closed the connection';
    expect(port.status.reason).toBe(`waiting for a front-end to connect (last: ${gone})`);
    // Served in between: what it asks for at another time is not again.
    const served = connect();
    await run(served);
    served.close();
    await events.said(/disconnected/, 2);
    await ask();
    await events.said(/disconnected/, 3);
    expect(port.status.reason).toBe(`waiting for a front-end to connect (last: ${gone})`);
    await ask();
    await events.said(/disconnected/, 4);
    expect(port.status.reason).toContain('had asked how many queues there are');
  });

  it('offers what it is set to next, and a guest that comes back what it was offered before', async () => {
    makePort('server').start();
    const offeredTo = async (front: ScriptedFrontEnd): Promise<bigint> =>
      (await front.request('GET_FEATURES')).u64;
    const other = async (): Promise<bigint> => {
      const script = fileURLToPath(new URL('./other-guest.ts', import.meta.url));
      const { code, output } = await runProgram(process.execPath, [script, path], {
        timeoutMs: 20_000,
        env: {},
      });
      expect(code, output).toBe(0);
      return BigInt(output);
    };
    const tso = (features: bigint): boolean => (features & bit(VIRTIO_FEATURE.NET_HOST_TSO4)) !== 0n;

    const front = connect();
    const before = await offeredTo(front);
    expect(tso(before)).toBe(true);
    await port.tune({ mtu: null, offloads: { tso: false } });
    await run(front);
    expect(await offeredTo(front)).toBe(before);
    front.close();
    await events.said(/disconnected/, 1);
    // Who only looks is not a guest, and changes nothing.
    const looker = connect();
    await looker.request('GET_FEATURES');
    looker.close();
    await events.said(/disconnected/, 2);
    const again = connect();
    expect(await offeredTo(again)).toBe(before);
    await run(again);
    again.close();
    await events.said(/disconnected/, 3);

    const after = await other();
    expect(tso(after)).toBe(false);
    expect(after & before).toBe(after);
    await events.said(/disconnected/, 4);
    // This process was the guest before that one.
    const later = connect();
    expect(await offeredTo(later)).toBe(after);
    await run(later);
    await port.tune({ mtu: null, offloads: {} });
    later.close();
    await events.said(/disconnected/, 5);
    expect(await offeredTo(connect())).toBe(before);
  });

  it('offers everything to a guest that insists on more than is set, as after a start with other settings', async () => {
    makePort('server').start();
    const everything = bit(VIRTIO_FEATURE.NET_HOST_TSO4) | bit(VIRTIO_FEATURE.NET_CSUM);
    await port.tune({ mtu: null, offloads: { csum: false } });
    // As QEMU does: it asks, does not find what its guest has, and leaves.
    const asks = async (): Promise<bigint> => {
      const front = connect();
      const offered = (await front.request('GET_FEATURES')).u64;
      front.send('SET_PROTOCOL_FEATURES', u64(bit(P.MQ, P.REPLY_ACK)));
      await front.request('GET_QUEUE_NUM');
      front.close();
      return offered;
    };
    expect((await asks()) & everything).toBe(0n);
    await events.said(/disconnected/, 1);
    expect(port.status.reason).toContain('its guest may have features that the settings leave out');
    const again = connect();
    expect((await again.request('GET_FEATURES')).u64 & everything).toBe(everything);
    await run(again);
    again.close();
    await events.said(/disconnected/, 2);
    expect((await asks()) & everything).toBe(everything);
    await events.said(/disconnected/, 3);
    // Whoever leaves although nothing was left out has another reason.
    await asks();
    await events.said(/disconnected/, 4);
    expect(port.status.reason).toContain('had asked how many queues there are');
  });

  it('says nothing of who only asks whether it listens', async () => {
    makePort('server').start();
    closeFd(connectUnix(path));
    await events.said(/disconnected/);
    expect(port.status.reason).toBe('waiting for a front-end to connect');
    const front = connect();
    await run(front);
    closeFd(connectUnix(path));
    // One that stays is refused after it, so the question was answered by then.
    const second = connect();
    await second.closed;
    expect(events.all).toEqual([
      'disconnected',
      'front-end connected',
      'negotiating',
      'running',
      'warning: refused a second connection: one is in use already',
    ]);
  });

  it('sets the mode of its socket and removes it when stopped', async () => {
    makePort('server', 0o620).start();
    expect(statSync(path).mode & 0o777).toBe(0o620);
    await port.stop();
    expect(existsSync(path)).toBe(false);
    expect(port.status).toEqual({ state: 'stopped', reason: 'the port was stopped' });
    await port.stop();
  });

  it('refuses a second front-end at once, and serves the first on', async () => {
    makePort('server').start();
    const first = connect();
    await run(first);
    const second = connect();
    await second.closed;
    expect(events.all).toContain('warning: refused a second connection: one is in use already');
    expect(await first.settle()).toEqual([]);
    expect(port.status.state).toBe('running');
  });

  it('lets no front-end in before the workers let go of the last one', async () => {
    makePort('server').start();
    const first = connect();
    await run(first);
    const hold = dataPath.hold('detach');
    first.close();
    await hold.called;
    const second = connect();
    second.send('GET_FEATURES');
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
    expect(second.repliesNow()).toEqual([]);
    expect(second.isClosed).toBe(false);
    expect(dataPath.attached.size).toBeGreaterThan(0);
    hold.release();
    expect((await second.reply()).request).toBe(1);
    expect(dataPath.attached.size).toBe(0);
  });

  it('lets a front-end in that connects again while the last message before is still worked on', async () => {
    makePort('server').start();
    const front = connect();
    await run(front);
    const detaching = dataPath.hold('detach');
    // The workers take their time; meanwhile its end is not even read.
    front.send('GET_VRING_BASE', state(0, 0));
    await detaching.called;
    front.close();
    const again = connect();
    // Longer than any pause after which it could be refused; nothing tells of what must not happen.
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(events.all.filter((text) => /refused/.test(text))).toEqual([]);
    detaching.release();
    await run(again);
    expect(port.status).toEqual({ state: 'running', reason: null });
  });

  it('says while its socket cannot be reached, and takes the next front-end at a new one', async () => {
    const inner = join(folder, 'f');
    mkdirSync(inner);
    path = join(inner, 'vm.sock');
    makePort('server', 0o620).start();
    const front = connect();
    await run(front);
    rmSync(inner, { recursive: true });
    await events.said(/^warning: nobody can reach the socket: its file is gone/);
    const reason = `nobody can connect: its file is gone: folder ${inner} of socket ${path} does not exist`;
    expect(port.status).toEqual({ state: 'running', reason });
    mkdirSync(inner);
    await events.said(/^the file of socket .* was gone and was made anew$/);
    expect([port.status, statSync(path).mode & 0o777]).toEqual([{ state: 'running', reason: null }, 0o620]);
    front.close();
    await events.said(/front-end gone/);
    await run(connect());
    expect(port.status).toEqual({ state: 'running', reason: null });
  });

  it('can be stopped in the middle of anything', async () => {
    makePort('server').start();
    const front = connect();
    await run(front);
    const hold = dataPath.hold('detach');
    front.send('GET_VRING_BASE', state(0, 0));
    await hold.called;
    let stopped = false;
    const stopping = port.stop().then(() => {
      stopped = true;
    });
    for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
    expect([stopped, existsSync(path)]).toEqual([false, false]);
    hold.release();
    await stopping;
    expect(dataPath.attached.size).toBe(0);
    await front.closed;
  });

  it('can be stopped while it lets go of a front-end, and does not listen again', async () => {
    makePort('server').start();
    const front = connect();
    await run(front);
    const hold = dataPath.hold('detach');
    front.close();
    await hold.called;
    const stopping = port.stop();
    hold.release();
    await stopping;
    expect(() => connectUnix(path)).toThrow(/ENOENT/);
  });

  it('ends a hostile connection with its reason, which it tells while waiting', async () => {
    makePort('server').start();
    const front = connect();
    await run(front);
    front.sendBytes(new Uint8Array(12).fill(0xff));
    await front.closed;
    await events.said(/front-end gone/);
    const again = connect();
    await again.request('GET_FEATURES');
    expect(port.status).toEqual({ state: 'negotiating', reason: null });
    again.close();
    await events.said(/front-end gone/, 2);
    await events.said(/disconnected/, 2);
    expect(port.status.reason).toBe(
      'waiting for a front-end to connect (last: the front-end closed the connection)',
    );
  });

  it('serves many front-ends one after the other without leaking', async () => {
    makePort('server').start();
    for (let i = 1; i <= 20; i++) {
      const front = connect();
      await run(front);
      front.close();
      await events.said(/front-end gone/, i);
    }
  });

  it('tells what a front-end did that was refused', async () => {
    makePort('server').start();
    const front = connect();
    await run(front);
    expect(await front.ack('SET_VRING_NUM', state(0, 0))).toBe(1n);
    expect(events.all.at(-1)).toMatch(/^warning: refused: SET_VRING_NUM: ring size 0/);
    expect(port.status).toEqual({
      state: 'running',
      reason: expect.stringMatching(/^refused: SET_VRING_NUM/),
    });
  });

  it('tells that a queue stopped, and keeps the state of the others', async () => {
    makePort('server').start();
    const front = connect();
    await run(front);
    const { words } = new QueueState(port.states, 1);
    words[STATE_FAULT] = RING_FAULT.CHAIN_LOOP;
    port.queueFailed(1);
    const reason = `queue 1 stopped: ${faultMessage(RING_FAULT.CHAIN_LOOP)}`;
    expect(port.status).toEqual({ state: 'running', reason });
    expect(events.all.at(-1)).toBe(`warning: running: ${reason}`);
    new QueueState(port.states, 0).words[STATE_FAULT] = RING_FAULT.BUFFER_ADDRESS;
    port.queueFailed(0);
    expect(port.status.state).toBe('stopped');
    await front.request('GET_VRING_BASE', state(0, 0));
    await front.request('GET_VRING_BASE', state(1, 0));
    expect(port.status).toEqual({ state: 'negotiating', reason: null });
  });

  it('is not disturbed by news of a queue when nobody is connected', () => {
    makePort('server').start();
    port.queueFailed(0);
    expect(port.status.state).toBe('waiting');
  });

  it('survives that no more descriptors may be open, and accepts when they may', () => {
    const script = fileURLToPath(new URL('./out-of-descriptors.ts', import.meta.url));
    // Room for what one front-end needs, and not for many.
    const command = `ulimit -n 96; exec "${process.execPath}" "${script}" "${path}"`;
    const child = spawnSync('bash', ['-c', command], { encoding: 'utf8', timeout: 20_000 });
    expect(child.stderr).toBe('');
    expect(child.stdout.split('\n').slice(0, 3)).toEqual([
      'begin',
      'warning: accepting a connection: accept4 failed with EMFILE (too many open files)',
      'front-end connected',
    ]);
    expect(existsSync(path)).toBe(false);
    makePort('server');
  });

  it('throws when its socket cannot be had, and removes nobody else', async () => {
    writeFileSync(path, 'precious');
    makePort('server');
    await expect(port.start()).rejects.toThrow(SocketPathError);
    await port.stop();
    expect(statSync(path).size).toBe(8);
  });
});

/** Accepts connections as a front-end that listens. */
class ListeningFrontEnd {
  readonly accepted: ScriptedFrontEnd[] = [];
  readonly #listenFd = listenUnix(path);
  readonly #watch;
  #wake: (() => void)[] = [];

  constructor() {
    this.#watch = descriptorLoop().watch(this.#listenFd, () => {
      const fd = acceptUnix(this.#listenFd);
      if (fd === null) return;
      this.accepted.push(frontEnd(fd));
      for (const wake of this.#wake.splice(0)) wake();
    });
  }

  /** The `n`-th connection, from 1. */
  async connection(n: number): Promise<ScriptedFrontEnd> {
    while (this.accepted.length < n) await new Promise<void>((resolve) => this.#wake.push(resolve));
    return this.accepted[n - 1];
  }

  close(): void {
    this.#watch.close();
    closeFd(this.#listenFd);
  }
}

describe('as a client', () => {
  it('connects when a front-end comes to listen', async () => {
    makePort('client').start();
    expect(port.status).toEqual({ state: 'waiting', reason: `waiting for a front-end to listen at ${path}` });
    const listener = new ListeningFrontEnd();
    await run(await listener.connection(1));
    expect(port.status).toEqual({ state: 'running', reason: null });
    listener.close();
  });

  it('connects again when the front-end went away, also after its socket did', async () => {
    makePort('client').start();
    const listener = new ListeningFrontEnd();
    await run(await listener.connection(1));
    listener.accepted[0].close();
    await run(await listener.connection(2));
    expect(port.status.state).toBe('running');
    listener.close();
    listener.accepted[1].close();
    await events.said(/front-end gone/, 2);
    rmSync(path);
    const other = new ListeningFrontEnd();
    await run(await other.connection(1));
    expect(port.status.state).toBe('running');
    other.close();
  });

  it('tries again while the front-end does not accept (its backlog is full), without a word', async () => {
    const listenFd = listenUnix(path);
    const queued: number[] = [];
    try {
      for (;;) queued.push(connectUnix(path));
    } catch {
      // Full.
    }
    makePort('client').start();
    expect(port.status.reason).toBe(`waiting for a front-end to listen at ${path}`);
    for (let fd = acceptUnix(listenFd); fd !== null; fd = acceptUnix(listenFd)) closeFd(fd);
    for (const fd of queued) closeFd(fd);
    await events.said(/front-end connected/);
    const accepted = acceptUnix(listenFd)!;
    await run(frontEnd(accepted));
    closeFd(listenFd);
  });

  it('can be stopped while it waits', async () => {
    makePort('client').start();
    await port.stop();
    const listener = new ListeningFrontEnd();
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
    expect(listener.accepted).toEqual([]);
    listener.close();
  });

  it('does not remove the socket of the front-end when stopped', async () => {
    const listener = new ListeningFrontEnd();
    makePort('client').start();
    await run(await listener.connection(1));
    await port.stop();
    expect(existsSync(path)).toBe(true);
    await listener.accepted[0].closed;
    listener.close();
  });

  it('refuses a path that no socket can have', async () => {
    path = `/${'x'.repeat(200)}`;
    makePort('client');
    await expect(port.start()).rejects.toThrow(SocketPathError);
  });
});
