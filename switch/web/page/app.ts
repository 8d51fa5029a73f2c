/** The page: its head, its views and which one is shown. In the browser. */
import { html, render } from 'htm/preact';
import type { VNode } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { Addresses } from './addresses.ts';
import { CaptureView } from './capture.ts';
import { Drops } from './drops.ts';
import { duration, placeOf } from './format.ts';
import { Overview } from './overview.ts';
import { Ports } from './ports.ts';
import { listen, type State, useStore } from './store.ts';
import { Trace } from './trace.ts';

type View = (props: { state: State; rest: string }) => VNode;

const VIEWS: Readonly<Record<string, readonly [title: string, view: View]>> = {
  overview: ['Overview', Overview],
  ports: ['Ports', Ports],
  drops: ['Drops', Drops],
  addresses: ['Addresses', Addresses],
  trace: ['Trace', Trace],
  capture: ['Capture', CaptureView],
};

const WORDS_OF_LINK = {
  connecting: 'connecting…',
  live: 'live',
  lost: 'the switch does not answer',
} as const;

function useHash(): readonly [name: string, rest: string] {
  const read = (): readonly [string, string] => placeOf(location.hash, Object.keys(VIEWS));
  const [hash, setHash] = useState(read);
  useEffect(() => {
    const follow = (): void => setHash(read());
    addEventListener('hashchange', follow);
    return () => removeEventListener('hashchange', follow);
  }, []);
  return hash;
}

function App(): VNode {
  const state = useStore();
  const [name, rest] = useHash();
  const [title, view] = VIEWS[name];
  useEffect(() => {
    document.title = `Ringway: ${title}`;
  }, [title]);
  const { figures, link } = state;
  return html`
    <a class="skip" href="#main" onClick=${toMain}>To the content</a>
    <header>
      <h1>Ringway</h1>
      <nav aria-label="Views">${Object.entries(VIEWS).map(
        ([key, [text]]) =>
          html`<a href=${`#${key}`} aria-current=${key === name ? 'page' : null}>${text}</a>`,
      )}</nav>
      <p class=${`link ${link}`} role="status">${WORDS_OF_LINK[link]}${figures === null ? '' : `, ${figures.version}, up ${duration(figures.upSeconds)}`}</p>
    </header>
    <main id="main" tabindex="-1"><h2>${title}</h2>
      ${figures === null ? html`<p class="hint">Nothing is known yet.</p>` : html`<${view} key=${name} state=${state} rest=${rest} />`}
    </main>`;
}

/** The hash says which view is shown. */
function toMain(event: Event): void {
  event.preventDefault();
  document.getElementById('main')?.focus();
}

listen();
const place = document.getElementById('app');
if (place !== null) {
  place.textContent = '';
  render(html`<${App} />`, place);
}
