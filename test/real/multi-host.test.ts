/**
 * Guests on two hosts in one network, as docs/multi-host.md sets it up: on each host a Ringway whose tap port is
 * plugged into a Linux bridge together with the kernel's VXLAN device. The hosts are network namespaces, the cable
 * between them is a veth pair, the guests are Linux in QEMU. Once each host has a fixed list of the others, once they
 * exchange addresses by BGP EVPN (FRR).
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { askControl } from '../../switch/control/client.ts';
import type { FdbReport, PortReport } from '../../switch/control/report.ts';
import { type Child, startChild, TextLog } from '../peers/child.ts';
import { Frr } from '../peers/frr.ts';
import { LinuxGuest, peersForTests, runIperf3, startIperf3Server, vhostUserArgs } from '../peers/index.ts';
import {
  addVxlanBridge,
  connectNamespaces,
  type FdbEntry,
  fdbOf,
  NetworkNamespace,
  whyNoNamespaces,
} from '../peers/namespaces.ts';
import { expectBalancedBooks } from './books.ts';

const PROGRAM = fileURLToPath(new URL('../../switch/cli/main.ts', import.meta.url));
const VNI = 100;
const AS_NUMBER = 65_000;
/** What VXLAN adds to a guest's packet: Ethernet 14, VXLAN 8, UDP 8, IPv4 20 bytes. */
const VXLAN_BYTES = 50;
/** IPv4 header and ICMP header. */
const PING_HEADER_BYTES = 28;
const MEMORY_MIB = 192;
/** Sessions come up within seconds, and go after nine without a word. */
const WAIT = { timeout: 90_000, interval: 100 };
const FLOODED_MAC = '00:00:00:00:00:00';

type HostNumber = 1 | 2;
type Forwarding = 'static' | 'evpn';

const underlayAddress = (number: HostNumber): string => `192.0.2.${number}`;
const guestAddress = (number: HostNumber): string => `10.7.0.${number}`;
const guestMac = (number: HostNumber): string => `52:54:00:07:00:0${number}`;
const otherThan = (number: HostNumber): HostNumber => (number === 1 ? 2 : 1);

/** A host: its namespace and all that runs in it. */
class Host {
  readonly number: HostNumber;
  readonly namespace: NetworkNamespace;
  readonly #folder = mkdtempSync(join(tmpdir(), 'ringway-host-'));
  #ringway: Child | undefined;
  #log: TextLog | undefined;
  #frr: Frr | undefined;
  #guest: LinuxGuest | undefined;
  /** A guest that has come here from the other host. */
  #visitor: LinuxGuest | undefined;

  constructor(number: HostNumber, namespace: NetworkNamespace) {
    this.number = number;
    this.namespace = namespace;
  }

  get guest(): LinuxGuest {
    return this.#guest!;
  }

  get visitor(): LinuxGuest {
    return this.#visitor!;
  }

  get frr(): Frr {
    return this.#frr!;
  }

