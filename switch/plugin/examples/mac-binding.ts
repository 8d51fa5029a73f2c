/**
 * Binds addresses to ports: of a port that a file names, only the MAC and IPv4 addresses that it lists may be the source of frames,
 * and of ARP messages too. Example of a plugin.
 *
 * The file has lines `PORT MAC IPV4`, of one port as many as it has addresses. What other ports send passes.
 */
import { ETHERTYPE, type Frames, ipv4, mac, type PluginFactory } from 'ringway/plugin';

/** Where an ARP message of Ethernet and IPv4 (RFC 826) has its sender's addresses, in a frame. */
const ARP_SENDER_MAC = 22;
const ARP_SENDER_IP = 28;
const ARP_BYTES = 42;

const factory: PluginFactory = (settings, context) => {
  /** IPv4 addresses by MAC address, by port. */
  const bound = new Map<string, Map<number, Set<number>>>();
  for (const { number, text } of settings.lines('bindings')) {
    const [port = '', address = '', ip = '', ...rest] = text.split(/\s+/);
    try {
      if (rest.length > 0 || ip === '') throw new RangeError('not of the form PORT MAC IPV4');
      const addresses = bound.get(port) ?? new Map<number, Set<number>>();
      bound.set(port, addresses);
      addresses.set(mac(address), (addresses.get(mac(address)) ?? new Set<number>()).add(ipv4(ip)));
    } catch (error) {
      settings.refuse('bindings', `lines PORT MAC IPV4; line ${number}: ${(error as Error).message}`);
    }
  }
  const foreignMac = context.dropReason(
    'foreignMac',
    'sent a frame from a MAC address that is not bound to it',
  );
  const foreignIp = context.dropReason(
    'foreignIp',
    'sent a packet from an IPv4 address that is not bound to its MAC address',
  );
  const foreignArp = context.dropReason('foreignArp', 'sent an ARP message in the name of another');

  function isArpWrong(frames: Frames, frame: number, source: number, ips: ReadonlySet<number>): boolean {
    if (frames.sizes[frame] < ARP_BYTES) return true;
    const sender = frames.u16(frame, ARP_SENDER_MAC) * 2 ** 32 + frames.u32(frame, ARP_SENDER_MAC + 2);
    const ip = frames.u32(frame, ARP_SENDER_IP) | 0;
    // Who asks whether an address is taken has none yet (RFC 5227).
    return sender !== source || (ip !== 0 && !ips.has(ip));
  }

  return {
    version: 1,
    reads: 'headers',
    decide(frames) {
      const addresses = bound.get(frames.port.name);
      if (addresses === undefined) return;
      const { count, sources, etherTypes, ipVersions, ipv4Sources } = frames;
      for (let frame = 0; frame < count; frame++) {
        const ips = addresses.get(sources[frame]);
        if (ips === undefined) frames.drop(frame, foreignMac);
        else if (etherTypes[frame] === ETHERTYPE.arp) {
          if (isArpWrong(frames, frame, sources[frame], ips)) frames.drop(frame, foreignArp);
        } else if (etherTypes[frame] === ETHERTYPE.ipv4) {
          // Who asks for an address by DHCP has none yet.
          const isOwn = ipv4Sources[frame] === 0 || ips.has(ipv4Sources[frame]);
          if (ipVersions[frame] !== 4 || !isOwn) frames.drop(frame, foreignIp);
        }
      }
    },
  };
};

export default factory;
