/**
 * Gets what the testbed measures with onto the machine: QEMU, testpmd, and the guests' kernels into the cache folder.
 * Run when the image `peers` is built; outside of containers each row sees to it by itself.
 */
import { ensurePeers } from '../../test/peers/index.ts';

const { missing } = await ensurePeers(['qemu', 'emulated-cards', 'testpmd']);
for (const [peer, reason] of missing) process.stderr.write(`${peer}: ${reason}\n`);
process.exitCode = missing.size === 0 ? 0 : 1;
