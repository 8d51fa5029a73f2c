/**
 * DPDK's environment (EAL): begun once in a process, when the first device is asked for, and never ended. Adds
 * and removes devices while the process runs. What EAL and drivers log goes to a memory file; it becomes part of the
 * error when a call fails. Main thread only.
 */

import { existsSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { threadId } from 'node:worker_threads';
import { allowedCpus } from '../host/affinity.ts';
import { errnoText } from '../host/errors.ts';
import { reserveAddressSpace, viewMemory } from '../host/mapping.ts';
import { OutputCapture } from '../host/output-capture.ts';
import { printable } from '../host/printable.ts';
import { type DeviceName, parseDevice } from './device.ts';
import { type Dpdk, DpdkError, loadDpdk } from './library.ts';

export type EalOptions = {
  /** EAL's own options, which replace those that are chosen here. */
  readonly arguments?: readonly string[];
  /** `auto`: hugepages where enough are free. EAL needs few: frames lie elsewhere. */
  readonly hugepages?: 'auto' | 'never';
};

/** Hugepages free for EAL to be worth using them. */
const HUGE_FREE_BYTES_MIN = 64 * 2 ** 20;
/** Addresses for DPDK's own structures without hugepages; memory only as far as it is used. */
const PLAIN_MEMORY_MIB = 512;
/** Allowed instead of all: no PCI device is at this address, so that EAL takes none by itself. */
const NO_PCI_DEVICE = 'ffff:ff:1f.7';
const EEXIST = 17;
const EAL_LINES_MAX = 4;

let running: Eal | null = null;
let failure: DpdkError | null = null;

export class Eal {
  readonly dpdk: Dpdk;
  /** `DPDK 22.11.11`. */
  readonly version: string;
  readonly usesHugepages: boolean;
  /** As EAL was given them, without the program's name. */
  readonly arguments: readonly string[];
  readonly #capture: OutputCapture;
  readonly #devices = new Map<string, DeviceName>();

  private constructor(dpdk: Dpdk, args: readonly string[], capture: OutputCapture) {
    this.dpdk = dpdk;
    this.version = dpdk.functions.version();
    this.arguments = args;
    this.usesHugepages = !args.includes('--no-huge');
    this.#capture = capture;
  }

  /** The running EAL; null before the first `start`. */
  static get current(): Eal | null {
    return running;
  }

  /**
   * Begins EAL, or answers the one that runs, whose options stay as they are.
   * @throws DpdkError when DPDK is missing, or with EAL's own words; EAL is not tried twice in a process
   */
  static start(options: EalOptions = {}): Eal {
    if (running !== null) return running;
    if (failure !== null) throw failure;
    if (threadId !== 0) throw new DpdkError('EAL is started by the main thread', false);
    const dpdk = loadDpdk();
    const args = ealArguments(options);
    const capture = new OutputCapture('ringway-dpdk-log');
    dpdk.functions.openLogStream(capture.stream);
    const argv = argumentVector(['ringway', ...args]);
    // What is wrong with its options EAL writes to the outputs instead of its log.
    const result = capture.during(() => dpdk.functions.ealInit(args.length + 1, argv));
    if (result < 0) {
      failure = new DpdkError(
        `DPDK's EAL does not start with ${args.join(' ')}: ${wordsOf(capture.take())}; it can be tried again after a restart`,
        false,
      );
      throw failure;
    }
    capture.take();
    process.once('exit', () => removeRuntimeFolder(args));
    running = new Eal(dpdk, args, capture);
    return running;
  }

  /** Adds the device and answers the number of its (first) Ethernet port. @throws DpdkError */
  addDevice(text: string): { readonly device: DeviceName; readonly portId: number } {
    const device = parseDevice(text);
    if (this.#devices.has(device.name)) throw new DpdkError(`${device.name} is in use by another port`);
    this.takeLog();
    const result = this.dpdk.functions.devProbe(device.devargs);
    if (result < 0 && result !== -EEXIST) throw this.errorOf(`${device.devargs} cannot be used`, result);
    const port = new Uint16Array(1);
    const found = this.dpdk.functions.ethPortByName(device.name, port);
    if (found < 0) throw this.errorOf(`${device.name} is no Ethernet device, or has no driver here`, found);
    this.#devices.set(device.name, device);
    return { device, portId: port[0] };
  }

  /** Lets the device go, after its ports were closed. `handle` is its struct rte_device. */
  removeDevice(device: DeviceName, handle: number): void {
    this.#devices.delete(device.name);
    this.dpdk.functions.devRemove(handle);
    this.takeLog();
  }

  /** What EAL and drivers logged since the last call. */
  takeLog(): string {
    return this.#capture.take();
  }

  /** `what`, with what was logged about it, or what the result says. */
  errorOf(what: string, result: number): DpdkError {
    const words = wordsOf(this.takeLog());
    return new DpdkError(`${what}: ${words === '' ? errnoText(-result) : words}`);
  }
}

/** EAL's options: the caller's, and ours where the caller has none of that kind. */
export function ealArguments({ arguments: given = [], hugepages = 'auto' }: EalOptions): string[] {
  const has = (...names: readonly string[]): boolean =>
    given.some((each) => names.includes(each.split('=')[0]) || names.includes(each.slice(0, 2)));
  const args: string[] = [];
  // One lcore that may run on all processors: EAL would pin the main thread otherwise.
  if (!has('-l', '-c', '--lcores')) args.push(`--lcores=0@(${allowedCpus().join(',')})`);
  if (!has('--no-telemetry', '--telemetry')) args.push('--no-telemetry');
  if (!has('--file-prefix')) args.push(`--file-prefix=ringway-${process.pid}`);
  // Guests' memory is known by its addresses in this process only.
  if (!has('--iova-mode')) args.push('--iova-mode=va');
  if (!has('-a', '-b', '--allow', '--block', '--no-pci')) {
    args.push(...(existsSync('/sys/bus/pci/devices') ? ['-a', NO_PCI_DEVICE] : ['--no-pci']));
  }
  const noHuge = has('--no-huge') || hugepages === 'never' || freeHugepageBytes() < HUGE_FREE_BYTES_MIN;
  // Nothing is shared with other processes, so no files; each of the two goes with one kind of memory only.
  if (!has('--in-memory', '--no-shconf', '--huge-dir', '--proc-type')) {
    args.push(noHuge ? '--no-shconf' : '--in-memory');
  }
  if (noHuge && !has('--no-huge', '--huge-dir', '--socket-mem')) args.push('--no-huge');
  if (noHuge && !has('-m')) args.push('-m', String(PLAIN_MEMORY_MIB));
  return [...args, ...given];
}

/** EAL makes a folder for its files even when it has none; it stays empty. */
function removeRuntimeFolder(args: readonly string[]): void {
  const prefix = args.find((each) => each.startsWith('--file-prefix='))?.split('=')[1];
  if (prefix === undefined) return;
  const parents = [process.env.RUNTIME_DIRECTORY, '/var/run', process.env.XDG_RUNTIME_DIR, '/tmp'];
  for (const parent of parents.filter((each) => each !== undefined)) {
    try {
      rmdirSync(`${parent}/dpdk/${prefix}`);
    } catch {
      // Not there, or not ours to remove.
    }
  }
}

function freeHugepageBytes(): number {
  const folder = '/sys/kernel/mm/hugepages';
  if (!existsSync(folder)) return 0;
  return readdirSync(folder).reduce((sum, name) => {
    const pageKib = Number(/hugepages-(\d+)kB/.exec(name)?.[1] ?? 0);
    return sum + 1024 * pageKib * Number(readFileSync(`${folder}/${name}/free_hugepages`, 'utf8'));
  }, 0);
}

/** Address of a char *argv[] with a null at its end; the page stays for ever, as a C program's arguments do. */
function argumentVector(args: readonly string[]): number {
  const texts = args.map((text) => Buffer.from(`${text}\0`));
  const tableBytes = 8 * (args.length + 1);
  const sizeBytes = texts.reduce((sum, text) => sum + text.length, tableBytes);
  const address = reserveAddressSpace(sizeBytes);
  const view = viewMemory(address, sizeBytes);
  const table = new BigUint64Array(view, 0, args.length);
  let at = tableBytes;
  for (const [i, text] of texts.entries()) {
    table[i] = BigInt(address + at);
    new Uint8Array(view).set(text, at);
    at += text.length;
  }
  return address;
}

/** The lines that say what is wrong, without EAL's usual greetings. */
export function wordsOf(log: string): string {
  const lines = log
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !GREETINGS.test(line));
  // As DPDK begins what it logs; libraries below it write otherwise.
  const own = lines.filter((line) => LOG_LINE.test(line));
  return [...new Set(own.length > 0 ? own : lines)].slice(0, EAL_LINES_MAX).map(printable).join('; ');
}

const GREETINGS =
  /^(EAL: (Detected|Multi-process|Selected IOVA|VFIO support|No free|Probe PCI|Failed to attach device on primary|Driver cannot attach)|TELEMETRY: |Usage:|EAL common)/;
const LOG_LINE = /^\w+(\(\))?: /;
