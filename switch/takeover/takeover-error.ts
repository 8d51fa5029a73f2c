/** The hand-over came to nothing; the message says why, for the user. */
export class TakeoverError extends Error {
  override name = 'TakeoverError';
}
