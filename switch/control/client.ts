/** Asks a running Ringway through its control socket: the other end of api.ts. Any process. */
import { type IncomingMessage, request } from 'node:http';
import { z } from 'zod';
import type { SettingFault } from '../config/settings.ts';
import { ControlError } from './control-error.ts';
import type { Problem } from './problem.ts';

const FaultJson: z.ZodType<SettingFault> = z.object({
  path: z.array(z.string()),
  text: z.string(),
  optionText: z.string().exactOptional(),
});
const ProblemJson: z.ZodType<Pick<Problem, 'detail' | 'faults'>> = z.object({
  detail: z.string(),
  faults: z.array(FaultJson).exactOptional(),
});
const ANSWER_TIMEOUT_MS = 10_000;

/** What is asked for: GET alone unless said otherwise. */
export type ControlRequest = {
  readonly method: 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly body?: unknown;
};

/**
 * The JSON that the request is answered with. The caller names the type: both ends are of one version.
 * @throws ControlError
 */
export async function askControl<T>(socketPath: string, path: string, request?: ControlRequest): Promise<T> {
  const response = await send(socketPath, path, request);
  const value = parseAnswer(await bodyOf(response), socketPath);
  if (isGranted(response)) return value as T;
  throw refusalError(response.statusCode ?? 0, value, socketPath);
}

/**
 * An answer that lasts: its headers are there, its body comes for as long as the other side sends it, or this one does not
 * destroy it. @throws ControlError
 */
export async function streamControl(
  socketPath: string,
  path: string,
  request?: ControlRequest,
): Promise<IncomingMessage> {
  const response = await send(socketPath, path, request);
  if (!isGranted(response))
    throw refusalError(response.statusCode ?? 0, parseAnswer(await bodyOf(response), socketPath), socketPath);
  // Nothing may come for long.
  response.setTimeout(0);
  return response;
}

function isGranted({ statusCode }: IncomingMessage): boolean {
  return statusCode === 200 || statusCode === 201;
}

function refusalError(status: number, value: unknown, socketPath: string): ControlError {
  const problem = ProblemJson.safeParse(value);
  const kind = status >= 400 && status < 500 ? 'refused' : 'failed';
  const { detail, faults } = problem.data ?? { detail: 'no reason' };
  // A refusal in words is all that there is to say; anything else is a matter of who answered.
  const isWorded = kind === 'refused' && problem.success;
  const message = isWorded ? detail : `${socketPath} answered ${status}: ${detail}`;
  return new ControlError(message, kind, faults, status);
}

function send(socketPath: string, path: string, wanted?: ControlRequest): Promise<IncomingMessage> {
  const method = wanted?.method ?? 'GET';
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path, method, agent: false, timeout: ANSWER_TIMEOUT_MS }, resolve);
    asked.on('timeout', () =>
      asked.destroy(new Error(`no answer within ${ANSWER_TIMEOUT_MS / 1000} seconds`)),
    );
    asked.on('error', (error) => reject(connectionError(error, socketPath)));
    asked.end(wanted?.body === undefined ? undefined : JSON.stringify(wanted.body));
  });
}

function connectionError(error: Error, socketPath: string): ControlError {
  const code = 'code' in error ? error.code : undefined;
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
    case 'ECONNREFUSED':
      return new ControlError(`no ringway is running at ${socketPath}`, 'unserved');
    case 'EACCES':
    case 'EPERM':
      return new ControlError(
        `no permission to ask the ringway at ${socketPath}: only the user that runs it may, and root`,
        'failed',
      );
    // Hung up on by who does not know HTTP (or let nobody else in), or a socket for datagrams.
    case 'ECONNRESET':
    case 'EPIPE':
    case 'EPROTOTYPE':
      return new ControlError(
        `${socketPath} does not answer as a ringway control socket: it may be the socket of a port`,
        'failed',
      );
    default:
      return new ControlError(`asking the ringway at ${socketPath}: ${error.message}`, 'failed');
  }
}

async function bodyOf(response: IncomingMessage): Promise<string> {
  response.setEncoding('utf8');
  const parts: string[] = [];
  for await (const part of response) parts.push(part);
  return parts.join('');
}

function parseAnswer(text: string, socketPath: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new ControlError(`${socketPath} does not answer as a ringway control socket`, 'failed');
  }
}
