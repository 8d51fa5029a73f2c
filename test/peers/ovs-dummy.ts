/**
 * Open vSwitch as an oracle for what a switch has to do: its user-space datapath with ports of the kind `dummy`
 * (`--enable-dummy`), to which frames are handed as text and which write what they are given to capture files. No kernel
 * module, no root. Its database, sockets and files live in the folder given, apart from any Open vSwitch of the
 * machine. Owns both daemons. Main thread.
 *
 * It keeps no flows (flow-limit 0), so that each frame is decided upon by the rules, and not by what was decided about
 * one like it before an address was learned.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import type { VlanPolicy } from '../../src/queue/policy.ts';
import { OvsDaemons } from './ovs-daemons.ts';

const FILE_HEADER_BYTES = 24;
const PACKET_HEADER_BYTES = 16;

export class OvsDummy {
  readonly #daemons: OvsDaemons;
  #control: ControlConnection | null = null;
  /** By bridge. */
  readonly #ports = new Map<string, DummyPort[]>();
  /** Frames that were handed over so far. */
  #sent = 0;

  private constructor(folder: string) {
    this.#daemons = new OvsDaemons(folder);
  }

  /** Bridges of so many ports each, named `b2` and so on. */
  static async start(folder: string, portCounts: readonly number[]): Promise<OvsDummy> {
    const ovs = new OvsDummy(folder);
    try {
      await ovs.#start(portCounts);
    } catch (error) {
      await ovs.stop();
      throw ovs.#daemons.explain(error);
    }
    return ovs;
  }

  /** Gives the ports of a bridge these settings and forgets what it learned. */
  async configure(bridge: string, policies: readonly VlanPolicy[], vlanLimit: number): Promise<void> {
    const ports = this.#portsOf(bridge);
    await this.#daemons.vsctl(
      ...['set', 'Open_vSwitch', '.', `other_config:vlan-limit=${vlanLimit}`],
      ...policies.flatMap((policy, i) => {
        const { name } = ports[i];
        const columns = ['tag', 'trunks', 'vlan_mode', 'cvlans', 'other_config'];
        return ['--', 'clear', 'Port', name, ...columns, '--', 'set', 'Port', name, ...columnsOf(policy)];
      }),
    );
    await this.#ask('fdb/flush', bridge);
    for (const port of ports) port.take();
  }

  /** Hands frames to a port, one after the other; resolves when they have gone where they go. */
  async send(bridge: string, port: number, frames: readonly Uint8Array[]): Promise<void> {
    const texts = frames.map((frame) => Buffer.from(frame).toString('hex'));
    await this.#ask('netdev-dummy/receive', this.#portsOf(bridge)[port].name, ...texts);
    this.#sent += frames.length;
    for (;;) {
      const stats = await this.#ask('dpif-netdev/pmd-stats-show');
      if (Number(/packets received: (\d+)/.exec(stats)?.[1]) >= this.#sent) return;
    }
  }

  /** What each port of a bridge was given since the last call, in order. */
  take(bridge: string): Uint8Array[][] {
    return this.#portsOf(bridge).map((port) => port.take());
  }

  /** What `ofproto/trace` says of a frame. It learns from it as from one that came. */
  async trace(bridge: string, port: number, frame: Uint8Array): Promise<OvsTrace> {
    const shown = await this.#ask('dpif/show');
    const portOfDatapath = new Map<number, number>();
    let ofPort = '';
    for (const [i, { name }] of this.#portsOf(bridge).entries()) {
      const [, of = '', datapath = ''] = new RegExp(`\\b${name} (\\d+)/(\\d+)`).exec(shown) ?? [];
      portOfDatapath.set(Number(datapath), i);
      if (i === port) ofPort = of;
    }
    const text = await this.#ask(
      'ofproto/trace',
      bridge,
      `in_port=${ofPort}`,
      Buffer.from(frame).toString('hex'),
    );
    const actions = /^Datapath actions: (.*)$/m.exec(text)?.[1] ?? '';
    return { text, outputs: outputsOf(actions, frame, portOfDatapath) };
  }

  /** The port gets copies of all that comes in from another one; null: no port of the bridge does. */
  async mirror(bridge: string, output: number | null, source = 0): Promise<void> {
    if (output === null) {
      await this.#daemons.vsctl('clear', 'Bridge', bridge, 'mirrors');
      return;
    }
    const ports = this.#portsOf(bridge);
    await this.#daemons.vsctl(
      ...['--', '--id=@out', 'get', 'Port', ports[output].name],
      ...['--', '--id=@from', 'get', 'Port', ports[source].name],
      ...['--', '--id=@m', 'create', 'Mirror', 'name=m', 'select_src_port=@from', 'output_port=@out'],
      ...['--', 'set', 'Bridge', bridge, 'mirrors=@m'],
    );
  }

  /** Has the bridge snoop on IGMP and MLD, with nothing learned yet. */
  async snoop(bridge: string, floodsUnregistered: boolean): Promise<void> {
    await this.#daemons.vsctl(
      ...['set', 'Bridge', bridge, 'mcast_snooping_enable=true'],
      `other_config:mcast-snooping-disable-flood-unregistered=${!floodsUnregistered}`,
    );
    await this.#ask('mdb/flush', bridge);
    for (const port of this.#portsOf(bridge)) port.take();
  }

  /** `10 239.1.1.1 p0` and `10 querier p1`, in order. */
  async groups(bridge: string): Promise<string[]> {
    const [shown, table] = [await this.#ask('dpif/show'), await this.#ask('mdb/show', bridge)];
    const numberOf = new Map<string, number>();
    for (const [i, { name }] of this.#portsOf(bridge).entries()) {
      numberOf.set(name, i);
      numberOf.set(new RegExp(`\\b${name} (\\d+)/`).exec(shown)?.[1] ?? '', i);
    }
    return table
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .filter((words) => words.length === 4 && words[0] !== 'port')
      .map(([port, vlan, group]) => `${vlan} ${group} p${numberOf.get(port)}`)
      .sort();
  }

  async version(): Promise<string> {
    return (await this.#ask('version')).split('\n')[0];
  }

  async stop(): Promise<void> {
    this.#control?.close();
    for (const port of [...this.#ports.values()].flat()) port.close();
    await this.#daemons.stop((child) => {
      child.process.kill('SIGTERM');
    });
  }

  async #start(portCounts: readonly number[]): Promise<void> {
    const daemons = this.#daemons;
    await daemons.startDatabase();
    await daemons.vsctl('--no-wait', 'set', 'Open_vSwitch', '.', 'other_config:flow-limit=0');
    await daemons.startSwitch('ovs-vswitchd', ['--enable-dummy', '--disable-system']);
    await daemons.retry('the switch', async () => {
      this.#control = await ControlConnection.open(daemons.controlPath);
    });
    for (const count of portCounts) await this.#addBridge(`b${count}`, count);
  }

  async #addBridge(bridge: string, count: number): Promise<void> {
    const names = Array.from({ length: count }, (_, i) => `${bridge}p${i}`);
    await this.#daemons.vsctl(
      ...['add-br', bridge, '--', 'set', 'bridge', bridge, 'datapath_type=dummy'],
      ...names.flatMap((name) => [
        ...['--', 'add-port', bridge, name, '--', 'set', 'Interface', name, 'type=dummy'],
        `options:tx_pcap=${this.#daemons.path(`${name}.pcap`)}`,
      ]),
    );
    this.#ports.set(
      bridge,
      names.map((name) => new DummyPort(name, this.#daemons.path(`${name}.pcap`))),
    );
  }

  #portsOf(bridge: string): readonly DummyPort[] {
    return this.#ports.get(bridge) ?? [];
  }

  #ask(method: string, ...params: string[]): Promise<string> {
    if (this.#control === null) throw new Error('Open vSwitch is not running');
    return this.#control.ask(method, params);
  }
}

