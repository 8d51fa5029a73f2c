/**
 * What the page is told while it is open, as server-sent events: figures each second, and the ports when one of them is not
 * what it was. A page that does not read gets the newest when it does again. Main thread.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { listPieces } from '../control/pieces.ts';
import type { PortReport } from '../control/report.ts';
import type { FiguresReport } from '../figures/report.ts';

export type EventSource = {
  figures(): FiguresReport;
  /** Each is made when it is taken. */
  ports(): Iterable<PortReport>;
  /** Of each port a text, which is another one when a person would notice something of the port. */
  glances(): Iterable<string>;
};

const PERIOD_MS = 1000;
/** After so many, others have their turn. */
const GLANCES_AT_ONCE = 128;

/** Lasts until it is cancelled. */
export function eventStream(source: EventSource, periodMs = PERIOD_MS): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let timer: NodeJS.Timeout | null = null;
  let isOver = false;
  let isTelling = false;
  let seen = '';
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        const tell = async (): Promise<void> => {
          if (isTelling || (controller.desiredSize ?? 0) <= 0) return;
          isTelling = true;
          const now = await lookAt(source.glances());
          const ports = now === seen ? '' : `event: ports\ndata: ${await listOf(source.ports())}\n\n`;
          seen = now;
          isTelling = false;
          if (isOver) return;
          controller.enqueue(
            encoder.encode(`${ports}event: figures\ndata: ${JSON.stringify(source.figures())}\n\n`),
          );
        };
        void tell();
        timer = setInterval(() => void tell(), periodMs);
        timer.unref();
      },
      cancel() {
        isOver = true;
        if (timer !== null) clearInterval(timer);
      },
    },
    { highWaterMark: 1 },
  );
}

async function lookAt(glances: Iterable<string>): Promise<string> {
  const seen: string[] = [];
  for (const glance of glances) if (seen.push(glance) % GLANCES_AT_ONCE === 0) await turn();
  return seen.join('\n');
}

async function listOf(ports: Iterable<PortReport>): Promise<string> {
  const pieces: string[] = [];
  for (const piece of listPieces(ports)) {
    pieces.push(piece);
    await turn();
  }
  return pieces.join('');
}
