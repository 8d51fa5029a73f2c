/**
 * A process of its own for vhost-user.test.ts: a port whose process may open no more descriptors when a
 * front-end connects. Prints what the port said, a line each. Started with `ulimit -n` set.
 */

import { closeFds, duplicateFd } from '../../src/host/descriptor.ts';
import { connectUnix, send } from '../../src/host/unix-socket.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { VhostUserPort } from '../../src/port/vhost-user/port.ts';
import type { DataPath } from '../../src/queue/data-path.ts';
import { ID, message, none } from '../vhost-user/scripted-front-end.ts';

const done = async (): Promise<void> => {};
const dataPath: DataPath = {
  attach: done,
  detach: done,
  setCallFd: done,
  setMemory: done,
  setLog: done,
  announce: done,
  setPolicy: done,
};
const arena = Arena.reserve(2 ** 32);
const warned = Promise.withResolvers<void>();
const connected = Promise.withResolvers<void>();

const port = new VhostUserPort(
  {
    socketPath: process.argv[2],
    role: 'server',
    listen: {},
    device: { queuePairsMax: 1, configSpace: false, mac: null, mtu: null },
  },
  {
    id: 0,
    name: 'vm0',
    arena,
    arenaView: new ArenaView(arena.location),
    dataPath,
    events: {
      disconnected: () => {},
      info: (text) => {
        console.log(text);
        connected.resolve();
      },
      warn: (text) => {
        console.log(`warning: ${text}`);
        warned.resolve();
      },
    },
  },
);
// Node opens what it prints with at the first line.
console.log('begin');
port.start();
const client = connectUnix(process.argv[2]);
send(client, message(ID.GET_FEATURES, none()));
const fillers: number[] = [];
try {
  for (;;) fillers.push(duplicateFd(client));
} catch {
  // No more may be open.
}
await warned.promise;
closeFds(fillers);
await connected.promise;
await port.stop();
closeFds([client]);
