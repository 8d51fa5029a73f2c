/** Which receivers are told that a frame's checksum is known to be right: those that agreed on checksums, and no others. */
import { afterAll, expect, it } from 'vitest';
import type { Batch } from '../../../src/queue/batch.ts';
import { OFFLOAD_CHECKSUM, OFFLOAD_TSO4 } from '../../../src/queue/requests.ts';
import { FakeSwitch } from './fake-switch.ts';
import { arena, ethernet } from './frames.ts';

afterAll(() => arena.release());

const ALL = [255, 255, 255, 255, 255, 255];

it.each([
  ['flooded', ALL],
  ['to one', 3],
])('a frame %s', (_, to) => {
  const world = new FakeSwitch(1, 1, 1, 1);
  const [sender, ...receivers] = world.ports;
  for (const [i, port] of receivers.entries()) world.send(port, ethernet(sender.state.id, i + 1, {}));
  const takes = [OFFLOAD_CHECKSUM, 0, OFFLOAD_CHECKSUM | OFFLOAD_TSO4];
  const told: string[] = [];
  for (const [i, port] of receivers.entries()) {
    world.follow(port, { takes: takes[i] });
    const [queue] = port.to;
    const place = queue.place.bind(queue);
    queue.place = (batch: Batch, order: Int32Array, count: number): void => {
      told.push(`${i} ${batch.isToldValid(order[0])} ${batch.isToldValid(order[1])}`);
      place(batch, order, count);
    };
  }
  const gather = sender.from.gather.bind(sender.from);
  sender.from.gather = (batch: Batch): number => {
    const count = gather(batch);
    batch.beginAsking();
    batch.requests.noteValid(0);
    return count;
  };
  const frame = ethernet(to, 99, {});
  world.send(sender, frame, frame);
  expect(told.sort()).toEqual(
    to === ALL ? ['0 true false', '1 false false', '2 true false'] : ['2 true false'],
  );
});
