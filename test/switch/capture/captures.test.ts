/**
 * Captures of a running switch over its control socket, as `ringway capture` asks for them: a stream of pcapng that lasts,
 * and how it ends. Guests are embedded ones.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, rmSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer, text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { EmbeddedGuest } from '../../../src/frontend/index.ts';
import { descriptorLoop } from '../../../src/host/event-loop.ts';
import type { CaptureReport } from '../../../switch/capture/captures.ts';
import { BlockCounter } from '../../../switch/cli/block-counter.ts';
import { settingsOf } from '../../../switch/cli/options.ts';
import { resolveConfig } from '../../../switch/config/resolve.ts';
import { controlApi } from '../../../switch/control/api.ts';
import { askControl, streamControl } from '../../../switch/control/client.ts';
import { serveControl } from '../../../switch/control/serve.ts';
import { createLogger } from '../../../switch/log.ts';
import { Switch } from '../../../switch/switch.ts';
import { narrowPipe } from '../../narrow-pipe.ts';
import { blocksOf, type Packet, type Statistics } from './packets.ts';

const COMMAND = fileURLToPath(new URL('../../../switch/cli/main.ts', import.meta.url));

let folder: string;
let control: string;
let running: Switch;
let server: { close(): Promise<void> };
const guests: EmbeddedGuest[] = [];
const streams: IncomingMessage[] = [];

beforeEach(async () => {
  descriptorLoop();
  folder = mkdtempSync(join(tmpdir(), 'ringway-capture-'));
  control = join(folder, 'control.sock');
  const port = ['vm0', 'vm1'].map((name) => `${name}=${join(folder, name)}.sock`);
  running = await Switch.start(
    resolveConfig([settingsOf({ port, control: 'none', poll: 'adaptive', idleUs: '0' })]),
    createLogger('silent'),
  );
  const source = {
    ports: () => running.ports(),
    port: (name: string) => running.port(name),
    totals: () => running.totals(),
    fdb: () => running.fdb(),
    workers: () => running.workers(),
    trace: () => expect.fail('not asked for'),
    mdb: () => expect.fail('not asked for'),
    addGroup: () => expect.fail('not asked for'),
    removeGroup: () => expect.fail('not asked for'),
    flushGroups: () => expect.fail('not asked for'),
    startCapture: (query: unknown) => running.startCapture(query),
    captures: () => running.captures(),
    endCapture: (id: number) => running.endCapture(id),
    untaggedVlanOf: () => 0,
    addAddress: () => {},
    removeAddress: () => {},
    flushAddresses: () => 0,
    figures: () => expect.fail('not asked for'),
    figuresReport: () => expect.fail('not asked for'),
    plugins: () => [],
    pluginNotes: () => [],
    addPlugin: async () => {},
    reloadPlugins: async () => {},
    removePlugin: async () => {},
    addPort: () => expect.fail('not asked for'),
    changePort: () => expect.fail('not asked for'),
    removePort: (name: string) => running.removePort(name),
  };
  server = await serveControl(control, controlApi(source, '1'));
});

afterEach(async () => {
  for (const stream of streams.splice(0)) stream.destroy();
  for (const guest of guests.splice(0)) guest.close();
  await running.stop();
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

async function connect(name: string): Promise<EmbeddedGuest> {
  const guest = await EmbeddedGuest.connect({ socketPath: `${join(folder, name)}.sock`, waitMs: 10_000 });
  guests.push(guest);
  return guest;
}

async function capture(query: object): Promise<IncomingMessage> {
  const stream = await streamControl(control, '/v1/captures', { method: 'POST', body: query });
  streams.push(stream);
  return stream;
}

async function all(stream: IncomingMessage): Promise<ReturnType<typeof blocksOf>> {
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part as Buffer);
  return blocksOf(Buffer.concat(parts));
}

const captures = (): Promise<CaptureReport[]> => askControl<CaptureReport[]>(control, '/v1/captures');

function frame(dst: number, src: number, sizeBytes = 60): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  bytes.set([2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src, 0x88, 0xb5]);
  return bytes;
}

describe('a capture', () => {
  it('ends by itself after as many frames as were asked for, with statistics', async () => {
    const [vm0, vm1] = [await connect('vm0'), await connect('vm1')];
    const stream = await capture({ ports: ['vm0', 'vm1'], count: 4 });
    expect((await captures()).map(({ ports, delivered }) => ({ ports, delivered }))).toEqual([
      { ports: ['vm0', 'vm1'], delivered: 0 },
    ]);
    for (let i = 0; i < 3; i++) {
      expect(vm0.send(frame(2, 1))).toBe(true);
      expect(await vm1.received()).toEqual(frame(2, 1));
    }
    const blocks = await all(stream);
    expect(blocks.slice(0, 3)).toEqual([
      { kind: 'section' },
      { kind: 'interface', name: 'vm0', snapBytes: 262_144 },
      { kind: 'interface', name: 'vm1', snapBytes: 262_144 },
    ]);
    const packets = blocks.filter((block): block is Packet => block.kind === 'packet');
    expect(packets.map(({ isIn, interface: index }) => [isIn, index])).toEqual([
      [true, 0],
      [false, 1],
      [true, 0],
      [false, 1],
    ]);
    const last = blocks.slice(-2) as Statistics[];
    expect(last.map(({ kind, interface: index, lost }) => [kind, index, lost])).toEqual([
      ['statistics', 0, 0],
      ['statistics', 1, 0],
    ]);
    expect(last[0].comment).toBe('the capture ended: it has as many frames as were asked for');
    await vi.waitUntil(async () => (await captures()).length === 0);
  });

  it('ends when it is ended by its number, when its ports are removed, and with the switch', async () => {
    const comments = async (stream: IncomingMessage): Promise<unknown> => {
      const last = (await all(stream)).at(-1) as Statistics;
      return last.comment;
    };
    const asked = await capture({ ports: ['all'] });
    const id = Number(asked.headers['x-ringway-capture']);
    expect(await askControl(control, `/v1/captures/${id}`, { method: 'DELETE' })).toEqual({ ended: id });
    expect(await comments(asked)).toBe('the capture ended: whoever asked for it ended it');
    const ofPort = await capture({ ports: ['vm0'] });
    const ofBoth = await capture({ ports: ['vm0', 'vm1'] });
    await running.removePort('vm0');
    expect(await comments(ofPort)).toBe('the capture ended: its ports were removed');
    expect((await captures()).map(({ ports }) => ports)).toEqual([['vm0', 'vm1']]);
    await running.freeze();
    expect(await comments(ofBoth)).toBe('the capture ended: the switch is being taken over');
    await running.goOn();
    await expect(askControl(control, '/v1/captures/99', { method: 'DELETE' })).rejects.toThrow(
      'there is no capture 99',
    );
  });

  it('lets go of everything when its reader goes, also while no frame passes', async () => {
    const stream = await capture({ ports: ['vm0'] });
    expect(await captures()).toHaveLength(1);
    stream.destroy();
    await vi.waitUntil(async () => (await captures()).length === 0);
  });

  it('loses frames under a name when its reader is too slow, and nobody waits for it', async () => {
    const [vm0, vm1] = [await connect('vm0'), await connect('vm1')];
    const stream = await capture({ ports: ['vm0', 'vm1'] });
    stream.pause();
    let sent = 0;
    while ((await captures())[0].lost === 0) {
      for (let i = 0; i < 64; i++) {
        expect(vm0.send(frame(2, 1, 1500))).toBe(true);
        await vm1.received();
      }
      sent += 64;
    }
    expect(running.ports().map(({ drops }) => drops.noBuffer)).toEqual([0, 0]);
    const id = Number(stream.headers['x-ringway-capture']);
    await askControl(control, `/v1/captures/${id}`, { method: 'DELETE' });
    const blocks = await all(stream);
    const packets = blocks.filter(({ kind }) => kind === 'packet').length;
    const last = blocks.slice(-2) as Statistics[];
    const lost = last[0].lost + last[1].lost;
    expect(packets + lost).toBe(2 * sent);
    expect(last.map(({ received }) => received)).toEqual([sent, sent]);
    // The port whose frame is the second one of each pair may have lost all of them.
    for (const { lost, comment } of last) {
      const named = `captureLost: ${lost} frames were not captured because the reader was too slow; `;
      expect(comment).toMatch(lost === 0 ? /^the capture ended/ : new RegExp(`^${named}`));
    }
  });

  it('is refused with all that is wrong, and where there is no such port, or there are too many', async () => {
    const asked = (query: object): Promise<IncomingMessage> => capture(query);
    await expect(asked({ ports: [], vlan: 5000, direction: 'up' })).rejects.toThrow(
      /ports: a list is not allowed \(.*\); direction: "up" is not allowed \(in, out or both\); vlan: 5000 is not allowed \(a VLAN, 0 to 4095\)/,
    );
    await expect(asked({ ports: ['vm0'], snapByte: 96, program: [[1, 2, 3]] })).rejects.toThrow(
      /program\.0: a list is not allowed \(an instruction of four numbers, .*\); snapByte: unknown \(there are ports, /,
    );
    await expect(asked({ ports: ['vm0'], program: [[5, 0, 0, 7]] })).rejects.toThrow('instruction 0');
    await expect(asked({ ports: ['vm7'] })).rejects.toThrow('there is no port vm7');
    for (let i = 0; i < 8; i++) await asked({ ports: ['vm0'] });
    await expect(asked({ ports: ['vm0'] })).rejects.toThrow('there are 8 captures already');
  });
});

describe('a block counter', () => {
  it('passes whole blocks on, however the stream is cut, and counts what is in them', async () => {
    const [vm0] = [await connect('vm0'), await connect('vm1')];
    const stream = await capture({ ports: ['vm0', 'vm1'], count: 20 });
    for (let i = 0; i < 10; i++) expect(vm0.send(frame(2, 1, 60 + i))).toBe(true);
    const parts: Buffer[] = [];
    for await (const part of stream) parts.push(part as Buffer);
    const bytes = Buffer.concat(parts);
    for (const step of [1, 7, 100, 1000]) {
      const counter = new BlockCounter();
      const passed: Buffer[] = [];
      for (let at = 0; at < bytes.length; at += step) {
        const whole = counter.wholeBlocks(bytes.subarray(at, at + step));
        blocksOf(whole);
        passed.push(Buffer.from(whole));
      }
      expect(Buffer.concat(passed).equals(bytes)).toBe(true);
      expect([counter.packets, counter.lost]).toEqual([20, 0]);
      expect(counter.comment).toContain('as many frames as were asked for');
    }
  });
});

describe('the command, with a reader that stalls', () => {
  /**
   * Into a file of that name, or into what is given as standard output; resolves when the pipe is full and all behind it.
   * `reader`: the pipe's other end, from which nothing is read here.
   */
  async function stalled(path: string, stdout: number | 'ignore', reader: number): Promise<ChildProcess> {
    const args = [COMMAND, 'capture', 'vm0', 'vm1', '--control', control, '-w', path];
    const child = spawn(process.execPath, args, { stdio: ['ignore', stdout, 'pipe'] });
    onTestFinished(() => void child.kill('SIGKILL'));
    const [vm0, vm1] = [await connect('vm0'), await connect('vm1')];
    // Frames are lost, too, before the command has come so far that it heeds signals, if it is slow.
    const written = new Promise<void>((resolve) => {
      const watch = descriptorLoop().watch(reader, () => {
        watch.close();
        resolve();
      });
    });
    const isLosing = async (): Promise<boolean> => (await captures()).some(({ lost }) => lost > 0);
    await vi.waitUntil(async () => (await captures()).length > 0, 20_000);
    while (!(await isLosing()) && child.exitCode === null) {
      for (let i = 0; i < 100; i++) {
        while (!vm0.send(frame(2, 1, 1500))) await new Promise(setImmediate);
        await vm1.received();
      }
    }
    await written;
    return child;
  }

  it('waits, and what it has captured comes whole when the reader goes on', async () => {
    const { reader, writer } = narrowPipe(join(folder, 'pipe'));
    const child = await stalled('-', writer, reader);
    closeSync(writer);
    const [{ id }] = await captures();
    const said = text(child.stderr!);
    const ended = once(child, 'exit');
    const read = buffer(new Socket({ fd: reader, writable: false }));
    await askControl(control, `/v1/captures/${id}`, { method: 'DELETE' });
    const blocks = blocksOf(await read);
    expect(await ended).toEqual([0, null]);
    const packets = blocks.filter(({ kind }) => kind === 'packet').length;
    const statistics = blocks.slice(-2) as Statistics[];
    const delivered = statistics.map((block) => block.received - block.lost);
    expect(packets).toBe(delivered[0] + delivered[1]);
    expect(packets).toBeGreaterThan(2000);
    expect(await said).toMatch(/frames captured, [\d,]+ lost \(whoever reads it was too slow\)/);
  });

  it.each(['its standard output', 'a named pipe'])('ends when it is told to: %s', async (kind) => {
    const path = join(folder, 'pipe');
    const { reader, writer } = narrowPipe(path);
    const isNamed = kind === 'a named pipe';
    const child = await (isNamed ? stalled(path, 'ignore', reader) : stalled('-', writer, reader));
    closeSync(writer);
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    expect(await ended).toEqual([0, null]);
    closeSync(reader);
    await vi.waitUntil(async () => (await captures()).length === 0, 20_000);
  });
});
