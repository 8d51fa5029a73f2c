/** What would become of a frame: a form for the usual ones, or a frame in hex. In the browser. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { useState } from 'preact/hooks';
import type { TraceReport } from '../../trace/report.ts';
import { ask, type State } from './store.ts';

export function Trace({ state }: { state: State }): VNode {
  const [report, setReport] = useState<TraceReport | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const data = new FormData(event.target as HTMLFormElement);
    const text = (name: string): string => String(data.get(name) ?? '').trim();
    try {
      const frame =
        text('hex') === ''
          ? frameOf(text('src'), text('dst'), text('vlan'), text('type'))
          : text('hex').replace(/\s+/g, '');
      const body = JSON.stringify({ port: text('port'), frame, bytes: 60 });
      setReport(await ask<TraceReport>('/v1/trace', { method: 'POST', body }));
      setProblem(null);
    } catch (error) {
      setReport(null);
      setProblem((error as Error).message);
    }
  };
  return html`
    <form class="stacked" onSubmit=${submit}>
      <label>Comes in from <select name="port">${state.ports.map(({ name }) => html`<option>${name}</option>`)}</select></label>
      <label>Source <input name="src" value="02:00:00:00:00:01" /></label>
      <label>Destination <input name="dst" value="ff:ff:ff:ff:ff:ff" /></label>
      <label>VLAN tag <input name="vlan" inputmode="numeric" placeholder="none" /></label>
      <label>EtherType <input name="type" value="0800" /></label>
      <label class="wide">Or the frame in hex digits <input name="hex" spellcheck="false" placeholder="from the destination address on" /></label>
      <button>Trace</button>
    </form>
    <div aria-live="polite">
      ${problem !== null && html`<p class="wrong shown">${problem}</p>`}
      ${report !== null && html`<${Result} report=${report} />`}
    </div>`;
}

function Result({ report }: { report: TraceReport }): VNode {
  const { frame, steps, receivers, passedOver, drops, result } = report;
  return html`
    <p class="result"><strong>${result}</strong></p>
    <h3>The frame</h3><ul>${frame.map((line) => html`<li>${line}</li>`)}</ul>
    <h3>Step by step</h3>
    <ol class="steps">${steps.map(({ stage, text }) => html`<li><span class="stage">${stage}</span> ${text}</li>`)}</ol>
    ${drops.length > 0 && html`<ul>${drops.map(({ name, text }) => html`<li><code>${name}</code> ${text}</li>`)}</ul>`}
    ${
      receivers.length > 0 &&
      html`<h3>Who gets it</h3><ul>${receivers.map(
        ({
          port,
          mirrorOf,
          frames,
          drops: lost,
        }) => html`<li><a href=${`#ports/${encodeURIComponent(port)}`}>${port}</a>${mirrorOf === null ? '' : ` as a copy of ${mirrorOf}`}:
        ${frames.map(({ text }) => text).join('; ')}${lost.map(({ name, text }) => html` <code>${name}</code> ${text}`)}</li>`,
      )}</ul>`
    }
    ${passedOver.length > 0 && html`<h3>Who does not</h3><ul>${passedOver.map(({ port, text }) => html`<li>${port}: ${text}</li>`)}</ul>`}`;
}

/** In hex digits. @throws Error */
export function frameOf(src: string, dst: string, vlan: string, type: string): string {
  const mac = (text: string, what: string): string => {
    const digits = text.replace(/[:-]/g, '').toLowerCase();
    if (!/^[0-9a-f]{12}$/.test(digits)) throw new Error(`${what}: ${text} is no address`);
    return digits;
  };
  const etherType = type.replace(/^0x/i, '').padStart(4, '0');
  if (!/^[0-9a-f]{4}$/i.test(etherType))
    throw new Error(`EtherType: ${type} is not allowed (four hex digits)`);
  if (vlan !== '' && !(/^\d{1,4}$/.test(vlan) && Number(vlan) <= 4095))
    throw new Error(`VLAN: ${vlan} is not allowed (0 to 4095)`);
  const tag = vlan === '' ? '' : `8100${Number(vlan).toString(16).padStart(4, '0')}`;
  return `${mac(dst, 'Destination')}${mac(src, 'Source')}${tag}${etherType}`;
}
