/**
 * The interface of plugins: what a file that is given with `--plugin FILE.ts` exports, and what it is given. Types, the
 * interface's version and a few helpers without state; a plugin imports them as `ringway/plugin`. docs/plugins.md has a
 * tutorial and all of this in words.
 *
 * A plugin's code runs in each poll worker, on its thread, between two bursts or on a burst's frames; each worker has an
 * instance of its own and they share nothing. It allocates nothing per frame if it is to be fast.
 */
import { parseMac } from '../../protocol/ethernet.ts';

/** Of this interface. Raised when a plugin written for the one before would not work any more. */
export const INTERFACE_VERSION = 1;

/** Default export of a plugin's file. Whatever it throws refuses the plugin, with its message. */
export type PluginFactory = (settings: PluginSettings, context: PluginContext) => Plugin;

export type Plugin = {
  /** INTERFACE_VERSION that it was written for: 1. */
  readonly version: number;
  /**
   * How far into frames it looks. `ethernet` (default): addresses, EtherType, VLAN and size. `headers`: the first 128 bytes,
   * which are copied before it looks at them, so that a guest cannot change what was decided on.
   */
  readonly reads?: 'ethernet' | 'headers';
  /**
   * What becomes of frames once the plugin was taken out because it threw, took too long or did not end: `drop` (default),
   * or `pass`, as if it were not there. The setting of the same name overrides it.
   */
  readonly onFault?: 'drop' | 'pass';
  /** Decides about a burst. A frame about which it says nothing passes. `frames` is only good during the call. */
  decide(frames: Frames): void;
  /** A port is there: each that there is when the plugin is loaded, and each that comes later. */
  portAdded?(port: PluginPort): void;
  /** The port is gone. Another may come with its name. */
  portRemoved?(port: PluginPort): void;
  /** About once a second, also while no frames come. */
  tick?(seconds: number): void;
};

/** A port by its name. */
export type PluginPort = {
  readonly name: string;
  /** Its number while it is there; -1 while it is not. */
  readonly id: number;
};

/** A reason of the plugin's own for dropping frames. */
export type DropReason = { readonly name: string; readonly index: number };

/** A counter of the plugin's own: shown by `ringway plugin`, summed over the workers. */
export type Counter = { add(count: number): void };

export type PluginContext = {
  /** Of the plugin, as it is configured. */
  readonly name: string;
  /** Declares a reason; only in the factory, and the same ones each time. `text` has the port for its subject. */
  dropReason(name: string, text: string): DropReason;
  /** Declares a counter; only in the factory, and the same ones each time. */
  counter(name: string): Counter;
  /** The port of that name, whether it is there or not. One object for each name. */
  port(name: string): PluginPort;
  /** A line in the switch's log, within a second; so many at once that they are too many are left out and counted. */
  log(text: string): void;
  /**
   * Something to be shown under a key by `ringway plugin show NAME`, as an address that was seen; null takes it back.
   * What workers note is shown together, and lives as long as the plugin, also when it is reloaded.
   */
  note(key: string, value: string | null): void;
};

/**
 * What was given with the plugin as `name=value`. A setting that the factory never asked for is refused as unknown. A wrong
 * one does not throw: all are told together when the factory is done, and until then the answer is the default.
 */
export type PluginSettings = {
  /** Without a default it must be given. */
  text(name: string, fallback?: string): string;
  number(name: string, limits?: { min?: number; max?: number; default?: number }): number;
  /** `on` or `off`. */
  flag(name: string, fallback?: boolean): boolean;
  choice<const Choices extends readonly string[]>(
    name: string,
    choices: Choices,
    fallback?: Choices[number],
  ): Choices[number];
  /** Joined by `+` on the command line, a list in a file. */
  list(name: string, fallback?: readonly string[]): readonly string[];
  /** The lines of the file that is named, without comments (#) and empty ones, with their numbers; read once for all workers. */
  lines(name: string): readonly { readonly number: number; readonly text: string }[];
  /** Says that the value of the setting cannot be; `allowed` as in `1 to 10`. */
  refuse(name: string, allowed: string): void;
};

/** Numbers by frame, 0 to `count` - 1. */
export type Numbers = { readonly [frame: number]: number };

