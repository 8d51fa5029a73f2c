/** Outputs that nobody reads, of every kind that stderr can be: none is waited for, and the shared open file is left alone. */
import { spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeFds } from '../../src/host/descriptor.ts';
import { ERRNO } from '../../src/host/errors.ts';
import { libc } from '../../src/host/libc.ts';
import { UnblockedOutput } from '../../src/host/unblocked-output.ts';
import { socketPair } from '../../src/host/unix-socket.ts';

const F_GETFL = 3;
const F_SETPIPE_SZ = 1031;
const TIOCSPTLCK = 0x40045431;
const TIOCGPTN = 0x80045430;
const CTRL_S = Uint8Array.of(0x13);
const LINE = Buffer.from(`${'x'.repeat(999)}\n`);

let folder = '';
const fds: number[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-output-'));
});
afterEach(() => {
  closeFds(fds.splice(0));
  rmSync(folder, { recursive: true, force: true });
});

/** The reader's end, which is not read, and the one to write to. */
const UNREAD: Readonly<Record<string, () => { reader: number; fd: number }>> = {
  'a pipe': () => {
    const path = join(folder, 'pipe');
    expect(spawnSync('mkfifo', [path]).status).toBe(0);
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    libc.fcntl(reader, F_SETPIPE_SZ, 4096);
    return { reader, fd: openSync(path, constants.O_WRONLY) };
  },
  'a socket': () => {
    const [reader, fd] = socketPair();
    // As a shell or a service manager hands it over.
    libc.fcntl(fd, 4, libc.fcntl(fd, F_GETFL, 0) & ~constants.O_NONBLOCK);
    return { reader, fd };
  },
  'a stopped terminal': () => {
    const reader = openSync('/dev/ptmx', constants.O_RDWR | constants.O_NOCTTY);
    const word = new Int32Array(1);
    libc.ioctl(reader, TIOCSPTLCK, new Uint8Array(word.buffer));
    libc.ioctl(reader, TIOCGPTN, new Uint8Array(word.buffer));
    const fd = openSync(`/dev/pts/${word[0]}`, constants.O_RDWR | constants.O_NOCTTY);
    writeSync(reader, CTRL_S);
    return { reader, fd };
  },
};

describe.each(Object.entries(UNREAD))('%s that nobody reads', (_, open) => {
  it('takes what it has room for, and then says that it would wait', () => {
    const { reader, fd } = open();
    fds.push(reader, fd);
    const flags = libc.fcntl(fd, F_GETFL, 0);
    expect(flags & constants.O_NONBLOCK).toBe(0);
    const output = new UnblockedOutput(fd);
    let taken = 0;
    for (let lines = 0; lines < 100_000 && taken >= 0; lines++) taken = output.write(LINE);
    expect(taken).toBe(-ERRNO.EAGAIN);
    expect(output.awaitReady(1)).toBe(false);
    expect(libc.fcntl(fd, F_GETFL, 0)).toBe(flags);
    output.close();
  });
});

describe('an output', () => {
  it('that is a pipe is written again when it is read', () => {
    const { reader, fd } = UNREAD['a pipe']();
    fds.push(reader, fd);
    const output = new UnblockedOutput(fd);
    while (output.write(LINE) > 0);
    const read = new Uint8Array(8192);
    expect(libc.read(reader, read, read.length)).toBeGreaterThan(0);
    expect(output.awaitReady(1000)).toBe(true);
    expect(output.write(LINE)).toBe(LINE.length);
    output.close();
  });

  it('whose reader is gone says so, and there is no SIGPIPE', () => {
    for (const open of [UNREAD['a pipe'], UNREAD['a socket']]) {
      const { reader, fd } = open();
      fds.push(fd);
      closeSync(reader);
      const output = new UnblockedOutput(fd);
      expect(output.write(LINE)).toBe(-ERRNO.EPIPE);
      output.close();
      rmSync(join(folder, 'pipe'), { force: true });
    }
  });

  it('that is a full disk says so', () => {
    const fd = openSync('/dev/full', 'w');
    fds.push(fd);
    const output = new UnblockedOutput(fd);
    expect(output.write(LINE)).toBe(-ERRNO.ENOSPC);
    output.close();
  });

  it('that is a file goes on where others who share it have written', () => {
    const path = join(folder, 'file');
    const fd = openSync(path, 'w');
    fds.push(fd);
    const output = new UnblockedOutput(fd);
    output.write(Buffer.from('a\n'));
    writeSync(fd, 'b\n');
    output.write(Buffer.from('c\n'));
    expect(readFileSync(path, 'utf8')).toBe('a\nb\nc\n');
    output.close();
  });
});
