/**
 * The peers of a comparison, all started and connected to, of which one runs at a time: the others are
 * paused, so that polling takes no processor time from the one measured. Main thread.
 */
import type { PeerName } from '../plan.ts';
import type { Rig } from '../rig.ts';
import type { Peer } from './contract.ts';

export class Lineup {
  readonly #peers = new Map<PeerName, Peer>();

  /** Starts each of `names` with so many ports; one that cannot be started is left out. */
  static async start(rig: Rig, names: readonly PeerName[], portCount: number): Promise<Lineup> {
    const lineup = new Lineup();
    for (const name of names) {
      try {
        const peer = await rig.startPeer(name, portCount);
        lineup.#peers.set(name, peer);
        peer.pause();
      } catch (error) {
        rig.leaveOut(name, 'the comparison', error);
      }
    }
    return lineup;
  }

  get names(): PeerName[] {
    return [...this.#peers.keys()];
  }

  /** Lets one peer run while `work` does. */
  async during<T>(name: PeerName, work: (peer: Peer) => Promise<T>): Promise<T> {
    const peer = this.#peers.get(name)!;
    peer.resume();
    try {
      return await work(peer);
    } finally {
      peer.pause();
    }
  }

  async stop(): Promise<void> {
    for (const peer of this.#peers.values()) await peer.stop();
  }
}
