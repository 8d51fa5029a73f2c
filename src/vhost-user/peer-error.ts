/**
 * The front-end's or the guest's fault, as one sentence for the user. It ends a message (nack) or a
 * connection, never the process.
 */
export class PeerError extends Error {
  override name = 'PeerError';
}
