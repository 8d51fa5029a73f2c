/** The thread of a trace that asks plugins, with a memory of its own. Whoever started it (tracer.ts) ends it when it takes too long. */
import { Window } from '../../src/memory/window.ts';
import { answer } from '../plugin/short-thread.ts';
import { AskedPlugins } from './asked-plugins.ts';
import { runTrace, TRACE_BYTES } from './trace-run.ts';
import type { PluginTraceInput } from './tracer.ts';

answer((question) => {
  const input = question as PluginTraceInput;
  const memory = new ArrayBuffer(TRACE_BYTES);
  const arena = {
    buffer: memory,
    u8: new Uint8Array(memory),
    windows: [new Window(memory, 0)],
    word16At: () => 0,
    bytesAt: (offset: number, sizeBytes: number) => new Uint8Array(memory.slice(offset, offset + sizeBytes)),
  };
  return runTrace(input, arena, 0, new AskedPlugins(input.plugins));
});
