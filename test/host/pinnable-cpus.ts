/** Says what it may use and where it can be pinned to, and pins itself to the last of those. */
import { allowedCpus, pinnableCpus, pinThread } from '../../src/host/affinity.ts';

const allowed = allowedCpus();
const pinnable = pinnableCpus();
if (allowedCpus().join() !== allowed.join()) throw new Error('to ask is to change it');
pinThread(pinnable[pinnable.length - 1]);
process.stdout.write(JSON.stringify({ allowed, pinnable, pinnedTo: allowedCpus() }));
