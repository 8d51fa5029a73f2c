/** A port that was handed over and that nobody takes up: its peer is let go of, and its socket's file removed. Main thread. */
import { closeFds } from '../../src/host/descriptor.ts';
import { SocketFile } from '../../src/host/socket-file.ts';
import { type HandedPort, withDescriptors } from '../../src/port/hand-over.ts';

/** Takes over its descriptors. */
export function endHanded(port: HandedPort): void {
  const fds: number[] = [];
  withDescriptors(port, (fd) => {
    fds.push(fd);
    return fd;
  });
  const listener = 'listener' in port ? port.listener : null;
  if (listener !== null && listener.file !== null) {
    const { dev, ino } = listener.file;
    new SocketFile(listener.path, { dev: BigInt(dev), ino: BigInt(ino) }).remove();
  }
  closeFds(fds);
}
