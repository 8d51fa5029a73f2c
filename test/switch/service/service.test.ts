/** Ringway as a service of a manager: what it tells from its start to its end. */
import { afterEach, describe, expect, it } from 'vitest';
import { createLogger } from '../../../switch/log.ts';
import { Service } from '../../../switch/service/service.ts';
import { RingwayProcess } from '../../real/ringway-process.ts';
import { FakeManager } from './fake-manager.ts';

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

function manager(options = {}): FakeManager {
  const made = new FakeManager(options);
  closing.push(() => made.close());
  return made;
}

const count = (lines: readonly string[], line: string): number =>
  lines.filter((other) => other === line).length;

describe('a service', () => {
  it('tells when it is ready, how it is, that it lives while its workers sleep, and that it ends', async () => {
    const told = manager({ watchdogUs: 200_000 });
    const switching = await RingwayProcess.start({ ports: ['a', 'b'], spawn: told.spawn });
    let isStopped = false;
    closing.push(() => (isStopped ? undefined : switching.stop()));
    await told.until(({ told: lines }) => lines.includes('READY=1'));
    expect(told.told.slice(0, 2)).toEqual(['READY=1', 'STATUS=0 of 2 ports running']);
    await told.until(({ told: lines }) => count(lines, 'WATCHDOG=1') >= 5);
    expect(told.told).not.toContain('STOPPING=1');
    isStopped = true;
    await switching.stop();
    await told.until(({ told: lines }) => lines.includes('STOPPING=1'));
    expect(told.told.at(-1)).toBe('STATUS=stopping');
    expect(told.store).toEqual([]);
  });

  it('is not alive while one of its workers stands still', async () => {
    const told = manager();
    const environment = { notifyAddress: told.address, watchdogUs: 10_000, storeMax: 0, kept: [] };
    const service = new Service(environment, createLogger('error'));
    closing.push(() => service.close());
    let asked = 0;
    let goOn = (): void => {};
    const served = {
      portCounts: () => ({ running: 0, all: 1 }),
      allTurn: () => {
        asked++;
        return new Promise<void>((resolve) => {
          goOn = resolve;
        });
      },
    };
    service.ready(served);
    await told.until(({ told: lines }) => lines.includes('READY=1'));
    const untilAsked = async (times: number): Promise<void> => {
      while (asked < times) await new Promise((resolve) => setTimeout(resolve, 1));
    };
    await untilAsked(1);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(told.told).not.toContain('WATCHDOG=1');
    expect(asked).toBe(1);
    goOn();
    await told.until(({ told: lines }) => lines.includes('WATCHDOG=1'));
    await untilAsked(2);
    expect(count(told.told, 'WATCHDOG=1')).toBe(1);
  });
});
