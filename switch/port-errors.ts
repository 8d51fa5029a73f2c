/** Why the set of ports cannot be changed as asked; the control API answers each with a status of its own. */

/** There is no port of that name, or it is being removed already. */
export class NoSuchPortError extends Error {
  override name = 'NoSuchPortError';

  constructor(port: string) {
    super(`there is no port ${port}`);
  }
}

/** Another request about the same port came first; the message says which. */
export class PortConflictError extends Error {
  override name = 'PortConflictError';
}
