/** Serves the web page and the control API at an address of their own. Main thread; loaded only where that is wanted. */
import { type ListenAddress, listenText } from '../config/kinds/values.ts';
import { ConfigError } from '../config/settings.ts';
import { type ControlSource, controlApi } from '../control/api.ts';
import { type ControlHandler, serveControl, serveTcp } from '../control/serve.ts';
import { type WebSource, webHandler } from './handler.ts';

/** The API but for handing the process over: sockets and descriptors cannot come by this way, however their path is written. */
export function pageApi({ takeOver: _, ...source }: ControlSource, version: string): ControlHandler {
  return controlApi(source, version);
}

/** Serves until the answered object is closed. `token` null: only by a socket that only this user can use. @throws ConfigError, SocketPathError */
export async function serveWeb(
  address: ListenAddress,
  token: string | null,
  api: ControlHandler,
  source: WebSource,
  warn: (message: string) => void,
): Promise<{ close(): Promise<void> }> {
  const handler = webHandler(api, source, token);
  if ('path' in address) return serveControl(address.path, handler, warn);
  try {
    return await serveTcp(address.host, address.port, handler);
  } catch (error) {
    if (!(error instanceof Error && 'syscall' in error)) throw error;
    throw new ConfigError(`web: ${listenText(address)}: ${error.message} (choose another with --web)`);
  }
}
