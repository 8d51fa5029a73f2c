/**
 * QEMU without a guest: its processor halts at its first instruction, and a program does what the guest would, by the
 * qtest protocol. QEMU's vhost-user front-end is the real one. The guest's memory is a file that this process maps too.
 * Owns: the QEMU process, its temporary folder, the memory file. Called by guest.ts, and by tests of migrations.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { EmbeddedMemory } from '../../../src/frontend/guest-memory.ts';
import { type Child, startChild, TextLog, temporaryFolder } from '../child.ts';
import { settlesWithin, withDeadline } from '../deadline.ts';
import { acceptOne, endOf } from '../qemu-process.ts';
import { QmpClient, type QmpEvent } from '../qmp.ts';
import { type NicOptions, nicArgs } from './nic.ts';
import { QtestClient } from './qtest-client.ts';

const START_TIMEOUT_MS = 60_000;
/** Firmware of 64 KiB ends where a processor begins: `cli; hlt; jmp` to itself. */
const FIRMWARE_BYTES = 1 << 16;
const HALT = [0xfa, 0xf4, 0xeb, 0xfd];
const RESET_VECTOR = 16;
/** Where the machine's interrupt lines end, by QEMU's name. */
const INTERRUPT_CONTROLLER = 'ioapic';

export type MachineOptions = {
  /** Shown in error messages. */
  readonly name: string;
  /** Default 128. */
  readonly memoryMiB?: number;
  /** Room for DIMMs. */
  readonly dimmSlots?: number;
  /** Cards that are there from the start. QEMU waits until the back-end of each answers. */
  readonly nics?: readonly NicOptions[];
  /** Waits for a guest that is migrated to it (`QtestGuest.migrateTo`). */
  readonly incoming?: boolean;
  /** More arguments. */
  readonly qemuArgs?: readonly string[];
};

type Parts = {
  readonly child: Child;
  readonly errors: TextLog;
  readonly folder: string;
  readonly exited: Promise<number | null>;
};

export class QtestMachine {
  readonly name: string;
  readonly options: MachineOptions;
  readonly pid: number;
  /** Exit code of QEMU, or null when a signal ended it. */
  readonly exited: Promise<number | null>;
  /** This machine's memory: guest-physical address 0 on. */
  readonly memory: EmbeddedMemory;
  readonly qtest: QtestClient;
  readonly #qmp: QmpClient;
  readonly #parts: Parts;

  private constructor(
    options: MachineOptions,
    memory: EmbeddedMemory,
    parts: Parts,
    qtest: QtestClient,
    qmp: QmpClient,
  ) {
    this.name = options.name;
    this.options = options;
    this.memory = memory;
    this.pid = parts.child.pid;
    this.exited = parts.exited;
    this.qtest = qtest;
    this.#qmp = qmp;
    this.#parts = parts;
  }

  /** Starts QEMU; resolves when it answers, which is when all back-ends have answered it. */
  static async start(options: MachineOptions): Promise<QtestMachine> {
    const memory = new EmbeddedMemory([{ sizeBytes: memoryBytesOf(options), gpa: 0 }]);
    const { path: folder, remove } = await temporaryFolder('ringway-qtest-');
    const [qtest, qmp] = await Promise.all(
      ['qtest', 'qmp'].map((name) => acceptOne(join(folder, `${name}.sock`))),
    );
    const cleanUp = async (): Promise<void> => {
      qtest.close();
      qmp.close();
      memory.close();
      await remove();
    };
    try {
      await writeFile(join(folder, 'firmware'), firmware());
      const child = await startChild('qemu-system-x86_64', qemuArguments(options, memory, folder));
      const errors = new TextLog(child.process.stderr);
      const parts = { child, errors, folder, exited: endOf(child, cleanUp) };
      const gone = parts.exited.then(() => {
        throw new Error(`QEMU of ${options.name} ended early, ${child.howItEnded()}: ${errors.text}`);
      });
      try {
        const sockets = Promise.all([qtest.connection, qmp.connection]);
        const late = (): string => `QEMU of ${options.name} does not come up: ${errors.text}`;
        const [qtestSocket, qmpSocket] = await withDeadline(
          Promise.race([sockets, gone]),
          START_TIMEOUT_MS,
          late,
        );
        const client = new QtestClient(qtestSocket);
        const machine = new QtestMachine(options, memory, parts, client, new QmpClient(qmpSocket));
        await withDeadline(Promise.race([machine.qmp('query-status'), gone]), START_TIMEOUT_MS, late);
        await client.interceptIrqs(INTERRUPT_CONTROLLER);
        gone.catch(() => {});
        return machine;
      } catch (error) {
        child.kill();
        await parts.exited;
        throw error;
      }
    } catch (error) {
      await cleanUp();
      throw error;
    }
  }

