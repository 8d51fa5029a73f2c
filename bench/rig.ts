/**
 * What a run stands on: processors, a folder for sockets, hugepages, which peers and which generator there
 * are; and what had to be left out. Starts peers and generators for the scenarios. Main thread; main.ts makes
 * one and ends it.
 */
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { temporaryFolder } from '../test/peers/child.ts';
import { ensurePeers, type Hugepages, takeHugepages } from '../test/peers/index.ts';
import type { LoadGenerator, LoadKind, LoadTarget } from './load/contract.ts';
import { EmbeddedLoad } from './load/embedded-load.ts';
import { MixedLoad } from './load/mixed-load.ts';
import { TESTPMD_LOAD_MIB, TestpmdLoad } from './load/testpmd-load.ts';
import type { Peer } from './peers/contract.ts';
import { OVS_MIB, OvsPeer } from './peers/ovs.ts';
import { type RingwayOptions, RingwayPeer } from './peers/ringway.ts';
import { TESTPMD_VHOST_MIB, TestpmdVhostPeer } from './peers/testpmd-vhost.ts';
import type { BenchPlan, PeerName } from './plan.ts';
import { type Measured, measureUndisturbed } from './scenarios/disturbance.ts';

const HUGEPAGE_MIB = 2;
const REPOSITORY = dirname(import.meta.dirname);

export class Rig {
  readonly plan: BenchPlan;
  /** Sentences for the reader: what was left out and why, what was used instead. */
  readonly notes: string[] = [];
  /** Peers that can be started. */
  readonly peers: PeerName[] = [];
  /** Ways to generate load, the headline first. */
  readonly loadKinds: readonly LoadKind[];
  readonly #folder: { path: string; remove(): Promise<void> };
  /** testpmd's, as generator and as peer. */
  readonly #hugepages: Hugepages | null;
  /** Open vSwitch's own. */
  readonly #ovsHugepages: Hugepages | null;
  #folderCount = 0;
  #isRingwayLeftOut = false;

  private constructor(
    plan: BenchPlan,
    folder: { path: string; remove(): Promise<void> },
    hugepages: Hugepages | null,
    ovsHugepages: Hugepages | null,
    hasTestpmd: boolean,
  ) {
    this.plan = plan;
    this.#folder = folder;
    this.#hugepages = hugepages;
    this.#ovsHugepages = ovsHugepages;
    this.loadKinds = hasTestpmd ? plan.loads : ['embedded'];
  }

  static async prepare(plan: BenchPlan): Promise<Rig> {
    if (!plan.installs) process.env.RINGWAY_INSTALL_PEERS ??= '0';
    const wantsOvs = plan.peers.includes('ovs');
    const packages = await ensurePeers(wantsOvs ? ['testpmd', 'ovs'] : ['testpmd']);
    const hasTestpmd = packages.available.has('testpmd');
    const hugepages = hasTestpmd ? await takeHugepages(hugepagesFor(plan)) : null;
    const hasOvs = wantsOvs && packages.available.has('ovs');
    // It takes pages from the pool and not from the mount, so the mount must not reserve them.
    const ovsHugepages = hasOvs ? await takeHugepages(OVS_MIB / HUGEPAGE_MIB, { reserve: false }) : null;
    const folder = await temporaryFolder('rwb-');
    const rig = new Rig(plan, folder, heldOf(hugepages), heldOf(ovsHugepages), hasTestpmd);
    const missing = new Map(packages.missing);
    if (ovsHugepages !== null && 'unavailable' in ovsHugepages) missing.set('ovs', ovsHugepages.unavailable);
    rig.#choosePeers(missing);
    if (hugepages !== null && 'unavailable' in hugepages)
      rig.note(`${hugepages.unavailable} testpmd uses pages of 4 KiB.`);
    if (!hasTestpmd) {
      rig.note(`No testpmd (${packages.missing.get('testpmd')}): the embedded front-end generates the load.`);
    }
    if (plan.dutCpu === plan.loadCpu) {
      rig.note('Switch and generator share one processor here: the figures say nothing about either.');
    }
    return rig;
  }

  /** Says something once, on the screen and in the results. */
  note(text: string): void {
    if (this.notes.includes(text)) return;
    this.notes.push(text);
    process.stdout.write(`! ${text}\n`);
  }

