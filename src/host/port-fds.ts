/**
 * What one port's front-ends left in the process of descriptors that nobody uses any more: those that are kept because
 * they may never be closed, those that wait to be closed, and connections that cannot be emptied for want of
 * descriptors. It counts for that port, and shuts it, before it is felt by others. Lives as long as the port. Main thread.
 */
import { type Budget, descriptorBudget } from './budgets.ts';
import {
  type ClosingOwner,
  closeElsewhere,
  closingCountOf,
  closingElsewhereCount,
  hangOf,
} from './closing.ts';

export class PortFds implements ClosingOwner {
  /** Kept of one port, until it is not served any more; and of all, from where on the first one of a port is too many. */
  static readonly #KEPT_MAX = 16;
  static readonly #ALL_KEPT_MAX = 512;
  /** Waiting to be closed, until no more is read from a front-end; less where few descriptors may be open. */
  static readonly #CLOSING_MAX = 64;
  static readonly #CLOSING_MIN = 8;
  /** So many ports are named. */
  static readonly #NAMED_MAX = 3;
  static #allKeptCount = 0;
  /** Of which descriptors stay open. */
  static readonly #holders = new Set<PortFds>();
  readonly #name: string | null;
  readonly #budget: Budget;
  readonly #onHangChanged: () => void;
  readonly #closingMax: number;
  #keptCount = 0;
  #unreadCount = 0;

  /**
   * `name`: of the port. What is kept, or held for a while, lowers what others get of `budget`. `onHangChanged`:
   * `hangText` is another one.
   */
  constructor(
    name: string | null = null,
    budget = processDescriptors(),
    onHangChanged: () => void = () => {},
  ) {
    this.#name = name;
    this.#budget = budget;
    this.#onHangChanged = onHangChanged;
    const share = Math.max(PortFds.#CLOSING_MIN, Math.floor(budget.max / 16));
    this.#closingMax = Math.min(PortFds.#CLOSING_MAX, share);
  }

  /** For whom descriptors stay open that nobody uses any more, as the end of a sentence; null: for nobody. */
  static holdersText(): string | null {
    const holders = [...PortFds.#holders].sort((a, b) => b.#stayingCount - a.#stayingCount);
    if (holders.length === 0) return null;
    const count = holders.reduce((sum, holder) => sum + holder.#stayingCount, 0);
    const named = holders.slice(0, PortFds.#NAMED_MAX).map((holder) => holder.#stayingText);
    const more = holders.length - named.length;
    if (more > 0) named.push(`${more} more`);
    return `${count} of these only because of ${named.join(', ')}, see there`;
  }

  /** Never closed. */
  get keptCount(): number {
    return this.#keptCount;
  }

  /** Whether no further front-end of the port should be let in, ever. */
  get isTooMany(): boolean {
    const isScarce = PortFds.#allKeptCount >= PortFds.#ALL_KEPT_MAX || this.#budget.used > this.#budget.max;
    return this.#keptCount >= (isScarce ? 1 : PortFds.#KEPT_MAX);
  }

  /** Why that is so; null: it is not. */
  get tooManyText(): string | null {
    if (!this.isTooMany) return null;
    const count = this.#keptCount;
    const what = count === 1 ? '1 descriptor' : `${count} descriptors`;
    const isKept = count === 1 ? 'is kept open' : 'are kept open';
    const scarcity = count < PortFds.#KEPT_MAX ? `, and few are left: ${this.shortage}` : '';
    return `its front-ends sent ${what} that may never answer and ${isKept}${scarcity}: remove the port and add it again`;
  }

  /** How many more the process may open for peers. */
  get room(): number {
    return this.#budget.room;
  }

  /** Why there is no room, and who could give some back. */
  get shortage(): string {
    return this.#budget.shortage;
  }

  /** Whether nothing more should be read from the port's front-ends until some of what they sent is closed. */
  get isCongested(): boolean {
    return closingCountOf(this) > this.#closingMax;
  }

  /** That what a front-end sent is not closed, because somebody holds that up; null: nobody does. */
  get hangText(): string | null {
    const hang = hangOf(this);
    if (hang === null) return null;
    const seconds = Math.floor(hang.forMs / 1000);
    const [what, why] = hang.isAtWork
      ? ['is not closed', 'whoever watches it holds that up']
      : ['waits to be closed', 'what came through other ports holds up all threads that could'];
    return `a descriptor that its front-end sent ${what} after ${seconds} s: ${why}, and no further front-end is served until it is`;
  }

  /** Why no further front-end should be let in for now; null: one may. */
  get obstruction(): string | null {
    const { hangText } = this;
    if (hangText !== null || this.#unreadCount === 0 || this.isCongested) return hangText;
    return `what its last front-end sent cannot be read, nor its connection closed, for want of descriptors: ${this.shortage}`;
  }

  /** Whether who connects has to wait, instead of being told: what it sent already would have to be closed as well. */
  get isFull(): boolean {
    return this.#unreadCount > 0 || this.isCongested;
  }

  close(fd: number, endsByItself: boolean): void {
    closeElsewhere(fd, this, endsByItself);
  }

  /** For `closing.ts`. */
  onHang(): void {
    this.#weigh();
    this.#onHangChanged();
  }

  keep(): void {
    this.#keptCount++;
    PortFds.#allKeptCount++;
    this.#budget.add(1);
    this.#weigh();
  }

  /** Of a message that is being read or handled; less than 0: no longer. */
  hold(count: number): void {
    this.#budget.add(count);
  }

  /** A connection that cannot be emptied yet (1), or is at last (-1). */
  holdUnread(count: 1 | -1): void {
    this.#unreadCount += count;
    this.#budget.add(count);
  }

  get #stayingCount(): number {
    return this.#keptCount + this.#hangingCount;
  }

  get #hangingCount(): number {
    return hangOf(this) === null ? 0 : closingCountOf(this);
  }

  get #stayingText(): string {
    const counts = [
      [this.#hangingCount, 'not closed yet'],
      [this.#keptCount, 'kept open'],
    ] as const;
    const texts = counts.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
    return `${this.#name === null ? 'no port' : `port ${this.#name}`} (${texts.join(', ')})`;
  }

  #weigh(): void {
    if (this.#stayingCount > 0) PortFds.#holders.add(this);
    else PortFds.#holders.delete(this);
  }
}

let descriptorsOfProcess: Budget | null = null;

/** Of this process, for all its peers. */
export function processDescriptors(): Budget {
  descriptorsOfProcess ??= descriptorBudget({
    others: closingElsewhereCount,
    holders: () => PortFds.holdersText(),
  });
  return descriptorsOfProcess;
}
