/**
 * What a front-end is told by message instead of by a descriptor (vhost-user.rst, "In-band notifications"): that buffers
 * were used (VRING_CALL) and that a ring stands still (VRING_ERR), over the channel that SET_BACKEND_REQ_FD brought. The
 * workers do not know of it: they signal an eventfd as ever, which is ours and watched here.
 *
 * A front-end that does not read or does not answer makes nobody wait. Of each ring one notice of a kind is on its way at
 * most; what comes meanwhile waits as one more, and goes when that one was answered. Main thread.
 */
import { BACK_END_MESSAGES } from '../../protocol/vhost-user/messages.ts';
import { closeFd, createEventFd, drainFd } from '../host/descriptor.ts';
import { descriptorLoop, type Watch } from '../host/event-loop.ts';
import type { PeerFds } from '../host/peer-fds.ts';
import type { ChannelRole } from '../vhost-user/channel.ts';
import { PeerError } from '../vhost-user/peer-error.ts';
import { Requests } from '../vhost-user/requests.ts';
import type { Sent } from './translations.ts';

/** More than all rings' notices, so that a channel is never ended for being full. */
const ROLE: ChannelRole = { peer: 'front-end', accepts: 'replies', unsentBytesMax: 2 ** 16 };

class Notice {
  readonly name: keyof typeof BACK_END_MESSAGES;
  readonly index: number;
  /** There is something to tell that was not sent. */
  isDue = false;
  /** Sent, and not answered yet. */
  isUnanswered = false;

  constructor(name: keyof typeof BACK_END_MESSAGES, index: number) {
    this.name = name;
    this.index = index;
  }
}

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

  constructor(peerFds: PeerFds, onChange: () => void) {
    this.#peerFds = peerFds;
    this.#onChange = onChange;
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
    );
    channel.replyAck = true;
    this.#channel = channel;
    for (const notice of this.#notices) {
      notice.isDue ||= notice.isUnanswered;
      notice.isUnanswered = false;
      this.#push(notice);
    }
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
    channel?.end(reason);
  }

  #listen(calls: Calls): void {
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
    if (!notice.isDue || notice.isUnanswered || channel === null || !channel.isOpen) return;
    notice.isDue = false;
    notice.isUnanswered = true;
    const { name, index } = notice;
    const wasFull = channel.isFull;
    const answered = channel.ask(name, BACK_END_MESSAGES[name], { index, num: 0 });
    if (channel.isFull !== wasFull) this.#onChange();
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
    notice.isUnanswered = false;
    this.#push(notice);
    const calls = this.#calls.get(notice.index);
    if (calls?.notice === notice && calls.watch === null && !notice.isDue && !notice.isUnanswered)
      this.#listen(calls);
  }
}
