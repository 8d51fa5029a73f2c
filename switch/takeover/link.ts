/**
 * The connection on which one Ringway hands itself over to another: records of JSON with descriptors, sent and read without
 * waiting for the other end in any call. Frame: le32 bytes of JSON, le32 descriptors, the JSON, then a byte for each 253
 * descriptors, which come with it (SCM_MAX_FD). Main thread.
 */
import { closeFd, closeFds } from '../../src/host/descriptor.ts';
import { descriptorLoop, type Watch } from '../../src/host/event-loop.ts';
import { peerPid, receive, SCM_FDS_MAX, send } from '../../src/host/unix-socket.ts';
import { RECORDS, type RecordName, type RecordOf } from './format.ts';
import { TakeoverError } from './takeover-error.ts';

const HEAD_BYTES = 8;
const JSON_BYTES_MAX = 2 ** 28;
const READ_BYTES = 8192;
const FULL_SOCKET_MS = 1;

export type Incoming<Name extends RecordName> = {
  readonly value: RecordOf<Name>;
  /** The caller's. */
  readonly fds: readonly number[];
};

export class TakeoverLink {
  readonly #fd: number;
  #isOpen = true;

  /** Takes over a connected stream socket. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Process at the other end; null: the kernel does not tell. */
  get peerPid(): number | null {
    return peerPid(this.#fd);
  }

  /** Resolves when all of it is in the socket; descriptors stay the caller's. @throws TakeoverError, HostError */
  async send<Name extends RecordName>(value: RecordOf<Name>, fds: readonly number[] = []): Promise<void> {
    const json = Buffer.from(JSON.stringify(value));
    const head = Buffer.alloc(HEAD_BYTES);
    head.writeUInt32LE(json.length, 0);
    head.writeUInt32LE(fds.length, 4);
    await this.#sendAll(Buffer.concat([head, json]), []);
    for (let from = 0; from < fds.length; from += SCM_FDS_MAX)
      await this.#sendAll(new Uint8Array(1), fds.slice(from, from + SCM_FDS_MAX));
  }

  /** The next record, which must be of that name. @throws TakeoverError when it is not, or does not come in time */
  async next<Name extends RecordName>(name: Name, timeoutMs: number): Promise<Incoming<Name>> {
    const fds: number[] = [];
    try {
      const { json, fdCount } = await this.#read(fds, AbortSignal.timeout(timeoutMs), name);
      if (fds.length !== fdCount)
        throw new TakeoverError('descriptors were cut off: raise the limit of open files');
      return { value: checked(name, json), fds };
    } catch (error) {
      closeFds(fds);
      throw error;
    }
  }

  /** Resolves when the other end is closed. */
  async ended(): Promise<void> {
    while (this.#isOpen) {
      await this.#readable(new AbortController().signal);
      const { closed, fds } = receive(this.#fd, READ_BYTES);
      closeFds(fds);
      if (closed) return;
    }
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    closeFd(this.#fd);
  }

  async #sendAll(bytes: Uint8Array, fds: readonly number[]): Promise<void> {
    let rest = bytes;
    let unsent = fds;
    while (rest.length > 0) {
      if (!this.#isOpen) throw new TakeoverError('the connection is closed');
      const sentBytes = send(this.#fd, rest, unsent);
      rest = rest.subarray(sentBytes);
      if (sentBytes > 0) unsent = [];
      else await new Promise((resolve) => setTimeout(resolve, FULL_SOCKET_MS));
    }
  }

  async #read(
    fds: number[],
    signal: AbortSignal,
    name: RecordName,
  ): Promise<{ readonly json: string; readonly fdCount: number }> {
    const head = await this.#exactly(HEAD_BYTES, fds, signal, name);
    const jsonBytes = head.readUInt32LE(0);
    const fdCount = head.readUInt32LE(4);
    if (jsonBytes > JSON_BYTES_MAX) throw new TakeoverError(`a record of ${jsonBytes} bytes was announced`);
    const json = await this.#exactly(jsonBytes, fds, signal, name);
    await this.#exactly(Math.ceil(fdCount / SCM_FDS_MAX), fds, signal, name);
    return { json: json.toString(), fdCount };
  }

  async #exactly(count: number, fds: number[], signal: AbortSignal, name: RecordName): Promise<Buffer> {
    const parts: Uint8Array[] = [];
    for (let left = count; left > 0; ) {
      if (!this.#isOpen) throw new TakeoverError('the connection is closed');
      const { bytes, fds: came, closed, truncated } = receive(this.#fd, Math.min(left, READ_BYTES));
      fds.push(...came);
      if (truncated) throw new TakeoverError('descriptors were cut off: raise the limit of open files');
      if (closed)
        throw new TakeoverError(`the other Ringway gave up instead of saying ${name}: its log says why`);
      parts.push(bytes);
      left -= bytes.length;
      if (bytes.length === 0) await this.#readable(signal, name);
    }
    return Buffer.concat(parts);
  }

  #readable(signal: AbortSignal, name?: RecordName): Promise<void> {
    return new Promise((resolve, reject) => {
      let watch: Watch | null = null;
      const end = (finish: () => void): void => {
        watch?.close();
        signal.removeEventListener('abort', abort);
        finish();
      };
      const abort = (): void =>
        end(() => reject(new TakeoverError(`the other Ringway did not say ${name ?? 'anything'} in time`)));
      if (signal.aborted) {
        abort();
        return;
      }
      signal.addEventListener('abort', abort);
      watch = descriptorLoop().watch(this.#fd, () => end(resolve));
    });
  }
}

function checked<Name extends RecordName>(name: Name, json: string): RecordOf<Name> {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw new TakeoverError(`what came instead of ${name} is no JSON`);
  }
  const result = RECORDS[name].safeParse(value);
  if (result.success) return result.data as RecordOf<Name>;
  const [issue] = result.error.issues;
  throw new TakeoverError(
    `${name} is not as this Ringway knows it: ${issue.path.join('.')}: ${issue.message}`,
  );
}
