/** What the requests that only a network device takes do to it, besides those of any device. Main thread. */
import { answer, type Handlers } from '../../vhost-user/handlers.ts';
import { PeerError } from '../../vhost-user/peer-error.ts';
import { deviceHandlers } from '../handlers.ts';
import { readConfigSpace } from './config-space.ts';
import type { NetDevice } from './net-device.ts';

export function netHandlers(net: NetDevice): Handlers {
  return {
    ...deviceHandlers(net.device),
    // Rings, the control queue's with them. QEMU and DPDK take it for pairs and only refuse to use more; whoever uses
    // more than there are is told by the ring that does not exist. Front-ends on rust-vmm's crate compare it with
    // their rings: with the number of pairs they would not start, or make too few.
    GET_QUEUE_NUM: () => {
      net.askedForQueues = true;
      return answer(BigInt(net.ringCount));
    },
    SEND_RARP: (mac) => net.announce(mac),
    NET_SET_MTU: (mtu) => net.setMtu(mtu),
    GET_CONFIG: (request) => answer(readConfigSpace(net.options, request)),
    SET_CONFIG: () => {
      throw new PeerError('the configuration space of a network device is read-only');
    },
  };
}
