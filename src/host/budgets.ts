/**
 * What all peers together may use of things that the process has only so many of: pieces of address space
 * (vm.max_map_count) and descriptors (RLIMIT_NOFILE). Running out of either would end the process or starve a peer that
 * did nothing wrong, so what peers may have is less than there is, and the last quarter of that is for those who ask
 * for as little as every guest needs. What comes unasked is counted when it is there. Main thread.
 */
import { readFileSync } from 'node:fs';
import { SCM_FDS_MAX } from './unix-socket.ts';

/** For the user: what is used up, and how to have more of it. */
export class BudgetError extends Error {
  override name = 'BudgetError';
}

/** What is not asked for before it is there. */
export type Unasked = {
  /** Set aside beyond `max` for what comes at once. */
  readonly spare: number;
  /** How many there are that `add` was not told of. */
  readonly others: () => number;
  /** Who could give some back, as the end of a sentence; null: nobody in particular. */
  readonly holders: () => string | null;
};

const NOTHING_UNASKED: Unasked = { spare: 0, others: () => 0, holders: () => null };

export class Budget {
  readonly max: number;
  readonly #unasked: Unasked;
  readonly #needed: number;
  readonly #what: string;
  readonly #remedy: string;
  #used = 0;

  /** `what`: in the plural; `needed`: what every peer gets until nothing is left; more only of the first 3/4. */
  constructor(what: string, max: number, needed: number, remedy: string, unasked = NOTHING_UNASKED) {
    this.#unasked = unasked;
    this.#what = what;
    this.max = max;
    this.#needed = needed;
    this.#remedy = remedy;
  }

  /** May be more than `max`. */
  get used(): number {
    return this.#used + this.#unasked.others();
  }

  /** So many more may come at once and leave alone what is ours. */
  get room(): number {
    return this.max + this.#unasked.spare - this.used;
  }

  /** Why there are too few for what came unasked, for the user. */
  get shortage(): string {
    return `${this.#whatAllHave} (${this.#remedy})`;
  }

  get #whatAllHave(): string {
    const holders = this.#unasked.holders();
    return `all guests together have ${this.used} of ${this.max}${holders === null ? '' : `, ${holders}`}`;
  }

  /** For a peer that has `has` of them. @throws BudgetError when it cannot have `count` more */
  take(count: number, has: number): void {
    const isMore = has + count > this.#needed;
    const limit = isMore ? Math.floor((this.max * 3) / 4) : this.max;
    if (this.used + count > limit) {
      const [share, why] = isMore
        ? [`more than ${this.#needed} ${this.#what} for one guest`, ', and the last quarter is for others']
        : [`${this.#what} left`, ''];
      throw new BudgetError(`no ${share}: ${this.#whatAllHave}${why} (${this.#remedy})`);
    }
    this.#used += count;
  }

  /** For what is there already, whether there is room or not. */
  add(count: number): void {
    this.#used += count;
  }

  give(count: number): void {
    this.#used -= count;
  }
}

/** A quarter of the pieces: a region is one, and cuts what lies around it in two; half stays for ourselves. */
export function regionBudget(): Budget {
  const pieces = numberIn('/proc/sys/vm/max_map_count', /^(\d+)/, 65_530);
  return new Budget('memory regions', Math.floor(pieces / 4), 16, `vm.max_map_count is ${pieces}: raise it`);
}

/**
 * One message can bring as many as the kernel sends at once: these are kept free, or a quarter where few may be open. Of
 * the others front-ends have three quarters; the rest is ours.
 */
export function descriptorBudget(
  unasked: Omit<Unasked, 'spare'>,
  files = numberIn('/proc/self/limits', /^Max open files\s+(\d+)/m, 1024),
): Budget {
  const spare = Math.min(SCM_FDS_MAX, Math.floor(files / 4));
  const remedy = `${files} may be open: raise the limit of open files, LimitNOFILE= or ulimit -n`;
  return new Budget('descriptors', Math.floor(((files - spare) * 3) / 4), DescriptorShare.BASE, remedy, {
    ...unasked,
    spare,
  });
}

/** What one front-end has of the descriptors: reserved before they come, so that they cannot run out meanwhile. */
export class DescriptorShare {
  static readonly #PER_RING = 3;
  /**
   * Its connection, the back-end's own channel, and the rings of a card with one pair of queues. What a message brings
   * besides is counted while it is held (PeerFds).
   */
  static readonly BASE = 2 + 3 * DescriptorShare.#PER_RING;
  readonly #budget: Budget;
  #count = 0;
  #fileCount = 0;

  /** @throws BudgetError */
  constructor(budget: Budget) {
    this.#budget = budget;
    this.#grow(DescriptorShare.BASE);
  }

  /** It names so many rings. @throws BudgetError */
  forRings(count: number): void {
    const wanted = DescriptorShare.BASE + (count - 3) * DescriptorShare.#PER_RING;
    if (wanted > this.#count) this.#grow(wanted - this.#count);
  }

  /** It shares a file that is to be kept open. False: there is no room for it. */
  takeFile(): boolean {
    try {
      this.#budget.take(1, this.#count + this.#fileCount);
    } catch (error) {
      if (error instanceof BudgetError) return false;
      throw error;
    }
    this.#fileCount++;
    return true;
  }

  /** Such a file is not kept any more. */
  giveFile(): void {
    this.#budget.give(1);
    this.#fileCount--;
  }

  release(): void {
    this.#budget.give(this.#count + this.#fileCount);
    this.#count = 0;
    this.#fileCount = 0;
  }

  #grow(count: number): void {
    this.#budget.take(count, this.#count);
    this.#count += count;
  }
}

function numberIn(path: string, pattern: RegExp, otherwise: number): number {
  try {
    return Number(pattern.exec(readFileSync(path, 'utf8'))?.[1] ?? otherwise);
  } catch {
    return otherwise;
  }
}
