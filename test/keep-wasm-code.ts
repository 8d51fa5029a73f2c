/** Tests start threads that strip types as often as a switch does in years, some of them without a switch. Loaded by Vitest before each file. */
import { keepWasmCode } from '../switch/wasm-code.ts';

keepWasmCode();
