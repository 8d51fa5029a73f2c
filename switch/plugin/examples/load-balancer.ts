/**
 * Shares what is sent to one MAC address among several ports, each flow on one of them: guests that all have that address. A port
 * that comes or goes moves only the flows that it gets or had (rendezvous hashing). Example of a plugin.
 */
import { type Frames, mac, type PluginFactory, type PluginPort } from 'ringway/plugin';

const factory: PluginFactory = (settings, context) => {
  const addressText = settings.text('address', '');
  let address = -1;
  try {
    address = mac(addressText);
  } catch {
    settings.refuse('address', 'the MAC address that the ports share');
  }
  const names = settings.list('ports');
  if (names.length === 0) settings.refuse('ports', 'names of ports');
  const all = names.map((name) => ({ port: context.port(name), salt: hashOf(name) }));
  const noPort = context.dropReason('noPort', 'sent a frame to an address whose ports are all gone');
  let there: typeof all = [];
  const refresh = (): void => {
    there = all.filter(({ port }) => port.id >= 0);
  };

  /** Of all ports the one whose hash with the flow's is highest. */
  function portFor(flow: number): PluginPort | null {
    let best: PluginPort | null = null;
    let highest = -1;
    for (let i = 0; i < there.length; i++) {
      const weight = mixed(flow ^ there[i].salt) >>> 0;
      if (weight > highest) {
        highest = weight;
        best = there[i].port;
      }
    }
    return best;
  }

  function flowOf(frames: Frames, frame: number): number {
    let flow = mixed(frames.ipv4Sources[frame]) ^ frames.ipv4Destinations[frame];
    for (let word = 4 * frame; word < 4 * frame + 4; word++) {
      flow = mixed(flow ^ frames.ipv6Sources[word]) ^ frames.ipv6Destinations[word];
    }
    return mixed(
      flow ^ (frames.l4Sources[frame] << 16) ^ frames.l4Destinations[frame] ^ frames.protocols[frame],
    );
  }

  return {
    version: 1,
    reads: 'headers',
    portAdded: refresh,
    portRemoved: refresh,
    decide(frames) {
      const { count, destinations, repeats } = frames;
      let port: PluginPort | null = null;
      for (let frame = 0; frame < count; frame++) {
        if (destinations[frame] !== address) continue;
        if (repeats[frame] === 0) port = portFor(flowOf(frames, frame));
        if (port === null) frames.drop(frame, noPort);
        else frames.redirect(frame, port);
      }
    },
  };
};

function mixed(word: number): number {
  const once = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
  const twice = Math.imul(once ^ (once >>> 13), 0xc2b2ae35);
  return twice ^ (twice >>> 16);
}

function hashOf(text: string): number {
  let hash = 0;
  for (let i = 0; i < text.length; i++) hash = mixed(hash ^ text.charCodeAt(i));
  return hash;
}

export default factory;
