/**
 * Threads that are started for one answer, in which plugins' code runs: ended when it has come, or when it takes too long. `answerOf`
 * is the main thread's part, `answer` that of the thread.
 */
import { parentPort, Worker, workerData } from 'node:worker_threads';
import { keepWasmCode } from '../wasm-code.ts';

/** The thread has loaded its own program. One that is ended while it loads a library takes the process with it. */
const READY = 'ready';

/** Why there is no answer. */
export class NoAnswerError extends Error {
  override name = 'NoAnswerError';
}

/** `when`: for the message of what went wrong. @throws NoAnswerError */
export function answerOf<T>(
  program: URL,
  question: unknown,
  { name, limitMs, when }: { readonly name: string; readonly limitMs: number; readonly when: string },
): Promise<T> {
  keepWasmCode();
  return new Promise((resolve, reject) => {
    const worker = new Worker(program, { workerData: question, name, stdout: true, stderr: true });
    const fail = (text: string): void => reject(new NoAnswerError(text));
    let timer: NodeJS.Timeout | undefined;
    worker.on('message', (message: typeof READY | { readonly answer: T }) => {
      if (message === READY) {
        timer = setTimeout(() => {
          fail(`it did not come to an end within ${limitMs / 1000} s when it was ${when}`);
          void worker.terminate();
        }, limitMs);
        return;
      }
      resolve(message.answer);
      void worker.terminate();
    });
    worker.once('error', (error) => fail(error.message));
    worker.once('exit', () => {
      clearTimeout(timer);
      fail(`it ended its thread when it was ${when}`);
    });
  });
}

export function answer(find: (question: unknown) => unknown): void {
  // A warning about what is stable enough (node:module) would come up in the middle of others' lines.
  process.removeAllListeners('warning');
  parentPort?.postMessage(READY);
  parentPort?.postMessage({ answer: find(workerData) });
}
