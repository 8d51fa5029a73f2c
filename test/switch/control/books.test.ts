/** The books of ports and of the switch: where each term comes from, how they add up, and what is said if they do not. */
import { describe, expect, it } from 'vitest';
import { COUNT_LOST, QueueState, queueStates } from '../../../src/queue/state.ts';
import { type Books, booksOf, imbalances, NO_BOOKS, sumBooks } from '../../../switch/control/books.ts';
import { DROP, DROP_REASONS, type DropReason } from '../../../switch/l2/drop-reasons.ts';
import { COUNT_COPIES, COUNT_FORWARDED, COUNT_OFFERED, PORT_COUNTS } from '../../../switch/l2/port-counts.ts';

const NO_FRAMES = { ingressFrames: 0, ingressBytes: 0, egressFrames: 0, egressBytes: 0 };

type Terms = Partial<Books['counters']> & { drops?: Partial<Record<DropReason, number>> };

function books({ drops = {}, ...counters }: Terms): Books {
  return { counters: { ...NO_BOOKS.counters, ...counters }, drops: { ...NO_BOOKS.drops, ...drops } };
}

describe('the books of a port', () => {
  it('have what its queues and the workers counted, each under its name', () => {
    const counts = Float64Array.from({ length: PORT_COUNTS }, (_, at) => 100 + at);
    const queues = { ingressFrames: 1, ingressBytes: 2, egressFrames: 3, egressBytes: 4 };
    expect(booksOf(queues, queueStates(2), counts)).toEqual({
      counters: {
        ...queues,
        copies: 100 + COUNT_COPIES,
        forwarded: 100 + COUNT_FORWARDED,
        offered: 100 + COUNT_OFFERED,
      },
      drops: Object.fromEntries(DROP_REASONS.map(({ name }) => [name, 100 + DROP[name]])),
    });
  });

  it('count as not taken what any of its queues lost', () => {
    const states = queueStates(6);
    for (const [queueIndex, lost] of [5, 0, 7, 0, 0, 0].entries()) {
      new QueueState(states, queueIndex).counts[COUNT_LOST] = lost;
    }
    const { drops } = booksOf(NO_FRAMES, states, new Float64Array(PORT_COUNTS));
    expect(drops).toEqual({ ...NO_BOOKS.drops, notTaken: 12 });
  });

  it('of nothing are zeros, which balance', () => {
    expect(new Set([...Object.values(NO_BOOKS.counters), ...Object.values(NO_BOOKS.drops)])).toEqual(
      new Set([0]),
    );
    expect(imbalances('nothing', NO_BOOKS, true)).toEqual([]);
  });
});

describe('the sum of books', () => {
  it('adds each term', () => {
    const one = books({ ingressFrames: 1, copies: 2, drops: { samePort: 3 } });
    const two = books({ ingressFrames: 10, offered: 20, drops: { samePort: 30, notReady: 40 } });
    expect(sumBooks([one, two, NO_BOOKS])).toEqual(
      books({ ingressFrames: 11, copies: 2, offered: 20, drops: { samePort: 33, notReady: 40 } }),
    );
  });
});

describe('the law', () => {
  /** A sender whose frame to three others is dropped by one of them, and another frame of its to nobody. */
  const sender = books({ ingressFrames: 2, copies: 2, forwarded: 3, drops: { samePort: 1 } });
  const receivers = [
    books({ offered: 1, egressFrames: 1 }),
    books({ offered: 1, egressFrames: 1 }),
    books({ offered: 1, drops: { noBuffer: 1 } }),
  ];

  it('holds for each port and for the switch', () => {
    for (const port of [sender, ...receivers]) expect(imbalances('port', port, false)).toEqual([]);
    expect(imbalances('switch', sumBooks([sender, ...receivers]), true)).toEqual([]);
  });

  it('is broken by any reason counted once too often, on its side', () => {
    for (const { name, side } of DROP_REASONS) {
      const [said, ...others] = imbalances('vm0', books({ drops: { [name]: 1 } }), false);
      expect(others).toEqual([]);
      expect(said).toBe(
        side === 'sender'
          ? 'vm0: in + copies = forwarded + drops of the sender does not hold: 0 and 1'
          : 'vm0: offered = out + drops of the receiver does not hold: 0 and 1',
      );
    }
  });

  it.each([
    [{ ingressFrames: 1 }, 'in + copies = forwarded + drops of the sender does not hold: 1 and 0'],
    [{ copies: 1 }, 'in + copies = forwarded + drops of the sender does not hold: 1 and 0'],
    [{ egressFrames: 1 }, 'offered = out + drops of the receiver does not hold: 0 and 1'],
  ])('is broken by a frame that goes missing (%o)', (terms, text) => {
    expect(imbalances('vm0', books(terms), true)).toEqual([`vm0: ${text}`]);
  });

  it('asks only the whole switch whether all that was forwarded was offered', () => {
    const lost = books({ ingressFrames: 1, forwarded: 1 });
    expect(imbalances('vm0', lost, false)).toEqual([]);
    expect(imbalances('switch', lost, true)).toEqual(['switch: forwarded = offered does not hold: 1 and 0']);
  });
});
