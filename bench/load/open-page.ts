/**
 * The web page as the switch sees it while it is open: its events are asked for and read as they come. Main thread of the benchmark, or
 * a process of its own where reading them must not be in the way.
 */
import { once } from 'node:events';
import { type ClientRequest, type IncomingMessage, request } from 'node:http';

export class OpenPage {
  readonly #request: ClientRequest;
  readonly #response: IncomingMessage;
  /** What has come so far. */
  bytes = 0;

  private constructor(asked: ClientRequest, response: IncomingMessage) {
    this.#request = asked;
    this.#response = response;
    response.on('data', (part: Buffer) => {
      this.bytes += part.length;
    });
    // Ends with `close`, or with the switch.
    response.on('error', () => {});
    asked.on('error', () => {});
  }

  /** Resolves when the first events have come. */
  static async at(socketPath: string): Promise<OpenPage> {
    const asked = request({ socketPath, path: '/events', agent: false });
    asked.end();
    const [response] = (await once(asked, 'response')) as [IncomingMessage];
    if (response.statusCode !== 200) throw new Error(`/events answers ${response.statusCode}`);
    const page = new OpenPage(asked, response);
    await once(response, 'data');
    return page;
  }

  close(): void {
    this.#response.destroy();
    this.#request.destroy();
  }
}
