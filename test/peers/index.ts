/**
 * Real peers for Ringway's tests and benchmarks: Linux guests in QEMU, DPDK's testpmd, and the machinery they need.
 * Nothing here knows Ringway's own code. Guests in qtest mode, whose drivers are those of src/frontend/, are in qtest/.
 */
export { type Child, findProgram, runProgram, startChild, TextLog } from './child.ts';
export {
  type CardModel,
  echoesOf,
  emulatedCardArgs,
  type Iperf3Result,
  type PingOptions,
  type PingResult,
  runIperf3,
  sharedMemoryArgs,
  startIperf3Server,
  untilEchoesAnswered,
  untilListens,
  type VhostUserOptions,
  vhostUserArgs,
  vhostUserCardArgs,
} from './guest-network.ts';
export type { CommandResult } from './guest-shell.ts';
export { type Hugepages, type HugepagesOptions, takeHugepages } from './hugepages.ts';
export { LinuxGuest, type LinuxGuestOptions } from './linux-guest.ts';
export {
  ensurePeers,
  type KernelFlavor,
  type PeerName,
  type PeersReport,
  peersForTests,
  type TestPeers,
} from './packages.ts';
export { type PortStats, Testpmd, type TestpmdOptions } from './testpmd.ts';
export { UmlGuest, type UmlGuestOptions } from './uml-guest.ts';
