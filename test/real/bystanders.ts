/**
 * Two guests that talk to each other while something happens to a third: each frame is checked by the other before the
 * next is sent, so a single one that is lost, or a switch that stands still, shows. Broadcasts among them reach the
 * third guest. In the test's own process.
 */
import { EmbeddedGuest } from '../../src/frontend/net-device.ts';
import { withDeadline } from '../peers/deadline.ts';
import type { RingwayProcess } from './ringway-process.ts';

const FRAME_BYTES = 128;
const PASS_MS_MAX = 30_000;
const BROADCAST = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];

export class Bystanders {
  readonly #guests: readonly [EmbeddedGuest, EmbeddedGuest];
  /** Frames that arrived as they were sent. */
  frames = 0;

  private constructor(guests: readonly [EmbeddedGuest, EmbeddedGuest]) {
    this.#guests = guests;
  }

  static async connect(ringway: RingwayProcess, ports: readonly [string, string]): Promise<Bystanders> {
    const [first, second] = await Promise.all(
      ports.map((port, i) =>
        EmbeddedGuest.connect({
          socketPath: ringway.socket(port),
          waitMs: 10_000,
          mac: `52:54:00:00:01:0${i}`,
        }),
      ),
    );
    return new Bystanders([first!, second!]);
  }

  /** Exchanges frames until `isOver` says so, asked after each round, and `roundsAfter` rounds more. */
  async exchange(isOver: () => boolean | Promise<boolean>, roundsAfter = 100): Promise<void> {
    for (let left = roundsAfter; left > 0; ) {
      for (const [from, to] of [[...this.#guests], [...this.#guests].reverse()]) {
        // Beyond what the rings hold, so that every buffer of the third guest has its turn.
        for (let i = 0; i < 16; i++) await this.#pass(from!, to!, i % 2 === 0);
      }
      if (left < roundsAfter || (await isOver())) left--;
    }
  }

  close(): void {
    for (const guest of this.#guests) guest.close();
  }

  async #pass(from: EmbeddedGuest, to: EmbeddedGuest, isBroadcast: boolean): Promise<void> {
    const frame = new Uint8Array(FRAME_BYTES);
    frame.set(isBroadcast ? BROADCAST : to.mac);
    frame.set(from.mac, 6);
    new DataView(frame.buffer).setUint32(20, this.frames);
    if (!from.send(frame)) throw new Error('the switch takes no frames');
    const arrived = Promise.race([to.received(), to.closed]);
    const came = await withDeadline(arrived, PASS_MS_MAX, () => `frame ${this.frames} does not arrive`);
    if (came === undefined) throw new Error('the switch ended');
    if (Buffer.compare(came, frame) !== 0) throw new Error(`frame ${this.frames} was lost or changed`);
    this.frames++;
  }
}
