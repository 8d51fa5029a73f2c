/**
 * Loaded into the switch before its program (`node --import`): tells at a socket of its own for how long the main thread's event loop
 * was late at most, since it was asked last. Costs a timer each millisecond, which only the benchmark pays.
 */
import { createServer } from 'node:net';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { isMainThread } from 'node:worker_threads';

/** Environment variable with the path of the socket. */
export const PROBE_VARIABLE = 'RINGWAY_BENCH_PROBE';

const NS_PER_MS = 1e6;

const path = process.env[PROBE_VARIABLE];
if (isMainThread && path !== undefined) {
  const delays = monitorEventLoopDelay({ resolution: 1 });
  delays.enable();
  const server = createServer((socket) => {
    const answer = { longestMs: delays.max / NS_PER_MS, cpu: process.threadCpuUsage() };
    delays.reset();
    socket.on('error', () => {});
    socket.end(JSON.stringify(answer));
  });
  server.listen(path);
  server.unref();
}
