/** Frames of running ports into a file, by the browser. In the browser. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { CaptureReport } from '../../capture/captures.ts';
import { grouped, short } from './format.ts';
import { ask, type State, useAnswer } from './store.ts';

const PERIOD_MS = 2000;
/** A browser keeps it in memory. */
const BYTES_MAX = 512 * 2 ** 20;

type Running = { readonly id: string; readonly bytes: number };

export function CaptureView({ state }: { state: State }): VNode {
  const [running, setRunning] = useState<Running | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const ending = useRef<AbortController | null>(null);
  const { answer: captures } = useAnswer<readonly CaptureReport[]>('/v1/captures', PERIOD_MS);
  // Who leaves the view wants it no more.
  useEffect(() => () => ending.current?.abort(), []);
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const data = new FormData(event.target as HTMLFormElement);
    const ports = data.getAll('port').map(String);
    const count = String(data.get('count') ?? '').trim();
    const vlan = String(data.get('vlan') ?? '').trim();
    const body = JSON.stringify({
      ports: ports.length === 0 ? ['all'] : ports,
      direction: data.get('direction'),
      ...(count !== '' && { count: Number(count) }),
      ...(vlan !== '' && { vlan: Number(vlan) }),
    });
    setProblem(null);
    try {
      const parts = await record(body);
      if (parts.length > 0) save(new Blob(parts, { type: 'application/x-pcapng' }));
    } catch (error) {
      setProblem((error as Error).message);
    }
    setRunning(null);
  };
  const record = async (body: string): Promise<BlobPart[]> => {
    const abort = new AbortController();
    ending.current = abort;
    const response = await fetch('/v1/captures', { method: 'POST', body, signal: abort.signal });
    if (!response.ok || response.body === null)
      throw new Error((await response.json().catch(() => ({}))).detail ?? 'refused');
    const id = response.headers.get('X-Ringway-Capture') ?? '';
    const parts: BlobPart[] = [];
    let bytes = 0;
    setRunning({ id, bytes });
    for await (const part of response.body as unknown as AsyncIterable<Uint8Array<ArrayBuffer>>) {
      parts.push(part);
      bytes += part.length;
      setRunning({ id, bytes });
      if (bytes > BYTES_MAX) await end(id);
    }
    return parts;
  };
  const end = (id: string): Promise<unknown> =>
    ask(`/v1/captures/${id}`, { method: 'DELETE' }).catch(() => null);
  return html`
    <form class="stacked" onSubmit=${submit}>
      <fieldset class="wide"><legend>Ports (none: all)</legend>${state.ports.map(
        ({ name }) =>
          html`<label class="check"><input type="checkbox" name="port" value=${name} /> ${name}</label>`,
      )}</fieldset>
      <label>Direction <select name="direction"><option value="both">both</option><option value="in">in</option><option value="out">out</option></select></label>
      <label>VLAN <input name="vlan" inputmode="numeric" placeholder="all" /></label>
      <label>Frames at most <input name="count" inputmode="numeric" placeholder="no bound" /></label>
      ${
        running === null
          ? html`<button>Start</button>`
          : html`<button type="button" onClick=${() => end(running.id)}>End and save</button>`
      }
    </form>
    <p role="status">${running === null ? '' : `Recording: ${short(running.bytes)} bytes.`}</p>
    ${problem !== null && html`<p class="wrong shown" role="alert">${problem}</p>`}
    <p class="hint">Frames as pcapng, with what was dropped and why as comments. Filters and Wireshark: <code>ringway capture</code>, <code>docs/capture.md</code>.</p>
    ${
      captures !== null &&
      captures.length > 0 &&
      html`<h3>Captures that run</h3><ul>${captures.map(
        ({
          id,
          ports,
          delivered,
          lost,
        }) => html`<li>${id}: ${ports.join(', ')}; ${grouped(delivered)} frames, ${grouped(lost)} lost
        <button type="button" onClick=${() => end(String(id))}>End</button></li>`,
      )}</ul>`
    }`;
}

function save(blob: Blob): void {
  const url = URL.createObjectURL(blob);
  const link = document.createElement('a');
  link.href = url;
  link.download = `ringway-${new Date().toISOString().replace(/[:.]/g, '-')}.pcapng`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
