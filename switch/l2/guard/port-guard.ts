/**
 * What a port's guest may send, as the guard stage reads it: the policy's lists as tables of integers, decided once when
 * the policy comes. Hot path of one worker, but for `follow`.
 */
import { macHiOf, macLoOf } from '../../../protocol/ethernet.ts';
import type { GuardPolicy } from '../../../src/queue/policy.ts';

const NO_WORDS = new Int32Array(0);

export class PortGuard {
  /** Only these sources (`hasMac`). */
  checksMacs = false;
  /** Most addresses that are learned of the port; 0: any. */
  macsMax = 0;
  /** Those stay, see Fdb.learnUpTo. */
  sticks = false;
  /** Senders named in ARP and neighbour discovery must be the frame's source. */
  bindsMacs = false;
  checksAddresses = false;
  dhcp = false;
  ra = false;
  /** Open addressing, at most half full: first four bytes, last two with bit 16 set; 0: free. */
  declare private macs: Int32Array;
  private macShift = 31;
  /** Of each IPv4 prefix: network and mask, as numbers in network order. */
  declare private ipv4: Int32Array;
  /** Of each IPv6 prefix: four words of the network, four of the mask. */
  declare private ipv6: Int32Array;

  constructor() {
    this.macs = NO_WORDS;
    this.ipv4 = NO_WORDS;
    this.ipv6 = NO_WORDS;
  }

  /** Null: it may send anything. */
  follow(policy: GuardPolicy | null): void {
    const { macs = null, macsMax = null, addresses = null } = policy ?? {};
    this.checksMacs = macs !== null;
    this.macsMax = macsMax ?? 0;
    this.sticks = policy?.sticky === true;
    this.bindsMacs = macs !== null || macsMax !== null;
    this.checksAddresses = addresses !== null;
    this.dhcp = policy?.dhcp === true;
    this.ra = policy?.ra === true;
    this.fillMacs(macs ?? []);
    const prefixesOf = (bytes: number) => (addresses ?? []).filter((prefix) => prefix.bytes.length === bytes);
    const tableOf = (bytes: number): Int32Array =>
      Int32Array.from(
        prefixesOf(bytes).flatMap((prefix) => {
          const mask = maskWords(prefix.prefixBits, bytes >> 2);
          return [...wordsOf(prefix.bytes).map((word, i) => word & mask[i]), ...mask];
        }),
      );
    this.ipv4 = tableOf(4);
    this.ipv6 = tableOf(16);
  }

  /** Whether anything behind the addresses is looked at. */
  get looksInside(): boolean {
    return this.bindsMacs || this.checksAddresses || this.dhcp || this.ra;
  }

  hasMac(macLo: number, macHi: number): boolean {
    const { macs } = this;
    const mask = (macs.length >> 1) - 1;
    const keyHi = macHi | 0x10000;
    for (let at = slotOf(macLo, macHi, this.macShift), probe = 0; probe <= mask; probe++) {
      if (macs[2 * at + 1] === 0) return false;
      if (macs[2 * at] === macLo && macs[2 * at + 1] === keyHi) return true;
      at = (at + 1) & mask;
    }
    return false;
  }

  hasIpv4(word: number): boolean {
    const { ipv4 } = this;
    for (let at = 0; at < ipv4.length; at += 2) {
      if ((word & ipv4[at + 1]) === ipv4[at]) return true;
    }
    return false;
  }

  hasIpv6(word0: number, word1: number, word2: number, word3: number): boolean {
    const { ipv6 } = this;
    for (let at = 0; at < ipv6.length; at += 8) {
      const difference =
        ((word0 & ipv6[at + 4]) ^ ipv6[at]) |
        ((word1 & ipv6[at + 5]) ^ ipv6[at + 1]) |
        ((word2 & ipv6[at + 6]) ^ ipv6[at + 2]) |
        ((word3 & ipv6[at + 7]) ^ ipv6[at + 3]);
      if (difference === 0) return true;
    }
    return false;
  }

  private fillMacs(macs: readonly (readonly number[])[]): void {
    const bits = 32 - Math.clz32(Math.max(1, 2 * macs.length - 1));
    const slots = 1 << bits;
    this.macShift = 32 - bits;
    this.macs = new Int32Array(2 * slots);
    for (const mac of macs) {
      const bytes = Uint8Array.from(mac);
      const [macLo, macHi] = [macLoOf(bytes), macHiOf(bytes)];
      if (this.hasMac(macLo, macHi)) continue;
      let at = slotOf(macLo, macHi, this.macShift);
      while (this.macs[2 * at + 1] !== 0) at = (at + 1) & (slots - 1);
      this.macs[2 * at] = macLo;
      this.macs[2 * at + 1] = macHi | 0x10000;
    }
  }
}

/** No secret is needed: what is in the table the operator chose, and a guest's own address is looked for in few steps. */
function slotOf(macLo: number, macHi: number, shift: number): number {
  return Math.imul(macLo ^ Math.imul(macHi, 0x85ebca6b), 0x9e3779b1) >>> shift;
}

function wordsOf(bytes: readonly number[]): number[] {
  return Array.from({ length: bytes.length >> 2 }, (_, i) => {
    const [a, b, c, d] = bytes.slice(4 * i);
    return (a << 24) | (b << 16) | (c << 8) | d;
  });
}

function maskWords(prefixBits: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => {
    const bits = Math.min(32, Math.max(0, prefixBits - 32 * i));
    return bits === 0 ? 0 : -1 << (32 - bits);
  });
}
