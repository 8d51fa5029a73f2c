/**
 * A process that plays embedded guests, as the scenarios drive it: one order at a time, each answered or
 * failed within its time. Owns the process, which holds its guests' connections until `stop`.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { withDeadline } from '../../test/peers/deadline.ts';
import { GUEST_CPU_VARIABLE, type GuestAnswers, type GuestOrder, type GuestReply } from './guest-orders.ts';

const PROGRAM = fileURLToPath(new URL('./guest-process.ts', import.meta.url));

type AnswerTo<Order extends GuestOrder> = GuestAnswers[Order['kind']];

export class GuestProcess {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #onExit = (): void => {
    this.#child.kill('SIGKILL');
  };
  #errors = '';

  constructor(cpu: number) {
    this.#child = fork(PROGRAM, [], {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      env: { ...process.env, [GUEST_CPU_VARIABLE]: String(cpu) },
      execArgv: [],
    });
    this.#exited = once(this.#child, 'exit');
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#errors = (this.#errors + text).slice(-4000);
    });
    process.once('exit', this.#onExit);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** @throws when the process cannot do it, ends, or does not answer within `timeoutMs` */
  async order<Order extends GuestOrder>(order: Order, timeoutMs: number): Promise<AnswerTo<Order>> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) throw this.#ended();
    const answered = once(this.#child, 'message') as Promise<[GuestReply]>;
    this.#child.send(order);
    const ended = this.#exited.then(() => {
      throw this.#ended();
    });
    const late = () => `the guests did not finish "${order.kind}" within ${timeoutMs} ms`;
    const [reply] = await withDeadline(Promise.race([answered, ended]), timeoutMs, late);
    if (reply.kind === 'failed') throw new Error(`embedded guests: ${reply.message}`);
    return reply.answer as AnswerTo<Order>;
  }

  async stop(): Promise<void> {
    this.#onExit();
    await this.#exited;
    process.off('exit', this.#onExit);
  }

  #ended(): Error {
    return new Error(`the guests' process ended: ${this.#errors.trim() || this.#child.signalCode}`);
  }
}
