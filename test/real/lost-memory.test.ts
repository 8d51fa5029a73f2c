/**
 * A guest whose memory is not there when it is touched, on a whole switch: that guest's port says why, and two other
 * guests lose no frame. Only the files are real; the guests are embedded ones.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EmbeddedGuest } from '../../src/frontend/net-device.ts';
import { closeFd } from '../../src/host/descriptor.ts';
import { connectUnix } from '../../src/host/unix-socket.ts';
import { takeHugepages } from '../peers/hugepages.ts';
import {
  bit,
  NEED_REPLY,
  none,
  P,
  region,
  ScriptedFrontEnd,
  table,
  u64,
} from '../vhost-user/scripted-front-end.ts';
import { Bystanders } from './bystanders.ts';
import { RingwayProcess } from './ringway-process.ts';

const REASON = /the guest's memory of \d+ bytes at 0x100000000 is not there when it is touched/;
const isRoot = process.getuid?.() === 0;

let ringway: RingwayProcess;
let bystanders: Bystanders;
let folder: string;
const cleanups: (() => void | Promise<void>)[] = [];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-lost-'));
  ringway = await RingwayProcess.start({ ports: ['victim', 'a', 'b'] });
  bystanders = await Bystanders.connect(ringway, ['a', 'b']);
});

afterEach(async () => {
  bystanders.close();
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  rmSync(folder, { recursive: true });
  expect(await ringway.stop()).toBe(0);
});

/**
 * A guest with its memory in a file at `path`, of which it has touched its rings only. Its buffers are so large that
 * most of them lie in other hugepages than those.
 */
async function victim(path: string): Promise<EmbeddedGuest> {
  const guest = await EmbeddedGuest.connect({
    socketPath: ringway.socket('victim'),
    waitMs: 10_000,
    bufferBytes: 32_768,
    makeMemoryFile: (sizeBytes) => {
      const fd = openSync(path, 'w+');
      ftruncateSync(fd, sizeBytes);
      return fd;
    },
  });
  cleanups.push(() => {
    // This process has no handler: closing looks at the rings once more.
    ftruncateSync(guest.memory.fd, guest.memory.sizeBytes);
    guest.close();
  });
  await ringway.untilState('victim', 'running');
  return guest;
}

/** Goes on until the port has said why it let go of its guest; then a whole guest can come. */
async function expectOnlyItsPortEnds(guest: EmbeddedGuest): Promise<void> {
  let isOver = false;
  const said = ringway
    .until(async () => REASON.test((await ringway.port('victim')).reason ?? ''))
    .finally(() => {
      isOver = true;
    });
  await bystanders.exchange(() => isOver);
  await said;
  await guest.closed;
  expect((await ringway.port('victim')).reason).toMatch(/^waiting for a front-end to connect \(last: /);
  await victim(join(folder, 'next'));
  await bystanders.exchange(() => true);
  expect(bystanders.frames).toBeGreaterThan(0);
}

describe("a guest's memory that is not there when it is touched", () => {
  it('because its file was shortened', async () => {
    const guest = await victim(join(folder, 'ram'));
    await bystanders.exchange(() => true, 5);
    ftruncateSync(guest.memory.fd, 0);
    await expectOnlyItsPortEnds(guest);
  });

  it.skipIf(!isRoot)('because its tmpfs is full (needs root)', async () => {
    const shm = join(folder, 'shm');
    execFileSync('mkdir', [shm]);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8M', 'tmpfs', shm]);
    cleanups.push(() => void execFileSync('umount', ['--lazy', shm]));
    const guest = await victim(join(shm, 'ram'));
    const filler = openSync(join(shm, 'filler'), 'w');
    expect(() => {
      for (;;) writeSync(filler, new Uint8Array(4096));
    }).toThrow(/ENOSPC/);
    closeSync(filler);
    await expectOnlyItsPortEnds(guest);
  });

  it.skipIf(!isRoot)(
    'because of a hole in its hugepages that another guest filled (needs root)',
    async () => {
      const hugepages = await takeHugepages(10, { reserve: true });
      if ('unavailable' in hugepages) {
        console.warn(`skipped: ${hugepages.unavailable}`);
        return;
      }
      cleanups.push(() => hugepages.release());
      const path = join(hugepages.path, 'ram');
      const guest = await victim(path);
      const bytes = String(2 ** 22);
      execFileSync('fallocate', ['--length', String(guest.memory.sizeBytes), path]);
      execFileSync('fallocate', ['--punch-hole', '--offset', bytes, '--length', bytes, path]);
      execFileSync('fallocate', ['--length', bytes, join(hugepages.path, 'other')]);
      await expectOnlyItsPortEnds(guest);
    },
  );
});

/** Null: nobody listens there any more, when the port has stopped since it was asked. */
function connectedOrNull(path: string): number | null {
  try {
    return connectUnix(path);
  } catch {
    return null;
  }
}

const hasFuse = isRoot && existsSync('/dev/fuse');

describe.skipIf(!hasFuse)('a file that never answers (FUSE; needs root and /dev/fuse)', () => {
  const REGION = { gpa: 0n, uva: 0x7f00_0000_0000n, sizeBytes: 4096n, mmapOffset: 0n };
  let fd: number;

  beforeEach(async () => {
    const mountPoint = join(folder, 'fuse');
    mkdirSync(mountPoint);
    const program = fileURLToPath(new URL('../peers/mute-file-system.ts', import.meta.url));
    const server = spawn(process.execPath, [program, mountPoint], { stdio: ['ignore', 'pipe', 'inherit'] });
    cleanups.push(async () => {
      // First of all: whoever waits for it is set free, this process's own `close` too.
      server.kill('SIGKILL');
      await once(server, 'exit');
      execFileSync('umount', ['--lazy', mountPoint]);
      closeFd(fd);
    });
    await once(server.stdout, 'data');
    fd = openSync(join(mountPoint, 'ram'), 'r+');
  });

  it.each([
    ['as memory', 'SET_MEM_TABLE', table([REGION])],
    ['as another region', 'ADD_MEM_REG', region(REGION)],
    ['as a call descriptor', 'SET_VRING_CALL', u64(0)],
    ['as a kick descriptor', 'SET_VRING_KICK', u64(0)],
    ['where none belongs', 'SET_OWNER', none()],
  ] as const)('is asked nothing when it comes %s', async (_what, request, payload) => {
    const front = new ScriptedFrontEnd(connectUnix(ringway.socket('victim')));
    cleanups.push(() => front.close());
    front.send('SET_PROTOCOL_FEATURES', u64(bit(P.MQ, P.REPLY_ACK, P.MEM_SLOTS)));
    front.send(request, payload, [fd], NEED_REPLY);
    let isOver = false;
    const closed = front.closed.then(() => {
      isOver = true;
    });
    await bystanders.exchange(() => isOver);
    await closed;
    await ringway.until(async () => ((await ringway.port('victim')).reason ?? '').includes('is kept open'));
    await victim(join(folder, 'next'));
  });

  it('ends its port when it comes again and again', async () => {
    while ((await ringway.port('victim')).state !== 'stopped') {
      const connection = connectedOrNull(ringway.socket('victim'));
      if (connection === null) continue;
      const front = new ScriptedFrontEnd(connection);
      front.send('SET_VRING_CALL', u64(0), [fd]);
      await front.closed;
      front.close();
    }
    expect((await ringway.port('victim')).reason).toMatch(/16 descriptors that may never answer/);
    await bystanders.exchange(() => true);
  });
});