  get memoryBytes(): number {
    return this.memory.sizeBytes;
  }

  /** What QEMU wrote on its standard error (last 1 MiB). */
  get errors(): string {
    return this.#parts.errors.text;
  }

  /** For sockets of a test's own that go away with the machine. */
  get folder(): string {
    return this.#parts.folder;
  }

  /** Runs a QMP command; rejects with QEMU's description of an error. */
  async qmp(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    try {
      return await this.#qmp.execute(command, args);
    } catch (error) {
      throw new Error(`${this.name}: ${command}: ${(error as Error).message}\n${this.errors}`, {
        cause: error,
      });
    }
  }

  /** Cuts a card's connection to its back-end; QEMU notices as if that had gone. */
  async yank(nicId: string): Promise<void> {
    await this.qmp('yank', { instances: [{ type: 'chardev', id: `char-${nicId}` }] });
  }

  /** The next QMP event that `matches`. Call it before what causes the event. */
  event(matches: (event: QmpEvent) => boolean, timeoutMs?: number): Promise<QmpEvent> {
    return this.#qmp.waitForEvent(matches, timeoutMs);
  }

  /** Ends QEMU in an orderly way (its vhost-user devices are stopped first), by force after 10 s. */
  async stop(): Promise<void> {
    this.#parts.child.process.kill('SIGTERM');
    if (!(await settlesWithin(this.#parts.child.exited, 10_000))) this.kill();
    await this.exited;
  }

  /** Ends QEMU as a crash would. */
  kill(): void {
    this.#parts.child.kill();
  }
}

const memoryBytesOf = ({ memoryMiB = 128 }: MachineOptions): number => memoryMiB * 2 ** 20;

function firmware(): Uint8Array {
  const bytes = new Uint8Array(FIRMWARE_BYTES);
  bytes.set(HALT, FIRMWARE_BYTES - RESET_VECTOR);
  return bytes;
}

/** QMP's object for memory in a file that this process has open. */
export function memoryBackend(id: string, memory: EmbeddedMemory): Record<string, unknown> {
  const memPath = `/proc/${process.pid}/fd/${memory.fd}`;
  return { 'qom-type': 'memory-backend-file', id, size: memory.sizeBytes, 'mem-path': memPath, share: true };
}

function qemuArguments(options: MachineOptions, memory: EmbeddedMemory, folder: string): string[] {
  const { dimmSlots = 0, nics = [], incoming = false, qemuArgs = [] } = options;
  const more = dimmSlots === 0 ? '' : `,slots=${dimmSlots},maxmem=8G`;
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-accel', 'tcg'],
    ...['-machine', 'pc,memory-backend=ram', '-cpu', 'qemu64', '-bios', `${folder}/firmware`],
    ...['-m', `${memory.sizeBytes / 2 ** 20}${more}`],
    ...['-object', JSON.stringify(memoryBackend('ram', memory))],
    ...['-qtest', `unix:${folder}/qtest.sock`, '-qtest-log', 'none'],
    ...['-chardev', `socket,id=qmp,path=${folder}/qmp.sock`, '-mon', 'chardev=qmp,mode=control'],
    ...nics.flatMap(nicArgs),
    ...(incoming ? ['-incoming', 'defer'] : []),
    ...qemuArgs,
  ];
}
