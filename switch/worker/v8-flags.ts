/**
 * How V8 treats the workers' program. For the whole process, so before the first worker starts; what does not run in
 * a worker is too short-lived to notice.
 */
import { setFlagsFromString } from 'node:v8';
import { keepWasmCode } from '../wasm-code.ts';

/**
 * Room for what a worker's program makes while V8 still compiles it; in steady state it makes nothing. With
 * V8's own 1 MiB to begin with, the first frames of a load would cost a collection of a millisecond or two.
 */
const SEMI_SPACE_MIB = 4;

/**
 * Bytes of bytecode that may be put into a caller: of one function with all that was put into it before, and of all
 * together. With V8's own 460 and 920 it hangs on which of two threads compiles first whether writing a frame becomes
 * part of the loop that places frames (40 or 45 ns a frame whose tag is taken off, by process); with these it always
 * does, and frames in two pieces, of several flows and in packed rings win 2 to 8 %.
 */
const INLINED_BYTES = 2000;
const INLINED_BYTES_TOGETHER = 4000;

export function setWorkerFlags(): void {
  keepWasmCode();
  setFlagsFromString(`--min-semi-space-size=${SEMI_SPACE_MIB}`);
  setFlagsFromString(`--max-inlined-bytecode-size=${INLINED_BYTES}`);
  setFlagsFromString(`--max-inlined-bytecode-size-cumulative=${INLINED_BYTES_TOGETHER}`);
}
