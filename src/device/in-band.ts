/**
 * What a front-end is told by message instead of by a descriptor (vhost-user.rst, "In-band notifications"): that buffers
 * were used (VRING_CALL) and that a ring stands still (VRING_ERR), over the channel that SET_BACKEND_REQ_FD brought. The
 * workers do not know of it: they signal an eventfd as ever, which is ours and watched here.
 *
 * A front-end that does not read or does not answer makes nobody wait. Of each ring one notice of a kind is on its way at
 * most; what comes meanwhile waits as one more, and goes when that one was answered. While the device is at rest nothing is
 * sent or read, so that all of it can go to another process. Main thread.
 */
import assert from 'node:assert/strict';
import { BACK_END_MESSAGES } from '../../protocol/vhost-user/messages.ts';
import { closeFd, createEventFd, drainFd } from '../host/descriptor.ts';
import { descriptorLoop, type Watch } from '../host/event-loop.ts';
import type { PeerFds } from '../host/peer-fds.ts';
import type { ChannelRole } from '../vhost-user/channel.ts';
import { PeerError } from '../vhost-user/peer-error.ts';
import { type HandedRequests, Requests } from '../vhost-user/requests.ts';
import type { Sent } from './translations.ts';

/** More than all rings' notices, so that a channel is never ended for being full. */
const ROLE: ChannelRole = { peer: 'front-end', accepts: 'replies', unsentBytesMax: 2 ** 16 };

const EMPTY = new Uint8Array(0);
const NOTHING_TAKEN: HandedRequests = { halfRead: { bytes: EMPTY, fds: [] }, unsent: EMPTY };

class Notice {
  readonly name: NoticeName;
  readonly index: number;
  /** There is something to tell that was not sent. */
  isDue: boolean;
  /** Sent, and not answered yet. */
  isUnanswered = false;

  constructor(name: NoticeName, index: number, isDue = false) {
    this.name = name;
    this.index = index;
    this.isDue = isDue;
  }
}

type NoticeName = keyof typeof BACK_END_MESSAGES;
type HandedNotice = { readonly index: number; readonly isDue: boolean };

/** At rest, but for the connection itself; bytes in base64. */
export type HandedInBand = {
  readonly endReason: string | null;
  readonly refusedCount: number;
  readonly halfRead: string;
  readonly unsent: string;
  readonly calls: readonly HandedNotice[];
  readonly errors: readonly HandedNotice[];
  /** In the order in which they were sent. */
  readonly unanswered: readonly { readonly name: NoticeName; readonly index: number }[];
};

/** Signalled by who uses the ring. Not watched while its notice is due or unanswered. */
type Calls = { readonly fd: number; readonly notice: Notice; watch: Watch | null };

export class InBandNotices {
  readonly #peerFds: PeerFds;
  readonly #onChange: () => void;
  readonly #calls = new Map<number, Calls>();
  readonly #errors = new Map<number, Notice>();
  #channel: Requests | null = null;
  /** Why there is no channel any more. */
  #endReason: string | null = null;
  #refusedCount = 0;
  /** Sent on the channel and not answered, in that order. */
  #unanswered: Notice[] = [];
  #isAtRest: boolean;
  /** The connection of another process, until the rest ends; -1: none. */
  #takenFd = -1;
  #takenChannel: HandedRequests | null = null;

  constructor(peerFds: PeerFds, onChange: () => void, isAtRest: boolean) {
    this.#peerFds = peerFds;
    this.#onChange = onChange;
    this.#isAtRest = isAtRest;
  }

