/** What the doctor looks at outside of Ringway, behind an interface, so that tests show it other machines. */
import { readdirSync, readFileSync, statSync } from 'node:fs';

export type FileFacts = {
  readonly uid: number;
  readonly gid: number;
  /** Permission bits. */
  readonly mode: number;
};

export type Host = {
  /** Null: it is not there, or may not be read. */
  read(path: string): string | null;
  /** Names in a folder; none where it is not there. */
  list(path: string): readonly string[];
  stat(path: string): FileFacts | null;
};

export const THIS_HOST: Host = {
  read: (path) => orElse(null, () => readFileSync(path, 'utf8')),
  list: (path) => orElse([], () => readdirSync(path)),
  stat: (path) =>
    orElse(null, () => {
      const { uid, gid, mode } = statSync(path);
      return { uid, gid, mode: mode & 0o7777 };
    }),
};

function orElse<T>(other: T, look: () => T): T {
  try {
    return look();
  } catch {
    return other;
  }
}

/** Numbers of `0-3,8`. */
export function cpuList(text: string): number[] {
  return text
    .trim()
    .split(',')
    .filter((range) => range !== '')
    .flatMap((range) => {
      const [first, last = first] = range.split('-').map(Number);
      return Array.from({ length: last - first + 1 }, (_, i) => first + i);
    });
}

/** Of a file whose lines are `key: value`; null: there is no such line. */
export function lineOf(text: string | null, key: string): string | null {
  const line = text?.split('\n').find((each) => each.startsWith(`${key}:`));
  return line === undefined ? null : line.slice(key.length + 1).trim();
}

/** Names of a process's threads, and the processors that each may use. */
export function threadsOf(
  host: Host,
  pid: number,
): { readonly name: string; readonly cpus: readonly number[] }[] {
  return host.list(`/proc/${pid}/task`).map((thread) => {
    const folder = `/proc/${pid}/task/${thread}`;
    const allowed = lineOf(host.read(`${folder}/status`), 'Cpus_allowed_list') ?? '';
    return { name: (host.read(`${folder}/comm`) ?? '').trim(), cpus: cpuList(allowed) };
  });
}
