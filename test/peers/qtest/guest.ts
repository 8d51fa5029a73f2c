/**
 * A guest without an operating system: this process plays its firmware and its drivers on a QEMU of its own (machine.ts).
 * It outlives resets and moves from one machine to another by migration; rings and buffers stay where they are then.
 * Owns: the machine it is on, its drivers, its DIMMs, and a mapping of its memory.
 */
import { join } from 'node:path';
import { EmbeddedMemory, type MemoryPart } from '../../../src/frontend/guest-memory.ts';
import { duplicateFd } from '../../../src/host/descriptor.ts';
import { ejectCard, ejectMemory } from './acpi-hotplug.ts';
import { Interrupts } from './interrupts.ts';
import { type MachineOptions, memoryBackend, QtestMachine } from './machine.ts';
import { NetDriver } from './net-driver.ts';
import { type NicOptions, plugCommands, removeCommand } from './nic.ts';
import { PciCard, type PciHost, routeInterrupts } from './pci.ts';
import type { QtestClient } from './qtest-client.ts';
import { typeOf, VIRTIO_TYPE, VirtioPci } from './virtio-pci.ts';

/** Below it lies what a PC's firmware and devices have. */
const LOW_MEMORY_BYTES = 2 ** 21;
/** Of each card's driver; enough for four pairs of rings with 256 buffers of up to 4 KiB. */
const DRIVER_MEMORY_BYTES = 12 * 2 ** 20;
/** Each buffer has pages of its own, so that a page tells who wrote it. */
const BUFFER_ALIGN_BYTES = 4096;
/** Where QEMU has DIMMs on a machine with less than 3 GiB, in steps that suit any of them. */
const DIMM_GPA = 2 ** 32;
const DIMM_STEP_BYTES = 2 ** 30;
const MIGRATION_TIMEOUT_MS = 120_000;

export type MigrationOptions = {
  /** Until the guest stands still, and then until it is over there; default 120 s each. */
  readonly timeoutMs?: number;
  /** Called when the guest stands still and QEMU is yet to look for what was written last. */
  readonly beforeSwitch?: () => Promise<void>;
  /** QEMU was told of the drivers' pages before (`markDriverPages`), and they have written nothing since. */
  readonly isMarked?: boolean;
  /** The target was started with -S. Called when both machines stand still, with the one that is left; then it goes on. */
  readonly whileHeld?: (source: QtestMachine) => Promise<void>;
};

export type Dimm = { readonly id: string; readonly slot: number; readonly memory: EmbeddedMemory };

export class QtestGuest implements PciHost {
  /** Another one after a migration. */
  machine: QtestMachine;
  /** As the guest sees it, on whatever machine it is. */
  readonly memory: EmbeddedMemory;
  readonly #interrupts = new Interrupts();
  readonly #nics = new Map<string, NicOptions>();
  readonly #drivers = new Map<string, NetDriver>();
  /** By slot: a card that comes back has what the one before had. */
  readonly #driverMemory = new Map<number, MemoryPart>();
  readonly #dimms = new Map<string, Dimm>();

  private constructor(machine: QtestMachine) {
    this.machine = machine;
    this.memory = new EmbeddedMemory([{ sizeBytes: machine.memoryBytes, gpa: 0 }], () =>
      duplicateFd(machine.memory.fd),
    );
    this.memory.allocate(LOW_MEMORY_BYTES);
    this.#interrupts.attach(machine.qtest);
    for (const nic of machine.options.nics ?? []) this.#nics.set(nic.id, nic);
  }

  /** Starts a machine and does what firmware does. The drivers (`nic`) are there, their devices not in use yet. */
  static async start(options: MachineOptions): Promise<QtestGuest> {
    const guest = new QtestGuest(await QtestMachine.start(options));
    try {
      await guest.#bringUp();
      return guest;
    } catch (error) {
      guest.machine.kill();
      await guest.close();
      throw error;
    }
  }

  get qtest(): QtestClient {
    return this.machine.qtest;
  }

