/** libpcap's own interpreter of BPF programs, as the oracle of ours. */
import { bytesOfProgram, loadLibpcap } from '../../src/filter/libpcap.ts';
import { BPF_INSTRUCTIONS_MAX, type BpfProgram } from '../../src/filter/program.ts';
import { releaseAddressSpace, reserveAddressSpace, viewMemory } from '../../src/host/mapping.ts';

const PLACE_BYTES = 8 * BPF_INSTRUCTIONS_MAX;
/** struct pcap_pkthdr: a time, and what was captured and how long it was, 32 bits each. */
const HEADER_BYTES = 24;

export class Interpreter {
  readonly #pcap = loadLibpcap();
  readonly #address = reserveAddressSpace(PLACE_BYTES);
  readonly #place = new Uint8Array(viewMemory(this.#address, PLACE_BYTES));
  readonly #program = new Uint8Array(16);
  readonly #header = new Uint8Array(HEADER_BYTES);
  readonly #headerWords = new DataView(this.#header.buffer);

  load(program: BpfProgram): void {
    this.#place.set(bytesOfProgram(program));
    const words = new DataView(this.#program.buffer);
    words.setUint32(0, program.length, true);
    words.setBigUint64(8, BigInt(this.#address), true);
  }

  /** As a FrameFilter. */
  run(frame: Uint8Array, sizeBytes: number, frameBytes: number): number {
    this.#headerWords.setUint32(16, sizeBytes, true);
    this.#headerWords.setUint32(20, frameBytes, true);
    return this.#pcap.offlineFilter(this.#program, this.#header, frame) >>> 0;
  }

  /** Whether libpcap takes the program for a valid one. */
  takes(program: BpfProgram): boolean {
    return this.#pcap.validate(bytesOfProgram(program), program.length) !== 0;
  }

  close(): void {
    releaseAddressSpace(this.#address, PLACE_BYTES);
  }
}
