/**
 * Checks the descriptors by which front-end and back-end wake each other (`takeChannelFd`: ask each other). They are
 * open files that the front-end shares and may make blocking at any moment, so only those are taken that can be used
 * without waiting for it: an eventfd, and for signals a UNIX socket (User-Mode Linux sends one end of a pair). How they
 * are used: src/host/peer-signal.ts and `EpollSet.addSignals`. Main thread.
 */
import { describeFd, onlyNamesFile, unixSocketFd } from '../host/descriptor.ts';
import type { IncomingFds } from '../vhost-user/incoming-fds.ts';

const EVENTFD = 'anon_inode:[eventfd]';

/** What came for a kick. */
export type KickFd = {
  readonly fd: number;
  /** Null: the descriptor tells of kicks. Otherwise what it is: one that is kept and left alone, the ring polled. */
  readonly polledBecause: string | null;
  /** No descriptor came: it is one of ours, signalled when the front-end kicks by message. */
  readonly isOurs?: boolean;
};

/** Polled, because the front-end says so. */
export const NO_KICK: KickFd = { fd: -1, polledBecause: null };

/**
 * Takes the descriptor by which the driver kicks, if one came. A pipe or socket cannot be emptied without perhaps waiting
 * for who else reads it, and one that is not emptied tells of nothing, so its ring is polled. @throws PeerError
 */
export function takeKickFd(fds: IncomingFds): KickFd {
  const fd = fds.take((fd) => {
    const what = describeFd(fd);
    if (onlyNamesFile(fd)) return onlyName(what);
    if (what === EVENTFD || isPipe(what) || unixSocketFd(fd)) return null;
    return `the descriptor is neither an eventfd nor a pipe or UNIX socket but ${what}`;
  });
  if (fd === null) return NO_KICK;
  const what = describeFd(fd);
  if (what === EVENTFD) return { fd, polledBecause: null };
  return { fd, polledBecause: isPipe(what) ? 'a pipe' : 'a socket' };
}

/** Takes the descriptor by which we signal; -1 when none came. @throws PeerError */
export function takeSignalFd(fds: IncomingFds): number {
  const fd = fds.take((fd) => {
    const what = describeFd(fd);
    if (onlyNamesFile(fd)) return onlyName(what);
    if (what === EVENTFD || unixSocketFd(fd)) return null;
    if (isPipe(what)) {
      return 'the descriptor is a pipe, and a write to it may wait for whoever else uses it; an eventfd cannot';
    }
    return `the descriptor is neither an eventfd nor a UNIX socket but ${what}`;
  });
  return fd ?? -1;
}

/** Takes a connection; -1 when none came. @throws PeerError */
export function takeChannelFd(fds: IncomingFds): number {
  const fd = fds.take((fd) => {
    const what = describeFd(fd);
    if (onlyNamesFile(fd)) return onlyName(what);
    return unixSocketFd(fd) ? null : `the descriptor is not a UNIX socket but ${what}`;
  });
  return fd ?? -1;
}

function onlyName(what: string): string {
  return `the descriptor is ${what}, but only its name (O_PATH)`;
}

function isPipe(what: string): boolean {
  return what.startsWith('pipe:');
}