export type OvsTrace = {
  readonly text: string;
  /** Of each copy of the frame: the port that gets it, and the tags that it has then, the outermost first. */
  readonly outputs: readonly { readonly port: number; readonly tags: readonly string[] }[];
};

/** What these datapath actions do with the frame: `push_vlan(vid=10,pcp=0),2,pop_vlan,3`. */
function outputsOf(
  actions: string,
  frame: Uint8Array,
  portOf: ReadonlyMap<number, number>,
): { port: number; tags: string[] }[] {
  const tags: string[] = tagWords(frame);
  const outputs: { port: number; tags: string[] }[] = [];
  for (const action of actions.match(/\w+(?:\([^)]*\))?/g) ?? []) {
    if (action === 'drop') continue;
    if (action === 'pop_vlan') tags.shift();
    else if (action.startsWith('push_vlan')) {
      const field = (name: string, fallback: string): string =>
        new RegExp(`\\b${name}=(\\w+)`).exec(action)?.[1] ?? fallback;
      tags.unshift(`${Number(field('tpid', '0x8100')).toString(16)}:${field('vid', '0')}`);
    } else if (/^\d+$/.test(action)) {
      const port = portOf.get(Number(action));
      if (port !== undefined) outputs.push({ port, tags: [...tags] });
    } else throw new Error(`Open vSwitch has an action that nobody reads here: ${actions}`);
  }
  return outputs;
}

