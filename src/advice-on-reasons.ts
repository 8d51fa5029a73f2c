/**
 * Which advice belongs to what a port says of itself: reasons are sentences with figures and a peer's words in them, each made
 * where it happens, so they are told by their wording. None is without. Asked when somebody looks at a port, never for a frame.
 */
import { ADVICE, type AdviceName } from './advice.ts';
import type { PortKind } from './port/contract.ts';

/** The first that fits counts: what must be mended before what only follows from it. */
const WORDINGS: readonly (readonly [AdviceName, RegExp | string])[] = [
  ['loopShut', /^shut for \d+ s because of a loop/],
  ['notShared', ADVICE.notShared.reason],
  ['noMemoryBackend', ADVICE.noMemoryBackend.reason],
  ['fewQueues', /raise its queues=, or lower the front-end's/],
  ['guestInsists', /guest may have features that the settings leave out/],
  ['heldDescriptors', /no further front-end is served until it is/],
  ['keptDescriptors', /may never answer|may never be closed/],
  ['memoryLost', /is not there when it is touched/],
  ['memoryWaits', /memory of guests that have gone to be unmapped/],
  ['fewMappings', /vm\.max_map_count is/],
  ['fewDescriptors', /raise the limit of open files|too many open files/],
  ['arenaFull', /left in the arena/],
  ['socketTaken', /nobody can connect: |nothing can be received: /],
  ['ringLost', /must start it anew \(reboot the guest\)/],
  ['noTranslation', /its IOMMU/],
  ['ringStopped', /queue \d+ stopped: /],
  ['polledKick', /is polled: its kick descriptor is/],
  ['inBand', /wants to be notified|does not read its notifications|refused \d+ notifications/],
  ['dirtyLog', /its log of dirty pages ends/],
  ['noPermission', /connect failed with (EACCES|EPERM)/],
  // What was sent as memory, and is none, is looked at by calls too.
  ['systemRefused', /^(?!.*looking at \/proc\/).*: \S+ failed with E/],
  ['otherProtocol', /is of protocol version/],
  ['mirrorMissing', /(is|are) not there: (it is|they are) mirrored once/],
  ['frontEndLeft', /\(last: the front-end closed the connection\)/],
  ['notConnected', /^waiting for a front-end to connect($|;)/],
  ['notListening', /^waiting for a front-end to listen at [^(]*$/],
  [
    'notConnected',
    /^waiting for QEMU to connect \(-netdev stream\)($|; last: the other side closed the connection$)/,
  ],
  [
    'notListening',
    /^waiting for QEMU to listen at [^(]* \(-netdev stream,server=on\)($|; last: the other side closed the connection$)/,
  ],
  ['notServing', /^not started yet|^not attached yet|^the port was stopped/],
  ['unixFraming', /the other side sent a frame of/],
  ['tapMoved', /^[^;]+ was (renamed|moved) to [^;]+$/],
  ['captureOver', /^capture read to its end|^the next frame is due in/],
  ['noLink', /has no link/],
];

/** Of all else that a port of this kind says. */
const OTHERWISE: { readonly [Kind in PortKind]: AdviceName } = {
  'vhost-user': 'frontEndFault',
  unix: 'unixPeer',
  tap: 'tapPort',
  pcap: 'capturePort',
  dpdk: 'dpdkPort',
};

/** `reason`: a port's, or a queue's as `queueStoppedText` has it. */
export function adviceOnReason(kind: PortKind, reason: string): AdviceName {
  const found = WORDINGS.find(([, wording]) =>
    typeof wording === 'string' ? reason.includes(wording) : wording.test(reason),
  );
  return found?.[0] ?? OTHERWISE[kind];
}
