/**
 * Long answers in pieces: of a thousand ports it is megabytes, and making all of it at once would keep the main thread from
 * everything else for tens of milliseconds. Between two pieces others have their turn. Main thread.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { printableJson } from '../../src/host/printable.ts';

/** Of a piece, about: a millisecond's work. */
const PIECE_CHARS = 2 ** 16;

/** As the body of an answer; nothing is made before it is wanted. */
export function piecesStream(pieces: Iterator<string>): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream({
    async pull(controller) {
      await turn();
      const next = pieces.next();
      if (next.done === true) controller.close();
      else controller.enqueue(encoder.encode(next.value));
    },
  });
}

/** A list as JSON; each of its values is made when its turn comes. Never none. */
export function* listPieces(values: Iterable<unknown>): Generator<string> {
  let piece = '[';
  let isFirst = true;
  for (const value of values) {
    piece += isFirst ? '' : ',';
    piece += printableJson(JSON.stringify(value));
    isFirst = false;
    if (piece.length < PIECE_CHARS) continue;
    yield piece;
    piece = '';
  }
  yield `${piece}]`;
}
