/**
 * A FUSE file system with one file, `ram` of 1 MiB, that can be opened; from then on it answers nothing any more: no
 * `fstat`, no `close`, no page. A program of its own: `mute-file-system.ts FOLDER`; says `mounted` and serves until it
 * is killed, which sets free all who wait for it. Needs root and /dev/fuse. include/uapi/linux/fuse.h.
 */
import { spawnSync } from 'node:child_process';
import { openSync, readSync, writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';

const LOOKUP = 1;
const GETATTR = 3;
const OPEN = 14;
const INIT = 26;
const ROOT = 1n;
const FILE = 2n;
const FILE_BYTES = 1n << 20n;
const HEADER_BYTES = 16;

const fd = openSync('/dev/fuse', 'r+');
const folder = process.argv[2]!;

function bytes(sizeBytes: number, fill: (view: DataView) => void): Buffer {
  const buffer = Buffer.alloc(sizeBytes);
  fill(new DataView(buffer.buffer, buffer.byteOffset, sizeBytes));
  return buffer;
}

/** struct fuse_attr. */
function attributes(node: bigint): Buffer {
  return bytes(88, (view) => {
    view.setBigUint64(0, node, true);
    view.setBigUint64(8, node === FILE ? FILE_BYTES : 0n, true);
    view.setUint32(60, node === FILE ? 0o100666 : 0o40755, true);
    view.setUint32(64, 1, true);
    view.setUint32(80, 4096, true);
  });
}

function answerTo(opcode: number, node: bigint): Buffer | null {
  switch (opcode) {
    case INIT:
      return bytes(64, (view) => {
        view.setUint32(0, 7, true);
        view.setUint32(4, 31, true);
        view.setUint32(16, 0x000c_000c, true);
        view.setUint32(20, 4096, true);
      });
    case LOOKUP:
      return Buffer.concat([bytes(40, (view) => view.setBigUint64(0, FILE, true)), attributes(FILE)]);
    case GETATTR:
      return Buffer.concat([Buffer.alloc(16), attributes(node === ROOT ? ROOT : FILE)]);
    case OPEN:
      return Buffer.alloc(16);
    default:
      return null;
  }
}

let isMute = false;

/** Until it is mounted, reading is not permitted, and nothing tells when it is. */
function readRequest(request: Buffer): void {
  for (;;) {
    try {
      readSync(fd, request);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
}

function serve(): never {
  const request = Buffer.alloc(2 ** 17);
  for (;;) {
    readRequest(request);
    const opcode = request.readUInt32LE(4);
    const body = isMute ? null : answerTo(opcode, request.readBigUInt64LE(16));
    if (opcode === OPEN) isMute = true;
    if (body === null) continue;
    const header = bytes(HEADER_BYTES, (view) => {
      view.setUint32(0, HEADER_BYTES + body.length, true);
      view.setBigUint64(8, request.readBigUInt64LE(8), true);
    });
    writeSync(fd, Buffer.concat([header, body]));
  }
}

// `mount` may look at what it mounted, so it runs beside the server.
const code = `
  const { spawnSync } = require('node:child_process');
  const { workerData } = require('node:worker_threads');
  const options = 'fd=3,rootmode=40000,user_id=0,group_id=0,allow_other';
  const args = ['-i', '-t', 'fuse', '-o', options, 'mute', workerData.folder];
  const stdio = ['ignore', 'inherit', 'inherit', workerData.fd];
  if (spawnSync('mount', args, { stdio }).status !== 0) process.exit(1);
  require('node:fs').writeSync(1, 'mounted\\n');
`;
if (spawnSync('mountpoint', ['-q', folder]).status === 0) throw new Error(`${folder} is mounted already`);
new Worker(code, { eval: true, workerData: { folder, fd } });
setTimeout(serve, 0);