/** What stands in the headers behind Ethernet's, by frame; only with `reads: 'headers'`, as `firsts`, `repeats` and bytes. */
export type FrameHeaders = {
  /** 4 or 6; 0: neither, or its header is cut short. */
  readonly ipVersions: Numbers;
  /** Of IPv4 (`ipv4('10.0.0.1')`); 0 otherwise. 32 bits with a sign. */
  readonly ipv4Sources: Numbers;
  readonly ipv4Destinations: Numbers;
  /** Of IPv6: the words 4 * frame to 4 * frame + 3, each of 32 bits with a sign. */
  readonly ipv6Sources: Numbers;
  readonly ipv6Destinations: Numbers;
  /** Of IPv4 the protocol, of IPv6 that behind the extension headers; -1: neither. */
  readonly protocols: Numbers;
  /** Ports of TCP, UDP and SCTP; -1: it has none, it is a fragment, or they lie behind what can be read. */
  readonly l4Sources: Numbers;
  readonly l4Destinations: Numbers;
  /** Where what follows the IP header begins; 0: nowhere within what can be read, or it is a later fragment. */
  readonly l4Offsets: Numbers;
};

/** A burst: up to 64 frames that came in from one port, in order. */
export type Frames = FrameHeaders & {
  readonly count: number;
  readonly port: PluginPort;
  /** Since the switch was started. */
  readonly seconds: number;

  /** Bytes with the Ethernet header, without VLAN tags. */
  readonly sizes: Numbers;
  /** MAC addresses, as numbers of 48 bits (`mac('02:00:00:00:00:01')`). */
  readonly destinations: Numbers;
  readonly sources: Numbers;
  readonly etherTypes: Numbers;
  /** VLAN that the frame is in; 0: none. */
  readonly vlans: Numbers;
  /** What an earlier plugin marked the frame with; 0: nothing. */
  readonly marks: Numbers;

  /** The fields of headers again, but only those of frames whose `repeats` is 0: so these need not be copied to the others. */
  readonly firsts: FrameHeaders;
  /** 1: it has the addresses, VLAN, EtherType, IP addresses, protocol and ports of the frame before it. */
  readonly repeats: Numbers;
  /** Of a frame whose `repeats` is 0: the next one of which that holds, or `count`; so a run of one flow is decided on at once. */
  readonly runEnds: Numbers;
  /** Bytes from the frame's first one, big-endian; 0 where they lie behind the first 128 or the frame's end. */
  u8(frame: number, at: number): number;
  u16(frame: number, at: number): number;
  u32(frame: number, at: number): number;
  /**
   * Copies the frame's bytes from `at` on into `into`; answers how many. Those behind the first 128 the guest may still change
   * afterwards: to be noted, not to be decided on.
   */
  copy(frame: number, at: number, into: Uint8Array): number;

  /** The last word of a plugin about a frame holds, and a frame that is dropped is seen by no later plugin. */
  drop(frame: number, reason: DropReason): void;
  /** Sends it to this port and no other, whatever was learned; drops it while the port is not there. */
  redirect(frame: number, port: PluginPort): void;
  /** Has it be in this VLAN, 1 to 4,094; its priority stays. */
  setVlan(frame: number, vlan: number): void;
  /** Has it be in none; of two tags that were taken from it the inner one is left. */
  removeVlan(frame: number): void;
  /** A copy to this port besides, as it is before this plugin's changes; one for each frame and plugin. */
  mirror(frame: number, port: PluginPort): void;
  /** A number for later plugins. */
  mark(frame: number, value: number): void;
};

export const ETHERTYPE = { ipv4: 0x0800, arp: 0x0806, ipv6: 0x86dd } as const;
export const PROTOCOL = { icmp: 1, tcp: 6, udp: 17, icmpv6: 58, sctp: 132 } as const;

/** `02:00:00:00:00:01` as the number that `sources` and `destinations` have. @throws RangeError */
export function mac(text: string): number {
  const bytes = parseMac(text);
  if (bytes === null) throw new RangeError(`${text} is not a MAC address`);
  return bytes.reduce((number, byte) => number * 256 + byte, 0);
}

export function macText(address: number): string {
  const digits = address.toString(16).padStart(12, '0');
  return digits.replace(/..(?!$)/g, '$&:');
}

/** `10.0.0.1` as the number that `ipv4Sources` and `ipv4Destinations` have. @throws RangeError */
export function ipv4(text: string): number {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256))
    throw new RangeError(`${text} is not an IPv4 address`);
  return parts.reduce((number, part) => (number << 8) | Number(part), 0);
}

export function ipv4Text(address: number): string {
  return [24, 16, 8, 0].map((bits) => (address >>> bits) & 255).join('.');
}

/** `10.0.0.0/8`, or an address alone, as an address and the bits of it that count. @throws RangeError */
export function ipv4Range(text: string): { readonly address: number; readonly mask: number } {
  const [address = '', bits = '32', ...rest] = text.split('/');
  if (!/^\d{1,2}$/.test(bits) || Number(bits) > 32 || rest.length > 0)
    throw new RangeError(`${text} is not a range of IPv4 addresses`);
  const mask = bits === '0' ? 0 : -1 << (32 - Number(bits));
  return { address: ipv4(address) & mask, mask };
}
