/** The table of groups against a naive one, and read while it is written; the ring of messages when it is full. */
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { createMessageRing, MessageRing } from '../../../../switch/l2/groups/message-ring.ts';
import { createGroupMemory, type GroupSet, GroupTable, hasPort } from '../../../../switch/l2/groups/table.ts';
import { Random, seeds } from '../../../vring/random.ts';

const PORTS = 100;
const memoryOf = (capacity: number, vlans: readonly number[] | null = null): SharedArrayBuffer =>
  createGroupMemory({ capacity, portsMax: PORTS, floodsUnregistered: false, vlans });

const portsOf = (set: Int32Array): number[] =>
  Array.from({ length: PORTS }, (_, id) => id).filter((id) => hasPort(set, id));

describe('the table', () => {
  it.each(seeds(20))('answers as a map does, whatever is published: seed %i', (seed) => {
    const random = new Random(seed);
    const capacity = random.pick([1, 7, 64]);
    const memory = memoryOf(capacity);
    const [writer, reader] = [new GroupTable(memory), new GroupTable(memory)];
    for (let round = 0; round < 20; round++) {
      const naive = new Map<string, number[]>();
      const count = random.between(0, capacity);
      const sets: GroupSet[] = [];
      for (let n = 0; n < count; n++) {
        const [macLo, macHi, vlan] = [
          random.between(0, 9) * 0x1000000 - 5,
          random.between(0, 3),
          random.between(0, 3),
        ];
        const key = `${macLo} ${macHi} ${vlan}`;
        if (naive.has(key)) continue;
        const portIds = Array.from({ length: PORTS }, (_, id) => id).filter(() => random.chance(10));
        naive.set(key, portIds);
        sets.push({ macLo, macHi, vlan, portIds });
      }
      const everywhere = [random.between(0, PORTS - 1)];
      writer.publish(sets, everywhere);
      for (let n = 0; n < 100; n++) {
        const [macLo, macHi, vlan] = [
          random.between(0, 9) * 0x1000000 - 5,
          random.between(0, 3),
          random.between(0, 3),
        ];
        const known = naive.get(`${macLo} ${macHi} ${vlan}`);
        expect(reader.find(macLo, macHi, vlan)).toBe(known !== undefined);
        if (known !== undefined) expect(portsOf(reader.found)).toEqual(known);
      }
      reader.findEverywhere();
      expect(portsOf(reader.found)).toEqual(everywhere);
    }
  });

  it('says which VLANs are looked at', () => {
    const some = new GroupTable(memoryOf(1, [0, 31, 4095]));
    expect([0, 1, 31, 32, 4094, 4095].map((vlan) => some.looksAt(vlan))).toEqual([
      true,
      false,
      true,
      false,
      false,
      true,
    ]);
    const all = new GroupTable(memoryOf(1));
    expect([0, 4095].every((vlan) => all.looksAt(vlan))).toBe(true);
  });

  it('never shows a set that is half of one and half of another, while it is written', async () => {
    const memory = memoryOf(4);
    const table = new GroupTable(memory);
    const done = new Int32Array(new SharedArrayBuffer(4));
    const program = `
      const { workerData } = require('node:worker_threads');
      import(workerData.url).then(({ GroupTable }) => {
        const table = new GroupTable(workerData.memory);
        const all = Array.from({ length: ${PORTS} }, (_, id) => id);
        for (let n = 0; Atomics.load(workerData.done, 0) === 0; n++) {
          const portIds = n % 2 === 0 ? all : [];
          table.publish([{ macLo: 1, macHi: 2, vlan: 3, portIds }], []);
        }
      });`;
    const url = new URL('../../../../switch/l2/groups/table.ts', import.meta.url).href;
    const worker = new Worker(program, { eval: true, workerData: { memory, done, url } });
    const ended = new Promise((resolve) => worker.once('exit', resolve));
    const failed = new Promise((_, reject) => worker.once('error', reject));
    const seen = new Set<number>();
    const looked = (async () => {
      for (let n = 0; n < 400_000 || seen.size < 2; n++) {
        if (table.find(1, 2, 3)) seen.add(portsOf(table.found).length);
        if (n % 10_000 === 0) await new Promise(setImmediate);
      }
    })();
    await Promise.race([looked, failed]);
    Atomics.store(done, 0, 1);
    await ended;
    expect([...seen].sort()).toEqual([0, PORTS]);
  });
});

describe('the ring of messages', () => {
  it('gives back what was put, once, and counts what found no room', () => {
    const memory = createMessageRing();
    const [worker, main] = [new MessageRing(memory), new MessageRing(memory)];
    const put = (n: number): boolean | null => {
      const place = worker.place();
      if (place === null) return null;
      place.set([n & 255, n >> 8, 7]);
      return worker.put(n, 10, 3);
    };
    let next = 0;
    for (let round = 0; round < 10; round++) {
      const first = next;
      // Only the first one has to be told of.
      expect(put(next++)).toBe(true);
      for (let n = 1; n < 256; n++) expect(put(next++)).toBe(false);
      expect(put(0)).toBeNull();
      expect(main.lost).toBe(round + 1);
      const messages = main.take();
      expect(messages.map(({ portId }) => portId)).toEqual(Array.from({ length: 256 }, (_, n) => first + n));
      expect(messages[255]).toEqual({
        portId: next - 1,
        vlan: 10,
        frame: Uint8Array.from([(next - 1) & 255, (next - 1) >> 8, 7]),
      });
      expect(main.take()).toEqual([]);
    }
  });
});
