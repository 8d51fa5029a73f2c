/** What counts for a port of the descriptors that its front-ends left, and what is said of it. */
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { Budget, BudgetError } from '../../src/host/budgets.ts';
import { closingElsewhereCount } from '../../src/host/closing.ts';
import { createEventFd } from '../../src/host/descriptor.ts';
import { PortFds } from '../../src/host/port-fds.ts';
import { type HeldCalls, holdCloses } from './held-calls.ts';

let held: HeldCalls;
let budget: Budget;
beforeEach(() => {
  held = holdCloses(1);
  const others = { spare: 0, others: closingElsewhereCount, holders: () => PortFds.holdersText() };
  budget = new Budget('descriptors', 160, 11, 'have more', others);
});
afterEach(async () => {
  held.release();
  await vi.waitUntil(() => closingElsewhereCount() === 0);
});

/** A port of which so many descriptors are not closed, because the first one hangs. */
async function hanging(name: string, count: number): Promise<{ port: PortFds; over: Promise<void> }> {
  let tell = Promise.withResolvers<void>();
  const port = new PortFds(name, budget, () => tell.resolve());
  for (let i = 0; i < count; i++) port.close(createEventFd(), false);
  expect([port.hangText, port.obstruction]).toEqual([null, null]);
  await tell.promise;
  tell = Promise.withResolvers();
  return { port, over: tell.promise };
}

it('says that a close hangs, for as long as it does', async () => {
  const { port, over } = await hanging('vm0', 3);
  expect(port.hangText).toMatch(
    /^a descriptor that its front-end sent is not closed after \d+ s: whoever watches it holds that up, and no further front-end is served until it is$/,
  );
  expect(port.obstruction).toBe(port.hangText);
  expect([new PortFds('vm1', budget).hangText, new PortFds('vm1', budget).obstruction]).toEqual([null, null]);
  held.release();
  await over;
  expect([port.hangText, port.obstruction, PortFds.holdersText()]).toEqual([null, null, null]);
});

it.each([
  [160, 10],
  [16, 8],
  [15_000, 64],
])('of %i descriptors for all guests lets %i of one port wait', (max, most) => {
  const port = new PortFds('vm0', new Budget('descriptors', max, 11, ''));
  for (let i = 0; i < most; i++) port.close(createEventFd(), false);
  expect([port.isCongested, port.isFull]).toEqual([false, false]);
  port.close(createEventFd(), false);
  expect([port.isCongested, port.isFull]).toEqual([true, true]);
});

it('names the ports because of which nobody else gets any', async () => {
  const { port } = await hanging('vm0', 100);
  const other = new PortFds('vm1', budget);
  other.keep();
  // Not its fault.
  other.holdUnread(1);
  expect(() => budget.take(60, 11)).toThrow(
    new BudgetError(
      'no more than 11 descriptors for one guest: all guests together have 102 of 160, 101 of these only because of port vm0 (100 not closed yet), port vm1 (1 kept open), see there, and the last quarter is for others (have more)',
    ),
  );
  const more = ['vm2', 'vm3'].map((name) => new PortFds(name, budget));
  for (const one of more) one.keep();
  expect(budget.shortage).toContain('103 of these only because of port vm0 (100 not closed yet), port vm1 (');
  expect(budget.shortage).toContain('port vm2 (1 kept open), 1 more, see there');
  expect(port.obstruction).toContain('is not closed');
  expect(other.obstruction).toContain(
    'for want of descriptors: all guests together have 104 of 160, 103 of these',
  );
});
