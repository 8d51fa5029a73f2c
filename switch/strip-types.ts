/** TypeScript to JavaScript by Node itself, line for line. */
import { stripTypeScriptTypes } from 'node:module';

/** Node would say on stderr, once a thread, that this is an experiment of its own. @throws Error when it is no TypeScript */
export function withoutTypes(text: string): string {
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    return stripTypeScriptTypes(text, { mode: 'strip' });
  } finally {
    process.emitWarning = emitWarning;
  }
}
