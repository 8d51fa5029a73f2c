/** Says on which processors its threads may run, once all but its own were kept off the first one that is allowed. */
import { readdirSync, readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { allowedCpus, keepOff } from '../../src/host/affinity.ts';

const before = allowedCpus();
keepOff(before.slice(0, 1));
new Worker('', { eval: true }).on('online', () => {
  const masks = readdirSync('/proc/self/task').map(
    (thread) =>
      /^Cpus_allowed_list:\s*(.*)$/m.exec(readFileSync(`/proc/self/task/${thread}/status`, 'utf8'))?.[1],
  );
  const after = allowedCpus();
  keepOff(after);
  process.stdout.write(JSON.stringify({ before, after, masks: [...new Set(masks)], kept: allowedCpus() }));
});
