/**
 * Records which address a DHCP server gave to whom, and behind which port he is: from the requests and acknowledgements that
 * pass (RFC 2131). It decides nothing; `ringway plugin show dhcp-recorder` shows what it saw. Example of a plugin.
 */
import { type Frames, ipv4Text, macText, type PluginFactory, PROTOCOL } from 'ringway/plugin';

const SERVER_PORT = 67;
const CLIENT_PORT = 68;
const UDP_BYTES = 8;
/** In a message: the fields that are looked at, and where options begin. */
const OP = 0;
const YOUR_ADDRESS = 16;
const CLIENT_MAC = 28;
const COOKIE_AT = 236;
const COOKIE = 0x63825363;
const OPTIONS_AT = 240;
const OP_REQUEST = 1;
const OP_REPLY = 2;
const OPTION_PAD = 0;
const OPTION_LEASE = 51;
const OPTION_TYPE = 53;
const OPTION_END = 255;
const TYPE_REQUEST = 3;
const TYPE_ACK = 5;
const MESSAGE_BYTES_MAX = 1500;

const factory: PluginFactory = (settings, context) => {
  const servers = settings.list('servers', []).map((name) => context.port(name));
  const acknowledged = context.counter('acknowledged');
  const untrusted = context.counter('untrusted');
  const message = new Uint8Array(MESSAGE_BYTES_MAX);
  const view = new DataView(message.buffer);

  /** Where the value of an option begins, if it has so many bytes; -1: it has not. */
  function optionAt(code: number, sizeBytes: number, end: number): number {
    let at = OPTIONS_AT;
    while (at < end && message[at] !== OPTION_END) {
      if (message[at] === OPTION_PAD) at++;
      else if (message[at] === code)
        return message[at + 1] === sizeBytes && at + 2 + sizeBytes <= end ? at + 2 : -1;
      else at += 2 + message[at + 1];
    }
    return -1;
  }

  function record(frames: Frames, frame: number): void {
    const start = frames.l4Offsets[frame] + UDP_BYTES;
    const end = frames.copy(frame, start, message);
    if (end < OPTIONS_AT || view.getUint32(COOKIE_AT) !== COOKIE) return;
    const typeAt = optionAt(OPTION_TYPE, 1, end);
    const type = typeAt < 0 ? 0 : message[typeAt];
    const client = macText(view.getUint16(CLIENT_MAC) * 2 ** 32 + view.getUint32(CLIENT_MAC + 2));
    if (message[OP] === OP_REQUEST && type === TYPE_REQUEST) context.note(`${client} port`, frames.port.name);
    if (message[OP] !== OP_REPLY || type !== TYPE_ACK) return;
    if (servers.length > 0 && !servers.includes(frames.port)) {
      untrusted.add(1);
      return;
    }
    acknowledged.add(1);
    const leaseAt = optionAt(OPTION_LEASE, 4, end);
    const lease = leaseAt < 0 ? '' : ` for ${view.getUint32(leaseAt)} s`;
    const vlan = frames.vlans[frame] === 0 ? '' : ` in VLAN ${frames.vlans[frame]}`;
    const address = ipv4Text(view.getUint32(YOUR_ADDRESS));
    context.note(`${client} address`, `${address}${lease}${vlan}, by ${frames.port.name}`);
    context.log(`${client} was given ${address}${lease} by ${frames.port.name}`);
  }

  return {
    version: 1,
    reads: 'headers',
    onFault: 'pass',
    decide(frames) {
      const { count, protocols, l4Sources, l4Destinations } = frames;
      for (let frame = 0; frame < count; frame++) {
        if (protocols[frame] !== PROTOCOL.udp) continue;
        const from = l4Sources[frame];
        const to = l4Destinations[frame];
        if ((from === SERVER_PORT && to === CLIENT_PORT) || (from === CLIENT_PORT && to === SERVER_PORT))
          record(frames, frame);
      }
    },
  };
};

export default factory;