  /** The connection; -1: there is none. */
  get channelFd(): number {
    if (this.#takenFd >= 0) return this.#takenFd;
    return this.#channel?.isOpen === true ? this.#channel.fd : -1;
  }

  /** Nobody signals any more until `goOn`, and nothing is told or heard of. */
  rest(): void {
    if (this.#isAtRest) return;
    this.#isAtRest = true;
    this.#channel?.pause();
    for (const calls of this.#calls.values()) {
      calls.watch?.close();
      calls.watch = null;
      if (drainFd(calls.fd)) calls.notice.isDue = true;
    }
  }

  goOn(): void {
    if (!this.#isAtRest) return;
    this.#isAtRest = false;
    const taken = this.#takenFd;
    this.#takenFd = -1;
    if (taken >= 0) this.#openChannel(taken, this.#takenChannel ?? NOTHING_TAKEN);
    if (this.#channel?.isOpen === true) this.#channel.resume();
    for (const notice of this.#notices) this.#push(notice);
    for (const calls of this.#calls.values()) this.#listenIfQuiet(calls);
  }

  /** Of one at rest. */
  handOver(): HandedInBand {
    const channel = this.#channel?.handOver() ?? null;
    // What was sent on a connection that has ended is told on the next one.
    const handed = ({ index, isDue, isUnanswered }: Notice): HandedNotice => ({
      index,
      isDue: isDue || (channel === null && isUnanswered),
    });
    return {
      endReason: this.#endReason,
      refusedCount: this.#refusedCount,
      halfRead: base64(channel?.halfRead.bytes ?? EMPTY),
      unsent: base64(channel?.unsent ?? EMPTY),
      calls: [...this.#calls.values()].map(({ notice }) => handed(notice)),
      errors: [...this.#errors.values()].map(handed),
      unanswered: channel === null ? [] : this.#unanswered.map(({ name, index }) => ({ name, index })),
    };
  }

  /** Of another process's, whose connection `setChannel` brought if there was one; at rest. */
  takeOver(handed: HandedInBand): void {
    assert(this.#isAtRest, 'nobody uses it');
    this.#endReason = handed.endReason;
    this.#refusedCount = handed.refusedCount;
    const halfRead = { bytes: Buffer.from(handed.halfRead, 'base64'), fds: [] };
    this.#takenChannel = { halfRead, unsent: Buffer.from(handed.unsent, 'base64') };
    for (const { index, isDue } of handed.calls) {
      this.callFdOf(index);
      const calls = this.#calls.get(index);
      if (calls !== undefined) calls.notice.isDue = isDue;
    }
    for (const { index, isDue } of handed.errors)
      this.#errors.set(index, new Notice('VRING_ERR', index, isDue));
    this.#unanswered = handed.unanswered.map(({ name, index }) => {
      const known = name === 'VRING_CALL' ? this.#calls.get(index)?.notice : this.#errors.get(index);
      // Of a ring that has a descriptor by now there is only the answer to come.
      const notice = known ?? new Notice(name, index);
      notice.isUnanswered = true;
      return notice;
    });
  }

  /** Why the front-end does not learn of what it should, for the user; otherwise null. */
  get warning(): string | null {
    if (this.#endReason !== null)
      return `the connection by which the front-end wants to be notified has ended: ${this.#endReason}`;
    if (this.#channel?.isFull === true)
      return `the front-end does not read its notifications (${this.#waitingCount} wait)`;
    return this.#refusedCount > 0 ? `the front-end refused ${this.#refusedCount} notifications` : null;
  }

  /** Takes over the connection; what the one before did not come to is told on this one. */
  setChannel(fd: number): void {
    this.#endChannel('another one took its place');
    this.#endReason = null;
    if (this.#isAtRest) {
      this.#takenFd = fd;
      return;
    }
    this.#openChannel(fd, null);
    for (const notice of this.#notices) {
      notice.isDue ||= notice.isUnanswered;
      notice.isUnanswered = false;
      this.#push(notice);
    }
  }

  #openChannel(fd: number, handed: HandedRequests | null): void {
    const channel = new Requests(
      fd,
      ROLE,
      (reason) => new PeerError(reason),
      (reason) => {
        if (this.#channel !== channel) return;
        this.#endReason = reason;
        this.#onChange();
      },
      this.#peerFds.another(),
      handed,
    );
    channel.replyAck = true;
    this.#channel = channel;
    for (const notice of this.#unanswered)
      this.#await(channel, notice, channel.answer(notice.name, BACK_END_MESSAGES[notice.name]));
  }

  /** Sends what no reply is asked for; answers what became of it. */
  send(bytes: Uint8Array): Sent {
    const channel = this.#channel;
    if (channel === null || !channel.isOpen) return 'none';
    if (channel.isFull) return 'full';
    channel.sendRaw(bytes);
    return 'sent';
  }

  /** An eventfd of ours: whoever signals it has the front-end told that the ring's driver is to be interrupted. */
  callFdOf(ringIndex: number): number {
    const known = this.#calls.get(ringIndex);
    if (known !== undefined) return known.fd;
    const calls: Calls = { fd: createEventFd(), notice: new Notice('VRING_CALL', ringIndex), watch: null };
    this.#calls.set(ringIndex, calls);
    this.#listen(calls);
    return calls.fd;
  }

  /** Nobody signals it any more. */
  forgetCalls(ringIndex: number): void {
    const calls = this.#calls.get(ringIndex);
    if (calls === undefined) return;
    this.#calls.delete(ringIndex);
    calls.watch?.close();
    closeFd(calls.fd);
  }

  tellError(ringIndex: number): void {
    const notice = this.#errors.get(ringIndex) ?? new Notice('VRING_ERR', ringIndex);
    this.#errors.set(ringIndex, notice);
    notice.isDue = true;
    this.#push(notice);
  }

  /** Nobody signals any more, and nobody is there to be told. */
  close(): void {
    for (const ringIndex of [...this.#calls.keys()]) this.forgetCalls(ringIndex);
    this.#errors.clear();
    this.#endChannel('the device was let go');
  }

  /** Of a connection that was taken over, and never used. */
  #closeTaken(): void {
    if (this.#takenFd >= 0) this.#peerFds.close([this.#takenFd]);
    this.#takenFd = -1;
  }

  get #notices(): readonly Notice[] {
    return [...[...this.#calls.values()].map(({ notice }) => notice), ...this.#errors.values()];
  }

  get #waitingCount(): number {
    return this.#notices.reduce(
      (sum, { isDue, isUnanswered }) => sum + Number(isDue) + Number(isUnanswered),
      0,
    );
  }

  #endChannel(reason: string): void {
    const channel = this.#channel;
    this.#channel = null;
    this.#unanswered = [];
    this.#closeTaken();
    channel?.end(reason);
  }

  #listenIfQuiet(calls: Calls): void {
    const { notice, watch } = calls;
    if (watch === null && !notice.isDue && !notice.isUnanswered) this.#listen(calls);
  }

  #listen(calls: Calls): void {
    if (this.#isAtRest) return;
    calls.watch = descriptorLoop().watch(calls.fd, () => {
      if (!drainFd(calls.fd)) return;
      calls.watch?.close();
      calls.watch = null;
      calls.notice.isDue = true;
      this.#push(calls.notice);
    });
  }

  #push(notice: Notice): void {
    const channel = this.#channel;
    if (this.#isAtRest || !notice.isDue || notice.isUnanswered) return;
    if (channel === null || !channel.isOpen) return;
    notice.isDue = false;
    notice.isUnanswered = true;
    this.#unanswered.push(notice);
    const { name, index } = notice;
    const wasFull = channel.isFull;
    this.#await(channel, notice, channel.ask(name, BACK_END_MESSAGES[name], { index, num: 0 }));
    if (channel.isFull !== wasFull) this.#onChange();
  }

  #await(channel: Requests, notice: Notice, answered: Promise<unknown>): void {
    void answered.then(
      () => this.#goOn(channel, notice),
      () => {
        // Otherwise it has ended, and the next one tells it again.
        if (!channel.isOpen) return;
        this.#refusedCount++;
        this.#goOn(channel, notice);
      },
    );
  }

  #goOn(channel: Requests, notice: Notice): void {
    if (channel !== this.#channel) return;
    const place = this.#unanswered.indexOf(notice);
    if (place >= 0) this.#unanswered.splice(place, 1);
    notice.isUnanswered = false;
    this.#push(notice);
    const calls = this.#calls.get(notice.index);
    if (calls?.notice === notice) this.#listenIfQuiet(calls);
  }
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64');
}
