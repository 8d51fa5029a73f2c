/** Public surface of the protocol folder: bytes and tables, no I/O and no state. */
export * from './bits.ts';
export * from './ethernet.ts';
export * from './ip.ts';
export * from './pcap.ts';
export * from './pcapng-blocks.ts';
export * from './rarp.ts';
export * from './vhost-user/codec.ts';
export * from './vhost-user/features.ts';
export * from './vhost-user/messages.ts';
export * from './virtio/features.ts';
export * from './virtio/net.ts';
export * from './virtio/packed-ring.ts';
export * from './virtio/split-ring.ts';