  /** The driver of that card. */
  nic(id: string): NetDriver {
    const driver = this.#drivers.get(id);
    if (driver === undefined) throw new Error(`${this.machine.name} has no card ${id}`);
    return driver;
  }

  /** Resets the machine as its reset button does. Devices are out of use afterwards; memory stays. */
  async systemReset(): Promise<void> {
    const reset = this.machine.event(({ event }) => event === 'RESET');
    await this.machine.qmp('system_reset');
    await reset;
    for (const driver of this.#drivers.values()) driver.forget('the machine was reset');
    await this.#bringUp();
  }

  /** Stops the machine as for a snapshot: QEMU takes the rings back from the back-end. */
  async pause(): Promise<void> {
    await this.machine.qmp('stop');
  }

  async resume(): Promise<void> {
    await this.machine.qmp('cont');
  }

  /** Plugs a card in while the machine runs; answers its driver. */
  async plugNic(options: NicOptions): Promise<NetDriver> {
    for (const [command, args] of plugCommands(options)) await this.machine.qmp(command, args);
    this.#nics.set(options.id, options);
    await this.#findNic(options);
    return this.nic(options.id);
  }

  /** Takes a card out, with the guest's consent; what it had in flight is lost. */
  async unplugNic(id: string): Promise<void> {
    const options = this.#nics.get(id);
    if (options === undefined) throw new Error(`${this.machine.name} has no card ${id}`);
    await this.#unplug(id, () => ejectCard(this.qtest, options.slot));
    this.#drivers.get(id)?.forget(`${id} was unplugged`);
    this.#drivers.delete(id);
    this.#nics.delete(id);
    await this.machine.qmp(...removeCommand(options));
  }

  /** Plugs any other virtio device in, by QEMU's name and properties; answers it. */
  async plugDevice(slot: number, properties: Readonly<Record<string, unknown>>): Promise<VirtioPci> {
    await this.machine.qmp('device_add', { ...properties, addr: `0x${slot.toString(16)}` });
    const card = await PciCard.at(this, slot);
    if (card === null) throw new Error(`no device in slot ${slot}`);
    return VirtioPci.open(card);
  }

  /** Plugs memory in; it may be used at once, by drivers too (`memory.part`). Up to 1 GiB, in whole 128 MiB. */
  async plugDimm(id: string, sizeMiB: number): Promise<Dimm> {
    const used = new Set([...this.#dimms.values()].map(({ slot }) => slot));
    let slot = 0;
    while (used.has(slot)) slot++;
    const gpa = DIMM_GPA + slot * DIMM_STEP_BYTES;
    const memory = new EmbeddedMemory([{ sizeBytes: sizeMiB * 2 ** 20, gpa }]);
    await this.machine.qmp('object-add', memoryBackend(`mem-${id}`, memory));
    await this.machine.qmp('device_add', { driver: 'pc-dimm', id, memdev: `mem-${id}`, slot, addr: gpa });
    const dimm = { id, slot, memory };
    this.#dimms.set(id, dimm);
    return dimm;
  }

  /** Takes memory out, with the guest's consent. No driver may use it. */
  async unplugDimm(id: string): Promise<void> {
    const dimm = this.#dimms.get(id);
    if (dimm === undefined) throw new Error(`${this.machine.name} has no DIMM ${id}`);
    await this.#unplug(id, () => ejectMemory(this.qtest, dimm.slot));
    await this.machine.qmp('object-del', { id: `mem-${id}` });
    this.#dimms.delete(id);
    dimm.memory.close();
  }

  /**
   * Migrates to a machine that was started with `incoming`, of the same memory and cards, where the guest goes on with its
   * drivers as they are; they have no queues (`pairs`) while it stands still. The machine that it leaves stays, paused, with its memory as it was; end it with `stop`.
   * QEMU does not see what drivers write to memory directly, so it is told of their pages when the guest stands still;
   * what the device writes is for its back-end to tell.
   */
  async migrateTo(target: QtestMachine, options: MigrationOptions = {}): Promise<QtestMachine> {
    const source = this.machine;
    const { timeoutMs = MIGRATION_TIMEOUT_MS } = options;
    const uri = `unix:${join(target.folder, 'migration.sock')}`;
    const capabilities = ['events', 'pause-before-switchover'].map((capability) => ({
      capability,
      state: true,
    }));
    for (const machine of [source, target]) await machine.qmp('migrate-set-capabilities', { capabilities });
    await target.qmp('migrate-incoming', { uri });
    const resumed = target.event(({ event }) => event === 'RESUME', timeoutMs);
    resumed.catch(() => {});
    const atSwitch = migrationStatus(source, ['pre-switchover', 'failed'], timeoutMs);
    await source.qmp('migrate', { uri });
    if ((await atSwitch) === 'failed') throw await migrationFailure(source);
    const completed = migrationStatus(source, ['completed', 'failed'], timeoutMs);
    // The source has sent all by then, and the target may still be reading it.
    const arrived = migrationStatus(target, ['completed', 'failed'], timeoutMs);
    arrived.catch(() => {});
    for (const driver of this.#drivers.values()) driver.isFrozen = true;
    try {
      if (options.isMarked !== true) await this.markDriverPages();
      await options.beforeSwitch?.();
      await source.qmp('migrate-continue', { state: 'pre-switchover' });
      if ((await completed) === 'failed') throw await migrationFailure(source);
      if (options.whileHeld !== undefined) {
        await arrived;
        await options.whileHeld(source);
        await target.qmp('cont');
      }
      await resumed;
      this.memory.moveInto(target.memory);
      this.machine = target;
      this.#interrupts.attach(target.qtest);
    } finally {
      for (const driver of this.#drivers.values()) driver.thaw();
    }
    return source;
  }

  /** Tells QEMU of the pages that drivers write. */
  async markDriverPages(): Promise<void> {
    for (const driver of this.#drivers.values()) {
      await Promise.all(driver.driverPageGpas().map((gpa) => this.qtest.store(gpa, 1, this.memory.u8[gpa])));
    }
  }

  /** Ends the machine that the guest is on, and gives all memory back. */
  async close(): Promise<void> {
    await this.machine.stop();
    this.#interrupts.clear();
    for (const driver of this.#drivers.values()) driver.forget(`${this.machine.name} was closed`);
    for (const { memory } of this.#dimms.values()) memory.close();
    this.memory.close();
  }

  async #unplug(id: string, eject: () => Promise<void>): Promise<void> {
    const gone = this.machine.event(({ event, data }) => event === 'DEVICE_DELETED' && data.device === id);
    await this.machine.qmp('device_del', { id });
    await eject();
    await gone;
  }

  async #bringUp(): Promise<void> {
    await routeInterrupts(this);
    for (const options of this.#nics.values()) await this.#findNic(options);
  }

  async #findNic({ id, slot }: NicOptions): Promise<void> {
    const card = await PciCard.at(this, slot);
    if (card === null || typeOf(card) !== VIRTIO_TYPE.net) throw new Error(`no network card in slot ${slot}`);
    let memory = this.#driverMemory.get(slot);
    if (memory === undefined) {
      memory = this.memory.part(DRIVER_MEMORY_BYTES, BUFFER_ALIGN_BYTES);
      this.#driverMemory.set(slot, memory);
    }
    const device = await VirtioPci.open(card);
    const known = this.#drivers.get(id);
    if (known === undefined) this.#drivers.set(id, new NetDriver(id, device, memory, this.#interrupts));
    else known.device = device;
  }
}

/** The first of those states that the migration comes to. */
async function migrationStatus(
  machine: QtestMachine,
  states: readonly string[],
  timeoutMs: number,
): Promise<string> {
  const { data } = await machine.event(
    ({ event, data }) => event === 'MIGRATION' && states.includes(data.status as string),
    timeoutMs,
  );
  return data.status as string;
}

async function migrationFailure(machine: QtestMachine): Promise<Error> {
  const result = (await machine.qmp('query-migrate')) as Record<string, unknown>;
  return new Error(`${machine.name}: the migration failed: ${JSON.stringify(result)}\n${machine.errors}`);
}
