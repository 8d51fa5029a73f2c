/**
 * Debian's Chromium without a window, spoken to by its DevTools protocol: pages are opened, scripts run in them, what they asked
 * for is listed, and they are photographed. Owns its process and its profile's folder. Called by the tests with real peers.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Child, startChild, TextLog, temporaryFolder } from './child.ts';

const START_MS_MAX = 60_000;
const WAIT_MS_MAX = 30_000;
const ASK_AGAIN_MS = 50;

export type Screen = {
  readonly width: number;
  readonly height: number;
  readonly isDark?: boolean;
  readonly isPhone?: boolean;
};

type Message = {
  id?: number;
  method?: string;
  params?: Record<string, unknown>;
  result?: unknown;
  error?: { message: string };
};

export class Chromium {
  readonly #child: Child;
  readonly #remove: () => Promise<void>;
  readonly #endpoint: string;

  private constructor(child: Child, endpoint: string, remove: () => Promise<void>) {
    this.#child = child;
    this.#endpoint = endpoint;
    this.#remove = remove;
  }

  static async start(): Promise<Chromium> {
    const { path: folder, remove } = await temporaryFolder('ringway-chromium-');
    const child = await startChild('chromium', [
      ...['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run'],
      ...[
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--hide-scrollbars',
      ],
      ...[`--user-data-dir=${folder}`, '--remote-debugging-port=0', 'about:blank'],
    ]);
    const log = new TextLog(child.process.stderr);
    const deadline = AbortSignal.timeout(START_MS_MAX);
    for (;;) {
      const [port] = (await readFile(join(folder, 'DevToolsActivePort'), 'utf8').catch(() => '')).split('\n');
      if (port !== '') return new Chromium(child, `127.0.0.1:${port}`, remove);
      if (deadline.aborted || child.process.exitCode !== null) {
        child.kill();
        await remove();
        throw new Error(`Chromium did not start: ${log.text.slice(-2000)}`);
      }
      await delay(ASK_AGAIN_MS);
    }
  }

  async open(url: string, screen: Screen): Promise<Page> {
    const answer = await fetch(`http://${this.#endpoint}/json/new?about:blank`, { method: 'PUT' });
    const { webSocketDebuggerUrl } = (await answer.json()) as { webSocketDebuggerUrl: string };
    const page = await Page.connect(webSocketDebuggerUrl);
    await page.show(screen);
    await page.go(url);
    return page;
  }

  async stop(): Promise<void> {
    this.#child.kill();
    await this.#child.exited;
    await this.#remove();
  }
}

export class Page {
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  #lastId = 0;
  /** Addresses of all that was asked for, and bytes that came, by type of the answer. */
  readonly requests: string[] = [];
  bytes = 0;
  /** What the page's scripts threw, and what the browser refused. */
  readonly faults: string[] = [];

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.addEventListener('message', ({ data }) => this.#heard(JSON.parse(String(data)) as Message));
  }

  static async connect(url: string): Promise<Page> {
    const socket = new WebSocket(url);
    await new Promise((resolve, reject) => {
      socket.addEventListener('open', resolve, { once: true });
      socket.addEventListener('error', () => reject(new Error(`no DevTools at ${url}`)), { once: true });
    });
    const page = new Page(socket);
    for (const domain of ['Page', 'Runtime', 'Network', 'Log']) await page.#do(`${domain}.enable`);
    return page;
  }

  async show({ width, height, isDark = false, isPhone = false }: Screen): Promise<void> {
    await this.#do('Emulation.setDeviceMetricsOverride', {
      width,
      height,
      deviceScaleFactor: 1,
      mobile: isPhone,
    });
    const features = [{ name: 'prefers-color-scheme', value: isDark ? 'dark' : 'light' }];
    await this.#do('Emulation.setEmulatedMedia', { features });
  }

  async go(url: string): Promise<void> {
    await this.#do('Page.navigate', { url });
    await this.until(`document.readyState === 'complete'`);
  }

  /** What the expression has, which may be a promise. @throws Error that it threw */
  async run<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = (await this.#do('Runtime.evaluate', {
      expression,
      awaitPromise: true,
      returnByValue: true,
    })) as { result: { value: T }; exceptionDetails?: { exception?: { description?: string } } };
    if (exceptionDetails !== undefined)
      throw new Error(exceptionDetails.exception?.description ?? 'it threw');
    return result.value;
  }

  async until(expression: string): Promise<void> {
    const deadline = AbortSignal.timeout(WAIT_MS_MAX);
    while (!(await this.run<boolean>(`Boolean(${expression})`).catch(() => false))) {
      if (deadline.aborted)
        throw new Error(
          `the page never came to ${expression}: ${this.faults.join('; ')}\n${await this.text()}`,
        );
      await delay(ASK_AGAIN_MS);
    }
  }

  /** What is to be read. */
  text(): Promise<string> {
    return this.run('document.body.innerText');
  }

  async press(key: string): Promise<void> {
    for (const type of ['keyDown', 'keyUp'])
      await this.#do('Input.dispatchKeyEvent', {
        type,
        key,
        code: key,
        windowsVirtualKeyCode: key === 'Tab' ? 9 : 13,
        ...(key === 'Enter' && type === 'keyDown' && { text: '\r' }),
      });
  }

  /** The whole page as a PNG. */
  async photograph(path: string): Promise<void> {
    const { data } = (await this.#do('Page.captureScreenshot', { captureBeyondViewport: true })) as {
      data: string;
    };
    await writeFile(path, Buffer.from(data, 'base64'));
  }

  #do(method: string, params: Record<string, unknown> = {}): Promise<unknown> {
    const id = ++this.#lastId;
    const answer = Promise.withResolvers<unknown>();
    this.#waiting.set(id, answer);
    this.#socket.send(JSON.stringify({ id, method, params }));
    return answer.promise;
  }

  #heard({ id, method, params = {}, result, error }: Message): void {
    if (id !== undefined) {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) waiting?.resolve(result);
      else waiting?.reject(new Error(error.message));
      return;
    }
    if (method === 'Network.requestWillBeSent') this.requests.push((params.request as { url: string }).url);
    if (method === 'Network.loadingFinished') this.bytes += params.encodedDataLength as number;
    if (method === 'Runtime.exceptionThrown')
      this.faults.push(
        JSON.stringify(
          (params.exceptionDetails as { exception?: { description?: string } }).exception?.description,
        ),
      );
    if (method === 'Log.entryAdded') {
      const { level, text } = params.entry as { level: string; text: string };
      if (level === 'error') this.faults.push(text);
    }
  }
}
