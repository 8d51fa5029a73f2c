/**
 * Who owns the forwarding table's entries: per port a count and a list, and which port owns most.
 *
 * A full table evicts from the port that owns most, so that one port's flood displaces its own addresses.
 * Finding that port must cost the same with two ports or 65,535, on every insertion of a flood. Counts change
 * by one at a time, so ports are kept on lists by count: a change moves a port to the neighbouring list, and
 * the largest count in use rises or falls by at most one with it. Every operation here is a fixed number of
 * steps.
 *
 * A port's slots stand on a ring in the order in which they came; the ring's head is also the clock hand of
 * eviction (what the hand passes is last in turn).
 *
 * Every call needs the table's lock, hence plain accesses.
 */
import { type FdbViews, HEADER } from './layout.ts';

/** Rings of small integers, many lists over one array of nodes; a node is on at most one list. */
class Rings {
  declare private readonly heads: Int32Array<SharedArrayBuffer>;
  declare private readonly links: Int32Array<SharedArrayBuffer>;

  constructor(heads: Int32Array<SharedArrayBuffer>, links: Int32Array<SharedArrayBuffer>) {
    this.heads = heads;
    this.links = links;
  }

  /** First node of a list, −1 when it is empty. */
  head(list: number): number {
    return this.heads[list] - 1;
  }

  setHead(list: number, node: number): void {
    this.heads[list] = node + 1;
  }

  next(node: number): number {
    return this.links[2 * node] - 1;
  }

  /** Puts a node last on a list. */
  append(list: number, node: number): void {
    const head = this.head(list);
    if (head < 0) {
      this.setHead(list, node);
      this.link(node, node);
      return;
    }
    const last = this.links[2 * head + 1] - 1;
    this.link(last, node);
    this.link(node, head);
  }

  remove(list: number, node: number): void {
    const next = this.next(node);
    if (next === node) {
      this.setHead(list, -1);
      return;
    }
    this.link(this.links[2 * node + 1] - 1, next);
    if (this.head(list) === node) this.setHead(list, next);
  }

  /** Puts `to`, which is on no list, in the place of `from`. */
  replace(list: number, from: number, to: number): void {
    if (this.head(list) === from) this.setHead(list, to);
    const next = this.next(from);
    if (next === from) {
      this.link(to, to);
      return;
    }
    this.link(this.links[2 * from + 1] - 1, to);
    this.link(to, next);
  }

  private link(node: number, next: number): void {
    this.links[2 * node] = next + 1;
    this.links[2 * next + 1] = node + 1;
  }
}

export class FdbOwners {
  declare private readonly header: Int32Array<SharedArrayBuffer>;
  declare private readonly counts: Int32Array<SharedArrayBuffer>;
  declare private readonly slotsOfPort: Rings;
  declare private readonly portsOfCount: Rings;

  constructor(views: FdbViews) {
    this.header = views.header;
    this.counts = views.portCounts;
    this.slotsOfPort = new Rings(views.portHeads, views.slotLinks);
    this.portsOfCount = new Rings(views.countHeads, views.portLinks);
  }

  /** Entries that a port owns. */
  countOf(port: number): number {
    return this.counts[port];
  }

  /** A port's first slot in turn, −1 when it owns none. */
  firstOf(port: number): number {
    return this.slotsOfPort.head(port);
  }

  /** The slot after this one in its port's turn; the ring closes. */
  after(slot: number): number {
    return this.slotsOfPort.next(slot);
  }

  /** Makes this slot the first in its port's turn; those that were before it come last. */
  turnTo(port: number, slot: number): void {
    this.slotsOfPort.setHead(port, slot);
  }

  /** A port that owns most, `preferred` if no port owns more. At least one entry must exist. */
  heaviest(preferred: number): number {
    const most = this.header[HEADER.heaviestCount];
    return this.counts[preferred] === most ? preferred : this.portsOfCount.head(most);
  }

  add(port: number, slot: number): void {
    this.slotsOfPort.append(port, slot);
    const count = this.counts[port];
    if (count > 0) this.portsOfCount.remove(count, port);
    this.portsOfCount.append(count + 1, port);
    this.counts[port] = count + 1;
    if (count === this.header[HEADER.heaviestCount]) this.header[HEADER.heaviestCount] = count + 1;
  }

  remove(port: number, slot: number): void {
    this.slotsOfPort.remove(port, slot);
    const count = this.counts[port];
    this.portsOfCount.remove(count, port);
    if (count > 1) this.portsOfCount.append(count - 1, port);
    this.counts[port] = count - 1;
    const isHeaviest = count === this.header[HEADER.heaviestCount];
    if (isHeaviest && this.portsOfCount.head(count) < 0) this.header[HEADER.heaviestCount] = count - 1;
  }

  /** An entry has been put into another slot. */
  relocate(port: number, fromSlot: number, toSlot: number): void {
    this.slotsOfPort.replace(port, fromSlot, toSlot);
  }
}
