/**
 * A checksum that the host's kernel has looked at, on its way through a whole switch: who agreed on GUEST_CSUM is told, and
 * of nothing else. The kernel looks where a driver hands frames to its GRO, as a card does: here a TAP interface with NAPI.
 */
import { mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { maskOf } from '../../protocol/bits.ts';
import { ETHERNET_HEADER_BYTES } from '../../protocol/ethernet.ts';
import { VIRTIO_FEATURE } from '../../protocol/virtio/features.ts';
import { NET_HDR_F, NET_HEADER_BYTES } from '../../protocol/virtio/net.ts';
import { EmbeddedGuest, GUEST_FEATURES } from '../../src/frontend/net-device.ts';
import { closeFd } from '../../src/host/descriptor.ts';
import { checked } from '../../src/host/errors.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { libc } from '../../src/host/libc.ts';
import { inNetworkNamespace } from '../../src/port/tap/network-namespace.ts';
import { settingsOf } from '../../switch/cli/options.ts';
import { resolveConfig } from '../../switch/config/resolve.ts';
import { createLogger } from '../../switch/log.ts';
import { Switch } from '../../switch/switch.ts';
import { completed, naiveSum } from '../offload/naive-offload.ts';
import { makeFrame, PLAIN_TCP } from '../offload/random-requests.ts';
import { TestNamespace, tapUnavailable, titleWith } from '../port/tap-world.ts';
import { Random } from '../vring/random.ts';

const unavailable = tapUnavailable();
const TUNSETIFF = 0x400454ca;
/** IFF_TAP, IFF_NAPI, IFF_NO_PI. */
const NAPI_TAP = 0x0002 | 0x0010 | 0x1000;
/** TCP in IPv4, to an address that nobody has. */
const SEGMENT = tcpSegment();
const TELLS = GUEST_FEATURES | maskOf(VIRTIO_FEATURE.NET_CSUM, VIRTIO_FEATURE.NET_GUEST_CSUM);

function tcpSegment(): Uint8Array {
  const { frame, csumStart } = makeFrame(new Random(1), { ...PLAIN_TCP, payloadBytes: 100 });
  const ip = new DataView(frame.buffer, ETHERNET_HEADER_BYTES);
  ip.setUint16(10, 0);
  ip.setUint16(10, ~naiveSum(frame.subarray(ETHERNET_HEADER_BYTES, csumStart)) & 0xffff);
  return completed(frame, csumStart, 16);
}

describe.skipIf(unavailable !== null)(titleWith('a checksum that was found right', unavailable), () => {
  const namespace = new TestNamespace();
  const guests: Record<'tells' | 'asks' | 'plain', EmbeddedGuest> = {} as never;
  let folder: string;
  let running: Switch;
  let card: number | undefined;

  beforeAll(async () => {
    descriptorLoop();
    namespace.add();
    folder = mkdtempSync(join(tmpdir(), 'ringway-valid-'));
    const names = ['tells', 'asks', 'plain'] as const;
    const sockets = names.map((name) => `${name}=${join(folder, `${name}.sock`)}`);
    const port = [...sockets, `host=tap:tap0,namespace=${namespace.name}`];
    running = await Switch.start(
      resolveConfig([settingsOf({ port, control: 'none' })]),
      createLogger('silent'),
    );
    namespace.ip('link add bridge0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0');
    card = makeCard('card0');
    for (const name of ['card0', 'tap0']) namespace.ip(`link set ${name} master bridge0`);
    for (const name of ['card0', 'tap0', 'bridge0']) namespace.ip(`link set ${name} up`);
    // The kernel has the bridge use an interface when it comes to see that this is up: what comes before that is dropped.
    const stateOf = (name: string): string =>
      JSON.parse(namespace.ip(`-j -d link show ${name}`))[0].linkinfo.info_slave_data.state;
    await vi.waitFor(() => expect(['card0', 'tap0'].map(stateOf)).toEqual(['forwarding', 'forwarding']));
    for (const name of names) {
      guests[name] = await EmbeddedGuest.connect({
        socketPath: join(folder, `${name}.sock`),
        waitMs: 10_000,
        features: name === 'plain' ? GUEST_FEATURES : TELLS,
      });
    }
  });

  afterAll(async () => {
    for (const guest of Object.values(guests)) guest.close();
    await running?.stop();
    if (card !== undefined) closeFd(card);
    namespace.remove();
    rmSync(folder, { recursive: true, force: true });
  });

  function makeCard(name: string): number {
    const request = new Uint8Array(40);
    request.set(Buffer.from(name));
    new DataView(request.buffer).setUint16(16, NAPI_TAP, true);
    return inNetworkNamespace(namespace.name, () => {
      const fd = openSync('/dev/net/tun', 'r+');
      checked(libc.ioctl(fd, TUNSETIFF, request), 'ioctl(TUNSETIFF)', 'making a card');
      return fd;
    });
  }

  /** Sends a frame to all guests. Answers the flags that each finds before it. */
  async function flagsAt(send: (frame: Uint8Array) => unknown, frame: Uint8Array): Promise<object> {
    send(frame);
    const flags: Record<string, number> = {};
    for (const [name, guest] of Object.entries(guests)) {
      const { toGuest } = guest.pairs[0]!;
      if (name === 'asks') continue;
      expect(await toGuest.received()).toEqual(frame);
      flags[name] = toGuest.header[0]!;
    }
    return flags;
  }

  const byCard = (frame: Uint8Array): number => writeSync(card!, frame);

  it('is told to a guest that agreed on it, and no other', async () => {
    expect(await flagsAt(byCard, SEGMENT)).toEqual({ tells: NET_HDR_F.DATA_VALID, plain: 0 });
  });

  it('is told of no frame whose checksum is wrong', async () => {
    const wrong = SEGMENT.slice();
    wrong[wrong.length - 1] ^= 1;
    expect(await flagsAt(byCard, wrong)).toEqual({ tells: 0, plain: 0 });
  });

  it('is not believed of a guest', async () => {
    const header = new Uint8Array(NET_HEADER_BYTES);
    header[0] = NET_HDR_F.DATA_VALID;
    const byGuest = (frame: Uint8Array): boolean => guests.asks.send(frame, { header });
    expect(await flagsAt(byGuest, SEGMENT)).toEqual({ tells: 0, plain: 0 });
  });
});
