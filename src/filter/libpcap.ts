/**
 * Filter expressions (pcap-filter(7)) to BPF programs, by libpcap itself and without a device. Called where a person
 * writes an expression: the command `ringway capture` and extcap. The switch takes programs, not text: names in an expression are asked
 * of DNS, which may take long. Also its interpreter, which tests compare with. Any thread; the library is loaded at the
 * first call.
 */

import { viewMemory } from '../host/mapping.ts';
import { SharedLibrary } from '../host/shared-library.ts';
import {
  BPF_ABS,
  BPF_JA,
  BPF_JMP,
  BPF_LD,
  type BpfInstruction,
  type BpfProgram,
  checkProgram,
  FilterError,
} from './program.ts';

/** Debian's name, for ABI reasons of its own, and everybody else's. */
const SONAMES = ['libpcap.so.0.8', 'libpcap.so.1', 'libpcap.so'];
const INSTALL = 'filter expressions need libpcap, which is not here: apt install libpcap0.8';
const LINK_TYPE_ETHERNET = 1;
/** Bytes of a packet that its program says are wanted; so many that it is all. */
const SNAP_BYTES = 262_144;
/** struct bpf_program: the count in 32 bits, then the address of the instructions. */
const PROGRAM_BYTES = 16;
const INSTRUCTION_BYTES = 8;
/** From here on Linux answers loads with what it knows of a packet. */
const KERNEL_OFFSETS = 0xffff_f000;
/** No expression about broadcast addresses of IPv4 is possible then, and any is refused in words. */
const NETMASK_UNKNOWN = 0xffff_ffff;

type Libpcap = ReturnType<typeof declare>;

let loaded: Libpcap | null = null;

function declare(library: SharedLibrary) {
  return {
    openDead: library.func<(linkType: number, snapBytes: number) => number>(
      'intptr_t pcap_open_dead(int linkType, int snapBytes)',
    ),
    close: library.func<(handle: number) => void>('void pcap_close(intptr_t handle)'),
    compile: library.func<
      (handle: number, program: Uint8Array, expression: string, optimize: number, netmask: number) => number
    >(
      'int pcap_compile(intptr_t handle, void *program, const char *expression, int optimize, uint32_t netmask)',
    ),
    freeCode: library.func<(program: Uint8Array) => void>('void pcap_freecode(void *program)'),
    errorText: library.func<(handle: number) => string>('const char *pcap_geterr(intptr_t handle)'),
    offlineFilter: library.func<(program: Uint8Array, header: Uint8Array, packet: Uint8Array) => number>(
      'int pcap_offline_filter(void *program, void *header, void *packet)',
    ),
    validate: library.func<(instructions: Uint8Array, count: number) => number>(
      'int bpf_validate(void *instructions, int count)',
    ),
  };
}

/** @throws FilterError when it is not installed, with what to install */
export function loadLibpcap(sonames: readonly string[] = SONAMES): Libpcap {
  if (loaded !== null && sonames === SONAMES) return loaded;
  for (const name of sonames) {
    let library: SharedLibrary;
    try {
      library = SharedLibrary.open(name);
    } catch (error) {
      const { message } = error as Error;
      if (message.includes('No such file')) continue;
      throw new FilterError(`${name} cannot be loaded: ${message}`);
    }
    loaded = declare(library);
    return loaded;
  }
  throw new FilterError(INSTALL);
}

/**
 * The program of an expression, for frames of Ethernet as a capture shows them, with their VLAN tags. An empty expression
 * wants all. @throws FilterError with libpcap's words
 */
export function compileExpression(expression: string): BpfProgram {
  if (expression.includes('\0')) throw new FilterError('the filter expression has a character of no width');
  const pcap = loadLibpcap();
  const handle = pcap.openDead(LINK_TYPE_ETHERNET, SNAP_BYTES);
  if (handle === 0) throw new FilterError('libpcap has no memory for a filter');
  try {
    const compiled = new Uint8Array(PROGRAM_BYTES);
    if (pcap.compile(handle, compiled, expression, 1, NETMASK_UNKNOWN) !== 0)
      throw new FilterError(`the filter expression is not valid: ${pcap.errorText(handle)}`);
    try {
      const program = instructionsOf(compiled);
      refuseUnmeant(program);
      checkProgram(program);
      return program;
    } finally {
      pcap.freeCode(compiled);
    }
  } finally {
    pcap.close(handle);
  }
}

/** @throws FilterError for what libpcap compiles although it means nothing here, or would not end */
function refuseUnmeant(program: BpfProgram): void {
  if (program.some(({ code, k }) => code === (BPF_JMP | BPF_JA) && k >= 2 ** 31))
    throw new FilterError('the filter expression loops over headers (protochain), which is not supported');
  if (program.some(({ code, k }) => (code & 0xe7) === (BPF_LD | BPF_ABS) && k >= KERNEL_OFFSETS))
    throw new FilterError(
      'the filter expression asks for what no frame says (inbound, outbound, ifindex): the direction is chosen besides',
    );
}

function instructionsOf(compiled: Uint8Array): BpfProgram {
  const header = new DataView(compiled.buffer);
  const count = header.getUint32(0, true);
  const address = Number(header.getBigUint64(8, true));
  if (count === 0) return [];
  // A copy: libpcap's own goes with `freeCode`.
  const words = new DataView(viewMemory(address, count * INSTRUCTION_BYTES).slice(0));
  return Array.from({ length: count }, (_, i): BpfInstruction => {
    const at = i * INSTRUCTION_BYTES;
    return {
      code: words.getUint16(at, true),
      jt: words.getUint8(at + 2),
      jf: words.getUint8(at + 3),
      k: words.getUint32(at + 4, true),
    };
  });
}

/** As libpcap has it in memory. */
export function bytesOfProgram(program: BpfProgram): Uint8Array {
  const bytes = new Uint8Array(program.length * INSTRUCTION_BYTES);
  const words = new DataView(bytes.buffer);
  for (const [i, { code, jt, jf, k }] of program.entries()) {
    const at = i * INSTRUCTION_BYTES;
    words.setUint16(at, code, true);
    words.setUint8(at + 2, jt);
    words.setUint8(at + 3, jf);
    words.setUint32(at + 4, k, true);
  }
  return bytes;
}
