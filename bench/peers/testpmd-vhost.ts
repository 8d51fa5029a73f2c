/**
 * DPDK's testpmd with two `net_vhost` ports in io mode: it copies every frame in and out and looks at none.
 * The ceiling for a switch built on DPDK's vhost library. Owns the process.
 */
import { join } from 'node:path';
import { Testpmd } from '../../test/peers/index.ts';
import { type Peer, signalProcess } from './contract.ts';

export type TestpmdVhostOptions = {
  readonly folder: string;
  readonly cpu: number;
  /** Processor of the thread that takes commands. */
  readonly controlCpu: number;
  readonly hugepagesPath: string | null;
};

export const TESTPMD_VHOST_MIB = 128;

export class TestpmdVhostPeer implements Peer {
  readonly name = 'testpmd';
  readonly generatorRole = 'client';
  readonly sockets: readonly string[];
  readonly #testpmd: Testpmd;

  private constructor(sockets: readonly string[], testpmd: Testpmd) {
    this.sockets = sockets;
    this.#testpmd = testpmd;
  }

  static async start(options: TestpmdVhostOptions): Promise<TestpmdVhostPeer> {
    const sockets = [join(options.folder, 't0.sock'), join(options.folder, 't1.sock')];
    const testpmd = await Testpmd.start({
      vdevs: sockets.map((path, i) => `net_vhost${i},iface=${path},queues=1`),
      cores: `${options.cpu},${options.controlCpu}`,
      ealArgs: ['--main-lcore', String(options.controlCpu)],
      args: ['--forward-mode=io', '--total-num-mbufs=16384'],
      memoryMiB: TESTPMD_VHOST_MIB,
      ...(options.hugepagesPath === null ? {} : { hugepagesPath: options.hugepagesPath }),
    });
    await testpmd.command('start');
    return new TestpmdVhostPeer(sockets, testpmd);
  }

  get pid(): number {
    return this.#testpmd.pid;
  }

  pause(): void {
    signalProcess(this.pid, 'SIGSTOP');
  }

  resume(): void {
    signalProcess(this.pid, 'SIGCONT');
  }

  async learned(): Promise<null> {
    return null;
  }

  /** It can count its cycles only when it was compiled to. */
  async workMeter(): Promise<null> {
    return null;
  }

  async stop(): Promise<void> {
    this.resume();
    await this.#testpmd.stop();
  }
}
