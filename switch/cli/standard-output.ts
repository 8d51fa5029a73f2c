/**
 * The end of a command whose standard output is a pipe: Node writes there without waiting, so what a slow reader has not
 * taken yet would be lost with the process. Main thread of commands.
 */

const givenUp = Promise.withResolvers<void>();

/** Resolves when what was written is taken, or nobody takes it any more. */
export function outputTaken(): Promise<void> {
  if (process.stdout.writableLength === 0) return Promise.resolve();
  const taken = new Promise<void>((resolve) => process.stdout.write('', () => resolve()));
  return Promise.race([taken, givenUp.promise]);
}

/** The reader has had its time; what it has not taken is lost. */
export function giveUpOutput(): void {
  givenUp.resolve();
}
