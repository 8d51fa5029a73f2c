/** The control virtqueue as a packed ring, served by the device on the main thread: answers, marks, wrap-around. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { signalFd } from '../../src/host/descriptor.ts';
import { bit, F, ringAddress, state, u64 } from '../vhost-user/scripted-front-end.ts';
import { FEATURES, ringOffsets, ringPlace, World } from './world.ts';

const INDEX = 2;
const SIZE = 5;
const [NEXT, WRITE, AVAIL, USED] = [1, 2, 0x80, 0x8000];
const COMMAND_OFFSET = 0x20_0000;
const UNANSWERED = 0xee;

let world: World;
beforeEach(() => {
  world = new World();
});
afterEach(() => world.dispose());

function descriptor(gpa: number, sizeBytes: number, id: number, flags: number): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(16));
  bytes.setBigUint64(0, BigInt(gpa), true);
  bytes.setUint32(8, sizeBytes, true);
  bytes.setUint16(12, id, true);
  bytes.setUint16(14, flags, true);
  return new Uint8Array(bytes.buffer);
}

it('answers commands in chains of two over the end of the ring, each marked by one used descriptor', async () => {
  await world.negotiate(FEATURES | bit(F.CTRL_VQ, F.PACKED));
  await world.shareMemory();
  const { front, guest } = world;
  const kickFd = front.eventFd();
  front.send('SET_VRING_NUM', state(INDEX, SIZE));
  front.send('SET_VRING_ADDR', ringAddress(INDEX, ringPlace(INDEX)));
  front.send('SET_VRING_KICK', u64(INDEX), [kickFd]);
  front.send('SET_VRING_ENABLE', state(INDEX, 1));
  await front.settle();
  const { desc } = ringOffsets(INDEX);
  let at = 0;
  let wrap = 1;
  for (let turn = 0; turn < 7; turn++) {
    const commandGpa = COMMAND_OFFSET + 64 * turn;
    const answerGpa = commandGpa + 16;
    // RX, PROMISC, on or off; every other one asks for what there is not.
    guest.write(commandGpa, [turn % 2 === 0 ? 0 : 77, 0, turn & 1]);
    guest.write(answerGpa, [UNANSWERED]);
    const first = at;
    const firstWrap = wrap;
    const owner = (): number => (wrap === 1 ? AVAIL : USED);
    const step = (): void => {
      at++;
      if (at === SIZE) {
        at = 0;
        wrap ^= 1;
      }
    };
    const head = descriptor(commandGpa, 3, 0xffff, NEXT | owner());
    step();
    guest.write(desc + 16 * at, descriptor(answerGpa, 1, 3, WRITE | owner()));
    step();
    guest.write(desc + 16 * first, head);
    signalFd(kickFd);
    await expect.poll(() => guest.read(answerGpa, 1)[0]).toBe(turn % 2 === 0 ? 0 : 1);
    const used = (firstWrap === 1 ? AVAIL | USED : 0) | WRITE;
    await expect
      .poll(() => [...guest.read(desc + 16 * first + 8, 8)])
      .toEqual([1, 0, 0, 0, 3, 0, used & 0xff, used >> 8]);
  }
  expect(world.device.rings.find((ring) => ring.index === INDEX)?.reason ?? null).toBeNull();
});
