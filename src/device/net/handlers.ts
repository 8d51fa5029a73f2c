/** What the requests that only a network device takes do to it, besides those of any device. Main thread. */
import { answer, type Handlers } from '../../vhost-user/handlers.ts';
import { PeerError } from '../../vhost-user/peer-error.ts';
import { deviceHandlers } from '../handlers.ts';
import { readConfigSpace } from './config-space.ts';
import type { NetDevice } from './net-device.ts';

export function netHandlers(net: NetDevice): Handlers {
  return {
    ...deviceHandlers(net.device),
    // QEMU's network device counts pairs here, not rings.
    GET_QUEUE_NUM: () => answer(BigInt(net.options.queuePairsMax)),
    NET_SET_MTU: (mtu) => net.setMtu(mtu),
    GET_CONFIG: (request) => answer(readConfigSpace(net.options, request)),
    SET_CONFIG: () => {
      throw new PeerError('the configuration space of a network device is read-only');
    },
  };
}
