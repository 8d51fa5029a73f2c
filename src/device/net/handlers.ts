/**
 * What each vhost-user request does to a device: one entry a message, typed by the table in protocol/, so
 * that a message without a handler does not compile. Ring and memory rules live in device.ts; here is only
 * the translation of requests. Main thread.
 */
import type { BodyValues } from '../../../protocol/vhost-user/codec.ts';
import type { Body, BodyOf, MessageName, ReplyOf } from '../../../protocol/vhost-user/messages.ts';
import type { IncomingFds } from '../../vhost-user/incoming-fds.ts';
import { PeerError } from '../../vhost-user/peer-error.ts';
import type { Device } from '../device.ts';

type Reply<Name extends MessageName> = ReplyOf<Name> extends Body ? BodyValues[ReplyOf<Name>] : undefined;
type MaybeAsync<T> = T extends undefined ? void | Promise<void> : T | Promise<T>;

type Handlers = {
  readonly [Name in MessageName]: (
    device: Device,
    body: BodyValues[BodyOf<Name>],
    fds: IncomingFds,
  ) => MaybeAsync<Reply<Name>>;
};

const HANDLERS: Handlers = {
  GET_FEATURES: (device) => device.offeredFeatures,
  SET_FEATURES: (device, features) => device.setFeatures(features),
  SET_OWNER: () => {},
  // Deprecated, and front-ends mean different things by it: connections begin and end a device instead.
  RESET_OWNER: () => {},
  GET_PROTOCOL_FEATURES: (device) => device.offeredProtocolFeatures,
  SET_PROTOCOL_FEATURES: (device, features) => device.setProtocolFeatures(features),
  GET_QUEUE_NUM: (device) => BigInt(device.options.queuePairsMax),

  SET_MEM_TABLE: (device, regions, fds) => device.replaceMemory(regions, fds),
  GET_MAX_MEM_SLOTS: (device) => BigInt(device.memorySlotsMax),
  ADD_MEM_REG: (device, region, fds) => device.addMemory(region, fds),
  REM_MEM_REG: (device, region) => device.removeMemory(region),
  SET_LOG_BASE: () => {
    throw new PeerError('dirty-page logging is not offered');
  },
  // Only wakes a front-end that waits for log changes; there is no log.
  SET_LOG_FD: () => {},

  SET_VRING_NUM: (device, { index, num }) => device.setRingSize(index, num),
  SET_VRING_ADDR: (device, addr) => device.setRingAddresses(addr),
  SET_VRING_BASE: (device, { index, num }) => device.setRingBase(index, num),
  GET_VRING_BASE: async (device, { index }) => ({ index, num: await device.stopRing(index) }),
  SET_VRING_KICK: (device, { index }, fds) => device.startRing(index, fds.take()),
  SET_VRING_CALL: (device, { index }, fds) => device.setRingCall(index, fds.take()),
  SET_VRING_ERR: (device, { index }, fds) => device.setRingError(index, fds.take()),
  SET_VRING_ENABLE: (device, { index, num }) => device.enableRing(index, num),

  NET_SET_MTU: (device, mtu) => device.setMtu(mtu),
  GET_CONFIG: (device, config) => device.readConfig(config),
  SET_CONFIG: () => {
    throw new PeerError('the configuration space of a network device is read-only');
  },
};

/** Calls the handler of `name`. The table pairs names with bodies, which the compiler cannot follow here. */
export function handle(
  name: MessageName,
  device: Device,
  body: BodyValues[Body],
  fds: IncomingFds,
): BodyValues[Body] | undefined | Promise<BodyValues[Body] | undefined> {
  const handler = HANDLERS[name] as (
    device: Device,
    body: BodyValues[Body],
    fds: IncomingFds,
  ) => BodyValues[Body] | undefined;
  return handler(device, body, fds);
}
