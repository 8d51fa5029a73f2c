/** A process of its own that touches what is not there, for losses.test.ts: `faulting-program.ts CASE [survive]`. */
import { libc } from '../../src/host/libc.ts';
import { createMemoryFile, mapFile, viewMemory } from '../../src/host/mapping.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';

const [what, isSurvivor] = process.argv.slice(2);
const BYTES = 8192;
const arena = Arena.reserve(2 ** 32);
const view = new ArenaView(arena.location);
const fd = createMemoryFile('guest', BYTES);
const place = { fd, fileOffset: 0, sizeBytes: BYTES, pageBytes: 4096, preferredOffset: null };

if (isSurvivor === 'survive') {
  const guest = arena.map({ ...place, mayBeLost: true });
  libc.ftruncate(fd, 0);
  console.log(view.u8[guest], arena.wasLost(guest, 1));
}
libc.ftruncate(fd, BYTES);
let read: number | undefined;
switch (what) {
  case 'other memory': {
    const address = mapFile(BYTES, fd, 'mapping');
    libc.ftruncate(fd, 0);
    [read] = new Uint8Array(viewMemory(address, BYTES));
    break;
  }
  case 'memory of our own in the arena': {
    const own = arena.map(place);
    libc.ftruncate(fd, 0);
    read = view.u8[own];
    break;
  }
  case 'kill -BUS':
    process.kill(process.pid, 'SIGBUS');
    setTimeout(() => console.log('lives'), 1000);
    break;
}
if (read !== undefined) console.log('lives');
