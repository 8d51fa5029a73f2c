/** Calls of Node's pool of threads that do not end until a test says so, as those that a peer holds up. */
import { vi } from 'vitest';
import { libc } from '../../src/host/libc.ts';

export type HeldCalls = {
  /** So many wait. */
  readonly count: number;
  /** Lets those that wait be done, and makes no further ones wait. */
  release(): void;
};

function hold(name: 'closeAsync' | 'mmapAsync', countMax: number): HeldCalls {
  const make = libc[name] as (...args: unknown[]) => void;
  const held: (() => void)[] = [];
  const spy = vi.spyOn(libc, name).mockImplementation((...args: unknown[]) => {
    if (held.length < countMax) held.push(() => make(...args));
    else make(...args);
  });
  return {
    get count() {
      return held.length;
    },
    release: () => {
      spy.mockRestore();
      for (const go of held.splice(0)) go();
    },
  };
}

/** The next closes; those after them are made. */
export function holdCloses(count: number): HeldCalls {
  return hold('closeAsync', count);
}

/** All unmappings of large parts. */
export function holdUnmappings(): HeldCalls {
  return hold('mmapAsync', Number.POSITIVE_INFINITY);
}
