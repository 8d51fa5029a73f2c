/**
 * A device on its way from one process to the next: vhost-user messages that bring a fresh device to what the front-end
 * said to the old one, carried out by the ordinary handlers without replies, and besides them what no message tells: where
 * each ring stands. All of it is plain JSON; descriptors are numbers that whoever carries it translates. Main thread.
 */
import { type BodyValues, decodeBody, encodeBody } from '../../protocol/vhost-user/codec.ts';
import { type BodyOf, MESSAGES, type MessageName } from '../../protocol/vhost-user/messages.ts';
import type { PeerFds } from '../host/peer-fds.ts';
import { type BackEnd, handle } from '../vhost-user/handlers.ts';
import { IncomingFds } from '../vhost-user/incoming-fds.ts';
import { PeerError } from '../vhost-user/peer-error.ts';
import type { RingLayoutKind } from '../vring/attachment.ts';
import type { HandedInBand } from './in-band.ts';

/** It cannot be handed over, and stays where it is; the message says why. */
export class HandOverError extends Error {
  override name = 'HandOverError';
}

export type HandedMessage = {
  readonly name: string;
  /** As on the wire, in base64. */
  readonly payload: string;
  readonly fds: readonly number[];
};

/** A ring as no message tells it; the words are those of QueueState. */
export type HandedRing = {
  readonly index: number;
  readonly base: number | null;
  readonly ranAs: RingLayoutKind | null;
  readonly goesOn: boolean;
  readonly addressesAreOld: boolean;
  readonly addressesWereUsed: boolean;
  readonly wasOwnQueue: boolean;
  readonly wasRemarkedOn: boolean;
  readonly enabled: boolean;
  readonly availNext: number;
  readonly usedNext: number;
  readonly fault: number;
  readonly reason: string | null;
  /** Its kick descriptor is the back-end's, signalled when the front-end kicks by message. */
  readonly kickIsOurs: boolean;
  readonly stoodAtReset: number | null;
};

/** What no message tells of a device, beside its rings; the words are those of Device. */
export type HandedDevice = {
  readonly status: number;
  readonly featuresRefused: boolean;
  readonly isLogBehind: boolean;
  readonly inBand: HandedInBand;
};

/** The caller keeps `fds`. */
export function handedMessage<Name extends MessageName>(
  name: Name,
  body: BodyValues[BodyOf<Name>],
  fds: readonly number[] = [],
): HandedMessage {
  const payload = encodeBody(MESSAGES[name].body, body as never);
  return { name, payload: Buffer.from(payload).toString('base64'), fds };
}

/**
 * Carries them out, one after the other. Takes over their descriptors, but closes none when it throws: they are the other
 * process's too, a socket would be shut down there as well, and this one comes to its end. `isAlone`: there is no other
 * process any more, and it closes them.
 * @throws PeerError, FormError, MemoryError, HostError
 */
export async function carryOut(
  messages: readonly HandedMessage[],
  backEnd: BackEnd,
  peerFds: PeerFds,
  gone: AbortSignal,
  isAlone = false,
): Promise<void> {
  for (const [i, message] of messages.entries()) {
    const fds = new IncomingFds(message.fds, peerFds, gone);
    try {
      const name = nameOf(message.name);
      const payload = Buffer.from(message.payload, 'base64');
      await handle(backEnd.handlers, name, decodeBody(MESSAGES[name].body, payload), fds);
    } catch (error) {
      if (isAlone) {
        fds.closeRest();
        for (const later of messages.slice(i + 1)) peerFds.close(later.fds);
      }
      throw error;
    }
    fds.closeRest();
  }
}

function nameOf(name: string): MessageName {
  if (!Object.hasOwn(MESSAGES, name)) throw new PeerError(`message ${name} is unknown`);
  return name as MessageName;
}
