/**
 * The channel by itself, in both roles: whole messages with their descriptors, one at a time, an end that is told
 * once, sockets that are full, and a peer that sends without pause. How the back-end uses it: session-form.test.ts.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { closeFd, closeFds, createEventFd, drainFd, fileFacts, signalFd } from '../../src/host/descriptor.ts';
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { receive, send, socketPair } from '../../src/host/unix-socket.ts';
import {
  BACK_END_ROLE,
  Channel,
  type ChannelRole,
  FRONT_END_ROLE,
  MESSAGES_PER_TURN,
  type Message,
} from '../../src/vhost-user/channel.ts';
import { type OpenFds, openedSince, openFds } from '../host/open-fds.ts';
import { message, none, u64 } from './scripted-front-end.ts';

const REPLY = 4;

// Made at the first use: not a leak of the test that happens to be first.
descriptorLoop();

let peerFd: number;
let channel: Channel;
let messages: Message[];
let reasons: string[];
let ended: Promise<string>;
let before: OpenFds;

function open(role: ChannelRole, onMessage?: (message: Message) => void | Promise<void>): void {
  const [mine, theirs] = socketPair();
  peerFd = theirs;
  const { promise, resolve } = Promise.withResolvers<string>();
  ended = promise;
  channel = new Channel(mine, role, onMessage ?? ((message) => void messages.push(message)), (reason) => {
    reasons.push(reason);
    resolve(reason);
  });
}

const turn = (): Promise<void> => new Promise(setImmediate);
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await turn();
}

beforeEach(() => {
  before = openFds();
  messages = [];
  reasons = [];
});
afterEach(() => {
  channel.end('the test is over');
  expect(reasons).toHaveLength(1);
  closeFd(peerFd);
  for (const { fds } of messages) closeFds(fds);
  expect(openedSince(before)).toEqual([]);
});

describe.each([
  ['requests', BACK_END_ROLE, 0, REPLY, 'is marked as a reply', 'front-end'],
  ['replies', FRONT_END_ROLE, REPLY, 0, 'is not marked as a reply', 'back-end'],
] as const)('a channel that accepts %s', (_what, role, goodFlags, badFlags, complaint, peer) => {
  it('puts messages together with their descriptors, however they are cut', async () => {
    open(role);
    const event = createEventFd();
    const bytes = Buffer.concat([message(1, u64(5), goodFlags), message(3, none(), goodFlags)]);
    send(peerFd, bytes.subarray(0, 1), [event, event]);
    for (const byte of bytes.subarray(1)) {
      send(peerFd, Uint8Array.of(byte), []);
      await turn();
    }
    await until(() => messages.length === 2);
    expect(messages.map(({ header, payload, fds }) => [header.request, payload, fds.length])).toEqual([
      [1, u64(5), 2],
      [3, none(), 0],
    ]);
    expect(fileFacts(messages[0].fds[0]).inode).toBe(fileFacts(event).inode);
    closeFd(event);
  });

  it('ends at the other kind, with its descriptors closed', async () => {
    open(role);
    const event = createEventFd();
    send(peerFd, message(7, none(), badFlags), [event]);
    closeFd(event);
    expect(await ended).toBe(`message 7 ${complaint}`);
    expect(channel.isOpen).toBe(false);
    expect(messages).toEqual([]);
  });

  it('names who hung up, once', async () => {
    open(role);
    const other = peerFd;
    peerFd = createEventFd();
    closeFd(other);
    expect(await ended).toBe(`the ${peer} closed the connection`);
    channel.end('again');
    channel.send(message(1, none(), badFlags));
    expect(reasons).toHaveLength(1);
  });

  it('handles one message at a time', async () => {
    const done: (() => void)[] = [];
    open(role, (each) => {
      messages.push(each);
      return new Promise((resolve) => done.push(resolve));
    });
    for (let i = 0; i < 3; i++) send(peerFd, message(i, none(), goodFlags), []);
    await until(() => messages.length > 0);
    for (let i = 0; i < 5; i++) await turn();
    expect(messages).toHaveLength(1);
    done[0]();
    await until(() => messages.length === 2);
    channel.end('enough');
    done[1]();
    for (let i = 0; i < 5; i++) await turn();
    expect(messages).toHaveLength(2);
  });

  it('sends descriptors with the first byte, and they stay the caller’s', async () => {
    open(role);
    const event = createEventFd();
    channel.send(message(9, u64(1), badFlags), [event]);
    const { bytes, fds } = receive(peerFd, 100);
    expect(bytes).toEqual(message(9, u64(1), badFlags));
    expect(fds).toHaveLength(1);
    signalFd(event);
    expect(drainFd(fds[0])).toBe(true);
    closeFds([...fds, event]);
  });

  it.each(['at once', 'later'])(
    'lets others have their turn while the peer sends without pause, and handlers are done %s',
    async (when) => {
      let handled = 0;
      open(role, (each) => {
        closeFds(each.fds);
        handled++;
        return when === 'at once' ? undefined : Promise.resolve();
      });
      const count = 8 * MESSAGES_PER_TURN;
      const sent = message(1, none(), goodFlags);
      for (let i = 0; i < count; i++) expect(send(peerFd, sent, [])).toBe(sent.length);
      let handledBefore = 0;
      while (handled < count) {
        await turn();
        // A turn of the loop may end one of the channel's turns and begin the next.
        expect(handled - handledBefore).toBeLessThanOrEqual(2 * MESSAGES_PER_TURN);
        handledBefore = handled;
      }
    },
  );
});

describe('peers that send without pause, each message of which takes long', () => {
  it('have one message each handled in a turn of the event loop, and none waits for the others', async () => {
    const PEERS = 5;
    const MESSAGES_EACH = 8;
    let nowMs = performance.now();
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => nowMs);
    const handled = new Array<number>(PEERS).fill(0);
    const channels = handled.map((_, peer) => {
      const [mine, theirs] = socketPair();
      const onMessage = async (): Promise<void> => {
        handled[peer]++;
        nowMs += 50;
      };
      for (let i = 0; i < MESSAGES_EACH; i++) send(theirs, message(1, none(), 0), []);
      return { theirs, peer: new Channel(mine, BACK_END_ROLE, onMessage, () => {}) };
    });
    const sum = (): number => handled.reduce((all, count) => all + count, 0);
    for (let handledBefore = 0; sum() < PEERS * MESSAGES_EACH; handledBefore = sum()) {
      await turn();
      // A turn of the loop may end one turn of a channel and begin the next.
      expect(sum() - handledBefore).toBeLessThanOrEqual(2 * PEERS + 1);
      expect(Math.max(...handled) - Math.min(...handled)).toBeLessThanOrEqual(2);
    }
    clock.mockRestore();
    for (const { theirs, peer } of channels) {
      peer.end('the test is over');
      closeFd(theirs);
    }
    open(BACK_END_ROLE);
  });
});

describe('a socket that is full', () => {
  /** Fills the socket towards the peer; answers how many messages went. */
  function flood(flags: number, most: number): number {
    let count = 0;
    while (count < most && channel.isOpen) {
      channel.send(message(count, new Uint8Array(4000), flags));
      count++;
    }
    return count;
  }

  it('ends a back-end whose front-end does not read its replies', async () => {
    open(BACK_END_ROLE);
    expect(flood(REPLY, 5000)).toBeLessThan(5000);
    expect(await ended).toBe('the front-end does not read its replies');
  });

  it('makes a front-end wait, and what it sent arrives in order, with descriptors that it closed since', async () => {
    open(FRONT_END_ROLE);
    const count = flood(0, 500);
    const event = createEventFd();
    channel.send(message(count, none()), [event]);
    closeFd(event);
    expect(channel.isOpen).toBe(true);
    let seen: Uint8Array = none();
    const fds: number[] = [];
    const wanted = count * 4012 + 12;
    while (seen.length < wanted) {
      const received = receive(peerFd, 8192);
      seen = new Uint8Array(Buffer.concat([seen, received.bytes]));
      fds.push(...received.fds);
      if (received.bytes.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const view = new DataView(seen.buffer);
    for (let i = 0; i <= count; i++) expect(view.getUint32(4012 * i, true)).toBe(i);
    expect(fds).toHaveLength(1);
    closeFds(fds);
  });

  it('ends a front-end whose back-end reads nothing at all, and closes what waited', async () => {
    open(FRONT_END_ROLE);
    flood(0, 100);
    const event = createEventFd();
    channel.send(message(1, none()), [event]);
    closeFd(event);
    expect(flood(0, 5000)).toBeLessThan(5000);
    expect(await ended).toBe('the back-end does not read its requests');
  });
});
