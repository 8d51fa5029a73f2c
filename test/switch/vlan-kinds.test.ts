/**
 * VLAN tags pushed, popped and rewritten on the way between ports that are no guests: UNIX stream sockets in and out (the
 * staged queues, which TAP interfaces and datagrams have too) and capture files, by a whole switch. Rings:
 * l2/forwarder-rings.test.ts.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { settingsOf } from '../../switch/cli/options.ts';
import { resolveConfig } from '../../switch/config/resolve.ts';
import { createLogger } from '../../switch/log.ts';
import { Switch } from '../../switch/switch.ts';
import { naiveRead } from '../protocol/naive-capture.ts';

/** Another program at a port's socket: each frame behind its length in four bytes. */
class Peer {
  readonly #socket: Socket;
  #bytes = Buffer.alloc(0);
  #onFrame: (() => void) | null = null;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (bytes) => {
      this.#bytes = Buffer.concat([this.#bytes, bytes]);
      this.#onFrame?.();
    });
  }

  static open(path: string): Promise<Peer> {
    return new Promise((resolve, reject) => {
      const socket = connect(path);
      socket.once('error', reject);
      socket.once('connect', () => resolve(new Peer(socket)));
    });
  }

  send(frame: Uint8Array): void {
    const prefix = Buffer.alloc(4);
    prefix.writeUInt32BE(frame.length);
    this.#socket.write(Buffer.concat([prefix, frame]));
  }

  async next(): Promise<string> {
    for (;;) {
      const bytes = this.#bytes;
      if (bytes.length >= 4 && bytes.length >= 4 + bytes.readUInt32BE(0)) {
        const end = 4 + bytes.readUInt32BE(0);
        this.#bytes = bytes.subarray(end);
        return bytes.subarray(4, end).toString('hex');
      }
      await new Promise<void>((resolve) => {
        this.#onFrame = resolve;
      });
    }
  }

  close(): void {
    this.#socket.destroy();
  }
}

const NAMES = ['access', 'trunk', 'native', 'tunnel'] as const;
const SETTINGS = {
  access: 'tag=10',
  trunk: 'vlan-mode=trunk',
  native: 'vlan-mode=native-untagged,tag=10',
  tunnel: 'vlan-mode=dot1q-tunnel,tag=20',
};

/** To all, from one, with these bytes behind the addresses; of `sizeBytes` without tags. */
function frameOf(tags: string, sizeBytes: number): Uint8Array {
  const body = Array.from({ length: sizeBytes - 14 }, (_, i) => (i * 7) & 0xff);
  const addresses = [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1];
  return Uint8Array.from([...addresses, ...Buffer.from(tags, 'hex'), 0x88, 0xb5, ...body]);
}
const hex = (tags: string, sizeBytes: number): string =>
  Buffer.from(frameOf(tags, sizeBytes)).toString('hex');

describe('VLANs between sockets and files', () => {
  let folder: string;
  let running: Switch;
  const peers = new Map<string, Peer>();
  const written: string[] = [];
  const peer = (name: string): Peer => peers.get(name) as Peer;

  beforeAll(async () => {
    descriptorLoop();
    folder = mkdtempSync(join(tmpdir(), 'ringway-vlan-kinds-'));
    const port = [
      ...NAMES.map((name) => `${name}=unix:${join(folder, `${name}.sock`)},${SETTINGS[name]}`),
      `file=pcap:${join(folder, 'trunk.pcapng')},trunks=10+20`,
      `short=pcap:${join(folder, 'short.pcapng')},snap-bytes=22`,
    ];
    running = await Switch.start(
      resolveConfig([settingsOf({ port, control: 'none' })]),
      createLogger('silent'),
    );
    for (const name of NAMES) peers.set(name, await Peer.open(join(folder, `${name}.sock`)));
  });

  afterAll(async () => {
    for (const each of peers.values()) each.close();
    await running.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const SIZES = [14, 15, 16, 17, 18, 21, 60, 203, 204, 205, 1514];

  it('have no larger MTU than their slots were made for', async () => {
    await expect(running.changePort('trunk', { mtu: 9001 })).rejects.toThrow(
      'port trunk: mtu: 9001 is not allowed (at most 9000 while the port runs: remove it and add it again)',
    );
    await running.changePort('trunk', { mtu: 9000 });
    expect(running.port('trunk')).toMatchObject({ mtu: 9000, settings: { mtu: 9000 } });
    await running.changePort('trunk', { mtu: null });
  });

  it('run', async () => {
    const states = (): string[] => running.ports().map(({ state }) => state);
    await expect.poll(states, { timeout: 10_000 }).toEqual(Array(6).fill('running'));
  });

  it.each(SIZES)('of %i bytes from an access port', async (sizeBytes) => {
    peer('access').send(frameOf('', sizeBytes));
    expect(await peer('trunk').next()).toBe(hex('8100000a', sizeBytes));
    expect(await peer('native').next()).toBe(hex('', sizeBytes));
    written.push(hex('8100000a', sizeBytes));
  });

  it.each(SIZES)('of %i bytes from a trunk', async (sizeBytes) => {
    peer('trunk').send(frameOf('88a8600a', sizeBytes));
    expect(await peer('access').next()).toBe(hex('', sizeBytes));
    expect(await peer('native').next()).toBe(hex('', sizeBytes));
    written.push(hex('88a8600a', sizeBytes));
  });

  it.each(SIZES)('of %i bytes from a native port, rewritten, and from a tunnel', async (sizeBytes) => {
    peer('native').send(frameOf('8100a000', sizeBytes));
    expect(await peer('access').next()).toBe(hex('', sizeBytes));
    expect(await peer('trunk').next()).toBe(hex('8100a00a', sizeBytes));
    written.push(hex('8100a00a', sizeBytes));
    peer('tunnel').send(frameOf('81000005', sizeBytes));
    expect(await peer('trunk').next()).toBe(hex('88a8001481000005', sizeBytes));
    expect(await peer('native').next()).toBe(hex('88a8001481000005', sizeBytes));
    written.push(hex('88a8001481000005', sizeBytes));
  });

  it('are in the file as they left, and in the one of cut frames', async () => {
    const packets = (name: string) => {
      const path = join(folder, name);
      return existsSync(path) ? naiveRead(readFileSync(path)).packets : [];
    };
    // Each port has its file written when its own turn has come.
    for (const name of ['trunk.pcapng', 'short.pcapng'])
      await expect.poll(() => packets(name).length, { timeout: 10_000 }).toBe(written.length);
    const whole = packets('trunk.pcapng').map(({ data }) => Buffer.from(data).toString('hex'));
    expect(whole).toEqual(written);
    const cut = packets('short.pcapng').map(({ data }) => Buffer.from(data).toString('hex'));
    expect(cut).toEqual(written.map((text) => text.slice(0, 44)));
  });
});