/** `8100:10` for each tag of a frame. */
export function tagWords(frame: Uint8Array): string[] {
  const words: string[] = [];
  const be16 = (at: number): number => (frame[at] << 8) | frame[at + 1];
  for (let at = 12; at + 4 <= frame.length && [0x8100, 0x88a8].includes(be16(at)); at += 4)
    words.push(`${be16(at).toString(16)}:${be16(at + 2) & 0xfff}`);
  return words;
}

/** The capture file of one port. */
class DummyPort {
  readonly name: string;
  readonly #fd: number;
  #offset = FILE_HEADER_BYTES;

  constructor(name: string, file: string) {
    this.name = name;
    this.#fd = openSync(file, 'r');
  }

  /** Frames that were written since the last call. */
  take(): Uint8Array[] {
    const bytes = Buffer.alloc(Math.max(0, fstatSync(this.#fd).size - this.#offset));
    readSync(this.#fd, bytes, 0, bytes.length, this.#offset);
    const frames: Uint8Array[] = [];
    let at = 0;
    while (at + PACKET_HEADER_BYTES <= bytes.length) {
      const end = at + PACKET_HEADER_BYTES + bytes.readUInt32LE(at + 8);
      frames.push(Uint8Array.from(bytes.subarray(at + PACKET_HEADER_BYTES, end)));
      at = end;
    }
    this.#offset += at;
    return frames;
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** JSON-RPC as ovs-appctl speaks it, without starting a program for each call. One call at a time. */
class ControlConnection {
  readonly #socket: Socket;
  #text = '';
  #calls = 0;
  #answered: ((text: string) => void) | null = null;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      this.#text += text;
      this.#answered?.(this.#text);
    });
  }

  static open(path: string): Promise<ControlConnection> {
    return new Promise((resolve, reject) => {
      const socket = connect(path);
      socket.once('error', reject);
      socket.once('connect', () => resolve(new ControlConnection(socket)));
    });
  }

  async ask(method: string, params: readonly string[]): Promise<string> {
    this.#text = '';
    const answer = await new Promise<{ result: string | null; error: string | null }>((resolve) => {
      this.#answered = (text) => {
        const parsed = parsedOrNull(text);
        if (parsed !== null) resolve(parsed as { result: string | null; error: string | null });
      };
      this.#socket.write(JSON.stringify({ id: this.#calls++, method, params }));
    });
    this.#answered = null;
    if (answer.error !== null) throw new Error(`Open vSwitch refused ${method}: ${answer.error}`);
    return answer.result ?? '';
  }

  close(): void {
    this.#socket.destroy();
  }
}

/** Null: not whole yet; objects follow one another without anything between them. */
function parsedOrNull(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Settings as columns of its table Port. */
function columnsOf(policy: VlanPolicy): string[] {
  const { mode, tag, trunks, cvlans, priorityTags, serviceTag } = policy;
  return [
    `vlan_mode=${mode}`,
    ...(mode === 'trunk' ? [] : [`tag=${tag}`]),
    ...(trunks === null ? [] : [`trunks=[${trunks.join(',')}]`]),
    ...(cvlans === null ? [] : [`cvlans=[${cvlans.join(',')}]`]),
    `other_config:priority-tags=${priorityTags}`,
    `other_config:qinq-ethtype=${serviceTag}`,
  ];
}
