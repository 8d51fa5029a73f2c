/**
 * This machine as the end that receives: commands and a server of iperf3 in the network namespace where Ringway's port
 * of kind `tap` has its interface. Owns the server.
 */
import { type Child, runProgram, startChild, untilListens } from '../../test/peers/index.ts';
import type { NetworkNamespace } from '../../test/peers/namespaces.ts';
import type { GuestHandle } from './measure.ts';

const DEFAULT_TIMEOUT_MS = 30_000;

export class HostEnd implements GuestHandle {
  readonly #namespace: NetworkNamespace;
  readonly #server: Child;

  private constructor(namespace: NetworkNamespace, server: Child) {
    this.#namespace = namespace;
    this.#server = server;
    server.process.stdout.resume();
    server.process.stderr.resume();
  }

  /** Resolves when the server listens. */
  static async start(namespace: NetworkNamespace): Promise<HostEnd> {
    const server = await startChild(...namespace.command('iperf3', ['-s']));
    const end = new HostEnd(namespace, server);
    try {
      await untilListens(end);
    } catch (error) {
      await end.stop();
      throw error;
    }
    return end;
  }

  async runOk(command: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const { timeoutMs = DEFAULT_TIMEOUT_MS } = options;
    const line = this.#namespace.command('sh', ['-c', command]);
    const { code, output } = await runProgram(...line, { timeoutMs });
    if (code !== 0) throw new Error(`code ${code} from: ${command}\n${output}`);
    return output;
  }

  async stop(): Promise<void> {
    this.#server.kill();
    await this.#server.exited;
  }
}
