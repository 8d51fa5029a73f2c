/**
 * What the tests of TAP ports stand on: a network namespace of their own, the host's side of an interface as
 * a packet socket (packet(7)), and a data path in the test's thread that gives and takes frames by itself.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { closeFd } from '../../src/host/descriptor.ts';
import { checked } from '../../src/host/errors.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { libc } from '../../src/host/libc.ts';
import { createMemoryFile } from '../../src/host/mapping.ts';
import type { Arena } from '../../src/memory/arena.ts';
import type { ArenaView } from '../../src/memory/arena-view.ts';
import { WINDOW_BYTES } from '../../src/memory/window.ts';
import { openEgress, openIngress, type QueueAttachment } from '../../src/port/kinds.ts';
import { inNetworkNamespace } from '../../src/port/tap/network-namespace.ts';
import { AS_THEY_CAME, Batch } from '../../src/queue/batch.ts';
import type { EgressQueue, IngressQueue } from '../../src/queue/contract.ts';
import type { DataPath } from '../../src/queue/data-path.ts';
import { gatherHead, readHeads } from '../../src/queue/heads.ts';
import type { PortPolicy } from '../../src/queue/policy.ts';
import { withDeadline } from '../peers/deadline.ts';
import { softwareMissing } from '../peers/software.ts';

/** Why TAP interfaces cannot be tested here, or null. */
export function tapUnavailable(): string | null {
  if (!existsSync('/dev/net/tun')) return '/dev/net/tun is not there';
  const probe = `ringway-probe-${process.pid}`;
  const made = spawnSync('ip', ['netns', 'add', probe], { encoding: 'utf8' });
  if (made.error !== undefined) return softwareMissing('the program ip (package iproute2)');
  if (made.status !== 0) return `a network namespace cannot be made: ${made.stderr.trim()}`;
  const tap = spawnSync('ip', ['-n', probe, 'tuntap', 'add', 'probe', 'mode', 'tap'], { encoding: 'utf8' });
  spawnSync('ip', ['netns', 'del', probe]);
  return tap.status === 0 ? null : `a TAP interface cannot be made: ${tap.stderr.trim()}`;
}

/** `title`, with the reason when the tests under it are skipped. */
export function titleWith(title: string, unavailable: string | null): string {
  return unavailable === null ? title : `${title} (skipped: ${unavailable})`;
}

let lastNamespace = 0;

/**
 * A network namespace that `ip netns` knows; gone after `remove`. Its interfaces are silent: a kernel that speaks IPv6
 * announces and asks on each by itself, and such a frame stands before the one that a test waits for.
 */
export class TestNamespace {
  readonly name = `ringway-test-${process.pid}-${++lastNamespace}`;

  add({ ipv6 = false } = {}): this {
    run('ip', ['netns', 'add', this.name]);
    const quiet = '/proc/sys/net/ipv6/conf/default/disable_ipv6';
    if (!ipv6 && existsSync(quiet)) inNetworkNamespace(this.name, () => writeFileSync(quiet, '1'));
    return this;
  }

  /** Runs `ip` in the namespace. */
  ip(args: string): string {
    return run('ip', ['-n', this.name, ...args.split(' ')]);
  }

  /** Command line that runs a program in the namespace. */
  exec(...args: string[]): string[] {
    return ['ip', 'netns', 'exec', this.name, ...args];
  }

  link(name: string): { mtu: number; address: string; flags: string[]; ifindex: number } {
    return JSON.parse(this.ip(`-j link show ${name}`))[0];
  }

  has(name: string): boolean {
    return spawnSync('ip', ['-n', this.name, 'link', 'show', name]).status === 0;
  }

  remove(): void {
    spawnSync('ip', ['netns', 'del', this.name]);
  }
}

