/**
 * What each vhost-user request does to a device of any kind: one entry a message. The rules of rings and memory are
 * device.ts's; here is only the translation of requests. A kind adds the handlers of its own messages
 * (net/handlers.ts). Main thread.
 */

import { answer, type Handlers } from '../vhost-user/handlers.ts';
import type { Device } from './device.ts';
import { createInflight } from './inflight.ts';
import { MEMORY_SLOTS_MAX } from './memory-map.ts';
import { layoutOf } from './ring-start.ts';

/** Messages whose meaning hangs on the kind of device. */
export type KindMessage = 'GET_QUEUE_NUM' | 'SEND_RARP' | 'NET_SET_MTU' | 'GET_CONFIG' | 'SET_CONFIG';

export function deviceHandlers(device: Device): Omit<Handlers, KindMessage> {
  return {
    GET_FEATURES: () => answer(device.offeredFeatures),
    SET_FEATURES: (features) => device.setFeatures(features),
    SET_OWNER: () => {},
    RESET_DEVICE: () => device.reset(),
    SET_STATUS: (status) => device.setStatus(status),
    GET_STATUS: () => answer(BigInt(device.status)),
    // Deprecated, and front-ends mean different things by it: connections begin and end a device instead.
    RESET_OWNER: () => {},
    GET_PROTOCOL_FEATURES: () => answer(device.offeredProtocolFeatures),
    SET_PROTOCOL_FEATURES: (features) => device.setProtocolFeatures(features),

    SET_MEM_TABLE: (regions, fds) => device.replaceMemory(regions, fds),
    GET_MAX_MEM_SLOTS: () => answer(BigInt(MEMORY_SLOTS_MAX)),
    ADD_MEM_REG: (region, fds) => device.addMemory(region, fds),
    REM_MEM_REG: (region) => device.removeMemory(region),
    // Front-ends expect nothing, 8 or 16 bytes of a reply; QEMU and rust-vmm's take these.
    SET_LOG_BASE: async (description, fds) => {
      await device.setLog(description, fds);
      return answer(description);
    },
    SET_LOG_FD: (_, fds) => device.setLogSignal(fds),

    GET_INFLIGHT_FD: (asked) => {
      const { body, fd } = createInflight(asked, layoutOf(device.features), device.ringCount);
      return answer(body, [fd]);
    },
    SET_INFLIGHT_FD: (set, fds) => device.setInflight(set, fds),

    IOTLB_MSG: (message) => device.followIotlb(message),
    SET_BACKEND_REQ_FD: (_, fds) => device.setBackEndChannel(fds),

    SET_VRING_NUM: ({ index, num }) => device.setRingSize(index, num),
    SET_VRING_ADDR: (addresses) => device.setRingAddresses(addresses),
    SET_VRING_BASE: ({ index, num }) => device.setRingBase(index, num),
    GET_VRING_BASE: async ({ index }) => answer({ index, num: await device.stopRing(index) }),
    // Between two bursts nothing is in hand, so there is nothing to wait for that this one would not wait for.
    GET_VRING_BASE_SKIP_DRAIN: async ({ index }) => answer({ index, num: await device.stopRing(index) }),
    VRING_KICK: ({ index, num }) => device.kickRing(index, num),
    SET_VRING_KICK: ({ index }, fds) => device.startRing(index, fds),
    SET_VRING_CALL: ({ index }, fds) => device.setRingCall(index, fds),
    SET_VRING_ERR: ({ index }, fds) => device.setRingError(index, fds),
    SET_VRING_ENABLE: ({ index, num }) => device.enableRing(index, num),
  };
}
