/**
 * Ringway as a library: build vhost-user back-ends and front-ends of your own. The switch itself is
 * `ringway/switch`; wire formats are `ringway/protocol`.
 */

export { Device, type DeviceContext } from './device/device.ts';
export type { DeviceKind } from './device/device-kind.ts';
export { NetDevice } from './device/net/net-device.ts';
export type { DeviceOptions } from './device/net/options.ts';
export * from './frontend/index.ts';
export { HostError } from './host/errors.ts';
export { SocketPathError } from './host/unix-socket.ts';
export { Arena, type ArenaLocation } from './memory/arena.ts';
export { ArenaView } from './memory/arena-view.ts';
export { type GpaMap, GpaTranslator } from './memory/gpa-translator.ts';
export { GuestMemory } from './memory/guest-memory.ts';
export { MemoryError } from './memory/peer-mapping.ts';
export type { Port, PortContext, PortEvents, PortKind, PortState, PortStatus } from './port/contract.ts';
export { PcapPort } from './port/pcap/port.ts';
export { TapPort } from './port/tap/port.ts';
export { UnixDatagramPort } from './port/unix/dgram.ts';
export { UnixStreamPort } from './port/unix/stream.ts';
export { VhostUserPort, type VhostUserPortOptions } from './port/vhost-user/port.ts';
export * from './queue/batch.ts';
export * from './queue/contract.ts';
export type { DataPath } from './queue/data-path.ts';
export { readHeads } from './queue/heads.ts';
export type { MirrorSource, PortPolicy } from './queue/policy.ts';
export { queueStates } from './queue/state.ts';
export { Session, type SessionEvents } from './vhost-user/back-end.ts';
export { answer, type BackEnd, type Handlers } from './vhost-user/handlers.ts';
export { PeerError } from './vhost-user/peer-error.ts';
export { faultMessage, RING_FAULT } from './vring/faults.ts';
export { FromGuest } from './vring/from-guest.ts';
export { ToGuest } from './vring/to-guest.ts';
