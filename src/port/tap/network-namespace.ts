/**
 * Doing something in another network namespace and coming back. A namespace belongs to a thread, so everything
 * in between must be synchronous; descriptors opened there stay in their namespace. Main thread.
 */
import { readdirSync, statSync } from 'node:fs';
import { closeFd } from '../../host/descriptor.ts';
import { checked, ERRNO, HostError } from '../../host/errors.ts';
import { libc } from '../../host/libc.ts';

const CLONE_NEWNET = 0x40000000;
const O_CLOEXEC = 0o2000000;
const NAMED_FOLDER = '/run/netns';

/** Path of a namespace given by the name that `ip netns` knows it by, or by a path such as /proc/PID/ns/net. */
export function namespacePath(namespace: string): string {
  return namespace.includes('/') ? namespace : `${NAMED_FOLDER}/${namespace}`;
}

/** What tells one namespace from another that later has the same name; null: there is none. */
export function namespaceIdentity(namespace: string): string | null {
  try {
    const { dev, ino } = statSync(namespacePath(namespace));
    return `${dev}:${ino}`;
  } catch {
    return null;
  }
}

/** What a user knows a namespace by, of which there is an identity (`namespaceIdentity`). */
export function namespaceTitle(identity: string | null): string {
  if (identity === null) return 'another network namespace';
  const name = namedNamespaces().find((each) => namespaceIdentity(each) === identity);
  if (name !== undefined) return `the network namespace ${name}`;
  if (namespaceIdentity('/proc/self/ns/net') === identity) return 'the network namespace that Ringway is in';
  return `the network namespace net:[${identity.split(':')[1]}]`;
}

function namedNamespaces(): string[] {
  try {
    return readdirSync(NAMED_FOLDER);
  } catch {
    return [];
  }
}

/** The namespace cannot be entered; `message` is one line with the fix. */
export class NetworkNamespaceError extends Error {
  override name = 'NetworkNamespaceError';
}

/**
 * Runs `action` in the network namespace (null: the one this process is in). However it ends, the thread is
 * back in its own namespace afterwards.
 * @throws NetworkNamespaceError; Error when there is no way back, after which this process can do nothing
 *   sensible; and what `action` throws
 */
export function inNetworkNamespace<T>(namespace: string | null, action: () => T): T {
  if (namespace === null) return action();
  const ownFd = openNamespace('/proc/thread-self/ns/net');
  try {
    enter(namespace);
    try {
      return action();
    } finally {
      comeBack(ownFd);
    }
  } finally {
    closeFd(ownFd);
  }
}

function comeBack(ownFd: number): void {
  if (libc.setns(ownFd, CLONE_NEWNET) < 0) throw new Error('no way back into the own network namespace');
}

function enter(namespace: string): void {
  const path = namespacePath(namespace);
  try {
    const fd = openNamespace(path);
    try {
      checked(libc.setns(fd, CLONE_NEWNET), 'setns', `entering the network namespace ${path}`);
    } finally {
      closeFd(fd);
    }
  } catch (error) {
    throw error instanceof HostError ? readable(error, namespace, path) : error;
  }
}

function readable(error: HostError, namespace: string, path: string): NetworkNamespaceError {
  switch (error.errno) {
    case ERRNO.ENOENT:
    case ERRNO.ENOTDIR: {
      const fix = path === namespace ? 'name another' : `make it with ip netns add ${namespace}`;
      return new NetworkNamespaceError(`there is no network namespace ${path}: ${fix}`);
    }
    case ERRNO.EINVAL:
      return new NetworkNamespaceError(`${path} is no network namespace: name another`);
    case ERRNO.EPERM:
    case ERRNO.EACCES:
      return new NetworkNamespaceError(
        `the network namespace ${path} may not be entered: run Ringway as root or give it CAP_SYS_ADMIN`,
      );
    default:
      return new NetworkNamespaceError(error.message);
  }
}

function openNamespace(path: string): number {
  return checked(libc.open(path, O_CLOEXEC), 'open', `opening the network namespace ${path}`);
}
