/**
 * Shared libraries other than libc, for bindings that live outside this folder: opened when somebody asks, never
 * at start. Addresses and sizes cross as numbers (`intptr_t`, `size_t`). Any thread; what is opened in a thread
 * stays loaded until the process ends.
 */
import './node-version.ts';
import koffi from 'koffi';

/** Kept for ever: code of an unloaded library could still be called by threads that it started. */
const opened = new Map<string, SharedLibrary>();

export class SharedLibrary {
  readonly name: string;
  readonly #library: ReturnType<typeof koffi.load>;

  private constructor(name: string) {
    this.name = name;
    this.#library = koffi.load(name, { global: true });
  }

  /** By soname, looked for where the system looks, or by path. @throws Error with the loader's message */
  static open(name: string): SharedLibrary {
    const known = opened.get(name);
    if (known !== undefined) return known;
    const library = new SharedLibrary(name);
    opened.set(name, library);
    return library;
  }

  /** Declares a function in C's words; `F` says the same in TypeScript's. @throws Error when it is not exported */
  func<F extends (...args: never[]) => unknown>(declaration: string): F {
    return this.#library.func(declaration) as unknown as F;
  }

  /** Address of an exported function or variable. @throws Error when it is not exported */
  addressOf(symbol: string): number {
    return Number(this.#library.symbol(symbol));
  }
}

/** The function at an address; `declaration` as in C, its name a mere label. */
export function functionAt<F extends (...args: never[]) => unknown>(address: number, declaration: string): F {
  return koffi.decode(BigInt(address), protoOf(declaration)) as F;
}

const protos = new Map<string, ReturnType<typeof koffi.proto>>();

/** A type has its name once in a thread. */
function protoOf(declaration: string): ReturnType<typeof koffi.proto> {
  let proto = protos.get(declaration);
  if (proto === undefined) {
    proto = koffi.proto(declaration);
    protos.set(declaration, proto);
  }
  return proto;
}
