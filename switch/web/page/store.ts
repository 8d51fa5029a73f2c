/** What the page knows: told by server-sent events, kept for as long as the page is open. In the browser. */
import { useEffect, useState } from 'preact/hooks';
import type { PortReport } from '../../control/report.ts';
import type { FiguresReport } from '../../figures/report.ts';

/** Seconds that charts go back. */
export const HISTORY_SECONDS = 300;

export type Point = {
  readonly atSeconds: number;
  readonly rxPackets: number;
  readonly txPackets: number;
  readonly rxBits: number;
  readonly txBits: number;
  /** Frames dropped a second, by reason; those that there were. */
  readonly drops: Readonly<Record<string, number>>;
};

export type State = {
  /** lost: the switch does not answer; the browser tries again by itself. */
  readonly link: 'connecting' | 'live' | 'lost';
  readonly figures: FiguresReport | null;
  readonly ports: readonly PortReport[];
  readonly history: readonly Point[];
};

let state: State = { link: 'connecting', figures: null, ports: [], history: [] };
const listeners = new Set<() => void>();

function become(change: Partial<State>): void {
  state = { ...state, ...change };
  for (const listener of listeners) listener();
}

/** Listens to the switch until the page is closed. */
export function listen(): void {
  const source = new EventSource('/events');
  source.addEventListener('open', () => become({ link: 'live' }));
  source.addEventListener('error', () => {
    become({ link: 'lost' });
    // An answer that is no stream is not asked for again: the token may be another one.
    if (source.readyState === EventSource.CLOSED) setTimeout(reconnect, 2000);
  });
  source.addEventListener('ports', ({ data }) => become({ ports: JSON.parse(data) }));
  source.addEventListener('figures', ({ data }) => {
    const figures: FiguresReport = JSON.parse(data);
    const point = pointOf(figures, state.figures);
    const history = [...state.history, point].slice(-HISTORY_SECONDS);
    become({ figures, history, link: 'live' });
  });
}

async function reconnect(): Promise<void> {
  const answer = await fetch('/v1/version').catch(() => null);
  if (answer?.status === 401) location.assign('/login');
  else if (answer?.ok === true) listen();
  else setTimeout(reconnect, 2000);
}

const sum = (values: readonly (number | undefined)[]): number =>
  values.reduce<number>((total, value) => total + (value ?? 0), 0);

function pointOf(figures: FiguresReport, before: FiguresReport | null): Point {
  const rate = (name: 'rxPackets' | 'txPackets' | 'rxBytes' | 'txBytes'): number =>
    sum(figures.ports.map(({ rates }) => rates[name][0]));
  const seconds = before === null ? 0 : figures.upSeconds - before.upSeconds;
  // Another process begins at 0.
  const dropped = Object.entries(figures.drops).map(
    ([name, count]) =>
      [name, seconds > 0 ? Math.max(0, count - (before?.drops[name as never] ?? 0)) / seconds : 0] as const,
  );
  return {
    atSeconds: Date.now() / 1000,
    rxPackets: rate('rxPackets'),
    txPackets: rate('txPackets'),
    rxBits: 8 * rate('rxBytes'),
    txBits: 8 * rate('txBytes'),
    drops: Object.fromEntries(dropped.filter(([, count]) => count > 0)),
  };
}

export function useStore(): State {
  const [now, setNow] = useState(state);
  useEffect(() => {
    const listener = (): void => setNow(state);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
  return now;
}

/** What the control API answers to a question, asked anew when `key` changes and each `periodMs`. */
export function useAnswer<T>(
  path: string,
  periodMs: number,
): { readonly answer: T | null; readonly problem: string | null } {
  const [result, setResult] = useState<{ answer: T | null; problem: string | null }>({
    answer: null,
    problem: null,
  });
  useEffect(() => {
    let isOver = false;
    const look = async (): Promise<void> => {
      const next = await ask<T>(path).then(
        (answer) => ({ answer, problem: null }),
        (error: Error) => ({ answer: null, problem: error.message }),
      );
      if (!isOver) setResult(next);
    };
    void look();
    const timer = setInterval(look, periodMs);
    return () => {
      isOver = true;
      clearInterval(timer);
    };
  }, [path, periodMs]);
  return result;
}

/** @throws Error with the switch's own reason */
export async function ask<T>(path: string, init?: RequestInit): Promise<T> {
  const response = await fetch(path, init);
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body as T;
  throw new Error(body.detail ?? `the switch answered ${response.status}`);
}
