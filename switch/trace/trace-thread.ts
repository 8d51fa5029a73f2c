/** The thread of a trace that asks plugins, with a memory of its own. Whoever started it (tracer.ts) ends it when it takes too long. */
import { plainArena } from '../../src/memory/plain-arena.ts';
import { answer } from '../plugin/short-thread.ts';
import { AskedPlugins } from './asked-plugins.ts';
import { runTrace, TRACE_BYTES } from './trace-run.ts';
import type { PluginTraceInput } from './tracer.ts';

answer((question) => {
  const input = question as PluginTraceInput;
  return runTrace(input, plainArena(TRACE_BYTES), 0, new AskedPlugins(input.plugins));
});
