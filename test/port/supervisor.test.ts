/**
 * The life of a port with made-up steps: their order, what is said and tried again, and that a port that is stopped
 * anywhere ends once, with nothing left. At the end seeded sequences of everything at once.
 */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { HostError } from '../../src/host/errors.ts';
import { type PortSteps, Supervisor, type Trouble } from '../../src/port/supervisor.ts';
import { Random } from '../vring/random.ts';
import { Events } from './events.ts';

const PAUSES = { minMs: 2, maxMs: 16 };

/** What the outside lacks now. */
class Missing extends Error {}

/** Steps that remember what was done, and can be held at any one. */
class TestSteps implements PortSteps {
  readonly log: string[] = [];
  /** Thrown by the next calls of `attach`, one each; undefined: none. */
  troubles: (Error | undefined)[] = [];
  openError: Error | null = null;
  /** Awaited in these steps. */
  hold: Partial<Record<'attend' | 'attach' | 'release', Promise<void>>> = {};
  waits = false;
  #running = 0;
  #isHeld = false;

  readonly open = (): void => {
    this.log.push('open');
    if (this.openError !== null) throw this.openError;
  };

  readonly attend = (signal: AbortSignal): Promise<boolean> | null => {
    if (!this.waits) return null;
    return this.#step('attend', async () => {
      const aborted = new Promise<void>((resolve) =>
        signal.addEventListener('abort', () => resolve(), { once: true }),
      );
      if (!signal.aborted) await Promise.race([this.hold.attend, aborted]);
      return !signal.aborted;
    });
  };

  readonly attach = (): Promise<void> =>
    this.#step('attach', async () => {
      expect(this.#isHeld).toBe(false);
      this.#isHeld = true;
      await this.hold.attach;
      const trouble = this.troubles.shift();
      if (trouble !== undefined) throw trouble;
    });

  readonly release = (isLast: boolean): Promise<void> =>
    this.#step(isLast ? 'release for good' : 'release', async () => {
      expect(this.#isHeld).toBe(true);
      await this.hold.release;
      this.#isHeld = false;
    });

  readonly close = (): void => {
    expect(this.#running).toBe(0);
    expect(this.#isHeld).toBe(false);
    this.log.push('close');
  };

  readonly explain = (error: unknown): Trouble | null =>
    error instanceof Missing ? { reason: error.message } : null;

  readonly describe = (isHeld: boolean, reason: string | null) => ({
    state: isHeld ? ('running' as const) : ('waiting' as const),
    reason: isHeld ? null : reason,
  });

  async #step<T>(name: string, action: () => Promise<T>): Promise<T> {
    // One step after the other, whatever happens.
    expect(++this.#running).toBe(1);
    this.log.push(name);
    try {
      return await action();
    } finally {
      this.#running--;
    }
  }
}

let steps: TestSteps;
let events: Events;
let supervisor: Supervisor;

beforeEach(() => {
  steps = new TestSteps();
  events = new Events();
  supervisor = new Supervisor(steps, events.sink, PAUSES);
});

afterEach(() => supervisor.stop());

describe('the life of a port', () => {
  it('is opened, attached, and let go of when it is stopped', async () => {
    expect(supervisor.status).toEqual({ state: 'waiting', reason: 'not started yet' });
    await supervisor.start();
    expect(supervisor.status).toEqual({ state: 'running', reason: null });
    expect(steps.log).toEqual(['open', 'attach']);
    await supervisor.stop();
    expect(steps.log).toEqual(['open', 'attach', 'release for good', 'close']);
    expect(supervisor.status).toEqual({ state: 'stopped', reason: 'the port was stopped' });
    expect(events.all).toEqual(['disconnected']);
  });

  it('tries again what is missing, says it once, and starts after the first try', async () => {
    steps.troubles = [new Missing('no file'), new Missing('no file'), new Missing('no disk')];
    await supervisor.start();
    expect(supervisor.status).toEqual({ state: 'waiting', reason: 'no file' });
    await vi.waitUntil(() => supervisor.status.state === 'running');
    expect(events.all).toEqual(['warning: no file', 'warning: no disk']);
    expect(steps.log.filter((step) => step === 'release')).toHaveLength(3);
  });

  it('pauses twice as long each time, up to the longest pause', async () => {
    const began: number[] = [];
    steps.troubles = Array.from({ length: 7 }, () => new Missing('x'));
    const attach = vi.fn(() => {
      began.push(performance.now());
      return steps.attach();
    });
    supervisor = new Supervisor({ ...steps, attach }, events.sink, { minMs: 5, maxMs: 40 });
    await supervisor.start();
    await vi.waitUntil(() => began.length === 8);
    const pauses = began.slice(1).map((at, i) => at - began[i]);
    // A timer may be late, never early by more than its millisecond.
    for (const [i, least] of [5, 10, 20, 40, 40, 40, 40].entries()) {
      expect(pauses[i]).toBeGreaterThanOrEqual(least - 1.5);
    }
  });

  it('knows what the host may refuse to any kind', async () => {
    steps.troubles = [new HostError('open', 13, 'opening')];
    await supervisor.start();
    expect(supervisor.status.reason).toMatch(/^opening: open failed with EACCES/);
  });

  it('is attached again when it is lost, and of several reasons tells the first', async () => {
    await supervisor.start();
    supervisor.lose({ reason: 'peer gone', isFine: true, retry: 'soon' });
    supervisor.lose({ reason: 'and more' });
    expect(supervisor.status).toEqual({ state: 'waiting', reason: 'peer gone' });
    await vi.waitUntil(() => supervisor.status.state === 'running');
    expect(events.all).toEqual(['peer gone', 'disconnected']);
    expect(steps.log).toEqual(['open', 'attach', 'release', 'attach']);
  });

  it('can be lost while it is attached still', async () => {
    const held = Promise.withResolvers<void>();
    steps.hold.attach = held.promise;
    const started = supervisor.start();
    supervisor.lose({ reason: 'too early', retry: 'never' });
    held.resolve();
    await started;
    await vi.waitUntil(() => supervisor.status.state === 'stopped');
    expect(supervisor.status.reason).toBe('too early');
    expect(steps.log).toEqual(['open', 'attach', 'release for good']);
  });

  it('ends where only another configuration helps, and can be stopped then', async () => {
    await supervisor.start();
    supervisor.lose({ reason: 'read to the end', retry: 'never', isFine: true });
    await vi.waitUntil(() => steps.log.includes('release for good'));
    expect(supervisor.status).toEqual({ state: 'stopped', reason: 'read to the end' });
    await supervisor.stop();
    expect(steps.log).toEqual(['open', 'attach', 'release for good', 'close']);
  });

  it('starts when the other side is waited for', async () => {
    const came = Promise.withResolvers<void>();
    steps.waits = true;
    steps.hold.attend = came.promise;
    await supervisor.start();
    expect(steps.log).toEqual(['open', 'attend']);
    came.resolve();
    await vi.waitUntil(() => supervisor.status.state === 'running');
    await supervisor.stop();
    expect(steps.log).toEqual(['open', 'attend', 'attach', 'release for good', 'close']);
  });

  it('is gone when it cannot be opened', async () => {
    steps.openError = new Error('path in use');
    await expect(supervisor.start()).rejects.toThrow('path in use');
    expect(steps.log).toEqual(['open', 'close']);
    await supervisor.stop();
    expect(steps.log).toEqual(['open', 'close']);
  });

  it('hands on what is a bug, with nothing left', async () => {
    steps.troubles = [new TypeError('undefined is not a function')];
    await expect(supervisor.start()).rejects.toThrow(TypeError);
    expect(steps.log).toEqual(['open', 'attach', 'release for good', 'close']);
  });

  it('begins once', async () => {
    await supervisor.start();
    expect(() => supervisor.start()).toThrow('a port is started once');
  });
});

describe('a port that is stopped', () => {
  it('before it starts does not start', async () => {
    await supervisor.stop();
    await supervisor.start();
    expect(steps.log).toEqual([]);
  });

  it('twice at once ends once', async () => {
    await supervisor.start();
    await Promise.all([supervisor.stop(), supervisor.stop(), supervisor.stop()]);
    expect(steps.log).toEqual(['open', 'attach', 'release for good', 'close']);
  });

  it('while it waits for the other side waits no longer', async () => {
    steps.waits = true;
    steps.hold.attend = new Promise(() => {});
    await supervisor.start();
    await supervisor.stop();
    expect(steps.log).toEqual(['open', 'attend', 'close']);
  });

  it.each([undefined, new Missing('gone meanwhile')])(
    'while it attaches gives back what that got (%s)',
    async (trouble) => {
      const held = Promise.withResolvers<void>();
      steps.hold.attach = held.promise;
      steps.troubles = [trouble];
      const started = supervisor.start();
      const stopped = supervisor.stop();
      held.resolve();
      await Promise.all([started, stopped]);
      expect(steps.log).toEqual(['open', 'attach', 'release for good', 'close']);
      expect(events.all.filter((text) => text.startsWith('warning'))).toEqual([]);
    },
  );

  it('while it lets go waits for that', async () => {
    const held = Promise.withResolvers<void>();
    await supervisor.start();
    steps.hold.release = held.promise;
    supervisor.lose({ reason: 'lost' });
    await vi.waitUntil(() => steps.log.includes('release'));
    let isStopped = false;
    const stopped = supervisor.stop().then(() => {
      isStopped = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(isStopped).toBe(false);
    held.resolve();
    await stopped;
    expect(steps.log).toEqual(['open', 'attach', 'release', 'close']);
  });

  it('in a pause does not sit it out', async () => {
    steps.troubles = [new Missing('x')];
    supervisor = new Supervisor(steps, events.sink, { minMs: 60_000, maxMs: 60_000 });
    await supervisor.start();
    await supervisor.stop();
    expect(steps.log).toEqual(['open', 'attach', 'release', 'close']);
  });
});

describe('whatever happens when', () => {
  it.each(Array.from({ length: 60 }, (_, seed) => seed))(
    'nothing is left and no steps overlap (seed %i)',
    async (seed) => {
      const random = new Random(seed);
      const pauses = { minMs: 1, maxMs: 2 };
      steps.waits = random.chance(50);
      const turns = async (count: number): Promise<void> => {
        for (let turn = 0; turn < count; turn++) await new Promise(setImmediate);
      };
      steps.hold = {
        get attend() {
          return turns(random.between(0, 4));
        },
        get attach() {
          return turns(random.between(0, 4));
        },
        get release() {
          return turns(random.between(0, 4));
        },
      };
      steps.troubles = Array.from({ length: 40 }, (_, i) =>
        random.chance(50) ? new Missing(`${i}`) : undefined,
      );
      supervisor = new Supervisor(steps, events.sink, pauses);
      const stopAfterStep = random.between(0, 60);
      const started = random.chance(90) ? supervisor.start() : null;
      let stopped: Promise<void> | null = null;
      for (let i = 0; i < 80; i++) {
        if (i === stopAfterStep || (stopped !== null && random.chance(20))) stopped = supervisor.stop();
        if (random.chance(30)) {
          supervisor.lose({
            reason: `loss ${i}`,
            retry: random.pick(['now', 'soon', 'later', 'later', 'never']),
          });
        }
        expect(supervisor.status.state).toMatch(/waiting|running|stopped/);
        await turns(random.between(0, 2));
      }
      await Promise.all([supervisor.stop(), stopped, started]);
      const count = (step: string): number => steps.log.filter((each) => each.startsWith(step)).length;
      expect(count('open')).toBe(started === null ? 0 : 1);
      expect(count('close')).toBe(started === null ? 0 : 1);
      expect(count('release')).toBe(count('attach'));
      if (started !== null) expect(steps.log.at(-1)).toBe('close');
      const said = steps.log.length;
      await new Promise((resolve) => setTimeout(resolve, 10));
      expect(steps.log.length).toBe(said);
    },
  );
});