  /** The bridge with VXLAN and tap, and where its table comes from. */
  async setUpNetwork(forwarding: Forwarding, guestMtu: number): Promise<void> {
    const local = underlayAddress(this.number);
    const other = underlayAddress(otherThan(this.number));
    await addVxlanBridge(this.namespace, {
      vni: VNI,
      local,
      mtu: guestMtu,
      learning: forwarding === 'evpn' ? 'control-plane' : 'kernel',
    });
    await this.namespace.ip('tuntap add tap0 mode tap');
    await this.namespace.ip(`link set tap0 addrgenmode none mtu ${guestMtu} master br0 up`);
    if (forwarding === 'evpn') {
      this.#frr = await Frr.start(this.namespace, {
        asNumber: AS_NUMBER,
        address: local,
        neighbors: [other],
      });
    } else {
      await this.namespace.bridge(`fdb append 00:00:00:00:00:00 dev vxlan${VNI} dst ${other}`);
    }
  }

  async startRingway(): Promise<void> {
    const ports = [...['guest', 'visitor'].map((name) => `${name}=${this.#socket(name)}`), 'up=tap:tap0'];
    const portArgs = ports.flatMap((port) => ['--port', port]);
    const args = [PROGRAM, 'run', ...portArgs, '--control', this.#socket('control')];
    this.#ringway = await startChild(...this.namespace.command(process.execPath, args));
    this.#log = new TextLog(this.#ringway.process.stderr);
    await this.untilRunning('up');
  }

  /** As a user would, once its books have been looked at; resolves with its exit code. */
  async stopRingway(): Promise<number | null> {
    const ringway = this.#ringway;
    if (ringway === undefined) return null;
    try {
      await expectBalancedBooks(this.#socket('control'));
    } finally {
      ringway.process.kill('SIGTERM');
      await ringway.exited;
    }
    return ringway.exited;
  }

  /** `tellMtu`: QEMU's card says the MTU; else it is set inside the guest. */
  async startGuest(mtu: number, tellMtu: boolean): Promise<void> {
    this.#guest = await this.#boot('guest', this.number, tellMtu ? `host_mtu=${mtu}` : undefined);
    await this.#guest.configureNetwork(`${guestAddress(this.number)}/24`, tellMtu ? {} : { mtu });
  }

  /** Ends the guest here and starts it, with the addresses it had, on the other host. */
  async moveGuestTo(other: Host, mtu: number): Promise<void> {
    await this.guest.stop();
    other.#visitor = await other.#boot('visitor', this.number, undefined);
    await other.#visitor.configureNetwork(`${guestAddress(this.number)}/24`, { mtu });
  }

  #boot(port: string, number: HostNumber, deviceProperties: string | undefined): Promise<LinuxGuest> {
    return LinuxGuest.start({
      name: `${port}-${this.number}`,
      qemuArgs: vhostUserArgs({
        socketPath: this.#socket(port),
        mac: guestMac(number),
        queuePairs: 1,
        memoryMiB: MEMORY_MIB,
        reconnectS: 1,
        ...(deviceProperties === undefined ? {} : { deviceProperties }),
      }),
    });
  }

  async untilRunning(port: string): Promise<void> {
    const state = async (): Promise<string> => {
      if (this.#ringway!.hasExited()) return `Ringway has ended: ${this.#log!.text}`;
      const report = await this.#ask<PortReport>(`/v1/ports/${port}`).catch(() => undefined);
      return report === undefined ? 'no answer' : `${report.state} ${report.reason ?? ''}`.trim();
    };
    await vi.waitFor(async () => expect(await state()).toBe('running'), WAIT);
  }

  /** Name of the port behind which this host's Ringway has an address. */
  async portOf(mac: string): Promise<string | undefined> {
    const { entries } = await this.#ask<FdbReport>('/v1/fdb');
    return entries.find((entry) => entry.mac === mac)?.port;
  }

  /** The entry of the VXLAN device that says to which host frames for that guest go. */
  async tunnelEntry(number: HostNumber = otherThan(this.number)): Promise<FdbEntry | undefined> {
    const entries = await fdbOf(this.namespace, `vxlan${VNI}`);
    return entries.find(({ mac, dst }) => mac === guestMac(number) && dst !== undefined);
  }

  /** Whether it sends the other host what it floods. */
  async floods(): Promise<boolean> {
    const entries = await fdbOf(this.namespace, `vxlan${VNI}`);
    return entries.some(
      ({ mac, dst }) => mac === FLOODED_MAC && dst === underlayAddress(otherThan(this.number)),
    );
  }

  async remove(): Promise<void> {
    await Promise.all([this.#guest?.stop(), this.#visitor?.stop()]);
    try {
      await this.stopRingway();
    } finally {
      await this.#frr?.stop();
      await this.namespace.remove();
      rmSync(this.#folder, { recursive: true, force: true });
    }
  }

  #socket(name: string): string {
    return join(this.#folder, `${name}.sock`);
  }

  #ask<T>(path: string): Promise<T> {
    return askControl<T>(this.#socket('control'), path);
  }
}

async function makeHosts(underlayMtu: number): Promise<[Host, Host]> {
  const [a, b] = [await NetworkNamespace.create('a'), await NetworkNamespace.create('b')];
  await connectNamespaces(
    [
      { namespace: a, address: `${underlayAddress(1)}/24` },
      { namespace: b, address: `${underlayAddress(2)}/24` },
    ],
    { device: 'underlay', mtu: underlayMtu },
  );
  return [new Host(1, a), new Host(2, b)];
}

const peers = await peersForTests(['qemu', 'iproute2']);
const frr = await peersForTests(['frr']);
const withoutNamespaces = peers.skip ? undefined : await whyNoNamespaces();

/** `describe.skipIf` and the title that says why. */
function titled(text: string, forwarding: Forwarding): { skip: boolean; title: string } {
  if (peers.skip) return { skip: true, title: peers.title(text) };
  if (withoutNamespaces !== undefined)
    return { skip: true, title: `${text} (skipped: ${withoutNamespaces})` };
  return forwarding === 'evpn' ? { skip: frr.skip, title: frr.title(text) } : { skip: false, title: text };
}

const SETUPS = [
  // An ordinary underlay: the guests have to send less.
  { text: 'two hosts, fixed list of hosts', forwarding: 'static', underlayMtu: 1500 },
  // An underlay with larger frames: the guests keep 1500.
  { text: 'two hosts, BGP EVPN', forwarding: 'evpn', underlayMtu: 1550 },
] as const;

for (const { text, forwarding, underlayMtu } of SETUPS) {
  const { skip, title } = titled(text, forwarding);
  const guestMtu = underlayMtu - VXLAN_BYTES;

  describe.skipIf(skip)(title, () => {
    let hosts: Host[] = [];
    let a: Host;
    let b: Host;

    beforeAll(async () => {
      [a, b] = await makeHosts(underlayMtu);
      hosts = [a, b];
      for (const host of hosts) {
        await host.setUpNetwork(forwarding, guestMtu);
        await host.startRingway();
      }
      await Promise.all(hosts.map((host) => host.startGuest(guestMtu, host === a)));
      if (forwarding === 'evpn') await untilSessionsAreUp(hosts);
    });

    afterAll(async () => {
      await Promise.all(hosts.map((host) => host.remove()));
    });

    test('the guests ping each other without loss, also with the largest packets', async () => {
      const sizeBytes = guestMtu - PING_HEADER_BYTES;
      for (const [from, to] of [hosts, [...hosts].reverse()] as [Host, Host][]) {
        const address = guestAddress(to.number);
        expect(await from.guest.ping(address, { count: 20 })).toEqual({ sent: 20, received: 20 });
        expect(await from.guest.ping(address, { sizeBytes })).toEqual({ sent: 5, received: 5 });
      }
    });

    test('each host has learned where the other guest is', async () => {
      for (const host of hosts) {
        const other = otherThan(host.number);
        expect(await host.portOf(guestMac(host.number))).toBe('guest');
        expect(await host.portOf(guestMac(other))).toBe('up');
        await untilTunnelled(host, underlayAddress(other));
        const entry = await host.tunnelEntry();
        expect(entry?.flags.includes('extern_learn')).toBe(forwarding === 'evpn');
        if (forwarding === 'static') continue;
        const macs = await host.frr.remoteMacs(VNI);
        expect(macs.get(guestMac(other))).toBe(underlayAddress(other));
      }
    });

    test('TCP in both directions', async ({ annotate }) => {
      await startIperf3Server(b.guest);
      for (const args of [[], ['-R']]) {
        const result = await runIperf3(a.guest, guestAddress(2), { seconds: 3, args });
        expect(result.receivedBytes).toBeGreaterThan(1_000_000);
        const direction = args.length === 0 ? 'a to b' : 'b to a';
        await annotate(`iperf3, ${direction}: ${Math.round(result.receivedBitsPerSecond / 1e6)} Mbit/s`);
      }
    });

    test('a guest is told the MTU; one that sends more than that is not heard', async () => {
      expect(await a.guest.runOk('cat /sys/class/net/eth0/mtu')).toBe(`${guestMtu}\n`);
      await b.guest.runOk(`ip link set eth0 mtu ${guestMtu + 1}`);
      const sizeBytes = guestMtu + 1 - PING_HEADER_BYTES;
      const pings = { count: 2, waitS: 1 };
      expect(await b.guest.ping(guestAddress(1), { ...pings, sizeBytes })).toEqual({ sent: 2, received: 0 });
      await b.guest.runOk(`ip link set eth0 mtu ${guestMtu}`);
      // In two fragments now.
      expect(await b.guest.ping(guestAddress(1), { count: 2, sizeBytes })).toEqual({ sent: 2, received: 2 });
    });

    test('a Ringway that is started again finds its place in the bridge', async () => {
      expect(await b.stopRingway()).toBe(0);
      await b.startRingway();
      await b.untilRunning('guest');
      expect(await a.guest.ping(guestAddress(2))).toEqual({ sent: 5, received: 5 });
    });

    if (forwarding === 'evpn') {
      test('routes go with the underlay and come back with it', async () => {
        await a.namespace.ip('link set underlay down');
        await untilTunnelled(a, undefined);
        await a.namespace.ip('link set underlay up');
        await untilSessionsAreUp(hosts);
        // Both: either may have kept the session of before for a while.
        await untilTunnelled(a, underlayAddress(2));
        await untilTunnelled(b, underlayAddress(1));
        expect(await a.guest.ping(guestAddress(2))).toEqual({ sent: 5, received: 5 });
      });
    }

    test('a guest that starts again on the other host and announces itself is found there', async () => {
      await a.moveGuestTo(b, guestMtu);
      await b.visitor.runOk(`arping -U -c 1 -I eth0 ${guestAddress(1)}`);
      expect(await b.guest.ping(guestAddress(1))).toEqual({ sent: 5, received: 5 });
      expect(await b.portOf(guestMac(1))).toBe('visitor');
      // The announcement is a broadcast, so the host that the guest has left heard it too.
      const placeOf = async (): Promise<unknown> => [
        await a.portOf(guestMac(1)),
        (await a.tunnelEntry(1))?.dst,
      ];
      await vi.waitFor(async () => expect(await placeOf()).toEqual(['up', underlayAddress(2)]), WAIT);
    });
  });
}

/** And until the first routes came by them, which are those of hosts. */
async function untilSessionsAreUp(hosts: readonly Host[]): Promise<void> {
  for (const host of hosts) {
    const expected = [underlayAddress(otherThan(host.number))];
    await vi.waitFor(async () => expect(await host.frr.establishedNeighbors()).toEqual(expected), WAIT);
  }
  for (const host of hosts) await vi.waitFor(async () => expect(await host.floods()).toBe(true), WAIT);
}

/** Until the host sends frames for the other guest to that underlay address; undefined: to no particular one. */
async function untilTunnelled(host: Host, dst: string | undefined): Promise<void> {
  await vi.waitFor(async () => expect((await host.tunnelEntry())?.dst).toBe(dst), WAIT);
}