  /** Whether something about Ringway itself could not be measured; a peer may be missing. */
  get isRingwayLeftOut(): boolean {
    return this.#isRingwayLeftOut;
  }

  leaveOut(who: string, where: string, error: unknown): void {
    if (who !== 'ovs' && who !== 'testpmd') this.#isRingwayLeftOut = true;
    const { otherCheckout } = this.plan;
    const reason = error instanceof Error ? error.message : String(error);
    // Results are shown to others: no paths of this machine.
    const folders = [this.#folder.path, REPOSITORY, ...(otherCheckout === null ? [] : [otherCheckout])];
    const told = folders.reduce((text, folder) => text.replaceAll(`${folder}/`, ''), reason);
    this.note(`${who} is left out of ${where}: ${told.trim().split('\n').slice(0, 6).join(' | ')}`);
  }

  /** testpmd as a peer has two ports, however many are asked for. */
  async startPeer(name: PeerName, portCount: number): Promise<Peer> {
    const { dutCpu, loadCpu, otherCheckout } = this.plan;
    const options = { folder: this.#newFolder(), cpu: dutCpu, controlCpu: loadCpu, portCount };
    switch (name) {
      case 'ringway':
        return RingwayPeer.start(options);
      case 'other':
        return RingwayPeer.start({ ...options, checkout: otherCheckout! });
      case 'testpmd':
        return TestpmdVhostPeer.start({ ...options, hugepagesPath: this.#hugepagesPath });
      case 'ovs':
        return OvsPeer.start({ ...options, hugepagesPath: this.#ovsHugepages!.path });
    }
  }

  /** A Ringway of its own for one scenario, on the processor under test. */
  startRingway(options: Omit<RingwayOptions, 'folder' | 'cpu'> = {}): Promise<RingwayPeer> {
    return RingwayPeer.start({ ...options, folder: this.#newFolder(), cpu: this.plan.dutCpu });
  }

  startLoad(target: LoadTarget, kind: LoadKind): Promise<LoadGenerator> {
    const cpu = this.plan.loadCpu;
    if (kind === 'embedded') return EmbeddedLoad.start(target, { cpu });
    const controlCpu = this.plan.dutCpu;
    return TestpmdLoad.start(target, { kind, cpu, controlCpu, hugepagesPath: this.#hugepagesPath });
  }

  /** Every port of the target sends to all others. */
  startMixedLoad(target: LoadTarget): Promise<MixedLoad> {
    return MixedLoad.start(target, this.plan.loadCpu);
  }

  /** Measures again while others take too much of the two processors; see scenarios/disturbance.ts. */
  undisturbed<T>(pids: readonly number[], measure: () => Promise<T>): Promise<Measured<T>> {
    const { dutCpu, loadCpu, attemptsMax } = this.plan;
    return measureUndisturbed(pids, [dutCpu, loadCpu], attemptsMax, measure);
  }

  async end(): Promise<void> {
    await this.#folder.remove();
    // What uses the pages has ended; a peer that crashed may hold them a moment longer.
    for (const pages of [this.#hugepages, this.#ovsHugepages]) {
      await pages?.release().catch((error: Error) => this.note(error.message));
    }
  }

  get #hugepagesPath(): string | null {
    return this.#hugepages?.path ?? null;
  }

  #choosePeers(missing: ReadonlyMap<string, string>): void {
    for (const name of this.plan.peers) {
      const reason = missing.get(name);
      if (reason !== undefined) this.leaveOut(name, 'this run', reason);
      else this.peers.push(name);
    }
  }

  #newFolder(): string {
    const path = join(this.#folder.path, String(this.#folderCount++));
    mkdirSync(path);
    return path;
  }
}

function heldOf(taken: Hugepages | { unavailable: string } | null): Hugepages | null {
  return taken !== null && 'path' in taken ? taken : null;
}

/** Pages for testpmd: the generators (one for each peer, two for the scale runs) and the peer. */
function hugepagesFor({ peers }: BenchPlan): number {
  const generators = Math.max(peers.length, 2) * TESTPMD_LOAD_MIB;
  const testpmd = peers.includes('testpmd') ? TESTPMD_VHOST_MIB : 0;
  return (generators + testpmd) / HUGEPAGE_MIB;
}
