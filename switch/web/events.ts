/**
 * What the page is told while it is open, as server-sent events: figures each second, and the ports when one of them is not
 * what it was. A page that does not read gets the newest when it does again. Main thread.
 */
import type { PortReport } from '../control/report.ts';
import type { FiguresReport } from '../figures/report.ts';

export type EventSource = {
  figures(): FiguresReport;
  ports(): readonly PortReport[];
};

const PERIOD_MS = 1000;

/** Of a port, what a person would notice, which is little beside its counters. */
export function noticeable(port: PortReport): string {
  const { name, kind, endpoint, state, reason, shut, queuePairs, mtu, settings } = port;
  return JSON.stringify([name, kind, endpoint, state, reason, shut === null, queuePairs, mtu, settings]);
}

/** Lasts until it is cancelled. */
export function eventStream(source: EventSource, periodMs = PERIOD_MS): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let timer: NodeJS.Timeout | null = null;
  let seen = '';
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        const tell = (): void => {
          if ((controller.desiredSize ?? 0) <= 0) return;
          const ports = source.ports();
          const now = ports.map(noticeable).join('\n');
          const parts = [`event: figures\ndata: ${JSON.stringify(source.figures())}\n\n`];
          if (now !== seen) parts.unshift(`event: ports\ndata: ${JSON.stringify(ports)}\n\n`);
          seen = now;
          controller.enqueue(encoder.encode(parts.join('')));
        };
        tell();
        timer = setInterval(tell, periodMs);
        timer.unref();
      },
      cancel() {
        if (timer !== null) clearInterval(timer);
      },
    },
    { highWaterMark: 1 },
  );
}
