/** A guest in a process of its own: agrees on what it is offered at the socket in its argument, tells what, and leaves. */
import { descriptorLoop } from '../../src/host/event-loop.ts';
import { connectUnix } from '../../src/host/unix-socket.ts';
import { ScriptedFrontEnd, u64 } from '../vhost-user/scripted-front-end.ts';

descriptorLoop();
const front = new ScriptedFrontEnd(connectUnix(process.argv[2]));
const offered = (await front.request('GET_FEATURES')).u64;
front.send('SET_FEATURES', u64(offered));
await front.request('GET_FEATURES');
front.close();
process.stdout.write(String(offered));
process.exit(0);
