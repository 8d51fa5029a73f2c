/** WebAssembly in this process: Node's own, by which types are stripped from plugins and, in a checkout, from Ringway. */
import { setFlagsFromString } from 'node:v8';

/**
 * V8 does not look for code that is not used any more. Where threads come and go it ends the whole process now and then while it
 * frees such code, by a check of its own (Node 24, V8 13: "end > addr" in ThreadIsolation; seen twice in a
 * day of test runs), and it is little. Before threads are started.
 */
export function keepWasmCode(): void {
  setFlagsFromString('--no-wasm-code-gc');
}
