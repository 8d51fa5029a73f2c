/** Public surface of the front-end folder: a vhost-user front-end with a small virtio-net driver. */

export * from '../vhost-user/front-end.ts';
export * from './driver-layout.ts';
export * from './driver-ring.ts';
export * from './guest-memory.ts';
export * from './iommu.ts';
export * from './net-device.ts';
export * from './receive-queue.ts';
export * from './send-queue.ts';
