/**
 * The guest's side of PCI on bus 0 of QEMU's `pc` machine (PCI Local Bus 3.0, chapter 6): configuration space by the
 * ports 0xcf8 and 0xcfc, base addresses, capabilities, and which interrupt lines the cards are wired to. What firmware
 * does otherwise. Owns nothing but the addresses that it has given away.
 */
import type { QtestClient } from './qtest-client.ts';

/** The machine that the guest is on now; another one after a migration. */
export interface PciHost {
  readonly qtest: QtestClient;
}

const ADDRESS_PORT = 0xcf8;
const DATA_PORT = 0xcfc;
const ENABLE = 0x8000_0000;

const VENDOR = 0x00;
const COMMAND = 0x04;
const COMMAND_MEMORY = 2;
const COMMAND_BUS_MASTER = 4;
const BAR0 = 0x10;
const BARS = 6;
const BAR_IS_IO = 1;
const BAR_IS_64_BITS = 4;
const CAPABILITIES = 0x34;
const NO_CARD = 0xffff_ffff;

/** Between a guest's memory and its interrupt controllers; each slot has a part of it. */
const WINDOW_GPA = 0xe000_0000;
const WINDOW_BYTES_PER_SLOT = 0x10_0000;
export const SLOTS = 32;

/** The PIIX3 bridge, and which interrupt each of its four inputs goes to. */
const BRIDGE_SLOT = 1;
const ROUTES = 0x60;
const ROUTED_IRQS = [10, 10, 11, 11];

export type Capability = { readonly id: number; readonly at: number };

export class PciCard {
  readonly slot: number;
  readonly vendor: number;
  readonly device: number;
  /** Guest-physical address of each memory BAR, once `enable` has given one; by the BAR's number. */
  readonly barGpas: number[] = [];
  readonly host: PciHost;

  private constructor(host: PciHost, slot: number, identity: number) {
    this.host = host;
    this.slot = slot;
    this.vendor = identity & 0xffff;
    this.device = identity >>> 16;
  }

  /** The card in that slot, or null. */
  static async at(host: PciHost, slot: number): Promise<PciCard | null> {
    const identity = await readConfig(host, slot, VENDOR);
    return identity === NO_CARD ? null : new PciCard(host, slot, identity);
  }

  /** The configuration space's word at a multiple of four. */
  word(at: number): Promise<number> {
    return readConfig(this.host, this.slot, at);
  }

  /** Gives each memory BAR a place, and lets the card answer there and reach memory. */
  async enable(): Promise<void> {
    let nextGpa = WINDOW_GPA + this.slot * WINDOW_BYTES_PER_SLOT;
    for (let bar = 0; bar < BARS; bar++) {
      const at = BAR0 + 4 * bar;
      await writeConfig(this.host, this.slot, at, 0xffff_ffff);
      const mask = await this.word(at);
      if (mask === 0 || (mask & BAR_IS_IO) !== 0) continue;
      const sizeBytes = (~(mask & ~0xf) >>> 0) + 1;
      const gpa = Math.ceil(nextGpa / sizeBytes) * sizeBytes;
      nextGpa = gpa + sizeBytes;
      await writeConfig(this.host, this.slot, at, gpa);
      this.barGpas[bar] = gpa;
      if ((mask & BAR_IS_64_BITS) === 0) continue;
      await writeConfig(this.host, this.slot, at + 4, 0);
      bar++;
    }
    await writeConfig(this.host, this.slot, COMMAND, COMMAND_MEMORY | COMMAND_BUS_MASTER);
  }

  /** Has the card answer elsewhere with that memory BAR of 32 bits, from one access to the next. */
  async moveBar(bar: number, gpa: number): Promise<void> {
    await writeConfig(this.host, this.slot, BAR0 + 4 * bar, gpa);
    this.barGpas[bar] = gpa;
  }

  async capabilities(): Promise<Capability[]> {
    const found: Capability[] = [];
    let at = (await this.word(CAPABILITIES)) & 0xfc;
    while (at !== 0 && found.length < 64) {
      const word = await this.word(at);
      found.push({ id: word & 0xff, at });
      at = (word >>> 8) & 0xfc;
    }
    return found;
  }
}

/** Connects the cards' interrupts, which go nowhere after a reset. */
export async function routeInterrupts(host: PciHost): Promise<void> {
  const routes = ROUTED_IRQS.reduceRight((word, irq) => (word << 8) | irq, 0);
  await writeConfig(host, BRIDGE_SLOT, ROUTES, routes);
}

/** The two accesses of each are asked for in one go, so that no other comes between them. */
async function readConfig({ qtest }: PciHost, slot: number, at: number): Promise<number> {
  const addressed = qtest.out(ADDRESS_PORT, 4, addressOf(slot, at));
  const read = qtest.in(DATA_PORT, 4);
  await addressed;
  return (await read) >>> 0;
}

async function writeConfig({ qtest }: PciHost, slot: number, at: number, value: number): Promise<void> {
  const addressed = qtest.out(ADDRESS_PORT, 4, addressOf(slot, at));
  const written = qtest.out(DATA_PORT, 4, value);
  await addressed;
  await written;
}

const addressOf = (slot: number, at: number): number => (ENABLE | (slot << 11) | at) >>> 0;
