/**
 * A Prometheus of Debian's own, on this host's loopback, that asks one address each second, as its users set it up. Owns its process and
 * its folder. Called by the tests with real peers.
 */
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Child, startChild, TextLog, temporaryFolder } from './child.ts';

const ASK_AGAIN_MS = 200;
const WAIT_MS_MAX = 60_000;

export type PrometheusSetup = {
  /** Of the job `ringway`. */
  readonly target: string;
  readonly credentialsFile?: string;
  readonly ruleFiles?: readonly string[];
};

/** A sample of an instant query. */
export type QueryResult = { readonly labels: Readonly<Record<string, string>>; readonly value: number };

type Answer<T> = { readonly status: string; readonly data: T };
type Vector = {
  readonly result: { readonly metric: Record<string, string>; readonly value: [number, string] }[];
};

export class Prometheus {
  readonly #child: Child;
  readonly #log: TextLog;
  readonly #address: string;
  readonly #remove: () => Promise<void>;

  private constructor(child: Child, address: string, remove: () => Promise<void>) {
    this.#remove = remove;
    this.#child = child;
    this.#log = new TextLog(child.process.stderr);
    this.#address = address;
  }

  /** Resolves when it answers. */
  static async start({ target, credentialsFile, ruleFiles = [] }: PrometheusSetup): Promise<Prometheus> {
    const { path: folder, remove } = await temporaryFolder('ringway-prometheus-');
    const config = {
      global: { scrape_interval: '1s', evaluation_interval: '1s' },
      rule_files: ruleFiles,
      scrape_configs: [
        {
          job_name: 'ringway',
          static_configs: [{ targets: [target] }],
          ...(credentialsFile !== undefined && { authorization: { credentials_file: credentialsFile } }),
        },
      ],
    };
    const file = join(folder, 'prometheus.yml');
    // YAML takes JSON too.
    await writeFile(file, JSON.stringify(config));
    const address = `127.0.0.1:${await freeTcpPort()}`;
    const child = await startChild('prometheus', [
      `--config.file=${file}`,
      `--storage.tsdb.path=${join(folder, 'data')}`,
      `--web.listen-address=${address}`,
    ]);
    const prometheus = new Prometheus(child, address, remove);
    await prometheus.until('is ready', async () => (await fetch(`http://${address}/-/ready`)).ok);
    return prometheus;
  }

  async query(text: string): Promise<QueryResult[]> {
    const { result } = await this.#ask<Vector>(`query?${new URLSearchParams({ query: text })}`);
    return result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
  }

  /** Names and faults of all alert rules. */
  async rules(): Promise<{ readonly name: string; readonly health: string; readonly lastError?: string }[]> {
    type Groups = {
      readonly groups: { readonly rules: { name: string; health: string; lastError?: string }[] }[];
    };
    const { groups } = await this.#ask<Groups>('rules');
    return groups.flatMap(({ rules }) => rules);
  }

  async #ask<T>(path: string): Promise<T> {
    const response = await fetch(`http://${this.#address}/api/v1/${path}`);
    const answer = (await response.json()) as Answer<T>;
    if (answer.status !== 'success') throw new Error(`Prometheus: ${JSON.stringify(answer)}`);
    return answer.data;
  }

  /** Asked again and again; what it has seen comes to it with the next scrape. */
  async until(what: string, holds: () => Promise<boolean>): Promise<void> {
    const deadline = AbortSignal.timeout(WAIT_MS_MAX);
    while (!(await holds().catch(() => false))) {
      if (deadline.aborted || this.#child.hasExited())
        throw new Error(`not so: Prometheus ${what}; its log:\n${this.#log.text}`);
      await delay(ASK_AGAIN_MS);
    }
  }

  async stop(): Promise<void> {
    this.#child.kill();
    await this.#child.exited;
    await this.#remove();
  }
}

/** One that nobody has at this moment. */
export async function freeTcpPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('a server without a port');
  return address.port;
}