function run(program: string, args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** Longer than frames take, also where there is much else to do; a test may take longer. */
const WAIT_MS = 20_000;
/** For local experiments (IEEE 802); the host's own traffic never has it. */
export const TEST_ETHERTYPE = 0x88b5;
const AF_PACKET = 17;
const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
/** A burst of the longest frames. */
const SOCKET_BUFFER_BYTES = 2 ** 24;
const SOCK_RAW_NONBLOCK_CLOEXEC = 3 | 0o4000 | 0o2000000;

/** The host's side of an interface: sends and receives whole frames of TEST_ETHERTYPE. */
export class PacketSocket {
  readonly #fd: number;

  constructor(namespace: TestNamespace, interfaceName: string) {
    const address = new DataView(new ArrayBuffer(20));
    address.setUint16(0, AF_PACKET, true);
    address.setUint16(2, TEST_ETHERTYPE);
    address.setInt32(4, namespace.link(interfaceName).ifindex, true);
    const swapped = ((TEST_ETHERTYPE & 0xff) << 8) | (TEST_ETHERTYPE >> 8);
    this.#fd = inNetworkNamespace(namespace.name, () =>
      checked(
        libc.socket(AF_PACKET, SOCK_RAW_NONBLOCK_CLOEXEC, swapped),
        'socket',
        'opening a packet socket',
      ),
    );
    const size = new Uint8Array(new Int32Array([SOCKET_BUFFER_BYTES]).buffer);
    for (const option of [SO_SNDBUFFORCE, SO_RCVBUFFORCE]) {
      checked(libc.setsockopt(this.#fd, SOL_SOCKET, option, size, 4), 'setsockopt', 'enlarging a buffer');
    }
    checked(libc.bind(this.#fd, new Uint8Array(address.buffer), 20), 'bind', `binding to ${interfaceName}`);
  }

  send(frame: Uint8Array): void {
    checked(libc.write(this.#fd, frame, frame.length), 'write', 'sending a frame');
  }

  /** The next `count` frames, in order of arrival. */
  async receive(count: number): Promise<Uint8Array[]> {
    const frames: Uint8Array[] = [];
    const done = Promise.withResolvers<void>();
    const buffer = new Uint8Array(65_536);
    const watch = descriptorLoop().watch(this.#fd, () => {
      while (frames.length < count) {
        const bytes = libc.read(this.#fd, buffer, buffer.length);
        if (bytes < 0) return;
        frames.push(buffer.slice(0, bytes));
      }
      done.resolve();
    });
    const told = (): string => `${frames.length} of ${count} frames came in ${WAIT_MS} ms`;
    await withDeadline(done.promise, WAIT_MS, told).finally(() => watch.close());
    return frames;
  }

  close(): void {
    closeFd(this.#fd);
  }
}

const SCRATCH_BYTES = 2 ** 20;

/** Polls the ingress queues once in each turn of Node's loop and keeps the test frames that came. */
export class TestDataPath implements DataPath {
  readonly ingress = new Map<number, IngressQueue>();
  readonly egress = new Map<number, EgressQueue>();
  readonly received: Uint8Array[] = [];
  /** Frames that were taken, and those of them that were too long. */
  taken = 0;
  tooLong = 0;
  linkMtu = 0;
  /** Off: frames stay where they are until it is on again. */
  polls = true;
  onQueueFailed: (queueIndex: number) => void = () => {};
  readonly #arena: Arena;
  readonly #view: ArenaView;
  readonly #batch = new Batch();
  readonly #scratchOffset: number;
  #wake = Promise.withResolvers<void>();
  #running = true;

  constructor(arena: Arena, view: ArenaView) {
    this.#arena = arena;
    this.#view = view;
    const fd = createMemoryFile('frames-to-give', SCRATCH_BYTES);
    const placement = { fd, fileOffset: 0, sizeBytes: SCRATCH_BYTES, pageBytes: 4096, preferredOffset: null };
    this.#scratchOffset = arena.map(placement);
    closeFd(fd);
    this.#turn();
  }

  /** Places all the frames in one burst, one by one; answers how many were refused. */
  place(queueIndex: number, frames: readonly Uint8Array[]): number {
    const queue = this.egress.get(queueIndex)!;
    let refused = 0;
    queue.begin();
    for (const frame of frames) {
      this.#view.u8.set(frame, this.#scratchOffset);
      const window = Math.floor(this.#scratchOffset / WINDOW_BYTES);
      this.#batch.clear();
      this.#batch.add(window, this.#scratchOffset % WINDOW_BYTES, frame.length);
      readHeads(this.#batch, this.#view.windows);
      queue.place(this.#batch, AS_THEY_CAME, 1);
      refused += this.#batch.refusedCount;
    }
    queue.end();
    return refused;
  }

  /** Resolves when `holds` does; asked again after each turn that had frames or orders. */
  async until(holds: () => boolean): Promise<void> {
    const told = (): string => {
      const { taken, tooLong, received } = this;
      return `not within ${WAIT_MS} ms: ${holds}; ${JSON.stringify({ taken, tooLong, received: received.length })}`;
    };
    const held = async (): Promise<void> => {
      while (!holds()) await this.#wake.promise;
    };
    await withDeadline(held(), WAIT_MS, told);
  }

  close(): void {
    this.#running = false;
    this.#arena.unmap(this.#scratchOffset);
  }

  async attach(attachment: QueueAttachment): Promise<void> {
    const { queueIndex, direction } = attachment;
    if (direction === 'ingress') this.ingress.set(queueIndex, openIngress(this.#view, attachment));
    else this.egress.set(queueIndex, openEgress(this.#view, attachment, false));
    this.#changed();
  }

  async detach(_portId: number, queueIndex: number): Promise<void> {
    this.ingress.delete(queueIndex);
    this.egress.delete(queueIndex);
    this.#changed();
  }

  async setCallFd(): Promise<void> {}
  async setMemory(): Promise<void> {}
  async setLog(): Promise<void> {}
  async announce(): Promise<void> {}

  async setPolicy(_portId: number, { linkMtu }: Partial<PortPolicy>): Promise<void> {
    this.linkMtu = linkMtu ?? this.linkMtu;
    this.#changed();
  }

  #changed(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers<void>();
  }

  #turn(): void {
    if (!this.#running) return;
    if (this.polls) for (const queue of this.ingress.values()) this.#poll(queue);
    setImmediate(() => this.#turn());
  }

  #poll(queue: IngressQueue): void {
    const batch = this.#batch;
    const taken = queue.gather(batch);
    this.taken += taken;
    this.tooLong += batch.tooLong;
    for (let frame = 0; frame < batch.count; frame++) {
      const bytes = new Uint8Array(batch.bytesOf(frame));
      gatherHead(batch, frame, this.#view.windows, bytes, bytes.length);
      if ((bytes[12] << 8) + bytes[13] === TEST_ETHERTYPE) this.received.push(bytes);
    }
    if (taken > 0) queue.finish();
    if (queue.fault !== 0) this.onQueueFailed(queue.queueIndex);
    if (taken > 0) this.#changed();
  }
}
