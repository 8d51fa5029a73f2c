/**
 * Asking and answering over a real pair of sockets, with a back-end whose handlers the test writes: replies that
 * carry descriptors, acknowledgements, and answers that are none.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { encodeMessage } from '../../protocol/vhost-user/codec.ts';
import { MESSAGES } from '../../protocol/vhost-user/messages.ts';
import {
  closeFd,
  closeFds,
  createEventFd,
  drainFd,
  duplicateFd,
  signalFd,
} from '../../src/host/descriptor.ts';
import { receive, send, socketPair } from '../../src/host/unix-socket.ts';
import { Session } from '../../src/vhost-user/back-end.ts';
import { BackEndError, FrontEndSession } from '../../src/vhost-user/front-end.ts';
import { answer, type Handlers } from '../../src/vhost-user/handlers.ts';
import { World } from '../device/world.ts';
import { type OpenFds, openedSince, openFds } from '../host/open-fds.ts';
import { bit, message, none, P, u64 } from './scripted-front-end.ts';

describe('a back-end', () => {
  let world: World;
  let front: FrontEndSession;
  let session: Session;

  /** A session whose device is the world's, but for the handlers given. */
  function open(but: Partial<Handlers>): void {
    const [frontFd, backFd] = socketPair();
    front = new FrontEndSession(frontFd);
    const backEnd = {
      features: 0n,
      protocolFeatures: bit(P.MQ, P.REPLY_ACK, P.MEM_SLOTS),
      handlers: { ...world.net.handlers, ...but },
    };
    session = new Session(backFd, backEnd, { onRefused: () => {}, onEnd: () => {} });
  }

  beforeEach(() => {
    world = new World();
  });
  afterEach(async () => {
    front.close();
    await session.end('the test is over');
    await world.dispose();
  });

  it('sends descriptors with a reply, and closes its own', async () => {
    const event = createEventFd();
    open({ GET_MAX_MEM_SLOTS: () => answer(7n, [duplicateFd(event), duplicateFd(event)]) });
    front.sendRaw(encodeMessage(MESSAGES.GET_MAX_MEM_SLOTS.id, 0, none()));
    front.sendRaw(encodeMessage(MESSAGES.GET_FEATURES.id, 0, none()));
    const [reply, next] = await Promise.all([front.rawReply(), front.rawReply()]);
    expect([reply.request, reply.flags, reply.payload, reply.fds.length]).toEqual([36, 5, u64(7), 2]);
    signalFd(event);
    expect(drainFd(reply.fds[1])).toBe(true);
    closeFds([...reply.fds, event]);
    expect([next.request, next.fds]).toEqual([1, []]);
  });

  it('closes them too when the front-end is gone meanwhile', async () => {
    const asked = Promise.withResolvers<void>();
    const goOn = Promise.withResolvers<void>();
    open({
      GET_MAX_MEM_SLOTS: async () => {
        asked.resolve();
        await goOn.promise;
        return answer(7n, [createEventFd()]);
      },
    });
    const refused = expect(front.request('GET_MAX_MEM_SLOTS', null)).rejects.toThrow(BackEndError);
    await asked.promise;
    front.close();
    goOn.resolve();
    await refused;
    await session.settled();
    // That nothing stays open is checked at the end of each test.
  });
});

describe('a front-end', () => {
  let front: FrontEndSession;
  let backFd: number;
  let before: OpenFds;
  beforeEach(() => {
    before = openFds();
    const [mine, theirs] = socketPair();
    front = new FrontEndSession(mine);
    backFd = theirs;
  });
  afterEach(async () => {
    front.close();
    await front.closed;
    closeFd(backFd);
    expect(openedSince(before)).toEqual([]);
  });
  const reply = (id: number, payload: Uint8Array, fds: readonly number[] = []): void => {
    send(backFd, message(id, payload, 4), fds);
  };

  it('matches replies to requests in order', async () => {
    const answers = [
      front.request('GET_FEATURES', null),
      front.request('GET_PROTOCOL_FEATURES', null),
      front.request('GET_VRING_BASE', { index: 1, num: 0 }),
    ];
    reply(1, u64(11));
    reply(15, u64(12));
    reply(11, Uint8Array.of(1, 0, 0, 0, 9, 0, 0, 0));
    expect(await Promise.all(answers)).toEqual([11n, 12n, { index: 1, num: 9 }]);
  });

  it('asks for an acknowledgement only where there is no other reply, and takes no for an error', async () => {
    front.replyAck = true;
    const done = front.request('SET_OWNER', null);
    const refused = expect(front.request('SET_FEATURES', 1n)).rejects.toThrow(
      'the back-end refused SET_FEATURES (status 1)',
    );
    const asked = front.request('GET_FEATURES', null);
    const flagsSent = [0, 1, 2].map((_, i) => {
      const { bytes } = receive(backFd, i === 1 ? 20 : 12);
      return bytes[4];
    });
    expect(flagsSent).toEqual([9, 9, 1]);
    reply(3, u64(0));
    reply(2, u64(1));
    reply(1, u64(5));
    expect([await done, await asked]).toEqual([null, 5n]);
    await refused;
    expect(await front.request('SET_OWNER', null, { needReply: false })).toBeNull();
  });

  it('ends at an answer to something else, and closes the descriptors of an answer', async () => {
    const event = createEventFd();
    const good = front.request('GET_FEATURES', null);
    reply(1, u64(5), [event]);
    expect(await good).toBe(5n);
    const bad = front.request('GET_FEATURES', null);
    const next = expect(front.request('GET_QUEUE_NUM', null)).rejects.toThrow(/answered GET_FEATURES/);
    reply(2, u64(5), [event]);
    closeFd(event);
    await expect(bad).rejects.toThrow('the back-end answered GET_FEATURES with request 2, flags 5');
    await next;
    expect(front.isClosed).toBe(true);
  });

  it('ends at a reply that nothing asked for', async () => {
    const event = createEventFd();
    reply(1, u64(5), [event]);
    closeFd(event);
    await front.closed;
    await expect(front.request('GET_FEATURES', null)).rejects.toThrow(/message 1 that nothing asked for/);
  });

  it('is told when it sends no more', async () => {
    front.close();
    await expect(front.request('SET_OWNER', null, { needReply: true })).rejects.toThrow(BackEndError);
  });
});
